//! Fuzz targets as ordinary tests.
//!
//! A target makes its input of choices: it starts from what is valid and breaks it here and there,
//! so that the depth of a parser is reached without a coverage map. An ordinary run takes the same
//! inputs every time; with `BURSAR_PROVE=1` bolero makes new ones for a bounded time, and makes the
//! one that fails as small as it can.

use std::panic::RefUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A target of bolero, as `bolero::check!()` makes it.
pub type Target =
    bolero::TestTarget<bolero::ByteSliceGenerator, bolero::DefaultEngine, bolero::BorrowedInput>;

/// What became of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Accepted,
    Refused,
}

impl Fate {
    pub fn of<T, E>(result: &Result<T, E>) -> Self {
        if result.is_ok() { Self::Accepted } else { Self::Refused }
    }
}

/// How much a target is run.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// The inputs of an ordinary run.
    pub inputs: u64,
    /// How long a proof takes.
    pub seconds: u64,
    /// The bytes that one input's choices are made of, at most.
    pub bytes_max: usize,
}

impl Effort {
    /// For parsers that need nothing but their text.
    pub const PLAIN: Self = Self { inputs: 2_000, seconds: 4, bytes_max: 1_024 };
}

/// Runs a target on many inputs. Claims that some are accepted and some refused, for a target that
/// reaches one side only proves little.
#[track_caller]
pub fn fuzz<F: Fn(&mut Choices<'_>) -> Fate>(target: Target, effort: Effort, run: F) {
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
            let _told = Told(number);
            counted.take(&always_the_same(number, effort.bytes_max));
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

/// Whatever a failed input leaves behind is not looked at: the test has failed.
impl<F> RefUnwindSafe for Counted<F> {}

impl<F: Fn(&mut Choices<'_>) -> Fate> Counted<F> {
    fn take(&self, bytes: &[u8]) {
        let counter = match (self.run)(&mut Choices { bytes }) {
            Fate::Accepted => &self.accepted,
            Fate::Refused => &self.refused,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Tells which input of an ordinary run failed.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("this was input {}", self.0);
        }
    }
}

/// The bytes of this number: SplitMix64, the same on every machine.
fn always_the_same(number: u64, bytes_max: usize) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x2545_f491_4f6c_dd1d);
    let mut bytes = Vec::with_capacity(bytes_max + 8);
    while bytes.len() < bytes_max {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes());
    }
    bytes.truncate(bytes_max);
    bytes
}

/// What an input is made of. When no bytes are left every choice is its first one, so that whatever
/// is made of choices comes to an end, and a shorter input is a simpler one.
#[derive(Debug)]
pub struct Choices<'a> {
    bytes: &'a [u8],
}

/// Bytes at which parsers take turns.
const TURNS: &[u8] =
    b"\0\t\n\r \"'%&()*+,-./09:;<=>?@AZ[\\]^_`az{|}~\x7f\x80\xbf\xc3\xe2\xed\xf0\xff";
/// Texts at which many parsers take turns.
const WORDS: &[&str] = &[
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

    /// True once in so many times; false when nothing is left.
    pub fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == times - 1
    }

    /// One of the choices, of which there must be some.
    pub fn one_of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices.get(self.below(choices.len())).cloned().expect("there is one")
    }

    /// Any integer, but mostly one near a bound.
    pub fn integer(&mut self) -> i64 {
        const BOUNDS: &[i64] =
            &[0, 1, 60, 100, 1_000, 86_400, 1_000_000_000, i32::MAX as i64, i64::MAX, i64::MIN];
        let near = i64::from(self.byte() % 5) - 2;
        self.one_of(BOUNDS).wrapping_add(near)
    }

    /// The same text, broken in none or a few places, with these words beside the usual ones.
    pub fn broken(&mut self, text: &str, words: &[&str]) -> String {
        String::from_utf8_lossy(&self.broken_bytes(text.as_bytes(), words)).into_owned()
    }

    /// The same for bytes.
    pub fn broken_bytes(&mut self, bytes: &[u8], words: &[&str]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        let times = self.one_of(&[0, 1, 1, 1, 2, 2, 3, 6]);
        for _ in 0..times {
            self.break_once(&mut bytes, words);
        }
        bytes
    }

    fn break_once(&mut self, bytes: &mut Vec<u8>, words: &[&str]) {
        let at = self.below(bytes.len() + 1);
        let few = at.saturating_add(1 + self.below(8)).min(bytes.len());
        let word = |choices: &mut Self| match words {
            [] => choices.one_of(WORDS),
            [_, ..] if choices.one_in(3) => choices.one_of(WORDS),
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
                let turn = self.one_of(TURNS);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = turn;
                }
            }
            2 => bytes.insert(at, self.one_of(TURNS)),
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
                let (turn, times) = (self.one_of(TURNS), self.one_of(&[2, 16, 65, 101, 256, 600]));
                drop(bytes.splice(at..at, std::iter::repeat_n(turn, times)));
            }
        }
    }
}
