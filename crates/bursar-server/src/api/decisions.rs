//! Why was my call not admitted? The latest decisions other than "allowed".

use axum::extract::State;
use bursar_core::{DecisionId, ReasonCode, Verdict};
use bursar_store::{DecisionFilter, DecisionRow};
use serde::Serialize;

use crate::app::App;
use crate::auth::{Authorized, EnforcementCheck};
use crate::decision_view::ReasonView;
use crate::envelope::{Answer, ListMeta};
use crate::error::ApiError;
use crate::figures::{cents, usd};
use crate::instant;
use crate::params::Query;
use crate::period::read_instants;

const LIMIT_DEFAULT: u32 = 20;
const LIMIT_MAX: u32 = 100;

/// A decision that was given once, or again and again within a minute.
#[derive(Debug, Serialize)]
pub struct KeptDecisionView {
    id: String,
    kind: &'static str,
    integration_id: Option<String>,
    call_id: Option<String>,
    result: &'static str,
    reasons: Vec<ReasonView>,
    estimated_cost_cents: i64,
    estimated_cost_usd: String,
    estimated_tokens: i64,
    count: i64,
    first_at: String,
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
            first_at: instant::text(first_at),
            last_at: instant::text(last_at),
        }
    }
}

/// `GET /api/v1/enforcement/decisions`
pub async fn list_decisions(
    State(app): State<App>,
    caller: Authorized<EnforcementCheck>,
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
        named.next().ok_or("must be the code of a reason, like budget_exceeded")
    })?;
    let named = query.integration()?;
    let call_id = query.text("call_id");
    let (start, end) = read_instants(&mut query)?;
    query.done()?;
    caller.known_integration(&app, named).await?;
    let integration_id = named.or(caller.only);
    let filter = DecisionFilter { integration_id, call_id, verdict, code, start, end, before };
    // One more than asked for tells whether there is more.
    let mut rows = app.store.decisions(caller.tenant_id, filter, limit + 1).await?;
    let has_more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next_cursor = rows.last().filter(|_| has_more).map(|row| row.decision_id.to_string());
    let meta = ListMeta { total: None, page: 1, page_size: limit, has_more, next_cursor };
    Ok(Answer::list(rows.into_iter().map(KeptDecisionView::from).collect(), meta))
}
