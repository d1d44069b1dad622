//! Reservations: hold the expected cost of a call before it is made.

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use bursar_core::{
    CallId, Decision, Estimate, ExtendOutcome, IntegrationId, ReasonCode, ReleaseOutcome,
    Reservation, ReservationCap, ReservationState, ReserveOutcome, ReserveRefusal, ReserveRequest,
    TenantId, Verdict,
};
use bursar_store::{AccountSnapshot, DecisionKind};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa_axum::routes;

use crate::api::enforcement::decision_view::{DecisionView, rate_limit_headers, retry_after};
use crate::api::enforcement::estimate::{asked_integration, check_estimate};
use crate::api::route::{Routes, Rule};
use crate::app::App;
use crate::auth::access::{ASK, RESERVE};
use crate::auth::authorize::Authorized;
use crate::http::answer_memory::StoreReader;
use crate::jobs::decision_log::DecisionNote;
use crate::wire::body::{SMALL, Text, parse};
use crate::wire::enums;
use crate::wire::envelope::Answer;
use crate::wire::error::ApiError;
use crate::wire::error_code::ErrorCode;
use crate::wire::format::{cents, usd};
use crate::wire::label::clean_label;
use crate::wire::params::{PageParams, Path, Query, list_meta};
use crate::wire::scalars;
use crate::wire::scalars::{AmountCents, Id, Instant, Label, TokenCount, Usd};
use crate::wire::schema::EXAMPLE_ID;
use crate::wire::text::{check_text, refuse_key};
use crate::wire::timestamps;

/// A request to reserve the cost of a call.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ReservationCreate<'a> {
    /// Required unless the caller uses an integration key.
    #[schema(value_type = Option<Id>)]
    integration_id: Option<String>,
    #[schema(value_type = scalars::CallId)]
    call_id: Box<str>,
    /// Must be above 0 when the integration has a budget.
    #[schema(value_type = Option<AmountCents>)]
    #[serde(borrow, default)]
    estimated_cost_cents: Option<&'a RawValue>,
    /// Must be above 0 when the integration has a token limit.
    #[schema(value_type = Option<TokenCount>)]
    #[serde(borrow, default)]
    estimated_tokens: Option<&'a RawValue>,
    /// The model that will be called; used for pricing only.
    #[schema(value_type = Option<Label>)]
    model: Option<Box<str>>,
    /// How long to hold the reservation.
    #[schema(minimum = 1, maximum = 86400, default = 600)]
    #[serde(default)]
    ttl_seconds: Option<i64>,
}

/// A reservation request that was validated.
struct ValidReservation {
    /// `None` when the integration cannot be the caller's.
    asked: Option<IntegrationId>,
    /// The integration as the request names it.
    name: String,
    call_id: CallId,
    estimate: Estimate,
    model: Option<Box<str>>,
    ttl_seconds: u32,
}

/// How long to extend a reservation. The body is optional.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ReservationExtend {
    /// Seconds from now. Defaults to the lifetime that the reservation was created with.
    #[schema(minimum = 1, maximum = 86400)]
    #[serde(default)]
    ttl_seconds: Option<i64>,
}

/// The decision about a reservation, and what is held.
#[derive(Debug, Serialize, ToSchema)]
struct ReserveView {
    #[serde(flatten)]
    decision: DecisionView,
    #[schema(value_type = HeldView, required = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    reservation: Option<HeldView>,
}

/// What a reservation holds.
#[derive(Debug, Serialize, ToSchema)]
struct HeldView {
    #[schema(value_type = scalars::CallId)]
    call_id: String,
    #[schema(value_type = Instant)]
    expires_at: String,
    #[schema(value_type = i64)]
    held_cost_cents: i128,
    #[schema(value_type = Usd)]
    held_cost_usd: String,
    held_tokens: i64,
}

/// A reservation in full.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReservationView {
    #[schema(value_type = scalars::CallId)]
    call_id: String,
    #[schema(value_type = Id)]
    integration_id: String,
    #[schema(value_type = enums::ReservationState)]
    status: &'static str,
    #[schema(value_type = i64)]
    held_cost_cents: i128,
    #[schema(value_type = Usd)]
    held_cost_usd: String,
    held_tokens: i64,
    #[schema(required)]
    model: Option<String>,
    ttl_seconds: u32,
    #[schema(value_type = Instant)]
    created_at: String,
    #[schema(value_type = Instant)]
    expires_at: String,
    #[schema(value_type = Option<Instant>, required)]
    ended_at: Option<String>,
}

impl From<&Reservation> for HeldView {
    fn from(reservation: &Reservation) -> Self {
        let cost = i128::from(reservation.request.estimate.cost.get());
        Self {
            call_id: reservation.request.call_id.as_str().to_owned(),
            expires_at: timestamps::text(reservation.expires_at),
            held_cost_cents: cents(cost),
            held_cost_usd: usd(cost),
            held_tokens: reservation.request.estimate.tokens,
        }
    }
}

