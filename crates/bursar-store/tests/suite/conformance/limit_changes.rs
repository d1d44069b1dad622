//! Changed limits: they are in force from the next command on, and lose nothing that was counted.

use bursar_core::{
    Allowance, Bound, IntegrationId, Label, Override, OwnedSubject, Quantity, ReasonCode,
    RecordOutcome, ReserveOutcome, ReserveRefusal, ReserveRequest, Scope, TenantId, Verdict,
};

use crate::conformance::subject::{Subject, unlimited};
use crate::support::limits::{
    LimitSums, change_limit, concurrent, cost, daily, delete_limit, each, limit, limit_sums, only,
    put_limits, refusal, tokens,
};
use crate::support::{cents, request, usage};

async fn sums(
    subject: &Subject,
    (tenant_id, integration_id): (TenantId, IntegrationId),
) -> Vec<LimitSums> {
    let of = OwnedSubject::new(integration_id);
    limit_sums(subject.world.store.as_ref(), tenant_id, &of).await
}

/// The code of the refusal of 10 cents; `None` if they are held.
async fn refused(
    subject: &Subject,
    tenant_id: TenantId,
    request: ReserveRequest,
) -> Option<ReasonCode> {
    let decision = refusal(&subject.world.ledger, tenant_id, request).await?;
    assert_eq!(decision.verdict, Verdict::Blocked);
    Some(decision.reasons[0].code)
}

const BUDGET: Option<ReasonCode> = Some(ReasonCode::BudgetExceeded);

fn amount(of_cents: i64) -> Bound {
    cost(daily(), of_cents)
}

pub(crate) async fn a_new_or_changed_limit_is_used_by_the_next_command(subject: Subject) {
    let (tenant_id, integration_id) = subject.account(unlimited()).await;
    let ledger = &subject.world.ledger;
    let ask = |call: &str| refused(&subject, tenant_id, request(integration_id, call));
    assert_eq!(ask("before").await, None);
    put_limits(ledger, vec![limit(tenant_id, 1, Scope::Tenant, amount(10))]).await;
    assert_eq!(ask("first").await, None);
    assert_eq!(ask("second").await, BUDGET);
    change_limit(ledger, tenant_id, 1, |row| row.limit.rule.bound = amount(20)).await;
    assert_eq!(ask("second").await, None);
    change_limit(ledger, tenant_id, 1, |row| row.limit.rule.bound = amount(10)).await;
    assert_eq!(ask("third").await, BUDGET);
    assert_eq!(sums(&subject, (tenant_id, integration_id)).await, [(1, 0, 20)]);
    change_limit(ledger, tenant_id, 1, |row| row.limit.enabled = false).await;
    assert_eq!(ask("third").await, None);
    change_limit(ledger, tenant_id, 1, |row| row.limit.enabled = true).await;
    assert_eq!(ask("fourth").await, BUDGET);
    assert_eq!(sums(&subject, (tenant_id, integration_id)).await, [(1, 0, 30)], "it counted on");
    put_limits(ledger, vec![limit(tenant_id, 2, Scope::Tenant, concurrent(1))]).await;
    change_limit(ledger, tenant_id, 1, |row| row.limit.rule.bound = amount(50)).await;
    assert_eq!(ask("fourth").await, None);
    assert_eq!(ask("fifth").await, Some(ReasonCode::ConcurrencyExceeded));
    delete_limit(ledger, tenant_id, 2).await;
    assert_eq!(ask("fifth").await, None);
    let subject = subject.reopened().await;
    assert_eq!(sums(&subject, (tenant_id, integration_id)).await, [(1, 0, 50)]);
    subject.world.verify().await;
}

pub(crate) async fn an_override_ends_at_its_instant(subject: Subject) {
    let (tenant_id, integration_id) = subject.account(unlimited()).await;
    let ledger = &subject.world.ledger;
    let ask = |call: &str| refused(&subject, tenant_id, request(integration_id, call));
    put_limits(ledger, vec![limit(tenant_id, 1, Scope::Tenant, amount(10))]).await;
    assert_eq!(ask("first").await, None);
    let until = subject.world.clock.now().plus_seconds(60);
    let overridden = Override { amount: Quantity::new(cents(20).get().into()), until };
    let raised =
        Allowance { overridden: Some(overridden), ..Allowance::new(cents(10).get().into()) };
    let bound = Bound::Cost(daily(), raised);
    change_limit(ledger, tenant_id, 1, move |row| row.limit.rule.bound = bound.clone()).await;
    assert_eq!(ask("second").await, None);
    assert_eq!(ask("third").await, BUDGET);
    subject.release(tenant_id, "second").await;
    subject.world.clock.advance(59);
    assert_eq!(ask("third").await, None);
    subject.release(tenant_id, "third").await;
    subject.world.clock.advance(1);
    assert_eq!(ask("fourth").await, BUDGET);
    assert_eq!(sums(&subject, (tenant_id, integration_id)).await, [(1, 0, 10)]);
}

