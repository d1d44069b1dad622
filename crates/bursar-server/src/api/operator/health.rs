//! Health checks for load balancers and supervisors. They are public and say nothing about any
//! tenant.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::routes;

use crate::api::route::{Audience, Routes, Rule};
use crate::app::App;
use crate::jobs::database_probe;
use crate::jobs::database_probe::DatabaseProbe;
use crate::wire::enums;
use crate::wire::envelope::Answer;
use crate::wire::error::ApiError;
use crate::wire::error_code::ErrorCode;

/// The state of the server.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ServerHealth {
    #[schema(value_type = enums::ServerState)]
    status: &'static str,
}

/// Reports that the process answers
#[utoipa::path(
    get,
    path = "/health/live",
    tag = "server",
    responses((status = 200, body = ServerHealth, description = "The process answers.")),
)]
pub(crate) async fn get_live() -> Answer<ServerHealth> {
    Answer::ok(ServerHealth { status: enums::LIVE })
}

/// Reports whether the store can be read and written
///
/// `/health` and `/health/ready` are equivalent.
#[utoipa::path(
    get,
    path = "/health",
    tag = "server",
    responses((
        status = 200,
        body = ServerHealth,
        description = "The database can be read and written.",
    )),
    extensions(("x-refuses" = json!([ErrorCode::Internal, ErrorCode::Unavailable]))),
)]
pub(crate) async fn get_health(app: State<App>) -> Result<Answer<ServerHealth>, ApiError> {
    get_ready(app).await
}

/// Reports whether the store can be read and written
///
/// `/health` and `/health/ready` are equivalent.
#[utoipa::path(
    get,
    path = "/health/ready",
    tag = "server",
    responses((
        status = 200,
        body = ServerHealth,
        description = "The database can be read and written.",
    )),
    extensions(("x-refuses" = json!([ErrorCode::Internal, ErrorCode::Unavailable]))),
)]
pub(crate) async fn get_ready(State(app): State<App>) -> Result<Answer<ServerHealth>, ApiError> {
    if app.ledger.has_ended() {
        return Err(ApiError::new(ErrorCode::Unavailable, "The server is stopping."));
    }
    // The probe comes first: its reason is more precise than that of a failed write.
    database_probe::probe(&app.store).await?;
    app.ledger.check_writable()?;
    // Requests are refused until the periodic probe has succeeded.
    if app.database_probe.as_ref().is_some_and(DatabaseProbe::is_unavailable) {
        return Err(ApiError::of(ErrorCode::Unavailable));
    }
    Ok(Answer::ok(ServerHealth { status: enums::READY }))
}

pub(crate) fn routes() -> Routes {
    Routes::new()
        .add(Rule::open(Audience::Everyone), routes!(get_health))
        .add(Rule::open(Audience::Everyone), routes!(get_live))
        .add(Rule::open(Audience::Everyone), routes!(get_ready))
}
