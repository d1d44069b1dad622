//! The book: the accounts and calls of one group of commands, and the rules that change them.
//!
//! Deliberately absent: loading and saving. Storage fills a book and saves what it says changed.

#![warn(clippy::arithmetic_side_effects)]

use std::collections::HashMap;
use std::sync::Arc;

use crate::account::Account;
use crate::call::{Call, Record};
use crate::caps::{Caps, TenantSums};
use crate::command::{
    Command, ExtendOutcome, Outcome, RecordMode, RecordOutcome, RecordRefusal, ReleaseOutcome,
    ReserveOutcome, ReserveRefusal,
};
use crate::decide::{Decision, LimitsInForce, ReasonCode, block_reason, decide};
use crate::entry::{CostSource, Entry, EntryKind};
use crate::estimate::Estimate;
use crate::id::{EntryId, IntegrationId, TenantId};
use crate::integration::BuiltInLimit;
use crate::limit_account::HoldEnd;
use crate::limit_book::{LimitBook, LoadedLimits};
use crate::measure::Measure;
use crate::money::Nanos;
use crate::period::Calendar;
use crate::record_effect::{RecordEffect, record_effect};
use crate::reservation::{Hold, HoldChange, Reservation, ReservationState, ReserveRequest};
use crate::tenant::TenantLifecycle;
use crate::time::{Month, Timestamp};
use crate::totals::{Overflow, Totals};
use crate::usage::{CallId, CallKey, Usage};

/// The key of a counter: one month of one integration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CounterKey {
    pub tenant_id: TenantId,
    pub integration_id: IntegrationId,
    pub month: Month,
}

/// What storage loads for a group of commands.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// The accounts of all integrations that the group concerns.
    ///
    /// An integration concerns the group if a command, a reservation of a loaded call or a hold in
    /// `due` names it. Its account needs the months of all of them: the current month, the months
    /// of records and the months in which reservations were made. It also needs the sums of its due
    /// holds and the number of its open reservations. An integration without an account is unknown.
    pub accounts: HashMap<IntegrationId, Account>,
    /// Every call that the commands name.
    pub calls: HashMap<(TenantId, CallKey), Call>,
    /// Every tenant that reserves; with a daily cap on bytes, also every tenant that records.
    pub tenants: HashMap<TenantId, TenantSums>,
    /// Expired holds that this group removes, each once.
    pub due: Vec<Hold>,
    /// The limits of the tenants, and their accounts.
    pub limits: LoadedLimits,
}

/// The accounts and calls that a group of commands touches.
///
/// Storage loads a book, the writer applies commands to it, and storage saves the changes in one
/// transaction. Dropping a book discards its changes.
#[derive(Debug)]
pub struct Book<'a> {
    now: Timestamp,
    caps: Caps,
    accounts: HashMap<IntegrationId, Account>,
    limits: LimitBook,
    calls: HashMap<(TenantId, CallKey), Call>,
    tenants: HashMap<TenantId, TenantSums>,
    entries: Vec<Entry<'a>>,
    holds: Vec<HoldChange>,
    expired: Vec<Hold>,
}

