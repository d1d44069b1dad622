//! The grains of rollups: quarter hours, keys, tags, statuses, sources and the largest latency.

use std::collections::BTreeMap;

use bursar_core::{
    Day, IntegrationId, KeyId, TagNames, Tags, TenantId, TokenBuckets, TokenCounts, Usage,
    UsageStatus,
};
use bursar_store::{DayFilter, OTHER, SeriesFilter, Step};
use bursar_testing::chance::Chance;

use crate::conformance::mixture::POLICIES;
use crate::conformance::subject::{ALL, Subject, earlier, unlimited};
use crate::support::{cents, day, request, usage};

fn tagged(integration_id: IntegrationId, call: &str, tags: &[(&str, &str)]) -> Usage {
    let mut all = Tags::default();
    for (name, value) in tags {
        assert!(all.add(name, value));
    }
    Usage { tags: all, ..usage(integration_id, call) }
}

fn key(number: i64) -> Option<KeyId> {
    KeyId::from_number(number)
}

async fn list_names(subject: &Subject, tenant_id: TenantId, names: &[&str]) {
    let names = TagNames::new(names.iter().copied()).unwrap();
    subject.change(tenant_id, move |control| control.set_tag_names(&names)).await;
}

/// The calls by name and value of a tag, with those of all days and integrations added up.
fn values(subject: &Subject, tenant_id: TenantId) -> BTreeMap<(String, String), i64> {
    let mut values = BTreeMap::new();
    for (name, value, calls) in subject.tags(tenant_id) {
        *values.entry((name, value)).or_default() += calls;
    }
    values
}

fn value(name: &str, value: &str, calls: i64) -> ((String, String), i64) {
    ((name.to_owned(), value.to_owned()), calls)
}

pub(crate) async fn a_tag_is_counted_by_value_while_its_name_is_listed(subject: Subject) {
    let (tenant_id, integration_id) = subject.account(unlimited()).await;
    let both = [("feature", "chat"), ("team", "search")];
    subject.record(tenant_id, tagged(integration_id, "before", &both)).await;
    assert_eq!(values(&subject, tenant_id), [].into());

    list_names(&subject, tenant_id, &["team"]).await;
    let subject = subject.reopened().await;
    subject.record(tenant_id, tagged(integration_id, "listed", &both)).await;
    subject.record(tenant_id, tagged(integration_id, "ads", &[("team", "ads")])).await;
    subject.record(tenant_id, usage(integration_id, "without tags")).await;
    let teams = [value("team", "ads", 1), value("team", "search", 1)];
    assert_eq!(values(&subject, tenant_id), teams.clone().into());
    subject.world.verify().await;

    list_names(&subject, tenant_id, &["feature"]).await;
    subject.record(tenant_id, tagged(integration_id, "other", &both)).await;
    let feature = value("feature", "chat", 1);
    let expected = [feature].into_iter().chain(teams).collect::<BTreeMap<_, _>>();
    assert_eq!(values(&subject, tenant_id), expected);
    subject.world.verify().await;
}

pub(crate) async fn values_past_a_thousand_of_one_tag_are_counted_as_other(subject: Subject) {
    let (tenant_id, integration_id) = subject.account(unlimited()).await;
    list_names(&subject, tenant_id, &["customer", "team"]).await;
    let of_customer = |number: usize, call: &str| {
        let customer = format!("customer {number:04}");
        let tags = [("customer", customer.as_str()), ("team", "ads")];
        tagged(integration_id, &format!("{call} {number}"), &tags)
    };
    for first in [0, 600] {
        let batch = (first..first + 600).map(|number| of_customer(number, "first")).collect();
        subject.world.ledger.record(tenant_id, batch).await.unwrap();
    }
    let subject = subject.reopened().await;
    let again = vec![of_customer(7, "again"), of_customer(1_100, "again")];
    subject.world.ledger.record(tenant_id, again).await.unwrap();
    // Another tag has values of its own.
    let late = tagged(integration_id, "late", &[("team", "late")]);
    subject.record(tenant_id, late).await;

    let values = values(&subject, tenant_id);
    let calls = |name: &str, value: &str| values.get(&(name.to_owned(), value.to_owned())).copied();
    assert_eq!(values.len(), 1_001 + 2);
    assert_eq!(calls("customer", "customer 0007"), Some(2));
    assert_eq!(calls("customer", "customer 1100"), None);
    assert_eq!(calls("customer", OTHER), Some(201));
    assert_eq!((calls("team", "ads"), calls("team", "late")), (Some(1_202), Some(1)));
    subject.world.verify().await;
}

