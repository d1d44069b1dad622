//! The tags and units of a record.
//!
//! They are facts beside the figures that count, so one that breaks the rules does not cost the
//! record: it is left out, and the response names it. An amount that is no number is refused,
//! because a cost may depend on it.

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

/// The pairs of an object in their order, with names that are there twice.
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

fn pairs<'a>(field: &str, sent: &'a RawValue) -> Result<Pairs<'a>, ApiError> {
    serde_json::from_str(sent.get()).map_err(|_| ApiError::field(field, "must be an object"))
}

/// Reads the tags of a record.
///
/// # Errors
/// 422 if they are not an object.
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
                && tags.add(&name, &value).is_ok()
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
/// 422 if they are not an object, or if an amount is no number from 0 to 10^9.
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
        if !is_name || units.add(&name, amount).is_err() {
            ignored.add(&field);
        }
    }
    Ok(units)
}
