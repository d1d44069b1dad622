//! Checks the settings of a database before a server uses it.

use tokio_postgres::Client;

use super::error::OpenPostgresError;
use super::tx::{Messages, params};

/// The oldest PostgreSQL that is supported.
const OLDEST_VERSION: i64 = 140_000;

const SETTINGS: &str = "select current_setting('server_version_num')::bigint, \
     current_setting('fsync'), current_setting('full_page_writes'), \
     current_setting('synchronous_commit'), pg_is_in_recovery()";
const ENCODINGS: &str =
    "select current_setting('server_encoding'), current_setting('client_encoding')";
/// This setting exists only if the Citus library is loaded.
const HAS_CITUS: &str = "select current_setting('citus.propagate_set_commands', true) is not null";
const ROLE: &str = "select rolname::text, rolsuper, rolbypassrls, \
     exists (select from pg_class where oid = to_regclass('usage_entries') \
     and pg_has_role(relowner, 'usage')) from pg_roles where rolname = current_user";

fn refuse(reason: String) -> Result<(), OpenPostgresError> {
    Err(OpenPostgresError::Setting(reason))
}

/// How transactions begin on this database.
pub(super) async fn messages(client: &Client) -> Result<Messages, OpenPostgresError> {
    let has_citus: bool = client.query_typed_one(HAS_CITUS, params![]).await?.try_get(0)?;
    Ok(if has_citus { Messages::Separate } else { Messages::Joined })
}

/// Refuses a database that cannot store all of Unicode.
pub(super) async fn check_encoding(client: &Client) -> Result<(), OpenPostgresError> {
    let row = client.query_typed_one(ENCODINGS, params![]).await?;
    let (of_database, of_client): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    if of_database != "UTF8" {
        return refuse(format!(
            "the encoding of the database is {of_database}, which cannot store every text: use a \
             database that was created with `encoding 'UTF8' template template0`"
        ));
    }
    if of_client != "UTF8" {
        return refuse(format!(
            "client_encoding is {of_client} and must be UTF8: a pooler between this server and \
             PostgreSQL sets it, so set it to UTF8 there"
        ));
    }
    Ok(())
}

/// Refuses a database that could lose acknowledged commits or show a tenant's rows to another.
pub(super) async fn check(client: &Client) -> Result<(), OpenPostgresError> {
    check_encoding(client).await?;
    let row = client.query_typed_one(SETTINGS, params![]).await?;
    let version: i64 = row.try_get(0)?;
    if version < OLDEST_VERSION {
        let version = version / 10_000;
        return refuse(format!("PostgreSQL {version} is too old: use PostgreSQL 14 or later"));
    }
    let fsync: String = row.try_get(1)?;
    if fsync != "on" {
        return refuse(format!(
            "fsync is {fsync}, so acknowledged records could be lost: set it to on in \
             postgresql.conf and restart PostgreSQL"
        ));
    }
    let full_pages: String = row.try_get(2)?;
    if full_pages != "on" {
        tracing::warn!(
            full_page_writes = full_pages,
            "a power failure can damage pages: set full_page_writes to on, unless the file system \
             prevents partial page writes"
        );
    }
    let commit: String = row.try_get(3)?;
    if commit == "off" {
        return refuse(
            "synchronous_commit is off, so acknowledged records could be lost: set it to on for \
             this role and database"
                .to_owned(),
        );
    }
    if row.try_get(4)? {
        return refuse(
            "this is a standby, which accepts no writes: use the address of the primary".to_owned(),
        );
    }
    let row = client.query_typed_one(ROLE, params![]).await?;
    let role: String = row.try_get(0)?;
    if row.try_get(1)? || row.try_get(2)? {
        return refuse(format!(
            "row level security does not apply to the role {role}: use a role that is not a \
             superuser and has no BYPASSRLS, and grant it access with `bursar db migrate \
             --app-role`"
        ));
    }
    if row.try_get(3)? {
        return refuse(format!(
            "the role {role} owns the tables: use another role, and grant it access with `bursar \
             db migrate --app-role`"
        ));
    }
    Ok(())
}
