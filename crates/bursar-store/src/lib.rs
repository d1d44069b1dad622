//! The write path of Bursar and its storage.
//!
//! [`Ledger`] queues commands and turns them into transactions. A database implements two traits:
//! [`WriterConnection`] for writes and [`Store`] for reads. The implementations for SQLite and
//! PostgreSQL are here too, and no other crate knows SQL.
//!
//! Deliberately absent: rules about money. Storage loads what the core needs, and saves what the
//! core decides.

mod audit;
mod cache;
mod calendar;
mod checked_sum;
mod clock;
mod control;
mod cost_guard;
mod error;
mod limit_sets;
mod memory;
mod postgres;
mod read;
mod rows;
mod schema;
mod sqlite;
mod tables;
mod verify;
mod write;

pub use audit::chain::{
    AuditEntry, AuditFilter, AuditHash, AuditKey, AuditLink, AuditPage, AuditPosition,
};
pub use audit::check::{AuditCheck, AuditReport};
pub use audit::reads::AuditReads;
pub use cache::{Cache, CacheUse};
pub use calendar::{UnknownZone, ZonedCalendar};
pub use clock::{BootClock, Clock, ClockConfirmed, Clocks, system_boot};
pub use control::{
    Changed, Control, ControlRefusal, IntegrationDraft, IntegrationEdit, KeyDraft, TenantCaps,
};
pub use error::{Cause, NotWritable, StoreError};
pub use postgres::{OpenPostgresError, OpenedPostgres, PostgresOptions, PostgresStore};
pub use read::accounts::AccountReads;
pub use read::accounts::{AccountSnapshot, OpenReservation};
pub use read::breakdown::SeriesReads;
pub use read::breakdown::{
    Breakdown, BreakdownFilter, Group, GroupBy, Series, SeriesFilter, SeriesStep, Step,
};
pub use read::breakdown::{CallFilter, CallLabel, CallOutcome};
pub use read::days::DayReads;
pub use read::days::{DayFilter, DayPage, DayPosition, DayUsage};
pub use read::entries::HistoryReads;
pub use read::entries::{HistoryFilter, HistoryPage, HistoryPart, HistoryPosition};
pub use read::near_limit::NearLimit;
pub use read::page::{Page, Paged};
pub use read::read_context::{ReadContext, ReadMemory, ReadMemoryError, Requester};
pub use read::store::{Store, StoreStats};
pub use read::summaries::IntegrationUsage;
pub use read::summaries::SummaryReads;
pub use read::sums::Sums;
pub use rows::COLUMN_LISTS;
pub use rows::codec::call_key;
pub use rows::columns::RawColumns;
pub use rows::limit_row::LimitRow;
pub use rows::protection::{OverrideRow, SignalRow};
pub use rows::rollup::Grain;
pub use rows::rollup_columns::{LATENCY_BOUNDS_MS, LATENCY_BUCKETS, Rollup};
pub use rows::rollup_labels::OTHER;
pub use rows::row::{
    Actor, AuditRow, DecisionKind, DecisionRow, IntegrationRow, KeyRow, ManagedBy, SecretHash,
    TenantRow, UsageRow,
};
pub use schema::SchemaStatus;
pub use sqlite::{
    BackupInfo, CopyError, CopyProgress, ExistingTarget, OpenError, Restore, SqliteStore,
};
pub use tables::*;
pub use verify::differences::Differences;
pub use verify::recount::VerifyReport;
pub use write::job::{CostedOutcome, SweepOutcome};
pub use write::ledger::Ledger;
pub use write::observe::{
    CostFacts, Dequeued, ExpiredHolds, Facts, HoldFacts, ModelKey, NoopObserver, Observer,
    TransactionTiming,
};
pub use write::queue::Waiting;
pub use write::writer_connection::{
    CallToLoad, Claim, ControlTx, Grouping, LoadRequest, RowCounts, SweepWork, WriterConnection,
};
