//! `bursar dev`: create a tenant, an integration and keys once, and print how to try them.

use std::path::PathBuf;

use bursar_core::{CostBasis, IntegrationId, LimitSettings, TenantId};
use bursar_store::{Actor, Control, ControlTx, IntegrationDraft, KeyDraft};
use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::auth::secret::{KeyPrefix, Secret, random_digits};
use crate::cli::terminal;
use crate::config::data_dir::write_private;
use crate::config::settings::Config;

/// The file, readable by its owner only, in which `bursar dev` stores the keys it created.
///
/// The server stores hashes only. This file is the client side of a development setup.
pub(crate) const FILE: &str = "dev.json";

/// The objects that `bursar dev` created.
#[derive(Deserialize, Serialize)]
pub(crate) struct DevSetup {
    tenant_id: String,
    integration_id: String,
    api_key: String,
    integration_key: String,
    #[serde(skip)]
    operator_token: String,
    #[serde(skip)]
    folder: PathBuf,
}

/// Creates the setup, or loads the existing one.
///
/// # Errors
/// A text for the developer.
pub(crate) async fn prepare(
    config: &Config,
    app: &App,
) -> Result<DevSetup, Box<dyn std::error::Error>> {
    let path = config.storage.data_dir.join(FILE);
    let mut setup = match std::fs::read_to_string(&path) {
        Ok(text) => serde_json::from_str(&text)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let made = make(app).await?;
            write_private(&path, &serde_json::to_string_pretty(&made)?)?;
            made
        }
        Err(error) => return Err(error.into()),
    };
    setup.operator_token = app.operator_token.expose().to_owned();
    setup.folder.clone_from(&config.storage.data_dir);
    Ok(setup)
}

async fn make(app: &App) -> Result<DevSetup, Box<dyn std::error::Error>> {
    let create = move |tx: &mut dyn ControlTx| Control::create_tenant(tx, &actor(), "dev");
    let tenant_id = app.ledger.change(None, create).await?.tenant_id;
    let create = move |tx: &mut dyn ControlTx| {
        Control::new(tx, &actor(), tenant_id).create_integration(draft())
    };
    let integration_id = app.ledger.change(tenant_id, create).await??.integration_id;
    let enable = move |tx: &mut dyn ControlTx| {
        Control::new(tx, &actor(), tenant_id).enable_integration(integration_id)
    };
    app.ledger.change(tenant_id, enable).await??;
    let api_key = create_key(app, tenant_id, None).await?;
    let integration_key = create_key(app, tenant_id, Some(integration_id)).await?;
    Ok(DevSetup::new(tenant_id, integration_id, &api_key, &integration_key))
}

fn actor() -> Actor {
    Actor {
        actor_type: "founder",
        actor_id: "bursar dev".to_owned(),
        request_id: "dev".to_owned(),
        address: None,
    }
}

/// Makes an API key, or a key of an integration.
async fn create_key(
    app: &App,
    tenant_id: TenantId,
    integration_id: Option<IntegrationId>,
) -> Result<Secret, Box<dyn std::error::Error>> {
    let draft = match integration_id {
        None => KeyDraft::api("dev", "*", None),
        Some(integration_id) => KeyDraft::integration(integration_id, Some("dev"), None),
    };
    let (digits, hasher) = (random_digits()?, app.clone());
    let create = move |tx: &mut dyn ControlTx| {
        let mut text = None;
        let made = Control::new(tx, &actor(), tenant_id).create_key(draft.clone(), |key_id| {
            let prefix = KeyPrefix { tenant_id, integration_id, key_id };
            hasher.secret_key.hash(text.insert(prefix.with_digits(&digits)).expose())
        })?;
        Ok(made.map(|_| text))
    };
    let key = app.ledger.change(tenant_id, create).await??;
    key.ok_or_else(|| "the server created no key".into())
}

fn draft() -> IntegrationDraft {
    IntegrationDraft {
        name: "dev".to_owned(),
        provider_type: "openai".to_owned(),
        credential_ref: None,
        config: "{}".to_owned(),
        origin: None,
        default_model: Some("gpt-4o".to_owned()),
        limits: LimitSettings { budget_limit_cents: 10_000, ..LimitSettings::default() },
        cost_basis: CostBasis::Reported,
    }
}

impl DevSetup {
    fn new(
        tenant_id: TenantId,
        integration_id: IntegrationId,
        api_key: &Secret,
        integration_key: &Secret,
    ) -> Self {
        Self {
            tenant_id: tenant_id.to_string(),
            integration_id: integration_id.to_string(),
            api_key: api_key.expose().to_owned(),
            integration_key: integration_key.expose().to_owned(),
            operator_token: String::new(),
            folder: PathBuf::new(),
        }
    }

    /// Prints the setup with commands to copy.
    pub(crate) fn print(&self, url: &str) {
        let Self { tenant_id, integration_id, api_key, integration_key, operator_token, folder } =
            self;
        let text = format!(
            r#"
Bursar runs on {url} and keeps its data in {folder}.
Stop it with Ctrl-C. To start over, delete the folder.

  operator token    {operator_token}
  tenant            {tenant_id}
  integration       {integration_id} (enabled, with a budget of $100 a month)
  API key           {api_key}
  integration key   {integration_key}

Paste these into another terminal:

export BURSAR={url}/api/v1
export KEY='{api_key}'
export INTEGRATION={integration_id}

# Reserve 2 cents. 201: make the call. 200: the call is refused, and the response says why.
curl -sS $BURSAR/enforcement/reservations -H "Authorization: Bearer $KEY" -H 'Content-Type: application/json' \
  -d '{{"integration_id":"'$INTEGRATION'","call_id":"call-1","estimated_cost_cents":2,"estimated_tokens":1500}}'

# Record what the call used. The actual cost replaces the hold.
curl -sS $BURSAR/telemetry/llm-usage -H "Authorization: Bearer $KEY" -H 'Content-Type: application/json' \
  -d '{{"integration_id":"'$INTEGRATION'","call_id":"call-1","provider":"openai","model":"gpt-4o","tokens_in":1200,"tokens_out":240,"cost_cents":0.54,"latency_ms":830}}'

# See what is used and what was spent.
curl -sS $BURSAR/integrations/$INTEGRATION/limits -H "Authorization: Bearer $KEY"
curl -sS $BURSAR/telemetry/usage-summary -H "Authorization: Bearer $KEY"
"#,
            folder = terminal::line(&folder.to_string_lossy()),
        );
        // The server starts even if the text cannot be printed.
        let _ = terminal::print_lines(&text);
    }
}
