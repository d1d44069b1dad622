//! Loads a group: claims its calls, locks its accounts, reads the clock, then reads everything else.
//!
//! Nothing that decides is read before the locks, because it could change until they are taken.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use bursar_core::{
    Account, Book, Calendar, Call, CallKey, Counter, Day, EntryId, Hold, IntegrationId, KeyId,
    Loaded, LoadedLimits, Month, Nanos, Posting, TenantId, TenantSums, Timestamp, Totals,
};
use tokio_postgres::{Client, Row};

use super::bulk::{Bulk, Column};
use super::clock::CLOCK;
use super::limits::{AccountRows, KnownSets, Locks, SHARE_SET};
use super::pipeline::{Sent, in_order};
use super::tx::{Key, params, store_error};
use super::writer_state::PostgresWriter;
use crate::clock::{StoreClock, decidable};
use crate::error::StoreError;
use crate::rows::codec::{self, SCOPE_INTEGRATION};
use crate::rows::columns::{Columns, RawColumns};
use crate::rows::decode;
use crate::rows::reservation_columns::{RESERVATION_COLUMNS, reservation_columns};
use crate::rows::row::IntegrationRow;
use crate::rows::row::TenantRow;
use crate::tables::tenants::SELECT_TENANT;
use crate::tables::value::FromRow;
use crate::write::writer_connection::{Claim, LoadRequest, ReservedBefore};

const CLAIM: &str = "insert into calls (tenant_id, call_key, entry_id) \
     values ($1, unnest($2), unnest($3)) \
     on conflict (tenant_id, call_key) do nothing returning call_key";
// Statements with many keys look up each key in a lateral subquery. With a join, and without
// statistics about the tenant, the planner may choose to read all rows of the tenant.
const RESERVED_FOR: &str = "select c.integration_id, c.call_key, c.account_key_id, c.postings \
     from unnest($2::uuid[]) as wanted (call_key) \
     cross join lateral (select integration_id, call_key, account_key_id, postings \
     from reservations where tenant_id = $1 and call_key = wanted.call_key limit 1) c";
const LOCK: &str = "select tenant_id, integration_id, name, provider_type, credential_ref, config, \
     origin, status, health, health_checked_at, health_message, default_model, budget_limit_cents, \
     token_limit_month, rate_limit_rpm, cost_basis, created_at, updated_at, created_by, deleted_at \
     from integrations where tenant_id = $1 and integration_id = any($2) \
     order by tenant_id, integration_id for no key update";
// An instant far in the future is from before an operator set the time back, and is ignored.
const LAST_AT: &str = "select coalesce(max(c.last_at), 0) \
     from unnest($2::bigint[]) as wanted (scope_id) \
     cross join lateral (select max(last_at) as last_at from counters \
     where tenant_id = $1 and scope_kind = 1 and scope_id = wanted.scope_id \
     and last_at <= $3) c";
const SELECT_COUNTERS: &str = "select c.scope_id, c.month, c.used_cost_nanos, c.used_tokens, \
     c.used_calls, c.held_cost_nanos, c.held_tokens, c.held_calls, c.last_at \
     from unnest($2::bigint[]) as wanted (scope_id) \
     cross join lateral (select scope_id, month, used_cost_nanos, used_tokens, used_calls, \
     held_cost_nanos, held_tokens, held_calls, last_at from counters \
     where tenant_id = $1 and scope_kind = 1 and scope_id = wanted.scope_id and month = any($3) \
     offset 0) c";
const SELECT_RATES: &str = "select r.scope_id, r.second, r.calls \
     from unnest($2::bigint[]) as wanted (scope_id) \
     cross join lateral (select scope_id, second, calls from rate_slots \
     where tenant_id = $1 and scope_kind = 1 and scope_id = wanted.scope_id and second > $3 \
     offset 0) r";
