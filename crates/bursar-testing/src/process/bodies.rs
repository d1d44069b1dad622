//! Bodies of usage records and reservations.

use serde_json::{Value, json};

/// A usage record of 15 tokens.
pub fn record(integration_id: &str, call_id: &str, cost_cents: u32) -> Value {
    json!({
        "integration_id": integration_id, "call_id": call_id, "provider": "openai",
        "model": "gpt-4o", "tokens_in": 10, "tokens_out": 5, "cost_cents": cost_cents,
    })
}

/// A reservation of 15 tokens.
pub fn reservation(integration_id: &str, call_id: &str, cents: u32, ttl_seconds: u32) -> Value {
    json!({
        "integration_id": integration_id, "call_id": call_id, "estimated_cost_cents": cents,
        "estimated_tokens": 15, "ttl_seconds": ttl_seconds,
    })
}
