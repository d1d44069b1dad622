//! Calls under many limits at once: every account moves with the reservation and its record.

use bursar_core::{
    CalendarUnit, IntegrationId, KeyId, Label, OwnedSubject, RecordOutcome, ReserveOutcome,
    ReserveRefusal, ReserveRequest, Scope, Selected, Tags, TenantId, Usage, Window,
};

use crate::conformance::subject::{Subject, unlimited};
use crate::support::limits::{
    LimitSums, calendar, calls, concurrent, cost, daily, each, limit, limit_sums, only, put_limits,
    subject_of, tokens,
};
use crate::support::{day, request, usage};

fn tags(team: &str) -> Tags {
    let mut tags = Tags::default();
    assert!(tags.add("team", team));
    tags
}

fn key() -> Option<KeyId> {
    KeyId::from_number(7)
}

/// A request with every label: 10 cents and 100 tokens.
fn labelled(integration_id: IntegrationId, call: &str) -> ReserveRequest {
    ReserveRequest {
        model: Some("gpt".into()),
        agent_id: Some("agent".into()),
        session_id: Some("session".into()),
        tags: tags("blue"),
        account_key_id: key(),
        ..request(integration_id, call)
    }
}

/// A record with the same labels: one cent and 30 tokens.
fn labelled_usage(integration_id: IntegrationId, call: &str) -> Usage {
    Usage {
        agent_id: Some("agent".into()),
        session_id: Some("session".into()),
        tags: tags("blue"),
        account_key_id: key(),
        ..usage(integration_id, call)
    }
}

/// A tenant with a limit of every scope, measure and kind of window. A labelled call falls under the
/// first eleven.
async fn limited(subject: &Subject) -> (TenantId, IntegrationId) {
    let (tenant_id, integration_id) = subject.account(unlimited()).await;
    let other = subject.world.integration(tenant_id, "other", unlimited()).await;
    let each_agent_of = |integration_id| Scope::Label {
        label: Label::Agent,
        selected: Selected::Each,
        integration_id: Some(integration_id),
    };
    use CalendarUnit::{Day, Hour, Month, Week};
    let total = Window::Total { starts_at: day(2026, 1, 1) };
    let later = Window::Total { starts_at: day(2026, 12, 1) };
    let rules = [
        (Scope::Tenant, cost(daily(), 100)),
        (Scope::Integration(integration_id), tokens(calendar(Month, "UTC"), 1_000)),
        (Scope::EachIntegration, calls(calendar(Hour, "UTC"), 10)),
        (only(Label::Model, "gpt"), cost(total, 100)),
        (each(Label::Agent), cost(calendar(Day, "Europe/Berlin"), 100)),
        (each(Label::Session), calls(Window::Minute, 10)),
        (each(Label::Key), cost(Window::Minute, 100)),
        (each(Label::Tag("team".into())), concurrent(10)),
        (Scope::Tenant, concurrent(10)),
        (only(Label::Agent, "agent"), tokens(Window::Minute, 1_000)),
        (each_agent_of(integration_id), cost(calendar(Week, "UTC"), 100)),
        (each_agent_of(other), cost(daily(), 1)),
        (only(Label::Agent, "another"), calls(daily(), 0)),
        (Scope::Tenant, calls(later, 0)),
    ];
    let rows = rules.into_iter().zip(1..);
    let rows = rows.map(|((scope, bound), number)| limit(tenant_id, number, scope, bound));
    put_limits(&subject.world.ledger, rows.collect()).await;
    (tenant_id, integration_id)
}

/// What the eleven limits show while one call is held.
const HELD: [LimitSums; 11] = [
    (1, 0, 10),
    (2, 0, 100),
    (3, 0, 1),
    (4, 0, 10),
    (5, 0, 10),
    (6, 0, 1),
    (7, 0, 10),
    (8, 0, 1),
    (9, 0, 1),
    (10, 0, 100),
    (11, 0, 10),
];
/// The same after its record.
const USED: [LimitSums; 11] = [
    (1, 1, 0),
    (2, 30, 0),
    (3, 1, 0),
    (4, 1, 0),
    (5, 1, 0),
    (6, 1, 0),
    (7, 1, 0),
    (8, 0, 0),
    (9, 0, 0),
    (10, 30, 0),
    (11, 1, 0),
];
/// The same after a reservation ended without a record: in a window of a minute it was a call.
const ENDED: [LimitSums; 11] = [
    (1, 0, 0),
    (2, 0, 0),
    (3, 0, 0),
    (4, 0, 0),
    (5, 0, 0),
    (6, 1, 0),
    (7, 0, 0),
    (8, 0, 0),
    (9, 0, 0),
    (10, 0, 0),
    (11, 0, 0),
];

async fn sums(subject: &Subject, tenant_id: TenantId, of: &OwnedSubject) -> Vec<LimitSums> {
    limit_sums(subject.world.store.as_ref(), tenant_id, of).await
}

