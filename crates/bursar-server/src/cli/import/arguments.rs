//! What the command line says of an import.

use std::path::PathBuf;

use clap::Args;

use crate::api::telemetry::export_format::UsageFormat;
use crate::cli::client::ServerArgs;

/// What to import, and how to read it.
#[derive(Args)]
pub struct ImportArguments {
    /// The file: CSV with a header, or NDJSON.
    #[arg(value_name = "FILE")]
    pub(super) file: PathBuf,
    /// The integration that the calls went through.
    #[arg(long, value_name = "ID")]
    pub(super) integration: Option<String>,
    /// The tenant, by its id or its name; needed unless an API key is given.
    #[arg(long, value_name = "TENANT")]
    pub(super) tenant: Option<String>,
    /// Take a field from a column of another name: tokens_in=ContextTokens.
    #[arg(long = "map", value_name = "FIELD=COLUMN")]
    pub(super) maps: Vec<String>,
    /// Give a field the same value in every record: provider=openai.
    #[arg(long = "set", value_name = "FIELD=VALUE")]
    pub(super) sets: Vec<String>,
    /// The zone of times that name none: UTC, Europe/Berlin.
    #[arg(long, value_name = "ZONE")]
    pub(super) time_zone: Option<String>,
    /// How the file is written; by its ending when nothing is said.
    #[arg(long, value_enum)]
    pub(super) format: Option<UsageFormat>,
    /// The name from which call ids are derived; the file's name when nothing is said.
    #[arg(long, value_name = "NAME")]
    pub(super) source: Option<String>,
    /// The way to Bursar; an API key needs the scope telemetry:write.
    #[command(flatten)]
    pub(crate) access: ServerArgs,
}
