//! The connections of a listener: how many there may be, and which one gives way to a new one.
//!
//! A full pool closes the connection that is used least, so that clients that hold connections and
//! ask nothing keep nobody out: first those that never asked anything,
//! linger, or send a body that nobody reads, then the longest idle. When
//! all are busy, a few more connections are let in on the reserve. There the operator's requests
//! are answered, and others are told to come again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::progress::{Idleness, Progress};

/// Connections that were asked to give way and have not ended.
const LEAVING_MAX: usize = 64;
/// The idle connections that one look at all of them finds at most, so that looking costs little
/// when many new ones come.
const FOUND_MAX: usize = 64;
/// How long a look that found no idle connection holds good.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How often the log tells that the pool is full.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// The connections of a listener.
#[derive(Debug)]
pub(crate) struct Pool {
    connections_max: usize,
    reserve_max: usize,
    state: Mutex<State>,
    left: Notify,
}

#[derive(Debug, Default)]
struct State {
    members: HashMap<u64, Member>,
    next_id: u64,
    ordinary: Group,
    reserve: Group,
    leaving: usize,
    told_at: Option<Instant>,
}

/// The connections that are ordinary, or on the reserve.
#[derive(Debug, Default)]
struct Group {
    connections: usize,
    /// Those that were idle at the last look, the next to give way last.
    found: Vec<(u64, Instant)>,
    /// When a look found none.
    looked_in_vain: Option<Instant>,
}

#[derive(Debug)]
struct Member {
    progress: Arc<Progress>,
    gives_way: Arc<Notify>,
    is_on_reserve: bool,
    is_leaving: bool,
}

/// A connection's place in the pool; dropping it gives the place back.
#[derive(Debug)]
pub(crate) struct Seat {
    pool: Arc<Pool>,
    id: u64,
    gives_way: Arc<Notify>,
    is_on_reserve: bool,
}

impl Pool {
    /// A pool of so many connections, and so many more on the reserve.
    pub(crate) fn new(connections_max: usize, reserve_max: usize) -> Self {
        Self { connections_max, reserve_max, state: Mutex::default(), left: Notify::new() }
    }

    /// A place for a connection, for which an idle one may have to give way; nothing while all are
    /// busy and the reserve is full.
    pub(crate) fn enter(self: &Arc<Self>, progress: &Arc<Progress>, now: Instant) -> Option<Seat> {
        let mut state = self.state.lock();
        let is_full = state.ordinary.connections >= self.connections_max;
        if is_full {
            state.tell(self.connections_max, now);
        }
        let is_on_reserve = is_full && !state.make_room(false, self.connections_max, now);
        if is_on_reserve
            && state.reserve.connections >= self.reserve_max
            && !state.make_room(true, self.connections_max, now)
        {
            return None;
        }
        let id = state.next_id;
        state.next_id += 1;
        state.group(is_on_reserve).connections += 1;
        let gives_way = Arc::new(Notify::new());
        let member = Member {
            progress: Arc::clone(progress),
            gives_way: Arc::clone(&gives_way),
            is_on_reserve,
            is_leaving: false,
        };
        state.members.insert(id, member);
        Some(Seat { pool: Arc::clone(self), id, gives_way, is_on_reserve })
    }

    /// Lets an idle connection give way when the system has no more room than the pool.
    pub(crate) fn give_back_one(&self, now: Instant) {
        self.state.lock().make_room(false, self.connections_max, now);
    }

    /// Waits until a connection has left.
    pub(crate) async fn left(&self) {
        self.left.notified().await;
    }
}

impl State {
    fn group(&mut self, is_on_reserve: bool) -> &mut Group {
        if is_on_reserve { &mut self.reserve } else { &mut self.ordinary }
    }

