//! Exports: all rows of a resource in one response of any length.
//!
//! An export consists of small pages. Each is read after the client has received the one before.
//! Between pages the export holds no reader and no snapshot, and a slow client holds one page in
//! memory, which is reserved when the export starts. After a failure the response breaks off, so
//! that an incomplete file cannot pass for a complete one.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bursar_core::TenantId;
use bursar_store::{Store, StoreError};
use bytes::Bytes;
use futures_util::stream;

use crate::http::answer_memory::{ResponseEncoder, StoreReader};
use crate::http::holder::Holder;
use crate::http::memory_budget::{ByteBudget, ByteHold};
use crate::http::retry::retry_overloaded;
use crate::wire::error::ApiError;
use crate::wire::error_code::ErrorCode;

/// The reserved memory of an export: a page as it is read, and as it is sent.
const EXPORT_BYTES: usize = 512 * 1024;
/// The most open exports. One tenant has at most a quarter of them, and never more than it leaves
/// free.
const EXPORTS_MAX: usize = 32;

/// The memory of all exports.
pub(crate) fn export_budget() -> ByteBudget {
    ByteBudget::new(EXPORTS_MAX * EXPORT_BYTES)
}

/// The pages of an exported resource, and the format of its rows.
pub(crate) trait Export: Send + Sync + 'static {
    type Row: Send + 'static;
    /// The position between two pages.
    type Position: Copy + Send + Sync + 'static;

    /// `Content-Type` and `Content-Disposition`.
    fn headers(&self) -> (&'static str, &'static str);

    /// The text before the first row, which may be empty.
    fn head(&self) -> Bytes;

    /// Reads the first page, or the page after a position. It fits into the memory of an export.
    fn page(
        &self,
        store: &dyn Store,
        after: Option<Self::Position>,
    ) -> impl Future<Output = Result<ExportPage<Self::Row, Self::Position>, StoreError>> + Send;

    /// Encodes rows in their order.
    ///
    /// # Errors
    /// If a row cannot be encoded.
    fn write(&self, rows: Vec<Self::Row>) -> io::Result<Bytes>;
}

/// A page of an export, and the position of the next page, if any.
pub(crate) struct ExportPage<Row, Position> {
    pub(crate) rows: Vec<Row>,
    pub(crate) next: Option<Position>,
}

/// Responds with an export of a tenant.
///
/// # Errors
/// 503 if too many exports are open, and errors of the store for the first page: an export that
/// cannot start is an error and not a file that breaks off.
pub(crate) async fn export<E: Export>(
    of: E,
    tenant_id: TenantId,
    budget: &ByteBudget,
    reader: &StoreReader,
) -> Result<Response, ApiError> {
    let (hold, store) = (Arc::new(open(budget, tenant_id)?), reader.for_export());
    let page = of.page(store.as_ref(), None).await?;
    let (content_type, disposition) = of.headers();
    let head = of.head();
    let next = if head.is_empty() { Next::Write(page) } else { Next::Head(head, page) };
    let of = Arc::new(of);
    let opened = OpenExport { of, store, next, hold, encoder: reader.encoder().clone() };
    let pieces = stream::try_unfold(opened, OpenExport::next_chunk);
    let mut response = Response::new(Body::from_stream(pieces));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static(disposition));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Reserves the memory of an export, which is open until the hold is dropped.
fn open(budget: &ByteBudget, tenant_id: TenantId) -> Result<ByteHold, ApiError> {
    let mut hold = budget.hold(Holder::tenant(tenant_id, None));
    if hold.take(EXPORT_BYTES) {
        return Ok(hold);
    }
    let message = format!(
        "The tenant has {} open exports, the maximum. Try again when one has ended.",
        EXPORTS_MAX / 4
    );
    Err(ApiError::new(ErrorCode::Overloaded, message))
}

/// An export between two chunks.
struct OpenExport<E: Export> {
    of: Arc<E>,
    store: Arc<dyn Store>,
    next: Next<E>,
    /// Held until the export ends and its last page is encoded.
    hold: Arc<ByteHold>,
    encoder: ResponseEncoder,
}

/// The next step of an export.
enum Next<E: Export> {
    Head(Bytes, ExportPage<E::Row, E::Position>),
    Write(ExportPage<E::Row, E::Position>),
    ReadAfter(E::Position),
    End,
}

impl<E: Export> OpenExport<E> {
    /// The next chunk of the file, and the export after it.
    async fn next_chunk(mut self) -> Result<Option<(Bytes, Self)>, StoreError> {
        let page = match std::mem::replace(&mut self.next, Next::End) {
            Next::End => return Ok(None),
            Next::Head(head, page) => {
                self.next = Next::Write(page);
                return Ok(Some((head, self)));
            }
            Next::Write(page) => page,
            Next::ReadAfter(position) => {
                retry_overloaded(|| self.of.page(self.store.as_ref(), Some(position))).await?
            }
        };
        if let Some(position) = page.next {
            self.next = Next::ReadAfter(position);
        }
        let (of, hold) = (Arc::clone(&self.of), Arc::clone(&self.hold));
        let write = move || {
            let text = of.write(page.rows);
            drop(hold);
            text
        };
        let text = self.encoder.encode_chunk(write).await?;
        Ok(Some((text, self)))
    }
}
