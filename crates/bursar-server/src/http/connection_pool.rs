//! The connections of a listener: their limit, and which one is evicted for a new one.
//!
//! A full pool evicts the least used connection, so that idle clients keep no one out: first
//! connections that never sent a request, that linger, or whose body is being discarded, then the
//! one idle for longest. If all are busy, a few more connections get overflow slots. On those the
//! server answers the operator and tells others to retry later.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::progress::{Idleness, Progress};

/// The most evicted connections that have not ended yet.
const EVICTING_MAX: usize = 64;
/// The most idle connections that one scan collects, so that scans stay rare under load.
const IDLE_MAX: usize = 64;
/// How long the result of a scan that found no idle connection is valid.
const SCAN_EVERY: Duration = Duration::from_millis(5);
/// The shortest time between two log lines about a full pool.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// The connections of a listener.
#[derive(Debug)]
pub(crate) struct ConnectionPool {
    connections_max: usize,
    overflow_max: usize,
    state: Mutex<State>,
    slot_freed: Notify,
}

#[derive(Debug, Default)]
struct State {
    members: HashMap<u64, Member>,
    next_id: u64,
    ordinary: Group,
    overflow: Group,
    evicting: usize,
    logged_at: Option<Instant>,
}

/// The ordinary connections, or the overflow connections.
#[derive(Debug, Default)]
struct Group {
    connections: usize,
    /// Connections that were idle at the last scan. The next to evict is last.
    idle: Vec<(u64, Instant)>,
    /// When a scan found none.
    empty_scan_at: Option<Instant>,
}

#[derive(Debug)]
struct Member {
    progress: Arc<Progress>,
    evicted: Arc<Notify>,
    is_overflow: bool,
    is_evicted: bool,
}

/// The slot of a connection in the pool. Dropping it frees the slot.
#[derive(Debug)]
pub(crate) struct ConnectionSlot {
    pool: Arc<ConnectionPool>,
    id: u64,
    evicted: Arc<Notify>,
    is_overflow: bool,
}

impl ConnectionPool {
    pub(crate) fn new(connections_max: usize, overflow_max: usize) -> Self {
        Self { connections_max, overflow_max, state: Mutex::default(), slot_freed: Notify::new() }
    }

    /// Takes a slot, for which an idle connection may be evicted.
    ///
    /// Returns `None` while all connections are busy and all overflow slots are taken.
    pub(crate) fn take_slot(
        self: &Arc<Self>,
        progress: &Arc<Progress>,
        now: Instant,
    ) -> Option<ConnectionSlot> {
        let mut state = self.state.lock();
        let is_full = state.ordinary.connections >= self.connections_max;
        if is_full {
            state.log_full(self.connections_max, now);
        }
        let is_overflow = is_full && !state.evict_one(false, self.connections_max, now);
        if is_overflow
            && state.overflow.connections >= self.overflow_max
            && !state.evict_one(true, self.connections_max, now)
        {
            return None;
        }
        let id = state.next_id;
        state.next_id += 1;
        state.group(is_overflow).connections += 1;
        let evicted = Arc::new(Notify::new());
        let member = Member {
            progress: Arc::clone(progress),
            evicted: Arc::clone(&evicted),
            is_overflow,
            is_evicted: false,
        };
        state.members.insert(id, member);
        Some(ConnectionSlot { pool: Arc::clone(self), id, evicted, is_overflow })
    }

    /// Evicts an idle connection, because the system has fewer resources than the pool.
    pub(crate) fn evict_idle(&self, now: Instant) {
        self.state.lock().evict_one(false, self.connections_max, now);
    }

    /// Waits until a slot is freed.
    pub(crate) async fn slot_freed(&self) {
        self.slot_freed.notified().await;
    }
}

impl State {
    fn group(&mut self, is_overflow: bool) -> &mut Group {
        if is_overflow { &mut self.overflow } else { &mut self.ordinary }
    }

    /// Evicts an idle connection. Returns whether there was one.
    fn evict_one(&mut self, is_overflow: bool, connections_max: usize, now: Instant) -> bool {
        if self.evicting >= EVICTING_MAX {
            return false;
        }
        let mut has_scanned = false;
        loop {
            while let Some((id, since)) = self.group(is_overflow).idle.pop() {
                let Some(member) = self.members.get_mut(&id) else { continue };
                let is_unchanged = member.progress.idleness(now).is_some_and(|(_, at)| at == since);
                if member.is_evicted || !is_unchanged {
                    continue;
                }
                member.is_evicted = true;
                member.evicted.notify_one();
                self.group(is_overflow).connections -= 1;
                self.evicting += 1;
                return true;
            }
            if has_scanned || !self.find_idle(is_overflow, connections_max, now) {
                return false;
            }
            has_scanned = true;
        }
    }

