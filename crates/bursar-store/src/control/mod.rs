//! Changes of the control plane: tenants, integrations, keys.

mod caps;
mod change;
mod refusal;
mod rotation;

pub use caps::TenantCaps;
pub use change::{Control, IntegrationDraft, IntegrationEdit};
pub use refusal::{Changed, ControlRefusal};