impl<'a> Book<'a> {
    /// Opens a book at `now`, and expires the holds in `due` and the due holds of its calls.
    ///
    /// Other due holds stay stored, but count nowhere. The sweep removes them later.
    ///
    /// # Errors
    /// [`Overflow`] if the account or month of an expiring hold is missing, or a hold in `due` has
    /// not expired at `now`, or the calendar does not know the time zone of a limit.
    pub fn open(
        now: Timestamp,
        caps: Caps,
        calendar: &dyn Calendar,
        loaded: Loaded,
    ) -> Result<Self, Overflow> {
        let Loaded { accounts, calls, tenants, due, limits } = loaded;
        let limits = LimitBook::open(now, caps.values_per_limit, calendar, limits)?;
        let mut book = Self {
            now,
            caps,
            accounts,
            limits,
            calls,
            tenants,
            entries: Vec::new(),
            holds: Vec::new(),
            expired: Vec::new(),
        };
        let of_calls = book.calls.iter().filter_map(|(&(tenant_id, key), call)| {
            let held = call.reservation.as_ref()?;
            let is_due = held.state == ReservationState::Open && held.expires_at <= now;
            is_due.then(|| hold_of(&book.limits, (tenant_id, key), held))
        });
        let mut of_calls: Vec<Hold> = of_calls.collect();
        of_calls.sort_unstable_by_key(|hold| (hold.tenant_id, hold.call));
        for hold in of_calls {
            book.expire(&hold)?;
        }
        for hold in due {
            // The holds of calls that the commands name ended above.
            if !book.calls.contains_key(&(hold.tenant_id, hold.call)) {
                book.expire(&hold)?;
            }
        }
        Ok(book)
    }

    /// Decides one command of a tenant, and changes the book accordingly.
    ///
    /// # Errors
    /// [`Overflow`] if the book lacks what the command needs. Drop the whole group then.
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

    /// The loaded calls, with the changes of this group.
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

    /// What counts as the cost of a call's entry, stored before or new.
    pub fn cost_source(&self, tenant_id: TenantId, call: CallKey) -> Option<CostSource> {
        match self.calls.get(&(tenant_id, call))?.record.as_ref()? {
            Record::Stored(recorded) => Some(recorded.cost_source),
            Record::New(index) => self.entries.get(*index).map(|entry| entry.cost_source),
        }
    }

    /// The loaded accounts, with the changes of this group.
    pub const fn accounts(&self) -> &HashMap<IntegrationId, Account> {
        &self.accounts
    }

    /// The limits and their accounts, with the changes of this group.
    pub const fn limits(&self) -> &LimitBook {
        &self.limits
    }

    /// The changes of holds, in order.
    pub fn holds(&self) -> &[HoldChange] {
        &self.holds
    }

    /// The holds that expired when the book was opened.
    ///
    /// Storage ends their reservations: with the call if the book has it, on their own otherwise.
    pub fn expired(&self) -> &[Hold] {
        &self.expired
    }

    /// Returns the accounts and the changes of holds, for publishing after the commit.
    pub fn into_published(self) -> (HashMap<IntegrationId, Account>, LimitBook, Vec<HoldChange>) {
        (self.accounts, self.limits, self.holds)
    }

    fn expire(&mut self, hold: &Hold) -> Result<(), Overflow> {
        if hold.expires_at > self.now {
            return Err(Overflow);
        }
        let account = self.accounts.get_mut(&hold.integration_id).ok_or(Overflow)?;
        account.expire(hold.month, hold.amount)?;
        account.advance(self.now);
        self.limits.expire(&hold.postings, hold.amount)?;
        if let Some(call) = self.calls.get_mut(&(hold.tenant_id, hold.call)) {
            let reservation = call.reservation.as_mut().ok_or(Overflow)?;
            if reservation.state != ReservationState::Open {
                return Err(Overflow);
            }
            reservation.end(ReservationState::Expired, reservation.expires_at);
            call.is_changed = true;
        }
        self.holds.push(HoldChange::Ended(hold.clone()));
        self.expired.push(hold.clone());
        Ok(())
    }