pub(crate) async fn tag_names_are_replaced_and_audited(subject: Subject) {
    let tenant_id = subject.tenant().await;
    let stranger = subject.world.tenant("stranger").await;
    for names in [&["team", "feature"][..], &["customer"], &[]] {
        list_names(&subject, tenant_id, names).await;
        let expected = TagNames::new(names.iter().copied()).unwrap();
        let store = &subject.world.store;
        assert_eq!(store.tag_names(tenant_id).await.unwrap(), expected);
        assert_eq!(store.tag_names(stranger).await.unwrap(), TagNames::default());
    }
    let changes = subject.audit().into_iter().filter(|[action, ..]| action == "tag_names.update");
    let targets: Vec<String> = changes.map(|[_, target, _]| target).collect();
    assert_eq!(targets, vec![tenant_id.to_string(); 3]);
}

pub(crate) async fn a_day_distinguishes_the_keys_that_wrote_its_calls(subject: Subject) {
    let (tenant_id, integration_id) = subject.account(unlimited()).await;
    for (call, key_id) in [("1", key(7)), ("2", key(9)), ("3", key(7)), ("4", None)] {
        subject.record(tenant_id, Usage { key_id, ..usage(integration_id, call) }).await;
    }
    assert_eq!(subject.keys(tenant_id), [(0, 1), (7, 2), (9, 1)]);
    let today = subject.world.clock.now().day();
    let days = subject.days(tenant_id, (None, today, today)).await;
    assert_eq!(days.iter().map(|day| day.sums.calls).collect::<Vec<_>>(), [4]);
    let filter = DayFilter { integration_id: None, first: today, last: today, after: None };
    let page = subject.world.store.usage_by_day(tenant_id, filter, ALL).await.unwrap();
    assert_eq!(page.total, Some(1), "a day of an integration is one row");
    subject.world.verify().await;
}

pub(crate) async fn keys_past_a_thousand_a_day_are_counted_together(subject: Subject) {
    let (tenant_id, integration_id) = subject.account(unlimited()).await;
    let second = subject.world.integration(tenant_id, "second", unlimited()).await;
    let of_key = |integration_id, number: i64, call: &str| Usage {
        key_id: key(number),
        ..usage(integration_id, &format!("{call} {number}"))
    };
    for first in [1, 601] {
        let batch = (first..first + 600).map(|number| of_key(integration_id, number, "first"));
        subject.world.ledger.record(tenant_id, batch.collect()).await.unwrap();
    }
    let subject = subject.reopened().await;
    let again = [7, 1_100, 1_300].map(|number| of_key(integration_id, number, "again"));
    let without = Usage { key_id: None, ..usage(integration_id, "without a key") };
    let of_other = Usage { model: "late".into(), ..of_key(integration_id, 7, "late") };
    // Another integration, and another day, have keys of their own.
    let elsewhere = of_key(second, 1_300, "elsewhere");
    let occurred_at = Some(earlier(subject.world.clock.now(), 86_400));
    let yesterday = Usage { occurred_at, ..of_key(integration_id, 1_300, "yesterday") };
    let batch = again.into_iter().chain([without, of_other, elsewhere, yesterday]).collect();
    subject.world.ledger.record(tenant_id, batch).await.unwrap();

    let keys = subject.keys(tenant_id);
    let calls = |key: i64| keys.iter().filter(|row| row.0 == key).map(|row| row.1).collect();
    let (none, seventh, other): (Vec<i64>, Vec<i64>, Vec<i64>) = (calls(0), calls(7), calls(-1));
    assert_eq!((none, seventh), (vec![1], vec![2]));
    // 202 calls of the first model, and one of the second.
    assert_eq!(other, [202, 1]);
    let late: Vec<i64> = calls(1_300);
    assert_eq!(late, [1, 1]);
    subject.world.verify().await;
}

