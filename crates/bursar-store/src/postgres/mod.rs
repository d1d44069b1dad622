//! The store of several nodes: one PostgreSQL database, any number of stateless servers.
//!
//! Nothing that decides is kept in a node's memory: a group locks the accounts that it touches,
//! reads the database's clock, loads, decides and saves in one transaction. No statement is
//! prepared and nothing is set beyond a transaction, so that a pooler may stand between.

mod ask;
mod audit;
mod bulk;
mod clock;
mod columns;
mod connect;
mod control;
mod days;
mod decisions;
mod error;
mod history;
mod keys;
mod known_labels;
mod labels;
mod load;
mod open;
mod pipeline;
mod protection;
mod read;
mod readers;
mod save;
mod schema;
mod series;
mod settings;
mod store;
mod store_stats;
mod sweep;
mod tx;
mod verify;
mod writer;
mod writer_state;

pub use error::OpenPostgresError;
pub use open::{OpenedPostgres, PostgresOptions, PostgresStore};
