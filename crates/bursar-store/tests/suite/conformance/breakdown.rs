//! Breakdowns of usage: groups and total equal the sums of the entries.

use std::collections::BTreeMap;

use bursar_core::{Day, IntegrationId, TenantId, Usage};
use bursar_store::{Breakdown, BreakdownFilter, Group, GroupBy, Sums, UsageRow};

use crate::conformance::mixture::{mixed, sums};
use crate::conformance::subject::{Subject, earlier, unlimited};
use crate::support::{cents, day, usage};

pub(crate) const EVERY: [GroupBy; 5] =
    [GroupBy::Integration, GroupBy::Model, GroupBy::Provider, GroupBy::Agent, GroupBy::Session];

/// The group of an entry, if it has one.
pub(crate) fn group_of(
    by: GroupBy,
    row: &UsageRow,
    names: &[(IntegrationId, &str)],
) -> Option<Group> {
    match by {
        GroupBy::Integration => {
            let (integration_id, name) = *names.iter().find(|(id, _)| *id == row.integration_id)?;
            let provider_type = "openai".to_owned();
            Some(Group::Integration { integration_id, name: name.to_owned(), provider_type })
        }
        GroupBy::Model => {
            Some(Group::Model { provider: row.provider.clone(), model: row.model.clone() })
        }
        GroupBy::Provider => Some(Group::Provider { provider: row.provider.clone() }),
        GroupBy::Agent => row.agent_id.clone().map(|agent_id| Group::Agent { agent_id }),
        GroupBy::Session => row.session_id.clone().map(|session_id| Group::Session { session_id }),
    }
}

/// The groups of entries, the largest first.
pub(crate) fn grouped(
    by: GroupBy,
    rows: &[UsageRow],
    names: &[(IntegrationId, &str)],
) -> Vec<(Group, Sums)> {
    let mut groups: BTreeMap<Group, Vec<&UsageRow>> = BTreeMap::new();
    for row in rows {
        if let Some(group) = group_of(by, row, names) {
            groups.entry(group).or_default().push(row);
        }
    }
    let mut groups: Vec<(Group, Sums)> =
        groups.into_iter().map(|(group, rows)| (group, sums(rows))).collect();
    // The sort is stable, and the groups are already ordered by name.
    groups.sort_by_key(|(_, sums)| (-sums.cost_nanos, -sums.calls));
    groups
}

