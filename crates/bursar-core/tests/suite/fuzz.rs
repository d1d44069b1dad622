//! Fuzz targets for the texts that the core parses: amounts, ids and call ids.

#![expect(clippy::expect_used, reason = "a fuzz target stops at the first failure")]

use bursar_core::{
    CallId, EntryId, IntegrationId, KeyId, NANOS_PER_CENT, Nanos, NumberError, TenantId,
    is_control, rounded_number, whole_number,
};
use bursar_testing::fuzzing::{Choices, Effort, Outcome, fuzz};

const AMOUNTS: &[&str] = &[
    "0",
    "1",
    "1.25",
    "0.0000001",
    "1e-05",
    "1.25E+2",
    "100000000",
    "99999999.9999999",
    "1e8",
    "-0.0",
    "12345.678",
    "0.30000000000000004",
    "-1",
    "1e-7",
    "0e999999999999999999999",
];

#[test]
fn an_amount_is_parsed_exactly_or_refused() {
    fuzz(bolero::check!(), Effort::PLAIN, |choices| {
        let amount = choices.one_of(AMOUNTS);
        let text = choices.mutated(amount, &["e", "E", "+", "-", ".", "00000000", "e-7", "9"]);
        let read = Nanos::from_cents_text(&text);
        if let Ok(cost) = read {
            assert!((0..=Nanos::RECORD_MAX.get()).contains(&cost.get()), "{text}");
            check_value(&text, cost);
        }
        Outcome::of(&read)
    });
}

/// Checks that other spellings of an amount have the same value, and that the parser of `f64` agrees
/// within its precision.
#[track_caller]
fn check_value(text: &str, cost: Nanos) {
    let plain = format!("{}.{:07}", cost.get() / NANOS_PER_CENT, cost.get() % NANOS_PER_CENT);
    assert_eq!(Nanos::from_cents_text(&plain), Ok(cost), "{text}");
    let known: f64 = text.parse().expect("a number");
    let difference = (known * NANOS_PER_CENT as f64 - cost.get() as f64).abs();
    assert!(difference <= 0.5 + known.abs() * 1e-5, "{text} is {known}, not {}", cost.get());
    if !text.contains(['e', 'E']) {
        assert_eq!(Nanos::from_cents_text(&format!("{text}e0")), Ok(cost), "{text}");
        assert_eq!(Nanos::from_usd_text(&format!("{text}e-2")), Ok(cost), "{text}");
        let tenfold = Nanos::from_cents_text(&format!("{plain}E+1"));
        let expected = cost.get() * 10;
        if expected <= Nanos::RECORD_MAX.get() {
            assert_eq!(tenfold, Ok(Nanos::new(expected)), "{text}");
        } else {
            assert_eq!(tenfold, Err(NumberError::TooLarge(100_000_000)), "{text}");
        }
    }
}

#[test]
fn a_count_has_the_same_value_in_every_spelling() {
    const COUNTS: &[&str] =
        &["14417", "14417.0", "1.4417e4", "812.4", "0.5", "-0", "1e9", "1000000001", "+7", ".5"];
    const AT_MOST: i64 = 1_000_000_000;
    fuzz(bolero::check!(), Effort::PLAIN, |choices| {
        let count = choices.one_of(COUNTS);
        let text = choices.mutated(count, &["e", "E", "+", "-", ".", "0000", "e-3", "9"]);
        let (whole, rounded) = (whole_number(&text, AT_MOST), rounded_number(&text, AT_MOST));
        if let Ok(count) = whole {
            assert!((0..=AT_MOST).contains(&count), "{text}");
            assert_eq!(rounded, Ok(count), "{text}");
            for spelling in [format!("{count}"), format!("{count}.00"), format!("{count}0E-1")] {
                assert_eq!(whole_number(&spelling, AT_MOST), Ok(count), "{text}");
            }
        }
        if let Ok(count) = rounded {
            let known: f64 = text.parse().expect("a number");
            assert!((known - count as f64).abs() <= 0.500_001, "{text} is {known}, not {count}");
            let refused = whole == Err(NumberError::NotWhole) || whole == Ok(count);
            assert!(refused, "{text}: {whole:?}");
        }
        Outcome::of(&whole)
    });
}

/// Checks that the text of a parsed id is its own in some letter case, and no id of another kind.
macro_rules! check_id {
    ($choices:expr, $type:ty, $other:ty) => {{
        let number = $choices.integer().unsigned_abs() % (1 << 60);
        let id = <$type>::from_number(i64::try_from(number.max(1)).expect("small"));
        let text = id.expect("in range").to_string();
        let text = if $choices.one_in(4) { text.to_uppercase() } else { text };
        let text = $choices.mutated(&text, &["-", "8", "00000000"]);
        let read = <$type>::parse(&text);
        if let Ok(id) = read {
            assert_eq!(id.to_string(), text.to_lowercase());
            assert_eq!(<$type>::from_number(id.number()), Some(id));
            assert!(<$other>::parse(&text).is_err(), "{text} is an id of two kinds");
        }
        Outcome::of(&read)
    }};
}

#[test]
fn an_id_is_parsed_back_as_one_kind_only() {
    fuzz(bolero::check!(), Effort::PLAIN, |choices: &mut Choices<'_>| match choices.below(4) {
        0 => check_id!(choices, TenantId, IntegrationId),
        1 => check_id!(choices, IntegrationId, EntryId),
        2 => check_id!(choices, EntryId, KeyId),
        _ => check_id!(choices, KeyId, TenantId),
    });
}

#[test]
fn a_call_id_is_limited_in_length_and_characters() {
    fuzz(bolero::check!(), Effort::PLAIN, |choices| {
        let text = choices.one_of(&["call-2026-11-20-0001", "\u{e4}\u{1f600}", "x"]);
        let text = choices.mutated(text, &["\0", "\u{e4}", " ", "\n", "\u{2028}"]);
        let read = CallId::new(text.as_str());
        let trimmed = text.trim();
        let fits = (1..=256).contains(&trimmed.chars().count()) && !trimmed.contains(is_control);
        assert_eq!(read.is_ok(), fits, "{text:?}");
        assert!(read.as_ref().map_or(true, |call_id| call_id.as_str() == trimmed));
        Outcome::of(&read)
    });
}
