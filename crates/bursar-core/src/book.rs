//! The book of a group: what its commands touch, and what they change.

#![warn(clippy::arithmetic_side_effects)]

use std::collections::HashMap;

use crate::account::{Account, Overflow, Totals};
use crate::caps::{Caps, OpenBound, TenantSums};
use crate::command::{
    Command, ExtendOutcome, Outcome, RecordMode, RecordOutcome, RecordRefusal, ReleaseOutcome,
    ReserveOutcome, ReserveRefusal,
};
use crate::decide::{Decision, ReasonCode, block_reason, decide};
use crate::entry::{CostSource, Entry, EntryKind, RecordedCall, UsageStatus};
use crate::id::{EntryId, IntegrationId, TenantId};
use crate::integration::CostBasis;
use crate::money::Nanos;
use crate::reservation::{Hold, Reservation, ReservationState, ReserveRequest};
use crate::tenant::TenantLifecycle;
use crate::time::{Month, Timestamp};
use crate::usage::{CallId, CallKey, PolicyResult, Usage};

/// How far a record's clock may run ahead (law 5 of the ledger).
const AHEAD_SECONDS_MAX: u32 = 5 * 60;
/// For how long a call counts in the rate.
const RATE_SECONDS: i64 = 60;

/// One row of counters: an integration's month.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CounterKey {
    pub tenant_id: TenantId,
    pub integration_id: IntegrationId,
    pub month: Month,
}

/// What is known of a call id.
#[derive(Clone, Debug)]
pub struct Call {
    /// The whole call id, against which every hit of the short key is confirmed.
    pub call_id: CallId,
    /// Its reservation, whatever became of it.
    pub reservation: Option<Reservation>,
    record: Option<Record>,
    changed: bool,
}

#[derive(Clone, Debug)]
enum Record {
    Stored(RecordedCall),
    /// Recorded in this group: the index of its entry.
    New(usize),
}

impl Call {
    /// A call id that nothing is known of yet.
    pub fn fresh(call_id: CallId) -> Self {
        Self { call_id, reservation: None, record: None, changed: false }
    }

    /// A call id as it is stored.
    pub fn stored(
        call_id: CallId,
        reservation: Option<Reservation>,
        record: Option<RecordedCall>,
    ) -> Self {
        Self { call_id, reservation, record: record.map(Record::Stored), changed: false }
    }

    /// Whether the group changed it.
    pub const fn is_changed(&self) -> bool {
        self.changed
    }

    /// Whether there is neither a record nor a reservation: a claim to be given back.
    pub const fn is_void(&self) -> bool {
        self.record.is_none() && self.reservation.is_none()
    }
}

/// What the group did to a hold, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldChange {
    /// It was made.
    Made(Hold),
    /// It is gone: settled, released or expired.
    Ended(Hold),
    /// It lasts longer; the hold is as it was before.
    Extended {
        /// The hold with its former expiry.
        before: Hold,
        /// The new expiry.
        expires_at: Timestamp,
    },
}

/// What storage loads for a group of commands.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// The account of every integration that a command, a reservation of one of the calls or a
    /// hold in `due` names, with every month that one of them falls into (the current one, that of
    /// a record's instant, that of a reservation's creation, ended or not), with what of its holds
    /// is due, and with how many it has. An integration without an account is unknown.
    pub accounts: HashMap<IntegrationId, Account>,
    /// Every call that the commands name.
    pub calls: HashMap<(TenantId, CallKey), Call>,
    /// Every tenant that reserves, and under a cap of bytes every one that records.
    pub tenants: HashMap<TenantId, TenantSums>,
    /// Holds that are due and are to be removed, each once.
    pub due: Vec<Hold>,
}

