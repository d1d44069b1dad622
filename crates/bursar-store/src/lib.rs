//! The write path of Bursar and its storage.
//!
//! Here are the queue and the writer that turn commands into transactions ([`Ledger`]), the traits
//! that a database fulfils ([`Lane`] to write, [`Store`] to read), and the databases themselves.
//! This is the only crate that knows SQL. Deliberately absent: every rule about money; storage
//! loads what the core needs and saves what it says.

mod audit;
mod audit_check;
mod breakdown;
mod cache;
mod clock;
mod codec;
mod columns;
mod control;
mod decode;
mod differences;
mod error;
mod fold;
mod history;
mod hot;
mod lane;
mod ledger;
mod memory;
mod observe;
mod postgres;
mod protection;
mod query;
mod queue;
mod read_slots;
mod reading;
mod rollup;
mod row;
mod schema;
mod sqlite;
mod sums;
mod tenant_sums;
mod verify;
mod writable;
mod writer;

pub use audit::{
    AuditEntry, AuditFilter, AuditHash, AuditKey, AuditLink, AuditPage, AuditPlace, ChainPlace,
};
pub use audit_check::{AuditCheck, AuditVerified};
pub use breakdown::{
    Breakdown, BreakdownFilter, Group, GroupBy, Series, SeriesFilter, SeriesStep, Step,
};
pub use cache::{Cache, CacheUse};
pub use clock::{BootClock, Clock, ClockConfirmed, Clocks, system_boot};
pub use codec::call_key;
pub use control::{
    Changed, Control, ControlRefusal, IntegrationDraft, IntegrationEdit, RowCounts, TenantCaps,
};
pub use differences::Differences;
pub use error::{Cause, NotWritable, StoreError};
pub use hot::HotAccount;
pub use lane::{Claim, ControlTx, Due, Grouping, Lane, STAMP_EVERY_SECONDS, Wanted, WantedCall};
pub use ledger::{Ledger, Swept};
pub use observe::{CostFacts, Facts, HoldFacts, ModelKey, Observer, Taken, Took, Unobserved};
pub use postgres::{OpenPostgresError, OpenedPostgres, PostgresOptions, PostgresStore};
pub use protection::{OverrideRow, SignalRow};
pub use query::{
    CallFilter, CallLabel, CallOutcome, DayFilter, DayPage, DayPlace, DayUsage, DecisionFilter,
    HistoryFilter, HistoryPage, HistoryPart, HistoryPlace, IntegrationFilter, IntegrationUsage,
    OpenReservation, Page, Paged, Standing, Stock, Store,
};
pub use queue::Waiting;
pub use reading::{Asker, NoRoom, Reading, Room, Unbounded};
pub use rollup::{Grain, LATENCY_BOUNDS_MS, LATENCY_BUCKETS, OTHER, Rollup};
pub use row::{
    Actor, ApiKeyRow, AuditRow, DecisionKind, DecisionRow, IntegrationKeyRow, IntegrationRow,
    KeyId, SecretHash, TenantRow, UsageRow,
};
pub use schema::SchemaStatus;
pub use sqlite::{BackedUp, CopyError, Existing, OpenError, Restore, SqliteStore, Watch};
pub use sums::Sums;
pub use verify::Verified;