    fn record(
        &mut self,
        key: (TenantId, CallKey),
        entry_id: EntryId,
        (usage, mode): (&'a Usage, RecordMode),
    ) -> Result<RecordOutcome, Overflow> {
        let call = self.calls.get_mut(&key).ok_or(Overflow)?;
        if let Some(outcome) = call.duplicate_outcome(&self.entries, usage)? {
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
        let effect = match record_effect(call.reservation.as_ref(), account, usage, self.now) {
            Ok(effect) => effect,
            Err(outcome) => return Ok(outcome),
        };
        let RecordEffect { occurred_at, cost, cost_source, settles, .. } = effect;
        let amount = Totals { cost, tokens: usage.tokens.total(), calls: 1 };
        let matched = self.limits.matched(key.0, &usage.subject(effect.account_key_id))?;
        let tenant = self.tenants.entry(key.0).or_default();
        if !effect.is_reserved && !self.caps.fits_daily_bytes(tenant, usage.stored_bytes())? {
            return Ok(RecordOutcome::Refused(RecordRefusal::StoredBytesExceeded));
        }

        // The overflow check comes first, so that a refused record changes nothing.
        account.counter(occurred_at.month())?;
        let fits = self.limits.fits(&matched, amount);
        if !fits || account.count(occurred_at.month(), amount).is_err() {
            return Ok(RecordOutcome::Refused(RecordRefusal::TotalsOverflow));
        }
        if effect.counts_in_rate {
            account.rate.add(occurred_at.min(self.now).second(), self.now.second());
        }
        if let Some(held) = settles {
            account.remove_hold(held.month(), held.amount())?;
            self.limits.end(&held.postings, held.amount(), HoldEnd::Settled)?;
            tenant.count_open(-1)?;
            self.holds.push(HoldChange::Ended(hold_of(&self.limits, key, &held)));
            if let Some(reservation) = &mut call.reservation {
                reservation.end(ReservationState::Settled, self.now);
            }
        }
        account.advance(self.now);
        self.limits.count(&matched, &effect.in_limits)?;
        tenant.stored_bytes =
            tenant.stored_bytes.map(|bytes| bytes.saturating_add(usage.stored_bytes()));
        call.record = Some(Record::New(self.entries.len()));
        call.is_changed = true;
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
            account_key_id: effect.account_key_id,
            limits_version: self.limits.version(key.0),
        });
        Ok(RecordOutcome::Accepted(entry_id))
    }

