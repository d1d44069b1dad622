//! Aggregates rollups: which of them a filter needs, and how they are added up.
//!
//! Deliberately absent: the statements that read them, which each database has.

#![warn(clippy::arithmetic_side_effects)]

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, btree_map};

use bursar_core::{Day, IntegrationId};

use crate::error::StoreError;
use crate::read::breakdown::{
    Breakdown, BreakdownFilter, Group, GroupBy, Series, SeriesFilter, SeriesStep, Step,
};
use crate::read::breakdown::{CallFilter, CallLabel, CallOutcome};
use crate::read::days::DayUsage;
use crate::read::read_context::{ReadMemory, SUMS_BYTES, ScratchMemory};
use crate::read::summaries::IntegrationUsage;
use crate::read::sums::Sums;
use crate::rows::columns::Columns;
use crate::rows::rollup::Grain;
use crate::rows::rollup_columns::Rollup;
use crate::rows::rollup_labels::{LabelKind, OTHER};

/// The rollups of a grain from one step to another, inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) grain: Grain,
    pub(crate) first: i32,
    pub(crate) last: i32,
}

/// The sums that the rollups of a span are added to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Total,
    Groups,
    TotalAndGroups,
}

impl Part {
    const fn is_of_total(self) -> bool {
        match self {
            Self::Total | Self::TotalAndGroups => true,
            Self::Groups => false,
        }
    }

    const fn is_of_groups(self) -> bool {
        match self {
            Self::Groups | Self::TotalAndGroups => true,
            Self::Total => false,
        }
    }
}

/// A stored rollup, with its key and its integration.
pub(crate) struct FoundRollup {
    start: i32,
    integration_id: IntegrationId,
    name: String,
    provider_type: String,
    provider: String,
    label: String,
    rollup: Rollup,
}

impl FoundRollup {
    /// Reads `integration_id, name, provider_type` of an integration, and `start, provider, label`
    /// and the reported figures of one of its rollups.
    pub(crate) fn read(row: &impl Columns) -> Result<Self, StoreError> {
        Ok(Self {
            integration_id: row.id(0, IntegrationId::from_number)?,
            name: row.text(1)?,
            provider_type: row.text(2)?,
            start: row.int(3)?,
            provider: row.text(4)?,
            label: row.text(5)?,
            rollup: Rollup::read_reported(row, 6)?,
        })
    }

    fn group(self, by: GroupBy) -> Group {
        let Self { integration_id, name, provider_type, provider, label, .. } = self;
        match by {
            GroupBy::Integration => Group::Integration { integration_id, name, provider_type },
            GroupBy::Model => Group::Model { provider, model: label },
            GroupBy::Provider => Group::Provider { provider },
            GroupBy::Agent => Group::Agent { agent_id: label },
            GroupBy::Session => Group::Session { session_id: label },
        }
    }
}

/// Adds up groups and keeps the largest. Their memory is given back at the end.
struct Ranking<'a> {
    groups: HashMap<Group, Sums>,
    scratch: ScratchMemory<'a>,
}

impl<'a> Ranking<'a> {
    fn new(memory: &'a dyn ReadMemory) -> Self {
        Self { groups: HashMap::new(), scratch: ScratchMemory::new(memory) }
    }

    /// The sums of a group, which start at zero.
    fn of(&mut self, group: Group) -> Result<&mut Sums, StoreError> {
        match self.groups.entry(group) {
            Entry::Occupied(found) => Ok(found.into_mut()),
            Entry::Vacant(new) => {
                self.scratch.take(SUMS_BYTES.saturating_add(new.key().text_bytes()))?;
                Ok(new.insert(Sums::default()))
            }
        }
    }

    /// The largest groups by cost, then by calls, then by name.
    fn largest(self, groups_max: usize) -> Vec<(Group, Sums)> {
        let mut groups: Vec<(Group, Sums)> = self.groups.into_iter().collect();
        groups.sort_unstable_by(|(group_a, a), (group_b, b)| {
            let order = b.cost_nanos.cmp(&a.cost_nanos).then(b.calls.cmp(&a.calls));
            order.then_with(|| group_a.cmp(group_b))
        });
        groups.truncate(groups_max);
        groups
    }
}