async fn hold(subject: &Subject, tenant_id: TenantId, request: ReserveRequest) {
    let held = subject.reserve(tenant_id, request).await;
    assert!(matches!(held, ReserveOutcome::Held(_)), "{held:?}");
}

async fn record(subject: &Subject, tenant_id: TenantId, usage: Usage) {
    let recorded = subject.record(tenant_id, usage).await;
    assert!(matches!(recorded, RecordOutcome::Accepted(_)), "{recorded:?}");
}

pub(crate) async fn a_reservation_holds_in_all_accounts_until_its_record(subject: Subject) {
    let (tenant_id, integration_id) = limited(&subject).await;
    let request = labelled(integration_id, "call");
    let of = subject_of(&request);
    hold(&subject, tenant_id, request.clone()).await;
    assert_eq!(sums(&subject, tenant_id, &of).await, HELD);
    let subject = subject.reopened().await;
    assert_eq!(sums(&subject, tenant_id, &of).await, HELD, "after a restart");
    record(&subject, tenant_id, labelled_usage(integration_id, "call")).await;
    assert_eq!(sums(&subject, tenant_id, &of).await, USED);
    // A repetition changes nothing.
    subject.record(tenant_id, labelled_usage(integration_id, "call")).await;
    assert_eq!(sums(&subject, tenant_id, &of).await, USED);
    let subject = subject.reopened().await;
    assert_eq!(sums(&subject, tenant_id, &of).await, USED, "after a restart");
    subject.world.verify().await;
}

pub(crate) async fn a_call_without_a_reservation_counts_in_all_accounts(subject: Subject) {
    let (tenant_id, integration_id) = limited(&subject).await;
    record(&subject, tenant_id, labelled_usage(integration_id, "call")).await;
    let of = subject_of(&labelled(integration_id, "any"));
    assert_eq!(sums(&subject, tenant_id, &of).await, USED);
    let subject = subject.reopened().await;
    assert_eq!(sums(&subject, tenant_id, &of).await, USED, "after a restart");
}

pub(crate) async fn a_release_ends_the_hold_in_all_accounts(subject: Subject) {
    let (tenant_id, integration_id) = limited(&subject).await;
    let request = labelled(integration_id, "call");
    let of = subject_of(&request);
    hold(&subject, tenant_id, request).await;
    // The release reads the accounts from the database.
    let subject = subject.reopened().await;
    subject.release(tenant_id, "call").await;
    assert_eq!(sums(&subject, tenant_id, &of).await, ENDED);
    subject.release(tenant_id, "call").await;
    let subject = subject.reopened().await;
    assert_eq!(sums(&subject, tenant_id, &of).await, ENDED, "after a restart");
    // The record counts in full, but is no second call of the minute.
    record(&subject, tenant_id, labelled_usage(integration_id, "call")).await;
    assert_eq!(sums(&subject, tenant_id, &of).await, USED);
}

/// How many postings are stored.
fn postings(subject: &Subject) -> usize {
    subject.world.database.rows(&["select limit_id from postings"]).remove(0).len()
}

pub(crate) async fn a_due_hold_counts_in_no_account_before_and_after_the_sweep(subject: Subject) {
    let (tenant_id, integration_id) = limited(&subject).await;
    let request = ReserveRequest { ttl_seconds: 20, ..labelled(integration_id, "call") };
    let of = subject_of(&request);
    hold(&subject, tenant_id, request).await;
    subject.world.clock.advance(19);
    assert_eq!(sums(&subject, tenant_id, &of).await, HELD);
    subject.world.clock.advance(1);
    assert_eq!((sums(&subject, tenant_id, &of).await, postings(&subject)), (ENDED.into(), 11));
    // It does not count for the next command either, whether its accounts are in memory or not.
    for call in ["next", "after a restart"] {
        hold(&subject, tenant_id, labelled(integration_id, call)).await;
        subject.release(tenant_id, call).await;
    }
    let ended: Vec<LimitSums> =
        ENDED.iter().map(|(id, used, held)| (*id, used * 3, *held)).collect();
    assert_eq!((sums(&subject, tenant_id, &of).await, postings(&subject)), (ended.clone(), 11));
    let subject = subject.reopened().await;
    assert_eq!(sums(&subject, tenant_id, &of).await, ended, "after a restart");
    subject.world.ledger.sweep().await.unwrap();
    assert_eq!((sums(&subject, tenant_id, &of).await, postings(&subject)), (ended.clone(), 0));
    let subject = subject.reopened().await;
    assert_eq!(sums(&subject, tenant_id, &of).await, ended, "after the sweep and a restart");
    subject.world.verify().await;
}

