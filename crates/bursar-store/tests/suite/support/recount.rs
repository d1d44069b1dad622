//! Recomputes all sums from the stored rows, without the code under test.

#![expect(clippy::unwrap_used, reason = "an unreadable row fails the test")]
#![expect(clippy::indexing_slicing, reason = "the columns and figures are counted here")]

use std::collections::{BTreeMap, BTreeSet};

use bursar_core::{IntegrationId, Month, Nanos, TenantId, Timestamp, Totals};
use bursar_store::{LATENCY_BOUNDS_MS, LATENCY_BUCKETS, OTHER, call_key};

use super::call_id;
use super::test_database::{Cells, TestDatabase};

/// An integration of a tenant.
pub(crate) type Owned = (TenantId, IntegrationId);

/// The recomputed sums, by integration.
pub(crate) struct Recount {
    pub(crate) integrations: Vec<Owned>,
    used: BTreeMap<(Owned, Month), Totals>,
    /// The reservations that are stored as open: month, held amount and expiry.
    open: Vec<(Owned, Month, Totals, Timestamp)>,
    /// The calls that count towards the rate, by second.
    seconds: BTreeMap<Owned, BTreeMap<i64, i64>>,
}

impl Recount {
    /// Adds up the rows of a database, and compares them with all stored sums.
    pub(crate) fn of(database: &dyn TestDatabase) -> Self {
        // One call, so that all rows are of one snapshot.
        let tables = database.rows(&[
            INTEGRATIONS,
            ENTRIES,
            CALLS,
            COUNTERS,
            RATES,
            LABELS,
            ROLLUPS,
            RESERVATIONS,
            BYTES,
        ]);
        let integrations = tables[0].iter().map(|row| owner(row, 0, 1)).collect();
        let entries: Vec<Entry> = tables[1].iter().map(entry).collect();
        let calls = calls(&tables[2]);
        check_calls(&entries, &calls);
        let used = used(&entries);
        let open = open(&calls);
        check_counters(&tables[3], &used, &open);
        let seconds = seconds(&entries, &calls);
        check_rates(&tables[4], &seconds);
        check_rollups(&tables[5], &tables[6], &entries);
        check_reservations(&tables[7], &open);
        check_bytes(&tables[8], &entries);
        Self { integrations, used, open, seconds }
    }

    pub(crate) fn used(&self, key: Owned, month: Month) -> Totals {
        self.used.get(&(key, month)).copied().unwrap_or_default()
    }

    /// The amount that counts as held at `now` in its month, without due holds.
    pub(crate) fn held(&self, key: Owned, now: Timestamp) -> Totals {
        let open = self.open.iter().filter(|(owner, month, _, expires_at)| {
            *owner == key && *month == now.month() && *expires_at > now
        });
        open.fold(Totals::default(), |sum, (_, _, amount, _)| sum.plus(*amount).unwrap())
    }

    pub(crate) fn rate(&self, key: Owned, second: i64) -> i64 {
        let seconds = self.seconds.get(&key).into_iter().flatten();
        seconds.filter(|(at, _)| **at > second - 60).map(|(_, calls)| calls).sum()
    }

    pub(crate) fn months(&self, key: Owned) -> Vec<Month> {
        self.used.keys().filter(|(owner, _)| *owner == key).map(|(_, month)| *month).collect()
    }
}

struct Entry {
    entry_id: i64,
    owner: Owned,
    is_call: i64,
    call_id: String,
    agent_id: Option<String>,
    key_id: Option<i64>,
    /// The names and values of the tags that count in rollups.
    tags: Vec<(String, String)>,
    provider: String,
    model: String,
    /// The tokens in the order of the columns of a rollup.
    tokens: [i64; 10],
    cost_nanos: i64,
    /// The stored codes, from 1.
    cost_source: i64,
    usage_status: i64,
    latency_ms: Option<i64>,
    blocked: bool,
    failed: bool,
    occurred_at: Timestamp,
    created_at: Timestamp,
    /// 400 plus the bytes of its texts.
    bytes: i64,
}

struct Call {
    entry_id: Option<i64>,
    /// State, integration, amount, and the instants of its start, expiry and end.
    reservation: Option<(i64, Owned, Totals, Timestamp, Timestamp, Option<Timestamp>)>,
}

const OPEN: i64 = 1;
const SETTLED: i64 = 2;
const RELEASED: i64 = 3;
const EXPIRED: i64 = 4;

