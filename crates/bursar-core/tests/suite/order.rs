//! The order of the checks of a decision, and the exact bounds of every limit.

#![expect(clippy::unwrap_used, reason = "the accounts and estimates of a test are valid")]

use bursar_core::{
    Account, Caps, Counter, Estimate, FailureCause, Health, IntegrationStatus, LimitSettings,
    LimitsInForce, Measure, Month, NANOS_PER_CENT, Nanos, Overflow, Reason, ReasonCode,
    TenantLifecycle, Timestamp, Totals, UNSWEPT_MAX, Verdict, decide, warn_percent,
};

use crate::support::storage::Profile;
use crate::support::{now, seconds, shifted, tenant};

/// A dollar.
const BUDGET: i64 = 100 * NANOS_PER_CENT;
const TOKENS: i64 = 1_000;
const RATE: i64 = 3;

/// Everything that a decision depends on.
struct Case {
    profile: Profile,
    used: Totals,
    held: Totals,
    /// The seconds ago of each call in the rate window.
    calls_ago: Vec<i64>,
    estimate: Estimate,
}

/// A call that is allowed under all limits.
fn good() -> Case {
    let limits =
        LimitSettings { budget_limit_cents: 100, token_limit_month: TOKENS, rate_limit_rpm: RATE };
    Case {
        profile: Profile::enabled(tenant(1), limits),
        used: Totals::default(),
        held: Totals::default(),
        calls_ago: Vec::new(),
        estimate: Estimate::default(),
    }
}

fn account(case: &Case, months: &[(Month, Counter)]) -> Account {
    let Profile { tenant_id, lifecycle, integration } = case.profile;
    let mut account = Account::new(tenant_id, lifecycle, integration);
    for (month, counter) in months {
        account.restore(*month, *counter);
    }
    for ago in &case.calls_ago {
        account.rate.add(now().second() - ago, now().second());
    }
    account
}

#[track_caller]
fn check(change: impl FnOnce(&mut Case), verdict: Verdict, reasons: &[Reason]) {
    let mut case = good();
    change(&mut case);
    let counter = Counter { used: case.used, held: case.held, last_at: Timestamp::MIN };
    let account = account(&case, &[(now().month(), counter)]);
    let decision = decide(&account, &LimitsInForce::default(), case.estimate, now()).unwrap();
    assert_eq!((decision.verdict, decision.reasons.as_slice()), (verdict, reasons));
}

fn plain(code: ReasonCode) -> Reason {
    Reason {
        code,
        measure: None,
        limit_value: 0,
        current_value: 0,
        threshold_percent: None,
        retry_after_seconds: None,
    }
}

fn of_limit(code: ReasonCode, measure: Measure, limit: i64, current: i64, percent: u8) -> Reason {
    Reason {
        measure: Some(measure),
        limit_value: limit.into(),
        current_value: current.into(),
        threshold_percent: Some(percent),
        ..plain(code)
    }
}

fn budget_exceeded(current: i64) -> Reason {
    of_limit(ReasonCode::BudgetExceeded, Measure::Cost, BUDGET, current, 100)
}

fn tokens_exceeded(current: i64) -> Reason {
    of_limit(ReasonCode::TokenLimitExceeded, Measure::Tokens, TOKENS, current, 100)
}

fn rate_exceeded(limit: i64, current: i64, retry_after_seconds: u32) -> Reason {
    let reason = of_limit(ReasonCode::RateLimitExceeded, Measure::Calls, limit, current, 100);
    Reason { retry_after_seconds: Some(retry_after_seconds), ..reason }
}

fn budget_warning(current: i64) -> Reason {
    of_limit(ReasonCode::BudgetWarning, Measure::Cost, BUDGET, current, 80)
}

fn token_warning(current: i64) -> Reason {
    of_limit(ReasonCode::TokenWarning, Measure::Tokens, TOKENS, current, 80)
}

fn passed() -> Reason {
    plain(ReasonCode::AllChecksPassed)
}

fn cost(nanos: i64) -> Totals {
    Totals { cost: Nanos::new(nanos), ..Totals::default() }
}

fn tokens(tokens: i64) -> Totals {
    Totals { tokens, ..Totals::default() }
}

/// A fault, and the decision if no earlier check fails.
struct Fault {
    put: fn(&mut Case),
    verdict: Verdict,
    reason: Reason,
}

