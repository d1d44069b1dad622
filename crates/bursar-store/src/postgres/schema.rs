//! The schema of the database: forward-only migrations, which the operator starts.

use tokio_postgres::Client;

use super::error::OpenPostgresError;
use super::settings;
use super::tx::{self, Messages, params};
use crate::schema::{Migration, SchemaStatus};
use crate::tables::server::{SELECT_SERVER, UPSERT_SERVER};

const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    sql: include_str!("../../migrations/postgres/0001_schema.sql"),
    oldest_known: 1,
}];

/// The commit is durable before `bursar db migrate` reports success.
const BEGIN: &str = "begin; set local synchronous_commit = on";
/// Concurrent migrations run one after the other.
const LOCK_SCHEMA: &str = "select pg_advisory_xact_lock(4811563087)";
const INSERT_SERVER: &str =
    "insert into server (name, value) values ($1, $2) on conflict (name) do nothing";
const HAS_SCHEMA: &str = "select to_regclass('server') is not null";

/// The privileges of the application's role. Append-only tables are append-only for it too.
const GRANTS: &[(&str, &str)] = &[
    ("select, insert", "server, usage_entries, audit"),
    ("select, insert, update", "tenants, integrations, counters"),
    ("select, insert, update, delete", "keys"),
    ("select, insert, update", "audit_heads, open_reservations, stored_bytes"),
    ("select, insert, update", "rate_slots, rollups, rollup_label_counts, leases"),
    ("select, insert", "rollup_labels"),
    ("select, insert, update, delete", "calls, decisions, signals"),
    ("select, insert, update", "reservations, limit_sets"),
    ("select, insert, update, delete", "limits, limit_accounts, limit_seconds, limit_values"),
    ("select, insert, update, delete", "postings"),
    ("select, insert, update", "protection_overrides"),
    ("select, insert, delete", "tag_names"),
    ("select, update", "clock, id_numbers"),
    ("insert, truncate", "write_probe"),
];

/// The schema version of a database.
pub(super) async fn status(client: &Client) -> Result<SchemaStatus, tokio_postgres::Error> {
    status_of(client, MIGRATIONS).await
}

async fn status_of(
    client: &Client,
    migrations: &[Migration],
) -> Result<SchemaStatus, tokio_postgres::Error> {
    let known = migrations.last().map_or(0, |last| last.version);
    let has_schema: bool = client.query_typed_one(HAS_SCHEMA, params![]).await?.get(0);
    let (found, oldest_known) = if has_schema {
        let found = number(client, "schema_version").await?.unwrap_or(0);
        (found, number(client, "oldest_known").await?.unwrap_or(found))
    } else {
        (0, 0)
    };
    Ok(SchemaStatus { found, known, oldest_known })
}

/// Migrates the schema to the newest version that this binary knows, and grants privileges to the
/// application's role.
///
/// Existing rows are kept, and running it again changes nothing.
pub(super) async fn migrate(
    client: &Client,
    app_role: &str,
) -> Result<SchemaStatus, OpenPostgresError> {
    migrate_to(client, app_role, MIGRATIONS).await
}

/// Applies the migrations that the database does not have yet, in one transaction.
async fn migrate_to(
    client: &Client,
    app_role: &str,
    migrations: &[Migration],
) -> Result<SchemaStatus, OpenPostgresError> {
    settings::check_encoding(client).await?;
    tx::set(client, BEGIN, Messages::Separate).await?;
    client.batch_execute(LOCK_SCHEMA).await?;
    let status = status_of(client, migrations).await?;
    let newer = status.found > status.known && !status.is_usable();
    if newer {
        return Err(OpenPostgresError::NewerSchema { found: status.found, known: status.known });
    }
    for migration in migrations.iter().filter(|step| step.version > status.found) {
        client.batch_execute(migration.sql).await?;
        set(client, "schema_version", &migration.version.to_string()).await?;
        set(client, "oldest_known", &migration.oldest_known.to_string()).await?;
    }
    let role = format!("\"{}\"", app_role.replace('"', "\"\""));
    for (rights, tables) in GRANTS {
        client.batch_execute(&format!("grant {rights} on {tables} to {role}")).await?;
    }
    let after = status_of(client, migrations).await?;
    client.batch_execute("commit").await?;
    Ok(after)
}

