//! Bodies that are not JSON, too large, nested too deeply or compressed.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;

use crate::support::{ApiResponse, Client, Tenant, record, set_up};

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

async fn calls(tenant: &Tenant) -> i64 {
    let summary = tenant.founder().get("/telemetry/usage-summary").await;
    summary.is(200).at("/data/total_calls").as_i64().unwrap()
}

async fn send(founder: &Client, path: &str, body: impl Into<Vec<u8>>) -> ApiResponse {
    founder.post(path).body(body).await
}

#[tokio::test]
async fn invalid_json_is_refused_and_not_stored() {
    let (_app, tenant, _) = set_up().await;
    for path in [
        "/integrations",
        "/keys",
        "/telemetry/llm-usage",
        "/telemetry/llm-usage/batch",
        "/enforcement/check",
        "/enforcement/batch",
        "/enforcement/reservations",
    ] {
        for body in ["", " ", "{", "not json", "{'name':'n'}", "\u{feff}{}"] {
            let answer = send(&tenant.founder(), path, body).await;
            answer.refused(400, "INVALID_JSON");
            assert!(!answer.text("/error/message").is_empty());
        }
    }
    for body in [
        r#"{"name":"n","provider_type":"openai"} x"#,
        r#"{"name":"n","provider_type":"openai",}"#,
        r#"{"name":NaN,"provider_type":"openai"}"#,
        r#"{"name":"n\ud800","provider_type":"openai"}"#,
    ] {
        send(&tenant.founder(), "/integrations", body).await.refused(400, "INVALID_JSON");
    }
    let empty = send(&tenant.founder(), "/integrations", "").await;
    assert_eq!(empty.text("/error/message"), "The body is empty. It must be a JSON object.");
    assert_eq!(tenant.founder().get("/integrations").await.at("/meta/total"), 1);
    assert_eq!(calls(&tenant).await, 0);
}

#[tokio::test]
async fn invalid_utf_8_is_refused_and_not_stored() {
    let (_app, tenant, id) = set_up().await;
    let mut single = record(&id, "c").to_string().into_bytes();
    let at = single.windows(6).position(|part| part == b"gpt-4o").unwrap();
    single[at] = 0xff;
    let batch = [b"{\"records\":[", single.as_slice(), b"]}"].concat();
    for (path, body) in [
        ("/telemetry/llm-usage", single),
        ("/telemetry/llm-usage/batch", batch),
        ("/integrations", b"{\"name\":\"\xc3\x28\",\"provider_type\":\"openai\"}".to_vec()),
    ] {
        let answer = send(&tenant.founder(), path, body).await;
        answer.refused(400, "INVALID_JSON");
        assert!(answer.text("/error/message").contains("UTF-8"));
    }
    assert_eq!(calls(&tenant).await, 0);
}

#[tokio::test]
async fn a_body_that_is_not_an_object_is_refused() {
    let (_app, tenant, _) = set_up().await;
    for path in ["/integrations", "/telemetry/llm-usage", "/enforcement/check"] {
        for body in ["null", "1", "\"text\"", "true"] {
            let answer = send(&tenant.founder(), path, body).await;
            answer.refused(422, "INVALID_FIELD");
            assert!(answer.text("/error/message").starts_with("The body must be"));
        }
    }
}

/// JSON of this depth.
fn nested(depth: usize) -> String {
    format!("{}1{}", "[".repeat(depth), "]".repeat(depth))
}

