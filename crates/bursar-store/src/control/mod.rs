//! Changes of the control plane: tenants, integrations, keys.

mod caps;
pub(crate) mod change;
mod keys;
pub(crate) mod refusal;

pub use caps::TenantCaps;
pub use change::{Control, IntegrationDraft, IntegrationEdit};
pub use keys::KeyDraft;
pub use refusal::{Changed, ControlRefusal};
