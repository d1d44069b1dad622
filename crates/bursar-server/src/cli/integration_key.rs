//! `bursar integration key`: keys that are valid for one integration.

use clap::Subcommand;
use serde_json::json;

use super::command_error::CommandError;
use super::output::{Column, Printer};
use crate::cli::client::{ApiClient, path};

const COLUMNS: &[Column] = &[
    ("ID", "id"),
    ("NAME", "name"),
    ("CREATED", "created_at"),
    ("EXPIRES", "expires_at"),
    ("LAST USED", "last_used_at"),
    ("REVOKED", "revoked_at"),
];

/// The label of a new key in the output.
const INTEGRATION_KEY: &str = "value of the header X-CUS-Integration-Key";

#[derive(Subcommand)]
pub(super) enum IntegrationKeyCommand {
    /// Create a key and print it once: the whole value of the header X-CUS-Integration-Key
    Create {
        /// The integration, by id or by name
        integration: String,
        /// What the key is for
        #[arg(long)]
        name: Option<String>,
    },
    /// List the keys of an integration, without their secrets
    List {
        /// The integration, by id or by name
        integration: String,
    },
    /// Create a new key for an old one and print it once. The old key stays valid for a while
    Rotate {
        /// The integration, by id or by name
        integration: String,
        /// The id of the old key
        id: String,
        /// How long the old key stays valid. 0 revokes it at once
        #[arg(long, value_name = "SECONDS", default_value_t = 3_600)]
        overlap_seconds: u32,
    },
    /// Revoke a key at once
    Revoke {
        /// The integration, by id or by name
        integration: String,
        /// The id of the key
        id: String,
    },
}

pub(super) fn run(
    client: &ApiClient,
    printer: Printer,
    command: IntegrationKeyCommand,
) -> Result<(), CommandError> {
    match command {
        IntegrationKeyCommand::Create { integration, name } => {
            let id = client.find_integration(&integration)?;
            let body = json!({ "name": name }).to_string();
            let made = client.ask("POST", &format!("/integrations/{id}/keys"), Some(&body))?;
            printer.made(&made, INTEGRATION_KEY)
        }
        IntegrationKeyCommand::List { integration } => {
            let id = client.find_integration(&integration)?;
            let rows = client.list(&format!("/integrations/{id}/keys"))?;
            printer.list(&rows, COLUMNS, ("key", "keys"))
        }
        IntegrationKeyCommand::Rotate { integration, id, overlap_seconds } => {
            let integration = client.find_integration(&integration)?;
            let path = path(&["integrations", &integration, "keys", &id, "rotate"])?;
            let body = json!({ "overlap_seconds": overlap_seconds }).to_string();
            printer.made(&client.ask("POST", &path, Some(&body))?, INTEGRATION_KEY)
        }
        IntegrationKeyCommand::Revoke { integration, id } => {
            let integration = client.find_integration(&integration)?;
            let path = path(&["integrations", &integration, "keys", &id])?;
            printer.one(&client.ask("DELETE", &path, None)?)
        }
    }
}