fn hard(put: fn(&mut Case), code: ReasonCode) -> Fault {
    Fault { put, verdict: Verdict::HardBlocked, reason: plain(code) }
}

/// Every fault that decides on its own, in the order of the checks in docs/concepts.md.
///
/// Faults of one field (status, health) exclude each other: the last one applies.
fn faults() -> Vec<Fault> {
    vec![
        hard(|c| c.profile.lifecycle = TenantLifecycle::Suspended, ReasonCode::TenantSuspended),
        hard(
            |c| c.profile.integration.status = IntegrationStatus::Deleted,
            ReasonCode::IntegrationNotFound,
        ),
        hard(
            |c| c.profile.integration.status = IntegrationStatus::Disabled,
            ReasonCode::IntegrationDisabled,
        ),
        hard(
            |c| c.profile.integration.status = IntegrationStatus::Created,
            ReasonCode::IntegrationNotEnabled,
        ),
        hard(
            |c| c.profile.integration.status = IntegrationStatus::Error,
            ReasonCode::IntegrationError,
        ),
        hard(
            |c| c.profile.integration.health = Health::Failing(FailureCause::Credential),
            ReasonCode::CredentialsInvalid,
        ),
        Fault {
            put: |c| c.used.cost = Nanos::new(BUDGET),
            verdict: Verdict::Blocked,
            reason: budget_exceeded(BUDGET),
        },
        Fault {
            put: |c| c.used.tokens = TOKENS,
            verdict: Verdict::Blocked,
            reason: tokens_exceeded(TOKENS),
        },
        Fault {
            put: |c| c.calls_ago = vec![0; RATE as usize],
            verdict: Verdict::Throttled,
            reason: rate_exceeded(RATE, RATE, 60),
        },
        Fault {
            put: |c| c.estimate.cost = Nanos::new(BUDGET * 8 / 10),
            verdict: Verdict::Warned,
            reason: budget_warning(0),
        },
    ]
}

#[test]
fn a_call_without_a_fault_is_allowed() {
    check(|_| {}, Verdict::Allowed, &[passed()]);
}

#[test]
fn each_fault_alone_decides() {
    for fault in faults() {
        check(fault.put, fault.verdict, &[fault.reason]);
    }
}

#[test]
fn the_earlier_of_two_faults_decides() {
    let faults = faults();
    for (index, earlier) in faults.iter().enumerate() {
        for later in faults.iter().skip(index + 1) {
            let both = |case: &mut Case| {
                (later.put)(case);
                (earlier.put)(case);
            };
            check(both, earlier.verdict, &[earlier.reason]);
        }
    }
}

#[test]
fn with_every_fault_the_first_one_decides() {
    let all = |case: &mut Case| faults().iter().rev().for_each(|fault| (fault.put)(case));
    check(all, Verdict::HardBlocked, &[plain(ReasonCode::TenantSuspended)]);
}

#[test]
fn a_tenant_that_is_not_active_is_hard_blocked() {
    for lifecycle in
        [TenantLifecycle::Suspended, TenantLifecycle::Terminated, TenantLifecycle::Archived]
    {
        check(
            |c| c.profile.lifecycle = lifecycle,
            Verdict::HardBlocked,
            &[plain(ReasonCode::TenantSuspended)],
        );
    }
}

#[test]
fn only_failing_health_affects_a_decision() {
    for health in [Health::Unknown, Health::Healthy, Health::Degraded] {
        check(|c| c.profile.integration.health = health, Verdict::Allowed, &[passed()]);
    }
    check(
        |c| c.profile.integration.health = Health::Failing(FailureCause::Credential),
        Verdict::HardBlocked,
        &[plain(ReasonCode::CredentialsInvalid)],
    );
    check(
        |c| c.profile.integration.health = Health::Failing(FailureCause::Provider),
        Verdict::Warned,
        &[plain(ReasonCode::ProviderUnreachable)],
    );
}

