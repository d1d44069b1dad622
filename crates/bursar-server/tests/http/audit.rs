//! The audit log as the operator reads it, and its file.

use bursar_server::api::tenants::audit_view::AuditView;
use bursar_store::AuditCheck;
use serde_json::{Value, json};

use crate::support::{Tenant, TestApp};

/// A tenant with an integration that was created, enabled and renamed, a second apart.
async fn tenant_with_changes(app: &TestApp) -> (Tenant, String) {
    let tenant = app.tenant("a").await;
    app.clock.advance(1);
    let draft = json!({ "name": "i", "provider_type": "openai" });
    let made = tenant.founder().post("/integrations").json(&draft).await;
    let id = made.is(201).text("/data/id").to_owned();
    app.clock.advance(1);
    tenant.founder().post(&format!("/integrations/{id}/enable")).await.is(200);
    app.clock.advance(1);
    let path = format!("/integrations/{id}");
    let founder = tenant.founder().with("x-request-id", "request-of-the-test");
    founder.patch(&path).json(&json!({ "budget_limit_cents": 5 })).await.is(200);
    (tenant, id)
}

const ACTIONS: [&str; 4] =
    ["integration.update", "integration.enable", "integration.create", "tenant.create"];

#[tokio::test]
async fn every_change_is_listed_with_its_actor() {
    let app = TestApp::new();
    let (tenant, id) = tenant_with_changes(&app).await;
    let log = tenant.founder().get("/audit").await;
    assert_eq!(log.is(200).column("/action"), ACTIONS);
    let row = log.at("/data/0");
    for (field, expected) in [
        ("tenant_id", json!(tenant.id)),
        ("sequence", json!(4)),
        ("at", json!("2026-03-14T09:26:56Z")),
        ("actor_type", json!("founder")),
        ("actor_id", json!("operator")),
        // The tests call the router directly, so there is no peer address.
        ("address", Value::Null),
        ("target_type", json!("integration")),
        ("target_id", json!(id)),
        ("request_id", json!("request-of-the-test")),
        ("prev_hash", log.at("/data/1/hash").clone()),
    ] {
        assert_eq!(row[field], expected, "{field}");
    }
    assert_eq!(row["detail"]["fields"], json!(["budget_limit_cents"]), "{row}");
    assert_eq!(log.at("/data/3/prev_hash"), &json!("0".repeat(64)));
    assert_eq!(log.at("/meta/total"), &Value::Null);
    assert_eq!(log.at("/meta/has_more"), &json!(false));
}

#[tokio::test]
async fn the_audit_log_is_paged_by_cursor() {
    let app = TestApp::new();
    let (tenant, _) = tenant_with_changes(&app).await;
    let founder = tenant.founder();
    for limit in 1..=5 {
        let (mut seen, mut path) = (Vec::new(), format!("/audit?limit={limit}"));
        loop {
            let page = founder.get(&path).await;
            let actions = page.is(200).column("/action");
            assert!(actions.len() <= limit, "{limit}");
            seen.extend(actions.into_iter().map(str::to_owned));
            let Some(cursor) = page.at("/meta/next_cursor").as_str() else { break };
            path = format!("/audit?limit={limit}&cursor={cursor}");
        }
        assert_eq!(seen, ACTIONS, "{limit}");
    }
}

#[tokio::test]
async fn filters_select_rows_of_the_audit_log() {
    let app = TestApp::new();
    let (tenant, id) = tenant_with_changes(&app).await;
    let founder = tenant.founder();
    for (query, expected) in [
        ("actor_id=operator".to_owned(), &ACTIONS[..]),
        ("actor_id=nobody".to_owned(), &[]),
        ("action=integration.enable".to_owned(), &ACTIONS[1..2]),
        ("target_type=tenant".to_owned(), &ACTIONS[3..]),
        (format!("target_id={id}&action=integration.create"), &ACTIONS[2..3]),
        ("start=2026-03-14T09:26:55Z".to_owned(), &ACTIONS[..2]),
        ("start=2026-03-14&end=2026-03-14T09:26:54Z".to_owned(), &ACTIONS[3..]),
        ("end=2026-03-13".to_owned(), &[]),
    ] {
        let log = founder.get(&format!("/audit?{query}")).await;
        assert_eq!(log.is(200).column("/action"), expected, "{query}");
    }
}

