//! The tenant, integrations, keys and requests of the measurements.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bursar_core::{IntegrationId, LimitSettings, OnboardingState, TenantId};
use bursar_server::auth::secret::{KeyPrefix, random_digits};
use bursar_server::config::settings::Config;
use bursar_server::server;
use bursar_store::{Actor, Control, ControlTx, IntegrationDraft, KeyDraft};

use crate::Failure;
use crate::client::Make;

/// The number of integrations over which calls are spread.
pub(crate) const INTEGRATIONS: usize = 10;
/// The tag of tagged records.
pub(crate) const TAG: &str = "team";
/// The number of agents over which records are spread, unless a measurement says otherwise.
const AGENTS: u64 = 20;
/// The secrets of nodes over one database; a server with a file creates its own.
const SHARED_SECRETS: [(&str, &str); 2] = [
    ("BURSAR_SECRET_KEY", "the one secret key of nodes that are measured"),
    ("BURSAR_OPERATOR_TOKEN", "the one token of nodes that are measured"),
];
const DATABASE: &str = "BURSAR_DATABASE";
/// Thresholds far above the measured rates: protection runs, but refuses nothing.
const UNPROTECTED: [(&str, &str); 4] = [
    ("BURSAR_PROTECTION_REQUESTS_PER_MINUTE", "1000000000"),
    ("BURSAR_PROTECTION_REQUESTS_PER_SECOND", "1000000000"),
    ("BURSAR_PROTECTION_TRAFFIC_PER_MINUTE", "1000000000"),
    ("BURSAR_PROTECTION_TRAFFIC_PER_SECOND", "1000000000"),
];

/// Where a server keeps its ledger.
pub(crate) struct Deployment {
    pub(crate) folder: PathBuf,
    /// The URL of the shared database; `None` for an embedded store in the folder.
    database: Option<String>,
}

impl Deployment {
    /// The embedded store of a folder.
    pub(crate) fn embedded(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), database: None }
    }

    /// A node over a database, which writes its address into the folder.
    pub(crate) fn node(folder: &Path, url: &str) -> Self {
        Self { folder: folder.to_owned(), database: Some(url.to_owned()) }
    }

    /// Another node over the same database.
    pub(crate) fn beside(&self, folder: &Path) -> Self {
        Self { folder: folder.to_owned(), database: self.database.clone() }
    }

    /// The deployment of a server that the harness started.
    pub(crate) fn of_server(folder: PathBuf) -> Self {
        Self { folder, database: std::env::var(DATABASE).ok() }
    }

    /// The environment variable that names the database.
    pub(crate) fn environment(&self) -> Option<(&'static str, &str)> {
        self.database.as_deref().map(|url| (DATABASE, url))
    }

    /// The configuration of a server.
    pub(crate) fn config(&self) -> Result<Config, Failure> {
        let folder = self.folder.to_str().ok_or("the folder's name is not plain text")?;
        let own = [("BURSAR_DATA_DIR", folder), ("BURSAR_LISTEN", "127.0.0.1:0")];
        let shared = self.environment().into_iter().chain(SHARED_SECRETS);
        let shared = shared.filter(|_| self.database.is_some());
        let environment = own.into_iter().chain(UNPROTECTED).chain(shared);
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Ok(Config::load(None, environment)?)
    }
}

pub(crate) struct Setup {
    pub(crate) tenant_id: TenantId,
    pub(crate) integrations: Vec<IntegrationId>,
    api_key: String,
    next: Arc<AtomicU64>,
    /// The number of agents over which records are spread.
    agents: AtomicU64,
    /// Whether records have a tag.
    is_tagged: AtomicBool,
}

/// Creates a tenant with integrations and a key.
pub(crate) fn prepare(
    deployment: &Deployment,
    integrations_count: usize,
) -> Result<Setup, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let app = server::open(&deployment.config()?, None)?;
        let actor = || Actor {
            actor_type: "founder",
            actor_id: "bench".to_owned(),
            request_id: "bench".to_owned(),
            address: None,
        };
        let create = move |tx: &mut dyn ControlTx| Control::create_tenant(tx, &actor(), "bench");
        let tenant_id = app.ledger.change(None, create).await?.tenant_id;
        let mut integrations = Vec::new();
        for number in 0..integrations_count {
            let draft = IntegrationDraft {
                name: format!("bench-{number}"),
                provider_type: "openai".to_owned(),
                credential_ref: None,
                config: "{}".to_owned(),
                origin: None,
                default_model: None,
                limits: LimitSettings {
                    budget_limit_cents: 1_000_000_000_000,
                    token_limit_month: 1_000_000_000_000_000,
                    rate_limit_rpm: 1_000_000_000,
                },
                cost_basis: bursar_core::CostBasis::Reported,
            };
            let create = move |tx: &mut dyn ControlTx| {
                let actor = actor();
                let mut control = Control::new(tx, &actor, tenant_id);
                match control.create_integration(draft.clone())? {
                    Ok(row) => control.enable_integration(row.integration_id),
                    Err(refusal) => Ok(Err(refusal)),
                }
            };
            integrations.push(app.ledger.change(tenant_id, create).await??.integration_id);
        }
        let (digits, hasher) = (random_digits()?, app.clone());
        let create = move |tx: &mut dyn ControlTx| {
            let mut text = String::new();
            let mut hash = |key_id| {
                let prefix = KeyPrefix { tenant_id, integration_id: None, key_id };
                let key = prefix.with_digits(&digits);
                text = key.expose().to_owned();
                hasher.secret_key.hash(key.expose())
            };
            let made = Control::new(tx, &actor(), tenant_id)
                .create_key(KeyDraft::api("bench", "*", None), &mut hash)?;
            Ok(made.map(|_| text))
        };
        let api_key = app.ledger.change(tenant_id, create).await??;
        // Protection applies to tenants whose onboarding is complete.
        let complete = move |tx: &mut dyn ControlTx| {
            Control::new(tx, &actor(), tenant_id).advance_onboarding(OnboardingState::Complete)
        };
        app.ledger.change(tenant_id, complete).await??;
        app.ledger.close().await;
        let (next, agents) = (Arc::default(), AtomicU64::new(AGENTS));
        let is_tagged = AtomicBool::new(false);
        Ok(Setup { tenant_id, integrations, api_key, next, agents, is_tagged })
    })
}

