//! Records with independent random fields, and their sums.

use bursar_core::{
    CostSource, IntegrationId, PolicyResult, TenantId, Timestamp, TokenBuckets, Usage,
};
use bursar_store::{LATENCY_BOUNDS_MS, LATENCY_BUCKETS, Sums, UsageRow};
use bursar_testing::chance::Chance;

use crate::conformance::subject::{Subject, earlier, unlimited};
use crate::support::{cents, usage};

pub(crate) const PROVIDERS: [&str; 2] = ["anthropic", "openai"];
pub(crate) const MODELS: [&str; 3] = ["claude", "gpt", "llama"];
pub(crate) const AGENTS: [&str; 3] = ["agent 1", "agent 2", "agent 3"];
pub(crate) const SESSIONS: [&str; 3] = ["session 1", "session 2", "session 3"];
pub(crate) const POLICIES: [PolicyResult; 3] =
    [PolicyResult::Allowed, PolicyResult::Warned, PolicyResult::Blocked];

/// Calls of three integrations over five days, many at one instant; the last integration is deleted
/// afterwards.
pub(crate) async fn mixed(subject: &Subject, calls: usize) -> (TenantId, [IntegrationId; 3]) {
    let (tenant_id, first) = subject.account(unlimited()).await;
    let second = subject.world.integration(tenant_id, "second", unlimited()).await;
    let third = subject.world.integration(tenant_id, "third", unlimited()).await;
    let integrations = [first, second, third];
    let now = subject.world.clock.now();
    let mut chance = Chance::new(2);
    let batch: Vec<Usage> =
        (0..calls).map(|number| mixed_call(&mut chance, now, integrations, number)).collect();
    // Several groups add to rollups that exist.
    for group in batch.chunks(41) {
        subject.world.ledger.record(tenant_id, group.to_vec()).await.unwrap();
    }
    subject.change(tenant_id, move |control| control.delete_integration(third)).await;
    (tenant_id, integrations)
}

fn mixed_call(
    chance: &mut Chance,
    now: Timestamp,
    integrations: [IntegrationId; 3],
    number: usize,
) -> Usage {
    let hours = chance.between(0, 5 * 24 - 1);
    let (tokens_in, tokens_out) = (chance.between(0, 1_000), chance.between(0, 1_000));
    let latency_ms = chance.one_of(&LATENCY_BOUNDS_MS) + chance.between(0, 1);
    Usage {
        provider: chance.one_of(&PROVIDERS).into(),
        model: chance.one_of(&MODELS).into(),
        session_id: chance.percent(60).then(|| chance.one_of(&SESSIONS).into()),
        agent_id: chance.percent(60).then(|| chance.one_of(&AGENTS).into()),
        tokens: TokenBuckets::new(tokens_in, tokens_out, 0, 0, 0).unwrap(),
        cost: chance.percent(80).then(|| cents(chance.between(0, 40))),
        latency_ms: chance.percent(70).then_some(latency_ms),
        policy_result: chance.one_of(&POLICIES),
        error_code: chance.percent(40).then(|| "failed".into()),
        // Some hours have no call.
        occurred_at: Some(earlier(now, hours * 3_600)),
        ..usage(chance.one_of(&integrations), &format!("call {number}"))
    }
}

/// The sums of entries from the history.
pub(crate) fn sums<'a>(rows: impl IntoIterator<Item = &'a UsageRow>) -> Sums {
    let mut sums = Sums::default();
    for row in rows {
        let (failed, blocked) =
            (row.error_code.is_some(), row.policy_result == PolicyResult::Blocked);
        let mut latency_buckets = [0; LATENCY_BUCKETS];
        if let Some(latency_ms) = row.latency_ms {
            let within = LATENCY_BOUNDS_MS.iter().position(|bound| latency_ms <= *bound);
            latency_buckets[within.unwrap_or(LATENCY_BUCKETS - 1)] = 1;
        }
        let more = Sums {
            calls: 1,
            succeeded: i64::from(!failed && !blocked),
            errors: i64::from(failed),
            blocked: i64::from(blocked),
            unpriced: i64::from(row.cost_source == CostSource::Unknown),
            tokens_in: row.tokens.tokens_in().into(),
            tokens_out: row.tokens.tokens_out().into(),
            cost_nanos: row.cost.get().into(),
            latency_calls: i64::from(row.latency_ms.is_some()),
            latency_sum_ms: row.latency_ms.unwrap_or(0).into(),
            latency_buckets,
        };
        sums.merge(&more).unwrap();
    }
    sums
}
