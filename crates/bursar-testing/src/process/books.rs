//! The stored records and reservations of a tenant, read over the API, with every sum checked
//! against the rows.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value;

use super::http::Http;
use super::server::Server;
use super::tenant::Tenant;

/// Rows of a page.
const HISTORY_PAGE: usize = 1_000;
const HOLDS_PAGE: usize = 100;
/// The limit on pages, which detects a cursor that goes in a circle.
const PAGES_MAX: usize = 10_000;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub integration: String,
    pub tokens_in: i64,
    pub tokens_out: i64,
    pub cost_nanos: i128,
}

/// One open reservation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    pub integration: String,
    pub cost_nanos: i128,
    pub tokens: i64,
}

/// All records and open reservations of a tenant, by call id.
#[derive(Debug)]
pub struct Books {
    pub entries: HashMap<String, Entry>,
    pub holds: HashMap<String, Hold>,
}

/// Calls, tokens in, tokens out, nano-dollars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum(i64, i64, i64, i128);

impl Sum {
    fn of<'a>(entries: impl Iterator<Item = &'a Entry>) -> Self {
        entries.fold(Self::default(), |Self(calls, tokens_in, tokens_out, cost), entry| {
            Self(
                calls + 1,
                tokens_in + entry.tokens_in,
                tokens_out + entry.tokens_out,
                cost + entry.cost_nanos,
            )
        })
    }

    fn from_view(view: &Value) -> Self {
        Self(
            integer(view, "total_calls"),
            integer(view, "total_tokens_in"),
            integer(view, "total_tokens_out"),
            nanos(view, "total_cost_usd"),
        )
    }
}

impl Books {
    /// Reads the books of a tenant without concurrent writes, and checks that every sum that the
    /// server shows is the sum of the rows.
    #[track_caller]
    pub fn read(server: &Server, tenant: &Tenant) -> Self {
        let mut http = tenant.client(server);
        let books = Self { entries: history(&mut http), holds: open_holds(&mut http) };
        books.check_summary(&mut http);
        books.check_days(&mut http);
        for integration in &tenant.integrations {
            books.check_limits(&mut http, integration);
        }
        books
    }

    fn of<'a>(&'a self, integration: &'a str) -> impl Iterator<Item = &'a Entry> {
        self.entries.values().filter(move |entry| entry.integration == integration)
    }

    #[track_caller]
    fn check_summary(&self, http: &mut Http) {
        let summary = get(http, "/api/v1/telemetry/usage-summary");
        let summary = summary.get("data").expect("data");
        assert_eq!(Sum::from_view(summary), Sum::of(self.entries.values()), "the summary");
        let parts = summary.get("by_integration").and_then(Value::as_array).expect("a list");
        for part in parts {
            let sum = Sum::of(self.of(text(part, "integration_id")));
            let shown = (
                integer(part, "total_calls"),
                integer(part, "total_tokens"),
                nanos(part, "total_cost_usd"),
            );
            assert_eq!(shown, (sum.0, sum.1 + sum.2, sum.3), "an integration in the summary");
        }
    }

    #[track_caller]
    fn check_days(&self, http: &mut Http) {
        let answer = get(http, "/api/v1/telemetry/daily-aggregates");
        let days = answer.get("data").and_then(Value::as_array).expect("days");
        let shown = days.iter().map(Sum::from_view).fold(Sum::default(), |sum, day| {
            Sum(sum.0 + day.0, sum.1 + day.1, sum.2 + day.2, sum.3 + day.3)
        });
        assert_eq!(shown, Sum::of(self.entries.values()), "the days");
    }

    #[track_caller]
    fn check_limits(&self, http: &mut Http, integration: &str) {
        let answer = get(http, &format!("/api/v1/integrations/{integration}/limits"));
        let limits = answer.get("data").expect("data");
        let used = Sum::of(self.of(integration));
        let holds = self.holds.values().filter(|hold| hold.integration == integration);
        let held = holds
            .fold((0, 0), |(cost, tokens), hold| (cost + hold.cost_nanos, tokens + hold.tokens));
        let shown = (nanos(limits, "budget_used_usd"), integer(limits, "tokens_used_month"));
        assert_eq!(shown, (used.3, used.1 + used.2), "the amounts used in the limits");
        let shown = (nanos(limits, "budget_held_usd"), integer(limits, "tokens_held"));
        assert_eq!(shown, held, "the amounts held in the limits");
    }
}

