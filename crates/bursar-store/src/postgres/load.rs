//! Loads a group: claims its calls, locks its accounts, reads the clock, then reads everything else.
//!
//! Nothing that decides is read before the locks, because it could change until they are taken.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bursar_core::{
    Account, Book, Call, CallKey, Counter, Day, EntryId, Hold, IntegrationId, Loaded, Month, Nanos,
    TenantId, TenantSums, Timestamp, Totals,
};
use tokio_postgres::{Client, Row};

use super::bulk::{Bulk, Column};
use super::clock::CLOCK;
use super::pipeline::{Sent, in_order};
use super::tx::{Key, params, store_error};
use super::writer_state::PostgresWriter;
use crate::clock::{StoreClock, decidable};
use crate::error::StoreError;
use crate::rows::codec::SCOPE_INTEGRATION;
use crate::rows::columns::{Columns, RawColumns};
use crate::rows::decode;
use crate::rows::row::IntegrationRow;
use crate::rows::row::TenantRow;
use crate::tables::tenants::SELECT_TENANT;
use crate::tables::value::FromRow;
use crate::write::writer_connection::{Claim, LoadRequest};

const CLAIM: &str = "insert into calls (tenant_id, call_key, entry_id) \
     values ($1, unnest($2), unnest($3)) \
     on conflict (tenant_id, call_key) do nothing returning call_key";
// Statements with many keys look up each key in a lateral subquery. With a join, and without
// statistics about the tenant, the planner may choose to read all rows of the tenant.
const RESERVED_FOR: &str = "select distinct c.integration_id \
     from unnest($2::uuid[]) as wanted (call_key) \
     cross join lateral (select integration_id from reservations \
     where tenant_id = $1 and call_key = wanted.call_key limit 1) c";
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
     c.reserved_at, c.expires_at, c.integration_id from unnest($2::uuid[]) as wanted (call_key) \
     cross join lateral (select call_key, estimated_cost_nanos, estimated_tokens, reserved_at, \
     expires_at, integration_id, state from reservations where tenant_id = $1 \
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
const SELECT_CALLS: &str = "select c.call_key, c.entry_id, r.call_id, r.integration_id, \
     r.estimated_cost_nanos, r.estimated_tokens, r.model, r.ttl_seconds, r.decision, \
     r.reserved_at, r.expires_at, r.state, r.ended_at, e.call_id, e.integration_id, \
     e.session_id, e.agent_id, e.provider, e.model, e.tokens_in, e.tokens_out, \
     e.reported_cost_nanos, e.policy_result, e.error_code, e.occurred_at, e.cost_source, \
     e.entry_id \
     from unnest($2::uuid[]) as wanted (call_key) \
     cross join lateral (select call_key, entry_id from calls \
     where tenant_id = $1 and call_key = wanted.call_key limit 1) c \
     left join lateral (select call_id, integration_id, estimated_cost_nanos, \
     estimated_tokens, model, ttl_seconds, decision, reserved_at, expires_at, state, ended_at \
     from reservations where tenant_id = $1 and call_key = wanted.call_key limit 1) r on true \
     left join lateral (select call_id, integration_id, session_id, agent_id, provider, model, \
     tokens_in, tokens_out, reported_cost_nanos, policy_result, error_code, occurred_at, \
     cost_source, entry_id \
     from usage_entries where tenant_id = $1 and entry_id = c.entry_id limit 1) e on true";

/// The seconds for which a call counts in the rate. Older slots are not loaded.
const RATE_SECONDS: i64 = 60;

/// Claims the calls of a group, locks and loads its accounts, and opens its book.
pub(super) fn book<'a>(
    writer: &mut PostgresWriter,
    request: &LoadRequest<'a>,
) -> Result<Book<'a>, StoreError> {
    let Some(tenant_id) = tenant_of(request)? else {
        return Ok(Book::open(writer.now, request.caps, Loaded::default())?);
    };
    let clock = writer.clock.clone();
    let extra_integrations = writer.extra_integrations.clone();
    let loaded = writer.query_in_tx(Some(tenant_id), async |client| {
        let group = Group::of(tenant_id, request, &extra_integrations);
        group.load(client, &clock).await
    })?;
    let LoadedGroup { now, claims, book, reservations_max, missed } = loaded;
    if !missed.is_empty() {
        // They cannot be locked in order any more, so the next attempt begins with them.
        writer.extra_integrations.extend(missed);
        let cause =
            std::io::Error::other("a call has a reservation on an integration that is not locked");
        return Err(StoreError::Retry(std::sync::Arc::new(cause)));
    }
    writer.now = now;
    writer.claims = claims;
    writer.reservations_max = reservations_max;
    Ok(Book::open(now, request.caps, book)?)
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
    /// Integrations of loaded reservations that are not locked.
    missed: BTreeSet<IntegrationId>,
}