/// The accounts and calls that a group of commands touches.
///
/// Storage fills a book, commands are applied to it one after the other, storage saves what
/// changed in one transaction. A book that is dropped changed nothing.
#[derive(Debug)]
pub struct Book<'a> {
    now: Timestamp,
    caps: Caps,
    accounts: HashMap<IntegrationId, Account>,
    calls: HashMap<(TenantId, CallKey), Call>,
    tenants: HashMap<TenantId, TenantSums>,
    entries: Vec<Entry<'a>>,
    holds: Vec<HoldChange>,
    expired: Vec<Hold>,
}

impl<'a> Book<'a> {
    /// Opens a book at `now`. The holds in `due`, and those of the calls that are due, expire here;
    /// all others that are due stay where they are and count in nothing.
    ///
    /// # Errors
    /// [`Overflow`] when an account or month of one of these holds is missing, or a hold is not
    /// due.
    pub fn open(now: Timestamp, caps: Caps, loaded: Loaded) -> Result<Self, Overflow> {
        let Loaded { accounts, calls, tenants, due } = loaded;
        let mut book = Self {
            now,
            caps,
            accounts,
            calls,
            tenants,
            entries: Vec::new(),
            holds: Vec::new(),
            expired: Vec::new(),
        };
        let of_calls = book.calls.iter().filter_map(|(&(tenant_id, key), call)| {
            let held = call.reservation.as_ref()?;
            let is_due = held.state == ReservationState::Open && held.expires_at <= now;
            is_due.then(|| Hold::of(tenant_id, key, held))
        });
        let mut of_calls: Vec<Hold> = of_calls.collect();
        of_calls.sort_unstable_by_key(|hold| (hold.tenant_id, hold.call));
        for hold in of_calls {
            book.expire(hold)?;
        }
        for hold in due {
            // A call that the commands name as well is known, and its hold ended above.
            if !book.calls.contains_key(&(hold.tenant_id, hold.call)) {
                book.expire(hold)?;
            }
        }
        Ok(book)
    }

    /// Applies one command of a tenant.
    ///
    /// # Errors
    /// [`Overflow`] when the book lacks what the command needs. The whole group must be dropped.
    pub fn apply(
        &mut self,
        tenant_id: TenantId,
        call: CallKey,
        command: Command<'a>,
    ) -> Result<Outcome, Overflow> {
        let key = (tenant_id, call);
        Ok(match command {
            Command::Record { entry_id, usage, mode } => {
                Outcome::Record(self.record(key, entry_id, (usage, mode))?)
            }
            Command::Reserve(request) => Outcome::Reserve(self.reserve(key, request)?),
            Command::Release { call_id, only } => {
                Outcome::Release(self.release(key, call_id, only)?)
            }
            Command::Extend { call_id, only, ttl_seconds } => {
                Outcome::Extend(self.extend(key, call_id, only, ttl_seconds)?)
            }
        })
    }

    /// The instant of the group.
    pub const fn now(&self) -> Timestamp {
        self.now
    }

    /// The new entries, in order.
    pub fn entries(&self) -> &[Entry<'a>] {
        &self.entries
    }

    /// The calls that the book was opened with, and what became of them.
    pub const fn calls(&self) -> &HashMap<(TenantId, CallKey), Call> {
        &self.calls
    }

    /// The entry of a call, stored before or new.
    pub fn entry_id(&self, call: &Call) -> Option<EntryId> {
        match call.record.as_ref()? {
            Record::Stored(recorded) => Some(recorded.entry_id),
            Record::New(index) => self.entries.get(*index).map(|entry| entry.entry_id),
        }
    }

    /// The accounts, and what became of them.
    pub const fn accounts(&self) -> &HashMap<IntegrationId, Account> {
        &self.accounts
    }

    /// What happened to holds, in order.
    pub fn holds(&self) -> &[HoldChange] {
        &self.holds
    }

    /// The holds that expired when the book was opened; their reservations have to be ended, with
    /// the calls that the book has or by themselves.
    pub fn expired(&self) -> &[Hold] {
        &self.expired
    }

