//! Sends requests to Bursar with one credential, and reads the data of the responses.

use std::io::Write;
use std::path::{Path, PathBuf};

use axum::http::request::Builder;
use bursar_store::SqliteStore;
use clap::Args;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::in_process_server::InProcessServer;
use super::reply::{ClientError, Reply};
use super::running_server::{RunningServer, is_of_this_machine};
use crate::auth::secret::Secret;
use crate::config::data_dir::{OPERATOR_TOKEN, read_secret};
use crate::config::database::Database;
use crate::config::settings::Config;

/// The rows of one page.
const PAGE: usize = 100;

/// The server and the credential.
#[derive(Args)]
pub(crate) struct ServerArgs {
    /// The URL of the server, if it is not the one on the data folder
    #[arg(long, value_name = "URL", env = "BURSAR_URL", global = true)]
    pub(crate) url: Option<String>,
    /// An API key. Defaults to the operator's token
    #[arg(long, value_name = "KEY", env = "BURSAR_API_KEY", hide_env_values = true, global = true)]
    pub(crate) api_key: Option<String>,
    /// The data folder. Overrides BURSAR_DATA_DIR
    #[arg(long, value_name = "FOLDER", global = true)]
    pub(crate) data_dir: Option<PathBuf>,
    /// sqlite:PATH or postgres://... Overrides BURSAR_DATABASE
    #[arg(long, value_name = "URL", global = true)]
    pub(crate) database: Option<String>,
}

/// A client of Bursar's API with one credential.
pub(crate) struct ApiClient {
    transport: Transport,
    credential: Credential,
    /// The tenant that requests name. An API key implies its own.
    pub(super) tenant: Option<String>,
}

/// How a request reaches Bursar.
enum Transport {
    Running(RunningServer),
    InProcess(Box<InProcessServer>),
}

/// The credential, and where it was found.
struct Credential {
    secret: Secret,
    origin: CredentialOrigin,
}

enum CredentialOrigin {
    ApiKey,
    Configured,
    File(PathBuf),
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

impl ApiClient {
    /// Opens a client, runs `work` with it, and closes it, so that everything is stored on return.
    ///
    /// # Errors
    /// Errors of `work`, or a [`ClientError`] if Bursar cannot be reached.
    pub(crate) fn with<T, E: From<ClientError>>(
        config: &Config,
        access: &ServerArgs,
        work: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut client = Self::open(config, access)?;
        let done = work(&mut client);
        if let Transport::InProcess(server) = client.transport {
            server.close();
        }
        done
    }

    fn open(config: &Config, access: &ServerArgs) -> Result<Self, ClientError> {
        if let Some(api_key) = &access.api_key {
            let secret = Secret::new(api_key.clone());
            let credential = Credential { secret, origin: CredentialOrigin::ApiKey };
            let transport = Transport::Running(RunningServer::new(config, access.url.as_deref()));
            return Ok(Self { transport, credential, tenant: None });
        }
        if access.url.is_some() {
            let server = RunningServer::new(config, access.url.as_deref());
            if config.secrets.operator_token.is_none() && !is_of_this_machine(server.url()) {
                return Err(ClientError::new(format!(
                    "a credential for {} is required: give --api-key (BURSAR_API_KEY) or \
                     BURSAR_OPERATOR_TOKEN",
                    server.url()
                )));
            }
            let credential = operator_credential(config)?;
            return Ok(Self { transport: Transport::Running(server), credential, tenant: None });
        }
        match &config.database() {
            Database::File(path) => Self::open_file(config, path),
            Database::Postgres(_) => Self::open_in_process(config),
        }
    }

