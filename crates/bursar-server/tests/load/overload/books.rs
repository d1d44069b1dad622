//! Checks the acknowledgements of the load clients against the export: each record is stored once.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use bursar_testing::process::tenant::Tenant;
use serde_json::Value;

use crate::overload::load_client::LoadClient;
use crate::overload::plan::{Plan, parse_call_id};

const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// For each client, how often each of its calls is stored.
type Stored = HashMap<usize, Vec<u8>>;

/// Asserts that exactly the acknowledged records are stored, once each, except for those in doubt.
/// Returns the number of acknowledged records.
#[track_caller]
pub(crate) fn check_books(address: &str, tenants: &[Tenant], clients: &[LoadClient]) -> u64 {
    let mut stored = Stored::new();
    for tenant in tenants {
        let listed = read_export(address, &tenant.bearer, &mut stored);
        let summed = total_calls(address, &tenant.bearer);
        assert_eq!(summed, listed, "the sum of a tenant's calls");
    }
    let (mut acknowledged, mut listed) = (0, 0);
    for client in clients {
        let calls = stored.remove(&client.number).unwrap_or_default();
        let (client_acknowledged, found) = check_client(client, &calls);
        acknowledged += client_acknowledged;
        listed += found;
    }
    assert_eq!(stored.len(), 0, "records of clients that do not exist");
    assert!(acknowledged <= listed);
    acknowledged
}

/// The acknowledged and the stored records of a client.
#[track_caller]
fn check_client(client: &LoadClient, stored: &[u8]) -> (u64, u64) {
    let times = |call: u64| stored.get(call as usize).copied().unwrap_or(0);
    let mut plan = Plan::new(client.mix, client.number);
    let (mut acknowledged, mut found) = (0, 0);
    while plan.steps() < client.plan.steps() {
        for call in plan.current_step().records() {
            assert_eq!(times(call), 1, "call {call} of client {}", client.number);
            acknowledged += 1;
        }
        plan.advance();
    }
    found += acknowledged;
    for call in plan.current_step().records() {
        assert!(times(call) <= u8::from(client.in_doubt), "call {call} of {}", client.number);
        found += u64::from(times(call));
    }
    let all: u64 = stored.iter().map(|times| u64::from(*times)).sum();
    assert_eq!(all, found, "records that client {} never sent", client.number);
    (acknowledged, found)
}

/// Reads and counts all records of a tenant from an export.
fn read_export(address: &str, bearer: &str, stored: &mut Stored) -> u64 {
    let mut answer = get(address, bearer, "/api/v1/telemetry/export?format=csv");
    let mut line = String::new();
    while answer.read_line(&mut line).is_ok_and(|read| read > 0) && line != "\r\n" {
        line.clear();
    }
    let mut reader = csv::Reader::from_reader(answer);
    let names = reader.byte_headers().expect("the names of the columns");
    let column = names.iter().position(|name| name == b"call_id").expect("a call id");
    let mut row = csv::ByteRecord::new();
    let mut count = 0;
    while reader.read_byte_record(&mut row).expect("a row") {
        let call_id = row.get(column).and_then(|field| std::str::from_utf8(field).ok());
        let (client, call) = call_id.and_then(parse_call_id).expect("a call of a load client");
        let calls = stored.entry(client).or_default();
        if calls.len() <= call as usize {
            calls.resize(call as usize + 1, 0);
        }
        if let Some(times) = calls.get_mut(call as usize) {
            *times += 1;
        }
        count += 1;
    }
    count
}

fn total_calls(address: &str, bearer: &str) -> u64 {
    let answer = get(address, bearer, "/api/v1/telemetry/usage-summary");
    let body = answer.lines().map(|line| line.expect("a line")).last().expect("a body");
    let body: Value = serde_json::from_str(&body).expect("JSON");
    body.pointer("/data/total_calls").and_then(Value::as_u64).expect("a total")
}

/// Sends a request over HTTP/1.0, whose response ends with the connection.
fn get(address: &str, bearer: &str, path: &str) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(READ_TIMEOUT)).expect("set");
    let request = format!("GET {path} HTTP/1.0\r\nHost: bursar\r\nAuthorization: {bearer}\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    BufReader::with_capacity(256 * 1024, stream)
}
