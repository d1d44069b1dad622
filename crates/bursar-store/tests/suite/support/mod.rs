//! A store with a database of its own, a clock that the test sets, and sample values.

#![expect(clippy::unwrap_used, reason = "a test that cannot be arranged has failed")]

pub(crate) mod accounts;
pub(crate) mod constants;
pub(crate) mod faulty;
pub(crate) mod group;
pub(crate) mod limit_recount;
pub(crate) mod limits;
pub(crate) mod nodes;
pub(crate) mod postgres_database;
mod recount;
pub(crate) mod test_database;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::{Context, Waker};

use bursar_core::{
    CallId, Caps, CostBasis, Day, Estimate, IntegrationId, LimitSettings, NANOS_PER_CENT, Nanos,
    ReserveRequest, TenantId, Timestamp, TokenBuckets, Usage,
};
use bursar_store::{
    Actor, Changed, Clocks, Control, IntegrationDraft, Ledger, NoopObserver, Observer, Store,
    WriterConnection,
};

use accounts::account_snapshot;
use recount::Recount;
use test_database::TestDatabase;

/// Creates a database for one test.
pub(crate) type NewDatabase = fn() -> Box<dyn TestDatabase>;

pub(crate) const SQLITE: NewDatabase = || Box::new(test_database::SqliteFile::new());

/// A clock that the test sets.
#[derive(Clone, Default)]
pub(crate) struct TestClock {
    wall: Arc<AtomicI64>,
    /// The sum of all jumps, in microseconds.
    jumped: Arc<AtomicI64>,
}

impl TestClock {
    pub(crate) fn set(&self, at: Timestamp) {
        self.wall.store(at.micros(), Ordering::SeqCst);
    }

    pub(crate) fn advance(&self, seconds: u32) {
        self.set(self.now().plus_seconds(seconds));
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.wall.load(Ordering::SeqCst)).unwrap()
    }

    /// Sets the wall clock forward or back, without time passing.
    pub(crate) fn jump(&self, seconds: i64) {
        self.wall.fetch_add(seconds * 1_000_000, Ordering::SeqCst);
        self.jumped.fetch_add(seconds * 1_000_000, Ordering::SeqCst);
    }

    pub(crate) fn clocks(&self) -> Clocks {
        let (wall, boot) = (self.clone(), self.clone());
        let boot = move || boot.now().micros() - boot.jumped.load(Ordering::SeqCst);
        Clocks::new(Arc::new(move || wall.now()), Arc::new(boot))
    }
}

/// Wraps the writers of a database, for example to inject faults.
type Wrap = Arc<dyn Fn(Box<dyn WriterConnection>) -> Box<dyn WriterConnection> + Send + Sync>;

/// An open store with its ledger.
pub(crate) struct World {
    pub(crate) clock: TestClock,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) ledger: Ledger,
    pub(crate) database: Box<dyn TestDatabase>,
    wrap: Wrap,
    observer: Arc<dyn Observer>,
    caps: Caps,
    closer: Closer,
}

/// Ends the writers of a ledger with their test. Otherwise each would keep its thread and its files
/// until the process ends.
struct Closer(Ledger);

impl Drop for Closer {
    fn drop(&mut self) {
        // Only a runtime can wait for them, and each test of a ledger has one.
        if tokio::runtime::Handle::try_current().is_ok() {
            // The first poll refuses new commands, which ends the writers.
            let mut closing = pin!(self.0.close());
            let _ = closing.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        }
    }
}

impl World {
    /// A new, empty store, on the morning of 14 March 2026.
    pub(crate) fn new(database: NewDatabase) -> Self {
        Self::wrapped(database, Arc::new(|writer| writer))
    }

    /// A new store whose writers are wrapped each time it is opened.
    pub(crate) fn wrapped(database: NewDatabase, wrap: Wrap) -> Self {
        Self::observed(database, wrap, Arc::new(NoopObserver))
    }

    /// Like [`World::wrapped`], with an observer of the writers.
    pub(crate) fn observed(database: NewDatabase, wrap: Wrap, observer: Arc<dyn Observer>) -> Self {
        let start = day(2026, 3, 14).plus_seconds(9 * 3_600 + 26 * 60 + 53);
        let clock = TestClock::default();
        clock.set(start);
        Self::open(database(), clock, wrap, observer, Caps::DEFAULT)
    }

    /// The same store with other caps, after a restart.
    pub(crate) async fn capped(self, caps: Caps) -> Self {
        Self { caps, ..self }.reopened().await
    }

    fn open(
        database: Box<dyn TestDatabase>,
        clock: TestClock,
        wrap: Wrap,
        observer: Arc<dyn Observer>,
        caps: Caps,
    ) -> Self {
        let (store, writers) = database.open(clock.clocks());
        let writers = writers.into_iter().map(|writer| wrap(writer)).collect();
        let ledger = Ledger::start(writers, Arc::clone(&observer), caps).unwrap();
        let closer = Closer(ledger.clone());
        Self { clock, store, ledger, database, wrap, observer, caps, closer }
    }