impl From<Reservation> for ReservationView {
    fn from(reservation: Reservation) -> Self {
        let Reservation { request, created_at, expires_at, state, ended_at, .. } = reservation;
        let cost = i128::from(request.estimate.cost.get());
        Self {
            call_id: request.call_id.as_str().to_owned(),
            integration_id: request.integration_id.to_string(),
            status: enums::reservation_state_name(state),
            held_cost_cents: cents(cost),
            held_cost_usd: usd(cost),
            held_tokens: request.estimate.tokens,
            model: request.model.map(String::from),
            ttl_seconds: request.ttl_seconds,
            created_at: timestamps::text(created_at),
            expires_at: timestamps::text(expires_at),
            ended_at: ended_at.map(timestamps::text),
        }
    }
}

/// Reserves the expected cost of a call
///
/// The usage record with the same call id settles the reservation. Under a limit, the estimate of
/// what is limited must be positive. A repeated request returns the first answer while the
/// reservation is open. If the tenant, the integration or its credential was switched off
/// meanwhile, a repeated request is refused, and the hold stays.
#[utoipa::path(
    post,
    path = "/api/v1/enforcement/reservations",
    tag = "enforcement",
    request_body(
        content = ReservationCreate,
        example = json!({
            "integration_id": EXAMPLE_ID,
            "call_id": "call-1",
            "estimated_cost_cents": 2,
            "estimated_tokens": 1500,
        }),
    ),
    responses(
        (
            status = 200,
            body = ReserveView,
            description = "The decision that refuses the call. Nothing is held.",
            headers(
                (
                    "RateLimit-Policy" = String,
                    description = "The limits, in the format of the IETF draft."
                ),
                ("RateLimit" = String, description = "What is left of the limits."),
                ("Retry-After" = u32, description = "Seconds to wait. Only with `throttled`."),
            ),
        ),
        (
            status = 201,
            body = ReserveView,
            description = "The decision that admits the call, and what is held.",
            headers(
                (
                    "RateLimit-Policy" = String,
                    description = "The limits, in the format of the IETF draft."
                ),
                ("RateLimit" = String, description = "What is left of the limits."),
            ),
            links(
                ("release" = (
                    operation_id = "release_reservation",
                    parameters(("call_id" = "$response.body#/data/reservation/call_id")),
                )),
                ("extend" = (
                    operation_id = "extend_reservation",
                    parameters(("call_id" = "$response.body#/data/reservation/call_id")),
                )),
            ),
        ),
    ),
    extensions(("x-refuses" = json!([
        ErrorCode::CallIdConflict,
        ErrorCode::TooManyReservations,
        ErrorCode::ReservationEnded,
        ErrorCode::UnknownField,
        ErrorCode::SecretRefused,
        ErrorCode::EstimateRequired,
        ErrorCode::TotalsOverflow,
    ]))),
)]
pub(crate) async fn create_reservation(
    State(app): State<App>,
    caller: Authorized,
    body: Text<SMALL>,
) -> Result<Response, ApiError> {
    let restricted_to = caller.restricted_to;
    let wanted = body.read(move |text| read_create(text, restricted_to)).await?;
    let ValidReservation { asked, name, call_id, estimate, model, ttl_seconds } = wanted;
    let tenant_id = caller.tenant_id;
    let named_call = call_id.as_str().to_owned();
    let note = |integration_id, decision: &Decision, at| DecisionNote {
        tenant_id,
        kind: DecisionKind::Reservation,
        integration_id,
        decision: decision.clone(),
        call_id: Some(named_call),
        estimate,
        at,
    };
    let Some(integration_id) = asked else {
        app.store.check_clock()?;
        let decision = Decision::hard_blocked(caller.unknown_integration());
        app.metrics.decided(DecisionKind::Reservation, &decision);
        let now = app.store.now();
        app.decision_log.note(note(None, &decision, now));
        let decision = DecisionView::new(&decision, tenant_id, name, now);
        return Ok(Answer::ok(ReserveView { decision, reservation: None }).into_response());
    };
    let request = ReserveRequest {
        model,
        ttl_seconds,
        account_key_id: caller.key.map(|key| key.account_key_id),
        ..ReserveRequest::new(integration_id, call_id, estimate)
    };
    let (outcome, snapshot) = app.ledger.reserve_with_snapshot(tenant_id, request).await?;
    match outcome {
        ReserveOutcome::Held(held) => {
            app.metrics.decided(DecisionKind::Reservation, &held.decision);
            if held.decision.verdict != Verdict::Allowed {
                let at = held.created_at;
                app.decision_log.note(note(Some(integration_id), &held.decision, at));
            }
            Ok(held_answer(tenant_id, &held, snapshot.as_ref()))
        }
        ReserveOutcome::Replayed(held) => Ok(held_answer(tenant_id, &held, snapshot.as_ref())),
        ReserveOutcome::Refused(refusal) => {
            let unknown = refusal == Decision::hard_blocked(ReasonCode::IntegrationNotFound);
            let refusal = if unknown {
                Decision::hard_blocked(caller.unknown_integration())
            } else {
                refusal
            };
            let now = app.store.now();
            app.metrics.decided(DecisionKind::Reservation, &refusal);
            app.decision_log.note(note((!unknown).then_some(integration_id), &refusal, now));
            let headers = decision_headers(snapshot.as_ref(), &refusal);
            let id = integration_id.to_string();
            let decision = DecisionView::new(&refusal, tenant_id, id, now);
            let view = ReserveView { decision, reservation: None };
            Ok(Answer::ok(view).with_headers(headers).into_response())
        }
        ReserveOutcome::Rejected(refusal) => Err(rejected(refusal)),
    }
}

