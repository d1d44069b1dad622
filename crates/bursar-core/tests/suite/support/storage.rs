//! A storage in memory: it loads what `Book::open` requires, and saves what changed.
//!
//! It uses only the public API, loads no more than the core requires, and saves only what the core
//! reports as changed, so that a missing report fails the test.

#![expect(clippy::expect_used, reason = "a missing value is a fault of the core or the test")]

mod limits;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bursar_core::{
    Account, Book, Call, CallId, CallKey, Caps, Command, CostBasis, CostSource, Counter, Entry,
    EntryId, Health, Hold, HoldChange, Integration, IntegrationId, IntegrationStatus, LimitAccount,
    LimitAccountKey, LimitSettings, Loaded, Month, Overflow, RecordMode, RecordedCall, Reservation,
    ReservationState, ReserveRequest, Subject, TenantId, TenantLifecycle, TenantSums, Timestamp,
    Totals, Usage,
};

use self::limits::StoredLimits;
use super::calendar::TestCalendar;
use super::entry;

/// A command with owned content.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    Record(Usage),
    /// A record that is accepted only for a known call.
    RecordKnown(Usage),
    Reserve(ReserveRequest),
    Release {
        call_id: CallId,
        only: Option<IntegrationId>,
    },
    Extend {
        call_id: CallId,
        only: Option<IntegrationId>,
        ttl_seconds: Option<u32>,
    },
}

/// A command of a tenant.
#[derive(Clone, Debug)]
pub(crate) struct Submission {
    pub(crate) tenant_id: TenantId,
    pub(crate) action: Action,
}

impl Submission {
    pub(crate) fn command(&self, entry_id: EntryId) -> Command<'_> {
        match &self.action {
            Action::Record(usage) => Command::Record { entry_id, usage, mode: RecordMode::Any },
            Action::RecordKnown(usage) => {
                Command::Record { entry_id, usage, mode: RecordMode::KnownOnly }
            }
            Action::Reserve(request) => Command::Reserve(request),
            Action::Release { call_id, only } => Command::Release { call_id, only: *only },
            Action::Extend { call_id, only, ttl_seconds } => {
                Command::Extend { call_id, only: *only, ttl_seconds: *ttl_seconds }
            }
        }
    }

    pub(crate) fn call_id(&self) -> &CallId {
        self.command(entry(1)).call_id()
    }

    pub(crate) fn key(&self) -> CallKey {
        key_of(self.call_id())
    }

    /// What limits look at; `reservation` is that of the call, if there was one before.
    pub(crate) fn subject<'a>(&'a self, reservation: Option<&Reservation>) -> Option<Subject<'a>> {
        match &self.action {
            Action::Record(usage) | Action::RecordKnown(usage) => {
                let request = reservation.map(|reservation| &reservation.request);
                let here = request.filter(|other| other.integration_id == usage.integration_id);
                Some(usage.subject(here.map_or(usage.account_key_id, |held| held.account_key_id)))
            }
            Action::Reserve(request) => Some(request.subject()),
            Action::Release { .. } | Action::Extend { .. } => None,
        }
    }

    /// The month that a record names; storage knows the month of a reservation.
    fn month(&self) -> Option<Month> {
        match &self.action {
            Action::Record(usage) | Action::RecordKnown(usage) => {
                usage.occurred_at.map(Timestamp::month)
            }
            Action::Reserve(_) | Action::Release { .. } | Action::Extend { .. } => None,
        }
    }
}

/// The short key of a call id: the part before a `#`, so that a test can make two ids collide.
pub(crate) fn key_of(call_id: &CallId) -> CallKey {
    let text = call_id.as_str();
    let short = text.split('#').next().unwrap_or(text);
    CallKey(short.bytes().fold(7, |key, byte| (key << 8) | u128::from(byte)))
}

/// An integration and its tenant, as far as the rules know them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Profile {
    pub(crate) tenant_id: TenantId,
    pub(crate) lifecycle: TenantLifecycle,
    pub(crate) integration: Integration,
}

