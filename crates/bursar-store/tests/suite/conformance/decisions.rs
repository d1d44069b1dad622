//! Stored decisions: fields, order, filters, and the deletion of the oldest.

use bursar_core::{
    Decision, DecisionId, Estimate, IntegrationId, Measure, Reason, ReasonCode, TenantId,
    Timestamp, Verdict,
};
use bursar_store::{DecisionFilter, DecisionKind, DecisionRow};

use crate::conformance::subject::{Subject, earlier, unlimited};
use crate::support::cents;

pub(crate) fn decision_id(number: i64) -> DecisionId {
    DecisionId::from_number(number).unwrap()
}

/// A check that was refused once, a second after the one before.
pub(crate) fn refused(
    (tenant_id, integration_id): (TenantId, IntegrationId),
    number: i64,
    now: Timestamp,
) -> DecisionRow {
    let at = earlier(now, 1_000 - number);
    DecisionRow {
        tenant_id,
        decision_id: decision_id(number),
        kind: DecisionKind::Check,
        integration_id: Some(integration_id),
        decision: Decision::hard_blocked(ReasonCode::IntegrationDisabled),
        call_id: None,
        estimate: Estimate::new(cents(10), 100).unwrap(),
        times: 1,
        first_at: at,
        last_at: at,
    }
}

/// A decision with a figure in every field of its reasons.
fn throttled() -> Decision {
    let rate = Reason {
        code: ReasonCode::RateLimitExceeded,
        measure: Some(Measure::Calls),
        limit_value: 60,
        current_value: i128::MAX,
        threshold_percent: Some(100),
        retry_after_seconds: Some(17),
    };
    let warned = Reason::plain(ReasonCode::BudgetWarning);
    Decision { verdict: Verdict::Throttled, reasons: vec![rate, warned] }
}

pub(crate) async fn put(subject: &Subject, rows: Vec<DecisionRow>) {
    let tenant_id = rows[0].tenant_id;
    let change = subject
        .world
        .ledger
        .change(tenant_id, move |tx| rows.iter().try_for_each(|row| tx.put_decision(row)));
    change.await.unwrap();
}

async fn list(
    subject: &Subject,
    tenant_id: TenantId,
    filter: DecisionFilter,
    limit: u32,
) -> Vec<DecisionRow> {
    subject.world.store.decisions(tenant_id, filter, limit).await.unwrap()
}

async fn all(subject: &Subject, tenant_id: TenantId) -> Vec<DecisionRow> {
    list(subject, tenant_id, DecisionFilter::default(), 10_000).await
}

/// The numbers of decisions, in their order.
fn numbers(rows: &[DecisionRow]) -> Vec<i64> {
    rows.iter().map(|row| row.decision_id.number()).collect()
}

pub(crate) async fn a_decision_is_read_back_field_by_field(subject: Subject) {
    let account = subject.account(unlimited()).await;
    let now = subject.world.clock.now();
    let full = DecisionRow {
        kind: DecisionKind::Reservation,
        decision: throttled(),
        call_id: Some("call \u{1f9ee} 100%".to_owned()),
        times: 7,
        first_at: earlier(now, 50),
        last_at: now,
        ..refused(account, 2, now)
    };
    let bare = DecisionRow {
        integration_id: None,
        estimate: Estimate::new(cents(0), 0).unwrap(),
        ..refused(account, 1, now)
    };
    put(&subject, vec![full.clone(), bare.clone()]).await;
    let subject = subject.reopened().await;
    assert_eq!(all(&subject, account.0).await, [full, bare]);
}

pub(crate) async fn a_repeated_decision_is_replaced(subject: Subject) {
    let account = subject.account(unlimited()).await;
    let now = subject.world.clock.now();
    let first = refused(account, 1, now);
    let other = refused(account, 2, now);
    put(&subject, vec![first.clone(), other.clone()]).await;
    let again = DecisionRow {
        decision: throttled(),
        estimate: Estimate::new(cents(3), 4).unwrap(),
        times: 2,
        last_at: now,
        ..first
    };
    put(&subject, vec![again.clone()]).await;
    assert_eq!(all(&subject, account.0).await, [other, again.clone()]);
    // Filters find the new decision, and not the old one.
    let code = |code| DecisionFilter { code: Some(code), ..DecisionFilter::default() };
    let found = list(&subject, account.0, code(ReasonCode::RateLimitExceeded), 10).await;
    assert_eq!(found, [again]);
    let found = list(&subject, account.0, code(ReasonCode::IntegrationDisabled), 10).await;
    assert_eq!(numbers(&found), [2]);
}

pub(crate) async fn decisions_are_listed_newest_first_page_by_page(subject: Subject) {
    let account = subject.account(unlimited()).await;
    let now = subject.world.clock.now();
    let rows: Vec<DecisionRow> = (1..=20).map(|number| refused(account, number, now)).collect();
    // The order of writing does not matter.
    put(&subject, rows.iter().skip(1).step_by(2).cloned().collect()).await;
    put(&subject, rows.iter().step_by(2).cloned().collect()).await;
    let newest: Vec<DecisionRow> = rows.into_iter().rev().collect();
    assert_eq!(all(&subject, account.0).await, newest);
    for limit in [1, 3, 10, 20, 21] {
        let mut met: Vec<DecisionRow> = Vec::new();
        loop {
            let before = met.last().map(|row| row.decision_id);
            let filter = DecisionFilter { before, ..DecisionFilter::default() };
            let page = list(&subject, account.0, filter, limit).await;
            if page.is_empty() {
                break;
            }
            assert!(page.len() <= limit as usize);
            met.extend(page);
        }
        assert_eq!(met, newest, "{limit} a page");
    }
}

