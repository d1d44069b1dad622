//! Changes through one node apply on the others: at once in reservations, elsewhere within two
//! seconds.

use std::time::Duration;

use bursar_testing::process::bodies::record;
use bursar_testing::process::http::{Answer, Http};
use bursar_testing::process::tenant::Tenant;
use bursar_testing::waiting::{scale, within};
use serde_json::{Value, json};

use crate::nodes::support::fleet::Fleet;
use crate::nodes::support::{Site, reservation};

const KNOWN_WITHIN: Duration = Duration::from_secs(2);
const RECORDS: &str = "/api/v1/telemetry/llm-usage";
const CHECK: &str = "/api/v1/enforcement/check";
const RESERVATIONS: &str = "/api/v1/enforcement/reservations";

fn reserve(http: &mut Http, integration: &str, call_id: &str) -> Answer {
    http.post(RESERVATIONS, &reservation(integration, call_id, 10)).expect("an answer")
}

/// Asserts that a check has this result within two seconds.
#[track_caller]
fn check_result(http: &mut Http, integration: &str, result: &str) {
    let body = json!({ "integration_id": integration, "estimated_cost_cents": 1 });
    let found = within(KNOWN_WITHIN, || {
        let answer = http.post(CHECK, &body).expect("an answer");
        (answer.data("result") == result).then_some(())
    });
    assert_eq!(found, Some(()), "a check is not {result} after {KNOWN_WITHIN:?}");
}

#[test]
fn an_integration_that_one_node_disables_is_blocked_by_another_at_once() {
    let site = Site::new();
    let fleet = Fleet::start(&site, 2);
    let tenant = fleet.tenant(&[1_000]);
    let integration = tenant.integrations.first().expect("an integration");
    let [mut here, mut there] = [0, 1].map(|node| tenant.client(fleet.server(node)));
    for round in 0..scale(5, 25) {
        assert_eq!(reserve(&mut there, integration, &format!("before {round}")).status, 201);
        check_result(&mut there, integration, "allowed");
        let mut set = |what: &str| {
            let path = format!("/api/v1/integrations/{integration}/{what}");
            assert_eq!(here.post(&path, &Value::Null).expect("an answer").status, 200);
        };
        set("disable");
        let refused = reserve(&mut there, integration, &format!("after {round}"));
        assert_eq!((refused.status, refused.data("result")), (200, &json!("hard_blocked")));
        check_result(&mut there, integration, "hard_blocked");
        set("enable");
        let released = there.delete(&format!("{RESERVATIONS}/before%20{round}"));
        assert_eq!(released.expect("an answer").status, 200);
    }
    fleet.stop();
}

#[test]
fn an_integration_key_that_one_node_revokes_is_refused_by_another_within_two_seconds() {
    let site = Site::new();
    let fleet = Fleet::start(&site, 2);
    let tenant = fleet.tenant(&[1_000]);
    let integration = tenant.integrations.first().expect("an integration");
    let mut here = tenant.client(fleet.server(0));
    let keys = format!("/api/v1/integrations/{integration}/keys");
    for round in 0..scale(2, 10) {
        let made = here.post(&keys, &json!({})).expect("an answer");
        let text = |field: &str| made.data(field).as_str().expect(field).to_owned();
        let key = [("X-CUS-Integration-Key", text("secret"))];
        let key = key.each_ref().map(|(name, value)| (*name, value.as_str()));
        let mut there = Http::new(fleet.server(1).address(), &key);
        let mut sent = 0;
        let mut send = || {
            sent += 1;
            let call = record(integration, &format!("call {round} {sent}"), 1);
            there.post(RECORDS, &call).expect("an answer").status
        };
        assert_eq!(send(), 201);
        let revoked = here.delete(&format!("{keys}/{}", text("id")));
        assert_eq!(revoked.expect("an answer").status, 200);
        let refused = within(KNOWN_WITHIN, || (send() == 401).then_some(()));
        assert_eq!(refused, Some(()), "the other node still accepts the key");
    }
    fleet.stop();
}

