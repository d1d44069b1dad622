//! Pages of the history, newest first: the part that all databases share.
//!
//! Each filter has an index, which is scanned from the newest entry to the oldest. The other filters
//! are checked for each entry. Without a filter, or by model, the history of a tenant is the merge
//! of the scans of its integrations. The number of entries that a page may check is limited, so that
//! a page stays cheap if two filters rarely match together. Such a page ends early and names the
//! position at which to continue.
//!
//! A page at an offset does not end early, because a client that adds up offsets would skip
//! entries. It checks as many entries as the time limit of a read permits.
//!
//! Deliberately absent: the scans themselves, which are statements of each database.

use bursar_core::{EntryId, PolicyResult};

use crate::error::StoreError;
use crate::read::entries::{HistoryFilter, HistoryPage, HistoryPart, HistoryPosition};
use crate::read::page::Page;
use crate::rows::row::UsageRow;

/// The limit on the entries that one page skips, shared by its merged scans.
const SKIPPED_MAX: usize = 20_000;
/// The entries that each scan may skip, regardless of the number of scans.
const SKIPPED_MIN: usize = 50;
/// The limit for a page at an offset. The time limit of the read is reached first.
const WHOLE_SKIPPED_MAX: usize = u32::MAX as usize;
/// The limit on the texts of a page, in bytes, so that every page fits into memory.
const PAGE_BYTES_MAX: usize = 1024 * 1024;
/// The limit for a page at an offset, which is refused beyond it.
///
/// The default memory budget of a tenant's responses allows little more, because texts are in memory
/// twice.
const WHOLE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The limit for a page of an export, which stays in memory until a slow client has received it.
const EXPORT_BYTES_MAX: usize = 64 * 1024;
/// The limit on the entries of a page of an export.
const EXPORT_ROWS_MAX: u32 = 256;

/// The limits of a page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageLimits {
    page: Page,
    bytes_max: usize,
    is_whole: bool,
}

impl PageLimits {
    /// The limits of a page of an export.
    pub(crate) const EXPORT: Self = Self {
        page: Page { offset: 0, limit: EXPORT_ROWS_MAX },
        bytes_max: EXPORT_BYTES_MAX,
        is_whole: false,
    };
}

impl From<HistoryPart> for PageLimits {
    fn from(part: HistoryPart) -> Self {
        match part {
            HistoryPart::UpTo(limit) => {
                let page = Page { offset: 0, limit };
                Self { page, bytes_max: PAGE_BYTES_MAX, is_whole: false }
            }
            HistoryPart::Whole(page) => Self { page, bytes_max: WHOLE_BYTES_MAX, is_whole: true },
        }
    }
}

impl PageLimits {
    /// Refuses a page that ends early if the client would skip entries.
    fn check(self, page: HistoryPage) -> Result<HistoryPage, StoreError> {
        let is_short = page.rows.len() < self.page.limit as usize && page.next.is_some();
        if self.is_whole && is_short { Err(StoreError::ReadTooLarge) } else { Ok(page) }
    }
}

/// The index whose scan finds the entries, from the newest to the oldest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HistoryIndex {
    /// By integration.
    Time,
    /// By integration and model.
    Model,
    Agent,
    Session,
    Failed,
    NotAllowed,
}

impl HistoryIndex {
    /// The most selective index for a filter.
    pub(crate) fn of(filter: &HistoryFilter) -> Self {
        if filter.session_id.is_some() {
            Self::Session
        } else if filter.errors_only {
            Self::Failed
        } else if filter.policy_result.is_some_and(|policy| policy != PolicyResult::Allowed) {
            Self::NotAllowed
        } else if filter.agent_id.is_some() {
            Self::Agent
        } else if filter.model.is_some() {
            Self::Model
        } else {
            Self::Time
        }
    }

    /// Whether the index is by integration, so that a tenant's history is a merge.
    pub(crate) const fn is_of_integration(self) -> bool {
        match self {
            Self::Time | Self::Model => true,
            Self::Agent | Self::Session | Self::Failed | Self::NotAllowed => false,
        }
    }
}

/// The range of a scan: its instants, and the entry after which it begins. All are stored values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HistoryRange {
    pub(crate) first_at: i64,
    /// At most the instant at which the last page ended. The pair below distinguishes the entries of
    /// that instant.
    pub(crate) last_at: i64,
    pub(crate) after_at: i64,
    pub(crate) after_id: i64,
}

