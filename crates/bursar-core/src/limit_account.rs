//! The account of a limit: what the calls of one value have used and hold.

#![warn(clippy::arithmetic_side_effects)]

use crate::account::Counter;
use crate::limit::{Bound, Window};
use crate::limit_state::LimitState;
use crate::measure::{Concurrent, Quantity};
use crate::period::Period;
use crate::time::Timestamp;
use crate::totals::{Overflow, Totals};

/// How long a call counts in a window of a minute, in seconds.
const MINUTE: i64 = 60;

/// The sums of an account, by the window of its limit.
///
/// A calendar account has sums of one period: the latest in which a call counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LimitCounter {
    Period {
        start: Timestamp,
        used: Totals,
        held: Totals,
    },
    /// At most 60 seconds, ordered by second.
    Minute(Vec<MinuteSlot>),
    /// Open reservations of any time.
    Open {
        held: i64,
    },
}

/// The calls of one second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MinuteSlot {
    /// Seconds since 1970.
    pub second: i64,
    pub used: Totals,
    pub held: Totals,
    is_changed: bool,
}

impl MinuteSlot {
    /// A slot as it is stored.
    pub const fn stored(second: i64, used: Totals, held: Totals) -> Self {
        Self { second, used, held, is_changed: false }
    }

    /// The place of the slot in storage, which later seconds take over.
    pub const fn index(&self) -> u8 {
        self.second.rem_euclid(MINUTE) as u8
    }
}

/// How a hold ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HoldEnd {
    /// The call is recorded; the record counts instead.
    Settled,
    /// The call was not recorded. In a window of a minute it still counts as a call.
    Unused,
}

/// How a record counts in the accounts of limits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CountedRecord {
    /// The instant in calendar periods: that of the call, but not after its arrival.
    pub(crate) at: Timestamp,
    pub(crate) amount: Totals,
    /// The instant in a window of a minute: the reservation, if there was one.
    pub(crate) minute_at: Timestamp,
    /// A call that was reserved, and not settled by the record, counts there already.
    pub(crate) minute_amount: Totals,
}

/// The account of a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitAccount {
    counter: LimitCounter,
    last_at: Timestamp,
    /// Sums of stored holds that are due, by the start of their posting.
    due: Vec<(Timestamp, Totals)>,
    is_stored: bool,
    is_changed: bool,
}

impl LimitAccount {
    /// The account of a limit in which nothing has counted.
    pub fn new(bound: &Bound) -> Self {
        let counter = match bound.window() {
            Some(Window::Calendar(..) | Window::Total { .. }) => LimitCounter::Period {
                start: Timestamp::MIN,
                used: Totals::default(),
                held: Totals::default(),
            },
            Some(Window::Minute) => LimitCounter::Minute(Vec::new()),
            None => LimitCounter::Open { held: 0 },
        };
        Self { is_stored: false, ..Self::stored(counter, Timestamp::MIN) }
    }

    /// An account as it is stored. Slots of a minute must be ordered by second.
    pub const fn stored(counter: LimitCounter, last_at: Timestamp) -> Self {
        Self { counter, last_at, due: Vec::new(), is_stored: true, is_changed: false }
    }

    /// Sets the sums of due holds by the start of their posting.
    pub fn restore_due(&mut self, due: Vec<(Timestamp, Totals)>) {
        self.due = due;
    }

    /// The sums as storage has to save them.
    pub const fn counter(&self) -> &LimitCounter {
        &self.counter
    }

    /// When the account last changed; see [`Counter::last_at`].
    pub const fn last_at(&self) -> Timestamp {
        self.last_at
    }

    /// Whether storage has to save the account.
    pub const fn is_changed(&self) -> bool {
        self.is_changed
    }

    /// The changed seconds of a window of a minute.
    pub fn changed_slots(&self) -> impl Iterator<Item = &MinuteSlot> {
        let slots = match &self.counter {
            LimitCounter::Minute(slots) => slots.as_slice(),
            LimitCounter::Period { .. } | LimitCounter::Open { .. } => &[],
        };
        slots.iter().filter(|slot| slot.is_changed)
    }

    /// Marks everything as saved.
    pub fn mark_saved(&mut self) {
        self.is_stored |= self.is_changed;
        self.is_changed = false;
        if let LimitCounter::Minute(slots) = &mut self.counter {
            slots.iter_mut().for_each(|slot| slot.is_changed = false);
        }
    }

    /// Whether anything has counted in the account, in this period if it has periods.
    pub fn is_in_use(&self, period: Period) -> bool {
        let is_of_period = match &self.counter {
            LimitCounter::Period { start, .. } => *start == period.start,
            LimitCounter::Minute(_) | LimitCounter::Open { .. } => true,
        };
        is_of_period && (self.is_stored || self.is_changed)
    }

