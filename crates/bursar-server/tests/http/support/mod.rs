//! A server without sockets, over a store in its own folder, with a clock that the test sets.

mod api_response;
mod client;
pub(crate) mod conformance;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use axum::Router;
use bursar_core::{Day, Timestamp};
use bursar_server::app::App;
use bursar_server::config::settings::Config;
use bursar_server::jobs::monotonic_clock::MonotonicClock;
use bursar_server::router::{operator_router, router};
use bursar_server::server;
use bursar_store::Clocks;
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) use api_response::ApiResponse;
pub(crate) use client::{Client, Tenant};

const OPERATOR_TOKEN: &str = "operator-token-of-the-tests";
pub(crate) const METRICS_TOKEN: &str = "metrics-token-of-the-tests";
const SECRET_KEY: &str = "secret-key-of-the-tests-32-bytes";

/// Thresholds that tests would reach unintentionally, because their clock stands still.
const UNPROTECTED: [&str; 4] = [
    "BURSAR_PROTECTION_REQUESTS_PER_MINUTE",
    "BURSAR_PROTECTION_REQUESTS_PER_SECOND",
    "BURSAR_PROTECTION_TRAFFIC_PER_MINUTE",
    "BURSAR_PROTECTION_TRAFFIC_PER_SECOND",
];

/// The wall clock and the monotonic clock of a test, in microseconds.
#[derive(Clone, Default)]
pub(crate) struct TestClock {
    wall: Arc<AtomicI64>,
    monotonic: Arc<AtomicI64>,
    /// The sum of the jumps: by how much the wall clock moved while no time passed.
    jumped: Arc<AtomicI64>,
}

impl TestClock {
    /// Sets the clock to a second of a day, counted from midnight.
    pub(crate) fn set(&self, (year, month, day): (i32, u8, u8), second: u32) {
        let at = Day::from_civil(year, month, day).unwrap().start().plus_seconds(second);
        let before = self.wall.swap(at.micros(), Ordering::SeqCst);
        self.monotonic.fetch_add((at.micros() - before).max(0), Ordering::SeqCst);
    }

    pub(crate) fn advance(&self, seconds: i64) {
        self.wall.fetch_add(seconds * 1_000_000, Ordering::SeqCst);
        self.advance_monotonic(seconds);
    }

    /// Sets the wall clock ahead or back while no time passes.
    pub(crate) fn jump(&self, seconds: i64) {
        self.wall.fetch_add(seconds * 1_000_000, Ordering::SeqCst);
        self.jumped.fetch_add(seconds * 1_000_000, Ordering::SeqCst);
    }

    /// Lets time pass while the clocks that the store reads stand still.
    pub(crate) fn advance_monotonic(&self, seconds: i64) {
        self.monotonic.fetch_add(seconds * 1_000_000, Ordering::SeqCst);
    }

    fn monotonic(&self) -> MonotonicClock {
        let micros = Arc::clone(&self.monotonic);
        let elapsed = move || Duration::from_micros(micros.load(Ordering::SeqCst).unsigned_abs());
        MonotonicClock::injected(elapsed)
    }

    fn clocks(&self) -> Clocks {
        let (wall, boot) = (self.clone(), self.clone());
        let read = |clock: &AtomicI64| clock.load(Ordering::SeqCst);
        Clocks::new(
            Arc::new(move || Timestamp::from_micros(read(&wall.wall)).unwrap()),
            Arc::new(move || read(&boot.wall) - read(&boot.jumped)),
        )
    }
}

/// The server; its clock starts at 2026-03-14 09:26:53 UTC.
pub(crate) struct TestApp {
    pub(crate) clock: TestClock,
    pub(crate) app: App,
    router: Router,
    operator_router: Router,
    folder: TempDir,
}

impl TestApp {
    pub(crate) fn new() -> Self {
        Self::with_settings(&[])
    }

    /// A server with these settings, by their environment variables.
    pub(crate) fn with_settings(settings: &[(&str, &str)]) -> Self {
        let clock = TestClock::default();
        clock.set((2026, 3, 14), 9 * 3_600 + 26 * 60 + 53);
        Self::open(clock, tempfile::tempdir().unwrap(), settings)
    }

