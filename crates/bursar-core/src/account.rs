//! What an integration has used and holds, month by month, and how fast it calls.

#![warn(clippy::arithmetic_side_effects)]

use crate::caps::UNSWEPT_MAX;
use crate::id::TenantId;
use crate::integration::Integration;
use crate::money::Nanos;
use crate::rate::RateWindow;
use crate::tenant::TenantLifecycle;
use crate::time::{Month, Timestamp};

/// A sum that does not fit its integer, or a month that was not loaded: nothing is decided on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the account's totals cannot be computed")]
pub struct Overflow;

/// Cost, tokens and calls, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub cost: Nanos,
    /// Tokens in and out.
    pub tokens: i64,
    pub calls: i64,
}

impl Totals {
    /// The sum.
    ///
    /// # Errors
    /// [`Overflow`] when a sum does not fit.
    pub fn plus(self, other: Self) -> Result<Self, Overflow> {
        Ok(Self {
            cost: self.cost.checked_add(other.cost).ok_or(Overflow)?,
            tokens: self.tokens.checked_add(other.tokens).ok_or(Overflow)?,
            calls: self.calls.checked_add(other.calls).ok_or(Overflow)?,
        })
    }

    /// The difference of amounts that cannot be below nothing.
    ///
    /// # Errors
    /// [`Overflow`] when there is less than that.
    pub fn less(self, other: Self) -> Result<Self, Overflow> {
        let rest = self.minus(other)?;
        if rest.cost < Nanos::ZERO || rest.tokens < 0 || rest.calls < 0 {
            return Err(Overflow);
        }
        Ok(rest)
    }

    /// The difference.
    ///
    /// # Errors
    /// [`Overflow`] when a difference does not fit.
    pub fn minus(self, other: Self) -> Result<Self, Overflow> {
        Ok(Self {
            cost: self.cost.checked_sub(other.cost).ok_or(Overflow)?,
            tokens: self.tokens.checked_sub(other.tokens).ok_or(Overflow)?,
            calls: self.calls.checked_sub(other.calls).ok_or(Overflow)?,
        })
    }
}

/// One month of an account: what its records add up to, and what open reservations hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// The sum of the entries of the month.
    pub used: Totals,
    /// The sum of the reservations made in the month that are open.
    pub held: Totals,
    /// The latest instant at which the counter changed. Where several servers decide, `now` falls
    /// below it only when it is of a time that was taken back ([`Counter::holds_back`]).
    pub last_at: Timestamp,
}

impl Counter {
    /// The counter without holds that are due, which add up to this.
    ///
    /// # Errors
    /// [`Overflow`] when less than that is held.
    pub fn without_due(self, due: Totals) -> Result<Self, Overflow> {
        Ok(Self { held: self.held.less(due)?, ..self })
    }

    /// How far the clocks of servers that decide about one account can be apart.
    pub const APART_SECONDS_MAX: u32 = 60;

    /// Whether a decision at `now` has to wait for the counter's last one. One that lies further
    /// ahead is of a time that an operator took back, and holds nothing back.
    pub fn holds_back(last_at: Timestamp, now: Timestamp) -> bool {
        last_at > now && last_at <= now.plus_seconds(Self::APART_SECONDS_MAX)
    }
}

/// Everything that decides about the calls of one integration.
#[derive(Clone, Debug)]
pub struct Account {
    /// Whose it is.
    pub tenant_id: TenantId,
    /// Where the tenant is in its life.
    pub lifecycle: TenantLifecycle,
    /// The integration; a deleted one is still here, for its past.
    pub integration: Integration,
    /// The calls of the last 60 seconds.
    pub rate: RateWindow,
    months: Vec<Slot>,
    /// Reservations that are stored as open, of whatever month; nothing when nobody counted them.
    stored_open: Option<i64>,
    /// What is stored as held and is due, by the month in which it is held.
    due: Vec<(Month, Totals)>,
}

/// A month as it is stored: what is due is still held in it.
#[derive(Clone, Copy, Debug)]
struct Slot {
    month: Month,
    counter: Counter,
    changed: bool,
}

impl Account {
    /// An account with no month loaded.
    pub fn new(tenant_id: TenantId, lifecycle: TenantLifecycle, integration: Integration) -> Self {
        Self {
            tenant_id,
            lifecycle,
            integration,
            rate: RateWindow::default(),
            months: Vec::new(),
            stored_open: None,
            due: Vec::new(),
        }
    }

    /// Puts a month in as it is stored; a month without a row is the default counter.
    pub fn restore(&mut self, month: Month, counter: Counter) {
        match self.slot(month) {
            Ok(slot) => *slot = Slot { month, counter, changed: false },
            Err(Overflow) => self.months.push(Slot { month, counter, changed: false }),
        }
    }

    /// Says how many reservations are stored as open, those that are due included.
    pub const fn restore_open(&mut self, stored: i64) {
        self.stored_open = Some(stored);
    }

