//! Metrics of requests and decisions.

use std::time::Instant;

use axum::http::{Method, StatusCode};
use bursar_core::{Decision, Dimension, ProtectionDecision};
use bursar_store::DecisionKind;
use prometheus::{HistogramVec, IntCounterVec, IntGauge, Registry, Result};

use super::table;
use crate::auth::failed_logins::FailedLogin;
use crate::wire::error_code::ErrorCode;

/// From a check that is answered from memory to the point where clients have given up.
const REQUEST_BOUNDS_SECONDS: &[f64] =
    &[0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// The status of a request whose client disconnected before the response.
const NONE: &str = "none";
/// The actions of the built-in protection.
///
/// They are shown as 0 from the start, because Prometheus sees no increase in a counter that starts
/// at 1.
const PROTECTION: [[&str; 2]; 4] =
    [["rate", "reject"], ["burst", "throttle"], ["cost", "reject"], ["anomaly", "warn"]];

/// The metrics of the API.
pub(super) struct HttpMetrics {
    requests: IntCounterVec,
    seconds: HistogramVec,
    in_flight: IntGauge,
    errors: IntCounterVec,
    decisions: IntCounterVec,
    protection: IntCounterVec,
    failed_logins: IntCounterVec,
}

impl HttpMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self> {
        let protection = table::PROTECTION.counters(registry)?;
        for labels in PROTECTION {
            protection.with_label_values(&labels).inc_by(0);
        }
        let failed_logins = table::FAILED_LOGINS.counters(registry)?;
        for kind in FailedLogin::ALL {
            failed_logins.with_label_values(&[kind.as_str()]).inc_by(0);
        }
        Ok(Self {
            requests: table::HTTP_REQUESTS.counters(registry)?,
            seconds: table::HTTP_SECONDS.histograms(registry, REQUEST_BOUNDS_SECONDS)?,
            in_flight: table::HTTP_IN_FLIGHT.gauge(registry)?,
            errors: table::HTTP_ERRORS.counters(registry)?,
            decisions: table::DECISIONS.counters(registry)?,
            protection,
            failed_logins,
        })
    }

    pub(super) fn decided(&self, kind: DecisionKind, decision: &Decision) {
        let reason = decision.reasons.first().map_or(NONE, |reason| reason.code.as_str());
        let labels = [kind.as_str(), decision.verdict.as_str(), reason];
        self.decisions.with_label_values(&labels).inc();
    }

    pub(super) fn protected(&self, dimension: Dimension, decision: &ProtectionDecision) {
        self.protection.with_label_values(&[dimension.as_str(), decision.as_str()]).inc();
    }

    pub(super) fn failed_login(&self, kind: FailedLogin) {
        self.failed_logins.with_label_values(&[kind.as_str()]).inc();
    }

    pub(super) fn begin<'m>(&'m self, route: &'m str, method: &Method) -> Counted<'m> {
        self.in_flight.inc();
        Counted {
            metrics: self,
            route,
            method: method_label(method),
            began: Instant::now(),
            ended: false,
        }
    }
}

/// A request that is being answered. Dropped before its end, it counts as disconnected.
pub(crate) struct Counted<'m> {
    metrics: &'m HttpMetrics,
    route: &'m str,
    method: &'static str,
    began: Instant,
    ended: bool,
}

impl Counted<'_> {
    /// The method, or `other`: clients can send any method name.
    pub(crate) const fn method(&self) -> &'static str {
        self.method
    }

    /// Counts the response. Returns its duration in milliseconds.
    pub(crate) fn end(mut self, status: StatusCode, error: Option<ErrorCode>) -> f64 {
        self.ended = true;
        let took = self.began.elapsed();
        let HttpMetrics { requests, seconds, errors, .. } = self.metrics;
        requests.with_label_values(&[self.route, self.method, status.as_str()]).inc();
        seconds.with_label_values(&[self.route]).observe(took.as_secs_f64());
        if let Some(code) = error {
            errors.with_label_values(&[code.as_str()]).inc();
        }
        took.as_micros() as f64 / 1_000.0
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.metrics.in_flight.dec();
        if !self.ended {
            self.metrics.requests.with_label_values(&[self.route, self.method, NONE]).inc();
        }
    }
}

fn method_label(method: &Method) -> &'static str {
    const KNOWN: [(Method, &str); 7] = [
        (Method::GET, "GET"),
        (Method::POST, "POST"),
        (Method::PUT, "PUT"),
        (Method::PATCH, "PATCH"),
        (Method::DELETE, "DELETE"),
        (Method::HEAD, "HEAD"),
        (Method::OPTIONS, "OPTIONS"),
    ];
    KNOWN.iter().find(|(known, _)| known == method).map_or("other", |(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_whose_client_went_away_is_counted_and_not_in_flight() {
        let metrics = HttpMetrics::new(&Registry::new()).expect("metrics");
        let counted = metrics.begin("/route", &Method::GET);
        assert_eq!(metrics.in_flight.get(), 1);
        drop(counted);
        assert_eq!(metrics.in_flight.get(), 0);
        assert_eq!(metrics.requests.with_label_values(&["/route", "GET", NONE]).get(), 1);
        metrics.begin("/route", &Method::GET).end(StatusCode::OK, None);
        assert_eq!(metrics.in_flight.get(), 0);
        assert_eq!(metrics.requests.with_label_values(&["/route", "GET", "200"]).get(), 1);
        assert_eq!(metrics.requests.with_label_values(&["/route", "GET", NONE]).get(), 1);
    }
}
