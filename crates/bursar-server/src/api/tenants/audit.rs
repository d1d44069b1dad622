//! The audit log of a tenant: page by page, newest first, or all of it as a file.

use std::io;

use axum::extract::State;
use axum::response::Response;
use bursar_core::{AuditId, TenantId};
use bursar_store::{AuditEntry, AuditFilter, AuditPosition, Store, StoreError};
use bytes::Bytes;
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa_axum::routes;

use crate::api::route::{Routes, Rule};
use crate::api::tenants::audit_view::AuditView;
use crate::app::App;
use crate::auth::access::ADMIN;
use crate::auth::authorize::Authorized;
use crate::http::answer_memory::StoreReader;
use crate::http::export::{Export, ExportPage, export};
use crate::wire::cursor;
use crate::wire::envelope::{Answer, ListMeta};
use crate::wire::error::ApiError;
use crate::wire::error_code::ErrorCode;
use crate::wire::json_line;
use crate::wire::params::Query;
use crate::wire::period::{instant_params, read_instants};
use crate::wire::scalars::BoundedInteger;
use crate::wire::schema::query;

const LIMIT_DEFAULT: u32 = 50;
const LIMIT_MAX: u32 = 1_000;
/// Rows that an export reads at once.
const EXPORT_ROWS: u32 = 128;

/// The parameters of [`list_audit`], for the OpenAPI document.
struct AuditParams;

impl IntoParams for AuditParams {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let page = [
            query::<BoundedInteger<1, LIMIT_MAX, LIMIT_DEFAULT>>(
                "limit",
                "The maximum number of rows on a page.",
            ),
            query::<String>("cursor", "The `next_cursor` of an earlier page."),
            query::<String>("actor_id", "Only changes by this actor."),
            query::<String>(
                "action",
                "Only changes with this action, such as `integration.create`.",
            ),
            query::<String>("target_type", "Only changes of objects of this type."),
            query::<String>("target_id", "Only changes of this object."),
        ];
        page.into_iter().chain(instant_params()).collect()
    }
}

/// Lists the audit log, newest first
///
/// To read the next page, pass the last `next_cursor` as `cursor`. A page can have fewer rows than
/// `limit`, even none, and still not be the last one.
#[utoipa::path(
    get,
    path = "/api/v1/audit",
    tag = "audit",
    params(AuditParams),
    responses((status = 200, body = [AuditView], description = "A page of rows.")),
)]
pub(crate) async fn list_audit(
    caller: Authorized,
    reader: StoreReader,
    mut query: Query,
) -> Result<Response, ApiError> {
    let limit = query.integer("limit", 1..=LIMIT_MAX)?.unwrap_or(LIMIT_DEFAULT);
    let after = query.read("cursor", |text| cursor::parse(text, AuditId::from_number))?;
    let (start, end) = read_instants(&mut query)?;
    let filter = AuditFilter {
        actor_id: query.text("actor_id"),
        action: query.text("action"),
        target_type: query.text("target_type"),
        target_id: query.text("target_id"),
        start,
        end,
        after: after.map(|(at, audit_id)| AuditPosition { at, audit_id }),
    };
    query.done()?;
    let found = reader.audit(caller.tenant_id, filter, limit).await?;
    let meta = ListMeta {
        total: None,
        page: 1,
        page_size: limit,
        has_more: found.next.is_some(),
        next_cursor: found.next.map(|place| cursor::text(place.at, place.audit_id.number())),
    };
    let views: Vec<AuditView> = found.rows.into_iter().map(AuditView::from).collect();
    Answer::list(views, meta).large(&reader).await
}

/// The audit log of a tenant, from page to page.
struct AuditExport(TenantId);

impl Export for AuditExport {
    type Row = AuditEntry;
    type Position = i64;

    fn headers(&self) -> (&'static str, &'static str) {
        ("application/x-ndjson", "attachment; filename=\"audit.ndjson\"")
    }

    fn head(&self) -> Bytes {
        Bytes::new()
    }

    async fn page(
        &self,
        store: &dyn Store,
        after: Option<i64>,
    ) -> Result<ExportPage<AuditEntry, i64>, StoreError> {
        let rows = store.audit_chain(self.0, after, EXPORT_ROWS).await?;
        let is_full = rows.len() == EXPORT_ROWS as usize;
        let next = rows.last().filter(|_| is_full).map(|last| last.link.sequence);
        Ok(ExportPage { rows, next })
    }

    fn write(&self, rows: Vec<AuditEntry>) -> io::Result<Bytes> {
        let mut text = Vec::with_capacity(rows.len() * 512);
        for row in rows {
            json_line::write(&mut text, &AuditView::from(row))?;
            text.push(b'\n');
        }
        Ok(text.into())
    }
}

/// Exports the whole audit log as a file, oldest first
///
/// Rows come in the order of the chain. `bursar audit verify --file` checks the file. The export is
/// one response of any length. If something fails on the way, the connection breaks off, so a
/// response that ends properly is complete.
#[utoipa::path(
    get,
    path = "/api/v1/audit/export",
    tag = "audit",
    responses(
        (
            status = 200,
            description = "The file: one JSON object per line, as in the list.",
            content((String = "application/x-ndjson")),
            headers(("Content-Disposition" = String, description = "The suggested file name.")),
        ),
    ),
    extensions(("x-refuses" = json!([ErrorCode::UnknownField]))),
)]
pub(crate) async fn export_audit(
    State(app): State<App>,
    caller: Authorized,
    reader: StoreReader,
    query: Query,
) -> Result<Response, ApiError> {
    query.done()?;
    export(AuditExport(caller.tenant_id), caller.tenant_id, &app.export_budget, &reader).await
}

pub(crate) fn routes() -> Routes {
    Routes::new()
        .add(Rule::of(ADMIN), routes!(list_audit))
        .add(Rule::of(ADMIN), routes!(export_audit))
}
