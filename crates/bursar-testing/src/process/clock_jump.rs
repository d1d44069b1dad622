//! Checks during and after a jump of the clock, on all servers over one store whose time is late
//! June 2031.

use std::cell::Cell;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::bodies::{record, reservation};
use super::folder::Folder;
use super::http::{Answer, Http};
use super::server::Server;
use super::tenant::Tenant;
use crate::waiting::within;

pub const HOUR: i64 = 3_600;
/// From late June into July.
pub const FOUR_DAYS: i64 = 4 * 86_400;

/// How long the clock is wrong in a short jump.
const MOMENT: Duration = Duration::from_millis(500);
/// The time until a corrected clock is accepted. One second is guaranteed; the other is for a busy
/// machine.
const SERVED_AGAIN_MAX: Duration = Duration::from_secs(2);
const SHORT_SECONDS: u32 = 3;
/// The time that a server takes to read the clock of the database.
const CLOCK_READ_MAX: Duration = Duration::from_millis(250);
const EXPIRED_WITHIN: Duration = Duration::from_secs(15);
/// Shorter than the window of a rate limit, which is a minute.
const RATE_MAX: Duration = Duration::from_secs(55);
const STATE_SHOWN_MAX: Duration = Duration::from_secs(5);
/// A clock that stays ahead is adopted after this time, and not earlier.
const ADOPTED_AFTER: Duration = Duration::from_secs(60);
const ADOPTED_WITHIN: Duration = Duration::from_secs(75);

const CHECK: &str = "/api/v1/enforcement/check";
const RECORDS: &str = "/api/v1/telemetry/llm-usage";
const RESERVATIONS: &str = "/api/v1/enforcement/reservations";
const HISTORY: &str = "/api/v1/telemetry/usage-history?limit=100";
const KEY_ENDS: &str = "2031-06-28T12:30:00Z";
const JUNE: &str = "2031-06";
const JULY: &str = "2031-07";
/// The prefix of every instant of these tests in June.
const NOON: &str = "2031-06-28T12:";

/// A tenant whose budget for June is used up, with the records that it made since.
pub struct JumpChecker {
    tenant: Tenant,
    /// The same tenant with a key that expires soon.
    expiring: Tenant,
    used_up: String,
    unlimited: String,
    /// Cents recorded in June and in July.
    recorded_cents: [Cell<u32>; 2],
    calls: Cell<u32>,
}

/// Limits that are used up just before a jump.
struct Exhausted {
    began: Instant,
    /// An integration whose budget is mostly held for a few seconds.
    held: String,
    /// An integration whose rate limit is reached.
    rated: String,
}

impl JumpChecker {
    #[track_caller]
    pub fn start(server: &Server, mut tenant: Tenant) -> Self {
        let used_up = tenant.add_integration(server, 100);
        let unlimited = tenant.add_integration(server, 0);
        let mut http = tenant.client(server);
        let all = record(&used_up, "all of June", 100);
        assert_eq!(http.post(RECORDS, &all).expect("an answer").status, 201);
        let create = json!({ "name": "ending", "scopes": ["*"], "expires_at": KEY_ENDS });
        let made = http.post("/api/v1/keys", &create).expect("an answer");
        let secret = made.data("secret").as_str().unwrap_or_else(|| panic!("no key: {made:?}"));
        let bearer = format!("Bearer {secret}");
        let expiring = Tenant { id: tenant.id.clone(), bearer, integrations: Vec::new() };
        let (recorded_cents, calls) = (Default::default(), Cell::new(0));
        Self { tenant, expiring, used_up, unlimited, recorded_cents, calls }
    }

    /// Checks a short jump: meanwhile writes and decisions are refused if `is_refused`, and nothing
    /// else changes.
    #[track_caller]
    pub fn check_short_jump(
        &self,
        servers: &[&Server],
        jump: impl Fn(i64),
        (seconds, is_refused): (i64, bool),
    ) {
        let exhausted = self.exhausted(servers);
        jump(seconds);
        let refusals = self.refusals_for_a_moment(servers, &exhausted);
        jump(-seconds);
        let back = Instant::now();
        for server in servers {
            let look = || (self.refusals(server, &exhausted) == 0).then_some(());
            assert!(within(SERVED_AGAIN_MAX, look).is_some(), "still refused after {seconds} s");
        }
        println!("{seconds} s: {refusals:?} refused, all served {:?} after it", back.elapsed());
        let as_expected = refusals.iter().all(|refusals| (*refusals > 0) == is_refused);
        assert!(as_expected, "by {seconds} s: {refusals:?} refusals");
        self.check_hold(servers, &exhausted);
        self.check_books(servers);
        self.check_dates(servers);
    }

    /// Checks that a clock set back by an hour changes nothing.
    #[track_caller]
    pub fn check_set_back(&self, servers: &[&Server], jump: impl Fn(i64)) {
        let exhausted = self.exhausted(servers);
        jump(-HOUR);
        let refusals = self.refusals_for_a_moment(servers, &exhausted);
        assert!(refusals.iter().all(|refusals| *refusals == 0), "{refusals:?} refusals");
        self.check_hold(servers, &exhausted);
        self.check_books(servers);
        self.check_dates(servers);
    }

