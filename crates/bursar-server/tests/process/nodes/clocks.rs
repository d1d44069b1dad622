//! Nodes with wrong clocks: budgets, expiry, rates and months follow the database's clock.

use std::time::Duration;

use bursar_testing::process::bodies::{self, record};
use bursar_testing::process::http::{Answer, Http};
use bursar_testing::process::tenant::Tenant;
use bursar_testing::waiting::within;
use serde_json::{Value, json};

use crate::nodes::support::fleet::Fleet;
use crate::nodes::support::skew::Skew;
use crate::nodes::support::{Site, reservation};

/// The tolerance of an instant that is compared with the database's clock a moment later.
const MOMENT_SECONDS: f64 = 30.0;
/// Longer than the shortest hold of these tests.
const EXPIRED_WITHIN: Duration = Duration::from_secs(15);
const RECORDS: &str = "/api/v1/telemetry/llm-usage";
const CHECK: &str = "/api/v1/enforcement/check";
const RESERVATIONS: &str = "/api/v1/enforcement/reservations";

/// A node ahead of the database's clock, one behind it, and a tenant.
struct Skewed {
    site: Site,
    fleet: Fleet,
    tenant: Tenant,
    _skews: [Skew; 2],
}

impl Skewed {
    /// Starts nodes this many seconds ahead of and behind the database's clock.
    fn by(seconds: i64) -> Self {
        let (ahead, behind) = (Skew::by(seconds), Skew::by(-seconds));
        let site = Site::new();
        let fleet = Fleet::prepared(&site, site.database.app_url(), 2, |number, folder| {
            let skew = if number == 0 { &ahead } else { &behind };
            skew.shift(folder);
        });
        let tenant = fleet.tenant(&[100, 100]);
        let skewed = Self { site, fleet, tenant, _skews: [ahead, behind] };
        skewed.wait_past_end_of_month();
        for (node, expected) in [(0, seconds), (1, -seconds)] {
            let shown = skewed.http(node).get("/api/v1/integrations").expect("an answer");
            let shown = shown.body.pointer("/meta/timestamp").and_then(Value::as_str);
            let off = skewed.seconds_from_now(shown.expect("a timestamp")) - expected as f64;
            assert!(off.abs() < MOMENT_SECONDS, "the clock of node {node} is not shifted: {off}");
        }
        skewed
    }

    fn http(&self, node: usize) -> Http {
        self.tenant.client(self.fleet.server(node))
    }

    fn integration(&self, number: usize) -> &str {
        self.tenant.integrations.get(number).expect("an integration")
    }

    /// The seconds from the database's clock to an instant.
    fn seconds_from_now(&self, instant: &str) -> f64 {
        let ahead = format!("extract(epoch from '{instant}'::timestamptz - clock_timestamp())");
        self.select(&ahead).parse().expect("a number")
    }

    /// An instant this many seconds ahead of the database's clock.
    fn instant(&self, ahead_seconds: i64) -> String {
        self.select(&format!(
            "to_char(clock_timestamp() at time zone 'utc' + interval '{ahead_seconds} seconds', \
             'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"
        ))
    }

    fn select(&self, value: &str) -> String {
        let rows = self.site.database.run(&format!("select ({value})::text"));
        rows.into_iter().flatten().flatten().next().expect("a value")
    }

    /// Waits past the last minute of a month, so that no test spans two months.
    fn wait_past_end_of_month(&self) {
        let month =
            |at: &str| self.select(&format!("date_trunc('month', {at} at time zone 'utc')"));
        let lasts = || month("now()") == month("(now() + interval '1 minute')");
        assert!(within(Duration::from_secs(90), || lasts().then_some(())).is_some());
    }
}

#[track_caller]
fn text<'a>(answer: &'a Answer, pointer: &str) -> &'a str {
    let found = answer.body.pointer(pointer).and_then(Value::as_str);
    found.unwrap_or_else(|| panic!("{pointer} is not in {answer:?}"))
}

