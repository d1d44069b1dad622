//! Raises the limit of open file descriptors: every connection needs one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors for everything else.
///
/// The store's files and readers, the log, the operator's listener, overflow connections and
/// evicted ones.
const OTHERS: u64 = 640;

/// Raises the limit for this many connections, and warns if the system refuses.
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
            "the limit on file descriptors is too low for server.connections_max; raise the limit \
             (LimitNOFILE, ulimit -n) or lower the setting"
        );
    }
}