impl BreakdownFilter {
    /// The rollups to read. Sessions have no rollups, and are read from the entries.
    pub(crate) fn reads(&self) -> Vec<(Part, Span)> {
        let (first, last) = (self.first.number(), self.last.number());
        let total = (Part::Total, Span { grain: Grain::Day, first, last });
        match self.by.day_grain() {
            Some(Grain::Day) => vec![(Part::TotalAndGroups, total.1)],
            // The total also has calls without an agent.
            Some(grain) => vec![(Part::Groups, Span { grain, ..total.1 }), total],
            None => vec![total],
        }
    }
}

/// Adds up a breakdown.
pub(crate) struct BreakdownAggregate<'a> {
    by: GroupBy,
    groups_max: usize,
    total: Sums,
    ranking: Ranking<'a>,
}

impl<'a> BreakdownAggregate<'a> {
    pub(crate) fn new(filter: &BreakdownFilter, memory: &'a dyn ReadMemory) -> Self {
        let BreakdownFilter { by, groups_max, .. } = *filter;
        Self { by, groups_max, total: Sums::default(), ranking: Ranking::new(memory) }
    }

    /// Adds a rollup of [`BreakdownFilter::reads`].
    pub(crate) fn add(&mut self, part: Part, found: FoundRollup) -> Result<(), StoreError> {
        let rollup = found.rollup;
        if part.is_of_total() {
            self.total.add(&rollup)?;
        }
        if part.is_of_groups() {
            self.ranking.of(found.group(self.by))?.add(&rollup)?;
        }
        Ok(())
    }

    /// Adds a session, whose sums come from the entries.
    pub(crate) fn add_session(
        &mut self,
        session_id: String,
        sums: &Sums,
    ) -> Result<(), StoreError> {
        self.ranking.of(Group::Session { session_id })?.merge(sums)
    }

    pub(crate) fn into_breakdown(self) -> Breakdown {
        Breakdown { total: self.total, groups: self.ranking.largest(self.groups_max) }
    }
}

impl SeriesFilter {
    /// The filter that finds the largest groups; `None` if the series has only totals.
    pub(crate) fn breakdown(&self) -> Option<BreakdownFilter> {
        let Self { by, step: _, integration_id, first, last, groups_max } = *self;
        by.map(|by| BreakdownFilter { by, integration_id, first, last, groups_max })
    }

    /// The rollups to read.
    pub(crate) fn reads(&self) -> Vec<(Part, Span)> {
        let (first, last) = self.step.stored_range(self.first, self.last);
        let total = Span { grain: self.step.grain(), first, last };
        match (self.by.and_then(GroupBy::day_grain), self.step) {
            (Some(Grain::Day), _) => vec![(Part::TotalAndGroups, total)],
            (Some(grain), Step::Day) => {
                vec![(Part::Total, total), (Part::Groups, Span { grain, ..total })]
            }
            (Some(_), Step::Hour) | (None, _) => vec![(Part::Total, total)],
        }
    }
}

/// Adds up a series.
pub(crate) struct SeriesAggregate<'a> {
    by: Option<GroupBy>,
    step: Step,
    series: Series,
    /// The indexes of the listed groups in `series.groups`.
    indexes: HashMap<Group, usize>,
    memory: &'a dyn ReadMemory,
}

impl<'a> SeriesAggregate<'a> {
    /// A series that lists the groups of `breakdown`.
    pub(crate) fn new(
        filter: &SeriesFilter,
        breakdown: Option<Breakdown>,
        memory: &'a dyn ReadMemory,
    ) -> Self {
        let groups = breakdown.unwrap_or_default().groups.into_iter().map(|(group, _)| group);
        let series = Series { groups: groups.collect(), ..Series::default() };
        let indexes = series.groups.iter().cloned().zip(0..).collect();
        Self { by: filter.by, step: filter.step, series, indexes, memory }
    }

