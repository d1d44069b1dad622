//! How long tests run and wait.

use std::time::{Duration, Instant};

/// The pause between two checks of a condition.
const CHECK_EVERY: Duration = Duration::from_millis(2);

/// The first value in an ordinary run, the second with `BURSAR_PROVE=1`.
pub fn scale<T>(ordinary: T, proving: T) -> T {
    let proves = std::env::var_os("BURSAR_PROVE").is_some_and(|value| value == "1");
    if proves { proving } else { ordinary }
}

/// Repeats a check until it returns a value, for at most `limit`.
pub fn within<T>(limit: Duration, mut check: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = check() {
            return Some(found);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(CHECK_EVERY);
    }
}
