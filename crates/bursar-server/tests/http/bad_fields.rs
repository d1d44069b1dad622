//! Invalid fields: each refusal names the field, and nothing is stored.

use serde_json::{Value, json};

use crate::support::{Client, TestApp, record, with};

/// One more than the largest 64-bit integer.
const TOO_LARGE: u64 = 1 << 63;

async fn record_is_refused(founder: &Client, integration_id: &str, changes: Value, field: &str) {
    let sent = with(record(integration_id, "c"), changes);
    let answer = founder.post("/telemetry/llm-usage").json(&sent).await;
    answer.refused(422, "INVALID_FIELD").on(field);
    // A batch refuses the record for the same reason.
    let batch = json!({ "records": [sent] });
    let answer_of_batch = founder.post("/telemetry/llm-usage/batch").json(&batch).await;
    assert_eq!(answer_of_batch.is(200).at("/data/results/0/error"), answer.at("/error"));
}

#[tokio::test]
async fn a_record_with_a_wrong_field_is_refused_and_not_stored() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    let founder = tenant.founder();
    let wrong = |field: &'static str, values: &[Value]| {
        let pairs: Vec<_> = values.iter().map(|value| (field, json!({ field: value }))).collect();
        pairs
    };
    let text = |length: usize| json!("ä".repeat(length));
    let mut cases = Vec::new();
    for (field, length_max) in [("call_id", 256), ("provider", 100), ("model", 256)] {
        let values = [json!(1), json!(null), json!(["x"]), json!(""), text(length_max + 1)];
        cases.extend(wrong(field, &values));
    }
    for (field, length_max) in [
        ("session_id", 256),
        ("agent_id", 256),
        ("response_model", 256),
        ("region", 64),
        ("service_tier", 50),
        ("error_code", 100),
    ] {
        let values = [json!(1), json!({ "x": 1 }), text(length_max + 1)];
        cases.extend(wrong(field, &values));
    }
    for field in
        ["call_id", "session_id", "agent_id", "provider", "model", "error_code", "error_message"]
    {
        cases.extend(wrong(field, &[json!(true)]));
    }
    for control in ["a\u{0}b", "a\nb", "a\u{1b}[2Jb", "a\u{2028}b", " \t "] {
        cases.extend(wrong("call_id", &[json!(control)]));
    }
    let numbers = [
        json!(-1),
        json!("-1"),
        json!("one"),
        json!(""),
        json!("1,5"),
        json!("NaN"),
        json!(true),
        json!(TOO_LARGE),
        json!(1e300),
        json!(1_000_000_001),
    ];
    for field in [
        "tokens_in",
        "tokens_out",
        "tokens_cache_read",
        "tokens_cache_write",
        "tokens_cache_write_long",
        "tokens_audio_in",
        "tokens_image_in",
        "tokens_reasoning",
        "tokens_audio_out",
        "tokens_image_out",
    ] {
        cases.extend(wrong(field, &numbers));
        cases.extend(wrong(field, &[json!(1.5), json!("1.5")]));
    }
    cases.extend(wrong("latency_ms", &numbers));
    cases.extend(wrong("tokens_in", &[json!(null)]));
    // Parts are not larger than their whole.
    cases.extend(wrong("tokens_cache_read", &[json!(801)]));
    cases.extend(wrong("tokens_reasoning", &[json!(201)]));
    cases.extend(wrong("tokens_cache_write_long", &[json!(1)]));
    cases.extend(wrong("tokens_audio_in", &[json!(801)]));
    cases.extend(wrong("tokens_image_out", &[json!(201)]));
    for amount in [json!(-1), json!("NaN"), json!(true), json!([]), json!(1_000_000_001)] {
        cases.push(("units.seconds", json!({ "units": { "seconds": amount } })));
    }
    cases.extend(wrong("units", &[json!([]), json!("text"), json!(1)]));
    cases.extend(wrong("tags", &[json!([]), json!("text"), json!(1)]));
    cases.extend(wrong("usage_status", &[json!("done"), json!(""), json!("Final")]));
    cases.push((
        "tokens_cache_write",
        json!({ "tokens_cache_read": 401, "tokens_cache_write": 400 }),
    ));
    let costs = [
        json!(-1),
        json!(-0.000_000_1),
        json!("-0.1"),
        json!("1,5"),
        json!("$1"),
        json!("NaN"),
        json!("Infinity"),
        json!(""),
        json!(true),
        json!([1]),
        json!({}),
        json!(100_000_000.5),
        json!("1e9"),
        json!(TOO_LARGE),
    ];
    cases.extend(wrong("cost_cents", &costs));
    cases.extend(wrong("cost_usd", &costs));
    cases.extend(wrong("cost_usd", &[json!(1_000_000.5)]));
    let instants = [
        json!(1_773_480_413),
        json!("2026-03-14"),
        json!("2026-03-14T09:00:00"),
        json!("2026-02-30T09:00:00Z"),
        json!("1969-12-31T23:59:59Z"),
        json!("-009999-01-01T00:00:00Z"),
        json!("now"),
        json!(""),
    ];
    cases.extend(wrong("occurred_at", &instants));
    cases.extend(wrong("policy_result", &[json!("denied"), json!(""), json!(1), json!("Allowed")]));
    cases.extend(wrong("metadata", &[json!([]), json!("text"), json!(1), json!({ "a": "\u{0}" })]));
    cases.extend(wrong("metadata", &[json!({ "a": "x".repeat(32 * 1024) })]));
    cases.extend(wrong("integration_id", &[json!("x"), json!(""), json!(1), json!(null)]));
    for (field, changes) in cases {
        record_is_refused(&founder, &id, changes, field).await;
    }
    let summary = founder.get("/telemetry/usage-summary").await;
    assert_eq!(summary.is(200).at("/data/total_calls"), 0);
    assert_eq!(*founder.get("/telemetry/usage-history").await.is(200).data(), json!([]));
}

