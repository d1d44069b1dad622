//! Bytes that all requests share, so that memory stays bounded whoever sends or asks for much. One
//! tenant holds at most a quarter of them, and never more than it leaves, so that its slow clients
//! are its own affair.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use bursar_core::TenantId;
use bytes::Bytes;
use parking_lot::Mutex;

/// A number of bytes that may be held at once.
#[derive(Clone, Debug)]
pub struct ByteBudget {
    bytes_max: usize,
    /// What one holder may have of it.
    share_max: usize,
    held: Arc<Mutex<Held>>,
}

/// Who holds bytes: a tenant, or those who are none, together.
type Holder = Option<TenantId>;

#[derive(Debug, Default)]
struct Held {
    bytes: usize,
    of_holders: HashMap<Holder, usize>,
}

/// Bytes that are taken from a budget until this is dropped.
#[derive(Debug)]
pub struct ByteHold {
    budget: ByteBudget,
    holder: Holder,
    bytes: usize,
}

impl ByteBudget {
    /// A budget of so many bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, share_max: bytes_max / 4, held: Arc::default() }
    }

    /// A budget that is not shared, of which its only holder may have all.
    pub fn undivided(bytes_max: usize) -> Self {
        Self { bytes_max, share_max: bytes_max, held: Arc::default() }
    }

    /// Nothing yet, for a holder that will take as its bytes arrive.
    pub fn hold(&self, holder: Option<TenantId>) -> ByteHold {
        ByteHold { budget: self.clone(), holder, bytes: 0 }
    }
}

impl ByteHold {
    /// Takes more at once or not at all, and says whether: whoever waits for memory holds memory.
    #[must_use]
    pub fn take(&mut self, bytes: usize) -> bool {
        let mut held = self.budget.held.lock();
        let Some(total) = held.bytes.checked_add(bytes) else { return false };
        let own = held.of_holders.get(&self.holder).copied().unwrap_or(0).saturating_add(bytes);
        let Some(left) = self.budget.bytes_max.checked_sub(total) else { return false };
        let ByteBudget { bytes_max, share_max, .. } = self.budget;
        if own > share_max || (share_max < bytes_max && own > left) {
            return false;
        }
        held.bytes = total;
        if bytes > 0 {
            held.of_holders.insert(self.holder, own);
        }
        self.bytes += bytes;
        true
    }

    /// Holds so many bytes in all from now on, or goes on with what it held; whether it does.
    #[must_use]
    pub fn resize(&mut self, bytes: usize) -> bool {
        match bytes.checked_sub(self.bytes) {
            Some(more) => self.take(more),
            None => {
                self.give_back(self.bytes - bytes);
                true
            }
        }
    }

    /// What one holder may hold at most.
    pub fn share(&self) -> usize {
        self.budget.share_max
    }

    fn give_back(&mut self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.bytes -= bytes;
        let mut held = self.budget.held.lock();
        held.bytes = held.bytes.saturating_sub(bytes);
        if let Entry::Occupied(mut own) = held.of_holders.entry(self.holder) {
            *own.get_mut() = own.get().saturating_sub(bytes);
            if *own.get() == 0 {
                own.remove();
            }
        }
    }

    /// What it holds.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What its holder holds by all of its holds.
    pub fn of_holder(&self) -> usize {
        self.budget.held.lock().of_holders.get(&self.holder).copied().unwrap_or(0)
    }

    /// Ties the hold to bytes: it ends when the last copy of them is dropped.
    pub fn keep(self, bytes: Bytes) -> Bytes {
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
    use super::*;

    fn tenant(number: i64) -> TenantId {
        TenantId::from_number(number).expect("a number of an id")
    }

    #[test]
    fn bytes_are_held_as_long_as_any_copy_of_them() {
        let budget = ByteBudget::new(40);
        let mut hold = budget.hold(None);
        assert!(hold.take(4) && hold.take(4));
        assert!(!budget.hold(None).take(3));
        let kept = hold.keep(Bytes::from_static(b"12345678"));
        let part = kept.slice(2..3);
        drop(kept);
        assert!(!budget.hold(None).take(3));
        drop(part);
        assert!(budget.hold(None).take(10));
        assert!(budget.held.lock().of_holders.is_empty());
    }

    #[test]
    fn an_undivided_budget_is_its_holders_to_the_last_byte() {
        let budget = ByteBudget::undivided(40);
        let mut hold = budget.hold(None);
        assert!(hold.take(39) && hold.take(1));
        assert!(!hold.take(1));
    }

    #[test]
    fn a_hold_grows_and_shrinks() {
        let budget = ByteBudget::new(40);
        let mut hold = budget.hold(Some(tenant(1)));
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
        let mut holds: Vec<ByteHold> =
            (1..6).map(|number| budget.hold(Some(tenant(number)))).collect();
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
