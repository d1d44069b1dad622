//! Filters of the history: all combinations, page by page, and filters that rarely match together.

use bursar_core::{IntegrationId, PolicyResult, TenantId, Timestamp, Usage};
use bursar_store::{HistoryFilter, HistoryPart, HistoryPosition, Page, StoreError, UsageRow};

use crate::conformance::mixture::{AGENTS, MODELS, POLICIES, SESSIONS, mixed};
use crate::conformance::subject::{Subject, earlier, unlimited};
use crate::support::usage;

/// Whether an entry matches a filter.
fn keeps(filter: &HistoryFilter, row: &UsageRow) -> bool {
    let HistoryFilter {
        integration_id,
        model,
        agent_id,
        session_id,
        policy_result,
        errors_only,
        start,
        end,
        after,
    } = filter;
    let position = HistoryPosition { occurred_at: row.occurred_at, entry_id: row.entry_id };
    integration_id.is_none_or(|id| row.integration_id == id)
        && model.as_ref().is_none_or(|model| row.model == *model)
        && agent_id.as_ref().is_none_or(|agent| row.agent_id.as_ref() == Some(agent))
        && session_id.as_ref().is_none_or(|session| row.session_id.as_ref() == Some(session))
        && policy_result.is_none_or(|policy| row.policy_result == policy)
        && (!errors_only || row.error_code.is_some())
        && start.is_none_or(|start| row.occurred_at >= start)
        && end.is_none_or(|end| row.occurred_at < end)
        && after.is_none_or(|after| position < after)
}

/// All combinations of filters.
fn every_filter(
    integration_id: IntegrationId,
    start: Timestamp,
    end: Timestamp,
) -> Vec<HistoryFilter> {
    let policies = [None].into_iter().chain(POLICIES.map(Some));
    let combined = (0..128u32).flat_map(|bits| policies.clone().map(move |policy| (bits, policy)));
    let filters = combined.map(|(bits, policy_result)| {
        let has = |bit: u32| bits & (1 << bit) != 0;
        let text = |bit, text: &str| has(bit).then(|| text.to_owned());
        HistoryFilter {
            integration_id: has(0).then_some(integration_id),
            model: text(1, MODELS[0]),
            agent_id: text(2, AGENTS[0]),
            session_id: text(3, SESSIONS[0]),
            policy_result,
            errors_only: has(4),
            start: has(5).then_some(start),
            end: has(6).then_some(end),
            after: None,
        }
    });
    filters.collect()
}

/// Reads all pages of a filter, and checks that a page has a next one exactly if entries are left.
async fn read_pages(
    subject: &Subject,
    tenant_id: TenantId,
    filter: &HistoryFilter,
    (limit, expected): (u32, &[UsageRow]),
) -> Vec<UsageRow> {
    let mut met: Vec<UsageRow> = Vec::new();
    let mut filter = filter.clone();
    loop {
        let part = HistoryPart::UpTo(limit);
        let found = subject.world.store.usage_history(tenant_id, filter.clone(), part).await;
        let found = found.unwrap();
        assert!(found.rows.len() <= limit as usize);
        met.extend(found.rows);
        let is_more = met.len() < expected.len();
        assert_eq!(
            found.next.is_some(),
            is_more,
            "{limit} a page after {} of {filter:?}",
            met.len()
        );
        if found.next.is_none() {
            return met;
        }
        filter.after = found.next;
    }
}

pub(crate) async fn filters_combine_in_every_way(subject: Subject) {
    let (tenant_id, [first, ..]) = mixed(&subject, 250).await;
    let all = subject.entries(tenant_id).await;
    assert_eq!(all.len(), 250);
    let filters = every_filter(first, all[220].occurred_at, all[20].occurred_at);
    let mut matches = 0;
    for filter in filters {
        let kept = all.iter().filter(|row| keeps(&filter, row));
        let kept: Vec<UsageRow> = kept.cloned().collect();
        matches += usize::from(!kept.is_empty());
        for limit in [1_000, 7, 1] {
            let met = read_pages(&subject, tenant_id, &filter, (limit, &kept)).await;
            assert_eq!(met, kept, "{limit} a page of {filter:?}");
        }
    }
    assert!(matches > 400, "only {matches} filters match any entry");
}

pub(crate) async fn the_last_page_has_no_next_position(subject: Subject) {
    let (tenant_id, _) = mixed(&subject, 42).await;
    let all = subject.entries(tenant_id).await;
    let rare = HistoryFilter { model: Some(MODELS[0].to_owned()), ..HistoryFilter::default() };
    let none = HistoryFilter { model: Some("unused".to_owned()), ..HistoryFilter::default() };
    for filter in [HistoryFilter::default(), rare, none] {
        let kept = all.iter().filter(|row| keeps(&filter, row));
        let kept: Vec<UsageRow> = kept.cloned().collect();
        let count = kept.len() as u32;
        // Some counts are exact multiples of the page size.
        for (offset, limit) in (0..=count + 1).flat_map(|at| [(at, 1), (at, 7), (at, 42)]) {
            let page = Page { offset, limit };
            let part = HistoryPart::Whole(page);
            let found = subject.world.store.usage_history(tenant_id, filter.clone(), part).await;
            let next = found.unwrap().next;
            assert_eq!(next.is_some(), offset + limit < count, "{page:?} of {count}");
        }
    }
}

