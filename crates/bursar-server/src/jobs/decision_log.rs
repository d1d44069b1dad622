//! A log of decisions other than "allowed", so that clients can find out why a call was refused.
//!
//! A check must stay cheap, so decisions are collected in memory and written once a second. A few
//! reservations get rows of their own; equal decisions share one row per minute, which counts them.
//! Everything is bounded. A crash loses what is not written yet: this is no ledger.

use std::collections::{BTreeSet, HashMap};

use bursar_core::{
    Decision, DecisionId, Estimate, IntegrationId, ReasonCode, TenantId, Timestamp, Verdict,
};
use bursar_store::{Cache, CacheUse, ControlTx, DecisionKind, DecisionRow, Ledger, StoreError};
use parking_lot::Mutex;

/// Rows written in one transaction.
const STEP_ROWS: usize = 500;
/// How long equal decisions share a row.
const WINDOW_SECONDS: u32 = 60;
/// Reservations of one window with rows of their own.
const SINGLES_MAX: u32 = 10;
/// The most windows and rows in memory, of all tenants and of one.
const WINDOWS_MAX: usize = 20_000;
const TENANT_WINDOWS_MAX: usize = WINDOWS_MAX / 4;
const PENDING_MAX: usize = 20_000;
const TENANT_PENDING_MAX: usize = PENDING_MAX / 4;
/// Rows kept for a tenant.
const KEPT: u32 = 10_000;
/// After this many new rows of a tenant, its oldest rows are deleted.
const DROP_EVERY: u32 = 500;
/// Tenants whose new rows are counted.
///
/// A tenant that is not counted has its oldest rows deleted with its next row, as every tenant has
/// after a start.
const COUNTED_MAX: usize = 20_000;

/// A decision to be logged.
#[derive(Clone, Debug)]
pub struct DecisionNote {
    pub tenant_id: TenantId,
    /// What the caller asked for.
    pub kind: DecisionKind,
    /// `None` if the tenant has no such integration.
    pub integration_id: Option<IntegrationId>,
    pub decision: Decision,
    /// The call, if it has an id.
    pub call_id: Option<String>,
    /// The estimate of the call.
    pub estimate: Estimate,
    pub at: Timestamp,
}

/// What equal decisions have in common.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    tenant_id: TenantId,
    kind: DecisionKind,
    integration_id: Option<IntegrationId>,
    verdict: Verdict,
    code: Option<ReasonCode>,
}

/// The equal decisions of one minute.
struct Window {
    started: Timestamp,
    singles: u32,
    shared: Option<SharedRow>,
}

/// The row that the decisions of a window share.
struct SharedRow {
    row: Option<DecisionId>,
    times: i64,
    first_at: Timestamp,
    last: DecisionNote,
    is_written: bool,
}

#[derive(Default)]
struct Buffer {
    windows: HashMap<Key, Window>,
    singles: Vec<DecisionNote>,
    /// The part of each tenant.
    shares: HashMap<TenantId, Share>,
    /// New rows of a tenant since its oldest were deleted. Unknown before the first deletion.
    written: HashMap<TenantId, u32>,
    /// Decisions dropped because too many different ones came at once.
    lost: u64,
    /// When the last decision came, kept or not.
    latest: Option<Timestamp>,
}

/// What the buffer holds of one tenant.
#[derive(Clone, Copy, Default)]
struct Share {
    windows: usize,
    singles: usize,
}

/// Collects decisions and writes them.
#[derive(Default)]
pub struct DecisionLog {
    buffer: Mutex<Buffer>,
    /// Held by one writer at a time, so that a window gets one row.
    writing: tokio::sync::Mutex<()>,
}

/// A row to write: a new one, or an update of a shared one.
#[derive(Clone)]
struct Pending {
    key: Option<(Key, Timestamp)>,
    row: Option<DecisionId>,
    note: DecisionNote,
    times: i64,
    first_at: Timestamp,
}

impl DecisionLog {
    /// Adds a decision. "Allowed" is ignored.
    pub fn note(&self, note: DecisionNote) {
        if note.decision.verdict != Verdict::Allowed {
            self.buffer.lock().note(note);
        }
    }