    /// Gives the accounts and the changes of holds back, to be published once they are stored.
    pub fn into_published(self) -> (HashMap<IntegrationId, Account>, Vec<HoldChange>) {
        (self.accounts, self.holds)
    }

    fn expire(&mut self, hold: Hold) -> Result<(), Overflow> {
        if hold.expires_at > self.now {
            return Err(Overflow);
        }
        let account = self.accounts.get_mut(&hold.integration_id).ok_or(Overflow)?;
        account.expire(hold.month, hold.amount)?;
        account.advance(self.now);
        if let Some(call) = self.calls.get_mut(&(hold.tenant_id, hold.call)) {
            let reservation = call.reservation.as_mut().ok_or(Overflow)?;
            if reservation.state != ReservationState::Open {
                return Err(Overflow);
            }
            end_reservation(reservation, ReservationState::Expired, reservation.expires_at);
            call.changed = true;
        }
        self.holds.push(HoldChange::Ended(hold));
        self.expired.push(hold);
        Ok(())
    }

    fn record(
        &mut self,
        key: (TenantId, CallKey),
        entry_id: EntryId,
        (usage, mode): (&'a Usage, RecordMode),
    ) -> Result<RecordOutcome, Overflow> {
        let call = self.calls.get_mut(&key).ok_or(Overflow)?;
        if let Some(outcome) = duplicate_outcome(call, &self.entries, usage)? {
            return Ok(outcome);
        }
        if mode == RecordMode::KnownOnly && call.reservation.is_none() {
            return Ok(RecordOutcome::Refused(RecordRefusal::UnknownCall));
        }
        let account = self
            .accounts
            .get_mut(&usage.integration_id)
            .filter(|account| account.tenant_id == key.0);
        let Some(account) = account else {
            return Ok(RecordOutcome::Refused(RecordRefusal::IntegrationNotFound));
        };
        let posting = match post(call, account, usage, self.now) {
            Ok(posting) => posting,
            Err(outcome) => return Ok(outcome),
        };
        let Posting { occurred_at, cost, cost_source, settles, is_reserved, counts_in_rate } =
            posting;
        let amount = Totals { cost, tokens: usage.tokens.total(), calls: 1 };
        let tenant = self.tenants.entry(key.0).or_default();
        if !is_reserved && !fits_daily_bytes(self.caps, tenant, usage)? {
            return Ok(RecordOutcome::Refused(RecordRefusal::StoredBytesExceeded));
        }

        // The only step that may be refused comes before the first change.
        account.counter(occurred_at.month())?;
        if account.count(occurred_at.month(), amount).is_err() {
            return Ok(RecordOutcome::Refused(RecordRefusal::TotalsOverflow));
        }
        if counts_in_rate {
            account.rate.add(occurred_at.min(self.now).second(), self.now.second());
        }
        if let Some(held) = settles {
            account.remove_hold(held.month(), held.amount())?;
            count_open(tenant, -1)?;
            self.holds.push(HoldChange::Ended(Hold::of(key.0, key.1, &held)));
            if let Some(reservation) = &mut call.reservation {
                end_reservation(reservation, ReservationState::Settled, self.now);
            }
        }
        account.advance(self.now);
        tenant.stored_bytes =
            tenant.stored_bytes.map(|bytes| bytes.saturating_add(usage.stored_bytes()));
        call.record = Some(Record::New(self.entries.len()));
        call.changed = true;
        self.entries.push(Entry {
            entry_id,
            tenant_id: key.0,
            kind: EntryKind::Usage,
            usage,
            occurred_at,
            created_at: self.now,
            cost,
            cost_source,
            computed_cost: None,
            price_version: None,
            usage_status: UsageStatus::Reported,
        });
        Ok(RecordOutcome::Accepted(entry_id))
    }

    fn reserve(
        &mut self,
        key: (TenantId, CallKey),
        request: &ReserveRequest,
    ) -> Result<ReserveOutcome, Overflow> {
        let call = self.calls.get_mut(&key).ok_or(Overflow)?;
        if let Some(refusal) = reserve_refusal(call, request, self.now) {
            return Ok(ReserveOutcome::Rejected(refusal));
        }
        let account = self
            .accounts
            .get_mut(&request.integration_id)
            .filter(|account| account.tenant_id == key.0);
        let Some(account) = account else {
            let code = ReasonCode::IntegrationNotFound;
            return Ok(ReserveOutcome::Refused(Decision::hard_blocked(code)));
        };
        if let Some(code) = block_reason(account) {
            return Ok(ReserveOutcome::Refused(Decision::hard_blocked(code)));
        }
        // Only after the gate: what admitted the call may have been switched off since.
        if let Some(held) = &call.reservation {
            return Ok(ReserveOutcome::Replayed(held.clone()));
        }
        let limits = account.integration.limits;
        if limits.budget_limit_cents > 0 && request.estimate.cost <= Nanos::ZERO {
            return Ok(ReserveOutcome::Rejected(ReserveRefusal::CostEstimateRequired));
        }
        if limits.token_limit_month > 0 && request.estimate.tokens <= 0 {
            return Ok(ReserveOutcome::Rejected(ReserveRefusal::TokenEstimateRequired));
        }
        let decision = decide(account, request.estimate, self.now)?;
        if !decision.verdict.admits() {
            return Ok(ReserveOutcome::Refused(decision));
        }
        let tenant = self.tenants.get_mut(&key.0).ok_or(Overflow)?;
        if let Some(bound) = reached_cap(self.caps, account, tenant)? {
            return Ok(ReserveOutcome::Rejected(ReserveRefusal::TooManyOpen(bound)));
        }
        let reservation = Reservation {
            request: request.clone(),
            decision,
            created_at: self.now,
            expires_at: self.now.plus_seconds(request.ttl_seconds),
            state: ReservationState::Open,
            ended_at: None,
        };
        if account.hold(reservation.month(), reservation.amount()).is_err() {
            return Ok(ReserveOutcome::Rejected(ReserveRefusal::TotalsOverflow));
        }
        count_open(tenant, 1)?;
        account.rate.add(self.now.second(), self.now.second());
        account.advance(self.now);
        self.holds.push(HoldChange::Made(Hold::of(key.0, key.1, &reservation)));
        call.reservation = Some(reservation.clone());
        call.changed = true;
        Ok(ReserveOutcome::Held(reservation))
    }

    fn release(
        &mut self,
        key: (TenantId, CallKey),
        call_id: &CallId,
        only: Option<IntegrationId>,
    ) -> Result<ReleaseOutcome, Overflow> {
        let call = self.calls.get_mut(&key).ok_or(Overflow)?;
        let Some(reservation) = visible_reservation(call, call_id, only) else {
            return Ok(ReleaseOutcome::NotFound);
        };
        match reservation.state_at(self.now) {
            ReservationState::Settled => Ok(ReleaseOutcome::Settled),
            ReservationState::Released => Ok(ReleaseOutcome::Released(reservation.clone())),
            ReservationState::Expired => Ok(ReleaseOutcome::Expired(reservation.clone())),
            ReservationState::Open => {
                let hold = Hold::of(key.0, key.1, reservation);
                let account = self.accounts.get_mut(&hold.integration_id).ok_or(Overflow)?;
                account.remove_hold(hold.month, hold.amount)?;
                account.advance(self.now);
                let tenant = self.tenants.entry(key.0).or_default();
                count_open(tenant, -1)?;
                end_reservation(reservation, ReservationState::Released, self.now);
                let released = reservation.clone();
                call.changed = true;
                self.holds.push(HoldChange::Ended(hold));
                Ok(ReleaseOutcome::Released(released))
            }
        }
    }

    fn extend(
        &mut self,
        key: (TenantId, CallKey),
        call_id: &CallId,
        only: Option<IntegrationId>,
        ttl_seconds: Option<u32>,
    ) -> Result<ExtendOutcome, Overflow> {
        let call = self.calls.get_mut(&key).ok_or(Overflow)?;
        let Some(reservation) = visible_reservation(call, call_id, only) else {
            return Ok(ExtendOutcome::NotFound);
        };
        // A renewal admits no call, and keeps money held for one that may be under way: what
        // becomes of its integration does not end that. A tenant that is suspended changes nothing.
        let account = self.accounts.get(&reservation.request.integration_id).ok_or(Overflow)?;
        if account.lifecycle != TenantLifecycle::Active {
            return Ok(ExtendOutcome::TenantNotActive);
        }
        let state = reservation.state_at(self.now);
        if state != ReservationState::Open {
            return Ok(ExtendOutcome::Ended(state));
        }
        let before = Hold::of(key.0, key.1, reservation);
        let ttl = ttl_seconds.unwrap_or(reservation.request.ttl_seconds);
        // Renewing never takes away time that was promised.
        reservation.expires_at = reservation.expires_at.max(self.now.plus_seconds(ttl));
        let extended = reservation.clone();
        call.changed = true;
        self.holds.push(HoldChange::Extended { before, expires_at: extended.expires_at });
        Ok(ExtendOutcome::Extended(extended))
    }
}

/// How a new record counts.
struct Posting {
    occurred_at: Timestamp,
    cost: Nanos,
    cost_source: CostSource,
    /// The open reservation that it settles.
    settles: Option<Reservation>,
    /// Whether the call was reserved here, however that ended: what it cost must be counted.
    is_reserved: bool,
    counts_in_rate: bool,
}

/// Weighs a record of a call that is not recorded yet, changing nothing.
fn post(
    call: &Call,
    account: &Account,
    usage: &Usage,
    now: Timestamp,
) -> Result<Posting, RecordOutcome> {
    let (reservation, elsewhere) = match &call.reservation {
        Some(held) if held.request.integration_id == usage.integration_id => (Some(held), None),
        other => (None, other.as_ref()),
    };
    // What is held for a call elsewhere must be settled or released there first. Once that
    // reservation has ended, a caller may have gone to another provider: its record counts.
    if elsewhere.is_some_and(|held| held.state_at(now) == ReservationState::Open) {
        return Err(RecordOutcome::Conflict);
    }
    let default_instant = reservation.map_or(now, |held| held.created_at);
    let occurred_at = usage.occurred_at.unwrap_or(default_instant);
    if occurred_at > now.plus_seconds(AHEAD_SECONDS_MAX) {
        return Err(RecordOutcome::Refused(RecordRefusal::InTheFuture));
    }
    let settles = reservation.filter(|held| held.state_at(now) == ReservationState::Open).cloned();
    let (cost, cost_source) = cost_of(usage, settles.as_ref(), account.integration.cost_basis);
    let is_reserved = reservation.is_some();
    let counts_in_rate = !is_reserved && counts_in_rate(usage, occurred_at, now);
    Ok(Posting { occurred_at, cost, cost_source, settles, is_reserved, counts_in_rate })
}

/// The bound that one more reservation would pass, the narrower one first.
fn reached_cap(
    caps: Caps,
    account: &Account,
    tenant: &TenantSums,
) -> Result<Option<OpenBound>, Overflow> {
    let of_integration = caps.reservations_per_integration;
    if account.counted_reservations()? >= of_integration {
        return Ok(Some(OpenBound::Integration(of_integration)));
    }
    let of_tenant = caps.reservations_per_tenant;
    let open = tenant.open_reservations.ok_or(Overflow)?;
    Ok((open >= of_tenant).then_some(OpenBound::Tenant(of_tenant)))
}

/// Counts reservations that were opened, or below zero ended, if anybody counted the others.
fn count_open(tenant: &mut TenantSums, more: i64) -> Result<(), Overflow> {
    if let Some(open) = &mut tenant.open_reservations {
        *open = open.checked_add(more).ok_or(Overflow)?;
    }
    Ok(())
}

/// Whether a tenant may store a record of a call that was never reserved.
fn fits_daily_bytes(caps: Caps, tenant: &TenantSums, usage: &Usage) -> Result<bool, Overflow> {
    if caps.stored_bytes_per_day == 0 {
        return Ok(true);
    }
    let stored = tenant.stored_bytes.ok_or(Overflow)?;
    let after = stored.checked_add(usage.stored_bytes()).ok_or(Overflow)?;
    Ok(after <= caps.stored_bytes_per_day)
}

/// The answer to a record of a call that is recorded already, or whose key is another call's.
fn duplicate_outcome(
    call: &Call,
    entries: &[Entry<'_>],
    usage: &Usage,
) -> Result<Option<RecordOutcome>, Overflow> {
    if call.call_id != usage.call_id {
        return Ok(Some(RecordOutcome::Conflict));
    }
    let (entry_id, agrees) = match &call.record {
        None => return Ok(None),
        Some(Record::Stored(stored)) => (stored.entry_id, stored.agrees_with(usage)),
        Some(Record::New(index)) => {
            let entry = entries.get(*index).ok_or(Overflow)?;
            (entry.entry_id, entry.agrees_with(usage))
        }
    };
    Ok(Some(repeated(entry_id, agrees)))
}

const fn repeated(entry_id: EntryId, agrees: bool) -> RecordOutcome {
    if agrees { RecordOutcome::Duplicate(entry_id) } else { RecordOutcome::Conflict }
}

fn end_reservation(reservation: &mut Reservation, state: ReservationState, at: Timestamp) {
    reservation.state = state;
    reservation.ended_at = Some(at);
}

/// The reservation of a call, if the caller may see it.
fn visible_reservation<'c>(
    call: &'c mut Call,
    call_id: &CallId,
    only: Option<IntegrationId>,
) -> Option<&'c mut Reservation> {
    if call.call_id != *call_id {
        return None;
    }
    let seen = |held: &&mut Reservation| only.is_none_or(|id| id == held.request.integration_id);
    call.reservation.as_mut().filter(seen)
}

