//! How the command line talks to Bursar: to a running server, or to the store itself when that is a
//! data folder on which no server runs, or a PostgreSQL.
//!
//! Both ways take the same HTTP requests, so that rules, audit rows and errors are the same; the
//! store is served by this process, without a socket, for as long as the command takes.

mod here;
mod name;
mod server;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::RETRY_AFTER;
use axum::http::request::Builder;
use bursar_store::SqliteStore;
use clap::Args;
use serde::Deserialize;
use serde_json::value::RawValue;

use self::here::Here;
use self::server::{Server, is_of_this_machine};
use crate::auth::secret::Secret;
use crate::config::data_dir::{OPERATOR_TOKEN, read_secret};
use crate::config::database::Database;
use crate::config::settings::Config;

pub use self::server::{agent, operator_url, url_here};

/// Rows asked for at once.
const PAGE: usize = 100;

/// Which server, and in whose name.
#[derive(Args)]
pub struct ServerArgs {
    /// The server, when it is not the one of the data folder.
    #[arg(long, value_name = "URL", env = "BURSAR_URL", global = true)]
    pub url: Option<String>,
    /// An API key; without it the operator's token is used.
    #[arg(long, value_name = "KEY", env = "BURSAR_API_KEY", hide_env_values = true, global = true)]
    pub api_key: Option<String>,
    /// The data folder, over BURSAR_DATA_DIR.
    #[arg(long, value_name = "FOLDER", global = true)]
    pub data_dir: Option<PathBuf>,
    /// sqlite:<path> or postgres://..., over BURSAR_DATABASE.
    #[arg(long, value_name = "URL", global = true)]
    pub database: Option<String>,
}

/// Why a command cannot be done, in words for the person at the terminal.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// It could not be asked for.
    #[error("{0}")]
    NotAsked(String),
    /// The server refused it.
    #[error("{message} ({code}){hint}")]
    Refused {
        /// The server's sentence.
        message: String,
        /// Its code.
        code: String,
        /// What the command line knows besides, or nothing.
        hint: String,
    },
}

impl ClientError {
    /// A sentence.
    pub fn new(sentence: impl Into<String>) -> Self {
        Self::NotAsked(sentence.into())
    }
}

/// An open way to Bursar, in someone's name.
pub struct Door {
    way: Way,
    credential: Credential,
    tenant: Option<String>,
}

enum Way {
    Server(Server),
    Here(Box<Here>),
}

/// What proves who calls, and where it comes from.
struct Credential {
    secret: Secret,
    origin: Origin,
}

enum Origin {
    ApiKey,
    Configured,
    File(PathBuf),
}

/// How many bytes a file has that was fetched, or what came in its place.
type Fetched = Result<u64, Reply>;

/// What came back, whatever it says.
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// How long to wait before the same is sent again, where that is said.
    pub retry_after: Option<Duration>,
    /// The body.
    pub text: String,
}

#[derive(Deserialize)]
struct Envelope {
    data: Option<Box<RawValue>>,
    error: Option<ErrorData>,
    meta: Option<MetaData>,
}

#[derive(Deserialize)]
struct ErrorData {
    code: String,
    message: String,
}

#[derive(Deserialize)]
struct MetaData {
    #[serde(default)]
    has_more: bool,
}

impl Door {
    /// Does work with an open way, and closes it, so that everything is stored when this returns.
    ///
    /// # Errors
    /// What the work says, or a [`ClientError`] when there is no way.
    pub fn with<T, E: From<ClientError>>(
        config: &Config,
        access: &ServerArgs,
        work: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut door = Self::open(config, access)?;
        let done = work(&mut door);
        if let Way::Here(here) = door.way {
            here.close();
        }
        done
    }

    fn open(config: &Config, access: &ServerArgs) -> Result<Self, ClientError> {
        if let Some(api_key) = &access.api_key {
            let secret = Secret::new(api_key.clone());
            let credential = Credential { secret, origin: Origin::ApiKey };
            let way = Way::Server(Server::new(config, access.url.as_deref()));
            return Ok(Self { way, credential, tenant: None });
        }
        if access.url.is_some() {
            let server = Server::new(config, access.url.as_deref());
            if config.operator_token.is_none() && !is_of_this_machine(server.url()) {
                return Err(ClientError::new(format!(
                    "say in whose name to ask {}: --api-key (BURSAR_API_KEY), or \
                     BURSAR_OPERATOR_TOKEN",
                    server.url()
                )));
            }
            let credential = operator_credential(config)?;
            return Ok(Self { way: Way::Server(server), credential, tenant: None });
        }
        match &config.database {
            Database::File(path) => Self::open_file(config, path),
            Database::Postgres(_) => Self::open_here(config),
        }
    }

