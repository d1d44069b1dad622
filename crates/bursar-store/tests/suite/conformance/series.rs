//! Series of usage: each step equals the sums of the entries of its hour or day.

use std::collections::BTreeMap;

use bursar_core::{IntegrationId, TenantId, Usage};
use bursar_store::{Group, GroupBy, Series, SeriesFilter, Step, Sums, UsageRow};

use crate::conformance::breakdown::{EVERY, always, group_of, grouped, named};
use crate::conformance::mixture::{mixed, sums};
use crate::conformance::subject::{Subject, earlier, unlimited};
use crate::support::{day, usage};

/// A filter for all usage, by hour or day.
fn all(by: Option<GroupBy>, step: Step) -> SeriesFilter {
    let (first, last) = always();
    SeriesFilter { by, step, integration_id: None, first, last, groups_max: usize::MAX }
}

async fn series(subject: &Subject, tenant_id: TenantId, filter: SeriesFilter) -> Series {
    subject.world.store.usage_series(tenant_id, filter).await.unwrap()
}

/// The entries of each step.
fn by_step(step: Step, rows: &[UsageRow]) -> BTreeMap<i32, Vec<&UsageRow>> {
    let mut steps: BTreeMap<i32, Vec<&UsageRow>> = BTreeMap::new();
    for row in rows {
        let number = match step {
            Step::Hour => row.occurred_at.hour().number(),
            Step::Day => row.occurred_at.day().number(),
        };
        steps.entry(number).or_default().push(row);
    }
    steps
}

fn totals(series: &Series) -> BTreeMap<i32, Sums> {
    series.steps.iter().map(|(number, step)| (*number, step.total)).collect()
}

/// The sums of the groups of each step, without groups that have no calls.
fn groups(series: &Series) -> BTreeMap<i32, BTreeMap<Group, Sums>> {
    let of_step = |groups: &BTreeMap<usize, Sums>| {
        groups.iter().map(|(place, sums)| (series.groups[*place].clone(), *sums)).collect()
    };
    series.steps.iter().map(|(number, step)| (*number, of_step(&step.groups))).collect()
}

/// Checks the groups of a series, and the totals and groups of its steps.
fn check(found: &Series, filter: SeriesFilter, rows: &[UsageRow], names: &[(IntegrationId, &str)]) {
    let steps = by_step(filter.step, rows);
    let expected: BTreeMap<i32, Sums> =
        steps.iter().map(|(number, rows)| (*number, sums(rows.iter().copied()))).collect();
    assert_eq!(totals(found), expected, "the totals of {filter:?}");
    let mut largest: Vec<Group> = filter.by.map_or_else(Vec::new, |by| {
        grouped(by, rows, names).into_iter().map(|(group, _)| group).collect()
    });
    largest.truncate(filter.groups_max);
    assert_eq!(found.groups, largest, "the groups of {filter:?}");
    let expected = steps.into_iter().map(|(number, rows)| {
        let mut of_step: BTreeMap<Group, Vec<&UsageRow>> = BTreeMap::new();
        for row in rows {
            let group = filter.by.and_then(|by| group_of(by, row, names));
            if let Some(group) = group.filter(|group| largest.contains(group)) {
                of_step.entry(group).or_default().push(row);
            }
        }
        (number, of_step.into_iter().map(|(group, rows)| (group, sums(rows))).collect())
    });
    assert_eq!(groups(found), expected.collect(), "the groups of the steps of {filter:?}");
}

pub(crate) async fn each_step_is_the_sum_of_its_entries(subject: Subject) {
    let (tenant_id, integrations) = mixed(&subject, 200).await;
    let names = named(integrations);
    let subject = subject.reopened().await;
    let rows = subject.entries(tenant_id).await;
    let kinds = [GroupBy::Integration, GroupBy::Model, GroupBy::Provider];
    for by in [None].into_iter().chain(kinds.map(Some)) {
        for step in [Step::Hour, Step::Day] {
            for integration_id in [None].into_iter().chain(integrations.map(Some)) {
                let own = rows
                    .iter()
                    .filter(|row| integration_id.is_none_or(|id| id == row.integration_id));
                let own: Vec<UsageRow> = own.cloned().collect();
                let filter = SeriesFilter { integration_id, ..all(by, step) };
                check(&series(&subject, tenant_id, filter).await, filter, &own, &names);
            }
        }
    }
}

