//! Panics in a handler: the request gets 500, and no other request is affected.

use axum::Router;
use axum::routing::get;
use bursar_server::auth::access::Access;
use bursar_server::router::router_with;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::databases;
use crate::support::{Client, TestApp};

async fn fails() -> &'static str {
    unreachable!("a fault of the test")
}

#[tokio::test]
async fn a_panic_in_a_handler_returns_500_without_details() {
    let app = TestApp::new();
    let open = Router::new().route("/fails", get(fails));
    let router = router_with(open, Router::new(), Access::AnyCaller, app.app.clone());
    let client = Client::new(router);
    for _ in 0..3 {
        let answer = client.root("/fails").header("x-request-id", "of-the-test").response().await;
        assert_eq!(answer.status(), 500);
        assert_eq!(answer.headers()["x-request-id"], "of-the-test");
        assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["error"]["code"], "INTERNAL", "{body}");
        assert!(!body.to_string().contains("fault of the test"), "{body}");
    }
    client.root("/health/ready").await.is(200);
}

#[tokio::test]
async fn a_change_that_panics_in_the_writer_leaves_the_server_ready() {
    for on_database in databases::each() {
        let app = &on_database.app;
        let tenant = app.tenant("a").await;
        let id = tenant.integration("i", json!({})).await;
        let changed = app.app.ledger.change(None, |_| -> Result<(), bursar_store::StoreError> {
            unreachable!("a fault of the test")
        });
        assert!(changed.await.is_err());
        app.anonymous().root("/health/ready").await.is(200);
        let record = crate::support::record(&id, "after");
        tenant.founder().post("/telemetry/llm-usage").json(&record).await.is(201);
    }
}
