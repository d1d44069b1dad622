//! A clock that jumps: what is refused, what still works, and how the operator confirms the time.

use serde_json::json;

use crate::support::{ApiResponse, METRICS_TOKEN, TestApp, record, reservation};

const HOUR: i64 = 3_600;
const FOUR_DAYS: i64 = 4 * 86_400;

/// The value of a metric without labels.
async fn metric(app: &TestApp, name: &str) -> i64 {
    let scraper = app.anonymous().with("authorization", &format!("Bearer {METRICS_TOKEN}"));
    let text = scraper.root("/metrics").await.body;
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
    line.unwrap().parse().unwrap()
}

async fn clock(app: &TestApp) -> ApiResponse {
    app.founder().root("/fdr/clock").await
}

async fn confirm(app: &TestApp) -> ApiResponse {
    app.founder().root("/fdr/clock/confirm").method(axum::http::Method::POST).await
}

#[tokio::test]
async fn a_jump_refuses_writes_and_decisions_and_nothing_else() {
    let app = TestApp::new();
    app.clock.set((2026, 11, 28), 0);
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({ "budget_limit_cents": 100 })).await;
    let key = tenant.key(&["*"]).await;
    key.post("/telemetry/llm-usage").json(&record(&id, "before")).await.is(201);
    app.clock.jump(FOUR_DAYS);

    let check = json!({ "integration_id": id, "estimated_cost_cents": 1 });
    let unknown = json!({ "integration_id": tenant.id, "estimated_cost_cents": 1 });
    let refused = [
        key.post("/telemetry/llm-usage").json(&record(&id, "in it")).await,
        key.post("/telemetry/llm-usage/batch")
            .json(&json!({ "records": [record(&id, "in it")] }))
            .await,
        key.post("/enforcement/check").json(&check).await,
        key.post("/enforcement/check").json(&unknown).await,
        key.post("/enforcement/batch").json(&json!({ "requests": [check] })).await,
        key.post("/enforcement/reservations").json(&reservation(&id, "r")).await,
        key.post("/enforcement/reservations").json(&reservation(&tenant.id, "r")).await,
        key.delete("/enforcement/reservations/r").await,
        key.patch(&format!("/integrations/{id}")).json(&json!({ "name": "n" })).await,
        tenant.founder().post("/keys").json(&json!({ "name": "k", "scopes": ["*"] })).await,
        app.founder().post("/tenants").json(&json!({ "name": "t" })).await,
    ];
    for answer in refused {
        answer.refused(503, "CLOCK_JUMPED");
        assert_eq!(answer.headers["retry-after"], "60");
        let message = answer.text("/error/message");
        assert!(message.contains("345600 seconds ahead") && message.contains("60 seconds"));
    }

    for path in [
        "/enforcement/status?integration_id=".to_owned() + &id,
        format!("/integrations/{id}/limits"),
        "/telemetry/usage-history".to_owned(),
        "/telemetry/usage-summary".to_owned(),
        "/enforcement/reservations".to_owned(),
    ] {
        key.get(&path).await.is(200);
    }
    let limits = key.get(&format!("/integrations/{id}/limits")).await;
    assert_eq!(limits.text("/data/period_start"), "2026-11-01T00:00:00Z");
    for path in ["/health/live", "/health/ready"] {
        app.anonymous().root(path).await.is(200);
    }
    assert_eq!(metric(&app, "bursar_clock_refuses").await, 1);
    assert_eq!(metric(&app, "bursar_clock_ahead_seconds").await, FOUR_DAYS);
    let shown = clock(&app).await;
    assert_eq!(
        shown.is(200).data(),
        &json!({
            "state": "jumped",
            "now": "2026-11-28T00:00:00Z",
            "clock": "2026-12-02T00:00:00Z",
            "ahead_seconds": FOUR_DAYS,
            "refuses": true,
            "adopted_in_seconds": 60,
        })
    );

    app.clock.jump(-FOUR_DAYS);
    key.post("/enforcement/check").json(&check).await.is(200);
    key.post("/telemetry/llm-usage").json(&record(&id, "in it")).await.is(201);
    assert_eq!(clock(&app).await.text("/data/state"), "steady");
    assert_eq!(metric(&app, "bursar_clock_refuses").await, 0);
}

