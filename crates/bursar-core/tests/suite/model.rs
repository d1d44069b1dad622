//! Long random runs that compare the core with a naive model at each step.

#![expect(clippy::unwrap_used, reason = "a run names only what it created")]

use std::collections::{BTreeMap, BTreeSet};

use bursar_core::{
    Book, Caps, Estimate, FailureCause, Health, HoldChange, IntegrationId, IntegrationStatus,
    LimitSettings, Month, NANOS_PER_CENT, Nanos, Outcome, PolicyResult, ReservationState,
    ReserveOutcome, TenantId, TenantLifecycle, Timestamp, TokenBuckets, Totals, decide,
};
use bursar_testing::chance::Chance;

use crate::support::naive::{Naive, Sums};
use crate::support::script::OutcomeKind;
use crate::support::storage::{Action, Profile, Storage, Submission};
use crate::support::{call_id, day, integration, request, seconds, shifted, tenant, usage};

/// Groups that are run from one seed; about three commands each.
const GROUPS: usize = 800;
const SEEDS: u64 = 50;

/// Integrations 1 to 4 belong to tenant 1, 5 and 6 to tenant 2; the 7th does not exist.
const INTEGRATIONS: [(i64, i64); 6] = [(1, 1), (2, 1), (3, 1), (4, 1), (5, 2), (6, 2)];

/// The number of steps by outcome, and how often a hold took the last of a budget.
#[derive(Debug, Default)]
struct Tally {
    steps: usize,
    outcomes: BTreeMap<String, usize>,
    admitted_to_the_last: usize,
}