impl Profile {
    /// Enabled and healthy, of an active tenant.
    pub(crate) fn enabled(tenant_id: TenantId, limits: LimitSettings) -> Self {
        let integration = Integration {
            status: IntegrationStatus::Enabled,
            health: Health::Healthy,
            ..Integration::new(limits, CostBasis::Reported)
        };
        Self { tenant_id, lifecycle: TenantLifecycle::Active, integration }
    }
}

/// A stored entry of the ledger.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) call: RecordedCall,
    pub(crate) cost: bursar_core::Nanos,
    pub(crate) cost_source: CostSource,
}

#[derive(Clone, Debug)]
struct StoredCall {
    call_id: CallId,
    reservation: Option<Reservation>,
    record: Option<RecordedCall>,
}

/// All committed data.
#[derive(Clone, Debug, Default)]
pub(crate) struct Storage {
    pub(crate) profiles: BTreeMap<IntegrationId, Profile>,
    pub(crate) caps: Caps,
    pub(crate) entries: Vec<Kept>,
    pub(crate) limits: StoredLimits,
    /// Bytes of records by tenant and day.
    bytes: BTreeMap<(TenantId, i32), i64>,
    last_entry: i64,
    counters: BTreeMap<(IntegrationId, Month), Counter>,
    rate: BTreeMap<(IntegrationId, u8), (i64, u32)>,
    calls: HashMap<(TenantId, CallKey), StoredCall>,
    holds: Vec<Hold>,
    ended: BTreeSet<(TenantId, CallKey)>,
}

impl Storage {
    /// The id of the entry `ahead` places after the next one.
    pub(crate) fn entry_id(&self, ahead: usize) -> EntryId {
        entry(self.last_entry + ahead as i64 + 1)
    }

    pub(crate) fn counter(&self, integration_id: IntegrationId, month: Month) -> Counter {
        self.counters.get(&(integration_id, month)).copied().unwrap_or_default()
    }

    pub(crate) fn set_counter(&mut self, id: IntegrationId, month: Month, counter: Counter) {
        self.counters.insert((id, month), counter);
    }

    /// The months of an integration that have a counter.
    pub(crate) fn months(&self, integration_id: IntegrationId) -> Vec<Month> {
        let of_it = |key: &&(IntegrationId, Month)| key.0 == integration_id;
        self.counters.keys().filter(of_it).map(|key| key.1).collect()
    }

    pub(crate) fn reservation(&self, tenant_id: TenantId, call: &CallId) -> Option<&Reservation> {
        self.calls.get(&(tenant_id, key_of(call)))?.reservation.as_ref()
    }

    pub(crate) fn holds(&self) -> &[Hold] {
        &self.holds
    }

    /// The account of an integration with these months.
    pub(crate) fn account(
        &self,
        integration_id: IntegrationId,
        months: impl IntoIterator<Item = Month>,
        now: Timestamp,
    ) -> Option<Account> {
        let profile = self.profiles.get(&integration_id)?;
        let mut account = Account::new(profile.tenant_id, profile.lifecycle, profile.integration);
        let of_it = self.holds.iter().filter(|hold| hold.integration_id == integration_id);
        account.restore_open(of_it.clone().count() as i64);
        let mut due: BTreeMap<Month, Totals> = BTreeMap::new();
        for hold in of_it.filter(|hold| hold.expires_at <= now) {
            let sum = due.entry(hold.month).or_default();
            *sum = sum.plus(hold.amount).expect("sums that fit");
        }
        account.restore_due(due.into_iter().collect());
        for month in months {
            account.restore(month, self.counter(integration_id, month));
        }
        for ((_, _), (second, calls)) in self.rate.range((integration_id, 0)..=(integration_id, 59))
        {
            account.rate.restore(*second, *calls);
        }
        Some(account)
    }

    /// The stored account of a limit; `None` if the tenant has no such limit.
    pub(crate) fn limit_account(
        &self,
        key: &LimitAccountKey,
        now: Timestamp,
    ) -> Option<LimitAccount> {
        let limit = self.limits.of(key.tenant_id)?.get(key.limit_id)?;
        Some(self.limits.account(&limit.rule.bound, key, &self.holds, now))
    }

