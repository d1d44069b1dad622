//! A tenant with integrations, created over HTTP by the operator.

use serde_json::{Value, json};

use super::folder::Folder;
use super::http::{Answer, Http};
use super::server::Server;

/// A tenant and an API key with all scopes, valid on every server on the same folder.
#[derive(Clone, Debug)]
pub struct Tenant {
    pub id: String,
    /// The value of the `Authorization` header.
    pub bearer: String,
    pub integrations: Vec<String>,
}

impl Tenant {
    /// A tenant without integrations.
    pub fn new(folder: &Folder, server: &Server) -> Self {
        let operator = folder.operator_bearer();
        let id =
            created(server.operator(folder).post("/api/v1/tenants", &json!({"name": "a tenant"})));
        let named = [("Authorization", operator.as_str()), ("X-Tenant-ID", id.as_str())];
        let mut http = Http::new(server.address(), &named);
        let key = http.post("/api/v1/keys", &json!({"name": "all", "scopes": ["*"]}));
        let key = key.expect("an answer");
        assert_eq!(key.status, 201, "{key:?}");
        let secret = key.data("secret").as_str().expect("a secret");
        Self { id, bearer: format!("Bearer {secret}"), integrations: Vec::new() }
    }

    /// Adds an enabled integration with a budget; 0 means no limit.
    pub fn add_integration(&mut self, server: &Server, budget_limit_cents: u64) -> String {
        let mut http = self.client(server);
        let name = format!("integration {}", self.integrations.len());
        let create = json!({
            "name": name, "provider_type": "openai", "budget_limit_cents": budget_limit_cents
        });
        let id = created(http.post("/api/v1/integrations", &create));
        let enabled = http.post(&format!("/api/v1/integrations/{id}/enable"), &Value::Null);
        assert_eq!(enabled.expect("an answer").status, 200);
        self.integrations.push(id.clone());
        id
    }

    pub fn api_key(&self) -> &str {
        self.bearer.trim_start_matches("Bearer ")
    }

    /// A client of a server with this tenant's key.
    pub fn client(&self, server: &Server) -> Http {
        self.client_of(server.address())
    }

    /// A client of an address with this tenant's key.
    pub fn client_of(&self, address: &str) -> Http {
        Http::new(address, &[("Authorization", &self.bearer)])
    }
}

/// The id of a created object.
fn created<E: std::fmt::Debug>(answer: Result<Answer, E>) -> String {
    let answer = answer.expect("an answer");
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.data("id").as_str().expect("an id").to_owned()
}
