//! The cache of an issuer's keys: how long it is valid and how often it is fetched.

use std::sync::Arc;
use std::time::Duration;

use bursar_server::auth::oidc::{Issuers, Person, PersonError, TokenRefusal};
use bursar_testing::oidc::issuer::{DISCOVERY, KEYS, Reply, TestIssuer};
use bursar_testing::oidc::signer::Signer;
use futures_util::future::join_all;
use serde_json::json;
use tokio::sync::Semaphore;

use crate::issuers::{claims, issuer_config, noon, trusted, trusted_within, with};

const DAY: u32 = 86_400;

/// A token that is valid for ten more minutes at this many seconds after noon.
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
async fn concurrent_tokens_fetch_the_keys_once() {
    let key = Signer::ed25519("a");
    let issuer = TestIssuer::new(&[&key]).await;
    let issuers = trusted(&[issuer_config(&issuer.url)]);
    let proved = join_all((0..100).map(|_| prove(&issuers, &key, &issuer, 0))).await;
    assert!(proved.iter().all(Result::is_ok));
    assert!(prove(&issuers, &key, &issuer, 239).await.is_ok());
    assert_eq!((issuer.request_count(DISCOVERY), issuer.request_count(KEYS)), (1, 1));
}

#[tokio::test]
async fn keys_can_be_prefetched() {
    let key = Signer::ed25519("a");
    let issuer = TestIssuer::new(&[&key]).await;
    let away = TestIssuer::new(&[&key]).await;
    away.set_reply(DISCOVERY, Reply::Status(500));
    let issuers = trusted(&[issuer_config(&issuer.url), issuer_config(&away.url)]);
    issuers.fetch_keys(noon(0)).await;
    assert_eq!((issuer.request_count(KEYS), away.request_count(DISCOVERY)), (1, 1));
    assert!(prove(&issuers, &key, &issuer, 0).await.is_ok());
    assert_eq!(prove(&issuers, &key, &away, 0).await, UNAVAILABLE);
    assert_eq!((issuer.request_count(KEYS), away.request_count(DISCOVERY)), (1, 1));
}

#[tokio::test]
async fn unknown_key_ids_cause_one_fetch_every_ten_seconds() {
    let key = Signer::ed25519("a");
    let issuer = TestIssuer::new(&[&key]).await;
    let issuers = trusted(&[issuer_config(&issuer.url)]);
    assert!(prove(&issuers, &key, &issuer, 0).await.is_ok());
    for (seconds, fetches) in [(0, 1), (9, 1), (10, 2), (11, 2), (19, 2), (20, 3)] {
        let tokens: Vec<String> = (0..100)
            .map(|number| {
                let header = json!({ "alg": "EdDSA", "kid": format!("x{seconds}-{number}") });
                key.token_of(&header.to_string(), &claims(&issuer.url).to_string())
            })
            .collect();
        let proofs = tokens.iter().map(|token| issuers.prove(token, noon(seconds)));
        let proved = join_all(proofs).await;
        assert!(proved.iter().all(|proved| *proved == unknown_key()));
        assert_eq!(issuer.request_count(KEYS), fetches, "{seconds}");
    }
}

#[tokio::test]
async fn a_new_key_is_found_when_a_token_names_it() {
    let (old, new) = (Signer::p256("old"), Signer::p256("new"));
    let issuer = TestIssuer::new(&[&old]).await;
    let issuers = trusted(&[issuer_config(&issuer.url)]);
    assert!(prove(&issuers, &old, &issuer, 0).await.is_ok());
    issuer.set_reply(KEYS, Reply::keys(&[&old, &new]));
    assert_eq!(prove(&issuers, &new, &issuer, 9).await, unknown_key());
    assert!(prove(&issuers, &new, &issuer, 10).await.is_ok());
    assert!(prove(&issuers, &old, &issuer, 10).await.is_ok());
    assert_eq!(issuer.request_count(KEYS), 2);
}

#[tokio::test]
async fn a_withdrawn_key_is_refused_after_five_minutes() {
    let (old, new) = (Signer::ed25519("old"), Signer::ed25519("new"));
    let issuer = TestIssuer::new(&[&old]).await;
    let issuers = trusted(&[issuer_config(&issuer.url)]);
    assert!(prove(&issuers, &old, &issuer, 0).await.is_ok());
    issuer.set_reply(KEYS, Reply::keys(&[&new]));
    assert!(prove(&issuers, &old, &issuer, 239).await.is_ok());
    assert_eq!(issuer.request_count(KEYS), 1);
    assert_eq!(prove(&issuers, &old, &issuer, 300).await, unknown_key());
    assert!(prove(&issuers, &new, &issuer, 300).await.is_ok());
}

