//! Long random runs that compare the core with a naive model at each step.

#![expect(clippy::unwrap_used, reason = "a run names only what it created")]

mod generate;
mod labels;
mod limits;
mod tally;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bursar_core::{
    Book, Caps, Estimate, ExtendOutcome, HoldChange, IntegrationId, Limit, LimitAccount,
    LimitAccountKey, LimitSettings, LimitState, Measure, Month, NANOS_PER_CENT, Nanos, Outcome,
    ReleaseOutcome, Reservation, ReservationState, ReserveOutcome, TenantId, Timestamp, Totals,
    Window, decide,
};
use bursar_testing::chance::Chance;

use self::tally::Tally;
use crate::support::naive::limits::{amount_in_force, period};
use crate::support::naive::{Naive, Sums};
use crate::support::storage::{Profile, Storage, Submission};
use crate::support::{day, integration, seconds, tenant};

/// Groups that are run from one seed; about three commands each.
const GROUPS: usize = 60;
const SEEDS: u64 = 620;

/// Integrations 1 to 4 belong to tenant 1, 5 and 6 to tenant 2; the 7th does not exist.
const INTEGRATIONS: [(i64, i64); 6] = [(1, 1), (2, 1), (3, 1), (4, 1), (5, 2), (6, 2)];

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
            let limits = run.settings();
            run.set(integration(number), Profile::enabled(tenant(tenant_number), limits));
        }
        run.set_caps();
        run.set_limits(tenant(1), (1, 4));
        run.set_limits(tenant(2), (5, 6));
        run
    }

    /// Changes an integration in the storage and in the model.
    fn set(&mut self, id: IntegrationId, profile: Profile) {
        self.storage.profiles.insert(id, profile);
        self.naive.profiles.retain(|(known, _)| *known != id);
        self.naive.profiles.push((id, profile));
    }

    /// Runs one group on the core and on the model, and compares them after every step.
    fn group(&mut self, tally: &mut Tally) {
        let size = self.chance.between(1, 5);
        let group: Vec<Submission> = (0..size).map(|_| self.submission()).collect();
        let mut book = self.storage.load(self.now, &group).unwrap();
        self.compare_accounts(&book);
        self.compare_limits(&book);
        for (index, submission) in group.iter().enumerate() {
            let entry_id = self.storage.entry_id(index);
            let command = submission.command(entry_id);
            let outcome = book.apply(submission.tenant_id, submission.key(), command).unwrap();
            let expected =
                self.naive.apply(submission.tenant_id, &submission.action, entry_id, self.now);
            let shown = without_postings(outcome.clone());
            assert_eq!(shown, expected, "{submission:?} at {:?}", self.now);
            self.compare_accounts(&book);
            self.compare_limits(&book);
            self.check_limits(&book, &outcome, tally);
            tally.count(&outcome);
            tally.count_decision(&self.naive, submission, &outcome, self.now);
        }
        self.check_caps();
        self.compare_decisions(&book, &group);
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

    /// Compares the loaded accounts of limits, and the numbers of their values, with the model.
    fn compare_limits(&self, book: &Book<'_>) {
        let accounts = book.limits().accounts();
        for (tenant_id, set) in &self.naive.limits {
            for limit in set.limits() {
                let of_limit =
                    |key: &LimitAccountKey| key.tenant_id == *tenant_id && key.limit_id == limit.id;
                let loaded: Vec<_> = accounts.iter().filter(|(key, _)| of_limit(key)).collect();
                if loaded.is_empty() {
                    continue;
                }
                let values = book.limits().values(*tenant_id, limit.id);
                let values = values.map(|values| (values.start, values.accounts));
                self.compare_limit((*tenant_id, limit), &loaded, values);
            }
        }
    }

    fn compare_limit(
        &self,
        (tenant_id, limit): (TenantId, &Limit),
        loaded: &[(&LimitAccountKey, &LimitAccount)],
        values: Option<(Timestamp, i64)>,
    ) {
        let now = self.now;
        let Some(period) = period(limit, now) else { return };
        let bound = &limit.rule.bound;
        let resets_at = matches!(bound.window(), Some(Window::Calendar(..))).then_some(period.end);
        let expected = self.naive.accounts(tenant_id, limit, now);
        for (key, account) in loaded {
            let (used, held) = expected.sums(&key.value);
            let of = |sums: Sums| match bound.measure() {
                Measure::Cost => sums.0.into(),
                Measure::Tokens => sums.1.into(),
                Measure::Calls | Measure::Concurrent => sums.2.into(),
            };
            let expected = LimitState {
                measure: bound.measure(),
                amount: amount_in_force(bound, now),
                used: of(used),
                held: of(held),
                resets_at,
            };
            let state = account.state(bound, period, now).unwrap();
            assert_eq!(state, expected, "{key:?} {limit:?} {now:?}");
        }
        if limit.is_for_each() {
            let (start, accounts) = values.unwrap();
            let accounts = if start == period.start { accounts } else { 0 };
            assert_eq!(accounts, expected.own.len() as i64, "values of {limit:?} {now:?}");
        }
    }

    /// Compares decisions about the calls of a group with the model's.
    fn compare_decisions(&self, book: &Book<'_>, group: &[Submission]) {
        for submission in group {
            let reserved = self.storage.reservation(submission.tenant_id, submission.call_id());
            let Some(subject) = submission.subject(reserved) else { continue };
            let account = book.accounts().get(&subject.integration_id);
            let own = account.filter(|account| account.tenant_id == submission.tenant_id);
            let Some(account) = own else { continue };
            let limits = book.limits().in_force(submission.tenant_id, &subject).unwrap();
            for estimate in [Estimate::default(), estimate(NANOS_PER_CENT, 10)] {
                let decision = decide(account, &limits, estimate, self.now).unwrap();
                let expected = self.naive.decide(&subject, estimate, self.now);
                assert_eq!(decision, expected, "check {submission:?} at {:?}", self.now);
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
        if budget != 0 && cost == budget {
            tally.count_moment("a hold took the last of a budget");
        }
        self.check_limits_of_tenant(book, reservation);
    }

    /// Checks that used + held <= amount in every account of a new hold.
    fn check_limits_of_tenant(&self, book: &Book<'_>, reservation: &Reservation) {
        for posting in reservation.postings.iter() {
            let key = &posting.account;
            let account = book.limits().accounts().get(key).unwrap();
            let limit = self.naive.limits.get(&key.tenant_id).unwrap().get(key.limit_id).unwrap();
            let bound = &limit.rule.bound;
            let period = period(limit, self.now).unwrap();
            let state = account.state(bound, period, self.now).unwrap();
            let is_kept = state.used + state.held <= amount_in_force(bound, self.now);
            let can_refuse = limit.enabled && limit.rule.action.refuses();
            assert!(is_kept || !can_refuse, "{limit:?} {state:?}");
        }
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
            assert_eq!(entry.account_key_id, record.account_key_id);
            assert_eq!(entry.limits_version, record.limits_version);
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
        self.compare_stored_limits();
        self.now = seconds(self.now, 2 * 86_400);
        self.storage.sweep(self.now);
        self.compare_holds();
        self.compare_stored_limits();
        assert!(self.storage.holds().is_empty());
    }

    /// Compares all stored accounts of limits with the model.
    fn compare_stored_limits(&self) {
        for key in self.storage.limits.keys() {
            let limit = self.naive.limits.get(&key.tenant_id).unwrap().get(key.limit_id).unwrap();
            let account = self.storage.limit_account(key, self.now).unwrap();
            let values = self.storage.limits.values(key);
            self.compare_limit((key.tenant_id, limit), &[(key, &account)], values);
        }
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

/// An outcome as the model knows it: without the accounts in which a reservation is held.
fn without_postings(mut outcome: Outcome) -> Outcome {
    if let Some(reservation) = reservation_in(&mut outcome) {
        reservation.postings = Arc::default();
    }
    outcome
}

fn reservation_in(outcome: &mut Outcome) -> Option<&mut Reservation> {
    match outcome {
        Outcome::Reserve(ReserveOutcome::Held(held) | ReserveOutcome::Replayed(held))
        | Outcome::Release(ReleaseOutcome::Released(held) | ReleaseOutcome::Expired(held)) => {
            Some(held)
        }
        Outcome::Extend(ExtendOutcome::Extended(held)) => Some(held),
        Outcome::Record(_)
        | Outcome::Reserve(ReserveOutcome::Refused(_) | ReserveOutcome::Rejected(_))
        | Outcome::Release(ReleaseOutcome::NotFound | ReleaseOutcome::Settled)
        | Outcome::Extend(
            ExtendOutcome::NotFound | ExtendOutcome::Ended(_) | ExtendOutcome::TenantNotActive,
        ) => None,
    }
}

#[test]
fn the_core_decides_like_the_model_for_a_hundred_thousand_steps() {
    let mut tally = Tally::default();
    for seed in 1..=SEEDS {
        let mut run = Run::new(seed);
        for group in 0..GROUPS {
            if group % 2 == 0 {
                run.calls_from += 1;
            }
            if run.chance.percent(8) {
                run.change_a_profile();
            }
            if run.chance.percent(8) {
                let number = run.chance.between(1, 2);
                run.change_a_limit(tenant(number));
            }
            let before = run.now;
            run.move_on();
            tally.count_edges(&run.naive, before, run.now);
            // Sweeps must make no difference.
            if run.chance.percent(30) {
                let limit = run.chance.one_of(&[1, 2, 100]);
                run.storage.sweep_some(run.now, limit);
            }
            run.group(&mut tally);
        }
        run.finish();
    }
    tally.check();
}
