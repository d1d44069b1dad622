//! The measured server: Bursar's router and accept loop in a separate process.
//!
//! It has additional routes that authenticate and parse requests, and store nothing.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::post;
use bursar_core::IntegrationId;
use bursar_server::api::telemetry::usage_record::check_record;
use bursar_server::auth::access::{Access, Role};
use bursar_server::auth::authorize::Authorized;
use bursar_server::http::request_extensions::ListenerKind;
use bursar_server::http::{Listener, listen, serve as serve_connections, shutdown_requested};
use bursar_server::router::router_with;
use bursar_server::server;
use bursar_server::wire::body::{SMALL, Text};
use bursar_server::wire::envelope::Answer;
use bursar_server::wire::error::ApiError;
use serde::Serialize;
use tokio::process::{Child, Command};

use crate::Failure;
use crate::setup::Deployment;

/// The file to which the server writes its address.
const ADDRESS: &str = "bench-address";

/// The access of the ingest routes.
const INGEST: Access =
    Access::Tenant { scope: Some("telemetry:write"), integration_key: true, role: Role::Admin };

#[derive(Serialize)]
struct Null {
    status: &'static str,
    id: String,
    call_id: String,
}

async fn null(caller: Authorized, body: Text<SMALL>) -> Result<Answer<Null>, ApiError> {
    read(body, caller.restricted_to).await
}

/// Parses a record without authentication.
async fn open(body: Text<SMALL>) -> Result<Answer<Null>, ApiError> {
    read(body, None).await
}

async fn read(body: Text<SMALL>, only: Option<IntegrationId>) -> Result<Answer<Null>, ApiError> {
    let usage = body.read(move |text| check_record(text, only)).await?.usage;
    let call_id = usage.call_id.as_str().to_owned();
    Ok(Answer::created(Null { status: "accepted", id: usage.integration_id.to_string(), call_id }))
}

/// Runs the server until it gets a signal to stop.
pub(crate) fn serve(folder: PathBuf) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let config = Deployment::of_server(folder.clone()).config()?;
        let app = server::open(&config, None)?;
        let end = shutdown_requested()?;
        let listener = listen("127.0.0.1:0").await?;
        let beside = folder.join("bench-address.new");
        std::fs::write(&beside, listener.local_addr()?.to_string())?;
        std::fs::rename(beside, folder.join(ADDRESS))?;
        let unguarded = Router::new().route("/bench/open", post(open));
        let guarded = Router::new().route("/bench/null", post(null));
        let router = router_with(unguarded, guarded, INGEST, app.clone());
        let entrance = Listener { socket: listener, router, kind: ListenerKind::Public };
        serve_connections(vec![entrance], config.server.limits(), None, end).await;
        app.ledger.close().await;
        Ok(())
    })
}

/// A server in its own process.
pub(crate) struct Running {
    child: Child,
    pub(crate) address: String,
}

impl Running {
    pub(crate) async fn start(deployment: &Deployment) -> Result<Self, Failure> {
        let address = deployment.folder.join(ADDRESS);
        let _ = std::fs::remove_file(&address);
        let mut child = Command::new(std::env::current_exe()?)
            .arg("serve")
            .arg(&deployment.folder)
            .envs(deployment.environment())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Ok(address) = std::fs::read_to_string(&address) {
                return Ok(Self { child, address });
            }
            if Instant::now() > deadline || child.try_wait()?.is_some() {
                return Err("the server did not start".into());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Resident memory in KiB, as the system counts it.
    pub(crate) fn resident_kib(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()?)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().trim_end_matches(" kB").trim().parse().ok()
    }

    pub(crate) async fn stop(mut self) -> Result<(), Failure> {
        let id = self.child.id().ok_or("the server ended by itself")?;
        std::process::Command::new("kill").arg("-TERM").arg(id.to_string()).status()?;
        self.child.wait().await?;
        Ok(())
    }
}
