//! Tokens of people, against real issuers on this machine. The tests sign the tokens; the time is a
//! parameter.

#![expect(clippy::unwrap_used, reason = "a test that cannot be arranged has failed")]
#![expect(clippy::indexing_slicing, reason = "a field that is not there fails the test")]

mod jwks_cache;
mod outbound;
mod tokens;

use std::time::Duration;

use bursar_core::{Day, TenantId, Timestamp};
use bursar_server::auth::oidc::{IssuerList, Issuers};
use bursar_server::config::settings::Config;
use bursar_server::http::outbound::Outbound;
use rustls::RootCertStore;
use serde_json::{Value, json};

/// This many seconds after noon on 14 March 2026.
pub(crate) fn noon(seconds: u32) -> Timestamp {
    Day::from_civil(2026, 3, 14).unwrap().start().plus_seconds(43_200 + seconds)
}

pub(crate) fn tenant(number: i64) -> TenantId {
    TenantId::from_number(number).unwrap()
}

/// The configuration of an issuer of tenant 7.
pub(crate) fn issuer_config(url: &str) -> Value {
    json!({ "issuer": url, "audience": "bursar", "tenant": tenant(7).to_string() })
}

/// The maximal lifetime of a token.
pub(crate) const TOKEN_SECONDS_MAX: u32 = 86_400;

/// The issuers of a configuration.
pub(crate) fn issuer_list(list: &[Value]) -> IssuerList {
    let setting = ("BURSAR_OIDC_ISSUERS".to_owned(), json!(list).to_string());
    Config::load(None, std::iter::once(setting)).unwrap().oidc.issuers
}

/// Issuers that are trusted, with a deadline that suffices on a busy machine.
pub(crate) fn trusted(list: &[Value]) -> Issuers {
    trusted_within(list, Duration::from_secs(60))
}

pub(crate) fn trusted_within(list: &[Value], deadline: Duration) -> Issuers {
    let outbound = Outbound::new(RootCertStore::empty(), deadline).unwrap();
    Issuers::new(issuer_list(list), TOKEN_SECONDS_MAX, outbound)
}

/// Claims that are valid for ten minutes from noon.
pub(crate) fn claims(url: &str) -> Value {
    json!({
        "iss": url,
        "aud": "bursar",
        "sub": "ada",
        "nbf": noon(0).second(),
        "exp": noon(600).second(),
        "bursar_role": "admin",
    })
}

/// The claims with another value of one; null removes it.
pub(crate) fn with(mut claims: Value, name: &str, value: Value) -> Value {
    if value.is_null() {
        claims.as_object_mut().unwrap().remove(name);
    } else {
        claims[name] = value;
    }
    claims
}
