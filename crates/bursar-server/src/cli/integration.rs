//! `bursar integration`: create, change, enable, disable and delete integrations; show limits.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::command_error::CommandError;
use super::integration_key::{self, IntegrationKeyCommand};
use super::output::{Column, Printer};
use crate::cli::client::{ApiClient, ServerArgs};
use crate::config::settings::Config;

const COLUMNS: &[Column] = &[
    ("ID", "id"),
    ("NAME", "name"),
    ("PROVIDER", "provider_type"),
    ("STATUS", "status"),
    ("HEALTH", "health_state"),
    ("MODEL", "default_model"),
    ("CREATED", "created_at"),
];

#[derive(Args)]
pub(super) struct IntegrationArguments {
    #[command(flatten)]
    pub(super) access: ServerArgs,
    /// The tenant, by id or by name. Not needed with an API key
    #[arg(long, global = true)]
    tenant: Option<String>,
    #[command(flatten)]
    printer: Printer,
    #[command(subcommand)]
    command: IntegrationCommand,
}

#[derive(Subcommand)]
enum IntegrationCommand {
    /// Create an integration. Enable it before you send calls through it
    Create {
        /// The name, unique among the tenant's integrations
        name: String,
        /// openai, anthropic, azure_openai, bedrock or custom
        #[arg(long)]
        provider: String,
        #[command(flatten)]
        fields: IntegrationFields,
        /// Enable it at once
        #[arg(long)]
        enable: bool,
    },
    /// List all integrations
    List,
    /// Show one integration
    Show {
        /// The integration, by id or by name
        integration: String,
    },
    /// Change the given values. All others stay as they are
    Update {
        /// The integration, by id or by name
        integration: String,
        /// The new name
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        fields: IntegrationFields,
        /// Clear a value
        #[arg(long, value_name = "FIELD", value_delimiter = ',')]
        clear: Vec<Clearable>,
    },
    /// Enable an integration, so that calls may go through it
    Enable {
        /// The integration, by id or by name
        integration: String,
    },
    /// Disable an integration: refuse new calls, but still accept records of earlier calls
    Disable {
        /// The integration, by id or by name
        integration: String,
    },
    /// Delete an integration. Its usage stays, its name becomes free, and its keys stop working
    Delete {
        /// The integration, by id or by name
        integration: String,
        /// Confirm the deletion. It cannot be undone
        #[arg(long, required = true)]
        yes: bool,
    },
    /// Show the limits and how far they are used
    Limits {
        /// The integration, by id or by name
        integration: String,
        /// A past month, such as 2026-10
        #[arg(long, value_name = "MONTH")]
        period: Option<String>,
    },
    /// Manage the keys of one integration
    #[command(subcommand)]
    Key(IntegrationKeyCommand),
}