pub(crate) async fn a_series_by_hour_adds_up_its_quarters(subject: Subject) {
    let (tenant_id, integration_id) = subject.account(unlimited()).await;
    let midnight = day(2026, 3, 14);
    for (call, seconds) in [("1", 0), ("2", 899), ("3", 900), ("4", 3_599), ("5", 3_600)] {
        let occurred_at = Some(midnight.plus_seconds(seconds));
        subject.record(tenant_id, Usage { occurred_at, ..usage(integration_id, call) }).await;
    }
    let sql = "select start, calls from rollups where grain = 1 order by start";
    let rows = subject.world.database.rows(&[sql]).remove(0);
    let first = midnight.quarter_hour().number();
    let calls = |row: &[Option<String>]| {
        let number = |at: usize| row[at].as_ref().unwrap().parse::<i32>().unwrap();
        (number(0) - first, number(1))
    };
    let quarters: Vec<(i32, i32)> = rows.iter().map(|row| calls(row)).collect();
    assert_eq!(quarters, [(0, 2), (1, 1), (3, 1), (4, 1)]);
    let filter = SeriesFilter {
        by: None,
        step: Step::Hour,
        integration_id: None,
        first: midnight.day(),
        last: midnight.day(),
        groups_max: 1,
    };
    let series = subject.world.store.usage_series(tenant_id, filter).await.unwrap();
    let first = midnight.hour().number();
    let hours: Vec<(i32, i64)> =
        series.steps.iter().map(|(hour, step)| (hour - first, step.total.calls)).collect();
    assert_eq!(hours, [(0, 4), (1, 1)]);
}

/// The figures of the only rollup by model and day.
fn figures<const N: usize>(subject: &Subject, columns: [&str; N]) -> [i64; N] {
    let sql = format!("select {} from rollups where grain = 2", columns.join(", "));
    let rows = subject.world.database.rows(&[&sql]).remove(0);
    let [row] = rows.as_slice() else { unreachable!("{rows:?}") };
    std::array::from_fn(|at| row[at].as_ref().unwrap().parse().unwrap())
}

pub(crate) async fn the_largest_latency_of_all_groups_is_kept(subject: Subject) {
    let (tenant_id, integration_id) = subject.account(unlimited()).await;
    let slow = |call: &str, latency_ms| Usage { latency_ms, ..usage(integration_id, call) };
    let group = vec![slow("1", Some(300)), slow("2", Some(700)), slow("3", None)];
    subject.world.ledger.record(tenant_id, group).await.unwrap();
    let latency = |subject: &Subject| figures(subject, ["latency_max_ms", "latency_sum_ms"]);
    assert_eq!(latency(&subject), [700, 1_000]);
    for (call, latency_ms, largest) in [("4", 500, 700), ("5", 900, 900), ("6", 0, 900)] {
        subject.record(tenant_id, slow(call, Some(latency_ms))).await;
        assert_eq!(latency(&subject)[0], largest);
    }
    subject.world.verify().await;
}