    /// Adds a rollup of [`SeriesFilter::reads`].
    pub(crate) fn add(&mut self, part: Part, found: FoundRollup) -> Result<(), StoreError> {
        let (start, rollup) = (self.step.of_stored(found.start), found.rollup);
        if part.is_of_total() {
            self.sums_of(start)?.total.add(&rollup)?;
        }
        if part.is_of_groups()
            && let Some(by) = self.by
            && let Some(index) = self.indexes.get(&found.group(by)).copied()
        {
            let memory = self.memory;
            match self.sums_of(start)?.groups.entry(index) {
                btree_map::Entry::Occupied(found) => found.into_mut(),
                btree_map::Entry::Vacant(new) => {
                    memory.take(SUMS_BYTES)?;
                    new.insert(Sums::default())
                }
            }
            .add(&rollup)?;
        }
        Ok(())
    }

    fn sums_of(&mut self, start: i32) -> Result<&mut SeriesStep, StoreError> {
        match self.series.steps.entry(start) {
            btree_map::Entry::Occupied(found) => Ok(found.into_mut()),
            btree_map::Entry::Vacant(new) => {
                // With groups, the response also has the rest of each step's total.
                let points = if self.by.is_some() { 2 } else { 1 };
                self.memory.take(SUMS_BYTES.saturating_mul(points))?;
                Ok(new.insert(SeriesStep::default()))
            }
        }
    }

    pub(crate) fn into_series(self) -> Series {
        self.series
    }
}

/// The limit on the rollups that are read to count calls: about a tenth of a second.
pub(crate) const ROLLUPS_COUNTED_MAX: i64 = 100_000;

/// The limit on the sessions of one read, at about 50 to 100 bytes each.
pub(crate) const SESSIONS_MAX: usize = 500_000;

/// The cost of a session, and the number of one of its entries, which identifies the session.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SessionCost {
    pub(crate) entry_number: i64,
    pub(crate) calls: i64,
    /// 128 bits, because a session can have any number of records.
    pub(crate) cost_nanos: i128,
}

/// Keeps the largest of many sessions, with memory for twice the requested number.
pub(crate) struct LargestSessions {
    kept: Vec<SessionCost>,
    limit: usize,
}

impl LargestSessions {
    pub(crate) fn new(filter: &BreakdownFilter) -> Self {
        Self { kept: Vec::new(), limit: filter.groups_max }
    }

    pub(crate) fn offer(&mut self, session: SessionCost) {
        self.kept.push(session);
        if self.kept.len() >= self.limit.saturating_mul(2).max(1) {
            self.cut();
        }
    }

    /// The largest sessions by cost, then by calls.
    pub(crate) fn into_sessions(mut self) -> Vec<SessionCost> {
        self.cut();
        self.kept
    }

    fn cut(&mut self) {
        let order = |cost: &SessionCost| Reverse((cost.cost_nanos, cost.calls, cost.entry_number));
        self.kept.sort_unstable_by_key(order);
        self.kept.truncate(self.limit);
    }
}

/// Adds up integrations over some days.
pub(crate) struct IntegrationSums<'a> {
    found: BTreeMap<IntegrationId, IntegrationUsage>,
    memory: &'a dyn ReadMemory,
}

impl<'a> IntegrationSums<'a> {
    pub(crate) fn new(memory: &'a dyn ReadMemory) -> Self {
        Self { found: BTreeMap::new(), memory }
    }

