//! What a database must be able to do for the write path: load, save, commit.
//!
//! A [`WriterConnection`] is one writer: one connection, one transaction at a time, used by one thread. It
//! decides nothing about money. It reads what commands touch into a [`Book`], and writes what the
//! book says changed.

use std::collections::{BTreeMap, BTreeSet};

use bursar_core::{
    Book, CallId, CallKey, Caps, EntryId, Hold, Integration, IntegrationId, KeyId, Month, TenantId,
    TenantLifecycle, Timestamp,
};

use crate::clock::ClockConfirmed;
use crate::error::StoreError;
use crate::rows::columns::RawColumns;
use crate::rows::row::AuditRow;
use crate::tables::value::{Sql, Value};

/// How exact it is when a key was used last: finer steps are not written.
pub(crate) const STAMP_EVERY_SECONDS: i64 = 60;

/// A stored use that is no younger than this gives way to one of an instant, in microseconds.
pub(crate) fn stamped_before(at: Timestamp) -> i64 {
    at.micros().saturating_sub(STAMP_EVERY_SECONDS * 1_000_000)
}

/// How a command means to use a call id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Claim {
    /// Only to look at it: nothing is claimed.
    Read,
    /// To reserve it.
    Reserve,
    /// To record it as this entry.
    Record(EntryId),
}

/// A call id that a group touches.
#[derive(Clone, Copy, Debug)]
pub struct CallToLoad<'a> {
    /// The whole call id.
    pub call_id: &'a CallId,
    /// How it will be used; the strongest use in the group.
    pub claim: Claim,
}

/// Everything that a group of commands touches, in key order, so that locks are taken in key order.
#[derive(Debug, Default)]
pub struct LoadRequest<'a> {
    /// The call ids. Those to be recorded or reserved are claimed while they are loaded.
    pub calls: BTreeMap<(TenantId, CallKey), CallToLoad<'a>>,
    /// The integrations that commands name.
    pub integrations: BTreeSet<(TenantId, IntegrationId)>,
    /// The months that records name, beside the current one.
    pub months: BTreeSet<(IntegrationId, Month)>,
    /// Holds to remove, if they are still open and due once they are locked.
    pub due: BTreeMap<(TenantId, CallKey), Hold>,
    /// How many reservations each tenant asks for.
    pub reserving: BTreeMap<TenantId, usize>,
    /// The tenants of records.
    pub recording: BTreeSet<TenantId>,
    /// The bounds by which the group is decided.
    pub caps: Caps,
}

/// What a sweep has to do.
#[derive(Debug, Default)]
pub struct SweepWork {
    /// Holds that are due.
    pub holds: Vec<Hold>,
    /// Accounts that a reader missed in memory.
    pub missed: Vec<(TenantId, IntegrationId)>,
    /// Whether there may be more that is due.
    pub more: bool,
}

/// Rows of a kind that a tenant has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowCounts {
    /// Those in use.
    pub live: u32,
    /// Those that were deleted or revoked, or have expired.
    pub ended: u32,
}

/// The reads and writes of the control plane, inside a transaction of a connection.
///
/// An implementation stores what it is given and checks only uniqueness.
pub trait ControlTx {
    /// The instant of the transaction. It may be provisional until a group is loaded; what then
    /// counts is [`Book::now`].
    fn now(&self) -> Timestamp;

    /// The first of `count` numbers in a row that no id of this store has, larger than those that
    /// this connection allocated before; also outside a transaction.
    ///
    /// # Errors
    /// [`StoreError`] as for every method here.
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

    /// Writes when keys of a tenant were used last, where nothing is stored or something that is older
    /// by more than a minute; in order of the keys. Keys that another transaction
    /// changes meanwhile are passed over: nobody waits for this, and it waits for nobody.
    ///
    /// # Errors
    /// [`StoreError`].
    fn stamp_keys(
        &mut self,
        tenant_id: TenantId,
        uses: &[(KeyId, Timestamp)],
    ) -> Result<(), StoreError>;

    /// Adds a row to the audit log, as the next one of its tenant's chain; at the latest with the
    /// commit, so that a database whose writers wait for each other has that lock as its last.
    ///
    /// # Errors
    /// [`StoreError`], of this call or of the commit.
    fn put_audit(&mut self, row: &AuditRow) -> Result<(), StoreError>;
}

/// Which commands a connection takes into one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grouping {
    /// Those of all tenants.
    Mixed,
    /// Those of one tenant, which no other connection of this process writes meanwhile.
    OneTenant,
}

/// One writer of a database.
///
/// The calls of a transaction are `begin`, then `load` and `save` (or the methods of
/// [`ControlTx`]), then `commit`; `rollback` ends a transaction in which anything failed. State
/// that a connection keeps in memory may change only after a commit that is known to have succeeded.
pub trait WriterConnection: ControlTx + Send {
    /// Which commands it takes into one transaction.
    fn grouping(&self) -> Grouping {
        Grouping::Mixed
    }

    /// About so many of the holds that are due, and what a reader missed in memory; outside a
    /// transaction. None while the clock is in doubt. Keeps what a later start has to know of the
    /// clock.
    ///
    /// # Errors
    /// [`StoreError`].
    fn sweep_work(&mut self, limit: usize) -> Result<SweepWork, StoreError>;

    /// Opens a transaction. Its instant never falls behind one that an account of it was decided
    /// at before, unless an operator took that time back.
    ///
    /// # Errors
    /// [`StoreError::ClockJumped`] while the clock is in doubt,
    /// [`StoreError::Unavailable`] when the database does not answer.
    fn begin(&mut self) -> Result<(), StoreError>;

    /// Claims and loads what a group touches. Of the holds that are due, it removes those that the
    /// group names; the others count in nothing and stay, so that a group takes as long as what it
    /// was asked for, however many came due.
    ///
    /// Calls are claimed in key order, then accounts are locked in key order, then the clock and
    /// everything else is read: what was read before a lock says nothing after it.
    ///
    /// # Errors
    /// [`StoreError`]; the transaction must be rolled back.
    fn load<'a>(&mut self, request: &LoadRequest<'a>) -> Result<Book<'a>, StoreError>;

    /// Writes what changed, and gives back claims that were not used.
    ///
    /// # Errors
    /// [`StoreError`]; the transaction must be rolled back.
    fn save(&mut self, book: Book<'_>) -> Result<(), StoreError>;

    /// Makes the transaction durable, then visible to readers.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: whether it is durable is unknown. Any other: it is not.
    fn commit(&mut self) -> Result<(), StoreError>;

    /// Drops the transaction, and after an unknown commit everything kept in memory.
    fn rollback(&mut self);

    /// Drops the transaction and everything kept in memory, after a panic somewhere in it. Nothing of
    /// the connection is used again: the next transaction opens another one.
    fn abandon(&mut self);

    /// Writes something that means nothing, in a transaction, to learn whether the database takes
    /// writes.
    ///
    /// # Errors
    /// [`StoreError`]; the transaction must be rolled back.
    fn write_probe(&mut self) -> Result<(), StoreError>;

    /// Takes the wall clock for right, and writes that down; outside a transaction, also while
    /// others are refused because of the clock.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing changed.
    fn confirm_clock(&mut self) -> Result<ClockConfirmed, StoreError>;

    /// Work for a moment in which nothing waits, such as moving a log into its file.
    fn idle(&mut self) {}
}