    fn reserve(
        &mut self,
        key: (TenantId, CallKey),
        request: &ReserveRequest,
    ) -> Result<ReserveOutcome, Overflow> {
        let call = self.calls.get_mut(&key).ok_or(Overflow)?;
        if let Some(refusal) = call.reserve_refusal(request, self.now) {
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
        // A repeated request is answered after the status checks: the integration or tenant may
        // have been disabled since the first answer.
        if let Some(held) = &call.reservation {
            return Ok(ReserveOutcome::Replayed(held.clone()));
        }
        let matched = self.limits.matched(key.0, &request.subject())?;
        let in_force = self.limits.in_force_of(key.0, &matched)?;
        if let Some(refusal) = missing_estimate(account, &in_force, request.estimate, self.now) {
            return Ok(ReserveOutcome::Rejected(refusal));
        }
        let decision = decide(account, &in_force, request.estimate, self.now)?;
        if !decision.verdict.admits() {
            return Ok(ReserveOutcome::Refused(decision));
        }
        let tenant = self.tenants.get_mut(&key.0).ok_or(Overflow)?;
        if let Some(bound) = self.caps.reached(account.counted_reservations()?, tenant)? {
            return Ok(ReserveOutcome::Rejected(ReserveRefusal::TooManyOpen(bound)));
        }
        let amount = request.estimate.totals();
        let fits = self.limits.fits(&matched, amount);
        if !fits || account.hold(self.now.month(), amount).is_err() {
            return Ok(ReserveOutcome::Rejected(ReserveRefusal::TotalsOverflow));
        }
        let reservation = Reservation {
            request: request.clone(),
            decision,
            created_at: self.now,
            expires_at: self.now.plus_seconds(request.ttl_seconds),
            state: ReservationState::Open,
            ended_at: None,
            postings: self.limits.hold(&matched, amount)?,
            limits_version: self.limits.version(key.0),
        };
        tenant.count_open(1)?;
        account.rate.add(self.now.second(), self.now.second());
        account.advance(self.now);
        self.holds.push(HoldChange::Made(Hold::of(key.0, key.1, &reservation)));
        call.reservation = Some(reservation.clone());
        call.is_changed = true;
        Ok(ReserveOutcome::Held(reservation))
    }

    fn release(
        &mut self,
        key: (TenantId, CallKey),
        call_id: &CallId,
        only: Option<IntegrationId>,
    ) -> Result<ReleaseOutcome, Overflow> {
        let call = self.calls.get_mut(&key).ok_or(Overflow)?;
        let Some(reservation) = call.visible_reservation(call_id, only) else {
            return Ok(ReleaseOutcome::NotFound);
        };
        match reservation.state_at(self.now) {
            ReservationState::Settled => Ok(ReleaseOutcome::Settled),
            ReservationState::Released => Ok(ReleaseOutcome::Released(reservation.clone())),
            ReservationState::Expired => Ok(ReleaseOutcome::Expired(reservation.clone())),
            ReservationState::Open => {
                let hold = hold_of(&self.limits, key, reservation);
                let account = self.accounts.get_mut(&hold.integration_id).ok_or(Overflow)?;
                account.remove_hold(hold.month, hold.amount)?;
                account.advance(self.now);
                self.limits.end(&hold.postings, hold.amount, HoldEnd::Unused)?;
                let tenant = self.tenants.entry(key.0).or_default();
                tenant.count_open(-1)?;
                reservation.end(ReservationState::Released, self.now);
                let released = reservation.clone();
                call.is_changed = true;
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
        let Some(reservation) = call.visible_reservation(call_id, only) else {
            return Ok(ExtendOutcome::NotFound);
        };
        // An extension keeps money held for a call that may be in progress, so the status of the
        // integration does not matter. A suspended tenant changes nothing.
        let account = self.accounts.get(&reservation.request.integration_id).ok_or(Overflow)?;
        if account.lifecycle != TenantLifecycle::Active {
            return Ok(ExtendOutcome::TenantNotActive);
        }
        let state = reservation.state_at(self.now);
        if state != ReservationState::Open {
            return Ok(ExtendOutcome::Ended(state));
        }
        let before = hold_of(&self.limits, key, reservation);
        let ttl = ttl_seconds.unwrap_or(reservation.request.ttl_seconds);
        // An extension never shortens a hold.
        reservation.expires_at = reservation.expires_at.max(self.now.plus_seconds(ttl));
        let extended = reservation.clone();
        call.is_changed = true;
        self.holds.push(HoldChange::Extended { before, expires_at: extended.expires_at });
        Ok(ExtendOutcome::Extended(Box::new(extended)))
    }
}

/// Whether a limit that can refuse needs an estimate that the request does not give.
fn missing_estimate(
    account: &Account,
    limits: &LimitsInForce<'_>,
    estimate: Estimate,
    now: Timestamp,
) -> Option<ReserveRefusal> {
    let built_in = account.integration.limits.limits().map(BuiltInLimit::measure);
    let others = limits.limits.iter().map(|in_force| in_force.limit);
    let others = others.filter(|limit| limit.enabled && limit.rule.action.refuses());
    let others = others.filter(|limit| !limit.rule.bound.is_unlimited(now));
    let measures: Vec<Measure> =
        built_in.chain(others.map(|limit| limit.rule.bound.measure())).collect();
    if measures.contains(&Measure::Cost) && estimate.cost <= Nanos::ZERO {
        return Some(ReserveRefusal::CostEstimateRequired);
    }
    (measures.contains(&Measure::Tokens) && estimate.tokens <= 0)
        .then_some(ReserveRefusal::TokenEstimateRequired)
}

/// The hold of a reservation, in the accounts that still exist.
fn hold_of(limits: &LimitBook, (tenant_id, call): (TenantId, CallKey), held: &Reservation) -> Hold {
    let hold = Hold::of(tenant_id, call, held);
    Hold { postings: limits.existing(Arc::clone(&hold.postings)), ..hold }
}
