//! The rule of protection: each threshold at its limit, and a comparison with a naive model.

#![expect(clippy::unwrap_used, reason = "the tests name what they made")]

use std::time::Duration;

use bursar_core::{
    Breach, Dimension, IntegrationId, OnboardingState, ProtectionDecision, TenantId, Timestamp,
};
use bursar_server::protection::counting::{Capacity, SlidingWindows};
use bursar_server::protection::rule::{ProtectedRequest, Protection, RouteNumber, WindowOwner};
use bursar_server::protection::thresholds::{Pace, RequestClass, Thresholds};
use proptest::prelude::*;

const CAPACITY: Capacity = Capacity { tenants: 100, owners: 100, routes: 100 };
const NOON_MILLIS: i64 = 1_763_640_000_000;

/// The owner of requests with a tenant's credential.
fn tenant(number: i64) -> WindowOwner {
    WindowOwner { tenant_id: TenantId::from_number(number).unwrap(), integration_id: None }
}

/// The owner of requests with the key of an integration.
fn integration(number: i64, integration: i64) -> WindowOwner {
    WindowOwner { integration_id: IntegrationId::from_number(integration), ..tenant(number) }
}

/// This many milliseconds after a noon.
fn at(millis: i64) -> Timestamp {
    Timestamp::from_micros((NOON_MILLIS + millis) * 1_000).unwrap()
}

/// Small thresholds.
fn thresholds() -> Thresholds {
    Thresholds {
        management: Pace { requests_per_minute: 5, requests_per_second: 3 },
        traffic: Pace { requests_per_minute: 50, requests_per_second: 20 },
        anomaly_floor: 10,
    }
}

fn request(millis: i64) -> ProtectedRequest {
    ProtectedRequest {
        owner: tenant(1),
        route: RouteNumber(1),
        class: RequestClass::Management,
        thresholds: thresholds(),
        now: at(millis),
        elapsed: elapsed(millis),
    }
}

fn elapsed(millis: i64) -> Duration {
    Duration::from_millis(millis.try_into().unwrap())
}

fn only(dimension: Dimension, allowed: u32) -> Thresholds {
    Dimension::ALL
        .into_iter()
        .fold(thresholds(), |unlimited, dimension| unlimited.overridden(dimension, 0))
        .overridden(dimension, allowed)
}

#[track_caller]
fn check(rule: &mut SlidingWindows, request: ProtectedRequest, expected: ProtectionDecision) {
    assert_eq!(rule.decide(&request), expected);
}

fn allow(rule: &mut SlidingWindows, request: ProtectedRequest, times: u32) {
    for _ in 0..times {
        check(rule, request, ProtectionDecision::Allow);
    }
}

const fn breach(
    dimension: Dimension,
    retry_after_ms: i64,
    current_value: i64,
    allowed_value: i64,
) -> Breach {
    Breach { dimension, retry_after_ms, current_value, allowed_value }
}

/// The thresholds of management and traffic under an override.
fn overridden(configured: (u32, u32), allowed: u32) -> (u32, u32) {
    let (management, traffic) = configured;
    let pace = |amount| Pace { requests_per_minute: amount, requests_per_second: amount };
    let base = Thresholds { management: pace(management), traffic: pace(traffic), ..thresholds() };
    let [rate, burst] =
        [Dimension::Rate, Dimension::Burst].map(|dimension| base.overridden(dimension, allowed));
    let minutes = (rate.management.requests_per_minute, rate.traffic.requests_per_minute);
    let seconds = (burst.management.requests_per_second, burst.traffic.requests_per_second);
    assert_eq!(minutes, seconds);
    // The other threshold stays.
    assert_eq!(rate.management.requests_per_second, management);
    assert_eq!(rate.traffic.requests_per_second, traffic);
    assert_eq!(burst.management.requests_per_minute, management);
    assert_eq!(burst.traffic.requests_per_minute, traffic);
    minutes
}

