//! A log of events that repeat: equal events share one row per minute, which counts them.
//!
//! A request that notes an event never waits. Events are collected in memory and written by a job,
//! and the oldest rows of a tenant are deleted. Everything is bounded, also per tenant. A crash
//! loses events that are not written yet: this is not a ledger.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::time::Duration;

use bursar_core::{TenantId, Timestamp};
use bursar_store::{Cache, CacheUse, ControlTx, Ledger, StoreError};
use parking_lot::Mutex;

use crate::jobs::tenant_cache::{CacheBounds, TenantCache};

/// Rows written in one transaction.
const STEP_ROWS: usize = 500;
/// How long equal events share a row.
const WINDOW: Duration = Duration::from_secs(60);
/// The most tenants whose new rows are counted.
///
/// For any other tenant, as for every tenant after a start, the next row deletes the oldest ones.
const COUNTED_MAX: usize = 20_000;
/// The size of a count with its index entries.
const COUNT_BYTES: usize = 200;
const COUNTED_BOUNDS: CacheBounds = CacheBounds {
    entries_max: COUNTED_MAX,
    tenant_entries_max: 1,
    bytes_max: COUNTED_MAX * COUNT_BYTES,
};

/// A kind of event: when two events are equal, and how a row is stored.
pub trait Event: Clone + Send + 'static {
    /// The fields that equal events of a tenant have in common.
    type Key: Copy + Eq + Hash + Send;
    type RowId: Copy + Send;

    /// The name of the log among the caches.
    const NAME: &'static str;
    /// The plural noun for the events in log lines.
    const EVENTS: &'static str;

    fn tenant_id(&self) -> TenantId;

    /// `None` for an event that is not logged.
    fn key(&self) -> Option<Self::Key>;

    /// When it happened, in the time of the windows.
    fn elapsed(&self) -> Duration;

    /// When it happened, in the store's time.
    fn at(&self) -> Timestamp;

    /// Whether it gets its own row while few events of its window have one.
    fn is_single(&self) -> bool {
        false
    }

    /// The event without what only a row of its own may have.
    #[must_use]
    fn shared(self) -> Self {
        self
    }

    /// The id of this number.
    fn row_id(number: i64) -> Option<Self::RowId>;

    /// Writes or updates a row whose last event is this one.
    ///
    /// # Errors
    /// [`StoreError`].
    fn put(&self, tx: &mut dyn ControlTx, row: CoalescedRow<Self::RowId>)
    -> Result<(), StoreError>;

    /// Deletes all rows of a tenant but the newest `kept`.
    ///
    /// # Errors
    /// [`StoreError`].
    fn drop_old(tx: &mut dyn ControlTx, tenant_id: TenantId, kept: u32) -> Result<(), StoreError>;
}

/// The fields of a row beside its last event.
#[derive(Clone, Copy, Debug)]
pub struct CoalescedRow<RowId> {
    pub(crate) row_id: RowId,
    /// The number of its events.
    pub(crate) times: i64,
    pub(crate) first_at: Timestamp,
}

/// The limits of a log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogBounds {
    /// The most windows in memory, of all tenants and of one.
    pub(crate) windows_max: usize,
    pub(crate) tenant_windows_max: usize,
    /// The most events in memory with their own rows, of all tenants and of one.
    pub(crate) singles_max: usize,
    pub(crate) tenant_singles_max: usize,
    /// The most events of one window with their own rows.
    pub(crate) window_singles_max: u32,
    /// The stored rows of a tenant.
    pub(crate) kept: u32,
    /// After this many new rows of a tenant, its oldest rows are deleted.
    pub(crate) drop_every: u32,
}

/// Collects events and writes them.
pub struct CoalescedLog<E: Event> {
    bounds: LogBounds,
    buffer: Mutex<Buffer<E>>,
    /// Serialises writes, so that a window gets one row.
    writing: tokio::sync::Mutex<()>,
}

/// The equal events of one minute.
struct Window<E: Event> {
    started: Duration,
    singles: u32,
    shared: Option<Row<E>>,
}

/// A row to write.
#[derive(Clone)]
struct Row<E: Event> {
    /// The position in the order in which rows started.
    number: u64,
    stored: Option<E::RowId>,
    last: E,
    times: i64,
    first_at: Timestamp,
    is_written: bool,
}

type WindowKey<E> = (TenantId, <E as Event>::Key);

struct Buffer<E: Event> {
    bounds: LogBounds,
    windows: HashMap<WindowKey<E>, Window<E>>,
    singles: Vec<Row<E>>,
    /// The windows and singles of each tenant.
    shares: HashMap<TenantId, Share>,
    /// Rows written for a tenant since its oldest rows were deleted.
    written: TenantCache<TenantId, u32>,
    /// Events that were dropped because of the limits.
    lost: u64,
    /// The number of rows so far.
    begun: u64,
    /// When the last event was noted, kept or not.
    latest: Option<Duration>,
}