const INTEGRATIONS: &str = "select tenant_id, integration_id from integrations";
const ENTRIES: &str = "select entry_id, tenant_id, integration_id, kind, call_id, agent_id, \
     provider, model, cost_nanos, cost_source, usage_status, latency_ms, policy_result, \
     error_code, occurred_at, created_at, key_id, counted_tags, session_id, error_message, \
     metadata, response_model, region, provider_request_id, service_tier, units, tags, \
     tokens_in, tokens_out, tokens_cache_read, tokens_cache_write, tokens_cache_write_long, \
     tokens_audio_in, tokens_image_in, tokens_reasoning, tokens_audio_out, tokens_image_out \
     from usage_entries order by entry_id";
const RESERVATIONS: &str = "select tenant_id, reservations from open_reservations";
const BYTES: &str = "select tenant_id, integration_id, day, bytes from stored_bytes";
const CALLS: &str = "select c.tenant_id, c.call_key, c.entry_id, r.state, r.integration_id, \
     r.estimated_cost_nanos, r.estimated_tokens, r.reserved_at, r.expires_at, r.ended_at, r.call_id \
     from calls c left join reservations r \
     on r.tenant_id = c.tenant_id and r.call_key = c.call_key";
const COUNTERS: &str = "select tenant_id, scope_id, month, used_cost_nanos, used_tokens, \
     used_calls, held_cost_nanos, held_tokens, held_calls from counters where scope_kind = 1";
const RATES: &str =
    "select tenant_id, scope_id, slot, second, calls from rate_slots where scope_kind = 1";
const LABELS: &str = "select tenant_id, kind, provider, label from rollup_labels";
const ROLLUPS: &str = "select tenant_id, integration_id, grain, start, provider, label, key_id, calls, \
     succeeded, errors, blocked, cost_unknown, tokens_in, tokens_out, cost_nanos, \
     latency_calls, latency_sum_ms, latency_00, latency_01, latency_02, latency_03, \
     latency_04, latency_05, latency_06, latency_07, latency_08, latency_09, latency_10, \
     latency_11, latency_12, latency_13, latency_14, latency_15, latency_max_ms, \
     status_final, status_partial, status_estimated, status_missing, cost_reported, \
     cost_computed, cost_held, tokens_cache_read, tokens_cache_write, \
     tokens_cache_write_long, tokens_audio_in, tokens_image_in, tokens_reasoning, \
     tokens_audio_out, tokens_image_out from rollups";
/// The figures of a rollup after its key of seven columns.
const FIGURES: usize = 26 + LATENCY_BUCKETS;
/// The place of the largest latency among them.
const LATENCY_MAX: usize = 10 + LATENCY_BUCKETS;

fn opt_int(row: &Cells, at: usize) -> Option<i64> {
    row[at].as_ref().map(|text| text.parse().unwrap())
}

fn int(row: &Cells, at: usize) -> i64 {
    opt_int(row, at).unwrap()
}

fn text(row: &Cells, at: usize) -> String {
    row[at].clone().unwrap()
}

fn owner(row: &Cells, tenant: usize, integration: usize) -> Owned {
    let tenant_id = TenantId::from_number(int(row, tenant)).unwrap();
    (tenant_id, IntegrationId::from_number(int(row, integration)).unwrap())
}

fn instant(row: &Cells, at: usize) -> Timestamp {
    Timestamp::from_micros(int(row, at)).unwrap()
}

fn totals(row: &Cells, at: usize) -> Totals {
    Totals { cost: Nanos::new(int(row, at)), tokens: int(row, at + 1), calls: int(row, at + 2) }
}

fn entry(row: &Cells) -> Entry {
    Entry {
        entry_id: int(row, 0),
        owner: owner(row, 1, 2),
        is_call: i64::from(int(row, 3) == 1),
        call_id: text(row, 4),
        agent_id: row[5].clone(),
        key_id: opt_int(row, 16),
        tags: counted_tags(row[26].as_deref(), int(row, 17)),
        provider: text(row, 6),
        model: text(row, 7),
        tokens: std::array::from_fn(|bucket| int(row, 27 + bucket)),
        cost_nanos: int(row, 8),
        cost_source: int(row, 9),
        usage_status: int(row, 10),
        latency_ms: opt_int(row, 11),
        blocked: int(row, 12) == 3,
        failed: row[13].is_some(),
        occurred_at: instant(row, 14),
        created_at: instant(row, 15),
        bytes: 400
            + [4, 5, 6, 7, 13, 18, 19, 20, 21, 22, 23, 24, 25, 26]
                .map(|at| row[at].as_ref().map_or(0, |text| text.len() as i64))
                .iter()
                .sum::<i64>(),
    }
}

