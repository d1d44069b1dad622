//! A long random run of the core beside a naive model that adds everything up anew at each step.

#![expect(clippy::unwrap_used, reason = "the run names what it made")]

use std::collections::{BTreeMap, BTreeSet};

use bursar_core::{
    Book, Caps, Estimate, FailureCause, Health, HoldChange, IntegrationId, IntegrationStatus,
    LimitSettings, Month, NANOS_PER_CENT, Nanos, Outcome, PolicyResult, ReservationState,
    ReserveOutcome, TenantId, TenantLifecycle, Timestamp, TokenBuckets, Totals, decide,
};
use bursar_testing::chance::Chance;

use crate::support::naive::{Naive, Sums};
use crate::support::script::Answer;
use crate::support::storage::{Act, Asked, Profile, Storage};
use crate::support::{call_id, day, integration, request, seconds, shifted, tenant, usage};

/// Groups that are run from one seed; about three commands each.
const GROUPS: usize = 800;
const SEEDS: u64 = 50;

/// Integrations 1 to 4 are tenant 1's, 5 and 6 are tenant 2's; nobody has the 7th.
const INTEGRATIONS: [(i64, i64); 6] = [(1, 1), (2, 1), (3, 1), (4, 1), (5, 2), (6, 2)];

/// How many steps gave each answer, and how often a hold took the last of a budget.
#[derive(Debug, Default)]
struct Tally {
    steps: usize,
    answers: BTreeMap<String, usize>,
    admitted_to_the_last: usize,
}

struct Run {
    chance: Chance,
    now: Timestamp,
    naive: Naive,
    storage: Storage,
    /// The call ids in use move on slowly, so that most of them come again.
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

    /// Caps that are met often, sometimes, or never.
    fn set_caps(&mut self) {
        let caps = Caps {
            reservations_per_integration: self.chance.one_of(&[1, 2, 3, 50_000]),
            reservations_per_tenant: self.chance.one_of(&[2, 3, 4, 200_000]),
            stored_bytes_per_day: self.chance.one_of(&[0, 0, 1_000, 2_600]),
        };
        self.storage.caps = caps;
        self.naive.caps = caps;
    }

    /// What the operator does reaches both sides.
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

    /// Time stands still, creeps, walks, leaps to a month's end, or stops where a hold expires.
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

    fn asked(&mut self) -> Asked {
        let tenant_number = self.chance.one_of(&[1, 1, 2]);
        let tenant_id = tenant(tenant_number);
        let call = format!("c{}", self.calls_from + self.chance.between(0, 9));
        let home = if tenant_number == 1 { (1, 4) } else { (5, 6) };
        let own = self.chance.between(home.0, home.1);
        // A call mostly keeps to the integration of its reservation, or else to the one that its
        // id suggests, so that repetitions agree.
        let promise = self.naive.promise(tenant_id, &call_id(&call));
        let promise = promise.and_then(|place| self.naive.promises.get(place));
        let suggested = integration(home.0 + i64::from(call.ends_with(['1', '3', '5', '8'])));
        let usual = promise.map_or(suggested, |promise| promise.request.integration_id);
        let is_promised = promise.is_some();
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
        let act = match self.chance.between(0, 99) {
            0..=44 => self.reserve(id, &call),
            45..=69 if is_promised => self.record(tenant_id, id, &call),
            45..=54 => self.record(tenant_id, id, &call),
            55..=69 => self.reserve(id, &call),
            70..=74 => Act::Release { call_id: call_id(&call), only },
            75..=82 if is_promised => Act::Release { call_id: call_id(&call), only },
            75..=94 if !is_promised => self.reserve(id, &call),
            _ => {
                let ttl_seconds = self.chance.one_of(&[None, Some(1), Some(90), Some(40_000)]);
                Act::Extend { call_id: call_id(&call), only, ttl_seconds }
            }
        };
        Asked { tenant_id, act }
    }

    fn reserve(&mut self, id: IntegrationId, call: &str) -> Act {
        let mut request = request(id, call);
        request.ttl_seconds = if self.chance.percent(15) { 5 } else { 600 };
        request.model = self.chance.percent(3).then(|| "gpt".into());
        request.estimate = match self.chance.between(0, 99) {
            0..=59 => estimate(NANOS_PER_CENT / 2, 5),
            60..=69 => estimate(self.chance.between(0, 1), self.chance.between(0, 1)),
            70..=79 => estimate(self.chance.between(1, 8) * NANOS_PER_CENT, 150),
            _ => self.remaining(id),
        };
        Act::Reserve(request)
    }

    /// What just fits below a limit, what reaches it, and what is one too much.
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

    fn record(&mut self, tenant_id: TenantId, id: IntegrationId, call: &str) -> Act {
        let mut usage = usage(id, call);
        let promise = self.naive.promise(tenant_id, &usage.call_id);
        let made_at = promise.and_then(|place| self.naive.promises.get(place));
        let made_at = made_at.map_or(self.now, |promise| promise.made_at);
        usage.tokens = TokenBuckets::new(call.len() as i64, 4, 0, 0, 0).unwrap();
        // Whether a cost is known goes by the call, so that repetitions agree.
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
        if known_only { Act::RecordKnown(usage) } else { Act::Record(usage) }
    }

