//! `bursar key`: the API keys of a tenant.

use clap::{Args, Subcommand};
use serde_json::json;

use super::command_error::CommandError;
use super::output::{Column, Printer};
use crate::cli::client::{ApiClient, ServerArgs, path};
use crate::config::settings::Config;

const COLUMNS: &[Column] = &[
    ("ID", "id"),
    ("NAME", "name"),
    ("SCOPES", "scopes"),
    ("CREATED", "created_at"),
    ("EXPIRES", "expires_at"),
    ("LAST USED", "last_used_at"),
    ("REVOKED", "revoked_at"),
];

#[derive(Args)]
pub(super) struct KeyArguments {
    #[command(flatten)]
    pub(super) access: ServerArgs,
    /// The tenant, by id or by name. Not needed with an API key
    #[arg(long, global = true)]
    tenant: Option<String>,
    #[command(flatten)]
    printer: Printer,
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Subcommand)]
enum KeyCommand {
    /// Create a key and print it once
    Create {
        /// What the key is for
        #[arg(long)]
        name: String,
        /// The scopes, such as telemetry:write, integrations:* or *. Separate several with commas
        #[arg(long = "scope", value_name = "SCOPE", required = true, value_delimiter = ',')]
        scopes: Vec<String>,
        /// When the key expires, such as 2027-01-01T00:00:00Z. Defaults to never, or to the expiry
        /// of the API key that creates it
        #[arg(long, value_name = "INSTANT")]
        expires_at: Option<String>,
    },
    /// List all keys, without their secrets
    List,
    /// Create a new key for an old one and print it once. The old key stays valid for a while
    Rotate {
        /// The id of the old key
        id: String,
        /// How long the old key stays valid. 0 revokes it at once
        #[arg(long, value_name = "SECONDS", default_value_t = 3_600)]
        overlap_seconds: u32,
    },
    /// Revoke a key at once
    Revoke { id: String },
}

pub(super) fn run(config: &Config, arguments: KeyArguments) -> Result<(), CommandError> {
    let KeyArguments { access, tenant, printer, command } = arguments;
    ApiClient::with(config, &access, |client| {
        client.select_tenant(tenant.as_deref())?;
        match command {
            KeyCommand::Create { name, scopes, expires_at } => {
                let mut body = json!({ "name": name, "scopes": scopes });
                if let (Some(end), Some(fields)) = (expires_at, body.as_object_mut()) {
                    fields.insert("expires_at".to_owned(), end.into());
                }
                let made = client.ask("POST", "/keys", Some(&body.to_string()))?;
                printer.made(&made, "API key")
            }
            KeyCommand::List => printer.list(&client.list("/keys")?, COLUMNS, ("key", "keys")),
            KeyCommand::Rotate { id, overlap_seconds } => {
                let body = json!({ "overlap_seconds": overlap_seconds }).to_string();
                let made = client.ask("POST", &path(&["keys", &id, "rotate"])?, Some(&body))?;
                printer.made(&made, "API key")
            }
            KeyCommand::Revoke { id } => {
                printer.one(&client.ask("DELETE", &path(&["keys", &id])?, None)?)
            }
        }
    })
}
