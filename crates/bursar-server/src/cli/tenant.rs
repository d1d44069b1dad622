//! `bursar tenant`: the operator manages tenants.

use clap::{Args, Subcommand};
use serde_json::json;

use super::command_error::CommandError;
use super::output::{Column, Printer};
use crate::cli::client::{ApiClient, ServerArgs};
use crate::config::settings::Config;

const COLUMNS: &[Column] = &[
    ("ID", "id"),
    ("NAME", "name"),
    ("LIFECYCLE", "lifecycle_state"),
    ("ONBOARDING", "onboarding_state"),
    ("CREATED", "created_at"),
];

#[derive(Args)]
pub(super) struct TenantArguments {
    #[command(flatten)]
    pub(super) access: ServerArgs,
    #[command(flatten)]
    printer: Printer,
    #[command(subcommand)]
    command: TenantCommand,
}

#[derive(Subcommand)]
enum TenantCommand {
    /// Create a tenant
    Create {
        /// The name. Only a unique name can be used in place of the id
        name: String,
    },
    /// List all tenants
    List,
    /// Show one tenant
    Show {
        /// The tenant, by id or by unique name
        tenant: String,
    },
    /// Rename a tenant
    Rename {
        /// The tenant, by id or by unique name
        tenant: String,
        /// The new name
        name: String,
    },
    /// Suspend an active tenant. Its reads and records work; every decision is a hard block
    Suspend {
        /// The tenant, by id or by unique name
        tenant: String,
    },
    /// Resume a suspended tenant
    Resume {
        /// The tenant, by id or by unique name
        tenant: String,
    },
    /// Terminate a tenant for good. Its keys and people lose access; its usage stays
    Terminate {
        /// The tenant, by id or by unique name
        tenant: String,
        /// Confirm the termination. It cannot be undone
        #[arg(long, required = true)]
        yes: bool,
    },
    /// Archive a terminated tenant
    Archive {
        /// The tenant, by id or by unique name
        tenant: String,
    },
}

pub(super) fn run(config: &Config, arguments: TenantArguments) -> Result<(), CommandError> {
    let TenantArguments { access, printer, command } = arguments;
    ApiClient::with(config, &access, |client| match command {
        TenantCommand::Create { name } => {
            let body = json!({ "name": name }).to_string();
            printer.one(&client.ask("POST", "/tenants", Some(&body))?)
        }
        TenantCommand::List => {
            printer.list(&client.list("/tenants")?, COLUMNS, ("tenant", "tenants"))
        }
        TenantCommand::Show { tenant } => {
            let id = client.find_tenant(&tenant)?;
            printer.one(&client.ask("GET", &format!("/tenants/{id}"), None)?)
        }
        TenantCommand::Rename { tenant, name } => {
            let (id, body) = (client.find_tenant(&tenant)?, json!({ "name": name }).to_string());
            printer.one(&client.ask("PATCH", &format!("/tenants/{id}"), Some(&body))?)
        }
        TenantCommand::Suspend { tenant } => change_state(client, printer, &tenant, "suspend"),
        TenantCommand::Resume { tenant } => change_state(client, printer, &tenant, "resume"),
        TenantCommand::Terminate { tenant, yes: _ } => {
            change_state(client, printer, &tenant, "terminate")
        }
        TenantCommand::Archive { tenant } => change_state(client, printer, &tenant, "archive"),
    })
}

fn change_state(
    client: &ApiClient,
    printer: Printer,
    tenant: &str,
    verb: &str,
) -> Result<(), CommandError> {
    let id = client.find_tenant(tenant)?;
    printer.one(&client.ask("POST", &format!("/tenants/{id}/{verb}"), None)?)
}
