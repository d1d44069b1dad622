//! The history, newest first, a page at a time: what is the same on every database.
//!
//! Each filter has an index to walk from the newest entry to the oldest; the other filters are
//! looked at on the way. Without a filter, or by model, a whole tenant is the merge of its
//! integrations. How many entries a page may look at is bounded, so that two filters that seldom
//! meet cost one page no more than any other: the page then ends early and says where to go on.
//! A page at an offset does not end early, because whoever adds up offsets would pass over what it
//! lacks: it looks at as many entries as it takes within the time of a read.
//! Absent: the walks themselves, which are statements of a database.

use bursar_core::{EntryId, PolicyResult};

use crate::error::StoreError;
use crate::read::store::{HistoryFilter, HistoryPage, HistoryPart, HistoryPosition, Page};
use crate::rows::row::UsageRow;

/// Entries that one page passes over, shared by the walks that are merged.
const PASSED_MAX: usize = 20_000;
/// Entries that each walk may pass over, however many there are.
const PASSED_MIN: usize = 50;
/// What a page at an offset may pass over, which takes longer than any read may.
const PASSED_BY_WHOLE_MAX: usize = u32::MAX as usize;
/// Bytes of metadata and messages after which a page ends, so that a page fits into memory whatever
/// its entries carry.
const PAGE_BYTES_MAX: usize = 1024 * 1024;
/// The same of a page at an offset, which is refused beyond that. What the answers of a tenant may
/// take by default has room for not much more, as a text is in memory twice.
const WHOLE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The same of a page of an export, which stays in memory for as long as its client takes nothing.
const EXPORT_BYTES_MAX: usize = 64 * 1024;
/// Entries of such a page.
const EXPORT_ROWS_MAX: u32 = 256;

/// Where a page ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    page: Page,
    bytes_max: usize,
    is_whole: bool,
}

impl Cut {
    /// Of a page of an export.
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
    /// Refuses a page that ends early where that would lose entries.
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
    /// The most selective one that a filter has.
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

    /// Whether it leads through one integration, so that a tenant is the merge of all of its.
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

/// A page in the making: the newest places that the walks found so far.
#[derive(Debug)]
pub(crate) struct Merge {
    cut: Cut,
    offset: usize,
    /// Up to this place the page goes.
    last: usize,
    passed_max: usize,
    places: Vec<HistoryPosition>,
    /// The newest place at which a walk gave up.
    horizon: Option<HistoryPosition>,
}

impl Merge {
    /// A page that so many walks make together.
    pub(crate) fn new(cut: Cut, walks: usize) -> Self {
        let Page { offset, limit } = cut.page;
        let (offset, last) = (offset as usize, offset as usize + limit as usize);
        let share = (PASSED_MAX / walks.max(1)).max(PASSED_MIN);
        let passed_max = if cut.is_whole { PASSED_BY_WHOLE_MAX } else { share };
        Self { cut, offset, last, passed_max, places: Vec::new(), horizon: None }
    }

    /// How many entries a walk may find; one more than asked for tells whether there is more.
    pub(crate) const fn wanted(&self) -> usize {
        self.last + 1
    }

    /// At how many entries that do not match a walk gives up.
    pub(crate) const fn passed_max(&self) -> usize {
        self.passed_max
    }

    /// Where the next walk goes: once the page is full, or ends early, only what is newer than its
    /// last place matters.
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

    /// Takes an entry that matches.
    pub(crate) fn found(&mut self, place: HistoryPosition) {
        self.places.push(place);
    }

    /// Takes note that a walk gave up at this entry.
    pub(crate) fn gave_up(&mut self, place: HistoryPosition) {
        self.horizon = self.horizon.max(Some(place));
    }

    /// Keeps the newest of what was found, after one or more walks.
    pub(crate) fn settle(&mut self) {
        self.places.sort_unstable_by(|a, b| b.cmp(a));
        self.places.truncate(self.wanted());
    }

    /// What is on the page, after all walks.
    pub(crate) fn into_picked(mut self) -> Picked {
        // Beyond the first place where a walk gave up, others may have what it did not come to.
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

/// The places on a page, and where the next one begins.
#[derive(Debug)]
pub(crate) struct Picked {
    cut: Cut,
    pub(crate) places: Vec<HistoryPosition>,
    next: Option<HistoryPosition>,
}

impl Picked {
    /// After how many bytes of texts the page ends.
    pub(crate) const fn bytes_max(&self) -> usize {
        self.cut.bytes_max
    }

    /// Reads the entries in their order, until their texts have more bytes than that.
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