    /// Adds a row: `integration_id, name, provider_type` of an integration, and `start` and the
    /// reported figures of one of its days by model and key.
    pub(crate) fn add(&mut self, row: &impl Columns) -> Result<(), StoreError> {
        let integration_id = row.id(0, IntegrationId::from_number)?;
        let found = match self.found.entry(integration_id) {
            btree_map::Entry::Occupied(found) => found.into_mut(),
            btree_map::Entry::Vacant(new) => {
                let (name, provider_type): (String, String) = (row.text(1)?, row.text(2)?);
                let text_bytes = name.len().saturating_add(provider_type.len()).saturating_mul(2);
                self.memory.take(SUMS_BYTES.saturating_add(text_bytes))?;
                let sums = Sums::default();
                new.insert(IntegrationUsage { integration_id, name, provider_type, sums })
            }
        };
        found.sums.add(&Rollup::read_reported(row, 4)?)
    }

    pub(crate) fn into_usage(self) -> Vec<IntegrationUsage> {
        self.found.into_values().collect()
    }
}

/// Adds up days and integrations, from rows in this order.
pub(crate) struct DaySums<'a> {
    found: Vec<DayUsage>,
    memory: &'a dyn ReadMemory,
}

impl<'a> DaySums<'a> {
    pub(crate) fn new(memory: &'a dyn ReadMemory) -> Self {
        Self { found: Vec::new(), memory }
    }

    /// Adds a row: `integration_id, start` and the reported figures of a day by model and key.
    pub(crate) fn add(&mut self, row: &impl Columns) -> Result<(), StoreError> {
        let integration_id = row.id(0, IntegrationId::from_number)?;
        let day = Day::from_number(row.int(1)?);
        let rollup = Rollup::read_reported(row, 2)?;
        match self.found.last_mut() {
            Some(found) if found.day == day && found.integration_id == integration_id => {
                found.sums.add(&rollup)?;
            }
            _ => {
                self.memory.take(SUMS_BYTES)?;
                let mut sums = Sums::default();
                sums.add(&rollup)?;
                self.found.push(DayUsage { day, integration_id, sums });
            }
        }
        Ok(())
    }

    pub(crate) fn into_usage(self) -> Vec<DayUsage> {
        self.found
    }
}

impl CallFilter {
    /// The rollups that distinguish the filter's label.
    pub(crate) fn span(&self) -> Span {
        let grain = match self.label {
            None | Some(CallLabel::Model(_)) => Grain::Day,
            Some(CallLabel::Agent(_)) => Grain::AgentDay,
        };
        Span { grain, first: self.first.number(), last: self.last.number() }
    }

    /// The filter's label, which may have rollups of its own.
    pub(crate) fn labelled(&self) -> Option<(LabelKind, &str)> {
        match &self.label {
            None => None,
            Some(CallLabel::Model(model)) => Some((LabelKind::Model, model)),
            Some(CallLabel::Agent(agent)) => Some((LabelKind::Agent, agent)),
        }
    }

    /// Whether the rollups distinguish the filter's label.
    ///
    /// `has_label` says whether the label has rollups of its own, `has_other` whether any calls of
    /// the span are counted as [`OTHER`].
    fn is_distinguished(&self, has_label: bool, has_other: bool) -> bool {
        // A label with the text of `OTHER` shares its rollups with the rest.
        let own = |label: &str| has_label && label != OTHER;
        match &self.label {
            None => true,
            // The model may be counted as other for one of its providers.
            Some(CallLabel::Model(model)) => own(model) && !has_other,
            Some(CallLabel::Agent(agent)) => own(agent),
        }
    }

    /// The number of matching calls, from `calls, errors, blocked`, the number of rollups and
    /// whether any of them counts as other.
    ///
    /// `None` if the rollups do not distinguish the label, or are too many.
    pub(crate) fn counted(
        &self,
        row: &impl Columns,
        has_label: bool,
    ) -> Result<Option<i64>, StoreError> {
        let is_complete = row.int::<i64>(3)? <= ROLLUPS_COUNTED_MAX;
        if !is_complete || !self.is_distinguished(has_label, row.flag(4)?) {
            return Ok(None);
        }
        let at = match self.outcome {
            None => 0,
            Some(CallOutcome::Failed) => 1,
            Some(CallOutcome::Blocked) => 2,
        };
        row.int(at).map(Some)
    }
}