#[test]
fn an_override_above_the_management_threshold_never_lowers_traffic() {
    let configured = (1_000, 60_000);
    for allowed in [1_000, 1_001, 5_000, 59_999, 60_000] {
        assert_eq!(overridden(configured, allowed), (allowed, 60_000));
    }
    for allowed in [60_001, u32::MAX] {
        assert_eq!(overridden(configured, allowed), (allowed, allowed));
    }
}

#[test]
fn an_override_below_the_management_threshold_lowers_both() {
    for allowed in [1, 999] {
        assert_eq!(overridden((1_000, 60_000), allowed), (allowed, allowed));
        assert_eq!(overridden((1_000, 0), allowed), (allowed, allowed));
    }
}

#[test]
fn a_threshold_of_0_is_unlimited_for_an_override() {
    assert_eq!(overridden((1_000, 60_000), 0), (0, 0));
    assert_eq!(overridden((0, 0), 0), (0, 0));
    // Unlimited traffic stays unlimited unless the override lowers the management threshold.
    assert_eq!(overridden((1_000, 0), 5_000), (5_000, 0));
    // If management is unlimited, every override lowers it.
    assert_eq!(overridden((0, 60_000), 5_000), (5_000, 5_000));
    assert_eq!(overridden((0, 0), 5_000), (5_000, 5_000));
}

#[test]
fn a_route_is_limited_per_minute_until_requests_leave_the_window() {
    let rule = &mut SlidingWindows::new(CAPACITY);
    let of = |millis| ProtectedRequest { thresholds: only(Dimension::Rate, 5), ..request(millis) };
    allow(rule, of(500), 2);
    allow(rule, of(10_000), 3);
    let rejected = |millis| ProtectionDecision::Reject(breach(Dimension::Rate, millis, 5, 5));
    check(rule, of(10_999), rejected(49_001));
    check(rule, of(59_999), rejected(1));
    allow(rule, of(60_000), 2);
    check(rule, of(60_000), rejected(10_000));
    // Another route and another tenant have their own windows.
    allow(rule, ProtectedRequest { route: RouteNumber(2), ..of(60_000) }, 5);
    allow(rule, ProtectedRequest { owner: tenant(2), ..of(60_000) }, 5);
}

#[test]
fn a_tenant_is_limited_per_second_over_all_routes() {
    let rule = &mut SlidingWindows::new(CAPACITY);
    let of = |millis| ProtectedRequest { thresholds: only(Dimension::Burst, 3), ..request(millis) };
    allow(rule, of(150), 1);
    allow(rule, ProtectedRequest { route: RouteNumber(2), ..of(250) }, 2);
    let throttled = |millis| ProtectionDecision::Throttle(breach(Dimension::Burst, millis, 3, 3));
    check(rule, of(999), throttled(101));
    check(rule, of(1_099), throttled(1));
    allow(rule, of(1_100), 1);
    check(rule, of(1_100), throttled(100));
    allow(rule, ProtectedRequest { owner: tenant(2), ..of(1_100) }, 3);
}

#[test]
fn traffic_and_management_have_separate_limits_per_second() {
    let rule = &mut SlidingWindows::new(CAPACITY);
    let traffic =
        ProtectedRequest { class: RequestClass::Traffic, route: RouteNumber(2), ..request(0) };
    allow(rule, traffic, 20);
    let full = ProtectionDecision::Throttle(breach(Dimension::Burst, 1_000, 20, 20));
    check(rule, traffic, full);
    allow(rule, request(0), 3);
    check(rule, request(0), ProtectionDecision::Throttle(breach(Dimension::Burst, 1_000, 3, 3)));
    // Traffic has no threshold of its own here.
    let gateway =
        ProtectedRequest { class: RequestClass::Gateway, route: RouteNumber(3), ..request(0) };
    for _ in 0..70 {
        assert_eq!(rule.decide(&gateway), ProtectionDecision::Allow);
    }
}

