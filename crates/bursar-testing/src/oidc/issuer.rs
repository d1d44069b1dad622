//! An OIDC issuer on this machine, with responses that the test sets.

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

/// The paths of the issuer.
pub const DISCOVERY: &str = "/.well-known/openid-configuration";
pub const KEYS: &str = "/keys";

/// The response of a path.
#[derive(Clone)]
pub enum Reply {
    Text(String),
    Status(u16),
    Redirect(String),
    /// A text, as soon as the test adds a permit.
    Delayed(Arc<Semaphore>, String),
}

impl Reply {
    pub fn keys(keys: &[&Signer]) -> Self {
        let keys: Vec<Value> = keys.iter().map(|key| key.jwk()).collect();
        Self::Text(json!({ "keys": keys }).to_string())
    }
}

/// An issuer. It stops with the test's runtime.
#[derive(Clone)]
pub struct TestIssuer {
    pub url: String,
    state: Arc<IssuerState>,
}

struct IssuerState {
    replies: Mutex<HashMap<String, Reply>>,
    requests: Mutex<HashMap<String, usize>>,
    /// Has a permit for each request that `wait_for_request` has not returned yet.
    received: Semaphore,
}

impl TestIssuer {
    /// An issuer that publishes these keys.
    pub async fn new(keys: &[&Signer]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let issuer = Self::at(url, keys);
        let router = issuer.router();
        tokio::spawn(async move { axum::serve(listener, router).await });
        issuer
    }

    /// An issuer under this URL, which the test serves with [`Self::router`].
    pub fn at(url: String, keys: &[&Signer]) -> Self {
        let state = IssuerState {
            replies: Mutex::default(),
            requests: Mutex::default(),
            received: Semaphore::new(0),
        };
        let issuer = Self { url, state: Arc::new(state) };
        let discovery = json!({ "issuer": issuer.url, "jwks_uri": issuer.url.clone() + KEYS });
        issuer.set_reply(DISCOVERY, Reply::Text(discovery.to_string()));
        issuer.set_reply(KEYS, Reply::keys(keys));
        issuer
    }

    pub fn router(&self) -> Router {
        Router::new().fallback(answer).with_state(self.clone())
    }

    pub fn set_reply(&self, path: &str, reply: Reply) {
        self.state.replies.lock().insert(path.to_owned(), reply);
    }

    /// The number of requests to a path.
    pub fn request_count(&self, path: &str) -> usize {
        self.state.requests.lock().get(path).copied().unwrap_or_default()
    }

    /// Waits for the next request that no earlier call returned for.
    pub async fn wait_for_request(&self) {
        self.state.received.acquire().await.unwrap().forget();
    }
}

async fn answer(State(issuer): State<TestIssuer>, uri: Uri) -> Response<Body> {
    let path = uri.path().to_owned();
    *issuer.state.requests.lock().entry(path.clone()).or_default() += 1;
    issuer.state.received.add_permits(1);
    let reply = issuer.state.replies.lock().get(&path).cloned();
    let (status, location, text) = match reply {
        Some(Reply::Text(text)) => (200, None, text),
        Some(Reply::Status(status)) => (status, None, String::new()),
        Some(Reply::Redirect(url)) => (302, Some(url), String::new()),
        Some(Reply::Delayed(permits, text)) => {
            permits.acquire().await.unwrap().forget();
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
