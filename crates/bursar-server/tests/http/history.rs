//! The history of records, page by page.

use serde_json::{Value, json};

use crate::support::{Tenant, TestApp, record, with};

/// Stores twelve records of two integrations, four of them at the same instant.
async fn record_twelve(tenant: &Tenant) -> [String; 2] {
    let ids =
        [tenant.integration("even", json!({})).await, tenant.integration("odd", json!({})).await];
    let records: Vec<Value> = (0..12)
        .map(|at| {
            let minute = if (4..8).contains(&at) { 30 } else { at };
            let policy = ["allowed", "warned", "blocked"][at % 3];
            let more = json!({
                "occurred_at": format!("2026-03-14T08:{minute:02}:00Z"),
                "model": if at % 3 == 0 { "o3" } else { "gpt-4o" },
                "agent_id": if at < 6 { json!("early") } else { json!(null) },
                "session_id": format!("session-{}", at % 4),
                "policy_result": policy,
                "error_code": if at % 5 == 0 { json!("timeout") } else { json!(null) },
            });
            with(record(&ids[at % 2], &format!("call-{at}")), more)
        })
        .collect();
    let batch = json!({ "records": records });
    let answer = tenant.founder().post("/telemetry/llm-usage/batch").json(&batch).await;
    assert_eq!(answer.is(200).at("/data/accepted"), 12);
    ids
}

fn page(query: &str) -> String {
    format!("/telemetry/usage-history?{query}")
}

/// The call ids of the whole history, read as one page.
async fn all_call_ids(tenant: &Tenant) -> Vec<String> {
    let full = tenant.founder().get(&page("limit=1000")).await;
    full.is(200).column("/call_id").into_iter().map(Into::into).collect()
}

#[tokio::test]
async fn the_history_runs_from_the_newest_to_the_oldest() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    record_twelve(&tenant).await;
    let full = tenant.founder().get(&page("limit=1000")).await;
    let mut places: Vec<(&str, &str)> = Vec::new();
    places.extend(full.column("/occurred_at").into_iter().zip(full.column("/id")));
    assert!(places.windows(2).all(|two| two[0] > two[1]), "{places:?}");
    assert_eq!(places.len(), 12);
}

#[tokio::test]
async fn paging_by_cursor_shows_everything_once_in_order() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    record_twelve(&tenant).await;
    let full = all_call_ids(&tenant).await;
    // Pages of 1 and 5 end within the records of the same instant.
    for limit in [1, 2, 5, 11, 12, 13] {
        let mut walked: Vec<String> = Vec::new();
        let mut query = format!("limit={limit}");
        loop {
            let answer = tenant.founder().get(&page(&query)).await;
            walked.extend(answer.is(200).column("/call_id").into_iter().map(Into::into));
            let more = answer.at("/meta/has_more") == true;
            assert_eq!(answer.at("/meta/next_cursor").is_string(), more);
            assert_eq!(answer.at("/meta/total"), 12);
            if !more {
                break;
            }
            query = format!("limit={limit}&cursor={}", answer.text("/meta/next_cursor"));
        }
        assert_eq!(walked, full, "{limit}");
    }
}

#[tokio::test]
async fn new_records_do_not_disturb_paging_by_cursor() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let [even, _] = record_twelve(&tenant).await;
    let full = all_call_ids(&tenant).await;
    let first = tenant.founder().get(&page("limit=6")).await;
    tenant.founder().post("/telemetry/llm-usage").json(&record(&even, "new")).await.is(201);
    let next = format!("limit=6&cursor={}", first.text("/meta/next_cursor"));
    let second = tenant.founder().get(&page(&next)).await;
    assert_eq!(first.column("/call_id"), full[..6]);
    assert_eq!(second.is(200).column("/call_id"), full[6..]);
}