    /// Checks whether the key that expires soon is still valid.
    #[track_caller]
    pub fn check_key(&self, servers: &[&Server], is_valid: bool) {
        for server in servers {
            let shown = self.expiring.client(server).get("/api/v1/integrations");
            let expected = if is_valid { 200 } else { 401 };
            assert_eq!(
                shown.expect("an answer").status,
                expected,
                "the key that expires at {KEY_ENDS}"
            );
        }
    }

    /// Checks that June's budget is used up and July's is not, and that records count in that
    /// month.
    #[track_caller]
    pub fn check_month(&self, servers: &[&Server], is_july: bool) {
        for server in servers {
            let mut http = self.tenant.client(server);
            let checked = http.post(CHECK, &check(&self.used_up)).expect("an answer");
            let expected = if is_july { "allowed" } else { "blocked" };
            assert_eq!(checked.data("result"), expected, "{checked:?}");
            let call = record(&self.unlimited, &self.next_call(), 1);
            let recorded = http.post(RECORDS, &call).expect("an answer");
            assert_eq!(recorded.status, 201, "{recorded:?}");
            self.count_record(is_july);
        }
        self.check_books(servers);
    }

    /// Checks that a clock that stays ahead is adopted after a minute and not earlier.
    #[track_caller]
    pub fn check_adopted(&self, servers: &[&Server], jump: impl Fn(i64)) {
        let jumped = Instant::now();
        jump(FOUR_DAYS);
        for server in servers {
            let mut http = self.tenant.client(server);
            let adopted = within(ADOPTED_WITHIN, || {
                let checked = http.post(CHECK, &check(&self.used_up)).expect("an answer");
                (!is_refused(&checked))
                    .then(|| checked.data("result").clone())
                    .filter(|result| result == "allowed")
            });
            assert!(adopted.is_some(), "not adopted after {:?}", jumped.elapsed());
            let took = jumped.elapsed() + CLOCK_READ_MAX;
            assert!(took >= ADOPTED_AFTER, "adopted after {took:?}");
        }
        println!("adopted after {:?}", jumped.elapsed());
        self.check_month(servers, true);
    }

    #[track_caller]
    fn exhausted(&self, servers: &[&Server]) -> Exhausted {
        let (first, last) = (servers.first().expect("one"), servers.last().expect("one"));
        let mut http = self.expiring.client(first);
        let held = self.integration(&mut http, json!({ "budget_limit_cents": 100 }));
        let rated = self.integration(&mut http, json!({ "rate_limit_rpm": 4 }));
        let began = Instant::now();
        let short = reservation(&held, &format!("short {held}"), 60, SHORT_SECONDS);
        let answer = http.post(RESERVATIONS, &short).expect("an answer");
        assert_eq!(answer.status, 201, "{answer:?}");
        let mut http = self.expiring.client(last);
        for call in 0..4 {
            let call = reservation(&rated, &format!("{call} {rated}"), 1, 600);
            let answer = http.post(RESERVATIONS, &call).expect("an answer");
            assert_eq!(answer.status, 201, "{answer:?}");
        }
        Exhausted { began, held, rated }
    }

    /// A new integration with limits.
    #[track_caller]
    fn integration(&self, http: &mut Http, mut limits: Value) -> String {
        let fields = limits.as_object_mut().expect("an object");
        fields.insert("name".to_owned(), self.next_call().into());
        fields.insert("provider_type".to_owned(), "openai".into());
        let made = http.post("/api/v1/integrations", &limits).expect("an answer");
        let id = made.data("id").as_str().unwrap_or_else(|| panic!("{made:?}")).to_owned();
        let enabled = http.post(&format!("/api/v1/integrations/{id}/enable"), &Value::Null);
        assert_eq!(enabled.expect("an answer").status, 200);
        id
    }

    /// Sends all requests to all servers for a moment. Returns how many each server refused because
    /// of the clock.
    #[track_caller]
    fn refusals_for_a_moment(&self, servers: &[&Server], exhausted: &Exhausted) -> Vec<usize> {
        let began = Instant::now();
        let mut refusals = vec![0; servers.len()];
        while began.elapsed() < MOMENT {
            for (server, refusals) in servers.iter().zip(&mut refusals) {
                *refusals += self.refusals(server, exhausted);
            }
        }
        refusals
    }