#[tokio::test]
async fn a_record_without_a_required_field_is_refused_and_not_stored() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    for field in ["integration_id", "call_id", "provider", "model", "tokens_in"] {
        let mut sent = record(&id, "c");
        sent.as_object_mut().unwrap().remove(field);
        let answer = tenant.founder().post("/telemetry/llm-usage").json(&sent).await;
        answer.refused(422, "INVALID_FIELD").on(field);
        assert_eq!(answer.text("/error/message"), format!("{field} is required"));
    }
    let summary = tenant.founder().get("/telemetry/usage-summary").await;
    assert_eq!(summary.at("/data/total_calls"), 0);
}

#[tokio::test]
async fn a_record_at_its_limits_is_accepted() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    let text = |length: usize| "ä".repeat(length);
    let bounds = json!({
        "call_id": text(256), "session_id": text(256), "agent_id": text(256),
        "provider": text(100), "model": text(256), "response_model": text(256),
        "region": text(64), "service_tier": text(50), "error_code": text(100),
        "provider_request_id": text(256), "units": { "x".repeat(32): 1_000_000_000 },
        "tags": { "x".repeat(64): text(256) },
        "tokens_in": 1_000_000_000, "tokens_out": 1_000_000_000,
        "tokens_cache_read": 500_000_000, "tokens_cache_write": 500_000_000,
        "tokens_reasoning": 1_000_000_000, "cost_cents": 100_000_000, "latency_ms": 1_000_000_000,
        "error_message": text(5_000),
    });
    let sent = with(record(&id, ""), bounds);
    tenant.founder().post("/telemetry/llm-usage").json(&sent).await.is(201);
    let history = tenant.founder().get("/telemetry/usage-history").await;
    assert_eq!(history.is(200).at("/data/0/call_id"), &sent["call_id"]);
    // A long message is truncated; the record is still stored.
    assert_eq!(history.text("/data/0/error_message"), text(4_000));
}

#[tokio::test]
async fn an_integration_with_a_wrong_field_is_not_created() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let founder = tenant.founder();
    let base = || json!({ "name": "n", "provider_type": "openai" });
    let mut cases: Vec<(&str, Value)> = Vec::new();
    for wrong in [json!(1), json!(null), json!(""), json!(" \t "), json!("a\u{0}b"), json!("a\nb")]
    {
        cases.push(("name", wrong));
    }
    cases.push(("name", json!("x".repeat(256))));
    cases.push(("name", json!("ä".repeat(256))));
    for wrong in [json!(1), json!(null), json!(""), json!("OpenAI"), json!("unheard")] {
        cases.push(("provider_type", wrong));
    }
    for wrong in [json!(1), json!(""), json!("x".repeat(257)), json!("a\u{0}")] {
        cases.push(("default_model", wrong));
    }
    for wrong in
        [json!(-1), json!(0.5), json!("1"), json!(null), json!(TOO_LARGE), json!(1e300), json!([])]
    {
        for limit in ["budget_limit_cents", "token_limit_month", "rate_limit_rpm"] {
            cases.push((limit, wrong.clone()));
        }
    }
    for wrong in [json!(1), json!(""), json!("Reported"), json!("guessed")] {
        cases.push(("cost_basis", wrong));
    }
    for wrong in [json!([]), json!("text"), json!(1), json!({ "a": "x".repeat(33_000) })] {
        cases.push(("config", wrong));
    }
    for wrong in [
        json!(1),
        json!(""),
        json!("hunter2"),
        json!("https://example.com"),
        json!("vault://secret"),
        json!("vault://secret/../root"),
        json!("encrypted://"),
        json!("encrypted://a\u{0}"),
        json!(format!("encrypted://{}", "1".repeat(500))),
    ] {
        cases.push(("credential_ref", wrong));
    }
    for (field, wrong) in cases {
        let sent = with(base(), json!({ field: wrong }));
        founder.post("/integrations").json(&sent).await.refused(422, "INVALID_FIELD").on(field);
    }
    for wrong in ["ftp://a", "not a url", "https://user:password@a.example", "https://"] {
        let sent = with(base(), json!({ "config": { "base_url": wrong } }));
        let answer = founder.post("/integrations").json(&sent).await;
        answer.refused(422, "INVALID_FIELD").on("config.base_url");
    }
    for missing in ["name", "provider_type"] {
        let mut sent = base();
        sent.as_object_mut().unwrap().remove(missing);
        founder.post("/integrations").json(&sent).await.refused(422, "INVALID_FIELD").on(missing);
    }
    assert_eq!(founder.get("/integrations").await.at("/meta/total"), 0);
}

