//! Decompresses gzip bodies with limits on their size and on the work they cause.
//!
//! Compressed bytes can cost a decoder much and yield nothing, for example empty Huffman blocks
//! with their own tables, or empty gzip members. Two checks stop them. Each window of input must
//! yield output, so that a useful part does not pay for a useless one. And the processor time of a
//! body is limited in proportion to its output, for blocks that yield one byte each.

use std::cell::Cell;
use std::io::{self, BufRead, ErrorKind, Read};
use std::time::Duration;

use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;
use rustix::time::{ClockId, clock_gettime};

use crate::http::memory_budget::ByteHold;
use crate::wire::error::ApiError;
use crate::wire::error_code::ErrorCode;

/// The input after which its yield is checked.
const WINDOW: usize = 16 * 1024;
/// A window must yield at least its length divided by this.
///
/// An encoder that is flushed after every byte yields a seventh.
const YIELD_MIN: usize = 16;
/// The output produced between two checks.
const STEP: usize = 64 * 1024;
/// The processor time of any body, and the time per byte of its output.
///
/// An ordinary body takes about 1 ns per byte, one that was flushed after every 40 bytes about 30.
const TIME_BASE: Duration = Duration::from_millis(250);
const TIME_PER_BYTE: Duration = Duration::from_nanos(50);

/// Decompresses a body of at most `max` bytes, charging `hold` as it grows.
///
/// # Errors
/// 400 if it is not gzip or causes too much work, 413 if it becomes too large, 503 if there is no
/// memory for it.
pub(crate) fn inflate(bytes: &[u8], max: usize, mut hold: ByteHold) -> Result<Bytes, ApiError> {
    let work = Work::begin();
    let mut decoder = MultiGzDecoder::new(Windows::new(bytes, &work));
    // The buffer has a constant size, so the decoder returns all it has unless it fills the buffer.
    let mut part = vec![0; STEP];
    let mut inflated = Vec::new();
    loop {
        let read = decoder.read(&mut part).map_err(|error| refusal(&error))?;
        work.output.set(work.output.get() + read);
        work.check_time().map_err(|error| refusal(&error))?;
        let read = part.get(..read).unwrap_or_default();
        if read.is_empty() {
            return Ok(hold.keep(inflated.into()));
        }
        if inflated.len() + read.len() > max {
            return Err(ApiError::too_large(max));
        }
        if !hold.take(read.len()) {
            return Err(ApiError::of(ErrorCode::Overloaded));
        }
        inflated.extend_from_slice(read);
    }
}

fn refusal(error: &io::Error) -> ApiError {
    let message = if error.kind() == ErrorKind::QuotaExceeded {
        "The gzip body takes too much work for its size. Compress it as one stream, and flush less \
         often."
    } else {
        "The body is not valid gzip."
    };
    ApiError::new(ErrorCode::InvalidJson, message)
}

/// The work and the output of a body so far.
struct Work {
    began: Duration,
    output: Cell<usize>,
}

impl Work {
    fn begin() -> Self {
        Self { began: thread_time(), output: Cell::new(0) }
    }

    fn check_time(&self) -> io::Result<()> {
        let output = u32::try_from(self.output.get()).unwrap_or(u32::MAX);
        let may_take = TIME_BASE + TIME_PER_BYTE * output;
        if thread_time().saturating_sub(self.began) > may_take {
            return Err(ErrorKind::QuotaExceeded.into());
        }
        Ok(())
    }
}

/// The processor time of this thread, which excludes the rest of the machine.
fn thread_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// The input, passed to the decoder window by window.
struct Windows<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The end of the current window, and the output when it started.
    end: usize,
    output_before: usize,
    work: &'a Work,
}

impl<'a> Windows<'a> {
    fn new(bytes: &'a [u8], work: &'a Work) -> Self {
        Self { bytes, at: 0, end: WINDOW, output_before: 0, work }
    }

    fn check_window(&mut self) -> io::Result<()> {
        let output = self.work.output.get();
        if (output - self.output_before).saturating_mul(YIELD_MIN) < WINDOW {
            return Err(ErrorKind::QuotaExceeded.into());
        }
        self.work.check_time()?;
        self.end += WINDOW;
        self.output_before = output;
        Ok(())
    }
}

impl Read for Windows<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut window = self.fill_buf()?;
        let read = window.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

