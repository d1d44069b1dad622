//! A free port, a name nobody else has, and a look at what takes its time.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// What the names of everything that is made on a server begin with.
pub(super) const PREFIX: &str = "bursar_test_";
/// Below what systems give to outgoing connections. A client that knocks at such a port while its
/// server is down can meet itself, and another program can have it when the server comes back.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A port that nobody listens on now. Whoever takes it must be ready for being late.
pub(super) fn free_port() -> u16 {
    let span = u64::from(PORTS.end - PORTS.start);
    let ports =
        std::iter::repeat_with(|| PORTS.start + u16::try_from(random() % span).unwrap_or(0));
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    ports.take(1_000).find(is_free).expect("a free port")
}

/// A name for a role or a database, which tells when it was made.
pub(super) fn name(what: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let (second, process) = (unix_second(), std::process::id());
    format!("{PREFIX}{second}_{process}_{:08x}_{what}_{count}", random() >> 32)
}

/// A secret of its own for every run.
pub(super) fn secret() -> String {
    format!("{:016x}{:016x}", random(), random())
}

/// The clock of this machine, in whole seconds since 1970.
pub(super) fn unix_second() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().expect("a clock after 1970").as_secs()
}

/// A number that is another one each time.
fn random() -> u64 {
    RandomState::new().hash_one(0)
}

/// A folder that is left in place, for a supervisor to remove.
pub(super) fn folder() -> PathBuf {
    let folder = tempfile::tempdir().expect("a temporary folder").keep();
    // A path that is spelled as the system opens it.
    folder.canonicalize().expect("a path")
}

/// Looks until something is there, but not for ever.
pub(super) fn within<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// What a program wrote to its log.
pub(super) fn read(log: &Path) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}
