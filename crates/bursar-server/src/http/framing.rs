//! Finds request boundaries in the bytes of a connection, for two rules that hyper lacks.
//!
//! Lines of HTTP/1.1 must end with CRLF and never with LF alone, and HTTP/2 frames that carry no
//! request are limited. Deliberately absent: everything else about a request. hyper refuses what is
//! not understood here.

/// The opening of every HTTP/2 connection.
pub(super) const HTTP2_OPENING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The header of an HTTP/2 frame: length, type, flags and stream.
const FRAME_HEAD_BYTES: usize = 9;
/// The frame type that carries the body of a request.
const DATA: u8 = 0;
/// The part of a line that is kept when the line arrives in several reads.
const LINE_START_BYTES: usize = 64;

/// The protocol of a connection, and the position of the next byte.
#[derive(Debug)]
pub(super) enum Framing {
    /// This many bytes matched the opening of HTTP/2.
    Unknown(usize),
    Http1(Http1),
    Http2(Http2),
}

/// What a read contained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// The position after a line that ends with LF alone.
    pub(super) bad_line_end: Option<usize>,
    /// Bytes of HTTP/2 frames that carry no body.
    pub(super) frame_bytes: usize,
}

impl Framing {
    pub(super) const fn new() -> Self {
        Self::Unknown(0)
    }

    /// Advances over the bytes of a read.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Found {
        let (version, at) = match self {
            Self::Unknown(seen) => {
                let expected = HTTP2_OPENING.get(*seen..).unwrap_or_default();
                let same = expected.iter().zip(bytes).take_while(|(a, b)| a == b).count();
                if same == expected.len() {
                    (Self::Http2(Http2::default()), same)
                } else if same == bytes.len() {
                    *seen += same;
                    return Found::default();
                } else {
                    let mut http1 = Http1::default();
                    http1.read(HTTP2_OPENING.get(..*seen).unwrap_or_default());
                    (Self::Http1(http1), 0)
                }
            }
            Self::Http1(http1) => {
                return Found { bad_line_end: http1.read(bytes), frame_bytes: 0 };
            }
            Self::Http2(http2) => {
                return Found { bad_line_end: None, frame_bytes: http2.read(bytes) };
            }
        };
        *self = version;
        self.read(bytes.get(at..).unwrap_or_default())
    }
}

/// A connection of HTTP/1.
#[derive(Debug, Default)]
pub(super) struct Http1 {
    part: Part,
    line: Line,
    /// The body length as far as the head has told.
    length: u64,
    is_chunked: bool,
}

/// The part of a request that the next byte belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Part {
    /// Empty lines and then the request line.
    #[default]
    RequestLine,
    Fields,
    Body(u64),
    ChunkSize,
    /// Including its line end.
    Chunk(u64),
    Trailers,
    /// Not understood. hyper ends the connection here.
    Unread,
}

impl Http1 {
    /// Advances over bytes up to a line that ends with LF alone. Returns where it ends.
    fn read(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            match self.part {
                Part::Unread => return None,
                Part::Body(left) => {
                    let skipped = skip(left, rest);
                    at += skipped;
                    self.part = match left - skipped as u64 {
                        0 => Part::RequestLine,
                        left => Part::Body(left),
                    };
                }
                Part::Chunk(left) => {
                    let skipped = skip(left, rest);
                    at += skipped;
                    self.part = match left - skipped as u64 {
                        0 => Part::ChunkSize,
                        left => Part::Chunk(left),
                    };
                }
                Part::RequestLine | Part::Fields | Part::ChunkSize | Part::Trailers => {
                    let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
                        self.line.add(rest);
                        return None;
                    };
                    self.line.add(rest.get(..end).unwrap_or_default());
                    let line = std::mem::take(&mut self.line);
                    at += end;
                    if !line.ends_with_return() || !self.end_line(&line) {
                        return Some(at);
                    }
                    at += 1;
                }
            }
        }
        None
    }

    /// Advances after a line. Returns whether it is well-formed.
    fn end_line(&mut self, line: &Line) -> bool {
        self.part = match self.part {
            Part::RequestLine if line.is_empty() => Part::RequestLine,
            Part::RequestLine => {
                (self.length, self.is_chunked) = (0, false);
                Part::Fields
            }
            Part::Fields if line.is_empty() => match self.length {
                _ if self.is_chunked => Part::ChunkSize,
                0 => Part::RequestLine,
                length => Part::Body(length),
            },
            Part::Fields => return self.read_field(line),
            Part::ChunkSize if line.is_cut() && !line.text().contains(&b';') => return false,
            Part::ChunkSize => match line.chunk_size() {
                Some(0) => Part::Trailers,
                Some(size) => Part::Chunk(size.saturating_add(2)),
                None => Part::Unread,
            },
            Part::Trailers if line.is_empty() => Part::RequestLine,
            other @ (Part::Trailers | Part::Body(_) | Part::Chunk(_) | Part::Unread) => other,
        };
        true
    }

    /// Reads the length of the body from a header field.
    fn read_field(&mut self, line: &Line) -> bool {
        let (name, value) = line.field();
        let is_length = name.eq_ignore_ascii_case(b"content-length");
        if !is_length && !name.eq_ignore_ascii_case(b"transfer-encoding") {
            return true;
        }
        if line.is_cut() {
            return false;
        }
        if !is_length {
            let value = value.to_ascii_lowercase();
            self.is_chunked = value.ends_with(b"chunked");
            return true;
        }
        let length = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
        match length {
            Some(length) => self.length = length,
            None => self.part = Part::Unread,
        }
        true
    }
}

