//! Finds tenants and integrations by id or by name.

use bursar_core::{IntegrationId, ParseIdError, TenantId};
use serde::Deserialize;

use super::api_client::ApiClient;
use super::reply::ClientError;

#[derive(Deserialize)]
struct Named {
    id: String,
    name: String,
}

impl ApiClient {
    /// Selects the tenant of all further requests, by id or by name.
    ///
    /// # Errors
    /// [`ClientError`] if the name is unknown or ambiguous, or if a tenant is required.
    pub(crate) fn select_tenant(&mut self, tenant: Option<&str>) -> Result<(), ClientError> {
        self.tenant = match tenant {
            Some(named) => Some(self.find_tenant(named)?),
            None if self.is_operator() => {
                let message = "a tenant is required: give --tenant with an id or a name (`bursar \
                               tenant list`), or an API key (BURSAR_API_KEY)";
                return Err(ClientError::new(message));
            }
            None => None,
        };
        Ok(())
    }

    /// The id of a tenant that is given by id or by name.
    ///
    /// # Errors
    /// [`ClientError`] if the name is unknown or ambiguous.
    pub(crate) fn find_tenant(&self, named: &str) -> Result<String, ClientError> {
        let is_operator = self.is_operator();
        match TenantId::parse(named) {
            Ok(_) | Err(ParseIdError::Unknown) if is_operator => {
                let found = self.ask("GET", &format!("/tenants/{named}"), None);
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
            let message = "an API key belongs to one tenant: leave --tenant out, or give its id";
            return Err(ClientError::new(message));
        }
        unique(self, "/tenants", "tenant", named)
    }

    /// The id of an integration that is given by id or by name.
    ///
    /// # Errors
    /// [`ClientError`] if the name is unknown or ambiguous.
    pub(crate) fn find_integration(&self, named: &str) -> Result<String, ClientError> {
        match IntegrationId::parse(named) {
            Ok(_) | Err(ParseIdError::Unknown) => Ok(named.to_owned()),
            Err(ParseIdError::NotUuid) => unique(self, "/integrations", "integration", named),
        }
    }
}

/// The id of the only row of a list with this name.
fn unique(client: &ApiClient, path: &str, noun: &str, name: &str) -> Result<String, ClientError> {
    let mut ids = Vec::new();
    for row in client.list(path)? {
        let read: Result<Named, _> = serde_json::from_str(row.get());
        let read = read.map_err(|_| ClientError::new("the server's list has an unknown form"))?;
        if read.name == name {
            ids.push(read.id);
        }
    }
    match ids.as_slice() {
        [id] => Ok(id.clone()),
        [] => Err(ClientError::new(format!("no {noun} has the id or name {name:?}"))),
        several => Err(ClientError::new(format!(
            "{} {noun}s have the name {name:?}; give the id of one: {}",
            several.len(),
            several.join(", ")
        ))),
    }
}
