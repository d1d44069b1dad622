//! Statements as the store sends them: unnamed, with the types of their values, so that each takes
//! one round trip and leaves nothing behind in the session.

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

/// A value, and the type as which the database reads it.
pub(super) type Param<'a> = (&'a (dyn ToSql + Sync), Type);

/// A value whose type in the database is known.
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

/// The values of a statement, in the order of their numbers.
macro_rules! params {
    ($($value:expr),* $(,)?) => { &[$(crate::postgres::tx::param(&$value)),*] };
}
pub(super) use params;

/// The key of a call id, as a UUID: 16 bytes that the database compares as they are.
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

/// In how many messages the statements travel that open a transaction and change its settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Messages {
    /// In one, which takes the database the least time.
    Joined,
    /// In one each, none waiting for the reply to the one before. Citus repeats a `set local` on the
    /// nodes of the cluster together with all of the message in which it came.
    Separate,
}

/// What every transaction that writes sets, besides its tenant:
/// - `lock_timeout`, `statement_timeout`, `idle_in_transaction_session_timeout`: how long a statement
///   waits for a lock, runs, or leaves its transaction idle, because a node that hangs must not hold
///   what others wait for. The database ends an idle transaction before others give up on its locks,
///   so that they are served late instead of refused. Between two statements a node that runs
///   computes for milliseconds; one that was paused begins anew. A statement that runs for long ends
///   even if its node is gone.
/// - `synchronous_commit`: what is acknowledged is on stable storage, even after someone turned this
///   off for the role or the database.
///
/// None of them could be set once for a session, which a pooler may share. The planner needs no
/// settings: statements look rows up key by key (`cross join lateral ... limit 1`).
const WRITE_SETTINGS: &str = "set local lock_timeout = '5s'; set local statement_timeout = '15s'; \
     set local idle_in_transaction_session_timeout = '3500ms'; set local synchronous_commit = on";

/// Opens a transaction that writes.
pub(super) fn begin_write(tenant_id: Option<TenantId>) -> String {
    let tenant = also_name(tenant_id);
    format!("begin isolation level read committed{tenant}; {WRITE_SETTINGS}")
}

/// Opens a transaction that only reads, all of one moment, and whose statements run so long at most.
pub(super) fn begin_read(tenant_id: Option<TenantId>, time_max: Duration) -> String {
    let tenant = also_name(tenant_id);
    let time_max_ms = time_max.as_millis();
    format!(
        "begin isolation level repeatable read read only{tenant}; \
         set local statement_timeout = '{time_max_ms}ms'; \
         set local idle_in_transaction_session_timeout = '60s'"
    )
}

fn also_name(tenant_id: Option<TenantId>) -> String {
    tenant_id.map(|tenant_id| format!("; {}", name_tenant(tenant_id))).unwrap_or_default()
}

/// Names the tenant whose rows the rest of a transaction sees.
pub(super) fn name_tenant(tenant_id: TenantId) -> String {
    format!("set local bursar.tenant_id = '{}'", tenant_id.number())
}

/// Sends such statements, with `; ` between them, and waits for the replies to all. When this is
/// polled first, all of them are on their way.
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

/// What the database said, without the rows that it may quote.
#[derive(Debug)]
struct Said {
    code: String,
    message: String,
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

impl Error for Said {}

/// What an error says, without the rows that the database may quote.
pub(super) fn told(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(said) => format!("{} ({})", said.message(), said.code().code()),
        None => match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
    }
}

/// What an error means before the commit was sent: nothing of the transaction is stored.
pub(super) fn store_error(error: tokio_postgres::Error) -> StoreError {
    let Some(said) = error.as_db_error() else {
        return if error.is_closed() || is_of_connection(&error) {
            StoreError::Retry(Arc::new(error))
        } else {
            StoreError::Unavailable(Arc::new(error))
        };
    };
    let state = said.code().clone();
    let (code, message) = (state.code().to_owned(), said.message().to_owned());
    let class = code.get(..2).unwrap_or_default().to_owned();
    let said = Arc::new(Said { code, message });
    if state == SqlState::UNIQUE_VIOLATION {
        return StoreError::Exists(said);
    }
    if state == SqlState::QUERY_CANCELED || state == SqlState::T_R_STATEMENT_COMPLETION_UNKNOWN {
        return StoreError::Unavailable(said);
    }
    let not_writable = |reason| StoreError::NotWritable { reason, cause: said.clone() };
    if state == SqlState::NUMERIC_VALUE_OUT_OF_RANGE {
        // What the database says of it is no business of clients.
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
        // What a value said, a constraint, and what is larger than the database takes.
        "22" | "23" | "54" => StoreError::Statement(said),
        // Serialization and deadlocks; a connection, or a server that goes or comes.
        "40" | "08" | "57" => StoreError::Retry(said),
        _ => StoreError::Unavailable(said),
    }
}

fn is_of_connection(error: &tokio_postgres::Error) -> bool {
    error.source().is_some_and(|source| source.is::<std::io::Error>())
}

/// What an error means once the commit was sent: only that it was refused is certain.
pub(super) fn commit_error(error: tokio_postgres::Error) -> StoreError {
    let refused = [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED];
    let code = error.as_db_error().map(|said| said.code().clone());
    match code {
        Some(code) if refused.contains(&code) => store_error(error),
        // A constraint that was checked at the end.
        Some(code) if code.code().starts_with("23") => store_error(error),
        Some(_) | None => StoreError::Unavailable(Arc::new(error)),
    }
}
