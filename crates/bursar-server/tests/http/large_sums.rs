//! Sums of more nano-dollars than 64 bits hold.

use serde_json::{Value, json};

use crate::support::{TestApp, record, with};

/// Records of a million dollars for each integration; 9,223 of them fill 64 bits.
const RECORDS: usize = 5_000;

#[tokio::test]
async fn ten_billion_dollars_in_one_session_are_shown_exactly() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let founder = tenant.founder();
    let expensive = json!({ "cost_cents": 100_000_000, "session_id": "s", "agent_id": "a" });
    for name in ["first", "second"] {
        let id = tenant.integration(name, json!({})).await;
        let records: Vec<Value> = (0..RECORDS)
            .map(|call| with(record(&id, &format!("{name} {call}")), expensive.clone()))
            .collect();
        for batch in records.chunks(1_000) {
            let body = json!({ "records": batch });
            let sent = founder.post("/telemetry/llm-usage/batch").json(&body).await;
            assert_eq!(sent.is(200).at("/data/accepted"), batch.len(), "{}", sent.body);
        }
    }
    for (path, place) in [
        ("/telemetry/usage-breakdown?by=session", "/data/groups/0"),
        ("/telemetry/usage-breakdown?by=session", "/data/total"),
        ("/telemetry/usage-breakdown?by=agent", "/data/groups/0"),
        ("/telemetry/usage-series?group_by=model", "/data/groups/0/points/0"),
        ("/telemetry/usage-series?step=hour", "/data/total/0"),
        ("/telemetry/usage-summary", "/data"),
    ] {
        let answer = founder.get(path).await;
        answer.is(200);
        let at = |field: &str| answer.at(&format!("{place}/{field}")).clone();
        assert_eq!(at("total_calls"), 2 * RECORDS, "{path}");
        assert_eq!(at("total_cost_usd"), "10000000000", "{path}");
        assert_eq!(at("total_cost_cents"), 1_000_000_000_000_i64, "{path}");
    }
}