#[tokio::test]
async fn deeply_nested_json_is_refused() {
    let (_app, tenant, id) = set_up().await;
    let founder = tenant.founder();
    let deep = nested(100_000);
    let answer = send(&founder, "/telemetry/llm-usage", deep.clone()).await;
    assert!(answer.status.is_client_error(), "{}", answer.body);
    let config = format!(r#"{{"name":"n","provider_type":"openai","config":{{"a":{deep}}}}}"#);
    let answer = send(&founder, "/integrations", config).await;
    answer.refused(400, "INVALID_JSON");
    assert!(answer.text("/error/message").contains("nested more than 64 levels deep"));
    let base = record(&id, "c").to_string();
    let open = base.trim_end_matches('}');
    // Unknown fields are ignored, but not at any depth.
    let unknown = format!("{open},\"unknown\":{deep}}}");
    for name in ["metadata", "unknown"] {
        let body = |depth| format!("{open},\"{name}\":{{\"a\":{}}}}}", nested(depth));
        let answer = send(&founder, "/telemetry/llm-usage", body(63)).await;
        answer.refused(400, "INVALID_JSON");
        assert!(answer.text("/error/message").contains("nested more than 64 levels deep"));
    }
    // In a batch it affects no other record.
    let batch = format!("{{\"records\":[{unknown},{base}],\"unknown\":{deep}}}");
    let answer = send(&founder, "/telemetry/llm-usage/batch", batch).await;
    assert_eq!(answer.is(200).text("/data/results/0/error/code"), "INVALID_JSON");
    assert_eq!(answer.at("/data/accepted"), 1);
    let metadata = format!("{open},\"metadata\":{{\"a\":{}}}}}", nested(62));
    send(&founder, "/telemetry/llm-usage", metadata).await.is(200);
    assert_eq!(calls(&tenant).await, 1);
}

#[tokio::test]
async fn a_body_over_its_size_limit_is_refused_and_not_stored() {
    let (_app, tenant, id) = set_up().await;
    let founder = tenant.founder();
    for (path, bound) in [
        ("/telemetry/llm-usage", 256 * 1024),
        ("/telemetry/llm-usage/batch", 8 * 1024 * 1024),
        ("/integrations", 256 * 1024),
        ("/enforcement/check", 256 * 1024),
        ("/enforcement/reservations", 256 * 1024),
    ] {
        let body = match path {
            "/telemetry/llm-usage" => record(&id, "c"),
            "/telemetry/llm-usage/batch" => json!({ "records": [record(&id, "c")] }),
            "/integrations" => json!({ "name": "n", "provider_type": "openai" }),
            "/enforcement/check" => json!({ "integration_id": id }),
            _ => json!({ "integration_id": id, "call_id": "r" }),
        };
        let fill = |bytes: usize| {
            let body = body.to_string();
            format!("{body}{}", " ".repeat(bytes - body.len()))
        };
        let before = calls(&tenant).await;
        let answer = send(&founder, path, fill(bound + 1)).await;
        answer.refused(413, "BODY_TOO_LARGE");
        let packed = founder.post(path).header("content-encoding", "gzip");
        packed.body(gzip(fill(bound + 1).as_bytes())).await.refused(413, "BODY_TOO_LARGE");
        assert_eq!(calls(&tenant).await, before);
        assert!(send(&founder, path, fill(bound)).await.status.is_success());
    }
}

#[tokio::test]
async fn a_gzip_body_is_decompressed() {
    let (_app, tenant, id) = set_up().await;
    for (encoding, call_id) in [("gzip", "a"), ("x-gzip", "b")] {
        let packed = gzip(record(&id, call_id).to_string().as_bytes());
        let request = tenant.founder().post("/telemetry/llm-usage").body(packed);
        request.header("content-encoding", encoding).await.is(201);
    }
    // A gzip file of several members is one body.
    let batch = json!({ "records": [record(&id, "c")] }).to_string();
    let (head, tail) = batch.split_at(20);
    let packed = [gzip(head.as_bytes()), gzip(tail.as_bytes())].concat();
    let request = tenant.founder().post("/telemetry/llm-usage/batch").body(packed);
    request.header("content-encoding", "gzip").await.is(200);
    let plain = tenant.founder().post("/telemetry/llm-usage").json(&record(&id, "d"));
    plain.header("content-encoding", "identity").await.is(201);
    assert_eq!(calls(&tenant).await, 4);
}

#[tokio::test]
async fn a_corrupt_gzip_body_is_refused_and_not_stored() {
    let (_app, tenant, id) = set_up().await;
    let whole = gzip(record(&id, "c").to_string().as_bytes());
    let mut damaged = whole.clone();
    let middle = damaged.len() - 6;
    damaged[middle] ^= 0xff;
    for body in [
        record(&id, "c").to_string().into_bytes(),
        whole[..whole.len() - 4].to_vec(),
        whole[..10].to_vec(),
        damaged,
        [whole.as_slice(), b"rest"].concat(),
    ] {
        let request = tenant.founder().post("/telemetry/llm-usage").body(body);
        let answer = request.header("content-encoding", "gzip").await;
        answer.refused(400, "INVALID_JSON");
    }
    assert_eq!(calls(&tenant).await, 0);
}

#[tokio::test]
async fn a_gzip_bomb_is_refused_at_the_size_limit() {
    let (_app, tenant, _) = set_up().await;
    // Four times the largest limit, in about 30 kB.
    let bomb = gzip(&vec![b' '; 32 * 1024 * 1024]);
    for path in ["/telemetry/llm-usage", "/telemetry/llm-usage/batch", "/integrations"] {
        let request = tenant.founder().post(path).body(bomb.clone());
        request.header("content-encoding", "gzip").await.refused(413, "BODY_TOO_LARGE");
    }
    assert_eq!(calls(&tenant).await, 0);
}

#[tokio::test]
async fn an_unsupported_content_type_or_encoding_is_refused() {
    let (_app, tenant, id) = set_up().await;
    let body = record(&id, "c").to_string();
    for (name, value) in [
        ("content-type", "text/plain"),
        ("content-type", "application/x-www-form-urlencoded"),
        ("content-type", "application/jsonp"),
        ("content-type", ""),
        ("content-encoding", "br"),
        ("content-encoding", "gzip, gzip"),
    ] {
        let request = tenant.founder().post("/telemetry/llm-usage").header(name, value);
        request.body(body.clone()).await.refused(415, "UNSUPPORTED_MEDIA_TYPE");
    }
    assert_eq!(calls(&tenant).await, 0);
    for value in ["application/json; charset=utf-8", "Application/JSON", "application/vnd.x+json"] {
        let request = tenant.founder().post("/telemetry/llm-usage").header("content-type", value);
        request.body(body.clone()).await.is(if value.contains("utf") { 201 } else { 200 });
    }
}
