//! Usage by what took it: the largest groups of some days, and the same step by step.
//!
//! How many groups there are is not bounded by anything that a question can know, so a question
//! says how many it wants; the others are what is left of the total. What is made of the rollups
//! is written here once; a database only reads them ([`crate::read::aggregate`] adds them up).

use std::collections::BTreeMap;

use bursar_core::{Day, IntegrationId};

use crate::read::sums::Sums;
use crate::rows::rollup::Grain;

/// By what usage is told apart.
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

/// One of the things that usage is told apart by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    Integration { integration_id: IntegrationId, name: String, provider_type: String },
    Model { provider: String, model: String },
    Provider { provider: String },
    Agent { agent_id: String },
    Session { session_id: String },
}

impl Group {
    /// The bytes of its texts.
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

/// A question for the largest groups of some days, both inclusive.
#[derive(Clone, Copy, Debug)]
pub struct BreakdownFilter {
    pub by: GroupBy,
    pub integration_id: Option<IntegrationId>,
    pub first: Day,
    pub last: Day,
    /// How many groups to tell apart.
    pub groups_max: usize,
}

/// The largest groups of some days, by cost.
#[derive(Clone, Debug, Default)]
pub struct Breakdown {
    /// All usage, in groups or not.
    pub total: Sums,
    /// The largest groups, the largest first.
    pub groups: Vec<(Group, Sums)>,
}

/// How long a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Hour,
    Day,
}

/// A question for usage step by step, over days, both inclusive.
#[derive(Clone, Copy, Debug)]
pub struct SeriesFilter {
    /// By what; by nothing for the total. Agents and sessions have no hours.
    pub by: Option<GroupBy>,
    pub step: Step,
    pub integration_id: Option<IntegrationId>,
    pub first: Day,
    pub last: Day,
    /// How many groups to tell apart.
    pub groups_max: usize,
}

/// Usage step by step.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// The groups that are told apart, the largest first.
    pub groups: Vec<Group>,
    /// What each step came to, in order; steps without calls are absent.
    pub steps: BTreeMap<i32, SeriesStep>,
}

/// What one step came to.
#[derive(Clone, Debug, Default)]
pub struct SeriesStep {
    /// All usage of the step.
    pub total: Sums,
    /// By group, as far as groups are told apart: the place in [`Series::groups`].
    pub groups: BTreeMap<usize, Sums>,
}

impl Step {
    /// The rollups of this step by model.
    pub(crate) const fn grain(self) -> Grain {
        match self {
            Self::Hour => Grain::Hour,
            Self::Day => Grain::Day,
        }
    }

    /// The numbers of the steps of some days, inclusive.
    pub(crate) const fn range(self, first: Day, last: Day) -> (i32, i32) {
        match self {
            Self::Hour => (first.number() * 24, last.number() * 24 + 23),
            Self::Day => (first.number(), last.number()),
        }
    }
}

impl GroupBy {
    /// The rollups of days that tell these groups apart; none do for sessions.
    pub(crate) const fn day_grain(self) -> Option<Grain> {
        match self {
            Self::Integration | Self::Model | Self::Provider => Some(Grain::Day),
            Self::Agent => Some(Grain::AgentDay),
            Self::Session => None,
        }
    }
}
