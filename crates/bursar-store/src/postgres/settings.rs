//! What a database must be before a server trusts it with records.

use tokio_postgres::Client;

use super::OpenPostgresError;
use super::tx::params;

/// The oldest PostgreSQL that is supported.
const OLDEST_VERSION: i64 = 140_000;

const SETTINGS: &str = "select current_setting('server_version_num')::bigint, \
     current_setting('fsync'), current_setting('full_page_writes'), \
     current_setting('synchronous_commit'), pg_is_in_recovery()";
const ROLE: &str = "select rolname::text, rolsuper, rolbypassrls, \
     exists (select from pg_class where oid = to_regclass('usage_entries') \
     and pg_has_role(relowner, 'usage')) from pg_roles where rolname = current_user";

/// Refuses a database that could lose what it acknowledged, or show a tenant's rows to another.
pub(super) async fn check(client: &Client) -> Result<(), OpenPostgresError> {
    let refuse = |why: String| Err(OpenPostgresError::Setting(why));
    let row = client.query_typed_one(SETTINGS, params![]).await?;
    let version: i64 = row.try_get(0)?;
    if version < OLDEST_VERSION {
        return refuse(format!("PostgreSQL {} is too old: 14 is the oldest", version / 10_000));
    }
    let fsync: String = row.try_get(1)?;
    if fsync != "on" {
        return refuse(format!(
            "fsync is {fsync}: what is acknowledged could be lost. Set it to on in \
             postgresql.conf and restart PostgreSQL"
        ));
    }
    let full_pages: String = row.try_get(2)?;
    if full_pages != "on" {
        tracing::warn!(
            full_page_writes = full_pages,
            "a page that is half written when the power fails is lost, unless the file system \
             prevents it"
        );
    }
    let commit: String = row.try_get(3)?;
    if commit == "off" {
        return refuse(
            "synchronous_commit is off: what is acknowledged could be lost. Set it to on for this \
             role and database"
                .to_owned(),
        );
    }
    if row.try_get(4)? {
        return refuse("this is a standby, which decides nothing: name the primary".to_owned());
    }
    let row = client.query_typed_one(ROLE, params![]).await?;
    let role: String = row.try_get(0)?;
    if row.try_get(1)? || row.try_get(2)? {
        return refuse(format!(
            "row level security does not hold for the role {role}: use one that is no superuser and \
             has no BYPASSRLS, and name it to `bursar db migrate --app-role`"
        ));
    }
    if row.try_get(3)? {
        return refuse(format!(
            "the role {role} owns the tables: serve with another one, which `bursar db migrate \
             --app-role` lets use them"
        ));
    }
    Ok(())
}
