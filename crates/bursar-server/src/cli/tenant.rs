//! `bursar tenant`: made and looked at by the operator.

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
    /// Make a tenant.
    Create {
        /// Its name; names need not be unique, but unique ones can be given for the id.
        name: String,
    },
    /// List all tenants.
    List,
    /// Show one tenant.
    Show {
        /// Its id, or its name when only one has it.
        tenant: String,
    },
    /// Give a tenant another name.
    Rename {
        /// Its id, or its name when only one has it.
        tenant: String,
        /// The new name.
        name: String,
    },
    /// Suspend an active tenant: it reads and records, and every decision is a hard block.
    Suspend {
        /// Its id, or its name when only one has it.
        tenant: String,
    },
    /// Make a suspended tenant active again.
    Resume {
        /// Its id, or its name when only one has it.
        tenant: String,
    },
    /// Terminate a tenant for good: nothing of it works any more, what it used stays.
    Terminate {
        /// Its id, or its name when only one has it.
        tenant: String,
        /// Really terminate it; this cannot be undone.
        #[arg(long, required = true)]
        yes: bool,
    },
    /// Archive a terminated tenant.
    Archive {
        /// Its id, or its name when only one has it.
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