/// The sums of due holds by the day of their reservation; days add up to months.
const SUM_DUE: &str = "select c.integration_id, c.day, c.cost_nanos, c.tokens, c.calls \
     from unnest($2::bigint[]) as wanted (integration_id) \
     cross join lateral (select integration_id, reserved_at / 86400000000 as day, \
     sum(estimated_cost_nanos)::bigint as cost_nanos, sum(estimated_tokens)::bigint as tokens, \
     count(*) as calls from reservations where tenant_id = $1 \
     and integration_id = wanted.integration_id and state = 1 and expires_at <= $3 \
     group by integration_id, reserved_at / 86400000000) c";
const SUM_OPEN: &str = "select c.scope_id, c.calls from unnest($2::bigint[]) as wanted (scope_id) \
     cross join lateral (select wanted.scope_id as scope_id, \
     coalesce(sum(held_calls), 0)::bigint as calls from counters \
     where tenant_id = $1 and scope_kind = 1 and scope_id = wanted.scope_id) c";
/// The holds of a sweep that are still open.
///
/// The conditions on the state and the expiry are outside the subquery. Inside, the planner may use
/// the index of due calls, and search for each call among all open holds of the tenant.
const SELECT_HOLDS: &str = "select c.call_key, c.estimated_cost_nanos, c.estimated_tokens, \
     c.reserved_at, c.expires_at, c.integration_id, c.postings \
     from unnest($2::uuid[]) as wanted (call_key) \
     cross join lateral (select call_key, estimated_cost_nanos, estimated_tokens, reserved_at, \
     expires_at, integration_id, postings, state from reservations where tenant_id = $1 \
     and call_key = wanted.call_key limit 1) c \
     where c.state = 1 and c.expires_at <= $3";
const SELECT_RESERVATIONS: &str = "select reservations from open_reservations where tenant_id = $1";
const LOCK_RESERVATIONS: &str = "insert into open_reservations (tenant_id, reservations) \
     values ($1, 0) on conflict (tenant_id) \
     do update set reservations = open_reservations.reservations returning reservations";
/// Counts due reservations up to a limit.
const COUNT_DUE: &str = "select count(*) from (select 1 from reservations where tenant_id = $1 \
     and state = 1 and expires_at <= $2 limit $3) c";
const SUM_BYTES: &str = "select coalesce(sum(bytes), 0)::bigint from stored_bytes \
     where tenant_id = $1 and day = $2";
const SELECT_CALLS: &str = concat!(
    "select c.call_key, c.entry_id, ",
    reservation_columns!(entry_names, "r."),
    ", e.call_id, e.integration_id, e.session_id, e.agent_id, e.provider, e.model, e.tokens_in, \
     e.tokens_out, e.reported_cost_nanos, e.policy_result, e.error_code, e.occurred_at, \
     e.cost_source, e.entry_id \
     from unnest($2::uuid[]) as wanted (call_key) \
     cross join lateral (select call_key, entry_id from calls \
     where tenant_id = $1 and call_key = wanted.call_key limit 1) c \
     left join lateral (select ",
    reservation_columns!(entry_names),
    " from reservations where tenant_id = $1 and call_key = wanted.call_key limit 1) r on true \
     left join lateral (select call_id, integration_id, session_id, agent_id, provider, model, \
     tokens_in, tokens_out, reported_cost_nanos, policy_result, error_code, occurred_at, \
     cost_source, entry_id \
     from usage_entries where tenant_id = $1 and entry_id = c.entry_id limit 1) e on true"
);
/// The position of the first column of the entry, and of its id.
const ENTRY: usize = 2 + RESERVATION_COLUMNS;
const ENTRY_ID: usize = ENTRY + 13;

/// The seconds for which a call counts in the rate. Older slots are not loaded.
const RATE_SECONDS: i64 = 60;