#[tokio::test]
async fn old_keys_are_refreshed_in_the_background() {
    let (old, new) = (Signer::ed25519("old"), Signer::ed25519("new"));
    let issuer = TestIssuer::new(&[&old]).await;
    let issuers = trusted(&[issuer_config(&issuer.url)]);
    assert!(prove(&issuers, &old, &issuer, 0).await.is_ok());
    let gate = Arc::new(Semaphore::new(0));
    let Reply::Text(keys) = Reply::keys(&[&new]) else { panic!("keys are a text") };
    issuer.set_reply(KEYS, Reply::Delayed(Arc::clone(&gate), keys));
    // The issuer has not responded yet, and the old key is still accepted.
    assert!(prove(&issuers, &old, &issuer, 240).await.is_ok());
    gate.add_permits(1);
    // A token with the new key waits for the fetch that is running.
    assert!(prove(&issuers, &new, &issuer, 240).await.is_ok());
    assert_eq!(prove(&issuers, &old, &issuer, 240).await, unknown_key());
    assert_eq!(issuer.request_count(KEYS), 2);
}

#[tokio::test]
async fn tokens_are_unavailable_until_the_issuer_first_responds() {
    let key = Signer::ed25519("a");
    let issuer = TestIssuer::new(&[&key]).await;
    let issuers = trusted(&[issuer_config(&issuer.url)]);
    issuer.set_reply(DISCOVERY, Reply::Status(500));
    for seconds in [0, 1, 9] {
        assert_eq!(prove(&issuers, &key, &issuer, seconds).await, UNAVAILABLE);
    }
    assert_eq!(issuer.request_count(DISCOVERY), 1);
    let discovery = json!({ "issuer": issuer.url, "jwks_uri": format!("{}/keys", issuer.url) });
    issuer.set_reply(DISCOVERY, Reply::Text(discovery.to_string()));
    assert_eq!(prove(&issuers, &key, &issuer, 9).await, UNAVAILABLE);
    assert!(prove(&issuers, &key, &issuer, 10).await.is_ok());
}

#[tokio::test]
async fn cached_keys_are_valid_for_a_day_while_the_issuer_is_unavailable() {
    let (key, new) = (Signer::ed25519("a"), Signer::ed25519("b"));
    let issuer = TestIssuer::new(&[&key]).await;
    let issuers = trusted(&[issuer_config(&issuer.url)]);
    assert!(prove(&issuers, &key, &issuer, 0).await.is_ok());
    issuer.set_reply(KEYS, Reply::Status(503));
    for seconds in [300, 301, 3_600, DAY - 1] {
        assert!(prove(&issuers, &key, &issuer, seconds).await.is_ok(), "{seconds}");
    }
    // Whether an unknown key is the issuer's is undecided.
    assert_eq!(prove(&issuers, &new, &issuer, DAY - 1).await, UNAVAILABLE);
    assert_eq!(prove(&issuers, &key, &issuer, DAY).await, UNAVAILABLE);
    issuer.set_reply(KEYS, Reply::keys(&[&key]));
    assert!(prove(&issuers, &key, &issuer, DAY + 10).await.is_ok());
    assert_eq!(prove(&issuers, &new, &issuer, DAY + 10).await, unknown_key());
}

#[tokio::test]
async fn an_unresponsive_issuer_times_out() {
    let key = Signer::ed25519("a");
    let issuer = TestIssuer::new(&[&key]).await;
    let issuers = trusted_within(&[issuer_config(&issuer.url)], Duration::from_millis(200));
    let never = Arc::new(Semaphore::new(0));
    for path in [DISCOVERY, KEYS] {
        issuer.set_reply(path, Reply::Delayed(Arc::clone(&never), String::new()));
    }
    assert_eq!(prove(&issuers, &key, &issuer, 0).await, UNAVAILABLE);
}

