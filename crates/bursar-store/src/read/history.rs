//! Pages of the history, newest first: the part that all databases share.
//!
//! Each filter has an index, which is walked from the newest entry to the oldest; the other filters
//! are checked on the way. Without a filter, or by model, the history of a tenant is the merge of
//! its integrations. The number of entries that a page may check is limited, so that a page never
//! gets expensive if two filters rarely match together. Such a page ends early and says where to
//! continue.
//!
//! A page at an offset does not end early, because a client that adds up offsets would skip
//! entries. It checks as many entries as the time limit of a read permits.
//!
//! Deliberately absent: the walks themselves, which are statements of each database.

use bursar_core::{EntryId, PolicyResult};

use crate::error::StoreError;
use crate::read::entries::{HistoryFilter, HistoryPage, HistoryPart, HistoryPosition};
use crate::read::page::Page;
use crate::rows::row::UsageRow;

/// The limit on the entries that one page skips, shared by its merged walks.
const PASSED_MAX: usize = 20_000;
/// How many entries each walk may skip regardless of the number of walks.
const PASSED_MIN: usize = 50;
/// The same for a page at an offset, which the time limit of a read ends first.
const PASSED_BY_WHOLE_MAX: usize = u32::MAX as usize;
/// The limit on the metadata and messages of a page, so that every page fits into memory.
const PAGE_BYTES_MAX: usize = 1024 * 1024;
/// The same for a page at an offset, which is refused beyond it.
///
/// The default memory of a tenant's answers fits little more, because texts are in memory twice.
const WHOLE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The same for a page of an export, which stays in memory until a slow client has taken it.
const EXPORT_BYTES_MAX: usize = 64 * 1024;
/// The limit on the entries of a page of an export.
const EXPORT_ROWS_MAX: u32 = 256;

/// Where a page ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    page: Page,
    bytes_max: usize,
    is_whole: bool,
}

impl Cut {
    /// The end of a page of an export.
    pub(crate) const EXPORT: Self = Self {
        page: Page { offset: 0, limit: EXPORT_ROWS_MAX },
        bytes_max: EXPORT_BYTES_MAX,
        is_whole: false,
    };
}

impl From<HistoryPart> for Cut {
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

impl Cut {
    /// Refuses a page that ends early if the client would skip entries.
    fn check(self, page: HistoryPage) -> Result<HistoryPage, StoreError> {
        let is_short = page.rows.len() < self.page.limit as usize && page.next.is_some();
        if self.is_whole && is_short { Err(StoreError::ReadTooLarge) } else { Ok(page) }
    }
}

/// The index that leads from the newest entry to the oldest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Of one integration.
    Time,
    /// Of one integration.
    Model,
    Agent,
    Session,
    Failed,
    NotAllowed,
}

impl Way {
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

/// Between which instants, and after which entry, a walk goes; all as they are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stretch {
    pub(crate) first_at: i64,
    /// The index begins where the last page ended; the pair below only tells entries of one
    /// instant apart.
    pub(crate) last_at: i64,
    pub(crate) after_at: i64,
    pub(crate) after_id: i64,
}

/// A page under construction: the newest positions that the walks have found so far.
#[derive(Debug)]
pub(crate) struct Merge {
    cut: Cut,
    offset: usize,
    /// The last position of the page.
    last: usize,
    passed_max: usize,
    places: Vec<HistoryPosition>,
    /// The newest position at which a walk gave up.
    horizon: Option<HistoryPosition>,
}

impl Merge {
    /// A page from a number of walks.
    pub(crate) fn new(cut: Cut, walks: usize) -> Self {
        let Page { offset, limit } = cut.page;
        let (offset, last) = (offset as usize, offset as usize + limit as usize);
        let share = (PASSED_MAX / walks.max(1)).max(PASSED_MIN);
        let passed_max = if cut.is_whole { PASSED_BY_WHOLE_MAX } else { share };
        Self { cut, offset, last, passed_max, places: Vec::new(), horizon: None }
    }

    /// How many entries a walk may find: one more than requested, to tell whether there are more.
    pub(crate) const fn wanted(&self) -> usize {
        self.last + 1
    }

    /// After how many skipped entries a walk gives up.
    pub(crate) const fn passed_max(&self) -> usize {
        self.passed_max
    }

    /// The range of the next walk.
    ///
    /// After the page is full or ends early, only entries newer than its last position matter.
    pub(crate) fn stretch(&self, filter: &HistoryFilter) -> Stretch {
        let floor = self.places.get(self.last).copied().max(self.horizon);
        let start = filter.start.max(floor.map(|place| place.occurred_at));
        let end = filter.end.map_or(i64::MAX, |end| end.micros().saturating_sub(1));
        let after = filter.after.map(|place| (place.occurred_at.micros(), place.entry_id.number()));
        let (after_at, after_id) = after.unwrap_or((i64::MAX, i64::MAX));
        Stretch {
            first_at: start.map_or(i64::MIN, |start| start.micros()),
            last_at: end.min(after_at),
            after_at,
            after_id,
        }
    }

    /// Adds a matching entry.
    pub(crate) fn found(&mut self, place: HistoryPosition) {
        self.places.push(place);
    }

    /// Notes that a walk gave up at this entry.
    pub(crate) fn gave_up(&mut self, place: HistoryPosition) {
        self.horizon = self.horizon.max(Some(place));
    }

    /// Drops all but the newest positions, after one or more walks.
    pub(crate) fn settle(&mut self) {
        self.places.sort_unstable_by(|a, b| b.cmp(a));
        self.places.truncate(self.wanted());
    }

    /// The finished page, after all walks.
    pub(crate) fn into_picked(mut self) -> Picked {
        // Beyond the first position where a walk gave up, entries may be missing.
        self.places.retain(|place| self.horizon.is_none_or(|horizon| *place >= horizon));
        let next = match self.places.get(self.last) {
            Some(_) => self.last.checked_sub(1).and_then(|at| self.places.get(at)).copied(),
            None => self.horizon,
        };
        self.places.truncate(self.last);
        self.places.drain(..self.offset.min(self.places.len()));
        Picked { cut: self.cut, places: self.places, next }
    }
}

/// The positions of a page, and the position of the next page.
#[derive(Debug)]
pub(crate) struct Picked {
    cut: Cut,
    pub(crate) places: Vec<HistoryPosition>,
    next: Option<HistoryPosition>,
}

impl Picked {
    /// The limit on the bytes of texts.
    pub(crate) const fn bytes_max(&self) -> usize {
        self.cut.bytes_max
    }

    /// Reads the entries in order, until their texts exceed the limit.
    pub(crate) fn page(
        self,
        mut entry: impl FnMut(EntryId) -> Result<Option<UsageRow>, StoreError>,
    ) -> Result<HistoryPage, StoreError> {
        let mut rows: Vec<UsageRow> = Vec::with_capacity(self.places.len());
        let mut bytes = 0;
        for (at, place) in self.places.iter().enumerate() {
            if let Some(row) = entry(place.entry_id)? {
                let texts = [&row.metadata, &row.error_message];
                bytes += texts.into_iter().flatten().map(String::len).sum::<usize>();
                rows.push(row);
            }
            if bytes > self.cut.bytes_max && at + 1 < self.places.len() {
                return self.cut.check(HistoryPage { rows, next: Some(*place) });
            }
        }
        self.cut.check(HistoryPage { rows, next: self.next })
    }
}
