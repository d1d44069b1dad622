//! Breakdowns and series of usage: their filters and results.
//!
//! The number of groups has no limit, so a filter says how many of the largest groups to return.
//! The other groups are the rest of the total.
//!
//! Deliberately absent: reading rollups, which each database does, and adding them up, which
//! [`crate::read::aggregate`] does.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bursar_core::{Day, IntegrationId, QuarterHour, TenantId};

use crate::error::StoreError;
use crate::read::sums::Sums;
use crate::rows::rollup::Grain;

/// How usage is grouped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupBy {
    Integration,
    /// Models, each of its provider.
    Model,
    Provider,
    Agent,
    /// Sessions: not in rollups, so read from the entries.
    Session,
}

/// One group of usage.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    Integration { integration_id: IntegrationId, name: String, provider_type: String },
    Model { provider: String, model: String },
    Provider { provider: String },
    Agent { agent_id: String },
    Session { session_id: String },
}

impl Group {
    /// The bytes of the group's texts.
    pub(crate) fn text_bytes(&self) -> usize {
        match self {
            Self::Integration { integration_id: _, name, provider_type } => {
                name.len() + provider_type.len()
            }
            Self::Model { provider, model } => provider.len() + model.len(),
            Self::Provider { provider: text }
            | Self::Agent { agent_id: text }
            | Self::Session { session_id: text } => text.len(),
        }
    }
}

/// A filter for the largest groups from `first` to `last`, inclusive.
#[derive(Clone, Copy, Debug)]
pub struct BreakdownFilter {
    pub by: GroupBy,
    pub integration_id: Option<IntegrationId>,
    pub first: Day,
    pub last: Day,
    /// How many groups to list.
    pub groups_max: usize,
}

/// The largest groups of some days, ordered by cost.
#[derive(Clone, Debug, Default)]
pub struct Breakdown {
    /// All usage, including that of groups that are not listed.
    pub total: Sums,
    /// The largest groups, the largest first.
    pub groups: Vec<(Group, Sums)>,
}

/// The length of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Hour,
    Day,
}

/// A filter for usage by step from `first` to `last`, inclusive.
#[derive(Clone, Copy, Debug)]
pub struct SeriesFilter {
    /// The grouping; `None` for the total only. Agents and sessions have no hourly rollups.
    pub by: Option<GroupBy>,
    pub step: Step,
    pub integration_id: Option<IntegrationId>,
    pub first: Day,
    pub last: Day,
    /// How many groups to list.
    pub groups_max: usize,
}

/// Usage by step.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// The listed groups, the largest first.
    pub groups: Vec<Group>,
    /// The steps in order, without those that have no calls.
    pub steps: BTreeMap<i32, SeriesStep>,
}

/// The usage of one step.
#[derive(Clone, Debug, Default)]
pub struct SeriesStep {
    /// All usage of the step.
    pub total: Sums,
    /// The sums of the listed groups, by index into [`Series::groups`].
    pub groups: BTreeMap<usize, Sums>,
}

impl Step {
    /// The rollups by model that are added up to this step.
    pub(crate) const fn grain(self) -> Grain {
        match self {
            Self::Hour => Grain::Quarter,
            Self::Day => Grain::Day,
        }
    }

    /// The first and last of these rollups of some days, inclusive.
    pub(crate) const fn stored_range(self, first: Day, last: Day) -> (i32, i32) {
        match self {
            Self::Hour => (first.number() * 96, last.number() * 96 + 95),
            Self::Day => (first.number(), last.number()),
        }
    }

    /// The number of the step that one of these rollups belongs to.
    pub(crate) const fn of_stored(self, start: i32) -> i32 {
        match self {
            Self::Hour => QuarterHour::from_number(start).hour().number(),
            Self::Day => start,
        }
    }
}

impl GroupBy {
    /// The daily rollups with this grouping; `None` for sessions.
    pub(crate) const fn day_grain(self) -> Option<Grain> {
        match self {
            Self::Integration | Self::Model | Self::Provider => Some(Grain::Day),
            Self::Agent => Some(Grain::AgentDay),
            Self::Session => None,
        }
    }
}

/// A filter of calls to count, limited to what rollups distinguish.
#[derive(Clone, Debug)]
pub struct CallFilter {
    pub integration_id: Option<IntegrationId>,
    pub label: Option<CallLabel>,
    pub outcome: Option<CallOutcome>,
    /// The first day, inclusive.
    pub first: Day,
    /// The last day, inclusive.
    pub last: Day,
}

/// A label that rollups distinguish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallLabel {
    /// A model, of any provider.
    Model(String),
    Agent(String),
}

/// An outcome of calls that rollups count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    /// The call ended with an error.
    Failed,
    /// Blocked by the caller's own policy.
    Blocked,
}

/// Breakdowns and series of usage, and counts of calls.
#[async_trait]
pub trait SeriesReads: Send + Sync {
    /// Usage over some days by group, the largest groups first.
    ///
    /// `None` if the days have more sessions than one read can distinguish.
    async fn usage_breakdown(
        &self,
        tenant_id: TenantId,
        filter: BreakdownFilter,
    ) -> Result<Option<Breakdown>, StoreError>;

    /// Usage by hour or day, for the largest groups.
    async fn usage_series(
        &self,
        tenant_id: TenantId,
        filter: SeriesFilter,
    ) -> Result<Series, StoreError>;

    /// The number of matching calls, from the rollups of their days.
    ///
    /// `None` if the rollups cannot tell: the label has no rollups of its own, or there are too
    /// many of them.
    async fn counted_calls(
        &self,
        tenant_id: TenantId,
        filter: CallFilter,
    ) -> Result<Option<i64>, StoreError>;
}
