//! The calls that a limit counts.

use crate::id::IntegrationId;

/// A label of calls that a limit can select.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Label {
    /// The requested model.
    Model,
    Agent,
    Session,
    /// The key that reserved the call, else the key that recorded it.
    Key,
    /// The tag of this name.
    Tag(Box<str>),
}

/// The values of a label that a limit selects.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Selected {
    /// One value.
    One(Box<str>),
    /// Each value, with an account of its own.
    Each,
}

/// The calls that a limit counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// All calls of the tenant.
    Tenant,
    /// The calls of one integration.
    Integration(IntegrationId),
    /// The calls of each integration, with an account of its own.
    EachIntegration,
    /// Calls with a label.
    Label {
        label: Label,
        selected: Selected,
        /// The only integration whose calls count; `None` for all integrations.
        integration_id: Option<IntegrationId>,
    },
}
