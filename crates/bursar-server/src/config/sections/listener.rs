//! Where the server listens.

use crate::config::section::section;

section! {
    /// Where the server listens.
    pub(crate) struct ListenerSettings {
        /// Address and port to listen on.
        pub(crate) listen: String = "127.0.0.1:8080",
        /// Address and port of a second listener, which alone serves /metrics and /fdr. The rest
        /// of the API, the operator's part included, stays on listen. Empty: listen serves
        /// everything.
        pub(crate) operator_listen: Option<String> = "",
    }
}
