//! The open reservations of a cached account, in a compact form.
//!
//! The caps on open reservations limit their number. The sums of due holds are updated as time
//! passes, so that the cost of a decision does not depend on how many holds came due.

use std::collections::BTreeMap;
use std::ops::Bound;

use bursar_core::{CallKey, Hold, Nanos, Overflow, Timestamp, Totals};
use parking_lot::Mutex;

/// The open reservations of an account by expiry.
#[derive(Default)]
pub(super) struct Holds {
    open: BTreeMap<HoldPosition, Held>,
    due: Mutex<DueTotals>,
}

/// The sort key of a hold: its expiry, then its call. Two halves of the key need no padding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct HoldPosition {
    expires_at: i64,
    call: (u64, u64),
}

impl HoldPosition {
    const fn new(call: CallKey, expires_at: Timestamp) -> Self {
        let CallKey(key) = call;
        let call = ((key >> 64) as u64, key as u64);
        Self { expires_at: expires_at.micros(), call }
    }

    const fn of(hold: &Hold) -> Self {
        Self::new(hold.call, hold.expires_at)
    }

    /// The last position of an instant.
    const fn last(micros: i64) -> Self {
        Self { expires_at: micros, call: (u64::MAX, u64::MAX) }
    }
}

/// The amount of a hold, and the start of the period in which it was made.
#[derive(Clone, Copy)]
struct Held {
    cost: i64,
    tokens: i64,
    start: Timestamp,
}

impl Held {
    const fn amount(self) -> Totals {
        Totals { cost: Nanos::new(self.cost), tokens: self.tokens, calls: 1 }
    }
}

/// The sums of holds that are due at an instant.
struct DueTotals {
    through: i64,
    by_start: BTreeMap<Timestamp, Totals>,
}

impl Default for DueTotals {
    fn default() -> Self {
        Self { through: i64::MIN, by_start: BTreeMap::new() }
    }
}

impl DueTotals {
    fn add(&mut self, held: Held) -> Result<(), Overflow> {
        let sum = self.by_start.entry(held.start).or_default();
        *sum = sum.plus(held.amount())?;
        Ok(())
    }

    fn take(&mut self, held: Held) -> Result<(), Overflow> {
        let sum = self.by_start.get_mut(&held.start).ok_or(Overflow)?;
        *sum = sum.less(held.amount())?;
        if *sum == Totals::default() {
            self.by_start.remove(&held.start);
        }
        Ok(())
    }
}

impl Holds {
    /// The number of reservations that are stored as open, including due ones.
    pub(super) fn count(&self) -> i64 {
        i64::try_from(self.open.len()).unwrap_or(i64::MAX)
    }

    pub(super) fn contains(&self, hold: &Hold) -> bool {
        self.open.contains_key(&HoldPosition::of(hold))
    }

    /// Adds a hold that was made in the period that starts then.
    pub(super) fn insert(&mut self, hold: &Hold, start: Timestamp) -> Result<(), Overflow> {
        self.add(hold.call, hold.expires_at, hold.amount, start)
    }

    /// Adds the hold of a call.
    pub(super) fn add(
        &mut self,
        call: CallKey,
        expires_at: Timestamp,
        amount: Totals,
        start: Timestamp,
    ) -> Result<(), Overflow> {
        let Totals { cost, tokens, calls: _ } = amount;
        let held = Held { cost: cost.get(), tokens, start };
        let position = HoldPosition::new(call, expires_at);
        let before = self.open.insert(position, held);
        let due = self.due.get_mut();
        if before.is_none() && position.expires_at <= due.through {
            due.add(held)?;
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, hold: &Hold) -> Result<(), Overflow> {
        let position = HoldPosition::of(hold);
        let Some(held) = self.open.remove(&position) else { return Ok(()) };
        let due = self.due.get_mut();
        if position.expires_at <= due.through { due.take(held) } else { Ok(()) }
    }

    /// The sums of holds that are due at `now`, by the start of their period.
    ///
    /// The sums of the last call are kept. A call adds the holds that came due since then; if `now`
    /// is earlier than at the last call, it subtracts the holds that are not due yet.
    pub(super) fn due(&self, now: Timestamp) -> Result<Vec<(Timestamp, Totals)>, Overflow> {
        let mut due = self.due.lock();
        let (through, now) = (due.through, now.micros());
        let between = |from: i64, to: i64| {
            let bounds = (
                Bound::Excluded(HoldPosition::last(from)),
                Bound::Included(HoldPosition::last(to)),
            );
            self.open.range(bounds).map(|(_, held)| *held)
        };
        if now > through {
            between(through, now).try_for_each(|held| due.add(held))?;
        } else if now < through {
            between(now, through).try_for_each(|held| due.take(held))?;
        }
        due.through = now;
        Ok(due.by_start.iter().map(|(start, sum)| (*start, *sum)).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bursar_core::{Day, IntegrationId, TenantId};

    use super::*;

    fn at(second: u32) -> Timestamp {
        Day::from_civil(2026, 1, 31).expect("a day").start().plus_seconds(second)
    }

    fn hold(call: u128, second: u32) -> Hold {
        Hold {
            tenant_id: TenantId::from_number(1).expect("a number of an id"),
            call: CallKey(call),
            integration_id: IntegrationId::from_number(1).expect("a number of an id"),
            month: at(if call.is_multiple_of(2) { 0 } else { 86_400 }).month(),
            amount: Totals { cost: Nanos::new(7), tokens: 3, calls: 1 },
            expires_at: at(second),
            postings: Arc::default(),
        }
    }

    fn insert(holds: &mut Holds, hold: &Hold) {
        holds.insert(hold, hold.month.start()).expect("room");
    }

    #[test]
    fn the_sums_of_due_holds_are_exact_when_time_moves_forward_and_back() {
        let mut holds = Holds::default();
        for call in 0..1_000_u128 {
            insert(&mut holds, &hold(call, (call % 100) as u32));
        }
        let due = |holds: &Holds, second: u32| {
            let due = holds.due(at(second)).expect("sums");
            due.iter()
                .map(|(start, sum)| (start.month(), sum.calls, sum.tokens))
                .collect::<Vec<_>>()
        };
        let (january, february) = (at(0).month(), at(86_400).month());
        assert_eq!(due(&holds, 50), [(january, 260, 780), (february, 250, 750)]);
        assert_eq!(due(&holds, 0), [(january, 10, 30)]);
        assert_eq!(due(&holds, 99), [(january, 500, 1_500), (february, 500, 1_500)]);
        for call in 0..1_000_u128 {
            let hold = hold(call, (call % 100) as u32);
            assert!(holds.contains(&hold));
            holds.remove(&hold).expect("what was added");
            holds.remove(&hold).expect("again changes nothing");
        }
        assert_eq!((due(&holds, 99), holds.count()), (Vec::new(), 0));
        insert(&mut holds, &hold(1, 99));
        assert_eq!(due(&holds, 99), [(february, 1, 3)]);
        assert_eq!(due(&holds, 98), []);
    }

    #[test]
    fn a_hold_takes_48_bytes_in_its_map() {
        assert_eq!(size_of::<(HoldPosition, Held)>(), 48);
    }
}
