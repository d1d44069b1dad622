//! Slots that limit how many reads run at once, shared fairly between tenants.
//!
//! One tenant holds at most half of the slots, even if no other tenant is reading, so that the next
//! tenant finds one free. Further reads wait, and tenants take turns. The number of waiting reads
//! of a tenant is limited.
//!
//! Deliberately absent: running the reads, which each database does.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bursar_core::TenantId;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::error::StoreError;

/// The limit on waiting reads of one tenant: a dashboard requests that many panels at once.
const TENANT_WAITING_MAX: usize = 64;

/// A fixed number of slots.
#[derive(Clone)]
pub(crate) struct ReadSlots(Arc<Mutex<State>>);

/// A slot that a read holds until it is dropped.
pub(crate) struct ReadSlot {
    slots: ReadSlots,
    tenant_id: TenantId,
}

type Waiter = oneshot::Sender<ReadSlot>;

struct State {
    free: usize,
    /// The limit on the slots of one tenant.
    share: usize,
    held: HashMap<TenantId, usize>,
    waiting: HashMap<TenantId, VecDeque<Waiter>>,
    /// The waiting tenants in the order of their turns, each once.
    order: VecDeque<TenantId>,
}

impl ReadSlots {
    pub(crate) fn new(slots: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            free: slots.max(1),
            share: (slots / 2).max(1),
            held: HashMap::new(),
            waiting: HashMap::new(),
            order: VecDeque::new(),
        })))
    }

    /// Waits for a slot.
    ///
    /// # Errors
    /// [`StoreError::Overloaded`] if too many reads of this tenant wait, or `wait_max` passes.
    pub(crate) async fn take(
        &self,
        tenant_id: TenantId,
        wait_max: Duration,
    ) -> Result<ReadSlot, StoreError> {
        let (sender, receiver) = oneshot::channel();
        self.0.lock().push(tenant_id, sender)?;
        self.grant();
        match tokio::time::timeout(wait_max, receiver).await {
            Ok(slot) => slot.map_err(|_| StoreError::Closed),
            Err(_late) => Err(StoreError::Overloaded),
        }
    }

    /// Hands out the free slots.
    fn grant(&self) {
        // The lock is released before each send: sending to a read that stopped waiting drops the
        // slot, which calls `grant` again.
        while let Some((tenant_id, waiter)) = {
            let mut state = self.0.lock();
            state.next()
        } {
            let _ = waiter.send(ReadSlot { slots: self.clone(), tenant_id });
        }
    }
}

impl Drop for ReadSlot {
    fn drop(&mut self) {
        self.slots.0.lock().give_back(self.tenant_id);
        self.slots.grant();
    }
}

impl State {
    fn push(&mut self, tenant_id: TenantId, waiter: Waiter) -> Result<(), StoreError> {
        let waiting = self.waiting.entry(tenant_id).or_insert_with(|| {
            self.order.push_back(tenant_id);
            VecDeque::new()
        });
        waiting.retain(|waiter| !waiter.is_closed());
        if waiting.len() >= TENANT_WAITING_MAX {
            return Err(StoreError::Overloaded);
        }
        waiting.push_back(waiter);
        Ok(())
    }

    /// Takes a slot for the next tenant that holds less than its share.
    fn next(&mut self) -> Option<(TenantId, Waiter)> {
        let mut at = 0;
        while self.free > 0
            && let Some(&tenant_id) = self.order.get(at)
        {
            let held = self.held.get(&tenant_id).copied().unwrap_or(0);
            if held >= self.share {
                at += 1;
                continue;
            }
            self.order.remove(at);
            let Some(waiting) = self.waiting.get_mut(&tenant_id) else { continue };
            let waiter = std::iter::from_fn(|| waiting.pop_front()).find(|next| !next.is_closed());
            if waiting.is_empty() {
                self.waiting.remove(&tenant_id);
            } else {
                self.order.push_back(tenant_id);
            }
            if let Some(waiter) = waiter {
                self.free -= 1;
                self.held.insert(tenant_id, held + 1);
                return Some((tenant_id, waiter));
            }
        }
        None
    }

