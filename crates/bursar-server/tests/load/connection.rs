//! A cheap client connection: it sends prepared bytes and keeps only the start of a response.

use std::io::{Error, ErrorKind};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The bytes of a body that are kept.
const BODY_MAX: usize = 512;
/// The size of one read.
const PART: usize = 16 * 1024;

pub(crate) struct Connection {
    stream: TcpStream,
    part: Vec<u8>,
}

/// The start of a response.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    head: String,
    body: String,
}

impl Response {
    /// The start of the body.
    pub(crate) fn body(&self) -> &str {
        &self.body
    }

    /// Whether the start of the body contains a text.
    pub(crate) fn contains(&self, text: &str) -> bool {
        self.body().contains(text)
    }

    /// Whether it is the `OVERLOADED` error of docs/api.md.
    pub(crate) fn is_overloaded(&self) -> bool {
        self.head.contains("\r\nretry-after: ")
            && self.contains("\"success\":false")
            && self.contains("\"code\":\"OVERLOADED\"")
    }
}

impl Connection {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self { stream, part: vec![0; PART] }
    }

    pub(crate) async fn send(&mut self, request: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(request).await
    }

    /// Reads one response to its end.
    pub(crate) async fn response(&mut self) -> std::io::Result<Response> {
        let mut received = Vec::new();
        let head_end = loop {
            let read = self.read().await?;
            received.extend_from_slice(&self.part[..read]);
            if let Some(at) = received.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
        };
        let head = String::from_utf8_lossy(&received[..head_end]).to_ascii_lowercase();
        let invalid = || Error::new(ErrorKind::InvalidData, format!("an invalid head: {head:?}"));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.and_then(|length| length.parse().ok()).ok_or_else(invalid)?;
        let status = status.ok_or_else(invalid)?;
        let mut body = received.split_off(head_end);
        let mut missing = length.saturating_sub(body.len());
        while missing > 0 {
            let read = self.read().await?;
            missing = missing.saturating_sub(read);
            if body.len() < BODY_MAX {
                body.extend_from_slice(&self.part[..read]);
            }
        }
        body.truncate(BODY_MAX);
        Ok(Response { status, head, body: String::from_utf8_lossy(&body).into_owned() })
    }

    async fn read(&mut self) -> std::io::Result<usize> {
        match self.stream.read(&mut self.part).await? {
            0 => Err(Error::new(ErrorKind::UnexpectedEof, "the connection was cut")),
            read => Ok(read),
        }
    }
}
