//! The accounts in memory: what the writer loads from and what a check reads.
//!
//! The view changes only at a commit that is known to have succeeded, and is dropped whole when a
//! commit's fate is unknown. It is bounded: accounts that nobody touched for long are forgotten
//! and loaded again when they are needed.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicI64, Ordering};

use bursar_core::{
    Account, Hold, HoldChange, Integration, IntegrationId, Month, Overflow, TenantId,
    TenantLifecycle, Timestamp,
};
use parking_lot::{Mutex, RwLock};

use super::holds::Holds;
use crate::query::Standing;

/// Accounts that are kept, at about a kilobyte each.
const ACCOUNTS_MAX: usize = 50_000;
/// Accounts that are remembered as missed.
const MISSED_MAX: usize = 1_000;

#[derive(Default)]
pub(super) struct View {
    accounts: RwLock<HashMap<IntegrationId, Live>>,
    last_now: AtomicI64,
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
    /// The instant, but never one before an instant that was decided at.
    pub(super) fn not_before(&self, now: Timestamp) -> Timestamp {
        let last = Timestamp::from_micros(self.last_now.load(Ordering::Relaxed));
        last.map_or(now, |last| last.max(now))
    }

    /// Takes note of an instant that was decided at.
    pub(super) fn advance(&self, now: Timestamp) {
        self.last_now.fetch_max(now.micros(), Ordering::Relaxed);
    }

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
        live.at(now).map(|account| Some(Standing { account, now }))
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

    /// A copy of an account to work on, which knows what of its holds is due.
    pub(super) fn borrow(
        &self,
        integration_id: IntegrationId,
        now: Timestamp,
    ) -> Result<Option<Account>, Overflow> {
        let accounts = self.accounts.read();
        accounts.get(&integration_id).map(|live| live.at(now)).transpose()
    }

    /// Whether a hold is still open; nothing when its account is not here.
    pub(super) fn is_open(&self, hold: &Hold) -> Option<bool> {
        let accounts = self.accounts.read();
        accounts.get(&hold.integration_id).map(|live| live.holds.contains(hold))
    }

    /// Takes over what a commit made durable.
    pub(super) fn publish(
        &self,
        now: Timestamp,
        accounts: HashMap<IntegrationId, Account>,
        mut loaded_holds: HashMap<IntegrationId, Holds>,
        changes: Vec<HoldChange>,
    ) -> Result<(), Overflow> {
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
                HoldChange::Made(hold) => insert(&mut lives, &hold)?,
                HoldChange::Ended(hold) => remove(&mut lives, &hold)?,
                HoldChange::Extended { before, expires_at } => {
                    remove(&mut lives, &before)?;
                    insert(&mut lives, &Hold { expires_at, ..before })?;
                }
            }
        }
        if lives.len() > ACCOUNTS_MAX {
            forget_half(&mut lives);
        }
        Ok(())
    }

    /// Takes an integration over as it was changed. Its holds stay: to read them again would hold
    /// up everyone for as long as there are many.
    pub(super) fn change(&self, integration_id: IntegrationId, rules: Integration) {
        if let Some(live) = self.accounts.write().get_mut(&integration_id) {
            live.account.integration = rules;
        }
    }

    /// Takes the state of a tenant over.
    pub(super) fn change_tenant(&self, tenant_id: TenantId, lifecycle: TenantLifecycle) {
        let mut accounts = self.accounts.write();
        for live in accounts.values_mut().filter(|live| live.account.tenant_id == tenant_id) {
            live.account.lifecycle = lifecycle;
        }
    }

    /// Forgets everything, after a commit whose fate is unknown.
    pub(super) fn clear(&self) {
        self.accounts.write().clear();
    }
}

impl Live {
    /// The account with what of its holds is due at an instant.
    fn at(&self, now: Timestamp) -> Result<Account, Overflow> {
        let mut account = self.account.clone();
        account.restore_due(self.holds.due(now)?);
        account.restore_open(self.holds.count());
        Ok(account)
    }
}

fn insert(lives: &mut HashMap<IntegrationId, Live>, hold: &Hold) -> Result<(), Overflow> {
    lives.get_mut(&hold.integration_id).map_or(Ok(()), |live| live.holds.insert(hold))
}

fn remove(lives: &mut HashMap<IntegrationId, Live>, hold: &Hold) -> Result<(), Overflow> {
    lives.get_mut(&hold.integration_id).map_or(Ok(()), |live| live.holds.remove(hold))
}

/// Keeps the accounts touched last.
fn forget_half(lives: &mut HashMap<IntegrationId, Live>) {
    let mut touched: Vec<i64> = lives.values().map(|live| live.touched).collect();
    let middle = touched.len() / 2;
    let (_, median, _) = touched.select_nth_unstable(middle);
    let median = *median;
    lives.retain(|_, live| live.touched > median);
}
