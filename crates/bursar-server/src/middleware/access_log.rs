//! The trace, the metrics and the log line of every request.
//!
//! Deliberately absent: paths, queries, headers and bodies. A route is named by its template.

use axum::http::{Method, StatusCode};
use axum::response::Response;

use crate::middleware::require_database::DatabaseUnavailable;
use crate::observe::metrics::Metrics;
use crate::observe::trace;
use crate::observe::trace::TraceContext;
use crate::wire::error_code::ErrorCode;

/// The log target.
const TARGET: &str = "bursar::http";

/// Answers a request within its trace, counts it and logs it.
pub(crate) async fn log_request(
    metrics: &Metrics,
    trace: TraceContext,
    route: &str,
    method: &Method,
    answer: impl Future<Output = Response>,
) -> Response {
    let passed_on = trace.child_headers();
    let counted = metrics.begin(route, method);
    let method = counted.method();
    trace::within(trace, async {
        let mut response = answer.await;
        let error = response.extensions().get::<ErrorCode>().copied();
        let latency_ms = counted.end(response.status(), error);
        // A refused flood must not become a flood in the log. The metrics count it.
        let is_turned_away = matches!(error, Some(ErrorCode::Overloaded | ErrorCode::Throttled))
            || response.extensions().get::<DatabaseUnavailable>().is_some();
        let is_failure = response.status().is_server_error() && !is_turned_away;
        log_answer(method, route, response.status(), is_failure, latency_ms);
        response.headers_mut().extend(passed_on);
        response
    })
    .await
}

/// The cause of a failure is logged where it occurs, with the same request id.
fn log_answer(method: &str, route: &str, status: StatusCode, is_failure: bool, latency_ms: f64) {
    let status = status.as_u16();
    if is_failure {
        tracing::warn!(target: TARGET, method, route, status, latency_ms, "answered");
    } else {
        tracing::debug!(target: TARGET, method, route, status, latency_ms, "answered");
    }
}