impl Setup {
    /// The next unused number of a record.
    pub(crate) fn next(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Spreads further records over this many agents.
    pub(crate) fn set_agents(&self, agents: u64) {
        self.agents.store(agents, Ordering::Relaxed);
    }

    /// Gives further records a tag, or none.
    pub(crate) fn set_tagged(&self, is_tagged: bool) {
        self.is_tagged.store(is_tagged, Ordering::Relaxed);
    }

    /// The integration of a record.
    pub(crate) fn integration(&self, number: u64) -> Option<IntegrationId> {
        let at = usize::try_from(number).unwrap_or(0) % self.integrations.len().max(1);
        self.integrations.get(at).copied()
    }

    fn record(&self) -> String {
        let number = self.next();
        let integration = self.integration(number).map_or_else(String::new, |id| id.to_string());
        // Like a client's call ids, these look random, so that they hit all of the dedupe index.
        let call = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let is_tagged = self.is_tagged.load(Ordering::Relaxed);
        let tags =
            if is_tagged { format!(",\"tags\":{{\"{TAG}\":\"red\"}}") } else { String::new() };
        format!(
            "{{\"integration_id\":\"{integration}\",\"call_id\":\"call-{call:016x}-{number}\",\
             \"session_id\":\"session-{}\",\"agent_id\":\"agent-{}\",\"provider\":\"openai\",\
             \"model\":\"gpt-4o-{}\",\"tokens_in\":{},\"tokens_out\":{},\"cost_cents\":0.{:07},\
             \"latency_ms\":{}{tags}}}",
            number / 10,
            number % self.agents.load(Ordering::Relaxed).max(1),
            number % 5,
            number % 4_000,
            number % 700,
            number % 9_999_999,
            200 + number % 3_000,
        )
    }

    fn post(&self, path: &str, body: &str) -> Vec<u8> {
        let length = body.len();
        format!(
            "POST {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {}\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}",
            self.api_key
        )
        .into_bytes()
    }

    pub(crate) fn null(&self) -> Make<'_> {
        Box::new(|| (self.post("/bench/null", &self.record()), 1))
    }

    pub(crate) fn open(&self) -> Make<'_> {
        Box::new(|| (self.post("/bench/open", &self.record()), 1))
    }

    pub(crate) fn single(&self) -> Make<'_> {
        Box::new(|| (self.post("/api/v1/telemetry/llm-usage", &self.record()), 1))
    }

    pub(crate) fn batch(&self) -> Make<'_> {
        Box::new(|| {
            let records: Vec<String> = (0..100).map(|_| self.record()).collect();
            let body = format!("{{\"records\":[{}]}}", records.join(","));
            (self.post("/api/v1/telemetry/llm-usage/batch", &body), 100)
        })
    }

    pub(crate) fn check(&self) -> Make<'_> {
        Box::new(|| {
            let integration = self.integration(self.next()).map(|id| id.to_string());
            let body = format!(
                "{{\"integration_id\":\"{}\",\"estimated_cost_cents\":0.5,\
                 \"estimated_tokens\":1000}}",
                integration.unwrap_or_default()
            );
            (self.post("/api/v1/enforcement/check", &body), 1)
        })
    }

    pub(crate) fn reserve(&self) -> Make<'_> {
        Box::new(|| {
            let number = self.next();
            let integration = self.integration(number).map(|id| id.to_string());
            let body = format!(
                "{{\"integration_id\":\"{}\",\"call_id\":\"reserve-{number}\",\
                 \"model\":\"gpt-4o\",\"estimated_cost_cents\":0.5,\"estimated_tokens\":1000}}",
                integration.unwrap_or_default()
            );
            (self.post("/api/v1/enforcement/reservations", &body), 1)
        })
    }

    pub(crate) fn summary(&self) -> Make<'_> {
        self.get("usage-summary")
    }

    /// A read, by its path after `/api/v1/telemetry/`.
    pub(crate) fn get(&self, path: &str) -> Make<'_> {
        let head = format!(
            "GET /api/v1/telemetry/{path} HTTP/1.1\r\nHost: bench\r\n\
             Authorization: Bearer {}\r\n\r\n",
            self.api_key
        );
        Box::new(move || (head.clone().into_bytes(), 1))
    }
}
