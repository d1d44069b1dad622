//! A log of what protection did, for the operator.
//!
//! Signals are collected in memory and written once a second. Equal ones share one row per minute,
//! which counts them. Everything is bounded. A crash loses what is not written yet: this is no
//! ledger.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use bursar_core::{Dimension, ProtectionDecision, SignalId, TenantId, Timestamp};
use bursar_store::{Cache, CacheUse, ControlTx, Ledger, SignalRow, StoreError};
use parking_lot::Mutex;

use super::route_protection::RouteProtection;
use crate::jobs::tenant_cache::{CacheBounds, TenantCache};

/// How long equal signals share a row.
const WINDOW: Duration = Duration::from_secs(60);
/// The most windows in memory.
const WINDOWS_MAX: usize = 20_000;
/// Rows kept for a tenant.
pub(crate) const KEPT: u32 = 1_000;
/// After this many new rows of a tenant, its oldest rows are deleted.
const DROP_EVERY: u32 = 100;
/// Tenants whose new rows are counted.
///
/// A tenant that is not counted has its oldest rows deleted with its next row, as every tenant has
/// after a start.
const COUNTED_MAX: usize = 20_000;
/// The size of a counter with its index entries.
const COUNT_BYTES: usize = 200;
const COUNTED_BOUNDS: CacheBounds = CacheBounds {
    entries_max: COUNTED_MAX,
    tenant_entries_max: 1,
    bytes_max: COUNTED_MAX * COUNT_BYTES,
};

/// What equal signals have in common.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    tenant_id: TenantId,
    endpoint: &'static str,
    operation: &'static str,
    dimension: Dimension,
    action: &'static str,
}

/// When a signal occurred: by the monotonic clock, and by the time that is shown.
#[derive(Clone, Copy)]
pub(super) struct SignalTime {
    pub(super) elapsed: Duration,
    pub(super) time: Timestamp,
}

/// The equal signals of one minute.
#[derive(Clone)]
struct Window {
    /// Windows are numbered in the order of their start.
    number: u64,
    started: SignalTime,
    row: Option<SignalId>,
    last: ProtectionDecision,
    last_at: Timestamp,
    times: i64,
    is_written: bool,
}

struct Buffer {
    windows: HashMap<Key, Window>,
    /// New rows of a tenant since its oldest were deleted. Unknown before the first deletion.
    written: TenantCache<TenantId, u32>,
    /// Signals dropped because too many different ones came at once.
    lost: u64,
    /// The number of windows so far.
    begun: u64,
    /// When the last signal came, kept or not.
    latest: Option<Duration>,
}

impl Default for Buffer {
    fn default() -> Self {
        Self {
            windows: HashMap::new(),
            written: TenantCache::new(COUNTED_BOUNDS),
            lost: 0,
            begun: 0,
            latest: None,
        }
    }
}

/// Collects signals and writes them.
pub(super) struct SignalLog {
    buffer: Mutex<Buffer>,
    /// The number of routes that a tenant can be refused on.
    routes: u32,
    /// Held by one writer at a time, so that a window gets one row.
    writing: tokio::sync::Mutex<()>,
}

impl SignalLog {
    pub(super) fn new(routes: u32) -> Self {
        Self { buffer: Mutex::default(), routes, writing: tokio::sync::Mutex::default() }
    }

    /// Adds a decision other than "allow".
    pub(super) fn note(
        &self,
        tenant_id: TenantId,
        route: &RouteProtection,
        decision: ProtectionDecision,
        at: SignalTime,
    ) {
        let Some(breach) = decision.breach() else { return };
        let key = Key {
            tenant_id,
            endpoint: route.endpoint,
            operation: route.operation,
            dimension: breach.dimension,
            action: decision.as_str(),
        };
        self.buffer.lock().note(key, decision, at);
    }