/// Ties the database to the secret key with which its keys are hashed. All nodes must have it.
pub(super) async fn check_secret(
    client: &Client,
    fingerprint: &str,
) -> Result<(), OpenPostgresError> {
    let name = "secret_fingerprint";
    client.execute_typed(INSERT_SERVER, params![name, fingerprint]).await?;
    match value(client, name).await? {
        Some(known) if known == fingerprint => Ok(()),
        Some(_) | None => Err(OpenPostgresError::OtherSecretKey),
    }
}

/// Refuses a database of another secret key, without changing anything.
pub(super) async fn check_for_reading(
    client: &Client,
    fingerprint: &str,
) -> Result<(), OpenPostgresError> {
    match value(client, "secret_fingerprint").await? {
        Some(known) if known != fingerprint => Err(OpenPostgresError::OtherSecretKey),
        Some(_) | None => Ok(()),
    }
}

async fn set(client: &Client, name: &str, value: &str) -> Result<(), tokio_postgres::Error> {
    client.execute_typed(UPSERT_SERVER, params![name, value]).await.map(|_| ())
}

async fn value(client: &Client, name: &str) -> Result<Option<String>, tokio_postgres::Error> {
    let row = client.query_typed_opt(SELECT_SERVER, params![name]).await?;
    row.map(|row| row.try_get(0)).transpose()
}

async fn number(client: &Client, name: &str) -> Result<Option<u32>, tokio_postgres::Error> {
    Ok(value(client, name).await?.and_then(|text| text.parse().ok()))
}

#[cfg(test)]
mod tests {
    use bursar_testing::postgres::cluster::Cluster;
    use bursar_testing::postgres::database::Database;
    use bursar_testing::postgres::session::{block_on, connect};

    use super::*;

    const EXPANDED: Migration =
        Migration { version: 2, sql: "alter table server add column note text", oldest_known: 1 };
    const CONTRACTED: Migration =
        Migration { version: 3, sql: "alter table server drop column note", oldest_known: 3 };
    const BROKEN: Migration = Migration {
        version: 2,
        sql: "alter table server add column note text; drop table others",
        oldest_known: 2,
    };

    /// Applies the first migration of the binary, and then `more`.
    fn migrated(
        database: &Database,
        more: Vec<Migration>,
    ) -> Result<SchemaStatus, OpenPostgresError> {
        let first = MIGRATIONS.iter().take(1).map(|first| Migration { ..*first });
        let migrations: Vec<Migration> = first.chain(more).collect();
        block_on(async {
            let client = connect(database.owner_url()).await.unwrap();
            migrate_to(&client, database.app_role(), &migrations).await
        })
    }

    /// The rows of the table `server`.
    fn server(database: &Database) -> Vec<Vec<Option<String>>> {
        database.run("table server")
    }

    #[test]
    fn a_later_migration_keeps_existing_rows() {
        let database = Database::new(Cluster::shared());
        migrated(&database, vec![]).unwrap();
        block_on(async {
            let client = connect(database.owner_url()).await.unwrap();
            check_secret(&client, "fingerprint").await
        })
        .unwrap();
        for _ in 0..2 {
            let status = migrated(&database, vec![EXPANDED]).unwrap();
            assert_eq!(status, SchemaStatus { found: 2, known: 2, oldest_known: 1 });
        }
        let kept = ["secret_fingerprint", "fingerprint"].map(|text| Some(text.to_owned()));
        assert!(server(&database).contains(&[&kept[..], &[None]].concat()));
    }

    #[test]
    fn an_older_binary_is_refused_only_after_an_incompatible_migration() {
        let database = Database::new(Cluster::shared());
        migrated(&database, vec![EXPANDED]).unwrap();
        let status = migrated(&database, vec![]).unwrap();
        assert_eq!((status.found, status.is_usable()), (2, true));
        migrated(&database, vec![EXPANDED, CONTRACTED]).unwrap();
        for older in [vec![], vec![EXPANDED]] {
            let refused = migrated(&database, older).unwrap_err();
            let is_newer = matches!(refused, OpenPostgresError::NewerSchema { found: 3, .. });
            assert!(is_newer, "{refused}");
        }
    }

    #[test]
    fn a_failed_migration_changes_nothing() {
        let database = Database::new(Cluster::shared());
        migrated(&database, vec![]).unwrap();
        migrated(&database, vec![BROKEN]).unwrap_err();
        let status = migrated(&database, vec![]).unwrap();
        assert_eq!(status, SchemaStatus { found: 1, known: 1, oldest_known: 1 });
        assert!(server(&database).iter().all(|row| row.len() == 2));
    }
}
