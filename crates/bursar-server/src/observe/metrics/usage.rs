//! Usage by tenant and model, rendered without the metrics library.
//!
//! There can be 20,000 label sets of ten families. Here a set is ten numbers and its labels as
//! text. As counters of the library they took ten times the memory (42 MB) and forty times the time
//! of a scrape (64 ms).

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bursar_core::TenantId;
use bursar_store::{Cache, CacheUse, Facts, Rollup};
use bytes::Bytes;
use parking_lot::Mutex;

use super::labels::{FAMILIES, Forgotten, LINE_BYTES, LabelSet, LabelSets, WEIGHT_MAX};
use super::table::{self, Metric};

/// A usage metric and the sum that it counts.
type Family = (Metric, fn(&Rollup) -> i64);

const COUNTED: [Family; FAMILIES] = [
    (table::CALLS, |sums| sums.calls),
    (table::CALLS_FAILED, |sums| sums.errors),
    (table::COST, |sums| sums.cost_nanos),
    (table::CALLS_BLOCKED, |sums| sums.blocked),
    (table::CALLS_UNPRICED, |sums| sums.cost_unknown),
    (table::TOKENS_IN, |sums| sums.tokens_in),
    (table::TOKENS_OUT, |sums| sums.tokens_out),
    (table::TOKENS_CACHE_READ, |sums| sums.tokens_cache_read),
    (table::TOKENS_CACHE_WRITE, |sums| sums.tokens_cache_write),
    (table::TOKENS_REASONING, |sums| sums.tokens_reasoning),
];

/// The first families are shown for every model, so that they can be divided; others if above zero.
const ALWAYS_SHOWN: usize = 3;

/// The size limit of the usage families in a response. The sets alone are bounded below it.
const BYTES_MAX: usize = FAMILIES * WEIGHT_MAX;
/// The bytes rendered at once.
const PART_BYTES: usize = 64 * 1024;

/// The metrics of usage.
pub(super) struct UsageMetrics {
    sets: Mutex<LabelSets>,
    began: Instant,
}

impl Default for UsageMetrics {
    fn default() -> Self {
        Self { sets: Mutex::default(), began: Instant::now() }
    }
}

impl UsageMetrics {
    pub(super) fn count(&self, facts: &Facts<'_>) {
        let now = self.now();
        let mut sets = self.sets.lock();
        for (key, sums) in &facts.models {
            let set = sets.place(*key, now);
            for ((_, of), count) in COUNTED.iter().zip(&set.counts) {
                // Negative sums were excluded before.
                count.fetch_add(u64::try_from(of(sums)).unwrap_or(0), Ordering::Relaxed);
            }
        }
    }

    /// The text of the families, and the sets dropped since the last one.
    pub(super) fn text(&self) -> (UsageText, Forgotten) {
        let now = self.now();
        let mut sets = self.sets.lock();
        sets.expire(now);
        // The writer does not wait for the text.
        let (all, forgotten) = (sets.all(), sets.take_forgotten());
        drop(sets);
        (UsageText::new(all, BYTES_MAX), forgotten)
    }

    /// Seconds since the start.
    fn now(&self) -> u64 {
        self.began.elapsed().as_secs()
    }
}

impl Cache for UsageMetrics {
    fn name(&self) -> &'static str {
        "label-sets"
    }

    fn in_use(&self) -> CacheUse {
        self.sets.lock().in_use()
    }

    fn clear(&self, tenant_id: Option<TenantId>) -> usize {
        self.sets.lock().clear(tenant_id)
    }
}

/// The usage families in the Prometheus format, rendered while they are read.
pub(super) struct UsageText {
    sets: Vec<Arc<LabelSet>>,
    families: [FamilyText; FAMILIES],
    /// The family and the set to continue with.
    family: usize,
    set: usize,
}

/// What a family shows.
#[derive(Clone, Copy, Debug, Default)]
struct FamilyText {
    series: usize,
    bytes: usize,
    is_left_out: bool,
}

impl UsageText {
    fn new(sets: Vec<Arc<LabelSet>>, bytes_max: usize) -> Self {
        let mut families = [FamilyText::default(); FAMILIES];
        for set in &sets {
            for (at, family) in families.iter_mut().enumerate() {
                if shown(set, at).is_some() {
                    family.series += 1;
                    family.bytes += set.labels.len() + LINE_BYTES;
                }
            }
        }
        let mut bytes: usize = families.iter().map(|family| family.bytes).sum();
        while bytes > bytes_max {
            let shown = families.iter_mut().filter(|family| !family.is_left_out);
            let Some(largest) = shown.max_by_key(|family| family.bytes) else { break };
            largest.is_left_out = true;
            bytes -= largest.bytes;
        }
        Self { sets, families, family: 0, set: 0 }
    }