    /// The server on a data folder, or the folder itself.
    fn open_file(config: &Config, path: &Path) -> Result<Self, ClientError> {
        let shown = path.display();
        match path.try_exists() {
            Ok(true) => {}
            Ok(false) => {
                return Err(ClientError::new(format!(
                    "there is no database {shown}: start `bursar serve` once, or say where: \
                     --data-dir, --database, or --url and --api-key"
                )));
            }
            Err(error) => {
                let owner = "run this as the user who runs the server";
                return Err(ClientError::new(format!("cannot look at {shown} ({error}): {owner}")));
            }
        }
        // Asked before anything is opened, which would make secrets that are missing.
        let in_use = SqliteStore::is_in_use(path);
        if in_use.map_err(|error| ClientError::new(error.to_string()))? {
            let server = Server::new(config, None);
            let credential = operator_credential(config)?;
            return Ok(Self { way: Way::Server(server), credential, tenant: None });
        }
        Self::open_here(config)
    }

    fn open_here(config: &Config) -> Result<Self, ClientError> {
        let here = Here::open(config)?;
        let credential = Credential { secret: here.operator_token(), origin: Origin::Configured };
        Ok(Self { way: Way::Here(Box::new(here)), credential, tenant: None })
    }

    /// Names the tenant whose affairs these are, by its id or by its name.
    ///
    /// # Errors
    /// [`ClientError`] when there is none or several of that name, or when one must be named.
    pub fn enter(&mut self, tenant: Option<&str>) -> Result<(), ClientError> {
        let is_operator = !matches!(self.credential.origin, Origin::ApiKey);
        self.tenant = match tenant {
            Some(named) => Some(name::tenant(self, named)?),
            None if is_operator => {
                let message = "say whose: --tenant and an id or a name (`bursar tenant list`), or \
                               an API key (BURSAR_API_KEY)";
                return Err(ClientError::new(message));
            }
            None => None,
        };
        Ok(())
    }

    /// The id of an integration that is named by its id or by its name.
    ///
    /// # Errors
    /// [`ClientError`] when there is none of that name.
    pub fn integration(&self, named: &str) -> Result<String, ClientError> {
        name::integration(self, named)
    }

    /// The id of a tenant that is named by its id or by its name.
    ///
    /// # Errors
    /// [`ClientError`] when there is none or several of that name.
    pub fn tenant(&self, named: &str) -> Result<String, ClientError> {
        name::tenant(self, named)
    }

    /// Whether what is asked may be busy or away for a moment: a server, or a database that this
    /// process does not have to itself.
    pub fn may_be_away(&self) -> bool {
        match &self.way {
            Way::Server(_) => true,
            Way::Here(here) => here.is_shared(),
        }
    }

    /// Sends a request and answers whatever comes back.
    ///
    /// # Errors
    /// [`ClientError`] when nothing comes back.
    pub fn send(&self, method: &str, path: &str, body: Option<&str>) -> Result<Reply, ClientError> {
        self.send_to(method, &format!("/api/v1{path}"), body)
    }

    /// The same to a path that is not one of the API's.
    fn send_to(&self, method: &str, path: &str, body: Option<&str>) -> Result<Reply, ClientError> {
        let mut request = self.request(method);
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        match &self.way {
            Way::Server(server) => server.send(request, path, body),
            Way::Here(here) => here.send(request, path, body),
        }
    }

