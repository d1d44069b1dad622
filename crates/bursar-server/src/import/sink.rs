//! Where records go: the running server, or the data folder when no server runs on it.

use std::time::Duration;

use bursar_core::{RecordOutcome, RecordRefusal, TenantId};
use bursar_store::OpenError;
use serde::Deserialize;

use super::{ImportArguments, ImportError};
use crate::api::ingest::check_record;
use crate::app::App;
use crate::config::Config;
use crate::data_dir::{ADDRESS, OPERATOR_TOKEN, read_secret};
use crate::secret::Secret;
use crate::start::{self, StartError};

/// How often a server that is overloaded or away is asked again.
const TRIES_MAX: u32 = 8;

/// What became of a record.
#[derive(Debug)]
pub(super) enum Fate {
    /// It is stored.
    Accepted,
    /// It was stored before.
    Duplicate,
    /// It is refused, for this reason.
    Refused(String),
}

/// Where records go.
pub(super) enum Sink {
    Server(Server),
    Folder(Box<Folder>),
}

pub(super) struct Server {
    agent: ureq::Agent,
    url: String,
    token: Secret,
    tenant: Option<String>,
}

pub(super) struct Folder {
    runtime: tokio::runtime::Runtime,
    app: App,
    tenant_id: TenantId,
}

impl Sink {
    pub(super) fn open(config: &Config, arguments: &ImportArguments) -> Result<Self, ImportError> {
        if let Some(api_key) = &arguments.api_key {
            let token = Secret::new(api_key.clone());
            return Ok(Self::Server(Server::new(config, arguments, token)));
        }
        if arguments.tenant.is_none() {
            let message = "say whose calls these are: --api-key (or BURSAR_API_KEY), or --tenant";
            return Err(ImportError::new(message));
        }
        if arguments.url.is_none() && config.database.exists() {
            match Folder::open(config, arguments) {
                Ok(folder) => return Ok(Self::Folder(Box::new(folder))),
                Err(FolderError::InUse) => {}
                Err(FolderError::Other(error)) => return Err(error),
            }
        }
        let token = match &config.operator_token {
            Some(token) => Some(Secret::new(token.expose().to_owned())),
            None => read_secret(&config.data_dir, OPERATOR_TOKEN)
                .map_err(|error| ImportError::new(error.to_string()))?,
        };
        let message = "no data folder and no server here: give --data-dir, or --url and --api-key";
        let token = token.ok_or_else(|| ImportError::new(message))?;
        Ok(Self::Server(Server::new(config, arguments, token)))
    }

    /// Sends records, and says what became of each.
    pub(super) fn send(&mut self, records: &[&str]) -> Result<Vec<Fate>, ImportError> {
        match self {
            Self::Server(server) => server.send(records),
            Self::Folder(folder) => folder.send(records),
        }
    }

    /// Ends what was opened.
    pub(super) fn close(self) {
        if let Self::Folder(folder) = self {
            folder.runtime.block_on(folder.app.ledger.close());
        }
    }
}

enum FolderError {
    InUse,
    Other(ImportError),
}

impl Folder {
    fn open(config: &Config, arguments: &ImportArguments) -> Result<Self, FolderError> {
        let other = |message: String| FolderError::Other(ImportError::new(message));
        let tenant = arguments.tenant.as_deref().unwrap_or_default();
        let tenant_id =
            TenantId::parse(tenant).map_err(|error| other(format!("--tenant {error}")))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| other(error.to_string()))?;
        let app = runtime.block_on(async { start::open(config, start::clock()) });
        let app = app.map_err(|error| {
            if matches!(error, StartError::Store(OpenError::InUse(_))) {
                return FolderError::InUse;
            }
            other(error.to_string())
        })?;
        let found = runtime.block_on(app.store.tenant(tenant_id));
        match found {
            Ok(Some(_)) => Ok(Self { runtime, app, tenant_id }),
            Ok(None) => Err(other(format!("--tenant {tenant}: no such tenant"))),
            Err(error) => Err(other(error.to_string())),
        }
    }

    fn send(&mut self, records: &[&str]) -> Result<Vec<Fate>, ImportError> {
        let mut fates = Vec::with_capacity(records.len());
        let mut usages = Vec::with_capacity(records.len());
        for record in records {
            match check_record(record, None) {
                Ok(usage) => {
                    usages.push(usage);
                    fates.push(None);
                }
                Err(error) => fates.push(Some(Fate::Refused(error.message().to_owned()))),
            }
        }
        let outcomes = self
            .runtime
            .block_on(self.app.ledger.record(self.tenant_id, usages))
            .map_err(|error| ImportError::new(format!("not stored: {error}; run it again")))?;
        let mut outcomes = outcomes.into_iter();
        let fate = |fate: Option<Fate>| fate.or_else(|| outcomes.next().map(fate_of));
        let missing = || ImportError::new("the ledger answered too few records");
        fates.into_iter().map(fate).map(|fate| fate.ok_or_else(missing)).collect()
    }
}

