//! The history of usage, newest first: a page at a time, or all of it as a file.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bursar_core::{Day, EntryId, EntryKind, PolicyResult, TenantId, Timestamp};
use bursar_store::{
    CallFilter, CallLabel, CallOutcome, HistoryFilter, HistoryPage, HistoryPlace, Page, StoreError,
    UsageRow,
};
use bytes::Bytes;
use futures_util::stream;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::{IntoParams, ToSchema};

use crate::app::App;
use crate::auth::{Authorized, TelemetryRead};
use crate::budget::ByteHold;
use crate::envelope::{Answer, ListMeta};
use crate::error::{ApiError, ErrorCode};
use crate::figures::{cents, usd};
use crate::instant;
use crate::openapi::kinds::{self, FreeObject, Id, Instant, Usd, Whole};
use crate::openapi::{query, words};
use crate::params::Query;
use crate::period::{instant_params, read_instants};

const LIMIT_DEFAULT: u32 = 50;
const LIMIT_MAX: u32 = 1_000;
const OFFSET_MAX: u32 = 10_000;
/// Entries that an export reads at once.
const EXPORT_PAGE: Page = Page { offset: 0, limit: 1_000 };
/// What an export holds of the memory for large answers: a page that is read and one that is sent.
const EXPORT_BYTES: usize = 2 * 1024 * 1024;
/// Days over which entries are counted for `total`.
const COUNT_DAYS_MAX: i32 = 366;

/// One entry of the history.
#[derive(Debug, Serialize, ToSchema)]
pub struct UsageView {
    #[schema(value_type = Id)]
    id: String,
    #[schema(value_type = words::EntryKind)]
    kind: &'static str,
    #[schema(value_type = Id)]
    integration_id: String,
    #[schema(value_type = kinds::CallId)]
    call_id: String,
    #[schema(required)]
    session_id: Option<String>,
    #[schema(required)]
    agent_id: Option<String>,
    provider: String,
    model: String,
    tokens_in: i64,
    tokens_out: i64,
    total_tokens: i64,
    tokens_cache_read: i64,
    tokens_cache_write: i64,
    tokens_reasoning: i64,
    /// Rounded half up; `cost_usd` is exact.
    cost_cents: i64,
    /// The cost that counts.
    #[schema(value_type = Usd)]
    cost_usd: String,
    /// Which figure it is.
    #[schema(value_type = words::CostSource)]
    cost_source: &'static str,
    #[schema(value_type = Option<Usd>, required)]
    reported_cost_usd: Option<String>,
    #[schema(value_type = Option<Usd>, required)]
    computed_cost_usd: Option<String>,
    #[schema(value_type = words::UsageStatus)]
    usage_status: &'static str,
    #[schema(required)]
    latency_ms: Option<i64>,
    #[schema(value_type = words::PolicyResult)]
    policy_result: &'static str,
    #[schema(required)]
    error_code: Option<String>,
    #[schema(required)]
    error_message: Option<String>,
    #[schema(value_type = FreeObject)]
    metadata: Box<RawValue>,
    #[schema(value_type = Instant)]
    occurred_at: String,
    #[schema(value_type = Instant)]
    created_at: String,
}

/// The fields of an entry in the order of a CSV file, which has them in its first line.
const COLUMNS: [&str; 27] = [
    "id",
    "kind",
    "integration_id",
    "call_id",
    "session_id",
    "agent_id",
    "provider",
    "model",
    "tokens_in",
    "tokens_out",
    "total_tokens",
    "tokens_cache_read",
    "tokens_cache_write",
    "tokens_reasoning",
    "cost_cents",
    "cost_usd",
    "cost_source",
    "reported_cost_usd",
    "computed_cost_usd",
    "usage_status",
    "latency_ms",
    "policy_result",
    "error_code",
    "error_message",
    "metadata",
    "occurred_at",
    "created_at",
];

/// The word for what an entry is.
pub(crate) const fn kind_word(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::Usage => "usage",
        EntryKind::Correction => "correction",
    }
}

