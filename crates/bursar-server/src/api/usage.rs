//! Telemetry out: sums from rollups, history from entries.

use axum::extract::State;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bursar_core::{Day, EntryId, EntryKind, PolicyResult, Timestamp};
use bursar_store::{DayUsage, HistoryFilter, HistoryPlace, IntegrationUsage, Page, Sums, UsageRow};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::{IntoParams, ToSchema};

use crate::app::App;
use crate::auth::{Authorized, TelemetryRead};
use crate::envelope::{Answer, ListMeta};
use crate::error::{ApiError, ErrorCode};
use crate::figures::{average, cents, integer, percent, usd};
use crate::instant;
use crate::openapi::kinds::{self, Date, FreeObject, Id, Instant, InstantOrDate, Usd, Whole};
use crate::openapi::{query, words};
use crate::params::{Query, list_meta};

/// Days of a summary when nothing is said.
const DAYS_DEFAULT: i32 = 30;
/// Days that one question may span.
const DAYS_MAX: i32 = 366;
/// Rows of days that one answer has at most, which is also what it has when nothing is said.
const DAY_ROWS_MAX: u32 = 10_000;
/// Rows of days that may be passed over.
const DAY_OFFSET_MAX: u32 = 10_000_000;
/// Entries of a page of history.
const HISTORY_LIMIT_DEFAULT: u32 = 50;
const HISTORY_LIMIT_MAX: u32 = 1_000;
const HISTORY_OFFSET_MAX: u32 = 10_000;

/// The sums of a period.
#[derive(Debug, Serialize, ToSchema)]
pub struct SummaryView {
    #[schema(value_type = Id)]
    tenant_id: String,
    /// The first day.
    #[schema(value_type = Date)]
    period_start: String,
    /// The last day.
    #[schema(value_type = Date)]
    period_end: String,
    total_calls: i64,
    total_tokens_in: i64,
    total_tokens_out: i64,
    total_cost_cents: i64,
    #[schema(value_type = Usd)]
    total_cost_usd: String,
    #[schema(required)]
    avg_latency_ms: Option<f64>,
    error_count: i64,
    blocked_count: i64,
    /// Calls whose cost is not known.
    unpriced_count: i64,
    /// Null when one integration is asked for.
    #[schema(required)]
    by_integration: Option<Vec<IntegrationSums>>,
}

/// The sums of one integration in a period.
#[derive(Debug, Serialize, ToSchema)]
struct IntegrationSums {
    #[schema(value_type = Id)]
    integration_id: String,
    integration_name: String,
    #[schema(value_type = words::ProviderType)]
    provider_type: String,
    total_calls: i64,
    total_tokens: i64,
    total_cost_cents: i64,
    #[schema(value_type = Usd)]
    total_cost_usd: String,
    error_count: i64,
}

/// The sums of one integration on one day.
#[derive(Debug, Serialize, ToSchema)]
pub struct DayView {
    #[schema(value_type = Date)]
    date: String,
    #[schema(value_type = Id)]
    integration_id: String,
    total_calls: i64,
    total_tokens_in: i64,
    total_tokens_out: i64,
    total_tokens: i64,
    total_cost_cents: i64,
    #[schema(value_type = Usd)]
    total_cost_usd: String,
    #[schema(required)]
    avg_latency_ms: Option<f64>,
    error_count: i64,
    blocked_count: i64,
    /// Calls that neither failed nor were blocked, of all.
    success_rate: f64,
}

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

/// The word for what an entry is.
pub(crate) const fn kind_word(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::Usage => "usage",
        EntryKind::Correction => "correction",
    }
}

impl From<IntegrationUsage> for IntegrationSums {
    fn from(usage: IntegrationUsage) -> Self {
        let IntegrationUsage { integration_id, name, provider_type, sums } = usage;
        Self {
            integration_id: integration_id.to_string(),
            integration_name: name,
            provider_type,
            total_calls: sums.calls,
            total_tokens: integer(sums.tokens_in + sums.tokens_out),
            total_cost_cents: cents(sums.cost_nanos),
            total_cost_usd: usd(sums.cost_nanos),
            error_count: sums.errors,
        }
    }
}

impl From<DayUsage> for DayView {
    fn from(DayUsage { day, integration_id, sums }: DayUsage) -> Self {
        Self {
            date: day.to_string(),
            integration_id: integration_id.to_string(),
            total_calls: sums.calls,
            total_tokens_in: integer(sums.tokens_in),
            total_tokens_out: integer(sums.tokens_out),
            total_tokens: integer(sums.tokens_in + sums.tokens_out),
            total_cost_cents: cents(sums.cost_nanos),
            total_cost_usd: usd(sums.cost_nanos),
            avg_latency_ms: average(sums.latency_sum_ms, sums.latency_calls),
            error_count: sums.errors,
            blocked_count: sums.blocked,
            success_rate: percent(sums.succeeded.into(), sums.calls.into()) / 100.0,
        }
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

/// The days of a question, as [`days`] takes them, for the documents.
struct DaysParams;

impl IntoParams for DaysParams {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![
            query::<Id>("integration_id", "Only this integration."),
            query::<Date>("start_date", "The first day; by default the last is the 30th."),
            query::<Date>("end_date", "The last day, at most the 366th; by default today."),
        ]
    }
}

/// The page of a list of days, for the documents.
struct DayPageParams;

impl IntoParams for DayPageParams {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![
            query::<Whole<0, DAY_OFFSET_MAX, 0>>("offset", "Rows to pass over."),
            query::<Whole<1, DAY_ROWS_MAX, DAY_ROWS_MAX>>("limit", "Rows of a page."),
        ]
    }
}

