//! Memory budgets that all requests share.
//!
//! One tenant holds at most a quarter of a budget and never more than it leaves free, so that its
//! slow clients affect nobody else. The key of one integration holds at most half of its tenant's
//! share, so that administrators can still stop it; but a single request may always use the whole
//! share.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::http::holder::{Holder, HolderKind};

/// A number of bytes that may be held at once.
#[derive(Clone, Debug)]
pub(crate) struct ByteBudget {
    bytes_max: usize,
    /// The most bytes of one holder.
    share_max: usize,
    held: Arc<Mutex<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    bytes: usize,
    /// By tenant as a whole, and by integration.
    of_holders: HashMap<Holder, usize>,
}

impl Held {
    fn of(&self, holder: Holder) -> usize {
        self.of_holders.get(&holder).copied().unwrap_or(0)
    }

    fn give_back(&mut self, holder: Holder, bytes: usize) {
        if let Entry::Occupied(mut own) = self.of_holders.entry(holder) {
            *own.get_mut() = own.get().saturating_sub(bytes);
            if *own.get() == 0 {
                own.remove();
            }
        }
    }
}

/// The limits of request bodies.
#[derive(Clone, Debug)]
pub(crate) struct BodyLimits {
    /// How long one body may take to arrive.
    pub(crate) deadline: Duration,
    /// The memory of all bodies, compressed plus decompressed.
    pub(crate) budget: ByteBudget,
}

/// The memory of all large responses, from the first row until the client has read them.
#[derive(Clone, Debug)]
pub(crate) struct AnswerBudgets {
    /// For responses to tenants.
    pub(crate) tenants: ByteBudget,
    /// For responses to the operator, so that tenants cannot keep it from inspecting the server.
    pub(crate) operator: ByteBudget,
    /// For responses to callers without a valid credential.
    pub(crate) anonymous: ByteBudget,
}

impl AnswerBudgets {
    /// An empty hold on the budget of this holder's responses.
    pub(crate) fn hold(&self, holder: Holder) -> ByteHold {
        match holder.kind {
            HolderKind::Tenant(_) => self.tenants.hold(holder),
            HolderKind::Operator => self.operator.hold(holder),
            HolderKind::Anonymous => self.anonymous.hold(holder),
        }
    }
}

/// Bytes held from a budget until this is dropped.
#[derive(Debug)]
pub(crate) struct ByteHold {
    budget: ByteBudget,
    holder: Holder,
    bytes: usize,
    /// Bytes in other holds of the same request.
    beside: usize,
}

impl ByteBudget {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, share_max: bytes_max / 4, held: Arc::default() }
    }

    /// A budget that one holder may use as a whole.
    pub(crate) fn undivided(bytes_max: usize) -> Self {
        Self { bytes_max, share_max: bytes_max, held: Arc::default() }
    }

    /// An empty hold, which grows as bytes arrive.
    pub(crate) fn hold(&self, holder: Holder) -> ByteHold {
        self.hold_beside(holder, 0)
    }

    /// An empty hold of a request that holds `beside` bytes elsewhere.
    pub(crate) fn hold_beside(&self, holder: Holder, beside: usize) -> ByteHold {
        ByteHold { budget: self.clone(), holder, bytes: 0, beside }
    }
}

impl ByteHold {
    /// Holds more bytes, or fails at once. Returns whether it succeeded.
    ///
    /// It never waits, because a request that waits for memory holds memory itself.
    #[must_use]
    pub(crate) fn take(&mut self, bytes: usize) -> bool {
        // Zero bytes always fit, however much the tenant holds.
        if bytes == 0 {
            return true;
        }
        let (whole, part) = (self.holder.tenant_total(), self.holder);
        let mut held = self.budget.held.lock();
        let Some(total) = held.bytes.checked_add(bytes) else { return false };
        let own = held.of(whole).saturating_add(bytes);
        let Some(left) = self.budget.bytes_max.checked_sub(total) else { return false };
        let ByteBudget { bytes_max, share_max, .. } = self.budget;
        if own > share_max || (share_max < bytes_max && own > left) {
            return false;
        }
        if part != whole {
            let before = held.of(part);
            let is_alone = before <= self.bytes.saturating_add(self.beside);
            let own = before.saturating_add(bytes);
            if !is_alone && own > share_max / 2 {
                return false;
            }
            held.of_holders.insert(part, own);
        }
        held.bytes = total;
        held.of_holders.insert(whole, own);
        self.bytes += bytes;
        true
    }

    /// Holds exactly this many bytes, or keeps its size. Returns whether it succeeded.
    #[must_use]
    pub(crate) fn resize(&mut self, bytes: usize) -> bool {
        match bytes.checked_sub(self.bytes) {
            Some(more) => self.take(more),
            None => {
                self.give_back(self.bytes - bytes);
                true
            }
        }
    }

    /// The most bytes of one holder.
    pub(crate) fn share(&self) -> usize {
        self.budget.share_max
    }