/// The number of calls that [`many`] records.
const MANY: usize = 25_200;
/// The rare calls; the call after each has a rare model.
///
/// Two of them are of the first integration, which a page scans to its end, and are older than the
/// entries of the second that the page scans.
const RARE: [usize; 7] = [0, 9_000, 14_000, 15_001, 19_998, 20_005, MANY - 2];

/// Calls a second apart, the newest first, of two integrations: five of six are of the second one.
async fn many(subject: &Subject) -> (TenantId, [IntegrationId; 2]) {
    let (tenant_id, first) = subject.account(unlimited()).await;
    let second = subject.world.integration(tenant_id, "second", unlimited()).await;
    let now = subject.world.clock.now();
    let integrations = [first, second];
    let calls: Vec<Usage> = (0..MANY).map(|number| many_call(integrations, now, number)).collect();
    for group in calls.chunks(2_100) {
        subject.world.ledger.record(tenant_id, group.to_vec()).await.unwrap();
    }
    (tenant_id, integrations)
}

fn of_first(number: usize) -> bool {
    number % 6 == 1
}

fn many_call([first, second]: [IntegrationId; 2], now: Timestamp, number: usize) -> Usage {
    let is_rare = RARE.contains(&number);
    let follows = number > 0 && RARE.contains(&(number - 1));
    Usage {
        session_id: Some("session".into()),
        agent_id: Some("agent".into()),
        model: if follows { "rare" } else { "common" }.into(),
        policy_result: if is_rare { PolicyResult::Allowed } else { PolicyResult::Warned },
        error_code: Some("failed".into()),
        occurred_at: Some(earlier(now, number as i64)),
        ..usage(if of_first(number) { first } else { second }, &number.to_string())
    }
}

/// Combined filters, of which one alone matches nearly all of [`many`], and their matches.
fn rarely_matching() -> Vec<(HistoryFilter, Vec<usize>)> {
    let text = |text: &str| Some(text.to_owned());
    let allowed =
        HistoryFilter { policy_result: Some(PolicyResult::Allowed), ..Default::default() };
    let rare = HistoryFilter {
        policy_result: Some(PolicyResult::Warned),
        model: text("rare"),
        ..Default::default()
    };
    let calls = RARE.to_vec();
    vec![
        (allowed.clone(), calls.clone()),
        (HistoryFilter { model: text("common"), ..allowed.clone() }, calls.clone()),
        (HistoryFilter { agent_id: text("agent"), ..allowed.clone() }, calls.clone()),
        (HistoryFilter { session_id: text("session"), ..allowed.clone() }, calls.clone()),
        (HistoryFilter { errors_only: true, ..allowed }, calls.clone()),
        (rare, calls.iter().map(|number| number + 1).collect()),
    ]
}

/// The calls of all pages, read by cursor, and the number of pages.
async fn read_by_cursor(
    subject: &Subject,
    tenant_id: TenantId,
    filter: &HistoryFilter,
    limit: u32,
) -> (Vec<usize>, usize) {
    let (mut met, mut pages) = (Vec::new(), 0);
    let mut filter = filter.clone();
    loop {
        let part = HistoryPart::UpTo(limit);
        let found = subject.world.store.usage_history(tenant_id, filter.clone(), part).await;
        let found = found.unwrap();
        pages += 1;
        assert!(found.rows.len() <= limit as usize);
        assert!(found.next.is_none() || found.next != filter.after, "no progress: {filter:?}");
        met.extend(found.rows.iter().map(number));
        let Some(next) = found.next else { return (met, pages) };
        filter.after = Some(next);
    }
}

/// The calls of all pages, read by offset.
async fn read_by_offset(
    subject: &Subject,
    tenant_id: TenantId,
    filter: &HistoryFilter,
    limit: u32,
) -> Vec<usize> {
    let mut met = Vec::new();
    for offset in (0..).step_by(limit as usize) {
        let part = HistoryPart::Whole(Page { offset, limit });
        let found = subject.world.store.usage_history(tenant_id, filter.clone(), part).await;
        let found = found.unwrap();
        met.extend(found.rows.iter().map(number));
        if found.next.is_none() {
            break;
        }
        assert_eq!(found.rows.len(), limit as usize, "a short page at {offset} of {filter:?}");
    }
    met
}

