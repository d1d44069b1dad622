//! What protection asks of each route: its class, whether its cost is guarded, and what a refusal
//! does to it.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::auth::access;
use crate::auth::access::ACCESS;
use crate::protection::rule::Route;
use crate::protection::thresholds::RequestClass;
use axum::http::Method;

/// First words of paths that are never refused: they watch the server, describe it or set it up.
const EXEMPT: [&str; 7] =
    ["health", "metrics", "onboarding", "fdr", "docs", "openapi.json", "redoc"];
/// Where the routes of tenants are.
const API: &str = "/api/v1";

/// When a request that is over a threshold is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Before anything of it is read.
    AtOnce,
    /// By the ledger, and only records of calls that are neither reserved nor recorded.
    UnlessKnown,
    /// Not at all: it gives back what is held, or ends what someone must not use any more.
    Never,
}

/// A route as protection sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// Its template.
    pub(super) endpoint: &'static str,
    /// Its method.
    pub(super) operation: &'static str,
    /// Its number.
    pub(super) route: Route,
    /// Which thresholds hold.
    pub(super) class: RequestClass,
    /// Whether it leads to cost.
    pub(super) is_cost_guarded: bool,
    /// When it is refused.
    pub(super) refusal: Refusal,
}

/// The facts of a path by method.
type Methods = HashMap<&'static str, Facts>;

static BY_PATH: LazyLock<HashMap<&'static str, Methods>> = LazyLock::new(|| {
    let of_tenants = (0..).zip(ACCESS).filter(|(_, rule)| match rule.access {
        access::Access::Operator => false,
        access::Access::Anyone | access::Access::Tenant { .. } => !is_exempt(rule.path),
    });
    let mut by_path: HashMap<&str, Methods> = HashMap::new();
    for (number, rule) in of_tenants {
        let facts = facts_of(Route(number), word(&rule.method), rule.path);
        by_path.entry(facts.endpoint).or_default().insert(facts.operation, facts);
    }
    by_path
});

/// What is known of a route; nothing when it is exempt.
pub(super) fn facts(method: &Method, path: &str) -> Option<&'static Facts> {
    BY_PATH.get(path)?.get(word(method))
}

/// How many routes are not exempt.
pub(super) fn count() -> u32 {
    BY_PATH.values().map(|methods| methods.len() as u32).sum()
}

/// Whoever may read a body may read its head.
const fn word(method: &Method) -> &'static str {
    match *method {
        Method::GET | Method::HEAD => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "",
    }
}

fn facts_of(route: Route, operation: &'static str, endpoint: &'static str) -> Facts {
    let of_calls = |part| endpoint.strip_prefix(API).is_some_and(|rest| rest.starts_with(part));
    let is_traffic = operation != "GET" && (of_calls("/telemetry/") || of_calls("/enforcement/"));
    let class = if is_traffic { RequestClass::Traffic } else { RequestClass::Management };
    let refusal = match (operation, endpoint) {
        ("POST", "/api/v1/telemetry/llm-usage" | "/api/v1/telemetry/llm-usage/batch") => {
            Refusal::UnlessKnown
        }
        ("POST", "/api/v1/integrations/{id}/disable")
        | (
            "DELETE",
            "/api/v1/enforcement/reservations/{call_id}"
            | "/api/v1/integrations/{id}"
            | "/api/v1/integrations/{id}/keys/{key_id}"
            | "/api/v1/keys/{id}",
        ) => Refusal::Never,
        _ => Refusal::AtOnce,
    };
    let is_cost_guarded = operation == "POST"
        && matches!(
            endpoint,
            "/api/v1/enforcement/check"
                | "/api/v1/enforcement/batch"
                | "/api/v1/enforcement/reservations"
        );
    Facts { endpoint, operation, route, class, is_cost_guarded, refusal }
}

