//! What references to credentials may name on this server.

use crate::config::section::section;
use crate::config::values::NonEmpty;
use crate::credentials::reference::AllowedPrefixes;

section! {
    /// What references to credentials may name on this server.
    pub(crate) struct CredentialSettings in "credentials" {
        /// Prefixes of the environment variables that env:// references may name.
        pub(crate) env_prefixes: Vec<NonEmpty> = ["CUS_CRED_", "LLM_API_KEY_"],
        /// Folders of the files that file:// references may name. Empty: no files.
        pub(crate) file_prefixes: Vec<NonEmpty> = [],
    }
}

impl CredentialSettings {
    /// The prefixes as the check of references takes them.
    pub(crate) fn allowed_prefixes(&self) -> AllowedPrefixes {
        let texts = |list: &[NonEmpty]| list.iter().map(|item| item.as_str().to_owned()).collect();
        AllowedPrefixes { env: texts(&self.env_prefixes), file: texts(&self.file_prefixes) }
    }
}