    /// One group: loaded, applied beside the model, compared after every step, and saved.
    fn group(&mut self, tally: &mut Tally) {
        let size = self.chance.between(1, 5);
        let group: Vec<Asked> = (0..size).map(|_| self.asked()).collect();
        let mut book = self.storage.load(self.now, &group).unwrap();
        self.compare_accounts(&book);
        for (index, asked) in group.iter().enumerate() {
            let entry_id = self.storage.entry_id(index);
            let command = asked.command(entry_id);
            let outcome = book.apply(asked.tenant_id, asked.key(), command).unwrap();
            let expected = self.naive.apply(asked.tenant_id, &asked.act, entry_id, self.now);
            assert_eq!(outcome, expected, "{asked:?} at {:?}", self.now);
            self.compare_accounts(&book);
            self.keep_the_promise(&book, &outcome, tally);
            tally.steps += 1;
            *tally.answers.entry(format!("{:?}", Answer::of(&outcome))).or_default() += 1;
        }
        self.keep_the_caps();
        self.compare_decisions(&book);
        self.compare_entries(&book);
        assert_ends_are_told_once(&book);
        self.storage.save(book);
        self.compare_storage();
    }

    /// Every account and month that is loaded shows what the lists add up to.
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

    /// A check beside the model's, with every account that the group touches.
    fn compare_decisions(&self, book: &Book<'_>) {
        for (id, account) in book.accounts() {
            for estimate in [Estimate::default(), estimate(NANOS_PER_CENT, 10)] {
                let decision = decide(account, estimate, self.now).unwrap();
                assert_eq!(decision, self.naive.decide(*id, estimate, self.now), "check {id:?}");
            }
        }
    }

    /// The months of an account, out of those that a run can reach.
    fn loaded(&self, account: &bursar_core::Account) -> impl Iterator<Item = Month> {
        let first = day(2025, 12, 1).month().number();
        let last = self.now.month().next().number();
        let loaded = |month: &Month| account.counter(*month).is_ok();
        (first..=last).map(Month::from_number).filter(loaded).collect::<Vec<_>>().into_iter()
    }

    /// used + held + estimate <= limit at every admission, and never a call above the rate.
    fn keep_the_promise(&self, book: &Book<'_>, outcome: &Outcome, tally: &mut Tally) {
        let Outcome::Reserve(ReserveOutcome::Held(reservation)) = outcome else { return };
        let id = reservation.request.integration_id;
        let account = book.accounts().get(&id).unwrap();
        let counter = account.counter(self.now.month()).unwrap();
        let LimitSettings { budget_limit_cents, token_limit_month, rate_limit_rpm } =
            account.integration.limits;
        // The new hold is in what is held, so the estimate is counted already.
        let cost = i128::from(counter.used.cost.get()) + i128::from(counter.held.cost.get());
        let budget = i128::from(budget_limit_cents) * i128::from(NANOS_PER_CENT);
        assert!(budget == 0 || cost <= budget, "{cost} of {budget}: {reservation:?}");
        let tokens = counter.used.tokens + counter.held.tokens;
        assert!(token_limit_month == 0 || tokens <= token_limit_month, "{reservation:?}");
        let calls = account.rate.current(self.now.second());
        assert!(rate_limit_rpm == 0 || calls <= rate_limit_rpm, "{reservation:?}");
        tally.admitted_to_the_last += usize::from(budget != 0 && cost == budget);
    }

    /// Never more open reservations than the caps admit.
    fn keep_the_caps(&self) {
        for tenant_number in [1, 2] {
            let open = |id: Option<IntegrationId>| {
                let of_it = self.naive.promises.iter().filter(|promise| {
                    promise.tenant_id == tenant(tenant_number)
                        && id.is_none_or(|id| promise.request.integration_id == id)
                        && promise.state(self.now) == ReservationState::Open
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
        let place = self.naive.records.len() - book.entries().len();
        for (entry, record) in book.entries().iter().zip(self.naive.records.iter().skip(place)) {
            assert_eq!(entry.entry_id, record.entry_id);
            assert_eq!(entry.tenant_id, record.tenant_id);
            assert_eq!(*entry.usage, record.usage);
            assert_eq!(entry.occurred_at, record.occurred_at);
            assert_eq!(entry.created_at, record.arrived_at);
            assert_eq!((entry.cost.get(), entry.cost_source), (record.cost, record.cost_source));
        }
    }

    /// What is stored is the sum of the entries that are stored, whatever was touched.
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

    /// At the end everything is swept: what is open is held, and a day later nothing is.
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
        for promise in &self.naive.promises {
            let call = &promise.request.call_id;
            let stored = self.storage.reservation(promise.tenant_id, call).unwrap();
            assert_eq!(stored.state, promise.state(self.now), "{promise:?}");
            assert_eq!(stored.expires_at, promise.until, "{promise:?}");
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

/// A reservation ends once; that it does not end again in a later group is storage's assertion.
fn assert_ends_are_told_once(book: &Book<'_>) {
    let mut ended = BTreeSet::new();
    for change in book.holds() {
        if let HoldChange::Ended(hold) = change {
            assert!(ended.insert((hold.tenant_id, hold.call)), "{change:?}");
        }
    }
}

/// Every answer there is must have been given often, or the run has proved less than it seems.
fn assert_everything_happened(tally: &Tally) {
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
        let times = tally.answers.get(word).copied().unwrap_or_default();
        assert!(times >= 100, "{word} came {times} times only: {tally:#?}");
    }
    assert!(tally.admitted_to_the_last >= 100, "{tally:#?}");
    assert!(tally.steps >= 100_000, "{tally:#?}");
}

#[test]
fn the_core_answers_like_the_model_for_a_hundred_thousand_steps() {
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
            // Whether and how far anybody swept must not show.
            if run.chance.percent(30) {
                let limit = run.chance.one_of(&[1, 2, 100]);
                run.storage.sweep_some(run.now, limit);
            }
            run.group(&mut tally);
        }
        run.finish();
    }
    assert_everything_happened(&tally);
}
