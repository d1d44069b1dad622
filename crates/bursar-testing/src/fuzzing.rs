//! Fuzz targets as ordinary tests.
//!
//! A target derives its input from choices: it starts from a valid text and mutates it in some
//! places, which reaches deep into a parser without a coverage map. An ordinary run takes the same
//! inputs every time. With `BURSAR_PROVE=1` bolero generates new ones for a bounded time and
//! shrinks an input that fails.

use std::panic::RefUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::chance::Chance;

/// A target of bolero, as `bolero::check!()` returns it.
pub type Target =
    bolero::TestTarget<bolero::ByteSliceGenerator, bolero::DefaultEngine, bolero::BorrowedInput>;

/// The result of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Accepted,
    Refused,
}

impl Outcome {
    pub fn of<T, E>(result: &Result<T, E>) -> Self {
        if result.is_ok() { Self::Accepted } else { Self::Refused }
    }
}

/// How long a target runs.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// The number of inputs of an ordinary run.
    pub inputs: u64,
    /// The duration with `BURSAR_PROVE=1`.
    pub seconds: u64,
    /// The bytes of choices for one input, at most.
    pub bytes_max: usize,
}

impl Effort {
    /// For parsers that need only their text.
    pub const PLAIN: Self = Self { inputs: 2_000, seconds: 4, bytes_max: 1_024 };
}

/// Runs a target on many inputs. Asserts that some are accepted and some are refused, because a
/// target that reaches only one side proves little.
#[track_caller]
pub fn fuzz<F: Fn(&mut Choices<'_>) -> Outcome>(target: Target, effort: Effort, run: F) {
    let counted = Counted { run, accepted: AtomicU64::new(0), refused: AtomicU64::new(0) };
    if std::env::var_os("BURSAR_PROVE").is_some_and(|value| value == "1") {
        let counted = &counted;
        target
            .with_max_len(effort.bytes_max)
            .with_iterations(usize::MAX)
            .with_test_time(Duration::from_secs(effort.seconds))
            .for_each(|bytes: &[u8]| counted.take(bytes));
    } else {
        for number in 0..effort.inputs {
            let _report = ReportOnPanic(number);
            counted.take(&fixed_bytes(number, effort.bytes_max));
        }
    }
    let (accepted, refused) = (counted.accepted.into_inner(), counted.refused.into_inner());
    println!("{accepted} inputs accepted, {refused} refused");
    assert!(accepted > 0 && refused > 0, "{accepted} accepted, {refused} refused");
}

struct Counted<F> {
    run: F,
    accepted: AtomicU64,
    refused: AtomicU64,
}

/// After a failed input the test has failed, and its state is not read again.
impl<F> RefUnwindSafe for Counted<F> {}

impl<F: Fn(&mut Choices<'_>) -> Outcome> Counted<F> {
    fn take(&self, bytes: &[u8]) {
        let counter = match (self.run)(&mut Choices { bytes }) {
            Outcome::Accepted => &self.accepted,
            Outcome::Refused => &self.refused,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Prints the number of the input that panicked.
struct ReportOnPanic(u64);

impl Drop for ReportOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("input {} failed", self.0);
        }
    }
}

/// The bytes of an input of an ordinary run.
fn fixed_bytes(number: u64, bytes_max: usize) -> Vec<u8> {
    let mut chance = Chance::new(number.wrapping_mul(0x2545_f491_4f6c_dd1d));
    let mut bytes = Vec::with_capacity(bytes_max + 8);
    while bytes.len() < bytes_max {
        bytes.extend_from_slice(&chance.next().to_le_bytes());
    }
    bytes.truncate(bytes_max);
    bytes
}

/// The choices from which a target derives its input. After the last byte every choice is the first
/// one, so that each derivation ends and a shorter input is a simpler one.
#[derive(Debug)]
pub struct Choices<'a> {
    bytes: &'a [u8],
}

/// Bytes on which parsers branch.
const DELIMITERS: &[u8] =
    b"\0\t\n\r \"'%&()*+,-./09:;<=>?@AZ[\\]^_`az{|}~\x7f\x80\xbf\xc3\xe2\xed\xf0\xff";
/// Texts on which many parsers branch.
const TOKENS: &[&str] = &[
    "null",
    "true",
    "-1",
    "0",
    "1e999",
    "9223372036854775807",
    "9223372036854775808",
    "\\u0000",
    "\\ud800",
    "{}",
    "[]",
    "[[[[",
    "\u{feff}",
    "\u{202e}",
    "\u{e4}",
    "\u{1f600}",
    "\r\n",
    "//",
    "..",
    "%00",
    "%ff",
    "NaN",
];

impl Choices<'_> {
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.bytes.split_first() else { return 0 };
        self.bytes = rest;
        *first
    }

    /// A number below a bound, which is at least 1.
    pub fn below(&mut self, bound: usize) -> usize {
        let mut number = usize::from(self.byte());
        if bound > 256 {
            number = number << 16 | usize::from(self.byte()) << 8 | usize::from(self.byte());
        }
        number % bound
    }

    /// True once in `times`; false after the last byte.
    pub fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == times - 1
    }

    /// One of the choices, which must not be empty.
    pub fn one_of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices.get(self.below(choices.len())).cloned().expect("a choice")
    }

    /// Any integer, but mostly one near a bound.
    pub fn integer(&mut self) -> i64 {
        const BOUNDS: &[i64] =
            &[0, 1, 60, 100, 1_000, 86_400, 1_000_000_000, i32::MAX as i64, i64::MAX, i64::MIN];
        let near = i64::from(self.byte() % 5) - 2;
        self.one_of(BOUNDS).wrapping_add(near)
    }

    /// The text, mutated in up to six places. Insertions take these words and [`TOKENS`].
    pub fn mutated(&mut self, text: &str, words: &[&str]) -> String {
        String::from_utf8_lossy(&self.mutated_bytes(text.as_bytes(), words)).into_owned()
    }

    /// The same for bytes.
    pub fn mutated_bytes(&mut self, bytes: &[u8], words: &[&str]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        let times = self.one_of(&[0, 1, 1, 1, 2, 2, 3, 6]);
        for _ in 0..times {
            self.mutate(&mut bytes, words);
        }
        bytes
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>, words: &[&str]) {
        let at = self.below(bytes.len() + 1);
        let few = at.saturating_add(1 + self.below(8)).min(bytes.len());
        let word = |choices: &mut Self| match words {
            [] => choices.one_of(TOKENS),
            [_, ..] if choices.one_in(3) => choices.one_of(TOKENS),
            [_, ..] => choices.one_of(words),
        };
        match self.below(10) {
            0 => {
                let bit = 1 << self.below(8);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= bit;
                }
            }
            1 => {
                let delimiter = self.one_of(DELIMITERS);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = delimiter;
                }
            }
            2 => bytes.insert(at, self.one_of(DELIMITERS)),
            3 => drop(bytes.drain(at..few)),
            4 => bytes.truncate(at),
            5 => {
                let part = bytes.get(at..few).unwrap_or_default().to_vec();
                drop(bytes.splice(at..at, part));
            }
            6 => drop(bytes.splice(at..at, word(self).bytes())),
            7 => drop(bytes.splice(at..few, word(self).bytes())),
            8 => bytes.insert(at, self.byte()),
            _ => {
                let (delimiter, times) =
                    (self.one_of(DELIMITERS), self.one_of(&[2, 16, 65, 101, 256, 600]));
                drop(bytes.splice(at..at, std::iter::repeat_n(delimiter, times)));
            }
        }
    }
}
