//! The tags and units of a record.
//!
//! Tags and units do not count towards limits, so Bursar leaves out an invalid one and names it in
//! the response instead of refusing the record. An amount that is not a number is refused, because a
//! cost may depend on it.

use std::fmt;

use bursar_core::{Tags, Units};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::api::telemetry::ignored_fields::IgnoredFields;
use crate::credentials::raw_key;
use crate::wire::error::ApiError;
use crate::wire::label::clean_label;
use crate::wire::numbers::read_amount;

/// The pairs of an object in order, including duplicate names.
struct Pairs<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PairsVisitor;

        impl<'de> Visitor<'de> for PairsVisitor {
            type Value = Pairs<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }

        deserializer.deserialize_map(PairsVisitor)
    }
}

/// The longest text of tags or of units that is read. 16 of the largest, every character escaped,
/// take 50 KiB.
const TEXT_BYTES_MAX: usize = 64 * 1024;

fn pairs<'a>(field: &str, sent: &'a RawValue) -> Result<Pairs<'a>, ApiError> {
    if sent.get().len() > TEXT_BYTES_MAX {
        return Err(ApiError::field(field, "must have at most 64 KiB"));
    }
    serde_json::from_str(sent.get()).map_err(|_| ApiError::field(field, "must be an object"))
}

/// Reads the tags of a record.
///
/// # Errors
/// 422 if they are not an object, or one of more than 64 KiB.
pub(super) fn read_tags(
    sent: Option<&RawValue>,
    ignored: &mut IgnoredFields,
) -> Result<Tags, ApiError> {
    let mut tags = Tags::default();
    let Some(sent) = sent else { return Ok(tags) };
    for (name, value) in pairs("tags", sent)?.0 {
        let value = serde_json::from_str::<String>(value.get()).ok().map(clean_label);
        let is_kept = value.is_some_and(|value| {
            !raw_key::contains_key(&name)
                && !raw_key::contains_key(&value)
                && tags.add(&name, &value)
        });
        if !is_kept {
            ignored.add(&format!("tags.{name}"));
        }
    }
    Ok(tags)
}

/// Reads the units of a record.
///
/// # Errors
/// 422 if they are not an object, or one of more than 64 KiB, or if an amount is not a number from
/// 0 to 10^9.
pub(super) fn read_units(
    sent: Option<&RawValue>,
    ignored: &mut IgnoredFields,
) -> Result<Units, ApiError> {
    let mut units = Units::default();
    let Some(sent) = sent else { return Ok(units) };
    for (name, amount) in pairs("units", sent)?.0 {
        // Names that are not kept are not shown in an error either.
        let is_name = Units::is_name(&name) && !raw_key::contains_key(&name);
        let field = format!("units.{name}");
        let amount = read_amount(if is_name { &field } else { "units" }, amount)?;
        if !is_name || !units.add(&name, amount) {
            ignored.add(&field);
        }
    }
    Ok(units)
}
