//! The queue between code that logs and the thread that writes the log.
//!
//! Logging never waits: a pipe without a reader or a hanging disk blocks only the writing thread.
//! The queue is bounded in lines and bytes. When it is full, lines are dropped and counted, errors
//! last.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// The target of the line about dropped lines.
pub(crate) const TARGET: &str = "bursar::log";
/// The most waiting lines.
const LINES_MAX: usize = 8_192;
/// The most bytes of waiting lines.
const BYTES_MAX: usize = 4 * 1024 * 1024;
/// The bytes of one write.
const BATCH_BYTES: usize = 64 * 1024;
/// The shortest time between two lines about dropped lines.
const TOLD_EVERY: Duration = Duration::from_secs(1);
/// The pause when a non-blocking output accepts nothing.
const AGAIN_AFTER: Duration = Duration::from_millis(10);

/// The part of the queue that a line may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// Three quarters.
    Common,
    /// All of it.
    Errors,
    /// Unlimited: lines about the log itself, and the last lines of the process.
    Always,
}

impl Room {
    fn of(metadata: &Metadata<'_>) -> Self {
        if metadata.target() == TARGET {
            Self::Always
        } else if *metadata.level() == Level::ERROR {
            Self::Errors
        } else {
            Self::Common
        }
    }

    /// The part of a limit that this kind may use.
    const fn of_max(self, max: usize) -> usize {
        match self {
            Self::Common => max / 4 * 3,
            Self::Errors => max,
            Self::Always => usize::MAX,
        }
    }
}

/// Lines that wait to be written.
#[derive(Default)]
pub(crate) struct LogQueue {
    state: Mutex<State>,
    filled: Condvar,
    drained: Condvar,
    dropped: AtomicU64,
}

#[derive(Default)]
struct State {
    lines: VecDeque<Box<[u8]>>,
    bytes: usize,
    is_writing: bool,
    /// Dropped lines that were not reported yet.
    untold: u64,
}

impl State {
    fn has_room(&self, room: Room, bytes: usize) -> bool {
        self.lines.len() < room.of_max(LINES_MAX) && self.bytes + bytes <= room.of_max(BYTES_MAX)
    }

    /// Whether the queue is less than half full.
    fn flows(&self) -> bool {
        self.lines.len() < LINES_MAX / 2 && self.bytes < BYTES_MAX / 2
    }
}

/// The next step of the thread.
enum Next {
    Write,
    /// Report that this many lines were dropped.
    Tell(u64),
}

impl LogQueue {
    /// Adds a line or drops it.
    pub(crate) fn push(&self, line: &[u8], room: Room) {
        let mut state = self.state.lock();
        if !state.has_room(room, line.len()) {
            state.untold += 1;
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        state.bytes += line.len();
        state.lines.push_back(line.into());
        drop(state);
        self.filled.notify_one();
    }

    /// The number of lines dropped since the start.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits until everything is written, up to a limit. Returns whether it is.
    pub(crate) fn flush(&self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        let mut state = self.state.lock();
        while state.is_writing || !state.lines.is_empty() {
            if self.drained.wait_until(&mut state, deadline).timed_out() {
                return false;
            }
        }
        true
    }

    /// Writes lines as long as the process runs. `tell` adds a line of its own.
    pub(crate) fn write(&self, mut output: impl Write, tell: impl Fn(u64)) -> ! {
        let mut batch = Vec::with_capacity(BATCH_BYTES);
        let mut told_at = None;
        loop {
            self.write_next(&mut output, &tell, &mut batch, &mut told_at);
        }
    }

    fn write_next(
        &self,
        output: &mut impl Write,
        tell: &impl Fn(u64),
        batch: &mut Vec<u8>,
        told_at: &mut Option<Instant>,
    ) {
        batch.clear();
        let mut lines = 0;
        match self.next(batch, &mut lines, told_at) {
            Next::Tell(dropped) => tell(dropped),
            Next::Write => {
                // If the output is gone, only the metrics can report it.
                if write_all(output, batch).is_err() {
                    self.dropped.fetch_add(lines, Ordering::Relaxed);
                }
                self.finish();
            }
        }
    }

    /// Waits for the next step. To write, it moves a batch of lines into `batch`.
    fn next(&self, batch: &mut Vec<u8>, lines: &mut u64, told_at: &mut Option<Instant>) -> Next {
        let mut state = self.state.lock();
        loop {
            let is_due = told_at.is_none_or(|at| at.elapsed() >= TOLD_EVERY);
            if state.untold > 0 && state.flows() && is_due {
                *told_at = Some(Instant::now());
                return Next::Tell(std::mem::take(&mut state.untold));
            }
            if !state.lines.is_empty() {
                break;
            }
            if state.untold > 0 {
                self.filled.wait_for(&mut state, TOLD_EVERY);
            } else {
                self.filled.wait(&mut state);
            }
        }
        while batch.len() < BATCH_BYTES
            && let Some(line) = state.lines.pop_front()
        {
            state.bytes -= line.len();
            batch.extend_from_slice(&line);
            *lines += 1;
        }
        state.is_writing = true;
        Next::Write
    }

    fn finish(&self) {
        let mut state = self.state.lock();
        state.is_writing = false;
        if state.lines.is_empty() {
            drop(state);
            self.drained.notify_all();
        }
    }
}

/// Writes all bytes, even to a non-blocking output.
fn write_all(output: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match output.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                std::thread::sleep(AGAIN_AFTER);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Puts the lines of a subscriber into a queue.
#[derive(Clone)]
pub(crate) struct QueueWriter(pub(crate) Arc<LogQueue>);

pub(crate) struct LineWriter<'q> {
    queue: &'q LogQueue,
    room: Room,
}

impl<'w> MakeWriter<'w> for QueueWriter {
    type Writer = LineWriter<'w>;

