//! Entries of the ledger. Entries are added and never changed.

use crate::id::{EntryId, IntegrationId, KeyId, TenantId};
use crate::money::Nanos;
use crate::time::Timestamp;
use crate::usage::{CallId, PolicyResult, Usage};

/// The kind of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// A model call.
    Usage,
    /// A later change of what a call counts, for example after a price became known.
    Correction,
}

/// The figure that counts as the cost of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CostSource {
    /// The client's figure.
    Reported,
    /// The price book's figure.
    Computed,
    /// The amount that the call's reservation held, because no other figure is known.
    Held,
    /// No figure is known: the record counts zero, and reports show it as unpriced.
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

/// An entry to be stored.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    pub entry_id: EntryId,
    pub tenant_id: TenantId,
    pub kind: EntryKind,
    /// The call as reported.
    pub usage: &'a Usage,
    /// When the call happened. It decides the hour, day and month in which the call counts.
    pub occurred_at: Timestamp,
    /// When the call was recorded.
    pub created_at: Timestamp,
    pub cost: Nanos,
    pub cost_source: CostSource,
    /// The price book's figure, if it has a price for the model.
    pub computed_cost: Option<Nanos>,
    /// The version of that price.
    pub price_version: Option<i64>,
    /// The key in whose accounts the call counts.
    pub account_key_id: Option<KeyId>,
    /// The version of the tenant's limits under which the entry counts.
    pub limits_version: i64,
}

/// The content of a recorded call, which a repetition must match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedCall {
    pub entry_id: EntryId,
    /// The whole call id; a [`crate::CallKey`] is shorter.
    pub call_id: CallId,
    pub integration_id: IntegrationId,
    pub session_id: Option<Box<str>>,
    pub agent_id: Option<Box<str>>,
    pub provider: Box<str>,
    pub model: Box<str>,
    pub tokens_in: i64,
    pub tokens_out: i64,
    /// The cost that the client reported.
    pub reported_cost: Option<Nanos>,
    pub policy_result: PolicyResult,
    pub error_code: Option<Box<str>>,
    pub occurred_at: Timestamp,
    /// The source of the cost that counts. It is returned for a duplicate, and is not
    /// compared.
    pub cost_source: CostSource,
}

/// The compared fields, borrowed from either side of the comparison.
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
    /// Whether a repetition has the same content; a repetition with other content is a conflict.
    pub(crate) fn agrees_with(&self, usage: &Usage) -> bool {
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
    /// Whether a repetition in the same group has the same content.
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

/// Compares the instants; if the repetition sends none, the server chose it, and any matches.
fn instant_agrees(occurred_at: Timestamp, usage: &Usage) -> bool {
    usage.occurred_at.is_none_or(|sent| sent == occurred_at)
}
