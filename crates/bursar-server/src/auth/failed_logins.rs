//! Failed logins: a metric counts each, and the log gets one line per address and minute.
//!
//! The first failure of an address is logged at once. Further failures within a minute are logged
//! together at its end. Memory is bounded: addresses above the limit share one line. Deliberately
//! absent: the credentials themselves, and requests without credentials.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use bursar_core::TenantId;
use bursar_store::{Cache, CacheUse};
use ipnet::IpNet;
use parking_lot::Mutex;

use crate::http::client_address;

/// The log target.
const TARGET: &str = "bursar::auth";
/// The shortest time between two lines of one address.
const LOG_EVERY: Duration = Duration::from_secs(60);
/// Addresses with a line of their own.
const ADDRESSES_MAX: usize = 1_024;

/// The kind of a failed login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailedLogin {
    /// A bearer token that can only be meant as the operator's token.
    OperatorToken,
    /// An API key.
    ApiKey,
    /// An integration key.
    IntegrationKey,
    /// A person's token.
    OidcToken,
    /// A credential header that cannot be read.
    Malformed,
    /// A valid credential of a tenant other than the named one.
    OtherTenant,
}

impl FailedLogin {
    pub(crate) const ALL: [Self; 6] = [
        Self::OperatorToken,
        Self::ApiKey,
        Self::IntegrationKey,
        Self::OidcToken,
        Self::Malformed,
        Self::OtherTenant,
    ];

    /// The name in metrics and in the log.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::OperatorToken => "operator_token",
            Self::ApiKey => "api_key",
            Self::IntegrationKey => "integration_key",
            Self::OidcToken => "oidc_token",
            Self::Malformed => "malformed",
            Self::OtherTenant => "other_tenant",
        }
    }
}

/// Where failures come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Origin {
    /// A network; for IPv4 a single address.
    Network(IpNet),
    /// A command that works on the store without a socket.
    Inside,
    /// All addresses above the limit.
    Others,
}

impl Origin {
    fn of(address: Option<IpAddr>) -> Self {
        address.map_or(Self::Inside, |address| Self::Network(client_address::network(address)))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(IpNet::V4(network)) => network.addr().fmt(formatter),
            Self::Network(IpNet::V6(network)) => network.fmt(formatter),
            Self::Inside => formatter.write_str("inside"),
            Self::Others => formatter.write_str("others"),
        }
    }
}

/// Failures by kind, in the order of [`FailedLogin::ALL`].
type Counts = [u64; FailedLogin::ALL.len()];

/// A line of the log.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    origin: Origin,
    counts: Counts,
}

impl Line {
    /// The line for failures that are not logged yet, if there are any.
    fn of(origin: Origin, counts: Counts) -> Option<Self> {
        (counts != Counts::default()).then_some(Self { origin, counts })
    }

    fn write(&self) {
        let count: u64 = self.counts.iter().sum();
        let failure_names = self.failure_names();
        tracing::warn!(
            target: TARGET,
            event = "login_failed",
            address = %self.origin,
            count,
            kinds = failure_names,
            "credentials were refused"
        );
    }

    fn failure_names(&self) -> String {
        let met = FailedLogin::ALL.iter().zip(self.counts).filter(|(_, count)| *count > 0);
        let words: Vec<&str> = met.map(|(kind, _)| kind.as_str()).collect();
        words.join(",")
    }
}

/// The failures of one address.
struct Failures {
    told_at: Duration,
    untold: Counts,
}

/// The failures of the last minute by address.
#[derive(Default)]
pub(crate) struct FailedLogins(Mutex<HashMap<Origin, Failures>>);

impl FailedLogins {
    /// Counts a failure.
    pub(crate) fn note(&self, address: Option<IpAddr>, kind: FailedLogin, elapsed: Duration) {
        if let Some(line) = self.count(Origin::of(address), kind, elapsed) {
            line.write();
        }
    }

    /// Logs the lines that are due. Call it every second.
    pub(crate) fn log_due(&self, elapsed: Duration) {
        self.due(elapsed).iter().for_each(Line::write);
    }

    /// Logs everything that is not logged yet. Call it at shutdown.
    pub(crate) fn log_all(&self) {
        self.due(Duration::MAX).iter().for_each(Line::write);
    }

    /// The line to log at once, if this is the address's first failure in a minute.
    fn count(&self, origin: Origin, kind: FailedLogin, elapsed: Duration) -> Option<Line> {
        let mut known = self.0.lock();
        let is_others = known.len() >= ADDRESSES_MAX && !known.contains_key(&origin);
        let origin = if is_others { Origin::Others } else { origin };
        let is_new = !known.contains_key(&origin);
        let fresh = Failures { told_at: elapsed, untold: Counts::default() };
        let failures = known.entry(origin).or_insert(fresh);
        if let Some(count) = failures.untold.get_mut(kind as usize) {
            *count += 1;
        }
        is_new.then(|| Line { origin, counts: std::mem::take(&mut failures.untold) })
    }

    /// The lines of addresses whose last line is a minute old. Quiet addresses are forgotten.
    fn due(&self, elapsed: Duration) -> Vec<Line> {
        let mut lines = Vec::new();
        self.0.lock().retain(|origin, failures| {
            if elapsed.saturating_sub(failures.told_at) < LOG_EVERY {
                return true;
            }
            let line = Line::of(*origin, std::mem::take(&mut failures.untold));
            failures.told_at = elapsed;
            let has_some = line.is_some();
            lines.extend(line);
            has_some
        });
        lines
    }

