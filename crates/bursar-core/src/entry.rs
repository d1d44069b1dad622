//! What the ledger keeps of a call: entries are added, never changed.

use crate::id::{EntryId, IntegrationId, TenantId};
use crate::money::Nanos;
use crate::time::Timestamp;
use crate::usage::{CallId, PolicyResult, Usage};

/// Whether an entry is a call or the correction of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// A model call.
    Usage,
    /// A later change to what a call counts, for instance by a price that came late.
    Correction,
}

/// Which figure counts as the cost of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CostSource {
    Reported,
    /// The price book's.
    Computed,
    /// The amount that its reservation held, because nothing better is known.
    Held,
    /// None: the record counts no money, visibly.
    Unknown,
}

impl CostSource {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reported => "reported",
            Self::Computed => "computed",
            Self::Held => "held",
            Self::Unknown => "unknown",
        }
    }
}

/// Where the token figures of a record come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UsageStatus {
    /// The client or the provider said them.
    Reported,
    /// They were estimated, because the provider's figures did not come.
    Estimated,
    /// Nobody knows them.
    Missing,
}

impl UsageStatus {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reported => "reported",
            Self::Estimated => "estimated",
            Self::Missing => "missing",
        }
    }
}

/// An entry to be stored.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    pub entry_id: EntryId,
    /// Whose it is.
    pub tenant_id: TenantId,
    /// A call or a correction.
    pub kind: EntryKind,
    /// The call as reported.
    pub usage: &'a Usage,
    /// The instant that decides its hour, day and month.
    pub occurred_at: Timestamp,
    /// When it was recorded.
    pub created_at: Timestamp,
    pub cost: Nanos,
    /// Where that figure comes from.
    pub cost_source: CostSource,
    /// The price book's figure, if there was a price.
    pub computed_cost: Option<Nanos>,
    /// The version of that price.
    pub price_version: Option<i64>,
    /// Where the token figures come from.
    pub usage_status: UsageStatus,
}

/// The part of a recorded call that a repetition must agree with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedCall {
    pub entry_id: EntryId,
    /// The call id in full; keys of calls are shorter.
    pub call_id: CallId,
    pub integration_id: IntegrationId,
    pub session_id: Option<Box<str>>,
    pub agent_id: Option<Box<str>>,
    pub provider: Box<str>,
    pub model: Box<str>,
    /// Tokens of the prompt.
    pub tokens_in: i64,
    /// Tokens of the answer.
    pub tokens_out: i64,
    /// The cost that the client reported.
    pub reported_cost: Option<Nanos>,
    /// The caller's policy.
    pub policy_result: PolicyResult,
    pub error_code: Option<Box<str>>,
    /// The instant under which it counts.
    pub occurred_at: Timestamp,
}

/// What a repetition must agree with, borrowed from either side of the comparison.
#[derive(PartialEq, Eq)]
struct Content<'a> {
    call_id: &'a CallId,
    integration_id: IntegrationId,
    session_id: Option<&'a str>,
    agent_id: Option<&'a str>,
    provider: &'a str,
    model: &'a str,
    tokens_in: i64,
    tokens_out: i64,
    reported_cost: Option<Nanos>,
    policy_result: PolicyResult,
    error_code: Option<&'a str>,
}

impl RecordedCall {
    /// Whether a repetition says the same: law 2 of the ledger.
    pub fn agrees_with(&self, usage: &Usage) -> bool {
        self.content() == content(usage) && instant_agrees(self.occurred_at, usage)
    }

    fn content(&self) -> Content<'_> {
        Content {
            call_id: &self.call_id,
            integration_id: self.integration_id,
            session_id: self.session_id.as_deref(),
            agent_id: self.agent_id.as_deref(),
            provider: &self.provider,
            model: &self.model,
            tokens_in: self.tokens_in,
            tokens_out: self.tokens_out,
            reported_cost: self.reported_cost,
            policy_result: self.policy_result,
            error_code: self.error_code.as_deref(),
        }
    }
}

impl Entry<'_> {
    /// Whether a repetition in the same group says the same.
    pub(crate) fn agrees_with(&self, usage: &Usage) -> bool {
        content(self.usage) == content(usage) && instant_agrees(self.occurred_at, usage)
    }
}

fn content(usage: &Usage) -> Content<'_> {
    Content {
        call_id: &usage.call_id,
        integration_id: usage.integration_id,
        session_id: usage.session_id.as_deref(),
        agent_id: usage.agent_id.as_deref(),
        provider: &usage.provider,
        model: &usage.model,
        tokens_in: usage.tokens.tokens_in(),
        tokens_out: usage.tokens.tokens_out(),
        reported_cost: usage.cost,
        policy_result: usage.policy_result,
        error_code: usage.error_code.as_deref(),
    }
}

/// An instant that the repetition does not send is not compared, because the server chose it.
fn instant_agrees(occurred_at: Timestamp, usage: &Usage) -> bool {
    usage.occurred_at.is_none_or(|sent| sent == occurred_at)
}