impl From<UsageRow> for UsageView {
    fn from(row: UsageRow) -> Self {
        let dollars = |cost: bursar_core::Nanos| usd(cost.get().into());
        let metadata = row.metadata.and_then(|text| RawValue::from_string(text).ok());
        Self {
            id: row.entry_id.to_string(),
            kind: kind_word(row.kind),
            integration_id: row.integration_id.to_string(),
            call_id: row.call_id,
            session_id: row.session_id,
            agent_id: row.agent_id,
            provider: row.provider,
            model: row.model,
            tokens_in: row.tokens.tokens_in(),
            tokens_out: row.tokens.tokens_out(),
            total_tokens: row.tokens.total(),
            tokens_cache_read: row.tokens.cache_read(),
            tokens_cache_write: row.tokens.cache_write(),
            tokens_reasoning: row.tokens.reasoning(),
            cost_cents: cents(row.cost.get().into()),
            cost_usd: dollars(row.cost),
            cost_source: row.cost_source.as_str(),
            reported_cost_usd: row.reported_cost.map(dollars),
            computed_cost_usd: row.computed_cost.map(dollars),
            usage_status: row.usage_status.as_str(),
            latency_ms: row.latency_ms,
            policy_result: row.policy_result.as_str(),
            error_code: row.error_code,
            error_message: row.error_message,
            metadata: metadata.unwrap_or_else(empty_object),
            occurred_at: instant::text(row.occurred_at),
            created_at: instant::text(row.created_at),
        }
    }
}

fn empty_object() -> Box<RawValue> {
    RawValue::from_string("{}".to_owned()).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// The filters of the history, as [`read_filter`] takes them, for the documents.
struct FilterParams;

impl IntoParams for FilterParams {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let labels = [
            query::<Id>("integration_id", "Only of this integration."),
            query::<String>("model", "Only of this model."),
            query::<String>("agent_id", "Only of this agent."),
            query::<String>("session_id", "Only of this session."),
            query::<words::PolicyResult>("policy_result", "Only with this result."),
            query::<bool>("errors_only", "Only calls that ended with an error."),
        ];
        labels.into_iter().chain(instant_params()).collect()
    }
}

/// The page of the history, for the documents.
struct HistoryPageParams;

impl IntoParams for HistoryPageParams {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![
            query::<Whole<1, LIMIT_MAX, LIMIT_DEFAULT>>("limit", "Rows of a page."),
            query::<Whole<0, OFFSET_MAX, 0>>("offset", "Rows to pass over."),
            query::<String>("cursor", "The `next_cursor` of an earlier page."),
        ]
    }
}

/// The form of an export, for the documents.
struct FormatParams;

impl IntoParams for FormatParams {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![query::<words::ExportFormat>("format", "How it is written; by default as CSV.")]
    }
}

/// Lists usage records, newest first
///
/// Go on with `cursor`, which is the last page's `next_cursor`, or with `offset`; not with both. A
/// page may have fewer rows than `limit`, even none, and still have more after it. `total` is told
/// for no filter, and for whole days by integration, model or agent, all calls, failed or blocked
/// ones; else it is null.
#[utoipa::path(
    get,
    path = "/api/v1/telemetry/usage-history",
    tag = "telemetry",
    security(("api_key" = ["telemetry:read"])),
    params(FilterParams, HistoryPageParams),
    responses((status = 200, body = [UsageView], description = "A page of records.")),
    extensions(("x-refuses" = json!([ErrorCode::IntegrationNotFound]))),
)]
pub async fn list_usage_history(
    State(app): State<App>,
    caller: Authorized<TelemetryRead>,
    mut query: Query,
) -> Result<Answer<Vec<UsageView>>, ApiError> {
    let limit = query.integer("limit", 1..=LIMIT_MAX)?.unwrap_or(LIMIT_DEFAULT);
    let offset = query.integer("offset", 0..=OFFSET_MAX)?;
    let after = query.read("cursor", parse_cursor)?;
    if offset.is_some() && after.is_some() {
        return Err(ApiError::field("offset", "cannot be combined with cursor"));
    }
    let filter = HistoryFilter { after, ..read_filter(&mut query)? };
    query.done()?;
    caller.known_integration(&app, filter.integration_id).await?;
    let total = total(&app, caller.tenant_id, &filter).await?;
    let offset = offset.unwrap_or(0);
    let found = app.store.usage_history(caller.tenant_id, filter, Page { offset, limit }).await?;
    let meta = ListMeta {
        total,
        page: offset / limit + 1,
        page_size: limit,
        has_more: found.next.is_some(),
        next_cursor: found.next.map(cursor),
    };
    Ok(Answer::list(found.rows.into_iter().map(UsageView::from).collect(), meta))
}

