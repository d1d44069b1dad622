//! Statistics over all tenants, for the operator's metrics.

use bursar_core::{LimitSettings, Measure, NANOS_PER_CENT, Usage};

use crate::conformance::subject::{Subject, tokens};
use crate::support::{budget, cents, day, request, usage};

fn token_limit(tokens: i64) -> LimitSettings {
    LimitSettings { token_limit_month: tokens, ..LimitSettings::default() }
}

pub(crate) async fn the_integrations_nearest_to_a_limit_come_first(subject: Subject) {
    let world = &subject.world;
    let (a, b) = (world.tenant("a").await, world.tenant("b").await);
    // A record is 1 cent and 30 tokens.
    let tenth = world.integration(a, "tenth", budget(10)).await;
    let half = world.integration(b, "half", budget(2)).await;
    let third = world.integration(b, "third", token_limit(90)).await;
    let both = LimitSettings { token_limit_month: 40, ..budget(1_000) };
    let both = world.integration(a, "both", both).await;
    for (tenant_id, integration_id) in [(a, tenth), (b, half), (b, third), (a, both)] {
        subject.record(tenant_id, usage(integration_id, &integration_id.to_string())).await;
    }
    let order = async |limit| {
        let rows = world.store.near_limits(limit).await.unwrap();
        rows.iter().map(|row| (row.tenant_id, row.integration_id)).collect::<Vec<_>>()
    };
    assert_eq!(order(10).await, [(a, both), (b, half), (b, third), (a, tenth)]);
    assert_eq!(order(2).await, [(a, both), (b, half)]);
    assert_eq!(order(0).await, []);

    let near_limits = world.store.near_limits(1).await.unwrap()[0];
    let of = |measure| near_limits.state(measure).map(|state| (state.taken(), state.amount));
    assert_eq!(of(Measure::Tokens), Some((30, 40)));
    let cent = i128::from(NANOS_PER_CENT);
    assert_eq!(of(Measure::Cost), Some((cent, 1_000 * cent)));
    assert_eq!(of(Measure::Calls), None);
}

pub(crate) async fn one_tenant_does_not_crowd_out_others_near_their_limits(subject: Subject) {
    let world = &subject.world;
    let (loud, quiet) = (world.tenant("loud").await, world.tenant("quiet").await);
    for number in 0..12 {
        let integration_id = world.integration(loud, &format!("{number}"), budget(1)).await;
        subject.record(loud, usage(integration_id, &number.to_string())).await;
    }
    let cool = world.integration(quiet, "cool", budget(1_000)).await;
    subject.record(quiet, usage(cool, "a")).await;
    let rows = world.store.near_limits(8).await.unwrap();
    assert_eq!(rows.len(), 8);
    assert_eq!(rows[7].integration_id, cool);
}

pub(crate) async fn only_live_integrations_with_a_monthly_limit_are_listed(subject: Subject) {
    let world = &subject.world;
    let tenant_id = world.tenant("tenant").await;
    let rate_only = LimitSettings { rate_limit_rpm: 1, ..LimitSettings::default() };
    let rate_only = world.integration(tenant_id, "rate", rate_only).await;
    let deleted = world.integration(tenant_id, "deleted", budget(1)).await;
    let last_month = world.integration(tenant_id, "last month", budget(1)).await;
    world.integration(tenant_id, "unused", budget(1)).await;
    subject.record(tenant_id, usage(rate_only, "a")).await;
    subject.record(tenant_id, usage(deleted, "b")).await;
    let earlier = Usage { occurred_at: Some(day(2026, 2, 3)), ..usage(last_month, "c") };
    subject.record(tenant_id, earlier).await;
    subject.change(tenant_id, move |control| control.delete_integration(deleted)).await;
    assert_eq!(world.store.near_limits(10).await.unwrap(), []);
}

pub(crate) async fn held_amounts_count_towards_near_limits(subject: Subject) {
    let (tenant_id, integration_id) = subject.account(budget(100)).await;
    subject.record(tenant_id, Usage { tokens: tokens(1, 2), ..usage(integration_id, "a") }).await;
    subject.reserve(tenant_id, request(integration_id, "b")).await;
    let near_limits = subject.world.store.near_limits(1).await.unwrap()[0];
    let expected = i128::from(cents(1 + 10).get());
    let state = near_limits.state(Measure::Cost).unwrap();
    assert_eq!((state.taken(), state.amount), (expected, i128::from(cents(100).get())));
    assert_eq!(near_limits.counter, subject.this_month((tenant_id, integration_id)).await);
}

pub(crate) async fn the_stats_count_what_is_stored(subject: Subject) {
    let world = &subject.world;
    let (tenant_id, integration_id) = subject.account(budget(100)).await;
    world.tenant("another").await;
    for call in ["a", "b", "c"] {
        subject.reserve(tenant_id, request(integration_id, call)).await;
    }
    subject.release(tenant_id, "b").await;
    let stats = world.store.stats().await.unwrap();
    assert_eq!((stats.tenants, stats.open_reservations), (2, 2));
    assert!(stats.data_bytes + stats.log_bytes > 0, "{stats:?}");
    // Due reservations do not count, although no sweep has run.
    world.clock.advance(600);
    assert_eq!(world.store.stats().await.unwrap().open_reservations, 0);
}
