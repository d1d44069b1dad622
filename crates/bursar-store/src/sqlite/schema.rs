//! The schema of the data file: forward-only migrations.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params};

use super::error::OpenError;
use crate::schema::SchemaStatus;

/// One migration.
struct Migration {
    version: u32,
    sql: &'static str,
    /// The oldest schema version whose binary still works with the file after this migration.
    oldest_known: u32,
}

const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        sql: include_str!("../../migrations/sqlite/0001_ledger.sql"),
        oldest_known: 1,
    },
    Migration {
        version: 2,
        sql: include_str!("../../migrations/sqlite/0002_reads.sql"),
        oldest_known: 1,
    },
    Migration {
        version: 3,
        sql: include_str!("../../migrations/sqlite/0003_audit.sql"),
        oldest_known: 1,
    },
    Migration {
        version: 4,
        sql: include_str!("../../migrations/sqlite/0004_protection.sql"),
        oldest_known: 1,
    },
];

/// The first schema version whose audit log is a chain.
const CHAINED: u32 = 3;

const SELECT_SERVER: &str = "select value from server where name = ?1";
const UPSERT_SERVER: &str = "insert into server (name, value) values (?1, ?2) \
     on conflict (name) do update set value = excluded.value";

/// Migrates the file to the newest schema that this binary knows.
pub(super) fn migrate(connection: &mut Connection, path: &Path) -> Result<(), OpenError> {
    let database = |cause| OpenError::Database { path: path.to_owned(), cause };
    let found = check_version(connection, path)?;
    for migration in MIGRATIONS.iter().filter(|migration| migration.version > found) {
        if found > 0 {
            // A large file takes a while, and the log is the only sign of progress.
            let to = migration.version;
            tracing::info!(from = found, to, "the schema is brought up to date");
        }
        apply(connection, migration).map_err(database)?;
    }
    Ok(())
}

/// The version of the file's schema, if this binary can use it.
fn check_version(connection: &Connection, path: &Path) -> Result<u32, OpenError> {
    let SchemaStatus { found, known, oldest_known } = status(connection, path)?;
    if found > known && oldest_known > known {
        return Err(OpenError::NewerSchema { path: path.to_owned(), found, known });
    }
    Ok(found)
}

/// Reads what the schema of a file is.
pub(super) fn status(connection: &Connection, path: &Path) -> Result<SchemaStatus, OpenError> {
    let database = |cause| OpenError::Database { path: path.to_owned(), cause };
    let found: u32 =
        connection.query_row("pragma user_version", [], |row| row.get(0)).map_err(database)?;
    let known = MIGRATIONS.last().map_or(0, |last| last.version);
    let oldest = match found {
        0 => None,
        _ => server_value(connection, "oldest_known").map_err(database)?,
    };
    let oldest_known = oldest.and_then(|text| text.parse().ok()).unwrap_or(found);
    Ok(SchemaStatus { found, known, oldest_known })
}

fn apply(connection: &mut Connection, migration: &Migration) -> rusqlite::Result<()> {
    let tx = connection.transaction()?;
    tx.execute_batch(migration.sql)?;
    tx.pragma_update(None, "user_version", migration.version)?;
    tx.execute(UPSERT_SERVER, params!["oldest_known", migration.oldest_known.to_string()])?;
    tx.commit()
}

/// Ties the file to the secret key with which its keys are hashed.
pub(super) fn check_secret(
    connection: &Connection,
    path: &Path,
    fingerprint: &str,
) -> Result<(), OpenError> {
    let database = |cause| OpenError::Database { path: path.to_owned(), cause };
    let known = server_value(connection, "secret_fingerprint").map_err(database)?;
    match known {
        Some(known) if known == fingerprint => Ok(()),
        Some(_) => Err(OpenError::OtherSecretKey(path.to_owned())),
        None => connection
            .execute(UPSERT_SERVER, params!["secret_fingerprint", fingerprint])
            .map(|_| ())
            .map_err(database),
    }
}

/// Refuses a file whose audit log has no chain, or that is of another secret key; changes nothing.
pub(super) fn check_audited(
    connection: &Connection,
    path: &Path,
    fingerprint: &str,
) -> Result<(), OpenError> {
    let SchemaStatus { found, .. } = status(connection, path)?;
    if found < CHAINED {
        return Err(OpenError::OlderSchema { path: path.to_owned(), found, needed: CHAINED });
    }
    match describe(connection, path)?.secret_fingerprint {
        Some(of_file) if of_file != fingerprint => Err(OpenError::OtherSecretKey(path.to_owned())),
        Some(_) | None => Ok(()),
    }
}

/// What a file says about itself, without changing it.
pub(super) struct Described {
    /// Tells which secret key its keys are hashed with; none were made when there is nothing.
    pub(super) secret_fingerprint: Option<String>,
}

/// Reads whether a file is one of ours, and one that this binary can use.
pub(super) fn describe(connection: &Connection, path: &Path) -> Result<Described, OpenError> {
    let database = |cause| OpenError::Database { path: path.to_owned(), cause };
    check_version(connection, path)?;
    let secret_fingerprint = server_value(connection, "secret_fingerprint").map_err(database)?;
    Ok(Described { secret_fingerprint })
}

fn server_value(connection: &Connection, name: &str) -> rusqlite::Result<Option<String>> {
    connection.query_row(SELECT_SERVER, params![name], |row| row.get(0)).optional()
}
