//! Accounts: what an integration has used and holds by month, and its call rate.
//!
//! Deliberately absent: the decision whether a call may go on, which is in `decide.rs`.

#![warn(clippy::arithmetic_side_effects)]

use crate::caps::UNSWEPT_MAX;
use crate::id::TenantId;
use crate::integration::Integration;
use crate::rate::RateWindow;
use crate::tenant::TenantLifecycle;
use crate::time::{Month, Timestamp};
use crate::totals::{Overflow, Totals};

/// The counter of one month of an account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// The sum of the month's entries.
    pub used: Totals,
    /// The sum of the open reservations that were made in the month.
    pub held: Totals,
    /// When the counter last changed.
    ///
    /// Servers whose clocks differ slightly use it to keep their decisions in order
    /// ([`Counter::holds_back`]).
    pub last_at: Timestamp,
}

impl Counter {
    /// The counter without its due holds, whose sum is `due`.
    ///
    /// # Errors
    /// [`Overflow`] if the counter holds less than `due`.
    pub fn without_due(self, due: Totals) -> Result<Self, Overflow> {
        Ok(Self { held: self.held.less(due)?, ..self })
    }

    /// How far apart the clocks of servers that decide about one account may be.
    pub const APART_SECONDS_MAX: u32 = 60;

    /// Whether `last_at` is ahead of `now` and delays a decision at `now`.
    ///
    /// If `last_at` is further ahead than [`Counter::APART_SECONDS_MAX`], an operator set the clock
    /// back since, and it delays nothing.
    pub fn holds_back(last_at: Timestamp, now: Timestamp) -> bool {
        last_at > now && last_at <= now.plus_seconds(Self::APART_SECONDS_MAX)
    }
}

/// Everything that a decision about an integration's calls depends on.
#[derive(Clone, Debug)]
pub struct Account {
    pub tenant_id: TenantId,
    pub lifecycle: TenantLifecycle,
    /// The integration. A deleted one keeps its account, so that its reservations can settle.
    pub integration: Integration,
    /// The calls of the last 60 seconds.
    pub rate: RateWindow,
    months: Vec<Slot>,
    /// Reservations of all months that are stored as open; `None` if they were not counted.
    stored_open: Option<i64>,
    /// Sums of stored holds that are due, by the month in which they are held.
    due: Vec<(Month, Totals)>,
}

/// A month as it is stored: due holds are still part of its counter.
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

    /// Sets a month as it is stored; a month without a row has the default counter.
    pub fn restore(&mut self, month: Month, counter: Counter) {
        match self.slot(month) {
            Ok(slot) => *slot = Slot { month, counter, changed: false },
            Err(Overflow) => self.months.push(Slot { month, counter, changed: false }),
        }
    }

    /// Sets how many reservations are stored as open, including due ones.
    pub const fn restore_open(&mut self, stored: i64) {
        self.stored_open = Some(stored);
    }

    /// Sets the sums of due holds by month.
    ///
    /// Due holds stay stored until the sweep or a command removes them, but count nowhere.
    pub fn restore_due(&mut self, due: Vec<(Month, Totals)>) {
        self.due = due;
    }

    /// The counter of a month, without due holds.
    ///
    /// # Errors
    /// [`Overflow`] if the month was not loaded, because an unknown sum must not count as zero.
    pub fn counter(&self, month: Month) -> Result<Counter, Overflow> {
        let slot = self.months.iter().find(|slot| slot.month == month).ok_or(Overflow)?;
        slot.counter.without_due(self.due_in(month))
    }

    /// The reservations that count against the caps.
    ///
    /// These are all open reservations, and the due ones in excess of [`UNSWEPT_MAX`].
    ///
    /// # Errors
    /// [`Overflow`] if the reservations were not counted.
    pub fn counted_reservations(&self) -> Result<i64, Overflow> {
        let mut calls = self.due.iter().map(|(_, due)| due.calls);
        let due = calls.try_fold(0_i64, i64::checked_add).ok_or(Overflow)?;
        let stored = self.stored_open.ok_or(Overflow)?;
        if stored < due {
            return Err(Overflow);
        }
        stored.checked_sub(due.min(UNSWEPT_MAX)).ok_or(Overflow)
    }

    /// The changed months, with their counters as storage has to save them.
    pub fn changed_months(&self) -> impl Iterator<Item = (Month, Counter)> {
        self.months.iter().filter(|slot| slot.changed).map(|slot| (slot.month, slot.counter))
    }

    /// Marks everything as saved, and drops the months before `oldest`.
    pub fn mark_saved(&mut self, oldest: Month) {
        self.rate.clear_changed();
        self.months.retain(|slot| slot.month >= oldest);
        for slot in &mut self.months {
            slot.changed = false;
        }
    }

    /// Removes an open hold from its month.
    ///
    /// # Errors
    /// [`Overflow`] if the month was not loaded or holds less than `amount`. A negative sum of
    /// holds would admit calls on money that does not exist.
    pub(crate) fn remove_hold(&mut self, month: Month, amount: Totals) -> Result<(), Overflow> {
        let due = self.due_in(month);
        self.change(month, |counter| {
            counter.held = counter.held.less(amount)?;
            counter.held.less(due).map(|_| ())
        })?;
        self.count_open(amount.calls.checked_neg().ok_or(Overflow)?)
    }

    /// Removes a due hold from its month.
    ///
    /// # Errors
    /// As for [`Account::remove_hold`].
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

    /// Advances `last_at` of the changed months to `now`.
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

    /// Changes the number of open reservations by `more`, if that number was loaded.
    fn count_open(&mut self, more: i64) -> Result<(), Overflow> {
        if let Some(stored) = &mut self.stored_open {
            *stored = stored.checked_add(more).ok_or(Overflow)?;
        }
        Ok(())
    }

    fn slot(&mut self, month: Month) -> Result<&mut Slot, Overflow> {
        self.months.iter_mut().find(|slot| slot.month == month).ok_or(Overflow)
    }

    /// Changes a counter; on an overflow it stays as it was.
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
