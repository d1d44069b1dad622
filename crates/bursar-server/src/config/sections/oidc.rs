//! Who vouches for people.

use crate::auth::oidc::IssuerList;
use crate::config::section::section;
use crate::config::setting::SettingValue;
use crate::config::values::Count;

impl SettingValue for IssuerList {}

section! {
    /// Who vouches for people.
    pub struct OidcSettings in "oidc" {
        /// Issuers of people's tokens, at most 100: in the file a table `[[oidc.issuers]]` for
        /// each, in the environment a JSON list of the same objects. Empty: no people.
        pub issuers: IssuerList = [],
        /// How long a person's token may be valid, in seconds from iat to exp, or from now when it
        /// has no iat. Tokens that are valid for longer are refused.
        pub(crate) token_seconds_max: Count = 86_400,
    }
}
