//! A pool of threads for work whose duration a client controls, shared fairly between tenants.
//!
//! Threads that answer requests must not do such work. Tenants take turns, and one tenant never
//! holds all slots, so its expensive requests delay only its own. Within a tenant, the keys of
//! integrations take turns with all other callers, and one of them has at most half of the tenant's
//! slots.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bursar_core::IntegrationId;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::http::holder::{Holder, HolderKind};
use crate::wire::error::ApiError;
use crate::wire::error_code::ErrorCode;

/// The number of slots: one per processor within these bounds.
const SLOTS_MIN: usize = 2;
const SLOTS_MAX: usize = 8;
/// The most waiting work of one tenant, and twice that of one integration. It holds memory.
const WAITING_MAX: usize = 64;
/// The longest wait for a slot.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// A limited number of slots for work. Clones share them.
#[derive(Clone, Debug)]
pub struct WorkPool {
    slots_max: usize,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    running: usize,
    /// The share of everyone with running or waiting work.
    shares: HashMap<HolderKind, Share>,
    /// Everyone with waiting work, in the order of their turns.
    turns: VecDeque<HolderKind>,
}

/// A part of a tenant: one integration, or all other callers.
type Part = Option<IntegrationId>;

/// The work of one tenant.
#[derive(Debug, Default)]
struct Share {
    /// The part of each running job.
    running: Vec<Part>,
    waiting: VecDeque<Waiter>,
    /// The current round. In each round every part has one turn.
    round: u64,
}

#[derive(Debug)]
struct Waiter {
    part: Part,
    round: u64,
    sender: oneshot::Sender<WorkSlot>,
}

/// A slot in the pool. Dropping it passes it on.
#[derive(Debug)]
pub struct WorkSlot {
    pool: WorkPool,
    holder: Holder,
}

impl Default for WorkPool {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(SLOTS_MIN, usize::from);
        Self::new(processors.clamp(SLOTS_MIN, SLOTS_MAX))
    }
}

impl WorkPool {
    pub fn new(slots_max: usize) -> Self {
        Self { slots_max, state: Arc::default() }
    }

    /// Runs work on a thread of the pool.
    ///
    /// The work must own what it needs, because it continues after the caller is gone.
    ///
    /// # Errors
    /// 503 if the holder has too much work waiting or waited too long; 500 if the work panicked.
    pub async fn run<T: Send + 'static>(
        &self,
        holder: Holder,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        self.enter(holder).await?.run(work).await
    }

    /// Waits for a slot.
    ///
    /// # Errors
    /// 503 if the holder has too much work waiting or waited too long.
    pub async fn enter(&self, holder: Holder) -> Result<WorkSlot, ApiError> {
        let overloaded = || ApiError::of(ErrorCode::Overloaded);
        let receiver = {
            let mut state = self.state.lock();
            if state.start(holder, self.slots_max) {
                return Ok(WorkSlot { pool: self.clone(), holder });
            }
            state.queue(holder).ok_or_else(overloaded)?
        };
        let waited = tokio::time::timeout(WAIT_MAX, receiver).await;
        waited.ok().and_then(Result::ok).ok_or_else(overloaded)
    }

    /// Passes free slots to waiters.
    ///
    /// Slots of waiters that are gone are returned, because dropping one takes the lock.
    fn grant(&self, state: &mut State) -> Vec<WorkSlot> {
        let mut unwanted = Vec::new();
        while let Some((holder, waiter)) = state.next(self.slots_max) {
            let slot = WorkSlot { pool: self.clone(), holder };
            unwanted.extend(waiter.send(slot).err());
        }
        unwanted
    }
}

impl WorkSlot {
    /// Runs work on a blocking thread and keeps the slot until it ends.
    ///
    /// # Errors
    /// 500 if the work panicked.
    pub async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(self);
            done
        });
        done.await.map_err(|_| ApiError::of(ErrorCode::Internal))
    }
}

impl Drop for WorkSlot {
    fn drop(&mut self) {
        let unwanted = {
            let mut state = self.pool.state.lock();
            state.running = state.running.saturating_sub(1);
            if let Some(share) = state.shares.get_mut(&self.holder.kind) {
                share.end(self.holder.integration_id);
            }
            state.forget(self.holder.kind);
            self.pool.grant(&mut state)
        };
        drop(unwanted);
    }
}

impl State {
    /// Takes a free slot at once. Waiters cannot be overtaken: they may not take it either.
    fn start(&mut self, holder: Holder, slots_max: usize) -> bool {
        let own = self.shares.get(&holder.kind);
        let is_free = self.running < slots_max
            && own.is_none_or(|own| own.may_run(holder.integration_id, slots_max));
        if is_free {
            self.running += 1;
            let own = self.shares.entry(holder.kind).or_default();
            own.running.push(holder.integration_id);
        }
        is_free
    }

