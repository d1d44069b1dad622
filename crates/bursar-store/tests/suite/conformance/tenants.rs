//! Tenants, and the time of the store.

use bursar_core::{OnboardingState, TenantId, TenantLifecycle, TenantRefusal};
use bursar_store::{ControlRefusal, Page, TenantRow};

use crate::conformance::subject::{Subject, unlimited};
use crate::support::accounts::account_snapshot;
use crate::support::usage;

pub(crate) async fn a_tenant_is_read_back(subject: Subject) {
    let now = subject.world.clock.now();
    let tenant_id = subject.tenant().await;
    let subject = subject.reopened().await;
    let stored = subject.world.store.tenant(tenant_id).await.unwrap();
    let expected = TenantRow {
        tenant_id,
        name: "tenant".to_owned(),
        lifecycle: TenantLifecycle::Active,
        onboarding: OnboardingState::Created,
        created_at: now,
        updated_at: now,
    };
    assert_eq!(stored, Some(expected));
    let unknown = TenantId::from_number(tenant_id.number() + 1_000).unwrap();
    assert_eq!(subject.world.store.tenant(unknown).await.unwrap(), None);
}

pub(crate) async fn tenants_are_listed_oldest_first_page_by_page(subject: Subject) {
    let mut made = Vec::new();
    for name in ["a", "b", "c", "d", "e"] {
        made.push(subject.world.tenant(name).await);
    }
    let mut found = Vec::new();
    for offset in [0, 2, 4, 6] {
        let page = subject.world.store.tenants(Page { offset, limit: 2 }).await.unwrap();
        assert_eq!(page.total, 5);
        found.extend(page.rows.into_iter().map(|row| row.tenant_id));
    }
    assert_eq!(found, made);
}

pub(crate) async fn the_clock_of_the_store_never_runs_backwards(subject: Subject) {
    let (tenant_id, integration_id) = subject.account(unlimited()).await;
    let now = subject.world.clock.now();
    subject.record(tenant_id, usage(integration_id, "first")).await;
    subject.world.clock.set(crate::conformance::subject::earlier(now, 3_600));
    assert!(subject.world.store.now() >= now);

    subject.record(tenant_id, usage(integration_id, "second")).await;
    assert!(subject.entries(tenant_id).await.iter().all(|row| row.created_at >= now));
    // An account stores the instant of its last decision.
    let subject = subject.reopened().await;
    let snapshot = account_snapshot(&subject.world.store, tenant_id, integration_id).await;
    assert!(snapshot.unwrap().now >= now, "after a restart");
}

pub(crate) async fn changes_of_a_tenant_are_stored_and_audited(subject: Subject) {
    let tenant_id = subject.tenant().await;
    let before = subject.audit().len();
    subject.change(tenant_id, |control| control.rename_tenant("other")).await;
    // The same name again changes nothing, and is not audited.
    subject.change(tenant_id, |control| control.rename_tenant("other")).await;
    for _ in 0..2 {
        let step = OnboardingState::SdkConnected;
        subject.change(tenant_id, move |control| control.advance_onboarding(step)).await;
    }
    let step = OnboardingState::IdentityVerified;
    subject.change(tenant_id, move |control| control.advance_onboarding(step)).await;
    subject.change(tenant_id, |control| control.finalize_onboarding()).await;
    for to in [TenantLifecycle::Suspended, TenantLifecycle::Terminated] {
        subject.change(tenant_id, move |control| control.set_tenant_lifecycle(to)).await;
    }
    for refused in [
        subject.world.control(tenant_id, |control| control.rename_tenant("late")).await,
        subject.world.control(tenant_id, |control| control.finalize_onboarding()).await,
    ] {
        assert_eq!(refused.unwrap(), Err(ControlRefusal::TenantTerminated));
    }
    let back = subject
        .world
        .control(tenant_id, |control| control.set_tenant_lifecycle(TenantLifecycle::Active))
        .await;
    let (from, to) = (TenantLifecycle::Terminated, TenantLifecycle::Active);
    assert_eq!(back.unwrap(), Err(ControlRefusal::Tenant(TenantRefusal::Lifecycle { from, to })));

    let subject = subject.reopened().await;
    let stored = subject.world.store.tenant(tenant_id).await.unwrap().unwrap();
    assert_eq!(stored.name, "other");
    assert_eq!(stored.lifecycle, TenantLifecycle::Terminated);
    assert_eq!(stored.onboarding, OnboardingState::Complete);
    let actions: Vec<String> =
        subject.audit()[before..].iter().map(|[action, ..]| action.clone()).collect();
    assert_eq!(
        actions,
        [
            "tenant.update",
            "tenant.onboarding",
            "tenant.onboarding",
            "tenant.suspend",
            "tenant.terminate"
        ]
    );
}