/// The filters of the history, for the documents.
struct HistoryParams;

impl IntoParams for HistoryParams {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![
            query::<Id>("integration_id", "Only of this integration."),
            query::<String>("model", "Only of this model."),
            query::<String>("agent_id", "Only of this agent."),
            query::<String>("session_id", "Only of this session."),
            query::<words::PolicyResult>("policy_result", "Only with this result."),
            query::<bool>("errors_only", "Only calls that ended with an error."),
            query::<InstantOrDate>("start", "From here on: an instant, or the first of a day."),
            query::<InstantOrDate>("end", "Before here: an instant, or the end of a day."),
            query::<Whole<1, HISTORY_LIMIT_MAX, HISTORY_LIMIT_DEFAULT>>("limit", "Rows of a page."),
            query::<Whole<0, HISTORY_OFFSET_MAX, 0>>("offset", "Rows to pass over."),
            query::<String>("cursor", "The `next_cursor` of an earlier page."),
        ]
    }
}

fn empty_object() -> Box<RawValue> {
    RawValue::from_string("{}".to_owned()).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// Sums up the usage of a period
#[utoipa::path(
    get,
    path = "/api/v1/telemetry/usage-summary",
    tag = "telemetry",
    security(("api_key" = ["telemetry:read"])),
    params(DaysParams),
    responses((status = 200, body = SummaryView, description = "The sums.")),
    extensions(("x-refuses" = json!([ErrorCode::IntegrationNotFound]))),
)]
pub async fn get_usage_summary(
    State(app): State<App>,
    caller: Authorized<TelemetryRead>,
    mut query: Query,
) -> Result<Answer<SummaryView>, ApiError> {
    let integration_id = query.integration()?;
    let (first, last) = days(&app, &mut query)?;
    query.done()?;
    known(&app, &caller, integration_id).await?;
    let usage =
        app.store.usage_by_integration(caller.tenant_id, integration_id, first, last).await?;
    let mut sums = Sums::default();
    for of_integration in &usage {
        sums.merge(&of_integration.sums);
    }
    let by_integration = match integration_id {
        Some(_) => None,
        None => Some(usage.into_iter().map(IntegrationSums::from).collect()),
    };
    Ok(Answer::ok(SummaryView {
        tenant_id: caller.tenant_id.to_string(),
        period_start: first.to_string(),
        period_end: last.to_string(),
        total_calls: sums.calls,
        total_tokens_in: integer(sums.tokens_in),
        total_tokens_out: integer(sums.tokens_out),
        total_cost_cents: cents(sums.cost_nanos),
        total_cost_usd: usd(sums.cost_nanos),
        avg_latency_ms: average(sums.latency_sum_ms, sums.latency_calls),
        error_count: sums.errors,
        blocked_count: sums.blocked,
        unpriced_count: sums.unpriced,
        by_integration,
    }))
}

/// Lists the usage by day and integration
///
/// Days without calls are absent.
#[utoipa::path(
    get,
    path = "/api/v1/telemetry/daily-aggregates",
    tag = "telemetry",
    security(("api_key" = ["telemetry:read"])),
    params(DaysParams, DayPageParams),
    responses((status = 200, body = [DayView], description = "A page of days.")),
    extensions(("x-refuses" = json!([ErrorCode::IntegrationNotFound]))),
)]
pub async fn list_daily_aggregates(
    State(app): State<App>,
    caller: Authorized<TelemetryRead>,
    mut query: Query,
) -> Result<Answer<Vec<DayView>>, ApiError> {
    let integration_id = query.integration()?;
    let (first, last) = days(&app, &mut query)?;
    let offset = query.integer("offset", 0..=DAY_OFFSET_MAX)?.unwrap_or(0);
    let limit = query.integer("limit", 1..=DAY_ROWS_MAX)?.unwrap_or(DAY_ROWS_MAX);
    query.done()?;
    known(&app, &caller, integration_id).await?;
    let usage = app.store.usage_by_day(caller.tenant_id, integration_id, first, last).await?;
    let total = i64::try_from(usage.len()).unwrap_or(i64::MAX);
    let rows = usage.into_iter().skip(offset as usize).take(limit as usize);
    let views: Vec<DayView> = rows.map(DayView::from).collect();
    let meta = list_meta(Page { offset, limit }, views.len(), total);
    Ok(Answer::list(views, meta))
}

