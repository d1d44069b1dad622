//! Shared limits of exports, and how they continue under load.
//!
//! An export is a sequence of small pages, each read after the client has received the one before.
//! Between pages it holds no reader and no snapshot; while the client reads nothing it holds one
//! page. The memory for that page is reserved at the start.

use std::time::Duration;

use bursar_core::TenantId;
use bursar_store::StoreError;

use crate::http::holder::Holder;
use crate::http::memory_budget::{ByteBudget, ByteHold};
use crate::wire::error::ApiError;
use crate::wire::error_code::ErrorCode;

/// The memory of one export: a page while it is read, and while it is sent.
const EXPORT_BYTES: usize = 512 * 1024;
/// The most open exports. One tenant may have a quarter of them, and no more than it leaves free.
const EXPORTS_MAX: usize = 32;
/// The attempts at each step of an export, and the pause between them.
const ATTEMPTS_MAX: u32 = 30;
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// The memory of all exports.
pub fn budget() -> ByteBudget {
    ByteBudget::new(EXPORTS_MAX * EXPORT_BYTES)
}

/// Opens an export of a tenant. It stays open until the hold is dropped.
///
/// # Errors
/// 503 if too many are open.
pub fn open(budget: &ByteBudget, tenant_id: TenantId) -> Result<ByteHold, ApiError> {
    let mut hold = budget.hold(Holder::tenant(tenant_id, None));
    if hold.take(EXPORT_BYTES) {
        return Ok(hold);
    }
    let message = format!(
        "Too many exports are open: one tenant may have {} at once. Come again when one has ended.",
        EXPORTS_MAX / 4
    );
    Err(ApiError::new(ErrorCode::Overloaded, message))
}

/// Repeats a step while the tenant's queue is full, because a file that breaks off is useless.
///
/// # Errors
/// Errors of the store, and [`StoreError::Overloaded`] after half a minute.
pub async fn persist<T, Step>(step: impl Fn() -> Step) -> Result<T, StoreError>
where
    Step: Future<Output = Result<T, StoreError>>,
{
    for _ in 1..ATTEMPTS_MAX {
        match step().await {
            Err(StoreError::Overloaded) => tokio::time::sleep(AGAIN_AFTER).await,
            answered => return answered,
        }
    }
    step().await
}
