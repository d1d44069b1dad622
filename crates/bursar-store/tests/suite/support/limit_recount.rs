//! Recomputes the accounts of limits from calls and reservations, without the code under test.
//!
//! Only the limits that a call falls under and the starts of periods come from the core.

#![expect(clippy::unwrap_used, reason = "an unreadable row fails the test")]
#![expect(clippy::indexing_slicing, reason = "the columns are counted here")]

use std::collections::{BTreeMap, BTreeSet};

use bursar_core::{
    IntegrationId, KeyId, LimitId, LimitSet, Nanos, OwnedSubject, Period, Tags, TenantId,
    Timestamp, Totals, Window,
};
use bursar_store::{LimitRow, ZonedCalendar};

use super::test_database::{Cells, TestDatabase};

/// A limit, and the version of its tenant's limits from which on calls count in it.
#[derive(Clone, Debug)]
pub(crate) struct KnownLimit {
    pub(crate) row: LimitRow,
    pub(crate) since: i64,
}

const ENTRIES: &str = "select tenant_id, integration_id, account_key_id, model, agent_id, \
     session_id, tags, limits_version, call_id, cost_nanos, tokens_in + tokens_out, \
     policy_result, occurred_at, created_at from usage_entries where kind = 1 order by entry_id";
const RESERVATIONS: &str = "select tenant_id, integration_id, account_key_id, model, agent_id, \
     session_id, tags, limits_version, call_id, estimated_cost_nanos, estimated_tokens, state, \
     reserved_at, expires_at, call_key from reservations";
const ACCOUNTS: &str = "select tenant_id, limit_id, value, period_start, used_cost_nanos, \
     used_tokens, used_calls, held_cost_nanos, held_tokens, held_calls from limit_accounts";
const SECONDS: &str = "select tenant_id, limit_id, value, second, used_cost_nanos, used_tokens, \
     used_calls, held_cost_nanos, held_tokens, held_calls from limit_seconds";
const VALUES: &str = "select tenant_id, limit_id, period_start, accounts from limit_values";
const POSTINGS: &str = "select tenant_id, limit_id, value, call_key, expires_at, cost_nanos, \
     tokens from postings";

const OPEN: i64 = 1;
const SETTLED: i64 = 2;
const BLOCKED: i64 = 3;
const MINUTE: i64 = 60;

/// A call or a reservation: its labels and the version under which it counts.
struct Made {
    tenant_id: TenantId,
    subject: OwnedSubject,
    version: i64,
    call_id: String,
    cost: i64,
    tokens: i64,
    /// The state of a reservation, or the policy result of a call.
    code: i64,
    /// The instant of the call or reservation.
    at: Timestamp,
    /// When the call was stored, or when the reservation expires.
    other_at: Timestamp,
    call_key: Option<String>,
}

/// What a limit counts: used and held, by value and then by the start of the period, or by second.
type Sums = BTreeMap<(String, i64), (Totals, Totals)>;

/// Compares the stored accounts, seconds, values and postings of these limits with what the stored
/// calls and reservations add up to. No other limit may have any.
///
/// Values must be fewer than their cap.
pub(crate) fn check_limits(database: &dyn TestDatabase, limits: &[KnownLimit], now: Timestamp) {
    let tables = database.rows(&[ENTRIES, RESERVATIONS, ACCOUNTS, SECONDS, VALUES, POSTINGS]);
    let entries: Vec<Made> = tables[0].iter().map(made).collect();
    let reservations: Vec<Made> = tables[1].iter().map(made).collect();
    let known: BTreeSet<(TenantId, LimitId)> =
        limits.iter().map(|known| (known.row.tenant_id, known.row.limit.id)).collect();
    for table in &tables[2..] {
        for row in table {
            assert!(known.contains(&limit_of(row)), "a row of a deleted limit: {row:?}");
        }
    }
    let calendar = ZonedCalendar::default();
    for KnownLimit { row, since } in limits {
        let key = (row.tenant_id, row.limit.id);
        let own = |table: usize| tables[table].iter().filter(move |row| limit_of(row) == key);
        let others = limits.iter().filter(|other| other.row.tenant_id == row.tenant_id);
        let set = LimitSet::new(1, others.map(|other| other.row.limit.clone()).collect());
        let applies = |made: &Made| {
            let applied = set.applied(&made.subject.as_subject());
            let of_limit = applied.iter().find(|one| set.limits()[one.index].id == row.limit.id);
            let counts = made.tenant_id == row.tenant_id && made.version >= *since;
            of_limit.filter(|_| counts).map(|one| one.value.to_string())
        };
        let expected =
            Expected { row, calendar: &calendar, entries: &entries, reservations: &reservations };
        expected.check_postings(&applies, own(5).collect());
        match row.limit.rule.bound.window() {
            Some(Window::Minute) => {
                let sums = expected.by_second(&applies);
                check_seconds(row, &sums, own(3).collect(), now);
            }
            Some(Window::Calendar(..) | Window::Total { .. }) => {
                let sums = expected.by_period(&applies);
                check_periods(row, &sums, own(2).collect());
                check_values(row, &sums, own(4).collect());
            }
            None => check_open(row, &expected.by_period(&applies), own(2).collect()),
        }
    }
}