/// Claims the calls of a group, locks and loads its accounts, and opens its book.
pub(super) fn book<'a>(
    writer: &mut PostgresWriter,
    request: &LoadRequest<'a>,
) -> Result<Book<'a>, StoreError> {
    let Some(tenant_id) = tenant_of(request)? else {
        let calendar = Arc::clone(&writer.calendar);
        return Ok(Book::open(writer.now, request.caps, &*calendar, Loaded::default())?);
    };
    let clock = writer.clock.clone();
    let extra_integrations = writer.extra_integrations.clone();
    let (sets, calendar) = (Arc::clone(&writer.limit_sets), Arc::clone(&writer.calendar));
    let (provisional, all_values) = (writer.now, writer.locks_all_values);
    let loaded = writer.query_in_tx(Some(tenant_id), async |client| {
        let group = Group::of(tenant_id, request, &extra_integrations);
        let limits = Limits { sets: &sets, calendar: &*calendar, provisional, all_values };
        group.load(client, &clock, limits).await
    })?;
    let again = |what: &'static str| {
        // They cannot be locked in order any more, so the next attempt begins with them.
        StoreError::Retry(Arc::new(std::io::Error::other(what)))
    };
    let LoadedGroup { now, claims, book, reservations_max, missed } = loaded;
    match missed {
        Missed::Nothing => {}
        Missed::Integrations(missed) => {
            writer.extra_integrations.extend(missed);
            return Err(again("a call has a reservation on an integration that is not locked"));
        }
        Missed::Reservation => return Err(again("a call has a reservation that was just made")),
        Missed::Values => {
            writer.locks_all_values = true;
            return Err(again("a limit has a new value whose number is not locked"));
        }
    }
    writer.now = now;
    writer.claims = claims;
    writer.reservations_max = reservations_max;
    Ok(Book::open(now, request.caps, &*calendar, book)?)
}

/// The tenant of a group.
fn tenant_of(request: &LoadRequest<'_>) -> Result<Option<TenantId>, StoreError> {
    let of_calls = request.calls.keys().map(|(tenant_id, _)| *tenant_id);
    let of_integrations = request.integrations.iter().map(|(tenant_id, _)| *tenant_id);
    let tenants: BTreeSet<TenantId> = of_calls.chain(of_integrations).collect();
    if tenants.len() > 1 {
        return Err(StoreError::Corrupt("a group has several tenants".to_owned()));
    }
    Ok(tenants.first().copied())
}

/// A load request in the form of statements' parameters.
struct Group<'w, 'a> {
    tenant_id: TenantId,
    request: &'w LoadRequest<'a>,
    /// The keys to claim, in key order.
    claimed_keys: Vec<Key>,
    claimed_entries: Vec<Option<i64>>,
    /// The keys that are only read.
    read_keys: Vec<Key>,
    integrations: BTreeSet<IntegrationId>,
}

/// The result of loading a group.
struct LoadedGroup {
    now: Timestamp,
    claims: HashMap<CallKey, Option<EntryId>>,
    book: Loaded,
    /// The limit on the tenant's open reservations when the group is saved; `None` if their number
    /// is locked or the group reserves nothing.
    reservations_max: Option<i64>,
    missed: Missed,
}

/// What the group needs and has not locked.
enum Missed {
    Nothing,
    /// Integrations of loaded reservations.
    Integrations(BTreeSet<IntegrationId>),
    /// The accounts of a reservation that another transaction has just made.
    Reservation,
    /// A number of values to which the group may add.
    Values,
}

/// How the limits of the tenant are loaded.
#[derive(Clone, Copy)]
struct Limits<'w> {
    sets: &'w KnownSets,
    calendar: &'w dyn Calendar,
    /// The instant before the accounts are locked.
    provisional: Timestamp,
    all_values: bool,
}

/// A stored reservation, as far as it is read before the locks.
struct Reserved {
    call: CallKey,
    account_key_id: Option<KeyId>,
    postings: Arc<[Posting]>,
}

/// The locked integrations, and the instant of the group.
struct Locked {
    now: Timestamp,
    integrations: Vec<IntegrationRow>,
    /// The rows of the accounts of limits.
    limit_accounts: Vec<Row>,
}

