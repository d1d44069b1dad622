//! The deadlines and the idleness of connections.

use std::time::Duration;

use tokio::time::Instant;

use super::deadline::{CANCELED_MAX, STRAY_BYTES_MAX};
use super::{CutReason, Idleness, Progress};
use crate::http::framing::HTTP2_OPENING;
use crate::http::limits::Deadlines;

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const DEADLINES: Deadlines =
    Deadlines { header: seconds(10), idle: seconds(75), write: seconds(30) };

fn opened() -> (Progress, Instant) {
    let now = Instant::now();
    (Progress::new(DEADLINES, now), now)
}

#[track_caller]
fn check(progress: &Progress, expected: Option<(Instant, CutReason)>) {
    assert_eq!(progress.due(), expected);
}

#[test]
fn a_connection_without_a_request_is_idle() {
    let (progress, start) = opened();
    check(&progress, Some((start + seconds(75), CutReason::Idle)));
    progress.begin_request();
    check(&progress, None);
    progress.end_request(start + seconds(5));
    check(&progress, Some((start + seconds(80), CutReason::Idle)));
}

#[test]
fn the_deadline_of_a_head_starts_at_its_first_byte() {
    let (progress, start) = opened();
    for (after, byte) in b"POST".iter().enumerate() {
        progress.read(&[*byte], start + seconds(3 + after as u64));
    }
    check(&progress, Some((start + seconds(13), CutReason::SlowHead)));
    progress.begin_request();
    progress.read(b"more", start + seconds(6));
    progress.end_request(start + seconds(7));
    check(&progress, Some((start + seconds(82), CutReason::Idle)));
}

#[test]
fn http2_frames_are_not_a_head_but_the_opening_has_a_deadline() {
    let (progress, start) = opened();
    progress.read(b"PR", start);
    check(&progress, Some((start + seconds(10), CutReason::SlowHead)));
    progress.read(b"I * HTTP/2.0\r\n\r\nSM\r\n\r\n", start + seconds(1));
    progress.read(b"a frame", start + seconds(70));
    check(&progress, Some((start + seconds(75), CutReason::Idle)));
}

#[test]
fn a_client_that_reads_nothing_is_cut_and_one_that_reads_something_is_not() {
    let (progress, start) = opened();
    progress.begin_request();
    let answer = progress.begin_answer(start);
    check(&progress, Some((start + seconds(30), CutReason::SlowReader)));
    progress.advance_answer(answer, start + seconds(20));
    check(&progress, Some((start + seconds(50), CutReason::SlowReader)));
    progress.end_answer(answer, start + seconds(20));
    check(&progress, None);
    progress.blocked(start + seconds(21));
    progress.blocked(start + seconds(40));
    check(&progress, Some((start + seconds(51), CutReason::SlowReader)));
    progress.wrote();
    check(&progress, None);
}

#[test]
fn an_unread_response_is_noticed_beside_others_that_are_read() {
    let (progress, start) = opened();
    progress.begin_request();
    progress.begin_request();
    let left = progress.begin_answer(start);
    let taken = progress.begin_answer(start);
    progress.advance_answer(taken, start + seconds(29));
    progress.end_answer(taken, start + seconds(29));
    check(&progress, Some((start + seconds(30), CutReason::SlowReader)));
    progress.end_answer(left, start + seconds(29));
    check(&progress, None);
}

#[test]
fn floods_are_cut_at_once() {
    let (progress, start) = opened();
    progress.read(HTTP2_OPENING, start);
    progress.read(&vec![0; STRAY_BYTES_MAX + 1], start);
    check(&progress, Some((start, CutReason::Flood)));
    let (progress, start) = opened();
    progress.read(HTTP2_OPENING, start);
    progress.begin_request();
    let ping = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    let flood = ping.repeat(STRAY_BYTES_MAX / ping.len());
    progress.read(&flood, start);
    check(&progress, None);
    progress.read(&ping.repeat(2), start);
    check(&progress, Some((start, CutReason::Flood)));
    // Each part of a long response gives the credit that reading it needs.
    let answer = progress.begin_answer(start);
    progress.advance_answer(answer, start);
    check(&progress, Some((start + seconds(30), CutReason::SlowReader)));
    let (progress, start) = opened();
    for _ in 0..=CANCELED_MAX {
        progress.begin_request();
        progress.cancel_request();
        progress.end_request(start);
    }
    check(&progress, Some((start, CutReason::Canceled)));
}

#[test]
fn the_body_of_a_request_is_not_a_flood() {
    let (progress, start) = opened();
    progress.read(HTTP2_OPENING, start);
    progress.begin_request();
    let part = [&[0, 64, 0, 0, 0, 0, 0, 0, 1], vec![b'{'; 16 * 1024].as_slice()].concat();
    progress.read(&part.repeat(512), start);
    check(&progress, None);
}