/// How many bytes to skip of a part with `left` bytes left.
fn skip(left: u64, rest: &[u8]) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX).min(rest.len())
}

/// A line without its LF: its length, its beginning and its last byte.
#[derive(Debug)]
struct Line {
    start: [u8; LINE_START_BYTES],
    length: usize,
    last: u8,
}

impl Default for Line {
    fn default() -> Self {
        Self { start: [0; LINE_START_BYTES], length: 0, last: 0 }
    }
}

impl Line {
    fn add(&mut self, bytes: &[u8]) {
        if let Some(room) = self.start.get_mut(self.length..) {
            for (to, from) in room.iter_mut().zip(bytes) {
                *to = *from;
            }
        }
        self.length = self.length.saturating_add(bytes.len());
        self.last = bytes.last().copied().unwrap_or(self.last);
    }

    fn ends_with_return(&self) -> bool {
        self.length > 0 && self.last == b'\r'
    }

    /// Whether the line is empty.
    fn is_empty(&self) -> bool {
        self.length == 1
    }

    fn is_cut(&self) -> bool {
        self.length > LINE_START_BYTES
    }

    fn text(&self) -> &[u8] {
        self.start.get(..self.length.min(LINE_START_BYTES)).unwrap_or(&self.start)
    }

    fn field(&self) -> (&[u8], &[u8]) {
        let text = self.text();
        let colon = text.iter().position(|byte| *byte == b':').unwrap_or(text.len());
        let (name, value) = text.split_at(colon);
        (name, value.strip_prefix(b":").unwrap_or_default().trim_ascii())
    }

    fn chunk_size(&self) -> Option<u64> {
        let text = self.text();
        let size = text.split(|byte| *byte == b';').next()?.trim_ascii();
        let is_hex = !size.is_empty() && size.iter().all(u8::is_ascii_hexdigit);
        let size = std::str::from_utf8(size).ok().filter(|_| is_hex)?;
        u64::from_str_radix(size, 16).ok()
    }
}

/// A connection of HTTP/2.
#[derive(Debug, Default)]
pub(super) struct Http2 {
    head: [u8; FRAME_HEAD_BYTES],
    head_length: usize,
    /// The bytes left of the frame after its header.
    left: usize,
}

impl Http2 {
    /// Advances over frames. Returns the bytes of frames that carry no body.
    ///
    /// h2 limits body frames that are all header.
    fn read(&mut self, mut bytes: &[u8]) -> usize {
        let mut counted = 0;
        while !bytes.is_empty() {
            if self.left > 0 {
                let (skipped, rest) = bytes.split_at(self.left.min(bytes.len()));
                self.left -= skipped.len();
                bytes = rest;
                if self.head.get(3) != Some(&DATA) {
                    counted += skipped.len();
                }
                continue;
            }
            let room = self.head.get_mut(self.head_length..).unwrap_or_default();
            let (taken, rest) = bytes.split_at(room.len().min(bytes.len()));
            for (to, from) in room.iter_mut().zip(taken) {
                *to = *from;
            }
            self.head_length += taken.len();
            bytes = rest;
            if self.head_length == FRAME_HEAD_BYTES {
                counted += self.begin_frame();
            }
        }
        counted
    }

