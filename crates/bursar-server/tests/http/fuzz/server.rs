//! A server without sockets, over a store in its own folder, with credentials of each kind.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use bursar_core::{Day, Timestamp};
use bursar_server::app::App;
use bursar_server::config::settings::Config;
use bursar_server::router::router;
use bursar_server::server;
use bursar_store::SqliteStore;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;

pub(crate) const OPERATOR_TOKEN: &str = "operator-token-of-the-fuzzer";
pub(crate) const METRICS_TOKEN: &str = "metrics-token-of-the-fuzzer";
pub(crate) const SECRET_KEY: &str = "secret-key-of-the-fuzzer-32-bytes";

/// A response.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
    /// The body as JSON; null if it is not JSON.
    pub(crate) json: Value,
}

pub(crate) struct Server {
    app: App,
    router: Router,
    now: Arc<AtomicI64>,
    database: PathBuf,
    folder: TempDir,
}

impl Server {
    /// A server whose clock starts at noon on 14 March 2026.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let environment = [
            ("BURSAR_DATA_DIR", folder.path().to_str().expect("plain text")),
            ("BURSAR_OPERATOR_TOKEN", OPERATOR_TOKEN),
            ("BURSAR_METRICS_TOKEN", METRICS_TOKEN),
            ("BURSAR_SECRET_KEY", SECRET_KEY),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let config = Config::load(None, environment.into_iter()).expect("a configuration");
        let noon = Day::from_civil(2026, 3, 14).expect("a day").start().plus_seconds(43_200);
        let now = Arc::new(AtomicI64::new(noon.micros()));
        let clock = Arc::clone(&now);
        let read = move || Timestamp::from_micros(clock.load(Ordering::SeqCst)).unwrap_or(noon);
        let app = server::open(&config, Some(Arc::new(read))).expect("a server");
        let router = router(app.clone());
        let database = config.database().file().expect("a file").to_owned();
        Self { app, router, now, database, folder }
    }

    pub(crate) fn router(&self) -> Router {
        self.router.clone()
    }

    pub(crate) fn advance(&self, seconds: i64) {
        self.now.fetch_add(seconds * 1_000_000, Ordering::SeqCst);
    }

    /// Runs the jobs that the server runs every second.
    pub(crate) async fn tick(&self) {
        self.app.ledger.sweep().await.expect("swept");
        self.app.decision_log.write(&self.app.ledger).await.expect("written");
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        uri: Uri,
        headers: HeaderMap,
        body: Vec<u8>,
    ) -> Reply {
        let mut request = Request::new(Body::from(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        let Ok(answer) = self.router.clone().oneshot(request).await;
        let (parts, body) = answer.into_parts();
        let body = body.collect().await.expect("a whole answer").to_bytes();
        let body = String::from_utf8(body.to_vec()).expect("UTF-8");
        let json = serde_json::from_str(&body).unwrap_or(Value::Null);
        Reply { status: parts.status, headers: parts.headers, body, json }
    }

    /// Creates a resource of a tenant as the operator; returns a field of the response.
    async fn make(&self, tenant_id: &str, path: &str, body: Value, field: &str) -> String {
        let mut headers = bearer(OPERATOR_TOKEN);
        if !tenant_id.is_empty() {
            headers.insert("x-tenant-id", HeaderValue::try_from(tenant_id).expect("an id"));
        }
        let uri = format!("/api/v1{path}").parse().expect("a path");
        let reply = self.send(Method::POST, uri, headers, body.to_string().into_bytes()).await;
        let text = reply.json.pointer(&format!("/data/{field}")).and_then(Value::as_str);
        text.unwrap_or_else(|| panic!("{path} answers {}", reply.body)).to_owned()
    }

    /// Creates two tenants, and integrations and keys of the first.
    pub(crate) async fn create_known(&self) -> Known {
        let tenant = self.make("", "/tenants", json!({ "name": "a" }), "id").await;
        let other = self.make("", "/tenants", json!({ "name": "b" }), "id").await;
        let limited = json!({
            "name": "limited", "provider_type": "openai", "budget_limit_cents": 100,
            "token_limit_month": 5_000, "rate_limit_rpm": 20,
        });
        let limited = self.make(&tenant, "/integrations", limited, "id").await;
        let free = json!({ "name": "free", "provider_type": "custom" });
        let free = self.make(&tenant, "/integrations", free, "id").await;
        for id in [&limited, &free] {
            self.make(&tenant, &format!("/integrations/{id}/enable"), json!({}), "id").await;
        }
        let foreign = json!({ "name": "i", "provider_type": "openai" });
        let foreign = self.make(&other, "/integrations", foreign, "id").await;
        let all = json!({ "name": "all", "scopes": ["*"] });
        let api_key = self.make(&tenant, "/keys", all, "secret").await;
        let few = json!({ "name": "few", "scopes": ["telemetry:read", "enforcement:check"] });
        let small_key = self.make(&tenant, "/keys", few, "secret").await;
        let keys = format!("/integrations/{limited}/keys");
        let integration_key = self.make(&tenant, &keys, json!({}), "secret").await;
        let integrations = vec![limited, free, foreign];
        Known { tenants: vec![tenant, other], integrations, api_key, small_key, integration_key }
    }

    /// Closes the server and asserts that all totals are the sums of their entries.
    pub(crate) async fn close_and_verify(self) {
        let Self { app, database, folder, .. } = self;
        app.ledger.close().await;
        let verified = SqliteStore::verify(&database).expect("a database").expect("a count");
        assert_eq!(verified.differences.count, 0, "{:?}", verified.differences.listed);
        drop(folder);
    }
}

/// The ids and credentials that requests can use.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) tenants: Vec<String>,
    /// An integration with limits, one without, and one of the other tenant.
    pub(crate) integrations: Vec<String>,
    pub(crate) api_key: String,
    pub(crate) small_key: String,
    pub(crate) integration_key: String,
}

/// The headers of a bearer token.
pub(crate) fn bearer(token: &str) -> HeaderMap {
    let value = HeaderValue::try_from(format!("Bearer {token}")).expect("a header");
    [(header::AUTHORIZATION, value)].into_iter().collect()
}
