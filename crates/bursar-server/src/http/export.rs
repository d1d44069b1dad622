//! Exports: all rows of a resource in one answer, as long as it has to be.
//!
//! An export is one small page after another, each read when the client has taken the one before.
//! Between pages it holds no reader and no snapshot, and while the client takes nothing it holds one
//! page. The memory for that page is set aside when the export begins. If something fails on the way,
//! the answer breaks off, so that nobody takes half a file for a whole one.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bursar_core::TenantId;
use bursar_store::{Store, StoreError};
use bytes::Bytes;
use futures_util::stream;

use crate::http::answer_memory::{Reads, Writers};
use crate::http::holder::Holder;
use crate::http::memory_budget::{ByteBudget, ByteHold};
use crate::http::retry::retry_overloaded;
use crate::wire::error::ApiError;
use crate::wire::error_code::ErrorCode;

/// Memory that is set aside for an export: a page as it is read, and as it is sent.
const EXPORT_BYTES: usize = 512 * 1024;
/// Exports that may be open, of which one tenant has at most a quarter and no more than it leaves.
const EXPORTS_MAX: usize = 32;

/// The memory of all exports.
pub(crate) fn export_budget() -> ByteBudget {
    ByteBudget::new(EXPORTS_MAX * EXPORT_BYTES)
}

/// What a resource exports: its pages, and how its rows are written.
pub(crate) trait Export: Send + Sync + 'static {
    type Row: Send + 'static;
    /// Where a page ends and the next one begins.
    type Position: Copy + Send + Sync + 'static;

    /// `Content-Type` and `Content-Disposition`.
    fn headers(&self) -> (&'static str, &'static str);

    /// What stands before the first row; empty for nothing.
    fn head(&self) -> Bytes;

    /// Reads a page that fits into the memory of an export, the first one or the one after a position.
    fn page(
        &self,
        store: &dyn Store,
        after: Option<Self::Position>,
    ) -> impl Future<Output = Result<ExportPage<Self::Row, Self::Position>, StoreError>> + Send;

    /// Rows as they follow one another.
    ///
    /// # Errors
    /// When a row cannot be written, for which memory has no reason.
    fn write(&self, rows: Vec<Self::Row>) -> io::Result<Bytes>;
}

/// A page of an export, and where the next one begins, if there is one.
pub(crate) struct ExportPage<Row, Position> {
    pub(crate) rows: Vec<Row>,
    pub(crate) next: Option<Position>,
}

/// Answers with an export of a tenant.
///
/// # Errors
/// 503 when too many are open, and what storage says of the first page: what cannot be read at all is
/// an error, and not a file that breaks off.
pub(crate) async fn export<E: Export>(
    of: E,
    tenant_id: TenantId,
    budget: &ByteBudget,
    reads: &Reads,
) -> Result<Response, ApiError> {
    let (hold, store) = (Arc::new(open(budget, tenant_id)?), reads.for_export());
    let page = of.page(store.as_ref(), None).await?;
    let (content_type, disposition) = of.headers();
    let head = of.head();
    let next = if head.is_empty() { Next::Write(page) } else { Next::Head(head, page) };
    let of = Arc::new(of);
    let opened = OpenExport { of, store, next, hold, writers: reads.writers().clone() };
    let pieces = stream::try_unfold(opened, OpenExport::next_chunk);
    let mut response = Response::new(Body::from_stream(pieces));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static(disposition));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Takes the memory of an export, which is open until this is dropped.
fn open(budget: &ByteBudget, tenant_id: TenantId) -> Result<ByteHold, ApiError> {
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

/// An export between two of its pieces.
struct OpenExport<E: Export> {
    of: Arc<E>,
    store: Arc<dyn Store>,
    next: Next<E>,
    /// For as long as someone reads it or it is written.
    hold: Arc<ByteHold>,
    writers: Writers,
}

/// What an export does next.
enum Next<E: Export> {
    Head(Bytes, ExportPage<E::Row, E::Position>),
    Write(ExportPage<E::Row, E::Position>),
    ReadAfter(E::Position),
    End,
}

impl<E: Export> OpenExport<E> {
    /// The next piece of the file, and what comes after it.
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
        let text = self.writers.write_piece(write).await?;
        Ok(Some((text, self)))
    }
}
