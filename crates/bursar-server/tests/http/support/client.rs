//! Clients and their requests.

use std::pin::Pin;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request as HttpRequest, header};
use axum::response::Response;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{ApiResponse, conformance};

/// A client with the headers that it sends, among them its credential.
#[derive(Clone)]
pub(crate) struct Client {
    router: Router,
    headers: HeaderMap,
}

impl Client {
    pub(crate) fn new(router: Router) -> Self {
        Self { router, headers: HeaderMap::new() }
    }

    /// The client with one more header.
    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        let value = HeaderValue::try_from(value).unwrap();
        self.headers.append(HeaderName::from_static(name), value);
        self
    }

    /// The value of a header that the client sends.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    pub(crate) fn get(&self, path: &str) -> Request {
        self.request(Method::GET, path)
    }

    pub(crate) fn post(&self, path: &str) -> Request {
        self.request(Method::POST, path)
    }

    pub(crate) fn put(&self, path: &str) -> Request {
        self.request(Method::PUT, path)
    }

    pub(crate) fn patch(&self, path: &str) -> Request {
        self.request(Method::PATCH, path)
    }

    pub(crate) fn delete(&self, path: &str) -> Request {
        self.request(Method::DELETE, path)
    }

    /// Posts a streamed body with this `Content-Length`.
    pub(crate) async fn stream(self, path: &str, length: usize, body: Body) -> Response {
        let mut request = HttpRequest::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = format!("/api/v1{path}").parse().unwrap();
        *request.headers_mut() = self.headers;
        request.headers_mut().insert(header::CONTENT_LENGTH, length.into());
        self.router.oneshot(request).await.unwrap()
    }

    /// A GET request to a path outside of `/api/v1`.
    pub(crate) fn root(&self, path: &str) -> Request {
        Request { uri: path.to_owned(), ..self.request(Method::GET, path) }
    }

    /// A POST request to a path outside of `/api/v1`.
    pub(crate) fn root_post(&self, path: &str, body: &Value) -> Request {
        self.root(path).method(Method::POST).json(body)
    }

    /// A request to a path below `/api/v1`.
    pub(crate) fn request(&self, method: Method, path: &str) -> Request {
        let uri = format!("/api/v1{path}");
        Request { client: self.clone(), method, uri, body: Vec::new() }
    }
}

/// A request; awaiting it sends it.
pub(crate) struct Request {
    client: Client,
    method: Method,
    uri: String,
    body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.client = self.client.with(name, value);
        self
    }

    pub(crate) fn json(self, body: &Value) -> Self {
        self.body(body.to_string())
    }

    /// Sets the body, whose content type is JSON if no header says otherwise.
    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        let headers = &mut self.client.headers;
        let json = HeaderValue::from_static("application/json");
        headers.entry(header::CONTENT_TYPE).or_insert(json);
        self
    }

    pub(crate) fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    /// Sends the request and returns the response without reading its body.
    pub(crate) async fn response(self) -> Response {
        let Self { client: Client { router, headers }, method, uri, body } = self;
        let mut request = HttpRequest::new(Body::from(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri.parse().unwrap();
        *request.headers_mut() = headers;
        router.oneshot(request).await.unwrap()
    }

    async fn send(self) -> ApiResponse {
        let (method, uri, body) = (self.method.clone(), self.uri.clone(), self.body.clone());
        let (parts, body_of_response) = self.response().await.into_parts();
        let bytes = body_of_response.collect().await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        conformance::check_response((&method, &uri), parts.status, &parts.headers, &text);
        // A compressed body is no text and has no schema.
        if parts.status.is_success()
            && let Ok(sent) = std::str::from_utf8(&body)
        {
            conformance::check_request(method.as_str(), &uri, sent);
        }
        ApiResponse::new(parts.status, parts.headers, text)
    }
}

impl IntoFuture for Request {
    type Output = ApiResponse;
    type IntoFuture = Pin<Box<dyn Future<Output = ApiResponse> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

/// A tenant and its clients.
pub(crate) struct Tenant {
    pub(crate) id: String,
    anonymous: Client,
    founder: Client,
}

impl Tenant {
    pub(crate) fn new(id: &str, anonymous: Client, founder: Client) -> Self {
        let founder = founder.with("x-tenant-id", id);
        Self { id: id.to_owned(), anonymous, founder }
    }

    /// The operator, who names this tenant.
    pub(crate) fn founder(&self) -> Client {
        self.founder.clone()
    }

    /// The response to the creation of an API key.
    pub(crate) async fn new_key(&self, scopes: &[&str]) -> ApiResponse {
        self.founder.post("/keys").json(&json!({ "name": "key", "scopes": scopes })).await
    }

    /// A client with a new API key.
    pub(crate) async fn key(&self, scopes: &[&str]) -> Client {
        let made = self.new_key(scopes).await;
        self.with_key(made.is(201).text("/data/secret"))
    }

    /// A client with this API key.
    pub(crate) fn with_key(&self, api_key: &str) -> Client {
        self.anonymous.clone().with("authorization", &format!("Bearer {api_key}"))
    }

    /// A client with a new key of this integration.
    pub(crate) async fn integration_key(&self, integration_id: &str) -> Client {
        let made = self.founder.post(&format!("/integrations/{integration_id}/keys")).await;
        let secret = made.is(201).text("/data/secret");
        self.anonymous.clone().with("x-cus-integration-key", secret)
    }

    /// The id of a new enabled integration with these fields.
    pub(crate) async fn integration(&self, name: &str, fields: Value) -> String {
        let base = json!({ "name": name, "provider_type": "openai" });
        let made = self.founder.post("/integrations").json(&super::with(base, fields)).await;
        let id = made.is(201).text("/data/id").to_owned();
        self.founder.post(&format!("/integrations/{id}/enable")).await.is(200);
        id
    }
}