fn read_create(
    text: &str,
    restricted_to: Option<IntegrationId>,
) -> Result<ValidReservation, ApiError> {
    let create: ReservationCreate<'_> = parse(text)?;
    let estimate = check_estimate(create.estimated_cost_cents, create.estimated_tokens)?;
    let model = create.model.map(clean_label).filter(|model| !model.is_empty());
    if let Some(model) = &model {
        check_text("model", model, 256)?;
    }
    let ttl_default = i64::from(ReserveRequest::TTL_SECONDS_DEFAULT);
    let ttl_seconds = ReserveRequest::check_ttl(create.ttl_seconds.unwrap_or(ttl_default))?;
    refuse_key("call_id", &create.call_id)?;
    let call_id = CallId::new(create.call_id)?;
    let asked = asked_integration(create.integration_id.as_deref(), restricted_to)?;
    let name = create.integration_id.unwrap_or_default();
    Ok(ValidReservation { asked, name, call_id, estimate, model, ttl_seconds })
}

fn held_answer(
    tenant_id: TenantId,
    held: &Reservation,
    snapshot: Option<&AccountSnapshot>,
) -> Response {
    let headers = decision_headers(snapshot, &held.decision);
    let id = held.request.integration_id.to_string();
    let decision = DecisionView::new(&held.decision, tenant_id, id, held.created_at);
    let view = ReserveView { decision, reservation: Some(HeldView::from(held)) };
    Answer::created(view).with_headers(headers).into_response()
}

/// Releases a reservation
///
/// Releasing a reservation that is released or expired returns the same answer.
#[utoipa::path(
    delete,
    path = "/api/v1/enforcement/reservations/{call_id}",
    tag = "enforcement",
    params(("call_id" = scalars::CallId, Path, description = "The call.")),
    responses((status = 200, body = ReservationView, description = "The released reservation.")),
    extensions(("x-refuses" = json!([
        ErrorCode::ReservationNotFound,
        ErrorCode::ReservationEnded,
    ]))),
)]
pub(crate) async fn release_reservation(
    State(app): State<App>,
    caller: Authorized,
    Path(call_id): Path<String>,
) -> Result<Answer<ReservationView>, ApiError> {
    let call_id = path_call_id(call_id)?;
    match app.ledger.release(caller.tenant_id, call_id, caller.restricted_to).await? {
        // An expired reservation holds nothing, which is what the caller wants.
        ReleaseOutcome::Released(ended) | ReleaseOutcome::Expired(ended) => {
            Ok(Answer::ok(ended.into()))
        }
        ReleaseOutcome::NotFound => Err(ApiError::of(ErrorCode::ReservationNotFound)),
        ReleaseOutcome::Settled => Err(ended(ReservationState::Settled)),
    }
}