pub(crate) async fn agents_have_days_but_no_hours(subject: Subject) {
    let (tenant_id, integrations) = mixed(&subject, 200).await;
    let names = named(integrations);
    let rows = subject.entries(tenant_id).await;
    let days = all(Some(GroupBy::Agent), Step::Day);
    check(&series(&subject, tenant_id, days).await, days, &rows, &names);
    let days = SeriesFilter { groups_max: 2, ..days };
    check(&series(&subject, tenant_id, days).await, days, &rows, &names);

    let hours = series(&subject, tenant_id, all(Some(GroupBy::Agent), Step::Hour)).await;
    assert_eq!(hours.groups.len(), 3);
    assert!(groups(&hours).values().all(BTreeMap::is_empty));
    let total = series(&subject, tenant_id, all(None, Step::Hour)).await;
    assert_eq!(totals(&hours), totals(&total));
}

pub(crate) async fn sessions_have_no_steps_of_their_own(subject: Subject) {
    let (tenant_id, _) = mixed(&subject, 200).await;
    for step in [Step::Hour, Step::Day] {
        let found = series(&subject, tenant_id, all(Some(GroupBy::Session), step)).await;
        assert_eq!(found.groups.len(), 3);
        assert!(groups(&found).values().all(BTreeMap::is_empty));
        let total = series(&subject, tenant_id, all(None, step)).await;
        assert_eq!(totals(&found), totals(&total));
    }
}

pub(crate) async fn unlisted_groups_count_in_the_total(subject: Subject) {
    let (tenant_id, integrations) = mixed(&subject, 200).await;
    let names = named(integrations);
    let rows = subject.entries(tenant_id).await;
    for by in [GroupBy::Integration, GroupBy::Model, GroupBy::Provider] {
        for (step, groups_max) in [(Step::Hour, 0), (Step::Hour, 2), (Step::Day, 1)] {
            let filter = SeriesFilter { groups_max, ..all(Some(by), step) };
            check(&series(&subject, tenant_id, filter).await, filter, &rows, &names);
        }
    }
}

pub(crate) async fn the_days_of_a_series_are_inclusive(subject: Subject) {
    let (tenant_id, integration_id) = subject.account(unlimited()).await;
    let (first, last) = (day(2026, 2, 27), day(2026, 3, 2));
    let within = [first, day(2026, 2, 28).plus_seconds(86_399), last.plus_seconds(86_399)];
    let outside = [earlier(first, 1), last.plus_seconds(86_400)];
    for (number, at) in within.into_iter().chain(outside).enumerate() {
        let call = Usage {
            agent_id: Some("agent".into()),
            session_id: Some("session".into()),
            occurred_at: Some(at),
            ..usage(integration_id, &format!("call {number}"))
        };
        subject.record(tenant_id, call).await;
    }
    for by in [None].into_iter().chain(EVERY.map(Some)) {
        for step in [Step::Hour, Step::Day] {
            let days = SeriesFilter { first: first.day(), last: last.day(), ..all(by, step) };
            let found = series(&subject, tenant_id, days).await;
            let expected = within.map(|at| match step {
                Step::Hour => at.hour().number(),
                Step::Day => at.day().number(),
            });
            let steps: Vec<i32> = found.steps.keys().copied().collect();
            assert_eq!(steps, expected, "steps without calls are absent from {days:?}");
            let none = SeriesFilter { first: last.day(), last: first.day(), ..days };
            let none = series(&subject, tenant_id, none).await;
            assert!(none.groups.is_empty() && none.steps.is_empty(), "{days:?}");
        }
    }
}