    /// Sends a request to a route of the operator and answers the data of its success.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn ask_operator(
        &self,
        method: &str,
        segments: &[&str],
        query: Option<&str>,
    ) -> Result<Box<RawValue>, ClientError> {
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        let reply = self.send_to(method, &format!("/fdr{}{query}", path(segments)?), None)?;
        let (data, _) = self.read(&reply)?;
        Ok(data)
    }

    /// A request in this name.
    fn request(&self, method: &str) -> Builder {
        let bearer = Secret::new(format!("Bearer {}", self.credential.secret.expose()));
        let request =
            axum::http::Request::builder().method(method).header("authorization", bearer.expose());
        match &self.tenant {
            Some(tenant) => request.header("x-tenant-id", tenant),
            None => request,
        }
    }

    /// Asks for a file and writes it as it comes; answers how many bytes it has.
    ///
    /// # Errors
    /// [`ClientError`], also when the file breaks off or cannot be written.
    pub fn fetch(&self, path: &str, to: &mut dyn Write) -> Result<u64, ClientError> {
        let request = self.request("GET");
        let path = format!("/api/v1{path}");
        let fetched = match &self.way {
            Way::Server(server) => server.fetch(request, &path, to)?,
            Way::Here(here) => here.fetch(request, &path, to)?,
        };
        fetched.map_err(|reply| self.failure(&reply))
    }

    /// Sends a request and answers the data of its success.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn ask(
        &self,
        method: &str,
        path: &str,
        body: Option<&str>,
    ) -> Result<Box<RawValue>, ClientError> {
        let reply = self.send(method, path, body)?;
        let (data, _) = self.read(&reply)?;
        Ok(data)
    }

    /// The same of a path outside of the API's base, without a body.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn ask_outside(&self, method: &str, path: &str) -> Result<Box<RawValue>, ClientError> {
        let reply = self.send_to(method, path, None)?;
        let (data, _) = self.read(&reply)?;
        Ok(data)
    }

    /// All rows of a list, page after page.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn list(&self, path: &str) -> Result<Vec<Box<RawValue>>, ClientError> {
        let mut rows: Vec<Box<RawValue>> = Vec::new();
        let mark = if path.contains('?') { '&' } else { '?' };
        loop {
            let page = format!("{path}{mark}limit={PAGE}&offset={}", rows.len());
            let reply = self.send("GET", &page, None)?;
            let (data, has_more) = self.read(&reply)?;
            let read: Vec<Box<RawValue>> =
                serde_json::from_str(data.get()).map_err(|_| self.strange(&reply))?;
            let is_last = !has_more || read.is_empty();
            rows.extend(read);
            if is_last {
                return Ok(rows);
            }
        }
    }

    /// The data of a success, and whether there is more; or the failure.
    fn read(&self, reply: &Reply) -> Result<(Box<RawValue>, bool), ClientError> {
        let envelope: Envelope =
            serde_json::from_str(&reply.text).map_err(|_| self.strange(reply))?;
        if let Some(ErrorData { code, message }) = envelope.error {
            let hint = if reply.status == 401 { self.hint() } else { String::new() };
            return Err(ClientError::Refused { message, code, hint });
        }
        let has_more = envelope.meta.is_some_and(|meta| meta.has_more);
        envelope.data.map(|data| (data, has_more)).ok_or_else(|| self.strange(reply))
    }

    /// The sentence of a failure, when a reply is one.
    pub fn failure(&self, reply: &Reply) -> ClientError {
        self.read(reply).err().unwrap_or_else(|| self.strange(reply))
    }

    fn strange(&self, reply: &Reply) -> ClientError {
        let who = match &self.way {
            Way::Server(server) => server.url(),
            Way::Here(_) => "the store",
        };
        ClientError::new(format!("{who} answered {}, and not as bursar does", reply.status))
    }

    /// Where the credential comes from that was not accepted.
    fn hint(&self) -> String {
        match &self.credential.origin {
            Origin::ApiKey => "; the API key comes from --api-key or BURSAR_API_KEY".to_owned(),
            Origin::Configured => {
                "; the operator's token comes from the configuration (BURSAR_OPERATOR_TOKEN), and \
                 the server has another"
                    .to_owned()
            }
            Origin::File(path) => format!(
                "; the operator's token was read from {}, and the server was started with another",
                path.display()
            ),
        }
    }
}

/// What an answer says of when to come again: in seconds, as Bursar does, or not at all.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

fn broken_off(error: impl std::fmt::Display) -> ClientError {
    ClientError::new(format!("the file is not whole: {error}"))
}

/// A path of segments that come from the command line, and must each stay one segment.
///
/// # Errors
/// [`ClientError`] for what can be no id.
pub fn path(segments: &[&str]) -> Result<String, ClientError> {
    let mut path = String::new();
    for segment in segments {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if segment.is_empty() || !segment.bytes().all(is_plain) {
            return Err(ClientError::new(format!("{segment:?} is not an id")));
        }
        path.push('/');
        path.push_str(segment);
    }
    Ok(path)
}

/// The operator's token: the configured one, or the one in the data folder, which no server but its
/// own, or one of this machine, is to see.
fn operator_credential(config: &Config) -> Result<Credential, ClientError> {
    if let Some(token) = &config.operator_token {
        let secret = Secret::new(token.expose().to_owned());
        return Ok(Credential { secret, origin: Origin::Configured });
    }
    let path = config.data_dir.join(OPERATOR_TOKEN);
    let token = read_secret(&config.data_dir, OPERATOR_TOKEN)
        .map_err(|error| ClientError::new(error.to_string()))?;
    let secret = token.ok_or_else(|| {
        ClientError::new(format!(
            "there is no {}: say in whose name to ask, by --api-key (BURSAR_API_KEY) or \
             BURSAR_OPERATOR_TOKEN, or name the server's data folder: --data-dir",
            path.display()
        ))
    })?;
    Ok(Credential { secret, origin: Origin::File(path) })
}
