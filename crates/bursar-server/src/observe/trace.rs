//! W3C trace context: accepted from the request or created, and passed on.
//!
//! See <https://www.w3.org/TR/trace-context/>. An invalid header counts as absent, so no request
//! fails for its trace. Deliberately absent: exporting spans.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::{HeaderMap, HeaderName, HeaderValue};

use crate::credentials::raw_key;

/// The header with the trace and the caller's span.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The header with vendor-specific trace data.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The longest `tracestate` that is passed on: the minimum that the recommendation requires.
const STATE_CHARS_MAX: usize = 512;
/// The most members of a `tracestate` in the recommendation.
const STATE_MEMBERS_MAX: usize = 32;
/// The flag for a trace that the caller may have recorded.
const SAMPLED: u8 = 1;

tokio::task_local! {
    static CURRENT: TraceContext;
}

/// The trace of a request and this server's span in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: u128,
    /// Created here. It is the parent of all requests that this one causes.
    span_id: u64,
    is_sampled: bool,
    state: Option<HeaderValue>,
}

/// The trace of the request that this task handles.
pub(crate) fn current() -> Option<TraceContext> {
    CURRENT.try_with(TraceContext::clone).ok()
}

/// Runs a future within a trace.
pub(crate) async fn within<F: Future>(context: TraceContext, future: F) -> F::Output {
    CURRENT.scope(context, future).await
}

impl TraceContext {
    /// The trace of a request: the caller's, or a new one that is not sampled.
    pub fn of(headers: &HeaderMap) -> Self {
        let number = next_number();
        let span_id = random_id(number, 0);
        let mut parents = headers.get_all(TRACEPARENT).iter();
        let parent = match (parents.next(), parents.next()) {
            (Some(parent), None) => read_parent(parent.as_bytes()),
            // With several headers it is unknown which one is right.
            (Some(_), Some(_)) | (None, _) => None,
        };
        match parent {
            Some((trace_id, is_sampled)) => {
                Self { trace_id, span_id, is_sampled, state: read_state(headers) }
            }
            None => {
                let high = u128::from(random_id(number, 1));
                let trace_id = high << 64 | u128::from(random_id(number, 2));
                Self { trace_id, span_id, is_sampled: false, state: None }
            }
        }
    }

    /// The headers that pass the trace on, with this server's span as the parent.
    pub fn child_headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(2);
        let flags = if self.is_sampled { SAMPLED } else { 0 };
        let parent = format!("00-{}-{}-{flags:02x}", self.trace_id(), self.span_id());
        if let Ok(parent) = HeaderValue::try_from(parent) {
            headers.insert(TRACEPARENT, parent);
        }
        if let Some(state) = &self.state {
            headers.insert(TRACESTATE, state.clone());
        }
        headers
    }

    /// The trace id as 32 hexadecimal digits.
    pub fn trace_id(&self) -> impl fmt::Display + use<> {
        let trace_id = self.trace_id;
        fmt::from_fn(move |f| write!(f, "{trace_id:032x}"))
    }

    /// The id of this server's span as 16 hexadecimal digits.
    pub fn span_id(&self) -> impl fmt::Display + use<> {
        let span_id = self.span_id;
        fmt::from_fn(move |f| write!(f, "{span_id:016x}"))
    }
}

/// The trace id and the sampled flag of a `traceparent`.
///
/// Of a later version, only the fields of version 00 are read, as the recommendation says.
fn read_parent(value: &[u8]) -> Option<(u128, bool)> {
    let version = hex(value.get(..2)?)?;
    let trace_id = hex(value.get(3..35)?)?;
    let parent_id = hex(value.get(36..52)?)?;
    let flags = hex(value.get(53..55)?)?;
    let has_dashes = [2, 35, 52].into_iter().all(|at| value.get(at) == Some(&b'-'));
    let ends = match (version, value.get(55)) {
        (0xff, _) => false,
        (_, None) => true,
        (0, Some(_)) => false,
        (_, Some(next)) => *next == b'-',
    };
    let is_valid = has_dashes && ends && trace_id != 0 && parent_id != 0;
    is_valid.then_some((trace_id, flags & u128::from(SAMPLED) != 0))
}

/// Parses at most 32 lower-case hexadecimal digits.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

