//! Measures reads of a large store: the history by every filter, series, breakdowns and an export.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Failure;
use crate::client::{self, Run};
use crate::setup::Setup;

/// How long one client repeats each read.
const EACH: Duration = Duration::from_secs(1);

/// The name of each read, and its path after `/api/v1/telemetry/`.
const READS: &[(&str, &str)] = &[
    ("history, first page", "usage-history"),
    ("history, offset 10,000", "usage-history?offset=10000"),
    ("history, 1,000 rows", "usage-history?limit=1000"),
    ("history of an integration", "usage-history?integration_id={integration}"),
    ("history of a common model", "usage-history?model=gpt-4o-1"),
    ("history of a rare model", "usage-history?model=rare-model"),
    ("history of a common agent", "usage-history?agent_id=agent-7"),
    ("history of a rare agent", "usage-history?agent_id=rare-agent"),
    ("history of a session", "usage-history?session_id=session-12345"),
    ("history of errors", "usage-history?errors_only=true"),
    ("history of blocked calls", "usage-history?policy_result=blocked"),
    ("history of a rare model's errors", "usage-history?model=rare-model&errors_only=true"),
    ("history of two that never meet", "usage-history?model=rare-model&agent_id=rare-agent"),
    ("history of an unused model", "usage-history?model=nothing"),
    ("series of 30 days by day and model", "usage-series?group_by=model"),
    (
        "series of 14 days by hour and integration",
        "usage-series?group_by=integration&step=hour&start_date={14 days}",
    ),
    ("breakdown of 30 days by model", "usage-breakdown?by=model"),
    ("breakdown of 30 days by agent", "usage-breakdown?by=agent"),
    (
        "breakdown of a day by session",
        "usage-breakdown?by=session&start_date={1 days}&end_date={1 days}",
    ),
    ("breakdown of 7 days by session", "usage-breakdown?by=session&start_date={6 days}"),
];

/// Runs every read, and reports its latencies.
pub(crate) async fn measure(address: &str, setup: &Setup) -> Result<Vec<(String, Run)>, Failure> {
    let mut runs = Vec::new();
    for (name, path) in READS {
        let path = filled(path, setup)?;
        runs.push(((*name).to_owned(), client::run(&[address], 1, EACH, &setup.get(&path)).await?));
    }
    // A page in the middle of the history, by its cursor.
    let half = filled("usage-history?end={15 days}", setup)?;
    let page = client::send(address, &setup.get(&half)).await?;
    let (_, rest) = page.split_once("\"next_cursor\":\"").ok_or("a page without a cursor")?;
    let (cursor, _) = rest.split_once('"').ok_or("a cursor without an end")?;
    let deep = setup.get(&format!("usage-history?cursor={cursor}"));
    runs.push((
        "history, a page in the middle".to_owned(),
        client::run(&[address], 1, EACH, &deep).await?,
    ));
    Ok(runs)
}

/// Measures entries and bytes per second of an export of three days.
pub(crate) async fn export(
    address: &str,
    setup: &Setup,
    format: &str,
) -> Result<(f64, f64), Failure> {
    let path = filled(&format!("export?format={format}&start={{3 days}}"), setup)?;
    let (request, _) = setup.get(&path)();
    let mut stream = TcpStream::connect(address).await?;
    let start = Instant::now();
    stream.write_all(&request).await?;
    let (mut rows, mut bytes, mut buffer) = (0u64, 0u64, Vec::with_capacity(256 * 1024));
    let mut before = 0;
    loop {
        buffer.clear();
        let read = stream.read_buf(&mut buffer).await?;
        if read == 0 {
            return Err("the export broke off".into());
        }
        bytes += read as u64;
        for byte in &buffer {
            // Chunks end with \r\n, entries without \r.
            rows += u64::from(*byte == b'\n' && before != b'\r');
            before = *byte;
        }
        if buffer.ends_with(b"\r\n0\r\n\r\n") || buffer == b"0\r\n\r\n" {
            break;
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    Ok((rows as f64 / seconds, bytes as f64 / seconds))
}

/// The path with its integration and days filled in.
fn filled(path: &str, setup: &Setup) -> Result<String, Failure> {
    let integration = setup.integration(3).ok_or("no integration")?;
    let mut path = path.replace("{integration}", &integration.to_string());
    let today = bursar_server::wire::timestamps::system_now().day().number();
    for days in [1, 3, 6, 14, 15] {
        let day = bursar_core::Day::from_number(today - days).to_string();
        path = path.replace(&format!("{{{days} days}}"), &day);
    }
    Ok(path)
}
