//! Rollups: what dashboards read equals the entries, for every grain.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bursar_core::{Day, IntegrationId, PolicyResult, Tags, TenantId, Usage};
use bursar_store::{
    BreakdownFilter, DayFilter, DayUsage, GroupBy, HistoryFilter, HistoryPart, LATENCY_BOUNDS_MS,
    OTHER, Page, ReadContext, ReadMemory, ReadMemoryError, Requester, SeriesFilter, Step,
    StoreError, UsageRow,
};

use crate::conformance::mixture::sums;
use crate::conformance::subject::{ALL, Subject, earlier, unlimited};
use crate::support::{cents, day, request, usage};

/// Two integrations with records over five days, of several models, agents and outcomes.
async fn recorded(subject: &Subject) -> (TenantId, [IntegrationId; 2]) {
    let (tenant_id, first) = subject.account(unlimited()).await;
    let second = subject.world.integration(tenant_id, "second", unlimited()).await;
    let now = subject.world.clock.now();
    let mut batch = Vec::new();
    for number in 0..120i64 {
        let integration_id = if number % 3 == 0 { first } else { second };
        batch.push(Usage {
            model: ["gpt", "claude", "other"][number as usize % 3].into(),
            provider: ["openai", "anthropic"][number as usize % 2].into(),
            agent_id: (number % 4 != 0).then(|| format!("agent {}", number % 5).into()),
            cost: (number % 7 != 0).then(|| cents(number)),
            latency_ms: (number % 6 != 0)
                .then(|| LATENCY_BOUNDS_MS[number as usize % 15] + number % 2),
            policy_result: [PolicyResult::Allowed, PolicyResult::Warned, PolicyResult::Blocked]
                [number as usize % 8 / 3],
            error_code: (number % 9 == 0).then(|| "failed".into()),
            occurred_at: Some(earlier(now, number * 3_601)),
            ..usage(integration_id, &format!("call {number}"))
        });
    }
    // Several groups add to rollups that exist.
    for group in batch.chunks(25) {
        subject.world.ledger.record(tenant_id, group.to_vec()).await.unwrap();
    }
    subject.reserve(tenant_id, request(first, "held")).await;
    let unpriced = Usage { cost: None, ..usage(first, "held") };
    subject.record(tenant_id, unpriced).await;
    (tenant_id, [first, second])
}

pub(crate) async fn usage_by_day_is_the_sum_of_the_entries(subject: Subject) {
    let (tenant_id, [first, _]) = recorded(&subject).await;
    let subject = subject.reopened().await;
    let rows = subject.entries(tenant_id).await;
    assert_eq!(rows.len(), 121);
    let mut expected: BTreeMap<(Day, IntegrationId), Vec<UsageRow>> = BTreeMap::new();
    for row in rows {
        expected.entry((row.occurred_at.day(), row.integration_id)).or_default().push(row);
    }
    let expected: Vec<_> =
        expected.into_iter().map(|(key, rows)| (key, sums(rows.iter()))).collect();
    let (from, to) = (Day::from_number(0), day(9999, 12, 31).day());
    let list = async |only| {
        let days = subject.days(tenant_id, (only, from, to)).await;
        let days = days.into_iter().map(|day| ((day.day, day.integration_id), day.sums));
        days.collect::<Vec<_>>()
    };
    assert_eq!(list(None).await, expected);
    let of_first: Vec<_> =
        expected.into_iter().filter(|((_, integration_id), _)| *integration_id == first).collect();
    assert!(of_first.len() >= 5);
    assert_eq!(list(Some(first)).await, of_first);
}

pub(crate) async fn usage_by_integration_is_the_sum_of_the_entries(subject: Subject) {
    let (tenant_id, [first, second]) = recorded(&subject).await;
    let idle = subject.world.integration(tenant_id, "idle", unlimited()).await;
    let rows = subject.entries(tenant_id).await;
    let of = |id| sums(rows.iter().filter(move |row| row.integration_id == id));
    let (from, to) = (Day::from_number(0), subject.world.clock.now().day());
    let list = async |only| {
        let store = &subject.world.store;
        let found = store.usage_by_integration(tenant_id, only, from, to).await.unwrap();
        let found = found.into_iter();
        found
            .map(|usage| (usage.integration_id, usage.name, usage.provider_type, usage.sums))
            .collect::<Vec<_>>()
    };
    let line = |id, name: &str| (id, name.to_owned(), "openai".to_owned(), of(id));
    assert_eq!(list(None).await, [line(first, "integration"), line(second, "second")]);
    assert_eq!(list(Some(second)).await, [line(second, "second")]);
    assert_eq!(list(Some(idle)).await, []);
}

