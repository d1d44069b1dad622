//! A writer that injects a fault into one call.

use std::sync::{Arc, Mutex};

use bursar_core::{Book, Integration, IntegrationId, KeyId, TenantId, TenantLifecycle, Timestamp};
use bursar_store::{
    AuditRow, Cause, ClockConfirmed, ControlTx, LoadRequest, NotWritable, RawColumns, Sql,
    StoreError, SweepWork, Value, WriterConnection,
};

/// The prefix of call ids whose load panics.
pub(crate) const POISON: &str = "poison";

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is not made: the database does not respond.
    Unavailable,
    /// It is not made: the database refuses its content.
    Refused,
    /// It is made, and its reply is lost.
    ReplyLost,
    /// It is made, and reports a refusal.
    RefusedLate,
    /// It is not made, and may be retried at once.
    Retry,
    /// It is not made: the disk is full.
    DiskFull,
    /// It panics before it is made.
    Panics,
    /// It panics after it is made.
    PanicsLate,
}

impl Fault {
    fn error(self) -> StoreError {
        let cause: Cause = Arc::new(std::io::Error::other("a fault of the test"));
        match self {
            Self::Unavailable | Self::ReplyLost => StoreError::Unavailable(cause),
            Self::Refused | Self::RefusedLate => StoreError::Statement(cause),
            Self::Retry => StoreError::Retry(cause),
            Self::DiskFull => StoreError::NotWritable { reason: NotWritable::DiskFull, cause },
            Self::Panics | Self::PanicsLate => unreachable!("a fault of the test"),
        }
    }

    const fn is_made(self) -> bool {
        match self {
            Self::Unavailable | Self::Refused | Self::Retry | Self::DiskFull | Self::Panics => {
                false
            }
            Self::ReplyLost | Self::RefusedLate | Self::PanicsLate => true,
        }
    }
}

/// The next call to fail, shared between the test and its writer.
#[derive(Clone, Default)]
pub(crate) struct Faults(Arc<Mutex<Option<(usize, Fault)>>>);

impl Faults {
    /// Injects a fault into the `nth` call from now on, counted from 1.
    pub(crate) fn arm(&self, nth: usize, fault: Fault) {
        self.set(Some((nth, fault)));
    }

    /// Injects no fault any more, and returns whether one was still armed.
    pub(crate) fn disarm(&self) -> bool {
        self.set(None).is_some()
    }

    fn set(&self, next: Option<(usize, Fault)>) -> Option<(usize, Fault)> {
        let mut state = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        std::mem::replace(&mut state, next)
    }

    fn next(&self) -> Option<Fault> {
        let mut state = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let (left, fault) = (*state)?;
        *state = (left > 1).then_some((left - 1, fault));
        (left <= 1).then_some(fault)
    }
}

/// Passes every call on, except the one that fails.
pub(crate) struct FaultyWriter {
    inner: Box<dyn WriterConnection>,
    faults: Faults,
}

impl FaultyWriter {
    pub(crate) fn new(inner: Box<dyn WriterConnection>, faults: Faults) -> Self {
        Self { inner, faults }
    }

    fn call<T>(
        &mut self,
        write: impl FnOnce(&mut dyn WriterConnection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let Some(fault) = self.faults.next() else { return write(self.inner.as_mut()) };
        if fault.is_made() {
            write(self.inner.as_mut())?;
        }
        Err(fault.error())
    }
}

impl WriterConnection for FaultyWriter {
    fn sweep_work(&mut self, limit: usize) -> Result<SweepWork, StoreError> {
        self.call(|writer| writer.sweep_work(limit))
    }

    fn begin(&mut self) -> Result<(), StoreError> {
        self.call(|writer| writer.begin())
    }

    fn load<'a>(&mut self, request: &LoadRequest<'a>) -> Result<Book<'a>, StoreError> {
        let is_poisoned = |call_id: &str| call_id.starts_with(POISON);
        let mut calls = request.calls.values();
        assert!(!calls.any(|call| is_poisoned(call.call_id.as_str())), "a fault of the test");
        self.call(|writer| writer.load(request))
    }

    fn save(&mut self, book: Book<'_>) -> Result<(), StoreError> {
        self.call(|writer| writer.save(book))
    }

    /// A commit that was made is never refused afterwards, so a late refusal becomes a lost reply.
    fn commit(&mut self) -> Result<(), StoreError> {
        match self.faults.next() {
            None => self.inner.commit(),
            Some(fault) if fault.is_made() => {
                self.inner.commit()?;
                Err(if fault == Fault::RefusedLate { Fault::ReplyLost } else { fault }.error())
            }
            Some(fault) => Err(fault.error()),
        }
    }

    fn rollback(&mut self) {
        self.inner.rollback();
    }

    fn abandon(&mut self) {
        self.inner.abandon();
    }

    fn write_probe(&mut self) -> Result<(), StoreError> {
        self.call(|writer| writer.write_probe())
    }

    fn confirm_clock(&mut self) -> Result<ClockConfirmed, StoreError> {
        self.call(|writer| writer.confirm_clock())
    }

    fn idle(&mut self) {
        self.inner.idle();
    }
}

impl ControlTx for FaultyWriter {
    fn now(&self) -> Timestamp {
        self.inner.now()
    }

    fn allocate_ids(&mut self, count: usize) -> Result<i64, StoreError> {
        self.call(|writer| writer.allocate_ids(count))
    }

    fn execute(
        &mut self,
        tenant_id: TenantId,
        sql: Sql,
        values: &[Value],
    ) -> Result<(), StoreError> {
        self.call(|writer| writer.execute(tenant_id, sql, values))
    }

    fn select(
        &mut self,
        tenant_id: TenantId,
        sql: Sql,
        values: &[Value],
        take: &mut dyn FnMut(&dyn RawColumns) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.call(|writer| writer.select(tenant_id, sql, values, take))
    }

    fn tenant_changes(
        &mut self,
        tenant_id: TenantId,
        lifecycle: TenantLifecycle,
    ) -> Result<(), StoreError> {
        self.call(|writer| writer.tenant_changes(tenant_id, lifecycle))
    }

    fn integration_changes(&mut self, integration_id: IntegrationId, rules: Integration) {
        self.inner.integration_changes(integration_id, rules);
    }

    fn limits_change(&mut self, tenant_id: TenantId) {
        self.inner.limits_change(tenant_id);
    }

    fn set_last_used(
        &mut self,
        tenant_id: TenantId,
        uses: &[(KeyId, Timestamp)],
    ) -> Result<(), StoreError> {
        self.call(|writer| writer.set_last_used(tenant_id, uses))
    }

    fn put_audit(&mut self, row: &AuditRow) -> Result<(), StoreError> {
        self.call(|writer| writer.put_audit(row))
    }
}

/// Repeats a command until it gets an outcome; each run has one fault.
pub(crate) async fn with_repeats<T>(mut command: impl AsyncFnMut() -> Result<T, StoreError>) -> T {
    for _ in 0..3 {
        match command().await {
            Ok(outcome) => return outcome,
            Err(
                StoreError::Unavailable(_)
                | StoreError::Statement(_)
                | StoreError::Retry(_)
                | StoreError::Panicked,
            ) => {}
            Err(error) => unreachable!("{error}"),
        }
    }
    unreachable!("one fault caused three failures")
}
