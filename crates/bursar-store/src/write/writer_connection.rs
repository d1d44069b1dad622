//! The trait [`WriterConnection`], which a database implements for the write path.
//!
//! A connection is used by one thread, for one transaction at a time. It loads what a group of
//! commands needs into a [`Book`], and saves the changes of the book.
//!
//! Deliberately absent: decisions about money, which the book makes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bursar_core::{
    Book, CallId, CallKey, Caps, EntryId, Hold, Integration, IntegrationId, KeyId, LimitAccountKey,
    LimitSet, Month, Posting, ReserveRequest, TenantId, TenantLifecycle, Timestamp, Usage,
};

use crate::clock::ClockConfirmed;
use crate::error::StoreError;
use crate::rows::columns::RawColumns;
use crate::rows::row::AuditRow;
use crate::tables::value::{Sql, Value};

/// The resolution of a key's `last_used_at`: a later use within this time is not written.
pub(crate) const LAST_USED_RESOLUTION_SECONDS: i64 = 60;

/// The latest stored `last_used_at`, in microseconds, that a use at an instant replaces.
pub(crate) fn last_used_replaced_until(at: Timestamp) -> i64 {
    at.micros().saturating_sub(LAST_USED_RESOLUTION_SECONDS * 1_000_000)
}

/// How a command uses a call id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Claim {
    /// It only reads the call, and claims nothing.
    Read,
    /// It reserves the call.
    Reserve,
    /// It records the call as this entry.
    Record(EntryId),
}

/// A call id that a group uses.
#[derive(Clone, Copy, Debug)]
pub struct CallToLoad<'a> {
    pub call_id: &'a CallId,
    /// The strongest claim in the group.
    pub claim: Claim,
}

/// What a group of commands needs, in key order, so that locks are taken in key order.
#[derive(Debug, Default)]
pub struct LoadRequest<'a> {
    /// The call ids. Those to be recorded or reserved are claimed while they are loaded.
    pub calls: BTreeMap<(TenantId, CallKey), CallToLoad<'a>>,
    /// The integrations that commands name.
    pub integrations: BTreeSet<(TenantId, IntegrationId)>,
    /// The months that records name, in addition to the current one.
    pub months: BTreeSet<(IntegrationId, Month)>,
    /// Holds to remove, if they are still open and due once they are locked.
    pub due: BTreeMap<(TenantId, CallKey), Hold>,
    /// The number of requested reservations by tenant.
    pub reserving: BTreeMap<TenantId, usize>,
    /// The tenants of records.
    pub recording: BTreeSet<TenantId>,
    /// The caps by which the group is decided.
    pub caps: Caps,
    /// The records of the group, whose accounts of limits are needed.
    pub records: Vec<(TenantId, CallKey, &'a Usage)>,
    /// The requests for reservations, whose accounts of limits are needed.
    pub requests: Vec<(TenantId, CallKey, &'a ReserveRequest)>,
}

impl LoadRequest<'_> {
    /// The tenants of the group.
    pub(crate) fn tenants(&self) -> BTreeSet<TenantId> {
        let of_calls = self.calls.keys().map(|(tenant_id, _)| *tenant_id);
        let of_integrations = self.integrations.iter().map(|(tenant_id, _)| *tenant_id);
        of_calls.chain(of_integrations).collect()
    }

    /// The accounts of limits that the commands and these reservations of their calls may need.
    ///
    /// A record counts in the accounts of the key that reserved its call, which may be a key of this
    /// group.
    pub(crate) fn limit_accounts<'r>(
        &self,
        sets: &HashMap<TenantId, Arc<LimitSet>>,
        reservations: impl Iterator<Item = ReservedBefore<'r>>,
    ) -> WantedAccounts {
        let WantedAccounts { mut holding, mut counting } = WantedAccounts::default();
        let with_limits =
            |tenant_id: &TenantId| sets.get(tenant_id).filter(|set| !set.limits().is_empty());
        if !sets.keys().any(|tenant_id| with_limits(tenant_id).is_some()) {
            return WantedAccounts::default();
        }
        let mut key_ids: HashMap<(TenantId, CallKey), Vec<Option<KeyId>>> = HashMap::new();
        for ReservedBefore { call, account_key_id, postings } in reservations {
            holding.extend(posted_accounts(sets, postings));
            key_ids.entry(call).or_default().push(account_key_id);
        }
        for (tenant_id, call, request) in &self.requests {
            let Some(set) = with_limits(tenant_id) else { continue };
            counting.extend(set.account_keys(*tenant_id, &request.subject()));
            key_ids.entry((*tenant_id, *call)).or_default().push(request.account_key_id);
        }
        for (tenant_id, call, usage) in &self.records {
            let Some(set) = with_limits(tenant_id) else { continue };
            let of_call = key_ids.get(&(*tenant_id, *call)).into_iter().flatten();
            let own = std::iter::once(&usage.account_key_id);
            for key_id in of_call.chain(own) {
                counting.extend(set.account_keys(*tenant_id, &usage.subject(*key_id)));
            }
        }
        for hold in self.due.values() {
            holding.extend(posted_accounts(sets, &hold.postings));
        }
        WantedAccounts { holding, counting }
    }
}

