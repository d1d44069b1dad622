//! Threads for decoding large or compressed bodies, shared fairly between tenants.
//!
//! Threads that answer requests must never run work whose length a client chooses. Such work waits
//! here for one of a few places; tenants take turns, and one tenant never holds all places, so its
//! expensive bodies delay its own requests and nobody else's.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bursar_core::TenantId;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::error::{ApiError, ErrorCode};

/// The fewest and the most bodies that are decoded at once; in between, one for each processor.
const PLACES_MIN: usize = 2;
const PLACES_MAX: usize = 8;
/// Bodies of one tenant that may wait for a place. They hold memory meanwhile.
const WAITING_MAX: usize = 64;
/// How long a body may wait for a place.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// A limited number of places for decoding. Cloning shares them.
#[derive(Clone, Debug)]
pub struct DecodePool {
    places_max: usize,
    state: Arc<Mutex<State>>,
}

/// A tenant, or callers who have none, together.
type Holder = Option<TenantId>;

#[derive(Debug, Default)]
struct State {
    running: usize,
    /// Holders that run or wait; others have no entry.
    holders: HashMap<Holder, Work>,
    /// Holders that wait, in the order of their turns.
    turns: VecDeque<Holder>,
}

/// What one holder does.
#[derive(Debug, Default)]
struct Work {
    running: usize,
    waiting: VecDeque<oneshot::Sender<Place>>,
}

/// A place in the pool; dropping it gives it to the next.
#[derive(Debug)]
struct Place {
    pool: DecodePool,
    holder: Holder,
}

impl Default for DecodePool {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(PLACES_MIN, usize::from);
        Self::new(processors.clamp(PLACES_MIN, PLACES_MAX))
    }
}

impl DecodePool {
    /// A pool of so many places.
    pub fn new(places_max: usize) -> Self {
        Self { places_max, state: Arc::default() }
    }

    /// Runs work on a thread that answers no requests.
    ///
    /// # Errors
    /// 503 when the holder has too much waiting or waited too long; 500 when the work panicked.
    pub async fn run<T: Send + 'static>(
        &self,
        holder: Option<TenantId>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let place = self.enter(holder).await?;
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(place);
            done
        });
        done.await.map_err(|_| ApiError::of(ErrorCode::Internal))
    }

    async fn enter(&self, holder: Holder) -> Result<Place, ApiError> {
        let overloaded = || ApiError::of(ErrorCode::Overloaded);
        let receiver = {
            let mut state = self.state.lock();
            if state.start(holder, self.places_max) {
                return Ok(Place { pool: self.clone(), holder });
            }
            state.queue(holder).ok_or_else(overloaded)?
        };
        let waited = tokio::time::timeout(WAIT_MAX, receiver).await;
        waited.ok().and_then(Result::ok).ok_or_else(overloaded)
    }

    /// Gives free places to those who wait. Places whose waiter is gone are handed back to the
    /// caller, because dropping one takes the lock.
    fn grant(&self, state: &mut State) -> Vec<Place> {
        let mut unwanted = Vec::new();
        while let Some((holder, waiter)) = state.next(self.places_max) {
            let place = Place { pool: self.clone(), holder };
            unwanted.extend(waiter.send(place).err());
        }
        unwanted
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let unwanted = {
            let mut state = self.pool.state.lock();
            state.running = state.running.saturating_sub(1);
            if let Some(work) = state.holders.get_mut(&self.holder) {
                work.running = work.running.saturating_sub(1);
            }
            state.forget(self.holder);
            self.pool.grant(&mut state)
        };
        drop(unwanted);
    }
}

impl State {
    /// Takes a place at once, if one is free for this holder and nobody waits for it.
    fn start(&mut self, holder: Holder, places_max: usize) -> bool {
        let own = self.holders.get(&holder);
        let is_free = self.running < places_max
            && own.is_none_or(|own| own.waiting.is_empty() && own.running < share(places_max));
        if is_free {
            self.running += 1;
            self.holders.entry(holder).or_default().running += 1;
        }
        is_free
    }