    /// Connects to the server on a data folder, or serves the folder in this process.
    fn open_file(config: &Config, path: &Path) -> Result<Self, ClientError> {
        let shown = path.display();
        match path.try_exists() {
            Ok(true) => {}
            Ok(false) => {
                return Err(ClientError::new(format!(
                    "the database {shown} does not exist: start `bursar serve` once, or give \
                     --data-dir, --database, or --url and --api-key"
                )));
            }
            Err(error) => {
                let owner = "run the command as the user who runs the server";
                return Err(ClientError::new(format!("cannot access {shown} ({error}): {owner}")));
            }
        }
        // Checked first: opening the folder would create missing secrets.
        let in_use = SqliteStore::is_in_use(path);
        if in_use.map_err(|error| ClientError::new(error.to_string()))? {
            let server = RunningServer::new(config, None);
            let credential = operator_credential(config)?;
            return Ok(Self { transport: Transport::Running(server), credential, tenant: None });
        }
        Self::open_in_process(config)
    }

    fn open_in_process(config: &Config) -> Result<Self, ClientError> {
        let server = InProcessServer::open(config)?;
        let credential =
            Credential { secret: server.operator_token(), origin: CredentialOrigin::Configured };
        Ok(Self { transport: Transport::InProcess(Box::new(server)), credential, tenant: None })
    }

    /// Whether the credential is the operator's token, which may act on every tenant.
    pub(super) const fn is_operator(&self) -> bool {
        !matches!(self.credential.origin, CredentialOrigin::ApiKey)
    }

    /// Whether Bursar may be unavailable for a moment: a server, or a shared database.
    pub(crate) fn may_be_unavailable(&self) -> bool {
        match &self.transport {
            Transport::Running(_) => true,
            Transport::InProcess(server) => server.is_shared(),
        }
    }

    /// Sends a request and returns the response, whatever it says.
    ///
    /// # Errors
    /// [`ClientError`] if there is no response.
    pub(crate) fn send(
        &self,
        method: &str,
        path: &str,
        body: Option<&str>,
    ) -> Result<Reply, ClientError> {
        self.send_to(method, &format!("/api/v1{path}"), body)
    }

    /// Like [`Self::send`], for a path outside the API's base path.
    fn send_to(&self, method: &str, path: &str, body: Option<&str>) -> Result<Reply, ClientError> {
        let mut request = self.request(method);
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        match &self.transport {
            Transport::Running(server) => server.send(request, path, body),
            Transport::InProcess(server) => server.send(request, path, body),
        }
    }

