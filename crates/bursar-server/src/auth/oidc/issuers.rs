//! The configuration of the issuers that authenticate people.

use std::collections::HashSet;

use bursar_core::TenantId;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::credentials::raw_key;
use crate::http::outbound::WebUrl;

/// The most issuers of one server.
const ISSUERS_MAX: usize = 100;
/// The path of the discovery document below the issuer's URL.
const DISCOVERY: &str = "/.well-known/openid-configuration";
/// The default claim that is compared with a fixed tenant.
const TENANT_CLAIM: &str = "bursar_tenant";

/// Issuers of one server, each once.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(try_from = "Vec<IssuerConfig>")]
pub struct IssuerList(pub(crate) Vec<IssuerConfig>);

impl IssuerList {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn into_configs(self) -> Vec<IssuerConfig> {
        self.0
    }
}

impl TryFrom<Vec<IssuerConfig>> for IssuerList {
    type Error = String;

    fn try_from(issuers: Vec<IssuerConfig>) -> Result<Self, String> {
        if issuers.len() > ISSUERS_MAX {
            return Err(format!("has {} issuers; the maximum is {ISSUERS_MAX}", issuers.len()));
        }
        let mut seen = HashSet::new();
        match issuers.iter().position(|issuer| !seen.insert(&issuer.issuer)) {
            Some(index) => Err(format!("[{index}].issuer is already in the list")),
            None => Ok(Self(issuers)),
        }
    }
}

/// A trusted issuer, and how to read its tokens.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "IssuerEntry")]
pub(crate) struct IssuerConfig {
    /// The URL of the issuer, which `iss` must equal exactly.
    pub(super) issuer: String,
    /// The value that `aud` must contain.
    pub(super) audience: String,
    /// How to find the tenant of a token.
    pub(super) tenant: TenantSource,
    /// The claim that holds the role.
    pub(super) role_claim: ClaimPath,
    /// The value of the claim for an admin.
    pub(super) admin_value: String,
    /// The value of the claim for a viewer.
    pub(super) viewer_value: String,
    /// Where the issuer publishes its keys.
    pub(super) keys_at: KeysAt,
}

/// How to find the tenant of a token.
#[derive(Clone, Debug)]
pub(super) enum TenantSource {
    /// Always this tenant.
    Fixed {
        tenant_id: TenantId,
        /// The claim that must not name another tenant.
        claim: ClaimPath,
        /// Whether the claim is required.
        is_required: bool,
    },
    /// The tenant that a claim names.
    Claimed(ClaimPath),
}

/// Where an issuer publishes its keys.
#[derive(Clone, Debug)]
pub(super) enum KeysAt {
    /// At the URL in this discovery document.
    Discovery(WebUrl),
    Jwks(WebUrl),
}

/// The name of a claim. A dot leads into an object.
#[derive(Clone, Debug)]
pub(super) struct ClaimPath(String);

impl ClaimPath {
    /// The claim, if present.
    ///
    /// A claim whose own name contains the dots is found first, because some issuers use URLs as
    /// names.
    pub(super) fn find<'a>(&self, claims: &'a Map<String, Value>) -> Option<&'a Value> {
        if let Some(value) = claims.get(&self.0) {
            return Some(value);
        }
        let mut names = self.0.split('.');
        let first = claims.get(names.next()?)?;
        names.try_fold(first, |value, name| value.as_object()?.get(name))
    }
}

/// An issuer as it is written in the configuration.
#[derive(Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "a table with issuer, audience and tenant or tenant_claim"
)]
struct IssuerEntry {
    issuer: String,
    audience: String,
    tenant: Option<String>,
    tenant_claim: Option<String>,
    #[serde(default = "role_claim")]
    role_claim: String,
    #[serde(default = "admin_value")]
    admin_value: String,
    #[serde(default = "viewer_value")]
    viewer_value: String,
    jwks_url: Option<String>,
}

fn role_claim() -> String {
    "bursar_role".to_owned()
}

fn admin_value() -> String {
    "admin".to_owned()
}

fn viewer_value() -> String {
    "viewer".to_owned()
}

impl TryFrom<IssuerEntry> for IssuerConfig {
    type Error = String;

    fn try_from(entry: IssuerEntry) -> Result<Self, String> {
        checked(entry).map_err(|(field, problem)| format!(".{field} {problem}"))
    }
}

/// The wrong field, and what is wrong with it.
type Problem = (&'static str, &'static str);

