//! The definition of an attack.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::hostile::scene::{Scene, Store};

/// The default thresholds of protection, for attacks that involve it. The other attacks run without
/// protection, so that it does not hide weaknesses of the rest of the server.
pub(crate) const PROTECTED: [(&str, &str); 4] = [
    ("BURSAR_PROTECTION_REQUESTS_PER_MINUTE", "1000"),
    ("BURSAR_PROTECTION_REQUESTS_PER_SECOND", "100"),
    ("BURSAR_PROTECTION_TRAFFIC_PER_MINUTE", "60000"),
    ("BURSAR_PROTECTION_TRAFFIC_PER_SECOND", "5000"),
];

/// A caller that takes as much of a resource as the server allows.
pub(crate) struct Attack {
    pub(crate) name: &'static str,
    pub(crate) store: Store,
    /// Variables of the server's environment.
    pub(crate) settings: &'static [(&'static str, &'static str)],
    pub(crate) log: Log,
    /// Its duration in a long run.
    pub(crate) lasts: Duration,
    /// Prepares the server and makes the clients.
    pub(crate) prepare: fn(&mut Scene) -> Vec<Client>,
    /// The statuses of responses to the attack, besides 429 and 503. Another status means that the
    /// attack is not what it claims to be.
    pub(crate) statuses: &'static [u16],
    /// Whether the server must close connections of the attacker.
    pub(crate) is_cut: bool,
    /// The maximal growth of the data folder, if there is a documented limit.
    pub(crate) disk_mib_max: Option<u64>,
    /// The factor on the usual limit of the others' p99.
    pub(crate) p99_times: u32,
}

/// The destination of the server's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Log {
    File,
    /// A pipe that is never read, at the level `info`.
    StuckPipe,
}

impl Attack {
    /// An attack on the embedded store with the usual log.
    pub(crate) const fn new(name: &'static str, prepare: fn(&mut Scene) -> Vec<Client>) -> Self {
        Self {
            name,
            store: Store::Sqlite,
            settings: &[],
            log: Log::File,
            lasts: Duration::from_secs(20),
            prepare,
            statuses: &[200, 201],
            is_cut: false,
            disk_mib_max: None,
            p99_times: 1,
        }
    }
}

/// A connection of the attacker, which is reopened when the server closes it.
pub(crate) struct Client {
    pub(crate) from: Ipv4Addr,
    pub(crate) kind: Kind,
}

/// The behaviour of a connection.
pub(crate) enum Kind {
    /// Sends the next request after each response, until there is none left.
    Requests(Box<dyn FnMut() -> Option<Vec<u8>> + Send>),
    /// Sends bytes at intervals.
    Holds(Hold),
}

/// A connection that is kept open without complete requests.
pub(crate) struct Hold {
    pub(crate) first_bytes: Vec<u8>,
    /// The bytes after each pause.
    pub(crate) next: Vec<u8>,
    pub(crate) pause: Duration,
    /// Whether it reads what the server sends.
    pub(crate) reads: bool,
}

impl Client {
    /// A client that sends requests without a pause, from one of the attacker's addresses.
    pub(crate) fn requests(
        number: usize,
        next: impl FnMut() -> Option<Vec<u8>> + Send + 'static,
    ) -> Self {
        Self { from: address(number), kind: Kind::Requests(Box::new(next)) }
    }

    /// A client that sends the same request without end.
    pub(crate) fn repeats(number: usize, request: Vec<u8>) -> Self {
        Self::requests(number, move || Some(request.clone()))
    }

    pub(crate) fn holds(number: usize, hold: Hold) -> Self {
        Self { from: address(number), kind: Kind::Holds(hold) }
    }
}

/// One of the attacker's ten addresses, which the honest callers do not use.
fn address(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, 2 + (number % 10) as u8)
}