#[tokio::test]
async fn a_name_may_have_255_characters_of_any_script() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    for character in ["x", "ä", "語", "😀"] {
        let name = character.repeat(255);
        let sent = json!({ "name": name, "provider_type": "openai" });
        let made = tenant.founder().post("/integrations").json(&sent).await;
        assert_eq!(made.is(201).text("/data/name"), name);
        let made = app.founder().post("/tenants").json(&json!({ "name": name })).await;
        assert_eq!(made.is(201).text("/data/name"), name);
    }
}

#[tokio::test]
async fn a_limit_may_be_as_large_as_its_integer() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let limits = json!({
        "budget_limit_cents": i64::MAX, "token_limit_month": i64::MAX, "rate_limit_rpm": i64::MAX,
    });
    let id = tenant.integration("i", limits).await;
    let shown = tenant.founder().get(&format!("/integrations/{id}/limits")).await;
    assert_eq!(shown.is(200).at("/data/budget_limit_cents"), i64::MAX);
    assert_eq!(shown.at("/data/budget_percent"), 0.0);
    let check = json!({ "integration_id": id, "estimated_cost_cents": 100_000_000 });
    let decision = tenant.founder().post("/enforcement/check").json(&check).await;
    assert_eq!(decision.is(200).text("/data/result"), "allowed");
}

#[tokio::test]
async fn an_unknown_field_is_named_and_nothing_is_created() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    let founder = tenant.founder();
    let keys = format!("/integrations/{id}/keys");
    let integration = json!({ "name": "n", "provider_type": "openai" });
    for (path, body) in [
        ("/integrations", with(integration.clone(), json!({ "budget_limit_cent": 100 }))),
        ("/integrations", with(integration.clone(), json!({ "budget_limit_cent": null }))),
        ("/integrations", with(integration.clone(), json!({ "status": "enabled" }))),
        ("/integrations", with(integration, json!({ "tenant_id": tenant.id }))),
        ("/tenants", json!({ "name": "t", "lifecycle_state": "ACTIVE" })),
        ("/keys", json!({ "name": "k", "scopes": ["*"], "tenant_id": "x" })),
        (keys.as_str(), json!({ "name": "k", "scopes": ["*"] })),
        ("/enforcement/check", json!({ "integration_id": id, "cost": 1 })),
        ("/enforcement/batch", json!({ "requests": [], "mode": 1 })),
        ("/enforcement/reservations", json!({ "call_id": "c", "integration": id })),
    ] {
        let answer = founder.post(path).json(&body).await;
        answer.refused(422, "UNKNOWN_FIELD");
        let field = answer.text("/error/field");
        assert!(body.as_object().unwrap().contains_key(field), "{}", answer.body);
    }
    assert_eq!(founder.get("/integrations").await.at("/meta/total"), 1);
    assert_eq!(founder.get("/keys").await.at("/meta/total"), 0);
    assert_eq!(founder.get(&keys).await.at("/meta/total"), 0);
    assert_eq!(app.founder().get("/tenants").await.at("/meta/total"), 1);
}

#[tokio::test]
async fn a_field_given_twice_is_refused() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let body =
        r#"{"name":"n","provider_type":"openai","budget_limit_cents":1,"budget_limit_cents":0}"#;
    let answer = tenant.founder().post("/integrations").body(body).await;
    answer.refused(422, "INVALID_FIELD").on("budget_limit_cents");
    assert_eq!(tenant.founder().get("/integrations").await.at("/meta/total"), 0);
}

#[tokio::test]
async fn an_unknown_parameter_of_a_list_is_named() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    for path in [
        "/tenants".to_owned(),
        "/keys".to_owned(),
        "/integrations".to_owned(),
        format!("/integrations/{id}/keys"),
        format!("/integrations/{id}/limits"),
        "/telemetry/usage-summary".to_owned(),
        "/telemetry/usage-history".to_owned(),
        "/telemetry/daily-aggregates".to_owned(),
        "/enforcement/reservations".to_owned(),
    ] {
        let answer = tenant.founder().get(&format!("{path}?limitt=5")).await;
        answer.refused(422, "UNKNOWN_FIELD").on("limitt");
    }
    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=1.5", "limit"),
        ("limit=-1", "limit"),
        ("limit=5&limit=6", "limit"),
        ("offset=-1", "offset"),
        ("offset=1000001", "offset"),
        ("status=gone", "status"),
        ("status=deleted", "status"),
        ("provider_type=unheard", "provider_type"),
    ] {
        let answer = tenant.founder().get(&format!("/integrations?{query}")).await;
        answer.refused(422, "INVALID_FIELD").on(field);
    }
}
