//! Each threshold at its limit, and what it counts.

use axum::http::Method;
use serde_json::json;

use crate::protection::{
    PER_MINUTE, PER_SECOND, TRAFFIC_PER_MINUTE, TRAFFIC_PER_SECOND, check, check_refused,
    onboarded, overriding, usage,
};
use crate::support::TestApp;

#[tokio::test]
async fn a_route_is_limited_per_minute_until_requests_leave_the_window() {
    let app = TestApp::with_settings(&[(PER_MINUTE, "3")]);
    let (tenant, _) = onboarded(&app).await;
    let key = tenant.key(&["integrations:read"]).await;
    for seconds in [0, 10, 0] {
        app.clock.advance(seconds);
        key.get("/integrations").await.is(200);
    }
    let full = |ms| ("rate", [ms, 3, 3]);
    check_refused(&key.get("/integrations").await, 429, "RATE_LIMITED", full(50_000));
    app.clock.advance(49);
    check_refused(&key.get("/integrations").await, 429, "RATE_LIMITED", full(1_000));
    // A repeated request is admitted when the first leaves the window; others are unaffected.
    app.clock.advance(1);
    key.get("/integrations").await.is(200);
    check_refused(&key.get("/integrations").await, 429, "RATE_LIMITED", full(10_000));
    key.get(&format!("/integrations/{}", tenant.id)).await.refused(404, "INTEGRATION_NOT_FOUND");
    onboarded(&app).await.0.founder().get("/integrations").await.is(200);
}

#[tokio::test]
async fn clearing_the_windows_of_a_tenant_resets_only_that_tenant() {
    let app = TestApp::with_settings(&[(PER_MINUTE, "3")]);
    let tenants = [onboarded(&app).await.0, onboarded(&app).await.0];
    let keys = [tenants[0].key(&["*"]).await, tenants[1].key(&["*"]).await];
    for key in &keys {
        for _ in 0..3 {
            key.get("/integrations").await.is(200);
        }
        key.get("/integrations").await.refused(429, "RATE_LIMITED");
    }
    let path = format!("/fdr/caches/protection-windows?tenant_id={}", tenants[0].id);
    app.founder().root(&path).method(Method::DELETE).await.is(200);
    for _ in 0..3 {
        keys[0].get("/integrations").await.is(200);
    }
    for key in &keys {
        key.get("/integrations").await.refused(429, "RATE_LIMITED");
    }
}

#[tokio::test]
async fn all_routes_of_a_class_share_a_limit_per_second() {
    let settings = [(PER_SECOND, "3"), (TRAFFIC_PER_SECOND, "2")];
    let app = TestApp::with_settings(&settings);
    let (tenant, id) = onboarded(&app).await;
    let key = tenant.key(&["*"]).await;
    app.clock.advance(1);
    for path in ["/integrations", "/telemetry/usage-summary", "/session/context"] {
        key.get(path).await.is(200);
    }
    let full = ("burst", [1_000, 3, 3]);
    check_refused(&key.get("/keys").await, 503, "THROTTLED", full);
    // Traffic has its own limit per second.
    for call_id in ["a", "b"] {
        usage(&key, &id, call_id).await.is(201);
    }
    let full = ("burst", [1_000, 2, 2]);
    check_refused(&usage(&key, &id, "c").await, 503, "THROTTLED", full);
    check_refused(&check(&key, &id).await, 503, "THROTTLED", full);
    app.clock.advance(1);
    key.get("/keys").await.is(200);
    usage(&key, &id, "c").await.is(201);
}

#[tokio::test]
async fn a_tenant_in_onboarding_has_ten_times_the_thresholds() {
    let app = TestApp::with_settings(&[(PER_MINUTE, "1"), (PER_SECOND, "2")]);
    let tenant = app.tenant("new").await;
    let key = tenant.key(&["*"]).await;
    app.clock.advance_monotonic(60);
    for _ in 0..10 {
        key.get("/integrations").await.is(200);
    }
    let full = ("rate", [60_000, 10, 10]);
    check_refused(&key.get("/integrations").await, 429, "RATE_LIMITED", full);
    for _ in 0..10 {
        key.get("/session/context").await.is(200);
    }
    let full = ("burst", [1_000, 20, 20]);
    check_refused(&key.get("/keys").await, 503, "THROTTLED", full);
    // An override is absolute.
    let absolute = overriding(&tenant, json!({ "allowed_value": 11 }));
    app.founder().root_post("/fdr/abuse/override", &absolute).await.is(201);
    app.clock.advance_monotonic(1);
    key.get("/integrations").await.is(200);
    let full = ("rate", [59_000, 11, 11]);
    check_refused(&key.get("/integrations").await, 429, "RATE_LIMITED", full);
    tenant.founder().get("/integrations").await.is(200);
}

