//! Protection of the server from tenants that send too many requests.
//!
//! [`rule::Protection`] makes the decision. [`protector`] collects what the decision needs (the
//! route, the tenant's thresholds) and acts on it. Deliberately absent: authentication, which comes
//! first, and money, which limits decide about.

pub mod counting;
pub(crate) mod protector;
mod route_protection;
pub mod rule;
mod signals;
mod tenant_facts;
pub mod thresholds;
mod windows;

pub(crate) use self::route_protection::{RefusalMode, RouteProtection};
pub(crate) use self::signals::KEPT as SIGNALS_KEPT;
