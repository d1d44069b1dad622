//! Checks: ask whether a call is within its limits. A check changes and reserves nothing.

use axum::extract::State;
use axum::http::{HeaderMap, header};
use bursar_core::{AccountSums, Decision, Estimate, IntegrationId, OwnedSubject, Verdict, decide};
use bursar_store::DecisionKind;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa_axum::routes;

use crate::api::enforcement::decision_view::{DecisionView, rate_limit_headers, retry_after};
use crate::api::enforcement::estimate::{asked_integration, check_estimate};
use crate::api::route::{Routes, Rule};
use crate::app::App;
use crate::auth::access::ASK;
use crate::auth::authorize::Authorized;
use crate::jobs::decision_log::DecisionNote;
use crate::wire::body::{SMALL, Text, parse};
use crate::wire::enums;
use crate::wire::envelope::Answer;
use crate::wire::error::ApiError;
use crate::wire::error_code::ErrorCode;
use crate::wire::format::{cents, percent, usd};
use crate::wire::params::Query;
use crate::wire::scalars::{AmountCents, Id, Instant, TokenCount, Usd};
use crate::wire::schema::EXAMPLE_ID;
use crate::wire::timestamps;

/// The most checks that one batch request may contain.
const BATCH_MAX: usize = 100;

/// A check of one call.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Check<'a> {
    /// Required unless the caller uses an integration key.
    #[schema(value_type = Option<Id>)]
    integration_id: Option<String>,
    /// The expected cost. Defaults to 0.
    #[schema(value_type = Option<AmountCents>)]
    #[serde(borrow, default)]
    estimated_cost_cents: Option<&'a RawValue>,
    /// The expected number of tokens. Defaults to 0.
    #[schema(value_type = Option<TokenCount>)]
    #[serde(borrow, default)]
    estimated_tokens: Option<&'a RawValue>,
}

/// A check whose estimate was validated.
struct CheckRequest {
    integration_id: Option<String>,
    estimate: Estimate,
}

/// A batch of checks.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CheckBatch<'a> {
    #[schema(value_type = Vec<Check>, min_items = 1, max_items = 100)]
    #[serde(borrow)]
    requests: Vec<&'a RawValue>,
}

/// The limits of an integration and how far they are used.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StatusView {
    #[schema(value_type = Id)]
    integration_id: String,
    #[schema(value_type = enums::IntegrationStatus)]
    integration_status: &'static str,
    #[schema(value_type = enums::HealthState)]
    health_state: &'static str,
    budget: BudgetView,
    tokens: TokensView,
    rate: RateView,
    #[schema(value_type = Instant)]
    period_start: String,
    #[schema(value_type = Instant)]
    evaluated_at: String,
}

#[derive(Debug, Serialize, ToSchema)]
struct BudgetView {
    limit_cents: i64,
    #[schema(value_type = i64)]
    used_cents: i128,
    #[schema(value_type = Usd)]
    used_usd: String,
    #[schema(value_type = i64)]
    held_cents: i128,
    #[schema(value_type = Usd)]
    held_usd: String,
    #[schema(value_type = Option<i64>, required)]
    remaining_cents: Option<i128>,
    #[schema(value_type = Option<Usd>, required)]
    remaining_usd: Option<String>,
    percent_used: f64,
    has_limit: bool,
}

#[derive(Debug, Serialize, ToSchema)]
struct TokensView {
    limit: i64,
    #[schema(value_type = i64)]
    used: i128,
    #[schema(value_type = i64)]
    held: i128,
    #[schema(value_type = Option<i64>, required)]
    remaining: Option<i128>,
    percent_used: f64,
    has_limit: bool,
}

#[derive(Debug, Serialize, ToSchema)]
struct RateView {
    limit_rpm: i64,
    #[schema(value_type = i64)]
    current_rpm: i128,
    percent_used: f64,
    has_limit: bool,
}