pub(crate) async fn each_filter_of_decisions_returns_matching_decisions(subject: Subject) {
    let (tenant_id, first) = subject.account(unlimited()).await;
    let second = subject.world.integration(tenant_id, "second", unlimited()).await;
    let now = subject.world.clock.now();
    let at = |seconds| earlier(now, seconds);
    let of_first =
        DecisionRow { first_at: at(100), last_at: at(90), ..refused((tenant_id, first), 1, now) };
    let of_second = DecisionRow {
        decision: throttled(),
        call_id: Some("call".to_owned()),
        first_at: at(80),
        last_at: at(50),
        ..refused((tenant_id, second), 2, now)
    };
    let not_found = Decision::hard_blocked(ReasonCode::IntegrationNotFound);
    let of_none = DecisionRow {
        integration_id: None,
        decision: not_found,
        first_at: at(40),
        last_at: at(40),
        ..refused((tenant_id, first), 3, now)
    };
    put(&subject, vec![of_first, of_second, of_none]).await;
    let none = DecisionFilter::default;
    let call_id = Some("call".to_owned());
    let cases: Vec<(DecisionFilter, &[i64])> = vec![
        (none(), &[3, 2, 1]),
        (DecisionFilter { integration_id: Some(first), ..none() }, &[1]),
        (DecisionFilter { integration_id: Some(second), ..none() }, &[2]),
        (DecisionFilter { call_id: call_id.clone(), ..none() }, &[2]),
        (DecisionFilter { call_id: Some("unknown".to_owned()), ..none() }, &[]),
        (DecisionFilter { verdict: Some(Verdict::Throttled), ..none() }, &[2]),
        (DecisionFilter { verdict: Some(Verdict::HardBlocked), ..none() }, &[3, 1]),
        (DecisionFilter { verdict: Some(Verdict::Allowed), ..none() }, &[]),
        (DecisionFilter { code: Some(ReasonCode::IntegrationNotFound), ..none() }, &[3]),
        (DecisionFilter { code: Some(ReasonCode::RateLimitExceeded), ..none() }, &[2]),
        // Only the first reason counts.
        (DecisionFilter { code: Some(ReasonCode::BudgetWarning), ..none() }, &[]),
        (DecisionFilter { start: Some(at(90)), ..none() }, &[3, 2, 1]),
        (DecisionFilter { start: Some(at(89)), ..none() }, &[3, 2]),
        (DecisionFilter { end: Some(at(40)), ..none() }, &[2, 1]),
        (DecisionFilter { end: Some(at(39)), ..none() }, &[3, 2, 1]),
        (DecisionFilter { start: Some(at(60)), end: Some(at(70)), ..none() }, &[2]),
        (DecisionFilter { before: Some(decision_id(3)), ..none() }, &[2, 1]),
        (DecisionFilter { before: Some(decision_id(1)), ..none() }, &[]),
        (
            DecisionFilter {
                verdict: Some(Verdict::HardBlocked),
                before: Some(decision_id(3)),
                ..none()
            },
            &[1],
        ),
        (DecisionFilter { integration_id: Some(first), call_id, ..none() }, &[]),
    ];
    for (filter, expected) in cases {
        let found = list(&subject, tenant_id, filter.clone(), 10).await;
        assert_eq!(numbers(&found), expected, "{filter:?}");
    }
}

pub(crate) async fn only_the_newest_decisions_of_a_tenant_are_kept(subject: Subject) {
    let account = subject.account(unlimited()).await;
    let other = subject.world.tenant("other").await;
    let others = subject.world.integration(other, "integration", unlimited()).await;
    let now = subject.world.clock.now();
    put(&subject, (1..=10).map(|number| refused(account, number, now)).collect()).await;
    put(&subject, (1..=10).map(|number| refused((other, others), number, now)).collect()).await;
    let cases: [(u32, &[i64]); 5] = [
        (11, &[10, 9, 8, 7, 6, 5, 4, 3, 2, 1]),
        (4, &[10, 9, 8, 7]),
        (4, &[10, 9, 8, 7]),
        (1, &[10]),
        (0, &[]),
    ];
    for (kept, expected) in cases {
        let drop = move |tx: &mut dyn bursar_store::ControlTx| tx.drop_decisions(account.0, kept);
        subject.world.ledger.change(account.0, drop).await.unwrap();
        assert_eq!(numbers(&all(&subject, account.0).await), expected, "{kept} are kept");
    }
    let subject = subject.reopened().await;
    assert_eq!(all(&subject, account.0).await, []);
    assert_eq!(all(&subject, other).await.len(), 10);
}
