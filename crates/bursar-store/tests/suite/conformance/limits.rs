//! Limits and states: a change applies to the next command.

use bursar_core::{
    Estimate, FailureCause, Health, IntegrationId, IntegrationStatus, LimitSettings, ReasonCode,
    ReserveOutcome, ReserveRefusal, ReserveRequest, TenantId, TenantLifecycle, Verdict,
};
use bursar_store::{ControlTx, IntegrationEdit, IntegrationRow};

use crate::conformance::subject::{Subject, totals, unlimited};
use crate::support::{budget, cents, request, usage};

type Account = (TenantId, IntegrationId);

async fn limit_budget(subject: &Subject, (tenant_id, integration_id): Account, cents: i64) {
    let edit = IntegrationEdit { budget_limit_cents: Some(cents), ..IntegrationEdit::default() };
    subject
        .change(tenant_id, move |control| control.update_integration(integration_id, edit.clone()))
        .await;
}

async fn edit_row(
    subject: &Subject,
    (tenant_id, integration_id): Account,
    edit: impl Fn(&mut IntegrationRow) + Send + 'static,
) {
    let write = move |tx: &mut dyn ControlTx| {
        let mut row = tx.integration(tenant_id, integration_id)?.unwrap();
        edit(&mut row);
        tx.put_integration(&row)
    };
    subject.world.ledger.change(tenant_id, write).await.unwrap();
}

/// Reserves 10 cents, and returns the reason of a refusal.
async fn refusal(subject: &Subject, account: Account, call: &str) -> Option<ReasonCode> {
    let outcome = subject.reserve(account.0, request(account.1, call)).await;
    let snapshot = subject.account_snapshot(account.0, account.1).await;
    let readers_see = bursar_core::decide(
        &snapshot.account,
        &bursar_core::LimitsInForce::default(),
        Estimate::default(),
        snapshot.now,
    );
    match outcome {
        ReserveOutcome::Held(_) => None,
        ReserveOutcome::Refused(decision) => {
            // A hard block does not depend on the estimate, so a check must say it as well.
            let code = decision.reasons[0].code;
            if decision.verdict == Verdict::HardBlocked {
                assert_eq!(readers_see.unwrap().reasons[0].code, code, "as a check sees it");
            }
            Some(code)
        }
        ReserveOutcome::Replayed(_) | ReserveOutcome::Rejected(_) => unreachable!("{outcome:?}"),
    }
}

pub(crate) async fn a_changed_limit_is_used_by_the_next_command(subject: Subject) {
    let account = subject.account(unlimited()).await;
    assert_eq!(refusal(&subject, account, "a").await, None);
    limit_budget(&subject, account, 15).await;
    assert_eq!(refusal(&subject, account, "b").await, Some(ReasonCode::BudgetExceeded));
    limit_budget(&subject, account, 20).await;
    assert_eq!(refusal(&subject, account, "b").await, None);
    // A limit below the held amount takes nothing back, and admits nothing more.
    limit_budget(&subject, account, 5).await;
    assert_eq!(refusal(&subject, account, "c").await, Some(ReasonCode::BudgetExceeded));
    let subject = subject.reopened().await;
    assert_eq!(refusal(&subject, account, "c").await, Some(ReasonCode::BudgetExceeded));
    limit_budget(&subject, account, 0).await;
    assert_eq!(refusal(&subject, account, "c").await, None);
    subject.world.verify().await;
}

pub(crate) async fn a_changed_limit_keeps_used_and_held_sums(subject: Subject) {
    let account = subject.account(budget(30)).await;
    assert_eq!(refusal(&subject, account, "held").await, None);
    subject.record(account.0, usage(account.1, "used")).await;
    limit_budget(&subject, account, 20).await;
    let snapshot = subject.account_snapshot(account.0, account.1).await;
    let counter = snapshot.account.counter(snapshot.now.month()).unwrap();
    assert_eq!(counter.used, totals(cents(1), 30, 1));
    assert_eq!(counter.held, totals(cents(10), 100, 1));
    assert_eq!(snapshot.account.rate.current(snapshot.now.second()), 2);
    assert_eq!(refusal(&subject, account, "third").await, Some(ReasonCode::BudgetExceeded));
    subject.release(account.0, "held").await;
    assert_eq!(refusal(&subject, account, "third").await, None);
    subject.world.verify().await;
}