    /// Writes the collected decisions.
    ///
    /// After an error the shared rows are written by the next call; decisions with rows of their
    /// own are lost.
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
            tracing::warn!(lost, "too many different refusals at once: not all of them are kept");
        }
        let mut left = pending.as_slice();
        while !left.is_empty() {
            // Small transactions, so that other writes wait for a few rows only.
            let (step, after) = left.split_at(left.len().min(STEP_ROWS));
            let rows = step.to_vec();
            let drops = if after.is_empty() { to_trim.clone() } else { BTreeSet::new() };
            let change = move |tx: &mut dyn ControlTx| put_rows(tx, &rows, &drops);
            match ledger.change(None, change).await {
                Ok(ids) => self.buffer.lock().written(step, &ids),
                Err(error) => {
                    self.buffer.lock().not_written(left, &to_trim);
                    return Err(error);
                }
            }
            left = after;
        }
        Ok(())
    }
}

impl Cache for DecisionLog {
    fn name(&self) -> &'static str {
        "decisions"
    }

    fn in_use(&self) -> CacheUse {
        let buffer = self.buffer.lock();
        let of_tenant =
            |(tenant_id, share): (&TenantId, &Share)| (*tenant_id, share.windows + share.singles);
        CacheUse {
            entries: buffer.windows.len() + buffer.singles.len(),
            entries_max: WINDOWS_MAX + PENDING_MAX,
            tenant_entries_max: TENANT_WINDOWS_MAX + TENANT_PENDING_MAX,
            tenants: buffer.shares.iter().map(of_tenant).collect(),
            ..CacheUse::default()
        }
    }

    fn clear(&self, tenant_id: Option<TenantId>) -> usize {
        self.buffer.lock().clear(tenant_id)
    }
}

fn put_rows(
    tx: &mut dyn ControlTx,
    pending: &[Pending],
    to_trim: &BTreeSet<TenantId>,
) -> Result<Vec<DecisionId>, StoreError> {
    let mut ids = Vec::with_capacity(pending.len());
    for Pending { key: _, row, note, times, first_at } in pending {
        let decision_id = match row {
            Some(known) => *known,
            None => {
                let number = tx.allocate_ids(1)?;
                DecisionId::from_number(number)
                    .ok_or_else(|| StoreError::Corrupt(format!("{number} is no id")))?
            }
        };
        tx.put_decision(&DecisionRow {
            tenant_id: note.tenant_id,
            decision_id,
            kind: note.kind,
            integration_id: note.integration_id,
            decision: note.decision.clone(),
            call_id: note.call_id.clone(),
            estimate: note.estimate,
            times: *times,
            first_at: *first_at,
            last_at: note.at,
        })?;
        ids.push(decision_id);
    }
    for tenant_id in to_trim {
        tx.drop_decisions(*tenant_id, KEPT)?;
    }
    Ok(ids)
}

impl Buffer {
    fn note(&mut self, note: DecisionNote) {
        let key = Key {
            tenant_id: note.tenant_id,
            kind: note.kind,
            integration_id: note.integration_id,
            verdict: note.decision.verdict,
            code: note.decision.reasons.first().map(|reason| reason.code),
        };
        self.latest = self.latest.max(Some(note.at));
        let share = self.shares.get(&note.tenant_id).copied().unwrap_or_default();
        let is_full = self.windows.len() >= WINDOWS_MAX
            || self.singles.len() >= PENDING_MAX
            || share.windows >= TENANT_WINDOWS_MAX
            || share.singles >= TENANT_PENDING_MAX;
        let known = self.windows.get_mut(&key).filter(|window| window.is_open(note.at));
        let window = match known {
            Some(window) => window,
            None if is_full => {
                self.lost += 1;
                return;
            }
            None => {
                let new = Window { started: note.at, singles: 0, shared: None };
                // The old window was written, or will not be.
                if self.windows.insert(key, new).is_none() {
                    self.shares.entry(note.tenant_id).or_default().windows += 1;
                }
                let Some(window) = self.windows.get_mut(&key) else { return };
                window
            }
        };
        if note.call_id.is_some() && window.singles < SINGLES_MAX && !is_full {
            window.singles += 1;
            self.shares.entry(note.tenant_id).or_default().singles += 1;
            self.singles.push(note);
        } else {
            window.share(note);
        }
    }

