//! The issuers that authenticate people.

use crate::auth::oidc::IssuerList;
use crate::config::section::section;
use crate::config::setting::SettingValue;
use crate::config::values::Count;

impl SettingValue for IssuerList {}

section! {
    /// The issuers that authenticate people.
    pub struct OidcSettings in "oidc" {
        /// Issuers of people's tokens, at most 100: a table `[[oidc.issuers]]` for each in the
        /// file, or a JSON list of the same objects in the environment. Empty: no people.
        pub issuers: IssuerList = [],
        /// Maximum validity of a person's token, in seconds from iat to exp, or from now if it has
        /// no iat. Tokens with a longer validity are refused.
        pub(crate) token_seconds_max: Count = 86_400,
    }
}