/// Reads the whole history by cursor.
#[track_caller]
fn history(http: &mut Http) -> HashMap<String, Entry> {
    let (mut entries, mut ids) = (HashMap::new(), HashSet::new());
    let mut path = format!("/api/v1/telemetry/usage-history?limit={HISTORY_PAGE}");
    for _ in 0..PAGES_MAX {
        let page = get(http, &path);
        for row in page.get("data").and_then(Value::as_array).expect("rows") {
            let call_id = text(row, "call_id").to_owned();
            let entry = Entry {
                integration: text(row, "integration_id").to_owned(),
                tokens_in: integer(row, "tokens_in"),
                tokens_out: integer(row, "tokens_out"),
                cost_nanos: nanos(row, "cost_usd"),
            };
            assert!(ids.insert(text(row, "id").to_owned()), "{call_id} is listed twice");
            let earlier = entries.insert(call_id, entry);
            assert_eq!(earlier, None, "one call id has two records");
        }
        let meta = page.get("meta").expect("meta");
        let Some(cursor) = meta.get("next_cursor").and_then(Value::as_str) else {
            assert_eq!(integer(meta, "total"), entries.len() as i64, "the history's total");
            return entries;
        };
        path = format!("/api/v1/telemetry/usage-history?limit={HISTORY_PAGE}&cursor={cursor}");
    }
    panic!("the history has no end");
}

/// Reads the list of open reservations.
#[track_caller]
fn open_holds(http: &mut Http) -> HashMap<String, Hold> {
    let mut holds = BTreeMap::new();
    for page in 0..PAGES_MAX {
        let offset = page * HOLDS_PAGE;
        let path = format!("/api/v1/enforcement/reservations?limit={HOLDS_PAGE}&offset={offset}");
        let answer = get(http, &path);
        for row in answer.get("data").and_then(Value::as_array).expect("rows") {
            let hold = Hold {
                integration: text(row, "integration_id").to_owned(),
                cost_nanos: nanos(row, "held_cost_usd"),
                tokens: integer(row, "held_tokens"),
            };
            assert_eq!(text(row, "status"), "open");
            let earlier = holds.insert(text(row, "call_id").to_owned(), hold);
            assert_eq!(earlier, None, "one call id has two open reservations");
        }
        let meta = answer.get("meta").expect("meta");
        if meta.get("has_more").and_then(Value::as_bool) != Some(true) {
            assert_eq!(integer(meta, "total"), holds.len() as i64, "the list's total");
            return holds.into_iter().collect();
        }
    }
    panic!("the list of reservations has no end");
}

#[track_caller]
fn get(http: &mut Http, path: &str) -> Value {
    let answer = http.get(path).expect("an answer");
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    answer.body
}

#[track_caller]
fn text<'a>(view: &'a Value, field: &str) -> &'a str {
    let found = view.get(field).and_then(Value::as_str);
    found.unwrap_or_else(|| panic!("{field} is not a text in {view}"))
}

#[track_caller]
pub fn integer(view: &Value, field: &str) -> i64 {
    let found = view.get(field).and_then(Value::as_i64);
    found.unwrap_or_else(|| panic!("{field} is not an integer in {view}"))
}

/// Reads an exact decimal string of dollars.
#[track_caller]
pub fn nanos(view: &Value, field: &str) -> i128 {
    const DIGITS: usize = 9;
    let dollars = text(view, field);
    let (whole, fraction) = dollars.split_once('.').unwrap_or((dollars, ""));
    assert!(fraction.len() <= DIGITS, "{dollars} is finer than a nano-dollar");
    let digits = format!("{whole}{fraction:0<DIGITS$}");
    digits.parse().unwrap_or_else(|_| panic!("{dollars} is not an amount"))
}