#[test]
fn the_order_is_rate_then_burst() {
    let rule = &mut SlidingWindows::new(CAPACITY);
    let thresholds = Thresholds {
        management: Pace { requests_per_minute: 3, requests_per_second: 3 },
        ..thresholds()
    };
    let of = |millis| ProtectedRequest { thresholds, ..request(millis) };
    let dimension = |rule: &mut SlidingWindows, request| {
        rule.decide(&request).breach().map(|breach| breach.dimension)
    };
    allow(rule, of(0), 3);
    assert_eq!(dimension(rule, of(0)), Some(Dimension::Rate));
    let elsewhere = ProtectedRequest { route: RouteNumber(2), ..of(0) };
    assert_eq!(dimension(rule, elsewhere), Some(Dimension::Burst));
}

#[test]
fn refused_requests_do_not_count() {
    let rule = &mut SlidingWindows::new(CAPACITY);
    allow(rule, request(0), 3);
    for _ in 0..1_000 {
        assert!(matches!(rule.decide(&request(900)), ProtectionDecision::Throttle(_)));
    }
    allow(rule, request(1_000), 2);
    for _ in 0..1_000 {
        assert!(matches!(rule.decide(&request(2_000)), ProtectionDecision::Reject(_)));
    }
    // The first requests leave the window, and the repeated one is admitted.
    allow(rule, request(60_000), 3);
    allow(rule, request(61_000), 2);
}

#[test]
fn exempt_requests_count_and_are_never_refused() {
    let rule = &mut SlidingWindows::new(CAPACITY);
    let of = |millis| ProtectedRequest { thresholds: only(Dimension::Rate, 5), ..request(millis) };
    for _ in 0..8 {
        assert_eq!(rule.count(&of(0)), ProtectionDecision::Allow);
    }
    let full = ProtectionDecision::Reject(breach(Dimension::Rate, 60_000, 8, 5));
    check(rule, of(0), full);
}

#[test]
fn ten_times_the_floor_in_five_minutes_is_an_anomaly_once() {
    let rule = &mut SlidingWindows::new(CAPACITY);
    let of =
        |millis| ProtectedRequest { thresholds: only(Dimension::Anomaly, 10), ..request(millis) };
    let warned = |current| ProtectionDecision::Warn(breach(Dimension::Anomaly, 0, current, 100));
    allow(rule, of(0), 50);
    allow(rule, of(200_000), 49);
    check(rule, of(299_999), warned(100));
    allow(rule, of(299_999), 500);
    // The next window signals again while the last five minutes are above the threshold.
    let recent = of(300_000);
    assert_eq!(rule.decide(&recent).breach().map(|breach| breach.current_value), Some(551));
    // Exempt requests count too.
    let rule = &mut SlidingWindows::new(CAPACITY);
    for _ in 0..99 {
        assert_eq!(rule.count(&of(0)), ProtectionDecision::Allow);
    }
    assert_eq!(rule.count(&of(0)), warned(100));
}

#[test]
fn a_quiet_tenants_first_full_minute_is_no_anomaly() {
    let rule = &mut SlidingWindows::new(CAPACITY);
    let thresholds = Thresholds::default();
    let traffic = RequestClass::Traffic;
    for second in 0..60 {
        let of = ProtectedRequest { thresholds, class: traffic, ..request(second * 1_000) };
        allow(rule, of, 1_000);
    }
    let full = ProtectedRequest { thresholds, class: traffic, ..request(59_999) };
    assert!(matches!(rule.decide(&full), ProtectionDecision::Reject(_)));
}

#[test]
fn the_anomaly_threshold_follows_a_tenants_usual_traffic() {
    let rule = &mut SlidingWindows::new(CAPACITY);
    let of =
        |millis| ProtectedRequest { thresholds: only(Dimension::Anomaly, 10), ..request(millis) };
    let window = 300_000;
    // 200 in each window; the first are an anomaly for a tenant without history.
    for number in 0..200 {
        for _ in 0..200 {
            let decision = rule.decide(&of(number * window));
            assert!(number < 8 || decision == ProtectionDecision::Allow, "{number} {decision:?}");
        }
    }
    let usual = 199;
    for _ in 1..usual * 10 {
        check(rule, of(200 * window), ProtectionDecision::Allow);
    }
    let warned = ProtectionDecision::Warn(breach(Dimension::Anomaly, 0, usual * 10, usual * 10));
    check(rule, of(200 * window), warned);
}