struct Run {
    chance: Chance,
    now: Timestamp,
    naive: Naive,
    storage: Storage,
    /// The first call id in use, which grows slowly, so that most call ids repeat.
    calls_from: i64,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut run = Self {
            chance: Chance::new(seed),
            now: day(2026, 1, 20),
            naive: Naive::default(),
            storage: Storage::default(),
            calls_from: 0,
        };
        for (number, tenant_number) in INTEGRATIONS {
            let limits = run.limits();
            run.set(integration(number), Profile::enabled(tenant(tenant_number), limits));
        }
        run.set_caps();
        run
    }

    /// Sets caps that are reached often, sometimes or never.
    fn set_caps(&mut self) {
        let caps = Caps {
            reservations_per_integration: self.chance.one_of(&[1, 2, 3, 50_000]),
            reservations_per_tenant: self.chance.one_of(&[2, 3, 4, 200_000]),
            stored_bytes_per_day: self.chance.one_of(&[0, 0, 1_000, 2_600]),
        };
        self.storage.caps = caps;
        self.naive.caps = caps;
    }

    /// Changes an integration in the storage and in the model.
    fn set(&mut self, id: IntegrationId, profile: Profile) {
        self.storage.profiles.insert(id, profile);
        self.naive.profiles.retain(|(known, _)| *known != id);
        self.naive.profiles.push((id, profile));
    }

    fn limits(&mut self) -> LimitSettings {
        LimitSettings {
            budget_limit_cents: self.chance.one_of(&[0, 1, 5, 20, 100]),
            token_limit_month: self.chance.one_of(&[0, 0, 7, 200, 1_000]),
            rate_limit_rpm: self.chance.one_of(&[0, 0, 1, 3, 10]),
        }
    }

    fn change_a_profile(&mut self) {
        let id = integration(self.chance.between(1, 6));
        let mut profile = *self.naive.profile(id).unwrap();
        match self.chance.between(0, 3) {
            0 => profile.integration.limits = self.limits(),
            1 => {
                use IntegrationStatus::{Created, Deleted, Disabled, Enabled, Error};
                let status =
                    [Enabled, Enabled, Enabled, Enabled, Disabled, Error, Created, Deleted];
                profile.integration.status = self.chance.one_of(&status);
            }
            2 => {
                let failing = Health::Failing;
                profile.integration.health = self.chance.one_of(&[
                    Health::Unknown,
                    Health::Healthy,
                    Health::Degraded,
                    failing(FailureCause::Provider),
                    failing(FailureCause::Credential),
                ]);
            }
            _ => {
                use TenantLifecycle::{Active, Archived, Suspended, Terminated};
                let lives = [
                    Active, Active, Active, Active, Active, Active, Suspended, Terminated, Archived,
                ];
                let lifecycle = self.chance.one_of(&lives);
                for (number, _) in INTEGRATIONS {
                    let mut other = *self.naive.profile(integration(number)).unwrap();
                    if other.tenant_id == profile.tenant_id {
                        other.lifecycle = lifecycle;
                        self.set(integration(number), other);
                    }
                }
                return;
            }
        }
        self.set(id, profile);
    }

    /// Advances the time by nothing, a little, much, to a month's end or to the expiry of a hold.
    fn move_on(&mut self) {
        let month_end = self.now.month().end();
        let dues: Vec<Timestamp> =
            self.storage.holds().iter().map(|hold| hold.expires_at).collect();
        let due = dues.into_iter().filter(|due| *due > seconds(self.now, 1)).min();
        self.now = match self.chance.between(0, 99) {
            0..=29 => self.now,
            30..=44 => shifted(self.now, self.chance.between(1, 3)),
            45..=74 => shifted(self.now, self.chance.between(1, 9_000_000)),
            75..=84 => seconds(self.now, self.chance.between(10, 120)),
            85..=88 => seconds(self.now, self.chance.between(121, 20_000)),
            89 => seconds(self.now, self.chance.between(86_400, 20 * 86_400)),
            90..=91 => {
                self.now.max(shifted(month_end, self.chance.one_of(&[-2, -1, -1_000_000, 0])))
            }
            _ => match due {
                Some(due) => shifted(due, self.chance.one_of(&[-1, 0, 0, 1])),
                None => self.now,
            },
        };
    }

    fn submission(&mut self) -> Submission {
        let tenant_number = self.chance.one_of(&[1, 1, 2]);
        let tenant_id = tenant(tenant_number);
        let call = format!("c{}", self.calls_from + self.chance.between(0, 9));
        let home = if tenant_number == 1 { (1, 4) } else { (5, 6) };
        let own = self.chance.between(home.0, home.1);
        // A call mostly keeps to the integration of its reservation, or else to the one that its
        // id suggests, so that repetitions agree.
        let reserved = self.naive.reserved(tenant_id, &call_id(&call));
        let reserved = reserved.and_then(|index| self.naive.reservations.get(index));
        let suggested = integration(home.0 + i64::from(call.ends_with(['1', '3', '5', '8'])));
        let usual = reserved.map_or(suggested, |reserved| reserved.request.integration_id);
        let is_reserved = reserved.is_some();
        let id = match self.chance.between(0, 99) {
            0..=84 => usual,
            85..=95 => integration(own),
            _ => integration(self.chance.between(1, 7)),
        };
        let only = match self.chance.between(0, 9) {
            0 => Some(integration(own)),
            1..=3 => Some(id),
            _ => None,
        };
        let action = match self.chance.between(0, 99) {
            0..=44 => self.reserve(id, &call),
            45..=69 if is_reserved => self.record(tenant_id, id, &call),
            45..=54 => self.record(tenant_id, id, &call),
            55..=69 => self.reserve(id, &call),
            70..=74 => Action::Release { call_id: call_id(&call), only },
            75..=82 if is_reserved => Action::Release { call_id: call_id(&call), only },
            75..=94 if !is_reserved => self.reserve(id, &call),
            _ => {
                let ttl_seconds = self.chance.one_of(&[None, Some(1), Some(90), Some(40_000)]);
                Action::Extend { call_id: call_id(&call), only, ttl_seconds }
            }
        };
        Submission { tenant_id, action }
    }

    fn reserve(&mut self, id: IntegrationId, call: &str) -> Action {
        let mut request = request(id, call);
        request.ttl_seconds = if self.chance.percent(15) { 5 } else { 600 };
        request.model = self.chance.percent(3).then(|| "gpt".into());
        request.estimate = match self.chance.between(0, 99) {
            0..=59 => estimate(NANOS_PER_CENT / 2, 5),
            60..=69 => estimate(self.chance.between(0, 1), self.chance.between(0, 1)),
            70..=79 => estimate(self.chance.between(1, 8) * NANOS_PER_CENT, 150),
            _ => self.remaining(id),
        };
        Action::Reserve(request)
    }

    /// An estimate that just stays below a limit, reaches it, or exceeds it by one.
    fn remaining(&mut self, id: IntegrationId) -> Estimate {
        let Some(profile) = self.naive.profile(id) else { return Estimate::default() };
        let limits = profile.integration.limits;
        let month = self.now.month();
        let (used, held) = (self.naive.used(id, month), self.naive.held(id, month, self.now));
        let share = self.chance.one_of(&[10, 10, 8]);
        let off = self.chance.one_of(&[-1, 0, 0, 1]);
        let cost = limits.budget_limit_cents * NANOS_PER_CENT / 10 * share - used.0 - held.0;
        let tokens = limits.token_limit_month * share / 10 - used.1 - held.1;
        estimate((cost + off).max(0), (tokens + off).max(0))
    }

    fn record(&mut self, tenant_id: TenantId, id: IntegrationId, call: &str) -> Action {
        let mut usage = usage(id, call);
        let reserved = self.naive.reserved(tenant_id, &usage.call_id);
        let made_at = reserved.and_then(|index| self.naive.reservations.get(index));
        let made_at = made_at.map_or(self.now, |reserved| reserved.made_at);
        usage.tokens = TokenBuckets::new(call.len() as i64, 4, 0, 0, 0).unwrap();
        // The call id decides whether the cost is known, so that repetitions agree.
        usage.cost = call.ends_with(['2', '4', '5', '6', '7', '9']).then(|| Nanos::new(3_333_333));
        usage.latency_ms = self.chance.percent(50).then_some(20);
        usage.occurred_at = match self.chance.between(0, 99) {
            0..=59 => None,
            60..=69 => Some(made_at),
            70..=79 => Some(shifted(self.now, -self.chance.between(0, 130_000_000))),
            80..=84 => Some(shifted(self.now, self.chance.between(0, 299_000_000))),
            85..=88 => {
                let edge = self.chance.one_of(&[300_000_000, 300_000_001]);
                Some(shifted(self.now, edge))
            }
            89..=92 => Some(shifted(self.now.month().start(), self.chance.one_of(&[-1, 0]))),
            93..=94 => Some(day(2025, 12, 31)),
            _ => Some(self.now),
        };
        let known_only = self.chance.percent(15);
        match self.chance.between(0, 99) {
            0..=3 => usage.policy_result = PolicyResult::Blocked,
            4 => usage.policy_result = PolicyResult::Warned,
            5 => usage.error_code = Some("timeout".into()),
            6 => usage.session_id = Some("session".into()),
            7 => usage.agent_id = Some("agent".into()),
            8 => usage.model = "other".into(),
            9 => usage.cost = Some(Nanos::new(self.chance.between(0, 2 * NANOS_PER_CENT))),
            _ => {}
        }
        if known_only { Action::RecordKnown(usage) } else { Action::Record(usage) }
    }

    /// Runs one group on the core and on the model, and compares them after every step.
    fn group(&mut self, tally: &mut Tally) {
        let size = self.chance.between(1, 5);
        let group: Vec<Submission> = (0..size).map(|_| self.submission()).collect();
        let mut book = self.storage.load(self.now, &group).unwrap();
        self.compare_accounts(&book);
        for (index, submission) in group.iter().enumerate() {
            let entry_id = self.storage.entry_id(index);
            let command = submission.command(entry_id);
            let outcome = book.apply(submission.tenant_id, submission.key(), command).unwrap();
            let expected =
                self.naive.apply(submission.tenant_id, &submission.action, entry_id, self.now);
            assert_eq!(outcome, expected, "{submission:?} at {:?}", self.now);
            self.compare_accounts(&book);
            self.check_limits(&book, &outcome, tally);
            tally.steps += 1;
            *tally.outcomes.entry(format!("{:?}", OutcomeKind::of(&outcome))).or_default() += 1;
        }
        self.check_caps();
        self.compare_decisions(&book);
        self.compare_entries(&book);
        assert_holds_end_once(&book);
        self.storage.save(book);
        self.compare_storage();
    }

    /// Compares every loaded account and month with the model.
    fn compare_accounts(&self, book: &Book<'_>) {
        for (id, account) in book.accounts() {
            for month in self.loaded(account) {
                let counter = account.counter(month).unwrap();
                let held = self.naive.held(*id, month, self.now);
                assert_eq!(sums(counter.used), self.naive.used(*id, month), "used {id:?} {month}");
                assert_eq!(sums(counter.held), held, "held {id:?} {month}");
            }
            let second = self.now.second();
            assert_eq!(account.rate.current(second), self.naive.calls(*id, second), "rate {id:?}");
        }
    }

    /// Compares the decisions about every loaded account with the model's.
    fn compare_decisions(&self, book: &Book<'_>) {
        for (id, account) in book.accounts() {
            for estimate in [Estimate::default(), estimate(NANOS_PER_CENT, 10)] {
                let decision = decide(account, estimate, self.now).unwrap();
                assert_eq!(decision, self.naive.decide(*id, estimate, self.now), "check {id:?}");
            }
        }
    }

    /// The loaded months of an account, among those that a run can reach.
    fn loaded(&self, account: &bursar_core::Account) -> impl Iterator<Item = Month> {
        let first = day(2025, 12, 1).month().number();
        let last = self.now.month().next().number();
        let loaded = |month: &Month| account.counter(*month).is_ok();
        (first..=last).map(Month::from_number).filter(loaded).collect::<Vec<_>>().into_iter()
    }

    /// Checks that used + held + estimate <= limit at every admission, and the rate limit.
    fn check_limits(&self, book: &Book<'_>, outcome: &Outcome, tally: &mut Tally) {
        let Outcome::Reserve(ReserveOutcome::Held(reservation)) = outcome else { return };
        let id = reservation.request.integration_id;
        let account = book.accounts().get(&id).unwrap();
        let counter = account.counter(self.now.month()).unwrap();
        let LimitSettings { budget_limit_cents, token_limit_month, rate_limit_rpm } =
            account.integration.limits;
        // The held amount includes the new hold.
        let cost = i128::from(counter.used.cost.get()) + i128::from(counter.held.cost.get());
        let budget = i128::from(budget_limit_cents) * i128::from(NANOS_PER_CENT);
        assert!(budget == 0 || cost <= budget, "{cost} of {budget}: {reservation:?}");
        let tokens = counter.used.tokens + counter.held.tokens;
        assert!(token_limit_month == 0 || tokens <= token_limit_month, "{reservation:?}");
        let calls = account.rate.current(self.now.second());
        assert!(rate_limit_rpm == 0 || calls <= rate_limit_rpm, "{reservation:?}");
        tally.admitted_to_the_last += usize::from(budget != 0 && cost == budget);
    }

    /// Checks that no cap on open reservations is exceeded.
    fn check_caps(&self) {
        for tenant_number in [1, 2] {
            let open = |id: Option<IntegrationId>| {
                let of_it = self.naive.reservations.iter().filter(|reserved| {
                    reserved.tenant_id == tenant(tenant_number)
                        && id.is_none_or(|id| reserved.request.integration_id == id)
                        && reserved.state(self.now) == ReservationState::Open
                });
                of_it.count() as i64
            };
            let Caps { reservations_per_integration, reservations_per_tenant, .. } =
                self.naive.caps;
            assert!(open(None) <= reservations_per_tenant, "{} are open", open(None));
            for (number, _) in INTEGRATIONS {
                assert!(open(Some(integration(number))) <= reservations_per_integration);
            }
        }
    }

    fn compare_entries(&self, book: &Book<'_>) {
        let index = self.naive.records.len() - book.entries().len();
        for (entry, record) in book.entries().iter().zip(self.naive.records.iter().skip(index)) {
            assert_eq!(entry.entry_id, record.entry_id);
            assert_eq!(entry.tenant_id, record.tenant_id);
            assert_eq!(*entry.usage, record.usage);
            assert_eq!(entry.occurred_at, record.occurred_at);
            assert_eq!(entry.created_at, record.arrived_at);
            assert_eq!((entry.cost.get(), entry.cost_source), (record.cost, record.cost_source));
        }
    }

    /// Compares the stored counters with the sums of the stored entries.
    fn compare_storage(&self) {
        let mut sums_of_entries: BTreeMap<(IntegrationId, Month), Sums> = BTreeMap::new();
        for kept in &self.storage.entries {
            let key = (kept.call.integration_id, kept.call.occurred_at.month());
            let sum = sums_of_entries.entry(key).or_default();
            sum.0 += kept.cost.get();
            sum.1 += kept.call.tokens_in + kept.call.tokens_out;
            sum.2 += 1;
        }
        for (number, _) in INTEGRATIONS {
            let id = integration(number);
            for month in self.storage.months(id) {
                let sum = sums_of_entries.remove(&(id, month)).unwrap_or_default();
                assert_eq!(sums(self.storage.counter(id, month).used), sum, "{id:?} {month}");
            }
        }
        assert!(sums_of_entries.is_empty(), "entries of no counter: {sums_of_entries:?}");
    }

    /// Sweeps at the end: open reservations are held, and a day later none is.
    fn finish(&mut self) {
        self.storage.sweep(self.now);
        self.compare_holds();
        self.now = seconds(self.now, 2 * 86_400);
        self.storage.sweep(self.now);
        self.compare_holds();
        assert!(self.storage.holds().is_empty());
    }

    fn compare_holds(&self) {
        for (number, _) in INTEGRATIONS {
            let id = integration(number);
            for month in self.storage.months(id) {
                let held = self.naive.held(id, month, self.now);
                assert_eq!(sums(self.storage.counter(id, month).held), held, "{id:?} {month}");
            }
        }
        for reserved in &self.naive.reservations {
            let call = &reserved.request.call_id;
            let stored = self.storage.reservation(reserved.tenant_id, call).unwrap();
            assert_eq!(stored.state, reserved.state(self.now), "{reserved:?}");
            assert_eq!(stored.expires_at, reserved.until, "{reserved:?}");
            assert_eq!(stored.ended_at.is_none(), stored.state == ReservationState::Open);
        }
    }
}