    /// The rows to write, and the tenants whose oldest rows must be deleted.
    fn take_pending(&mut self) -> (Vec<Pending>, BTreeSet<TenantId>) {
        let mut pending: Vec<Pending> = std::mem::take(&mut self.singles)
            .into_iter()
            .map(|note| Pending { key: None, row: None, times: 1, first_at: note.at, note })
            .collect();
        for (key, window) in &mut self.windows {
            let Some(shared) = window.shared.as_mut().filter(|shared| !shared.is_written) else {
                continue;
            };
            shared.is_written = true;
            let SharedRow { row, times, first_at, .. } = *shared;
            let note = shared.last.clone();
            pending.push(Pending { key: Some((*key, window.started)), row, note, times, first_at });
        }
        // Rows get ids in the order of events.
        pending.sort_by_key(|pending| pending.first_at);
        if let Some(latest) = self.latest {
            self.windows.retain(|_, window| window.is_open(latest) || window.is_unwritten());
        }
        self.count_shares();
        let mut to_trim = BTreeSet::new();
        for note in pending.iter().filter(|pending| pending.row.is_none()).map(|new| &new.note) {
            if self.needs_trim(note.tenant_id) {
                to_trim.insert(note.tenant_id);
            }
        }
        (pending, to_trim)
    }

    /// Recounts the part of each tenant.
    fn count_shares(&mut self) {
        self.shares.clear();
        for key in self.windows.keys() {
            self.shares.entry(key.tenant_id).or_default().windows += 1;
        }
        for note in &self.singles {
            self.shares.entry(note.tenant_id).or_default().singles += 1;
        }
    }

    /// Counts a new row of a tenant. Returns whether its oldest rows must be deleted.
    fn needs_trim(&mut self, tenant_id: TenantId) -> bool {
        if let Some(written) = self.written.get_mut(&tenant_id) {
            *written = (*written + 1) % DROP_EVERY;
            return *written == 0;
        }
        if self.written.len() >= COUNTED_MAX {
            self.written.clear();
        }
        self.written.insert(tenant_id, 0);
        true
    }

    /// Clears the buffer, for one tenant or for all. Returns the number of rows.
    fn clear(&mut self, tenant_id: Option<TenantId>) -> usize {
        let stays = |of: TenantId| tenant_id.is_some_and(|tenant_id| tenant_id != of);
        let before = self.windows.len() + self.singles.len();
        self.windows.retain(|key, _| stays(key.tenant_id));
        self.singles.retain(|note| stays(note.tenant_id));
        self.count_shares();
        before - self.windows.len() - self.singles.len()
    }

    fn written(&mut self, pending: &[Pending], ids: &[DecisionId]) {
        for (pending, id) in pending.iter().zip(ids) {
            if let Some(shared) = self.shared(pending) {
                shared.row = Some(*id);
            }
        }
    }

    /// Marks rows as unwritten, and has the oldest rows deleted with the next ones.
    fn not_written(&mut self, pending: &[Pending], to_trim: &BTreeSet<TenantId>) {
        self.written.retain(|tenant_id, _| !to_trim.contains(tenant_id));
        for pending in pending {
            if let Some(shared) = self.shared(pending) {
                shared.is_written = false;
            }
        }
    }

    fn shared(&mut self, pending: &Pending) -> Option<&mut SharedRow> {
        let (key, started) = pending.key?;
        let window = self.windows.get_mut(&key).filter(|window| window.started == started)?;
        window.shared.as_mut()
    }
}

impl Window {
    fn is_open(&self, now: Timestamp) -> bool {
        now < self.started.plus_seconds(WINDOW_SECONDS)
    }

    fn is_unwritten(&self) -> bool {
        self.shared.as_ref().is_some_and(|shared| !shared.is_written)
    }