fn read_filter(query: &mut Query) -> Result<HistoryFilter, ApiError> {
    let (start, end) = read_instants(query)?;
    Ok(HistoryFilter {
        integration_id: query.integration()?,
        model: query.text("model"),
        agent_id: query.text("agent_id"),
        session_id: query.text("session_id"),
        policy_result: query.read("policy_result", parse_policy)?,
        errors_only: query.boolean("errors_only")?,
        start,
        end,
        after: None,
    })
}

/// All calls that match, where counters or rollups know it.
async fn total(
    app: &App,
    tenant_id: TenantId,
    filter: &HistoryFilter,
) -> Result<Option<i64>, ApiError> {
    let HistoryFilter { integration_id, start, end, .. } = filter;
    let Some((label, outcome)) = counted(filter) else { return Ok(None) };
    let days = match (start, end) {
        (None, None) if label.is_none() && outcome.is_none() => {
            return Ok(Some(app.store.recorded_calls(tenant_id, *integration_id).await?));
        }
        (Some(start), Some(end)) => whole_days(*start, *end),
        (None | Some(_), None | Some(_)) => None,
    };
    let Some((first, last)) = days else { return Ok(None) };
    let integration_id = *integration_id;
    let filter = CallFilter { integration_id, label, outcome, first, last };
    Ok(app.store.counted_calls(tenant_id, filter).await?)
}

/// What rollups would have to tell apart, if they can: a model or an agent, and one outcome.
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

/// The days of a range that begins and ends between days.
fn whole_days(start: Timestamp, end: Timestamp) -> Option<(Day, Day)> {
    let (first, after) = (start.day(), end.day());
    let whole = first.start() == start && after.start() == end && first < after;
    let days = after.number() - first.number();
    (whole && days <= COUNT_DAYS_MAX).then(|| (first, Day::from_number(after.number() - 1)))
}

/// How a file of usage is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Csv,
    Ndjson,
}

impl Format {
    /// The word for it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Ndjson => "ndjson",
        }
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        let mut known = [Self::Csv, Self::Ndjson].into_iter();
        known.find(|format| format.as_str() == text).ok_or("must be csv or ndjson")
    }

    const fn headers(self) -> (&'static str, &'static str) {
        match self {
            Self::Csv => ("text/csv; charset=utf-8", "attachment; filename=\"usage.csv\""),
            Self::Ndjson => ("application/x-ndjson", "attachment; filename=\"usage.ndjson\""),
        }
    }

    /// What stands before the first entry.
    fn head(self) -> Bytes {
        match self {
            Self::Csv => Bytes::from(COLUMNS.join(",") + "\n"),
            Self::Ndjson => Bytes::new(),
        }
    }

    fn write(self, rows: Vec<UsageRow>) -> Result<Bytes, std::io::Error> {
        let mut text = Vec::with_capacity(rows.len() * 512);
        match self {
            Self::Ndjson => {
                for row in rows {
                    serde_json::to_writer(&mut text, &UsageView::from(row))?;
                    text.push(b'\n');
                }
            }
            Self::Csv => {
                let mut writer = csv::Writer::from_writer(&mut text);
                for row in rows {
                    write_record(&mut writer, &UsageView::from(row))?;
                }
                writer.flush()?;
                drop(writer);
            }
        }
        Ok(text.into())
    }
}

fn write_record(writer: &mut csv::Writer<&mut Vec<u8>>, view: &UsageView) -> csv::Result<()> {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    writer.write_record([
        view.id.as_str(),
        view.kind,
        &view.integration_id,
        &view.call_id,
        &text(&view.session_id),
        &text(&view.agent_id),
        &view.provider,
        &view.model,
        &view.tokens_in.to_string(),
        &view.tokens_out.to_string(),
        &view.total_tokens.to_string(),
        &view.tokens_cache_read.to_string(),
        &view.tokens_cache_write.to_string(),
        &view.tokens_reasoning.to_string(),
        &view.cost_cents.to_string(),
        &view.cost_usd,
        view.cost_source,
        &text(&view.reported_cost_usd),
        &text(&view.computed_cost_usd),
        view.usage_status,
        &view.latency_ms.map(|latency_ms| latency_ms.to_string()).unwrap_or_default(),
        view.policy_result,
        &text(&view.error_code),
        &text(&view.error_message),
        view.metadata.get(),
        &view.occurred_at,
        &view.created_at,
    ])
}

