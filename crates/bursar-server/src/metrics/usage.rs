//! Usage by tenant and model, apart from the other metrics: there may be ten thousand label sets of
//! ten families. Here a set is ten numbers and its labels as text. As counters of the library they
//! took ten times the memory (42 MB) and forty times the time of a scrape (64 ms).

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bursar_store::{Facts, Rollup};
use parking_lot::Mutex;

use super::labels::{LabelSet, LabelSets};
use super::table::{self, Metric};

/// A metric of usage, and what of the sums it counts.
type Family = (Metric, fn(&Rollup) -> i64);

/// How many metrics of usage there are.
pub(super) const FAMILIES: usize = 10;

const COUNTED: [Family; FAMILIES] = [
    (table::CALLS, |sums| sums.calls),
    (table::CALLS_FAILED, |sums| sums.errors),
    (table::COST, |sums| sums.cost_nanos),
    (table::CALLS_BLOCKED, |sums| sums.blocked),
    (table::CALLS_UNPRICED, |sums| sums.unpriced),
    (table::TOKENS_IN, |sums| sums.tokens_in),
    (table::TOKENS_OUT, |sums| sums.tokens_out),
    (table::TOKENS_CACHE_READ, |sums| sums.tokens_cache_read),
    (table::TOKENS_CACHE_WRITE, |sums| sums.tokens_cache_write),
    (table::TOKENS_REASONING, |sums| sums.tokens_reasoning),
];

/// The first ones are shown for every model, so that they can be divided by each other; the others
/// only where there is something to show.
const ALWAYS_SHOWN: usize = 3;

/// The metrics of usage.
#[derive(Default)]
pub(super) struct UsageMetrics(Mutex<LabelSets>);

impl UsageMetrics {
    pub(super) fn count(&self, facts: &Facts<'_>) {
        let mut sets = self.0.lock();
        for (key, sums) in &facts.models {
            let set = sets.place(*key);
            for ((_, of), count) in COUNTED.iter().zip(&set.counts) {
                // What is below zero was left out before.
                count.fetch_add(u64::try_from(of(sums)).unwrap_or(0), Ordering::Relaxed);
            }
        }
    }

    /// Adds the families to a text, in the format of Prometheus.
    pub(super) fn render(&self, text: &mut String) -> std::fmt::Result {
        // The writer does not wait for the text to be written.
        let sets = self.0.lock().all();
        for (at, (metric, _)) in COUNTED.iter().enumerate() {
            render_family(text, metric, &sets, |set| {
                let count = set.counts.get(at).map_or(0, |count| count.load(Ordering::Relaxed));
                (at < ALWAYS_SHOWN || count > 0).then_some(count)
            })?;
        }
        Ok(())
    }
}

fn render_family(
    text: &mut String,
    metric: &Metric,
    sets: &[Arc<LabelSet>],
    shown: impl Fn(&LabelSet) -> Option<u64>,
) -> std::fmt::Result {
    let mut counts = sets.iter().filter_map(|set| Some((set, shown(set)?))).peekable();
    if counts.peek().is_some() {
        let Metric { name, help, kind, .. } = metric;
        write!(text, "# HELP {name} {help}\n# TYPE {name} {}\n", kind.as_str())?;
    }
    for (set, count) in counts {
        let labels = &set.labels;
        writeln!(text, "{}{labels} {count}", metric.name)?;
    }
    Ok(())
}
