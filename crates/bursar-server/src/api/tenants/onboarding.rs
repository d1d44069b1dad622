//! The end of a tenant's onboarding.

use axum::extract::State;
use bursar_store::{Control, ControlTx};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::routes;

use crate::api::route::{Routes, Rule};
use crate::app::App;
use crate::auth::access::ADMIN;
use crate::auth::authorize::Authorized;
use crate::wire::enums;
use crate::wire::envelope::Answer;
use crate::wire::error::ApiError;
use crate::wire::error_code::ErrorCode;
use crate::wire::scalars::Id;

/// The onboarding state of a tenant.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OnboardingView {
    #[schema(value_type = Id)]
    tenant_id: String,
    #[schema(value_type = enums::OnboardingState)]
    onboarding_state: &'static str,
}

/// Completes the onboarding
///
/// Works after the first call with a key. The first accepted usage record completes the onboarding
/// as well. Repeating the request changes nothing.
#[utoipa::path(
    post,
    path = "/api/v1/onboarding/finalize",
    tag = "session",
    responses((status = 200, body = OnboardingView, description = "The onboarding is complete.")),
    extensions(("x-refuses" = json!([ErrorCode::TenantSuspended, ErrorCode::InvalidState]))),
)]
pub(crate) async fn finalize_onboarding(
    State(app): State<App>,
    caller: Authorized,
) -> Result<Answer<OnboardingView>, ApiError> {
    let tenant_id = caller.tenant_id;
    let change = move |tx: &mut dyn ControlTx| {
        Control::new(tx, &caller.actor, tenant_id).finalize_onboarding()
    };
    let row = app.ledger.change(tenant_id, change).await??;
    app.key_cache.forget(tenant_id);
    let onboarding_state = row.onboarding.as_str();
    Ok(Answer::ok(OnboardingView { tenant_id: tenant_id.to_string(), onboarding_state }))
}

pub(crate) fn routes() -> Routes {
    Routes::new().add(Rule::of(ADMIN).exempt(), routes!(finalize_onboarding))
}
