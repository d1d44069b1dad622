//! `bursar usage`: import and export usage records.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::atomic_file;
use super::command_error::CommandError;
use crate::api::telemetry::export_format::UsageFormat;
use crate::cli::client::{ApiClient, ServerArgs};
use crate::cli::import::ImportArguments;
use crate::config::settings::Config;

#[derive(Subcommand)]
pub(super) enum UsageCommand {
    /// Import usage records from CSV with a header or from NDJSON. Importing twice changes nothing
    Import(Box<ImportArguments>),
    /// Export the history, newest first, to a file or to standard output
    Export(Box<ExportArguments>),
}

#[derive(Args)]
pub(super) struct ExportArguments {
    #[command(flatten)]
    pub(super) access: ServerArgs,
    /// The tenant, by id or by unique name. An API key implies it
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// The file to write. Defaults to standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace an existing file
    #[arg(long, requires = "output")]
    force: bool,
    /// The format. Defaults to the extension of the file, or to csv
    #[arg(long)]
    format: Option<UsageFormat>,
    /// Only this integration, by id or by name
    #[arg(long)]
    integration: Option<String>,
    /// Only this model
    #[arg(long)]
    model: Option<String>,
    /// Only this agent
    #[arg(long)]
    agent: Option<String>,
    /// Only this session
    #[arg(long)]
    session: Option<String>,
    /// Only calls with this result: allowed, warned or blocked
    #[arg(long)]
    policy_result: Option<String>,
    /// Only calls with an error
    #[arg(long)]
    errors_only: bool,
    /// From this instant or day
    #[arg(long, value_name = "WHEN")]
    start: Option<String>,
    /// Up to this instant, or to the end of this day
    #[arg(long, value_name = "WHEN")]
    end: Option<String>,
}

pub(super) fn export(config: &Config, arguments: &ExportArguments) -> Result<(), CommandError> {
    let output = arguments.output.as_deref();
    atomic_file::check_free(output, arguments.force)?;
    ApiClient::with(config, &arguments.access, |client| {
        client.select_tenant(arguments.tenant.as_deref())?;
        atomic_file::fetch(client, &question(client, arguments)?, output)
    })
}

fn question(client: &ApiClient, arguments: &ExportArguments) -> Result<String, CommandError> {
    let named = arguments.output.as_deref().and_then(UsageFormat::of);
    let format = arguments.format.or(named).unwrap_or(UsageFormat::Csv);
    let integration = arguments.integration.as_deref().map(|named| client.find_integration(named));
    let integration = integration.transpose()?;
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("format", format.as_str());
    let filters = [
        ("integration_id", &integration),
        ("model", &arguments.model),
        ("agent_id", &arguments.agent),
        ("session_id", &arguments.session),
        ("policy_result", &arguments.policy_result),
        ("start", &arguments.start),
        ("end", &arguments.end),
    ];
    for (name, value) in filters {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    if arguments.errors_only {
        query.append_pair("errors_only", "true");
    }
    Ok(format!("/telemetry/export?{}", query.finish()))
}
