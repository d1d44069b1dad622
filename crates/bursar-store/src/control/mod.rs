//! Changes of the control plane: tenants, integrations, keys.

mod caps;
mod change;
mod keys;
mod refusal;

pub use caps::TenantCaps;
pub use change::{Control, IntegrationDraft, IntegrationEdit};
pub use keys::KeyDraft;
pub use refusal::{Changed, ControlRefusal};