/// The accounts of limits that a group may need.
#[derive(Debug, Default)]
pub(crate) struct WantedAccounts {
    /// Those in which reservations of its calls and due holds are held.
    pub(crate) holding: BTreeSet<LimitAccountKey>,
    /// Those in which its commands may count. For a limit for each value, these are the account of
    /// the value and the shared one.
    pub(crate) counting: BTreeSet<LimitAccountKey>,
}

/// The stored reservation of a call of a group.
pub(crate) struct ReservedBefore<'r> {
    pub(crate) call: (TenantId, CallKey),
    pub(crate) account_key_id: Option<KeyId>,
    pub(crate) postings: &'r [Posting],
}

/// The accounts of postings whose limits still exist.
fn posted_accounts(
    sets: &HashMap<TenantId, Arc<LimitSet>>,
    postings: &[Posting],
) -> impl Iterator<Item = LimitAccountKey> {
    let exists = |posting: &&Posting| {
        let LimitAccountKey { tenant_id, limit_id, .. } = posting.account;
        sets.get(&tenant_id).is_some_and(|set| set.get(limit_id).is_some())
    };
    postings.iter().filter(exists).map(|posting| posting.account.clone())
}

/// The work of a sweep.
#[derive(Debug, Default)]
pub struct SweepWork {
    /// Holds that are due.
    pub holds: Vec<Hold>,
    /// Accounts that a reader did not find in the cache.
    pub missed: Vec<(TenantId, IntegrationId)>,
    /// Whether there may be more due holds.
    pub more: bool,
}

/// The number of rows of a kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowCounts {
    /// Rows in use.
    pub live: u32,
    /// Rows that are deleted, revoked or expired.
    pub ended: u32,
}

/// The reads and writes of the control plane, inside a transaction of a connection.
///
/// An implementation stores what it is given and checks only uniqueness.
pub trait ControlTx {
    /// The instant of the transaction. It is provisional until a group is loaded; after that,
    /// [`Book::now`] counts.
    fn now(&self) -> Timestamp;

    /// Allocates `count` consecutive id numbers, and returns the first.
    ///
    /// They are unique in the store, and larger than those that this connection allocated before.
    /// The call also works outside a transaction.
    ///
    /// # Errors
    /// [`StoreError`].
    fn allocate_ids(&mut self, count: usize) -> Result<i64, StoreError>;

    /// Runs a statement of a table that both databases keep in the same way.
    ///
    /// # Errors
    /// [`StoreError`].
    fn execute(
        &mut self,
        tenant_id: TenantId,
        sql: Sql,
        values: &[Value],
    ) -> Result<(), StoreError>;

    /// Reads rows of such a table, with one call of `take` for each. The rows stay locked until the
    /// end of the transaction if the statement says so.
    ///
    /// # Errors
    /// [`StoreError`], and the errors of `take`.
    fn select(
        &mut self,
        tenant_id: TenantId,
        sql: Sql,
        values: &[Value],
        take: &mut dyn FnMut(&dyn RawColumns) -> Result<(), StoreError>,
    ) -> Result<(), StoreError>;

    /// Called before a tenant is written. The commit updates the memory of this node, and other
    /// nodes admit a call either before the change or after it.
    ///
    /// # Errors
    /// [`StoreError`].
    fn tenant_changes(
        &mut self,
        tenant_id: TenantId,
        lifecycle: TenantLifecycle,
    ) -> Result<(), StoreError>;

