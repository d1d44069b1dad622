//! Stored entities that both databases keep in the same way: one file for each.
//!
//! A file has the statements of its table, its reads, and its writes in a transaction of the
//! control plane. Statements use `$1` for the first value, which both databases accept.
//! Deliberately absent: tables whose statements differ, in locks, bulk forms or plans; they are in
//! `sqlite/` and `postgres/`.
//!
//! A new entity is a file here and four places below; its row type is in `rows/`.

pub(crate) mod audit;
pub(crate) mod decisions;
pub(crate) mod integrations;
pub(crate) mod keys;
pub(crate) mod limits;
pub(crate) mod overrides;
pub(crate) mod query;
pub(crate) mod server;
pub(crate) mod signals;
pub(crate) mod tag_names;
pub(crate) mod tenants;
pub(crate) mod value;

pub use self::decisions::{DecisionFilter, DecisionReads};
pub use self::integrations::{IntegrationFilter, IntegrationReads};
pub use self::keys::KeyReads;
pub use self::limits::LimitReads;
pub use self::overrides::OverrideReads;
pub use self::signals::SignalReads;
pub use self::tag_names::TagNameReads;
pub use self::tenants::TenantReads;
pub use self::value::{Sql, Value};

/// The reads of all tables that both databases keep in the same way.
pub trait TableReads:
    DecisionReads
    + IntegrationReads
    + KeyReads
    + LimitReads
    + OverrideReads
    + SignalReads
    + TagNameReads
    + TenantReads
{
}

impl<S> TableReads for S where
    S: DecisionReads
        + IntegrationReads
        + KeyReads
        + LimitReads
        + OverrideReads
        + SignalReads
        + TagNameReads
        + TenantReads
{
}
