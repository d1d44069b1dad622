//! Caps on open reservations and on the daily bytes of records.

use bursar_core::{
    Caps, IntegrationId, RecordOutcome, RecordRefusal, ReleaseOutcome, ReservationCap,
    ReserveOutcome, ReserveRefusal, TenantId, Usage,
};

use crate::conformance::subject::{Subject, unlimited};
use crate::support::{request, usage};

/// A tenant with two integrations, under these caps.
async fn capped(subject: Subject, caps: Caps) -> (Subject, TenantId, [IntegrationId; 2]) {
    let (tenant_id, one) = subject.account(unlimited()).await;
    let other = subject.world.integration(tenant_id, "other", unlimited()).await;
    (Subject { world: subject.world.capped(caps).await }, tenant_id, [one, other])
}

/// The cap that refuses a reservation; `None` if it is held or replayed.
async fn refused_by(
    subject: &Subject,
    tenant_id: TenantId,
    integration_id: IntegrationId,
    call: &str,
) -> Option<ReservationCap> {
    match subject.reserve(tenant_id, request(integration_id, call)).await {
        ReserveOutcome::Held(_) | ReserveOutcome::Replayed(_) => None,
        ReserveOutcome::Rejected(ReserveRefusal::TooManyOpen(bound)) => Some(bound),
        outcome @ (ReserveOutcome::Refused(_) | ReserveOutcome::Rejected(_)) => {
            unreachable!("{outcome:?}")
        }
    }
}

const FEW: Caps = Caps {
    reservations_per_integration: 2,
    reservations_per_tenant: 3,
    stored_bytes_per_day: 0,
    ..Caps::DEFAULT
};

pub(crate) async fn open_reservations_are_limited_by_integration_and_tenant(subject: Subject) {
    let (subject, tenant_id, [one, other]) = capped(subject, FEW).await;
    let stranger = subject.world.tenant("stranger").await;
    let foreign = subject.world.integration(stranger, "integration", unlimited()).await;
    assert_eq!(refused_by(&subject, tenant_id, one, "a").await, None);
    assert_eq!(refused_by(&subject, tenant_id, one, "b").await, None);
    assert_eq!(
        refused_by(&subject, tenant_id, one, "c").await,
        Some(ReservationCap::Integration(2))
    );
    assert_eq!(refused_by(&subject, tenant_id, other, "c").await, None);
    assert_eq!(refused_by(&subject, tenant_id, other, "d").await, Some(ReservationCap::Tenant(3)));
    assert_eq!(refused_by(&subject, tenant_id, one, "b").await, None, "a replay is answered");
    assert_eq!(refused_by(&subject, stranger, foreign, "a").await, None);
    // A refused call id is free again, and an ended reservation makes room, however it ends.
    assert_eq!(subject.release(tenant_id, "d").await, ReleaseOutcome::NotFound);
    subject.release(tenant_id, "a").await;
    assert_eq!(refused_by(&subject, tenant_id, other, "d").await, None);
    subject.record(tenant_id, usage(one, "b")).await;
    assert_eq!(refused_by(&subject, tenant_id, one, "e").await, None);
    assert_eq!(refused_by(&subject, tenant_id, one, "f").await, Some(ReservationCap::Tenant(3)));
    subject.world.verify().await;
    let subject = subject.reopened().await;
    assert_eq!(refused_by(&subject, tenant_id, one, "f").await, Some(ReservationCap::Tenant(3)));
}

pub(crate) async fn due_holds_do_not_count_towards_the_caps(subject: Subject) {
    let (subject, tenant_id, [one, other]) = capped(subject, FEW).await;
    for (integration_id, call) in [(one, "a"), (one, "b"), (other, "c")] {
        assert_eq!(refused_by(&subject, tenant_id, integration_id, call).await, None);
    }
    subject.world.clock.advance(601);
    for (integration_id, call) in [(one, "d"), (one, "e"), (other, "f")] {
        assert_eq!(refused_by(&subject, tenant_id, integration_id, call).await, None);
    }
    let full = Some(ReservationCap::Tenant(3));
    assert_eq!(refused_by(&subject, tenant_id, other, "g").await, full);
    subject.world.verify().await;
    subject.world.ledger.sweep().await.unwrap();
    assert_eq!(refused_by(&subject, tenant_id, other, "g").await, full);
    subject.world.verify().await;
}

pub(crate) async fn records_beyond_the_daily_bytes_are_refused(subject: Subject) {
    let bytes = 400 + "a".len() + "openai".len() + "gpt".len();
    let caps = Caps { stored_bytes_per_day: 2 * bytes as i64, ..Caps::DEFAULT };
    let (subject, tenant_id, [one, other]) = capped(subject, caps).await;
    let refused = RecordOutcome::Refused(RecordRefusal::StoredBytesExceeded);
    for call in ["held", "late", "released"] {
        subject.reserve(tenant_id, request(one, call)).await;
    }
    let accepted = |outcome: &RecordOutcome| matches!(outcome, RecordOutcome::Accepted(_));
    assert!(accepted(&subject.record(tenant_id, usage(one, "a")).await));
    let long = Usage { metadata: Some("{}".into()), ..usage(other, "b") };
    assert_eq!(subject.record(tenant_id, long).await, refused);
    let batch = vec![usage(other, "b"), usage(other, "c"), usage(one, "a")];
    let outcomes = subject.world.ledger.record(tenant_id, batch).await.unwrap();
    assert!(accepted(&outcomes[0]), "{outcomes:?}");
    assert_eq!(outcomes[1], refused);
    assert!(matches!(outcomes[2], RecordOutcome::Duplicate(_)), "{outcomes:?}");
    assert!(accepted(&subject.record(tenant_id, usage(one, "held")).await), "it settles");
    // A reserved call is recorded however its reservation ended, because it was admitted.
    subject.release(tenant_id, "released").await;
    subject.world.clock.advance(601);
    for call in ["late", "released"] {
        assert!(accepted(&subject.record(tenant_id, usage(one, call)).await), "{call}");
    }
    let subject = subject.reopened().await;
    assert_eq!(subject.record(tenant_id, usage(one, "c")).await, refused);
    subject.world.clock.advance(86_400);
    assert!(accepted(&subject.record(tenant_id, usage(one, "c")).await));
    subject.world.verify().await;
}
