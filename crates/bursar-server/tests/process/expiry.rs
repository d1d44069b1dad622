//! Expiry of holds and ends of months on a running server, and after a crash.

use std::time::Duration;

use bursar_testing::process::books::{integer, nanos};
use bursar_testing::process::clock::{END_OF_JUNE_2031, MID_JUNE_2031};
use bursar_testing::process::folder::Folder;
use bursar_testing::process::http::{Answer, Http};
use bursar_testing::process::server::Server;
use bursar_testing::process::strace::{Fault, SYNCS};
use bursar_testing::process::tenant::Tenant;
use bursar_testing::waiting::within;
use serde_json::{Value, json};

const BUDGET_CENTS: u64 = 100;
const NANOS_PER_CENT: i128 = 10_000_000;
/// The first seconds of July.
const JULY_2031: u64 = END_OF_JUNE_2031 + 15;
/// Longer than the interval between two sweeps.
const SWEPT_WITHIN: Duration = Duration::from_secs(10);

/// A server with an integration with a budget of a dollar.
struct Site {
    folder: Folder,
    server: Server,
    tenant: Tenant,
    integration: String,
}

impl Site {
    /// A server whose clock shows this second.
    fn at(second: u64) -> Self {
        Self::on(Folder::new(), second)
    }

    /// A server with the settings of a folder.
    fn on(folder: Folder, second: u64) -> Self {
        folder.clock.set(second);
        let server = Server::start(&folder);
        let mut tenant = Tenant::new(&folder, &server);
        let integration = tenant.add_integration(&server, BUDGET_CENTS);
        Self { folder, server, tenant, integration }
    }

    fn http(&self) -> Http {
        self.tenant.client(&self.server)
    }

    /// The server after a kill and a restart.
    fn kill_and_restart(self) -> Self {
        let Self { folder, server, tenant, integration } = self;
        server.kill();
        let server = Server::start(&folder);
        Self { folder, server, tenant, integration }
    }

    fn reserve(&self, call_id: &str, cents: u32, ttl_seconds: u32) -> Answer {
        let body = json!({
            "integration_id": self.integration, "call_id": call_id,
            "estimated_cost_cents": cents, "ttl_seconds": ttl_seconds,
        });
        self.http().post("/api/v1/enforcement/reservations", &body).expect("an answer")
    }

    fn record(&self, call_id: &str, cents: u32, occurred_at: Option<&str>) -> Answer {
        let body = json!({
            "integration_id": self.integration, "call_id": call_id, "provider": "openai",
            "model": "gpt-4o", "tokens_in": 1, "tokens_out": 1, "cost_cents": cents,
            "occurred_at": occurred_at,
        });
        self.http().post("/api/v1/telemetry/llm-usage", &body).expect("an answer")
    }

    fn release(&self, call_id: &str) -> Answer {
        let path = format!("/api/v1/enforcement/reservations/{call_id}");
        self.http().delete(&path).expect("an answer")
    }

    /// Cents used and held in a month, and the number of open reservations.
    #[track_caller]
    fn figures(&self, month: &str) -> (i128, i128, i64) {
        let path = format!("/api/v1/integrations/{}/limits?period={month}", self.integration);
        let limits = self.http().get(&path).expect("an answer");
        assert_eq!(limits.status, 200, "{limits:?}");
        let limits = limits.body.get("data").expect("data");
        let cents = |field: &str| nanos(limits, field) / NANOS_PER_CENT;
        let path = "/api/v1/enforcement/reservations";
        let open = self.http().get(path).expect("an answer").body;
        let open = integer(open.get("meta").expect("meta"), "total");
        (cents("budget_used_usd"), cents("budget_held_usd"), open)
    }

    /// Waits until the hold of an earlier month is swept. Reading the figures must not sweep it.
    #[track_caller]
    fn check_swept(&self, month: &str) {
        let swept = within(SWEPT_WITHIN, || (self.figures(month).1 == 0).then_some(()));
        assert_eq!(swept, Some(()), "an expired hold of {month} still counts");
    }
}

