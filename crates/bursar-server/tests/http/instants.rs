//! Times: every notation of an instant is accepted, and an invalid one is refused by field.

use serde_json::json;

use crate::support::{TestApp, record, with};

/// Invalid offsets from UTC.
const IMPOSSIBLE: [&str; 3] =
    ["2026-04-01T10:00:00+25:00", "2026-04-01T10:00:00-24:00", "2026-04-01T10:00:00+2400"];

#[tokio::test]
async fn a_repeated_record_may_write_its_instant_differently() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    let founder = tenant.founder();
    let mut expected = 201;
    for spelling in [
        "2026-03-14T08:00:00.25Z",
        "2026-03-14t08:00:00.250z",
        "2026-03-14 08:00:00,25Z",
        "20260314T080000.25Z",
        "2026-03-14T08:00:00.250000000000+00",
        "2026-03-14T08:00:00.25-00:00",
        "2026-03-14T10:30:00.25+0230",
        "2026-03-13T08:01:00.25-23:59",
        "2026-03-14T09:00:00.25+01:00[Europe/Berlin]",
    ] {
        let sent = with(record(&id, "c"), json!({ "occurred_at": spelling }));
        // The OpenAPI document allows RFC 3339 only.
        let answer = founder.post("/telemetry/llm-usage").json(&sent).response().await;
        assert_eq!(answer.status().as_u16(), expected, "{spelling}");
        expected = 200;
    }
    let history = founder.get("/telemetry/usage-history").await;
    assert_eq!(history.is(200).column("/occurred_at"), ["2026-03-14T08:00:00.250000Z"]);
}

#[tokio::test]
async fn an_impossible_utc_offset_is_refused_in_every_time() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    let founder = tenant.founder();
    for spelling in IMPOSSIBLE {
        let sent = with(record(&id, "c"), json!({ "occurred_at": spelling }));
        let of_record = founder.post("/telemetry/llm-usage").json(&sent).await;
        let key = json!({ "name": "k", "scopes": ["*"], "expires_at": spelling });
        let of_key = founder.post("/keys").json(&key).await;
        let overriding = json!({
            "tenant_id": tenant.id, "dimension": "rate", "allowed_value": 1, "reason": "r",
            "expires_at": spelling,
        });
        let of_override = app.founder().root_post("/fdr/abuse/override", &overriding).await;
        let mut refused =
            vec![("occurred_at", of_record), ("expires_at", of_key), ("expires_at", of_override)];
        let spelling = spelling.replace('+', "%2B");
        for path in
            ["/telemetry/usage-history", "/telemetry/export", "/enforcement/decisions", "/audit"]
        {
            for field in ["start", "end"] {
                refused.push((field, founder.get(&format!("{path}?{field}={spelling}")).await));
            }
        }
        for (field, answer) in refused {
            answer.refused(422, "INVALID_FIELD").on(field);
            let expected =
                format!("{field} must have an offset from UTC between -23:59 and +23:59");
            assert_eq!(answer.text("/error/message"), expected);
        }
    }
}