    fn give_back(&mut self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.bytes -= bytes;
        let mut held = self.budget.held.lock();
        held.bytes = held.bytes.saturating_sub(bytes);
        held.give_back(self.holder.tenant_total(), bytes);
        if self.holder != self.holder.tenant_total() {
            held.give_back(self.holder, bytes);
        }
    }

    /// The bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The bytes in all holds of the tenant.
    pub(crate) fn of_tenant(&self) -> usize {
        self.budget.held.lock().of(self.holder.tenant_total())
    }

    /// Ties the hold to bytes: it is released when their last copy is dropped.
    pub(crate) fn keep(self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Kept { bytes, _hold: self })
    }
}

impl Drop for ByteHold {
    fn drop(&mut self) {
        self.give_back(self.bytes);
    }
}

struct Kept {
    bytes: Bytes,
    _hold: ByteHold,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use bursar_core::{IntegrationId, TenantId};

    use super::*;

    fn tenant(number: i64) -> Holder {
        Holder::tenant(TenantId::from_number(number).expect("a number of an id"), None)
    }

    fn integration(number: i64) -> Holder {
        Holder { integration_id: IntegrationId::from_number(number), ..tenant(1) }
    }

    #[test]
    fn a_key_of_one_integration_leaves_half_of_the_share_of_its_tenant() {
        let budget = ByteBudget::new(400);
        let mut slow: Vec<ByteHold> = (0..60).map(|_| budget.hold(integration(1))).collect();
        let admitted = slow.iter_mut().map(|hold| hold.take(2)).filter(|is_held| *is_held).count();
        assert_eq!(admitted, 25, "half of a quarter");
        let mut person = budget.hold(tenant(1));
        assert!(person.take(50), "a person");
        assert!(!budget.hold(integration(2)).take(1), "the tenant has its quarter");
        drop(person);
        assert!(budget.hold(integration(2)).take(25), "another integration");
        drop(slow);
        assert!(budget.held.lock().of_holders.is_empty());
    }

    #[test]
    fn one_request_of_an_integration_may_be_as_large_as_any() {
        let budget = ByteBudget::new(400);
        let (mut packed, mut other) = (budget.hold(integration(1)), budget.hold(integration(1)));
        assert!(packed.take(20));
        let mut inflated = budget.hold_beside(integration(1), packed.bytes());
        assert!(inflated.take(30) && inflated.take(40));
        assert!(!other.take(1) && budget.hold(tenant(1)).take(1));
        drop((packed, inflated));
        assert!(other.take(1));
        assert!(!budget.hold(integration(1)).take(50), "it is not alone");
    }

    #[test]
    fn who_asks_for_nothing_has_room() {
        let budget = ByteBudget::new(40);
        let mut holds: Vec<ByteHold> = (1..=6).map(|number| budget.hold(tenant(number))).collect();
        assert!(holds[0].take(10) && holds[1].take(10) && holds[2].take(10) && holds[3].take(5));
        assert!(!holds[0].take(1));
        assert!(holds[0].take(0) && budget.hold(integration(1)).take(0));
    }

    #[test]
    fn bytes_are_held_as_long_as_any_copy_of_them() {
        let budget = ByteBudget::new(40);
        let mut hold = budget.hold(Holder::ANONYMOUS);
        assert!(hold.take(4) && hold.take(4));
        assert!(!budget.hold(Holder::ANONYMOUS).take(3));
        let kept = hold.keep(Bytes::from_static(b"12345678"));
        let part = kept.slice(2..3);
        drop(kept);
        assert!(!budget.hold(Holder::ANONYMOUS).take(3));
        drop(part);
        assert!(budget.hold(Holder::ANONYMOUS).take(10));
        assert!(budget.held.lock().of_holders.is_empty());
    }

    #[test]
    fn an_undivided_budget_is_its_holders_to_the_last_byte() {
        let budget = ByteBudget::undivided(40);
        let mut hold = budget.hold(Holder::ANONYMOUS);
        assert!(hold.take(39) && hold.take(1));
        assert!(!hold.take(1));
    }

    #[test]
    fn a_hold_grows_and_shrinks() {
        let budget = ByteBudget::new(40);
        let mut hold = budget.hold(tenant(1));
        assert!(hold.resize(10) && !hold.resize(11));
        assert_eq!(hold.bytes(), 10);
        assert!(hold.resize(3) && hold.resize(0));
        assert!(budget.held.lock().of_holders.is_empty());
        assert!(hold.resize(10));
        drop(hold);
        assert_eq!(budget.held.lock().bytes, 0);
    }

    #[test]
    fn one_tenant_holds_at_most_a_quarter_and_no_more_than_it_leaves() {
        let budget = ByteBudget::new(40);
        let mut holds: Vec<ByteHold> = (1..6).map(|number| budget.hold(tenant(number))).collect();
        assert!(!holds[0].take(11));
        for hold in &mut holds[..3] {
            assert!(hold.take(10));
            assert!(!hold.take(1));
        }
        assert!(!holds[3].take(6));
        assert!(holds[3].take(5));
        assert!(!holds[4].take(3));
        assert!(holds[4].take(2));
        holds.remove(0);
        assert!(!holds[3].take(6));
        assert!(holds[3].take(5));
    }
}