    /// Queues for a slot, unless the holder has too much work waiting.
    fn queue(&mut self, holder: Holder) -> Option<oneshot::Receiver<WorkSlot>> {
        let receiver = self.shares.entry(holder.kind).or_default().queue(holder.integration_id)?;
        if !self.turns.contains(&holder.kind) {
            self.turns.push_back(holder.kind);
        }
        Some(receiver)
    }

    /// The next waiter that may have a slot. The slot is counted as taken.
    fn next(&mut self, slots_max: usize) -> Option<(Holder, oneshot::Sender<WorkSlot>)> {
        for _ in 0..self.turns.len() {
            if self.running >= slots_max {
                return None;
            }
            let kind = self.turns.pop_front()?;
            let Some(share) = self.shares.get_mut(&kind) else { continue };
            let waiter = share.next(slots_max);
            self.running += usize::from(waiter.is_some());
            if share.waiting.is_empty() {
                self.forget(kind);
            } else {
                self.turns.push_back(kind);
            }
            if let Some(Waiter { part: integration_id, sender, .. }) = waiter {
                return Some((Holder { kind, integration_id }, sender));
            }
        }
        None
    }

    /// Removes the entry of a holder without running or waiting work.
    fn forget(&mut self, kind: HolderKind) {
        let is_gone = |share: &Share| share.running.is_empty() && share.waiting.is_empty();
        if self.shares.get(&kind).is_some_and(is_gone) {
            self.shares.remove(&kind);
        }
    }
}

impl Share {
    /// Whether one more job of this part may run if a slot is free.
    fn may_run(&self, part: Part, slots_max: usize) -> bool {
        let of_tenant = half(slots_max);
        let of_part = if part.is_some() { half(of_tenant) } else { of_tenant };
        let own = self.running.iter().filter(|running| **running == part).count();
        self.running.len() < of_tenant && own < of_part
    }

    fn queue(&mut self, part: Part) -> Option<oneshot::Receiver<WorkSlot>> {
        self.waiting.retain(|waiter| !waiter.sender.is_closed());
        let mut own = self.waiting.iter().filter(|waiter| waiter.part == part);
        let waiting_max = if part.is_some() { half(WAITING_MAX) } else { WAITING_MAX };
        if self.waiting.len() >= WAITING_MAX || own.clone().count() >= waiting_max {
            return None;
        }
        let round = own.next_back().map_or(self.round, |last| last.round + 1);
        let (sender, receiver) = oneshot::channel();
        self.waiting.push_back(Waiter { part, round, sender });
        Some(receiver)
    }

    /// The next waiter that may run. It is counted as running.
    fn next(&mut self, slots_max: usize) -> Option<Waiter> {
        self.waiting.retain(|waiter| !waiter.sender.is_closed());
        let waiting = self.waiting.iter().enumerate();
        let may_run = waiting.filter(|(_, waiter)| self.may_run(waiter.part, slots_max));
        let (at, _) = may_run.min_by_key(|(_, waiter)| waiter.round)?;
        let waiter = self.waiting.remove(at)?;
        self.round = self.round.max(waiter.round + 1);
        self.running.push(waiter.part);
        Some(waiter)
    }

    fn end(&mut self, part: Part) {
        if let Some(at) = self.running.iter().position(|running| *running == part) {
            self.running.swap_remove(at);
        }
    }
}

/// Half, rounded up.
const fn half(number: usize) -> usize {
    number.div_ceil(2)
}

#[cfg(test)]
mod tests {
    use bursar_core::TenantId;

    use super::*;

    fn tenant(number: i64) -> Holder {
        Holder::tenant(TenantId::from_number(number).expect("a number of an id"), None)
    }

    fn integration(number: i64) -> Holder {
        Holder { integration_id: IntegrationId::from_number(number), ..tenant(1) }
    }

    /// Requests a slot. Returns it, or the receiver of a queued request.
    fn ask(pool: &WorkPool, holder: Holder) -> Result<WorkSlot, oneshot::Receiver<WorkSlot>> {
        let mut state = pool.state.lock();
        if state.start(holder, pool.slots_max) {
            return Ok(WorkSlot { pool: pool.clone(), holder });
        }
        Err(state.queue(holder).expect("room to wait"))
    }

