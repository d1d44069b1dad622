//! Names in the place of ids.

use bursar_core::{IntegrationId, ParseIdError, TenantId};
use serde::Deserialize;

use super::{ClientError, Door, Origin};

#[derive(Deserialize)]
struct Named {
    id: String,
    name: String,
}

/// The id of a tenant that is named by its id or by its name.
pub(super) fn tenant(door: &Door, named: &str) -> Result<String, ClientError> {
    let is_operator = !matches!(door.credential.origin, Origin::ApiKey);
    match TenantId::parse(named) {
        Ok(_) | Err(ParseIdError::Unknown) if is_operator => {
            let found = door.ask("GET", &format!("/tenants/{named}"), None);
            return found.map(|_| named.to_owned()).map_err(|error| match error {
                ClientError::Refused { message, code, hint } => ClientError::Refused {
                    message: format!("tenant {named}: {message}"),
                    code,
                    hint,
                },
                ClientError::NotAsked(_) => error,
            });
        }
        Ok(_) | Err(ParseIdError::Unknown) => return Ok(named.to_owned()),
        Err(ParseIdError::NotUuid) => {}
    }
    if !is_operator {
        let message = "an API key belongs to a tenant already: leave --tenant out, or give its id";
        return Err(ClientError::new(message));
    }
    unique(door, "/tenants", "tenant", named)
}

/// The id of an integration that is named by its id or by its name.
pub(super) fn integration(door: &Door, named: &str) -> Result<String, ClientError> {
    match IntegrationId::parse(named) {
        Ok(_) | Err(ParseIdError::Unknown) => Ok(named.to_owned()),
        Err(ParseIdError::NotUuid) => unique(door, "/integrations", "integration", named),
    }
}

/// The id of the only row of a list that has a name.
fn unique(door: &Door, path: &str, noun: &str, name: &str) -> Result<String, ClientError> {
    let mut ids = Vec::new();
    for row in door.list(path)? {
        let read: Result<Named, _> = serde_json::from_str(row.get());
        let read = read.map_err(|_| ClientError::new("the list is not understood"))?;
        if read.name == name {
            ids.push(read.id);
        }
    }
    match ids.as_slice() {
        [id] => Ok(id.clone()),
        [] => Err(ClientError::new(format!("there is no {noun} of the id or name {name:?}"))),
        several => Err(ClientError::new(format!(
            "{} {noun}s have the name {name:?}; give the id of one: {}",
            several.len(),
            several.join(", ")
        ))),
    }
}