#[tokio::test]
async fn finalizing_onboarding_is_exempt() {
    let app = TestApp::with_settings(&[(PER_MINUTE, "1"), (TRAFFIC_PER_MINUTE, "1")]);
    let (tenant, _) = onboarded(&app).await;
    for _ in 0..5 {
        tenant.founder().post("/onboarding/finalize").await.is(200);
    }
    let key = tenant.key(&["*"]).await;
    key.get("/integrations").await.is(200);
    key.get("/integrations").await.refused(429, "RATE_LIMITED");
    key.get("/session/context").await.is(200);
    key.get("/session/context").await.refused(429, "RATE_LIMITED");
}

#[tokio::test]
async fn a_stopped_or_jumping_clock_extends_no_window() {
    let app = TestApp::with_settings(&[(PER_MINUTE, "5"), (TRAFFIC_PER_MINUTE, "5")]);
    let (tenant, id) = onboarded(&app).await;
    let key = tenant.key(&["*"]).await;
    // A jump of an hour and back: the time stands for that hour, because it never goes back.
    app.clock.jump(3_600);
    key.get("/integrations").await.is(200);
    app.clock.jump(-3_600);
    for minute in 0..10 {
        for number in 0..4 {
            key.get("/integrations").await.is(200);
            usage(&key, &id, &format!("{minute}-{number}")).await.is(201);
        }
        app.clock.advance_monotonic(60);
    }
    // A refused request is admitted after its `Retry-After`.
    for _ in 0..5 {
        key.get("/integrations").await.is(200);
    }
    app.clock.advance_monotonic(13);
    let full = ("rate", [47_000, 5, 5]);
    check_refused(&key.get("/integrations").await, 429, "RATE_LIMITED", full);
    app.clock.advance_monotonic(47);
    key.get("/integrations").await.is(200);
}

#[tokio::test]
async fn requests_with_an_integration_key_count_against_that_integration_alone() {
    let settings = [(PER_SECOND, "2"), (PER_MINUTE, "3"), (TRAFFIC_PER_SECOND, "2")];
    let app = TestApp::with_settings(&settings);
    let (tenant, id) = onboarded(&app).await;
    let other = tenant.integration("other", json!({})).await;
    let (loud, quiet) = (tenant.integration_key(&id).await, tenant.integration_key(&other).await);
    let key = tenant.key(&["*"]).await;
    app.clock.advance_monotonic(60);
    let limits = format!("/integrations/{id}/limits");
    for path in [&limits, "/session/context"] {
        loud.get(path).await.is(200);
    }
    let full = ("burst", [1_000, 2, 2]);
    check_refused(&loud.get(&limits).await, 503, "THROTTLED", full);
    for call_id in ["a", "b"] {
        usage(&loud, &id, call_id).await.is(201);
    }
    check_refused(&usage(&loud, &id, "c").await, 503, "THROTTLED", full);
    check_refused(&check(&loud, &id).await, 503, "THROTTLED", full);
    // Its tenant and the other integrations have their own windows.
    for path in [&limits, "/integrations"] {
        key.get(path).await.is(200);
    }
    check_refused(&key.get("/integrations").await, 503, "THROTTLED", full);
    for call_id in ["d", "e"] {
        usage(&key, &id, call_id).await.is(201);
        usage(&quiet, &other, &format!("quiet {call_id}")).await.is(201);
    }
    check_refused(&usage(&quiet, &other, "f").await, 503, "THROTTLED", full);
    // So is the limit of a route per minute.
    for _ in 0..2 {
        app.clock.advance_monotonic(1);
        loud.get(&limits).await.is(200);
    }
    let full = ("rate", [58_000, 3, 3]);
    check_refused(&loud.get(&limits).await, 429, "RATE_LIMITED", full);
    key.get(&limits).await.is(200);
}

#[tokio::test]
async fn thresholds_apply_to_a_suspended_tenant() {
    let app = TestApp::with_settings(&[(PER_MINUTE, "1"), (TRAFFIC_PER_MINUTE, "1")]);
    let (tenant, id) = onboarded(&app).await;
    let key = tenant.key(&["*"]).await;
    app.founder().post(&format!("/tenants/{}/suspend", tenant.id)).await.is(200);
    usage(&key, &id, "a").await.is(201);
    usage(&key, &id, "b").await.refused(429, "RATE_LIMITED");
    key.get("/integrations").await.is(200);
    key.get("/integrations").await.refused(429, "RATE_LIMITED");
}

#[tokio::test]
async fn the_operator_is_exempt_from_a_tenants_thresholds() {
    let app = TestApp::with_settings(&[(PER_MINUTE, "2"), (TRAFFIC_PER_MINUTE, "2")]);
    let (tenant, id) = onboarded(&app).await;
    let key = tenant.key(&["*"]).await;
    for _ in 0..2 {
        key.get("/integrations").await.is(200);
    }
    key.get("/integrations").await.refused(429, "RATE_LIMITED");
    let founder = tenant.founder();
    founder.get("/integrations").await.is(200);
    founder.get("/session/context").await.is(200);
    founder.post(&format!("/integrations/{id}/disable")).await.is(200);
    founder.post(&format!("/integrations/{id}/enable")).await.is(200);
    for _ in 0..5 {
        check(&founder, &id).await.is(200);
    }
    // The requests of the operator count as the tenant's.
    check(&key, &id).await.refused(429, "RATE_LIMITED");
}
