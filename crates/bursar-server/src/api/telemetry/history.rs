//! The usage history, newest first: page by page, or all of it as a file.

use std::io;

use axum::extract::State;
use axum::response::Response;
use bursar_core::{Day, EntryId, PolicyResult, TenantId, Timestamp};
use bursar_store::{
    CallFilter, CallLabel, CallOutcome, HistoryFilter, HistoryPage, HistoryPart, HistoryPosition,
    Page, Store, StoreError, UsageRow,
};
use bytes::Bytes;
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa_axum::routes;

use crate::api::route::{Routes, Rule};
use crate::api::telemetry::export_format::{ExportFormat, UsageFormat};
use crate::api::telemetry::record_view::UsageView;
use crate::app::App;
use crate::auth::access::USAGE;
use crate::auth::authorize::Authorized;
use crate::http::answer_memory::StoreReader;
use crate::http::export::{Export, ExportPage, export};
use crate::wire::cursor;
use crate::wire::enums;
use crate::wire::envelope::{Answer, ListMeta};
use crate::wire::error::ApiError;
use crate::wire::error_code::ErrorCode;
use crate::wire::label::clean_label;
use crate::wire::params::Query;
use crate::wire::period::{instant_params, read_instants};
use crate::wire::scalars::{BoundedInteger, Id};
use crate::wire::schema::query;

const LIMIT_DEFAULT: u32 = 50;
const LIMIT_MAX: u32 = 1_000;
const OFFSET_MAX: u32 = 10_000;
/// Why a page at an offset is refused. A shorter page would make the next offset skip rows.
const NOT_WHOLE: &str = "The page at this offset has more than 4 MiB of texts, or takes too \
     long or too much memory. Use a smaller limit, or page by cursor.";
/// The longest period, in days, for which `total` is counted.
const COUNT_DAYS_MAX: i32 = 366;

/// The filters of the history as [`read_filter`] reads them, for the OpenAPI document.
struct FilterParams;

impl IntoParams for FilterParams {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let labels = [
            query::<Id>("integration_id", "Only entries of this integration."),
            query::<String>("model", "Only entries with this model."),
            query::<String>("agent_id", "Only entries of this agent."),
            query::<String>("session_id", "Only entries of this session."),
            query::<enums::PolicyResult>("policy_result", "Only entries with this result."),
            query::<bool>("errors_only", "Only entries with an error code."),
        ];
        labels.into_iter().chain(instant_params()).collect()
    }
}

/// The page of the history, for the OpenAPI document.
struct HistoryPageParams;

impl IntoParams for HistoryPageParams {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![
            query::<BoundedInteger<1, LIMIT_MAX, LIMIT_DEFAULT>>(
                "limit",
                "The maximum number of rows on a page.",
            ),
            query::<BoundedInteger<0, OFFSET_MAX, 0>>("offset", "The number of rows to skip."),
            query::<String>("cursor", "The `next_cursor` of an earlier page."),
        ]
    }
}

/// The format of an export, for the OpenAPI document.
struct FormatParams;

impl IntoParams for FormatParams {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![query::<ExportFormat>("format", "The format of the file. Default: CSV.")]
    }
}

