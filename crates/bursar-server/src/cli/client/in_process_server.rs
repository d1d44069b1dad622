//! Serves the store in this process: a data folder without a running server, or PostgreSQL.

use std::io::Write;

use axum::body::Body;
use axum::http::request::Builder;
use axum::response::Response;
use http_body_util::BodyExt;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;

use super::reply::{ClientError, Fetched, Reply, broken_off, retry_after};
use crate::app::App;
use crate::auth::secret::Secret;
use crate::cli::runtime::runtime;
use crate::config::settings::Config;
use crate::router::router;
use crate::server;

/// The store and the routes over it, without a socket.
pub(super) struct InProcessServer {
    runtime: tokio::runtime::Runtime,
    app: App,
    service: TowerToHyperService<axum::Router>,
}

impl InProcessServer {
    pub(super) fn open(config: &Config) -> Result<Self, ClientError> {
        let said = |error: &dyn std::error::Error| ClientError::new(error.to_string());
        let runtime = runtime().map_err(|error| said(&error))?;
        let app =
            runtime.block_on(async { server::open_for_command(config, server::test_clocks()) });
        let app = app.map_err(|error| said(&error))?;
        let service = TowerToHyperService::new(router(app.clone()));
        Ok(Self { runtime, app, service })
    }

    pub(super) fn operator_token(&self) -> Secret {
        Secret::new(self.app.operator_token.expose().to_owned())
    }

    /// Whether other processes use the same store.
    pub(super) fn is_shared(&self) -> bool {
        self.app.database_probe.is_some()
    }

    pub(super) fn send(
        &self,
        request: Builder,
        path: &str,
        body: Option<&str>,
    ) -> Result<Reply, ClientError> {
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_owned()));
        self.runtime.block_on(async { read(self.call(request, path, body).await?).await })
    }

    /// Writes the response body as it arrives.
    pub(super) fn fetch(
        &self,
        request: Builder,
        path: &str,
        to: &mut dyn Write,
    ) -> Result<Fetched, ClientError> {
        self.runtime.block_on(async {
            let answer = self.call(request, path, Body::empty()).await?;
            if answer.status().as_u16() != 200 {
                return read(answer).await.map(Err);
            }
            let mut written = 0;
            let mut body = answer.into_body();
            while let Some(frame) = body.frame().await {
                let bytes = frame.map_err(broken_off)?.into_data().unwrap_or_default();
                to.write_all(&bytes).map_err(broken_off)?;
                written += bytes.len() as u64;
            }
            Ok(Ok(written))
        })
    }

    async fn call(
        &self,
        request: Builder,
        path: &str,
        body: Body,
    ) -> Result<Response<Body>, ClientError> {
        let wrong =
            |error: axum::http::Error| ClientError::new(format!("cannot send a request: {error}"));
        let request = request.uri(path).body(body).map_err(wrong)?;
        match self.service.call(request).await {
            Ok(answer) => Ok(answer),
            Err(never) => match never {},
        }
    }

    /// Stores everything that was accepted. For SQLite it also moves the log into the file.
    pub(super) fn close(self) {
        self.runtime.block_on(self.app.ledger.close());
    }
}

async fn read(answer: Response<Body>) -> Result<Reply, ClientError> {
    let status = answer.status().as_u16();
    let retry_after = retry_after(answer.headers());
    let body = answer.into_body().collect().await;
    let body = body.map_err(|error| ClientError::new(error.to_string()))?.to_bytes();
    Ok(Reply { status, retry_after, text: String::from_utf8_lossy(&body).into_owned() })
}
