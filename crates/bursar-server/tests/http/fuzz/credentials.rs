//! Credential references.

use std::path::{Component, Path};

use bursar_server::credentials::raw_key::contains_key;
use bursar_server::credentials::reference::{AllowedPrefixes, ReferenceAuthor, check, scheme};
use bursar_testing::fuzzing::{Effort, Outcome, fuzz};

use crate::fuzz::raw_keys::KEYS;

const REFERENCES: &[&str] = &[
    "encrypted://0198c-1",
    "vault://secret/tenants/a/openai#token",
    "vault://kv/openai",
    "env://CUS_CRED_OPENAI",
    "env://LLM_API_KEY_1",
    "file:///etc/bursar/keys/openai",
    "file:///run/secrets/a",
];
/// A text that no refusal may contain.
const MARK: &str = "Q7zX1kP0w";

#[test]
fn a_credential_reference_keeps_its_grammar_and_is_never_echoed() {
    const WORDS: &[&str] = &["/../", "/./", "//", "#", "env://", "file://", "://", MARK, "\n", "~"];
    let allowed = AllowedPrefixes {
        env: vec!["CUS_CRED_".to_owned(), "LLM_API_KEY_".to_owned()],
        file: vec!["/etc/bursar".to_owned()],
    };
    fuzz(bolero::check!(), Effort::PLAIN, |choices| {
        let reference = choices.one_of(REFERENCES);
        let words = if choices.one_in(4) { KEYS } else { WORDS };
        let reference = choices.mutated(reference, words);
        let set_by = choices.one_of(&[ReferenceAuthor::Operator, ReferenceAuthor::Tenant]);
        let read = check(reference.clone(), set_by, &allowed);
        match &read {
            Ok(kept) => {
                assert_eq!(*kept, reference);
                assert!(kept.len() <= 500 && !contains_key(kept), "{kept}");
                assert!(!kept.contains("/../") && !kept.ends_with("/.."), "{kept}");
                let names_the_server = ["env", "file"].contains(&scheme(kept));
                assert!(!names_the_server || set_by == ReferenceAuthor::Operator, "{kept}");
                if let Some(path) = kept.strip_prefix("file://") {
                    let below = Path::new(path).strip_prefix("/etc/bursar").expect("in the folder");
                    let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
                    assert!(below.components().count() > 0, "{kept}");
                    assert!(below.components().all(plain), "{kept}");
                }
            }
            Err(error) => {
                let shown = serde_json::to_string(error).expect("JSON");
                assert!(!contains_key(&shown) && !shown.contains(MARK), "{shown}");
            }
        }
        Outcome::of(&read)
    });
}
