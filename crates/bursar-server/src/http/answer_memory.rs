//! The memory of a response while it is built, and the store that charges it.
//!
//! A list is charged row by row before each row is kept. Once the response is encoded, its exact
//! size is charged until the client has received it. Deliberately absent: budgets and shares
//! ([`crate::http::memory_budget`]).

use std::io;
use std::ops::Deref;
use std::sync::Arc;

use axum::extract::{FromRef, FromRequestParts};
use axum::http::request::Parts;
use bursar_store::{ReadContext, ReadMemory, ReadMemoryError, Requester, Store, StoreError};
use bytes::Bytes;
use parking_lot::Mutex;

use crate::http::holder::Holder;
use crate::http::memory_budget::{AnswerBudgets, ByteHold};
use crate::http::request_extensions::RequestTenant;
use crate::http::retry::retry_overloaded;
use crate::http::work_pool::WorkPool;
use crate::wire::error::ApiError;
use crate::wire::error_code::ErrorCode;

/// Responses up to this size are not charged: the number of connections is limited already.
pub(crate) const SMALL_ANSWER: usize = 64 * 1024;
/// Memory is charged in steps of this size.
const PIECE: usize = 64 * 1024;

/// The memory of one response; an extension of every request.
#[derive(Clone, Debug, Default)]
pub(crate) struct AnswerMemory(Arc<Mutex<Taken>>);

#[derive(Debug, Default)]
struct Taken {
    hold: Option<ByteHold>,
    bytes: usize,
}

impl AnswerMemory {
    /// Charges `hold` from now on.
    fn begin(&self, hold: ByteHold) {
        self.0.lock().hold = Some(hold);
    }

    /// Returns what the response holds, once it is encoded.
    pub(crate) fn finish(&self) -> Option<ByteHold> {
        self.0.lock().hold.take()
    }
}

/// The bytes to hold for a response of this size.
fn held_for(bytes: usize) -> usize {
    if bytes <= SMALL_ANSWER { 0 } else { bytes.next_multiple_of(PIECE) }
}

impl ReadMemory for AnswerMemory {
    fn take(&self, bytes: usize) -> Result<(), ReadMemoryError> {
        let mut taken = self.0.lock();
        let needed = taken.bytes.saturating_add(bytes);
        let Some(hold) = &mut taken.hold else { return Err(ReadMemoryError::InUse) };
        let held = held_for(needed);
        if held > hold.bytes() && !hold.resize(held) {
            return Err(if held > hold.share() {
                ReadMemoryError::TooLarge
            } else {
                ReadMemoryError::InUse
            });
        }
        taken.bytes = needed;
        Ok(())
    }

    fn give_back(&self, bytes: usize) {
        let mut taken = self.0.lock();
        taken.bytes = taken.bytes.saturating_sub(bytes);
        let held = held_for(taken.bytes);
        if let Some(hold) = &mut taken.hold
            && held < hold.bytes()
        {
            // Shrinking always succeeds.
            let _ = hold.resize(held);
        }
    }
}

/// Resources for reading and encoding large responses.
#[derive(Clone)]
pub struct LargeAnswers {
    pub(crate) store: Arc<dyn Store>,
    /// Threads that encode large responses.
    pub pool: WorkPool,
    /// The memory of all responses.
    pub(crate) budgets: AnswerBudgets,
}

/// The store as one caller reads it.
///
/// The response is charged as it grows. The operator has readers of its own.
pub(crate) struct StoreReader {
    store: Arc<dyn Store>,
    /// The same store without a memory charge.
    unbounded: Arc<dyn Store>,
    requester: Requester,
    encoder: ResponseEncoder,
}

/// The encoding threads for one caller.
#[derive(Clone)]
pub(crate) struct ResponseEncoder {
    pool: WorkPool,
    holder: Holder,
    memory: AnswerMemory,
}

impl ResponseEncoder {
    /// Encodes a large response without blocking other requests.
    ///
    /// The work holds its memory until it ends, even if the client disconnects.
    ///
    /// # Errors
    /// 503 if too many responses of the caller wait; 500 if the work panicked.
    pub(crate) async fn encode<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let memory = self.memory.clone();
        let work = move || {
            let written = work();
            drop(memory);
            written
        };
        self.pool.run(self.holder, work).await
    }

    /// Encodes a chunk of an export. If the tenant's queue is full, the export waits.
    ///
    /// # Errors
    /// [`StoreError::Overloaded`] after half a minute, and errors of the work.
    pub(crate) async fn encode_chunk(
        &self,
        work: impl FnOnce() -> io::Result<Bytes> + Send + 'static,
    ) -> Result<Bytes, StoreError> {
        let enter = || async {
            let slot = self.pool.enter(self.holder).await;
            slot.map_err(|_| StoreError::Overloaded)
        };
        let written = retry_overloaded(enter).await?.run(work).await;
        let fell = |_| Err(io::Error::other("a page of an export was not written"));
        let written = written.unwrap_or_else(fell);
        written.map_err(|cause| StoreError::Unavailable(Arc::new(cause)))
    }
}

