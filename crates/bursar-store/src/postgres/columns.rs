//! The columns of a row of PostgreSQL.

use std::error::Error;

use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, Type};

use crate::error::StoreError;
use crate::rows::columns::RawColumns;

/// An integer of any width.
struct Number(i64);

impl<'a> FromSql<'a> for Number {
    fn from_sql(of: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(match *of {
            Type::INT2 => i16::from_sql(of, raw)?.into(),
            Type::INT4 => i32::from_sql(of, raw)?.into(),
            _ => i64::from_sql(of, raw)?,
        }))
    }

    fn accepts(of: &Type) -> bool {
        [Type::INT2, Type::INT4, Type::INT8].contains(of)
    }
}

/// The stored bytes of a `bytea` or a UUID.
struct Raw<'a>(&'a [u8]);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(raw))
    }

    fn accepts(of: &Type) -> bool {
        [Type::BYTEA, Type::UUID].contains(of)
    }
}

fn get<'a, T: FromSql<'a>>(row: &'a Row, at: usize) -> Result<T, StoreError> {
    row.try_get(at).map_err(|error| StoreError::Corrupt(error.to_string()))
}

impl RawColumns for Row {
    fn opt_number(&self, at: usize) -> Result<Option<i64>, StoreError> {
        Ok(get::<Option<Number>>(self, at)?.map(|number| number.0))
    }

    fn opt_str(&self, at: usize) -> Result<Option<&str>, StoreError> {
        get(self, at)
    }

    fn opt_bytes(&self, at: usize) -> Result<Option<&[u8]>, StoreError> {
        Ok(get::<Option<Raw<'_>>>(self, at)?.map(|raw| raw.0))
    }

    fn flag(&self, at: usize) -> Result<bool, StoreError> {
        get(self, at)
    }
}
