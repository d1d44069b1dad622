//! An attack: what one caller does, and what has to be there for it.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::hostile::scene::{Scene, Store};

/// The default thresholds of protection, for an attack in which protection takes part. The other
/// attacks run without protection, so that it cannot hide what the rest of the server lets through.
pub(crate) const PROTECTED: [(&str, &str); 4] = [
    ("BURSAR_PROTECTION_REQUESTS_PER_MINUTE", "1000"),
    ("BURSAR_PROTECTION_REQUESTS_PER_SECOND", "100"),
    ("BURSAR_PROTECTION_TRAFFIC_PER_MINUTE", "60000"),
    ("BURSAR_PROTECTION_TRAFFIC_PER_SECOND", "5000"),
];

/// One caller who takes as much of a resource as the server lets it.
pub(crate) struct Attack {
    pub(crate) name: &'static str,
    pub(crate) store: Store,
    /// Variables of the server's environment.
    pub(crate) settings: &'static [(&'static str, &'static str)],
    /// Whether the server's log goes into a pipe that is never read.
    pub(crate) log: Log,
    /// How long it lasts in a long proof.
    pub(crate) lasts: Duration,
    /// Brings the server into the state that the attack needs, and makes its clients.
    pub(crate) prepare: fn(&mut Scene) -> Vec<Client>,
    /// The statuses of answers that the attack may get, besides 429 and 503. Any other status
    /// means that the attack is not the one that it claims to be.
    pub(crate) statuses: &'static [u16],
    /// Whether the server must have cut connections of the attacker.
    pub(crate) is_cut: bool,
    /// How much the data folder may grow, where a bound is promised.
    pub(crate) disk_mib_max: Option<u64>,
    /// How many times the usual bound the p99 of others may be.
    pub(crate) p99_times: u32,
}

/// Where the server's log goes.
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

/// One connection of the attacker. It is opened again when the server ends it.
pub(crate) struct Client {
    pub(crate) from: Ipv4Addr,
    pub(crate) kind: Kind,
}

/// What a client does on its connection.
pub(crate) enum Kind {
    /// Sends the next request as soon as the last one is answered, until there is none left.
    Asks(Box<dyn FnMut() -> Option<Vec<u8>> + Send>),
    /// Sends bytes of its own choice.
    Holds(Hold),
}

/// A connection that is kept busy or idle rather than used.
pub(crate) struct Hold {
    pub(crate) opening: Vec<u8>,
    /// What is sent after each pause.
    pub(crate) next: Vec<u8>,
    pub(crate) pause: Duration,
    /// Whether it reads what the server sends.
    pub(crate) reads: bool,
}

impl Client {
    /// A client that asks without a pause, from one of the attacker's addresses.
    pub(crate) fn asks(
        number: usize,
        next: impl FnMut() -> Option<Vec<u8>> + Send + 'static,
    ) -> Self {
        Self { from: address(number), kind: Kind::Asks(Box::new(next)) }
    }

    /// A client that sends the same request without end.
    pub(crate) fn repeats(number: usize, request: Vec<u8>) -> Self {
        Self::asks(number, move || Some(request.clone()))
    }

    pub(crate) fn holds(number: usize, hold: Hold) -> Self {
        Self { from: address(number), kind: Kind::Holds(hold) }
    }
}

/// The attacker has ten addresses, none of them that of the honest callers.
fn address(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, 2 + (number % 10) as u8)
}
