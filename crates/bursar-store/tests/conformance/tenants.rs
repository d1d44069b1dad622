//! Tenants, and the clock that everything is measured by.

use bursar_core::{OnboardingState, TenantId, TenantLifecycle};
use bursar_store::{Page, TenantRow};

use crate::subject::{Subject, unlimited};
use crate::support::usage;

pub(crate) async fn a_tenant_leads_back(subject: Subject) {
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

pub(crate) async fn tenants_come_oldest_first_page_by_page(subject: Subject) {
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
    subject.world.clock.set(crate::subject::earlier(now, 3_600));
    assert!(subject.world.store.now() >= now);

    subject.record(tenant_id, usage(integration_id, "second")).await;
    assert!(subject.entries(tenant_id).await.iter().all(|row| row.created_at >= now));
    // Whatever a database remembers of its clock, an account remembers when it was decided at.
    let subject = subject.reopened().await;
    let standing = subject.world.store.standing(tenant_id, integration_id).await.unwrap();
    assert!(standing.unwrap().now >= now, "after a restart");
}
