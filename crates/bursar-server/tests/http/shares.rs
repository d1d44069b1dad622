//! Shares of a caller: memory for bodies, and places in the work pool that reads and writes them.

use std::convert::Infallible;
use std::pin::Pin;

use axum::body::Body;
use bursar_core::TenantId;
use bursar_server::http::holder::Holder;
use bursar_server::http::work_pool::{WorkPool, WorkSlot};
use bursar_server::wire::error::ApiError;
use bytes::Bytes;
use futures_util::{FutureExt, stream};
use serde_json::json;
use tokio::sync::mpsc;

use crate::support::{Tenant, TestApp, record};

/// The maximal size of a small body; the share of a tenant is 48 of them.
const ANNOUNCED: usize = 256 * 1024;
const SLOW: usize = 48;
/// Too large to be parsed on a request thread.
const LARGE: usize = 64 * 1024;

/// A body that never arrives; `polled` gets a message when the server starts to read it.
fn stalled(polled: mpsc::UnboundedSender<()>) -> Body {
    Body::from_stream(stream::once(async move {
        polled.send(()).unwrap();
        std::future::pending::<Result<Bytes, Infallible>>().await
    }))
}

#[tokio::test]
async fn slow_bodies_of_one_integration_leave_memory_to_the_rest_of_its_tenant() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let (loud, quiet) =
        (tenant.integration("l", json!({})).await, tenant.integration("q", json!({})).await);
    let (key, other) = (tenant.integration_key(&loud).await, tenant.integration_key(&quiet).await);
    let (polled, mut was_polled) = mpsc::unbounded_channel();
    let slow: Vec<_> = (0..SLOW)
        .map(|_| {
            let (key, body) = (key.clone(), stalled(polled.clone()));
            tokio::spawn(key.stream("/enforcement/check", ANNOUNCED, body))
        })
        .collect();
    // The key of one integration has half of the share. The other bodies are refused unread.
    for _ in 0..SLOW / 2 {
        was_polled.recv().await.unwrap();
    }
    key.post("/telemetry/llm-usage").json(&record(&loud, "a")).await.refused(503, "OVERLOADED");
    other.post("/telemetry/llm-usage").json(&record(&quiet, "b")).await.is(201);
    let api_key = tenant.key(&["*"]).await;
    api_key.post(&format!("/integrations/{loud}/keys")).await.is(201);
    let mut large = json!({ "integration_id": quiet }).to_string();
    large.push_str(&" ".repeat(ANNOUNCED - large.len()));
    api_key.post("/enforcement/check").body(large).await.is(200);
    slow.iter().for_each(tokio::task::JoinHandle::abort);
}

type Waiting<'a> = Pin<Box<dyn Future<Output = Result<WorkSlot, ApiError>> + Send + 'a>>;

/// Takes the whole share of a tenant in a pool: its running and its waiting places.
fn fill<'a>(pool: &'a WorkPool, tenant: &Tenant) -> (Vec<WorkSlot>, Vec<Waiting<'a>>) {
    let holder = Holder::tenant(TenantId::parse(&tenant.id).unwrap(), None);
    let (mut running, mut waiting) = (Vec::new(), Vec::new());
    loop {
        let mut place: Waiting<'a> = Box::pin(pool.enter(holder));
        match place.as_mut().now_or_never() {
            Some(Ok(place)) => running.push(place),
            Some(Err(_)) => return (running, waiting),
            None => waiting.push(place),
        }
    }
}

#[tokio::test]
async fn large_json_is_parsed_off_the_request_threads() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    let founder = tenant.founder();
    let api_key = tenant.new_key(&["*"]).await.text("/data/id").to_owned();
    let made = founder.post(&format!("/integrations/{id}/keys")).await;
    let key = made.is(201).text("/data/id");
    let routes = [
        "/enforcement/check".to_owned(),
        "/enforcement/batch".to_owned(),
        "/enforcement/reservations".to_owned(),
        "/enforcement/reservations/call/extend".to_owned(),
        "/telemetry/llm-usage".to_owned(),
        "/telemetry/llm-usage/batch".to_owned(),
        "/integrations".to_owned(),
        "/keys".to_owned(),
        format!("/keys/{api_key}/rotate"),
        format!("/integrations/{id}/keys"),
        format!("/integrations/{id}/keys/{key}/rotate"),
    ];
    let full = fill(&app.app.bodies.pool, &tenant);
    let check = json!({ "integration_id": id }).to_string();
    founder.post("/enforcement/check").body(check.clone()).await.is(200);
    let padding = " ".repeat(LARGE);
    for route in &routes {
        let answer = founder.post(route).body(format!("{{}}{padding}")).await;
        answer.refused(503, "OVERLOADED");
    }
    drop(full);
    founder.post("/enforcement/check").body(check + &padding).await.is(200);
}

#[tokio::test]
async fn large_responses_to_one_tenant_do_not_block_those_to_others() {
    let app = TestApp::new();
    let (loud, quiet) = (app.tenant("a").await, app.tenant("b").await);
    let (key, other) = (loud.key(&["*"]).await, quiet.key(&["*"]).await);
    let full = fill(&app.app.answers.pool, &loud);
    let lists = [
        "/telemetry/usage-history",
        "/telemetry/usage-summary",
        "/telemetry/daily-aggregates",
        "/telemetry/usage-series",
    ];
    for list in lists {
        key.get(list).await.refused(503, "OVERLOADED");
        other.get(list).await.is(200);
        loud.founder().get(list).await.is(200);
    }
    drop(full);
    key.get(lists[0]).await.is(200);
}