    #[test]
    fn one_tenant_leaves_half_of_the_slots_to_others() {
        let pool = WorkPool::new(2);
        let first = ask(&pool, tenant(1)).expect("a slot");
        let mut waiting = ask(&pool, tenant(1)).expect_err("no second slot");
        let other = ask(&pool, tenant(2)).expect("a slot for another");
        drop(other);
        assert!(waiting.try_recv().is_err(), "the free slot is for others");
        drop(first);
        drop(waiting.try_recv().expect("its turn"));
        assert!(pool.state.lock().shares.is_empty(), "nothing is kept of who left");
    }

    #[test]
    fn tenants_take_turns_however_much_one_of_them_has_waiting() {
        let pool = WorkPool::new(2);
        let slots = [ask(&pool, tenant(1)), ask(&pool, tenant(2))].map(|slot| slot.expect("one"));
        let mut loud: Vec<_> =
            (0..20).map(|_| ask(&pool, tenant(1)).expect_err("it waits")).collect();
        let mut quiet = ask(&pool, tenant(3)).expect_err("it waits");
        let [first, second] = slots;
        drop(first);
        let served = loud[0].try_recv().expect("the loud one came first");
        drop(second);
        let kept = quiet.try_recv().expect("then the quiet one, past nineteen others");
        drop((served, kept));
        assert!(loud[1].try_recv().is_ok());
    }

    #[test]
    fn an_integration_leaves_half_of_its_tenants_slots_and_takes_turns_for_them() {
        let pool = WorkPool::new(8);
        let first = [(); 2].map(|()| ask(&pool, integration(1)).expect("a slot"));
        let mut loud: Vec<_> =
            (0..32).map(|_| ask(&pool, integration(1)).expect_err("it waits")).collect();
        assert!(pool.state.lock().queue(integration(1)).is_none(), "too much waits");
        let person = [(); 2].map(|()| ask(&pool, tenant(1)).expect("a slot for a person"));
        let mut quiet = [1, 2].map(|_| ask(&pool, tenant(1)).expect_err("it waits"));
        let mut other = ask(&pool, integration(2)).expect_err("it waits");
        let [one, two] = first;
        drop(one);
        let kept = loud[0].try_recv().expect("the loud one came first");
        drop(two);
        let kept = [kept, quiet[0].try_recv().expect("past many others")];
        drop(person);
        assert!(other.try_recv().is_ok() && loud[1].try_recv().is_ok());
        drop(kept);
        assert!(quiet[1].try_recv().is_ok());
        drop((loud, quiet, other));
        assert!(pool.state.lock().shares.is_empty(), "nothing is kept of who left");
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_keeps_its_slot_and_what_it_holds() {
        let pool = WorkPool::new(2);
        let (begun, has_begun) = oneshot::channel();
        let (end, may_end) = std::sync::mpsc::channel::<()>();
        let memory = Arc::new(());
        let held = Arc::clone(&memory);
        let working = pool.run(tenant(1), move || {
            begun.send(()).expect("someone listens");
            may_end.recv().expect("the end");
            drop(held);
        });
        tokio::select! {
            _ = working => panic!("it is not done"),
            begun = has_begun => begun.expect("it began"),
        }
        let next = ask(&pool, tenant(1)).expect_err("the slot is taken");
        assert_eq!(Arc::strong_count(&memory), 2, "the memory is held");
        end.send(()).expect("it still works");
        drop(next.await.expect("the slot"));
        assert_eq!(Arc::strong_count(&memory), 1);
    }

    #[test]
    fn a_slot_is_not_lost_with_a_waiter_who_left() {
        let pool = WorkPool::new(2);
        let first = ask(&pool, tenant(1)).expect("a slot");
        drop(ask(&pool, tenant(1)).expect_err("it waits"));
        let mut last = ask(&pool, tenant(1)).expect_err("it waits");
        drop(first);
        assert!(last.try_recv().is_ok());
        assert_eq!(pool.state.lock().running, 0);
    }

    #[tokio::test]
    async fn a_tenant_that_has_too_much_waiting_is_asked_to_come_again() {
        let pool = WorkPool::new(2);
        let slot = ask(&pool, tenant(1)).expect("a slot");
        let waiting: Vec<_> =
            (0..WAITING_MAX).map(|_| ask(&pool, tenant(1)).expect_err("it waits")).collect();
        assert!(pool.run(tenant(1), || ()).await.is_err());
        assert_eq!(pool.run(tenant(2), || 7).await.ok(), Some(7));
        drop((slot, waiting));
        assert_eq!(pool.run(tenant(1), || 8).await.ok(), Some(8));
        assert!(pool.state.lock().shares.is_empty());
    }
}