#[test]
fn the_budget_is_exceeded_at_its_limit_or_by_an_estimate_above_it() {
    let half = BUDGET / 2;
    check(|c| c.used = cost(BUDGET), Verdict::Blocked, &[budget_exceeded(BUDGET)]);
    check(|c| c.held = cost(BUDGET), Verdict::Blocked, &[budget_exceeded(BUDGET)]);
    check(
        |c| (c.used, c.held) = (cost(half), cost(half)),
        Verdict::Blocked,
        &[budget_exceeded(BUDGET)],
    );
    check(|c| c.used = cost(BUDGET - 1), Verdict::Warned, &[budget_warning(BUDGET - 1)]);
    let last = |estimate: i64| {
        move |c: &mut Case| {
            (c.used, c.held) = (cost(half), cost(half - 10));
            c.estimate.cost = Nanos::new(estimate);
        }
    };
    check(last(10), Verdict::Warned, &[budget_warning(BUDGET - 10)]);
    check(last(11), Verdict::Blocked, &[budget_exceeded(BUDGET - 10)]);
    check(|c| c.estimate.cost = Nanos::new(BUDGET + 1), Verdict::Blocked, &[budget_exceeded(0)]);
}

#[test]
fn the_token_limit_is_exceeded_at_its_limit_or_by_an_estimate_above_it() {
    check(|c| c.used = tokens(TOKENS), Verdict::Blocked, &[tokens_exceeded(TOKENS)]);
    check(|c| c.held = tokens(TOKENS), Verdict::Blocked, &[tokens_exceeded(TOKENS)]);
    check(
        |c| (c.used, c.held) = (tokens(600), tokens(400)),
        Verdict::Blocked,
        &[tokens_exceeded(TOKENS)],
    );
    check(|c| c.used = tokens(TOKENS - 1), Verdict::Warned, &[token_warning(TOKENS - 1)]);
    let last = |estimate: i64| {
        move |c: &mut Case| {
            (c.used, c.held) = (tokens(500), tokens(490));
            c.estimate.tokens = estimate;
        }
    };
    check(last(10), Verdict::Warned, &[token_warning(990)]);
    check(last(11), Verdict::Blocked, &[tokens_exceeded(990)]);
}

#[test]
fn a_warning_begins_when_used_held_and_estimated_reach_80_percent() {
    let at = BUDGET / 10 * 8;
    check(|c| c.used = cost(at - 1), Verdict::Allowed, &[passed()]);
    check(|c| c.used = cost(at), Verdict::Warned, &[budget_warning(at)]);
    let parts = |last: i64| {
        move |c: &mut Case| {
            (c.used, c.held) = (cost(at / 2), cost(at / 4));
            c.estimate.cost = Nanos::new(at / 4 + last);
        }
    };
    check(parts(-1), Verdict::Allowed, &[passed()]);
    check(parts(0), Verdict::Warned, &[budget_warning(at / 4 * 3)]);
    check(|c| c.held = tokens(799), Verdict::Allowed, &[passed()]);
    check(|c| c.held = tokens(800), Verdict::Warned, &[token_warning(800)]);
    check(|c| c.estimate.tokens = 799, Verdict::Allowed, &[passed()]);
    check(|c| c.estimate.tokens = 800, Verdict::Warned, &[token_warning(0)]);
}

#[test]
fn a_fractional_threshold_is_not_rounded() {
    // 80 % of 1001 are 800.8, and of 2 are 1.6.
    for (limit, below, above) in [(1_001, 800, 801), (2, 1, 2)] {
        let with = |estimate: i64| {
            move |c: &mut Case| {
                c.profile.integration.limits.token_limit_month = limit;
                c.estimate.tokens = estimate;
            }
        };
        check(with(below), Verdict::Allowed, &[passed()]);
        let warning = of_limit(ReasonCode::TokenWarning, Measure::Tokens, limit, 0, 80);
        check(with(above), Verdict::Warned, &[warning]);
    }
}

#[test]
fn all_warnings_are_listed_in_their_order() {
    let unreachable = |c: &mut Case| {
        c.profile.integration.health = Health::Failing(FailureCause::Provider);
        c.used = Totals { cost: Nanos::new(BUDGET - 1), tokens: 900, calls: 7 };
    };
    let reasons =
        [budget_warning(BUDGET - 1), token_warning(900), plain(ReasonCode::ProviderUnreachable)];
    check(unreachable, Verdict::Warned, &reasons);
}

