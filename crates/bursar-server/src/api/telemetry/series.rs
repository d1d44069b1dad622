//! Usage broken down by group and by step of time, for dashboards.

use axum::extract::State;
use axum::response::Response;
use bursar_core::Day;
use bursar_store::{
    Breakdown, BreakdownFilter, Group, GroupBy, Series, SeriesFilter, SeriesStep, Step, StoreError,
    Sums,
};
use serde::Serialize;
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use crate::api::route::{Routes, Rule};
use crate::app::App;
use crate::auth::access::USAGE;
use crate::auth::authorize::Authorized;
use crate::http::answer_memory::StoreReader;
use crate::wire::enums;
use crate::wire::enums::{group_by_name, step_name};
use crate::wire::envelope::Answer;
use crate::wire::error::ApiError;
use crate::wire::error_code::ErrorCode;
use crate::wire::format::{average, cents, latency_percentile, percent, share, usd};
use crate::wire::params::Query;
use crate::wire::period::{day_params, read_days};
use crate::wire::scalars::{BoundedInteger, Date, Id, Instant, Usd};
use crate::wire::schema::query;
use crate::wire::timestamps;

/// The longest series by day and the longest breakdown, in days.
const DAYS_MAX: i32 = 366;
/// The longest series by hour, in days.
const HOUR_DAYS_MAX: i32 = 31;
/// The longest breakdown by session, in days. Sessions are read from the entries.
const SESSION_DAYS_MAX: i32 = 7;
/// The default number of groups.
const GROUPS_DEFAULT: u32 = 10;
const GROUPS_MAX: u32 = 100;
/// The most points in one response.
const POINTS_MAX: i64 = 10_000;

/// Sums over a group, a step or a total.
#[derive(Debug, Serialize, ToSchema)]
struct SumsView {
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
    /// The share of calls that neither failed nor were blocked.
    success_rate: f64,
}

/// The values that identify a group. Only the fields of the requested grouping are present.
#[derive(Debug, Default, Serialize, ToSchema)]
struct GroupView {
    #[schema(value_type = Id, required = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    integration_id: Option<String>,
    #[schema(value_type = String, required = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    integration_name: Option<String>,
    #[schema(value_type = enums::ProviderType, required = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    provider_type: Option<String>,
    #[schema(value_type = String, required = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<String>,
    #[schema(value_type = String, required = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    #[schema(value_type = String, required = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_id: Option<String>,
    #[schema(value_type = String, required = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<String>,
}

/// The usage of a period by group.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BreakdownView {
    #[schema(value_type = enums::GroupBy)]
    by: &'static str,
    #[schema(value_type = Date)]
    period_start: String,
    #[schema(value_type = Date)]
    period_end: String,
    total: SumsView,
    groups: Vec<GroupSums>,
    /// The total minus the listed groups.
    other: SumsView,
}

/// The usage of one group in a period.
#[derive(Debug, Serialize, ToSchema)]
struct GroupSums {
    #[serde(flatten)]
    group: GroupView,
    #[serde(flatten)]
    sums: SumsView,
    /// The group's share of the total cost.
    cost_percent: f64,
}

/// The usage of a period by step.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SeriesView {
    #[schema(value_type = Option<enums::SeriesGroupBy>, required)]
    group_by: Option<&'static str>,
    #[schema(value_type = enums::SeriesStep)]
    step: &'static str,
    #[schema(value_type = Date)]
    period_start: String,
    #[schema(value_type = Date)]
    period_end: String,
    total: Vec<PointView>,
    groups: Vec<GroupSeries>,
    /// The total minus the listed groups, when the series is grouped.
    other: Vec<PointView>,
}

/// The usage of one group by step. Steps without calls are absent.
#[derive(Debug, Serialize, ToSchema)]
struct GroupSeries {
    #[serde(flatten)]
    group: GroupView,
    points: Vec<PointView>,
}

/// The sums of one step.
#[derive(Debug, Serialize, ToSchema)]
struct PointView {
    /// When the step starts.
    #[schema(value_type = Instant)]
    start: String,
    #[serde(flatten)]
    sums: SumsView,
}

impl From<&Sums> for SumsView {
    fn from(sums: &Sums) -> Self {
        let percentile = |percent| latency_percentile(&sums.latency_buckets, percent);
        Self {
            total_calls: sums.calls,
            total_tokens_in: sums.tokens_in,
            total_tokens_out: sums.tokens_out,
            total_tokens: sums.tokens(),
            total_cost_cents: cents(sums.cost_nanos),
            total_cost_usd: usd(sums.cost_nanos),
            avg_latency_ms: average(sums.latency_sum_ms, sums.latency_calls),
            latency_p50_ms: percentile(50),
            latency_p95_ms: percentile(95),
            latency_p99_ms: percentile(99),
            error_count: sums.errors,
            blocked_count: sums.blocked,
            unpriced_count: sums.unpriced,
            success_rate: share(sums.succeeded, sums.calls),
        }
    }
}

