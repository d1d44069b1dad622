//! Which environment variables are settings of the server.

use super::setting::PREFIX;

/// Prefixes of the variables that container platforms set for a service named bursar.
const SERVICE_PREFIXES: &[&str] = &["BURSAR_PORT", "BURSAR_SERVICE_"];
/// Parts of the variables that they set for any service.
const SERVICE_PARTS: &[&str] = &["_SERVICE_HOST", "_SERVICE_PORT"];
/// Parts of the variables that they set for the ports of a service.
const PROTOCOLS: &[&str] = &["_TCP", "_UDP", "_SCTP"];
/// Variables that clients and tests read.
const OTHER_NAMES: &[&str] = &["BURSAR_URL", "BURSAR_API_KEY", "BURSAR_PROVE"];
const TEST_PREFIX: &str = "BURSAR_TEST_";

/// Whether a variable must be a setting. Unknown ones are refused, because they are misspelled.
pub(super) fn must_be_a_setting(name: &str, value: &str) -> bool {
    name.starts_with(PREFIX)
        && !is_of_a_service(name, value)
        && !OTHER_NAMES.contains(&name)
        && !name.starts_with(TEST_PREFIX)
}

/// Whether a container platform set the variable for a service named bursar, or for one whose name
/// begins with bursar, such as its database.
fn is_of_a_service(name: &str, value: &str) -> bool {
    SERVICE_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || SERVICE_PARTS.iter().any(|part| name.contains(part))
        || name.ends_with("_PORT") && value.contains("://")
        || name.contains("_PORT_") && PROTOCOLS.iter().any(|protocol| name.contains(protocol))
}
