//! When keys were last used: collected in memory and written periodically.
//!
//! No request waits for this, and a crash loses what is not written yet: it shows unused keys and
//! is no ledger. Memory is bounded, also per tenant; the oldest entries are dropped.

use bursar_core::{KeyId, TenantId, Timestamp};
use bursar_store::{Cache, CacheUse, ControlTx, Ledger, StoreError};
use parking_lot::Mutex;

use crate::jobs::tenant_cache::{CacheBounds, TenantCache};

/// The size of the collection.
const BOUNDS: CacheBounds =
    CacheBounds { entries_max: 40_000, tenant_entries_max: 10_000, bytes_max: 40_000 * NOTE_BYTES };
/// The size of an entry with its index entries.
const NOTE_BYTES: usize = 200;
/// Keys per transaction, so that other writes do not wait long.
///
/// A transaction covers several tenants, because on one disk each transaction costs a sync.
const KEYS_PER_TRANSACTION: usize = 256;

/// Collects the last use of keys.
pub struct KeyUses {
    noted: Mutex<TenantCache<(TenantId, KeyId), Timestamp>>,
}

impl Default for KeyUses {
    fn default() -> Self {
        Self { noted: Mutex::new(TenantCache::new(BOUNDS)) }
    }
}

impl KeyUses {
    /// Records a use of a key.
    pub(crate) fn note(&self, tenant_id: TenantId, key: KeyId, at: Timestamp) {
        let mut noted = self.noted.lock();
        match noted.get_mut(&(tenant_id, key)) {
            Some(last) => *last = at.max(*last),
            None => noted.insert(Some(tenant_id), (tenant_id, key), at, NOTE_BYTES),
        }
    }

    /// Writes the collected uses. After an error the next call tries again.
    ///
    /// # Errors
    /// The first [`StoreError`]. The other transactions are still made.
    pub async fn write(&self, ledger: &Ledger) -> Result<(), StoreError> {
        let mut noted: Vec<_> = self.noted.lock().drain().collect();
        noted.sort_unstable_by_key(|(key, _)| *key);
        let mut first_error = None;
        for part in noted.chunks(KEYS_PER_TRANSACTION) {
            let uses = part.to_vec();
            let saved =
                ledger.change(None, move |tx: &mut dyn ControlTx| set_last_used(tx, &uses)).await;
            if let Err(error) = saved {
                for ((tenant_id, key), at) in part {
                    self.note(*tenant_id, *key, *at);
                }
                first_error.get_or_insert(error);
            }
        }
        first_error.map_or(Ok(()), Err)
    }
}

impl Cache for KeyUses {
    fn name(&self) -> &'static str {
        "key-uses"
    }

    fn in_use(&self) -> CacheUse {
        self.noted.lock().in_use()
    }

    fn clear(&self, tenant_id: Option<TenantId>) -> usize {
        let mut noted = self.noted.lock();
        match tenant_id {
            Some(_) => noted.forget(tenant_id),
            None => noted.clear(),
        }
    }
}

/// Sets `last_used_at` of keys in their order, tenant by tenant.
fn set_last_used(
    tx: &mut dyn ControlTx,
    uses: &[((TenantId, KeyId), Timestamp)],
) -> Result<(), StoreError> {
    for of_tenant in uses.chunk_by(|((one, _), _), ((other, _), _)| one == other) {
        let Some(((tenant_id, _), _)) = of_tenant.first() else { continue };
        let keys: Vec<_> = of_tenant.iter().map(|((_, key), at)| (*key, *at)).collect();
        tx.set_last_used(*tenant_id, &keys)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_use_of_each_key_is_noted_and_no_more_keys_than_fit() {
        let tenant_id = TenantId::from_number(1).unwrap();
        let key = |number| KeyId::from_number(number).unwrap();
        let at = |seconds| Timestamp::MIN.plus_seconds(seconds);
        let uses = KeyUses::default();
        for (number, seconds) in [(1, 5), (1, 9), (1, 7)] {
            uses.note(tenant_id, key(number), at(seconds));
        }
        assert_eq!(uses.noted.lock().get(&(tenant_id, key(1))), Some(&at(9)));
        let other = TenantId::from_number(2).unwrap();
        uses.note(other, key(1), at(3));
        for number in 2..=BOUNDS.entries_max as i64 {
            uses.note(tenant_id, key(number), at(1));
        }
        uses.note(tenant_id, key(1), at(20));
        assert_eq!(uses.in_use().entries, BOUNDS.tenant_entries_max + 1);
        assert_eq!(uses.noted.lock().get(&(tenant_id, key(1))), Some(&at(20)));
        assert_eq!(uses.noted.lock().get(&(other, key(1))), Some(&at(3)), "another tenant's");
    }
}
