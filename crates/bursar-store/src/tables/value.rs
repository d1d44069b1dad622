//! Statements of tables, their values and their rows, for both databases.

use bursar_core::{DecisionId, IntegrationId, KeyId, LimitId, SignalId, TenantId, Timestamp};

use crate::error::StoreError;
use crate::rows::columns::RawColumns;

/// A value of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Int(Option<i64>),
    Text(Option<String>),
    Bytes(Option<Vec<u8>>),
}

/// A statement in the dialect of each database. They differ in locks and index hints.
#[derive(Clone, Copy, Debug)]
pub struct Sql {
    pub sqlite: &'static str,
    pub postgres: &'static str,
}

impl From<&'static str> for Sql {
    fn from(sql: &'static str) -> Self {
        Self { sqlite: sql, postgres: sql }
    }
}

/// A statement that reads rows before they are changed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LockedSql {
    /// For a database with one writer.
    pub(crate) plain: &'static str,
    /// Locks the rows until the end of the transaction.
    pub(crate) locked: &'static str,
}

/// SQLite has one writer, and needs no locks.
impl From<LockedSql> for Sql {
    fn from(sql: LockedSql) -> Self {
        Self { sqlite: sql.plain, postgres: sql.locked }
    }
}

/// A [`LockedSql`] from a `select`.
macro_rules! locked {
    ($select:literal) => {
        $crate::tables::value::LockedSql {
            plain: $select,
            locked: concat!($select, " for no key update"),
        }
    };
}
pub(crate) use locked;

/// A row type that knows its columns.
pub(crate) trait FromRow: Sized + Send + 'static {
    /// Reads the columns that the statements of its table select.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when a column holds what was never written.
    fn from_row(row: &dyn RawColumns) -> Result<Self, StoreError>;
}

/// The number in the only column of a row.
impl FromRow for i64 {
    fn from_row(row: &dyn RawColumns) -> Result<Self, StoreError> {
        use crate::rows::columns::Columns;
        row.int(0)
    }
}

/// A type that can be a value of a statement.
pub(crate) trait ToValue {
    /// The absence of a value of this type.
    const NULL: Value;

    fn to_value(&self) -> Value;
}

/// The values of a statement, in the order of their numbers.
macro_rules! values {
    ($($value:expr),* $(,)?) => { [$($crate::tables::value::ToValue::to_value(&$value)),*] };
}
pub(crate) use values;

impl<T: ToValue + ?Sized> ToValue for &T {
    const NULL: Value = T::NULL;

    fn to_value(&self) -> Value {
        T::to_value(self)
    }
}

impl<T: ToValue> ToValue for Option<T> {
    const NULL: Value = T::NULL;

    fn to_value(&self) -> Value {
        self.as_ref().map_or(T::NULL, T::to_value)
    }
}

macro_rules! numbers {
    ($($of:ty => $number:expr;)+) => {
        $(impl ToValue for $of {
            const NULL: Value = Value::Int(None);

            fn to_value(&self) -> Value {
                Value::Int(Some($number(*self)))
            }
        })+
    };
}
numbers! {
    i64 => i64::from;
    u32 => i64::from;
    Timestamp => Timestamp::micros;
    TenantId => TenantId::number;
    IntegrationId => IntegrationId::number;
    KeyId => KeyId::number;
    LimitId => LimitId::number;
    DecisionId => DecisionId::number;
    SignalId => SignalId::number;
}

impl ToValue for str {
    const NULL: Value = Value::Text(None);

    fn to_value(&self) -> Value {
        Value::Text(Some(self.to_owned()))
    }
}

impl ToValue for String {
    const NULL: Value = Value::Text(None);

    fn to_value(&self) -> Value {
        Value::Text(Some(self.clone()))
    }
}

impl<const N: usize> ToValue for [u8; N] {
    const NULL: Value = Value::Bytes(None);

    fn to_value(&self) -> Value {
        Value::Bytes(Some(self.to_vec()))
    }
}
