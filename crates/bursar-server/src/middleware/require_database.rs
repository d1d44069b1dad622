//! Keeps requests from a database that is away: what would ask it is answered 503 at once, and what
//! already waits when it goes is answered then.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::app::App;
use crate::wire::error::ApiError;
use crate::wire::error_code::ErrorCode;

/// That an answer says only that the database is away; an extension of such answers.
#[derive(Clone, Copy, Debug)]
pub struct DatabaseUnavailable;

/// Answers a request, or that the database is away, whichever is known first.
pub async fn require_database(State(app): State<App>, request: Request, next: Next) -> Response {
    let Some(database_probe) = &app.database_probe else { return next.run(request).await };
    tokio::select! {
        biased;
        () = database_probe.unavailable() => {
            let mut response = ApiError::of(ErrorCode::Unavailable).into_response();
            response.extensions_mut().insert(DatabaseUnavailable);
            response
        }
        answer = next.run(request) => answer,
    }
}