    /// Sends a request to a route of the operator and returns the data of its success.
    ///
    /// # Errors
    /// [`ClientError`].
    pub(crate) fn ask_operator(
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

    /// Starts a request with the credential.
    fn request(&self, method: &str) -> Builder {
        let bearer = Secret::new(format!("Bearer {}", self.credential.secret.expose()));
        let request =
            axum::http::Request::builder().method(method).header("authorization", bearer.expose());
        match &self.tenant {
            Some(tenant) => request.header("x-tenant-id", tenant),
            None => request,
        }
    }

    /// Downloads a file. Returns the number of bytes.
    ///
    /// # Errors
    /// [`ClientError`], also if the download breaks off or cannot be written.
    pub(crate) fn fetch(&self, path: &str, to: &mut dyn Write) -> Result<u64, ClientError> {
        let request = self.request("GET");
        let path = format!("/api/v1{path}");
        let fetched = match &self.transport {
            Transport::Running(server) => server.fetch(request, &path, to)?,
            Transport::InProcess(server) => server.fetch(request, &path, to)?,
        };
        fetched.map_err(|reply| self.failure(&reply))
    }

    /// Sends a request and returns the data of its success.
    ///
    /// # Errors
    /// [`ClientError`].
    pub(crate) fn ask(
        &self,
        method: &str,
        path: &str,
        body: Option<&str>,
    ) -> Result<Box<RawValue>, ClientError> {
        let reply = self.send(method, path, body)?;
        let (data, _) = self.read(&reply)?;
        Ok(data)
    }

    /// Like [`Self::ask`], for a path outside the API's base path and without a body.
    ///
    /// # Errors
    /// [`ClientError`].
    pub(crate) fn ask_outside(
        &self,
        method: &str,
        path: &str,
    ) -> Result<Box<RawValue>, ClientError> {
        let reply = self.send_to(method, path, None)?;
        let (data, _) = self.read(&reply)?;
        Ok(data)
    }

    /// Reads all rows of a list, page by page.
    ///
    /// # Errors
    /// [`ClientError`].
    pub(crate) fn list(&self, path: &str) -> Result<Vec<Box<RawValue>>, ClientError> {
        let mut rows: Vec<Box<RawValue>> = Vec::new();
        let mark = if path.contains('?') { '&' } else { '?' };
        loop {
            let page = format!("{path}{mark}limit={PAGE}&offset={}", rows.len());
            let reply = self.send("GET", &page, None)?;
            let (data, has_more) = self.read(&reply)?;
            let read: Vec<Box<RawValue>> =
                serde_json::from_str(data.get()).map_err(|_| self.not_understood(&reply))?;
            let is_last = !has_more || read.is_empty();
            rows.extend(read);
            if is_last {
                return Ok(rows);
            }
        }
    }

    /// The data of a success and whether there is another page, or the error.
    fn read(&self, reply: &Reply) -> Result<(Box<RawValue>, bool), ClientError> {
        let envelope: Envelope =
            serde_json::from_str(&reply.text).map_err(|_| self.not_understood(reply))?;
        if let Some(ErrorData { code, message }) = envelope.error {
            let hint = if reply.status == 401 { self.hint() } else { String::new() };
            return Err(ClientError::Refused { message, code, hint });
        }
        let has_more = envelope.meta.is_some_and(|meta| meta.has_more);
        envelope.data.map(|data| (data, has_more)).ok_or_else(|| self.not_understood(reply))
    }

    /// The error that a failed response describes.
    pub(crate) fn failure(&self, reply: &Reply) -> ClientError {
        self.read(reply).err().unwrap_or_else(|| self.not_understood(reply))
    }

    fn not_understood(&self, reply: &Reply) -> ClientError {
        let who = match &self.transport {
            Transport::Running(server) => server.url(),
            Transport::InProcess(_) => "the store",
        };
        ClientError::new(format!(
            "{who} responded with {}, in a form that bursar does not use; check the URL",
            reply.status
        ))
    }

    /// A hint where the rejected credential was found.
    fn hint(&self) -> String {
        match &self.credential.origin {
            CredentialOrigin::ApiKey => {
                "; the API key comes from --api-key or BURSAR_API_KEY".to_owned()
            }
            CredentialOrigin::Configured => {
                "; the operator's token comes from the configuration (BURSAR_OPERATOR_TOKEN), and \
                 the server has a different one"
                    .to_owned()
            }
            CredentialOrigin::File(path) => format!(
                "; the operator's token was read from {}, and the server has a different one",
                path.display()
            ),
        }
    }
}

/// Builds a path of segments from the command line. Each stays one segment.
///
/// # Errors
/// [`ClientError`] for a text that cannot be an id.
pub(crate) fn path(segments: &[&str]) -> Result<String, ClientError> {
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

/// The operator's token, from the configuration or the data folder.
///
/// It is sent only to the folder's own server or to this machine.
fn operator_credential(config: &Config) -> Result<Credential, ClientError> {
    if let Some(token) = &config.secrets.operator_token {
        let secret = token.secret().clone();
        return Ok(Credential { secret, origin: CredentialOrigin::Configured });
    }
    let path = config.storage.data_dir.join(OPERATOR_TOKEN);
    let token = read_secret(&config.storage.data_dir, OPERATOR_TOKEN)
        .map_err(|error| ClientError::new(error.to_string()))?;
    let secret = token.ok_or_else(|| {
        ClientError::new(format!(
            "{} does not exist: give --api-key (BURSAR_API_KEY) or BURSAR_OPERATOR_TOKEN, or the \
             data folder of the server with --data-dir",
            path.display()
        ))
    })?;
    Ok(Credential { secret, origin: CredentialOrigin::File(path) })
}