/// The entries of one tenant in memory.
#[derive(Clone, Copy, Default)]
struct Share {
    windows: usize,
    singles: usize,
}

/// A row that is being written, and the window that shares it.
#[derive(Clone)]
struct Pending<E: Event> {
    key: Option<WindowKey<E>>,
    row: Row<E>,
}

impl<E: Event> CoalescedLog<E> {
    /// An empty log.
    pub(crate) fn new(bounds: LogBounds) -> Self {
        let buffer = Mutex::new(Buffer::new(bounds));
        Self { bounds, buffer, writing: tokio::sync::Mutex::default() }
    }

    /// Notes an event.
    pub(crate) fn note(&self, event: E) {
        if let Some(key) = event.key() {
            self.buffer.lock().note(key, event);
        }
    }

    /// Writes the buffered events. After an error the next call tries again, except for events with
    /// their own rows.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn write(&self, ledger: &Ledger) -> Result<(), StoreError> {
        let _writing = self.writing.lock().await;
        let ((pending, to_trim), lost) = {
            let mut buffer = self.buffer.lock();
            (buffer.take_pending(), std::mem::take(&mut buffer.lost))
        };
        if lost > 0 {
            tracing::warn!(
                lost,
                "too many different {} at once: some of them were not kept",
                E::EVENTS
            );
        }
        let kept = self.bounds.kept;
        let mut left = pending.as_slice();
        while !left.is_empty() {
            // In steps, so that other writes wait for a few rows only.
            let (step, after) = left.split_at(left.len().min(STEP_ROWS));
            let rows: Vec<Row<E>> = step.iter().map(|pending| pending.row.clone()).collect();
            let drops = if after.is_empty() { to_trim.clone() } else { BTreeSet::new() };
            let change = move |tx: &mut dyn ControlTx| put_rows(tx, &rows, &drops, kept);
            match ledger.change(None, change).await {
                Ok(ids) => self.buffer.lock().note_written(step, &ids),
                Err(error) => {
                    self.buffer.lock().note_unwritten(left, &to_trim);
                    return Err(error);
                }
            }
            left = after;
        }
        Ok(())
    }
}

impl<E: Event> Cache for CoalescedLog<E> {
    fn name(&self) -> &'static str {
        E::NAME
    }

    fn in_use(&self) -> CacheUse {
        let buffer = self.buffer.lock();
        let of_tenant =
            |(tenant_id, share): (&TenantId, &Share)| (*tenant_id, share.windows + share.singles);
        let LogBounds { windows_max, tenant_windows_max, singles_max, tenant_singles_max, .. } =
            self.bounds;
        CacheUse {
            entries: buffer.windows.len() + buffer.singles.len(),
            entries_max: windows_max + singles_max,
            tenant_entries_max: tenant_windows_max + tenant_singles_max,
            tenants: buffer.shares.iter().map(of_tenant).collect(),
            ..CacheUse::default()
        }
    }

    fn clear(&self, tenant_id: Option<TenantId>) -> usize {
        self.buffer.lock().clear(tenant_id)
    }
}

fn put_rows<E: Event>(
    tx: &mut dyn ControlTx,
    rows: &[Row<E>],
    to_trim: &BTreeSet<TenantId>,
    kept: u32,
) -> Result<Vec<E::RowId>, StoreError> {
    let mut ids = Vec::with_capacity(rows.len());
    for Row { stored, last, times, first_at, .. } in rows {
        let row_id = match stored {
            Some(known) => *known,
            None => {
                let number = tx.allocate_ids(1)?;
                E::row_id(number)
                    .ok_or_else(|| StoreError::Corrupt(format!("{number} is not an id")))?
            }
        };
        last.put(tx, CoalescedRow { row_id, times: *times, first_at: *first_at })?;
        ids.push(row_id);
    }
    for tenant_id in to_trim {
        E::drop_old(tx, *tenant_id, kept)?;
    }
    Ok(ids)
}

impl<E: Event> Buffer<E> {
    fn new(bounds: LogBounds) -> Self {
        Self {
            bounds,
            windows: HashMap::new(),
            singles: Vec::new(),
            shares: HashMap::new(),
            written: TenantCache::new(COUNTED_BOUNDS),
            lost: 0,
            begun: 0,
            latest: None,
        }
    }