    fn give_back(&mut self, tenant_id: TenantId) {
        self.free += 1;
        if let Some(held) = self.held.get_mut(&tenant_id) {
            *held -= 1;
            if *held == 0 {
                self.held.remove(&tenant_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    type Taking = Pin<Box<dyn Future<Output = Result<ReadSlot, StoreError>>>>;

    fn tenant(number: i64) -> TenantId {
        TenantId::from_number(number).expect("a number of an id")
    }

    /// A read of a tenant that waits for a slot.
    fn waiting(slots: &ReadSlots, number: i64) -> Taking {
        let slots = slots.clone();
        let mut taking: Taking = Box::pin(async move { slots.take(tenant(number), LONG).await });
        assert!(polled(&mut taking).is_none(), "the read waits");
        taking
    }

    fn polled(taking: &mut Taking) -> Option<Result<ReadSlot, StoreError>> {
        match taking.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => Some(answer),
            Poll::Pending => None,
        }
    }

    fn slot(taking: &mut Taking) -> Option<ReadSlot> {
        polled(taking).map(|answer| answer.expect("a slot"))
    }

    fn is_clean(slots: &ReadSlots, free: usize) -> bool {
        let state = slots.0.lock();
        state.free == free
            && state.held.is_empty()
            && state.waiting.is_empty()
            && state.order.is_empty()
    }

    #[tokio::test]
    async fn one_tenant_holds_at_most_half_of_the_slots() {
        let slots = ReadSlots::new(4);
        let mut first: Vec<ReadSlot> = Vec::new();
        for _ in 0..2 {
            first.push(slots.take(tenant(1), LONG).await.expect("a slot"));
        }
        assert!(slots.take(tenant(1), Duration::ZERO).await.is_err());
        let others = [2, 3].map(|number| slots.take(tenant(number), LONG));
        for other in others {
            drop(pin!(other).await.expect("a slot"));
        }
        drop(first.pop());
        assert!(slots.take(tenant(1), LONG).await.is_ok());
        drop(first);
        // The next read removes the waiter that gave up.
        assert!(slots.take(tenant(1), LONG).await.is_ok());
        assert!(is_clean(&slots, 4));
    }

    #[tokio::test]
    async fn one_tenant_may_hold_the_only_slot() {
        let slots = ReadSlots::new(1);
        assert!(slots.take(tenant(1), LONG).await.is_ok());
        assert!(is_clean(&slots, 1));
    }

    #[tokio::test]
    async fn tenants_take_turns() {
        let slots = ReadSlots::new(2);
        let busy = slots.take(tenant(8), LONG).await.expect("a slot");
        let other = slots.take(tenant(9), LONG).await.expect("a slot");
        let mut flood: Vec<Taking> = (0..3).map(|_| waiting(&slots, 1)).collect();
        let (mut second, mut third) = (waiting(&slots, 2), waiting(&slots, 3));
        drop(busy);
        let of_flood = slot(&mut flood[0]).expect("tenant 1 came first");
        drop(other);
        let of_second = slot(&mut second).expect("tenant 2 is next");
        assert!(slot(&mut third).is_none() && slot(&mut flood[1]).is_none());
        drop(of_flood);
        let of_third = slot(&mut third).expect("tenant 3 comes before a second turn of tenant 1");
        assert!(slot(&mut flood[1]).is_none());
        drop((of_second, of_third));
        let again = slot(&mut flood[1]).expect("the second turn of tenant 1");
        assert!(slot(&mut flood[2]).is_none(), "tenant 1 holds its share");
        drop(again);
        assert!(slot(&mut flood[2]).is_some());
        assert!(is_clean(&slots, 2));
    }

    #[tokio::test]
    async fn the_number_of_waiting_reads_is_limited_for_each_tenant() {
        let slots = ReadSlots::new(1);
        let busy = slots.take(tenant(9), LONG).await.expect("a slot");
        let mut reads: Vec<Taking> = (0..TENANT_WAITING_MAX).map(|_| waiting(&slots, 1)).collect();
        let refused = slots.take(tenant(1), LONG).await;
        assert!(matches!(refused, Err(StoreError::Overloaded)));
        let other = waiting(&slots, 2);
        // A read that stops waiting makes room for another.
        reads.pop();
        let last = waiting(&slots, 1);
        drop((reads, last, other, busy));
        assert!(slots.take(tenant(1), LONG).await.is_ok());
    }

    #[tokio::test]
    async fn the_slot_of_a_canceled_read_goes_to_the_next() {
        let slots = ReadSlots::new(1);
        let busy = slots.take(tenant(9), LONG).await.expect("a slot");
        let (gone, mut next) = (waiting(&slots, 1), waiting(&slots, 2));
        drop(busy);
        assert!(slot(&mut next).is_none());
        drop(gone);
        assert!(slot(&mut next).is_some());
        assert!(is_clean(&slots, 1));
    }
}
