//! The arguments of an import.

use std::path::PathBuf;

use clap::Args;

use crate::api::telemetry::export_format::UsageFormat;
use crate::cli::client::ServerArgs;

#[derive(Args)]
pub(crate) struct ImportArguments {
    /// The file: CSV with a header, or NDJSON
    #[arg(value_name = "FILE")]
    pub(super) file: PathBuf,
    /// The integration of the calls, by id
    #[arg(long, value_name = "ID")]
    pub(super) integration: Option<String>,
    /// The tenant, by id or by name. Required unless an API key is given
    #[arg(long, value_name = "TENANT")]
    pub(super) tenant: Option<String>,
    /// Read a field from a column with another name: tokens_in=ContextTokens
    #[arg(long = "map", value_name = "FIELD=COLUMN")]
    pub(super) maps: Vec<String>,
    /// Give a field the same value in every record: provider=openai
    #[arg(long = "set", value_name = "FIELD=VALUE")]
    pub(super) sets: Vec<String>,
    /// The time zone of times without one: UTC, Europe/Berlin
    #[arg(long, value_name = "ZONE")]
    pub(super) time_zone: Option<String>,
    /// The format of the file. Defaults to its extension
    #[arg(long, value_enum)]
    pub(super) format: Option<UsageFormat>,
    /// The name from which call ids are derived. Defaults to the name of the file
    #[arg(long, value_name = "NAME")]
    pub(super) source: Option<String>,
    /// An API key needs the scope telemetry:write.
    #[command(flatten)]
    pub(crate) access: ServerArgs,
}
