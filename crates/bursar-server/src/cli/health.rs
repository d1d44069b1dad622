//! `bursar health`: check whether the server can work, for supervisors.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::command_error::CommandError;
use crate::cli::client::{agent, url_here};
use crate::cli::terminal::print_line;
use crate::config::settings::Config;

/// A server that takes longer is considered unhealthy.
const DEADLINE: Duration = Duration::from_secs(3);

#[derive(Args)]
pub(super) struct HealthArguments {
    /// The URL of the server. Defaults to the one on the data folder or to BURSAR_LISTEN
    #[arg(long, value_name = "URL", env = "BURSAR_URL")]
    url: Option<String>,
    /// The data folder. Overrides BURSAR_DATA_DIR
    #[arg(long, value_name = "FOLDER")]
    pub(super) data_dir: Option<PathBuf>,
}

pub(super) fn run(config: &Config, arguments: HealthArguments) -> Result<(), CommandError> {
    let url = arguments.url.unwrap_or_else(|| url_here(config));
    let url = url.trim().trim_end_matches('/');
    let answer = agent(url, DEADLINE).get(format!("{url}/health/ready")).call();
    match answer.map(|answer| answer.status().as_u16()) {
        Ok(200) => Ok(print_line(&format!("{url} is ready"))?),
        Ok(status) => Err(format!("{url} is not ready: it responded with {status}").into()),
        Err(error) => Err(format!("{url} is not ready: {error}").into()),
    }
}