/// The tags whose bit is set, in the order of their names.
fn counted_tags(tags: Option<&str>, counted: i64) -> Vec<(String, String)> {
    let tags: BTreeMap<String, String> =
        tags.map_or_else(BTreeMap::new, |tags| serde_json::from_str(tags).unwrap());
    assert_eq!(counted >> tags.len(), 0, "a bit without a tag");
    let is_counted = |(at, _): &(usize, _)| counted >> at & 1 == 1;
    tags.into_iter().enumerate().filter(is_counted).map(|(_, tag)| tag).collect()
}

fn calls(rows: &[Cells]) -> BTreeMap<(TenantId, u128), Call> {
    let call = |row: &Cells| {
        let tenant_id = TenantId::from_number(int(row, 0)).unwrap();
        let key = u128::from_str_radix(&text(row, 1).replace('-', ""), 16).unwrap();
        let reservation = opt_int(row, 3).map(|state| {
            let text = text(row, 10);
            assert_eq!(call_key(tenant_id, &call_id(&text)).0, key, "the key of {text}");
            let amount = Totals { cost: Nanos::new(int(row, 5)), tokens: int(row, 6), calls: 1 };
            let ended_at = opt_int(row, 9).map(|micros| Timestamp::from_micros(micros).unwrap());
            (state, owner(row, 0, 4), amount, instant(row, 7), instant(row, 8), ended_at)
        });
        ((tenant_id, key), Call { entry_id: opt_int(row, 2), reservation })
    };
    rows.iter().map(call).collect()
}

/// Checks that each call id has one entry, and that the state of each reservation matches its row.
fn check_calls(entries: &[Entry], calls: &BTreeMap<(TenantId, u128), Call>) {
    let mut recorded = BTreeMap::new();
    for entry in entries.iter().filter(|entry| entry.is_call == 1) {
        let key = (entry.owner.0, call_key(entry.owner.0, &call_id(&entry.call_id)).0);
        let before = recorded.insert(key, entry);
        assert!(before.is_none(), "two entries of call {}", entry.call_id);
        let linked = calls.get(&key).and_then(|call| call.entry_id);
        assert_eq!(linked, Some(entry.entry_id), "the entry of call {}", entry.call_id);
    }
    for (key, call) in calls {
        let entry = recorded.get(key);
        assert_eq!(call.entry_id, entry.map(|entry| entry.entry_id), "a missing entry");
        let Some((state, owner, _, reserved_at, expires_at, ended_at)) = call.reservation else {
            assert!(entry.is_some(), "an unused call id is still claimed");
            continue;
        };
        let is_consistent = match state {
            OPEN => entry.is_none() && ended_at.is_none(),
            SETTLED => {
                ended_at.is_some_and(|at| at < expires_at)
                    && entry.is_some_and(|entry| entry.owner == owner)
            }
            RELEASED => ended_at.is_some_and(|at| at < expires_at && at >= reserved_at),
            EXPIRED => ended_at == Some(expires_at),
            _ => false,
        };
        assert!(is_consistent, "a reservation in state {state}, ended {ended_at:?}");
    }
}

fn used(entries: &[Entry]) -> BTreeMap<(Owned, Month), Totals> {
    let mut used: BTreeMap<(Owned, Month), Totals> = BTreeMap::new();
    for entry in entries {
        let amount = Totals {
            cost: Nanos::new(entry.cost_nanos),
            tokens: entry.tokens[0] + entry.tokens[1],
            calls: entry.is_call,
        };
        let sum = used.entry((entry.owner, entry.occurred_at.month())).or_default();
        *sum = sum.plus(amount).unwrap();
    }
    used
}

fn open(calls: &BTreeMap<(TenantId, u128), Call>) -> Vec<(Owned, Month, Totals, Timestamp)> {
    let reservations = calls.values().filter_map(|call| call.reservation);
    let open = reservations.filter(|(state, ..)| *state == OPEN);
    open.map(|(_, owner, amount, reserved_at, expires_at, _)| {
        (owner, reserved_at.month(), amount, expires_at)
    })
    .collect()
}

