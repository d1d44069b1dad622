//! A server without sockets over a store in a folder of its own, and a clock that the test owns.

mod answer;
pub(crate) mod conformance;
mod persona;

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

pub(crate) use answer::Answer;
pub(crate) use persona::{Persona, Tenant};

const OPERATOR_TOKEN: &str = "operator-token-of-the-tests";
pub(crate) const METRICS_TOKEN: &str = "metrics-token-of-the-tests";
const SECRET_KEY: &str = "secret-key-of-the-tests-32-bytes";

/// Thresholds that no test means to meet, and that some would: their clock stands still.
const UNPROTECTED: [&str; 4] = [
    "BURSAR_PROTECTION_REQUESTS_PER_MINUTE",
    "BURSAR_PROTECTION_REQUESTS_PER_SECOND",
    "BURSAR_PROTECTION_TRAFFIC_PER_MINUTE",
    "BURSAR_PROTECTION_TRAFFIC_PER_SECOND",
];

/// The time, as the test says it is, in microseconds; the monotonic clock that moves with it; and by
/// how much the time was set while none passed.
#[derive(Clone, Default)]
pub(crate) struct TestClock(Arc<AtomicI64>, Arc<AtomicI64>, Arc<AtomicI64>);

impl TestClock {
    /// Sets the clock to an instant of a day, given in seconds after midnight.
    pub(crate) fn set(&self, (year, month, day): (i32, u8, u8), second: u32) {
        let at = Day::from_civil(year, month, day).unwrap().start().plus_seconds(second);
        let before = self.0.swap(at.micros(), Ordering::SeqCst);
        self.1.fetch_add((at.micros() - before).max(0), Ordering::SeqCst);
    }

    pub(crate) fn advance(&self, seconds: i64) {
        self.0.fetch_add(seconds * 1_000_000, Ordering::SeqCst);
        self.rest(seconds);
    }

    /// Sets the time ahead or back, as someone sets a clock, while no time passes.
    pub(crate) fn jump(&self, seconds: i64) {
        self.0.fetch_add(seconds * 1_000_000, Ordering::SeqCst);
        self.2.fetch_add(seconds * 1_000_000, Ordering::SeqCst);
    }

    /// Lets time pass while the clocks that the store reads stand.
    pub(crate) fn rest(&self, seconds: i64) {
        self.1.fetch_add(seconds * 1_000_000, Ordering::SeqCst);
    }

    fn monotonic(&self) -> MonotonicClock {
        let micros = Arc::clone(&self.1);
        let elapsed = move || Duration::from_micros(micros.load(Ordering::SeqCst).unsigned_abs());
        MonotonicClock::injected(elapsed)
    }

    fn clocks(&self) -> Clocks {
        let (wall, boot) = (self.clone(), self.clone());
        let read = |clock: &AtomicI64| clock.load(Ordering::SeqCst);
        Clocks::new(
            Arc::new(move || Timestamp::from_micros(read(&wall.0)).unwrap()),
            Arc::new(move || read(&boot.0) - read(&boot.2)),
        )
    }
}

/// The server; it is 9:26:53 in the morning of 14 March 2026.
pub(crate) struct TestApp {
    pub(crate) clock: TestClock,
    pub(crate) app: App,
    router: Router,
    operator_router: Router,
    _folder: TempDir,
}

impl TestApp {
    pub(crate) fn new() -> Self {
        Self::with_settings(&[])
    }

    /// The same with other settings, by their names in the environment.
    pub(crate) fn with_settings(settings: &[(&str, &str)]) -> Self {
        let clock = TestClock::default();
        clock.set((2026, 3, 14), 9 * 3_600 + 26 * 60 + 53);
        let folder = tempfile::tempdir().unwrap();
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
        Self { clock, app, router, operator_router, _folder: folder }
    }

    /// Writes down what the server writes down every second.
    pub(crate) async fn tick(&self) {
        self.app.ledger.sweep().await.unwrap();
        self.app.decision_log.write(&self.app.ledger).await.unwrap();
        self.app.protection.write(&self.app.ledger).await.unwrap();
    }

    /// Writes down which keys were used, as the server does now and then.
    pub(crate) async fn write_key_uses(&self) {
        self.app.key_uses.write(&self.app.ledger).await.unwrap();
    }

    /// Reads the metrics that come from the store, as the server does now and then.
    pub(crate) async fn read_store_stats(&self) {
        self.app.metrics.read_store_stats(self.app.store.as_ref()).await.unwrap();
    }

    /// Someone without any credential.
    pub(crate) fn nobody(&self) -> Persona {
        Persona::new(self.router.clone())
    }

    /// Someone without any credential at the operator's own listener.
    pub(crate) fn nobody_inside(&self) -> Persona {
        Persona::new(self.operator_router.clone())
    }

    /// The operator, naming no tenant.
    pub(crate) fn founder(&self) -> Persona {
        self.nobody().with("authorization", &format!("Bearer {OPERATOR_TOKEN}"))
    }

    /// A new tenant.
    pub(crate) async fn tenant(&self, name: &str) -> Tenant {
        let made = self.founder().post("/tenants").json(&json!({ "name": name })).await;
        Tenant::new(made.is(201).text("/data/id"), self.nobody(), self.founder())
    }
}

/// The same object with some fields changed or added.
pub(crate) fn with(mut base: Value, changes: Value) -> Value {
    let (Some(fields), Value::Object(changes)) = (base.as_object_mut(), changes) else {
        unreachable!("both are objects");
    };
    fields.extend(changes);
    base
}

/// A usage record that is accepted: a thousand tokens for 1.25 cents.
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

/// A reservation of 10 cents and a thousand tokens.
pub(crate) fn reservation(integration_id: &str, call_id: &str) -> Value {
    json!({
        "integration_id": integration_id,
        "call_id": call_id,
        "estimated_cost_cents": 10,
        "estimated_tokens": 1000,
    })
}
