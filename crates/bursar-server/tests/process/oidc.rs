//! People with tokens, on the real binary.

use bursar_testing::oidc::issuer::TestIssuer;
use bursar_testing::oidc::signer::Signer;
use bursar_testing::process::folder::Folder;
use bursar_testing::process::http::{Answer, Http};
use bursar_testing::process::server::Server;
use bursar_testing::process::tenant::Tenant;
use serde_json::json;
use tokio::runtime::Runtime;

/// An expiry later than all clocks of the tests.
const IN_2100: u64 = 4_102_444_800;

fn context(server: &Server, token: &str) -> Answer {
    let bearer = format!("Bearer {token}");
    let mut http = Http::new(server.address(), &[("Authorization", &bearer)]);
    http.get("/api/v1/session/context").expect("an answer")
}

#[test]
fn a_person_authenticates_and_the_log_has_no_part_of_their_token() {
    let runtime = Runtime::new().expect("a runtime");
    let key = Signer::p256("a");
    let issuer = runtime.block_on(TestIssuer::new(&[&key]));
    let trusted = json!([{ "issuer": issuer.url, "audience": "bursar", "tenant_claim": "org" }]);
    let mut folder = Folder::new();
    folder.set("BURSAR_OIDC_ISSUERS", trusted.to_string());
    folder.set("BURSAR_OIDC_TOKEN_SECONDS_MAX", u32::MAX.to_string());
    folder.set("BURSAR_LOG", "trace");
    let server = Server::start(&folder);
    let tenant = Tenant::new(&folder, &server);
    let claims = |role: &str| {
        json!({
            "iss": issuer.url,
            "aud": "bursar",
            "sub": "canary",
            "org": tenant.id,
            "bursar_role": role,
            "nbf": 0,
            "exp": IN_2100,
        })
    };
    let (good, bad) = (key.token(&claims("viewer")), key.token(&claims("king")));
    let answer = context(&server, &good);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.data("actor_type"), "customer");
    assert_eq!(context(&server, &bad).status, 401);
    server.stop();

    let log = folder.log();
    assert!(log.contains("an issuer's keys were fetched"), "{log}");
    for part in good.split('.').chain(bad.split('.')) {
        assert!(!log.contains(part), "{log}");
    }
}