    /// Writes the collected signals. After an error the next call tries again.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) async fn write(&self, ledger: &Ledger) -> Result<(), StoreError> {
        let _writing = self.writing.lock().await;
        let ((pending, to_trim), lost) = {
            let mut buffer = self.buffer.lock();
            (buffer.take_pending(), std::mem::take(&mut buffer.lost))
        };
        if lost > 0 {
            tracing::warn!(lost, "too many different signals at once: not all of them are kept");
        }
        if pending.is_empty() {
            return Ok(());
        }
        let (rows, drops) = (pending.clone(), to_trim.clone());
        let change = move |tx: &mut dyn ControlTx| put_rows(tx, &rows, &drops);
        let written = ledger.change(None, change).await;
        let mut buffer = self.buffer.lock();
        buffer.note_written(&pending, written.as_deref().ok());
        if written.is_err() {
            buffer.forget(&to_trim);
        }
        drop(buffer);
        written.map(|_| ())
    }
}

impl Cache for SignalLog {
    fn name(&self) -> &'static str {
        "protection-signals"
    }

    fn in_use(&self) -> CacheUse {
        // Each dimension has one action.
        let tenant_entries_max = self.routes as usize * Dimension::ALL.len();
        CacheUse { tenant_entries_max, ..self.buffer.lock().in_use() }
    }

    fn clear(&self, tenant_id: Option<TenantId>) -> usize {
        self.buffer.lock().clear(tenant_id)
    }
}

fn put_rows(
    tx: &mut dyn ControlTx,
    pending: &[(Key, Window)],
    to_trim: &BTreeSet<TenantId>,
) -> Result<Vec<SignalId>, StoreError> {
    let mut ids = Vec::with_capacity(pending.len());
    for (key, window) in pending {
        let signal_id = match window.row {
            Some(known) => known,
            None => {
                let number = tx.allocate_ids(1)?;
                SignalId::from_number(number)
                    .ok_or_else(|| StoreError::Corrupt(format!("{number} is no id")))?
            }
        };
        tx.put_signal(&SignalRow {
            tenant_id: key.tenant_id,
            signal_id,
            decision: window.last,
            endpoint: key.endpoint.to_owned(),
            operation: key.operation.to_owned(),
            times: window.times,
            first_at: window.started.time,
            last_at: window.last_at,
        })?;
        ids.push(signal_id);
    }
    for tenant_id in to_trim {
        tx.drop_signals(*tenant_id, KEPT)?;
    }
    Ok(ids)
}

impl Buffer {
    fn note(&mut self, key: Key, decision: ProtectionDecision, at: SignalTime) {
        let SignalTime { elapsed, time } = at;
        self.latest = self.latest.max(Some(elapsed));
        if let Some(window) = self.windows.get_mut(&key).filter(|window| window.is_open(elapsed)) {
            window.last = decision;
            window.last_at = time;
            window.times += 1;
            window.is_written = false;
            return;
        }
        if self.windows.len() >= WINDOWS_MAX {
            self.lost += 1;
            return;
        }
        // The old window was written, or will not be.
        self.begun += 1;
        let window = Window {
            number: self.begun,
            started: at,
            row: None,
            last: decision,
            last_at: time,
            times: 1,
            is_written: false,
        };
        self.windows.insert(key, window);
    }

    fn in_use(&self) -> CacheUse {
        let mut tenants: HashMap<TenantId, usize> = HashMap::new();
        for key in self.windows.keys() {
            *tenants.entry(key.tenant_id).or_default() += 1;
        }
        CacheUse {
            entries: self.windows.len(),
            entries_max: WINDOWS_MAX,
            tenants: tenants.into_iter().collect(),
            ..CacheUse::default()
        }
    }

    /// Clears the buffer, for one tenant or for all. Returns the number of windows.
    fn clear(&mut self, tenant_id: Option<TenantId>) -> usize {
        let before = self.windows.len();
        self.windows.retain(|key, _| tenant_id.is_some_and(|gone| gone != key.tenant_id));
        match tenant_id {
            Some(_) => self.written.forget(tenant_id),
            None => self.written.clear(),
        };
        before - self.windows.len()
    }

    /// The rows to write, and the tenants whose oldest rows must be deleted.
    fn take_pending(&mut self) -> (Vec<(Key, Window)>, BTreeSet<TenantId>) {
        let mut pending = Vec::new();
        let latest = self.latest;
        self.windows.retain(|key, window| {
            let is_new = !std::mem::replace(&mut window.is_written, true);
            if is_new {
                pending.push((*key, window.clone()));
            }
            is_new || latest.is_some_and(|latest| window.is_open(latest))
        });
        // Rows get ids in the order of events.
        pending.sort_by_key(|(_, window)| window.number);
        let mut to_trim = BTreeSet::new();
        for (key, _) in pending.iter().filter(|(_, window)| window.row.is_none()) {
            if self.needs_trim(key.tenant_id) {
                to_trim.insert(key.tenant_id);
            }
        }
        (pending, to_trim)
    }

