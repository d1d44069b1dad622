//! The address of the client, from `X-Forwarded-For` if a trusted proxy sent it.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;
use ipnet::{IpNet, Ipv6Net};
use serde::Deserialize;

/// The prefix of an IPv6 address that identifies a client.
const IPV6_PREFIX_BITS: u8 = 56;
/// The header to which each proxy appends the address of its peer.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// The client's address; an extension of every request that came by a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

/// The proxies whose `X-Forwarded-For` is trusted.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub struct TrustedProxies(Vec<IpNet>);

impl TryFrom<Vec<String>> for TrustedProxies {
    type Error = String;

    /// Parses networks (`10.0.0.0/8`) and single addresses.
    fn try_from(texts: Vec<String>) -> Result<Self, String> {
        let network = |text: &String| {
            let is_neither = || {
                format!(
                    "has {text:?}, which is neither an address nor a network such as 10.0.0.0/8"
                )
            };
            read_network(text).ok_or_else(is_neither)
        };
        texts.iter().map(network).collect::<Result<_, _>>().map(Self)
    }
}

impl TrustedProxies {
    /// Whether an address belongs to a trusted proxy.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

tokio::task_local! {
    static CURRENT: Option<ClientAddress>;
}

/// Runs a future as part of a request of this client.
pub(crate) async fn within<T>(client: Option<ClientAddress>, answer: impl Future<Output = T>) -> T {
    CURRENT.scope(client, answer).await
}

impl ClientAddress {
    /// The client of the request that this task handles. `None` if it came by no socket.
    pub(crate) fn current() -> Option<Self> {
        CURRENT.try_with(|client| *client).ok().flatten()
    }

    /// The last address in the chain that is not a trusted proxy.
    ///
    /// A header that cannot be parsed, or that an untrusted peer sent, is ignored; then the peer is
    /// the client.
    pub fn of(peer: IpAddr, headers: &HeaderMap, trusted: &TrustedProxies) -> Self {
        let peer = peer.to_canonical();
        let mut client = peer;
        if !trusted.contains(peer) {
            return Self(peer);
        }
        let values: Vec<_> = headers.get_all(FORWARDED_FOR).iter().collect();
        for value in values.into_iter().rev() {
            let Ok(hops) = value.to_str() else { return Self(peer) };
            for hop in hops.rsplit(',') {
                let Some(address) = read_hop(hop.trim()) else { return Self(peer) };
                client = address;
                if !trusted.contains(client) {
                    return Self(client);
                }
            }
        }
        Self(client)
    }
}

/// The network that counts as one address.
///
/// For IPv6 it is the first 56 bits, because providers assign at least that many addresses to a
/// customer.
pub(crate) fn network(address: IpAddr) -> IpNet {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Net::new_assert(address, IPV6_PREFIX_BITS).trunc().into(),
        address @ IpAddr::V4(_) => IpNet::from(address),
    }
}

/// A network in canonical form.
fn read_network(text: &str) -> Option<IpNet> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    // Parsed as an address first: the network parser reads 010.0.0.0 as 10.0.0.0, where other
    // programs see an octal number.
    let address = address.parse::<IpAddr>().ok()?.to_canonical();
    if length.is_none() {
        return Some(IpNet::from(address));
    }
    let network: IpNet = text.parse().ok()?;
    let mapped_bits = if address.is_ipv4() { network.max_prefix_len() - 32 } else { 0 };
    match network.prefix_len().checked_sub(mapped_bits) {
        Some(length) => IpNet::new(address, length).ok(),
        None => Some(network),
    }
}

/// An address, optionally with a port.
fn read_hop(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().or_else(|_| text.parse().map(|hop: SocketAddr| hop.ip()));
    address.ok().map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRUSTED: &[&str] = &["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"];

    #[track_caller]
    fn check(peer: &str, values: &[&str], expected: &str) {
        let trusted: Vec<String> = TRUSTED.iter().map(|text| (*text).to_owned()).collect();
        let trusted = TrustedProxies::try_from(trusted).expect("networks");
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(FORWARDED_FOR, value.as_bytes().try_into().expect("a header"));
        }
        let client = ClientAddress::of(peer.parse().expect("an address"), &headers, &trusted);
        assert_eq!(client.0.to_string(), expected, "{peer} {values:?}");
    }

    #[test]
    fn only_a_trusted_peer_is_believed() {
        check("203.0.113.9", &["198.51.100.1"], "203.0.113.9");
        check("10.1.2.3", &["198.51.100.1"], "198.51.100.1");
        check("192.0.2.7", &["198.51.100.1"], "198.51.100.1");
        check("192.0.2.8", &["198.51.100.1"], "192.0.2.8");
        check("::ffff:10.1.2.3", &["198.51.100.1"], "198.51.100.1");
        check("2001:db8::1", &["2001:470::5"], "2001:470::5");
    }

    #[test]
    fn what_a_client_claims_itself_is_passed_over() {
        check("10.0.0.1", &["127.0.0.1, 198.51.100.1"], "198.51.100.1");
        check("10.0.0.1", &["127.0.0.1", "198.51.100.1"], "198.51.100.1");
        check("10.0.0.1", &["127.0.0.1, 198.51.100.1, 10.0.0.2"], "198.51.100.1");
        check("10.0.0.1", &["127.0.0.1, 198.51.100.1", "10.0.0.3 ,10.0.0.2"], "198.51.100.1");
    }

    #[test]
    fn when_all_are_proxies_the_first_of_them_is_the_client() {
        check("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3");
        check("10.0.0.1", &[], "10.0.0.1");
    }

    #[test]
    fn ports_and_brackets_are_read() {
        check("10.0.0.1", &["198.51.100.1:4711"], "198.51.100.1");
        check("10.0.0.1", &["[2001:470::5]:4711"], "2001:470::5");
        check("10.0.0.1", &["[2001:470::5]"], "2001:470::5");
        check("10.0.0.1", &["::ffff:198.51.100.1"], "198.51.100.1");
    }

    #[test]
    fn a_header_that_cannot_be_read_is_worth_nothing() {
        for wrong in ["", "unknown", "198.51.100.1,", "198.51.100.1;10.0.0.2", "a\u{e9}", "1.2.3"] {
            check("10.0.0.1", &[wrong], "10.0.0.1");
        }
        check("10.0.0.1", &["198.51.100.1, nonsense, 10.0.0.2"], "10.0.0.1");
    }

    #[test]
    fn a_network_may_be_written_in_the_form_for_both_families() {
        let trusted =
            TrustedProxies::try_from(vec!["::ffff:10.0.0.0/104".to_owned()]).expect("one");
        let contains = |text: &str| trusted.contains(text.parse().expect("an address"));
        assert!(contains("10.1.2.3") && contains("::ffff:10.1.2.3"));
        assert!(!contains("11.1.2.3") && !contains("::a01:203"));
    }

    #[test]
    fn what_is_no_network_is_named() {
        for wrong in ["10.0.0.0/33", "example.com", "10.0.0", "010.0.0.0/8", "00.0.0.0/0"] {
            let texts = vec!["10.0.0.0/8".to_owned(), wrong.to_owned()];
            let problem = TrustedProxies::try_from(texts).expect_err(wrong);
            assert!(problem.contains(&format!("{wrong:?}")), "{problem}");
        }
    }
}
