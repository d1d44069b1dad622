//! A cheap load generator: keep-alive connections on one thread, each with one request at a time.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Failure;

/// Creates the next request, and returns it with its number of records.
pub(crate) type Make<'a> = Box<dyn Fn() -> (Vec<u8>, u64) + 'a>;

/// The result of a run.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) requests: u64,
    pub(crate) records: u64,
    pub(crate) seconds: f64,
    /// Microseconds of each request, sorted.
    pub(crate) latencies: Vec<u32>,
}

impl Run {
    pub(crate) fn rate(&self) -> f64 {
        self.requests as f64 / self.seconds
    }

    pub(crate) fn record_rate(&self) -> f64 {
        self.records as f64 / self.seconds
    }

    /// The latency in milliseconds that this share of the requests does not exceed.
    pub(crate) fn quantile_ms(&self, share: f64) -> f64 {
        let at = ((self.latencies.len() as f64 * share) as usize).min(self.latencies.len() - 1);
        self.latencies.get(at).map_or(0.0, |micros| f64::from(*micros) / 1_000.0)
    }
}

/// Keeps all connections busy for `duration`, spread evenly over the servers.
pub(crate) async fn run(
    addresses: &[&str],
    connections: usize,
    duration: Duration,
    make: &Make<'_>,
) -> Result<Run, Failure> {
    let start = Instant::now();
    let end = start + duration;
    let mut clients: FuturesUnordered<_> = addresses
        .iter()
        .cycle()
        .take(connections)
        .map(|address| client(address, end, make))
        .collect();
    let mut run = Run { requests: 0, records: 0, seconds: 0.0, latencies: Vec::new() };
    while let Some(answers) = clients.next().await {
        for (micros, records) in answers? {
            run.requests += 1;
            run.records += records;
            run.latencies.push(micros);
        }
    }
    run.seconds = start.elapsed().as_secs_f64();
    run.latencies.sort_unstable();
    if run.requests == 0 {
        return Err("no request was answered".into());
    }
    Ok(run)
}

/// The response to one request, with its head.
pub(crate) async fn send(address: &str, make: &Make<'_>) -> Result<String, Failure> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(&make().0).await?;
    let mut buffer = Vec::new();
    read_answer(&mut stream, &mut buffer).await?;
    Ok(String::from_utf8(buffer)?)
}

/// Runs one connection until the end, and returns microseconds and records of each request.
async fn client(address: &str, end: Instant, make: &Make<'_>) -> Result<Vec<(u32, u64)>, Failure> {
    let mut answers = Vec::new();
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(64 * 1024);
    while Instant::now() < end {
        let (request, records) = make();
        let sent = Instant::now();
        stream.write_all(&request).await?;
        let status = read_answer(&mut stream, &mut buffer).await?;
        if !(200..300).contains(&status) {
            let text = String::from_utf8_lossy(&buffer).into_owned();
            return Err(format!("the server answered {status}: {text}").into());
        }
        let micros = u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX);
        answers.push((micros, records));
    }
    Ok(answers)
}

/// Reads one whole response, and returns its status.
async fn read_answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<u16, Failure> {
    buffer.clear();
    loop {
        if stream.read_buf(buffer).await? == 0 {
            return Err("the server closed the connection".into());
        }
        let Some(head) = find(buffer, b"\r\n\r\n") else { continue };
        let text = std::str::from_utf8(buffer.get(..head).unwrap_or_default())?;
        let length = text
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .and_then(|length| length.trim().parse::<usize>().ok())
            .ok_or("an answer without a length")?;
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or("an answer without a status")?;
        while buffer.len() < head + 4 + length {
            if stream.read_buf(buffer).await? == 0 {
                return Err("the server cut an answer".into());
            }
        }
        return Ok(status);
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