/// Checks whether a call may go on; changes nothing
#[utoipa::path(
    post,
    path = "/api/v1/enforcement/check",
    tag = "enforcement",
    request_body(
        content = Check,
        example = json!({
            "integration_id": EXAMPLE_ID,
            "estimated_cost_cents": 2,
            "estimated_tokens": 1500,
        }),
    ),
    responses(
        (
            status = 200,
            body = DecisionView,
            description = "The decision.",
            headers(
                (
                    "RateLimit-Policy" = String,
                    description = "The limits, in the format of the IETF draft."
                ),
                ("RateLimit" = String, description = "What is left of the limits."),
                ("Retry-After" = u32, description = "Seconds to wait. Only with `throttled`."),
            ),
        ),
    ),
    extensions(("x-refuses" = json!([ErrorCode::UnknownField]))),
)]
pub(crate) async fn check_call(
    State(app): State<App>,
    caller: Authorized,
    body: Text<SMALL>,
) -> Result<Answer<DecisionView>, ApiError> {
    let question = body.read(read_check).await?;
    app.store.check_clock()?;
    let (view, headers) = evaluate(&app, &caller, question).await?;
    Ok(Answer::ok(view).with_headers(headers))
}

/// Checks up to 100 calls; changes nothing
#[utoipa::path(
    post,
    path = "/api/v1/enforcement/batch",
    tag = "enforcement",
    request_body(
        content = CheckBatch,
        example = json!({
            "requests": [{ "integration_id": EXAMPLE_ID, "estimated_cost_cents": 2 }],
        }),
    ),
    responses((status = 200, body = [DecisionView], description = "The decisions, in order.")),
    extensions(("x-refuses" = json!([ErrorCode::UnknownField]))),
)]
pub(crate) async fn check_calls(
    State(app): State<App>,
    caller: Authorized,
    body: Text<SMALL>,
) -> Result<Answer<Vec<DecisionView>>, ApiError> {
    let questions = body.read(read_batch).await?;
    app.store.check_clock()?;
    let mut views = Vec::with_capacity(questions.len());
    for (index, question) in questions.into_iter().enumerate() {
        let within = |error: ApiError| error.within(&format!("requests[{index}]"));
        views.push(evaluate(&app, &caller, question).await.map_err(within)?.0);
    }
    Ok(Answer::ok(views))
}

fn read_check(text: &str) -> Result<CheckRequest, ApiError> {
    let check: Check<'_> = parse(text)?;
    let estimate = check_estimate(check.estimated_cost_cents, check.estimated_tokens)?;
    Ok(CheckRequest { integration_id: check.integration_id, estimate })
}

fn read_batch(text: &str) -> Result<Vec<CheckRequest>, ApiError> {
    let batch: CheckBatch<'_> = parse(text)?;
    if batch.requests.is_empty() || batch.requests.len() > BATCH_MAX {
        return Err(ApiError::field("requests", "must have 1 to 100 requests"));
    }
    let read = |(index, request): (usize, &&RawValue)| {
        read_check(request.get()).map_err(|error| error.within(&format!("requests[{index}]")))
    };
    batch.requests.iter().enumerate().map(read).collect()
}

