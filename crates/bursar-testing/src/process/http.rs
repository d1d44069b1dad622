//! An HTTP/1.1 client that tells a complete response from a truncated or missing one.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

/// The timeout of one read or write, so that a test never hangs.
const IO_TIMEOUT: Duration = Duration::from_secs(30);

/// A client with one kept connection and the same headers in every request.
pub struct Http {
    address: String,
    headers: String,
    stream: Option<BufReader<TcpStream>>,
}

/// A complete response. A body of plain text is a JSON string.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
}

/// Why there is no response.
#[derive(Debug)]
pub enum NoAnswer {
    /// There was no connection, so nothing was sent.
    NotConnected,
    /// The connection closed before the first byte of a response.
    Unanswered,
    /// The connection closed in the middle of a response.
    Cut(String),
}

impl Answer {
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// A field of the data of a success; null if there is none.
    pub fn data(&self, field: &str) -> &Value {
        self.body.get("data").and_then(|data| data.get(field)).unwrap_or(&Value::Null)
    }

    /// The code of an error; empty for a success.
    pub fn code(&self) -> &str {
        self.body.pointer("/error/code").and_then(Value::as_str).unwrap_or_default()
    }
}

impl Http {
    /// A client of an address, with headers for every request. It connects on the first request.
    pub fn new(address: &str, headers: &[(&str, &str)]) -> Self {
        let mut text = String::new();
        for (name, value) in headers {
            write!(text, "{name}: {value}\r\n").expect("written to a text");
        }
        Self { address: address.to_owned(), headers: text, stream: None }
    }

    pub fn get(&mut self, path: &str) -> Result<Answer, NoAnswer> {
        self.send("GET", path, "")
    }

    pub fn post(&mut self, path: &str, body: &Value) -> Result<Answer, NoAnswer> {
        self.send("POST", path, &body.to_string())
    }

    /// Posts a JSON text.
    pub fn post_text(&mut self, path: &str, body: &str) -> Result<Answer, NoAnswer> {
        self.send("POST", path, body)
    }

    pub fn delete(&mut self, path: &str) -> Result<Answer, NoAnswer> {
        self.send("DELETE", path, "")
    }

    /// Sends a request once. A connection that fails is not used again.
    fn send(&mut self, method: &str, path: &str, body: &str) -> Result<Answer, NoAnswer> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.connect().ok_or(NoAnswer::NotConnected)?,
        };
        let head = self.head(method, path, body);
        // One write, so that the request is one packet. The server may respond early, so there may
        // be a response even if the write fails.
        let _ = stream.get_mut().write_all(format!("{head}{body}").as_bytes());
        let (answer, keep) = read_answer(&mut stream)?;
        if keep {
            self.stream = Some(stream);
        }
        Ok(answer)
    }

    fn connect(&self) -> Option<BufReader<TcpStream>> {
        let stream = TcpStream::connect(&self.address).ok()?;
        stream.set_read_timeout(Some(IO_TIMEOUT)).ok()?;
        stream.set_write_timeout(Some(IO_TIMEOUT)).ok()?;
        stream.set_nodelay(true).ok()?;
        Some(BufReader::new(stream))
    }

    fn head(&self, method: &str, path: &str, body: &str) -> String {
        let Self { address, headers, .. } = self;
        let length = body.len();
        let content = match length {
            0 => String::new(),
            _ => format!("Content-Type: application/json\r\nContent-Length: {length}\r\n"),
        };
        format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\n{headers}{content}\r\n")
    }

    /// Sends only the first half of a request.
    pub fn send_half(&mut self, path: &str, body: &Value) {
        let body = body.to_string();
        let head = self.head("POST", path, &body);
        let half = body.get(..body.len() / 2).unwrap_or_default();
        let mut stream = self.connect().expect("a connection");
        stream.get_mut().write_all(format!("{head}{half}").as_bytes()).expect("written");
        self.stream = Some(stream);
    }
}

/// Reads a response, and whether the connection can be used again.
fn read_answer(stream: &mut BufReader<TcpStream>) -> Result<(Answer, bool), NoAnswer> {
    let mut line = String::new();
    match stream.read_line(&mut line) {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            panic!("no response within {IO_TIMEOUT:?}");
        }
        Ok(_) | Err(_) if line.is_empty() => return Err(NoAnswer::Unanswered),
        Ok(_) | Err(_) => {}
    }
    let cut = |so_far: &str| NoAnswer::Cut(so_far.to_owned());
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| cut(&line))?;
    let (mut length, mut keep, mut is_text, mut has_retry_after) = (None, true, false, false);
    let mut is_chunked = false;
    loop {
        let mut header = String::new();
        if !stream.read_line(&mut header).is_ok_and(|bytes| bytes > 0) || !header.ends_with('\n') {
            return Err(cut(&line));
        }
        let header = header.trim_end().to_ascii_lowercase();
        match header.split_once(':') {
            Some(("content-length", value)) => length = value.trim().parse::<usize>().ok(),
            Some(("content-type", value)) => is_text = value.trim().starts_with("text/plain"),
            Some(("transfer-encoding", value)) => is_chunked = value.trim() == "chunked",
            Some(("connection", value)) => keep = value.trim() != "close",
            Some(("retry-after", _)) => has_retry_after = true,
            Some(_) => {}
            None if header.is_empty() => break,
            None => panic!("{header:?} is not a header"),
        }
    }
    assert!(has_retry_after || status != 503, "{line} has no Retry-After");
    let body = if is_chunked {
        read_chunks(stream).ok_or_else(|| cut(&line))?
    } else {
        let length = length.unwrap_or_else(|| panic!("an answer without a length: {line}"));
        let mut body = vec![0; length];
        stream.read_exact(&mut body).map_err(|_| cut(&line))?;
        body
    };
    if is_text {
        let body = Value::String(String::from_utf8_lossy(&body).into_owned());
        return Ok((Answer { status, body }, keep));
    }
    let body = serde_json::from_slice(&body).unwrap_or_else(|_| {
        panic!("an answer that is not JSON: {}", String::from_utf8_lossy(&body))
    });
    Ok((Answer { status, body }, keep))
}

/// Reads a chunked body; `None` if it is truncated.
fn read_chunks(stream: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        let length = usize::from_str_radix(line.trim(), 16).ok()?;
        let mut chunk = vec![0; length + 2];
        stream.read_exact(&mut chunk).ok()?;
        if length == 0 {
            return Some(body);
        }
        body.extend_from_slice(chunk.get(..length)?);
    }
}
