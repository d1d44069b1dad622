//! A connection of a client that is as cheap as it can be: prepared bytes out, the beginning of an
//! answer in.

use std::io::{Error, ErrorKind};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How much of an answer's body is looked at.
const BODY_MAX: usize = 512;
/// How much is read at once.
const PART: usize = 16 * 1024;

/// A connection.
pub(crate) struct Line {
    stream: TcpStream,
    part: Vec<u8>,
}

/// The beginning of an answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    body: String,
}

impl Answer {
    /// The beginning of its body.
    pub(crate) fn body(&self) -> &str {
        &self.body
    }

    /// Whether the beginning of its body has a text.
    pub(crate) fn says(&self, text: &str) -> bool {
        self.body().contains(text)
    }

    /// Whether it says, as docs/api.md says, that there is too much and when to come again.
    pub(crate) fn is_refusal(&self) -> bool {
        self.head.contains("\r\nretry-after: ")
            && self.says("\"success\":false")
            && self.says("\"code\":\"OVERLOADED\"")
    }
}

impl Line {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self { stream, part: vec![0; PART] }
    }

    pub(crate) async fn send(&mut self, request: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(request).await
    }

    /// Reads one answer to its end.
    pub(crate) async fn answer(&mut self) -> std::io::Result<Answer> {
        let mut begun = Vec::new();
        let head_end = loop {
            let read = self.read().await?;
            begun.extend_from_slice(&self.part[..read]);
            if let Some(at) = begun.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
        };
        let head = String::from_utf8_lossy(&begun[..head_end]).to_ascii_lowercase();
        let odd = || Error::new(ErrorKind::InvalidData, format!("a head that is {head:?}"));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.and_then(|length| length.parse().ok()).ok_or_else(odd)?;
        let status = status.ok_or_else(odd)?;
        let mut body = begun.split_off(head_end);
        let mut missing = length.saturating_sub(body.len());
        while missing > 0 {
            let read = self.read().await?;
            missing = missing.saturating_sub(read);
            if body.len() < BODY_MAX {
                body.extend_from_slice(&self.part[..read]);
            }
        }
        body.truncate(BODY_MAX);
        Ok(Answer { status, head, body: String::from_utf8_lossy(&body).into_owned() })
    }

    async fn read(&mut self) -> std::io::Result<usize> {
        match self.stream.read(&mut self.part).await? {
            0 => Err(Error::new(ErrorKind::UnexpectedEof, "the connection was cut")),
            read => Ok(read),
        }
    }
}