/// Whether a path is exempt, by its first whole segment below the API.
fn is_exempt(path: &str) -> bool {
    let below = path.strip_prefix(API).filter(|rest| rest.starts_with('/')).unwrap_or(path);
    let first = below.split('/').nth(1).unwrap_or_default();
    EXEMPT.contains(&first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_segments_are_exempt_and_nothing_that_only_looks_like_one() {
        let exempt = [
            "/health",
            "/health/live",
            "/metrics",
            "/onboarding",
            "/api/v1/onboarding/finalize",
            "/fdr/abuse/override",
            "/docs",
            "/openapi.json",
            "/redoc",
        ];
        for path in exempt {
            assert!(is_exempt(path), "{path}");
        }
        let held = [
            "/healthz",
            "/metricsx",
            "/docs.html",
            "/api/v1/integrations/{id}/health",
            "/api/v1/onboardings",
            "/api/v1/telemetry/llm-usage",
            "/api/v1x/health",
            "/",
            "",
        ];
        for path in held {
            assert!(!is_exempt(path), "{path}");
        }
    }

    #[track_caller]
    fn check(method: &Method, path: &str, class: RequestClass, refusal: Refusal, guarded: bool) {
        let found = facts(method, path).map(|facts| (facts.class, facts.refusal));
        assert_eq!(found, Some((class, refusal)), "{method} {path}");
        let cost = facts(method, path).map(|facts| facts.is_cost_guarded);
        assert_eq!(cost, Some(guarded), "{method} {path}");
    }

    #[test]
    fn each_route_has_its_class() {
        use Refusal::{AtOnce, Never, UnlessKnown};
        use RequestClass::{Management, Traffic};
        check(&Method::POST, "/api/v1/telemetry/llm-usage", Traffic, UnlessKnown, false);
        check(&Method::POST, "/api/v1/telemetry/llm-usage/batch", Traffic, UnlessKnown, false);
        check(&Method::GET, "/api/v1/telemetry/usage-summary", Management, AtOnce, false);
        check(&Method::HEAD, "/api/v1/keys", Management, AtOnce, false);
        check(&Method::POST, "/api/v1/integrations", Management, AtOnce, false);
        check(&Method::POST, "/api/v1/enforcement/check", Traffic, AtOnce, true);
        check(&Method::POST, "/api/v1/enforcement/batch", Traffic, AtOnce, true);
        check(&Method::GET, "/api/v1/enforcement/status", Management, AtOnce, false);
        let reservations = "/api/v1/enforcement/reservations";
        check(&Method::POST, reservations, Traffic, AtOnce, true);
        let one = "/api/v1/enforcement/reservations/{call_id}";
        check(&Method::DELETE, one, Traffic, Never, false);
        check(&Method::POST, &format!("{one}/extend"), Traffic, AtOnce, false);
    }

    #[test]
    fn what_ends_a_key_or_an_integration_is_never_refused() {
        use Refusal::{AtOnce, Never};
        use RequestClass::Management;
        check(&Method::DELETE, "/api/v1/keys/{id}", Management, Never, false);
        let integration = "/api/v1/integrations/{id}";
        check(&Method::DELETE, integration, Management, Never, false);
        check(&Method::POST, &format!("{integration}/disable"), Management, Never, false);
        check(&Method::POST, &format!("{integration}/enable"), Management, AtOnce, false);
        let key = format!("{integration}/keys/{{key_id}}");
        check(&Method::DELETE, &key, Management, Never, false);
        // A tenant is suspended and terminated by the operator, whom nothing here holds up.
        for end in ["suspend", "terminate", "archive"] {
            assert!(facts(&Method::POST, &format!("/api/v1/tenants/{{id}}/{end}")).is_none());
        }
        let deleted = ACCESS.iter().filter(|rule| rule.method == Method::DELETE);
        for rule in deleted.filter(|rule| rule.access != access::Access::Operator) {
            let refusal = facts(&rule.method, rule.path).map(|facts| facts.refusal);
            assert_eq!(refusal, Some(Never), "{}: may a flood keep it from ending?", rule.path);
        }
    }

    #[test]
    fn every_route_of_tenants_is_held_to_something_or_exempt() {
        let of_tenants = ACCESS.iter().filter(|rule| rule.access != access::Access::Operator);
        for rule in of_tenants {
            let is_held = facts(&rule.method, rule.path).is_some();
            assert_ne!(is_held, is_exempt(rule.path), "{} {}", rule.method, rule.path);
        }
        assert!(facts(&Method::POST, "/api/v1/tenants").is_none(), "the operator's");
    }
}
