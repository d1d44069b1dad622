//! How the command line reaches Bursar: through a running server or through the store itself.
//!
//! The store is used directly if it is PostgreSQL or a data folder on which no server runs. Both
//! ways handle the same HTTP requests, so rules, audit rows and errors are the same. In the second
//! case this process serves the store, without a socket, while the command runs.

mod api_client;
mod find_by_name;
mod in_process_server;
mod reply;
mod running_server;

pub(crate) use self::api_client::{ApiClient, ServerArgs, path};
pub(crate) use self::reply::{ClientError, Reply};
pub(crate) use self::running_server::{agent, operator_url, url_here};
