//! How long tests run and wait.

use std::time::{Duration, Instant};

/// How long to wait between two looks at a condition that takes its own time.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// One figure for an ordinary run, another for a long proof.
pub fn scale<T>(ordinary: T, proving: T) -> T {
    let proves = std::env::var_os("BURSAR_PROVE").is_some_and(|value| value == "1");
    if proves { proving } else { ordinary }
}

/// Looks until a condition holds, but not for ever.
pub fn within<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
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