    /// The number of sets shown.
    pub(super) fn sets(&self) -> usize {
        self.sets.len()
    }

    /// The metrics that do not fit, with the number of their series.
    pub(super) fn left_out(&self) -> impl Iterator<Item = (&'static str, usize)> {
        let families = COUNTED.iter().zip(&self.families);
        families.map(|((metric, _), family)| {
            (metric.name, if family.is_left_out { family.series } else { 0 })
        })
    }

    /// Writes the next line or family header. `None` at the end.
    fn write_next(&mut self, text: &mut String) -> Option<std::fmt::Result> {
        let (Metric { name, help, kind, .. }, _) = COUNTED.get(self.family)?;
        let family = self.families.get(self.family)?;
        let is_shown = family.series > 0 && !family.is_left_out;
        let Some(set) = self.sets.get(self.set).filter(|_| is_shown) else {
            (self.family, self.set) = (self.family + 1, 0);
            return Some(Ok(()));
        };
        let head = match self.set {
            0 => write!(text, "# HELP {name} {help}\n# TYPE {name} {}\n", kind.as_str()),
            _ => Ok(()),
        };
        self.set += 1;
        let Some(count) = shown(set, self.family) else { return Some(head) };
        Some(head.and_then(|()| writeln!(text, "{name}{} {count}", set.labels)))
    }
}

impl Iterator for UsageText {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let mut text = String::new();
        while text.len() < PART_BYTES {
            match self.write_next(&mut text) {
                // Writing to memory does not fail.
                Some(Ok(())) => {}
                Some(Err(_)) | None => break,
            }
        }
        (!text.is_empty()).then(|| Bytes::from(text))
    }
}

/// The value that a set shows in a family.
fn shown(set: &LabelSet, family: usize) -> Option<u64> {
    let count = set.counts.get(family).map_or(0, |count| count.load(Ordering::Relaxed));
    (family < ALWAYS_SHOWN || count > 0).then_some(count)
}

#[cfg(test)]
mod tests {
    use bursar_store::ModelKey;

    use super::*;

    fn sets(count: i64) -> Vec<Arc<LabelSet>> {
        let mut sets = LabelSets::default();
        for number in 1..=count {
            let tenant_id = TenantId::from_number(number).expect("in range");
            let set = sets.place(ModelKey { tenant_id, provider: "p", model: "m" }, 0);
            set.counts[0].store(1, Ordering::Relaxed);
            // The fifth family is the only other one with a value, in one set.
            set.counts[5].store(u64::from(number == 1), Ordering::Relaxed);
        }
        sets.all()
    }

    fn text(sets: Vec<Arc<LabelSet>>, bytes_max: usize) -> (String, Vec<(&'static str, usize)>) {
        let text = UsageText::new(sets, bytes_max);
        let left_out = text.left_out().filter(|(_, series)| *series > 0).collect();
        let parts: Vec<u8> = text.flat_map(|part| part.to_vec()).collect();
        (String::from_utf8(parts).expect("text"), left_out)
    }

    #[test]
    fn parts_make_one_text_with_a_head_for_each_family() {
        let (text, left_out) = text(sets(5_000), usize::MAX);
        assert!(left_out.is_empty());
        assert_eq!(text.matches("# TYPE ").count(), 4);
        assert_eq!(text.lines().count(), 3 * 5_000 + 1 + 8);
        assert!(text.contains("# TYPE bursar_tokens_in_total counter\nbursar_tokens_in_total{"));
    }

    #[test]
    fn the_largest_families_give_way_and_the_text_says_so() {
        let all = sets(1_000);
        let one: usize = all.iter().map(|set| set.labels.len() + LINE_BYTES).sum();
        let (text, left_out) = text(all, 2 * one);
        assert!(text.len() <= 2 * one, "{} of {one}", text.len());
        assert!(text.contains("bursar_tokens_in_total{"), "the small one stays");
        let series: Vec<usize> = left_out.iter().map(|(_, series)| *series).collect();
        assert_eq!(series, [1_000, 1_000]);
        assert_eq!(text.matches("# TYPE ").count(), 2);
    }

    #[test]
    fn an_answer_never_outgrows_its_bound() {
        let longest = COUNTED.iter().map(|(metric, _)| metric.name.len()).max();
        assert!(longest.is_some_and(|name| name + 1 + 20 < LINE_BYTES), "{longest:?}");
    }
}
