//! A free port, a name nobody else has, and a look at what takes its time.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// What the names of everything that is made on a server begin with.
pub(super) const PREFIX: &str = "bursar_test_";
/// Below what systems give to outgoing connections. A client that knocks at such a port while its
/// server is down can meet itself, and another program can have it when the server comes back.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// Where a system that has it keeps files in memory.
const MEMORY: &str = "/dev/shm";
/// Four times what the tests were seen to take.
const PLENTY_KIB: u64 = 2 * 1024 * 1024;
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
    kept(tempfile::tempdir())
}

/// One in memory where there is plenty of it and `TMPDIR` does not say otherwise.
///
/// To make a database writes some 16 MB, which takes 10 to 30 ms in memory; on a disk it took 40 to
/// 500, as busy as that was.
pub(super) fn quick_folder() -> PathBuf {
    let is_named = std::env::var_os("TMPDIR").is_some();
    let has_room = || free_kib(MEMORY).is_some_and(|free| free >= PLENTY_KIB);
    if !is_named && has_room() { kept(tempfile::tempdir_in(MEMORY)) } else { folder() }
}

fn kept(folder: std::io::Result<tempfile::TempDir>) -> PathBuf {
    let path = folder.expect("a temporary folder").keep();
    // Spelled as the system opens it.
    path.canonicalize().expect("a path")
}

/// What is free where a path lies.
fn free_kib(path: &str) -> Option<u64> {
    let output = Command::new("df").args(["-Pk", path]).stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.lines().nth(1)?.split_whitespace().nth(3)?.parse().ok()
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