#[test]
fn a_threshold_of_0_refuses_nothing() {
    let rule = &mut SlidingWindows::new(CAPACITY);
    let unlimited = only(Dimension::Anomaly, 0);
    let of = ProtectedRequest { thresholds: unlimited, ..request(0) };
    allow(rule, of, 10_000);
}

#[test]
fn windows_follow_the_monotonic_clock() {
    let rule = &mut SlidingWindows::new(CAPACITY);
    let hour = 3_600_000;
    // The wall clock stands still, jumps an hour ahead, and jumps back.
    let of = |millis, at_millis| ProtectedRequest { now: at(at_millis), ..request(millis) };
    allow(rule, of(0, 0), 3);
    let throttled = |millis| ProtectionDecision::Throttle(breach(Dimension::Burst, millis, 3, 3));
    check(rule, of(300, hour), throttled(700));
    check(rule, of(999, 0), throttled(1));
    allow(rule, of(1_000, 0), 2);
    let rejected = |millis| ProtectionDecision::Reject(breach(Dimension::Rate, millis, 5, 5));
    check(rule, of(2_000, -hour), rejected(58_000));
    check(rule, of(59_999, 24 * hour), rejected(1));
    allow(rule, of(60_000, 0), 3);
}

#[test]
fn a_request_with_an_earlier_clock_reading_counts_in_the_current_window() {
    let rule = &mut SlidingWindows::new(CAPACITY);
    allow(rule, request(1_000), 2);
    allow(rule, request(900), 1);
    let full = ProtectionDecision::Throttle(breach(Dimension::Burst, 1_100, 3, 3));
    check(rule, request(900), full);
    allow(rule, request(2_000), 2);
}

#[test]
fn an_integration_has_its_own_windows() {
    let rule = &mut SlidingWindows::new(CAPACITY);
    let of = |owner, millis| ProtectedRequest { owner, ..request(millis) };
    allow(rule, of(integration(1, 1), 0), 3);
    let burst = ProtectionDecision::Throttle(breach(Dimension::Burst, 1_000, 3, 3));
    check(rule, of(integration(1, 1), 0), burst);
    // Not those of the tenant, of its other integrations, or of another tenant's integration.
    for owner in [tenant(1), integration(1, 2), integration(2, 1)] {
        allow(rule, of(owner, 0), 3);
        check(rule, of(owner, 0), burst);
    }
    allow(rule, of(integration(1, 1), 1_000), 2);
    let rate = ProtectionDecision::Reject(breach(Dimension::Rate, 58_000, 5, 5));
    check(rule, of(integration(1, 1), 2_000), rate);
    allow(rule, of(tenant(1), 2_000), 2);
}

#[test]
fn an_anomaly_counts_all_requests_of_a_tenant_whatever_their_keys() {
    let rule = &mut SlidingWindows::new(CAPACITY);
    let thresholds = only(Dimension::Anomaly, 10);
    for number in 1..100 {
        let owner = if number % 2 == 0 { tenant(1) } else { integration(1, number) };
        allow(rule, ProtectedRequest { owner, thresholds, ..request(0) }, 1);
    }
    let warned = ProtectionDecision::Warn(breach(Dimension::Anomaly, 0, 100, 100));
    check(rule, ProtectedRequest { thresholds, ..request(0) }, warned);
}

#[test]
fn memory_is_bounded_for_any_number_of_tenants_and_routes() {
    let rule = &mut SlidingWindows::new(Capacity { tenants: 10, owners: 15, routes: 20 });
    for number in 1..=1_000 {
        for route in 0..7 {
            for owner in [tenant(number), integration(number, 1)] {
                rule.decide(&ProtectedRequest { owner, route: RouteNumber(route), ..request(0) });
            }
        }
    }
    assert_eq!(rule.remembered(), (10, 15, 20));
    // An evicted tenant starts with empty windows.
    allow(rule, request(0), 3);
    assert!(matches!(rule.decide(&request(0)), ProtectionDecision::Throttle(_)));
}

