//! The history: order, cursor, offset and filters, over several integrations.

use bursar_core::{IntegrationId, PolicyResult, TenantId, Timestamp, Usage};
use bursar_store::{HistoryFilter, HistoryPosition, Page, UsageRow};

use crate::conformance::subject::{ALL, Subject, earlier, unlimited};
use crate::support::usage;

/// Records of three integrations, many of them at one and the same instant.
async fn recorded(subject: &Subject) -> (TenantId, [IntegrationId; 3]) {
    let (tenant_id, first) = subject.account(unlimited()).await;
    let second = subject.world.integration(tenant_id, "second", unlimited()).await;
    let third = subject.world.integration(tenant_id, "third", unlimited()).await;
    let integrations = [first, second, third];
    let now = subject.world.clock.now();
    let batch = (0..60usize).map(|number| Usage {
        session_id: (number % 2 == 0).then(|| format!("session {}", number % 4).into()),
        agent_id: (number % 3 == 0).then(|| format!("agent {}", number % 9).into()),
        model: ["gpt", "claude"][number % 2].into(),
        policy_result: [PolicyResult::Allowed, PolicyResult::Warned, PolicyResult::Blocked]
            [number % 3],
        error_code: (number % 5 == 0).then(|| "failed".into()),
        // Neither in order nor all different.
        occurred_at: Some(earlier(now, (number as i64 * 7) % 8 * 3_600)),
        ..usage(integrations[number * number % 3], &format!("call {number}"))
    });
    let batch: Vec<Usage> = batch.collect();
    for group in batch.chunks(13) {
        subject.world.ledger.record(tenant_id, group.to_vec()).await.unwrap();
    }
    let deleted = third;
    subject.change(tenant_id, move |control| control.delete_integration(deleted)).await;
    (tenant_id, integrations)
}

fn position(row: &UsageRow) -> HistoryPosition {
    HistoryPosition { occurred_at: row.occurred_at, entry_id: row.entry_id }
}

pub(crate) async fn the_history_runs_from_the_newest_to_the_oldest(subject: Subject) {
    let (tenant_id, integrations) = recorded(&subject).await;
    let rows = subject.entries(tenant_id).await;
    assert_eq!(rows.len(), 60);
    assert!(rows.windows(2).all(|pair| position(&pair[0]) > position(&pair[1])));
    for integration_id in integrations {
        let filter = HistoryFilter { integration_id: Some(integration_id), ..Default::default() };
        let own = rows.iter().filter(|row| row.integration_id == integration_id);
        let own: Vec<UsageRow> = own.cloned().collect();
        assert_eq!(subject.history(tenant_id, filter, ALL).await, own);
    }
    assert_eq!(subject.reopened().await.entries(tenant_id).await, rows);
}

pub(crate) async fn a_cursor_returns_every_entry_once_including_ties(subject: Subject) {
    let (tenant_id, [first, ..]) = recorded(&subject).await;
    for integration_id in [None, Some(first)] {
        let filter = HistoryFilter { integration_id, ..Default::default() };
        let expected = subject.history(tenant_id, filter.clone(), ALL).await;
        for limit in [1, 2, 7, 59, 60, 61] {
            let mut met: Vec<UsageRow> = Vec::new();
            loop {
                let after = met.last().map(position);
                let filter = HistoryFilter { after, ..filter.clone() };
                let page = subject.history(tenant_id, filter, Page { offset: 0, limit }).await;
                if page.is_empty() {
                    break;
                }
                assert!(page.len() <= limit as usize);
                met.extend(page);
            }
            assert_eq!(met, expected, "pages of {limit}");
        }
    }
}

pub(crate) async fn an_offset_skips_rows(subject: Subject) {
    let (tenant_id, _) = recorded(&subject).await;
    let all = subject.entries(tenant_id).await;
    for (offset, limit) in [(0, 60), (1, 1), (13, 20), (55, 20), (60, 1), (10_000, 50), (0, 0)] {
        let page = Page { offset, limit };
        let found = subject.history(tenant_id, HistoryFilter::default(), page).await;
        let expected: Vec<UsageRow> =
            all.iter().skip(offset as usize).take(limit as usize).cloned().collect();
        assert_eq!(found, expected, "{page:?}");
    }
    // An offset counts from the cursor.
    let after = Some(position(&all[9]));
    let filter = HistoryFilter { after, ..Default::default() };
    let found = subject.history(tenant_id, filter, Page { offset: 5, limit: 3 }).await;
    assert_eq!(found, all[15..18]);
}

pub(crate) async fn each_filter_returns_matching_entries(subject: Subject) {
    let (tenant_id, [first, ..]) = recorded(&subject).await;
    let all = subject.entries(tenant_id).await;
    let cut: Timestamp = all[25].occurred_at;
    let text = |text: &str| Some(text.to_owned());
    let none = HistoryFilter::default;
    type Keeps = fn(&UsageRow, Timestamp) -> bool;
    let cases: Vec<(HistoryFilter, Keeps)> = vec![
        (HistoryFilter { model: text("claude"), ..none() }, |row, _| row.model == "claude"),
        (HistoryFilter { agent_id: text("agent 6"), ..none() }, |row, _| {
            row.agent_id.as_deref() == Some("agent 6")
        }),
        (HistoryFilter { session_id: text("session 2"), ..none() }, |row, _| {
            row.session_id.as_deref() == Some("session 2")
        }),
        (HistoryFilter { policy_result: Some(PolicyResult::Blocked), ..none() }, |row, _| {
            row.policy_result == PolicyResult::Blocked
        }),
        (HistoryFilter { errors_only: true, ..none() }, |row, _| row.error_code.is_some()),
        (HistoryFilter { start: Some(cut), ..none() }, |row, cut| row.occurred_at >= cut),
        (HistoryFilter { end: Some(cut), ..none() }, |row, cut| row.occurred_at < cut),
        (
            HistoryFilter { model: text("gpt"), errors_only: true, end: Some(cut), ..none() },
            |row, cut| row.model == "gpt" && row.error_code.is_some() && row.occurred_at < cut,
        ),
        (HistoryFilter { model: text("unused"), ..none() }, |_, _| false),
    ];
    for (filter, keeps) in cases {
        for integration_id in [None, Some(first)] {
            let filter = HistoryFilter { integration_id, ..filter.clone() };
            let kept = all.iter().filter(|row| {
                keeps(row, cut) && integration_id.is_none_or(|id| id == row.integration_id)
            });
            let kept: Vec<UsageRow> = kept.cloned().collect();
            let found = subject.history(tenant_id, filter.clone(), ALL).await;
            assert_eq!(found, kept, "{filter:?}");
            let page = Page { offset: 1, limit: 2 };
            let found = subject.history(tenant_id, filter.clone(), page).await;
            let expected: Vec<UsageRow> = kept.into_iter().skip(1).take(2).collect();
            assert_eq!(found, expected, "a page of {filter:?}");
        }
    }
}
