//! People of tenants, as tokens prove them: real issuers on this machine, tokens that the test
//! signs, and a clock that is a parameter.

#![expect(clippy::unwrap_used, reason = "a test that cannot be arranged has failed")]
#![expect(clippy::indexing_slicing, reason = "a field that is not there fails the test")]

mod life;
mod outbound;
mod tokens;

use std::time::Duration;

use bursar_core::{Day, TenantId, Timestamp};
use bursar_server::auth::oidc::{IssuerList, Issuers};
use bursar_server::config::settings::Config;
use bursar_server::http::outbound::Outbound;
use rustls::RootCertStore;
use serde_json::{Value, json};

/// Noon on 14 March 2026, and so many seconds more.
pub(crate) fn noon(seconds: u32) -> Timestamp {
    Day::from_civil(2026, 3, 14).unwrap().start().plus_seconds(43_200 + seconds)
}

pub(crate) fn tenant(number: i64) -> TenantId {
    TenantId::from_number(number).unwrap()
}

/// An issuer of tenant 7 as the operator writes it.
pub(crate) fn written(url: &str) -> Value {
    json!({ "issuer": url, "audience": "bursar", "tenant": tenant(7).to_string() })
}

/// How long tokens may be valid.
pub(crate) const TOKEN_SECONDS_MAX: u32 = 86_400;

/// Issuers as they are configured.
pub(crate) fn configured(list: &[Value]) -> IssuerList {
    let setting = ("BURSAR_OIDC_ISSUERS".to_owned(), json!(list).to_string());
    Config::load(None, std::iter::once(setting)).unwrap().oidc.issuers
}

/// The same, trusted, by a client that waits long enough on a busy machine.
pub(crate) fn trusted(list: &[Value]) -> Issuers {
    trusted_within(list, Duration::from_secs(60))
}

pub(crate) fn trusted_within(list: &[Value], deadline: Duration) -> Issuers {
    let outbound = Outbound::new(RootCertStore::empty(), deadline).unwrap();
    Issuers::new(configured(list), TOKEN_SECONDS_MAX, outbound)
}

/// Claims that are good for ten minutes from noon.
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

/// The same with another value of a claim; null takes it out.
pub(crate) fn with(mut claims: Value, name: &str, value: Value) -> Value {
    if value.is_null() {
        claims.as_object_mut().unwrap().remove(name);
    } else {
        claims[name] = value;
    }
    claims
}