    /// How far the limit is used at an instant of a period, without due holds.
    ///
    /// # Errors
    /// [`Overflow`] if the account is of another kind of window, or if fewer reservations are open than
    /// are due.
    pub fn state(
        &self,
        bound: &Bound,
        period: Period,
        now: Timestamp,
    ) -> Result<LimitState, Overflow> {
        let resets_at = match bound.window() {
            Some(Window::Calendar(..)) => Some(period.end),
            Some(Window::Minute | Window::Total { .. }) | None => None,
        };
        if let Bound::Concurrent(allowance) = bound {
            let held = Quantity::<Concurrent>::new(self.open_holds()?.into());
            return Ok(LimitState::of(allowance.at(now), &Quantity::new(0), &held, resets_at));
        }
        let (used, held) = self.sums(period, now)?;
        Ok(match bound {
            Bound::Cost(_, allowance) => LimitState::of(allowance.at(now), &used, &held, resets_at),
            Bound::Tokens(_, allowance) => {
                LimitState::of(allowance.at(now), &used, &held, resets_at)
            }
            Bound::Calls(_, allowance) => {
                LimitState::of(allowance.at(now), &used, &held, resets_at)
            }
            Bound::Concurrent(_) => return Err(Overflow),
        })
    }

    /// Whole seconds, from 1 to 60, after which a call that adds `amount` may fit; `None` if waiting
    /// a minute does not help.
    pub(crate) fn retry_after(
        &self,
        bound: &Bound,
        period: Period,
        now: Timestamp,
        fits: impl Fn(LimitState) -> bool,
    ) -> Option<u32> {
        match bound.window() {
            Some(Window::Minute) => (1..=60).find(|seconds| {
                let later = now.plus_seconds(*seconds);
                self.state(bound, period, later).is_ok_and(&fits)
            }),
            Some(Window::Calendar(..)) => {
                (1..=60).find(|seconds| now.plus_seconds(*seconds) >= period.end)
            }
            Some(Window::Total { .. }) | None => None,
        }
    }

    /// What is used and held in a period, without due holds.
    fn sums(&self, period: Period, now: Timestamp) -> Result<(Totals, Totals), Overflow> {
        match &self.counter {
            LimitCounter::Period { start, used, held } if *start == period.start => {
                Ok((*used, without(*held, self.due_from(*start))))
            }
            LimitCounter::Period { .. } => Ok((Totals::default(), Totals::default())),
            LimitCounter::Minute(slots) => {
                let mut sums = (Totals::default(), Totals::default());
                for slot in slots.iter().filter(|slot| is_in_minute(slot.second, now.second())) {
                    let due = self.due_from(start_of(slot.second));
                    // In a window of a minute, an expired reservation still counts as a call.
                    let calls = Totals { calls: due.calls, ..Totals::default() };
                    sums.0 = sums.0.plus(slot.used)?.plus(calls)?;
                    sums.1 = sums.1.plus(without(slot.held, due))?;
                }
                Ok(sums)
            }
            LimitCounter::Open { .. } => Err(Overflow),
        }
    }

    /// Open reservations that are not due.
    fn open_holds(&self) -> Result<i64, Overflow> {
        let LimitCounter::Open { held } = self.counter else { return Err(Overflow) };
        let mut due = self.due.iter().map(|(_, due)| due.calls);
        let due = due.try_fold(0_i64, i64::checked_add).ok_or(Overflow)?;
        held.checked_sub(due).filter(|open| *open >= 0).ok_or(Overflow)
    }

    fn due_from(&self, start: Timestamp) -> Totals {
        self.due.iter().find(|(of, _)| *of == start).map_or_else(Totals::default, |(_, due)| *due)
    }

    /// Begins a period in which calls have counted elsewhere before they count here.
    pub fn begin_with(&mut self, period: Period, counted: Totals) {
        if let LimitCounter::Period { start, used, held } = &mut self.counter {
            (*start, *used, *held) = (period.start, counted, Totals::default());
            self.is_changed = true;
        }
    }

    /// Begins the period that starts then, unless the account is in it already.
    ///
    /// Holds of the period before end there, and count no longer.
    pub(crate) fn begin(&mut self, period: Period) {
        if let LimitCounter::Period { start, used, held } = &mut self.counter
            && *start != period.start
        {
            (*start, *used, *held) = (period.start, Totals::default(), Totals::default());
            self.is_changed = true;
        }
    }

    /// Whether a hold or record of this amount fits the sums of the account in a period.
    pub(crate) fn fits(&self, period: Period, now: Timestamp, amount: Totals) -> bool {
        match &self.counter {
            LimitCounter::Open { held } => held.checked_add(amount.calls).is_some(),
            LimitCounter::Period { .. } | LimitCounter::Minute(_) => {
                let sum = self.sums(period, now).and_then(|(used, held)| used.plus(held));
                sum.is_ok_and(|sum| sum.plus(amount).is_ok())
            }
        }
    }