#[test]
fn a_connection_is_idle_without_requests_or_while_its_client_reads_nothing() {
    let (progress, start) = opened();
    assert_eq!(progress.idleness(start), Some((Idleness::Idle, start)));
    let later = start + seconds(1);
    assert_eq!(progress.idleness(later), Some((Idleness::Silent, start)));
    progress.begin_request();
    assert_eq!(progress.idleness(later), None);
    let answer = progress.begin_answer(later);
    assert_eq!(progress.idleness(later + seconds(4)), None);
    let stalled = Some((Idleness::Stalled, later));
    assert_eq!(progress.idleness(later + seconds(5)), stalled);
    progress.begin_request();
    assert_eq!(progress.idleness(later + seconds(5)), None, "the other is being answered");
    progress.end_answer(answer, later);
    progress.end_request(later);
    progress.end_request(later);
    assert_eq!(progress.idleness(later), Some((Idleness::Idle, later)));
}

/// Answers one request at this instant.
fn answer(progress: &Progress, now: Instant) {
    progress.begin_request();
    let answer = progress.begin_answer(now);
    progress.end_answer(answer, now);
    progress.end_request(now);
}

#[test]
fn a_client_that_reads_the_end_of_a_response_is_not_idle() {
    let (progress, start) = opened();
    answer(&progress, start);
    progress.blocked(start + seconds(1));
    assert_eq!(progress.idleness(start + seconds(5)), None);
    // A closing connection gives its client time to read, too.
    progress.close(start + seconds(1));
    check(&progress, Some((start + seconds(31), CutReason::SlowReader)));
    progress.wrote();
    progress.blocked(start + seconds(6));
    assert_eq!(progress.idleness(start + seconds(10)), None, "it took something");
    let stalled = Some((Idleness::Stalled, start + seconds(6)));
    assert_eq!(progress.idleness(start + seconds(11)), stalled);
    progress.wrote();
    assert_eq!(progress.idleness(start + seconds(11)), Some((Idleness::Idle, start)));
    check(&progress, Some((start + seconds(3), CutReason::Lingering)));
}

#[test]
fn over_http2_the_client_has_time_to_read_the_end_of_a_response() {
    let (progress, start) = opened();
    progress.read(HTTP2_OPENING, start);
    answer(&progress, start);
    assert_eq!(progress.idleness(start + seconds(4)), None);
    assert_eq!(progress.idleness(start + seconds(5)), Some((Idleness::Idle, start)));
    // The same with another response that is not read.
    progress.begin_request();
    progress.begin_answer(start);
    answer(&progress, start + seconds(4));
    assert_eq!(progress.idleness(start + seconds(8)), None);
    let stalled = Some((Idleness::Stalled, start));
    assert_eq!(progress.idleness(start + seconds(9)), stalled);
    // A canceled request has no response on its way.
    let (progress, start) = opened();
    progress.read(HTTP2_OPENING, start);
    progress.begin_request();
    progress.cancel_request();
    progress.end_request(start);
    assert_eq!(progress.idleness(start), Some((Idleness::Idle, start)));
}

#[test]
fn a_client_that_may_still_be_sending_has_time_to_read_its_last_response() {
    let (progress, start) = opened();
    answer(&progress, start);
    assert!(!progress.begin_lingering(start), "there is nothing unread");
    progress.leave_unread();
    let end = start + seconds(1);
    assert!(progress.begin_lingering(end));
    assert!(progress.begin_lingering(end + seconds(1)), "from the first time on");
    check(&progress, Some((end + seconds(2), CutReason::Lingering)));
    assert_eq!(progress.idleness(end), Some((Idleness::Silent, end)), "it may give way");
    // So does one whose head was refused.
    let (progress, start) = opened();
    progress.read(b"no head", start);
    assert!(progress.begin_lingering(start));
    check(&progress, Some((start + seconds(2), CutReason::Lingering)));
}

#[test]
fn a_connection_that_only_discards_a_body_without_a_credential_is_silent() {
    for opening in [&b""[..], HTTP2_OPENING] {
        let (progress, start) = opened();
        progress.read(opening, start);
        answer(&progress, start);
        progress.begin_request();
        progress.begin_discard(start + seconds(1));
        progress.begin_request();
        progress.begin_discard(start + seconds(2));
        let silent = Some((Idleness::Silent, start + seconds(1)));
        assert_eq!(progress.idleness(start + seconds(2)), silent);
        progress.begin_request();
        assert_eq!(progress.idleness(start + seconds(2)), None, "another is in flight");
        progress.end_request(start + seconds(2));
        progress.end_discard();
        progress.end_request(start + seconds(2));
        progress.end_discard();
        assert_eq!(progress.idleness(start + seconds(9)), None, "its answer goes out");
    }
}

#[tokio::test]
async fn a_request_to_close_wakes_every_waiter() {
    let (progress, start) = opened();
    let closes = async { tokio::join!(progress.closes(), async { progress.close(start) }) };
    tokio::time::timeout(seconds(10), closes).await.expect("told while it waits");
    tokio::time::timeout(seconds(10), progress.closes()).await.expect("told before");
}

#[test]
fn a_closing_connection_may_finish_its_responses_and_then_lingers() {
    let (progress, start) = opened();
    progress.begin_request();
    progress.close(start);
    check(&progress, None);
    progress.end_request(start + seconds(9));
    check(&progress, Some((start + seconds(11), CutReason::Lingering)));
}
