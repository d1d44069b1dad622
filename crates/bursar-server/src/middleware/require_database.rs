//! Answers 503 while the database is unavailable, to new requests and to those that wait for it.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::app::App;
use crate::wire::error::ApiError;
use crate::wire::error_code::ErrorCode;

/// Marks a response that only says the database is unavailable.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DatabaseUnavailable;

/// Runs a request until it is answered or the database becomes unavailable.
pub(crate) async fn require_database(
    State(app): State<App>,
    request: Request,
    next: Next,
) -> Response {
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