impl StoreReader {
    /// The store for an export, whose memory is reserved before it starts.
    pub(crate) fn for_export(&self) -> Arc<dyn Store> {
        self.unbounded.with_context(ReadContext::unlimited(self.requester))
    }

    pub(crate) fn encoder(&self) -> &ResponseEncoder {
        &self.encoder
    }
}

impl Deref for StoreReader {
    type Target = dyn Store;

    fn deref(&self) -> &Self::Target {
        self.store.as_ref()
    }
}

impl<S> FromRequestParts<S> for StoreReader
where
    S: Send + Sync,
    LargeAnswers: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let LargeAnswers { store: unbounded, pool, budgets } = LargeAnswers::from_ref(state);
        // A request that the guard did not admit reads nothing.
        let unknown = || ApiError::of(ErrorCode::Internal);
        let memory = parts.extensions.get::<AnswerMemory>().cloned().ok_or_else(unknown)?;
        let requester = *parts.extensions.get::<Requester>().ok_or_else(unknown)?;
        let (budget, holder) = match requester {
            Requester::Tenant => {
                let tenant = parts.extensions.get::<RequestTenant>().ok_or_else(unknown)?;
                (&budgets.tenants, tenant.holder())
            }
            // The operator must be able to inspect a tenant that floods the server.
            Requester::Operator => (&budgets.operator, Holder::OPERATOR),
        };
        memory.begin(budget.hold(holder));
        let store =
            unbounded.with_context(ReadContext { requester, memory: Arc::new(memory.clone()) });
        let encoder = ResponseEncoder { pool, holder, memory };
        Ok(Self { store, unbounded, requester, encoder })
    }
}

#[cfg(test)]
mod tests {
    use bursar_core::TenantId;

    use super::*;
    use crate::http::memory_budget::ByteBudget;

    fn memory(budget: &ByteBudget, tenant: i64) -> AnswerMemory {
        let memory = AnswerMemory::default();
        let tenant = TenantId::from_number(tenant).expect("a number of an id");
        memory.begin(budget.hold(Holder::tenant(tenant, None)));
        memory
    }

    #[test]
    fn an_answer_takes_what_it_needs_and_a_small_one_nothing() {
        let budget = ByteBudget::new(16 * PIECE);
        let (large, small) = (memory(&budget, 1), memory(&budget, 1));
        assert_eq!(small.take(SMALL_ANSWER), Ok(()));
        assert_eq!(large.take(3 * PIECE), Ok(()));
        assert_eq!(small.take(1), Err(ReadMemoryError::InUse), "the share is four pieces");
        assert_eq!(memory(&budget, 2).take(3 * PIECE), Ok(()), "another tenant has its own");
        large.give_back(2 * PIECE);
        assert_eq!(small.take(1), Ok(()));
        assert_eq!(large.take(4 * PIECE), Err(ReadMemoryError::TooLarge));
        let hold = large.finish().expect("a hold");
        assert_eq!((hold.bytes(), large.take(1)), (0, Err(ReadMemoryError::InUse)));
    }

    #[tokio::test]
    async fn an_answer_that_is_written_for_nobody_takes_its_memory_until_it_is_done() {
        let budget = ByteBudget::new(16 * PIECE);
        let memory = memory(&budget, 1);
        assert_eq!(memory.take(4 * PIECE), Ok(()));
        let (pool, holder) = (WorkPool::new(2), Holder::ANONYMOUS);
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let (end, may_end) = std::sync::mpsc::channel::<()>();
        let encoder = ResponseEncoder { pool: pool.clone(), holder, memory };
        let writing = encoder.encode(move || {
            begun.send(()).expect("someone listens");
            may_end.recv().expect("the end");
        });
        tokio::select! {
            _ = writing => panic!("it is not done"),
            begun = has_begun => begun.expect("it began"),
        }
        drop(encoder);
        let other = super::tests::memory(&budget, 1);
        assert_eq!(
            other.take(2 * PIECE),
            Err(ReadMemoryError::InUse),
            "its tenant has all of its share"
        );
        end.send(()).expect("it still works");
        // The slot is free only after the work has released everything.
        drop(pool.enter(holder).await.expect("a place"));
        assert_eq!(other.take(2 * PIECE), Ok(()));
    }
}
