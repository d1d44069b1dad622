//! Headers of proxies and tracing systems: the client's address and the trace.

use std::net::{IpAddr, Ipv4Addr};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use bursar_server::http::client_address::{ClientAddress, TrustedProxies};
use bursar_server::observe::trace::{TRACEPARENT, TRACESTATE, TraceContext};
use bursar_testing::fuzzing::{Choices, Effort, Outcome, fuzz};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Adds a header once or twice, if its bytes are a valid value.
fn add(choices: &mut Choices<'_>, headers: &mut HeaderMap, name: HeaderName, bytes: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
    if choices.one_in(8) {
        headers.append(name.clone(), value.clone());
    }
    headers.append(name, value);
}

#[test]
fn a_trace_is_continued_whole_or_not_at_all() {
    const STATES: &[&str] =
        &["rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", "a=1, b@c/d*e-f_g=2 3 ,,\t3x=4", "k=v"];
    fuzz(bolero::check!(), Effort::PLAIN, |choices| {
        let mut headers = HeaderMap::new();
        let parent = choices.mutated_bytes(PARENT.as_bytes(), &["-", "ff-", "cc-", TRACE, "00"]);
        add(choices, &mut headers, TRACEPARENT, &parent);
        let state = choices.one_of(STATES);
        let state = choices.mutated_bytes(state.as_bytes(), &["=", ",", "a=1", "@", "\t"]);
        add(choices, &mut headers, TRACESTATE, &state);
        let context = TraceContext::of(&headers);
        let (trace_id, span_id) = (context.trace_id().to_string(), context.span_id().to_string());
        let child = context.child_headers();
        let passed_on = child.get(TRACEPARENT).expect("always passed on").to_str().expect("plain");
        assert!(passed_on.starts_with(&format!("00-{trace_id}-{span_id}-0")), "{passed_on}");
        assert_eq!(passed_on.len(), PARENT.len());
        let known = headers.get(TRACEPARENT).map(HeaderValue::as_bytes);
        let is_taken = known.and_then(|known| known.get(3..35)) == Some(trace_id.as_bytes());
        let state = child.get(TRACESTATE);
        assert!(state.is_none_or(|state| state.len() <= 512 && is_taken), "{state:?}");
        // The header that is passed on parses to the same trace.
        let next = TraceContext::of(&child);
        assert_eq!(next.trace_id().to_string(), trace_id);
        assert_eq!(next.child_headers().get(TRACESTATE), state);
        if is_taken { Outcome::Accepted } else { Outcome::Refused }
    });
}

#[test]
fn a_clients_address_is_its_peer_or_forwarded_by_a_trusted_proxy() {
    const HOPS: &[&str] = &[
        "198.51.100.1, 10.0.0.2",
        "127.0.0.1, 198.51.100.1:4711, 10.0.0.3 ,10.0.0.2",
        "[2001:470::5]:4711, ::ffff:10.0.0.9",
        "unknown, 10.0.0.2",
    ];
    let trusted = vec!["10.0.0.0/8".to_owned(), "2001:db8::/32".to_owned()];
    let trusted = TrustedProxies::try_from(trusted).expect("networks");
    fuzz(bolero::check!(), Effort::PLAIN, |choices| {
        let mut headers = HeaderMap::new();
        let hops = choices.one_of(HOPS);
        let hops = choices.mutated_bytes(hops.as_bytes(), &[",", "10.0.0.7", "::", "[", "]", "%1"]);
        add(choices, &mut headers, HeaderName::from_static("x-forwarded-for"), &hops);
        let peer = IpAddr::V4(Ipv4Addr::new(choices.one_of(&[10, 10, 11]), 0, 0, 1));
        let ClientAddress(client) = ClientAddress::of(peer, &headers, &trusted);
        if client == peer {
            return Outcome::Refused;
        }
        assert!(trusted.contains(peer), "{peer} is believed");
        assert_eq!(client, client.to_canonical());
        let hops = String::from_utf8_lossy(&hops);
        let is_named = hops.split(',').map(str::trim).any(|hop| {
            let bare = hop.trim_start_matches('[').split([']', '%']).next().unwrap_or_default();
            let address = bare.parse().or_else(|_| match hop.rsplit_once(':') {
                Some((address, _)) => address.parse::<IpAddr>(),
                None => hop.parse(),
            });
            address.is_ok_and(|address| address.to_canonical() == client)
        });
        assert!(is_named, "{client} is not in {hops}");
        Outcome::Accepted
    });
}

#[test]
fn a_network_contains_its_own_address() {
    const NETWORKS: &[&str] = &[
        "10.0.0.0/8",
        "192.0.2.7",
        "2001:db8::/32",
        "::ffff:10.1.2.3/112",
        "0.0.0.0/0",
        "::1/128",
    ];
    fuzz(bolero::check!(), Effort::PLAIN, |choices| {
        let network = choices.one_of(NETWORKS);
        let text = choices.mutated(network, &["/", ".", ":", "/33", "255", "::"]);
        let read = TrustedProxies::try_from(vec![text.clone()]);
        match &read {
            Ok(trusted) => {
                let address = text.split('/').next().unwrap_or_default();
                let address: IpAddr = address.parse().unwrap_or_else(|_| panic!("{text}"));
                // A mapped network wider than all of IPv4 contains no IPv4 address.
                let length = text.split_once('/').and_then(|(_, length)| length.parse::<u8>().ok());
                let is_wide = address != address.to_canonical() && length.is_some_and(|at| at < 96);
                assert!(trusted.contains(address) || is_wide, "{text}");
            }
            Err(problem) => assert!(problem.contains(&format!("{text:?}")), "{problem}"),
        }
        Outcome::of(&read)
    });
}