    /// Waits for a place, unless the holder has too much waiting.
    fn queue(&mut self, holder: Holder) -> Option<oneshot::Receiver<Place>> {
        let work = self.holders.entry(holder).or_default();
        work.waiting.retain(|waiter| !waiter.is_closed());
        if work.waiting.len() >= WAITING_MAX {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        work.waiting.push_back(sender);
        if !self.turns.contains(&holder) {
            self.turns.push_back(holder);
        }
        Some(receiver)
    }

    /// The next waiter who may have a place, for whom it is taken.
    fn next(&mut self, places_max: usize) -> Option<(Holder, oneshot::Sender<Place>)> {
        for _ in 0..self.turns.len() {
            if self.running >= places_max {
                return None;
            }
            let holder = self.turns.pop_front()?;
            let Some(work) = self.holders.get_mut(&holder) else { continue };
            work.waiting.retain(|waiter| !waiter.is_closed());
            let may_run = work.running < share(places_max);
            let waiter = if may_run { work.waiting.pop_front() } else { None };
            if waiter.is_some() {
                work.running += 1;
                self.running += 1;
            }
            if work.waiting.is_empty() {
                self.forget(holder);
            } else {
                self.turns.push_back(holder);
            }
            if let Some(waiter) = waiter {
                return Some((holder, waiter));
            }
        }
        None
    }

    /// Keeps nothing of a holder that neither runs nor waits.
    fn forget(&mut self, holder: Holder) {
        let is_gone = |work: &Work| work.running == 0 && work.waiting.is_empty();
        if self.holders.get(&holder).is_some_and(is_gone) {
            self.holders.remove(&holder);
        }
    }
}

/// The places that one holder may have.
const fn share(places_max: usize) -> usize {
    places_max.div_ceil(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(number: i64) -> Holder {
        TenantId::from_number(number)
    }

    /// Asks for a place, and says whether it came at once.
    fn ask(pool: &DecodePool, holder: Holder) -> Result<Place, oneshot::Receiver<Place>> {
        let mut state = pool.state.lock();
        if state.start(holder, pool.places_max) {
            return Ok(Place { pool: pool.clone(), holder });
        }
        Err(state.queue(holder).expect("room to wait"))
    }

    #[test]
    fn one_tenant_leaves_half_of_the_places_to_others() {
        let pool = DecodePool::new(2);
        let first = ask(&pool, tenant(1)).expect("a place");
        let mut waiting = ask(&pool, tenant(1)).expect_err("no second place");
        let other = ask(&pool, tenant(2)).expect("a place for another");
        drop(other);
        assert!(waiting.try_recv().is_err(), "the free place is for others");
        drop(first);
        drop(waiting.try_recv().expect("its turn"));
        assert!(pool.state.lock().holders.is_empty(), "nothing is kept of who left");
    }

    #[test]
    fn tenants_take_turns_however_much_one_of_them_has_waiting() {
        let pool = DecodePool::new(2);
        let places =
            [ask(&pool, tenant(1)), ask(&pool, tenant(2))].map(|place| place.expect("one"));
        let mut loud: Vec<_> =
            (0..20).map(|_| ask(&pool, tenant(1)).expect_err("it waits")).collect();
        let mut quiet = ask(&pool, tenant(3)).expect_err("it waits");
        let [first, second] = places;
        drop(first);
        let served = loud[0].try_recv().expect("the loud one came first");
        drop(second);
        let kept = quiet.try_recv().expect("then the quiet one, past nineteen others");
        drop((served, kept));
        assert!(loud[1].try_recv().is_ok());
    }

    #[test]
    fn a_place_is_not_lost_with_a_waiter_who_left() {
        let pool = DecodePool::new(2);
        let first = ask(&pool, tenant(1)).expect("a place");
        drop(ask(&pool, tenant(1)).expect_err("it waits"));
        let mut last = ask(&pool, tenant(1)).expect_err("it waits");
        drop(first);
        assert!(last.try_recv().is_ok());
        assert_eq!(pool.state.lock().running, 0);
    }

    #[tokio::test]
    async fn a_tenant_that_has_too_much_waiting_is_asked_to_come_again() {
        let pool = DecodePool::new(2);
        let place = ask(&pool, tenant(1)).expect("a place");
        let waiting: Vec<_> =
            (0..WAITING_MAX).map(|_| ask(&pool, tenant(1)).expect_err("it waits")).collect();
        assert!(pool.run(tenant(1), || ()).await.is_err());
        assert_eq!(pool.run(tenant(2), || 7).await.ok(), Some(7));
        drop((place, waiting));
        assert_eq!(pool.run(tenant(1), || 8).await.ok(), Some(8));
        assert!(pool.state.lock().holders.is_empty());
    }
}
