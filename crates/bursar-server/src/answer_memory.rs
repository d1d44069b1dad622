//! The memory that an answer takes while it is built, and the store that takes it from there.
//!
//! A list takes its memory row by row as the store finds them, before it is kept; once the answer
//! is written, what it takes is counted exactly, until the client has it. Absent: how much there
//! is, and who may have how much of it ([`crate::budget`]).

use std::ops::Deref;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use bursar_store::{Asker, NoRoom, Reading, Room, Store};
use parking_lot::Mutex;

use crate::app::App;
use crate::budget::ByteHold;
use crate::doorway::RequestTenant;
use crate::error::{ApiError, ErrorCode};

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

impl Room for AnswerMemory {
    fn take(&self, bytes: usize) -> Result<(), NoRoom> {
        let mut taken = self.0.lock();
        let needed = taken.bytes.saturating_add(bytes);
        let Some(hold) = &mut taken.hold else { return Err(NoRoom::Now) };
        let held = held_for(needed);
        if held > hold.bytes() && !hold.resize(held) {
            return Err(if held > hold.share() { NoRoom::Ever } else { NoRoom::Now });
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

/// The store, read for the caller of a request: its answer takes memory as it grows, and the
/// operator's has readers of its own.
pub struct Reads {
    store: Arc<dyn Store>,
    asker: Asker,
}

impl Reads {
    /// The store for an export, whose memory is set aside before it begins.
    pub fn for_export(&self, app: &App) -> Arc<dyn Store> {
        app.store.reading(Reading::unbounded(self.asker))
    }
}

impl Deref for Reads {
    type Target = dyn Store;

    fn deref(&self) -> &Self::Target {
        self.store.as_ref()
    }
}

impl FromRequestParts<App> for Reads {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        // Whoever the guard did not let in reads nothing.
        let unknown = || ApiError::of(ErrorCode::Internal);
        let memory = parts.extensions.get::<AnswerMemory>().cloned().ok_or_else(unknown)?;
        let asker = *parts.extensions.get::<Asker>().ok_or_else(unknown)?;
        memory.begin(match asker {
            Asker::Tenant => {
                let tenant = parts.extensions.get::<RequestTenant>().ok_or_else(unknown)?;
                app.answer_budget.hold(tenant.get())
            }
            // The operator looks at a tenant that floods, too.
            Asker::Operator => app.operator_answers.hold(None),
        });
        let store = app.store.reading(Reading { asker, room: Arc::new(memory) });
        Ok(Self { store, asker })
    }
}

#[cfg(test)]
mod tests {
    use bursar_core::TenantId;

    use super::*;
    use crate::budget::ByteBudget;

    fn memory(budget: &ByteBudget, tenant: i64) -> AnswerMemory {
        let memory = AnswerMemory::default();
        memory.begin(budget.hold(TenantId::from_number(tenant)));
        memory
    }

    #[test]
    fn an_answer_takes_what_it_needs_and_a_small_one_nothing() {
        let budget = ByteBudget::new(16 * PIECE);
        let (large, small) = (memory(&budget, 1), memory(&budget, 1));
        assert_eq!(small.take(SMALL_ANSWER), Ok(()));
        assert_eq!(large.take(3 * PIECE), Ok(()));
        assert_eq!(small.take(1), Err(NoRoom::Now), "the share is four pieces");
        assert_eq!(memory(&budget, 2).take(3 * PIECE), Ok(()), "another tenant has its own");
        large.give_back(2 * PIECE);
        assert_eq!(small.take(1), Ok(()));
        assert_eq!(large.take(4 * PIECE), Err(NoRoom::Ever));
        let hold = large.finish().expect("a hold");
        assert_eq!((hold.bytes(), large.take(1)), (0, Err(NoRoom::Now)));
    }
}
