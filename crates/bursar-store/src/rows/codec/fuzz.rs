//! Fuzzes the decoding of stored values: each is decoded to the value that it encodes, or is an error.

use bursar_core::{Decision, Measure, Reason, ReasonCode, Verdict};
use bursar_testing::fuzzing::{Choices, Effort, Outcome, fuzz};

use super::*;

fn any_decision(choices: &mut Choices<'_>) -> Decision {
    let verdict = choices.one_of(&Verdict::ALL);
    let reasons = (0..choices.below(4)).map(|_| any_reason(choices)).collect();
    Decision { verdict, reasons }
}

fn any_reason(choices: &mut Choices<'_>) -> Reason {
    let code = choices.one_of(&ReasonCode::ALL);
    let amount = |choices: &mut Choices<'_>| match choices.below(8) {
        0 => i128::MAX,
        1 => i128::MIN,
        _ => choices.integer().into(),
    };
    match choices.below(4) {
        0 => Reason::plain(code),
        number => Reason {
            code,
            measure: [Measure::Cost, Measure::Tokens, Measure::Calls].get(number - 1).copied(),
            limit_value: amount(choices),
            current_value: amount(choices),
            threshold_percent: choices.one_in(2).then(|| choices.byte()),
            retry_after_seconds: choices.one_in(2).then(|| choices.integer() as u32),
        },
    }
}

/// The decision as it is stored: amounts without a measure are not written.
fn without_loose_amounts(mut decision: Decision) -> Decision {
    for reason in decision.reasons.iter_mut().filter(|reason| reason.measure.is_none()) {
        (reason.limit_value, reason.current_value) = (0, 0);
    }
    decision
}

#[test]
fn a_stored_decision_is_read_back_and_a_broken_one_is_an_error() {
    const WORDS: &[&str] =
        &["\"code\":", "\"cost\"", "\"warned\"", "\"limit\":", "\"1\"", "256", ","];
    fuzz(bolero::check!(), Effort::PLAIN, |choices| {
        let known = any_decision(choices);
        let text = decision_text(&known);
        assert_eq!(decision(text.as_deref()).expect("its own text"), known);
        let broken = choices.mutated(&text.unwrap_or_default(), WORDS);
        let read = decision(Some(&broken));
        match &read {
            Ok(read) => {
                let again = decision(decision_text(read).as_deref()).expect("its own text");
                assert_eq!(again, without_loose_amounts(read.clone()), "{broken}");
            }
            Err(error) => {
                let text = "stored data cannot be decoded: a decision has an unknown form";
                assert_eq!(error.to_string(), text);
            }
        }
        Outcome::of(&read)
    });
}

#[test]
fn a_decoded_number_is_the_number_of_its_value() {
    /// Decodes a number as each type, and asserts that a decoded value has this number.
    macro_rules! check {
        ($number:expr, $($from:ident, $to:ident;)+) => {{
            let mut is_any = false;
            $(if let Ok(value) = $from($number) {
                assert_eq!($to(value), $number);
                is_any = true;
            })+
            is_any
        }};
    }
    fuzz(bolero::check!(), Effort::PLAIN, |choices| {
        let number = choices.integer();
        let is_code = check! { number,
            lifecycle, lifecycle_code;
            onboarding, onboarding_code;
            status, status_code;
            health, health_code;
            cost_basis, cost_basis_code;
            kind, kind_code;
            cost_source, cost_source_code;
            usage_status, usage_status_code;
            policy, policy_code;
            decision_kind, decision_kind_code;
            reservation_state, reservation_state_code;
        };
        let is_instant = timestamp(number).is_ok_and(|at| at.micros() == number);
        let is_tenant = id(TenantId::from_number, number).is_ok_and(|id| id.number() == number);
        assert!(!is_code || (1..=5).contains(&number));
        assert_eq!(is_instant, timestamp(number).is_ok());
        assert_eq!(is_tenant, id(TenantId::from_number, number).is_ok());
        if is_code || is_instant || is_tenant { Outcome::Accepted } else { Outcome::Refused }
    });
}