    fn share(&mut self, note: DecisionNote) {
        // A shared row belongs to no single call.
        let last = DecisionNote { call_id: None, ..note };
        match &mut self.shared {
            Some(shared) => {
                shared.times += 1;
                shared.last = last;
                shared.is_written = false;
            }
            None => {
                let first_at = last.at;
                let shared = SharedRow { row: None, times: 1, first_at, last, is_written: false };
                self.shared = Some(shared);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(call_id: Option<&str>, tenant: i64, second: u32) -> DecisionNote {
        DecisionNote {
            tenant_id: TenantId::from_number(tenant).expect("in range"),
            kind: DecisionKind::Reservation,
            integration_id: None,
            decision: Decision::hard_blocked(ReasonCode::IntegrationNotFound),
            call_id: call_id.map(str::to_owned),
            estimate: Estimate::default(),
            at: Timestamp::MIN.plus_seconds(second),
        }
    }

    /// The call and the count of each pending row.
    fn taken(buffer: &mut Buffer) -> Vec<(Option<String>, i64)> {
        let (pending, _) = buffer.take_pending();
        let ids: Vec<DecisionId> =
            (1..).map_while(DecisionId::from_number).take(pending.len()).collect();
        buffer.written(&pending, &ids);
        pending.into_iter().map(|pending| (pending.note.call_id, pending.times)).collect()
    }

    #[test]
    fn a_few_calls_have_rows_of_their_own_and_the_rest_share_one() {
        let mut buffer = Buffer::default();
        for number in 0..SINGLES_MAX + 5 {
            buffer.note(note(Some(&format!("call {number}")), 1, number));
        }
        let rows = taken(&mut buffer);
        assert_eq!(rows.len(), SINGLES_MAX as usize + 1);
        assert_eq!(rows.last(), Some(&(None, 5)));
        assert_eq!(taken(&mut buffer), []);
        buffer.note(note(Some("one more"), 1, 30));
        assert_eq!(taken(&mut buffer), [(None, 6)]);
    }

    #[test]
    fn a_new_minute_begins_anew() {
        let mut buffer = Buffer::default();
        for second in [0, 1, 59, 60, 61] {
            buffer.note(note(None, 1, second));
            assert_eq!(taken(&mut buffer).len(), 1);
        }
        let times: Vec<i64> = buffer
            .windows
            .values()
            .filter_map(|window| window.shared.as_ref().map(|shared| shared.times))
            .collect();
        assert_eq!(times, [2]);
    }

    #[test]
    fn what_could_not_be_written_comes_again() {
        let mut buffer = Buffer::default();
        buffer.note(note(None, 1, 0));
        let (pending, to_trim) = buffer.take_pending();
        buffer.not_written(&pending, &to_trim);
        buffer.note(note(None, 1, 1));
        assert_eq!(taken(&mut buffer), [(None, 2)]);
    }

    #[test]
    fn however_much_comes_memory_is_bounded() {
        let mut buffer = Buffer::default();
        for tenant in 1..=3 * WINDOWS_MAX as i64 {
            buffer.note(note(Some("call"), tenant, 0));
            buffer.note(note(None, tenant, 0));
        }
        assert!(buffer.windows.len() <= WINDOWS_MAX);
        assert!(buffer.singles.len() <= PENDING_MAX);
        assert!(buffer.lost > 0);
        // Afterwards everything works as before.
        taken(&mut buffer);
        buffer.note(note(None, 7, 3_600));
        taken(&mut buffer);
        buffer.note(note(None, 7, 3_601));
        assert!(taken(&mut buffer).contains(&(None, 1)));
        assert!(buffer.windows.len() <= WINDOWS_MAX);
    }

    #[test]
    fn the_oldest_rows_of_a_crowded_tenant_are_dropped_now_and_then() {
        let mut buffer = Buffer::default();
        let mut drops = 0;
        for minute in 0..DROP_EVERY * 2 {
            buffer.note(note(None, 1, minute * 60));
            let (_, to_trim) = buffer.take_pending();
            drops += to_trim.len();
        }
        // Once after the start, and then with every five hundredth row.
        assert_eq!(drops, 2);
    }

    #[test]
    fn one_tenant_takes_a_quarter_of_the_room() {
        let mut buffer = Buffer::default();
        let of_integration = |number: i64, call_id: &str| DecisionNote {
            integration_id: IntegrationId::from_number(number),
            ..note(Some(call_id), 1, 0)
        };
        for number in 1..=WINDOWS_MAX as i64 {
            for call in ["a", "b"] {
                buffer.note(of_integration(number, call));
            }
        }
        assert!(buffer.singles.len() <= TENANT_PENDING_MAX);
        buffer.note(note(Some("another tenant's"), 2, 0));
        let rows = taken(&mut buffer);
        assert!(rows.contains(&(Some("another tenant's".to_owned()), 1)));
        assert_eq!(buffer.clear(TenantId::from_number(2)), 1);
        assert_eq!(buffer.shares.len(), 1);
        assert!(buffer.clear(None) <= TENANT_WINDOWS_MAX);
        assert!(buffer.windows.is_empty() && buffer.shares.is_empty());
    }
}
