//! What must hold while a clock jumps and after it, asked of all servers on one store whose time
//! is late June 2031.

use std::cell::Cell;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::folder::Folder;
use super::http::{Answer, Http};
use super::server::Server;
use super::tenant::Tenant;
use crate::waiting::within;

pub const HOUR: i64 = 3_600;
/// From late June into July.
pub const FOUR_DAYS: i64 = 4 * 86_400;

/// How long a clock is wrong that is wrong for a moment.
const MOMENT: Duration = Duration::from_millis(500);
/// In how long a clock that is right again is believed. A second is promised; another is for a busy
/// machine.
const SERVED_AGAIN_MAX: Duration = Duration::from_secs(2);
const SHORT_SECONDS: u32 = 3;
/// A server learns of the database's clock by a question that takes its time.
const QUESTION_MAX: Duration = Duration::from_millis(250);
const EXPIRED_WITHIN: Duration = Duration::from_secs(15);
/// A rate is asked about for less than a minute.
const RATE_MAX: Duration = Duration::from_secs(55);
const HEARD_MAX: Duration = Duration::from_secs(5);
/// When a clock is believed that stays ahead; never sooner.
const ADOPTED_AFTER: Duration = Duration::from_secs(60);
const ADOPTED_WITHIN: Duration = Duration::from_secs(75);

const CHECK: &str = "/api/v1/enforcement/check";
const RECORDS: &str = "/api/v1/telemetry/llm-usage";
const RESERVATIONS: &str = "/api/v1/enforcement/reservations";
const HISTORY: &str = "/api/v1/telemetry/usage-history?limit=100";
const KEY_ENDS: &str = "2031-06-28T12:30:00Z";
const JUNE: &str = "2031-06";
const JULY: &str = "2031-07";
/// With what every instant of these tests begins while June lasts.
const NOON: &str = "2031-06-28T12:";

/// A tenant that used June's budget up, and what it recorded besides.
pub struct Watch {
    tenant: Tenant,
    /// The same with a key that ends soon.
    ending: Tenant,
    used_up: String,
    unlimited: String,
    /// Cents that were taken in June and in July.
    taken: [Cell<u32>; 2],
    calls: Cell<u32>,
}

/// What was promised just before a clock jumped.
struct Promise {
    began: Instant,
    /// An integration of which a short hold leaves too little.
    held: String,
    /// One of which the minute's calls were all made.
    rated: String,
}

