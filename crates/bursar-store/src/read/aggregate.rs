//! Rollups added up into what was asked: which ones to read for a question, and what to make of
//! each.
//!
//! The same on every database, which brings the rows.

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
use crate::rows::decode;
use crate::rows::rollup::{Grain, LabelKind, OTHER, Rollup};

/// Rollups to read: of these, from one step to another, inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) grain: Grain,
    pub(crate) first: i32,
    pub(crate) last: i32,
}

/// What rollups of a span are added up for.
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

/// A rollup as it is read, and whose it is.
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
    /// `integration_id, name, provider_type` of an integration, and `start, provider, label` and
    /// all figures of one of its rollups.
    pub(crate) fn read(row: &impl Columns) -> Result<Self, StoreError> {
        Ok(Self {
            integration_id: row.id(0, IntegrationId::from_number)?,
            name: row.text(1)?,
            provider_type: row.text(2)?,
            start: row.int(3)?,
            provider: row.text(4)?,
            label: row.text(5)?,
            rollup: decode::rollup(row, 6)?,
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

/// Adds groups up and keeps the largest. The memory of the others is only lent.
struct Ranking<'a> {
    groups: HashMap<Group, Sums>,
    scratch: ScratchMemory<'a>,
}

impl<'a> Ranking<'a> {
    fn new(memory: &'a dyn ReadMemory) -> Self {
        Self { groups: HashMap::new(), scratch: ScratchMemory::new(memory) }
    }

    fn of(&mut self, group: Group) -> Result<&mut Sums, StoreError> {
        match self.groups.entry(group) {
            Entry::Occupied(found) => Ok(found.into_mut()),
            Entry::Vacant(new) => {
                self.scratch.take(SUMS_BYTES.saturating_add(new.key().text_bytes()))?;
                Ok(new.insert(Sums::default()))
            }
        }
    }

    /// The groups of the largest cost, then of the most calls, then by name.
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
    /// What to read for it; sessions, which have no rollups, come from the entries.
    pub(crate) fn reads(&self) -> Vec<(Part, Span)> {
        let (first, last) = (self.first.number(), self.last.number());
        let total = (Part::Total, Span { grain: Grain::Day, first, last });
        match self.by.day_grain() {
            Some(Grain::Day) => vec![(Part::TotalAndGroups, total.1)],
            // Calls without an agent are in the total all the same.
            Some(grain) => vec![(Part::Groups, Span { grain, ..total.1 }), total],
            None => vec![total],
        }
    }
}

/// A breakdown in the making.
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

    /// Adds a rollup of one of the spans to read.
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

    /// Adds a session that was read from its entries.
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
    /// The question for the groups that it tells apart.
    pub(crate) fn breakdown(&self) -> Option<BreakdownFilter> {
        let Self { by, step: _, integration_id, first, last, groups_max } = *self;
        by.map(|by| BreakdownFilter { by, integration_id, first, last, groups_max })
    }

    /// What to read for its steps.
    pub(crate) fn reads(&self) -> Vec<(Part, Span)> {
        let (first, last) = self.step.range(self.first, self.last);
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

/// A series in the making.
pub(crate) struct SeriesAggregate<'a> {
    by: Option<GroupBy>,
    series: Series,
    places: HashMap<Group, usize>,
    memory: &'a dyn ReadMemory,
}

impl<'a> SeriesAggregate<'a> {
    /// With the groups that are told apart.
    pub(crate) fn new(
        filter: &SeriesFilter,
        breakdown: Option<Breakdown>,
        memory: &'a dyn ReadMemory,
    ) -> Self {
        let groups = breakdown.unwrap_or_default().groups.into_iter().map(|(group, _)| group);
        let series = Series { groups: groups.collect(), ..Series::default() };
        let places = series.groups.iter().cloned().zip(0..).collect();
        Self { by: filter.by, series, places, memory }
    }

    /// Adds a rollup of one of the spans to read.
    pub(crate) fn add(&mut self, part: Part, found: FoundRollup) -> Result<(), StoreError> {
        let (start, rollup) = (found.start, found.rollup);
        if part.is_of_total() {
            self.step(start)?.total.add(&rollup)?;
        }
        if part.is_of_groups()
            && let Some(by) = self.by
            && let Some(place) = self.places.get(&found.group(by)).copied()
        {
            let memory = self.memory;
            match self.step(start)?.groups.entry(place) {
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

    fn step(&mut self, start: i32) -> Result<&mut SeriesStep, StoreError> {
        match self.series.steps.entry(start) {
            btree_map::Entry::Occupied(found) => Ok(found.into_mut()),
            btree_map::Entry::Vacant(new) => {
                // Where groups are told apart, a step also shows what is left of its total.
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

/// Rollups that are looked at to count calls: about a tenth of a second.
pub(crate) const ROLLUPS_COUNTED_MAX: i64 = 100_000;

/// Sessions that one question tells apart, at about 50 to 100 bytes each.
pub(crate) const SESSIONS_MAX: usize = 500_000;

/// What a session cost, and one of its entries, by which it is found again.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SessionCost {
    pub(crate) entry_number: i64,
    pub(crate) calls: i64,
    /// Wider than a record's: a session may have any number of them.
    pub(crate) cost_nanos: i128,
}

/// Keeps the largest of many sessions, in memory for twice as many as are asked for.
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

    /// The largest, by cost and then by calls.
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

/// The sums of integrations over some days.
pub(crate) struct IntegrationSums<'a> {
    found: BTreeMap<IntegrationId, IntegrationUsage>,
    memory: &'a dyn ReadMemory,
}

impl<'a> IntegrationSums<'a> {
    pub(crate) fn new(memory: &'a dyn ReadMemory) -> Self {
        Self { found: BTreeMap::new(), memory }
    }

    /// Adds a row: `integration_id, name, provider_type` of an integration, and `start` and all
    /// figures of one of its days by model.
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
        found.sums.add(&decode::rollup(row, 4)?)
    }

    pub(crate) fn into_usage(self) -> Vec<IntegrationUsage> {
        self.found.into_values().collect()
    }
}

/// The sums of days and integrations, from rows in this order.
pub(crate) struct DaySums<'a> {
    found: Vec<DayUsage>,
    memory: &'a dyn ReadMemory,
}

impl<'a> DaySums<'a> {
    pub(crate) fn new(memory: &'a dyn ReadMemory) -> Self {
        Self { found: Vec::new(), memory }
    }

    /// Adds a row: `integration_id, start` and all figures of a day by model.
    pub(crate) fn add(&mut self, row: &impl Columns) -> Result<(), StoreError> {
        let integration_id = row.id(0, IntegrationId::from_number)?;
        let day = Day::from_number(row.int(1)?);
        let rollup = decode::rollup(row, 2)?;
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
    /// The rollups that tell its label apart.
    pub(crate) fn span(&self) -> Span {
        let grain = match self.label {
            None | Some(CallLabel::Model(_)) => Grain::Day,
            Some(CallLabel::Agent(_)) => Grain::AgentDay,
        };
        Span { grain, first: self.first.number(), last: self.last.number() }
    }

    /// Its label, which has rollups of its own or not.
    pub(crate) fn labelled(&self) -> Option<(LabelKind, &str)> {
        match &self.label {
            None => None,
            Some(CallLabel::Model(model)) => Some((LabelKind::Model, model)),
            Some(CallLabel::Agent(agent)) => Some((LabelKind::Agent, agent)),
        }
    }

    /// Whether rollups can tell, by what they know of its label ([`Self::labelled`]) and whether
    /// any calls of the span are counted as other.
    fn is_told_apart(&self, has_label: bool, has_other: bool) -> bool {
        // What is called like the rest cannot be told from it.
        let own = |label: &str| has_label && label != OTHER;
        match &self.label {
            None => true,
            // Of some provider, the model may be counted as other.
            Some(CallLabel::Model(model)) => own(model) && !has_other,
            Some(CallLabel::Agent(agent)) => own(agent),
        }
    }

    /// The sum that it asks for, of `calls, errors, blocked`, how many rollups were looked at and
    /// whether any of them counts as other; nothing where these cannot tell or were too many.
    pub(crate) fn counted(
        &self,
        row: &impl Columns,
        has_label: bool,
    ) -> Result<Option<i64>, StoreError> {
        let is_whole = row.int::<i64>(3)? <= ROLLUPS_COUNTED_MAX;
        if !is_whole || !self.is_told_apart(has_label, row.flag(4)?) {
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