    /// Adds the hold of a reservation that is made now, and returns the start of its posting.
    pub(crate) fn hold(
        &mut self,
        period: Period,
        now: Timestamp,
        amount: Totals,
    ) -> Result<Timestamp, Overflow> {
        self.begin(period);
        self.is_changed = true;
        match &mut self.counter {
            LimitCounter::Period { start, held, .. } => {
                *held = held.plus(amount)?;
                Ok(*start)
            }
            LimitCounter::Minute(slots) => {
                let slot = slot_of(slots, now.second(), now.second())?;
                slot.held = slot.held.plus(amount)?;
                slot.is_changed = true;
                Ok(start_of(slot.second))
            }
            LimitCounter::Open { held } => {
                *held = held.checked_add(amount.calls).ok_or(Overflow)?;
                Ok(period.start)
            }
        }
    }

    /// Removes a hold. A hold of an earlier period ended with that period.
    ///
    /// # Errors
    /// [`Overflow`] if a sum does not fit, or if no reservation is open.
    pub(crate) fn remove_hold(
        &mut self,
        start: Timestamp,
        amount: Totals,
        end: HoldEnd,
    ) -> Result<(), Overflow> {
        match &mut self.counter {
            LimitCounter::Period { start: own, held, .. } => {
                if *own != start {
                    return Ok(());
                }
                *held = without(*held, amount);
            }
            LimitCounter::Minute(slots) => {
                let slot = slots.iter_mut().find(|slot| slot.second == start.second());
                let Some(slot) = slot else { return Ok(()) };
                slot.held = without(slot.held, amount);
                if end == HoldEnd::Unused {
                    slot.used.calls = slot.used.calls.checked_add(amount.calls).ok_or(Overflow)?;
                }
                slot.is_changed = true;
            }
            LimitCounter::Open { held } => {
                *held = held.checked_sub(amount.calls).filter(|left| *left >= 0).ok_or(Overflow)?;
            }
        }
        self.is_changed = true;
        Ok(())
    }

    /// Removes a hold that is due.
    ///
    /// # Errors
    /// As for [`LimitAccount::remove_hold`], and if no such hold was reported as due.
    pub(crate) fn expire(&mut self, start: Timestamp, amount: Totals) -> Result<(), Overflow> {
        let due = self.due.iter_mut().find(|(of, _)| *of == start).ok_or(Overflow)?;
        due.1 = due.1.less(amount)?;
        self.remove_hold(start, amount, HoldEnd::Unused)
    }

    /// Adds a record. Only the current period counts.
    pub(crate) fn count(
        &mut self,
        period: Period,
        record: &CountedRecord,
        now: Timestamp,
    ) -> Result<(), Overflow> {
        let minute_at = record.minute_at.second();
        match &self.counter {
            LimitCounter::Period { .. } if period.contains(record.at) => self.begin(period),
            LimitCounter::Minute(_) if is_in_minute(minute_at, now.second()) => {}
            LimitCounter::Period { .. } | LimitCounter::Minute(_) | LimitCounter::Open { .. } => {
                return Ok(());
            }
        }
        match &mut self.counter {
            LimitCounter::Period { used, .. } => *used = used.plus(record.amount)?,
            LimitCounter::Minute(slots) => {
                let slot = slot_of(slots, minute_at, now.second())?;
                slot.used = slot.used.plus(record.minute_amount)?;
                slot.is_changed = true;
            }
            LimitCounter::Open { .. } => {}
        }
        self.is_changed = true;
        Ok(())
    }

    /// Advances `last_at` to `now` if the account changed.
    pub(crate) fn advance(&mut self, now: Timestamp) {
        if self.is_changed && !Counter::holds_back(self.last_at, now) {
            self.last_at = now;
        }
    }
}

/// What is held without these holds.
///
/// If an operator set the clock back, a period or a second can begin again while holds are open that
/// were made in it before. Its sums lack them, so nothing is left when they end.
fn without(held: Totals, ended: Totals) -> Totals {
    held.less(ended).unwrap_or_default()
}

/// The first instant of a second.
fn start_of(second: i64) -> Timestamp {
    Timestamp::from_micros(second.saturating_mul(1_000_000)).unwrap_or(Timestamp::MIN)
}

/// Whether a second is one of the last 60.
///
/// Seconds slightly after `now_second` count too, so that no call is lost if the time was set back a
/// little. A second far ahead is from before an operator set the clock back.
const fn is_in_minute(second: i64, now_second: i64) -> bool {
    second > now_second.saturating_sub(MINUTE) && second <= now_second.saturating_add(MINUTE)
}

/// The slot in which a second counts.
///
/// If its place is taken by a later second, the call counts there: too long, which is safer than not
/// at all. Seconds that have left the window are dropped.
fn slot_of(
    slots: &mut Vec<MinuteSlot>,
    second: i64,
    now_second: i64,
) -> Result<&mut MinuteSlot, Overflow> {
    let fresh = MinuteSlot::stored(second, Totals::default(), Totals::default());
    let index = fresh.index();
    slots.retain(|slot| is_in_minute(slot.second, now_second));
    let taken = slots.iter().position(|slot| slot.index() == index && slot.second >= second);
    let place = taken.unwrap_or_else(|| {
        slots.retain(|slot| slot.index() != index);
        let place = slots.partition_point(|slot| slot.second < second);
        slots.insert(place, fresh);
        place
    });
    slots.get_mut(place).ok_or(Overflow)
}