impl<'w, 'a> Group<'w, 'a> {
    fn of(
        tenant_id: TenantId,
        request: &'w LoadRequest<'a>,
        extra_integrations: &BTreeSet<IntegrationId>,
    ) -> Self {
        let mut group = Self {
            tenant_id,
            request,
            claimed_keys: Vec::new(),
            claimed_entries: Vec::new(),
            read_keys: Vec::new(),
            integrations: request
                .integrations
                .iter()
                .map(|(_, id)| *id)
                .chain(extra_integrations.clone())
                .collect(),
        };
        for (&(_, key), call) in &request.calls {
            let entry_id = match call.claim {
                Claim::Read => {
                    group.read_keys.push(Key(key));
                    continue;
                }
                Claim::Reserve => None,
                Claim::Record(entry_id) => Some(entry_id.number()),
            };
            group.claimed_keys.push(Key(key));
            group.claimed_entries.push(entry_id);
        }
        group
    }

    fn numbers(&self) -> Vec<i64> {
        self.integrations.iter().map(|id| id.number()).collect()
    }

    async fn load(
        mut self,
        client: &Client,
        clock: &StoreClock,
        limits: Limits<'_>,
    ) -> Result<LoadedGroup, StoreError> {
        let (claims, version) = self.claim(client).await?;
        let others = self.unclaimed(&claims);
        let reserved = self.reserved_for(client, &others).await?;
        let set = limits.sets.at_version(client, self.tenant_id, &version).await?;
        let sets = HashMap::from([(self.tenant_id, Arc::clone(&set))]);
        let of_calls = reserved.iter().map(|reserved| ReservedBefore {
            call: (self.tenant_id, reserved.call),
            account_key_id: reserved.account_key_id,
            postings: &reserved.postings,
        });
        let wanted = self.request.limit_accounts(&sets, of_calls);
        let at = (limits.calendar, limits.provisional);
        let values = (self.request.caps.values_per_limit, limits.all_values);
        let locks = Locks::prepare(client, set, wanted, at, values).await?;
        let Locked { now, integrations, limit_accounts } = self.lock(client, clock, &locks).await?;
        let mut months: BTreeSet<Month> =
            self.request.months.iter().map(|(_, month)| *month).collect();
        months.insert(now.month());
        let (tenant, rows) = (self.tenant_id.number(), self.numbers());
        let month_numbers: Vec<i64> = months.iter().map(|month| month.number().into()).collect();
        let (oldest, at) = (now.second() - RATE_SECONDS, now.micros());
        let swept: Vec<Key> = self.request.due.keys().map(|(_, key)| Key(*key)).collect();
        let day = i64::from(now.day().number());
        let counters = params![tenant, rows, month_numbers];
        let (rates, due) = (params![tenant, rows, oldest], params![tenant, rows, at]);
        let open = params![tenant, rows];
        let (calls, holds) = (params![tenant, others], params![tenant, swept, at]);
        let (tenant_key, bytes) = (params![tenant], params![tenant, day]);
        let limit_reads = locks.reads(now);
        let [seconds, limits_due, guarded_day] = limit_reads.send(client, &tenant);
        // A statement that is not needed is not sent, and has no rows.
        let sent: Vec<Sent<'_, Vec<Row>>> = vec![
            query(client, SELECT_TENANT.plain, tenant_key),
            query(client, SELECT_COUNTERS, counters),
            query(client, SELECT_RATES, rates),
            query_if(client, self.decides(), SUM_DUE, due),
            query_if(client, self.is_reserving(), SUM_OPEN, open),
            query_if(client, self.is_reserving(), SELECT_RESERVATIONS, tenant_key),
            query_if(client, self.has_bytes_cap(), SUM_BYTES, bytes),
            query_if(client, !swept.is_empty(), SELECT_HOLDS, holds),
            query_if(client, !others.is_empty(), SELECT_CALLS, calls),
            seconds,
            limits_due,
            guarded_day,
        ];
        let mut results = in_order(sent).await?.into_iter();
        let mut next = || results.next().unwrap_or_default();
        let (tenants, counters, rates, due, open) = (next(), next(), next(), next(), next());
        let (reservations, bytes, holds, stored) = (next(), next(), next(), next());
        let limit_rows =
            AccountRows { accounts: limit_accounts, seconds: next(), due: next(), day: next() };