    /// Asks an idle connection to give way. Says whether there was one.
    fn make_room(&mut self, is_on_reserve: bool, connections_max: usize, now: Instant) -> bool {
        if self.leaving >= LEAVING_MAX {
            return false;
        }
        let mut has_looked = false;
        loop {
            while let Some((id, since)) = self.group(is_on_reserve).found.pop() {
                let Some(member) = self.members.get_mut(&id) else { continue };
                let is_as_before = member.progress.idleness(now).is_some_and(|(_, at)| at == since);
                if member.is_leaving || !is_as_before {
                    continue;
                }
                member.is_leaving = true;
                member.gives_way.notify_one();
                self.group(is_on_reserve).connections -= 1;
                self.leaving += 1;
                return true;
            }
            if has_looked || !self.look(is_on_reserve, connections_max, now) {
                return false;
            }
            has_looked = true;
        }
    }

    /// Looks for connections that may give way: of those that are used least, the longest idle.
    fn look(&mut self, is_on_reserve: bool, connections_max: usize, now: Instant) -> bool {
        let looked = self.group(is_on_reserve).looked_in_vain;
        if looked.is_some_and(|at| now.duration_since(at) < LOOK_EVERY) {
            return false;
        }
        let may = |member: &&Member| !member.is_leaving && member.is_on_reserve == is_on_reserve;
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
        idle.truncate((connections_max / 8).clamp(1, FOUND_MAX));
        let group = self.group(is_on_reserve);
        group.looked_in_vain = idle.is_empty().then_some(now);
        group.found = idle.into_iter().rev().map(|(_, since, id)| (id, since)).collect();
        !group.found.is_empty()
    }

    fn tell(&mut self, connections_max: usize, now: Instant) {
        if self.told_at.is_none_or(|at| now.duration_since(at) >= TOLD_EVERY) {
            self.told_at = Some(now);
            tracing::warn!(connections_max, "all connections are taken; idle ones give way");
        }
    }
}

impl Seat {
    /// Waits until the connection has to give way to another.
    pub(crate) async fn gives_way(&self) {
        self.gives_way.notified().await;
    }

