//! The subject of a call: what limits look at to find the accounts that it counts in.

use std::sync::Arc;

use crate::id::{IntegrationId, KeyId};
use crate::scope::Label;
use crate::tags::Tags;

/// Who makes a call, with what, and for whom.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    pub integration_id: IntegrationId,
    /// The key that reserved the call, else the key that recorded it; the first key of a line of
    /// rotated keys.
    pub account_key_id: Option<KeyId>,
    pub model: Option<&'a str>,
    pub agent_id: Option<&'a str>,
    pub session_id: Option<&'a str>,
    pub tags: &'a Tags,
}

impl Subject<'_> {
    /// The value of a label, if the call has it.
    pub(crate) fn label(&self, label: &Label) -> Option<Arc<str>> {
        match label {
            Label::Model => self.model.map(Arc::from),
            Label::Agent => self.agent_id.map(Arc::from),
            Label::Session => self.session_id.map(Arc::from),
            Label::Key => self.account_key_id.map(|key_id| key_id.to_string().into()),
            Label::Tag(name) => self.tags.get(name).map(Arc::from),
        }
    }
}

/// A [`Subject`] with texts of its own.
#[derive(Clone, Debug)]
pub struct OwnedSubject {
    pub integration_id: IntegrationId,
    pub account_key_id: Option<KeyId>,
    pub model: Option<Box<str>>,
    pub agent_id: Option<Box<str>>,
    pub session_id: Option<Box<str>>,
    pub tags: Tags,
}

impl OwnedSubject {
    /// A call of which only the integration is known.
    pub fn new(integration_id: IntegrationId) -> Self {
        Self {
            integration_id,
            account_key_id: None,
            model: None,
            agent_id: None,
            session_id: None,
            tags: Tags::default(),
        }
    }

    pub fn as_subject(&self) -> Subject<'_> {
        Subject {
            integration_id: self.integration_id,
            account_key_id: self.account_key_id,
            model: self.model.as_deref(),
            agent_id: self.agent_id.as_deref(),
            session_id: self.session_id.as_deref(),
            tags: &self.tags,
        }
    }
}
