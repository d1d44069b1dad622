//! A connection on which a test sends any bytes it likes, and sees how it ends.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::within;

/// How long one answer may take: longer than any does, so that a test never hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection.
pub(crate) struct Wire(TcpStream);

impl Wire {
    #[track_caller]
    pub(crate) fn open(address: &str) -> Self {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        Self(stream)
    }

    /// Sends bytes, unless the server has ended the connection.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.0.write_all(bytes.as_ref());
    }

    /// Reads one answer of HTTP/1.1: its status and the whole of its text. Nothing when the server
    /// ended the connection without one.
    pub(crate) fn answer(&mut self) -> Option<(u16, String)> {
        let mut bytes = Vec::new();
        loop {
            let mut part = [0; 4096];
            let read = self.0.read(&mut part).unwrap_or_else(|error| {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset, "no answer: {error}");
                0
            });
            bytes.extend_from_slice(&part[..read]);
            let text = String::from_utf8_lossy(&bytes);
            let status = || text.split(' ').nth(1)?.parse().ok();
            if read == 0 {
                return Some((status()?, text.into_owned()));
            }
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|line| {
                line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok()
            });
            if length.is_some_and(|length| body.len() >= length) {
                return Some((status()?, text.into_owned()));
            }
        }
    }

    /// Reads until what came is as it should be, and gives it.
    #[track_caller]
    pub(crate) fn read_until(&mut self, is_done: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let (mut bytes, mut part) = (Vec::new(), [0; 16 * 1024]);
        while !is_done(&bytes) {
            let read = self.0.read(&mut part).expect("more to read");
            assert!(read > 0, "an early end, after {:?}", String::from_utf8_lossy(&bytes));
            bytes.extend_from_slice(&part[..read]);
        }
        bytes
    }

    /// Reads to the end of the connection, whatever way it ends.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let (mut bytes, mut part) = (Vec::new(), [0; 64 * 1024]);
        loop {
            match self.0.read(&mut part) {
                Ok(0) => return bytes,
                Ok(read) => bytes.extend_from_slice(&part[..read]),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "no end: {error}");
                    return bytes;
                }
            }
        }
    }

    /// Sends the same bytes again and again until the server ends the connection, without reading
    /// what it answers. Says how long that took.
    #[track_caller]
    pub(crate) fn cut_while_sending(&mut self, bytes: &[u8], limit: Duration) -> Duration {
        self.cut_while(limit, || bytes.to_vec())
    }

    /// The same with bytes that are made each time.
    #[track_caller]
    pub(crate) fn cut_while(
        &mut self,
        limit: Duration,
        mut make: impl FnMut() -> Vec<u8>,
    ) -> Duration {
        let began = Instant::now();
        self.0.set_write_timeout(Some(Duration::from_millis(50))).expect("a timeout");
        let end = within(limit, || match self.0.write_all(&make()) {
            Ok(()) => None,
            Err(error) => {
                let waits = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
                (!waits).then_some(())
            }
        });
        end.unwrap_or_else(|| panic!("the server took it for {limit:?}"));
        began.elapsed()
    }

    /// Waits for the server to end the connection, reading what it says before. Says how long that
    /// took.
    #[track_caller]
    pub(crate) fn cut_while_waiting(&mut self, limit: Duration) -> Duration {
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