    /// Called before an integration is written. The commit updates the memory of this node.
    fn integration_changes(&mut self, integration_id: IntegrationId, rules: Integration);

    /// Called before a limit is written. The commit updates the memory of this node.
    fn limits_change(&mut self, tenant_id: TenantId);

    /// Sets `last_used_at` of a tenant's keys, in their order.
    ///
    /// A key keeps a stored value that is less than a minute older. Keys that another transaction
    /// is changing are skipped, so that neither waits for the other.
    ///
    /// # Errors
    /// [`StoreError`].
    fn set_last_used(
        &mut self,
        tenant_id: TenantId,
        uses: &[(KeyId, Timestamp)],
    ) -> Result<(), StoreError>;

    /// Appends a row to the audit log of its tenant.
    ///
    /// A database whose writers lock rows writes it just before the commit, so that the lock on the
    /// head of the chain is the last one.
    ///
    /// # Errors
    /// [`StoreError`], of this call or of the commit.
    fn put_audit(&mut self, row: &AuditRow) -> Result<(), StoreError>;
}

/// The commands that a connection writes in one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grouping {
    /// Those of all tenants.
    Mixed,
    /// Those of one tenant, for which no other connection of this process writes meanwhile.
    OneTenant,
}

/// One writer of a database.
///
/// A transaction calls `begin`, then `load` and `save` (or methods of [`ControlTx`]), then `commit`;
/// after an error it calls `rollback`. State that a connection keeps in memory may change only after
/// a commit that is known to have succeeded.
pub trait WriterConnection: ControlTx + Send {
    /// The commands that it writes in one transaction.
    fn grouping(&self) -> Grouping {
        Grouping::Mixed
    }

    /// Finds about `limit` due holds, and accounts that a reader missed, outside a transaction.
    ///
    /// While the clock is in doubt, no hold is due. The call also saves the state of the clock for
    /// later starts.
    ///
    /// # Errors
    /// [`StoreError`].
    fn sweep_work(&mut self, limit: usize) -> Result<SweepWork, StoreError>;

    /// Begins a transaction.
    ///
    /// Its instant is not before an earlier decision on one of its accounts, unless an operator set
    /// the time back.
    ///
    /// # Errors
    /// [`StoreError::ClockJumped`] while the clock is in doubt, [`StoreError::Unavailable`] if the
    /// database does not respond.
    fn begin(&mut self) -> Result<(), StoreError>;

    /// Claims and loads what a group needs.
    ///
    /// Only those due holds are removed that the group names. The others count nowhere and stay, so
    /// that the time for a group does not depend on how many holds came due.
    ///
    /// Calls are claimed in key order, then accounts are locked in key order, and then the clock and
    /// everything else is read, because rows can change until they are locked.
    ///
    /// # Errors
    /// [`StoreError`]; the transaction must be rolled back.
    fn load<'a>(&mut self, request: &LoadRequest<'a>) -> Result<Book<'a>, StoreError>;

    /// Saves the changes of a book, and removes unused claims.
    ///
    /// # Errors
    /// [`StoreError`]; the transaction must be rolled back.
    fn save(&mut self, book: Book<'_>) -> Result<(), StoreError>;

    /// Makes the transaction durable, then visible to readers.
    ///
    /// # Errors
    /// After [`StoreError::Unavailable`] it may be durable; after any other error it is not.
    fn commit(&mut self) -> Result<(), StoreError>;

    /// Drops the transaction, and after a commit with an unknown result all state in memory.
    fn rollback(&mut self);

    /// Drops the transaction, the connection and all state in memory, after a panic.
    fn abandon(&mut self);

    /// Writes filler in a transaction, to learn whether the database accepts writes.
    ///
    /// # Errors
    /// [`StoreError`]; the transaction must be rolled back.
    fn write_probe(&mut self) -> Result<(), StoreError>;

    /// Adopts the wall clock's time and saves that, outside a transaction. This also works while
    /// the clock is in doubt.
    ///
    /// # Errors
    /// [`StoreError`]; nothing changed then.
    fn confirm_clock(&mut self) -> Result<ClockConfirmed, StoreError>;

    /// Does maintenance while no job waits, such as moving the log into the data file.
    fn idle(&mut self) {}
}
