//! Fuzzing of request framing.

use bursar_testing::fuzzing::{Choices, Effort, Outcome, fuzz};

use super::framing::{Found, Framing, HTTP2_OPENING};

const WORDS: &[&str] = &[
    "\r\n",
    "\n",
    "\r\n\r\n",
    "Content-Length: 3\r\n",
    "content-length:1\r\n",
    "Transfer-Encoding: chunked\r\n",
    "0\r\n\r\n",
    "fffffffffffffffff\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
];

/// A request with random bytes as its body.
fn any_request(choices: &mut Choices<'_>) -> Vec<u8> {
    let body: Vec<u8> = (0..choices.below(40)).map(|_| choices.byte()).collect();
    let mut request = b"POST /a HTTP/1.1\r\nHost: a\r\nX-Any: b\r\n".to_vec();
    if choices.one_in(2) {
        request.extend(format!("Content-Length: {}\r\n\r\n", body.len()).into_bytes());
        request.extend(body);
        return request;
    }
    request.extend(b"transfer-encoding: Chunked\r\n\r\n");
    let size = 1 + choices.below(9);
    for chunk in body.chunks(size) {
        request.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
        request.extend([chunk, b"\r\n"].concat());
    }
    request.extend(b"0\r\nX-Last: c\r\n\r\n");
    request
}

/// Feeds a connection in parts, up to the first line that ends with LF alone.
fn follow(bytes: &[u8], mut length: impl FnMut() -> usize) -> Found {
    let (mut framing, mut at, mut all) = (Framing::new(), 0, Found::default());
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let (part, _) = rest.split_at(length().clamp(1, rest.len()));
        let found = framing.read(part);
        all.frame_bytes += found.frame_bytes;
        if let Some(bad_line_end) = found.bad_line_end {
            all.bad_line_end = Some(at + bad_line_end);
            return all;
        }
        at += part.len();
    }
    all
}

#[test]
fn a_connection_is_followed_the_same_however_its_bytes_are_cut() {
    fuzz(bolero::check!(), Effort::PLAIN, |choices| {
        let requests: Vec<u8> = (0..3).flat_map(|_| any_request(choices)).collect();
        let found = follow(&requests, || 1 + choices.below(30));
        assert_eq!(found, Found::default(), "{}", String::from_utf8_lossy(&requests));
        let mut bytes = choices.mutated_bytes(&requests, WORDS);
        if choices.one_in(4) {
            bytes.splice(0..0, HTTP2_OPENING.iter().copied());
        }
        let whole = follow(&bytes, || usize::MAX);
        let parts = follow(&bytes, || 1 + choices.below(30));
        assert_eq!(parts, whole, "{}", String::from_utf8_lossy(&bytes));
        assert!(whole.frame_bytes <= bytes.len());
        if let Some(at) = whole.bad_line_end {
            assert_eq!(bytes.get(at), Some(&b'\n'));
        }
        if whole.bad_line_end.is_some() { Outcome::Refused } else { Outcome::Accepted }
    });
}