#[test]
fn a_refusal_lists_no_warnings() {
    let both = |c: &mut Case| {
        c.profile.integration.health = Health::Failing(FailureCause::Provider);
        c.used = Totals { cost: Nanos::new(BUDGET - 1), tokens: TOKENS, calls: 7 };
    };
    check(both, Verdict::Blocked, &[tokens_exceeded(TOKENS)]);
}

#[test]
fn the_rate_throttles_at_its_limit_and_never_warns() {
    check(|c| c.calls_ago = vec![0, 0], Verdict::Allowed, &[passed()]);
    check(|c| c.calls_ago = vec![0, 0, 0], Verdict::Throttled, &[rate_exceeded(RATE, 3, 60)]);
    check(|c| c.calls_ago = vec![0, 0, 59], Verdict::Throttled, &[rate_exceeded(RATE, 3, 1)]);
    check(|c| c.calls_ago = vec![0, 0, 60], Verdict::Allowed, &[passed()]);
}

#[test]
fn the_wait_ends_when_fewer_calls_than_the_limit_count() {
    // A lowered limit waits until several calls have left the window.
    let wait = |limit: i64, calls_ago: &[i64], seconds: u32| {
        let calls_ago = calls_ago.to_vec();
        let reason = rate_exceeded(limit, calls_ago.len() as i64, seconds);
        let lowered = |c: &mut Case| {
            c.profile.integration.limits.rate_limit_rpm = limit;
            c.calls_ago = calls_ago;
        };
        check(lowered, Verdict::Throttled, &[reason]);
    };
    wait(4, &[30, 20, 20, 10], 30);
    wait(3, &[30, 20, 20, 10], 40);
    wait(2, &[30, 20, 20, 10], 40);
    wait(1, &[30, 20, 20, 10], 50);
    wait(1, &[59], 1);
    wait(1, &[0], 60);
}

#[test]
fn a_limit_of_zero_is_no_limit() {
    let unlimited = |c: &mut Case| {
        c.profile.integration.limits = LimitSettings::default();
        c.used = Totals { cost: Nanos::new(i64::MAX), tokens: i64::MAX, calls: i64::MAX };
        c.held = c.used;
        c.calls_ago = vec![0; 1_000];
        c.estimate = Estimate::new(Nanos::RECORD_MAX, 1_000_000_000).unwrap();
    };
    check(unlimited, Verdict::Allowed, &[passed()]);
}

#[test]
fn a_limit_of_zero_does_not_lift_the_other_limits() {
    let full = |limits: LimitSettings| {
        move |c: &mut Case| {
            c.profile.integration.limits = limits;
            c.used = Totals { cost: Nanos::new(BUDGET), tokens: TOKENS, calls: 0 };
            c.calls_ago = vec![0; 3];
        }
    };
    let none = LimitSettings::default();
    check(
        full(LimitSettings { budget_limit_cents: 100, ..none }),
        Verdict::Blocked,
        &[budget_exceeded(BUDGET)],
    );
    check(
        full(LimitSettings { token_limit_month: TOKENS, ..none }),
        Verdict::Blocked,
        &[tokens_exceeded(TOKENS)],
    );
    check(
        full(LimitSettings { rate_limit_rpm: RATE, ..none }),
        Verdict::Throttled,
        &[rate_exceeded(RATE, 3, 60)],
    );
}

#[test]
fn the_largest_figures_are_computed_and_not_wrapped() {
    let most = |limits: LimitSettings, used: i64, held: i64| {
        move |c: &mut Case| {
            c.profile.integration.limits = limits;
            c.used = Totals { cost: Nanos::new(used), tokens: used, calls: 0 };
            c.held = Totals { cost: Nanos::new(held), tokens: held, calls: 0 };
            c.estimate = Estimate::new(Nanos::RECORD_MAX, 1_000_000_000).unwrap();
        }
    };
    let none = LimitSettings::default();
    let money = LimitSettings { budget_limit_cents: i64::MAX, ..none };
    check(most(money, i64::MAX, i64::MAX), Verdict::Allowed, &[passed()]);
    let token_limit = LimitSettings { token_limit_month: i64::MAX, ..none };
    let exceeded = Reason {
        current_value: i128::from(i64::MAX) * 2,
        ..of_limit(ReasonCode::TokenLimitExceeded, Measure::Tokens, i64::MAX, 0, 100)
    };
    check(most(token_limit, i64::MAX, i64::MAX), Verdict::Blocked, &[exceeded]);
    let warning =
        of_limit(ReasonCode::TokenWarning, Measure::Tokens, i64::MAX, i64::MAX - 1_000_000_000, 80);
    check(most(token_limit, i64::MAX - 1_000_000_000, 0), Verdict::Warned, &[warning]);
}