/// An export between two of its pieces.
struct Export {
    app: App,
    tenant_id: TenantId,
    filter: HistoryFilter,
    format: Format,
    next: Next,
    /// For as long as someone reads it.
    _hold: ByteHold,
}

/// What an export does next.
enum Next {
    Head(HistoryPage),
    Page(HistoryPage),
    Read(HistoryPlace),
    End,
}

/// Writes all of the history to a file, newest first
///
/// One answer as long as it has to be; if something fails on the way, the connection breaks off, so
/// that a file that ended properly is whole.
#[utoipa::path(
    get,
    path = "/api/v1/telemetry/export",
    tag = "telemetry",
    security(("api_key" = ["telemetry:read"])),
    params(FormatParams, FilterParams),
    responses(
        (
            status = 200,
            description = "The file: CSV with the names of the fields in its first line, or an \
                object a line, each as the history shows it.",
            content((String = "text/csv"), (String = "application/x-ndjson")),
            headers(("Content-Disposition" = String, description = "Suggests a name for it.")),
        ),
    ),
    extensions(("x-refuses" = json!([ErrorCode::IntegrationNotFound]))),
)]
pub async fn export_usage(
    State(app): State<App>,
    caller: Authorized<TelemetryRead>,
    mut query: Query,
) -> Result<Response, ApiError> {
    let format = query.read("format", Format::parse)?.unwrap_or(Format::Csv);
    let filter = read_filter(&mut query)?;
    query.done()?;
    caller.known_integration(&app, filter.integration_id).await?;
    let tenant_id = caller.tenant_id;
    let mut hold = app.answer_budget.hold(Some(tenant_id));
    if !hold.take(EXPORT_BYTES) {
        return Err(ApiError::of(ErrorCode::Overloaded));
    }
    // What cannot be read at all is an error, and not a file that breaks off.
    let page = app.store.usage_history(tenant_id, filter.clone(), EXPORT_PAGE).await?;
    let export = Export { app, tenant_id, filter, format, next: Next::Head(page), _hold: hold };
    let mut response = Response::new(Body::from_stream(stream::try_unfold(export, Export::piece)));
    let (content_type, disposition) = format.headers();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static(disposition));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

impl Export {
    /// The next piece of the file, and what comes after it. An error breaks the answer off, so that
    /// nobody takes half a file for a whole one.
    async fn piece(mut self) -> Result<Option<(Bytes, Self)>, StoreError> {
        let page = match std::mem::replace(&mut self.next, Next::End) {
            Next::End => return Ok(None),
            Next::Head(page) => {
                self.next = Next::Page(page);
                return Ok(Some((self.format.head(), self)));
            }
            Next::Page(page) => page,
            Next::Read(place) => {
                let filter = HistoryFilter { after: Some(place), ..self.filter.clone() };
                self.app.store.usage_history(self.tenant_id, filter, EXPORT_PAGE).await?
            }
        };
        if let Some(place) = page.next {
            self.next = Next::Read(place);
        }
        let unwritable = |cause| StoreError::Unavailable(std::sync::Arc::new(cause));
        let text = self.format.write(page.rows).map_err(unwritable)?;
        Ok(Some((text, self)))
    }
}

fn parse_policy(text: &str) -> Result<PolicyResult, &'static str> {
    [PolicyResult::Allowed, PolicyResult::Warned, PolicyResult::Blocked]
        .into_iter()
        .find(|policy| policy.as_str() == text)
        .ok_or("must be allowed, warned or blocked")
}

fn cursor(place: HistoryPlace) -> String {
    let mut bytes = [0u8; 16];
    let (at, id) = bytes.split_at_mut(8);
    at.copy_from_slice(&place.occurred_at.micros().to_be_bytes());
    id.copy_from_slice(&place.entry_id.number().to_be_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

fn parse_cursor(text: &str) -> Result<HistoryPlace, &'static str> {
    const WRONG: &str = "must be the next_cursor of an earlier page";
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| WRONG)?;
    let number = |range: std::ops::Range<usize>| {
        let part: [u8; 8] = bytes.get(range)?.try_into().ok()?;
        Some(i64::from_be_bytes(part))
    };
    let occurred_at = number(0..8).and_then(Timestamp::from_micros);
    let entry_id = number(8..16).and_then(EntryId::from_number);
    match (occurred_at, entry_id, bytes.len()) {
        (Some(occurred_at), Some(entry_id), 16) => Ok(HistoryPlace { occurred_at, entry_id }),
        _ => Err(WRONG),
    }
}