impl Watch {
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
        let ending = Tenant { id: tenant.id.clone(), bearer, integrations: Vec::new() };
        let (taken, calls) = (Default::default(), Cell::new(0));
        Self { tenant, ending, used_up, unlimited, taken, calls }
    }

    /// Lets a clock jump for a moment, and claims that nothing comes of it but that writes and
    /// decisions are refused, or not even that.
    #[track_caller]
    pub fn check_moment(
        &self,
        servers: &[&Server],
        jump: impl Fn(i64),
        (seconds, is_refused): (i64, bool),
    ) {
        let promise = self.promise(servers);
        jump(seconds);
        let refusals = self.refusals_of_a_moment(servers, &promise);
        jump(-seconds);
        let back = Instant::now();
        for server in servers {
            let look = || (self.refusals(server, &promise) == 0).then_some(());
            assert!(within(SERVED_AGAIN_MAX, look).is_some(), "after {seconds} s: refused");
        }
        println!("{seconds} s: {refusals:?} refused, all served {:?} after it", back.elapsed());
        let as_claimed = refusals.iter().all(|refusals| (*refusals > 0) == is_refused);
        assert!(as_claimed, "by {seconds} s: {refusals:?} refusals");
        self.check_hold(servers, &promise);
        self.check_books(servers);
        self.check_dates(servers);
    }

    /// Sets a clock back by an hour, and claims that nothing comes of it.
    #[track_caller]
    pub fn check_set_back(&self, servers: &[&Server], jump: impl Fn(i64)) {
        let promise = self.promise(servers);
        jump(-HOUR);
        let refusals = self.refusals_of_a_moment(servers, &promise);
        assert!(refusals.iter().all(|refusals| *refusals == 0), "{refusals:?} refusals");
        self.check_hold(servers, &promise);
        self.check_books(servers);
        self.check_dates(servers);
    }

    /// Claims that the key that ends soon is good, or has ended.
    #[track_caller]
    pub fn check_key(&self, servers: &[&Server], is_good: bool) {
        for server in servers {
            let shown = self.ending.client(server).get("/api/v1/integrations");
            let expected = if is_good { 200 } else { 401 };
            assert_eq!(shown.expect("an answer").status, expected, "a key of half an hour");
        }
    }

    /// Claims that a month is used up, or not, and that a record is taken in it.
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
            self.take(is_july);
        }
        self.check_books(servers);
    }

    /// Claims that a clock that stays ahead is believed after a minute and no sooner.
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
            assert!(adopted.is_some(), "not believed after {:?}", jumped.elapsed());
            let took = jumped.elapsed() + QUESTION_MAX;
            assert!(took >= ADOPTED_AFTER, "believed after {took:?}");
        }
        println!("believed after {:?}", jumped.elapsed());
        self.check_month(servers, true);
    }

    #[track_caller]
    fn promise(&self, servers: &[&Server]) -> Promise {
        let (first, last) = (servers.first().expect("one"), servers.last().expect("one"));
        let mut http = self.ending.client(first);
        let held = self.integration(&mut http, json!({ "budget_limit_cents": 100 }));
        let rated = self.integration(&mut http, json!({ "rate_limit_rpm": 4 }));
        let began = Instant::now();
        let short = reservation(&held, &format!("short {held}"), (60, SHORT_SECONDS));
        let answer = http.post(RESERVATIONS, &short).expect("an answer");
        assert_eq!(answer.status, 201, "{answer:?}");
        let mut http = self.ending.client(last);
        for call in 0..4 {
            let call = reservation(&rated, &format!("{call} {rated}"), (1, 600));
            let answer = http.post(RESERVATIONS, &call).expect("an answer");
            assert_eq!(answer.status, 201, "{answer:?}");
        }
        Promise { began, held, rated }
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

    /// Asks all servers for everything for a moment; how much each refused because of the clock.
    #[track_caller]
    fn refusals_of_a_moment(&self, servers: &[&Server], promise: &Promise) -> Vec<usize> {
        let began = Instant::now();
        let mut refusals = vec![0; servers.len()];
        while began.elapsed() < MOMENT {
            for (server, refusals) in servers.iter().zip(&mut refusals) {
                *refusals += self.refusals(server, promise);
            }
        }
        refusals
    }

    /// Asks a server for everything; how much of it was refused because of the clock.
    #[track_caller]
    fn refusals(&self, server: &Server, promise: &Promise) -> usize {
        let mut http = self.ending.client(server);
        self.check_reads(&mut http);
        let checked = http.post(CHECK, &check(&self.used_up)).expect("an answer");
        let mut refused = vec![is_refused(&checked)];
        assert!(is_refused(&checked) || checked.data("result") == "blocked", "{checked:?}");
        let more = reservation(&promise.rated, &format!("more {}", promise.rated), (1, 600));
        let more = http.post(RESERVATIONS, &more).expect("an answer");
        let is_full = more.data("result") == "throttled" || promise.began.elapsed() > RATE_MAX;
        assert!(is_refused(&more) || is_full, "{more:?}");
        refused.push(is_refused(&more));
        refused.push(is_refused(&self.reserve_next(&mut http, promise)));
        let call = record(&self.unlimited, &self.next_call(), 1);
        let recorded = http.post(RECORDS, &call).expect("an answer");
        assert!(is_refused(&recorded) || recorded.status == 201, "{recorded:?}");
        if recorded.status == 201 {
            self.take(false);
        }
        refused.push(is_refused(&recorded));
        refused.into_iter().filter(|refused| *refused).count()
    }

    /// Asks for what fits when the short hold is over, which it is not before its time.
    #[track_caller]
    fn reserve_next(&self, http: &mut Http, promise: &Promise) -> Answer {
        let next = reservation(&promise.held, &format!("next {}", promise.held), (60, 600));
        let answer = http.post(RESERVATIONS, &next).expect("an answer");
        let lasted = promise.began.elapsed() + QUESTION_MAX;
        let is_over = lasted >= Duration::from_secs(SHORT_SECONDS.into());
        match answer.status {
            201 => assert!(is_over, "a hold ended after {lasted:?}"),
            200 => assert_eq!(answer.data("result"), "blocked", "{answer:?}"),
            _ => assert!(is_refused(&answer), "{answer:?}"),
        }
        answer
    }

    /// Claims that reads go on, by a key that ends soon, in June.
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

    /// Claims that the short hold ends at last.
    #[track_caller]
    fn check_hold(&self, servers: &[&Server], promise: &Promise) {
        let mut http = self.ending.client(servers.last().expect("one"));
        let look = || (self.reserve_next(&mut http, promise).status == 201).then_some(());
        assert!(within(EXPIRED_WITHIN, look).is_some(), "an expired hold still counts");
    }

    /// Claims that what was taken, and nothing else, stands in its month.
    #[track_caller]
    fn check_books(&self, servers: &[&Server]) {
        for server in servers {
            let mut http = self.tenant.client(server);
            for (month, taken) in [JUNE, JULY].into_iter().zip(&self.taken) {
                let path = format!("/api/v1/integrations/{}/limits?period={month}", self.unlimited);
                let limits = http.get(&path).expect("an answer");
                assert_eq!(limits.data("budget_used_cents"), taken.get(), "{month}: {limits:?}");
            }
        }
    }

    /// Claims that no record has another hour than that in which it was made.
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

    fn take(&self, is_july: bool) {
        let [june, july] = &self.taken;
        let taken = if is_july { july } else { june };
        taken.set(taken.get() + 1);
    }
}

