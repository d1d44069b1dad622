//! A server that runs on this machine or elsewhere.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::http::Uri;
use axum::http::request::Builder;
use ureq::tls::TlsConfig;

use super::reply::{ClientError, Fetched, Reply, broken_off, retry_after};
use crate::config::data_dir::ADDRESS;
use crate::config::settings::Config;
use crate::http::connectable_address;

/// The longest duration of a request.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);

/// A server that is reached through a socket.
pub(super) struct RunningServer {
    agent: ureq::Agent,
    url: String,
}

impl RunningServer {
    /// The given server, or the one that runs on the data folder.
    pub(super) fn new(config: &Config, url: Option<&str>) -> Self {
        let url = url.map_or_else(|| url_here(config), |url| trimmed(url).to_owned());
        Self { agent: agent(&url, ANSWER_DEADLINE), url }
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn send(
        &self,
        request: Builder,
        path: &str,
        body: Option<&str>,
    ) -> Result<Reply, ClientError> {
        let wrong =
            |error| ClientError::new(format!("cannot send a request to {}: {error}", self.url));
        let request = request.uri(format!("{}{path}", self.url));
        let answered = match body {
            Some(body) => self.agent.run(request.body(body).map_err(wrong)?),
            None => self.agent.run(request.body(()).map_err(wrong)?),
        };
        let away = |error| ClientError::new(format!("{} cannot be reached: {error}", self.url));
        let mut answer = answered.map_err(away)?;
        let retry_after = retry_after(answer.headers());
        let text = answer.body_mut().read_to_string().map_err(away)?;
        Ok(Reply { status: answer.status().as_u16(), retry_after, text })
    }

    /// Writes the response body as it arrives, however long that takes.
    pub(super) fn fetch(
        &self,
        request: Builder,
        path: &str,
        to: &mut dyn Write,
    ) -> Result<Fetched, ClientError> {
        let wrong =
            |error| ClientError::new(format!("cannot send a request to {}: {error}", self.url));
        let away = |error| ClientError::new(format!("{} cannot be reached: {error}", self.url));
        let request = request.uri(format!("{}{path}", self.url)).body(()).map_err(wrong)?;
        let request = self
            .agent
            .configure_request(request)
            .timeout_global(None)
            .timeout_recv_response(Some(ANSWER_DEADLINE))
            .build();
        let mut answer = self.agent.run(request).map_err(away)?;
        let status = answer.status().as_u16();
        if status != 200 {
            let retry_after = retry_after(answer.headers());
            let text = answer.body_mut().read_to_string().map_err(away)?;
            return Ok(Err(Reply { status, retry_after, text }));
        }
        let copied = std::io::copy(&mut answer.into_body().into_reader(), to);
        copied.map(Ok).map_err(broken_off)
    }
}

/// An HTTP client for one server.
pub(crate) fn agent(url: &str, deadline: Duration) -> ureq::Agent {
    let mut settings = ureq::Agent::config_builder()
        .http_status_as_error(false)
        // The credential must not follow a redirect to another server.
        .max_redirects(0)
        .timeout_global(Some(deadline));
    if is_of_this_machine(url) {
        // The certificate carries the server's public name and not the local address. On the same
        // machine TLS protects no more than plain HTTP.
        let tls = TlsConfig::builder().disable_verification(true).build();
        settings = settings.proxy(None).tls_config(tls);
    }
    settings.build().new_agent()
}

fn trimmed(url: &str) -> &str {
    url.trim().trim_end_matches('/')
}

/// The address of the server on the data folder, from its address file or the configuration.
pub(crate) fn url_here(config: &Config) -> String {
    if let Ok(url) = std::fs::read_to_string(config.storage.data_dir.join(ADDRESS)) {
        return trimmed(&url).to_owned();
    }
    url_of("http", &config.listener.listen)
}

/// The configured address of the operator's own listener.
pub(crate) fn operator_url(config: &Config) -> Option<String> {
    let scheme = if config.tls.files().is_some() { "https" } else { "http" };
    config.listener.operator_listen.as_deref().map(|listen| url_of(scheme, listen))
}

fn url_of(scheme: &str, listen: &str) -> String {
    match listen.parse::<SocketAddr>() {
        Ok(address) => format!("{scheme}://{}", connectable_address(address)),
        Err(_) => format!("{scheme}://{listen}"),
    }
}

/// Whether an address belongs to this machine.
pub(super) fn is_of_this_machine(url: &str) -> bool {
    let uri: Option<Uri> = url.parse().ok();
    let host = uri.as_ref().and_then(Uri::host).unwrap_or_default();
    let address: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
    host == "localhost" || address.is_some_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_this_machine() {
        for own in ["http://127.0.0.1:8080", "http://[::1]:80", "https://localhost"] {
            assert!(is_of_this_machine(own), "{own}");
        }
        for other in
            ["http://10.0.0.1", "http://localhost.example.com", "http://127.0.0.1.nip.io", ""]
        {
            assert!(!is_of_this_machine(other), "{other}");
        }
    }
}
