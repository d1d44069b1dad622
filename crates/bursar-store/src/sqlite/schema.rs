//! The schema of the data file: forward-only migrations.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params};

use super::error::OpenError;
use crate::schema::{Migration, SchemaStatus};
use crate::tables::server::{SELECT_SERVER, UPSERT_SERVER};

const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    sql: include_str!("../../migrations/sqlite/0001_schema.sql"),
    oldest_known: 1,
}];

/// Migrates the file to the newest schema that this binary knows.
pub(super) fn migrate(connection: &mut Connection, path: &Path) -> Result<(), OpenError> {
    migrate_to(connection, path, MIGRATIONS)
}

/// Applies the migrations that the file does not have yet.
fn migrate_to(
    connection: &mut Connection,
    path: &Path,
    migrations: &[Migration],
) -> Result<(), OpenError> {
    let database = |cause| OpenError::Database { path: path.to_owned(), cause };
    let found = check_version(status_of(connection, path, migrations)?, path)?;
    for migration in migrations.iter().filter(|migration| migration.version > found) {
        if found > 0 {
            // A large file takes a while, and this line is the only sign of progress.
            let to = migration.version;
            tracing::info!(from = found, to, "migrating the schema");
        }
        apply(connection, migration).map_err(database)?;
    }
    Ok(())
}

/// The version of the file's schema, if this binary can use it.
fn check_version(status: SchemaStatus, path: &Path) -> Result<u32, OpenError> {
    let SchemaStatus { found, known, oldest_known } = status;
    if found > known && oldest_known > known {
        return Err(OpenError::NewerSchema { path: path.to_owned(), found, known });
    }
    Ok(found)
}

/// The schema version of a file.
pub(super) fn status(connection: &Connection, path: &Path) -> Result<SchemaStatus, OpenError> {
    status_of(connection, path, MIGRATIONS)
}

fn status_of(
    connection: &Connection,
    path: &Path,
    migrations: &[Migration],
) -> Result<SchemaStatus, OpenError> {
    let database = |cause| OpenError::Database { path: path.to_owned(), cause };
    let found: u32 =
        connection.query_row("pragma user_version", [], |row| row.get(0)).map_err(database)?;
    let known = migrations.last().map_or(0, |last| last.version);
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

/// Refuses a file without a schema, and one of another secret key; changes nothing.
pub(super) fn check_audited(
    connection: &Connection,
    path: &Path,
    fingerprint: &str,
) -> Result<(), OpenError> {
    if status(connection, path)?.found == 0 {
        return Err(OpenError::NoSchema(path.to_owned()));
    }
    match secret_fingerprint(connection, path)? {
        Some(of_file) if of_file != fingerprint => Err(OpenError::OtherSecretKey(path.to_owned())),
        Some(_) | None => Ok(()),
    }
}

/// The fingerprint of the secret key with which the file's keys are hashed.
///
/// It is `None` if no server was started with the file. Fails if this binary cannot use the file.
pub(super) fn secret_fingerprint(
    connection: &Connection,
    path: &Path,
) -> Result<Option<String>, OpenError> {
    let database = |cause| OpenError::Database { path: path.to_owned(), cause };
    check_version(status(connection, path)?, path)?;
    server_value(connection, "secret_fingerprint").map_err(database)
}

fn server_value(connection: &Connection, name: &str) -> rusqlite::Result<Option<String>> {
    connection.query_row(SELECT_SERVER, params![name], |row| row.get(0)).optional()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Migration = Migration {
        version: 1,
        sql: "create table server (name text primary key, value text not null);
             create table things (thing_id integer primary key)",
        oldest_known: 1,
    };
    const EXPANDED: Migration =
        Migration { version: 2, sql: "alter table things add column name text", oldest_known: 1 };
    const CONTRACTED: Migration =
        Migration { version: 3, sql: "drop table things", oldest_known: 3 };
    const BROKEN: Migration =
        Migration { version: 2, sql: "drop table things; drop table others", oldest_known: 2 };

    fn migrated(db: &mut Connection, migrations: &[Migration]) -> Result<SchemaStatus, OpenError> {
        let path = Path::new("bursar.db");
        migrate_to(db, path, migrations)?;
        status_of(db, path, migrations)
    }

    #[test]
    fn a_later_migration_keeps_existing_rows() {
        let mut db = Connection::open_in_memory().unwrap();
        migrated(&mut db, &[FIRST]).unwrap();
        db.execute("insert into things (thing_id) values (7)", []).unwrap();
        for _ in 0..2 {
            let status = migrated(&mut db, &[FIRST, EXPANDED]).unwrap();
            assert_eq!(status, SchemaStatus { found: 2, known: 2, oldest_known: 1 });
        }
        let kept = db.query_row("select thing_id, name from things", [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, Option<String>>(1)?))
        });
        assert_eq!(kept.unwrap(), (7, None));
    }

    #[test]
    fn an_older_binary_is_refused_only_after_an_incompatible_migration() {
        let mut db = Connection::open_in_memory().unwrap();
        migrated(&mut db, &[FIRST, EXPANDED]).unwrap();
        let status = migrated(&mut db, &[FIRST]).unwrap();
        assert_eq!((status.found, status.is_usable()), (2, true));
        migrated(&mut db, &[FIRST, EXPANDED, CONTRACTED]).unwrap();
        for older in [&[FIRST][..], &[FIRST, EXPANDED]] {
            let refused = migrated(&mut db, older).unwrap_err();
            assert!(matches!(refused, OpenError::NewerSchema { found: 3, .. }), "{refused}");
        }
    }

    #[test]
    fn a_failed_migration_changes_nothing() {
        let mut db = Connection::open_in_memory().unwrap();
        migrated(&mut db, &[FIRST]).unwrap();
        migrated(&mut db, &[FIRST, BROKEN]).unwrap_err();
        let status = migrated(&mut db, &[FIRST]).unwrap();
        assert_eq!(status, SchemaStatus { found: 1, known: 1, oldest_known: 1 });
        db.execute("insert into things (thing_id) values (7)", []).unwrap();
    }
}