#[test]
fn clearing_a_tenant_resets_only_its_windows() {
    let rule = &mut SlidingWindows::new(CAPACITY);
    let of = |owner| ProtectedRequest { owner, ..request(0) };
    let full = ProtectionDecision::Throttle(breach(Dimension::Burst, 1_000, 3, 3));
    let owners = [tenant(1), integration(1, 7), tenant(2), integration(2, 7)];
    for owner in owners {
        allow(rule, of(owner), 3);
    }
    let [one, two] = [tenant(1), tenant(2)].map(|owner| owner.tenant_id);
    let mut windows = rule.windows();
    windows.sort_unstable();
    // Two windows for each owner, and the usual traffic of the tenant.
    assert_eq!(windows, [(one, 5), (two, 5)]);
    assert_eq!((rule.clear(Some(one)), rule.clear(Some(one))), (5, 0));
    for owner in [tenant(2), integration(2, 7)] {
        check(rule, of(owner), full);
    }
    for owner in [tenant(1), integration(1, 7)] {
        allow(rule, of(owner), 3);
        check(rule, of(owner), full);
    }
    assert_eq!((rule.clear(None), rule.remembered()), (10, (0, 0, 0)));
    for owner in owners {
        allow(rule, of(owner), 3);
    }
}

#[test]
fn a_tenant_has_at_most_the_windows_of_its_capacity() {
    let capacity = Capacity { tenants: 100, owners: 80, routes: 80 };
    let rule = &mut SlidingWindows::new(capacity);
    for number in 0..1_000 {
        let owner = if number % 2 == 0 { tenant(1) } else { integration(1, number) };
        let route = RouteNumber((number / 2 % 7) as u16);
        rule.decide(&ProtectedRequest { owner, route, ..request(number) });
    }
    let windows = capacity.tenant_windows_max(7) as usize;
    assert_eq!(rule.windows(), [(tenant(1).tenant_id, windows)]);
    assert_eq!(capacity.windows_max(), 260);
}

#[test]
fn a_tenant_with_many_integrations_takes_only_its_share_of_windows() {
    let rule = &mut SlidingWindows::new(Capacity { tenants: 100, owners: 80, routes: 80 });
    let thresholds = Thresholds { anomaly_floor: 0, ..thresholds() };
    let of = |owner| ProtectedRequest { owner, thresholds, ..request(0) };
    let full = ProtectionDecision::Throttle(breach(Dimension::Burst, 1_000, 3, 3));
    for number in 1..=20 {
        allow(rule, of(tenant(number)), 3);
        allow(rule, of(integration(number, 1)), 3);
    }
    for number in 1..=1_000 {
        allow(rule, of(integration(1, number + 1)), 1);
    }
    // Its integrations take an eighth of 80; the other tenants and its own windows stay.
    assert_eq!(rule.remembered(), (20, 49, 49));
    for number in 1..=20 {
        check(rule, of(tenant(number)), full);
        if number > 1 {
            check(rule, of(integration(number, 1)), full);
        }
    }
    // Its integrations evict each other, and the busy one stays.
    allow(rule, of(integration(1, 1)), 3);
    for number in 1..=1_000 {
        allow(rule, of(integration(1, number + 1)), 1);
        check(rule, of(integration(1, 1)), full);
    }
}

/// Asserts the thresholds of a tenant in onboarding: management, traffic and the anomaly floor.
#[track_caller]
fn check_setup(overrides: &[(Dimension, u32)], expected: [u32; 3]) {
    let thresholds = Thresholds::default();
    let held = thresholds.of_tenant(OnboardingState::Created, overrides.iter().copied());
    let Thresholds { management, traffic, anomaly_floor, .. } = held;
    let (rate, burst) = (management.requests_per_minute, management.requests_per_second);
    assert_eq!([rate, traffic.requests_per_minute, anomaly_floor], expected);
    assert_eq!((burst, traffic.requests_per_second), (1_000, 50_000), "bursts have no override");
}