pub(crate) async fn the_first_and_last_day_are_inclusive(subject: Subject) {
    let (tenant_id, integration_id) = subject.account(unlimited()).await;
    let (first, last) = (day(2026, 2, 27), day(2026, 3, 2));
    for (number, at) in [
        earlier(first, 1),
        first,
        day(2026, 2, 28).plus_seconds(86_399),
        last.plus_seconds(86_399),
        last.plus_seconds(86_400),
    ]
    .into_iter()
    .enumerate()
    {
        let call =
            Usage { occurred_at: Some(at), ..usage(integration_id, &format!("call {number}")) };
        subject.record(tenant_id, call).await;
    }
    let store = &subject.world.store;
    let days = subject.days(tenant_id, (None, first.day(), last.day())).await;
    let days: Vec<String> = days.iter().map(|usage| usage.day.to_string()).collect();
    assert_eq!(days, ["2026-02-27", "2026-02-28", "2026-03-02"], "days without calls are absent");
    let usage = store.usage_by_integration(tenant_id, None, first.day(), last.day()).await.unwrap();
    assert_eq!(usage[0].sums.calls, 3);
    let none = subject.days(tenant_id, (None, last.day(), first.day())).await;
    assert!(none.is_empty());
}

pub(crate) async fn a_deleted_integration_keeps_its_usage_and_name(subject: Subject) {
    let (tenant_id, integration_id) = subject.account(unlimited()).await;
    subject.record(tenant_id, usage(integration_id, "call")).await;
    subject.change(tenant_id, move |control| control.delete_integration(integration_id)).await;
    let today = subject.world.clock.now().day();
    let store = &subject.world.store;
    let usage = store.usage_by_integration(tenant_id, None, today, today).await.unwrap();
    assert_eq!((usage[0].name.as_str(), usage[0].sums.calls), ("integration", 1));
    let days = subject.days(tenant_id, (Some(integration_id), today, today)).await;
    assert_eq!(days[0].sums.calls, 1);
    assert_eq!(subject.entries(tenant_id).await.len(), 1);
}

pub(crate) async fn every_grain_is_the_sum_of_the_entries(subject: Subject) {
    recorded(&subject).await;
    subject.world.verify().await;
    subject.reopened().await.world.verify().await;
}

pub(crate) async fn models_past_a_thousand_are_counted_as_other(subject: Subject) {
    let (tenant_id, integration_id) = subject.account(unlimited()).await;
    let of_model = |model: usize, call: &str| Usage {
        model: format!("model {model:04}").into(),
        ..usage(integration_id, &format!("{call} {model}"))
    };
    for first in [0, 600] {
        let batch = (first..first + 600).map(|model| of_model(model, "first")).collect();
        subject.world.ledger.record(tenant_id, batch).await.unwrap();
    }
    // The first thousand models keep rollups of their own.
    let subject = subject.reopened().await;
    let again = vec![of_model(7, "again"), of_model(1_100, "again"), of_model(1_300, "again")];
    subject.world.ledger.record(tenant_id, again).await.unwrap();

    let models = subject.models(tenant_id);
    assert_eq!(models.len(), 1_001);
    let calls = |provider: &str, model: &str| {
        let found = models.iter().find(|row| row.0 == provider && row.1 == model);
        found.map(|(_, _, calls)| *calls)
    };
    assert_eq!(calls("openai", "model 0007"), Some(2));
    assert_eq!(calls("openai", "model 1100"), None);
    assert_eq!(calls(OTHER, OTHER), Some(202));
    let today = subject.world.clock.now().day();
    let days = subject.days(tenant_id, (None, today, today)).await;
    assert_eq!(days[0].sums.calls, 1_203, "no call is lost");
    let named = subject.entries(tenant_id).await;
    assert!(named.iter().any(|row| row.model == "model 1300"), "the entry keeps its model");
    subject.world.verify().await;
}

