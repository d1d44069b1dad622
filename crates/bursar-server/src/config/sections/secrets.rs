//! The operator's token and the secret key.

use crate::auth::secret::Secret;
use crate::config::section::section;
use crate::config::values::BearerToken;

section! {
    /// The operator's token and the secret key.
    pub struct SecretSettings {
        /// Bearer token of the operator, at least 16 characters: bur_operator_ and 48 random
        /// letters and digits. Empty: the first start creates the file operator-token in the data
        /// folder. PostgreSQL requires it, with the same value on every node.
        pub operator_token: Option<BearerToken> = "",
        /// Key under which API keys are hashed, at least 32 bytes. Empty: the first start creates
        /// the file secret-key in the data folder. PostgreSQL requires it, with the same value on
        /// every node.
        pub secret_key: Option<Secret> = "",
    }
}