#[test]
fn an_api_key_that_one_node_revokes_or_rotates_is_refused_by_another_within_two_seconds() {
    let site = Site::new();
    let fleet = Fleet::start(&site, 2);
    let tenant = fleet.tenant(&[]);
    let mut here = tenant.client(fleet.server(0));
    for round in 0..scale(2, 10) {
        let made = here.post("/api/v1/keys", &json!({ "name": "key", "scopes": ["*"] }));
        let made = made.expect("an answer");
        let bearer =
            |made: &Answer| format!("Bearer {}", made.data("secret").as_str().expect("text"));
        let mut there = Http::new(fleet.server(1).address(), &[("Authorization", &bearer(&made))]);
        let mut get = || there.get("/api/v1/integrations").expect("an answer").status;
        assert_eq!(get(), 200);
        let path = format!("/api/v1/keys/{}", made.data("id").as_str().expect("an id"));
        let successor = if round % 2 == 0 {
            assert_eq!(here.delete(&path).expect("an answer").status, 200);
            None
        } else {
            let at_once = json!({ "overlap_seconds": 0 });
            let rotated = here.post(&format!("{path}/rotate"), &at_once).expect("an answer");
            assert_eq!(rotated.status, 201, "{rotated:?}");
            Some(bearer(&rotated))
        };
        let refused = within(KNOWN_WITHIN, || (get() == 401).then_some(()));
        assert_eq!(refused, Some(()), "the other node still accepts the key");
        if let Some(bearer) = successor {
            let mut there = Http::new(fleet.server(1).address(), &[("Authorization", &bearer)]);
            assert_eq!(there.get("/api/v1/integrations").expect("an answer").status, 200);
        }
    }
    fleet.stop();
}

/// Sets a budget by a command through a node.
#[track_caller]
fn set_budget(fleet: &Fleet, tenant: &Tenant, node: usize, integration: &str, cents: u32) {
    let node = fleet.node(node);
    node.folder.run(&[
        "integration",
        "update",
        integration,
        &format!("--budget-cents={cents}"),
        &format!("--url=http://{}", node.server.address()),
        &format!("--api-key={}", tenant.api_key()),
    ]);
}

#[test]
fn a_limit_changed_on_one_node_counts_in_the_next_decision_of_another() {
    let site = Site::new();
    let fleet = Fleet::start(&site, 2);
    let tenant = fleet.tenant(&[10]);
    let integration = tenant.integrations.first().expect("an integration");
    let mut held_cents = 0;
    for round in 0..scale(6, 30) {
        // Sets the limit on one node and reserves on the other, in turn.
        let (sets, reserves) = if round % 2 == 0 { (0, 1) } else { (1, 0) };
        let mut http = tenant.client(fleet.server(reserves));
        set_budget(&fleet, &tenant, sets, integration, held_cents + 9);
        let check = json!({ "integration_id": integration, "estimated_cost_cents": 10 });
        let checked = http.post(CHECK, &check).expect("an answer");
        assert_eq!(checked.data("result"), "blocked", "{checked:?}");
        let refused = reserve(&mut http, integration, &format!("refused {round}"));
        assert_eq!((refused.status, refused.data("result")), (200, &json!("blocked")));
        set_budget(&fleet, &tenant, sets, integration, held_cents + 10);
        let held = reserve(&mut http, integration, &format!("held {round}"));
        assert_eq!(held.status, 201, "{held:?}");
        held_cents += 10;
        let limits = format!("/api/v1/integrations/{integration}/limits");
        let shown = within(KNOWN_WITHIN, || {
            let limits = http.get(&limits).expect("an answer");
            (limits.data("budget_limit_cents") == held_cents).then_some(())
        });
        assert_eq!(shown, Some(()), "the other node shows the old limit");
    }
    fleet.stop();
}