/// Makes a short hold on one node and asserts that it counts on both until it expires.
#[track_caller]
fn check_expiry(skewed: &Skewed, by: usize, integration: &str) {
    let short = bodies::reservation(integration, &format!("short {by}"), 60, 2);
    let held = skewed.http(by).post(RESERVATIONS, &short).expect("an answer");
    assert_eq!(held.status, 201, "{held:?}");
    let expires_at = text(&held, "/data/reservation/expires_at").to_owned();
    assert!((0.0..=2.0).contains(&skewed.seconds_from_now(&expires_at)), "{held:?}");

    let check = json!({ "integration_id": integration, "estimated_cost_cents": 60 });
    for node in [0, 1] {
        let checked = skewed.http(node).post(CHECK, &check).expect("an answer");
        let left = skewed.seconds_from_now(&expires_at);
        assert!(checked.data("result") == "blocked" || left <= 0.0, "{left} s left: {checked:?}");
    }
    let next = reservation(integration, &format!("next {by}"), 60);
    let mut http = skewed.http(1 - by);
    let admitted = within(EXPIRED_WITHIN, || {
        let answer = http.post(RESERVATIONS, &next).expect("an answer");
        (answer.status == 201).then_some(answer)
    });
    let admitted = admitted.expect("an expired hold still counts");
    assert!(skewed.seconds_from_now(&expires_at) <= 0.0, "a hold ended before its expiry");
    let lasts = skewed.seconds_from_now(text(&admitted, "/data/reservation/expires_at"));
    assert!((600.0 - MOMENT_SECONDS..=600.0).contains(&lasts), "{lasts} s of 600");
    let released = http.delete(&format!("{RESERVATIONS}/next {by}").replace(' ', "%20"));
    assert_eq!(released.expect("an answer").status, 200);
}

/// Asserts that the calls of one minute are counted over both nodes.
#[track_caller]
fn check_rate(skewed: &Skewed) {
    let create = json!({ "name": "rate", "provider_type": "openai", "rate_limit_rpm": 4 });
    let made = skewed.http(0).post("/api/v1/integrations", &create).expect("an answer");
    let integration = text(&made, "/data/id");
    let enable = format!("/api/v1/integrations/{integration}/enable");
    assert_eq!(skewed.http(1).post(&enable, &Value::Null).expect("an answer").status, 200);
    for call in 0..4 {
        let held = reservation(integration, &format!("rate {call}"), 1);
        let held = skewed.http(call % 2).post(RESERVATIONS, &held).expect("an answer");
        assert_eq!(held.status, 201, "{held:?}");
    }
    for node in [0, 1] {
        let more = reservation(integration, &format!("more {node}"), 1);
        let more = skewed.http(node).post(RESERVATIONS, &more).expect("an answer");
        assert_eq!(more.data("result"), "throttled", "{more:?}");
        let limits = format!("/api/v1/integrations/{integration}/limits");
        let limits = skewed.http(node).get(&limits).expect("an answer");
        assert_eq!(limits.data("current_rpm"), 4, "{limits:?}");
    }
}

/// Asserts that a call has the time of the database and that both nodes show it in its month.
#[track_caller]
fn check_dates(skewed: &Skewed, integration: &str) {
    let month = skewed.select("to_char(now() at time zone 'utc', 'YYYY-MM')");
    for node in [0, 1] {
        let mut http = skewed.http(node);
        let mut dated = |call: &str, ahead_seconds: i64| {
            let mut call = record(integration, &format!("{call} {node}"), 1);
            let occurred_at = json!(skewed.instant(ahead_seconds));
            call.as_object_mut().expect("an object").insert("occurred_at".to_owned(), occurred_at);
            http.post(RECORDS, &call).expect("an answer").status
        };
        assert_eq!((dated("future", 1_200), dated("now", 0)), (422, 201), "node {node}");
        let undated = record(integration, &format!("undated {node}"), 1);
        assert_eq!(http.post(RECORDS, &undated).expect("an answer").status, 201);
        let newest = "/api/v1/telemetry/usage-history?limit=1";
        let newest = http.get(newest).expect("an answer");
        for field in ["/data/0/occurred_at", "/data/0/created_at"] {
            let off = skewed.seconds_from_now(text(&newest, field));
            assert!(off.abs() < MOMENT_SECONDS, "{field} is off by {off}: {newest:?}");
        }
    }
    for node in [0, 1] {
        let limits = format!("/api/v1/integrations/{integration}/limits");
        let limits = skewed.http(node).get(&limits).expect("an answer");
        assert!(text(&limits, "/data/period_start").starts_with(&month), "{limits:?}");
        assert_eq!(limits.data("budget_used_cents"), 4, "{limits:?}");
    }
}

/// Asserts that the clocks of the nodes have no effect.
#[track_caller]
fn check_skewed(seconds: i64) {
    let skewed = Skewed::by(seconds);
    check_expiry(&skewed, 0, skewed.integration(0));
    check_expiry(&skewed, 1, skewed.integration(0));
    check_rate(&skewed);
    check_dates(&skewed, skewed.integration(1));
    skewed.fleet.check_verified();
    skewed.fleet.stop();
}

#[test]
fn nodes_an_hour_off_on_either_side_follow_the_clock_of_the_database() {
    check_skewed(3_600);
}

#[test]
fn nodes_with_the_wrong_month_follow_the_clock_of_the_database() {
    check_skewed(40 * 86_400);
}
