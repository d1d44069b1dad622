//! The trait [`Columns`]: a row's columns by position, on any database.
//!
//! Each database implements how to read a number, a text, bytes and a boolean.
//! [`crate::rows::decode`] decodes rows through this trait.

use bursar_core::Timestamp;

use crate::error::StoreError;
use crate::rows::codec;

/// The columns of a row by position, from 0, as each database reads them.
pub trait RawColumns {
    /// An integer of any width; `None` for null.
    ///
    /// # Errors
    /// [`StoreError`] if the column is missing or has another type, as for every method here.
    fn opt_number(&self, at: usize) -> Result<Option<i64>, StoreError>;

    /// A text; `None` for null.
    fn opt_str(&self, at: usize) -> Result<Option<&str>, StoreError>;

    /// Bytes; `None` for null.
    fn opt_bytes(&self, at: usize) -> Result<Option<&[u8]>, StoreError>;

    /// A boolean.
    fn flag(&self, at: usize) -> Result<bool, StoreError>;
}

/// Typed reads of columns by position, from 0.
pub(crate) trait Columns: RawColumns {
    /// An integer; `None` for null.
    fn opt_int<T: TryFrom<i64>>(&self, at: usize) -> Result<Option<T>, StoreError> {
        let Some(number) = self.opt_number(at)? else { return Ok(None) };
        let too_large = |_| StoreError::Corrupt(format!("{number} in column {at} does not fit"));
        T::try_from(number).map(Some).map_err(too_large)
    }

    /// An integer.
    fn int<T: TryFrom<i64>>(&self, at: usize) -> Result<T, StoreError> {
        self.opt_int(at)?.ok_or_else(|| missing(at))
    }

    /// A borrowed text.
    fn str(&self, at: usize) -> Result<&str, StoreError> {
        self.opt_str(at)?.ok_or_else(|| missing(at))
    }

    /// An owned text; `None` for null.
    fn opt_text<T: for<'a> From<&'a str>>(&self, at: usize) -> Result<Option<T>, StoreError> {
        Ok(self.opt_str(at)?.map(T::from))
    }

    /// An owned text.
    fn text<T: for<'a> From<&'a str>>(&self, at: usize) -> Result<T, StoreError> {
        self.str(at).map(T::from)
    }

    /// `N` bytes.
    fn bytes<const N: usize>(&self, at: usize) -> Result<[u8; N], StoreError> {
        let bytes = self.opt_bytes(at)?.ok_or_else(|| missing(at))?;
        let of_other_size =
            |_| StoreError::Corrupt(format!("{} bytes in column {at}, not {N}", bytes.len()));
        bytes.try_into().map_err(of_other_size)
    }

    fn instant(&self, at: usize) -> Result<Timestamp, StoreError> {
        codec::timestamp(self.int(at)?)
    }

    /// An instant; `None` for null.
    fn opt_instant(&self, at: usize) -> Result<Option<Timestamp>, StoreError> {
        self.opt_number(at)?.map(codec::timestamp).transpose()
    }

    /// An id; `None` for null.
    fn opt_id<T>(
        &self,
        at: usize,
        make: impl FnOnce(i64) -> Option<T>,
    ) -> Result<Option<T>, StoreError> {
        self.opt_number(at)?.map(|number| codec::id(make, number)).transpose()
    }

    /// An id, from its number.
    fn id<T>(&self, at: usize, make: impl FnOnce(i64) -> Option<T>) -> Result<T, StoreError> {
        codec::id(make, self.int(at)?)
    }
}

impl<R: RawColumns + ?Sized> Columns for R {}

fn missing(at: usize) -> StoreError {
    StoreError::Corrupt(format!("column {at} is null"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A row of one column.
    struct One(Option<i64>, Option<&'static str>, Option<&'static [u8]>);

    impl RawColumns for One {
        fn opt_number(&self, _: usize) -> Result<Option<i64>, StoreError> {
            Ok(self.0)
        }

        fn opt_str(&self, _: usize) -> Result<Option<&str>, StoreError> {
            Ok(self.1)
        }

        fn opt_bytes(&self, _: usize) -> Result<Option<&[u8]>, StoreError> {
            Ok(self.2)
        }

        fn flag(&self, _: usize) -> Result<bool, StoreError> {
            Ok(false)
        }
    }

    #[test]
    fn a_number_that_does_not_fit_is_corrupt_and_not_truncated() {
        let row = One(Some(i64::from(u32::MAX) + 1), Some("text"), Some(&[1, 2, 3]));
        assert!(matches!(row.int::<u32>(0), Err(StoreError::Corrupt(_))));
        assert!(matches!(row.opt_int::<i32>(0), Err(StoreError::Corrupt(_))));
        assert!(matches!(row.bytes::<4>(0), Err(StoreError::Corrupt(_))));
        assert_eq!(row.int::<i64>(0).expect("it fits"), 4_294_967_296);
        assert_eq!(row.bytes::<3>(0).expect("it fits"), [1, 2, 3]);
    }

    #[test]
    fn null_is_accepted_only_in_optional_columns() {
        let row = One(None, None, None);
        assert_eq!(row.opt_int::<i64>(0).expect("nothing"), None);
        assert_eq!(row.opt_text::<String>(0).expect("nothing"), None);
        assert_eq!(row.opt_instant(0).expect("nothing"), None);
        assert!(matches!(row.int::<i64>(0), Err(StoreError::Corrupt(_))));
        assert!(matches!(row.text::<String>(0), Err(StoreError::Corrupt(_))));
        assert!(matches!(row.instant(0), Err(StoreError::Corrupt(_))));
    }
}
