//! SIGTERM under load over HTTP/2: each started request gets a complete response, and acknowledged
//! records are kept.

use std::time::Duration;

use bursar_testing::process::bodies::record;
use bursar_testing::process::folder::Folder;
use bursar_testing::process::server::Server;
use bursar_testing::process::tenant::Tenant;
use bytes::Bytes;
use h2::client::SendRequest;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::timeout;

const CONNECTIONS: usize = 3;
const STREAMS: usize = 8;
/// More requests on one stream after another than the server's shutdown leaves time for.
const STEPS_MAX: usize = 50_000;
/// Records that are acknowledged before the server is terminated.
const ENOUGH: usize = 4 * CONNECTIONS * STREAMS;
const ENOUGH_WITHIN: Duration = Duration::from_secs(30);
/// The maximal duration of a shutdown under this load.
const SHUTDOWN_MAX: Duration = Duration::from_secs(5);

/// The outcomes of the requests of one writer.
#[derive(Default)]
struct Outcomes {
    acknowledged: Vec<Value>,
    /// Refused by the end of the connection, so they are not stored.
    turned_away: Vec<Value>,
}

#[test]
fn a_terminated_server_completes_every_started_http2_stream() {
    let folder = Folder::new();
    let mut server = Server::start(&folder);
    let mut tenant = Tenant::new(&folder, &server);
    let integration = tenant.add_integration(&server, 0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let outcomes = runtime.block_on(async {
        let mut streams = JoinSet::new();
        let (acknowledges, mut acknowledged) = unbounded_channel();
        for connection in 0..CONNECTIONS {
            let sender = connect(server.address()).await;
            for stream in 0..STREAMS {
                let (sender, bearer) = (sender.clone(), tenant.bearer.clone());
                let (integration, acknowledges) = (integration.clone(), acknowledges.clone());
                streams.spawn(async move {
                    let call = |step| format!("{connection}-{stream}-{step}");
                    let records = (0..STEPS_MAX).map(|step| record(&integration, &call(step), 1));
                    write(sender, &bearer, records, &acknowledges).await
                });
            }
        }
        let enough = async {
            for _ in 0..ENOUGH {
                acknowledged.recv().await.expect("a stream that writes");
            }
        };
        timeout(ENOUGH_WITHIN, enough).await.expect("a server that acknowledges");
        server.terminate();
        streams.join_all().await
    });

    assert_eq!(server.wait_for_exit(SHUTDOWN_MAX).code(), Some(0));
    let server = Server::start(&folder);
    let (mut acknowledged, mut turned_away) = (0, 0);
    for Outcomes { acknowledged: kept, turned_away: lost } in &outcomes {
        check(&tenant, &server, kept, "duplicate");
        check(&tenant, &server, lost, "accepted");
        acknowledged += kept.len();
        turned_away += lost.len();
    }
    println!("{acknowledged} records acknowledged, {turned_away} turned away");
    assert!(
        acknowledged >= ENOUGH,
        "only {acknowledged} of at least {ENOUGH} acknowledged records were reported"
    );
    server.stop();
}

async fn connect(address: &str) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.expect("a connection");
    let (sender, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    // Its streams see how it ends.
    tokio::spawn(connection);
    sender
}

/// Sends records until the connection accepts no more.
async fn write(
    sender: SendRequest<Bytes>,
    bearer: &str,
    records: impl Iterator<Item = Value>,
    acknowledges: &UnboundedSender<()>,
) -> Outcomes {
    let mut outcomes = Outcomes::default();
    for record in records {
        let Ok(mut sender) = sender.clone().ready().await else { break };
        let request = hyper::Request::post("http://a/api/v1/telemetry/llm-usage")
            .header("authorization", bearer)
            .body(())
            .expect("a request");
        let Ok((answer, mut body)) = sender.send_request(request, false) else { break };
        if body.send_data(record.to_string().into(), true).is_err() {
            outcomes.turned_away.push(record);
            break;
        }
        let Ok(answer) = answer.await else {
            outcomes.turned_away.push(record);
            break;
        };
        let (head, mut parts) = answer.into_parts();
        let mut text = Vec::new();
        while let Some(part) = parts.data().await {
            text.extend_from_slice(&part.expect("an answer that began is not cut"));
        }
        let text: Value = serde_json::from_slice(&text).expect("a whole answer");
        match head.status.as_u16() {
            201 => {
                outcomes.acknowledged.push(record);
                // The receiver is gone after the server was terminated.
                let _ = acknowledges.send(());
            }
            503 => {
                outcomes.turned_away.push(record);
                break;
            }
            other => panic!("{other}: {text}"),
        }
    }
    outcomes
}

/// Sends records again; the status of each shows whether it was stored.
#[track_caller]
fn check(tenant: &Tenant, server: &Server, records: &[Value], expected: &str) {
    let mut http = tenant.client(server);
    for some in records.chunks(1_000) {
        let body = json!({ "records": some });
        let answer = http.post("/api/v1/telemetry/llm-usage/batch", &body).expect("an answer");
        for result in answer.data("results").as_array().expect("results") {
            assert_eq!(result.get("status"), Some(&json!(expected)), "{result}");
        }
    }
}