pub(crate) async fn a_changed_status_is_used_by_the_next_command(subject: Subject) {
    let account = subject.account(unlimited()).await;
    let (tenant_id, integration_id) = account;
    assert_eq!(refusal(&subject, account, "a").await, None);
    subject.change(tenant_id, move |control| control.disable_integration(integration_id)).await;
    let disabled = Some(ReasonCode::IntegrationDisabled);
    assert_eq!(refusal(&subject, account, "b").await, disabled);
    subject.change(tenant_id, move |control| control.enable_integration(integration_id)).await;
    assert_eq!(refusal(&subject, account, "b").await, None);
    for (status, code) in [
        (IntegrationStatus::Created, ReasonCode::IntegrationNotEnabled),
        (IntegrationStatus::Error, ReasonCode::IntegrationError),
    ] {
        edit_row(&subject, account, move |row| row.rules.status = status).await;
        assert_eq!(refusal(&subject, account, "c").await, Some(code));
    }
    subject.change(tenant_id, move |control| control.delete_integration(integration_id)).await;
    let not_found = Some(ReasonCode::IntegrationNotFound);
    assert_eq!(refusal(&subject, account, "c").await, not_found);
    let subject = subject.reopened().await;
    assert_eq!(refusal(&subject, account, "c").await, not_found);
    subject.world.verify().await;
}

pub(crate) async fn a_changed_health_is_used_by_the_next_command(subject: Subject) {
    let account = subject.account(unlimited()).await;
    assert_eq!(refusal(&subject, account, "a").await, None);
    let credential = Health::Failing(FailureCause::Credential);
    edit_row(&subject, account, move |row| row.rules.health = credential).await;
    let invalid = Some(ReasonCode::CredentialsInvalid);
    assert_eq!(refusal(&subject, account, "b").await, invalid);
    let provider = Health::Failing(FailureCause::Provider);
    edit_row(&subject, account, move |row| row.rules.health = provider).await;
    let outcome = subject.reserve(account.0, request(account.1, "b")).await;
    let ReserveOutcome::Held(reservation) = outcome else { unreachable!("{outcome:?}") };
    assert_eq!(reservation.decision.reasons[0].code, ReasonCode::ProviderUnreachable);
}

pub(crate) async fn a_changed_tenant_is_used_by_the_next_command(subject: Subject) {
    let account = subject.account(unlimited()).await;
    let second = subject.world.integration(account.0, "second", unlimited()).await;
    let neighbour = subject.world.tenant("neighbour").await;
    let neighbour = (neighbour, subject.world.integration(neighbour, "a", unlimited()).await);
    let tenant_id = account.0;
    let lead = async |lifecycle| {
        let write = move |tx: &mut dyn ControlTx| {
            let mut tenant = tx.tenant(tenant_id)?.unwrap();
            tenant.lifecycle = lifecycle;
            tx.put_tenant(&tenant)
        };
        subject.world.ledger.change(tenant_id, write).await.unwrap();
    };
    let both = [account, (tenant_id, second)];
    for account in both {
        assert_eq!(refusal(&subject, account, &format!("before {}", account.1)).await, None);
    }
    let calls = ["suspended", "terminated", "archived"];
    let states =
        [TenantLifecycle::Suspended, TenantLifecycle::Terminated, TenantLifecycle::Archived];
    for (call, lifecycle) in calls.into_iter().zip(states) {
        lead(lifecycle).await;
        for account in both {
            let code = refusal(&subject, account, call).await;
            assert_eq!(code, Some(ReasonCode::TenantSuspended), "{call}");
        }
        assert_eq!(refusal(&subject, neighbour, call).await, None);
    }
    lead(TenantLifecycle::Active).await;
    for account in both {
        assert_eq!(refusal(&subject, account, &format!("after {}", account.1)).await, None);
    }
    subject.world.verify().await;
}

pub(crate) async fn a_token_limit_is_enforced(subject: Subject) {
    let limits = LimitSettings { token_limit_month: 230, ..unlimited() };
    let account = subject.account(limits).await;
    assert_eq!(refusal(&subject, account, "a").await, None);
    subject.record(account.0, usage(account.1, "recorded")).await;
    let subject = subject.reopened().await;
    assert_eq!(refusal(&subject, account, "b").await, None);
    assert_eq!(refusal(&subject, account, "c").await, Some(ReasonCode::TokenLimitExceeded));
    subject.world.verify().await;
}

pub(crate) async fn a_limit_requires_an_estimate(subject: Subject) {
    let limits = LimitSettings { token_limit_month: 100, ..budget(100) };
    let account = subject.account(limits).await;
    let requested = |cost, tokens| ReserveRequest {
        estimate: Estimate { cost, tokens },
        ..request(account.1, "call")
    };
    let no_cost = subject.reserve(account.0, requested(cents(0), 10)).await;
    assert_eq!(no_cost, ReserveOutcome::Rejected(ReserveRefusal::CostEstimateRequired));
    let no_tokens = subject.reserve(account.0, requested(cents(10), 0)).await;
    assert_eq!(no_tokens, ReserveOutcome::Rejected(ReserveRefusal::TokenEstimateRequired));
    let both = subject.reserve(account.0, requested(cents(10), 10)).await;
    assert!(matches!(both, ReserveOutcome::Held(_)), "{both:?}");
    subject.world.verify().await;
}