pub(crate) async fn holds_outlive_a_deleted_limit_in_the_other_limits(subject: Subject) {
    let (tenant_id, integration_id) = subject.account(unlimited()).await;
    let ledger = &subject.world.ledger;
    let rows = [1, 2].map(|number| limit(tenant_id, number, Scope::Tenant, amount(100)));
    put_limits(ledger, rows.into()).await;
    for call in ["recorded", "released", "due"] {
        let held = refused(&subject, tenant_id, request(integration_id, call)).await;
        assert_eq!(held, None);
    }
    delete_limit(ledger, tenant_id, 1).await;
    assert_eq!(sums(&subject, (tenant_id, integration_id)).await, [(2, 0, 30)]);
    let recorded = subject.record(tenant_id, usage(integration_id, "recorded")).await;
    assert!(matches!(recorded, RecordOutcome::Accepted(_)), "{recorded:?}");
    subject.release(tenant_id, "released").await;
    assert_eq!(sums(&subject, (tenant_id, integration_id)).await, [(2, 1, 10)]);
    let subject = subject.reopened().await;
    assert_eq!(sums(&subject, (tenant_id, integration_id)).await, [(2, 1, 10)]);
    subject.world.clock.advance(600);
    subject.world.ledger.sweep().await.unwrap();
    assert_eq!(sums(&subject, (tenant_id, integration_id)).await, [(2, 1, 0)]);
    subject.world.verify().await;
}

pub(crate) async fn a_required_label_is_asked_of_reservations_only(subject: Subject) {
    let (tenant_id, integration_id) = subject.account(unlimited()).await;
    let mut row = limit(tenant_id, 1, each(Label::Agent), amount(100));
    row.limit.required = true;
    put_limits(&subject.world.ledger, vec![row]).await;
    let plain = request(integration_id, "plain");
    let refusal = refused(&subject, tenant_id, plain.clone()).await;
    assert_eq!(refusal, Some(ReasonCode::ScopeMissing));
    let agent_id = Some("agent".into());
    let labelled = ReserveRequest { agent_id, ..request(integration_id, "labelled") };
    assert_eq!(refused(&subject, tenant_id, labelled).await, None);
    let recorded = subject.record(tenant_id, usage(integration_id, "recorded")).await;
    assert!(matches!(recorded, RecordOutcome::Accepted(_)), "{recorded:?}");
    assert_eq!(sums(&subject, (tenant_id, integration_id)).await, []);
    let ledger = &subject.world.ledger;
    change_limit(ledger, tenant_id, 1, |row| row.limit.required = false).await;
    assert_eq!(refused(&subject, tenant_id, plain).await, None);
}

pub(crate) async fn a_limit_that_refuses_requires_an_estimate_of_its_measure(subject: Subject) {
    let (tenant_id, integration_id) = subject.account(unlimited()).await;
    let row = limit(tenant_id, 1, only(Label::Agent, "agent"), tokens(daily(), 100));
    put_limits(&subject.world.ledger, vec![row]).await;
    let estimate = bursar_core::Estimate { cost: cents(1), tokens: 0 };
    let ask = |agent: &str, call: &str| ReserveRequest {
        agent_id: Some(agent.into()),
        estimate,
        ..request(integration_id, call)
    };
    let outcome = subject.reserve(tenant_id, ask("agent", "call")).await;
    assert_eq!(outcome, ReserveOutcome::Rejected(ReserveRefusal::TokenEstimateRequired));
    assert_eq!(refused(&subject, tenant_id, ask("another", "other")).await, None);
}

pub(crate) async fn limits_of_one_tenant_do_not_count_for_another(subject: Subject) {
    let (tenant_id, integration_id) = subject.account(unlimited()).await;
    let stranger = subject.world.tenant("stranger").await;
    let foreign = subject.world.integration(stranger, "integration", unlimited()).await;
    for tenant_id in [tenant_id, stranger] {
        let row = limit(tenant_id, 1, Scope::Tenant, amount(10));
        put_limits(&subject.world.ledger, vec![row]).await;
    }
    assert_eq!(refused(&subject, tenant_id, request(integration_id, "call")).await, None);
    assert_eq!(refused(&subject, stranger, request(foreign, "call")).await, None);
    assert_eq!(refused(&subject, tenant_id, request(integration_id, "more")).await, BUDGET);
    delete_limit(&subject.world.ledger, tenant_id, 1).await;
    assert_eq!(refused(&subject, tenant_id, request(integration_id, "more")).await, None);
    assert_eq!(refused(&subject, stranger, request(foreign, "more")).await, BUDGET);
    assert_eq!(sums(&subject, (stranger, foreign)).await, [(1, 0, 10)]);
}
