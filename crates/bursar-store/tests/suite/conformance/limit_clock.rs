//! Limits after an operator set the clock back: calls go on, and every hold can still end.

use bursar_core::{
    CalendarUnit, IntegrationId, Label, RecordOutcome, ReleaseOutcome, ReserveRequest, Scope,
    TenantId, Usage, Window,
};

use crate::conformance::subject::{Subject, unlimited};
use crate::support::limits::{
    calendar, calls, concurrent, cost, daily, each, limit, limit_sums, put_limits, refusal,
    subject_of,
};
use crate::support::{day, request, usage};

fn by_agent(integration_id: IntegrationId, call: &str) -> ReserveRequest {
    ReserveRequest {
        agent_id: Some("agent".into()),
        ttl_seconds: 7_200,
        ..request(integration_id, call)
    }
}

async fn hold(subject: &Subject, (tenant_id, of): (TenantId, IntegrationId), call: &str) {
    let refused = refusal(&subject.world.ledger, tenant_id, by_agent(of, call)).await;
    assert_eq!(refused, None, "{call}");
}

/// Sets the clock back without time passing, and confirms it.
async fn set_back(subject: &Subject, seconds: i64) {
    subject.world.clock.jump(-seconds);
    subject.world.ledger.confirm_clock().await.unwrap();
}

/// Ends holds that were made before the clock was set back, in each way, and what is left.
async fn end_all(subject: &Subject, (tenant_id, integration_id): (TenantId, IntegrationId)) {
    let agent_id = Some("agent".into());
    let record = Usage { agent_id, ..usage(integration_id, "recorded") };
    let recorded = subject.world.ledger.record(tenant_id, vec![record]).await;
    assert!(matches!(recorded.as_deref(), Ok([RecordOutcome::Accepted(_)])), "{recorded:?}");
    let released = subject.release(tenant_id, "released").await;
    assert!(matches!(released, ReleaseOutcome::Released(_)), "{released:?}");
    subject.world.clock.advance(2 * 7_200);
    subject.world.ledger.sweep().await.unwrap();
    let open = "select call_key from reservations where state = 1";
    let rows = subject.world.database.rows(&[open, "select call_key from postings"]);
    assert_eq!(rows, [[] as [Vec<_>; 0], []], "all holds ended");
    let of = subject_of(&by_agent(integration_id, "any"));
    let sums = limit_sums(subject.world.store.as_ref(), tenant_id, &of).await;
    assert!(sums.iter().all(|(_, _, held)| *held == 0), "{sums:?}");
}

async fn limited(subject: &Subject) -> (TenantId, IntegrationId) {
    let (tenant_id, integration_id) = subject.account(unlimited()).await;
    let rules = [
        (Scope::Tenant, cost(daily(), 1_000)),
        (Scope::Tenant, calls(Window::Minute, 100)),
        (each(Label::Agent), calls(calendar(CalendarUnit::Hour, "UTC"), 100)),
        (each(Label::Agent), cost(Window::Minute, 1_000)),
        (Scope::EachIntegration, concurrent(100)),
    ];
    let rows = rules.into_iter().zip(1..);
    let rows = rows.map(|((scope, bound), number)| limit(tenant_id, number, scope, bound));
    put_limits(&subject.world.ledger, rows.collect()).await;
    (tenant_id, integration_id)
}

pub(crate) async fn holds_end_after_the_clock_was_set_back_to_the_day_before(subject: Subject) {
    let account = limited(&subject).await;
    subject.world.clock.set(day(2026, 3, 15).plus_seconds(600));
    for call in ["recorded", "released", "due"] {
        hold(&subject, account, call).await;
    }
    set_back(&subject, 1_200).await;
    hold(&subject, account, "of the day before").await;
    subject.world.clock.advance(1_200);
    hold(&subject, account, "of the day that began again").await;
    end_all(&subject, account).await;
}

pub(crate) async fn holds_end_after_the_clock_was_set_back_in_a_minute(subject: Subject) {
    let account = limited(&subject).await;
    for call in ["recorded", "released", "due"] {
        hold(&subject, account, call).await;
    }
    subject.world.clock.advance(70);
    hold(&subject, account, "later").await;
    set_back(&subject, 40).await;
    let agent_id = Some("agent".into());
    let late = Usage {
        agent_id,
        occurred_at: Some(subject.world.clock.now()),
        ..usage(account.1, "in that minute")
    };
    subject.record(account.0, late).await;
    end_all(&subject, account).await;
}