fn check_counters(
    rows: &[Cells],
    used: &BTreeMap<(Owned, Month), Totals>,
    open: &[(Owned, Month, Totals, Timestamp)],
) {
    let mut expected: BTreeMap<(Owned, i32), (Totals, Totals)> = BTreeMap::new();
    for ((owner, month), amount) in used {
        expected.entry((*owner, month.number())).or_default().0 = *amount;
    }
    for (owner, month, amount, _) in open {
        let held = &mut expected.entry((*owner, month.number())).or_default().1;
        *held = held.plus(*amount).unwrap();
    }
    let rows = rows.iter().map(|row| {
        let month = i32::try_from(int(row, 2)).unwrap();
        ((owner(row, 0, 1), month), (totals(row, 3), totals(row, 6)))
    });
    // A month in which all holds ended may have a row of zeros or none.
    let stored = rows.filter(|(_, sums)| *sums != Default::default()).collect();
    expected.retain(|_, sums| *sums != Default::default());
    assert_eq!(expected, stored, "counters (left) as the rows add up, (right) as stored");
}

/// A call counts once in its integration: when it was reserved there, or else when it was recorded
/// there, if it was recent and not blocked.
fn seconds(
    entries: &[Entry],
    calls: &BTreeMap<(TenantId, u128), Call>,
) -> BTreeMap<Owned, BTreeMap<i64, i64>> {
    let mut seconds: BTreeMap<Owned, BTreeMap<i64, i64>> = BTreeMap::new();
    let mut add = |owner, second| {
        *seconds.entry(owner).or_default().entry(second).or_default() += 1;
    };
    let mut reserved = BTreeSet::new();
    for (key, call) in calls {
        if let Some((_, owner, _, reserved_at, ..)) = call.reservation {
            reserved.insert((*key, owner));
            add(owner, reserved_at.second());
        }
    }
    for entry in entries.iter().filter(|entry| entry.is_call == 1 && !entry.blocked) {
        let key = (entry.owner.0, call_key(entry.owner.0, &call_id(&entry.call_id)).0);
        let fresh = entry.occurred_at.second() > entry.created_at.second() - 60;
        if fresh && !reserved.contains(&(key, entry.owner)) {
            add(entry.owner, entry.occurred_at.min(entry.created_at).second());
        }
    }
    seconds
}

/// A slot keeps the latest of the seconds that fall into it.
fn check_rates(rows: &[Cells], seconds: &BTreeMap<Owned, BTreeMap<i64, i64>>) {
    let mut expected: BTreeMap<(Owned, i64), (i64, i64)> = BTreeMap::new();
    for (owner, seconds) in seconds {
        for (second, calls) in seconds {
            expected.insert((*owner, second.rem_euclid(60)), (*second, *calls));
        }
    }
    let slot = |row: &Cells| ((owner(row, 0, 1), int(row, 2)), (int(row, 3), int(row, 4)));
    let stored = rows.iter().map(slot).collect();
    assert_eq!(expected, stored, "rate slots (left) as the rows add up, (right) as stored");
}

fn check_reservations(rows: &[Cells], open: &[(Owned, Month, Totals, Timestamp)]) {
    let mut expected: BTreeMap<i64, i64> = BTreeMap::new();
    for ((tenant_id, _), ..) in open {
        *expected.entry(tenant_id.number()).or_default() += 1;
    }
    let stored = rows.iter().map(|row| (int(row, 0), int(row, 1)));
    let stored = stored.filter(|(_, reservations)| *reservations != 0).collect();
    assert_eq!(expected, stored, "open reservations (left) as the rows add up, (right) as stored");
}

fn check_bytes(rows: &[Cells], entries: &[Entry]) {
    let mut expected: BTreeMap<(Owned, i32), i64> = BTreeMap::new();
    for entry in entries {
        *expected.entry((entry.owner, entry.created_at.day().number())).or_default() += entry.bytes;
    }
    let row = |row: &Cells| ((owner(row, 0, 1), i32::try_from(int(row, 2)).unwrap()), int(row, 3));
    let stored = rows.iter().map(row).collect();
    assert_eq!(expected, stored, "bytes of days (left) as the entries add up, (right) as stored");
}

/// Integration, grain, start, provider, label and key.
type RollupKey = (Owned, i64, i32, String, String, i64);

/// How many pairs of a model and a key have a rollup of their own on a day of an integration.
const MODEL_KEYS_MAX: usize = 1_000;

fn check_rollups(labels: &[Cells], rollups: &[Cells], entries: &[Entry]) {
    let label = |row: &Cells| (int(row, 0), int(row, 1), text(row, 2), text(row, 3));
    let labels: BTreeSet<(i64, i64, String, String)> = labels.iter().map(label).collect();
    let rollup = |row: &Cells| {
        let start = i32::try_from(int(row, 3)).unwrap();
        let key = (owner(row, 0, 1), int(row, 2), start, text(row, 4), text(row, 5), int(row, 6));
        (key, std::array::from_fn(|figure| int(row, 7 + figure)))
    };
    let stored: BTreeMap<RollupKey, [i64; FIGURES]> = rollups.iter().map(rollup).collect();
    let mut expected: BTreeMap<RollupKey, [i64; FIGURES]> = BTreeMap::new();
    for entry in entries {
        for key in rollups_of(entry, &labels, &stored) {
            let sums = expected.entry(key).or_insert([0; FIGURES]);
            for (at, (sum, figure)) in sums.iter_mut().zip(figures(entry)).enumerate() {
                *sum = if at == LATENCY_MAX { figure.max(*sum) } else { *sum + figure };
            }
        }
    }
    assert_eq!(expected, stored, "rollups (left) as the entries add up, (right) as stored");
    check_keys(&stored);
}