    /// Says what the holds that are due and not yet removed add up to, by month. They stay stored
    /// until each of them ends, and count in nothing.
    pub fn restore_due(&mut self, due: Vec<(Month, Totals)>) {
        self.due = due;
    }

    /// The counter of a month, in which only holds that are not due count.
    ///
    /// # Errors
    /// [`Overflow`] when the month was not loaded: what is not known must not count as nothing.
    pub fn counter(&self, month: Month) -> Result<Counter, Overflow> {
        let slot = self.months.iter().find(|slot| slot.month == month).ok_or(Overflow)?;
        slot.counter.without_due(self.due_in(month))
    }

    /// Reservations of whatever month that take a place: those that are open, and of those that are
    /// due what is beyond [`UNSWEPT_MAX`].
    ///
    /// # Errors
    /// [`Overflow`] when nobody counted them.
    pub fn counted_reservations(&self) -> Result<i64, Overflow> {
        let mut calls = self.due.iter().map(|(_, due)| due.calls);
        let due = calls.try_fold(0_i64, i64::checked_add).ok_or(Overflow)?;
        let stored = self.stored_open.ok_or(Overflow)?;
        if stored < due {
            return Err(Overflow);
        }
        stored.checked_sub(due.min(UNSWEPT_MAX)).ok_or(Overflow)
    }

    /// The months that changed, with their counters as they are to be stored.
    pub fn changed_months(&self) -> impl Iterator<Item = (Month, Counter)> {
        self.months.iter().filter(|slot| slot.changed).map(|slot| (slot.month, slot.counter))
    }

    /// Takes everything as stored and forgets all months before `oldest`.
    pub fn mark_saved(&mut self, oldest: Month) {
        self.rate.clear_changed();
        self.months.retain(|slot| slot.month >= oldest);
        for slot in &mut self.months {
            slot.changed = false;
        }
    }

    /// Takes an open hold out of what its month holds.
    ///
    /// # Errors
    /// [`Overflow`] when the month was not loaded, or holds less than that: what is held can never
    /// be below nothing, or the next call would be admitted on money that is not there.
    pub(crate) fn remove_hold(&mut self, month: Month, amount: Totals) -> Result<(), Overflow> {
        let due = self.due_in(month);
        self.change(month, |counter| {
            counter.held = counter.held.less(amount)?;
            counter.held.less(due).map(|_| ())
        })?;
        self.count_open(amount.calls.checked_neg().ok_or(Overflow)?)
    }

    /// Takes a hold that is due out of what its month holds.
    ///
    /// # Errors
    /// As for an open one.
    pub(crate) fn expire(&mut self, month: Month, amount: Totals) -> Result<(), Overflow> {
        let due = self.due.iter_mut().find(|(of, _)| *of == month).ok_or(Overflow)?;
        let rest = due.1.less(amount)?;
        due.1 = rest;
        self.remove_hold(month, amount)
    }

    /// Adds a hold to a month.
    pub(crate) fn hold(&mut self, month: Month, amount: Totals) -> Result<(), Overflow> {
        self.change(month, |counter| {
            counter.held = counter.held.plus(amount)?;
            Ok(())
        })?;
        self.count_open(amount.calls)
    }

    /// Adds a record to a month.
    pub(crate) fn count(&mut self, month: Month, amount: Totals) -> Result<(), Overflow> {
        self.change(month, |counter| {
            counter.used = counter.used.plus(amount)?;
            Ok(())
        })
    }

    /// Marks the changed months as changed at `now`.
    pub(crate) fn advance(&mut self, now: Timestamp) {
        for slot in self.months.iter_mut().filter(|slot| slot.changed) {
            if !Counter::holds_back(slot.counter.last_at, now) {
                slot.counter.last_at = now;
            }
        }
    }

    fn due_in(&self, month: Month) -> Totals {
        self.due.iter().find(|(of, _)| *of == month).map_or_else(Totals::default, |(_, due)| *due)
    }

    /// Counts open reservations on, if anybody counted them.
    fn count_open(&mut self, more: i64) -> Result<(), Overflow> {
        if let Some(stored) = &mut self.stored_open {
            *stored = stored.checked_add(more).ok_or(Overflow)?;
        }
        Ok(())
    }

    fn slot(&mut self, month: Month) -> Result<&mut Slot, Overflow> {
        self.months.iter_mut().find(|slot| slot.month == month).ok_or(Overflow)
    }

    /// Changes a counter wholly or, on an overflow, not at all.
    fn change(
        &mut self,
        month: Month,
        change: impl FnOnce(&mut Counter) -> Result<(), Overflow>,
    ) -> Result<(), Overflow> {
        let slot = self.slot(month)?;
        let mut counter = slot.counter;
        change(&mut counter)?;
        slot.counter = counter;
        slot.changed = true;
        Ok(())
    }
}
