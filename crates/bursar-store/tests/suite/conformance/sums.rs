//! Sums beyond 64 bits: exact for costs and tokens, refused for counts.

use bursar_core::{Day, IntegrationId, Nanos, RecordOutcome, RecordRefusal, TenantId, Usage};
use bursar_store::{
    BreakdownFilter, CallFilter, DayFilter, Group, GroupBy, SeriesFilter, Step, StoreError,
};

use crate::conformance::subject::{ALL, Subject, unlimited};
use crate::support::{day, usage};

/// Records of a million dollars for each integration; a month can have 9,223 of them.
const RECORDS: i64 = 5_000;

fn day_of(subject: &Subject) -> Day {
    subject.world.clock.now().day()
}

fn expensive(integration_id: IntegrationId, number: i64) -> Usage {
    Usage {
        session_id: Some("session".into()),
        agent_id: Some("agent".into()),
        cost: Some(Nanos::RECORD_MAX),
        ..usage(integration_id, &format!("call {number}"))
    }
}

/// Ten billion dollars of two integrations, in one session of one day.
async fn ten_billions(subject: &Subject) -> TenantId {
    let (tenant_id, first) = subject.account(unlimited()).await;
    let second = subject.world.integration(tenant_id, "second", unlimited()).await;
    let records: Vec<Usage> = [first, second]
        .into_iter()
        .enumerate()
        .flat_map(|(at, integration_id)| {
            let from = at as i64 * RECORDS;
            (from..from + RECORDS).map(move |number| expensive(integration_id, number))
        })
        .collect();
    for batch in records.chunks(1_000) {
        let outcomes = subject.world.ledger.record(tenant_id, batch.to_vec()).await.unwrap();
        let accepted = |outcome: &RecordOutcome| matches!(outcome, RecordOutcome::Accepted(_));
        assert!(outcomes.iter().all(accepted));
    }
    tenant_id
}

pub(crate) async fn a_cost_beyond_64_bits_is_exact(subject: Subject) {
    let tenant_id = ten_billions(&subject).await;
    let expected = 2 * i128::from(RECORDS) * i128::from(Nanos::RECORD_MAX.get());
    assert!(expected > i64::MAX.into());
    let (first, last) = (day_of(&subject), day_of(&subject));
    for by in [GroupBy::Session, GroupBy::Agent, GroupBy::Model, GroupBy::Provider] {
        let filter = BreakdownFilter { by, integration_id: None, first, last, groups_max: 3 };
        let breakdown = subject.world.store.usage_breakdown(tenant_id, filter).await;
        let breakdown = breakdown.unwrap().unwrap();
        let [(_, sums)] = breakdown.groups.as_slice() else { unreachable!("{breakdown:?}") };
        assert_eq!((sums.cost_nanos, sums.calls), (expected, 2 * RECORDS), "{by:?}");
        assert_eq!(breakdown.total, *sums, "{by:?}");
    }
    subject.world.verify().await;
}

pub(crate) async fn the_largest_session_comes_first_beyond_64_bits(subject: Subject) {
    let (tenant_id, integration_id) = subject.account(unlimited()).await;
    // By the cost of their entries: "b" has more, but by less than saturating sums could tell.
    for (call, session) in [("1", "a"), ("2", "a"), ("3", "b"), ("4", "b")] {
        let session_id = Some(session.into());
        let record = Usage { session_id, ..usage(integration_id, call) };
        subject.record(tenant_id, record).await;
    }
    subject.world.database.tamper(&format!(
        "update usage_entries set cost_nanos = {max}; \
         update usage_entries set cost_nanos = {max} - 1 where call_id = '2'",
        max = i64::MAX
    ));
    let (first, last) = (day_of(&subject), day_of(&subject));
    let by = GroupBy::Session;
    let filter = BreakdownFilter { by, integration_id: None, first, last, groups_max: 1 };
    let found = subject.world.store.usage_breakdown(tenant_id, filter).await.unwrap().unwrap();
    let [(Group::Session { session_id }, sums)] = found.groups.as_slice() else {
        unreachable!("{found:?}")
    };
    assert_eq!((session_id.as_str(), sums.cost_nanos), ("b", 2 * i128::from(i64::MAX)));
}