    /// Collects the connections to evict: the least used ones, longest idle first.
    fn find_idle(&mut self, is_overflow: bool, connections_max: usize, now: Instant) -> bool {
        let empty_scan_at = self.group(is_overflow).empty_scan_at;
        if empty_scan_at.is_some_and(|at| now.duration_since(at) < SCAN_EVERY) {
            return false;
        }
        let may = |member: &&Member| !member.is_evicted && member.is_overflow == is_overflow;
        let members = self.members.iter().filter(|(_, member)| may(member));
        let mut idle: Vec<(Idleness, Instant, u64)> = members
            .filter_map(|(id, member)| {
                let (idleness, since) = member.progress.idleness(now)?;
                Some((idleness, since, *id))
            })
            .collect();
        let least = idle.iter().map(|(idleness, _, _)| *idleness).min();
        idle.retain(|(idleness, _, _)| Some(*idleness) == least);
        idle.sort_unstable();
        idle.truncate((connections_max / 8).clamp(1, IDLE_MAX));
        let group = self.group(is_overflow);
        group.empty_scan_at = idle.is_empty().then_some(now);
        group.idle = idle.into_iter().rev().map(|(_, since, id)| (id, since)).collect();
        !group.idle.is_empty()
    }

    fn log_full(&mut self, connections_max: usize, now: Instant) {
        if self.logged_at.is_none_or(|at| now.duration_since(at) >= LOG_EVERY) {
            self.logged_at = Some(now);
            tracing::warn!(
                connections_max,
                "the maximum number of connections is reached; new ones replace idle ones"
            );
        }
    }
}

impl ConnectionSlot {
    /// Waits until the connection is evicted.
    pub(crate) async fn evicted(&self) {
        self.evicted.notified().await;
    }

