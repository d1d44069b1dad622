//! Types of settings that several sections use.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Unexpected, Visitor};

use super::setting::SettingValue;
use crate::auth::secret::{Secret, is_strong};

/// A whole number within bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Whole<const MIN: i64, const MAX: i64>(i64);

const U32_MAX: i64 = u32::MAX as i64;

/// A count of at least one.
pub(crate) type Count = Whole<1, U32_MAX>;
/// A number of seconds, at least one.
pub(crate) type Seconds = Whole<1, U32_MAX>;

impl<const MIN: i64, const MAX: i64> Whole<MIN, MAX> {
    const FITS_U32: () = assert!(0 <= MIN && MIN <= MAX && MAX <= U32_MAX);

    pub(crate) fn to_i64(self) -> i64 {
        self.0
    }

    /// The number as a `u32`. The bounds of the type must fit it.
    pub(crate) fn to_u32(self) -> u32 {
        const { Self::FITS_U32 };
        u32::try_from(self.0).unwrap_or(u32::MAX)
    }

    pub(crate) fn to_usize(self) -> usize {
        self.to_u32() as usize
    }

    /// The number as seconds.
    pub(crate) fn seconds(self) -> Duration {
        Duration::from_secs(self.to_u32().into())
    }
}

impl<const MIN: i64, const MAX: i64> SettingValue for Whole<MIN, MAX> {
    const BOUNDS: Option<(i64, i64)> =
        if MIN <= 1 && MAX >= U32_MAX { None } else { Some((MIN, MAX)) };
}

impl<'de, const MIN: i64, const MAX: i64> Deserialize<'de> for Whole<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_i64(WholeVisitor)
    }
}

struct WholeVisitor<const MIN: i64, const MAX: i64>;

impl<const MIN: i64, const MAX: i64> Visitor<'_> for WholeVisitor<MIN, MAX> {
    type Value = Whole<MIN, MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from {MIN} to {MAX}")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        if (MIN..=MAX).contains(&number) {
            return Ok(Whole(number));
        }
        Err(E::invalid_value(Unexpected::Signed(number), &self))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        match i64::try_from(number) {
            Ok(number) => self.visit_i64(number),
            Err(_) => Err(E::invalid_value(Unexpected::Unsigned(number), &self)),
        }
    }
}

/// A text that is not empty.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct NonEmpty(String);

impl NonEmpty {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for NonEmpty {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        if text.is_empty() { Err("must not be empty") } else { Ok(Self(text)) }
    }
}

impl SettingValue for NonEmpty {}

impl SettingValue for Secret {
    const IS_SECRET: bool = true;
}

/// A bearer token of sufficient length.
pub struct BearerToken(Secret);

impl BearerToken {
    pub fn secret(&self) -> &Secret {
        &self.0
    }
}

impl SettingValue for BearerToken {
    const IS_SECRET: bool = true;
}

impl<'de> Deserialize<'de> for BearerToken {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let secret = Secret::deserialize(deserializer)?;
        if is_strong(&secret) {
            return Ok(Self(secret));
        }
        Err(D::Error::custom("must have at least 16 characters"))
    }
}