fn fate_of(outcome: RecordOutcome) -> Fate {
    match outcome {
        RecordOutcome::Accepted(_) => Fate::Accepted,
        RecordOutcome::Duplicate(_) => Fate::Duplicate,
        RecordOutcome::Conflict => {
            Fate::Refused("the call id is taken by a record with other content".to_owned())
        }
        RecordOutcome::Refused(refusal) => Fate::Refused(
            match refusal {
                RecordRefusal::IntegrationNotFound => "the tenant has no such integration",
                RecordRefusal::InTheFuture => "occurred_at lies in the future",
                RecordRefusal::TotalsOverflow => "a total would leave the range of its integer",
                RecordRefusal::NotStorable => "the store cannot keep it; its log says why",
            }
            .to_owned(),
        ),
    }
}

#[derive(Deserialize)]
struct Envelope {
    data: Option<BatchData>,
    error: Option<ErrorData>,
}

#[derive(Deserialize)]
struct BatchData {
    results: Vec<ResultData>,
}

#[derive(Deserialize)]
struct ResultData {
    status: String,
    error: Option<ErrorData>,
}

#[derive(Deserialize)]
struct ErrorData {
    message: String,
}

impl Server {
    fn new(config: &Config, arguments: &ImportArguments, token: Secret) -> Self {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(60)))
            .build()
            .new_agent();
        let running = std::fs::read_to_string(config.data_dir.join(ADDRESS)).ok();
        let url = arguments.url.clone().or(running);
        let url = url.unwrap_or_else(|| format!("http://{}", config.listen));
        let url = url.trim().trim_end_matches('/').to_owned();
        Self { agent, url, token, tenant: arguments.tenant.clone() }
    }

    fn send(&self, records: &[&str]) -> Result<Vec<Fate>, ImportError> {
        let body = format!("{{\"records\":[{}]}}", records.join(","));
        let mut wait = Duration::from_millis(200);
        for attempt in 1..=TRIES_MAX {
            match self.post(&body) {
                // The call ids make it safe to send the same again.
                Ok((503, _)) | Err(_) if attempt < TRIES_MAX => {
                    std::thread::sleep(wait);
                    wait *= 2;
                }
                Ok((200, text)) => return read_fates(&text, records.len()),
                Ok((status, text)) => {
                    let said = serde_json::from_str::<Envelope>(&text).ok();
                    let message = said.and_then(|said| said.error).map(|error| error.message);
                    let message = message.unwrap_or_default();
                    return Err(ImportError::new(format!("{} said {status}: {message}", self.url)));
                }
                Err(error) => {
                    return Err(ImportError::new(format!(
                        "{} cannot be reached: {error}",
                        self.url
                    )));
                }
            }
        }
        Err(ImportError::new(format!("{} does not answer", self.url)))
    }

    fn post(&self, body: &str) -> Result<(u16, String), ureq::Error> {
        let url = format!("{}/api/v1/telemetry/llm-usage/batch", self.url);
        let mut request = self
            .agent
            .post(url)
            .header("Authorization", format!("Bearer {}", self.token.expose()))
            .header("Content-Type", "application/json");
        if let Some(tenant) = &self.tenant {
            request = request.header("X-Tenant-ID", tenant);
        }
        let mut response = request.send(body)?;
        let text = response.body_mut().read_to_string()?;
        Ok((response.status().as_u16(), text))
    }
}

fn read_fates(text: &str, expected: usize) -> Result<Vec<Fate>, ImportError> {
    let strange = || ImportError::new("the server's answer is not understood");
    let envelope: Envelope = serde_json::from_str(text).map_err(|_| strange())?;
    let results = envelope.data.ok_or_else(strange)?.results;
    if results.len() != expected {
        return Err(strange());
    }
    let fate = |result: ResultData| match result.status.as_str() {
        "accepted" => Fate::Accepted,
        "duplicate" => Fate::Duplicate,
        _ => Fate::Refused(result.error.map_or_else(String::new, |error| error.message)),
    };
    Ok(results.into_iter().map(fate).collect())
}
