//! Sums of usage over a period and by day, read from rollups.

use axum::extract::State;
use axum::response::Response;
use bursar_core::IntegrationId;
use bursar_store::{DayFilter, DayPosition, DayUsage, IntegrationUsage, Page, Sums};
use serde::{Serialize, Serializer};
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use crate::api::route::{Routes, Rule};
use crate::app::App;
use crate::auth::access::USAGE;
use crate::auth::authorize::Authorized;
use crate::http::answer_memory::StoreReader;
use crate::wire::cursor;
use crate::wire::enums;
use crate::wire::envelope::{Answer, ListMeta};
use crate::wire::error::ApiError;
use crate::wire::error_code::ErrorCode;
use crate::wire::format::{average, cents, latency_percentile, share, usd};
use crate::wire::params::Query;
use crate::wire::period::{day_params, read_days};
use crate::wire::scalars::{BoundedInteger, Date, Id, Usd};
use crate::wire::schema::query;

/// The longest period in days.
const DAYS_MAX: i32 = 366;
/// The most rows of one page, and the default.
const DAY_ROWS_MAX: u32 = 10_000;
/// The largest offset. Use the cursor to read further.
const DAY_OFFSET_MAX: u32 = 1_000_000;

/// The sums of a period.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SummaryView {
    #[schema(value_type = Id)]
    tenant_id: String,
    /// The first day.
    #[schema(value_type = Date)]
    period_start: String,
    /// The last day.
    #[schema(value_type = Date)]
    period_end: String,
    total_calls: i64,
    #[schema(value_type = i64)]
    total_tokens_in: i128,
    #[schema(value_type = i64)]
    total_tokens_out: i128,
    #[schema(value_type = i64)]
    total_cost_cents: i128,
    #[schema(value_type = Usd)]
    total_cost_usd: String,
    #[schema(required)]
    avg_latency_ms: Option<f64>,
    /// Estimated from a histogram. 40000 means 40,000 or more.
    #[schema(required)]
    latency_p50_ms: Option<i64>,
    #[schema(required)]
    latency_p95_ms: Option<i64>,
    #[schema(required)]
    latency_p99_ms: Option<i64>,
    error_count: i64,
    blocked_count: i64,
    /// Calls of unknown cost.
    unpriced_count: i64,
    /// Null when the request names one integration.
    #[schema(value_type = Option<Vec<IntegrationSums>>, required)]
    by_integration: Option<IntegrationList>,
}

/// The sums of one integration in a period.
#[derive(Debug, Serialize, ToSchema)]
struct IntegrationSums {
    #[schema(value_type = Id)]
    integration_id: String,
    integration_name: String,
    #[schema(value_type = enums::ProviderType)]
    provider_type: String,
    total_calls: i64,
    #[schema(value_type = i64)]
    total_tokens: i128,
    #[schema(value_type = i64)]
    total_cost_cents: i128,
    #[schema(value_type = Usd)]
    total_cost_usd: String,
    error_count: i64,
}

/// The sums of one integration on one day.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DayView {
    #[schema(value_type = Date)]
    date: String,
    #[schema(value_type = Id)]
    integration_id: String,
    total_calls: i64,
    #[schema(value_type = i64)]
    total_tokens_in: i128,
    #[schema(value_type = i64)]
    total_tokens_out: i128,
    #[schema(value_type = i64)]
    total_tokens: i128,
    #[schema(value_type = i64)]
    total_cost_cents: i128,
    #[schema(value_type = Usd)]
    total_cost_usd: String,
    #[schema(required)]
    avg_latency_ms: Option<f64>,
    error_count: i64,
    blocked_count: i64,
    /// The share of calls that neither failed nor were blocked.
    success_rate: f64,
}

/// Integrations, each converted to its view only while it is serialized.
#[derive(Debug)]
struct IntegrationList(Vec<IntegrationUsage>);

impl Serialize for IntegrationList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(IntegrationSums::from))
    }
}

/// Days, converted one at a time like [`IntegrationList`].
#[derive(Debug)]
struct DayList(Vec<DayUsage>);

impl Serialize for DayList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().copied().map(DayView::from))
    }
}

impl From<&IntegrationUsage> for IntegrationSums {
    fn from(usage: &IntegrationUsage) -> Self {
        let IntegrationUsage { integration_id, name, provider_type, sums } = usage;
        Self {
            integration_id: integration_id.to_string(),
            integration_name: name.clone(),
            provider_type: provider_type.clone(),
            total_calls: sums.calls,
            total_tokens: sums.tokens(),
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
            total_tokens_in: sums.tokens_in,
            total_tokens_out: sums.tokens_out,
            total_tokens: sums.tokens(),
            total_cost_cents: cents(sums.cost_nanos),
            total_cost_usd: usd(sums.cost_nanos),
            avg_latency_ms: average(sums.latency_sum_ms, sums.latency_calls),
            error_count: sums.errors,
            blocked_count: sums.blocked,
            success_rate: share(sums.succeeded, sums.calls),
        }
    }
}

/// The days of a request as [`read_days`] reads them, for the OpenAPI document.
struct DaysParams;

impl IntoParams for DaysParams {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        day_params("The last day. At most 366 days in all. Default: today.")
    }
}

