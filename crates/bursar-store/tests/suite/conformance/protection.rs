//! The stored signals and overrides of abuse protection.

use bursar_core::{Breach, Dimension, ProtectionDecision, SignalId, TenantId, Timestamp};
use bursar_store::{Control, ControlRefusal, OverrideRow, SignalRow};

use crate::conformance::subject::{Subject, earlier};

fn signal_id(number: i64) -> SignalId {
    SignalId::from_number(number).unwrap()
}

fn breach(dimension: Dimension) -> Breach {
    Breach { dimension, retry_after_ms: 1_500, current_value: 1_000, allowed_value: 1_000 }
}

/// A request that was refused once, a second after the one before.
fn signal(tenant_id: TenantId, number: i64, now: Timestamp) -> SignalRow {
    let at = earlier(now, 1_000 - number);
    SignalRow {
        tenant_id,
        signal_id: signal_id(number),
        decision: ProtectionDecision::Reject(breach(Dimension::Rate)),
        endpoint: "/api/v1/telemetry/llm-usage".to_owned(),
        operation: "POST".to_owned(),
        times: 1,
        first_at: at,
        last_at: at,
    }
}

async fn put(subject: &Subject, rows: Vec<SignalRow>) {
    let tenant_id = rows[0].tenant_id;
    let change = subject
        .world
        .ledger
        .change(tenant_id, move |tx| rows.iter().try_for_each(|row| tx.put_signal(row)));
    change.await.unwrap();
}

async fn signals(subject: &Subject, tenant_id: TenantId) -> Vec<SignalRow> {
    subject.world.store.signals(tenant_id, None, 10_000).await.unwrap()
}

async fn override_rate(
    subject: &Subject,
    tenant_id: TenantId,
    allowed_value: u32,
    expires_at: Timestamp,
) -> OverrideRow {
    let change = move |control: &mut Control<'_>| {
        control.override_protection(Dimension::Rate, allowed_value, expires_at, "a launch")
    };
    subject.change(tenant_id, change).await
}

async fn overrides(subject: &Subject, tenant_id: TenantId) -> Vec<OverrideRow> {
    subject.world.store.protection_overrides(tenant_id, subject.world.store.now()).await.unwrap()
}

pub(crate) async fn a_signal_is_read_back_field_by_field(subject: Subject) {
    let tenant_id = subject.tenant().await;
    let now = subject.world.clock.now();
    let decisions = [
        ProtectionDecision::Reject(breach(Dimension::Cost)),
        ProtectionDecision::Throttle(breach(Dimension::Burst)),
        ProtectionDecision::Warn(Breach { retry_after_ms: 0, ..breach(Dimension::Anomaly) }),
        ProtectionDecision::Reject(Breach { current_value: i64::MAX, ..breach(Dimension::Rate) }),
    ];
    let rows: Vec<SignalRow> = (1..)
        .zip(decisions)
        .map(|(number, decision)| SignalRow {
            decision,
            times: number * 7,
            last_at: now,
            ..signal(tenant_id, number, now)
        })
        .collect();
    put(&subject, rows.clone()).await;
    let subject = subject.reopened().await;
    let newest_first: Vec<SignalRow> = rows.into_iter().rev().collect();
    assert_eq!(signals(&subject, tenant_id).await, newest_first);
}

pub(crate) async fn a_repeated_signal_is_replaced(subject: Subject) {
    let tenant_id = subject.tenant().await;
    let now = subject.world.clock.now();
    let first = signal(tenant_id, 1, now);
    put(&subject, vec![first.clone()]).await;
    let breach = Breach { current_value: 1_001, retry_after_ms: 3, ..breach(Dimension::Rate) };
    let decision = ProtectionDecision::Reject(breach);
    let again = SignalRow { decision, times: 9, last_at: now, ..first };
    put(&subject, vec![again.clone()]).await;
    assert_eq!(signals(&subject, tenant_id).await, [again]);
}