pub(crate) async fn models_of_one_tenant_do_not_count_for_another(subject: Subject) {
    let (tenant_id, integration_id) = subject.account(unlimited()).await;
    let other = subject.world.tenant("other").await;
    let others = subject.world.integration(other, "integration", unlimited()).await;
    let batch = (0..1_001).map(|model| Usage {
        model: format!("model {model:04}").into(),
        ..usage(integration_id, &format!("call {model}"))
    });
    subject.world.ledger.record(tenant_id, batch.collect()).await.unwrap();
    let late = Usage { model: "late".into(), ..usage(others, "call") };
    subject.record(other, late).await;
    assert_eq!(subject.models(tenant_id).len(), 1_001);
    assert_eq!(subject.models(other), [("openai".to_owned(), "late".to_owned(), 1)]);
    subject.world.verify().await;
}

pub(crate) async fn agents_past_a_thousand_are_counted_as_other(subject: Subject) {
    let (tenant_id, integration_id) = subject.account(unlimited()).await;
    for first in [0, 1_000] {
        let batch = (first..1_002.min(first + 1_000)).map(|agent| Usage {
            agent_id: Some(format!("agent {agent:05}").into()),
            ..usage(integration_id, &format!("call {agent}"))
        });
        subject.world.ledger.record(tenant_id, batch.collect()).await.unwrap();
    }
    let agents = subject.agents(tenant_id);
    assert_eq!(agents.len(), 1_001);
    let other = agents.iter().find(|(_, agent, _)| agent == OTHER);
    assert_eq!(other.map(|(_, _, calls)| *calls), Some(2));
    subject.world.verify().await;
}

pub(crate) async fn days_are_listed_page_by_page_with_their_total(subject: Subject) {
    let (tenant_id, [first, _]) = recorded(&subject).await;
    let (from, to) = (Day::from_number(0), day(9999, 12, 31).day());
    for only in [None, Some(first)] {
        let all = subject.days(tenant_id, (only, from, to)).await;
        let all: Vec<_> = all.iter().map(|row| (row.day, row.integration_id, row.sums)).collect();
        let filter = DayFilter { integration_id: only, first: from, last: to, after: None };
        for limit in [1, 3] {
            let (mut by_cursor, mut by_offset, mut next) = (Vec::new(), Vec::new(), None);
            loop {
                let page = |offset| Page { offset, limit };
                let after = DayFilter { after: next, ..filter };
                let store = &subject.world.store;
                let found = store.usage_by_day(tenant_id, after, page(0)).await.unwrap();
                let at = by_offset.len() as u32;
                let same = store.usage_by_day(tenant_id, filter, page(at)).await.unwrap();
                for page in [&found, &same] {
                    assert_eq!(page.total, Some(all.len() as i64));
                    assert!(page.rows.len() <= limit as usize);
                }
                assert_eq!(found.next, same.next);
                let row = |row: &DayUsage| (row.day, row.integration_id, row.sums);
                by_cursor.extend(found.rows.iter().map(row));
                by_offset.extend(same.rows.iter().map(row));
                next = found.next;
                if next.is_none() {
                    break;
                }
            }
            assert_eq!(by_cursor, all);
            assert_eq!(by_offset, all);
        }
        let beyond = Page { offset: 1_000, limit: 1 };
        let none = subject.world.store.usage_by_day(tenant_id, filter, beyond).await.unwrap();
        assert!(none.rows.is_empty() && none.next.is_none());
        assert_eq!(none.total, Some(all.len() as i64));
    }
}

/// Memory for a result, which counts what is taken.
#[derive(Default)]
struct Counted {
    bytes_max: usize,
    taken: AtomicUsize,
}

impl ReadMemory for Counted {
    fn take(&self, bytes: usize) -> Result<(), ReadMemoryError> {
        if self.taken.load(Ordering::SeqCst) + bytes > self.bytes_max {
            return Err(ReadMemoryError::TooLarge);
        }
        self.taken.fetch_add(bytes, Ordering::SeqCst);
        Ok(())
    }

