//! The HTTP service of one connection.
//!
//! It adds the client's address to each request, reports the request to the connection's deadlines,
//! and decides whether the connection persists after the response.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::service::TowerToHyperService;

use super::answer_body::{AnswerBody, InFlight};
use super::limits::Limits;
use super::progress::Progress;
use super::request_body::Persistence;
use crate::http::client_address::ClientAddress;
use crate::http::request_extensions::{ListenerKind, OverTls, OverflowConnection};

/// The HTTP service of one connection.
pub(crate) struct ConnectionService {
    pub(crate) routes: TowerToHyperService<Router>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) peer: IpAddr,
    pub(crate) listener: ListenerKind,
    pub(crate) over_tls: Option<OverTls>,
    pub(crate) overflow: Option<OverflowConnection>,
}

impl Service<Request<Incoming>> for ConnectionService {
    type Response = Response<AnswerBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let in_flight = InFlight::new(Arc::clone(&self.progress));
        let (limits, progress) = (Arc::clone(&self.limits), Arc::clone(&self.progress));
        let is_last = self.overflow.is_some();
        let (mut request, persistence) = Persistence::track(request, limits, progress, is_last);
        let trusted = &self.limits.trusted_proxies;
        let client = ClientAddress::of(self.peer, request.headers(), trusted);
        let extensions = request.extensions_mut();
        extensions.insert(client);
        extensions.insert(self.listener);
        if let Some(over_tls) = self.over_tls {
            extensions.insert(over_tls);
        }
        if let Some(overflow) = self.overflow {
            extensions.insert(overflow);
        }
        let answer = self.routes.call(request);
        Box::pin(async move {
            let mut response = answer.await?;
            persistence.decide(&mut response).await;
            Ok(response.map(|body| in_flight.answer(body)))
        })
    }
}
