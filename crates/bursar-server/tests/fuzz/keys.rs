//! API keys and integration keys as they are presented.

use bursar_core::{ApiKeyId, IntegrationId, IntegrationKeyId, TenantId};
use bursar_server::auth::secret::{
    Secret, api_key_prefix, api_key_text, integration_key_prefix, integration_key_text,
    read_api_key, read_integration_key,
};

use crate::fuzzing::{Choices, Effort, Fate, fuzz};

fn any_number(choices: &mut Choices<'_>) -> i64 {
    1 + (choices.integer() & ((1 << 59) - 1))
}

fn any_digits(choices: &mut Choices<'_>) -> Secret {
    Secret::new((0..24).map(|_| format!("{:02x}", choices.byte())).collect())
}

#[test]
fn an_api_key_says_whose_it_is_and_a_broken_one_nothing() {
    fuzz(bolero::check!(), Effort::PLAIN, |choices| {
        let tenant_id = TenantId::from_number(any_number(choices)).expect("in range");
        let key_id = ApiKeyId::from_number(any_number(choices)).expect("in range");
        let digits = any_digits(choices);
        let made = api_key_text(tenant_id, key_id, &digits);
        let text = choices.broken(made.expose(), &["_", "bur_", ":"]);
        let read = read_api_key(&text);
        assert_eq!(read, (text == made.expose()).then_some((tenant_id, key_id)), "{text}");
        assert!(made.expose().starts_with(&api_key_prefix(tenant_id, key_id)));
        assert_eq!(read_integration_key(&text), None);
        if read.is_some() { Fate::Accepted } else { Fate::Refused }
    });
}

#[test]
fn an_integration_key_says_whose_it_is_and_a_broken_one_nothing() {
    fuzz(bolero::check!(), Effort::PLAIN, |choices| {
        let tenant_id = TenantId::from_number(any_number(choices)).expect("in range");
        let integration_id = IntegrationId::from_number(any_number(choices)).expect("in range");
        let key_id = IntegrationKeyId::from_number(any_number(choices)).expect("in range");
        let digits = any_digits(choices);
        let made = integration_key_text(tenant_id, integration_id, key_id, &digits);
        let text = choices.broken(made.expose(), &["_", ":", "bur_"]);
        let read = read_integration_key(&text);
        let expected = (tenant_id, integration_id, key_id);
        assert_eq!(read, (text == made.expose()).then_some(expected), "{text}");
        let prefix = integration_key_prefix(tenant_id, integration_id, key_id);
        assert!(made.expose().starts_with(&prefix));
        assert_eq!(read_api_key(&text), None);
        if read.is_some() { Fate::Accepted } else { Fate::Refused }
    });
}
