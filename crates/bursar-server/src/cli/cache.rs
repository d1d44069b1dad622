//! `bursar cache`: list and clear the in-memory caches of the server.

use clap::{Args, Subcommand};

use super::command_error::CommandError;
use super::output::{Column, Printer};
use crate::cli::client::{ApiClient, ServerArgs};
use crate::config::settings::Config;

const COLUMNS: &[Column] = &[
    ("NAME", "name"),
    ("ENTRIES", "entries"),
    ("MAX", "entries_max"),
    ("TENANT MAX", "tenant_entries_max"),
    ("BYTES", "bytes"),
    ("MAX BYTES", "bytes_max"),
];

#[derive(Args)]
pub(super) struct CacheArguments {
    #[command(flatten)]
    pub(super) access: ServerArgs,
    #[command(flatten)]
    printer: Printer,
    #[command(subcommand)]
    command: CacheCommand,
}

#[derive(Subcommand)]
enum CacheCommand {
    /// List every cache and how full it is. With --json, include the tenants with the most entries
    List,
    /// Clear a cache, for one tenant or for all. No record, reservation or limit is lost
    Clear {
        name: String,
        /// Clear only the entries of this tenant, by id or by name
        #[arg(long)]
        tenant: Option<String>,
    },
}

pub(super) fn run(config: &Config, arguments: CacheArguments) -> Result<(), CommandError> {
    let CacheArguments { access, printer, command } = arguments;
    ApiClient::with(config, &access, |client| match command {
        CacheCommand::List => {
            let caches = client.ask_operator("GET", &["caches"], None)?;
            let rows: Vec<_> = serde_json::from_str(caches.get())?;
            printer.list(&rows, COLUMNS, ("cache", "caches"))
        }
        CacheCommand::Clear { name, tenant } => {
            let tenant = tenant.map(|tenant| client.find_tenant(&tenant)).transpose()?;
            let query = tenant.map(|id| format!("tenant_id={id}"));
            printer.one(&client.ask_operator("DELETE", &["caches", &name], query.as_deref())?)
        }
    })
}