    /// Counts a new row of a tenant. Returns whether its oldest rows must be deleted.
    fn needs_trim(&mut self, tenant_id: TenantId) -> bool {
        if let Some(written) = self.written.get_mut(&tenant_id) {
            *written = (*written + 1) % DROP_EVERY;
            return *written == 0;
        }
        self.written.insert(Some(tenant_id), tenant_id, 0, COUNT_BYTES);
        true
    }

    /// Has the oldest rows of these tenants deleted with their next row, because that failed now.
    fn forget(&mut self, tenants: &BTreeSet<TenantId>) {
        for tenant_id in tenants {
            self.written.remove(tenant_id);
        }
    }

    /// Records which rows were written, or that none was.
    fn note_written(&mut self, pending: &[(Key, Window)], ids: Option<&[SignalId]>) {
        for (at, (key, written)) in pending.iter().enumerate() {
            let window = self.windows.get_mut(key);
            let Some(window) = window.filter(|window| window.number == written.number) else {
                continue;
            };
            match ids.and_then(|ids| ids.get(at)) {
                Some(id) => window.row = Some(*id),
                None => window.is_written = false,
            }
        }
    }
}

impl Window {
    fn is_open(&self, elapsed: Duration) -> bool {
        elapsed.saturating_sub(self.started.elapsed) < WINDOW
    }
}

#[cfg(test)]
mod tests {
    use bursar_core::Breach;

    use super::*;

    fn key(tenant: i64, dimension: Dimension) -> Key {
        let tenant_id = TenantId::from_number(tenant).expect("in range");
        Key { tenant_id, endpoint: "/route", operation: "GET", dimension, action: "reject" }
    }

    fn decision(current_value: i64) -> ProtectionDecision {
        let dimension = Dimension::Rate;
        let (retry_after_ms, allowed_value) = (1, 1);
        ProtectionDecision::Reject(Breach {
            dimension,
            retry_after_ms,
            current_value,
            allowed_value,
        })
    }

    /// Only the monotonic clock moves.
    fn at(second: u32) -> SignalTime {
        SignalTime { elapsed: Duration::from_secs(second.into()), time: Timestamp::MIN }
    }

    /// The tenant and the count of each pending row.
    fn taken(buffer: &mut Buffer) -> Vec<(i64, i64, Option<SignalId>)> {
        let (pending, _) = buffer.take_pending();
        let ids: Vec<SignalId> =
            (1..).map_while(SignalId::from_number).take(pending.len()).collect();
        buffer.note_written(&pending, Some(&ids));
        let shown =
            |(key, window): (Key, Window)| (key.tenant_id.number(), window.times, window.row);
        pending.into_iter().map(shown).collect()
    }

    #[test]
    fn equal_signals_of_a_minute_share_a_row() {
        let mut buffer = Buffer::default();
        for second in [0, 1, 59] {
            buffer.note(key(1, Dimension::Rate), decision(7), at(second));
        }
        assert_eq!(taken(&mut buffer), [(1, 3, None)]);
        assert_eq!(taken(&mut buffer), []);
        buffer.note(key(1, Dimension::Rate), decision(7), at(59));
        assert_eq!(taken(&mut buffer), [(1, 4, SignalId::from_number(1))]);
        buffer.note(key(1, Dimension::Rate), decision(7), at(60));
        buffer.note(key(1, Dimension::Burst), decision(7), at(60));
        buffer.note(key(2, Dimension::Burst), decision(7), at(61));
        let mut rows = taken(&mut buffer);
        rows.sort_unstable();
        assert_eq!(rows, [(1, 1, None), (1, 1, None), (2, 1, None)]);
    }

