//! Which variables of the environment are meant for the server.

use super::setting::PREFIX;

/// Beginnings of the names that container platforms give to a service called bursar.
const SERVICE_PREFIXES: &[&str] = &["BURSAR_PORT", "BURSAR_SERVICE_"];
/// Parts of the names that they give to any service.
const SERVICE_PARTS: &[&str] = &["_SERVICE_HOST", "_SERVICE_PORT"];
/// Parts of the names that they give to the ports of a service.
const PROTOCOLS: &[&str] = &["_TCP", "_UDP", "_SCTP"];
/// Names that clients and tests read themselves.
const OTHER_NAMES: &[&str] = &["BURSAR_URL", "BURSAR_API_KEY", "BURSAR_PROVE"];
const TEST_PREFIX: &str = "BURSAR_TEST_";

/// Whether a variable must be a setting, so that a misspelled one is refused.
pub(super) fn must_be_a_setting(name: &str, value: &str) -> bool {
    name.starts_with(PREFIX)
        && !is_of_a_service(name, value)
        && !OTHER_NAMES.contains(&name)
        && !name.starts_with(TEST_PREFIX)
}

/// Whether a container platform sets a variable to say where a service is: one that is called
/// bursar, or whose name begins so, such as its database.
fn is_of_a_service(name: &str, value: &str) -> bool {
    SERVICE_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || SERVICE_PARTS.iter().any(|part| name.contains(part))
        || name.ends_with("_PORT") && value.contains("://")
        || name.contains("_PORT_") && PROTOCOLS.iter().any(|protocol| name.contains(protocol))
}