pub(crate) async fn a_due_hold_makes_room_before_the_sweep(subject: Subject) {
    let (tenant_id, integration_id) = subject.account(unlimited()).await;
    let row = limit(tenant_id, 1, each(Label::Agent), cost(daily(), 10));
    put_limits(&subject.world.ledger, vec![row]).await;
    let request = |call| ReserveRequest { ttl_seconds: 20, ..labelled(integration_id, call) };
    hold(&subject, tenant_id, request("first")).await;
    let refused = subject.reserve(tenant_id, request("refused")).await;
    assert!(matches!(refused, ReserveOutcome::Refused(_)), "{refused:?}");
    subject.world.clock.advance(20);
    hold(&subject, tenant_id, request("second")).await;
    let subject = subject.reopened().await;
    let refused = subject.reserve(tenant_id, request("refused")).await;
    assert!(matches!(refused, ReserveOutcome::Refused(_)), "{refused:?}");
    subject.world.clock.advance(20);
    hold(&subject, tenant_id, request("third")).await;
    assert_eq!(postings(&subject), 3);
}

pub(crate) async fn an_extension_moves_the_expiry_in_all_accounts(subject: Subject) {
    let (tenant_id, integration_id) = limited(&subject).await;
    let request = ReserveRequest { ttl_seconds: 20, ..labelled(integration_id, "call") };
    let of = subject_of(&request);
    hold(&subject, tenant_id, request).await;
    subject.world.clock.advance(10);
    subject.extend(tenant_id, "call", Some(40)).await;
    subject.world.clock.advance(39);
    assert_eq!((sums(&subject, tenant_id, &of).await, postings(&subject)), (HELD.into(), 11));
    let subject = subject.reopened().await;
    assert_eq!(sums(&subject, tenant_id, &of).await, HELD, "after a restart");
    subject.world.clock.advance(1);
    assert_eq!(sums(&subject, tenant_id, &of).await, ENDED);
    subject.world.ledger.sweep().await.unwrap();
    assert_eq!((sums(&subject, tenant_id, &of).await, postings(&subject)), (ENDED.into(), 0));
}

pub(crate) async fn a_replay_needs_the_same_labels(subject: Subject) {
    let (tenant_id, integration_id) = limited(&subject).await;
    let request = labelled(integration_id, "call");
    hold(&subject, tenant_id, request.clone()).await;
    let of = subject_of(&request);
    let subject = subject.reopened().await;
    // The key is not part of the content.
    let by_another_key = ReserveRequest { account_key_id: None, ..request.clone() };
    for same in [request.clone(), by_another_key] {
        match subject.reserve(tenant_id, same).await {
            ReserveOutcome::Replayed(held) => assert_eq!(held.request, request),
            other @ (ReserveOutcome::Held(_)
            | ReserveOutcome::Refused(_)
            | ReserveOutcome::Rejected(_)) => unreachable!("{other:?}"),
        }
    }
    let others = [
        ReserveRequest { model: Some("claude".into()), ..request.clone() },
        ReserveRequest { agent_id: None, ..request.clone() },
        ReserveRequest { session_id: Some("another".into()), ..request.clone() },
        ReserveRequest { tags: tags("red"), ..request.clone() },
        ReserveRequest { tags: Tags::default(), ..request.clone() },
    ];
    for other in others {
        let outcome = subject.reserve(tenant_id, other).await;
        assert_eq!(outcome, ReserveOutcome::Rejected(ReserveRefusal::OtherContent));
    }
    assert_eq!(sums(&subject, tenant_id, &of).await, HELD);
}

pub(crate) async fn a_hold_ends_where_it_was_made_and_the_record_counts_where_it_says(
    subject: Subject,
) {
    let (tenant_id, integration_id) = subject.account(unlimited()).await;
    let labels =
        [Label::Agent, Label::Model, Label::Tag("team".into()), Label::Session, Label::Key];
    let rows = labels.into_iter().zip(1..);
    let rows = rows.map(|(label, number)| limit(tenant_id, number, each(label), cost(daily(), 50)));
    put_limits(&subject.world.ledger, rows.collect()).await;
    let request = labelled(integration_id, "call");
    hold(&subject, tenant_id, request.clone()).await;
    let subject = subject.reopened().await;
    let elsewhere = ReserveRequest {
        model: Some("claude".into()),
        agent_id: Some("another".into()),
        session_id: None,
        tags: tags("red"),
        ..request.clone()
    };
    let sent = Usage {
        model: "claude".into(),
        agent_id: Some("another".into()),
        tags: tags("red"),
        account_key_id: KeyId::from_number(8),
        ..usage(integration_id, "call")
    };
    record(&subject, tenant_id, sent).await;
    let made = sums(&subject, tenant_id, &subject_of(&request)).await;
    // The key is the one that reserved the call.
    assert_eq!(made, [(1, 0, 0), (2, 0, 0), (3, 0, 0), (4, 0, 0), (5, 1, 0)]);
    let said = sums(&subject, tenant_id, &subject_of(&elsewhere)).await;
    assert_eq!(said, [(1, 1, 0), (2, 1, 0), (3, 1, 0), (5, 1, 0)]);
    let by_key = ReserveRequest { account_key_id: KeyId::from_number(8), ..elsewhere };
    assert_eq!(sums(&subject, tenant_id, &subject_of(&by_key)).await[3], (5, 0, 0));
    let subject = subject.reopened().await;
    assert_eq!(sums(&subject, tenant_id, &subject_of(&request)).await, made);
}
