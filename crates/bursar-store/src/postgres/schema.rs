//! The schema of the database: a ladder of migrations, forward only, climbed when an operator says
//! so.

use tokio_postgres::Client;

use super::error::OpenPostgresError;
use super::settings;
use super::tx::{self, Messages, params};
use crate::schema::{Migration, SchemaStatus};

const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    sql: include_str!("../../migrations/postgres/0001_schema.sql"),
    oldest_known: 1,
}];

/// A schema that an operator was told of is on stable storage.
const BEGIN: &str = "begin; set local synchronous_commit = on";
/// Two that change the schema at once take turns.
const LOCK_SCHEMA: &str = "select pg_advisory_xact_lock(4811563087)";
const SELECT_SERVER: &str = "select value from server where name = $1";
const UPSERT_SERVER: &str = "insert into server (name, value) values ($1, $2) \
     on conflict (name) do update set value = excluded.value";
const INSERT_SERVER: &str =
    "insert into server (name, value) values ($1, $2) on conflict (name) do nothing";
const HAS_SCHEMA: &str = "select to_regclass('server') is not null";

/// What the application's role may do with each table: what is append-only is so for it too.
const GRANTS: &[(&str, &str)] = &[
    ("select, insert", "server, usage_entries, audit"),
    ("select, insert, update", "tenants, integrations, counters"),
    ("select, insert, update, delete", "keys"),
    ("select, insert, update", "audit_heads, open_reservations, stored_bytes"),
    ("select, insert, update", "rate_slots, rollups, rollup_label_counts, leases"),
    ("select, insert", "rollup_labels"),
    ("select, insert, update, delete", "calls, decisions, signals"),
    ("select, insert, update", "protection_overrides"),
    ("select, update", "clock, id_numbers"),
    ("insert, truncate", "write_probe"),
];

/// Reads what a database's schema is.
pub(super) async fn status(client: &Client) -> Result<SchemaStatus, tokio_postgres::Error> {
    let known = MIGRATIONS.last().map_or(0, |last| last.version);
    let has_schema: bool = client.query_typed_one(HAS_SCHEMA, params![]).await?.get(0);
    let (found, oldest_known) = if has_schema {
        let found = number(client, "schema_version").await?.unwrap_or(0);
        (found, number(client, "oldest_known").await?.unwrap_or(found))
    } else {
        (0, 0)
    };
    Ok(SchemaStatus { found, known, oldest_known })
}

/// Brings the schema up to the newest version that this binary knows, and lets the application's
/// role use it. What is there already stays; running it again changes nothing.
pub(super) async fn migrate(
    client: &Client,
    app_role: &str,
) -> Result<SchemaStatus, OpenPostgresError> {
    settings::check_encoding(client).await?;
    tx::set(client, BEGIN, Messages::Separate).await?;
    client.batch_execute(LOCK_SCHEMA).await?;
    let status = status(client).await?;
    let newer = status.found > status.known && !status.is_usable();
    if newer {
        return Err(OpenPostgresError::NewerSchema { found: status.found, known: status.known });
    }
    for migration in MIGRATIONS.iter().filter(|step| step.version > status.found) {
        client.batch_execute(migration.sql).await?;
        set(client, "schema_version", &migration.version.to_string()).await?;
        set(client, "oldest_known", &migration.oldest_known.to_string()).await?;
    }
    let role = format!("\"{}\"", app_role.replace('"', "\"\""));
    for (rights, tables) in GRANTS {
        client.batch_execute(&format!("grant {rights} on {tables} to {role}")).await?;
    }
    let after = self::status(client).await?;
    client.batch_execute("commit").await?;
    Ok(after)
}

/// Ties the database to the secret key with which its keys are hashed: every node must have it.
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

/// Refuses a database of another secret key; changes nothing.
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