#[track_caller]
fn is_refused<T: std::fmt::Debug>(result: Result<T, StoreError>, of: &str) {
    assert!(matches!(result, Err(StoreError::TotalsOverflow(_))), "{of}: {result:?}");
}

pub(crate) async fn a_count_beyond_64_bits_is_refused_in_every_read(subject: Subject) {
    let (tenant_id, integration_id) = subject.account(unlimited()).await;
    let second = subject.world.integration(tenant_id, "second", unlimited()).await;
    for (call, model, integration_id) in
        [("1", "gpt", integration_id), ("2", "other gpt", integration_id), ("3", "gpt", second)]
    {
        let model = model.into();
        subject.record(tenant_id, Usage { model, ..usage(integration_id, call) }).await;
    }
    subject.world.database.tamper(&format!("update rollups set calls = {}", i64::MAX));
    subject.world.database.tamper(&format!("update counters set used_calls = {}", i64::MAX));
    let (first, last) = (day_of(&subject), day_of(&subject));
    let store = &subject.world.store;
    is_refused(store.usage_by_integration(tenant_id, None, first, last).await, "integrations");
    let days = DayFilter { integration_id: None, first, last, after: None };
    is_refused(store.usage_by_day(tenant_id, days, ALL).await, "days");
    let by = GroupBy::Model;
    let groups = BreakdownFilter { by, integration_id: None, first, last, groups_max: 3 };
    is_refused(store.usage_breakdown(tenant_id, groups).await, "groups");
    let steps = SeriesFilter {
        by: None,
        step: Step::Hour,
        integration_id: None,
        first,
        last,
        groups_max: 3,
    };
    is_refused(store.usage_series(tenant_id, steps).await, "steps");
    let calls = CallFilter { integration_id: None, label: None, outcome: None, first, last };
    is_refused(store.counted_calls(tenant_id, calls).await, "calls");
    is_refused(store.recorded_calls(tenant_id, None).await, "recorded calls");
}

pub(crate) async fn a_record_whose_sum_does_not_fit_is_refused_alone(subject: Subject) {
    let (tenant_id, full) = subject.account(unlimited()).await;
    let second = subject.world.integration(tenant_id, "second", unlimited()).await;
    let slow = |integration_id, call| Usage {
        latency_ms: Some(700),
        occurred_at: Some(day(2026, 3, 14)),
        ..usage(integration_id, call)
    };
    subject.record(tenant_id, slow(full, "before")).await;
    let most = i64::MAX - 1_000;
    subject.world.database.tamper(&format!("update rollups set latency_sum_ms = {most}"));

    let batch = vec![slow(full, "fits"), slow(second, "other"), slow(full, "does not")];
    let outcomes = subject.world.ledger.record(tenant_id, batch).await.unwrap();

    let refused = RecordOutcome::Refused(RecordRefusal::TotalsOverflow);
    assert!(matches!(outcomes[0], RecordOutcome::Accepted(_)), "{outcomes:?}");
    assert!(matches!(outcomes[1], RecordOutcome::Accepted(_)), "{outcomes:?}");
    assert_eq!(outcomes[2], refused);
    assert_eq!(subject.record(tenant_id, slow(full, "alone")).await, refused);
    let quick = Usage { latency_ms: None, ..slow(full, "does not") };
    assert!(matches!(subject.record(tenant_id, quick).await, RecordOutcome::Accepted(_)));
    let sums = subject
        .world
        .database
        .rows(&["select latency_sum_ms from rollups where grain = 2 order by 1"]);
    let sums: Vec<_> = sums[0].iter().map(|row| row[0].clone().unwrap()).collect();
    assert_eq!(sums, ["700".to_owned(), (most + 700).to_string()]);
}