#[test]
fn a_hold_counts_until_it_expires_and_no_longer() {
    let site = Site::at(MID_JUNE_2031);
    assert_eq!(site.reserve("first", 60, 60).status, 201);
    assert_eq!(site.reserve("second", 60, 60).data("result"), "blocked");

    site.folder.clock.set(MID_JUNE_2031 + 50);
    assert_eq!(site.reserve("second", 60, 60).data("result"), "blocked");
    site.folder.clock.set(MID_JUNE_2031 + 65);
    assert_eq!(site.reserve("second", 60, 60).status, 201, "the first has expired");

    assert_eq!(site.figures("2031-06"), (0, 60, 1));
    assert_eq!(site.release("first").data("status"), "expired");
    site.server.stop();
}

#[test]
fn a_hold_survives_a_crash_and_expires_at_the_same_instant() {
    let site = Site::at(MID_JUNE_2031);
    let held = site.reserve("first", 60, 60);
    let expires_at = held.body.pointer("/data/reservation/expires_at").cloned();

    let site = site.kill_and_restart();
    assert_eq!(site.figures("2031-06"), (0, 60, 1));
    assert_eq!(site.reserve("second", 60, 60).data("result"), "blocked");
    let replayed = site.reserve("first", 60, 60);
    assert_eq!(replayed.status, 201);
    assert_eq!(replayed.body.pointer("/data/reservation/expires_at").cloned(), expires_at);

    site.folder.clock.set(MID_JUNE_2031 + 65);
    site.server.confirm_clock(&site.folder);
    assert_eq!(site.figures("2031-06"), (0, 0, 0));
    site.server.stop();
}

#[test]
fn a_hold_that_expired_while_no_server_ran_is_over_and_its_call_still_counts() {
    let site = Site::at(MID_JUNE_2031);
    assert_eq!(site.reserve("late", 60, 60).status, 201);

    let Site { folder, server, tenant, integration } = site;
    server.kill();
    folder.clock.set(MID_JUNE_2031 + 65);
    let server = Server::start(&folder);
    let site = Site { folder, server, tenant, integration };

    assert_eq!(site.figures("2031-06"), (0, 0, 0));
    let again = site.reserve("late", 60, 60);
    assert_eq!((again.status, again.code()), (409, "RESERVATION_ENDED"), "{again:?}");
    assert_eq!(site.record("late", 70, None).status, 201);
    let site = site.kill_and_restart();
    assert_eq!(site.figures("2031-06"), (70, 0, 0));
    assert_eq!(site.record("late", 70, None).data("status"), "duplicate");
    site.server.stop();
}

#[test]
fn an_expired_hold_is_swept_without_a_request() {
    let site = Site::at(END_OF_JUNE_2031);
    assert_eq!(site.reserve("first", 60, 5).status, 201);
    site.folder.clock.set(JULY_2031);
    site.check_swept("2031-06");
    let site = site.kill_and_restart();
    assert_eq!(site.figures("2031-06"), (0, 0, 0));
    site.server.stop();
}

