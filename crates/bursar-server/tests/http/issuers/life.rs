//! How long keys are held, and how often an issuer is asked for them.

use std::sync::Arc;
use std::time::Duration;

use bursar_server::auth::oidc::{Issuers, Person, PersonError, TokenRefusal};
use bursar_testing::oidc::issuer::{DISCOVERY, KEYS, Says, TestIssuer};
use bursar_testing::oidc::signer::Signer;
use futures_util::future::join_all;
use serde_json::json;
use tokio::sync::Semaphore;

use crate::issuers::{claims, noon, trusted, trusted_within, with, written};

const DAY: u32 = 86_400;

/// A token that is good for ten minutes more at so many seconds after noon.
fn token(signer: &Signer, issuer: &TestIssuer, seconds: u32) -> String {
    signer.token(&with(claims(&issuer.url), "exp", json!(noon(seconds + 600).second())))
}

async fn prove(
    issuers: &Issuers,
    signer: &Signer,
    issuer: &TestIssuer,
    seconds: u32,
) -> Result<Person, PersonError> {
    issuers.prove(&token(signer, issuer, seconds), noon(seconds)).await
}

fn unknown_key() -> Result<Person, PersonError> {
    Err(PersonError::Refused(TokenRefusal::Key))
}

const UNAVAILABLE: Result<Person, PersonError> = Err(PersonError::KeysUnavailable);

#[tokio::test]
async fn keys_are_fetched_once_for_everyone() {
    let key = Signer::ed25519("a");
    let issuer = TestIssuer::new(&[&key]).await;
    let issuers = trusted(&[written(&issuer.url)]);
    let proved = join_all((0..100).map(|_| prove(&issuers, &key, &issuer, 0))).await;
    assert!(proved.iter().all(Result::is_ok));
    assert!(prove(&issuers, &key, &issuer, 239).await.is_ok());
    assert_eq!((issuer.asked(DISCOVERY), issuer.asked(KEYS)), (1, 1));
}

#[tokio::test]
async fn keys_can_be_fetched_before_anyone_comes() {
    let key = Signer::ed25519("a");
    let issuer = TestIssuer::new(&[&key]).await;
    let away = TestIssuer::new(&[&key]).await;
    away.says(DISCOVERY, Says::Status(500));
    let issuers = trusted(&[written(&issuer.url), written(&away.url)]);
    issuers.fetch_keys(noon(0)).await;
    assert_eq!((issuer.asked(KEYS), away.asked(DISCOVERY)), (1, 1));
    assert!(prove(&issuers, &key, &issuer, 0).await.is_ok());
    assert_eq!(prove(&issuers, &key, &away, 0).await, UNAVAILABLE);
    assert_eq!((issuer.asked(KEYS), away.asked(DISCOVERY)), (1, 1));
}

#[tokio::test]
async fn a_crowd_of_unknown_keys_is_one_fetch_every_ten_seconds() {
    let key = Signer::ed25519("a");
    let issuer = TestIssuer::new(&[&key]).await;
    let issuers = trusted(&[written(&issuer.url)]);
    assert!(prove(&issuers, &key, &issuer, 0).await.is_ok());
    for (seconds, fetches) in [(0, 1), (9, 1), (10, 2), (11, 2), (19, 2), (20, 3)] {
        let tokens: Vec<String> = (0..100)
            .map(|number| {
                let header = json!({ "alg": "EdDSA", "kid": format!("x{seconds}-{number}") });
                key.token_of(&header.to_string(), &claims(&issuer.url).to_string())
            })
            .collect();
        let asked = tokens.iter().map(|token| issuers.prove(token, noon(seconds)));
        let proved = join_all(asked).await;
        assert!(proved.iter().all(|proved| *proved == unknown_key()));
        assert_eq!(issuer.asked(KEYS), fetches, "{seconds}");
    }
}

#[tokio::test]
async fn a_new_key_is_found_when_a_token_names_it() {
    let (old, new) = (Signer::p256("old"), Signer::p256("new"));
    let issuer = TestIssuer::new(&[&old]).await;
    let issuers = trusted(&[written(&issuer.url)]);
    assert!(prove(&issuers, &old, &issuer, 0).await.is_ok());
    issuer.says(KEYS, Says::keys(&[&old, &new]));
    assert_eq!(prove(&issuers, &new, &issuer, 9).await, unknown_key());
    assert!(prove(&issuers, &new, &issuer, 10).await.is_ok());
    assert!(prove(&issuers, &old, &issuer, 10).await.is_ok());
    assert_eq!(issuer.asked(KEYS), 2);
}