    /// Forgets every address. Returns how many there were, and the lines that were not logged yet.
    fn forget(&self) -> (usize, Vec<Line>) {
        let known = std::mem::take(&mut *self.0.lock());
        let line = |(origin, failures): (&Origin, &Failures)| Line::of(*origin, failures.untold);
        (known.len(), known.iter().filter_map(line).collect())
    }
}

/// Entries belong to addresses, so clearing one tenant removes nothing.
impl Cache for FailedLogins {
    fn name(&self) -> &'static str {
        "failed-logins"
    }

    fn in_use(&self) -> CacheUse {
        // One more for the shared line.
        let entries_max = ADDRESSES_MAX + 1;
        let entries = self.0.lock().len();
        let tenant_entries_max = entries_max;
        CacheUse { entries, entries_max, tenant_entries_max, ..CacheUse::default() }
    }

    fn clear(&self, tenant_id: Option<TenantId>) -> usize {
        if tenant_id.is_some() {
            return 0;
        }
        let (addresses, lines) = self.forget();
        lines.iter().for_each(Line::write);
        addresses
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(address: &str) -> Origin {
        Origin::of(Some(address.parse().expect("an address")))
    }

    const fn at(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    /// Origin, number and kinds of each line.
    fn shown(lines: &[Line]) -> Vec<(String, u64, String)> {
        let of =
            |line: &Line| (line.origin.to_string(), line.counts.iter().sum(), line.failure_names());
        let mut shown: Vec<_> = lines.iter().map(of).collect();
        shown.sort();
        shown
    }

    #[test]
    fn an_address_has_a_line_at_once_and_then_one_a_minute() {
        let failed = FailedLogins::default();
        let one = origin("203.0.113.9");
        let first = failed.count(one, FailedLogin::ApiKey, at(10));
        let told = |count, failure_names: &str| {
            ("203.0.113.9".to_owned(), count, failure_names.to_owned())
        };
        assert_eq!(shown(first.as_slice()), [told(1, "api_key")]);
        for second in 11..60 {
            assert_eq!(failed.count(one, FailedLogin::ApiKey, at(second)), None);
        }
        assert_eq!(failed.count(one, FailedLogin::OperatorToken, at(60)), None);
        assert!(failed.due(at(69)).is_empty());
        assert_eq!(shown(&failed.due(at(70))), [told(50, "operator_token,api_key")]);
        assert!(failed.due(at(71)).is_empty());
        assert_eq!(failed.count(one, FailedLogin::Malformed, at(129)), None);
        assert_eq!(shown(&failed.due(at(130))), [told(1, "malformed")]);
        // After a quiet minute the address is forgotten.
        assert!(failed.due(at(190)).is_empty());
        assert!(failed.0.lock().is_empty());
        assert!(failed.count(one, FailedLogin::ApiKey, at(191)).is_some());
    }

    #[test]
    fn an_attacker_s_ipv6_network_is_one_address() {
        let failed = FailedLogins::default();
        let count = |address: &str| failed.count(origin(address), FailedLogin::ApiKey, at(0));
        let line = count("2001:db8:0:100::1").expect("a line");
        assert_eq!(line.origin.to_string(), "2001:db8:0:100::/56");
        assert_eq!(count("2001:db8:0:1ff:ffff::2"), None);
        assert!(count("2001:db8:0:200::1").is_some());
        assert!(count("::ffff:192.0.2.1").is_some());
        assert_eq!(count("192.0.2.1"), None);
        assert_eq!(Origin::of(None).to_string(), "inside");
    }

    #[test]
    fn however_many_addresses_come_lines_and_memory_are_bounded() {
        let failed = FailedLogins::default();
        let mut lines = 0;
        for number in 0..3 * ADDRESSES_MAX as u32 {
            let origin = Origin::of(Some(IpAddr::V4(number.into())));
            lines += usize::from(failed.count(origin, FailedLogin::ApiKey, at(0)).is_some());
        }
        assert_eq!(lines, ADDRESSES_MAX + 1);
        assert_eq!(failed.0.lock().len(), ADDRESSES_MAX + 1);
        let due = shown(&failed.due(at(60)));
        let others = 2 * ADDRESSES_MAX as u64 - 1;
        assert_eq!(due, [("others".to_owned(), others, "api_key".to_owned())]);
        failed.due(at(120));
        assert!(failed.0.lock().is_empty());
    }

    #[test]
    fn what_is_not_told_yet_is_told_when_the_operator_clears_it() {
        let failed = FailedLogins::default();
        for address in ["192.0.2.1", "192.0.2.1", "192.0.2.2"] {
            failed.count(origin(address), FailedLogin::ApiKey, at(5));
        }
        assert_eq!(failed.clear(TenantId::from_number(1)), 0);
        assert_eq!(failed.in_use().entries, 2);
        let (addresses, lines) = failed.forget();
        let told = ("192.0.2.1".to_owned(), 1, "api_key".to_owned());
        assert_eq!((addresses, shown(&lines)), (2, vec![told]));
        assert_eq!((failed.in_use().entries, failed.clear(None)), (0, 0));
        assert!(failed.count(origin("192.0.2.1"), FailedLogin::ApiKey, at(6)).is_some());
    }

    #[test]
    fn at_the_end_everything_is_told() {
        let failed = FailedLogins::default();
        for _ in 0..3 {
            failed.count(origin("192.0.2.1"), FailedLogin::OidcToken, at(5));
        }
        let rest = shown(&failed.due(Duration::MAX));
        assert_eq!(rest, [("192.0.2.1".to_owned(), 2, "oidc_token".to_owned())]);
    }
}