/// Keys count as others only on days that have enough keys.
fn check_keys(stored: &BTreeMap<RollupKey, [i64; FIGURES]>) {
    let mut own: BTreeMap<(Owned, i32), usize> = BTreeMap::new();
    let mut others: BTreeSet<(Owned, i32)> = BTreeSet::new();
    for (owner, _, start, _, _, key) in stored.keys() {
        match key {
            1.. => *own.entry((*owner, *start)).or_default() += 1,
            -1 => drop(others.insert((*owner, *start))),
            _ => {}
        }
    }
    assert!(own.values().all(|keys| *keys <= MODEL_KEYS_MAX), "{own:?}");
    assert!(others.iter().all(|day| own.get(day) == Some(&MODEL_KEYS_MAX)), "{others:?}");
}

/// The rollups in which an entry counts.
fn rollups_of(
    entry: &Entry,
    labels: &BTreeSet<(i64, i64, String, String)>,
    stored: &BTreeMap<RollupKey, [i64; FIGURES]>,
) -> Vec<RollupKey> {
    let owner = entry.owner;
    let shown = |kind: i64, provider: &str, label: &str| {
        let own = (owner.0.number(), kind, provider.to_owned(), label.to_owned());
        if labels.contains(&own) { label.to_owned() } else { OTHER.to_owned() }
    };
    let day = entry.occurred_at.day().number();
    let quarter = i32::try_from(entry.occurred_at.second() / 900).unwrap();
    let model = shown(1, &entry.provider, &entry.model);
    let has_own =
        labels.contains(&(owner.0.number(), 1, entry.provider.clone(), entry.model.clone()));
    let provider = if has_own { entry.provider.clone() } else { OTHER.to_owned() };
    let by_day = |key| (owner, 2, day, provider.clone(), model.clone(), key);
    let key = match entry.key_id {
        None => by_day(0),
        Some(key_id) if stored.contains_key(&by_day(key_id)) => by_day(key_id),
        Some(_) => by_day(-1),
    };
    let mut keys = vec![(owner, 1, quarter, provider.clone(), model.clone(), 0), key];
    if let Some(agent) = &entry.agent_id {
        keys.push((owner, 3, day, String::new(), shown(2, "", agent), 0));
    }
    for (name, value) in &entry.tags {
        keys.push((owner, 4, day, name.clone(), shown(3, name, value), 0));
    }
    keys
}

/// The code of calls whose cost is unknown.
const UNKNOWN: i64 = 4;

/// The figures that an entry adds to a rollup, in the order of the columns.
fn figures(entry: &Entry) -> [i64; FIGURES] {
    let is_call = entry.is_call;
    let when = |holds: bool| if holds { is_call } else { 0 };
    let mut figures = [0; FIGURES];
    figures[0] = is_call;
    figures[1] = when(!entry.failed && !entry.blocked);
    figures[2] = when(entry.failed);
    figures[3] = when(entry.blocked);
    figures[4] = when(entry.cost_source == UNKNOWN);
    figures[5..7].copy_from_slice(&entry.tokens[..2]);
    figures[7] = entry.cost_nanos;
    if let Some(latency_ms) = entry.latency_ms {
        figures[8] = is_call;
        figures[9] = latency_ms;
        let slower = LATENCY_BOUNDS_MS.iter().position(|bound| latency_ms <= *bound);
        figures[10 + slower.unwrap_or(LATENCY_BUCKETS - 1)] = is_call;
        figures[LATENCY_MAX] = latency_ms;
    }
    // The codes of statuses and of other sources are in the order of the columns.
    let at = |code: i64| LATENCY_MAX + usize::try_from(code).unwrap();
    figures[at(entry.usage_status)] = is_call;
    if entry.cost_source != UNKNOWN {
        figures[at(4 + entry.cost_source)] = is_call;
    }
    figures[LATENCY_MAX + 8..].copy_from_slice(&entry.tokens[2..]);
    figures
}