    /// Whether the connection has an overflow slot.
    pub(crate) fn is_overflow(&self) -> bool {
        self.is_overflow
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut state = self.pool.state.lock();
        if let Some(member) = state.members.remove(&self.id) {
            if member.is_evicted {
                state.evicting -= 1;
            } else {
                state.group(member.is_overflow).connections -= 1;
            }
        }
        drop(state);
        self.pool.slot_freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::limits::Deadlines;

    const LONG: Duration = Duration::from_secs(600);
    const SECOND: Duration = Duration::from_secs(1);

    fn opened(at: Instant) -> Arc<Progress> {
        let deadlines = Deadlines { header: LONG, idle: LONG, write: LONG };
        Arc::new(Progress::new(deadlines, at))
    }

    /// A connection with one answered request.
    fn asked(at: Instant) -> Arc<Progress> {
        let progress = opened(at);
        progress.begin_request();
        progress.end_request(at);
        progress
    }

    fn busy(at: Instant) -> Arc<Progress> {
        let progress = opened(at);
        progress.begin_request();
        progress
    }

    #[track_caller]
    fn take_slot(
        pool: &Arc<ConnectionPool>,
        progress: &Arc<Progress>,
        now: Instant,
    ) -> ConnectionSlot {
        pool.take_slot(progress, now).expect("a slot")
    }

    /// Which of these connections were evicted.
    fn evicting(pool: &ConnectionPool, slots: &[&ConnectionSlot]) -> Vec<bool> {
        let state = pool.state.lock();
        slots.iter().map(|slot| state.members[&slot.id].is_evicted).collect()
    }

    #[test]
    fn those_that_never_asked_give_way_first_and_then_the_longest_idle() {
        let (pool, start) = (Arc::new(ConnectionPool::new(4, 1)), Instant::now());
        let first = take_slot(&pool, &asked(start), start);
        let second = take_slot(&pool, &asked(start + SECOND), start);
        let silent = take_slot(&pool, &opened(start + SECOND), start);
        let served = take_slot(&pool, &busy(start), start);
        let now = start + SECOND * 5;
        let slots = [&silent, &first, &second, &served];
        let expected = [[true, false, false], [true, true, false], [true, true, true]];
        let mut newer = Vec::new();
        for expected in expected {
            newer.push(take_slot(&pool, &busy(now), now));
            let evicting = evicting(&pool, &slots);
            assert_eq!(evicting[..3], expected);
            assert!(!evicting[3], "a request is in flight");
        }
        assert!(newer.iter().all(|slot| !slot.is_overflow()));
        assert!(take_slot(&pool, &opened(now), now + SCAN_EVERY).is_overflow(), "all are busy");
    }

    #[test]
    fn a_new_connection_has_its_time_to_ask() {
        let (pool, start) = (Arc::new(ConnectionPool::new(2, 1)), Instant::now());
        let idle = take_slot(&pool, &asked(start), start);
        let newcomer = take_slot(&pool, &opened(start + SECOND), start);
        let now = start + SECOND + SECOND / 2;
        let _next = take_slot(&pool, &opened(now), now);
        assert_eq!(evicting(&pool, &[&newcomer, &idle]), [false, true]);
    }

    #[test]
    fn what_is_used_again_after_it_was_found_idle_stays() {
        let (pool, start) = (Arc::new(ConnectionPool::new(32, 1)), Instant::now());
        let connections: Vec<_> = (0..32).map(|_| asked(start)).collect();
        let slots: Vec<_> =
            connections.iter().map(|progress| take_slot(&pool, progress, start)).collect();
        let _newer = take_slot(&pool, &busy(start), start + SECOND);
        let next = pool.state.lock().ordinary.idle.last().copied().expect("more were idle");
        let at = slots.iter().position(|slot| slot.id == next.0).expect("one of them");
        connections[at].begin_request();
        let _newer = take_slot(&pool, &busy(start), start + SECOND);
        assert_eq!(evicting(&pool, &[&slots[at]]), [false]);
    }

    #[test]
    fn places_are_given_back_and_those_that_leave_are_bounded() {
        let (pool, start) = (Arc::new(ConnectionPool::new(200, 2)), Instant::now());
        let slots: Vec<_> = (0..200).map(|_| take_slot(&pool, &opened(start), start)).collect();
        let now = start + SECOND;
        let newer: Vec<_> = (0..EVICTING_MAX).map(|_| take_slot(&pool, &busy(now), now)).collect();
        assert!(newer.iter().all(|slot| !slot.is_overflow()));
        let overflow = [take_slot(&pool, &busy(now), now), take_slot(&pool, &busy(now), now)];
        assert!(overflow.iter().all(ConnectionSlot::is_overflow));
        assert!(pool.take_slot(&opened(now), now).is_none(), "until some have left");
        drop(slots);
        assert!(!take_slot(&pool, &opened(now), now).is_overflow());
        drop((newer, overflow));
        let state = pool.state.lock();
        assert_eq!((state.ordinary.connections, state.overflow.connections), (0, 0));
        assert_eq!((state.evicting, state.members.len()), (0, 0));
    }

    #[test]
    fn a_listener_without_a_reserve_lets_idle_ones_give_way_too() {
        let (pool, start) = (Arc::new(ConnectionPool::new(1, 0)), Instant::now());
        let idle = take_slot(&pool, &opened(start), start);
        let served = take_slot(&pool, &busy(start), start);
        assert_eq!(evicting(&pool, &[&idle, &served]), [true, false]);
        assert!(pool.take_slot(&opened(start), start).is_none());
    }

    #[test]
    fn what_lingers_on_the_reserve_gives_way_at_once() {
        let (pool, start) = (Arc::new(ConnectionPool::new(1, 1)), Instant::now());
        let served = take_slot(&pool, &busy(start), start);
        let progress = asked(start);
        let lingering = take_slot(&pool, &progress, start);
        assert!(lingering.is_overflow());
        progress.leave_unread();
        assert!(progress.begin_lingering(start));
        assert!(take_slot(&pool, &opened(start), start).is_overflow());
        assert_eq!(evicting(&pool, &[&lingering, &served]), [true, false]);
    }

    #[test]
    fn an_answer_that_is_left_lying_holds_no_place_for_ever() {
        let (pool, start) = (Arc::new(ConnectionPool::new(1, 1)), Instant::now());
        let progress = busy(start);
        progress.begin_answer(start);
        let stalled = take_slot(&pool, &progress, start);
        let soon = start + SECOND * 4;
        assert!(take_slot(&pool, &opened(soon), soon).is_overflow());
        let late = start + SECOND * 6;
        assert!(!take_slot(&pool, &opened(late), late).is_overflow());
        assert_eq!(evicting(&pool, &[&stalled]), [true]);
    }
}