        let mut accounts = self.accounts(&tenants, integrations, &rates)?;
        restore(&mut accounts, &months, &counters)?;
        let swept = holds.iter().map(|row| self.hold(row)).collect::<Result<Vec<_>, _>>()?;
        let due = if self.decides() { sums_due(&due)? } else { sums_of(&swept)? };
        restore_holds(&mut accounts, due, &open)?;
        let calls = self.calls(&stored)?;
        let missed = self.missed_of(&calls, &reserved);
        self.load_other_months(client, &mut accounts, &calls, &swept).await?;
        let (sums, reservations_max) = self.sums(client, now, &reservations, &bytes).await?;
        let tenants = HashMap::from([(self.tenant_id, sums)]);
        let loaded = locks.loaded(self.tenant_id, &limit_rows, (limits.calendar, now))?;
        let (limits, missed) = match (loaded, missed) {
            (Some(limits), missed) => (limits, missed),
            (None, Missed::Nothing) => (LoadedLimits::default(), Missed::Values),
            (None, missed) => (LoadedLimits::default(), missed),
        };
        let book = Loaded { accounts, calls, tenants, due: swept, limits };
        Ok(LoadedGroup { now, claims, book, reservations_max, missed })
    }

    /// What reservations need that were made after they were read before the locks.
    fn missed_of(
        &self,
        calls: &HashMap<(TenantId, CallKey), Call>,
        reserved: &[Reserved],
    ) -> Missed {
        let reservations =
            || calls.iter().filter_map(|((_, key), call)| Some((*key, call.reservation.as_ref()?)));
        let missed = reservations().map(|(_, held)| held.request.integration_id);
        let missed: BTreeSet<IntegrationId> =
            missed.filter(|id| !self.integrations.contains(id)).collect();
        if !missed.is_empty() {
            return Missed::Integrations(missed);
        }
        let known: HashSet<CallKey> = reserved.iter().map(|reserved| reserved.call).collect();
        let is_missed = reservations().any(|(key, _)| !known.contains(&key));
        if is_missed { Missed::Reservation } else { Missed::Nothing }
    }

    /// Whether the group has commands, and not only holds to expire.
    ///
    /// Without commands, the sum of all due holds is not needed, which is slow if there are many.
    fn decides(&self) -> bool {
        !self.request.calls.is_empty()
    }

    fn is_reserving(&self) -> bool {
        self.request.reserving.contains_key(&self.tenant_id)
    }

    /// Whether the cap on stored bytes applies to records of the group.
    fn has_bytes_cap(&self) -> bool {
        let capped = self.request.caps.stored_bytes_per_day > 0;
        capped && self.request.recording.contains(&self.tenant_id)
    }

    /// The sums that the caps limit, and the limit on open reservations to check when saving.
    ///
    /// Far below its cap, a tenant's number of open reservations is not locked. Saving then checks
    /// the number, and retries the group if it is too large. Near the cap, the number is locked, and
    /// due reservations are counted.
    async fn sums(
        &self,
        client: &Client,
        now: Timestamp,
        reservations: &[Row],
        bytes: &[Row],
    ) -> Result<(TenantSums, Option<i64>), StoreError> {
        let number = |rows: &[Row]| rows.first().map_or(Ok(0), |row| row.int::<i64>(0));
        let stored_bytes = if self.has_bytes_cap() { Some(number(bytes)?) } else { None };
        let (tenant, caps) = (self.tenant_id.number(), self.request.caps);
        let Some(more) = self.request.reserving.get(&self.tenant_id).copied() else {
            return Ok((TenantSums { open_reservations: None, stored_bytes }, None));
        };
        let mut open = number(reservations)?;
        let mut max = Some(caps.reservations_per_tenant);
        if caps.beyond_reservations(open, more) > 0 {
            max = None;
            let locked = client.query_typed(LOCK_RESERVATIONS, params![tenant]).await;
            open = number(&locked.map_err(store_error)?)?;
            let beyond = caps.beyond_reservations(open, more);
            let at = now.micros();
            let key = params![tenant, at, beyond];
            open -= number(&client.query_typed(COUNT_DUE, key).await.map_err(store_error)?)?;
        }
        Ok((TenantSums { open_reservations: Some(open), stored_bytes }, max))
    }

    /// Claims call ids in key order, and keeps the limits as they are. Waits for transactions that
    /// have claimed one of the ids. Returns the claims and the row of the version of the limits.
    async fn claim(
        &self,
        client: &Client,
    ) -> Result<(HashMap<CallKey, Option<EntryId>>, Vec<Row>), StoreError> {
        let tenant = [self.tenant_id.number()];
        let columns = vec![
            Column::Keys(self.claimed_keys.clone()),
            Column::OptNumbers(self.claimed_entries.clone()),
        ];
        let bulk = Bulk { sql: CLAIM, rows: self.claimed_keys.len(), columns };
        let claim: Sent<'_, Vec<Row>> = Box::pin(async {
            if bulk.rows == 0 { Ok(Vec::new()) } else { bulk.query(client, &tenant).await }
        });
        let [tenant_id] = &tenant;
        let key = params![*tenant_id];
        let mut results = in_order(vec![claim, query(client, SHARE_SET, key)]).await?.into_iter();
        let mut next = || results.next().unwrap_or_default();
        let (rows, version) = (next(), next());
        let mut claims = HashMap::with_capacity(rows.len());
        for row in rows {
            let key = CallKey(u128::from_be_bytes(row.bytes(0)?));
            let call = self.request.calls.get(&(self.tenant_id, key));
            let entry_id = match call.map(|call| call.claim) {
                Some(Claim::Record(entry_id)) => Some(entry_id),
                Some(Claim::Reserve | Claim::Read) | None => None,
            };
            claims.insert(key, entry_id);
        }
        Ok((claims, version))
    }

    /// The call ids that were stored before, or are only read.
    fn unclaimed(&self, claims: &HashMap<CallKey, Option<EntryId>>) -> Vec<Key> {
        let claimed = self.claimed_keys.iter().filter(|key| !claims.contains_key(&key.0));
        claimed.chain(&self.read_keys).copied().collect()
    }

    /// The reservations of these calls. Their integrations are locked too.
    async fn reserved_for(
        &mut self,
        client: &Client,
        keys: &[Key],
    ) -> Result<Vec<Reserved>, StoreError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let (tenant, keys) = (self.tenant_id.number(), keys.to_vec());
        let rows = client.query_typed(RESERVED_FOR, params![tenant, keys]).await;
        let mut reserved = Vec::new();
        for row in rows.map_err(store_error)? {
            self.integrations.insert(row.id(0, IntegrationId::from_number)?);
            reserved.push(Reserved {
                call: decode::call_key(&row, 1)?,
                account_key_id: row.opt_id(2, KeyId::from_number)?,
                postings: codec::postings(self.tenant_id, row.opt_str(3)?)?,
            });
        }
        Ok(reserved)
    }

    /// Locks accounts in key order, and then reads the clock.
    ///
    /// The instant is never before the last decision of an account, which may have been made on a
    /// server whose time is ahead.
    async fn lock(
        &self,
        client: &Client,
        clock: &StoreClock,
        locks: &Locks,
    ) -> Result<Locked, StoreError> {
        let (tenant, rows) = (self.tenant_id.number(), self.numbers());
        let latest_instant = clock.now().plus_seconds(Counter::APART_SECONDS_MAX);
        let latest = latest_instant.micros();
        let key = params![tenant, rows];
        let latest_key = params![tenant, rows, latest];
        let statements = locks.statements();
        let [inserted, limit_accounts] = statements.send(client, &tenant);
        let sent = vec![
            query(client, LOCK, key),
            inserted,
            limit_accounts,
            query(client, LAST_AT, latest_key),
            query(client, CLOCK, params![]),
        ];
        let mut results = in_order(sent).await?.into_iter();
        let mut next = || results.next().unwrap_or_default();
        let (integrations, _, limit_accounts) = (next(), next(), next());
        let (last_at, reading) = (next(), next());
        let mut last_at = last_at.first().map_or(Ok(0), |row| row.int::<i64>(0))?;
        for row in &limit_accounts {
            last_at = last_at.max(row.int::<i64>(7).map(|at| if at <= latest { at } else { 0 })?);
        }
        let last_at = crate::rows::codec::timestamp(last_at)?;
        let last_at = last_at.max(locks.latest_start(latest_instant));
        let (wall, confirmations) = super::clock::reading_of(&reading, 0)?;
        let now = decidable(&clock.observe_database(wall, confirmations))?;
        let integrations = integrations.iter().map(|row| IntegrationRow::from_row(row));
        Ok(Locked {
            now: if Counter::holds_back(last_at, now) { last_at } else { now },
            integrations: integrations.collect::<Result<_, _>>()?,
            limit_accounts,
        })
    }

    fn accounts(
        &self,
        tenants: &[Row],
        integrations: Vec<IntegrationRow>,
        rates: &[Row],
    ) -> Result<HashMap<IntegrationId, Account>, StoreError> {
        let Some(tenant) = tenants.first() else { return Ok(HashMap::new()) };
        let tenant = TenantRow::from_row(tenant)?;
        let account = |row: IntegrationRow| {
            (row.integration_id, Account::new(self.tenant_id, tenant.lifecycle, row.rules))
        };
        let mut accounts: HashMap<_, _> = integrations.into_iter().map(account).collect();
        for row in rates {
            if let Some(account) = accounts.get_mut(&row.id(0, IntegrationId::from_number)?) {
                account.rate.restore(row.int(1)?, row.int(2)?);
            }
        }
        Ok(accounts)
    }

    fn hold(&self, row: &Row) -> Result<Hold, StoreError> {
        decode::posted_hold(row, self.tenant_id)
    }

    /// Every call of the group, stored or fresh.
    fn calls(&self, stored: &[Row]) -> Result<HashMap<(TenantId, CallKey), Call>, StoreError> {
        let fresh = |call: &crate::write::writer_connection::CallToLoad<'_>| {
            Call::fresh(call.call_id.clone())
        };
        let mut calls: HashMap<_, _> =
            self.request.calls.iter().map(|(key, call)| (*key, fresh(call))).collect();
        for row in stored {
            let key = CallKey(u128::from_be_bytes(row.bytes(0)?));
            let entry_number = row.opt_number(1)?;
            let reservation = decode::reservation(row, 2, self.tenant_id)?;
            let record = match entry_number {
                None => None,
                Some(number) if row.opt_number(ENTRY_ID)?.is_some() => {
                    let entry_id = crate::rows::codec::id(EntryId::from_number, number)?;
                    Some(decode::recorded_call(row, ENTRY, entry_id)?)
                }
                Some(number) => {
                    return Err(StoreError::Corrupt(format!("entry {number} is missing")));
                }
            };
            calls.insert((self.tenant_id, key), decode::call(reservation, record)?);
        }
        Ok(calls)
    }

    /// Loads months that are known only from the loaded reservations.
    async fn load_other_months(
        &self,
        client: &Client,
        accounts: &mut HashMap<IntegrationId, Account>,
        calls: &HashMap<(TenantId, CallKey), Call>,
        due: &[Hold],
    ) -> Result<(), StoreError> {
        let of_due = due.iter().map(|hold| (hold.integration_id, hold.month));
        let of_calls = calls.values().filter_map(|call| call.reservation.as_ref());
        let of_calls = of_calls.map(|held| (held.request.integration_id, held.month()));
        let is_missing = |(id, month): &(IntegrationId, Month)| {
            accounts.get(id).is_some_and(|account| account.counter(*month).is_err())
        };
        let missing: BTreeMap<Month, Vec<IntegrationId>> = of_due
            .chain(of_calls)
            .filter(is_missing)
            .fold(BTreeMap::new(), |mut all, (id, month)| {
                all.entry(month).or_default().push(id);
                all
            });
        for (month, ids) in missing {
            let (tenant, months) = (self.tenant_id.number(), vec![i64::from(month.number())]);
            let rows: Vec<i64> = ids.iter().map(|id| id.number()).collect();
            let key = params![tenant, rows, months];
            let found = client.query_typed(SELECT_COUNTERS, key).await.map_err(store_error)?;
            let mut part: HashMap<IntegrationId, Account> =
                ids.iter().filter_map(|id| accounts.remove_entry(id)).collect();
            restore(&mut part, &BTreeSet::from([month]), &found)?;
            accounts.extend(part);
        }
        Ok(())
    }
}