fn checked(entry: IssuerEntry) -> Result<IssuerConfig, Problem> {
    let IssuerEntry {
        issuer,
        audience,
        tenant,
        tenant_claim,
        role_claim,
        admin_value,
        viewer_value,
        jwks_url,
    } = entry;
    if raw_key::contains_key(&issuer) {
        return Err(("issuer", "looks like a secret key, which would be stored in the audit log"));
    }
    if issuer.contains('?') {
        return Err(("issuer", "must have no query"));
    }
    let discovery = format!("{}{DISCOVERY}", issuer.strip_suffix('/').unwrap_or(&issuer));
    let discovery = WebUrl::parse(&discovery).map_err(|problem| ("issuer", problem))?;
    let keys_at = match jwks_url {
        None => KeysAt::Discovery(discovery),
        Some(url) => KeysAt::Jwks(WebUrl::parse(&url).map_err(|problem| ("jwks_url", problem))?),
    };
    let named = |name: &'static str, text: String| {
        if text.is_empty() { Err((name, "must not be empty")) } else { Ok(text) }
    };
    let claim = |name, text| named(name, text).map(ClaimPath);
    if admin_value == viewer_value {
        return Err(("viewer_value", "must differ from admin_value"));
    }
    let tenant_claim = tenant_claim.map(|text| claim("tenant_claim", text)).transpose()?;
    let tenant = match (tenant, tenant_claim) {
        (None, None) => return Err(("tenant", "or tenant_claim is required")),
        (None, Some(claim)) => TenantSource::Claimed(claim),
        (Some(tenant), claim) => TenantSource::Fixed {
            tenant_id: TenantId::parse(&tenant)
                .map_err(|_| ("tenant", "must be the id of a tenant"))?,
            is_required: claim.is_some(),
            claim: claim.unwrap_or_else(|| ClaimPath(TENANT_CLAIM.to_owned())),
        },
    };
    Ok(IssuerConfig {
        audience: named("audience", audience)?,
        tenant,
        role_claim: claim("role_claim", role_claim)?,
        admin_value: named("admin_value", admin_value)?,
        viewer_value: named("viewer_value", viewer_value)?,
        issuer,
        keys_at,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read_issuers(list: Value) -> Result<Vec<IssuerConfig>, String> {
        let list = serde_path_to_error::deserialize::<_, IssuerList>(list);
        list.map(IssuerList::into_configs)
            .map_err(|error| format!("{}{}", error.path(), error.inner()))
    }

    fn tenant() -> String {
        TenantId::from_number(7).expect("in range").to_string()
    }

    fn written() -> Value {
        json!({
            "issuer": "https://id.example.com/realms/acme",
            "audience": "bursar",
            "tenant": tenant(),
        })
    }

    /// Checks the error for a list whose second issuer has another value.
    #[track_caller]
    fn check(name: &str, value: Value, expected: &str) {
        let mut issuer = written();
        issuer["issuer"] = json!("https://other.example.com");
        issuer[name] = value;
        let found = read_issuers(json!([written(), issuer])).err().unwrap_or_default();
        assert!(found.contains(expected), "{found}");
    }

    #[test]
    fn an_issuer_needs_little() {
        let list = read_issuers(json!([written()])).expect("an issuer");
        let KeysAt::Discovery(url) = &list[0].keys_at else { panic!("no discovery") };
        let expected = "https://id.example.com/realms/acme/.well-known/openid-configuration";
        assert_eq!(url.shown(), expected);
        assert_eq!(list[0].role_claim.0, "bursar_role");
        assert!(read_issuers(json!([])).is_ok_and(|list| list.is_empty()));
    }

    #[test]
    fn a_slash_at_the_end_is_a_part_of_the_name_only() {
        let mut issuer = written();
        issuer["issuer"] = json!("https://acme.example.com/");
        let list = read_issuers(json!([issuer])).expect("an issuer");
        let KeysAt::Discovery(url) = &list[0].keys_at else { panic!("no discovery") };
        assert_eq!(url.shown(), "https://acme.example.com/.well-known/openid-configuration");
        assert_eq!(list[0].issuer, "https://acme.example.com/");
    }

    #[test]
    fn what_is_wrong_is_named() {
        check(
            "issuer",
            json!("https://id.example.com/realms/acme"),
            ".issuer is already in the list",
        );
        check("issuer", json!("http://id.example.com"), "[1].issuer must be an https URL");
        check("issuer", json!("https://id.example.com?a"), "[1].issuer must have no query");
        let named_like_a_key = "https://id.example.com/sk-abcdefghijklmnopqrst";
        check("issuer", json!(named_like_a_key), "[1].issuer looks like a secret key");
        check("issuer", json!(5), "[1].issuer");
        check("jwks_url", json!("http://id.example.com/keys"), "[1].jwks_url must be an https");
        check("isuer", json!("x"), "unknown field `isuer`");
        check("audience", json!(""), "[1].audience must not be empty");
        check("tenant", json!("acme"), "[1].tenant must be the id of a tenant");
        check("tenant", json!(null), "[1].tenant or tenant_claim is required");
        check("tenant_claim", json!(""), "[1].tenant_claim must not be empty");
        check("viewer_value", json!("admin"), "[1].viewer_value must differ");
        check("role_claim", json!(""), "[1].role_claim must not be empty");
        assert!(read_issuers(json!({})).is_err());
        assert!(read_issuers(json!(["a"])).is_err());
        let many: Vec<Value> = (0..101).map(|_| written()).collect();
        assert!(read_issuers(json!(many)).is_err());
    }

    #[test]
    fn a_dot_leads_into_an_object_unless_a_claim_has_it_in_its_name() {
        let claims = json!({
            "role": "a",
            "realm_access": { "roles": ["b"] },
            "https://example.com/role": "c",
            "x": { "y": { "z": "d" } },
            "x.y": "e",
        });
        let claims = claims.as_object().expect("an object");
        let find = |path: &str| ClaimPath(path.to_owned()).find(claims).cloned();
        assert_eq!(find("role"), Some(json!("a")));
        assert_eq!(find("realm_access.roles"), Some(json!(["b"])));
        assert_eq!(find("https://example.com/role"), Some(json!("c")));
        assert_eq!(find("x.y.z"), Some(json!("d")));
        assert_eq!(find("x.y"), Some(json!("e")));
        assert_eq!(find("role.more"), None);
        assert_eq!(find("realm_access.groups"), None);
        assert_eq!(find("."), None);
    }
}
