//! Ids: 60-bit integers in storage, UUIDs (version 8) on the wire.
//!
//! Small integers keep keys and indexes short, and clients expect UUIDs. The two forms convert
//! without a table. The first 60 free bits of the UUID are the integer, most significant first, so
//! UUIDs sort like integers. The other 62 bits are a hash of the integer and the kind of id, so a
//! mistyped id or an id of another kind is invalid, and never names another object.

use std::fmt;

/// Why a text is not an id of the expected kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseIdError {
    /// The text does not have the form of a UUID.
    #[error("must be a UUID")]
    NotUuid,
    /// A UUID that Bursar cannot have made for this kind of id.
    #[error("names nothing here")]
    Unknown,
}

const LOW_62: u64 = (1 << 62) - 1;
const MAX: i64 = (1 << 60) - 1;

/// The low 62 bits of the UUID of `value`, by the finalizer of SplitMix64, which is a bijection.
fn mix(value: i64, kind: u64) -> u64 {
    let mut z = (value as u64) ^ kind.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) & LOW_62
}

fn to_uuid(value: i64, kind: u64) -> u128 {
    let value_bits = value as u64;
    let high = ((value_bits >> 12) << 16) | 0x8000 | (value_bits & 0xfff);
    let low = (1 << 63) | mix(value, kind);
    (u128::from(high) << 64) | u128::from(low)
}

fn from_uuid(uuid: u128, kind: u64) -> Result<i64, ParseIdError> {
    let high = (uuid >> 64) as u64;
    let value = (((high >> 16) << 12) | (high & 0xfff)) as i64;
    if value > 0 && to_uuid(value, kind) == uuid { Ok(value) } else { Err(ParseIdError::Unknown) }
}

fn parse_uuid(text: &str) -> Result<u128, ParseIdError> {
    if text.len() != 36 {
        return Err(ParseIdError::NotUuid);
    }
    let mut value = 0u128;
    for (at, byte) in text.bytes().enumerate() {
        if matches!(at, 8 | 13 | 18 | 23) {
            if byte != b'-' {
                return Err(ParseIdError::NotUuid);
            }
            continue;
        }
        let digit = char::from(byte).to_digit(16).ok_or(ParseIdError::NotUuid)?;
        value = (value << 4) | u128::from(digit);
    }
    Ok(value)
}

fn write_uuid(uuid: u128, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(
        f,
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        (uuid >> 96) as u32,
        (uuid >> 80) as u16,
        (uuid >> 64) as u16,
        (uuid >> 48) as u16,
        uuid & 0xffff_ffff_ffff
    )
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(i64);

        impl $name {
            /// The id of a number; `None` outside 1 to 2^60 - 1.
            pub const fn from_number(number: i64) -> Option<Self> {
                if number > 0 && number <= MAX { Some(Self(number)) } else { None }
            }

            /// The number that is stored.
            pub const fn number(self) -> i64 {
                self.0
            }

            /// Parses the wire form, in upper or lower case.
            ///
            /// # Errors
            /// [`ParseIdError::NotUuid`] if the text is not a UUID, [`ParseIdError::Unknown`] if
            /// the UUID is not an id of this kind.
            pub fn parse(text: &str) -> Result<Self, ParseIdError> {
                from_uuid(parse_uuid(text)?, $kind).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_uuid(to_uuid(self.0, $kind), f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

id! {
    /// A tenant: one customer of the platform, who owns integrations and their keys.
    TenantId, 1
}
id! {
    /// An integration: a provider, a reference to the tenant's credential, and limits.
    IntegrationId, 2
}
id! {
    /// An entry of the ledger. Newer entries have larger ids.
    EntryId, 3
}
id! {
    /// A key of a tenant: an API key, or a key of one integration.
    KeyId, 4
}
id! {
    /// A limit.
    LimitId, 9
}
impl LimitId {
    /// The operator's limit on the cost of a tenant in a UTC day, which has this id in every tenant.
    pub const COST_GUARD: Self = Self(MAX);
}

id! {
    /// A row of the audit log.
    AuditId, 6
}
id! {
    /// A stored decision, which explains a refusal or warning later.
    DecisionId, 7
}
id! {
    /// A stored signal: an action of protection.
    SignalId, 8
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_wire_form_is_parsed_back_and_keeps_the_order(a in 1..=MAX, b in 1..=MAX) {
            let (x, y) = (EntryId(a), EntryId(b));
            prop_assert_eq!(EntryId::parse(&x.to_string()), Ok(x));
            prop_assert_eq!(EntryId::parse(&x.to_string().to_uppercase()), Ok(x));
            prop_assert_eq!(x.to_string().cmp(&y.to_string()), a.cmp(&b));
            prop_assert_eq!(IntegrationId::parse(&x.to_string()), Err(ParseIdError::Unknown));
        }

        #[test]
        fn random_strings_are_not_parsed_as_ids(text in "\\PC{0,40}") {
            prop_assert!(TenantId::parse(&text).is_err());
        }
    }

    #[test]
    fn the_wire_form_is_a_uuid_of_version_8() {
        let text = TenantId(1_763_600_000_000_000).to_string();
        assert_eq!(text.chars().nth(14), Some('8'));
        assert!(text.chars().nth(19).is_some_and(|variant| "89ab".contains(variant)), "{text}");
        assert_eq!(TenantId::parse("not-an-id"), Err(ParseIdError::NotUuid));
        let foreign = "123e4567-e89b-42d3-a456-426614174000";
        assert_eq!(TenantId::parse(foreign), Err(ParseIdError::Unknown));
        assert_eq!(TenantId::from_number(0), None);
        assert_eq!(TenantId::from_number(MAX + 1), None);
    }
}