#[tokio::test]
async fn a_key_that_was_taken_back_is_refused_after_five_minutes() {
    let (old, new) = (Signer::ed25519("old"), Signer::ed25519("new"));
    let issuer = TestIssuer::new(&[&old]).await;
    let issuers = trusted(&[written(&issuer.url)]);
    assert!(prove(&issuers, &old, &issuer, 0).await.is_ok());
    issuer.says(KEYS, Says::keys(&[&new]));
    assert!(prove(&issuers, &old, &issuer, 239).await.is_ok());
    assert_eq!(issuer.asked(KEYS), 1);
    assert_eq!(prove(&issuers, &old, &issuer, 300).await, unknown_key());
    assert!(prove(&issuers, &new, &issuer, 300).await.is_ok());
}

#[tokio::test]
async fn keys_that_grow_old_are_renewed_while_nobody_waits() {
    let (old, new) = (Signer::ed25519("old"), Signer::ed25519("new"));
    let issuer = TestIssuer::new(&[&old]).await;
    let issuers = trusted(&[written(&issuer.url)]);
    assert!(prove(&issuers, &old, &issuer, 0).await.is_ok());
    let gate = Arc::new(Semaphore::new(0));
    let Says::Text(keys) = Says::keys(&[&new]) else { panic!("keys are a text") };
    issuer.says(KEYS, Says::Waits(Arc::clone(&gate), keys));
    // The issuer does not answer yet, and the old key goes on.
    assert!(prove(&issuers, &old, &issuer, 240).await.is_ok());
    gate.add_permits(1);
    // A token that names the new one waits for the fetch that is in the way.
    assert!(prove(&issuers, &new, &issuer, 240).await.is_ok());
    assert_eq!(prove(&issuers, &old, &issuer, 240).await, unknown_key());
    assert_eq!(issuer.asked(KEYS), 2);
}

#[tokio::test]
async fn an_issuer_that_never_answered_proves_nobody_yet() {
    let key = Signer::ed25519("a");
    let issuer = TestIssuer::new(&[&key]).await;
    let issuers = trusted(&[written(&issuer.url)]);
    issuer.says(DISCOVERY, Says::Status(500));
    for seconds in [0, 1, 9] {
        assert_eq!(prove(&issuers, &key, &issuer, seconds).await, UNAVAILABLE);
    }
    assert_eq!(issuer.asked(DISCOVERY), 1);
    let discovery = json!({ "issuer": issuer.url, "jwks_uri": format!("{}/keys", issuer.url) });
    issuer.says(DISCOVERY, Says::Text(discovery.to_string()));
    assert_eq!(prove(&issuers, &key, &issuer, 9).await, UNAVAILABLE);
    assert!(prove(&issuers, &key, &issuer, 10).await.is_ok());
}

#[tokio::test]
async fn keys_go_on_for_a_day_while_their_issuer_is_away() {
    let (key, new) = (Signer::ed25519("a"), Signer::ed25519("b"));
    let issuer = TestIssuer::new(&[&key]).await;
    let issuers = trusted(&[written(&issuer.url)]);
    assert!(prove(&issuers, &key, &issuer, 0).await.is_ok());
    issuer.says(KEYS, Says::Status(503));
    for seconds in [300, 301, 3_600, DAY - 1] {
        assert!(prove(&issuers, &key, &issuer, seconds).await.is_ok(), "{seconds}");
    }
    // Whether a key that is not known is one of the issuer's, nobody can say now.
    assert_eq!(prove(&issuers, &new, &issuer, DAY - 1).await, UNAVAILABLE);
    assert_eq!(prove(&issuers, &key, &issuer, DAY).await, UNAVAILABLE);
    issuer.says(KEYS, Says::keys(&[&key]));
    assert!(prove(&issuers, &key, &issuer, DAY + 10).await.is_ok());
    assert_eq!(prove(&issuers, &new, &issuer, DAY + 10).await, unknown_key());
}

#[tokio::test]
async fn an_issuer_that_says_nothing_is_not_waited_for_long() {
    let key = Signer::ed25519("a");
    let issuer = TestIssuer::new(&[&key]).await;
    let issuers = trusted_within(&[written(&issuer.url)], Duration::from_millis(200));
    let never = Arc::new(Semaphore::new(0));
    for path in [DISCOVERY, KEYS] {
        issuer.says(path, Says::Waits(Arc::clone(&never), String::new()));
    }
    assert_eq!(prove(&issuers, &key, &issuer, 0).await, UNAVAILABLE);
}