pub(crate) async fn calls_are_counted_by_status_and_source(subject: Subject) {
    let (tenant_id, integration_id) = subject.account(unlimited()).await;
    subject.reserve(tenant_id, request(integration_id, "held")).await;
    let statuses = [
        ("1", UsageStatus::Final),
        ("2", UsageStatus::Partial),
        ("3", UsageStatus::Partial),
        ("4", UsageStatus::Estimated),
        ("held", UsageStatus::Missing),
    ];
    for (call, usage_status) in statuses {
        let cost = ["1", "2"].contains(&call).then(|| cents(3));
        let record = Usage { usage_status, cost, ..usage(integration_id, call) };
        subject.record(tenant_id, record).await;
    }
    let by_status = ["status_final", "status_partial", "status_estimated", "status_missing"];
    assert_eq!(figures(&subject, by_status), [1, 2, 1, 1]);
    let by_source = ["cost_reported", "cost_computed", "cost_held", "cost_unknown"];
    assert_eq!(figures(&subject, by_source), [2, 0, 1, 2]);
    let today = subject.world.clock.now().day();
    let days = subject.days(tenant_id, (None, today, today)).await;
    assert_eq!(days[0].sums.unpriced, 2);
    subject.world.verify().await;
}

/// A call of which every field that rollups use is random.
fn any_call(chance: &mut Chance, integration_id: IntegrationId, number: usize) -> Usage {
    let mut tags = Tags::default();
    for name in ["customer", "feature", "team"] {
        let value = format!("value {}", chance.between(1, 4));
        if !chance.percent(40) {
            assert!(tags.add(name, &value));
        }
    }
    let part = |chance: &mut Chance| chance.between(0, 50);
    let cache_write = part(chance);
    let counts = TokenCounts {
        tokens_in: 200 + part(chance),
        tokens_out: 150 + part(chance),
        cache_read: part(chance),
        cache_write,
        cache_write_long: chance.between(0, cache_write),
        audio_in: part(chance),
        image_in: part(chance),
        reasoning: part(chance),
        audio_out: part(chance),
        image_out: part(chance),
    };
    let statuses =
        [UsageStatus::Final, UsageStatus::Partial, UsageStatus::Estimated, UsageStatus::Missing];
    let ago = chance.between(0, 3 * 86_400);
    Usage {
        tags,
        tokens: TokenBuckets::checked(counts).unwrap(),
        usage_status: chance.one_of(&statuses),
        model: format!("model {}", chance.between(1, 3)).into(),
        agent_id: chance.percent(50).then(|| format!("agent {}", chance.between(1, 3)).into()),
        key_id: key(chance.between(0, 4)).filter(|key| key.number() > 0),
        cost: chance.percent(60).then(|| cents(chance.between(0, 40))),
        latency_ms: chance.percent(80).then(|| chance.between(0, 60_000)),
        policy_result: chance.one_of(&POLICIES),
        error_code: chance.percent(20).then(|| "failed".into()),
        occurred_at: Some(earlier(day(2026, 3, 14), ago)),
        ..usage(integration_id, &format!("call {number}"))
    }
}

pub(crate) async fn a_random_history_adds_up_in_every_grain(mut subject: Subject) {
    let (tenant_id, first) = subject.account(unlimited()).await;
    let second = subject.world.integration(tenant_id, "second", unlimited()).await;
    let mut chance = Chance::new(17);
    let mut number = 0;
    for round in 0..20 {
        let names: Vec<&str> =
            ["customer", "feature", "team"].into_iter().filter(|_| chance.percent(50)).collect();
        list_names(&subject, tenant_id, &names).await;
        for _ in 0..4 {
            let calls = chance.between(1, 30) as usize;
            let batch = (number..number + calls)
                .map(|number| any_call(&mut chance, [first, second][number % 2], number))
                .collect();
            subject.world.ledger.record(tenant_id, batch).await.unwrap();
            number += calls;
        }
        if round % 7 == 3 {
            subject = subject.reopened().await;
        }
    }
    subject.world.verify().await;
    let grains = "select grain, max(calls) from rollups group by grain order by grain";
    let rows = subject.world.database.rows(&[grains]).remove(0);
    assert_eq!(rows.len(), 4, "{rows:?}");
    let (from, to) = (Day::from_number(0), day(9999, 12, 31).day());
    let days = subject.days(tenant_id, (None, from, to)).await;
    assert_eq!(days.iter().map(|day| day.sums.calls).sum::<i64>(), number as i64);
}