fn estimate(cost: i64, tokens: i64) -> Estimate {
    Estimate::new(Nanos::new(cost), tokens).unwrap()
}

fn sums(totals: Totals) -> Sums {
    (totals.cost.get(), totals.tokens, totals.calls)
}

/// Checks that a reservation ends once in a group; the storage checks later groups.
fn assert_holds_end_once(book: &Book<'_>) {
    let mut ended = BTreeSet::new();
    for change in book.holds() {
        if let HoldChange::Ended(hold) = change {
            assert!(ended.insert((hold.tenant_id, hold.call)), "{change:?}");
        }
    }
}

/// Checks that every kind of outcome occurred often enough.
fn assert_all_outcomes_occurred(tally: &Tally) {
    let words = "Accepted Duplicate Conflict NotCounted(IntegrationNotFound) \
        NotCounted(InTheFuture) NotCounted(UnknownCall) NotCounted(StoredBytesExceeded) Held Replayed Refused(IntegrationNotFound) \
        Refused(IntegrationDisabled) Refused(IntegrationNotEnabled) Refused(IntegrationError) \
        Refused(CredentialsInvalid) Refused(TenantSuspended) Refused(BudgetExceeded) \
        Refused(TokenLimitExceeded) Refused(RateLimitExceeded) Rejected(CallRecorded) \
        Rejected(CallEnded(Released)) Rejected(CallEnded(Expired)) Rejected(OtherContent) \
        Rejected(TooManyOpen(Integration(1))) Rejected(TooManyOpen(Integration(2))) \
        Rejected(TooManyOpen(Tenant(2))) Rejected(TooManyOpen(Tenant(3))) \
        Rejected(CostEstimateRequired) Rejected(TokenEstimateRequired) Released HadExpired \
        NoReservation IsSettled Extended HadEnded(Settled) HadEnded(Released) HadEnded(Expired) \
        NotActive";
    for word in words.split_whitespace() {
        let times = tally.outcomes.get(word).copied().unwrap_or_default();
        assert!(times >= 100, "{word} came {times} times only: {tally:#?}");
    }
    assert!(tally.admitted_to_the_last >= 100, "{tally:#?}");
    assert!(tally.steps >= 100_000, "{tally:#?}");
}

#[test]
fn the_core_decides_like_the_model_for_a_hundred_thousand_steps() {
    let mut tally = Tally::default();
    for seed in 1..=SEEDS {
        let mut run = Run::new(seed);
        for group in 0..GROUPS {
            if group % 3 == 0 {
                run.calls_from += 1;
            }
            if run.chance.percent(8) {
                run.change_a_profile();
            }
            run.move_on();
            // Sweeps must make no difference.
            if run.chance.percent(30) {
                let limit = run.chance.one_of(&[1, 2, 100]);
                run.storage.sweep_some(run.now, limit);
            }
            run.group(&mut tally);
        }
        run.finish();
    }
    assert_all_outcomes_occurred(&tally);
}