#[tokio::test]
async fn pages_by_offset_add_up_to_the_whole_history() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    record_twelve(&tenant).await;
    let full = all_call_ids(&tenant).await;
    for (offset, limit, number, has_more) in [(0, 5, 1, true), (5, 5, 2, true), (10, 5, 3, false)] {
        let answer = tenant.founder().get(&page(&format!("offset={offset}&limit={limit}"))).await;
        let end = full.len().min(offset + limit);
        assert_eq!(answer.is(200).column("/call_id"), full[offset..end]);
        assert_eq!(answer.at("/meta/page"), number);
        assert_eq!(answer.at("/meta/page_size"), limit);
        assert_eq!(answer.at("/meta/has_more"), has_more);
        assert_eq!(answer.at("/meta/total"), 12);
    }
    let beyond = tenant.founder().get(&page("offset=10000")).await;
    assert_eq!(*beyond.is(200).data(), json!([]));
}

#[tokio::test]
async fn a_page_at_an_offset_that_is_too_large_says_what_to_do() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    let metadata = json!({ "text": "x".repeat(30_000) });
    let records: Vec<Value> = (0..150)
        .map(|at| with(record(&id, &format!("call-{at}")), json!({ "metadata": metadata })))
        .collect();
    let batch = json!({ "records": records });
    let answer = tenant.founder().post("/telemetry/llm-usage/batch").json(&batch).await;
    assert_eq!(answer.is(200).at("/data/accepted"), 150);
    let answer = tenant.founder().get(&page("offset=0&limit=150")).await;
    answer.refused(422, "READ_TOO_LARGE");
    for word in ["smaller limit", "cursor"] {
        assert!(answer.text("/error/message").contains(word), "{}", answer.body);
    }
    let answer = tenant.founder().get(&page("offset=0&limit=100")).await;
    assert_eq!(answer.is(200).column("/call_id").len(), 100);
    assert_eq!(answer.at("/meta/has_more"), true);
    let answer = tenant.founder().get(&page("offset=100&limit=100")).await;
    assert_eq!(answer.is(200).column("/call_id").len(), 50);
    // Without an offset the page is shorter and has a cursor.
    let answer = tenant.founder().get(&page("limit=150")).await;
    assert!(answer.is(200).column("/call_id").len() < 100);
    assert!(answer.at("/meta/next_cursor").is_string(), "{}", answer.at("/meta"));
}

#[tokio::test]
async fn a_page_in_the_middle_has_a_cursor_in_its_meta() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    record_twelve(&tenant).await;
    let answer = tenant.founder().get(&page("limit=2")).await;
    let mut shown = answer.is(200).redacted();
    insta::assert_json_snapshot!(shown["meta"].take(), @r#"
    {
      "has_more": true,
      "next_cursor": "[cursor]",
      "page": 1,
      "page_size": 2,
      "request_id": "[request id]",
      "timestamp": "[now]",
      "total": 12
    }
    "#);
}

#[tokio::test]
async fn every_filter_selects_its_records() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let [even, odd] = record_twelve(&tenant).await;
    for (query, calls) in [
        (format!("integration_id={even}"), &[0, 2, 4, 6, 8, 10][..]),
        (format!("integration_id={odd}"), &[1, 3, 5, 7, 9, 11]),
        ("model=o3".to_owned(), &[0, 3, 6, 9]),
        ("model=O3".to_owned(), &[]),
        ("agent_id=early".to_owned(), &[0, 1, 2, 3, 4, 5]),
        ("session_id=session-1".to_owned(), &[1, 5, 9]),
        ("policy_result=blocked".to_owned(), &[2, 5, 8, 11]),
        ("policy_result=allowed".to_owned(), &[0, 3, 6, 9]),
        ("errors_only=true".to_owned(), &[0, 5, 10]),
        ("errors_only=false&model=o3".to_owned(), &[0, 3, 6, 9]),
        ("start=2026-03-14T08:10:00Z".to_owned(), &[4, 5, 6, 7, 10, 11]),
        ("end=2026-03-14T08:02:00Z".to_owned(), &[0, 1]),
        ("start=2026-03-14T08:01:00Z&end=2026-03-14T08:03:00Z".to_owned(), &[1, 2]),
        ("start=2026-03-14T09:10:00%2B01:00".to_owned(), &[4, 5, 6, 7, 10, 11]),
        ("start=2026-03-15".to_owned(), &[]),
        ("end=2026-03-13".to_owned(), &[]),
        ("start=2026-03-14&end=2026-03-14&model=o3".to_owned(), &[0, 3, 6, 9]),
        (format!("integration_id={odd}&errors_only=true&agent_id=early"), &[5]),
    ] {
        let answer = tenant.founder().get(&page(&query)).await;
        let mut found: Vec<i64> = answer
            .is(200)
            .column("/call_id")
            .iter()
            .map(|call_id| call_id.trim_start_matches("call-").parse().unwrap())
            .collect();
        found.sort_unstable();
        assert_eq!(found, calls, "{query}");
    }
}