    /// Starts a frame whose header is complete. Returns the bytes that its header counts.
    fn begin_frame(&mut self) -> usize {
        let [high, middle, low, kind, ..] = self.head;
        self.left = u32::from_be_bytes([0, high, middle, low]) as usize;
        self.head_length = 0;
        if kind == DATA { 0 } else { FRAME_HEAD_BYTES }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks that the first bad line ends here, however the bytes are split.
    #[track_caller]
    fn check(text: &str, expected: Option<usize>) {
        let whole = Framing::new().read(text.as_bytes()).bad_line_end;
        assert_eq!(whole, expected, "{text:?}");
        let mut framing = Framing::new();
        let each = text.bytes().position(|byte| framing.read(&[byte]).bad_line_end.is_some());
        assert_eq!(each, expected, "{text:?}");
        for at in 0..text.len() {
            let (first, second) = text.as_bytes().split_at(at);
            let mut framing = Framing::new();
            let found = framing
                .read(first)
                .bad_line_end
                .or_else(|| framing.read(second).bad_line_end.map(|found| found + first.len()));
            assert_eq!(found, expected, "{text:?} cut at {at}");
        }
    }

    const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    #[test]
    fn lines_of_a_head_end_with_a_return_and_a_line_feed() {
        check(GET, None);
        check(&GET.repeat(3), None);
        check("\r\n\r\nGET / HTTP/1.1\r\n\r\n", None);
        check("GET / HTTP/1.1\nHost: a\r\n\r\n", Some(14));
        check("GET / HTTP/1.1\r\nHost: a\n\r\n", Some(23));
        check("GET / HTTP/1.1\r\nHost: a\r\n\n", Some(25));
        check("\nGET / HTTP/1.1\r\n\r\n", Some(0));
        check(&format!("{GET}GET / HTTP/1.1\n"), Some(GET.len() + 14));
        check("PRI * HTTP/2.0\r\n\r\nSN\n", Some(20));
        check("PRI * HTTP/2.0\n", Some(14));
    }

    #[test]
    fn bodies_have_any_bytes_and_what_follows_them_is_a_head_again() {
        let post = "POST / HTTP/1.1\r\nHost: a\r\n";
        let body = format!("{post}content-LENGTH:  4 \r\n\r\na\nb\n");
        check(&body, None);
        check(&format!("{body}{GET}"), None);
        check(&format!("{body}GET / HTTP/1.1\n"), Some(body.len() + 14));
        let chunks = format!(
            "{post}Transfer-Encoding: gzip, Chunked\r\n\r\n2;a=\"b\"\r\n\n\n\r\n0A\r\n\n234567890\r\n"
        );
        check(&format!("{chunks}0\r\n\r\n{GET}"), None);
        check(&format!("{chunks}0\r\nTrailer: a\r\n\r\n{GET}"), None);
        check(&format!("{chunks}0\n"), Some(chunks.len() + 1));
        check(&format!("{chunks}0\r\nTrailer: a\n"), Some(chunks.len() + 13));
        // Chunked encoding overrides a length, as in hyper.
        check(
            &format!("{post}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n\n\n\r\n"),
            None,
        );
    }

    #[test]
    fn what_is_not_understood_is_left_to_hyper() {
        let post = "POST / HTTP/1.1\r\nHost: a\r\n";
        check(&format!("{post}Content-Length: x\r\n\r\n\n"), None);
        check(&format!("{post}Transfer-Encoding: chunked\r\n\r\nzz\r\n\n"), None);
        // A length with too many digits is invalid. It must not hide the rest of the connection.
        let long = format!("{post}Content-Length: {}1\r\n", "0".repeat(80));
        check(&long, Some(long.len() - 1));
        let post = format!("{post}Transfer-Encoding: chunked\r\n\r\n");
        let long = format!("{post}{}5\r\n", "0".repeat(LINE_START_BYTES));
        check(&format!("{long}12345\r\n"), Some(long.len() - 1));
        // A chunk extension may have any length.
        let extended = format!("{post}2;a={}\r\n\n\n\r\n0\r\n\r\n", "b".repeat(80));
        check(&format!("{extended}GET / HTTP/1.1\n"), Some(extended.len() + 14));
    }

    fn frame(kind: u8, length: usize) -> Vec<u8> {
        let size = u32::try_from(length).expect("small").to_be_bytes();
        let mut bytes = vec![size[1], size[2], size[3], kind, 0, 0, 0, 0, 1];
        bytes.extend(vec![b'\n'; length]);
        bytes
    }

    #[test]
    fn frames_without_a_body_are_counted_however_they_are_cut() {
        let frames = [frame(6, 8), frame(0, 1_000), frame(0, 0), frame(0, 4), frame(9, 300)];
        let bytes = [HTTP2_OPENING, &frames.concat()].concat();
        let expected = 17 + 309;
        assert_eq!(
            Framing::new().read(&bytes),
            Found { bad_line_end: None, frame_bytes: expected }
        );
        for length in [1, 2, 5, 9, 100] {
            let mut framing = Framing::new();
            let parts = bytes.chunks(length).map(|part| framing.read(part).frame_bytes);
            assert_eq!(parts.sum::<usize>(), expected, "parts of {length}");
        }
    }
}
