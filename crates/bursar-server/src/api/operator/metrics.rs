//! The metrics in the Prometheus text format.

use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use utoipa_axum::routes;

use crate::api::route::{Audience, Routes, Rule};
use crate::app::App;
use crate::auth::authorize::Scraper;
use crate::jobs::background::TaskFailed;
use crate::wire::error::ApiError;
use crate::wire::error_code::ErrorCode;

/// The content type of the Prometheus text format.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Returns the metrics
///
/// In the Prometheus text format. If the operator's routes have their own listener, the metrics are
/// available there only, and without a credential.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "server",
    responses(
        (status = 200, body = String, content_type = "text/plain", description = "The metrics."),
    ),
)]
pub(crate) async fn get_metrics(State(app): State<App>, _: Scraper) -> Result<Response, ApiError> {
    let turn = app.metrics.turn().await.map_err(|error| unreadable(&error))?;
    let waiting = app.ledger.waiting();
    let clock = app.store.clock();
    let render = move || app.metrics.render(turn, waiting, &clock);
    let rendered = tokio::task::spawn_blocking(render).await;
    match rendered {
        Ok(Ok(text)) => {
            let headers =
                [(header::CONTENT_TYPE, TEXT_FORMAT), (header::CACHE_CONTROL, "no-store")];
            Ok((headers, Body::from_stream(stream::iter(text))).into_response())
        }
        Ok(Err(error)) => Err(unreadable(&error)),
        Err(error) => Err(unreadable(&TaskFailed::from(error))),
    }
}

fn unreadable(error: &(dyn std::error::Error + 'static)) -> ApiError {
    tracing::error!(error, "the metrics cannot be written");
    ApiError::of(ErrorCode::Internal)
}

pub(crate) fn routes() -> Routes {
    Routes::new().add(Rule::open(Audience::Scraper), routes!(get_metrics))
}