pub(crate) async fn signals_are_listed_newest_first_page_by_page(subject: Subject) {
    let tenant_id = subject.tenant().await;
    let now = subject.world.clock.now();
    let rows: Vec<SignalRow> = (1..=7).map(|number| signal(tenant_id, number, now)).collect();
    put(&subject, rows.clone()).await;
    let mut met: Vec<SignalRow> = Vec::new();
    loop {
        let before = met.last().map(|row| row.signal_id);
        let page = subject.world.store.signals(tenant_id, before, 3).await.unwrap();
        if page.is_empty() {
            break;
        }
        met.extend(page);
    }
    assert_eq!(met, rows.into_iter().rev().collect::<Vec<_>>());
}

pub(crate) async fn only_the_newest_signals_of_a_tenant_are_kept(subject: Subject) {
    let tenant_id = subject.tenant().await;
    let other = subject.world.tenant("other").await;
    let now = subject.world.clock.now();
    for tenant_id in [tenant_id, other] {
        put(&subject, (1..=5).map(|number| signal(tenant_id, number, now)).collect()).await;
    }
    for (kept, expected) in [(6, 5), (5, 5), (2, 2), (0, 0)] {
        let drop = move |tx: &mut dyn bursar_store::ControlTx| tx.drop_signals(tenant_id, kept);
        subject.world.ledger.change(tenant_id, drop).await.unwrap();
        let left = signals(&subject, tenant_id).await;
        assert_eq!(left.len(), expected, "{kept} are kept");
        let oldest = 5 - i64::from(kept.min(5));
        assert!(left.iter().all(|row| row.signal_id.number() > oldest));
    }
    assert_eq!(signals(&subject, other).await.len(), 5);
}

pub(crate) async fn an_override_is_read_back_until_it_expires(subject: Subject) {
    let tenant_id = subject.tenant().await;
    let now = subject.world.clock.now();
    let row = override_rate(&subject, tenant_id, u32::MAX, now.plus_seconds(60)).await;
    let cost = subject.change(tenant_id, move |control| {
        control.override_protection(Dimension::Cost, 0, now.plus_seconds(90), "unlimited")
    });
    let cost = cost.await;
    assert_eq!((row.dimension, row.allowed_value), (Dimension::Rate, u32::MAX));
    assert_eq!((row.reason.as_str(), row.created_at), ("a launch", now));
    let subject = subject.reopened().await;
    assert_eq!(overrides(&subject, tenant_id).await, [row, cost.clone()]);
    subject.world.clock.advance(60);
    assert_eq!(overrides(&subject, tenant_id).await, [cost]);
    subject.world.clock.advance(30);
    assert_eq!(overrides(&subject, tenant_id).await, []);
}

pub(crate) async fn a_later_override_replaces_the_one_before(subject: Subject) {
    let tenant_id = subject.tenant().await;
    let until = subject.world.clock.now().plus_seconds(60);
    override_rate(&subject, tenant_id, 1, until).await;
    let later = override_rate(&subject, tenant_id, 2, until.plus_seconds(1)).await;
    assert_eq!(overrides(&subject, tenant_id).await, [later]);
}

pub(crate) async fn an_override_is_audited_and_an_unknown_tenant_has_none(subject: Subject) {
    let tenant_id = subject.tenant().await;
    let until = subject.world.clock.now().plus_seconds(60);
    override_rate(&subject, tenant_id, 1, until).await;
    let rows = subject.audit();
    let last = rows.last().unwrap();
    assert_eq!((last[0].as_str(), last[1].as_str()), ("protection.override", "rate"));
    let unknown = TenantId::from_number(tenant_id.number() + 1_000_000).unwrap();
    let refused = subject.world.control(unknown, move |control| {
        control.override_protection(Dimension::Rate, 1, until, "a launch")
    });
    assert_eq!(refused.await.unwrap(), Err(ControlRefusal::TenantNotFound));
    assert_eq!(overrides(&subject, unknown).await, []);
}

pub(crate) async fn a_foreign_tenant_sees_nothing_of_protection(subject: Subject) {
    let tenant_id = subject.tenant().await;
    let stranger = subject.world.tenant("stranger").await;
    let now = subject.world.clock.now();
    put(&subject, vec![signal(tenant_id, 1, now)]).await;
    override_rate(&subject, tenant_id, 1, now.plus_seconds(60)).await;
    assert_eq!(signals(&subject, stranger).await, []);
    assert_eq!(overrides(&subject, stranger).await, []);
}