#[tokio::test]
async fn a_cancelled_request_does_not_cancel_the_fetch() {
    let key = Signer::ed25519("a");
    let issuer = TestIssuer::new(&[&key]).await;
    let issuers = Arc::new(trusted(&[issuer_config(&issuer.url)]));
    let gate = Arc::new(Semaphore::new(0));
    let Reply::Text(keys) = Reply::keys(&[&key]) else { panic!("keys are a text") };
    issuer.set_reply(KEYS, Reply::Delayed(Arc::clone(&gate), keys));
    let first = tokio::spawn({
        let (issuers, token) = (Arc::clone(&issuers), token(&key, &issuer, 0));
        async move { issuers.prove(&token, noon(0)).await }
    });
    // One request for the discovery, one for the keys.
    issuer.wait_for_request().await;
    issuer.wait_for_request().await;
    first.abort();
    assert!(first.await.is_err_and(|error| error.is_cancelled()));
    gate.add_permits(1);
    assert!(prove(&issuers, &key, &issuer, 1).await.is_ok());
    assert_eq!(issuer.request_count(KEYS), 1);
}

#[tokio::test]
async fn a_clock_that_is_set_back_refetches_the_keys() {
    let key = Signer::ed25519("a");
    let issuer = TestIssuer::new(&[&key]).await;
    let issuers = trusted(&[issuer_config(&issuer.url)]);
    assert!(prove(&issuers, &key, &issuer, DAY).await.is_ok());
    assert!(prove(&issuers, &key, &issuer, 0).await.is_ok());
    assert_eq!(issuer.request_count(KEYS), 2);
}

#[tokio::test]
async fn an_invalid_discovery_or_key_list_is_refused() {
    let key = Signer::ed25519("a");
    let issuer = TestIssuer::new(&[&key]).await;
    let Reply::Text(keys) = Reply::keys(&[&key]) else { panic!("keys are a text") };
    let elsewhere = issuer.url.clone() + "/elsewhere";
    issuer.set_reply("/elsewhere", Reply::Text(keys.clone()));
    let discovery =
        |name: &str, url: &str| Reply::Text(json!({ "issuer": name, "jwks_uri": url }).to_string());
    let padded = |bytes: usize| Reply::Text(keys.clone() + &" ".repeat(bytes - keys.len()));
    let many: Vec<_> = (0..101).map(|_| key.jwk()).collect();
    let right = discovery(&issuer.url, &elsewhere);
    for (path, says) in [
        (DISCOVERY, discovery("https://id.example.com", &elsewhere)),
        (DISCOVERY, discovery(&(issuer.url.clone() + "/"), &elsewhere)),
        (DISCOVERY, discovery(&issuer.url, "http://id.example.com/keys")),
        (DISCOVERY, discovery(&issuer.url, "file:///keys")),
        (DISCOVERY, Reply::Text("{}".to_owned())),
        (DISCOVERY, Reply::Redirect(issuer.url.clone() + "/other")),
        ("/elsewhere", Reply::Redirect(issuer.url.clone() + KEYS)),
        ("/elsewhere", Reply::Status(204)),
        ("/elsewhere", Reply::Text(keys.replace('}', ""))),
        ("/elsewhere", Reply::Text("[]".to_owned())),
        ("/elsewhere", padded(256 * 1_024 + 1)),
        ("/elsewhere", Reply::Text(json!({ "keys": many }).to_string())),
    ] {
        let issuers = trusted(&[issuer_config(&issuer.url)]);
        issuer.set_reply(DISCOVERY, right.clone());
        issuer.set_reply("/elsewhere", Reply::Text(keys.clone()));
        issuer.set_reply("/other", right.clone());
        issuer.set_reply(path, says);
        assert_eq!(prove(&issuers, &key, &issuer, 0).await, UNAVAILABLE);
    }
    issuer.set_reply(DISCOVERY, right);
    issuer.set_reply("/elsewhere", padded(256 * 1_024));
    let issuers = trusted(&[issuer_config(&issuer.url)]);
    assert!(prove(&issuers, &key, &issuer, 0).await.is_ok());
}

#[tokio::test]
async fn a_configured_jwks_url_skips_discovery() {
    let key = Signer::ed25519("a");
    let issuer = TestIssuer::new(&[&key]).await;
    let named =
        with(issuer_config("https://id.example.com"), "jwks_url", json!(issuer.url.clone() + KEYS));
    let issuers = trusted(&[named]);
    let token = key.token(&claims("https://id.example.com"));
    assert!(issuers.prove(&token, noon(0)).await.is_ok());
    assert_eq!((issuer.request_count(DISCOVERY), issuer.request_count(KEYS)), (0, 1));
}
