//! Large reads: how much memory they may take, and who is refused beyond that.

use bursar_core::Day;
use bursar_server::wire::timestamps;
use serde_json::{Value, json};

use crate::support::{Client, Tenant, TestApp, record, with};

const INTEGRATIONS: usize = 20;
const DAYS: usize = 60;
/// The responses to one tenant may take a quarter of it: about 370 sums.
const ANSWER_BYTES: (&str, &str) = ("BURSAR_SERVER_ANSWER_BYTES_MAX_TOTAL", "1048576");

/// Records a call for each day and integration, up to today.
async fn record_days(tenant: &Tenant) {
    let mut records: Vec<Value> = Vec::new();
    for number in 0..INTEGRATIONS {
        let id = tenant.integration(&format!("i{number}"), json!({})).await;
        for day in 0..DAYS {
            let first = Day::from_civil(2026, 1, 14).unwrap();
            let at = Day::from_number(first.number() + day as i32).start();
            let call = record(&id, &format!("call-{number}-{day}"));
            records.push(with(call, json!({ "occurred_at": timestamps::text(at) })));
        }
    }
    for batch in records.chunks(1_000) {
        let body = json!({ "records": batch });
        tenant.founder().post("/telemetry/llm-usage/batch").json(&body).await.is(200);
    }
}

/// The days of the records.
const SPAN: &str = "start_date=2026-01-14&end_date=2026-03-14";

#[tokio::test]
async fn a_response_beyond_the_tenants_share_of_memory_is_refused() {
    let app = TestApp::with_settings(&[ANSWER_BYTES]);
    let tenant = app.tenant("a").await;
    record_days(&tenant).await;
    let key = tenant.key(&["telemetry:read"]).await;
    for path in [
        format!("/telemetry/daily-aggregates?{SPAN}"),
        format!("/telemetry/usage-series?group_by=integration&limit=20&{SPAN}"),
        "/telemetry/usage-history?limit=1000".to_owned(),
    ] {
        key.get(&path).await.refused(422, "READ_TOO_LARGE");
        // Responses to the operator have their own share.
        tenant.founder().get(&path).await.is(200);
    }
    // A refused read has freed its memory.
    for path in [
        format!("/telemetry/daily-aggregates?limit=300&{SPAN}"),
        format!("/telemetry/usage-series?group_by=integration&limit=2&{SPAN}"),
        format!("/telemetry/usage-summary?{SPAN}"),
        "/telemetry/usage-history?limit=100".to_owned(),
    ] {
        key.get(&path).await.is(200);
    }
}

async fn all_pages(key: &Client, limit: usize) -> Vec<Value> {
    let (mut rows, mut cursor): (Vec<Value>, String) = (Vec::new(), String::new());
    loop {
        let path = format!("/telemetry/daily-aggregates?limit={limit}{cursor}&{SPAN}");
        let page = key.get(&path).await;
        assert_eq!(*page.is(200).at("/meta/total"), INTEGRATIONS * DAYS);
        rows.extend(page.data().as_array().unwrap().iter().cloned());
        if *page.at("/meta/has_more") == false {
            assert!(page.at("/meta").get("next_cursor").is_none());
            return rows;
        }
        cursor = format!("&cursor={}", page.text("/meta/next_cursor"));
    }
}

#[tokio::test]
async fn daily_aggregates_continue_where_the_last_page_ended() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    record_days(&tenant).await;
    let key = tenant.key(&["telemetry:read"]).await;
    let all = key.get(&format!("/telemetry/daily-aggregates?{SPAN}")).await;
    let all = all.is(200).data().as_array().unwrap().clone();
    assert_eq!(all.len(), INTEGRATIONS * DAYS);
    for limit in [7, 600] {
        assert_eq!(all_pages(&key, limit).await, all);
    }
    let offset = key.get(&format!("/telemetry/daily-aggregates?limit=3&offset=100&{SPAN}")).await;
    assert_eq!(offset.is(200).data().as_array().unwrap()[..], all[100..103]);
    let both = "/telemetry/daily-aggregates?offset=1&cursor=AAUaAAAAAAAAAAAAAAAAAQ";
    key.get(both).await.refused(422, "INVALID_FIELD").on("offset");
    key.get("/telemetry/daily-aggregates?cursor=x")
        .await
        .refused(422, "INVALID_FIELD")
        .on("cursor");
}

#[tokio::test]
async fn unread_exports_delay_no_other_request() {
    let app = TestApp::with_settings(&[ANSWER_BYTES]);
    let (tenant, other) = (app.tenant("a").await, app.tenant("b").await);
    record_days(&tenant).await;
    record_days(&other).await;
    let key = tenant.key(&["telemetry:read"]).await;
    let mut open = Vec::new();
    for _ in 0..8 {
        let export = key.get("/telemetry/export").response().await;
        assert_eq!(export.status(), 200);
        open.push(export);
    }
    let refused = key.get("/telemetry/export").await;
    refused.refused(503, "OVERLOADED");
    assert_eq!(refused.headers["retry-after"], "1");
    // All other requests are served, for this tenant and for others.
    let history = "/telemetry/usage-history?limit=150";
    key.get(history).await.is(200);
    key.get(&format!("/telemetry/daily-aggregates?limit=300&{SPAN}")).await.is(200);
    other.founder().get(history).await.is(200);
    let export = other.founder().get("/telemetry/export").await;
    assert_eq!(export.body.lines().count(), INTEGRATIONS * DAYS + 1);
    open.pop();
    let export = key.get("/telemetry/export?format=ndjson").await;
    assert_eq!(export.body.lines().count(), INTEGRATIONS * DAYS);
}