#[tokio::test]
async fn the_total_is_shown_where_it_is_known() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let [even, _] = record_twelve(&tenant).await;
    for (query, total) in [
        (String::new(), json!(12)),
        (format!("integration_id={even}"), json!(6)),
        ("errors_only=false".to_owned(), json!(12)),
        ("model=o3".to_owned(), json!(null)),
        ("agent_id=early".to_owned(), json!(null)),
        ("session_id=session-1".to_owned(), json!(null)),
        ("policy_result=blocked".to_owned(), json!(null)),
        ("errors_only=true".to_owned(), json!(null)),
        ("start=2026-03-14".to_owned(), json!(null)),
        ("end=2026-03-14".to_owned(), json!(null)),
    ] {
        let answer = tenant.founder().get(&page(&query)).await;
        assert_eq!(*answer.is(200).at("/meta/total"), total, "{query}");
        assert!(answer.body.contains("\"total\":"), "{query}");
    }
}

#[tokio::test]
async fn paging_by_cursor_keeps_the_filter() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    record_twelve(&tenant).await;
    let first = tenant.founder().get(&page("model=o3&limit=3")).await;
    assert_eq!(first.is(200).at("/meta/has_more"), true);
    let next = format!("model=o3&limit=3&cursor={}", first.text("/meta/next_cursor"));
    let second = tenant.founder().get(&page(&next)).await;
    assert_eq!(second.is(200).column("/call_id"), ["call-0"]);
    assert_eq!(second.at("/meta/has_more"), false);
}

#[tokio::test]
async fn an_invalid_filter_of_the_history_is_refused() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    record_twelve(&tenant).await;
    let cursor = tenant.founder().get(&page("limit=1")).await;
    let cursor = cursor.text("/meta/next_cursor");
    for (query, code, field) in [
        ("limit=0", "INVALID_FIELD", "limit"),
        ("limit=1001", "INVALID_FIELD", "limit"),
        ("limit=-1", "INVALID_FIELD", "limit"),
        ("limit=ten", "INVALID_FIELD", "limit"),
        ("offset=10001", "INVALID_FIELD", "offset"),
        ("offset=-1", "INVALID_FIELD", "offset"),
        ("cursor=nonsense", "INVALID_FIELD", "cursor"),
        ("cursor=AAAAAAAAAAAAAAAAAAAAAA", "INVALID_FIELD", "cursor"),
        (&format!("cursor={cursor}AAAA"), "INVALID_FIELD", "cursor"),
        (&format!("cursor={cursor}&offset=0"), "INVALID_FIELD", "offset"),
        ("policy_result=denied", "INVALID_FIELD", "policy_result"),
        ("errors_only=yes", "INVALID_FIELD", "errors_only"),
        ("start=yesterday", "INVALID_FIELD", "start"),
        ("end=2026-03-14T08:00:00", "INVALID_FIELD", "end"),
        ("integration_id=x", "INVALID_FIELD", "integration_id"),
        ("start_date=2026-03-14", "UNKNOWN_FIELD", "start_date"),
        ("model=a&model=b", "INVALID_FIELD", "model"),
    ] {
        tenant.founder().get(&page(query)).await.refused(422, code).on(field);
    }
}