    /// Sends all requests to a server. Returns how many it refused because of the clock.
    #[track_caller]
    fn refusals(&self, server: &Server, exhausted: &Exhausted) -> usize {
        let mut http = self.expiring.client(server);
        self.check_reads(&mut http);
        let checked = http.post(CHECK, &check(&self.used_up)).expect("an answer");
        let mut refused = vec![is_refused(&checked)];
        assert!(is_refused(&checked) || checked.data("result") == "blocked", "{checked:?}");
        let more = reservation(&exhausted.rated, &format!("more {}", exhausted.rated), 1, 600);
        let more = http.post(RESERVATIONS, &more).expect("an answer");
        let is_full = more.data("result") == "throttled" || exhausted.began.elapsed() > RATE_MAX;
        assert!(is_refused(&more) || is_full, "{more:?}");
        refused.push(is_refused(&more));
        refused.push(is_refused(&self.reserve_next(&mut http, exhausted)));
        let call = record(&self.unlimited, &self.next_call(), 1);
        let recorded = http.post(RECORDS, &call).expect("an answer");
        assert!(is_refused(&recorded) || recorded.status == 201, "{recorded:?}");
        if recorded.status == 201 {
            self.count_record(false);
        }
        refused.push(is_refused(&recorded));
        refused.into_iter().filter(|refused| *refused).count()
    }

    /// Reserves what fits once the short hold has expired, which must not be early.
    #[track_caller]
    fn reserve_next(&self, http: &mut Http, exhausted: &Exhausted) -> Answer {
        let next = reservation(&exhausted.held, &format!("next {}", exhausted.held), 60, 600);
        let answer = http.post(RESERVATIONS, &next).expect("an answer");
        let lasted = exhausted.began.elapsed() + CLOCK_READ_MAX;
        let has_expired = lasted >= Duration::from_secs(SHORT_SECONDS.into());
        match answer.status {
            201 => assert!(has_expired, "a hold expired after {lasted:?}"),
            200 => assert_eq!(answer.data("result"), "blocked", "{answer:?}"),
            _ => assert!(is_refused(&answer), "{answer:?}"),
        }
        answer
    }

    /// Checks that reads work with the key that expires soon, and show June.
    #[track_caller]
    fn check_reads(&self, http: &mut Http) {
        let limits = format!("/api/v1/integrations/{}/limits", self.used_up);
        for path in ["/api/v1/integrations", HISTORY, "/health/live", "/health/ready", &limits] {
            let answer = http.get(path).expect("an answer");
            assert_eq!(answer.status, 200, "{path}: {answer:?}");
            let month = answer.data("period_start").as_str();
            assert!(month.is_none_or(|month| month.starts_with(JUNE)), "{answer:?}");
        }
    }

    /// Checks that the short hold expires.
    #[track_caller]
    fn check_hold(&self, servers: &[&Server], exhausted: &Exhausted) {
        let mut http = self.expiring.client(servers.last().expect("one"));
        let look = || (self.reserve_next(&mut http, exhausted).status == 201).then_some(());
        assert!(within(EXPIRED_WITHIN, look).is_some(), "an expired hold still counts");
    }

    /// Checks that each month shows exactly what was recorded in it.
    #[track_caller]
    fn check_books(&self, servers: &[&Server]) {
        for server in servers {
            let mut http = self.tenant.client(server);
            for (month, cents) in [JUNE, JULY].into_iter().zip(&self.recorded_cents) {
                let path = format!("/api/v1/integrations/{}/limits?period={month}", self.unlimited);
                let limits = http.get(&path).expect("an answer");
                assert_eq!(limits.data("budget_used_cents"), cents.get(), "{month}: {limits:?}");
            }
        }
    }

    /// Checks that every record has the hour in which it was made.
    #[track_caller]
    fn check_dates(&self, servers: &[&Server]) {
        for server in servers {
            let history = self.tenant.client(server).get(HISTORY).expect("an answer");
            let rows = history.body.get("data").and_then(Value::as_array).expect("rows");
            assert!(!rows.is_empty());
            for row in rows {
                for field in ["occurred_at", "created_at"] {
                    let at = row.get(field).and_then(Value::as_str).unwrap_or_default();
                    assert!(at.starts_with(NOON), "{field} of {row}");
                }
            }
        }
    }

    fn next_call(&self) -> String {
        let call = self.calls.get() + 1;
        self.calls.set(call);
        format!("call {call}")
    }

    fn count_record(&self, is_july: bool) {
        let [june, july] = &self.recorded_cents;
        let cents = if is_july { july } else { june };
        cents.set(cents.get() + 1);
    }
}

/// Waits until a server shows its clock in a state, at an instant with a prefix.
#[track_caller]
pub fn wait_for_clock(folder: &Folder, server: &Server, state: &str, now: &str) {
    let mut http = server.operator(folder);
    let mut last = None;
    let found = within(STATE_SHOWN_MAX, || {
        let clock = http.get("/fdr/clock").expect("an answer");
        let is_now = clock.data("now").as_str().is_some_and(|at| at.starts_with(now));
        let found = (is_now && clock.data("state") == state).then_some(());
        last = Some(clock);
        found
    });
    assert!(found.is_some(), "the clock is not {state} at {now}: {last:?}");
}

/// Whether the clock is the reason of a 503. No other reason is allowed.
#[track_caller]
fn is_refused(answer: &Answer) -> bool {
    let is_refused = answer.status == 503;
    assert!(!is_refused || answer.code() == "CLOCK_JUMPED", "{answer:?}");
    is_refused
}

fn check(integration_id: &str) -> Value {
    json!({ "integration_id": integration_id, "estimated_cost_cents": 1 })
}