/// Lists usage records, newest first
///
/// To read the next page, pass either the last `next_cursor` as `cursor`, or an `offset`, but not
/// both. A page without `offset` can have fewer rows than `limit`, even none, and still not be the
/// last one: it then has `has_more` and `next_cursor`. A page with `offset` (0 for the first page)
/// has all of its rows, or is refused with `READ_TOO_LARGE`, so offsets add up. `total` is known
/// without a filter, and for whole days by integration, model or agent, with all, failed or blocked
/// calls; otherwise it is null.
#[utoipa::path(
    get,
    path = "/api/v1/telemetry/usage-history",
    tag = "telemetry",
    params(FilterParams, HistoryPageParams),
    responses((status = 200, body = [UsageView], description = "A page of records.")),
    extensions(("x-refuses" = json!([ErrorCode::IntegrationNotFound]))),
)]
pub(crate) async fn list_usage_history(
    State(app): State<App>,
    caller: Authorized,
    reader: StoreReader,
    mut query: Query,
) -> Result<Response, ApiError> {
    let limit = query.integer("limit", 1..=LIMIT_MAX)?.unwrap_or(LIMIT_DEFAULT);
    let offset = query.integer("offset", 0..=OFFSET_MAX)?;
    let after = query.read("cursor", parse_cursor)?;
    if offset.is_some() && after.is_some() {
        return Err(ApiError::field("offset", "cannot be combined with cursor"));
    }
    let filter = HistoryFilter { after, ..read_filter(&mut query)? };
    query.done()?;
    caller.check_integration(app.store.as_ref(), filter.integration_id).await?;
    let total = total(&reader, caller.tenant_id, &filter).await?;
    let part = match offset {
        Some(offset) => HistoryPart::Whole(Page { offset, limit }),
        None => HistoryPart::UpTo(limit),
    };
    let found = reader.usage_history(caller.tenant_id, filter, part).await;
    let found = found.map_err(|error| match (error, offset) {
        (StoreError::ReadTooLarge, Some(_)) => ApiError::new(ErrorCode::ReadTooLarge, NOT_WHOLE),
        (error, _) => error.into(),
    })?;
    let meta = ListMeta {
        total,
        page: offset.unwrap_or(0) / limit + 1,
        page_size: limit,
        has_more: found.next.is_some(),
        next_cursor: found.next.map(cursor),
    };
    let views: Vec<UsageView> = found.rows.into_iter().map(UsageView::from).collect();
    Answer::list(views, meta).large(&reader).await
}

fn read_filter(query: &mut Query) -> Result<HistoryFilter, ApiError> {
    let (start, end) = read_instants(query)?;
    Ok(HistoryFilter {
        integration_id: query.integration()?,
        model: query.text("model").map(as_stored),
        agent_id: query.text("agent_id").map(as_stored),
        session_id: query.text("session_id").map(as_stored),
        policy_result: query.read("policy_result", parse_policy)?,
        errors_only: query.boolean("errors_only")?,
        start,
        end,
        after: None,
    })
}

/// A label as records keep it.
fn as_stored(label: String) -> String {
    clean_label(label).into()
}

/// The number of matching calls, where counters or rollups know it.
async fn total(
    reader: &StoreReader,
    tenant_id: TenantId,
    filter: &HistoryFilter,
) -> Result<Option<i64>, ApiError> {
    let HistoryFilter { integration_id, start, end, .. } = filter;
    let Some((label, outcome)) = counted(filter) else { return Ok(None) };
    let days = match (start, end) {
        (None, None) if label.is_none() && outcome.is_none() => {
            return as_far_as_counted(
                reader.recorded_calls(tenant_id, *integration_id).await.map(Some),
            );
        }
        (Some(start), Some(end)) => whole_days(*start, *end),
        (None | Some(_), None | Some(_)) => None,
    };
    let Some((first, last)) = days else { return Ok(None) };
    let integration_id = *integration_id;
    let filter = CallFilter { integration_id, label, outcome, first, last };
    as_far_as_counted(reader.counted_calls(tenant_id, filter).await)
}

/// A count that takes too long is left out. The page is still returned.
fn as_far_as_counted(count: Result<Option<i64>, StoreError>) -> Result<Option<i64>, ApiError> {
    match count {
        Err(StoreError::ReadTooLarge) => Ok(None),
        counted => Ok(counted?),
    }
}

/// How rollups can answer a filter: by model or agent, and by one outcome. `None` if they cannot.
fn counted(filter: &HistoryFilter) -> Option<(Option<CallLabel>, Option<CallOutcome>)> {
    let HistoryFilter { model, agent_id, session_id, policy_result, errors_only, .. } = filter;
    let label = match (model, agent_id, session_id) {
        (None, None, None) => None,
        (Some(model), None, None) => Some(CallLabel::Model(model.clone())),
        (None, Some(agent_id), None) => Some(CallLabel::Agent(agent_id.clone())),
        (Some(_), Some(_), _) | (_, _, Some(_)) => return None,
    };
    let outcome = match (policy_result, errors_only) {
        (None, false) => None,
        (None, true) => Some(CallOutcome::Failed),
        (Some(PolicyResult::Blocked), false) => Some(CallOutcome::Blocked),
        (Some(PolicyResult::Allowed | PolicyResult::Warned), _)
        | (Some(PolicyResult::Blocked), true) => return None,
    };
    Some((label, outcome))
}

