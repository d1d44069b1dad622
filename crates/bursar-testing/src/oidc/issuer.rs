//! An issuer on this machine, which answers what a test wants it to.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Response, Uri};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::signer::Signer;

/// Where the issuer has what.
pub const DISCOVERY: &str = "/.well-known/openid-configuration";
pub const KEYS: &str = "/keys";

/// What a path answers.
#[derive(Clone)]
pub enum Says {
    Text(String),
    Status(u16),
    /// Another address.
    Elsewhere(String),
    /// Nothing, until the test says so.
    Waits(Arc<Semaphore>, String),
}

impl Says {
    pub fn keys(keys: &[&Signer]) -> Self {
        let keys: Vec<Value> = keys.iter().map(|key| key.jwk()).collect();
        Self::Text(json!({ "keys": keys }).to_string())
    }
}

/// An issuer. It ends with the test's runtime.
#[derive(Clone)]
pub struct TestIssuer {
    pub url: String,
    told: Arc<Told>,
}

struct Told {
    says: Mutex<HashMap<String, Says>>,
    asked: Mutex<HashMap<String, usize>>,
    /// Has a permit for each question that came.
    came: Semaphore,
}

impl TestIssuer {
    /// One with these keys.
    pub async fn new(keys: &[&Signer]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let issuer = Self::at(url, keys);
        let router = issuer.router();
        tokio::spawn(async move { axum::serve(listener, router).await });
        issuer
    }

    /// One that is served elsewhere, under this URL.
    pub fn at(url: String, keys: &[&Signer]) -> Self {
        let told =
            Told { says: Mutex::default(), asked: Mutex::default(), came: Semaphore::new(0) };
        let issuer = Self { url, told: Arc::new(told) };
        let discovery = json!({ "issuer": issuer.url, "jwks_uri": issuer.url.clone() + KEYS });
        issuer.says(DISCOVERY, Says::Text(discovery.to_string()));
        issuer.says(KEYS, Says::keys(keys));
        issuer
    }

    pub fn router(&self) -> Router {
        Router::new().fallback(answer).with_state(self.clone())
    }

    /// Answers this from now on.
    pub fn says(&self, path: &str, says: Says) {
        self.told.says.lock().insert(path.to_owned(), says);
    }

    /// How often a path was asked for.
    pub fn asked(&self, path: &str) -> usize {
        self.told.asked.lock().get(path).copied().unwrap_or_default()
    }

    /// Waits until it was asked something that was not waited for yet.
    pub async fn came(&self) {
        self.told.came.acquire().await.unwrap().forget();
    }
}

async fn answer(State(issuer): State<TestIssuer>, uri: Uri) -> Response<Body> {
    let path = uri.path().to_owned();
    *issuer.told.asked.lock().entry(path.clone()).or_default() += 1;
    issuer.told.came.add_permits(1);
    let says = issuer.told.says.lock().get(&path).cloned();
    let (status, location, text) = match says {
        Some(Says::Text(text)) => (200, None, text),
        Some(Says::Status(status)) => (status, None, String::new()),
        Some(Says::Elsewhere(url)) => (302, Some(url), String::new()),
        Some(Says::Waits(gate, text)) => {
            gate.acquire().await.unwrap().forget();
            (200, None, text)
        }
        None => (404, None, String::new()),
    };
    let mut response = Response::builder().status(status);
    if let Some(url) = location {
        response = response.header("location", url);
    }
    response.body(Body::from(text)).unwrap()
}