/// A page under construction: the newest positions that the scans have found so far.
#[derive(Debug)]
pub(crate) struct HistoryMerge {
    limits: PageLimits,
    offset: usize,
    /// The last position of the page.
    last: usize,
    skipped_max: usize,
    positions: Vec<HistoryPosition>,
    /// The newest position at which a scan reached its limit.
    horizon: Option<HistoryPosition>,
}

impl HistoryMerge {
    /// A page from a number of scans.
    pub(crate) fn new(limits: PageLimits, scans: usize) -> Self {
        let Page { offset, limit } = limits.page;
        let (offset, last) = (offset as usize, offset as usize + limit as usize);
        let share = (SKIPPED_MAX / scans.max(1)).max(SKIPPED_MIN);
        let skipped_max = if limits.is_whole { WHOLE_SKIPPED_MAX } else { share };
        Self { limits, offset, last, skipped_max, positions: Vec::new(), horizon: None }
    }

    /// The matches that a scan needs: one more than requested, to know whether there is a next page.
    pub(crate) const fn wanted(&self) -> usize {
        self.last + 1
    }

    /// The limit on the entries that a scan skips.
    pub(crate) const fn skipped_max(&self) -> usize {
        self.skipped_max
    }

    /// The range of the next scan.
    ///
    /// Once the page is full or ends early, only entries newer than its last position matter.
    pub(crate) fn range(&self, filter: &HistoryFilter) -> HistoryRange {
        let floor = self.positions.get(self.last).copied().max(self.horizon);
        let start = filter.start.max(floor.map(|position| position.occurred_at));
        let end = filter.end.map_or(i64::MAX, |end| end.micros().saturating_sub(1));
        let after = filter
            .after
            .map(|position| (position.occurred_at.micros(), position.entry_id.number()));
        let (after_at, after_id) = after.unwrap_or((i64::MAX, i64::MAX));
        HistoryRange {
            first_at: start.map_or(i64::MIN, |start| start.micros()),
            last_at: end.min(after_at),
            after_at,
            after_id,
        }
    }

    /// Adds a matching entry.
    pub(crate) fn add_match(&mut self, position: HistoryPosition) {
        self.positions.push(position);
    }

    /// Records that a scan reached its limit at this entry.
    pub(crate) fn stopped_at(&mut self, position: HistoryPosition) {
        self.horizon = self.horizon.max(Some(position));
    }

    /// Drops all but the newest positions, after one or more scans.
    pub(crate) fn keep_newest(&mut self) {
        self.positions.sort_unstable_by(|a, b| b.cmp(a));
        self.positions.truncate(self.wanted());
    }

    /// The positions of the page, after all scans.
    pub(crate) fn finish(mut self) -> PagePositions {
        // Beyond the newest position at which a scan stopped, entries may be missing.
        self.positions.retain(|position| self.horizon.is_none_or(|horizon| *position >= horizon));
        let next = match self.positions.get(self.last) {
            Some(_) => self.last.checked_sub(1).and_then(|at| self.positions.get(at)).copied(),
            None => self.horizon,
        };
        self.positions.truncate(self.last);
        self.positions.drain(..self.offset.min(self.positions.len()));
        PagePositions { limits: self.limits, list: self.positions, next }
    }
}

/// The positions of a page, and the position of the next page.
#[derive(Debug)]
pub(crate) struct PagePositions {
    limits: PageLimits,
    pub(crate) list: Vec<HistoryPosition>,
    next: Option<HistoryPosition>,
}

impl PagePositions {
    /// The limit on the bytes of texts.
    pub(crate) const fn bytes_max(&self) -> usize {
        self.limits.bytes_max
    }

    /// Reads the entries in order, until their texts exceed the limit.
    pub(crate) fn read(
        self,
        mut entry: impl FnMut(EntryId) -> Result<Option<UsageRow>, StoreError>,
    ) -> Result<HistoryPage, StoreError> {
        let mut rows: Vec<UsageRow> = Vec::with_capacity(self.list.len());
        let mut bytes = 0;
        for (at, position) in self.list.iter().enumerate() {
            if let Some(row) = entry(position.entry_id)? {
                bytes += row.text_bytes();
                rows.push(row);
            }
            if bytes > self.limits.bytes_max && at + 1 < self.list.len() {
                return self.limits.check(HistoryPage { rows, next: Some(*position) });
            }
        }
        self.limits.check(HistoryPage { rows, next: self.next })
    }
}