fn query<'a>(
    client: &'a Client,
    sql: &'static str,
    key: &'a [super::tx::Param<'a>],
) -> Sent<'a, Vec<Row>> {
    Box::pin(async move { client.query_typed(sql, key).await.map_err(store_error) })
}

/// The same if the statement is needed, or no rows.
fn query_if<'a>(
    client: &'a Client,
    is_needed: bool,
    sql: &'static str,
    key: &'a [super::tx::Param<'a>],
) -> Sent<'a, Vec<Row>> {
    if is_needed { query(client, sql, key) } else { Box::pin(async { Ok(Vec::new()) }) }
}

/// The due sums of each account, by the month in which they are held.
type DueSums = HashMap<IntegrationId, BTreeMap<Month, Totals>>;

/// Decodes rows of `integration_id, day, cost_nanos, tokens, calls`.
fn sums_due(rows: &[Row]) -> Result<DueSums, StoreError> {
    let mut sums = DueSums::new();
    for row in rows {
        let (month, amount) = due_of_day(row, 1)?;
        add_due(&mut sums, row.id(0, IntegrationId::from_number)?, month, amount)?;
    }
    Ok(sums)
}

/// What these holds, all of them due, add up to.
fn sums_of(holds: &[Hold]) -> Result<DueSums, StoreError> {
    let mut sums = DueSums::new();
    for hold in holds {
        add_due(&mut sums, hold.integration_id, hold.month, hold.amount)?;
    }
    Ok(sums)
}