#[tokio::test]
async fn a_client_that_goes_away_ends_no_fetch() {
    let key = Signer::ed25519("a");
    let issuer = TestIssuer::new(&[&key]).await;
    let issuers = Arc::new(trusted(&[written(&issuer.url)]));
    let gate = Arc::new(Semaphore::new(0));
    let Says::Text(keys) = Says::keys(&[&key]) else { panic!("keys are a text") };
    issuer.says(KEYS, Says::Waits(Arc::clone(&gate), keys));
    let first = tokio::spawn({
        let (issuers, token) = (Arc::clone(&issuers), token(&key, &issuer, 0));
        async move { issuers.prove(&token, noon(0)).await }
    });
    // Once for the discovery, once for the keys.
    issuer.came().await;
    issuer.came().await;
    first.abort();
    assert!(first.await.is_err_and(|error| error.is_cancelled()));
    gate.add_permits(1);
    assert!(prove(&issuers, &key, &issuer, 1).await.is_ok());
    assert_eq!(issuer.asked(KEYS), 1);
}

#[tokio::test]
async fn a_clock_that_is_set_back_asks_again() {
    let key = Signer::ed25519("a");
    let issuer = TestIssuer::new(&[&key]).await;
    let issuers = trusted(&[written(&issuer.url)]);
    assert!(prove(&issuers, &key, &issuer, DAY).await.is_ok());
    assert!(prove(&issuers, &key, &issuer, 0).await.is_ok());
    assert_eq!(issuer.asked(KEYS), 2);
}

#[tokio::test]
async fn what_is_no_key_list_of_this_issuer_is_not_taken() {
    let key = Signer::ed25519("a");
    let issuer = TestIssuer::new(&[&key]).await;
    let Says::Text(keys) = Says::keys(&[&key]) else { panic!("keys are a text") };
    let elsewhere = issuer.url.clone() + "/elsewhere";
    issuer.says("/elsewhere", Says::Text(keys.clone()));
    let discovery =
        |name: &str, url: &str| Says::Text(json!({ "issuer": name, "jwks_uri": url }).to_string());
    let padded = |bytes: usize| Says::Text(keys.clone() + &" ".repeat(bytes - keys.len()));
    let many: Vec<_> = (0..101).map(|_| key.jwk()).collect();
    let right = discovery(&issuer.url, &elsewhere);
    for (path, says) in [
        (DISCOVERY, discovery("https://id.example.com", &elsewhere)),
        (DISCOVERY, discovery(&(issuer.url.clone() + "/"), &elsewhere)),
        (DISCOVERY, discovery(&issuer.url, "http://id.example.com/keys")),
        (DISCOVERY, discovery(&issuer.url, "file:///keys")),
        (DISCOVERY, Says::Text("{}".to_owned())),
        (DISCOVERY, Says::Elsewhere(issuer.url.clone() + "/other")),
        ("/elsewhere", Says::Elsewhere(issuer.url.clone() + KEYS)),
        ("/elsewhere", Says::Status(204)),
        ("/elsewhere", Says::Text(keys.replace('}', ""))),
        ("/elsewhere", Says::Text("[]".to_owned())),
        ("/elsewhere", padded(256 * 1_024 + 1)),
        ("/elsewhere", Says::Text(json!({ "keys": many }).to_string())),
    ] {
        let issuers = trusted(&[written(&issuer.url)]);
        issuer.says(DISCOVERY, right.clone());
        issuer.says("/elsewhere", Says::Text(keys.clone()));
        issuer.says("/other", right.clone());
        issuer.says(path, says);
        assert_eq!(prove(&issuers, &key, &issuer, 0).await, UNAVAILABLE);
    }
    issuer.says(DISCOVERY, right);
    issuer.says("/elsewhere", padded(256 * 1_024));
    let issuers = trusted(&[written(&issuer.url)]);
    assert!(prove(&issuers, &key, &issuer, 0).await.is_ok());
}

#[tokio::test]
async fn a_key_list_may_be_named_without_a_discovery() {
    let key = Signer::ed25519("a");
    let issuer = TestIssuer::new(&[&key]).await;
    let named =
        with(written("https://id.example.com"), "jwks_url", json!(issuer.url.clone() + KEYS));
    let issuers = trusted(&[named]);
    let token = key.token(&claims("https://id.example.com"));
    assert!(issuers.prove(&token, noon(0)).await.is_ok());
    assert_eq!((issuer.asked(DISCOVERY), issuer.asked(KEYS)), (0, 1));
}