    fn note(&mut self, key: E::Key, event: E) {
        let (tenant_id, elapsed) = (event.tenant_id(), event.elapsed());
        self.latest = self.latest.max(Some(elapsed));
        let share = self.shares.get(&tenant_id).copied().unwrap_or_default();
        let known = self.windows.get(&(tenant_id, key));
        if known.is_none_or(|window| !window.is_open(elapsed)) {
            if self.windows.len() >= self.bounds.windows_max
                || share.windows >= self.bounds.tenant_windows_max
            {
                self.lost += 1;
                return;
            }
            // A window that has ended is already written, or is lost.
            let new = Window { started: elapsed, singles: 0, shared: None };
            if self.windows.insert((tenant_id, key), new).is_none() {
                self.shares.entry(tenant_id).or_default().windows += 1;
            }
        }
        let Some(window) = self.windows.get_mut(&(tenant_id, key)) else { return };
        self.begun += 1;
        if event.is_single()
            && window.singles < self.bounds.window_singles_max
            && self.singles.len() < self.bounds.singles_max
            && share.singles < self.bounds.tenant_singles_max
        {
            window.singles += 1;
            self.shares.entry(tenant_id).or_default().singles += 1;
            self.singles.push(Row::new(self.begun, event));
        } else if let Some(row) = &mut window.shared {
            row.times += 1;
            row.last = event.shared();
            row.is_written = false;
        } else {
            window.shared = Some(Row::new(self.begun, event.shared()));
        }
    }

    /// The rows to write, and the tenants whose oldest rows to delete.
    fn take_pending(&mut self) -> (Vec<Pending<E>>, BTreeSet<TenantId>) {
        let singles = std::mem::take(&mut self.singles).into_iter();
        let mut pending: Vec<_> = singles.map(|row| Pending { key: None, row }).collect();
        let latest = self.latest;
        self.windows.retain(|key, window| {
            let unwritten = window.shared.as_mut().filter(|row| !row.is_written);
            let is_pending = unwritten.is_some();
            if let Some(row) = unwritten {
                row.is_written = true;
                pending.push(Pending { key: Some(*key), row: row.clone() });
            }
            is_pending || latest.is_some_and(|latest| window.is_open(latest))
        });
        self.count_shares();
        // Rows get their ids in the order of their first events.
        pending.sort_by_key(|pending| pending.row.number);
        let mut to_trim = BTreeSet::new();
        for Pending { row, .. } in pending.iter().filter(|pending| pending.row.stored.is_none()) {
            let tenant_id = row.last.tenant_id();
            if self.needs_trim(tenant_id) {
                to_trim.insert(tenant_id);
            }
        }
        (pending, to_trim)
    }

    /// Recounts the entries of each tenant.
    fn count_shares(&mut self) {
        self.shares.clear();
        for (tenant_id, _) in self.windows.keys() {
            self.shares.entry(*tenant_id).or_default().windows += 1;
        }
        for row in &self.singles {
            self.shares.entry(row.last.tenant_id()).or_default().singles += 1;
        }
    }

    /// Counts a row of a tenant. Returns whether to delete its oldest rows.
    fn needs_trim(&mut self, tenant_id: TenantId) -> bool {
        if let Some(written) = self.written.get_mut(&tenant_id) {
            *written = (*written + 1) % self.bounds.drop_every;
            return *written == 0;
        }
        self.written.insert(Some(tenant_id), tenant_id, 0, COUNT_BYTES);
        true
    }

    /// Removes the entries of a tenant, or all, written or not. Returns their number.
    fn clear(&mut self, tenant_id: Option<TenantId>) -> usize {
        let stays = |of: TenantId| tenant_id.is_some_and(|gone| gone != of);
        let before = self.windows.len() + self.singles.len();
        self.windows.retain(|(of, _), _| stays(*of));
        self.singles.retain(|row| stays(row.last.tenant_id()));
        self.count_shares();
        match tenant_id {
            Some(_) => self.written.forget(tenant_id),
            None => self.written.clear(),
        };
        before - self.windows.len() - self.singles.len()
    }

    fn note_written(&mut self, pending: &[Pending<E>], ids: &[E::RowId]) {
        for (pending, id) in pending.iter().zip(ids) {
            if let Some(row) = self.row(pending) {
                row.stored = Some(*id);
            }
        }
    }

    /// Marks rows as unwritten, and lets the next rows delete the oldest ones.
    fn note_unwritten(&mut self, pending: &[Pending<E>], to_trim: &BTreeSet<TenantId>) {
        for tenant_id in to_trim {
            self.written.remove(tenant_id);
        }
        for pending in pending {
            if let Some(row) = self.row(pending) {
                row.is_written = false;
            }
        }
    }

    /// The pending row in its window, if it is still there.
    fn row(&mut self, pending: &Pending<E>) -> Option<&mut Row<E>> {
        let window = self.windows.get_mut(&pending.key?)?;
        window.shared.as_mut().filter(|row| row.number == pending.row.number)
    }
}

impl<E: Event> Window<E> {
    fn is_open(&self, now: Duration) -> bool {
        now.saturating_sub(self.started) < WINDOW
    }
}

impl<E: Event> Row<E> {
    fn new(number: u64, event: E) -> Self {
        let first_at = event.at();
        Self { number, stored: None, last: event, times: 1, first_at, is_written: false }
    }
}

#[cfg(test)]
mod tests;
