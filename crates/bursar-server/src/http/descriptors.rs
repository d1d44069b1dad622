//! File descriptors: each connection needs one, and the system gives a process only so many.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors for everything else: the store's files, its readers, the log, the operator's
/// listener, the reserve, and connections that give way.
const OTHERS: u64 = 640;

/// Asks the system for as many descriptors as the connections need, and warns if it has fewer.
pub(crate) fn provide(connections_max: usize) {
    let needed = u64::try_from(connections_max).unwrap_or(u64::MAX).saturating_add(OTHERS);
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= needed) {
        return;
    }
    let possible = maximum.map_or(needed, |maximum| maximum.min(needed));
    let raised = Rlimit { current: Some(possible), maximum };
    let has = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => possible,
        Err(_) => current.unwrap_or(u64::MAX),
    };
    if has < needed {
        tracing::warn!(
            has,
            needed,
            "the system gives fewer file descriptors than server.connections_max needs; raise \
             the limit (LimitNOFILE, ulimit -n) or lower the setting"
        );
    }
}