impl From<Group> for GroupView {
    fn from(group: Group) -> Self {
        let none = Self::default();
        match group {
            Group::Integration { integration_id, name, provider_type } => Self {
                integration_id: Some(integration_id.to_string()),
                integration_name: Some(name),
                provider_type: Some(provider_type),
                ..none
            },
            Group::Model { provider, model } => {
                Self { provider: Some(provider), model: Some(model), ..none }
            }
            Group::Provider { provider } => Self { provider: Some(provider), ..none },
            Group::Agent { agent_id } => Self { agent_id: Some(agent_id), ..none },
            Group::Session { session_id } => Self { session_id: Some(session_id), ..none },
        }
    }
}

fn named(text: &str, known: &[GroupBy]) -> Option<GroupBy> {
    known.iter().copied().find(|by| group_by_name(*by) == text)
}

/// The parameters of a breakdown, for the OpenAPI document.
struct BreakdownParams;

impl IntoParams for BreakdownParams {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let mut params = vec![
            query::<enums::GroupBy>("by", "The field to group by. Default: the model."),
            query::<BoundedInteger<1, GROUPS_MAX, GROUPS_DEFAULT>>(
                "limit",
                "The maximum number of groups.",
            ),
        ];
        let last = "The last day. At most 366 days in all, 7 by session. Default: today.";
        params.extend(day_params(last));
        params
    }
}

/// The parameters of a series, for the OpenAPI document.
struct SeriesParams;

impl IntoParams for SeriesParams {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let mut params = vec![
            query::<enums::SeriesGroupBy>(
                "group_by",
                "The field to group by. Default: only the total.",
            ),
            query::<enums::SeriesStep>(
                "step",
                "The length of a step. Default: a day, the only one for agents.",
            ),
            query::<BoundedInteger<1, GROUPS_MAX, GROUPS_DEFAULT>>(
                "limit",
                "The maximum number of groups.",
            ),
        ];
        let last = "The last day. At most 366 days in all, 31 by hour. Default: today.";
        params.extend(day_params(last));
        params
    }
}

/// Sums up the usage of a period by group
///
/// Returns the groups with the largest cost. `other` is the rest of `total`, including calls
/// without an agent or a session. A breakdown by session covers 7 days at most, also by default.
#[utoipa::path(
    get,
    path = "/api/v1/telemetry/usage-breakdown",
    tag = "telemetry",
    params(BreakdownParams),
    responses((status = 200, body = BreakdownView, description = "The sums by group.")),
    extensions(("x-refuses" = json!([ErrorCode::IntegrationNotFound, ErrorCode::TotalsOverflow]))),
)]
pub(crate) async fn get_usage_breakdown(
    State(app): State<App>,
    caller: Authorized,
    reader: StoreReader,
    mut query: Query,
) -> Result<Answer<BreakdownView>, ApiError> {
    use GroupBy::{Agent, Integration, Model, Provider, Session};
    let by = query.read("by", |text| {
        named(text, &[Integration, Model, Provider, Agent, Session])
            .ok_or("must be integration, model, provider, agent or session")
    })?;
    let by = by.unwrap_or(Model);
    let groups = query.integer("limit", 1..=GROUPS_MAX)?.unwrap_or(GROUPS_DEFAULT);
    let integration_id = query.integration()?;
    let days_max = if by == Session { SESSION_DAYS_MAX } else { DAYS_MAX };
    let (first, last) = read_days(app.store.now().day(), &mut query, days_max)?;
    query.done()?;
    caller.check_integration(app.store.as_ref(), integration_id).await?;
    let filter = BreakdownFilter { by, integration_id, first, last, groups_max: groups as usize };
    let breakdown = reader.usage_breakdown(caller.tenant_id, filter).await?;
    let breakdown = breakdown.ok_or_else(|| {
        let problem = "must be later: these days have too many sessions for a breakdown";
        ApiError::field("start_date", problem)
    })?;
    Ok(Answer::ok(breakdown_view(by, (first, last), breakdown)?))
}