/// The calls and reservations by which a limit is checked.
struct Expected<'r> {
    row: &'r LimitRow,
    calendar: &'r ZonedCalendar,
    entries: &'r [Made],
    reservations: &'r [Made],
}

impl Expected<'_> {
    fn period(&self, at: Timestamp) -> Option<Period> {
        self.row.limit.rule.bound.period(self.calendar, at).unwrap()
    }

    fn by_period(&self, applies: &dyn Fn(&Made) -> Option<String>) -> Sums {
        let mut sums = Sums::new();
        for call in self.entries {
            let (Some(value), Some(period)) = (applies(call), self.period(call.other_at)) else {
                continue;
            };
            if period.contains(call.at.min(call.other_at)) {
                let calls = i64::from(call.code != BLOCKED);
                add(&mut sums, (value, period.start.micros()), (amount(call, calls), NONE));
            }
        }
        for held in self.reservations {
            let (Some(value), Some(period)) = (applies(held), self.period(held.at)) else {
                continue;
            };
            // A reservation that ended has still begun the period.
            let amount = if held.code == OPEN { amount(held, 1) } else { NONE };
            add(&mut sums, (value, period.start.micros()), (NONE, amount));
        }
        sums
    }

    fn by_second(&self, applies: &dyn Fn(&Made) -> Option<String>) -> Sums {
        let mut sums = Sums::new();
        let reserved: BTreeMap<(TenantId, IntegrationId, &str), &Made> = self
            .reservations
            .iter()
            .map(|held| ((held.tenant_id, held.subject.integration_id, &*held.call_id), held))
            .collect();
        for call in self.entries {
            let Some(value) = applies(call) else { continue };
            let key = (call.tenant_id, call.subject.integration_id, &*call.call_id);
            let held = reserved.get(&key);
            let second = held.map_or(call.at.min(call.other_at), |held| held.at).second();
            let counts_already = held.is_some_and(|held| held.code != SETTLED);
            if second > call.other_at.second() - MINUTE {
                let calls = i64::from(call.code != BLOCKED && !counts_already);
                add(&mut sums, (value, second), (amount(call, calls), NONE));
            }
        }
        for held in self.reservations {
            let Some(value) = applies(held) else { continue };
            let (used, held_amount) = match held.code {
                OPEN => (NONE, amount(held, 1)),
                SETTLED => (NONE, NONE),
                _ => (Totals { calls: 1, ..NONE }, NONE),
            };
            add(&mut sums, (value, held.at.second()), (used, held_amount));
        }
        sums
    }

    /// Each open reservation has a posting in its account.
    fn check_postings(&self, applies: &dyn Fn(&Made) -> Option<String>, rows: Vec<&Cells>) {
        let open = self.reservations.iter().filter(|held| held.code == OPEN);
        let open = open.filter(|held| self.period(held.at).is_some());
        let posting = |held: &Made| {
            let key = (applies(held)?, held.call_key.clone()?);
            Some((key, (held.other_at.micros(), held.cost, held.tokens)))
        };
        let expected: BTreeMap<_, _> = open.filter_map(posting).collect();
        let stored = rows.iter().map(|row| {
            let key = (row[2].clone().unwrap(), row[3].clone().unwrap());
            (key, (int(row, 4), int(row, 5), int(row, 6)))
        });
        let stored: BTreeMap<_, _> = stored.collect();
        assert_eq!(expected, stored, "postings (left) as reserved, (right) stored: {:?}", self.row);
    }
}

const NONE: Totals = Totals { cost: Nanos::ZERO, tokens: 0, calls: 0 };

fn add(sums: &mut Sums, key: (String, i64), (used, held): (Totals, Totals)) {
    let sum = sums.entry(key).or_default();
    *sum = (sum.0.plus(used).unwrap(), sum.1.plus(held).unwrap());
}

fn amount(made: &Made, calls: i64) -> Totals {
    Totals { cost: Nanos::new(made.cost), tokens: made.tokens, calls }
}

