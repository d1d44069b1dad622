//! Mutated tokens of people, and signed tokens with arbitrary claims.

use bursar_core::{Day, TenantId, Timestamp};
use bursar_server::auth::oidc::{Issuers, PersonError, TokenRefusal};
use bursar_server::config::settings::Config;
use bursar_server::http::outbound::Outbound;
use bursar_testing::fuzzing::{Choices, Effort, Outcome, fuzz};
use bursar_testing::oidc::issuer::TestIssuer;
use bursar_testing::oidc::signer::Signer;
use rustls::RootCertStore;
use serde_json::{Value, json};

/// A server that trusts one issuer and has fetched its key.
struct World {
    issuers: Issuers,
    url: String,
    key: Signer,
    now: Timestamp,
    runtime: tokio::runtime::Runtime,
}

impl World {
    fn new() -> Self {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let key = Signer::ed25519("a");
        let url = runtime.block_on(TestIssuer::new(&[&key])).url;
        let tenant_id = TenantId::from_number(7).expect("in range").to_string();
        let written = json!([{ "issuer": url, "audience": "bursar", "tenant": tenant_id }]);
        let setting = ("BURSAR_OIDC_ISSUERS".to_owned(), written.to_string());
        let config = Config::load(None, std::iter::once(setting)).expect("a configuration");
        let deadline = std::time::Duration::from_secs(60);
        let outbound = Outbound::new(RootCertStore::empty(), deadline).expect("a client");
        let issuers = Issuers::new(config.oidc.issuers, 86_400, outbound);
        let now = Day::from_civil(2026, 3, 14).expect("a day").start();
        Self { issuers, url, key, now, runtime }
    }

    fn claims(&self) -> Value {
        json!({
            "iss": self.url,
            "aud": ["bursar"],
            "sub": "ada",
            "nbf": self.now.second(),
            "exp": self.now.second() + 600,
            "bursar_role": ["viewer"],
        })
    }

    fn prove(&self, token: &str) -> Result<(), PersonError> {
        self.runtime.block_on(self.issuers.prove(token, self.now)).map(drop)
    }
}

#[test]
fn a_token_changed_anywhere_is_refused() {
    let world = World::new();
    let good = world.key.token(&world.claims());
    fuzz(bolero::check!(), Effort::PLAIN, |choices| {
        let token = choices.mutated(&good, &[".", "..", "=", "e30", "bm9uZQ"]);
        let proved = world.prove(&token);
        assert_eq!(proved.is_ok(), token == good, "{token}");
        assert_ne!(proved, Err(PersonError::KeysUnavailable), "{token}");
        Outcome::of(&proved)
    });
}

#[test]
fn any_signed_token_is_a_person_or_a_refusal() {
    let world = World::new();
    let header = json!({ "alg": "EdDSA", "kid": "a" }).to_string();
    let claims = world.claims().to_string();
    let words = ["\"exp\":", "\"nbf\":", "\"aud\":", "\"crit\":[]", "[", "]", "{", "}", ",", "1e9"];
    fuzz(bolero::check!(), Effort::PLAIN, |choices: &mut Choices<'_>| {
        let mut part = |text: &str| choices.mutated(text, &words);
        let token = world.key.token_of(&part(&header), &part(&claims));
        let proved = world.prove(&token);
        assert_ne!(proved, Err(PersonError::KeysUnavailable), "{token}");
        assert_ne!(proved, Err(PersonError::Refused(TokenRefusal::Signature)), "{token}");
        Outcome::of(&proved)
    });
}