    #[test]
    fn what_could_not_be_written_comes_again() {
        let mut buffer = Buffer::default();
        buffer.note(key(1, Dimension::Rate), decision(7), at(0));
        let (pending, _) = buffer.take_pending();
        buffer.note_written(&pending, None);
        buffer.note(key(1, Dimension::Rate), decision(8), at(1));
        assert_eq!(taken(&mut buffer), [(1, 2, None)]);
    }

    #[test]
    fn however_much_comes_memory_is_bounded() {
        let mut buffer = Buffer::default();
        for tenant in 1..=2 * WINDOWS_MAX as i64 {
            buffer.note(key(tenant, Dimension::Rate), decision(7), at(0));
        }
        assert_eq!(buffer.windows.len(), WINDOWS_MAX);
        assert_eq!(buffer.lost, WINDOWS_MAX as u64);
        // Afterwards everything works as before.
        taken(&mut buffer);
        buffer.note(key(7, Dimension::Rate), decision(7), at(3_600));
        taken(&mut buffer);
        buffer.note(key(7, Dimension::Rate), decision(7), at(3_601));
        assert!(taken(&mut buffer).iter().any(|(tenant, ..)| *tenant == 7));
        assert!(buffer.windows.len() <= 2);
    }

    /// Adds a row of a tenant. Returns for how many tenants old rows are deleted with it.
    fn drops(buffer: &mut Buffer, tenant: i64, minute: u32) -> usize {
        buffer.note(key(tenant, Dimension::Rate), decision(7), at(minute * 60));
        buffer.take_pending().1.len()
    }

    #[test]
    fn the_oldest_rows_of_a_tenant_are_dropped_with_its_first_row_and_every_hundredth_after() {
        let mut buffer = Buffer::default();
        let dropping: Vec<u32> =
            (0..=DROP_EVERY * 2).filter(|minute| drops(&mut buffer, 1, *minute) > 0).collect();
        assert_eq!(dropping, [0, DROP_EVERY, DROP_EVERY * 2]);
        assert_eq!(drops(&mut buffer, 2, 0), 1);
    }

    #[test]
    fn what_could_not_be_dropped_is_dropped_with_the_next_row() {
        let mut buffer = Buffer::default();
        buffer.note(key(1, Dimension::Rate), decision(7), at(0));
        let (pending, to_trim) = buffer.take_pending();
        buffer.note_written(&pending, None);
        buffer.forget(&to_trim);
        assert_eq!(buffer.take_pending().1, to_trim);
        assert_eq!(to_trim.len(), 1);
    }

    #[test]
    fn however_many_tenants_come_what_counts_their_rows_is_bounded() {
        let mut buffer = Buffer::default();
        for tenant in 1..=COUNTED_MAX as i64 + 1 {
            assert!(buffer.needs_trim(key(tenant, Dimension::Rate).tenant_id));
        }
        assert_eq!(buffer.written.len(), COUNTED_MAX);
        // Only the oldest was forgotten, and starts again as after a start.
        assert!(!buffer.needs_trim(key(2, Dimension::Rate).tenant_id));
        assert!(buffer.needs_trim(key(1, Dimension::Rate).tenant_id));
        assert!(!buffer.needs_trim(key(1, Dimension::Rate).tenant_id));
    }

    #[test]
    fn the_operator_clears_one_tenant_or_all() {
        let mut buffer = Buffer::default();
        for tenant in 1..=3 {
            buffer.note(key(tenant, Dimension::Rate), decision(7), at(0));
        }
        let (pending, _) = buffer.take_pending();
        buffer.note(key(2, Dimension::Burst), decision(7), at(0));
        let two = key(2, Dimension::Rate).tenant_id;
        assert_eq!((buffer.clear(Some(two)), buffer.clear(Some(two))), (2, 0));
        assert_eq!(buffer.in_use().entries, 2);
        // A signal that comes during a write gets a row of its own.
        buffer.note(key(2, Dimension::Rate), decision(8), at(1));
        let ids: Vec<SignalId> = (1..=3).filter_map(SignalId::from_number).collect();
        buffer.note_written(&pending, Some(&ids));
        assert_eq!(taken(&mut buffer), [(2, 1, None)]);
        assert_eq!((buffer.clear(None), buffer.in_use().entries), (3, 0));
        assert!(buffer.written.is_empty());
    }
}
