//! Records: one entry for each call id, through repetitions, refusals and late records.

use bursar_core::{
    CostSource, EntryId, EntryKind, IntegrationId, KeyId, Nanos, PolicyResult, RecordOutcome,
    RecordRefusal, RecordSource, ReserveOutcome, Tags, TenantLifecycle, Timestamp, TokenBuckets,
    TokenCounts, UnitAmount, Units, Usage, UsageStatus,
};
use bursar_store::UsageRow;

use crate::conformance::subject::{Subject, earlier, tokens, totals, unlimited};
use crate::support::{cents, request, usage};

fn accepted(outcome: &RecordOutcome) -> EntryId {
    assert!(matches!(outcome, RecordOutcome::Accepted(_)), "{outcome:?}");
    let RecordOutcome::Accepted(entry_id) = outcome else { unreachable!("checked above") };
    *entry_id
}

fn units(amounts: &[(&str, &str)]) -> Units {
    let mut units = Units::default();
    for (name, amount) in amounts {
        assert!(units.add(name, UnitAmount::from_text(amount).unwrap()));
    }
    units
}

fn tags(pairs: &[(&str, &str)]) -> Tags {
    let mut tags = Tags::default();
    for (name, value) in pairs {
        assert!(tags.add(name, value));
    }
    tags
}