/// The page of a list of days, for the OpenAPI document.
struct DayPageParams;

impl IntoParams for DayPageParams {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![
            query::<BoundedInteger<0, DAY_OFFSET_MAX, 0>>("offset", "The number of rows to skip."),
            query::<BoundedInteger<1, DAY_ROWS_MAX, DAY_ROWS_MAX>>(
                "limit",
                "The maximum number of rows on a page.",
            ),
            query::<String>("cursor", "The `next_cursor` of an earlier page."),
        ]
    }
}

/// Sums up the usage of a period
///
/// `by_integration` lists every integration with usage, up to about 10,000. With more, the request
/// is refused with 422 `READ_TOO_LARGE`: ask for one integration, or for those with the largest
/// cost (`/telemetry/usage-breakdown?by=integration`).
#[utoipa::path(
    get,
    path = "/api/v1/telemetry/usage-summary",
    tag = "telemetry",
    params(DaysParams),
    responses((status = 200, body = SummaryView, description = "The sums.")),
    extensions(("x-refuses" = json!([ErrorCode::IntegrationNotFound, ErrorCode::TotalsOverflow]))),
)]
pub(crate) async fn get_usage_summary(
    State(app): State<App>,
    caller: Authorized,
    reader: StoreReader,
    mut query: Query,
) -> Result<Response, ApiError> {
    let integration_id = query.integration()?;
    let (first, last) = read_days(app.store.now().day(), &mut query, DAYS_MAX)?;
    query.done()?;
    caller.check_integration(app.store.as_ref(), integration_id).await?;
    let usage = reader.usage_by_integration(caller.tenant_id, integration_id, first, last).await?;
    let mut sums = Sums::default();
    for of_integration in &usage {
        sums.merge(&of_integration.sums)?;
    }
    let by_integration = match integration_id {
        Some(_) => None,
        None => Some(IntegrationList(usage)),
    };
    let summary = SummaryView {
        tenant_id: caller.tenant_id.to_string(),
        period_start: first.to_string(),
        period_end: last.to_string(),
        total_calls: sums.calls,
        total_tokens_in: sums.tokens_in,
        total_tokens_out: sums.tokens_out,
        total_cost_cents: cents(sums.cost_nanos),
        total_cost_usd: usd(sums.cost_nanos),
        avg_latency_ms: average(sums.latency_sum_ms, sums.latency_calls),
        latency_p50_ms: latency_percentile(&sums.latency_buckets, 50),
        latency_p95_ms: latency_percentile(&sums.latency_buckets, 95),
        latency_p99_ms: latency_percentile(&sums.latency_buckets, 99),
        error_count: sums.errors,
        blocked_count: sums.blocked,
        unpriced_count: sums.unpriced,
        by_integration,
    };
    Answer::ok(summary).large(&reader).await
}

/// Lists the usage by day and integration
///
/// Days without calls are absent. To read the next page, pass either the last `next_cursor` as
/// `cursor`, or an `offset`, but not both. `total` is counted up to 10,000 rows and null above
/// that.
#[utoipa::path(
    get,
    path = "/api/v1/telemetry/daily-aggregates",
    tag = "telemetry",
    params(DaysParams, DayPageParams),
    responses((status = 200, body = [DayView], description = "A page of days.")),
    extensions(("x-refuses" = json!([ErrorCode::IntegrationNotFound, ErrorCode::TotalsOverflow]))),
)]
pub(crate) async fn list_daily_aggregates(
    State(app): State<App>,
    caller: Authorized,
    reader: StoreReader,
    mut query: Query,
) -> Result<Response, ApiError> {
    let integration_id = query.integration()?;
    let (first, last) = read_days(app.store.now().day(), &mut query, DAYS_MAX)?;
    let offset = query.integer("offset", 0..=DAY_OFFSET_MAX)?;
    let limit = query.integer("limit", 1..=DAY_ROWS_MAX)?.unwrap_or(DAY_ROWS_MAX);
    let after = query.read("cursor", parse_cursor)?;
    query.done()?;
    if offset.is_some() && after.is_some() {
        return Err(ApiError::field("offset", "cannot be combined with cursor"));
    }
    caller.check_integration(app.store.as_ref(), integration_id).await?;
    let filter = DayFilter { integration_id, first, last, after };
    let page = Page { offset: offset.unwrap_or(0), limit };
    let found = reader.usage_by_day(caller.tenant_id, filter, page).await?;
    let meta = ListMeta {
        total: found.total,
        page: page.offset / limit + 1,
        page_size: limit,
        has_more: found.next.is_some(),
        next_cursor: found.next.map(cursor),
    };
    Answer::list(DayList(found.rows), meta).large(&reader).await
}

fn cursor(DayPosition { day, integration_id }: DayPosition) -> String {
    cursor::text(day.start(), integration_id.number())
}

fn parse_cursor(text: &str) -> Result<DayPosition, &'static str> {
    let (at, integration_id) = cursor::parse(text, IntegrationId::from_number)?;
    Ok(DayPosition { day: at.day(), integration_id })
}

pub(crate) fn routes() -> Routes {
    Routes::new()
        .add(Rule::of(USAGE), routes!(get_usage_summary))
        .add(Rule::of(USAGE), routes!(list_daily_aggregates))
}