#[test]
fn a_tenant_in_onboarding_has_ten_times_the_thresholds_and_overrides_are_absolute() {
    check_setup(&[], [10_000, 600_000, 100_000]);
    check_setup(&[(Dimension::Rate, 1)], [1, 1, 100_000]);
    check_setup(&[(Dimension::Rate, 5_000)], [5_000, 60_000, 100_000]);
    check_setup(&[(Dimension::Rate, 70_000)], [70_000, 70_000, 100_000]);
    check_setup(&[(Dimension::Rate, 0), (Dimension::Anomaly, 7)], [0, 0, 7]);
    // An override of the cost is not protection's.
    check_setup(&[(Dimension::Cost, 1)], [10_000, 600_000, 100_000]);
    // Unlimited stays unlimited, and nothing overflows.
    let pace = |amount| Pace { requests_per_minute: amount, requests_per_second: amount };
    let odd = Thresholds { management: pace(0), traffic: pace(u32::MAX), anomaly_floor: 0 };
    assert_eq!(odd.of_tenant(OnboardingState::SdkConnected, []), odd);
    let complete = Thresholds::default().of_tenant(OnboardingState::Complete, []);
    assert_eq!(complete, Thresholds::default());
}

/// The naive model: a list of all requests.
#[derive(Default)]
struct Naive(Vec<ProtectedRequest>);

impl Naive {
    fn count(&self, is_counted: impl Fn(&ProtectedRequest) -> bool) -> i64 {
        self.0.iter().filter(|request| is_counted(request)).count() as i64
    }

    fn exceeded(&self, request: &ProtectedRequest, now: Timestamp) -> Option<Dimension> {
        let pace = match request.class {
            RequestClass::Management => request.thresholds.management,
            RequestClass::Traffic => request.thresholds.traffic,
            RequestClass::Gateway => return None,
        };
        let minute = self.count(|one| {
            (one.owner, one.route) == (request.owner, request.route)
                && one.now.second() > now.second() - 60
        });
        let tenth = |at: Timestamp| at.micros() / 100_000;
        let second = self.count(|one| {
            (one.owner, one.class) == (request.owner, request.class)
                && tenth(one.now) > tenth(now) - 10
        });
        let is_full = |count: i64, allowed: u32| allowed > 0 && count >= i64::from(allowed);
        if is_full(minute, pace.requests_per_minute) {
            Some(Dimension::Rate)
        } else {
            is_full(second, pace.requests_per_second).then_some(Dimension::Burst)
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<(i64, (i64, i64), u16, bool)>> {
    let ahead = prop_oneof![4 => 0i64..40, 2 => 0i64..900, 1 => 0i64..30_000];
    let owner = (1i64..3, 0i64..2);
    prop::collection::vec((ahead, owner, 0u16..3, any::<bool>()), 1..300)
}

proptest! {
    #[test]
    fn the_rule_agrees_with_a_naive_list_of_requests(steps in steps()) {
        let mut rule = SlidingWindows::new(CAPACITY);
        let mut naive = Naive::default();
        let mut millis = 0;
        for (ahead, (number, key), route, is_traffic) in steps {
            millis += ahead;
            // Each route has one class.
            let class = if is_traffic { RequestClass::Traffic } else { RequestClass::Management };
            let route = RouteNumber(route + if is_traffic { 10 } else { 0 });
            let thresholds = Thresholds { anomaly_floor: 0, ..thresholds() };
            let request = ProtectedRequest {
                // With the key of an integration or another credential of its tenant.
                owner: integration(number, key),
                route,
                class,
                thresholds,
                ..request(millis)
            };
            let decision = rule.decide(&request);
            let expected = naive.exceeded(&request, request.now);
            prop_assert_eq!(decision.breach().map(|breach| breach.dimension), expected);
            match decision.breach() {
                None => naive.0.push(request),
                Some(breach) => {
                    // The wait ends exactly when this dimension admits the request.
                    let end = at(millis + breach.retry_after_ms);
                    let before = at(millis + breach.retry_after_ms - 1);
                    prop_assert_ne!(naive.exceeded(&request, end), expected);
                    prop_assert_eq!(naive.exceeded(&request, before), expected);
                }
            }
        }
    }
}