    /// Opens the book of a group.
    pub(crate) fn load<'a>(
        &self,
        now: Timestamp,
        group: &'a [Submission],
    ) -> Result<Book<'a>, Overflow> {
        let mut calls = HashMap::new();
        let mut months: BTreeMap<IntegrationId, BTreeSet<Month>> = BTreeMap::new();
        let mut keys = BTreeSet::new();
        for submission in group {
            let command = submission.command(entry(1));
            let key = (submission.tenant_id, submission.key());
            let stored = self.calls.get(&key);
            let named = command.integration_id().into_iter();
            let reservation = stored.and_then(|call| call.reservation.as_ref());
            let of_reservation = reservation.map(|held| held.request.integration_id);
            for id in named.chain(of_reservation) {
                let of_account = months.entry(id).or_default();
                of_account.insert(now.month());
                of_account.extend(submission.month());
                of_account.extend(reservation.map(Reservation::month));
            }
            let set = self.limits.of(submission.tenant_id);
            if let (Some(set), Some(subject)) = (set, submission.subject(reservation)) {
                keys.extend(set.account_keys(submission.tenant_id, &subject));
            }
            calls.entry(key).or_insert_with(|| match stored.cloned() {
                Some(call) => Call::stored(call.call_id, call.reservation, call.record),
                None => Call::fresh(command.call_id().clone()),
            });
        }
        self.open(now, calls, months, keys, Vec::new())
    }

    /// Removes all due holds.
    pub(crate) fn sweep(&mut self, now: Timestamp) {
        self.sweep_some(now, usize::MAX);
    }

    /// Removes at most `limit` due holds.
    pub(crate) fn sweep_some(&mut self, now: Timestamp, limit: usize) {
        let due = self.holds.iter().filter(|hold| hold.expires_at <= now);
        let due: Vec<Hold> = due.take(limit).cloned().collect();
        let mut months: BTreeMap<IntegrationId, BTreeSet<Month>> = BTreeMap::new();
        for hold in &due {
            months.entry(hold.integration_id).or_default().insert(hold.month);
        }
        let book = self.open(now, HashMap::new(), months, BTreeSet::new(), due);
        let book = book.expect("all that is due is loaded");
        self.save(book);
    }

    fn open<'a>(
        &self,
        now: Timestamp,
        calls: HashMap<(TenantId, CallKey), Call>,
        months: BTreeMap<IntegrationId, BTreeSet<Month>>,
        mut keys: BTreeSet<LimitAccountKey>,
        due: Vec<Hold>,
    ) -> Result<Book<'a>, Overflow> {
        let accounts = months.into_iter();
        let accounts =
            accounts.filter_map(|(id, months)| Some((id, self.account(id, months, now)?)));
        let tenants = calls.keys().map(|(tenant_id, _)| (*tenant_id, self.sums(*tenant_id, now)));
        let of_limits = calls.keys().map(|(tenant_id, _)| *tenant_id);
        let of_limits = of_limits.chain(due.iter().map(|hold| hold.tenant_id)).collect();
        let held = calls.values().filter_map(|call| call.reservation.as_ref());
        let postings = held.map(|held| &held.postings).chain(due.iter().map(|hold| &hold.postings));
        let of_postings = postings.flat_map(|postings| postings.iter());
        keys.extend(of_postings.map(|posting| posting.account.clone()));
        let loaded = Loaded {
            accounts: accounts.collect(),
            tenants: tenants.collect(),
            limits: self.limits.load(&of_limits, &keys, &self.holds, now),
            calls,
            due,
        };
        Book::open(now, self.caps, &TestCalendar, loaded)
    }

    fn sums(&self, tenant_id: TenantId, now: Timestamp) -> TenantSums {
        let open = self.holds.iter().filter(|hold| hold.tenant_id == tenant_id);
        let open = open.filter(|hold| hold.expires_at > now).count();
        let stored = self.bytes.get(&(tenant_id, now.day().number())).copied();
        TenantSums {
            open_reservations: Some(open as i64),
            stored_bytes: Some(stored.unwrap_or_default()),
        }
    }

    /// Saves the changes of a group.
    pub(crate) fn save(&mut self, book: Book<'_>) {
        for (id, account) in book.accounts() {
            for (month, counter) in account.changed_months() {
                self.counters.insert((*id, month), counter);
            }
            for (slot, second, calls) in account.rate.changed() {
                self.rate.insert((*id, slot), (second, calls));
            }
        }
        self.limits.save(book.limits());
        for (key, call) in book.calls().iter().filter(|(_, call)| call.is_changed()) {
            assert!(!call.is_void(), "a change leaves something behind: {call:?}");
            let record = self.calls.get_mut(key).and_then(|stored| stored.record.take());
            let (call_id, reservation) = (call.call_id.clone(), call.reservation.clone());
            self.calls.insert(*key, StoredCall { call_id, reservation, record });
        }
        for hold in book.expired().iter().filter(|hold| !in_group(&book, hold)) {
            let call = self.calls.get_mut(&(hold.tenant_id, hold.call));
            let reservation = call.and_then(|call| call.reservation.as_mut());
            let reservation = reservation.expect("what expires was reserved");
            reservation.state = ReservationState::Expired;
            reservation.ended_at = Some(hold.expires_at);
        }
        for entry in book.entries() {
            self.keep(entry);
        }
        for change in book.holds() {
            self.change(change.clone());
        }
    }

    fn keep(&mut self, entry: &Entry<'_>) {
        let kept = Kept { call: recorded(entry), cost: entry.cost, cost_source: entry.cost_source };
        assert!(entry.entry_id.number() > self.last_entry, "entries are numbered: {kept:?}");
        self.last_entry = entry.entry_id.number();
        let day = entry.created_at.day().number();
        *self.bytes.entry((entry.tenant_id, day)).or_default() += entry.usage.stored_bytes();
        let key = (entry.tenant_id, key_of(&entry.usage.call_id));
        let call = self.calls.get_mut(&key).expect("a call with a new entry is changed");
        assert!(call.record.is_none(), "one record per call id: {call:?}");
        call.record = Some(kept.call.clone());
        self.entries.push(kept);
    }

    /// Changes the open holds. A hold that ends twice, or was never made, fails the test.
    fn change(&mut self, change: HoldChange) {
        match change {
            HoldChange::Made(hold) => {
                assert!(!self.ended.contains(&(hold.tenant_id, hold.call)), "again: {hold:?}");
                self.holds.push(hold);
            }
            HoldChange::Ended(hold) => {
                assert!(self.ended.insert((hold.tenant_id, hold.call)), "ends twice: {hold:?}");
                let index = self.holds.iter().position(|open| is_same(open, &hold));
                self.holds.swap_remove(index.expect("what ends is open"));
            }
            HoldChange::Extended { before, expires_at } => {
                let open = self.holds.iter_mut().find(|open| is_same(open, &before));
                *open.expect("what is extended is open") = Hold { expires_at, ..before };
            }
        }
    }
}

/// Whether a change is about this hold. It leaves out the accounts of deleted limits.
fn is_same(open: &Hold, changed: &Hold) -> bool {
    let is_held = changed.postings.iter().all(|posting| open.postings.contains(posting));
    is_held && *changed == Hold { postings: Arc::clone(&changed.postings), ..open.clone() }
}

fn in_group(book: &Book<'_>, hold: &Hold) -> bool {
    book.calls().contains_key(&(hold.tenant_id, hold.call))
}

fn recorded(entry: &Entry<'_>) -> RecordedCall {
    let usage = entry.usage;
    RecordedCall {
        entry_id: entry.entry_id,
        call_id: usage.call_id.clone(),
        integration_id: usage.integration_id,
        session_id: usage.session_id.clone(),
        agent_id: usage.agent_id.clone(),
        provider: usage.provider.clone(),
        model: usage.model.clone(),
        tokens_in: usage.tokens.tokens_in(),
        tokens_out: usage.tokens.tokens_out(),
        reported_cost: usage.cost,
        policy_result: usage.policy_result,
        error_code: usage.error_code.clone(),
        occurred_at: entry.occurred_at,
        cost_source: entry.cost_source,
    }
}