    fn give_back(&self, bytes: usize) {
        self.taken.fetch_sub(bytes, Ordering::SeqCst);
    }
}

/// Runs every read whose result grows with the data, and returns which of them had enough memory.
async fn read_all(subject: &Subject, tenant_id: TenantId, memory: &Arc<Counted>) -> Vec<bool> {
    let memory = Arc::clone(memory);
    let store =
        subject.world.store.with_context(ReadContext { requester: Requester::Tenant, memory });
    let (first, last) = (Day::from_number(0), subject.world.clock.now().day());
    let days = DayFilter { integration_id: None, first, last, after: None };
    let (by, groups_max) = (GroupBy::Model, 10);
    let breakdown = BreakdownFilter { by, integration_id: None, first, last, groups_max };
    let (by, step) = (Some(by), Step::Day);
    let series = SeriesFilter { by, step, integration_id: None, first, last, groups_max };
    let of_audit = bursar_store::AuditFilter::default();
    let fits = |result: Result<(), StoreError>| match result {
        Ok(()) => true,
        Err(error) => {
            assert!(matches!(error, StoreError::ReadTooLarge), "{error:?}");
            false
        }
    };
    let any = HistoryFilter::default;
    [
        store.usage_by_day(tenant_id, days, ALL).await.map(drop),
        store.usage_by_integration(tenant_id, None, first, last).await.map(drop),
        store.usage_history(tenant_id, any(), HistoryPart::Whole(ALL)).await.map(drop),
        store.export_page(tenant_id, any()).await.map(drop),
        store.usage_breakdown(tenant_id, breakdown).await.map(drop),
        store.usage_series(tenant_id, series).await.map(drop),
        store.integrations(tenant_id, Default::default(), ALL).await.map(drop),
        store.audit(tenant_id, of_audit, 10).await.map(drop),
        store.audit_chain(tenant_id, None, 10).await.map(drop),
    ]
    .into_iter()
    .map(fits)
    .collect()
}

pub(crate) async fn a_read_takes_memory_for_its_result(subject: Subject) {
    let (tenant_id, _) = recorded(&subject).await;
    let none = Arc::new(Counted::default());
    assert_eq!(read_all(&subject, tenant_id, &none).await, [false; 9]);
    assert_eq!(none.taken.load(Ordering::SeqCst), 0);
    let much = Arc::new(Counted { bytes_max: usize::MAX / 2, ..Counted::default() });
    assert_eq!(read_all(&subject, tenant_id, &much).await, [true; 9]);
    let taken = much.taken.load(Ordering::SeqCst);
    // Two pages of 121 entries, a row for each day and integration, and some more.
    assert!((200_000..2_000_000).contains(&taken), "{taken} bytes");
}

pub(crate) async fn export_pages_are_small_and_cover_the_whole_history(subject: Subject) {
    let (tenant_id, integration_id) = subject.account(unlimited()).await;
    let metadata: Arc<str> = format!("{{\"a\":\"{}\"}}", "x".repeat(10_000)).into();
    let mut tags = Tags::default();
    for number in 0..10 {
        assert!(tags.add(&format!("tag-{number}"), &"\u{1d4c2}".repeat(256)));
    }
    // Half of them are large by their metadata, half by their tags.
    let of_call = |number: usize| {
        let record = usage(integration_id, &format!("call {number}"));
        if number.is_multiple_of(2) {
            Usage { metadata: Some(metadata.as_ref().into()), ..record }
        } else {
            Usage { tags: tags.clone(), ..record }
        }
    };
    let batch = (0..40).map(of_call).collect();
    subject.world.ledger.record(tenant_id, batch).await.unwrap();
    let (mut found, mut pages, mut after) = (Vec::new(), 0, None);
    loop {
        let filter = HistoryFilter { after, ..HistoryFilter::default() };
        let page = subject.world.store.export_page(tenant_id, filter).await.unwrap();
        assert!(page.rows.len() <= 8, "{} rows", page.rows.len());
        found.extend(page.rows);
        (pages, after) = (pages + 1, page.next);
        if after.is_none() {
            break;
        }
    }
    assert_eq!(found, subject.entries(tenant_id).await);
    assert!(pages >= 5);
}