    /// Whether the connection came when all others were busy.
    pub(crate) fn is_on_reserve(&self) -> bool {
        self.is_on_reserve
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.pool.state.lock();
        if let Some(member) = state.members.remove(&self.id) {
            if member.is_leaving {
                state.leaving -= 1;
            } else {
                state.group(member.is_on_reserve).connections -= 1;
            }
        }
        drop(state);
        self.pool.left.notify_one();
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

    /// One that asked once and was answered at this instant.
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
    fn enter(pool: &Arc<Pool>, progress: &Arc<Progress>, now: Instant) -> Seat {
        pool.enter(progress, now).expect("a place")
    }

    /// Which of these connections were asked to give way.
    fn leaving(pool: &Pool, seats: &[&Seat]) -> Vec<bool> {
        let state = pool.state.lock();
        seats.iter().map(|seat| state.members[&seat.id].is_leaving).collect()
    }

    #[test]
    fn those_that_never_asked_give_way_first_and_then_the_longest_idle() {
        let (pool, start) = (Arc::new(Pool::new(4, 1)), Instant::now());
        let first = enter(&pool, &asked(start), start);
        let second = enter(&pool, &asked(start + SECOND), start);
        let silent = enter(&pool, &opened(start + SECOND), start);
        let served = enter(&pool, &busy(start), start);
        let now = start + SECOND * 5;
        let seats = [&silent, &first, &second, &served];
        let expected = [[true, false, false], [true, true, false], [true, true, true]];
        let mut newer = Vec::new();
        for expected in expected {
            newer.push(enter(&pool, &busy(now), now));
            let leaving = leaving(&pool, &seats);
            assert_eq!(leaving[..3], expected);
            assert!(!leaving[3], "a request is in flight");
        }
        assert!(newer.iter().all(|seat| !seat.is_on_reserve()));
        assert!(enter(&pool, &opened(now), now + LOOK_EVERY).is_on_reserve(), "all are busy");
    }

    #[test]
    fn a_new_connection_has_its_time_to_ask() {
        let (pool, start) = (Arc::new(Pool::new(2, 1)), Instant::now());
        let idle = enter(&pool, &asked(start), start);
        let newcomer = enter(&pool, &opened(start + SECOND), start);
        let now = start + SECOND + SECOND / 2;
        let _next = enter(&pool, &opened(now), now);
        assert_eq!(leaving(&pool, &[&newcomer, &idle]), [false, true]);
    }

    #[test]
    fn what_is_used_again_after_it_was_found_idle_stays() {
        let (pool, start) = (Arc::new(Pool::new(32, 1)), Instant::now());
        let connections: Vec<_> = (0..32).map(|_| asked(start)).collect();
        let seats: Vec<_> =
            connections.iter().map(|progress| enter(&pool, progress, start)).collect();
        let _newer = enter(&pool, &busy(start), start + SECOND);
        let next = pool.state.lock().ordinary.found.last().copied().expect("more were found");
        let at = seats.iter().position(|seat| seat.id == next.0).expect("one of them");
        connections[at].begin_request();
        let _newer = enter(&pool, &busy(start), start + SECOND);
        assert_eq!(leaving(&pool, &[&seats[at]]), [false]);
    }

    #[test]
    fn places_are_given_back_and_those_that_leave_are_bounded() {
        let (pool, start) = (Arc::new(Pool::new(200, 2)), Instant::now());
        let seats: Vec<_> = (0..200).map(|_| enter(&pool, &opened(start), start)).collect();
        let now = start + SECOND;
        let newer: Vec<_> = (0..LEAVING_MAX).map(|_| enter(&pool, &busy(now), now)).collect();
        assert!(newer.iter().all(|seat| !seat.is_on_reserve()));
        let reserve = [enter(&pool, &busy(now), now), enter(&pool, &busy(now), now)];
        assert!(reserve.iter().all(Seat::is_on_reserve));
        assert!(pool.enter(&opened(now), now).is_none(), "until some have left");
        drop(seats);
        assert!(!enter(&pool, &opened(now), now).is_on_reserve());
        drop((newer, reserve));
        let state = pool.state.lock();
        assert_eq!((state.ordinary.connections, state.reserve.connections), (0, 0));
        assert_eq!((state.leaving, state.members.len()), (0, 0));
    }

    #[test]
    fn a_listener_without_a_reserve_lets_idle_ones_give_way_too() {
        let (pool, start) = (Arc::new(Pool::new(1, 0)), Instant::now());
        let idle = enter(&pool, &opened(start), start);
        let served = enter(&pool, &busy(start), start);
        assert_eq!(leaving(&pool, &[&idle, &served]), [true, false]);
        assert!(pool.enter(&opened(start), start).is_none());
    }

    #[test]
    fn what_lingers_on_the_reserve_gives_way_at_once() {
        let (pool, start) = (Arc::new(Pool::new(1, 1)), Instant::now());
        let served = enter(&pool, &busy(start), start);
        let progress = asked(start);
        let lingering = enter(&pool, &progress, start);
        assert!(lingering.is_on_reserve());
        progress.leave_unread();
        assert!(progress.begin_lingering(start));
        assert!(enter(&pool, &opened(start), start).is_on_reserve());
        assert_eq!(leaving(&pool, &[&lingering, &served]), [true, false]);
    }

    #[test]
    fn an_answer_that_is_left_lying_holds_no_place_for_ever() {
        let (pool, start) = (Arc::new(Pool::new(1, 1)), Instant::now());
        let progress = busy(start);
        progress.begin_answer(start);
        let stalled = enter(&pool, &progress, start);
        let soon = start + SECOND * 4;
        assert!(enter(&pool, &opened(soon), soon).is_on_reserve());
        let late = start + SECOND * 6;
        assert!(!enter(&pool, &opened(late), late).is_on_reserve());
        assert_eq!(leaving(&pool, &[&stalled]), [true]);
    }
}
