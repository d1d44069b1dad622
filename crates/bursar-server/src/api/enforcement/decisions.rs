//! Recent decisions other than "allowed", so that a client can find out why a call was refused.

use axum::extract::State;
use bursar_core::{DecisionId, ReasonCode, Verdict};
use bursar_store::{DecisionFilter, DecisionRow};
use serde::Serialize;
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use crate::api::enforcement::decision_view::ReasonView;
use crate::api::route::{Routes, Rule};
use crate::app::App;
use crate::auth::access::ASK;
use crate::auth::authorize::Authorized;
use crate::http::answer_memory::StoreReader;
use crate::wire::enums;
use crate::wire::envelope::{Answer, ListMeta};
use crate::wire::error::ApiError;
use crate::wire::error_code::ErrorCode;
use crate::wire::format::{cents, usd};
use crate::wire::params::Query;
use crate::wire::period::{instant_params, read_instants};
use crate::wire::scalars;
use crate::wire::scalars::{BoundedInteger, Id, Instant, Usd};
use crate::wire::schema::query;
use crate::wire::timestamps;

const LIMIT_DEFAULT: u32 = 20;
const LIMIT_MAX: u32 = 100;

/// A decision, or several equal decisions within one minute.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct KeptDecisionView {
    #[schema(value_type = Id)]
    id: String,
    /// The kind of request.
    #[schema(value_type = enums::DecisionKind)]
    kind: &'static str,
    /// Null when the tenant has no such integration.
    #[schema(value_type = Option<Id>, required)]
    integration_id: Option<String>,
    /// The call of a reservation; null for a check.
    #[schema(value_type = Option<scalars::CallId>, required)]
    call_id: Option<String>,
    #[schema(value_type = enums::KeptVerdict)]
    result: &'static str,
    reasons: Vec<ReasonView>,
    #[schema(value_type = i64)]
    estimated_cost_cents: i128,
    #[schema(value_type = Usd)]
    estimated_cost_usd: String,
    estimated_tokens: i64,
    /// How often the decision was made.
    count: i64,
    #[schema(value_type = Instant)]
    first_at: String,
    #[schema(value_type = Instant)]
    last_at: String,
}

impl From<DecisionRow> for KeptDecisionView {
    fn from(row: DecisionRow) -> Self {
        let DecisionRow {
            tenant_id: _,
            decision_id,
            kind,
            integration_id,
            decision,
            call_id,
            estimate,
            times,
            first_at,
            last_at,
        } = row;
        let cost = i128::from(estimate.cost.get());
        Self {
            id: decision_id.to_string(),
            kind: kind.as_str(),
            integration_id: integration_id.map(|id| id.to_string()),
            call_id,
            result: decision.verdict.as_str(),
            reasons: decision.reasons.iter().map(ReasonView::from).collect(),
            estimated_cost_cents: cents(cost),
            estimated_cost_usd: usd(cost),
            estimated_tokens: estimate.tokens,
            count: times,
            first_at: timestamps::text(first_at),
            last_at: timestamps::text(last_at),
        }
    }
}

/// The filters and page of the list, for the OpenAPI document.
struct DecisionParams;

impl IntoParams for DecisionParams {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let own = [
            query::<Id>("integration_id", "Only decisions about this integration."),
            query::<String>("call_id", "Only decisions about this call."),
            query::<enums::KeptVerdict>("result", "Only entries with this result."),
            query::<enums::ReasonCode>("reason", "Only entries with this reason."),
            query::<BoundedInteger<1, LIMIT_MAX, LIMIT_DEFAULT>>(
                "limit",
                "The maximum number of rows on a page.",
            ),
            query::<String>("cursor", "The `next_cursor` of an earlier page."),
        ];
        own.into_iter().chain(instant_params()).collect()
    }
}

/// Lists decisions that refused or warned, newest first
///
/// This is a log for diagnosis and not part of the ledger. A decision appears within about a
/// second. Bursar keeps the newest 10,000 rows of a tenant. Equal checks within a minute share one
/// row.
#[utoipa::path(
    get,
    path = "/api/v1/enforcement/decisions",
    tag = "enforcement",
    params(DecisionParams),
    responses((status = 200, body = [KeptDecisionView], description = "A page of decisions.")),
    extensions(("x-refuses" = json!([ErrorCode::IntegrationNotFound]))),
)]
pub(crate) async fn list_decisions(
    State(app): State<App>,
    caller: Authorized,
    reader: StoreReader,
    mut query: Query,
) -> Result<Answer<Vec<KeptDecisionView>>, ApiError> {
    let limit = query.integer("limit", 1..=LIMIT_MAX)?.unwrap_or(LIMIT_DEFAULT);
    let before = query.read("cursor", |text| {
        DecisionId::parse(text).map_err(|_| "must be the next_cursor of an earlier page")
    })?;
    let verdict = query.read("result", |text| {
        let kept = Verdict::ALL.into_iter().filter(|verdict| *verdict != Verdict::Allowed);
        let mut named = kept.filter(|verdict| verdict.as_str() == text);
        named.next().ok_or("must be warned, throttled, blocked or hard_blocked")
    })?;
    let code = query.read("reason", |text| {
        let mut named = ReasonCode::ALL.into_iter().filter(|code| code.as_str() == text);
        named.next().ok_or("must be the code of a reason, such as budget_exceeded")
    })?;
    let named = query.integration()?;
    let call_id = query.text("call_id");
    let (start, end) = read_instants(&mut query)?;
    query.done()?;
    caller.check_integration(app.store.as_ref(), named).await?;
    let integration_id = named.or(caller.restricted_to);
    let filter = DecisionFilter { integration_id, call_id, verdict, code, start, end, before };
    // One row more than requested tells whether there is another page.
    let mut rows = reader.decisions(caller.tenant_id, filter, limit + 1).await?;
    let has_more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next_cursor = rows.last().filter(|_| has_more).map(|row| row.decision_id.to_string());
    let meta = ListMeta { total: None, page: 1, page_size: limit, has_more, next_cursor };
    Ok(Answer::list(rows.into_iter().map(KeptDecisionView::from).collect(), meta))
}

pub(crate) fn routes() -> Routes {
    Routes::new().add(Rule::of(ASK), routes!(list_decisions))
}