/// A stored account has the sums of one period, and no call counts in a later one.
fn check_periods(limit: &LimitRow, sums: &Sums, rows: Vec<&Cells>) {
    let mut stored = BTreeMap::new();
    for row in rows {
        let (value, start) = (row[2].clone().unwrap(), int(row, 3));
        let expected = sums.get(&(value.clone(), start)).copied().unwrap_or_default();
        let found = (totals(row, 4), totals(row, 7));
        assert_eq!(expected, found, "{value:?} of {limit:?} (left) as added up, (right) as stored");
        stored.insert(value, start);
    }
    for (value, start) in sums.keys() {
        let latest = stored.get(value);
        assert!(latest.is_some_and(|latest| latest >= start), "{value:?} of {limit:?}: {latest:?}");
    }
}

/// The values that count in the latest period.
fn check_values(limit: &LimitRow, sums: &Sums, rows: Vec<&Cells>) {
    let Some(latest) = sums.keys().filter(|(value, _)| !value.is_empty()).map(|key| key.1).max()
    else {
        return;
    };
    let values = sums.keys().filter(|(value, start)| !value.is_empty() && *start == latest).count();
    let stored: Vec<(i64, i64)> = rows.iter().map(|row| (int(row, 2), int(row, 3))).collect();
    assert_eq!(stored, [(latest, values as i64)], "values of {limit:?}");
}

fn check_open(limit: &LimitRow, sums: &Sums, rows: Vec<&Cells>) {
    let nonzero = |(_, calls): &(String, i64)| *calls != 0;
    let expected = sums.iter().map(|((value, _), (_, held))| (value.clone(), held.calls));
    let stored = rows.iter().map(|row| (row[2].clone().unwrap(), int(row, 9)));
    let expected: BTreeMap<_, _> = expected.filter(nonzero).collect();
    let stored: BTreeMap<_, _> = stored.filter(nonzero).collect();
    assert_eq!(expected, stored, "{limit:?} (left) as added up, (right) as stored");
}

/// Only seconds of the last minute are compared, because others are replaced or dropped.
fn check_seconds(limit: &LimitRow, sums: &Sums, rows: Vec<&Cells>, now: Timestamp) {
    let is_recent = |second: i64| second > now.second() - MINUTE && second <= now.second();
    let is_some = |(used, held): &(Totals, Totals)| (*used, *held) != (NONE, NONE);
    let expected = sums.iter().filter(|((_, second), sums)| is_recent(*second) && is_some(sums));
    let expected: Sums = expected.map(|(key, sums)| (key.clone(), *sums)).collect();
    let stored = rows
        .iter()
        .map(|row| ((row[2].clone().unwrap(), int(row, 3)), (totals(row, 4), totals(row, 7))));
    let stored: Sums =
        stored.filter(|((_, second), sums)| is_recent(*second) && is_some(sums)).collect();
    assert_eq!(expected, stored, "{limit:?} (left) as added up, (right) as stored");
}

fn int(row: &Cells, at: usize) -> i64 {
    row[at].as_ref().unwrap().parse().unwrap()
}

fn totals(row: &Cells, at: usize) -> Totals {
    Totals { cost: Nanos::new(int(row, at)), tokens: int(row, at + 1), calls: int(row, at + 2) }
}

fn limit_of(row: &Cells) -> (TenantId, LimitId) {
    let tenant_id = TenantId::from_number(int(row, 0)).unwrap();
    (tenant_id, LimitId::from_number(int(row, 1)).unwrap())
}

fn made(row: &Cells) -> Made {
    let text = |at: usize| row[at].as_deref().map(Into::into);
    let instant = |at: usize| Timestamp::from_micros(int(row, at)).unwrap();
    let key = row[2].as_ref().map(|number| number.parse().unwrap());
    Made {
        tenant_id: TenantId::from_number(int(row, 0)).unwrap(),
        subject: OwnedSubject {
            integration_id: IntegrationId::from_number(int(row, 1)).unwrap(),
            account_key_id: key.and_then(KeyId::from_number),
            model: text(3),
            agent_id: text(4),
            session_id: text(5),
            tags: tags(row[6].as_deref()),
        },
        version: int(row, 7),
        call_id: row[8].clone().unwrap(),
        cost: int(row, 9),
        tokens: int(row, 10),
        code: int(row, 11),
        at: instant(12),
        other_at: instant(13),
        call_key: row.get(14).and_then(Clone::clone),
    }
}

fn tags(json: Option<&str>) -> Tags {
    let pairs: BTreeMap<Box<str>, Box<str>> =
        json.map_or_else(BTreeMap::new, |json| serde_json::from_str(json).unwrap());
    Tags::stored(pairs)
}
