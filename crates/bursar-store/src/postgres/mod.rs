//! The store of several nodes: one PostgreSQL database, any number of stateless servers.
//!
//! Nodes keep nothing in memory that decides. A group locks its accounts, reads the database's
//! clock, loads, decides and saves in one transaction. No statement is prepared and no setting
//! outlives a transaction, so that nodes can connect through a pooler.

mod accounts;
mod audit;
mod bulk;
mod clock;
mod columns;
mod connect;
mod control;
mod days;
mod error;
mod fetch;
mod history;
mod keys;
mod known_labels;
mod labels;
mod limits;
mod load;
mod open;
mod pipeline;
mod query;
mod readers;
mod save;
mod schema;
mod series;
mod settings;
mod store;
mod store_stats;
mod summaries;
mod sweep;
mod tx;
mod verify;
mod writer;
mod writer_state;

pub use error::OpenPostgresError;
pub use open::{OpenedPostgres, PostgresOptions, PostgresStore};