/// The `tracestate` of a request as one header. `None` if it is invalid or too long.
fn read_state(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut members: Vec<(&str, &str)> = Vec::new();
    for value in headers.get_all(TRACESTATE) {
        for member in value.to_str().ok()?.split(',').map(|member| member.trim_matches([' ', '\t']))
        {
            if member.is_empty() {
                continue;
            }
            let (key, value) = member.split_once('=')?;
            let is_known = members.iter().any(|(known, _)| *known == key);
            if is_known || !is_state_key(key) || !is_state_value(value) {
                return None;
            }
            members.push((key, value));
            if members.len() > STATE_MEMBERS_MAX {
                return None;
            }
        }
    }
    let members: Vec<String> =
        members.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    let state = members.join(",");
    // The state is passed on, so it must not contain a key.
    if state.is_empty() || state.len() > STATE_CHARS_MAX || raw_key::contains_key(&state) {
        return None;
    }
    HeaderValue::try_from(state).ok()
}

/// Lower-case letters, digits and `_-*/@`, with a letter or digit first.
fn is_state_key(key: &str) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = key.as_bytes();
    bytes.len() <= 256
        && bytes.first().is_some_and(is_plain)
        && bytes.iter().all(|byte| is_plain(byte) || b"_-*/@".contains(byte))
}

/// Printable characters except `,` and `=`.
fn is_state_value(value: &str) -> bool {
    let is_good = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'=';
    !value.is_empty() && value.len() <= 256 && value.bytes().all(is_good)
}

fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A random id that is never zero. Two are equal with a probability of 2^-64.
///
/// Ids must be unique but not secret, so the system provides randomness once per process.
fn random_id(number: u64, stream: usize) -> u64 {
    static SEEDS: OnceLock<[u64; 3]> = OnceLock::new();
    let seeds = SEEDS.get_or_init(|| {
        let fallback = u64::from(std::process::id());
        std::array::from_fn(|_| getrandom::u64().unwrap_or(fallback))
    });
    let seed = seeds.get(stream).copied().unwrap_or_default();
    // SplitMix64 maps every number to a different id.
    let mut z = seed.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    fn of(headers: &[(HeaderName, &str)]) -> TraceContext {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, HeaderValue::try_from(*value).expect("a header's value"));
        }
        TraceContext::of(&map)
    }

    /// Checks that a `traceparent` is accepted with these flags, or not.
    #[track_caller]
    fn check(parent: &str, flags: Option<&str>) {
        let context = of(&[(TRACEPARENT, parent)]);
        let passed_on = context.child_headers();
        let passed_on = passed_on[TRACEPARENT].to_str().expect("plain text");
        let (trace, own) = (context.trace_id().to_string(), context.span_id().to_string());
        assert_eq!(trace == TRACE, flags.is_some(), "{parent}");
        assert_ne!(own, SPAN);
        assert_eq!(passed_on, format!("00-{trace}-{own}-{}", flags.unwrap_or("00")));
        assert!(read_parent(passed_on.as_bytes()).is_some(), "{passed_on}");
    }

    #[test]
    fn a_valid_parent_is_taken_over() {
        check(&format!("00-{TRACE}-{SPAN}-01"), Some("01"));
        check(&format!("00-{TRACE}-{SPAN}-00"), Some("00"));
        // Unknown flags are not passed on.
        check(&format!("00-{TRACE}-{SPAN}-ff"), Some("01"));
        check(&format!("00-{TRACE}-{SPAN}-02"), Some("00"));
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        check(&format!("01-{TRACE}-{SPAN}-01"), Some("01"));
        check(&format!("cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like"), Some("01"));
        check(&format!("cc-{TRACE}-{SPAN}-01."), None);
        check(&format!("cc-{TRACE}-{SPAN}-0"), None);
    }

    #[test]
    fn what_is_malformed_is_as_good_as_absent() {
        check("", None);
        check("-", None);
        check("00", None);
        check(TRACE, None);
        check(&format!("ff-{TRACE}-{SPAN}-01"), None);
        check(&format!("00-{TRACE}-{SPAN}-01-"), None);
        check(&format!("00-{TRACE}-{SPAN}-01-more"), None);
        check(&format!("00-{TRACE}-{SPAN}"), None);
        check(&format!("00-{TRACE}-{SPAN}-1"), None);
        check(&format!("00-{TRACE}-{SPAN}-0x"), None);
        check(&format!("0-{TRACE}-{SPAN}-01"), None);
        check(&format!(" 0-{TRACE}-{SPAN}-01"), None);
        check(&format!("00_{TRACE}_{SPAN}_01"), None);
        check(&format!("00-{}-{SPAN}-01", "0".repeat(32)), None);
        check(&format!("00-{TRACE}-{}-01", "0".repeat(16)), None);
        check(&format!("00-{}-{SPAN}-01", TRACE.to_uppercase()), None);
        check(&format!("00-{TRACE}-{}-01", SPAN.to_uppercase()), None);
        check(&format!("00-{}-{SPAN}-01", TRACE.replace('0', "g")), None);
        check(&format!("00-{TRACE}0-{SPAN}-01"), None);
        check(&format!("00-{}-{SPAN}-01", TRACE.replacen("0a", "é", 1)), None);
    }

    #[test]
    fn two_parents_are_none() {
        let parent = format!("00-{TRACE}-{SPAN}-01");
        let context = of(&[(TRACEPARENT, &parent), (TRACEPARENT, &parent)]);
        assert_ne!(context.trace_id().to_string(), TRACE);
    }

    #[test]
    fn every_request_has_a_span_of_its_own() {
        let parent = format!("00-{TRACE}-{SPAN}-01");
        let spans: std::collections::HashSet<String> =
            (0..10_000).map(|_| of(&[(TRACEPARENT, &parent)]).span_id().to_string()).collect();
        assert_eq!(spans.len(), 10_000);
        let traces: std::collections::HashSet<String> =
            (0..10_000).map(|_| of(&[]).trace_id().to_string()).collect();
        assert_eq!(traces.len(), 10_000);
    }

    /// Checks what is passed on of `tracestate` headers.
    #[track_caller]
    fn check_state(states: &[&str], expected: Option<&str>) {
        let parent = format!("00-{TRACE}-{SPAN}-01");
        let mut headers = vec![(TRACEPARENT, parent.as_str())];
        headers.extend(states.iter().map(|state| (TRACESTATE, *state)));
        let passed_on = of(&headers).child_headers();
        let passed_on = passed_on.get(TRACESTATE).map(|state| state.to_str().expect("plain text"));
        assert_eq!(passed_on, expected, "{states:?}");
    }

    #[test]
    fn a_valid_state_is_passed_on_and_any_other_is_dropped() {
        check_state(&[], None);
        check_state(&[""], None);
        check_state(&["rojo=00f067aa0ba902b7"], Some("rojo=00f067aa0ba902b7"));
        check_state(&["a=1, b@c/d*e-f_g=2 3 ,,\t3x=4"], Some("a=1,b@c/d*e-f_g=2 3,3x=4"));
        check_state(&["a=1", "b=2"], Some("a=1,b=2"));
        check_state(&["a=1,a=2"], None);
        check_state(&["a=1", "a=1"], None);
        check_state(&["a"], None);
        check_state(&["a="], None);
        check_state(&["=1"], None);
        check_state(&["A=1"], None);
        check_state(&["a b=1"], None);
        check_state(&["a=1=2"], None);
        check_state(&["a=é"], None);
        let members = |count: usize| {
            (0..count).map(|number| format!("k{number}=v")).collect::<Vec<_>>().join(",")
        };
        check_state(&[&members(32)], Some(&members(32)));
        check_state(&[&members(33)], None);
        let long = |length: usize| format!("a={},b={}", "x".repeat(250), "y".repeat(length));
        check_state(&[&long(512 - 255)], None);
        check_state(&[&long(256)], Some(&long(256)));
        check_state(&[&format!("{},c=1", long(256))], None);
        check_state(&[&format!("{}=v", "k".repeat(257))], None);
    }

    #[test]
    fn a_state_without_its_parent_is_dropped() {
        assert!(!of(&[(TRACESTATE, "a=1")]).child_headers().contains_key(TRACESTATE));
        let wrong = of(&[(TRACEPARENT, "00-1-2-3"), (TRACESTATE, "a=1")]);
        assert!(!wrong.child_headers().contains_key(TRACESTATE));
    }
}
