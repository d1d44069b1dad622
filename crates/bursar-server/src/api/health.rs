//! Whether the server lives and can do its work, for whoever starts and watches it. Open to all:
//! the answers tell nothing about anyone.

use axum::extract::State;
use bursar_store::Page;
use serde::Serialize;

use crate::app::App;
use crate::envelope::Answer;
use crate::error::{ApiError, ErrorCode};

/// How the server is.
#[derive(Debug, Serialize)]
pub struct ServerHealth {
    status: &'static str,
}

/// `GET /health/live`: the process answers.
pub async fn get_live() -> Answer<ServerHealth> {
    Answer::ok(ServerHealth { status: "live" })
}

/// `GET /health` and `GET /health/ready`: the store can be read, and its writer is there.
pub async fn get_ready(State(app): State<App>) -> Result<Answer<ServerHealth>, ApiError> {
    if app.ledger.has_ended() {
        return Err(ApiError::new(ErrorCode::Unavailable, "The server is stopping."));
    }
    app.store.tenants(Page { offset: 0, limit: 1 }).await?;
    Ok(Answer::ok(ServerHealth { status: "ready" }))
}
