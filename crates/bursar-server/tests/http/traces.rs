//! Trace headers of requests and responses.

use crate::support::TestApp;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

#[tokio::test]
async fn the_callers_trace_continues_with_a_new_span() {
    let app = TestApp::new();
    let request = app.founder().get("/tenants");
    let request = request.header("traceparent", &format!("00-{TRACE}-{SPAN}-01"));
    let answer = request.header("tracestate", "vendor=1").await;
    let parent = answer.is(200).headers["traceparent"].to_str().unwrap();
    assert!(parent.starts_with(&format!("00-{TRACE}-")) && parent.ends_with("-01"), "{parent}");
    assert!(!parent.contains(SPAN), "{parent}");
    assert_eq!(answer.headers["tracestate"], "vendor=1");
}

#[tokio::test]
async fn an_invalid_trace_is_replaced_by_a_new_one() {
    let app = TestApp::new();
    let mut traces = std::collections::BTreeSet::new();
    for parent in ["", "nonsense", "00-0-0-0", "ff-ff-ff-ff"] {
        let request = app.founder().get("/tenants").header("traceparent", parent);
        let answer = request.header("tracestate", "vendor=1").await;
        let parent = answer.is(200).headers["traceparent"].to_str().unwrap();
        assert_eq!(parent.len(), 55, "{parent}");
        assert!(parent.ends_with("-00"), "{parent}");
        assert!(!answer.headers.contains_key("tracestate"));
        traces.insert(parent.to_owned());
    }
    assert_eq!(traces.len(), 4);
    let failed = app.anonymous().get("/no/such/route").await;
    assert!(failed.refused(404, "ROUTE_NOT_FOUND").headers.contains_key("traceparent"));
}