fn breakdown_view(
    by: GroupBy,
    (first, last): (Day, Day),
    breakdown: Breakdown,
) -> Result<BreakdownView, StoreError> {
    let Breakdown { total, groups } = breakdown;
    let mut other = total;
    for (_, sums) in &groups {
        other = other.without(sums)?;
    }
    let groups = groups.into_iter().map(|(group, sums)| GroupSums {
        group: group.into(),
        sums: SumsView::from(&sums),
        cost_percent: percent(sums.cost_nanos, total.cost_nanos),
    });
    Ok(BreakdownView {
        by: group_by_name(by),
        period_start: first.to_string(),
        period_end: last.to_string(),
        total: SumsView::from(&total),
        groups: groups.collect(),
        other: SumsView::from(&other),
    })
}

/// Sums up the usage of a period by step
///
/// Steps without calls are absent. A response has at most 10,000 points.
#[utoipa::path(
    get,
    path = "/api/v1/telemetry/usage-series",
    tag = "telemetry",
    params(SeriesParams),
    responses((status = 200, body = SeriesView, description = "The sums by step.")),
    extensions(("x-refuses" = json!([ErrorCode::IntegrationNotFound, ErrorCode::TotalsOverflow]))),
)]
pub(crate) async fn get_usage_series(
    State(app): State<App>,
    caller: Authorized,
    reader: StoreReader,
    mut query: Query,
) -> Result<Response, ApiError> {
    use GroupBy::{Agent, Integration, Model, Provider};
    let by = query.read("group_by", |text| {
        named(text, &[Integration, Model, Provider, Agent])
            .ok_or("must be integration, model, provider or agent")
    })?;
    let step = query.read("step", |text| {
        let mut known = [Step::Hour, Step::Day].into_iter();
        known.find(|step| step_name(*step) == text).ok_or("must be hour or day")
    })?;
    let step = step.unwrap_or(Step::Day);
    if by == Some(Agent) && step == Step::Hour {
        return Err(ApiError::field("step", "must be day for agents"));
    }
    let limit = query.integer("limit", 1..=GROUPS_MAX)?.unwrap_or(GROUPS_DEFAULT);
    let integration_id = query.integration()?;
    let (days_max, steps_a_day) = match step {
        Step::Hour => (HOUR_DAYS_MAX, 24),
        Step::Day => (DAYS_MAX, 1),
    };
    let (first, last) = read_days(app.store.now().day(), &mut query, days_max)?;
    query.done()?;
    // Besides the groups there are the total and the rest.
    let series = by.map_or(1, |_| i64::from(limit) + 2);
    let points = i64::from(last.number() - first.number() + 1) * steps_a_day * series;
    if points > POINTS_MAX {
        let problem =
            "must be lower: with so many steps the response would have more than 10000 points";
        return Err(ApiError::field("limit", problem));
    }
    caller.check_integration(app.store.as_ref(), integration_id).await?;
    let groups_max = limit as usize;
    let filter = SeriesFilter { by, step, integration_id, first, last, groups_max };
    let series = reader.usage_series(caller.tenant_id, filter).await?;
    Answer::ok(series_view(&filter, series)?).large(&reader).await
}

fn series_view(filter: &SeriesFilter, series: Series) -> Result<SeriesView, StoreError> {
    let Series { groups, steps } = series;
    let start = |number: i32| match filter.step {
        Step::Hour => timestamps::text(bursar_core::Hour::from_number(number).start()),
        Step::Day => timestamps::text(Day::from_number(number).start()),
    };
    let point =
        |number: &i32, sums: &Sums| PointView { start: start(*number), sums: SumsView::from(sums) };
    let points = |sums: &dyn Fn(&SeriesStep) -> Option<Sums>| -> Vec<PointView> {
        let of_step =
            |(number, step): (&i32, &SeriesStep)| sums(step).map(|sums| point(number, &sums));
        steps.iter().filter_map(of_step).collect()
    };
    let mut other = Vec::new();
    for (number, step) in steps.iter().filter(|_| filter.by.is_some()) {
        let left = step.groups.values().try_fold(step.total, |left, sums| left.without(sums))?;
        if left != Sums::default() {
            other.push(point(number, &left));
        }
    }
    let of_group = |(place, group): (usize, Group)| GroupSeries {
        group: group.into(),
        points: points(&|step| step.groups.get(&place).copied()),
    };
    Ok(SeriesView {
        group_by: filter.by.map(group_by_name),
        step: step_name(filter.step),
        period_start: filter.first.to_string(),
        period_end: filter.last.to_string(),
        total: points(&|step| Some(step.total)),
        other,
        groups: groups.into_iter().enumerate().map(of_group).collect(),
    })
}

pub(crate) fn routes() -> Routes {
    Routes::new()
        .add(Rule::of(USAGE), routes!(get_usage_series))
        .add(Rule::of(USAGE), routes!(get_usage_breakdown))
}
