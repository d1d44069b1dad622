//! Who asks, and what they ask.

use std::pin::Pin;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request as HttpRequest, header};
use axum::response::Response;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{Answer, conformance};

/// Someone who calls, with the headers that prove it.
#[derive(Clone)]
pub(crate) struct Persona {
    router: Router,
    headers: HeaderMap,
}

impl Persona {
    pub(crate) fn new(router: Router) -> Self {
        Self { router, headers: HeaderMap::new() }
    }

    /// The same one with one more header.
    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        let value = HeaderValue::try_from(value).unwrap();
        self.headers.append(HeaderName::from_static(name), value);
        self
    }

    /// The value of one of its headers.
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

    /// Posts a body of a length that is announced, which arrives as it arrives.
    pub(crate) async fn stream(self, path: &str, length: usize, body: Body) -> Response {
        let mut request = HttpRequest::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = format!("/api/v1{path}").parse().unwrap();
        *request.headers_mut() = self.headers;
        request.headers_mut().insert(header::CONTENT_LENGTH, length.into());
        self.router.oneshot(request).await.unwrap()
    }

    /// A request to a path outside of the API.
    pub(crate) fn root(&self, path: &str) -> Request {
        Request { uri: path.to_owned(), ..self.request(Method::GET, path) }
    }

    /// The same with a body, which is posted.
    pub(crate) fn root_post(&self, path: &str, body: &Value) -> Request {
        self.root(path).method(Method::POST).json(body)
    }

    /// A request to a path of the API.
    pub(crate) fn request(&self, method: Method, path: &str) -> Request {
        let uri = format!("/api/v1{path}");
        Request { persona: self.clone(), method, uri, body: Vec::new() }
    }
}

/// A request; awaiting it sends it.
pub(crate) struct Request {
    persona: Persona,
    method: Method,
    uri: String,
    body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.persona = self.persona.with(name, value);
        self
    }

    pub(crate) fn json(self, body: &Value) -> Self {
        self.body(body.to_string())
    }

    /// A body as it is, sent as JSON.
    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        let headers = &mut self.persona.headers;
        let json = HeaderValue::from_static("application/json");
        headers.entry(header::CONTENT_TYPE).or_insert(json);
        self
    }

    /// The same request with another method.
    pub(crate) fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    /// The answer as it begins; its body is there for whoever reads it.
    pub(crate) async fn unread(self) -> Response {
        let Self { persona: Persona { router, headers }, method, uri, body } = self;
        let mut request = HttpRequest::new(Body::from(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri.parse().unwrap();
        *request.headers_mut() = headers;
        router.oneshot(request).await.unwrap()
    }

    async fn send(self) -> Answer {
        let (method, uri, body) = (self.method.clone(), self.uri.clone(), self.body.clone());
        let (parts, answer) = self.unread().await.into_parts();
        let bytes = answer.collect().await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        conformance::check_answer((&method, &uri), parts.status, &parts.headers, &text);
        // What is compressed or not even text is none of the document's affair.
        if parts.status.is_success()
            && let Ok(sent) = std::str::from_utf8(&body)
        {
            conformance::check_request(method.as_str(), &uri, sent);
        }
        Answer::new(parts.status, parts.headers, text)
    }
}

impl IntoFuture for Request {
    type Output = Answer;
    type IntoFuture = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

/// A tenant and those who act for it.
pub(crate) struct Tenant {
    pub(crate) id: String,
    nobody: Persona,
    founder: Persona,
}

impl Tenant {
    pub(crate) fn new(id: &str, nobody: Persona, founder: Persona) -> Self {
        let founder = founder.with("x-tenant-id", id);
        Self { id: id.to_owned(), nobody, founder }
    }

    /// The operator, naming this tenant.
    pub(crate) fn founder(&self) -> Persona {
        self.founder.clone()
    }

    /// The answer to the creation of an API key.
    pub(crate) async fn new_key(&self, scopes: &[&str]) -> Answer {
        self.founder.post("/keys").json(&json!({ "name": "key", "scopes": scopes })).await
    }

    /// A machine with a new API key.
    pub(crate) async fn key(&self, scopes: &[&str]) -> Persona {
        let made = self.new_key(scopes).await;
        self.holder_of(made.is(201).text("/data/secret"))
    }

    /// A machine with this API key.
    pub(crate) fn holder_of(&self, api_key: &str) -> Persona {
        self.nobody.clone().with("authorization", &format!("Bearer {api_key}"))
    }

    /// A machine with a new key of an integration.
    pub(crate) async fn integration_key(&self, integration_id: &str) -> Persona {
        let made = self.founder.post(&format!("/integrations/{integration_id}/keys")).await;
        let secret = made.is(201).text("/data/secret");
        self.nobody.clone().with("x-cus-integration-key", secret)
    }

    /// The id of a new integration that is enabled, with these fields beside its name.
    pub(crate) async fn integration(&self, name: &str, fields: Value) -> String {
        let base = json!({ "name": name, "provider_type": "openai" });
        let made = self.founder.post("/integrations").json(&super::with(base, fields)).await;
        let id = made.is(201).text("/data/id").to_owned();
        self.founder.post(&format!("/integrations/{id}/enable")).await.is(200);
        id
    }
}