#[test]
fn each_month_has_its_own_budget() {
    let full = Counter { used: cost(BUDGET), held: tokens(TOKENS), ..Counter::default() };
    let october = now().month();
    let months = [(october, full), (october.next(), Counter::default())];
    let account = account(&good(), &months);
    let verdict =
        |at| decide(&account, &LimitsInForce::default(), Estimate::default(), at).unwrap().verdict;
    assert_eq!(verdict(shifted(october.end(), -1)), Verdict::Blocked);
    assert_eq!(verdict(october.end()), Verdict::Allowed);
}

#[test]
fn a_month_that_is_not_loaded_is_an_error_and_not_zero() {
    let mut case = good();
    let decided =
        |case: &Case| decide(&account(case, &[]), &LimitsInForce::default(), case.estimate, now());
    assert_eq!(decided(&case), Err(Overflow));
    case.profile.integration.limits = LimitSettings::default();
    assert_eq!(decided(&case), Err(Overflow), "without limits too");
    case.profile.integration.status = IntegrationStatus::Disabled;
    assert_eq!(decided(&case).unwrap().verdict, Verdict::HardBlocked, "needs no figures");
}

#[test]
fn the_rate_goes_by_whole_seconds() {
    let october = now().month();
    let mut case = good();
    case.calls_ago = vec![0, 0, 0];
    let account = account(&case, &[(october, Counter::default())]);
    let verdict =
        |at| decide(&account, &LimitsInForce::default(), Estimate::default(), at).unwrap().verdict;
    assert_eq!(verdict(shifted(seconds(now(), 60), -1)), Verdict::Throttled);
    assert_eq!(verdict(seconds(now(), 60)), Verdict::Allowed);
}

#[test]
fn verdicts_have_their_wire_names() {
    let words = [
        (Verdict::Allowed, "allowed", true),
        (Verdict::Warned, "warned", true),
        (Verdict::Throttled, "throttled", false),
        (Verdict::Blocked, "blocked", false),
        (Verdict::HardBlocked, "hard_blocked", false),
    ];
    for (verdict, word, admits) in words {
        assert_eq!((verdict.as_str(), verdict.admits()), (word, admits));
    }
    assert!(words.is_sorted_by_key(|(verdict, ..)| *verdict), "from best to worst");
}

#[test]
fn reasons_have_their_wire_names() {
    let words = "integration_not_found integration_disabled integration_not_enabled \
        integration_error credentials_invalid tenant_suspended budget_exceeded \
        token_limit_exceeded rate_limit_exceeded call_limit_exceeded concurrency_exceeded \
        scope_missing budget_warning token_warning call_warning provider_unreachable \
        all_checks_passed";
    assert!(ReasonCode::ALL.map(ReasonCode::as_str).into_iter().eq(words.split_whitespace()));
    assert_eq!(warn_percent(), 80);
}

#[test]
fn due_reservations_do_not_count_up_to_a_bound() {
    let counted = |stored: i64, due: i64| {
        let mut account = account(&good(), &[]);
        account.restore_open(stored);
        account.restore_due(vec![(now().month(), Totals { calls: due, ..Totals::default() })]);
        account.counted_reservations()
    };
    assert_eq!(counted(150, 150), Ok(0));
    assert_eq!(counted(UNSWEPT_MAX + 7, UNSWEPT_MAX), Ok(7));
    assert_eq!(counted(UNSWEPT_MAX + 7, UNSWEPT_MAX + 5), Ok(7), "what is stored is bounded");
    assert_eq!(counted(1, 2), Err(Overflow));
    let caps = Caps { reservations_per_tenant: 10, ..Caps::DEFAULT };
    assert_eq!(caps.beyond_reservations(9, 1), 0);
    assert_eq!(caps.beyond_reservations(9, 3), 2);
    assert_eq!(caps.beyond_reservations(10 + 2 * UNSWEPT_MAX, 1), UNSWEPT_MAX);
}