/// The names of the integrations of [`mixed`].
pub(crate) fn named(
    [first, second, third]: [IntegrationId; 3],
) -> [(IntegrationId, &'static str); 3] {
    [(first, "integration"), (second, "second"), (third, "third")]
}

/// The first and the last day that Bursar accepts.
pub(crate) fn always() -> (Day, Day) {
    (Day::from_number(0), day(9999, 12, 31).day())
}

/// All groups of all integrations and days.
fn all(by: GroupBy) -> BreakdownFilter {
    let (first, last) = always();
    BreakdownFilter { by, integration_id: None, first, last, groups_max: usize::MAX }
}

async fn breakdown(subject: &Subject, tenant_id: TenantId, filter: BreakdownFilter) -> Breakdown {
    subject.world.store.usage_breakdown(tenant_id, filter).await.unwrap().unwrap()
}

pub(crate) async fn each_group_is_the_sum_of_its_entries(subject: Subject) {
    let (tenant_id, integrations) = mixed(&subject, 300).await;
    let names = named(integrations);
    let subject = subject.reopened().await;
    let rows = subject.entries(tenant_id).await;
    for by in EVERY {
        for integration_id in [None].into_iter().chain(integrations.map(Some)) {
            let own =
                rows.iter().filter(|row| integration_id.is_none_or(|id| id == row.integration_id));
            let own: Vec<UsageRow> = own.cloned().collect();
            let filter = BreakdownFilter { integration_id, ..all(by) };
            let found = breakdown(&subject, tenant_id, filter).await;
            assert_eq!(found.total, sums(&own), "the total of {filter:?}");
            assert_eq!(found.groups, grouped(by, &own, &names), "the groups of {filter:?}");
        }
    }
}

pub(crate) async fn the_largest_groups_come_first(subject: Subject) {
    let (tenant_id, integrations) = mixed(&subject, 120).await;
    let names = named(integrations);
    let rows = subject.entries(tenant_id).await;
    for by in EVERY {
        let expected = grouped(by, &rows, &names);
        for groups_max in 0..=expected.len() + 1 {
            let filter = BreakdownFilter { groups_max, ..all(by) };
            let found = breakdown(&subject, tenant_id, filter).await;
            let largest = &expected[..groups_max.min(expected.len())];
            assert_eq!(found.groups, largest, "{filter:?}");
            assert_eq!(found.total, sums(&rows), "{filter:?}");
        }
    }
}

pub(crate) async fn groups_of_equal_cost_are_ordered_by_calls_then_by_name(subject: Subject) {
    let (tenant_id, first) = subject.account(unlimited()).await;
    let second = subject.world.integration(tenant_id, "second", unlimited()).await;
    let third = subject.world.integration(tenant_id, "third", unlimited()).await;
    // Each group costs four cents, with one call or with two.
    let shares =
        [(first, "a", 4), (second, "c", 2), (second, "c", 2), (third, "b", 3), (third, "b", 1)];
    let calls =
        shares.into_iter().enumerate().map(|(number, (integration_id, name, cost))| Usage {
            provider: name.into(),
            model: name.into(),
            agent_id: Some(name.into()),
            session_id: Some(name.into()),
            cost: Some(cents(cost)),
            ..usage(integration_id, &format!("call {number}"))
        });
    subject.world.ledger.record(tenant_id, calls.collect()).await.unwrap();
    let rows = subject.entries(tenant_id).await;
    let names = named([first, second, third]);
    for by in EVERY {
        let found = breakdown(&subject, tenant_id, all(by)).await;
        let calls: Vec<i64> = found.groups.iter().map(|(_, sums)| sums.calls).collect();
        assert_eq!(calls, [2, 2, 1], "{by:?}");
        assert_eq!(found.groups, grouped(by, &rows, &names), "{by:?}");
        // Either of two equal groups may be left out, but always the same one.
        let largest = BreakdownFilter { groups_max: 1, ..all(by) };
        let one = breakdown(&subject, tenant_id, largest).await.groups;
        assert!(found.groups[..2].contains(&one[0]), "{by:?}");
        for _ in 0..20 {
            let again = breakdown(&subject, tenant_id, largest).await.groups;
            assert_eq!(again, one, "{by:?}");
        }
    }
}

pub(crate) async fn the_rest_of_the_total_is_the_sum_of_the_unlisted_groups(subject: Subject) {
    let (tenant_id, integrations) = mixed(&subject, 150).await;
    let names = named(integrations);
    let rows = subject.entries(tenant_id).await;
    for by in EVERY {
        for groups_max in 0..4 {
            let filter = BreakdownFilter { groups_max, ..all(by) };
            let found = breakdown(&subject, tenant_id, filter).await;
            let is_listed = |row: &UsageRow| {
                let own = group_of(by, row, &names);
                found.groups.iter().any(|(group, _)| own.as_ref() == Some(group))
            };
            let expected = sums(rows.iter().filter(|row| !is_listed(row)));
            let mut left = found.total;
            for (_, group) in &found.groups {
                left = left.without(group).unwrap();
            }
            assert_eq!(left, expected, "{filter:?}");
        }
    }
}

pub(crate) async fn the_days_of_a_breakdown_are_inclusive(subject: Subject) {
    let (tenant_id, integration_id) = subject.account(unlimited()).await;
    let (first, last) = (day(2026, 2, 27), day(2026, 3, 2));
    let instants = [
        earlier(first, 1),
        first,
        day(2026, 2, 28).plus_seconds(86_399),
        last.plus_seconds(86_399),
        last.plus_seconds(86_400),
    ];
    for (number, at) in instants.into_iter().enumerate() {
        let call = Usage {
            agent_id: Some("agent".into()),
            session_id: Some("session".into()),
            occurred_at: Some(at),
            ..usage(integration_id, &format!("call {number}"))
        };
        subject.record(tenant_id, call).await;
    }
    for by in EVERY {
        let days = BreakdownFilter { first: first.day(), last: last.day(), ..all(by) };
        let found = breakdown(&subject, tenant_id, days).await;
        assert_eq!((found.total.calls, found.groups[0].1.calls), (3, 3), "{by:?}");
        let none = BreakdownFilter { first: last.day(), last: first.day(), ..all(by) };
        let none = breakdown(&subject, tenant_id, none).await;
        assert_eq!((none.total, none.groups), (Sums::default(), vec![]), "{by:?}");
    }
}

pub(crate) async fn a_deleted_integration_keeps_its_name_in_its_group(subject: Subject) {
    let (tenant_id, integration_id) = subject.account(unlimited()).await;
    subject.record(tenant_id, usage(integration_id, "call")).await;
    subject.change(tenant_id, move |control| control.delete_integration(integration_id)).await;
    let again = subject.world.integration(tenant_id, "integration", unlimited()).await;
    for call in ["call 1", "call 2"] {
        subject.record(tenant_id, usage(again, call)).await;
    }
    let found = breakdown(&subject, tenant_id, all(GroupBy::Integration)).await;
    let groups: Vec<(Group, i64)> =
        found.groups.into_iter().map(|(group, sums)| (group, sums.calls)).collect();
    let group = |integration_id| Group::Integration {
        integration_id,
        name: "integration".to_owned(),
        provider_type: "openai".to_owned(),
    };
    assert_eq!(groups, [(group(again), 2), (group(integration_id), 1)]);
}

pub(crate) async fn groups_and_total_are_of_one_snapshot(subject: Subject) {
    let (tenant_id, integration_id) = subject.account(unlimited()).await;
    let is_over = std::cell::Cell::new(false);
    let records = async {
        for number in 0..150 {
            let call = Usage {
                agent_id: Some("agent".into()),
                session_id: Some("session".into()),
                ..usage(integration_id, &format!("call {number}"))
            };
            subject.record(tenant_id, call).await;
        }
        is_over.set(true);
    };
    let reads = async {
        while !is_over.get() {
            for by in EVERY {
                // There is only one group.
                let found = breakdown(&subject, tenant_id, all(by)).await;
                let of_groups = found.groups.iter().map(|(_, sums)| sums.calls);
                assert_eq!(found.total.calls, of_groups.sum::<i64>(), "{by:?}");
            }
        }
    };
    tokio::join!(records, reads);
}