/// A record with a value in every field.
fn full(integration_id: IntegrationId, call: &str, occurred_at: Timestamp) -> Usage {
    Usage {
        session_id: Some("session".into()),
        agent_id: Some("agent".into()),
        provider: "anthropic".into(),
        model: "claude \u{1f9ee} 100%".into(),
        response_model: Some("claude-sonnet-4-20250514".into()),
        region: Some("eu-central-1".into()),
        provider_request_id: Some("req_011CSHoEeqs5C35K2UUqR7Fy".into()),
        service_tier: Some("priority".into()),
        tokens: TokenBuckets::checked(TokenCounts {
            tokens_in: 1_000_000_000,
            tokens_out: 500,
            cache_read: 300,
            cache_write: 200,
            cache_write_long: 150,
            audio_in: 70,
            image_in: 80,
            reasoning: 100,
            audio_out: 90,
            image_out: 60,
        })
        .unwrap(),
        usage_status: UsageStatus::Partial,
        units: units(&[("seconds", "12.5"), ("web_search", "2"), ("pages", "0.000001")]),
        tags: tags(&[("team", "se\"a\\rch"), ("feature", "größe \u{1f9ee}")]),
        source: RecordSource::Gateway,
        key_id: KeyId::from_number(1_763_600_000_000_009),
        cost: Some(Nanos::new(123_456_789)),
        latency_ms: Some(1_234),
        policy_result: PolicyResult::Warned,
        error_code: Some("overloaded".into()),
        error_message: Some("line one\nline two".into()),
        metadata: Some(r#"{"feature":"chat"}"#.into()),
        occurred_at: Some(occurred_at),
        ..usage(integration_id, call)
    }
}

pub(crate) async fn a_record_is_read_back_field_by_field(subject: Subject) {
    let (tenant_id, integration_id) = subject.account(unlimited()).await;
    let now = subject.world.clock.now();
    let happened = Timestamp::from_micros(now.micros() - 12_345_678).unwrap();
    let sent = full(integration_id, "full", happened);
    let entry_id = accepted(&subject.record(tenant_id, sent.clone()).await);
    subject.world.clock.advance(1);
    let bare = Usage { cost: None, ..usage(integration_id, "bare") };
    let bare_id = accepted(&subject.record(tenant_id, bare).await);

    let subject = subject.reopened().await;
    let expected = UsageRow {
        entry_id,
        integration_id,
        kind: EntryKind::Usage,
        call_id: "full".to_owned(),
        session_id: Some("session".to_owned()),
        agent_id: Some("agent".to_owned()),
        provider: "anthropic".to_owned(),
        model: sent.model.clone().into(),
        response_model: Some("claude-sonnet-4-20250514".to_owned()),
        region: Some("eu-central-1".to_owned()),
        provider_request_id: Some("req_011CSHoEeqs5C35K2UUqR7Fy".to_owned()),
        service_tier: Some("priority".to_owned()),
        tokens: sent.tokens,
        cost: Nanos::new(123_456_789),
        cost_source: CostSource::Reported,
        reported_cost: Some(Nanos::new(123_456_789)),
        computed_cost: None,
        usage_status: UsageStatus::Partial,
        units: sent.units.clone(),
        tags: sent.tags.clone(),
        source: RecordSource::Gateway,
        key_id: sent.key_id,
        latency_ms: Some(1_234),
        policy_result: PolicyResult::Warned,
        error_code: Some("overloaded".to_owned()),
        error_message: Some("line one\nline two".to_owned()),
        metadata: Some(r#"{"feature":"chat"}"#.to_owned()),
        occurred_at: happened,
        created_at: now,
    };
    let rows = subject.entries(tenant_id).await;
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[1], expected);
    assert_eq!((rows[0].entry_id, rows[0].occurred_at), (bare_id, now.plus_seconds(1)));
    assert_eq!((rows[0].cost, rows[0].cost_source), (Nanos::ZERO, CostSource::Unknown));
    assert_eq!((rows[0].reported_cost, &rows[0].metadata), (None, &None));
    subject.world.verify().await;
}

pub(crate) async fn a_repetition_is_a_duplicate_even_after_a_restart(subject: Subject) {
    let (tenant_id, integration_id) = subject.account(unlimited()).await;
    let sent = full(integration_id, "call", subject.world.clock.now());
    let entry_id = accepted(&subject.record(tenant_id, sent.clone()).await);
    let again = subject.record(tenant_id, sent.clone()).await;
    assert_eq!(again, RecordOutcome::Duplicate(entry_id));

    // Months later, and without the instant, which the server may have chosen itself.
    subject.world.clock.advance(100 * 86_400);
    let subject = subject.reopened().await;
    assert_eq!(subject.record(tenant_id, sent.clone()).await, RecordOutcome::Duplicate(entry_id));
    let untimed = Usage { occurred_at: None, ..sent };
    assert_eq!(subject.record(tenant_id, untimed).await, RecordOutcome::Duplicate(entry_id));
    assert_eq!(subject.entries(tenant_id).await.len(), 1);
    subject.world.verify().await;
}

pub(crate) async fn other_content_is_a_conflict_and_changes_nothing(subject: Subject) {
    let (tenant_id, integration_id) = subject.account(unlimited()).await;
    let neighbour = subject.world.integration(tenant_id, "neighbour", unlimited()).await;
    let now = subject.world.clock.now();
    let sent = full(integration_id, "call", now);
    accepted(&subject.record(tenant_id, sent.clone()).await);
    let before = subject.entries(tenant_id).await;
    let subject = subject.reopened().await;

    let changes: [fn(&mut Usage); 11] = [
        |usage| usage.session_id = None,
        |usage| usage.agent_id = Some("other".into()),
        |usage| usage.provider = "openai".into(),
        |usage| usage.model = "other".into(),
        |usage| usage.tokens = tokens(1_000_000_000, 501),
        |usage| usage.tokens = tokens(1, 500),
        |usage| usage.cost = Some(Nanos::new(123_456_788)),
        |usage| usage.cost = None,
        |usage| usage.policy_result = PolicyResult::Allowed,
        |usage| usage.error_code = None,
        |usage| usage.occurred_at = Some(Timestamp::from_micros(1).unwrap()),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut other = sent.clone();
        change(&mut other);
        let outcome = subject.record(tenant_id, other).await;
        assert_eq!(outcome, RecordOutcome::Conflict, "change {number}");
    }
    let elsewhere = Usage { integration_id: neighbour, ..sent };
    assert_eq!(subject.record(tenant_id, elsewhere).await, RecordOutcome::Conflict);
    assert_eq!(subject.entries(tenant_id).await, before);
    subject.world.verify().await;
}

pub(crate) async fn fields_outside_the_comparison_never_conflict(subject: Subject) {
    let (tenant_id, integration_id) = subject.account(unlimited()).await;
    let sent = full(integration_id, "call", subject.world.clock.now());
    let entry_id = accepted(&subject.record(tenant_id, sent.clone()).await);
    let before = subject.entries(tenant_id).await;
    let other = Usage {
        latency_ms: None,
        error_message: None,
        metadata: None,
        tokens: tokens(1_000_000_000, 500),
        ..sent
    };
    assert_eq!(subject.record(tenant_id, other).await, RecordOutcome::Duplicate(entry_id));
    assert_eq!(subject.entries(tenant_id).await, before);
}

pub(crate) async fn each_record_of_a_batch_is_decided_on_its_own(subject: Subject) {
    let (tenant_id, integration_id) = subject.account(unlimited()).await;
    let unknown = IntegrationId::from_number(7).unwrap();
    let future = subject.world.clock.now().plus_seconds(301);
    let batch = vec![
        usage(integration_id, "a"),
        usage(unknown, "b"),
        usage(integration_id, "a"),
        Usage { model: "other".into(), ..usage(integration_id, "a") },
        Usage { occurred_at: Some(future), ..usage(integration_id, "c") },
        usage(integration_id, "b"),
        usage(integration_id, "c"),
    ];
    let outcomes = subject.world.ledger.record(tenant_id, batch.clone()).await.unwrap();
    let a = accepted(&outcomes[0]);
    assert_eq!(outcomes[1], RecordOutcome::Refused(RecordRefusal::IntegrationNotFound));
    assert_eq!(outcomes[2], RecordOutcome::Duplicate(a));
    assert_eq!(outcomes[3], RecordOutcome::Conflict);
    assert_eq!(outcomes[4], RecordOutcome::Refused(RecordRefusal::InTheFuture));
    let (b, c) = (accepted(&outcomes[5]), accepted(&outcomes[6]));
    assert!(a < b && b < c, "entries are numbered in the order of their arrival");
    let empty = subject.world.ledger.record(tenant_id, vec![]).await.unwrap();
    assert_eq!(empty, vec![]);

    let again = subject.world.ledger.record(tenant_id, batch).await.unwrap();
    assert_eq!(again[0], RecordOutcome::Duplicate(a));
    // Its integration is unknown, but its call id is recorded by now.
    assert_eq!(again[1], RecordOutcome::Conflict);
    assert_eq!(again[5..], [RecordOutcome::Duplicate(b), RecordOutcome::Duplicate(c)]);
    subject.world.verify().await;
}

pub(crate) async fn a_refused_record_frees_its_call_id(subject: Subject) {
    let (tenant_id, integration_id) = subject.account(unlimited()).await;
    let unknown = IntegrationId::from_number(7).unwrap();
    let future = subject.world.clock.now().plus_seconds(301);
    for call in ["later", "reserved"] {
        let ahead = Usage { occurred_at: Some(future), ..usage(integration_id, call) };
        let refused = subject.record(tenant_id, ahead).await;
        assert_eq!(refused, RecordOutcome::Refused(RecordRefusal::InTheFuture));
        let refused = subject.record(tenant_id, usage(unknown, call)).await;
        assert_eq!(refused, RecordOutcome::Refused(RecordRefusal::IntegrationNotFound));
    }
    subject.world.verify().await;
    let subject = subject.reopened().await;
    accepted(&subject.record(tenant_id, usage(integration_id, "later")).await);
    let held = subject.reserve(tenant_id, request(integration_id, "reserved")).await;
    assert!(matches!(held, ReserveOutcome::Held(_)), "{held:?}");
    accepted(&subject.record(tenant_id, usage(integration_id, "reserved")).await);
    subject.world.verify().await;
}

pub(crate) async fn records_are_accepted_for_disabled_and_deleted_integrations(subject: Subject) {
    let (tenant_id, integration_id) = subject.account(unlimited()).await;
    let held = subject.reserve(tenant_id, request(integration_id, "open")).await;
    assert!(matches!(held, ReserveOutcome::Held(_)), "{held:?}");
    subject.change(tenant_id, move |control| control.disable_integration(integration_id)).await;
    accepted(&subject.record(tenant_id, usage(integration_id, "disabled")).await);
    subject.change(tenant_id, move |control| control.delete_integration(integration_id)).await;
    accepted(&subject.record(tenant_id, usage(integration_id, "deleted")).await);
    accepted(&subject.record(tenant_id, usage(integration_id, "open")).await);
    let suspend = move |tx: &mut dyn bursar_store::ControlTx| {
        let mut tenant = tx.tenant(tenant_id)?.unwrap();
        tenant.lifecycle = TenantLifecycle::Suspended;
        tx.put_tenant(&tenant)
    };
    subject.world.ledger.change(tenant_id, suspend).await.unwrap();
    let suspended = usage(integration_id, "suspended");
    let suspended =
        Usage { occurred_at: Some(earlier(subject.world.clock.now(), 86_400)), ..suspended };
    accepted(&subject.record(tenant_id, suspended).await);

    let counter = subject.this_month((tenant_id, integration_id)).await;
    assert_eq!(counter.used, totals(cents(4), 120, 4));
    assert_eq!(counter.held, totals(Nanos::ZERO, 0, 0));
    subject.world.verify().await;
}

pub(crate) async fn a_total_that_does_not_fit_is_refused(subject: Subject) {
    let (tenant_id, integration_id) = subject.account(unlimited()).await;
    let dear = |number: i64| Usage {
        cost: Some(Nanos::RECORD_MAX),
        ..usage(integration_id, &format!("call {number}"))
    };
    // This number of records of a million dollars just fits into 64 bits of nano-dollars.
    let fitting = i64::MAX / Nanos::RECORD_MAX.get();
    for first in (0..fitting).step_by(1_000) {
        let batch = (first..fitting.min(first + 1_000)).map(dear).collect();
        let outcomes = subject.world.ledger.record(tenant_id, batch).await.unwrap();
        assert!(outcomes.iter().all(|outcome| matches!(outcome, RecordOutcome::Accepted(_))));
    }
    let refused = subject.record(tenant_id, dear(fitting)).await;
    assert_eq!(refused, RecordOutcome::Refused(RecordRefusal::TotalsOverflow));
    let same_id = usage(integration_id, &format!("call {fitting}"));
    accepted(&subject.record(tenant_id, same_id).await);
    subject.world.verify().await;
}