    /// The server after a restart with these settings. Clients of the server before are of no use.
    pub(crate) async fn restarted_with(self, settings: &[(&str, &str)]) -> Self {
        let Self { clock, app, router, operator_router, folder } = self;
        app.ledger.close().await;
        drop((app, router, operator_router));
        Self::open(clock, folder, settings)
    }

    fn open(clock: TestClock, folder: TempDir, settings: &[(&str, &str)]) -> Self {
        let environment = [
            ("BURSAR_DATA_DIR", folder.path().to_str().unwrap()),
            ("BURSAR_OPERATOR_TOKEN", OPERATOR_TOKEN),
            ("BURSAR_METRICS_TOKEN", METRICS_TOKEN),
            ("BURSAR_SECRET_KEY", SECRET_KEY),
        ];
        let unprotected = UNPROTECTED.map(|name| (name, "1000000000"));
        let environment = environment.iter().chain(&unprotected).chain(settings);
        let environment = environment.map(|&(name, value)| (name.to_owned(), value.to_owned()));
        let config = Config::load(None, environment).unwrap();
        let app = server::open_with(&config, Some(clock.clocks()), clock.monotonic()).unwrap();
        let operator_router = operator_router(app.clone());
        let router = router(app.clone());
        Self { clock, app, router, operator_router, folder }
    }

    /// Runs the jobs that the server runs every second.
    pub(crate) async fn tick(&self) {
        self.app.ledger.sweep().await.unwrap();
        self.app.decision_log.write(&self.app.ledger).await.unwrap();
        self.app.protection.write(&self.app.ledger).await.unwrap();
    }

    /// Stores the last uses of keys, which the server does periodically.
    pub(crate) async fn write_key_uses(&self) {
        self.app.key_uses.write(&self.app.ledger).await.unwrap();
    }

    /// Reads the metrics of the store, which the server does periodically.
    pub(crate) async fn read_store_stats(&self) {
        self.app.metrics.read_store_stats(self.app.store.as_ref()).await.unwrap();
    }

    /// A client without a credential.
    pub(crate) fn anonymous(&self) -> Client {
        Client::new(self.router.clone())
    }

    /// A client without a credential at the operator's listener.
    pub(crate) fn anonymous_at_operator_listener(&self) -> Client {
        Client::new(self.operator_router.clone())
    }

    /// The operator, who names no tenant.
    pub(crate) fn founder(&self) -> Client {
        self.anonymous().with("authorization", &format!("Bearer {OPERATOR_TOKEN}"))
    }

    /// A tenant that exists already.
    pub(crate) fn known_tenant(&self, id: &str) -> Tenant {
        Tenant::new(id, self.anonymous(), self.founder())
    }

    /// A new tenant.
    pub(crate) async fn tenant(&self, name: &str) -> Tenant {
        let made = self.founder().post("/tenants").json(&json!({ "name": name })).await;
        self.known_tenant(made.is(201).text("/data/id"))
    }
}

/// A server with a tenant and one of its integrations.
pub(crate) async fn set_up() -> (TestApp, Tenant, String) {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    (app, tenant, id)
}

/// The object with these fields changed or added.
pub(crate) fn with(mut base: Value, changes: Value) -> Value {
    let (Some(fields), Value::Object(changes)) = (base.as_object_mut(), changes) else {
        unreachable!("both are objects");
    };
    fields.extend(changes);
    base
}

/// A valid usage record: 1,000 tokens for 1.25 cents.
pub(crate) fn record(integration_id: &str, call_id: &str) -> Value {
    json!({
        "integration_id": integration_id,
        "call_id": call_id,
        "provider": "openai",
        "model": "gpt-4o",
        "tokens_in": 800,
        "tokens_out": 200,
        "cost_cents": 1.25,
    })
}

/// A reservation of 10 cents and 1,000 tokens.
pub(crate) fn reservation(integration_id: &str, call_id: &str) -> Value {
    json!({
        "integration_id": integration_id,
        "call_id": call_id,
        "estimated_cost_cents": 10,
        "estimated_tokens": 1000,
    })
}