impl BufRead for Windows<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at >= self.end {
            self.check_window()?;
        }
        Ok(self.bytes.get(self.at..self.end.min(self.bytes.len())).unwrap_or_default())
    }

    fn consume(&mut self, read: usize) {
        self.at += read;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::write::GzEncoder;
    use flate2::{Compress, Compression, FlushCompress};

    use super::*;
    use crate::http::holder::Holder;
    use crate::http::memory_budget::ByteBudget;

    const MAX: usize = 8 * 1024 * 1024;
    const HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

    fn inflated(bytes: &[u8]) -> Result<Bytes, ApiError> {
        let budget = ByteBudget::new(4 * MAX + 4);
        inflate(bytes, MAX, budget.hold(Holder::ANONYMOUS))
    }

    /// Writes bits, lowest first.
    struct Bits {
        bytes: Vec<u8>,
        kept: u64,
        count: u32,
    }

    impl Bits {
        fn new() -> Self {
            Self { bytes: HEAD.to_vec(), kept: 0, count: 0 }
        }

        fn put(&mut self, bits: u64, count: u32) {
            self.kept |= bits << self.count;
            self.count += count;
            while self.count >= 8 {
                self.bytes.push(self.kept as u8);
                self.kept >>= 8;
                self.count -= 8;
            }
        }
    }

    /// A block with its own tables and no content.
    fn dynamic_block(bits: &mut Bits) {
        for (value, count) in [(0, 1), (2, 2), (0, 5), (0, 5), (14, 4)] {
            bits.put(value, count);
        }
        for place in 0..18 {
            bits.put(u64::from(place == 2 || place == 17), 3);
        }
        for (value, count) in [(1, 1), (127, 7), (1, 1), (107, 7), (0, 1), (0, 1), (0, 1)] {
            bits.put(value, count);
        }
    }

    /// A block with the standard tables and no content.
    fn empty_block(bits: &mut Bits) {
        bits.put(0b010, 3);
        bits.put(0, 7);
    }

    /// A block with a single space.
    fn block_of_one(bits: &mut Bits) {
        bits.put(0b010, 3);
        bits.put(u64::from(0x50_u8.reverse_bits()), 8);
        bits.put(0, 7);
    }

    fn stored_block(bits: &mut Bits) {
        bits.put(0, 3);
        bits.put(0, (8 - bits.count) % 8);
        bits.bytes.extend([0, 0, 0xff, 0xff]);
    }

    fn blocks(block: fn(&mut Bits), length: usize) -> Vec<u8> {
        let mut bits = Bits::new();
        while bits.bytes.len() < length {
            block(&mut bits);
        }
        bits.bytes
    }

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).expect("packed");
        encoder.finish().expect("packed")
    }

    #[track_caller]
    fn check_refused(bytes: &[u8], time_max: Duration) {
        let began = thread_time();
        let error = inflated(bytes).expect_err("refused");
        let took = thread_time() - began;
        assert!(error.message().contains("too much work"), "{}", error.message());
        assert!(took <= time_max, "{took:?}");
    }

    #[test]
    fn blocks_that_say_nothing_are_refused_in_their_first_window() {
        for block in [dynamic_block, empty_block, stored_block] {
            check_refused(&blocks(block, MAX), Duration::from_millis(250));
        }
        let member = packed(b"");
        check_refused(&member.repeat(MAX / member.len()), Duration::from_millis(250));
    }

    #[test]
    fn a_useful_part_does_not_pay_for_a_useless_one() {
        let useful = packed(&vec![b' '; MAX / 2]);
        let useless = blocks(empty_block, MAX / 2);
        check_refused(&[useful, useless].concat(), Duration::from_secs(2));
    }

    #[test]
    fn blocks_that_say_little_are_refused_by_their_time() {
        check_refused(&blocks(block_of_one, MAX), Duration::from_secs(2));
    }

    #[test]
    fn a_body_has_its_time_by_its_output() {
        let work = |output| Work { began: thread_time(), output: Cell::new(output) };
        assert!(work(0).check_time().is_ok());
        let long_ago = thread_time().checked_sub(TIME_BASE + Duration::from_millis(1));
        let Some(began) = long_ago else { return };
        assert!(Work { began, output: Cell::new(0) }.check_time().is_err());
        assert!(Work { began, output: Cell::new(MAX) }.check_time().is_ok());
    }

    /// Text like that of a batch, without long repetitions.
    fn text(length: usize) -> Vec<u8> {
        let record = |at: usize| {
            format!("{{\"call_id\":\"{:x}\",\"tokens_in\":{at}}},", at.wrapping_mul(0x9e37_79b9))
        };
        let mut text: Vec<u8> =
            (0..).map(record).flat_map(String::into_bytes).take(length).collect();
        text.shrink_to_fit();
        text
    }

    /// A member that is flushed after every `every` bytes.
    fn flushed(bytes: &[u8], every: usize, level: u32, mode: FlushCompress) -> Vec<u8> {
        let mut compress = Compress::new(Compression::new(level), false);
        let mut packed = HEAD.to_vec();
        let mut checksum = flate2::Crc::new();
        checksum.update(bytes);
        for part in bytes.chunks(every) {
            packed.reserve(2 * every + 64);
            compress.compress_vec(part, &mut packed, mode).expect("packed");
        }
        packed.reserve(64);
        compress.compress_vec(&[], &mut packed, FlushCompress::Finish).expect("packed");
        packed.extend(checksum.sum().to_le_bytes());
        packed.extend(checksum.amount().to_le_bytes());
        packed
    }

    #[test]
    fn whatever_an_honest_encoder_makes_is_inflated() {
        for level in [0, 1, 6, 9] {
            for (every, length) in [(1, 20_000), (7, 100_000), (40, 400_000), (4_096, 1_000_000)] {
                for mode in [FlushCompress::Sync, FlushCompress::Full, FlushCompress::Partial] {
                    let text = text(length);
                    let packed = flushed(&text, every, level, mode);
                    let inflated = inflated(&packed).expect("an honest body");
                    assert!(inflated == text, "level {level}, {mode:?} every {every}");
                }
            }
        }
    }

    #[test]
    fn a_member_for_each_record_and_a_batch_of_any_kind_are_inflated() {
        let members: Vec<u8> = text(300_000).chunks(60).flat_map(packed).collect();
        assert_eq!(inflated(&members).expect("an honest body").len(), 300_000);
        for level in [0, 1, 9] {
            let whole = text(MAX - 2_048);
            let packed = flushed(&whole, whole.len(), level, FlushCompress::None);
            assert!(inflated(&packed).expect("an honest body") == whole);
        }
        let spaces = vec![b' '; MAX];
        assert!(inflated(&packed(&spaces)).expect("an honest body") == spaces);
        assert_eq!(
            inflated(&packed(&[b' '; MAX + 1])).map(drop).expect_err("too large").code(),
            ErrorCode::BodyTooLarge
        );
    }
}
