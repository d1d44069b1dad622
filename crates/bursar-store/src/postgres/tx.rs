//! Transactions, parameters and errors of PostgreSQL.
//!
//! Statements are unnamed and name the types of their parameters, so that each takes one round trip
//! and leaves nothing in the session, which a pooler may share.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bursar_core::{CallKey, TenantId};
use bytes::{BufMut, BytesMut};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

use super::pipeline::{Sent, in_order};
use crate::error::{NotWritable, StoreError};

/// A value and its type in the database.
pub(super) type Param<'a> = (&'a (dyn ToSql + Sync), Type);

/// A Rust type with a fixed type in the database.
pub(super) trait Typed: ToSql + Sync {
    const TYPE: Type;
}

macro_rules! typed {
    ($($rust:ty => $type:ident, $array:ident;)+) => {
        $(impl Typed for $rust {
            const TYPE: Type = Type::$type;
        }
        impl Typed for Option<$rust> {
            const TYPE: Type = Type::$type;
        }
        impl Typed for Vec<$rust> {
            const TYPE: Type = Type::$array;
        }
        impl Typed for Vec<Option<$rust>> {
            const TYPE: Type = Type::$array;
        })+
    };
}

typed! {
    i64 => INT8, INT8_ARRAY;
    bool => BOOL, BOOL_ARRAY;
    &str => TEXT, TEXT_ARRAY;
    String => TEXT, TEXT_ARRAY;
    &[u8] => BYTEA, BYTEA_ARRAY;
    Key => UUID, UUID_ARRAY;
}

/// A value as a parameter.
pub(super) fn param<T: Typed>(value: &T) -> Param<'_> {
    (value, T::TYPE)
}

/// The parameters of a statement, in the order of their numbers.
macro_rules! params {
    ($($value:expr),* $(,)?) => { &[$(crate::postgres::tx::param(&$value)),*] };
}
pub(super) use params;

/// The key of a call id, stored as a UUID, which the database compares as 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key(pub(super) CallKey);

impl ToSql for Key {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.put_u128(self.0.0);
        Ok(IsNull::No)
    }

    fn accepts(of: &Type) -> bool {
        *of == Type::UUID
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Key {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(CallKey(u128::from_be_bytes(raw.try_into()?))))
    }

    fn accepts(of: &Type) -> bool {
        *of == Type::UUID
    }
}

/// The number of messages for the statements that begin a transaction and change its settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Messages {
    /// One message, which takes the database the least time.
    Joined,
    /// One message for each statement, sent without waiting for replies. Citus repeats a `set local`
    /// on the nodes of the cluster together with its whole message.
    Separate,
}

/// The settings of every transaction that writes, besides its tenant:
/// - `lock_timeout`, `statement_timeout` and `idle_in_transaction_session_timeout` ensure that a node
///   that hangs does not hold locks for long. The database ends an idle transaction before others
///   give up on its locks, so that they are served late instead of refused. A node that works is
///   idle between two statements for milliseconds; one that was paused retries.
/// - `synchronous_commit`: an acknowledged commit is on stable storage, even if the setting is off
///   for the role or the database.
///
/// A pooler may share the session, so they cannot be set once for it. The planner needs no settings:
/// statements look rows up key by key (`cross join lateral ... limit 1`).
const WRITE_SETTINGS: &str = "set local lock_timeout = '5s'; set local statement_timeout = '15s'; \
     set local idle_in_transaction_session_timeout = '3500ms'; set local synchronous_commit = on";

/// The statements that begin a transaction that writes.
pub(super) fn begin_write(tenant_id: Option<TenantId>) -> String {
    let tenant = then_set_tenant(tenant_id);
    format!("begin isolation level read committed{tenant}; {WRITE_SETTINGS}")
}

/// The statements that begin a read-only transaction on one snapshot, with a statement timeout.
pub(super) fn begin_read(tenant_id: Option<TenantId>, time_max: Duration) -> String {
    let tenant = then_set_tenant(tenant_id);
    let time_max_ms = time_max.as_millis();
    format!(
        "begin isolation level repeatable read read only{tenant}; \
         set local statement_timeout = '{time_max_ms}ms'; \
         set local idle_in_transaction_session_timeout = '60s'"
    )
}

