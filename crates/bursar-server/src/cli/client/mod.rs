//! How the command line talks to Bursar: to a running server, or to the store itself when that is a
//! data folder on which no server runs, or a PostgreSQL.
//!
//! Both ways take the same HTTP requests, so that rules, audit rows and errors are the same; the
//! store is served by this process, without a socket, for as long as the command takes.

mod api_client;
mod find_by_name;
mod in_process_server;
mod reply;
mod running_server;

pub use self::api_client::{ApiClient, ServerArgs, path};
pub use self::reply::{ClientError, Reply};
pub use self::running_server::{agent, operator_url, url_here};