    fn make_writer(&'w self) -> LineWriter<'w> {
        LineWriter { queue: &self.0, room: Room::Common }
    }

    fn make_writer_for(&'w self, metadata: &Metadata<'_>) -> LineWriter<'w> {
        LineWriter { queue: &self.0, room: Room::of(metadata) }
    }
}

impl Write for LineWriter<'_> {
    /// A subscriber writes a line with one call.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.queue.push(line, self.room);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the steps of the thread until nothing waits, and returns the output.
    fn written(queue: &LogQueue) -> String {
        let (mut output, mut batch, mut told_at) = (Vec::new(), Vec::new(), None);
        let tell = |dropped: u64| {
            queue.push(format!("{dropped} were dropped\n").as_bytes(), Room::Always);
        };
        while !queue.state.lock().lines.is_empty() {
            queue.write_next(&mut output, &tell, &mut batch, &mut told_at);
        }
        String::from_utf8(output).expect("a text")
    }

    #[test]
    fn beyond_its_lines_common_ones_are_dropped_before_errors() {
        let queue = LogQueue::default();
        for number in 0..LINES_MAX {
            queue.push(format!("common {number}\n").as_bytes(), Room::Common);
        }
        assert_eq!(queue.dropped(), LINES_MAX as u64 / 4);
        for number in 0..LINES_MAX {
            queue.push(format!("error {number}\n").as_bytes(), Room::Errors);
        }
        assert_eq!(queue.dropped(), LINES_MAX as u64);
        queue.push(b"the last word\n", Room::Always);
        let text = written(&queue);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), LINES_MAX + 2);
        assert_eq!(lines.first(), Some(&"common 0"));
        assert_eq!(lines.get(LINES_MAX / 4 * 3), Some(&"error 0"));
        assert!(lines.contains(&"the last word"));
        assert_eq!(lines.last(), Some(&format!("{LINES_MAX} were dropped").as_str()));
    }

    #[test]
    fn beyond_its_bytes_lines_are_dropped_too() {
        let queue = LogQueue::default();
        let long = vec![b'x'; BYTES_MAX / 16];
        for _ in 0..100 {
            queue.push(&long, Room::Common);
        }
        assert_eq!(queue.dropped(), 88);
        assert!(queue.state.lock().bytes <= BYTES_MAX);
        queue.push(b"short\n", Room::Errors);
        assert_eq!(queue.dropped(), 88);
        let text = written(&queue);
        assert_eq!(text.len(), 12 * long.len() + "short\n".len() + "88 were dropped\n".len());
        assert_eq!(queue.state.lock().bytes, 0);
    }

    /// An output that accepts one byte at a time and sometimes nothing.
    struct Slow(Vec<u8>, bool);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.0.extend(bytes.first());
            Ok(1)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_output_that_takes_little_gets_all_of_it() {
        let mut output = Slow(Vec::new(), false);
        write_all(&mut output, b"a line\n").expect("written");
        assert_eq!(output.0, b"a line\n");
    }

    #[test]
    fn a_flush_waits_until_all_is_written_and_not_longer_than_it_may() {
        let queue = LogQueue::default();
        assert!(queue.flush(Duration::ZERO));
        queue.push(b"a line\n", Room::Common);
        assert!(!queue.flush(Duration::from_millis(1)));
        assert_eq!(written(&queue), "a line\n");
        assert!(queue.flush(Duration::ZERO));
    }

    #[test]
    fn lines_that_an_output_refuses_are_counted() {
        let (reader, mut writer) = io::pipe().expect("a pipe");
        drop(reader);
        let queue = LogQueue::default();
        queue.push(b"a line\n", Room::Common);
        queue.write_next(&mut writer, &|_| {}, &mut Vec::new(), &mut None);
        assert_eq!(queue.dropped(), 1);
        assert!(queue.flush(Duration::ZERO));
    }
}