    /// The same store after a restart.
    pub(crate) async fn reopened(self) -> Self {
        let Self { clock, store, ledger, database, wrap, observer, caps, closer } = self;
        ledger.close().await;
        drop((store, ledger, closer));
        Self::open(database, clock, wrap, observer, caps)
    }

    /// Creates a tenant.
    pub(crate) async fn tenant(&self, name: &'static str) -> TenantId {
        let any = TenantId::from_number(1).unwrap();
        let made =
            self.ledger.change(any, move |tx| Control::create_tenant(tx, &actor(), name)).await;
        made.unwrap().tenant_id
    }

    /// Creates an integration and enables it.
    pub(crate) async fn integration(
        &self,
        tenant_id: TenantId,
        name: &str,
        limits: LimitSettings,
    ) -> IntegrationId {
        accounts::create_integration(&self.ledger, tenant_id, name, limits).await
    }

    /// Runs a change of the control plane.
    pub(crate) async fn control<T: Send + 'static>(
        &self,
        tenant_id: TenantId,
        mut change: impl FnMut(&mut Control<'_>) -> Changed<T> + Send + 'static,
    ) -> Changed<T> {
        let run = move |tx: &mut dyn bursar_store::ControlTx| {
            change(&mut Control::new(tx, &actor(), tenant_id))
        };
        self.ledger.change(tenant_id, run).await
    }

    /// Recomputes all sums from the rows, and compares them with the stored ones and with reads.
    pub(crate) async fn verify(&self) {
        let recount = Recount::of(self.database.as_ref());
        for &(tenant_id, integration_id) in &recount.integrations {
            self.ledger.load_account(tenant_id, integration_id).await.unwrap();
            let snapshot = account_snapshot(&self.store, tenant_id, integration_id).await.unwrap();
            let (account, now) = (snapshot.account, snapshot.now);
            let counter = account.counter(now.month()).unwrap();
            let key = (tenant_id, integration_id);
            assert_eq!(counter.used, recount.used(key, now.month()), "used by {key:?}");
            assert_eq!(counter.held, recount.held(key, now), "held by {key:?}");
            let rate = account.rate.current(now.second());
            assert_eq!(rate, recount.rate(key, now.second()), "rate of {key:?}");
            for month in recount.months(key) {
                let stored = self.store.counter(tenant_id, integration_id, month).await.unwrap();
                assert_eq!(stored.used, recount.used(key, month), "used by {key:?} in {month}");
            }
        }
        let verified = self.database.verify();
        assert_eq!(verified.differences.count, 0, "{:?}", verified.differences.listed);
        let audited = self.database.verify_audit();
        assert_eq!(audited.differences.count, 0, "{:?}", audited.differences.listed);
    }
}

/// The actor of all changes.
pub(crate) fn actor() -> Actor {
    Actor {
        actor_type: "founder",
        actor_id: "operator".to_owned(),
        request_id: "request-1".to_owned(),
        address: Some("192.0.2.1".to_owned()),
    }
}

/// An integration of OpenAI with these limits.
pub(crate) fn draft(name: &str, limits: LimitSettings) -> IntegrationDraft {
    IntegrationDraft {
        name: name.to_owned(),
        provider_type: "openai".to_owned(),
        credential_ref: Some("env://CUS_CRED_A".to_owned()),
        config: r#"{"base_url":"https://api.example.com/v1"}"#.to_owned(),
        origin: Some("https://api.example.com:443".to_owned()),
        default_model: Some("gpt".to_owned()),
        limits,
        cost_basis: CostBasis::Reported,
    }
}

/// A monthly budget as the only limit.
pub(crate) fn budget(cents: i64) -> LimitSettings {
    LimitSettings { budget_limit_cents: cents, ..LimitSettings::default() }
}

pub(crate) fn call_id(text: &str) -> CallId {
    CallId::new(text).unwrap()
}

pub(crate) fn cents(cents: i64) -> Nanos {
    Nanos::new(cents * NANOS_PER_CENT)
}

/// The first instant of a day.
pub(crate) fn day(year: i32, month: u8, day: u8) -> Timestamp {
    Day::from_civil(year, month, day).unwrap().start()
}

/// A record of 10 + 20 tokens and one cent.
pub(crate) fn usage(integration_id: IntegrationId, call: &str) -> Usage {
    Usage {
        tokens: TokenBuckets::new(10, 20, 0, 0, 0).unwrap(),
        cost: Some(cents(1)),
        ..Usage::new(integration_id, call_id(call), "openai".into(), "gpt".into())
    }
}

/// A request for 10 cents and 100 tokens, for ten minutes.
pub(crate) fn request(integration_id: IntegrationId, call: &str) -> ReserveRequest {
    let estimate = Estimate::new(cents(10), 100).unwrap();
    ReserveRequest::new(integration_id, call_id(call), estimate)
}
