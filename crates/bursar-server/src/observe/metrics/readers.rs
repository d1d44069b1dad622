//! Limits the concurrent readers of the metrics.
//!
//! When there are too many, the one that has read nothing for longest is cut, so that no reader
//! locks out another. Deliberately absent: clocks. The order of reads is enough.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

/// The most concurrent readers. Each holds the start of its text, less than a megabyte.
const READERS_MAX: usize = 16;

/// The error of a reader that was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("another scrape of the metrics took the place of this stalled one")]
pub(crate) struct ReaderEvicted;

/// The texts that are being read.
#[derive(Debug)]
pub(super) struct Readers<T> {
    slots: Mutex<Vec<Arc<ReaderSlot<T>>>>,
    turns: Arc<AtomicU64>,
}

impl<T> Default for Readers<T> {
    fn default() -> Self {
        Self { slots: Mutex::default(), turns: Arc::default() }
    }
}

/// The slot of one reader. Cutting it ends the text.
#[derive(Debug)]
struct ReaderSlot<T> {
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    text: ReaderText<T>,
    /// When a part was last requested.
    turn: u64,
}

#[derive(Debug)]
enum ReaderText<T> {
    Open(T),
    Ended,
    Cut,
}

impl<T> Readers<T> {
    /// Starts to read a text. If there are too many readers, another one is cut.
    pub(super) fn begin(&self, text: T) -> MetricsReader<T> {
        let turn = self.turns.fetch_add(1, Ordering::Relaxed);
        let state = Mutex::new(State { text: ReaderText::Open(text), turn });
        let slot = Arc::new(ReaderSlot { state });
        let mut slots = self.slots.lock();
        slots.retain(|slot| matches!(slot.state.lock().text, ReaderText::Open(_)));
        if slots.len() >= READERS_MAX {
            let turns = slots.iter().map(|slot| slot.state.lock().turn).enumerate();
            if let Some((at, _)) = turns.min_by_key(|(_, turn)| *turn) {
                slots.swap_remove(at).cut();
            }
        }
        slots.push(Arc::clone(&slot));
        MetricsReader { slot, turns: Arc::clone(&self.turns) }
    }
}

impl<T> ReaderSlot<T> {
    fn cut(&self) {
        let mut state = self.state.lock();
        if let ReaderText::Open(_) = state.text {
            state.text = ReaderText::Cut;
        }
    }
}

/// A text that is being read, part by part.
#[derive(Debug)]
pub(crate) struct MetricsReader<T> {
    slot: Arc<ReaderSlot<T>>,
    turns: Arc<AtomicU64>,
}

impl<T: Iterator<Item = Bytes>> Iterator for MetricsReader<T> {
    type Item = Result<Bytes, ReaderEvicted>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut state = self.slot.state.lock();
        let part = match &mut state.text {
            ReaderText::Open(text) => text.next().map(Ok),
            ReaderText::Ended => None,
            ReaderText::Cut => Some(Err(ReaderEvicted)),
        };
        match part {
            Some(Ok(_)) => state.turn = self.turns.fetch_add(1, Ordering::Relaxed),
            Some(Err(_)) | None => state.text = ReaderText::Ended,
        }
        part
    }
}

impl<T> Drop for MetricsReader<T> {
    fn drop(&mut self) {
        self.slot.state.lock().text = ReaderText::Ended;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A text of two parts that holds `held`.
    fn text(held: &Arc<()>) -> impl Iterator<Item = Bytes> + use<> {
        let held = Arc::clone(held);
        (0..2_u8).map(move |part| {
            let _held = &held;
            Bytes::copy_from_slice(&[part])
        })
    }

    #[test]
    fn a_further_reader_takes_the_place_of_the_one_that_took_nothing_for_the_longest() {
        let readers = Readers::default();
        let held: Vec<_> = (0..READERS_MAX).map(|_| Arc::new(())).collect();
        let mut reading: Vec<_> = held.iter().map(|held| readers.begin(text(held))).collect();
        // All but the first two continue, the first one last.
        for at in (2..READERS_MAX).chain([0]) {
            assert_eq!(reading[at].next(), Some(Ok(Bytes::from_static(&[0]))));
        }
        let mut next = readers.begin(text(&Arc::new(())));
        assert_eq!(Arc::strong_count(&held[1]), 1, "what it held is given back at once");
        assert_eq!(reading[1].next(), Some(Err(ReaderEvicted)));
        assert_eq!(reading[1].next(), None);
        for at in (2..READERS_MAX).chain([0]) {
            assert_eq!(reading[at].next(), Some(Ok(Bytes::from_static(&[1]))));
        }
        assert_eq!(next.by_ref().filter(Result::is_ok).count(), 2);
    }

    #[test]
    fn however_many_stall_no_more_is_held_and_each_new_one_is_served() {
        let readers = Readers::default();
        let held = Arc::new(());
        let stalled: Vec<_> = (0..100)
            .map(|_| {
                let mut reading = readers.begin(text(&held));
                assert!(reading.next().is_some_and(|part| part.is_ok()));
                reading
            })
            .collect();
        assert_eq!(Arc::strong_count(&held), 1 + READERS_MAX);
        drop(stalled);
        assert_eq!(Arc::strong_count(&held), 1);
        assert_eq!(readers.begin(text(&held)).filter(Result::is_ok).count(), 2);
        assert_eq!(Arc::strong_count(&held), 1, "an end gives everything back");
    }
}