/// The values of an integration.
#[derive(Args)]
struct IntegrationFields {
    /// The monthly budget in US cents. 0 means unlimited
    #[arg(long, value_name = "CENTS")]
    budget_cents: Option<u64>,
    /// The monthly token limit. 0 means unlimited
    #[arg(long, value_name = "TOKENS")]
    token_limit: Option<u64>,
    /// The calls allowed in a minute. 0 means unlimited
    #[arg(long, value_name = "CALLS")]
    rate_limit: Option<u64>,
    /// The model that calls use when they name none
    #[arg(long, value_name = "MODEL")]
    default_model: Option<String>,
    /// A reference to the credential, such as env://CUS_CRED_ACME. Never the credential itself
    #[arg(long, value_name = "REFERENCE")]
    credential_ref: Option<String>,
    /// The configuration: a JSON object, or @ and the name of a file with one
    #[arg(long, value_name = "JSON|@FILE")]
    config_json: Option<String>,
    /// Where the cost comes from: reported by the client, or computed by the server
    #[arg(long, value_name = "BASIS")]
    cost_basis: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
#[value(rename_all = "kebab-case")]
enum Clearable {
    DefaultModel,
    CredentialRef,
}

pub(super) fn run(config: &Config, arguments: IntegrationArguments) -> Result<(), CommandError> {
    let IntegrationArguments { access, tenant, printer, command } = arguments;
    ApiClient::with(config, &access, |client| {
        client.select_tenant(tenant.as_deref())?;
        let post = |integration: &str, verb: &str| {
            let id = client.find_integration(integration)?;
            printer.one(&client.ask("POST", &format!("/integrations/{id}/{verb}"), None)?)
        };
        match command {
            IntegrationCommand::Create { name, provider, fields, enable } => {
                let made = create(client, &name, &provider, fields)?;
                if enable { enable_made(client, printer, &made) } else { printer.one(&made) }
            }
            IntegrationCommand::List => printer.list(
                &client.list("/integrations")?,
                COLUMNS,
                ("integration", "integrations"),
            ),
            IntegrationCommand::Show { integration } => {
                let id = client.find_integration(&integration)?;
                printer.one(&client.ask("GET", &format!("/integrations/{id}"), None)?)
            }
            IntegrationCommand::Update { integration, name, fields, clear } => {
                let id = client.find_integration(&integration)?;
                let body = changes(name, fields, &clear)?.to_string();
                printer.one(&client.ask("PATCH", &format!("/integrations/{id}"), Some(&body))?)
            }
            IntegrationCommand::Enable { integration } => post(&integration, "enable"),
            IntegrationCommand::Disable { integration } => post(&integration, "disable"),
            IntegrationCommand::Delete { integration, yes: _ } => {
                let id = client.find_integration(&integration)?;
                printer.one(&client.ask("DELETE", &format!("/integrations/{id}"), None)?)
            }
            IntegrationCommand::Limits { integration, period } => {
                let id = client.find_integration(&integration)?;
                let path = limits_path(&id, period.as_deref())?;
                printer.one(&client.ask("GET", &path, None)?)
            }
            IntegrationCommand::Key(command) => integration_key::run(client, printer, command),
        }
    })
}

fn create(
    client: &ApiClient,
    name: &str,
    provider: &str,
    fields: IntegrationFields,
) -> Result<Box<RawValue>, CommandError> {
    let mut body = fields.fields()?;
    body.insert("name".to_owned(), name.into());
    body.insert("provider_type".to_owned(), provider.into());
    Ok(client.ask("POST", "/integrations", Some(&Value::Object(body).to_string()))?)
}

/// Enables a new integration. If that fails, the integration is still printed.
fn enable_made(client: &ApiClient, printer: Printer, made: &RawValue) -> Result<(), CommandError> {
    let view: Value = serde_json::from_str(made.get())?;
    let id = view.get("id").and_then(Value::as_str).unwrap_or_default();
    match client.ask("POST", &format!("/integrations/{id}/enable"), None) {
        Ok(enabled) => printer.one(&enabled),
        Err(error) => {
            printer.one(made)?;
            Err(format!("the integration was created, but not enabled: {error}").into())
        }
    }
}

fn changes(
    name: Option<String>,
    fields: IntegrationFields,
    clear: &[Clearable],
) -> Result<Value, CommandError> {
    let mut body = fields.fields()?;
    if let Some(name) = name {
        body.insert("name".to_owned(), name.into());
    }
    for field in clear {
        let field = match field {
            Clearable::DefaultModel => "default_model",
            Clearable::CredentialRef => "credential_ref",
        };
        if body.insert(field.to_owned(), Value::Null).is_some() {
            return Err(format!("{field} cannot be both set and cleared").into());
        }
    }
    Ok(Value::Object(body))
}

fn limits_path(id: &str, period: Option<&str>) -> Result<String, CommandError> {
    let Some(period) = period else { return Ok(format!("/integrations/{id}/limits")) };
    crate::wire::timestamps::parse_month(period)
        .map_err(|problem| format!("--period {problem}"))?;
    Ok(format!("/integrations/{id}/limits?period={period}"))
}

impl IntegrationFields {
    /// The fields of the request.
    fn fields(self) -> Result<Map<String, Value>, CommandError> {
        let Self {
            budget_cents,
            token_limit,
            rate_limit,
            default_model,
            credential_ref,
            config_json,
            cost_basis,
        } = self;
        let config = config_json.map(|text| read_config(&text)).transpose()?;
        let given = [
            ("budget_limit_cents", budget_cents.map(Value::from)),
            ("token_limit_month", token_limit.map(Value::from)),
            ("rate_limit_rpm", rate_limit.map(Value::from)),
            ("default_model", default_model.map(Value::from)),
            ("credential_ref", credential_ref.map(Value::from)),
            ("config", config),
            ("cost_basis", cost_basis.map(Value::from)),
        ];
        let fields = given.into_iter();
        Ok(fields.filter_map(|(name, value)| Some((name.to_owned(), value?))).collect())
    }
}

/// Reads a JSON text, or the file named after an `@`.
fn read_config(text: &str) -> Result<Value, CommandError> {
    let text = match text.strip_prefix('@') {
        None => text.to_owned(),
        Some(path) => std::fs::read_to_string(path)
            .map_err(|error| format!("--config-json: cannot read {path}: {error}"))?,
    };
    serde_json::from_str(&text)
        .map_err(|error| format!("--config-json is not JSON: {error}").into())
}
