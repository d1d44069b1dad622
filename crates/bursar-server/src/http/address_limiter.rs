//! Limits the connections of each address, so that no single client takes them all.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::http::client_address;

/// The shortest time between two log lines about the limit.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// The number of connections by address.
#[derive(Debug)]
pub(crate) struct AddressLimiter {
    connections_max: usize,
    counts: Mutex<HashMap<IpAddr, usize>>,
    logged_at: Mutex<Option<Instant>>,
}

/// The slot of a connection among those of its address. Dropping it frees the slot.
#[derive(Debug)]
pub(crate) struct AddressSlot {
    limiter: Arc<AddressLimiter>,
    network: IpAddr,
}

impl AddressLimiter {
    pub(crate) fn new(connections_max: usize) -> Self {
        let (counts, logged_at) = (Mutex::default(), Mutex::default());
        Self { connections_max, counts, logged_at }
    }

    /// Takes a slot for one more connection, unless the address is at its limit.
    pub(crate) fn take(self: &Arc<Self>, address: IpAddr) -> Option<AddressSlot> {
        let network = client_address::network(address).network();
        let mut counts = self.counts.lock();
        let count = counts.entry(network).or_default();
        if *count >= self.connections_max {
            drop(counts);
            self.log_refusal(network);
            return None;
        }
        *count += 1;
        Some(AddressSlot { limiter: Arc::clone(self), network })
    }

    /// Limited, because a client above the limit usually opens very many connections.
    fn log_refusal(&self, network: IpAddr) {
        let mut logged_at = self.logged_at.lock();
        if logged_at.is_none_or(|at| at.elapsed() >= LOG_EVERY) {
            *logged_at = Some(Instant::now());
            let connections_max = self.connections_max;
            tracing::warn!(
                %network,
                connections_max,
                "an address has the maximum number of connections; further ones are closed"
            );
        }
    }
}

impl Drop for AddressSlot {
    fn drop(&mut self) {
        if let Entry::Occupied(mut count) = self.limiter.counts.lock().entry(self.network) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn an_address_gets_its_share_and_gets_it_back() {
        let limiter = Arc::new(AddressLimiter::new(2));
        let first = limiter.take(address("10.0.0.1")).expect("room");
        let _second = limiter.take(address("::ffff:10.0.0.1")).expect("room");
        assert!(limiter.take(address("10.0.0.1")).is_none());
        assert!(limiter.take(address("10.0.0.2")).is_some());
        drop(first);
        assert!(limiter.take(address("10.0.0.1")).is_some());
    }

    #[test]
    fn addresses_of_ipv6_are_counted_by_their_network() {
        let limiter = Arc::new(AddressLimiter::new(1));
        let slot = limiter.take(address("2001:db8::1"));
        assert!(limiter.take(address("2001:db8::ffff:2")).is_none());
        assert!(limiter.take(address("2001:db8:0:ff::1")).is_none());
        assert!(limiter.take(address("2001:db8:0:100::1")).is_some());
        drop(slot);
        assert!(limiter.counts.lock().is_empty(), "nothing is kept of who left");
    }
}