fn add_due(
    sums: &mut DueSums,
    integration_id: IntegrationId,
    month: Month,
    amount: Totals,
) -> Result<(), StoreError> {
    let sum = sums.entry(integration_id).or_default().entry(month).or_default();
    *sum = sum.plus(amount)?;
    Ok(())
}

/// Tells accounts what of their holds is due, and how many reservations are stored as open
/// (`integration_id, calls`).
fn restore_holds(
    accounts: &mut HashMap<IntegrationId, Account>,
    due: DueSums,
    open: &[Row],
) -> Result<(), StoreError> {
    for (id, months) in due {
        if let Some(account) = accounts.get_mut(&id) {
            account.restore_due(months.into_iter().collect());
        }
    }
    for row in open {
        if let Some(account) = accounts.get_mut(&row.id(0, IntegrationId::from_number)?) {
            account.restore_open(row.int(1)?);
        }
    }
    Ok(())
}

/// `day, cost_nanos, tokens, calls`, from a column on: what is due of what was reserved on a day.
pub(super) fn due_of_day(row: &Row, at: usize) -> Result<(Month, Totals), StoreError> {
    let day = Day::from_number(row.int(at)?).start().month();
    let (cost, tokens) = (Nanos::new(row.int(at + 1)?), row.int(at + 2)?);
    Ok((day, Totals { cost, tokens, calls: row.int(at + 3)? }))
}

/// Gives accounts these months; a month without a row is the default.
fn restore(
    accounts: &mut HashMap<IntegrationId, Account>,
    months: &BTreeSet<Month>,
    rows: &[Row],
) -> Result<(), StoreError> {
    let mut stored = HashMap::with_capacity(rows.len());
    for row in rows {
        let id = row.id(0, IntegrationId::from_number)?;
        stored.insert((id, Month::from_number(row.int(1)?)), decode::counter(row, 2)?);
    }
    for (id, account) in accounts {
        for month in months {
            account.restore(*month, stored.remove(&(*id, *month)).unwrap_or_default());
        }
    }
    Ok(())
}

const _: () = assert!(SCOPE_INTEGRATION == 1);
