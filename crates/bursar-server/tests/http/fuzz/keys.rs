//! The format of API keys and integration keys.

use bursar_core::{IntegrationId, KeyId, TenantId};
use bursar_server::auth::secret::{KeyPrefix, Secret};
use bursar_testing::fuzzing::{Choices, Effort, Outcome, fuzz};

fn any_number(choices: &mut Choices<'_>) -> i64 {
    1 + (choices.integer() & ((1 << 59) - 1))
}

fn any_digits(choices: &mut Choices<'_>) -> Secret {
    Secret::new((0..24).map(|_| format!("{:02x}", choices.byte())).collect())
}

#[test]
fn an_api_key_parses_to_its_prefix_and_an_altered_one_does_not() {
    fuzz(bolero::check!(), Effort::PLAIN, |choices| {
        let tenant_id = TenantId::from_number(any_number(choices)).expect("in range");
        let key_id = KeyId::from_number(any_number(choices)).expect("in range");
        let digits = any_digits(choices);
        let prefix = KeyPrefix { tenant_id, integration_id: None, key_id };
        let made = prefix.with_digits(&digits);
        let text = choices.mutated(made.expose(), &["_", "bur_", ":"]);
        let read = KeyPrefix::of_api_key(&text);
        assert_eq!(read, (text == made.expose()).then_some(prefix), "{text}");
        assert!(made.expose().starts_with(&prefix.to_string()));
        assert_eq!(KeyPrefix::of_integration_key(&text), None);
        if read.is_some() { Outcome::Accepted } else { Outcome::Refused }
    });
}

#[test]
fn an_integration_key_parses_to_its_prefix_and_an_altered_one_does_not() {
    fuzz(bolero::check!(), Effort::PLAIN, |choices| {
        let tenant_id = TenantId::from_number(any_number(choices)).expect("in range");
        let integration_id = IntegrationId::from_number(any_number(choices));
        let key_id = KeyId::from_number(any_number(choices)).expect("in range");
        let digits = any_digits(choices);
        let prefix = KeyPrefix { tenant_id, integration_id, key_id };
        let made = prefix.with_digits(&digits);
        let text = choices.mutated(made.expose(), &["_", ":", "bur_"]);
        let read = KeyPrefix::of_integration_key(&text);
        assert_eq!(read, (text == made.expose()).then_some(prefix), "{text}");
        assert!(made.expose().starts_with(&prefix.to_string()));
        assert_eq!(KeyPrefix::of_api_key(&text), None);
        if read.is_some() { Outcome::Accepted } else { Outcome::Refused }
    });
}
