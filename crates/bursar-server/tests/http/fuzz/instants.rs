//! Instants, days and months.

use bursar_core::Timestamp;
use bursar_server::wire::timestamps::{parse, parse_day, parse_month, text};
use bursar_testing::fuzzing::{Effort, Outcome, fuzz};

const WORDS: &[&str] = &["-", ":", "T", "Z", "+01:00", "[UTC]", ".", "60", "99", "00", "12"];

#[test]
fn an_instant_reads_back_from_its_text() {
    const INSTANTS: &[&str] = &[
        "2026-11-20T13:00:39.123456Z",
        "1970-01-01T00:00:00Z",
        "9999-12-30T23:59:59.999999999Z",
        "2024-02-29 23:59:60+00:00",
        "2023-11-16T19:17:03.9799609-08:00",
    ];
    fuzz(bolero::check!(), Effort::PLAIN, |choices| {
        let known = choices.one_of(INSTANTS);
        let read = parse(&choices.mutated(known, WORDS));
        if let Ok(at) = read {
            let written = text(at);
            assert!(written.ends_with('Z') && written.is_ascii(), "{written}");
            assert_eq!(parse(&written), Ok(at), "{written}");
            let day = written.split('T').next().unwrap_or_default();
            assert_eq!(parse_day(day), Ok(at.day()), "{written}");
        }
        Outcome::of(&read)
    });
}

#[test]
fn any_notation_of_an_instant_reads_as_that_instant() {
    fuzz(bolero::check!(), Effort::PLAIN, |choices| {
        let micros = (0..8).fold(0_u64, |all, _| all << 8 | u64::from(choices.byte()));
        let micros = i64::try_from(micros >> 1).unwrap_or_default() % Timestamp::MAX.micros();
        let at = Timestamp::from_micros(micros).expect("in range");
        assert_eq!(parse(&text(at)), Ok(at));
        // The same instant with an offset of up to a day, in minutes.
        let minutes = choices.below(2 * 1_600) as i64 - 1_600;
        let local = Timestamp::from_micros(micros + minutes * 60_000_000);
        let Some(local) = local else { return Outcome::Refused };
        let (sign, hours) = (if minutes < 0 { '-' } else { '+' }, minutes.abs() / 60);
        let colon = choices.one_of(&[":", ""]);
        let digits = choices.below(30);
        let spelling = format!(
            "{}{}{sign}{hours:02}{colon}{:02}",
            text(local).trim_end_matches('Z'),
            if micros % 1_000_000 == 0 { String::new() } else { "9".repeat(digits) },
            minutes.abs() % 60
        );
        let read = parse(&spelling);
        assert_eq!(read.ok(), (minutes.abs() < 24 * 60).then_some(at), "{spelling}");
        Outcome::of(&read)
    });
}

#[test]
fn a_day_reads_back_from_its_text() {
    fuzz(bolero::check!(), Effort::PLAIN, |choices| {
        let known = choices.one_of(&["2026-11-20", "2024-02-29", "1970-01-01", "9999-12-31"]);
        let broken = choices.mutated(known, WORDS);
        let read = parse_day(&broken);
        if let Ok(day) = read {
            assert_eq!(day.to_string(), broken);
            assert_eq!(day.start().day(), day);
            assert!(broken.starts_with(&day.month().to_string()), "{broken}");
        }
        Outcome::of(&read)
    });
}

#[test]
fn a_month_reads_back_from_its_text() {
    fuzz(bolero::check!(), Effort::PLAIN, |choices| {
        let known = choices.one_of(&["2026-10", "1970-01", "9999-12"]);
        let broken = choices.mutated(known, WORDS);
        let read = parse_month(&broken);
        if let Ok(month) = read {
            assert_eq!(month.to_string(), broken);
            assert_eq!(month.start().month(), month);
        }
        Outcome::of(&read)
    });
}
