//! What exports share: how many may be open, and how each reads on.
//!
//! An export is one small page after another, each read when the client has taken the one before.
//! Between pages it holds no reader and no snapshot, and while the client takes nothing it holds one
//! page. The memory for that page is set aside when the export begins.

use std::time::Duration;

use bursar_core::TenantId;
use bursar_store::StoreError;

use crate::http::holder::Holder;
use crate::http::memory_budget::{ByteBudget, ByteHold};
use crate::wire::error::ApiError;
use crate::wire::error_code::ErrorCode;

/// Memory that is set aside for an export: a page as it is read, and as it is sent.
const EXPORT_BYTES: usize = 512 * 1024;
/// Exports that may be open, of which one tenant has at most a quarter and no more than it leaves.
const EXPORTS_MAX: usize = 32;
/// How often an export asks for its next step, and how long it waits before it asks again.
const ATTEMPTS_MAX: u32 = 30;
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// The memory of all exports.
pub fn budget() -> ByteBudget {
    ByteBudget::new(EXPORTS_MAX * EXPORT_BYTES)
}

/// Opens an export of a tenant, which is open until this is dropped.
///
/// # Errors
/// 503 when too many are open.
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

/// Does the next step. When too much of the tenant waits, the export waits with it: a file that
/// breaks off is of no use.
///
/// # Errors
/// What storage says, and [`StoreError::Overloaded`] after half a minute of it.
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