/// Lists usage records, newest first
///
/// Go on with `cursor`, which is the last page's `next_cursor`, or with `offset`; not with both.
/// `total` is null unless `integration_id` is the only filter.
#[utoipa::path(
    get,
    path = "/api/v1/telemetry/usage-history",
    tag = "telemetry",
    security(("api_key" = ["telemetry:read"])),
    params(HistoryParams),
    responses((status = 200, body = [UsageView], description = "A page of records.")),
    extensions(("x-refuses" = json!([ErrorCode::IntegrationNotFound]))),
)]
pub async fn list_usage_history(
    State(app): State<App>,
    caller: Authorized<TelemetryRead>,
    mut query: Query,
) -> Result<Answer<Vec<UsageView>>, ApiError> {
    let limit = query.integer("limit", 1..=HISTORY_LIMIT_MAX)?.unwrap_or(HISTORY_LIMIT_DEFAULT);
    let offset = query.integer("offset", 0..=HISTORY_OFFSET_MAX)?;
    let after = query.read("cursor", parse_cursor)?;
    if offset.is_some() && after.is_some() {
        return Err(ApiError::field("offset", "cannot be combined with cursor"));
    }
    let filter = HistoryFilter {
        integration_id: query.integration()?,
        model: query.text("model"),
        agent_id: query.text("agent_id"),
        session_id: query.text("session_id"),
        policy_result: query.read("policy_result", parse_policy)?,
        errors_only: query.boolean("errors_only")?,
        start: query.read("start", parse_start)?,
        end: query.read("end", parse_end)?,
        after,
    };
    query.done()?;
    known(&app, &caller, filter.integration_id).await?;
    let total = total(&app, &caller, &filter).await?;
    let offset = offset.unwrap_or(0);
    // One more than asked for tells whether there is more.
    let page = Page { offset, limit: limit + 1 };
    let mut rows = app.store.usage_history(caller.tenant_id, filter, page).await?;
    let has_more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next_cursor = rows.last().filter(|_| has_more).map(cursor);
    let meta =
        ListMeta { total, page: offset / limit + 1, page_size: limit, has_more, next_cursor };
    Ok(Answer::list(rows.into_iter().map(UsageView::from).collect(), meta))
}

/// All calls that match, where the counters know it: without any filter but the integration.
async fn total(
    app: &App,
    caller: &Authorized<TelemetryRead>,
    filter: &HistoryFilter,
) -> Result<Option<i64>, ApiError> {
    let HistoryFilter {
        integration_id,
        model,
        agent_id,
        session_id,
        policy_result,
        errors_only,
        start,
        end,
        after: _,
    } = filter;
    let filtered = model.is_some()
        || agent_id.is_some()
        || session_id.is_some()
        || policy_result.is_some()
        || *errors_only
        || start.is_some()
        || end.is_some();
    if filtered {
        return Ok(None);
    }
    Ok(Some(app.store.recorded_calls(caller.tenant_id, *integration_id).await?))
}

/// Refuses a filter by an integration that the tenant does not have; a deleted one is known.
async fn known(
    app: &App,
    caller: &Authorized<TelemetryRead>,
    integration_id: Option<bursar_core::IntegrationId>,
) -> Result<(), ApiError> {
    let Some(integration_id) = integration_id else { return Ok(()) };
    let standing = app.store.standing(caller.tenant_id, integration_id).await?;
    standing.map(|_| ()).ok_or_else(|| ApiError::of(ErrorCode::IntegrationNotFound))
}

/// The days of a question, both inclusive; the last 30 when nothing is said.
fn days(app: &App, query: &mut Query) -> Result<(Day, Day), ApiError> {
    let first = query.read("start_date", instant::parse_day)?;
    let last = query.read("end_date", instant::parse_day)?;
    let last = last.unwrap_or_else(|| app.store.now().day());
    let first = first.unwrap_or_else(|| Day::from_number(last.number() - DAYS_DEFAULT + 1));
    if first > last {
        return Err(ApiError::field("start_date", "must not be after end_date"));
    }
    if last.number() - first.number() >= DAYS_MAX {
        return Err(ApiError::field("start_date", "must be at most 366 days before end_date"));
    }
    Ok((first, last))
}

fn parse_policy(text: &str) -> Result<PolicyResult, &'static str> {
    [PolicyResult::Allowed, PolicyResult::Warned, PolicyResult::Blocked]
        .into_iter()
        .find(|policy| policy.as_str() == text)
        .ok_or("must be allowed, warned or blocked")
}

/// The beginning of a range: an instant, or the first one of a day.
fn parse_start(text: &str) -> Result<Timestamp, &'static str> {
    instant::parse_day(text).map(Day::start).or_else(|_| instant::parse(text))
}

/// The end of a range, which is not part of it: an instant, or the end of a day.
fn parse_end(text: &str) -> Result<Timestamp, &'static str> {
    let next = |day: Day| Day::from_number(day.number() + 1).start();
    instant::parse_day(text).map(next).or_else(|_| instant::parse(text))
}

fn cursor(row: &UsageRow) -> String {
    let mut bytes = [0u8; 16];
    let (at, id) = bytes.split_at_mut(8);
    at.copy_from_slice(&row.occurred_at.micros().to_be_bytes());
    id.copy_from_slice(&row.entry_id.number().to_be_bytes());
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
