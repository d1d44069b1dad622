//! The accounts in memory: what the writer loads from and what a check reads.
//!
//! The view changes only at a commit that is known to have succeeded, and is dropped whole when a
//! commit's fate is unknown. It is bounded: accounts that nobody touched for long are forgotten
//! and loaded again when they are needed.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bursar_core::{
    Account, CallKey, Hold, HoldChange, IntegrationId, Month, Overflow, TenantId, Timestamp,
};
use parking_lot::{Mutex, RwLock};

use crate::query::Standing;

/// Accounts that are kept, at about a kilobyte each.
const ACCOUNTS_MAX: usize = 50_000;
/// Accounts that are remembered as missed.
const MISSED_MAX: usize = 1_000;

/// The holds of an account by expiry.
pub(super) type Holds = BTreeMap<(Timestamp, CallKey), Hold>;

#[derive(Default)]
pub(super) struct View {
    accounts: RwLock<HashMap<IntegrationId, Live>>,
    /// Accounts that were asked for and are not here.
    missed: Mutex<BTreeSet<(TenantId, IntegrationId)>>,
}

struct Live {
    account: Account,
    holds: Holds,
    /// The commit that touched it last.
    touched: i64,
}

impl View {
    /// An account for a decision that changes nothing: without the holds that are due but not yet
    /// swept. Nothing when it, or the month of `now`, is not in memory.
    pub(super) fn standing(
        &self,
        tenant_id: TenantId,
        integration_id: IntegrationId,
        now: Timestamp,
    ) -> Result<Option<Standing>, Overflow> {
        let accounts = self.accounts.read();
        let Some(live) = accounts.get(&integration_id) else { return Ok(None) };
        if live.account.tenant_id != tenant_id || live.account.counter(now.month()).is_err() {
            return Ok(None);
        }
        Standing::of(live.account.clone(), live.due(now).copied(), now).map(Some)
    }

    /// Takes note of an account that was asked for and is not here.
    pub(super) fn miss(&self, tenant_id: TenantId, integration_id: IntegrationId) {
        let mut missed = self.missed.lock();
        if missed.len() < MISSED_MAX {
            missed.insert((tenant_id, integration_id));
        }
    }

    /// The accounts that were asked for since the last time.
    pub(super) fn take_missed(&self) -> BTreeSet<(TenantId, IntegrationId)> {
        std::mem::take(&mut self.missed.lock())
    }

    /// A copy of an account to work on, with its holds that are due.
    pub(super) fn borrow(
        &self,
        integration_id: IntegrationId,
        now: Timestamp,
    ) -> Option<(Account, Vec<Hold>)> {
        let accounts = self.accounts.read();
        let live = accounts.get(&integration_id)?;
        Some((live.account.clone(), live.due(now).copied().collect()))
    }

    /// Takes over what a commit made durable.
    pub(super) fn publish(
        &self,
        now: Timestamp,
        accounts: HashMap<IntegrationId, Account>,
        mut loaded_holds: HashMap<IntegrationId, Holds>,
        changes: Vec<HoldChange>,
    ) {
        let oldest = Month::from_number(now.month().number() - 1);
        let mut lives = self.accounts.write();
        for (integration_id, mut account) in accounts {
            account.settle_down(oldest);
            let touched = now.micros();
            match lives.get_mut(&integration_id) {
                Some(live) => {
                    live.account = account;
                    live.touched = touched;
                }
                None => {
                    let holds = loaded_holds.remove(&integration_id).unwrap_or_default();
                    lives.insert(integration_id, Live { account, holds, touched });
                }
            }
        }
        for change in changes {
            match change {
                HoldChange::Made(hold) => insert(&mut lives, hold),
                HoldChange::Ended(hold) => remove(&mut lives, &hold),
                HoldChange::Extended { before, expires_at } => {
                    remove(&mut lives, &before);
                    insert(&mut lives, Hold { expires_at, ..before });
                }
            }
        }
        if lives.len() > ACCOUNTS_MAX {
            forget_half(&mut lives);
        }
    }

    /// Forgets an account whose integration changed; it is loaded again when it is needed.
    pub(super) fn forget(&self, integration_id: IntegrationId) {
        self.accounts.write().remove(&integration_id);
    }

    /// Forgets the accounts of a tenant that changed.
    pub(super) fn forget_tenant(&self, tenant_id: TenantId) {
        self.accounts.write().retain(|_, live| live.account.tenant_id != tenant_id);
    }

    /// Forgets everything, after a commit whose fate is unknown.
    pub(super) fn clear(&self) {
        self.accounts.write().clear();
    }
}

impl Live {
    fn due(&self, now: Timestamp) -> impl Iterator<Item = &Hold> {
        self.holds.range(..=(now, CallKey(u128::MAX))).map(|(_, hold)| hold)
    }
}

fn insert(lives: &mut HashMap<IntegrationId, Live>, hold: Hold) {
    if let Some(live) = lives.get_mut(&hold.integration_id) {
        live.holds.insert((hold.expires_at, hold.call), hold);
    }
}

fn remove(lives: &mut HashMap<IntegrationId, Live>, hold: &Hold) {
    if let Some(live) = lives.get_mut(&hold.integration_id) {
        live.holds.remove(&(hold.expires_at, hold.call));
    }
}

/// Keeps the accounts touched last.
fn forget_half(lives: &mut HashMap<IntegrationId, Live>) {
    let mut touched: Vec<i64> = lives.values().map(|live| live.touched).collect();
    let middle = touched.len() / 2;
    let (_, median, _) = touched.select_nth_unstable(middle);
    let median = *median;
    lives.retain(|_, live| live.touched > median);
}
