//! A TCP connection on which a test sends arbitrary bytes and observes how the server ends it.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::waiting::within;

/// The timeout of one read or write, so that a test never hangs.
const IO_TIMEOUT: Duration = Duration::from_secs(20);

pub struct RawConnection(TcpStream);

impl RawConnection {
    #[track_caller]
    pub fn open(address: &str) -> Self {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(IO_TIMEOUT)).expect("a timeout");
        stream.set_write_timeout(Some(IO_TIMEOUT)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        Self(stream)
    }

    /// Sends bytes. The server may have closed the connection.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.0.write_all(bytes.as_ref());
    }

    /// Sends bytes, all of which the server must accept.
    #[track_caller]
    pub fn send_all(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).expect("the server accepts the bytes");
    }

    /// Reads one HTTP/1.1 response: its status and the whole text. `None` if the server closed the
    /// connection without one.
    pub fn answer(&mut self) -> Option<(u16, String)> {
        let (mut bytes, mut part) = (Vec::new(), [0; 16 * 1024]);
        let mut extent = Extent::default();
        loop {
            let read = self.0.read(&mut part).unwrap_or_else(|error| {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset, "no answer: {error}");
                0
            });
            bytes.extend_from_slice(&part[..read]);
            if read == 0 || extent.is_reached(&bytes) {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                let status = text.split(' ').nth(1)?.parse().ok()?;
                return Some((status, text));
            }
        }
    }

    /// The status of the next HTTP/1.1 response; `None` if the server closed the connection.
    pub fn status(&mut self) -> Option<u16> {
        self.answer().map(|(status, _)| status)
    }

    /// Reads until `is_done` accepts the bytes, and returns them.
    #[track_caller]
    pub fn read_until(&mut self, is_done: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let (mut bytes, mut part) = (Vec::new(), [0; 16 * 1024]);
        while !is_done(&bytes) {
            let read = self.0.read(&mut part).expect("more to read");
            assert!(read > 0, "closed early, after {:?}", String::from_utf8_lossy(&bytes));
            bytes.extend_from_slice(&part[..read]);
        }
        bytes
    }

    /// Repeats `act` until the server closes the connection. Returns the bytes received until then.
    #[track_caller]
    pub fn read_while(&mut self, limit: Duration, mut act: impl FnMut()) -> Vec<u8> {
        self.0.set_nonblocking(true).expect("set");
        let (mut bytes, mut part) = (Vec::new(), [0; 16 * 1024]);
        let end = within(limit, || {
            act();
            match self.0.read(&mut part) {
                Ok(0) => return Some(()),
                Ok(read) => bytes.extend_from_slice(&part[..read]),
                Err(error) => return (error.kind() != ErrorKind::WouldBlock).then_some(()),
            }
            None
        });
        end.unwrap_or_else(|| panic!("the server kept the connection for {limit:?}"));
        bytes
    }

    /// Waits until the server closes the connection, without further bytes. Returns whether it did
    /// so without a reset.
    pub fn is_closed_cleanly(&mut self) -> bool {
        match self.0.read(&mut [0]) {
            Ok(read) => {
                assert_eq!(read, 0, "the server sent more");
                true
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset, "not closed: {error}");
                false
            }
        }
    }

    /// Reads until the server closes or resets the connection.
    pub fn read_to_end(&mut self) -> Vec<u8> {
        let (mut bytes, mut part) = (Vec::new(), [0; 64 * 1024]);
        loop {
            match self.0.read(&mut part) {
                Ok(0) => return bytes,
                Ok(read) => bytes.extend_from_slice(&part[..read]),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "not closed: {error}");
                    return bytes;
                }
            }
        }
    }

    /// Sends the same bytes repeatedly, without reading, until the server closes the connection.
    /// Returns how long that took.
    #[track_caller]
    pub fn cut_while_sending(&mut self, bytes: &[u8], limit: Duration) -> Duration {
        self.cut_while(limit, || bytes.to_vec())
    }

    /// The same with new bytes each time.
    #[track_caller]
    pub fn cut_while(&mut self, limit: Duration, mut make: impl FnMut() -> Vec<u8>) -> Duration {
        let began = Instant::now();
        self.0.set_write_timeout(Some(Duration::from_millis(50))).expect("a timeout");
        let end = within(limit, || match self.0.write_all(&make()) {
            Ok(()) => None,
            Err(error) => {
                let waits = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
                (!waits).then_some(())
            }
        });
        end.unwrap_or_else(|| panic!("the server accepted bytes for {limit:?}"));
        began.elapsed()
    }

    /// Waits until the server closes the connection, and discards the bytes received until then.
    /// Returns how long that took.
    #[track_caller]
    pub fn cut_while_waiting(&mut self, limit: Duration) -> Duration {
        let began = Instant::now();
        self.0.set_nonblocking(true).expect("set");
        let mut part = [0; 4096];
        let end = within(limit, || match self.0.read(&mut part) {
            Ok(0) => Some(()),
            Ok(_) => None,
            Err(error) => (error.kind() != ErrorKind::WouldBlock).then_some(()),
        });
        end.unwrap_or_else(|| panic!("the server kept the connection for {limit:?}"));
        began.elapsed()
    }
}

/// Where an HTTP/1.1 response ends, as far as that is known.
#[derive(Debug, Default)]
struct Extent {
    /// The bytes parsed so far.
    at: usize,
    body: Body,
}

#[derive(Debug, Default)]
enum Body {
    /// The head is incomplete.
    #[default]
    Unknown,
    /// The end of the connection ends it.
    Open,
    /// It ends after this many bytes of the response.
    To(usize),
    /// The next chunk begins after the parsed bytes.
    Chunks,
}

impl Extent {
    /// Whether the response is complete.
    fn is_reached(&mut self, bytes: &[u8]) -> bool {
        if matches!(self.body, Body::Unknown) {
            let from = self.at.saturating_sub(3);
            let end = bytes[from..].windows(4).position(|part| part == b"\r\n\r\n");
            let Some(end) = end.map(|end| from + end + 4) else {
                self.at = bytes.len();
                return false;
            };
            self.at = end;
            self.body = body(&bytes[..end]);
        }
        match self.body {
            Body::Unknown | Body::Open => false,
            Body::To(end) => bytes.len() >= end,
            Body::Chunks => self.is_after_chunks(bytes),
        }
    }

    fn is_after_chunks(&mut self, bytes: &[u8]) -> bool {
        while let Some(rest) = bytes.get(self.at..) {
            let Some(end) = rest.windows(2).position(|part| part == b"\r\n") else { break };
            let size = std::str::from_utf8(&rest[..end]).expect("the size of a chunk");
            let size = usize::from_str_radix(size, 16).expect("the size of a chunk");
            if size == 0 {
                return rest.len() >= end + 4;
            }
            self.at += end + size + 4;
        }
        false
    }
}

/// How the head delimits the body.
fn body(head: &[u8]) -> Body {
    let text = String::from_utf8_lossy(head).to_ascii_lowercase();
    let field = |name| text.lines().find_map(|line| line.strip_prefix(name));
    if field("transfer-encoding: chunked").is_some() {
        return Body::Chunks;
    }
    let length = field("content-length: ").and_then(|length| length.parse::<usize>().ok());
    length.map_or(Body::Open, |length| Body::To(head.len() + length))
}
