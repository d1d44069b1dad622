//! The memory that an answer takes while it is built, and the store that takes it from there.
//!
//! A list takes its memory row by row as the store finds them, before it is kept; once the answer
//! is written, what it takes is counted exactly, until the client has it. Absent: how much there
//! is, and who may have how much of it ([`crate::http::memory_budget`]).

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
use crate::http::work_pool::WorkPool;
use crate::wire::error::ApiError;
use crate::wire::error_code::ErrorCode;
use crate::wire::export;

/// Answers up to this size do not count: connections are bounded already.
pub const SMALL_ANSWER: usize = 64 * 1024;
/// Memory is taken in pieces of this size, so that not every row asks for it.
const PIECE: usize = 64 * 1024;

/// The memory of one answer; an extension of every request.
#[derive(Clone, Debug, Default)]
pub struct AnswerMemory(Arc<Mutex<Taken>>);

#[derive(Debug, Default)]
struct Taken {
    hold: Option<ByteHold>,
    bytes: usize,
}

impl AnswerMemory {
    /// Takes memory by this hold from now on.
    fn begin(&self, hold: ByteHold) {
        self.0.lock().hold = Some(hold);
    }

    /// Hands over what the answer took, once it is written.
    pub fn finish(&self) -> Option<ByteHold> {
        self.0.lock().hold.take()
    }
}

/// What has to be held for so many bytes.
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
            // Less is always there.
            let _ = hold.resize(held);
        }
    }
}

/// What answers that may be large are read and written with.
#[derive(Clone)]
pub struct LargeAnswers {
    /// What is read.
    pub store: Arc<dyn Store>,
    /// Threads that write large answers.
    pub pool: WorkPool,
    /// The memory of all of them.
    pub budgets: AnswerBudgets,
}

/// The store, read for the caller of a request: its answer takes memory as it grows, and the
/// operator's has readers of its own.
pub struct Reads {
    store: Arc<dyn Store>,
    /// The same without a share of memory.
    unbounded: Arc<dyn Store>,
    requester: Requester,
    writers: Writers,
}

/// The threads that write large answers, as they are there for one caller.
#[derive(Clone)]
pub struct Writers {
    pool: WorkPool,
    holder: Holder,
    memory: AnswerMemory,
}

impl Writers {
    /// Writes a large answer where it keeps no other request waiting. Its memory is held until the
    /// work is done, even when nobody waits for it any more.
    ///
    /// # Errors
    /// 503 when too many answers of the caller wait to be written; 500 when the work panicked.
    pub async fn write<T: Send + 'static>(
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

    /// Writes a piece of an export. When too much of the tenant waits, the export waits with it.
    ///
    /// # Errors
    /// [`StoreError::Overloaded`] after half a minute of that, and what the work says.
    pub async fn write_piece(
        &self,
        work: impl FnOnce() -> io::Result<Bytes> + Send + 'static,
    ) -> Result<Bytes, StoreError> {
        let enter = || async {
            let slot = self.pool.enter(self.holder).await;
            slot.map_err(|_| StoreError::Overloaded)
        };
        let written = export::persist(enter).await?.run(work).await;
        let fell = |_| Err(io::Error::other("a page was not written"));
        let written = written.unwrap_or_else(fell);
        written.map_err(|cause| StoreError::Unavailable(Arc::new(cause)))
    }
}

impl Reads {
    /// The store for an export, whose memory is set aside before it begins.
    pub fn for_export(&self) -> Arc<dyn Store> {
        self.unbounded.with_context(ReadContext::unlimited(self.requester))
    }

    /// The threads that write large answers to the caller.
    pub fn writers(&self) -> &Writers {
        &self.writers
    }
}

impl Deref for Reads {
    type Target = dyn Store;

    fn deref(&self) -> &Self::Target {
        self.store.as_ref()
    }
}

impl<S> FromRequestParts<S> for Reads
where
    S: Send + Sync,
    LargeAnswers: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let LargeAnswers { store: unbounded, pool, budgets } = LargeAnswers::from_ref(state);
        // Whoever the guard did not let in reads nothing.
        let unknown = || ApiError::of(ErrorCode::Internal);
        let memory = parts.extensions.get::<AnswerMemory>().cloned().ok_or_else(unknown)?;
        let requester = *parts.extensions.get::<Requester>().ok_or_else(unknown)?;
        let (budget, holder) = match requester {
            Requester::Tenant => {
                let tenant = parts.extensions.get::<RequestTenant>().ok_or_else(unknown)?;
                (&budgets.tenants, tenant.holder())
            }
            // The operator looks at a tenant that floods, too.
            Requester::Operator => (&budgets.operator, Holder::OPERATOR),
        };
        memory.begin(budget.hold(holder));
        let store =
            unbounded.with_context(ReadContext { requester, memory: Arc::new(memory.clone()) });
        let writers = Writers { pool, holder, memory };
        Ok(Self { store, unbounded, requester, writers })
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
        let writers = Writers { pool: pool.clone(), holder, memory };
        let writing = writers.write(move || {
            begun.send(()).expect("someone listens");
            may_end.recv().expect("the end");
        });
        tokio::select! {
            _ = writing => panic!("it is not done"),
            begun = has_begun => begun.expect("it began"),
        }
        drop(writers);
        let other = super::tests::memory(&budget, 1);
        assert_eq!(
            other.take(2 * PIECE),
            Err(ReadMemoryError::InUse),
            "its tenant has all of its share"
        );
        end.send(()).expect("it still works");
        // The place is free when the work has given everything back.
        drop(pool.enter(holder).await.expect("a place"));
        assert_eq!(other.take(2 * PIECE), Ok(()));
    }
}