/// Waits until a server shows its clock in a state, at an instant that begins so.
#[track_caller]
pub fn wait_for_clock(folder: &Folder, server: &Server, state: &str, now: &str) {
    let operator = format!("Bearer {}", folder.operator_token());
    let mut http = Http::new(server.address(), &[("Authorization", &operator)]);
    let mut last = None;
    let found = within(HEARD_MAX, || {
        let clock = http.get("/fdr/clock").expect("an answer");
        let is_now = clock.data("now").as_str().is_some_and(|at| at.starts_with(now));
        let found = (is_now && clock.data("state") == state).then_some(());
        last = Some(clock);
        found
    });
    assert!(found.is_some(), "it is not {state} at {now}: {last:?}");
}

/// Whether the clock is why; nothing else may be.
#[track_caller]
fn is_refused(answer: &Answer) -> bool {
    let is_refused = answer.status == 503;
    assert!(!is_refused || answer.code() == "CLOCK_JUMPED", "{answer:?}");
    is_refused
}

fn check(integration_id: &str) -> Value {
    json!({ "integration_id": integration_id, "estimated_cost_cents": 1 })
}

fn record(integration_id: &str, call_id: &str, cost_cents: u32) -> Value {
    json!({
        "integration_id": integration_id, "call_id": call_id, "provider": "openai",
        "model": "gpt-4o", "tokens_in": 10, "tokens_out": 5, "cost_cents": cost_cents,
    })
}

fn reservation(integration_id: &str, call_id: &str, (cents, seconds): (u32, u32)) -> Value {
    json!({
        "integration_id": integration_id, "call_id": call_id, "estimated_cost_cents": cents,
        "ttl_seconds": seconds,
    })
}