/// Shows the limits of an integration and how far they are used
#[utoipa::path(
    get,
    path = "/api/v1/enforcement/status",
    tag = "enforcement",
    params(
        (
            "integration_id" = Option<Id>,
            Query,
            description = "Required unless the credential is an integration key.",
        ),
    ),
    responses((status = 200, body = StatusView, description = "What is used, held and remaining.")),
    extensions(("x-refuses" = json!([ErrorCode::IntegrationNotFound]))),
)]
pub(crate) async fn get_status(
    State(app): State<App>,
    caller: Authorized,
    mut query: Query,
) -> Result<Answer<StatusView>, ApiError> {
    let named = query.integration()?;
    query.done()?;
    let not_found = || ApiError::of(ErrorCode::IntegrationNotFound);
    let integration_id = named
        .or(caller.restricted_to)
        .ok_or_else(|| ApiError::field("integration_id", "is required"))?;
    if caller.restricted_to.is_some_and(|own| own != integration_id) {
        return Err(not_found());
    }
    app.store.integration(caller.tenant_id, integration_id).await?.ok_or_else(not_found)?;
    let snapshot = app
        .store
        .account_snapshot(caller.tenant_id, OwnedSubject::new(integration_id))
        .await?
        .ok_or_else(not_found)?;
    let (account, now) = (&snapshot.account, snapshot.now);
    let sums = AccountSums::of(account, now).map_err(|_| ApiError::of(ErrorCode::Internal))?;
    let limits = account.integration.limits;
    let [budget, tokens, rate] = limits.all().map(|limit| sums.state(limit));
    Ok(Answer::ok(StatusView {
        integration_id: integration_id.to_string(),
        integration_status: account.integration.status.as_str(),
        health_state: account.integration.health.as_str(),
        budget: BudgetView {
            limit_cents: limits.budget_limit_cents,
            used_cents: cents(budget.used),
            used_usd: usd(budget.used),
            held_cents: cents(budget.held),
            held_usd: usd(budget.held),
            remaining_cents: budget.left().map(cents),
            remaining_usd: budget.left().map(usd),
            percent_used: percent(budget.used, budget.amount),
            has_limit: budget.amount > 0,
        },
        tokens: TokensView {
            limit: limits.token_limit_month,
            used: tokens.used,
            held: tokens.held,
            remaining: tokens.left(),
            percent_used: percent(tokens.used, tokens.amount),
            has_limit: tokens.amount > 0,
        },
        rate: RateView {
            limit_rpm: limits.rate_limit_rpm,
            current_rpm: rate.used,
            percent_used: percent(rate.used, rate.amount),
            has_limit: rate.amount > 0,
        },
        period_start: timestamps::text(now.month().start()),
        evaluated_at: timestamps::text(now),
    }))
}

/// What limits look at.
fn subject(caller: &Authorized, integration_id: IntegrationId) -> OwnedSubject {
    let account_key_id = caller.key.map(|key| key.account_key_id);
    OwnedSubject { account_key_id, ..OwnedSubject::new(integration_id) }
}

async fn evaluate(
    app: &App,
    caller: &Authorized,
    CheckRequest { integration_id, estimate }: CheckRequest,
) -> Result<(DecisionView, HeaderMap), ApiError> {
    let asked = asked_integration(integration_id.as_deref(), caller.restricted_to)?;
    let name = integration_id
        .unwrap_or_else(|| caller.restricted_to.map_or_else(String::new, |id| id.to_string()));
    let snapshot = match asked {
        Some(integration_id) => {
            let subject = subject(caller, integration_id);
            let found = app.store.account_snapshot(caller.tenant_id, subject.clone()).await?;
            found.map(|snapshot| (snapshot, subject))
        }
        None => None,
    };
    let keep = |integration_id, decision: &Decision, at| {
        app.decision_log.note(DecisionNote {
            tenant_id: caller.tenant_id,
            kind: DecisionKind::Check,
            integration_id,
            decision: decision.clone(),
            call_id: None,
            estimate,
            at,
        });
    };
    let Some((snapshot, subject)) = snapshot else {
        let decision = Decision::hard_blocked(caller.unknown_integration());
        let now = app.store.now();
        app.metrics.decided(DecisionKind::Check, &decision);
        keep(None, &decision, now);
        let view = DecisionView::new(&decision, caller.tenant_id, name, now);
        return Ok((view, HeaderMap::new()));
    };
    let (account, now) = (&snapshot.account, snapshot.now);
    let decided = snapshot
        .limits
        .in_force(caller.tenant_id, &subject.as_subject())
        .and_then(|limits| decide(account, &limits, estimate, now));
    let decision = decided.map_err(|_| ApiError::of(ErrorCode::Unavailable))?;
    app.metrics.decided(DecisionKind::Check, &decision);
    if decision.verdict != Verdict::Allowed {
        keep(asked, &decision, now);
    }
    let mut headers = rate_limit_headers(account, &decision, now);
    if let Some(seconds) = retry_after(&decision) {
        headers.insert(header::RETRY_AFTER, seconds);
    }
    Ok((DecisionView::new(&decision, caller.tenant_id, name, now), headers))
}

pub(crate) fn routes() -> Routes {
    Routes::new()
        .add(Rule::of(ASK).traffic(), routes!(check_call))
        .add(Rule::of(ASK).traffic(), routes!(check_calls))
        .add(Rule::of(ASK), routes!(get_status))
}
