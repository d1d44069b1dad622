//! Units of a call: amounts of billed units other than tokens, such as searches or seconds.

use crate::number::{NumberError, rounded_at};

/// The most kinds of units of a call.
const UNITS_MAX: usize = 16;
/// The longest name of a unit, in characters, all of them ASCII.
const NAME_CHARS_MAX: usize = 32;
/// The largest amount of a unit.
const AMOUNT_MAX: i64 = 1_000_000_000;
/// The decimal places of an amount.
const PLACES: u32 = 6;
/// Millionths in one.
const MILLION: i64 = 10_i64.pow(PLACES);

/// An amount of a unit, in millionths; 0 to 10^9 units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnitAmount(i64);

impl UnitAmount {
    /// Reads an amount from decimal text, rounded half up once to a millionth.
    ///
    /// # Errors
    /// [`NumberError`], whose text is meant for the client.
    pub fn from_text(text: &str) -> Result<Self, NumberError> {
        let read = rounded_at(text, PLACES, AMOUNT_MAX * MILLION)?;
        read.map(Self).ok_or(NumberError::TooLarge(AMOUNT_MAX))
    }

    /// The exact decimal text, without trailing zeros: `2`, `12.5`.
    pub fn text(self) -> String {
        let (whole, rest) = (self.0 / MILLION, self.0 % MILLION);
        if rest == 0 {
            return whole.to_string();
        }
        let decimals = format!("{rest:06}");
        format!("{whole}.{}", decimals.trim_end_matches('0'))
    }
}

/// The units of a call, ordered by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Units(Vec<(Box<str>, UnitAmount)>);

impl Units {
    /// Whether a unit may have this name.
    pub fn is_name(name: &str) -> bool {
        let of_names =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        (1..=NAME_CHARS_MAX).contains(&name.len()) && name.bytes().all(of_names)
    }

    /// Adds an amount of a unit. Returns whether it is kept.
    ///
    /// A unit is kept if its name is valid and not there yet, and there are fewer than 16 units.
    pub fn add(&mut self, name: &str, amount: UnitAmount) -> bool {
        match self.0.binary_search_by(|(known, _)| (**known).cmp(name)) {
            Err(place) if Self::is_name(name) && self.0.len() < UNITS_MAX => {
                self.0.insert(place, (name.into(), amount));
                true
            }
            Ok(_) | Err(_) => false,
        }
    }

    /// Names and amounts, ordered by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, UnitAmount)> {
        self.0.iter().map(|(name, amount)| (&**name, *amount))
    }

    /// A JSON object of the exact amounts; `None` if there are none.
    pub fn json(&self) -> Option<String> {
        if self.0.is_empty() {
            return None;
        }
        let pair =
            |(name, amount): &(Box<str>, UnitAmount)| format!("\"{name}\":{}", amount.text());
        let pairs: Vec<String> = self.0.iter().map(pair).collect();
        Some(format!("{{{}}}", pairs.join(",")))
    }

    /// The length of [`Units::json`] in bytes; 0 if there are none.
    pub fn json_bytes(&self) -> usize {
        // Two quotes and a colon, and a comma or the closing brace. Then the opening one.
        let pair = |(name, amount): &(Box<str>, UnitAmount)| name.len() + amount.text().len() + 4;
        let pairs: usize = self.0.iter().map(pair).sum();
        if pairs == 0 { 0 } else { pairs + 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_amount(text: &str, expected: Result<&str, NumberError>) {
        let read = UnitAmount::from_text(text).map(UnitAmount::text);
        assert_eq!(read, expected.map(str::to_owned), "{text}");
    }

    #[test]
    fn an_amount_has_six_places() {
        check_amount("2", Ok("2"));
        check_amount("12.50", Ok("12.5"));
        check_amount("0.0000005", Ok("0.000001"));
        check_amount("1e9", Ok("1000000000"));
        check_amount("-1", Err(NumberError::Negative));
        check_amount("1000000000.000001", Err(NumberError::TooLarge(AMOUNT_MAX)));
    }

    #[test]
    fn units_have_plain_names_and_are_bounded() {
        let mut units = Units::default();
        for name in ["web_search", "seconds", "mp3_2"] {
            assert!(units.add(name, UnitAmount(1)));
        }
        let json = r#"{"mp3_2":0.000001,"seconds":0.000001,"web_search":0.000001}"#;
        assert_eq!(units.json().as_deref(), Some(json));
        assert_eq!((Units::default().json_bytes(), units.json_bytes()), (0, json.len()));
        for name in ["", "Seconds", "a b", "a-b", &"x".repeat(33)] {
            assert!(!units.add(name, UnitAmount(1)), "{name}");
        }
        assert!(!units.add("seconds", UnitAmount(2)));
        for number in 0..UNITS_MAX - 3 {
            assert!(units.add(&format!("u{number}"), UnitAmount(1)));
        }
        assert!(!units.add("one_more", UnitAmount(1)));
    }
}
