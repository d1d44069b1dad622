//! Whether the server lives and can do its work, for whoever starts and watches it. Open to all:
//! the answers tell nothing about anyone.

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

/// How the server is.
#[derive(Debug, Serialize, ToSchema)]
pub struct ServerHealth {
    #[schema(value_type = enums::ServerState)]
    status: &'static str,
}

/// Tells that the process answers
#[utoipa::path(
    get,
    path = "/health/live",
    tag = "server",
    responses((status = 200, body = ServerHealth, description = "It lives.")),
)]
pub async fn get_live() -> Answer<ServerHealth> {
    Answer::ok(ServerHealth { status: enums::LIVE })
}

/// Tells whether the store can be read and takes writes
///
/// `/health` and `/health/ready` are the same.
#[utoipa::path(
    get,
    path = "/health",
    tag = "server",
    responses((status = 200, body = ServerHealth, description = "It can do its work.")),
    extensions(("x-refuses" = json!([ErrorCode::Internal, ErrorCode::Unavailable]))),
)]
pub async fn get_health(app: State<App>) -> Result<Answer<ServerHealth>, ApiError> {
    get_ready(app).await
}

/// Tells whether the store can be read and takes writes
///
/// `/health` and `/health/ready` are the same.
#[utoipa::path(
    get,
    path = "/health/ready",
    tag = "server",
    responses((status = 200, body = ServerHealth, description = "It can do its work.")),
    extensions(("x-refuses" = json!([ErrorCode::Internal, ErrorCode::Unavailable]))),
)]
pub async fn get_ready(State(app): State<App>) -> Result<Answer<ServerHealth>, ApiError> {
    if app.ledger.has_ended() {
        return Err(ApiError::new(ErrorCode::Unavailable, "The server is stopping."));
    }
    // Asked first: the database's own reason is more precise than that a write failed.
    database_probe::probe(&app.store).await?;
    app.ledger.check_writable()?;
    // Requests are refused until the database was asked in its turn.
    if app.database_probe.as_ref().is_some_and(DatabaseProbe::is_unavailable) {
        return Err(ApiError::of(ErrorCode::Unavailable));
    }
    Ok(Answer::ok(ServerHealth { status: enums::READY }))
}

/// The routes of this file, each with its rule.
pub fn routes() -> Routes {
    Routes::new()
        .add(Rule::open(Audience::Everyone), routes!(get_health))
        .add(Rule::open(Audience::Everyone), routes!(get_live))
        .add(Rule::open(Audience::Everyone), routes!(get_ready))
}
