//! Rates: the calls of the last 60 seconds, to the second, across restarts.

use bursar_core::{
    IntegrationId, LimitSettings, PolicyResult, ReasonCode, ReserveOutcome, TenantId, Usage,
};

use crate::conformance::subject::{Subject, earlier, unlimited};
use crate::support::{request, usage};

fn rpm(rate_limit_rpm: i64) -> LimitSettings {
    LimitSettings { rate_limit_rpm, ..LimitSettings::default() }
}

async fn current(subject: &Subject, (tenant_id, integration_id): (TenantId, IntegrationId)) -> i64 {
    let snapshot = subject.account_snapshot(tenant_id, integration_id).await;
    snapshot.account.rate.current(snapshot.now.second())
}

/// The seconds after which to retry; `None` if the call was admitted.
async fn retry_after(
    subject: &Subject,
    (tenant_id, integration_id): (TenantId, IntegrationId),
    call: &str,
) -> Option<u32> {
    match subject.reserve(tenant_id, request(integration_id, call)).await {
        ReserveOutcome::Refused(decision) => {
            assert_eq!(decision.reasons[0].code, ReasonCode::RateLimitExceeded);
            decision.reasons[0].retry_after_seconds
        }
        ReserveOutcome::Held(_) => None,
        other @ (ReserveOutcome::Replayed(_) | ReserveOutcome::Rejected(_)) => {
            unreachable!("{other:?}")
        }
    }
}

pub(crate) async fn calls_of_the_last_minute_are_throttled(subject: Subject) {
    let account = subject.account(rpm(2)).await;
    assert_eq!(retry_after(&subject, account, "a").await, None);
    subject.world.clock.advance(20);
    assert_eq!(retry_after(&subject, account, "b").await, None);
    subject.world.clock.advance(10);
    assert_eq!(retry_after(&subject, account, "c").await, Some(30));
    subject.world.clock.advance(29);
    assert_eq!(retry_after(&subject, account, "c").await, Some(1));
    subject.world.clock.advance(1);
    assert_eq!(retry_after(&subject, account, "c").await, None);
    subject.world.verify().await;
}

pub(crate) async fn rate_slots_survive_a_restart(subject: Subject) {
    let account = subject.account(rpm(3)).await;
    for call in ["a", "b", "c"] {
        assert_eq!(retry_after(&subject, account, call).await, None);
        subject.world.clock.advance(7);
    }
    let subject = subject.reopened().await;
    assert_eq!(current(&subject, account).await, 3);
    assert_eq!(retry_after(&subject, account, "d").await, Some(39));
    subject.world.clock.advance(39);
    let subject = subject.reopened().await;
    assert_eq!(current(&subject, account).await, 2);
    assert_eq!(retry_after(&subject, account, "d").await, None);
    subject.world.verify().await;
}

pub(crate) async fn only_recent_calls_that_were_not_blocked_count(subject: Subject) {
    let account = subject.account(unlimited()).await;
    let now = subject.world.clock.now();
    let at = |call: &str, occurred_at| Usage {
        occurred_at: Some(occurred_at),
        ..usage(account.1, call)
    };
    let blocked = Usage { policy_result: PolicyResult::Blocked, ..usage(account.1, "blocked") };
    let warned = Usage { policy_result: PolicyResult::Warned, ..usage(account.1, "warned") };
    let batch = vec![
        at("imported", earlier(now, 60)),
        at("fresh", earlier(now, 59)),
        at("ahead", now.plus_seconds(300)),
        blocked,
        warned,
    ];
    subject.world.ledger.record(account.0, batch).await.unwrap();
    assert_eq!(current(&subject, account).await, 3);
    subject.world.verify().await;
    subject.world.clock.advance(1);
    let subject = subject.reopened().await;
    assert_eq!(current(&subject, account).await, 2, "the one of 60 seconds ago is gone");
    subject.world.clock.advance(59);
    // The record from the future counted at its arrival.
    assert_eq!(current(&subject, account).await, 0);
    subject.world.verify().await;
}

pub(crate) async fn a_reserved_call_counts_once(subject: Subject) {
    let account = subject.account(unlimited()).await;
    for call in ["settled", "released", "late"] {
        assert_eq!(retry_after(&subject, account, call).await, None);
    }
    subject.record(account.0, usage(account.1, "settled")).await;
    subject.release(account.0, "released").await;
    subject.release(account.0, "late").await;
    subject.record(account.0, usage(account.1, "late")).await;
    assert_eq!(current(&subject, account).await, 3);
    subject.world.verify().await;
    assert_eq!(current(&subject.reopened().await, account).await, 3);
}