/// Extends an open reservation
///
/// The new lifetime starts now. It is as long as the original one unless the request names another,
/// and it never ends earlier than before. An extension admits no call: it also works when the
/// integration is disabled or deleted, but not when the tenant is suspended.
#[utoipa::path(
    post,
    path = "/api/v1/enforcement/reservations/{call_id}/extend",
    tag = "enforcement",
    params(("call_id" = scalars::CallId, Path, description = "The call.")),
    request_body(content = Option<ReservationExtend>, example = json!({ "ttl_seconds": 600 })),
    responses((status = 200, body = ReservationView, description = "The extended reservation.")),
    extensions(("x-refuses" = json!([
        ErrorCode::ReservationNotFound,
        ErrorCode::ReservationEnded,
        ErrorCode::TenantSuspended,
        ErrorCode::UnknownField,
    ]))),
)]
pub(crate) async fn extend_reservation(
    State(app): State<App>,
    caller: Authorized,
    Path(call_id): Path<String>,
    body: Text<SMALL>,
) -> Result<Answer<ReservationView>, ApiError> {
    let call_id = path_call_id(call_id)?;
    caller.require_active()?;
    let extend: ReservationExtend = body.read_optional().await?;
    let ttl_seconds = extend.ttl_seconds.map(ReserveRequest::check_ttl).transpose()?;
    match app.ledger.extend(caller.tenant_id, call_id, caller.restricted_to, ttl_seconds).await? {
        ExtendOutcome::Extended(reservation) => Ok(Answer::ok((*reservation).into())),
        ExtendOutcome::NotFound => Err(ApiError::of(ErrorCode::ReservationNotFound)),
        ExtendOutcome::Ended(state) => Err(ended(state)),
        ExtendOutcome::TenantNotActive => Err(ApiError::of(ErrorCode::TenantSuspended)),
    }
}

/// Lists the open reservations
#[utoipa::path(
    get,
    path = "/api/v1/enforcement/reservations",
    tag = "enforcement",
    params(
        PageParams,
        ("integration_id" = Option<Id>, Query, description = "Only entries of this integration."),
    ),
    responses((status = 200, body = [ReservationView], description = "A page of reservations.")),
    extensions(("x-refuses" = json!([ErrorCode::IntegrationNotFound]))),
)]
pub(crate) async fn list_reservations(
    State(app): State<App>,
    caller: Authorized,
    reader: StoreReader,
    mut query: Query,
) -> Result<Answer<Vec<ReservationView>>, ApiError> {
    let page = query.page()?;
    let named = query.integration()?;
    query.done()?;
    caller.check_integration(app.store.as_ref(), named).await?;
    let integration_id = named.or(caller.restricted_to);
    let found = reader.open_reservations(caller.tenant_id, integration_id, page).await?;
    let meta = list_meta(page, found.rows.len(), found.total);
    let views = found.rows.into_iter().map(|open| ReservationView::from(open.reservation));
    Ok(Answer::list(views.collect(), meta))
}

fn path_call_id(call_id: String) -> Result<CallId, ApiError> {
    CallId::new(call_id).map_err(|_| ApiError::of(ErrorCode::ReservationNotFound))
}

/// The rate limit headers after the decision.
fn decision_headers(snapshot: Option<&AccountSnapshot>, decision: &Decision) -> HeaderMap {
    let mut headers = snapshot.map_or_else(HeaderMap::new, |snapshot| {
        rate_limit_headers(&snapshot.account, decision, snapshot.now)
    });
    if let Some(seconds) = retry_after(decision) {
        headers.insert(header::RETRY_AFTER, seconds);
    }
    headers
}

fn ended(state: ReservationState) -> ApiError {
    let message =
        format!("The reservation is {} and cannot change.", enums::reservation_state_name(state));
    ApiError::new(ErrorCode::ReservationEnded, message)
}

fn rejected(refusal: ReserveRefusal) -> ApiError {
    let required = |field: &str, limit: &str| {
        let problem = format!("must be above 0: a {limit} limit applies to the call");
        ApiError::of(ErrorCode::EstimateRequired).on(field, &problem)
    };
    match refusal {
        ReserveRefusal::CallRecorded => {
            ApiError::new(ErrorCode::ReservationEnded, "The call is already recorded.")
        }
        ReserveRefusal::CallEnded(state) => ended(state),
        ReserveRefusal::OtherContent => {
            ApiError::of(ErrorCode::CallIdConflict).on("call_id", "is reserved with other content")
        }
        ReserveRefusal::CostEstimateRequired => required("estimated_cost_cents", "cost"),
        ReserveRefusal::TokenEstimateRequired => required("estimated_tokens", "token"),
        ReserveRefusal::TotalsOverflow => ApiError::of(ErrorCode::TotalsOverflow),
        ReserveRefusal::TooManyOpen(bound) => {
            let (of, allowed) = match bound {
                ReservationCap::Integration(allowed) => ("integration", allowed),
                ReservationCap::Tenant(allowed) => ("tenant", allowed),
            };
            let message = format!(
                "The {of} has {allowed} open reservations, the maximum. Record or release calls \
                 that have ended, or use a shorter ttl_seconds."
            );
            ApiError::new(ErrorCode::TooManyReservations, message)
        }
    }
}

pub(crate) fn routes() -> Routes {
    Routes::new()
        .add(Rule::of(RESERVE).traffic(), routes!(create_reservation))
        .add(Rule::of(ASK), routes!(list_reservations))
        .add(Rule::of(RESERVE).traffic().never_refused(), routes!(release_reservation))
        .add(Rule::of(RESERVE).traffic(), routes!(extend_reservation))
}