/// Why a call id cannot be reserved by this request: it is used up, or stands for something else.
/// What is left is free, or reserved by the same request and open.
fn reserve_refusal(
    call: &Call,
    request: &ReserveRequest,
    now: Timestamp,
) -> Option<ReserveRefusal> {
    if call.call_id != request.call_id {
        return Some(ReserveRefusal::OtherContent);
    }
    if call.record.is_some() {
        return Some(ReserveRefusal::CallRecorded);
    }
    let held = call.reservation.as_ref()?;
    let state = held.state_at(now);
    if state != ReservationState::Open {
        return Some(ReserveRefusal::CallEnded(state));
    }
    (held.request != *request).then_some(ReserveRefusal::OtherContent)
}

/// What a record costs and who says so.
///
/// A client that is not trusted never sets its cost. A settled reservation stands in for a figure
/// that nobody has; a hold of nothing cannot, for an unknown cost must never look like a free call.
fn cost_of(usage: &Usage, settles: Option<&Reservation>, basis: CostBasis) -> (Nanos, CostSource) {
    let reported = match basis {
        CostBasis::Reported => usage.cost,
        CostBasis::Computed => None,
    };
    if let Some(reported) = reported {
        return (reported, CostSource::Reported);
    }
    match settles.map(|held| held.request.estimate.cost) {
        Some(held) if held > Nanos::ZERO => (held, CostSource::Held),
        Some(_) | None => (Nanos::ZERO, CostSource::Unknown),
    }
}

fn counts_in_rate(usage: &Usage, occurred_at: Timestamp, now: Timestamp) -> bool {
    let went_on = match usage.policy_result {
        PolicyResult::Allowed | PolicyResult::Warned => true,
        PolicyResult::Blocked => false,
    };
    went_on && occurred_at.second() > now.second().saturating_sub(RATE_SECONDS)
}
