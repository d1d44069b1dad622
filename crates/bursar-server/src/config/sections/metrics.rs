//! Who may read the metrics.

use crate::config::section::section;
use crate::config::values::BearerToken;

section! {
    /// Who may read the metrics.
    pub struct MetricsSettings {
        /// Bearer token for /metrics only, at least 16 characters: bur_metrics_ and random letters
        /// and digits. Empty: /metrics accepts the operator's token only.
        pub metrics_token: Option<BearerToken> = "",
    }
}
