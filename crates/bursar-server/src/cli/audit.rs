//! `bursar audit`: verify the audit log in the store or in a file, and export it.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bursar_core::TenantId;
use bursar_store::{AuditCheck, AuditReport, Differences, PostgresStore, SqliteStore};
use clap::{Args, Subcommand};

use super::atomic_file;
use super::command_error::CommandError;
use super::db::known_secret;
use crate::api::tenants::audit_view::{AuditView, hash_text};
use crate::auth::secret::{Secret, SecretKey};
use crate::cli::client::{ApiClient, ServerArgs};
use crate::cli::terminal;
use crate::cli::terminal::{print_error_line, print_line, print_lines};
use crate::config::database::Database;
use crate::config::settings::Config;
use crate::server::StartError;

#[derive(Subcommand)]
pub(super) enum AuditCommand {
    /// Verify the hashes, the order and the sealed head of the audit log, and report every
    /// difference. Exits with 0 if there is none
    Verify(VerifyArguments),
    /// Export the whole log of a tenant, oldest first, to a file or to standard output
    Export(Box<ExportArguments>),
}

#[derive(Args)]
pub(super) struct VerifyArguments {
    /// The data folder. Overrides BURSAR_DATA_DIR
    #[arg(long, value_name = "FOLDER")]
    pub(super) data_dir: Option<PathBuf>,
    /// sqlite:PATH or postgres://... Overrides BURSAR_DATABASE
    #[arg(long, value_name = "URL")]
    pub(super) database: Option<String>,
    /// Verify only the log of this tenant
    #[arg(long, value_name = "ID")]
    tenant: Option<String>,
    /// Verify an exported file instead of the store. This needs no secret key and cannot check the
    /// head
    #[arg(long, value_name = "FILE", conflicts_with_all = ["data_dir", "database", "tenant"])]
    file: Option<PathBuf>,
}

#[derive(Args)]
pub(super) struct ExportArguments {
    #[command(flatten)]
    pub(super) access: ServerArgs,
    /// The tenant, by id or by unique name
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// The file to write. Defaults to standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace an existing file
    #[arg(long, requires = "output")]
    force: bool,
}

/// Verifies the log in the store, even while a server runs on it, or in a file.
pub(super) fn verify(
    config: &Config,
    arguments: &VerifyArguments,
) -> Result<ExitCode, CommandError> {
    if let Some(file) = &arguments.file {
        return verify_file(file);
    }
    let only = arguments.tenant.as_deref().map(TenantId::parse).transpose();
    let only = only.map_err(|error| format!("--tenant {error}"))?;
    let verified = match &config.database() {
        Database::File(path) => {
            let key = secret_key(&known_secret(config)?)?;
            let (fingerprint, audit_key) = (key.fingerprint(), key.audit_key());
            SqliteStore::verify_audit(path, fingerprint, &audit_key, only)??
        }
        Database::Postgres(database) => {
            let key =
                secret_key(config.secrets.secret_key.as_ref().ok_or(StartError::NoSecretKey)?)?;
            let url = database.url()?;
            let (url, fingerprint, audit_key) = (url.expose(), key.fingerprint(), key.audit_key());
            PostgresStore::verify_audit(url, fingerprint, &audit_key, only)??
        }
    };
    print_verified(&verified)
}

fn secret_key(secret: &Secret) -> Result<SecretKey, CommandError> {
    Ok(SecretKey::derive(secret)?)
}

/// Verifies an export line by line.
fn verify_file(path: &Path) -> Result<ExitCode, CommandError> {
    let read = |error: io::Error| format!("cannot read {}: {error}", path.display());
    let mut check: Option<AuditCheck> = None;
    for (number, line) in BufReader::new(File::open(path).map_err(read)?).lines().enumerate() {
        let view: Result<AuditView, _> = serde_json::from_str(&line.map_err(read)?);
        let entry = view.map_err(|error| error.to_string());
        let entry = entry.and_then(|view| view.entry().map_err(str::to_owned));
        match (entry, &mut check) {
            (Ok(entry), Some(check)) => check.check(&entry),
            (Ok(entry), None) => {
                let new = AuditCheck::new(entry.tenant_id);
                check.insert(new).check(&entry);
            }
            (Err(error), Some(check)) => {
                check.report_unreadable(&format!("line {}: {error}", number + 1))
            }
            (Err(error), None) => {
                let path = path.display();
                return Err(format!("{path} is not an exported audit log: {error}").into());
            }
        }
    }
    let check = check.ok_or_else(|| format!("{} is empty", path.display()))?;
    let end = check.last_row();
    let code = print_verified(&check.finish())?;
    if let Some((sequence, hash)) = end {
        let hash = hash_text(&hash);
        print_line(&format!("The last row is number {sequence}, with the hash {hash}"))?;
    }
    print_error_line(
        "This check does not use the secret key, so it cannot find a chain that was rehashed or \
         cut at its end. Run `bursar audit verify` on the store, or compare the last hash with one \
         that you kept.",
    );
    Ok(code)
}

fn print_verified(verified: &AuditReport) -> Result<ExitCode, CommandError> {
    let AuditReport { tenants, rows, differences } = verified;
    let Differences { count, listed } = differences;
    let mut text = String::new();
    for sentence in listed {
        text.push_str(&terminal::line(sentence));
        text.push('\n');
    }
    text.push_str(&format!("{rows} rows of {tenants} tenants: {count} differences\n"));
    print_lines(&text)?;
    Ok(if *count == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub(super) fn export(config: &Config, arguments: &ExportArguments) -> Result<(), CommandError> {
    let output = arguments.output.as_deref();
    atomic_file::check_free(output, arguments.force)?;
    ApiClient::with(config, &arguments.access, |client| {
        client.select_tenant(arguments.tenant.as_deref())?;
        atomic_file::fetch(client, "/audit/export", output)
    })
}
