//! Free ports, unique names, secrets and temporary folders.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

/// The prefix of the names of all roles and databases that tests create.
pub(super) const PREFIX: &str = "bursar_test_";
/// Below the ephemeral ports. A client that connects to an ephemeral port while its server is down
/// can connect to itself, and another program can take the port before the server is back.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// A file system in memory, on systems that have it.
const MEMORY: &str = "/dev/shm";
/// Four times what the tests take.
const MEMORY_FREE_MIN_KIB: u64 = 2 * 1024 * 1024;

/// A port that is free now. Another program may take it before the caller does.
pub(super) fn free_port() -> u16 {
    let span = u64::from(PORTS.end - PORTS.start);
    let ports =
        std::iter::repeat_with(|| PORTS.start + u16::try_from(random() % span).unwrap_or(0));
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    ports.take(1_000).find(is_free).expect("a free port")
}

/// A unique name for a role or a database, with the time of its creation.
pub(super) fn name(what: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let (second, process) = (unix_second(), std::process::id());
    format!("{PREFIX}{second}_{process}_{:08x}_{what}_{count}", random() >> 32)
}

/// A new secret.
pub(super) fn secret() -> String {
    format!("{:016x}{:016x}", random(), random())
}

/// The time, in whole seconds since 1970.
pub(super) fn unix_second() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().expect("a clock after 1970").as_secs()
}

/// A random number.
fn random() -> u64 {
    RandomState::new().hash_one(0)
}

/// A temporary folder. A supervisor removes it.
pub(super) fn folder() -> PathBuf {
    keep(tempfile::tempdir())
}

/// The same in memory, if there is enough of it and `TMPDIR` is not set.
///
/// Creating a database writes about 16 MB, which took 10 to 30 ms in memory and 40 to 500 ms on
/// disk.
pub(super) fn memory_folder() -> PathBuf {
    let is_named = std::env::var_os("TMPDIR").is_some();
    let has_room = || free_kib(MEMORY).is_some_and(|free| free >= MEMORY_FREE_MIN_KIB);
    if !is_named && has_room() { keep(tempfile::tempdir_in(MEMORY)) } else { folder() }
}

fn keep(folder: std::io::Result<tempfile::TempDir>) -> PathBuf {
    let path = folder.expect("a temporary folder").keep();
    // Without symbolic links.
    path.canonicalize().expect("a path")
}

/// The free space of the file system of a path.
fn free_kib(path: &str) -> Option<u64> {
    let output = Command::new("df").args(["-Pk", path]).stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.lines().nth(1)?.split_whitespace().nth(3)?.parse().ok()
}

/// The text of a log file.
pub(super) fn read(log: &Path) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}