/// The days of a range that starts and ends at midnight.
fn whole_days(start: Timestamp, end: Timestamp) -> Option<(Day, Day)> {
    let (first, after) = (start.day(), end.day());
    let whole = first.start() == start && after.start() == end && first < after;
    let days = after.number() - first.number();
    (whole && days <= COUNT_DAYS_MAX).then(|| (first, Day::from_number(after.number() - 1)))
}

/// The history by a filter, from page to page.
struct UsageExport {
    tenant_id: TenantId,
    filter: HistoryFilter,
    format: UsageFormat,
}

impl Export for UsageExport {
    type Row = UsageRow;
    type Position = HistoryPosition;

    fn headers(&self) -> (&'static str, &'static str) {
        self.format.headers()
    }

    fn head(&self) -> Bytes {
        self.format.head()
    }

    async fn page(
        &self,
        store: &dyn Store,
        after: Option<HistoryPosition>,
    ) -> Result<ExportPage<UsageRow, HistoryPosition>, StoreError> {
        let filter = HistoryFilter { after, ..self.filter.clone() };
        let HistoryPage { rows, next } = store.export_page(self.tenant_id, filter).await?;
        Ok(ExportPage { rows, next })
    }

    fn write(&self, rows: Vec<UsageRow>) -> io::Result<Bytes> {
        self.format.write(rows)
    }
}

/// Exports the whole history as a file, newest first
///
/// A tenant can have 8 exports open at once. Bursar closes the connection of a client that reads
/// nothing for `server.write_seconds`. The export is one response of any length. If something fails
/// on the way, the connection breaks off, so a response that ends properly is complete.
#[utoipa::path(
    get,
    path = "/api/v1/telemetry/export",
    tag = "telemetry",
    params(FormatParams, FilterParams),
    responses(
        (
            status = 200,
            description = "CSV with a header line, or NDJSON with the objects of the history.",
            content((String = "text/csv"), (String = "application/x-ndjson")),
            headers(("Content-Disposition" = String, description = "The suggested file name.")),
        ),
    ),
    extensions(("x-refuses" = json!([ErrorCode::IntegrationNotFound]))),
)]
pub(crate) async fn export_usage(
    State(app): State<App>,
    caller: Authorized,
    reader: StoreReader,
    mut query: Query,
) -> Result<Response, ApiError> {
    let format = query.read("format", UsageFormat::parse)?.unwrap_or(UsageFormat::Csv);
    let filter = read_filter(&mut query)?;
    query.done()?;
    caller.check_integration(app.store.as_ref(), filter.integration_id).await?;
    let tenant_id = caller.tenant_id;
    let of = UsageExport { tenant_id, filter, format };
    export(of, tenant_id, &app.export_budget, &reader).await
}

fn parse_policy(text: &str) -> Result<PolicyResult, &'static str> {
    [PolicyResult::Allowed, PolicyResult::Warned, PolicyResult::Blocked]
        .into_iter()
        .find(|policy| policy.as_str() == text)
        .ok_or("must be allowed, warned or blocked")
}

fn cursor(place: HistoryPosition) -> String {
    cursor::text(place.occurred_at, place.entry_id.number())
}

fn parse_cursor(text: &str) -> Result<HistoryPosition, &'static str> {
    let (occurred_at, entry_id) = cursor::parse(text, EntryId::from_number)?;
    Ok(HistoryPosition { occurred_at, entry_id })
}

pub(crate) fn routes() -> Routes {
    Routes::new()
        .add(Rule::of(USAGE), routes!(list_usage_history))
        .add(Rule::of(USAGE), routes!(export_usage))
}
