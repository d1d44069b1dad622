//! Checks that callers grant to keys only what they may do themselves.

use crate::auth::authorize::Authorized;
use crate::auth::scopes::{INTEGRATION_KEY_SCOPES, SCOPES, ScopeSet, WORDS_MAX};
use crate::wire::error::ApiError;
use crate::wire::error_code::ErrorCode;

/// Checks that scopes are known and that the caller has them. Returns each once.
pub(super) fn check_scopes(asked: &[String], own: Option<ScopeSet>) -> Result<String, ApiError> {
    if asked.is_empty() || asked.len() > WORDS_MAX {
        return Err(ApiError::field("scopes", &format!("must name 1 to {WORDS_MAX} scopes")));
    }
    let (mut set, mut words) = (ScopeSet::default(), Vec::new());
    for scope in asked {
        let Some(is_new) = set.insert(scope) else {
            let problem = format!("must each be one of {}, resource:* or *", SCOPES.join(", "));
            return Err(ApiError::field("scopes", &problem));
        };
        if own.is_some_and(|own| !own.covers(scope)) {
            let message = "A key cannot grant scopes that it does not have.";
            return Err(ApiError::new(ErrorCode::Forbidden, message));
        }
        if is_new {
            words.push(scope.as_str());
        }
    }
    Ok(words.join(" "))
}

/// Refuses a caller that lacks a scope of integration keys.
pub(super) fn check_integration_key(caller: &Authorized) -> Result<(), ApiError> {
    match INTEGRATION_KEY_SCOPES.iter().find(|scope| !caller.has_scope(scope)) {
        None => Ok(()),
        Some(missing) => {
            let message =
                format!("An integration key has the scope {missing}, which your key lacks.");
            Err(ApiError::new(ErrorCode::Forbidden, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_cannot_give_more_than_it_has() {
        let scopes = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let own = ScopeSet::stored("keys:write telemetry:*");
        assert!(check_scopes(&scopes(&["telemetry:read", "telemetry:*"]), Some(own)).is_ok());
        assert!(check_scopes(&scopes(&["*"]), Some(own)).is_err());
        assert!(check_scopes(&scopes(&["integrations:read"]), Some(own)).is_err());
        assert!(check_scopes(&scopes(&["*"]), None).is_ok());
        assert!(check_scopes(&scopes(&["nothing:*"]), None).is_err());
        assert!(check_scopes(&[], None).is_err());
    }
}