#[tokio::test]
async fn an_invalid_filter_of_the_audit_log_is_refused_by_field() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("cursor=x", "cursor"),
        ("start=soon", "start"),
        ("actor=a", "actor"),
    ] {
        let refused = tenant.founder().get(&format!("/audit?{query}")).await;
        assert_eq!(refused.status, 422, "{query}");
        refused.on(field);
    }
    let refused = tenant.founder().get("/audit/export?limit=1").await;
    refused.refused(422, "UNKNOWN_FIELD").on("limit");
}

#[tokio::test]
async fn a_tenant_sees_only_its_own_audit_log_and_no_key_can_read_it() {
    let app = TestApp::new();
    let (owner, _) = tenant_with_changes(&app).await;
    let other = app.tenant("b").await;
    let log = other.founder().get("/audit").await;
    assert_eq!(log.is(200).column("/action"), ["tenant.create"]);
    assert_eq!(log.at("/data/0/sequence"), &json!(1));
    let key = owner.key(&["*"]).await;
    for path in ["/audit", "/audit/export"] {
        key.get(path).await.refused(403, "FORBIDDEN");
        app.founder().get(path).await.refused(400, "TENANT_REQUIRED");
        app.anonymous().get(path).await.refused(401, "UNAUTHENTICATED");
    }
}

#[tokio::test]
async fn an_exported_audit_log_can_be_verified_alone() {
    let app = TestApp::new();
    let (tenant, _) = tenant_with_changes(&app).await;
    tenant.key(&["*"]).await;
    let file = tenant.founder().get("/audit/export").await;
    assert_eq!(file.status, 200);
    assert_eq!(file.headers["content-type"], "application/x-ndjson");
    assert_eq!(file.headers["content-disposition"], "attachment; filename=\"audit.ndjson\"");
    let lines: Vec<&str> = file.body.lines().collect();
    let listed = tenant.founder().get("/audit").await;
    let rows: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let newest_first: Vec<&Value> = rows.iter().rev().collect();
    let listed: Vec<&Value> = listed.data().as_array().unwrap().iter().collect();
    assert_eq!(newest_first, listed);

    let check = |lines: &[&str]| {
        let read = |line: &&str| serde_json::from_str::<AuditView>(line).unwrap().entry().unwrap();
        let entries: Vec<_> = lines.iter().map(read).collect();
        let mut check = AuditCheck::new(entries[0].tenant_id);
        entries.iter().for_each(|entry| check.check(entry));
        check.finish()
    };
    let whole = check(&lines);
    assert_eq!((whole.rows, whole.differences.count), (6, 0), "{:?}", whole.differences.listed);
    let edited = lines[2].replace("\"founder\"", "\"machine\"");
    let tampered = [lines[0], lines[1], &edited, lines[3], lines[5]];
    let found = check(&tampered);
    assert_eq!(found.differences.count, 2, "{:?}", found.differences.listed);
}

#[tokio::test]
async fn a_line_separator_in_a_name_does_not_split_an_exported_row() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    tenant.integration("one\u{2028}two\u{2029}three", json!({})).await;
    let file = tenant.founder().get("/audit/export").await;
    assert!(!file.body.contains(['\u{2028}', '\u{2029}']), "{}", file.body);
    let row: Value = serde_json::from_str(file.body.lines().nth(1).unwrap()).unwrap();
    assert_eq!(row["detail"]["name"], "one\u{2028}two\u{2029}three");
}

#[tokio::test]
async fn a_long_audit_log_is_exported_whole() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let path = format!("/tenants/{}", tenant.id);
    for number in 0..2_100 {
        let name = json!({ "name": format!("name {number}") });
        app.founder().patch(&path).json(&name).await.is(200);
    }
    let file = tenant.founder().get("/audit/export").await;
    let sequences: Vec<i64> = file
        .body
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["sequence"].as_i64().unwrap())
        .collect();
    assert_eq!(sequences, (1..=2_101).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_operator_can_read_the_audit_log_of_a_terminated_tenant() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    app.founder().post(&format!("/tenants/{}/terminate", tenant.id)).await.is(200);
    let log = tenant.founder().get("/audit").await;
    assert_eq!(log.is(200).column("/action"), ["tenant.terminate", "tenant.create"]);
}
