//! Outbound requests, with and without TLS.

use std::sync::Arc;
use std::time::Duration;

use bursar_server::auth::oidc::{Issuers, PersonError};
use bursar_server::http::outbound::{Outbound, OutboundError, WebUrl};
use bursar_testing::oidc::issuer::TestIssuer;
use bursar_testing::oidc::signer::Signer;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{RootCertStore, ServerConfig};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::issuers::{TOKEN_SECONDS_MAX, claims, issuer_config, issuer_list, noon};

/// An issuer that serves TLS as `localhost`, and its certificate.
async fn tls_issuer(keys: &[&Signer]) -> (TestIssuer, CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let issuer = TestIssuer::at(format!("https://localhost:{port}"), keys);
    let service = TowerToHyperService::new(issuer.router());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            let connection =
                http1::Builder::new().serve_connection(TokioIo::new(stream), service.clone());
            tokio::spawn(connection);
        }
    });
    (issuer, certificate)
}

fn client(trusted: Option<CertificateDer<'static>>) -> Outbound {
    let mut roots = RootCertStore::empty();
    if let Some(certificate) = trusted {
        roots.add(certificate).unwrap();
    }
    Outbound::new(roots, Duration::from_secs(60)).unwrap()
}

#[tokio::test]
async fn keys_are_fetched_over_tls_only_with_a_trusted_certificate() {
    let key = Signer::p256("a");
    let (issuer, certificate) = tls_issuer(&[&key]).await;
    let token = key.token(&claims(&issuer.url));
    let prove = async |trusted: Option<CertificateDer<'static>>| {
        let list = issuer_list(&[issuer_config(&issuer.url)]);
        let issuers = Issuers::new(list, TOKEN_SECONDS_MAX, client(trusted));
        issuers.prove(&token, noon(0)).await
    };
    assert!(prove(Some(certificate)).await.is_ok());
    assert_eq!(prove(None).await, Err(PersonError::KeysUnavailable));
}

#[tokio::test]
async fn a_refused_connection_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let response = client(None).get_json::<Value>(&WebUrl::parse(&url).unwrap(), 1_024).await;
    assert!(matches!(response, Err(OutboundError::Unreachable(_))), "{response:?}");
}