fn number(row: &UsageRow) -> usize {
    row.call_id.parse().unwrap()
}

/// Whether a call is of the filter's integration.
type IsOwn = fn(usize) -> bool;

pub(crate) async fn filters_that_rarely_match_together_find_every_match(subject: Subject) {
    let (tenant_id, [first, second]) = many(&subject).await;
    for (filter, calls) in rarely_matching() {
        let cases: [(Option<IntegrationId>, IsOwn); 3] =
            [(None, |_| true), (Some(first), of_first), (Some(second), |number| !of_first(number))];
        for (integration_id, is_own) in cases {
            let filter = HistoryFilter { integration_id, ..filter.clone() };
            let own: Vec<usize> = calls.iter().copied().filter(|call| is_own(*call)).collect();
            for limit in [1, 2, 50] {
                let (met, pages) = read_by_cursor(&subject, tenant_id, &filter, limit).await;
                assert_eq!(met, own, "{limit} a page of {filter:?}");
                assert!(pages <= own.len() + 4, "{pages} pages of {filter:?}");
            }
            for limit in [2, 50] {
                let met = read_by_offset(&subject, tenant_id, &filter, limit).await;
                assert_eq!(met, own, "offsets of {limit} of {filter:?}");
            }
        }
        // A page by cursor ends early, because its cost is limited.
        let part = HistoryPart::UpTo(50);
        let found = subject.world.store.usage_history(tenant_id, filter.clone(), part).await;
        let found = found.unwrap();
        assert!(found.rows.len() < calls.len() && found.next.is_some(), "{filter:?}");
    }
}

pub(crate) async fn pages_without_a_second_filter_are_full(subject: Subject) {
    let (tenant_id, busy) = subject.account(unlimited()).await;
    // With many integrations, the share of each scan is small.
    for number in 0..49 {
        subject.world.integration(tenant_id, &format!("idle {number}"), unlimited()).await;
    }
    let now = subject.world.clock.now();
    let calls = (0..1_000usize).map(|number| Usage {
        occurred_at: Some(earlier(now, number as i64)),
        ..usage(busy, &number.to_string())
    });
    subject.world.ledger.record(tenant_id, calls.collect()).await.unwrap();
    let by_model = HistoryFilter { model: Some("gpt".to_owned()), ..HistoryFilter::default() };
    for filter in [HistoryFilter::default(), by_model] {
        for (offset, limit) in [(0, 500), (0, 999), (500, 100), (899, 100)] {
            let page = HistoryPart::Whole(Page { offset, limit });
            let parts = [Some(page), (offset == 0).then_some(HistoryPart::UpTo(limit))];
            for part in parts.into_iter().flatten() {
                let found = subject.world.store.usage_history(tenant_id, filter.clone(), part);
                let rows = found.await.unwrap().rows;
                let (first, last) = (offset as usize, (offset + limit) as usize);
                let is_whole = rows.iter().map(number).eq(first..last);
                assert!(is_whole, "{} rows in {part:?} of {filter:?}", rows.len());
            }
        }
    }
}

pub(crate) async fn a_page_of_large_entries_ends_early_and_names_the_next(subject: Subject) {
    let (tenant_id, integration_id) = subject.account(unlimited()).await;
    let metadata = format!(r#"{{"text":"{}"}}"#, "x".repeat(1_000_000));
    let now = subject.world.clock.now();
    for number in 0..10u32 {
        let heavy = Usage {
            metadata: Some(metadata.as_str().into()),
            occurred_at: Some(earlier(now, number.into())),
            ..usage(integration_id, &number.to_string())
        };
        subject.record(tenant_id, heavy).await;
    }
    let filter = HistoryFilter::default();
    let all: Vec<usize> = (0..10).collect();
    for limit in [50, 10, 7, 1] {
        let (met, pages) = read_by_cursor(&subject, tenant_id, &filter, limit).await;
        assert_eq!(met, all, "{limit} a page");
        assert!(pages > 1, "one page of {limit} has all entries");
    }
    // A page by offset is complete, or the read fails.
    for limit in [1, 2, 4] {
        let met = read_by_offset(&subject, tenant_id, &filter, limit).await;
        assert_eq!(met, all, "{limit} a page");
    }
    for (offset, limit, is_whole) in [(0, 6, false), (4, 50, false), (5, 50, true), (7, 3, true)] {
        let part = HistoryPart::Whole(Page { offset, limit });
        let found = subject.world.store.usage_history(tenant_id, filter.clone(), part).await;
        match found {
            Ok(found) => {
                assert!(is_whole, "{part:?}");
                assert_eq!(
                    found.rows.iter().map(number).collect::<Vec<_>>(),
                    all[offset as usize..]
                );
            }
            Err(error) => {
                assert!(!is_whole && matches!(error, StoreError::ReadTooLarge), "{error:?}");
            }
        }
    }
}