/// The locked integrations, and the instant of the group.
struct Locked {
    now: Timestamp,
    integrations: Vec<IntegrationRow>,
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
    ) -> Result<LoadedGroup, StoreError> {
        let claims = self.claim(client).await?;
        let others = self.unclaimed(&claims);
        if !others.is_empty() {
            self.add_reserved_for(client, &others).await?;
        }
        let Locked { now, integrations } = self.lock(client, clock).await?;
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
        ];
        let mut results = in_order(sent).await?.into_iter();
        let mut next = || results.next().unwrap_or_default();
        let (tenants, counters, rates, due, open) = (next(), next(), next(), next(), next());
        let (reservations, bytes, holds, stored) = (next(), next(), next(), next());

        let mut accounts = self.accounts(&tenants, integrations, &rates)?;
        restore(&mut accounts, &months, &counters)?;
        let swept = holds.iter().map(|row| self.hold(row)).collect::<Result<Vec<_>, _>>()?;
        let due = if self.decides() { sums_due(&due)? } else { sums_of(&swept)? };
        restore_holds(&mut accounts, due, &open)?;
        let calls = self.calls(&stored)?;
        let missed = calls.values().filter_map(|call| call.reservation.as_ref());
        let missed: BTreeSet<IntegrationId> = missed
            .map(|held| held.request.integration_id)
            .filter(|id| !self.integrations.contains(id))
            .collect();
        self.load_other_months(client, &mut accounts, &calls, &swept).await?;
        let (sums, reservations_max) = self.sums(client, now, &reservations, &bytes).await?;
        let tenants = HashMap::from([(self.tenant_id, sums)]);
        let book = Loaded { accounts, calls, tenants, due: swept };
        Ok(LoadedGroup { now, claims, book, reservations_max, missed })
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

    /// Claims call ids in key order. Waits for transactions that have claimed one of them.
    async fn claim(
        &self,
        client: &Client,
    ) -> Result<HashMap<CallKey, Option<EntryId>>, StoreError> {
        if self.claimed_keys.is_empty() {
            return Ok(HashMap::new());
        }
        let columns = vec![
            Column::Keys(self.claimed_keys.clone()),
            Column::OptNumbers(self.claimed_entries.clone()),
        ];
        let bulk = Bulk { sql: CLAIM, rows: self.claimed_keys.len(), columns };
        let rows = bulk.query(client, &[self.tenant_id.number()]).await?;
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
        Ok(claims)
    }

    /// The call ids that were stored before, or are only read.
    fn unclaimed(&self, claims: &HashMap<CallKey, Option<EntryId>>) -> Vec<Key> {
        let claimed = self.claimed_keys.iter().filter(|key| !claims.contains_key(&key.0));
        claimed.chain(&self.read_keys).copied().collect()
    }

    /// Adds the integrations of the reservations of these calls, so that they are locked too.
    async fn add_reserved_for(&mut self, client: &Client, keys: &[Key]) -> Result<(), StoreError> {
        let (tenant, keys) = (self.tenant_id.number(), keys.to_vec());
        let rows = client.query_typed(RESERVED_FOR, params![tenant, keys]).await;
        for row in rows.map_err(store_error)? {
            self.integrations.insert(row.id(0, IntegrationId::from_number)?);
        }
        Ok(())
    }

    /// Locks accounts in key order, and then reads the clock.
    ///
    /// The instant is never before the last decision of an account, which may have been made on a
    /// server whose time is ahead.
    async fn lock(&self, client: &Client, clock: &StoreClock) -> Result<Locked, StoreError> {
        let (tenant, rows) = (self.tenant_id.number(), self.numbers());
        let latest = clock.now().plus_seconds(Counter::APART_SECONDS_MAX).micros();
        let key = params![tenant, rows];
        let latest_key = params![tenant, rows, latest];
        let sent = vec![
            query(client, LOCK, key),
            query(client, LAST_AT, latest_key),
            query(client, CLOCK, params![]),
        ];
        let mut results = in_order(sent).await?.into_iter();
        let mut next = || results.next().unwrap_or_default();
        let (integrations, last_at, reading) = (next(), next(), next());
        let last_at = last_at.first().map_or(Ok(0), |row| row.int::<i64>(0))?;
        let last_at = crate::rows::codec::timestamp(last_at)?;
        let (wall, confirmations) = super::clock::reading_of(&reading, 0)?;
        let now = decidable(&clock.observe_database(wall, confirmations))?;
        let integrations = integrations.iter().map(|row| IntegrationRow::from_row(row));
        Ok(Locked {
            now: if Counter::holds_back(last_at, now) { last_at } else { now },
            integrations: integrations.collect::<Result<_, _>>()?,
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
        decode::hold(row, self.tenant_id, row.id(5, IntegrationId::from_number)?)
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
            let reservation = decode::reservation(row, 2)?;
            let record = match entry_number {
                None => None,
                Some(number) if row.opt_number(26)?.is_some() => {
                    let entry_id = crate::rows::codec::id(EntryId::from_number, number)?;
                    Some(decode::recorded_call(row, 13, entry_id)?)
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