#[tokio::test]
async fn the_operator_confirms_a_jump_and_its_reversal() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    app.clock.jump(HOUR);
    let confirmed = confirm(&app).await;
    assert_eq!(
        confirmed.is(200).data(),
        &json!({ "now": "2026-03-14T10:26:53Z", "was_ahead_seconds": HOUR, "adopted": true })
    );
    let founder = tenant.founder();
    founder.post("/telemetry/llm-usage").json(&record(&id, "ahead")).await.is(201);

    app.clock.jump(-HOUR);
    let behind = clock(&app).await;
    assert_eq!(behind.text("/data/state"), "behind");
    assert_eq!(behind.at("/data/ahead_seconds"), -HOUR);
    assert_eq!(metric(&app, "bursar_clock_ahead_seconds").await, -HOUR);
    // Nothing is refused, and time continues.
    founder.post("/telemetry/llm-usage").json(&record(&id, "behind")).await.is(201);
    let confirmed = confirm(&app).await;
    assert_eq!(confirmed.is(200).at("/data/was_ahead_seconds"), -HOUR);
    founder.post("/telemetry/llm-usage").json(&record(&id, "right")).await.is(201);
    let history = founder.get("/telemetry/usage-history").await;
    let created = history.column("/created_at");
    assert_eq!(
        created,
        ["2026-03-14T10:26:53Z", "2026-03-14T10:26:53Z", "2026-03-14T09:26:53Z"],
        "newest first, by when the calls were"
    );
    let confirmed = confirm(&app).await;
    assert_eq!(confirmed.is(200).at("/data/adopted"), false);
}

#[tokio::test]
async fn keys_expire_on_time_despite_clock_jumps() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let create = json!({ "name": "k", "scopes": ["*"], "expires_at": "2026-03-14T09:36:53Z" });
    let made = tenant.founder().post("/keys").json(&create).await;
    let bearer = format!("Bearer {}", made.is(201).text("/data/secret"));
    let key = app.anonymous().with("authorization", &bearer);
    for jump in [HOUR, FOUR_DAYS, -HOUR] {
        key.get("/integrations").await.is(200);
        app.clock.jump(jump);
        key.get("/integrations").await.is(200);
        app.clock.jump(-jump);
    }
    app.clock.advance(601);
    key.get("/integrations").await.is(401);
    // Time also advances while it is behind the clock.
    let create = json!({ "name": "k", "scopes": ["*"], "expires_at": "2026-03-14T09:46:54Z" });
    let made = tenant.founder().post("/keys").json(&create).await;
    let bearer = format!("Bearer {}", made.is(201).text("/data/secret"));
    let key = app.anonymous().with("authorization", &bearer);
    app.clock.jump(-HOUR);
    key.get("/integrations").await.is(200);
    app.clock.advance(700);
    key.get("/integrations").await.is(401);
}

#[tokio::test]
async fn a_clock_jump_does_not_extend_protection_windows() {
    let app = TestApp::with_settings(&[("BURSAR_PROTECTION_REQUESTS_PER_MINUTE", "20")]);
    let tenant = app.tenant("a").await;
    tenant.founder().post("/onboarding/finalize").await;
    let key = tenant.key(&["*"]).await;
    for jump in [HOUR, -HOUR] {
        app.clock.jump(jump);
        app.clock.jump(-jump);
        for _ in 0..10 {
            for _ in 0..19 {
                key.get("/integrations").await.is(200);
            }
            app.clock.advance(70);
        }
    }
}
