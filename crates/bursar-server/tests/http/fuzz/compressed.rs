//! Compressed bodies.

use std::io::Write;

use axum::http::{HeaderMap, HeaderValue, Method, Uri, header};
use bursar_testing::fuzzing::{Choices, Effort, Outcome, fuzz};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;

use crate::fuzz::responses::check_response;
use crate::fuzz::server::{Server, bearer};

/// Compresses a body at a random level, with random flushes.
fn compress(bytes: &[u8], choices: &mut Choices<'_>) -> Vec<u8> {
    let level = Compression::new(u32::try_from(choices.below(10)).expect("small"));
    let mut encoder = GzEncoder::new(Vec::new(), level);
    let flush_every = 1 + choices.below(200);
    let flushes = choices.one_in(3);
    for part in bytes.chunks(flush_every) {
        encoder.write_all(part).expect("compressed");
        if flushes {
            encoder.flush().expect("compressed");
        }
    }
    encoder.finish().expect("compressed")
}

fn any_body(choices: &mut Choices<'_>, integration_id: &str) -> String {
    let known = format!("{{\"integration_id\":\"{integration_id}\",\"estimated_tokens\":1}}");
    let mut text = choices.mutated(&known, &["\"", "{", ",\"estimated_cost_cents\":1.5", "0"]);
    if choices.one_in(30) {
        text.push_str(&" ".repeat(300_000));
    }
    text
}

#[test]
fn a_compressed_body_is_answered_like_a_plain_one_and_a_corrupt_one_refused() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let server = Server::new();
    let known = runtime.block_on(server.create_known());
    let integration_id = known.integrations.first().expect("there is one").as_str();
    let uri = Uri::from_static("/api/v1/enforcement/check");
    let send = |body: Vec<u8>, encoding: Option<&'static str>| {
        let mut headers: HeaderMap = bearer(&known.api_key);
        if let Some(encoding) = encoding {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
        }
        let reply = runtime.block_on(server.send(Method::POST, uri.clone(), headers, body));
        check_response(&Method::POST, uri.path(), &reply);
        reply
    };
    fuzz(bolero::check!(), Effort { inputs: 300, ..Effort::PLAIN }, |choices| {
        let body = any_body(choices, integration_id).into_bytes();
        let plain = send(body.clone(), None);
        // As one gzip member or two, which are one body too.
        let (first, second) = body.split_at(choices.below(body.len() + 1));
        let mut compressed = compress(first, choices);
        compressed.extend(compress(second, choices));
        let decompressed = send(compressed.clone(), Some(choices.one_of(&["gzip", "x-gzip"])));
        assert_eq!(decompressed.status, plain.status, "{}", decompressed.body);
        let error = |json: &Value| json.get("error").cloned();
        assert_eq!(error(&decompressed.json), error(&plain.json));
        let broken = send(choices.mutated_bytes(&compressed, &["\x1f"]), Some("gzip"));
        if broken.status.is_success() { Outcome::Accepted } else { Outcome::Refused }
    });
    runtime.block_on(server.close_and_verify());
}