#[test]
fn a_hold_that_expires_without_a_record_is_logged_with_tenant_integration_and_amounts() {
    const MESSAGE: &str =
        "reservations expired without a usage record: their held budget is free again";
    let mut folder = Folder::new();
    folder.set("BURSAR_LOG_FORMAT", "json");
    let site = Site::on(folder, MID_JUNE_2031);
    let keys = format!("/api/v1/integrations/{}/keys", site.integration);
    let key = site.http().post(&keys, &json!({})).expect("an answer");
    let integration_key = key.data("secret").as_str().expect("a secret").to_owned();
    let mut by_key =
        Http::new(site.server.address(), &[("X-CUS-Integration-Key", &integration_key)]);
    let reserve = json!({
        "call_id": "lost", "estimated_cost_cents": 60, "estimated_tokens": 1_000, "ttl_seconds": 5,
    });
    let held = by_key.post("/api/v1/enforcement/reservations", &reserve).expect("an answer");
    assert_eq!(held.status, 201, "{held:?}");
    assert_eq!(site.reserve("recorded", 30, 5).status, 201);
    assert_eq!(site.record("recorded", 30, None).status, 201);
    site.folder.clock.set(MID_JUNE_2031 + 10);
    let logged = within(SWEPT_WITHIN, || site.folder.log().contains(MESSAGE).then_some(()));
    assert_eq!(logged, Some(()), "{}", site.folder.log());
    let Site { folder, server, tenant, integration } = site;
    server.stop();

    let lines = folder.json_log();
    let is_expiry = |line: &&Value| line.get("message") == Some(&json!(MESSAGE));
    let expiries: Vec<&Value> = lines.iter().filter(is_expiry).collect();
    let [line] = expiries.as_slice() else { panic!("{expiries:?}") };
    for (field, value) in [
        ("level", json!("WARN")),
        ("tenant_id", json!(tenant.id)),
        ("integration_id", json!(integration)),
        ("holds", json!(1)),
        ("held_usd", json!("0.6")),
        ("held_tokens", json!(1_000)),
    ] {
        assert_eq!(line.get(field), Some(&value), "{line}");
    }
    let (api_key, operator_token) = (tenant.api_key(), folder.operator_token());
    for secret in [api_key, &integration_key, &operator_token] {
        assert!(!folder.log().contains(secret), "{secret} is in the log");
    }
}

/// After a commit of unknown outcome the server drops its state in memory, the schedule of expiries
/// included. A decision must still treat the hold as expired.
#[test]
fn an_expired_hold_does_not_count_after_a_disk_failure() {
    let site = Site::at(END_OF_JUNE_2031);
    assert_eq!(site.reserve("first", 60, 5).status, 201);
    let Site { folder, server, mut tenant, integration } = site;
    let other = tenant.add_integration(&server, 0);
    server.stop();
    // A checkpoint has emptied the WAL, so that only calls of the writer are counted.
    Server::start(&folder).stop();
    folder.clock.set(END_OF_JUNE_2031);
    let fault = Fault { calls: SYNCS, error: "EIO", when: "1".to_owned(), file: "bursar.db-wal" };
    let server = Server::start_with(&folder, fault.serve(&folder));

    // The record of another integration meets the fault; the hold is not touched.
    let unlucky = Site { folder, server, tenant, integration: other };
    assert_eq!(unlucky.record("unlucky", 1, None).status, 503);
    let Site { folder, server, tenant, .. } = unlucky;
    let site = Site { folder, server, tenant, integration };
    site.folder.clock.set(JULY_2031);

    site.check_swept("2031-06");
    site.server.stop();
}

/// Checks a call that is reserved in June and recorded in July.
#[track_caller]
fn check_across_the_months(occurred_at: Option<&str>, june: i128, july: i128) {
    let site = Site::at(END_OF_JUNE_2031);
    assert_eq!(site.reserve("long", 60, 3_600).status, 201);
    let site = site.kill_and_restart();
    site.folder.clock.set(JULY_2031);
    assert_eq!(site.figures("2031-06"), (0, 60, 1), "the hold stays in its month");
    assert_eq!(site.figures("2031-07"), (0, 0, 1), "the hold does not count in the next month");
    // Nothing of July's budget is used.
    assert_eq!(site.reserve("whole", 100, 3_600).status, 201);
    assert_eq!(site.release("whole").status, 200);

    let settled = site.record("long", 70, occurred_at);
    assert_eq!(settled.status, 201, "{settled:?}");

    assert_eq!(site.figures("2031-06"), (june, 0, 0));
    assert_eq!(site.figures("2031-07"), (july, 0, 0));
    let site = site.kill_and_restart();
    assert_eq!(site.figures("2031-06"), (june, 0, 0));
    assert_eq!(site.figures("2031-07"), (july, 0, 0));
    let code = site.release("long");
    assert_eq!((code.status, code.body.get("data")), (409, Some(&Value::Null)), "{code:?}");
    site.server.stop();
}

#[test]
fn a_call_across_months_counts_in_the_month_of_its_reservation() {
    check_across_the_months(None, 70, 0);
}

#[test]
fn a_call_across_months_counts_in_the_month_of_its_occurred_at() {
    check_across_the_months(Some("2031-07-01T00:00:01Z"), 0, 70);
}