fn then_set_tenant(tenant_id: Option<TenantId>) -> String {
    tenant_id.map(|tenant_id| format!("; {}", set_tenant(tenant_id))).unwrap_or_default()
}

/// The statement that sets the tenant whose rows the rest of the transaction sees.
pub(super) fn set_tenant(tenant_id: TenantId) -> String {
    format!("set local bursar.tenant_id = '{}'", tenant_id.number())
}

/// Sends statements that are separated by `; `, and waits for all replies. The first poll sends all
/// of them.
pub(super) async fn set(
    client: &Client,
    statements: &str,
    messages: Messages,
) -> Result<(), tokio_postgres::Error> {
    match messages {
        Messages::Joined => client.batch_execute(statements).await,
        Messages::Separate => {
            let each = statements
                .split("; ")
                .map(|statement| -> Sent<'_, (), _> { Box::pin(client.batch_execute(statement)) });
            in_order(each.collect()).await.map(|_| ())
        }
    }
}

/// An error of the database, without the row values that its detail may quote.
#[derive(Debug)]
struct RedactedError {
    code: String,
    message: String,
}

impl fmt::Display for RedactedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

impl Error for RedactedError {}

/// The text of an error, without the row values that its detail may quote.
pub(super) fn redacted_text(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{} ({})", db.message(), db.code().code()),
        None => match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
    }
}

/// Converts an error before the commit was sent, when nothing of the transaction is stored.
pub(super) fn store_error(error: tokio_postgres::Error) -> StoreError {
    let Some(db) = error.as_db_error() else {
        return if error.is_closed() || is_of_connection(&error) {
            StoreError::Retry(Arc::new(error))
        } else {
            StoreError::Unavailable(Arc::new(error))
        };
    };
    let state = db.code().clone();
    let (code, message) = (state.code().to_owned(), db.message().to_owned());
    let class = code.get(..2).unwrap_or_default().to_owned();
    let cause = Arc::new(RedactedError { code, message });
    if state == SqlState::UNIQUE_VIOLATION {
        return StoreError::Exists(cause);
    }
    if state == SqlState::QUERY_CANCELED || state == SqlState::T_R_STATEMENT_COMPLETION_UNKNOWN {
        return StoreError::Unavailable(cause);
    }
    let not_writable = |reason| StoreError::NotWritable { reason, cause: cause.clone() };
    if state == SqlState::NUMERIC_VALUE_OUT_OF_RANGE {
        // The database does not name the sum.
        return StoreError::TotalsOverflow("a stored sum".to_owned());
    }
    if state == SqlState::READ_ONLY_SQL_TRANSACTION {
        return not_writable(NotWritable::ReadOnly);
    }
    if state == SqlState::DISK_FULL {
        return not_writable(NotWritable::DiskFull);
    }
    if state == SqlState::IO_ERROR {
        return not_writable(NotWritable::DiskFailing);
    }
    match class.as_str() {
        // A value, a constraint, or a limit of the database.
        "22" | "23" | "54" => StoreError::Statement(cause),
        // A serialization failure or a deadlock; a lost connection; a server that shuts down or
        // starts.
        "40" | "08" | "57" => StoreError::Retry(cause),
        _ => StoreError::Unavailable(cause),
    }
}

fn is_of_connection(error: &tokio_postgres::Error) -> bool {
    error.source().is_some_and(|source| source.is::<std::io::Error>())
}

/// Converts an error after the commit was sent: unless the database refused the commit, its result
/// is unknown.
pub(super) fn commit_error(error: tokio_postgres::Error) -> StoreError {
    let refused = [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED];
    let code = error.as_db_error().map(|db| db.code().clone());
    match code {
        Some(code) if refused.contains(&code) => store_error(error),
        // A deferred constraint.
        Some(code) if code.code().starts_with("23") => store_error(error),
        Some(_) | None => StoreError::Unavailable(Arc::new(error)),
    }
}
