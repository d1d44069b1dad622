//! Thousands of random commands, after which the sums equal the rows.

#![expect(clippy::unwrap_used, reason = "a test that cannot be arranged has failed")]

use std::collections::BTreeMap;

use bursar_core::{
    Action as LimitAction, CalendarUnit, CallId, EntryId, Estimate, ExtendOutcome, IntegrationId,
    KeyId, Label, LimitSettings, Nanos, PolicyResult, RecordMode, RecordOutcome, ReleaseOutcome,
    Reservation, ReserveOutcome, ReserveRequest, Scope, TagNames, Tags, TenantId, TenantLifecycle,
    Timestamp, TokenBuckets, Usage, Window,
};
use bursar_store::{ControlTx, IntegrationEdit, Ledger};
use bursar_testing::chance::Chance;

use crate::support::accounts::account_snapshot;
use crate::support::group::{CommandFuture, in_one_group};
use crate::support::limit_recount::{KnownLimit, check_limits};
use crate::support::limits::{
    calendar, calls, concurrent, cost, delete_limit, each, limit, only, put_limits, tokens,
};
use crate::support::{SQLITE, World, budget, call_id, request, usage};

/// A command.
#[derive(Clone, Debug)]
enum Action {
    Record(RecordMode, Vec<Usage>),
    Reserve(ReserveRequest),
    Release(CallId, Option<IntegrationId>),
    Extend(CallId, Option<u32>),
    LoadAccount(IntegrationId),
    Sweep,
}

/// The outcome of a command.
#[derive(Clone, Debug, PartialEq)]
enum ActionOutcome {
    Record(Vec<RecordOutcome>),
    Reserve(ReserveOutcome),
    Release(ReleaseOutcome),
    Extend(ExtendOutcome),
    Done,
}

async fn perform(ledger: &Ledger, tenant_id: TenantId, action: Action) -> ActionOutcome {
    match action {
        Action::Record(mode, records) => {
            let outcomes = ledger.record_as(mode, tenant_id, records).await.unwrap();
            ActionOutcome::Record(outcomes.into_iter().map(|costed| costed.outcome).collect())
        }
        Action::Reserve(requested) => {
            ActionOutcome::Reserve(ledger.reserve(tenant_id, requested).await.unwrap())
        }
        Action::Release(call, only) => {
            ActionOutcome::Release(ledger.release(tenant_id, call, only).await.unwrap())
        }
        Action::Extend(call, ttl) => {
            ActionOutcome::Extend(ledger.extend(tenant_id, call, None, ttl).await.unwrap())
        }
        Action::LoadAccount(integration_id) => {
            ledger.load_account(tenant_id, integration_id).await.unwrap();
            ActionOutcome::Done
        }
        Action::Sweep => {
            ledger.sweep().await.unwrap();
            ActionOutcome::Done
        }
    }
}

/// A tenant with two free integrations and a strict one.
///
/// On the strict one every call is reserved and costs at most its held amount, so its month must
/// never exceed the limit.
struct Tenant {
    tenant_id: TenantId,
    free: Vec<IntegrationId>,
    strict: IntegrationId,
    /// Holds of the strict integration that were not used yet.
    open: Vec<Reservation>,
    /// Records to send again.
    sent: Vec<Usage>,
    /// Holds of the free integrations, in any state.
    held: Vec<ReserveRequest>,
    /// The entry of each recorded call.
    entries: BTreeMap<String, EntryId>,
    limits: Vec<KnownLimit>,
    /// The number of the next limit.
    next_limit: i64,
}

const STRICT_CENTS: i64 = 400;
/// The limits of a tenant; a deleted one is replaced by another.
const LIMITS: usize = 6;
/// The names of tags.
const TAGS: [&str; 3] = ["customer", "feature", "team"];

async fn tenant(world: &World, name: &'static str) -> Tenant {
    let tenant_id = world.tenant(name).await;
    let limits =
        LimitSettings { budget_limit_cents: 900, token_limit_month: 40_000, rate_limit_rpm: 80 };
    let free = vec![
        world.integration(tenant_id, "limited", limits).await,
        world.integration(tenant_id, "unlimited", LimitSettings::default()).await,
    ];
    let strict = world.integration(tenant_id, "strict", budget(STRICT_CENTS)).await;
    let mut tenant = Tenant {
        tenant_id,
        free,
        strict,
        open: vec![],
        sent: vec![],
        held: vec![],
        entries: BTreeMap::new(),
        limits: Vec::new(),
        next_limit: 1,
    };
    for _ in 0..LIMITS {
        tenant.add_limit(world).await;
    }
    tenant
}

impl Tenant {
    /// Makes the next limit. None takes the place of another.
    async fn add_limit(&mut self, world: &World) {
        let number = self.next_limit;
        let zone = calendar(CalendarUnit::Day, "Europe/Berlin");
        let (scope, bound) = match number % LIMITS as i64 {
            0 => (Scope::Tenant, tokens(Window::Minute, 60_000)),
            1 => (each(Label::Agent), cost(zone, 5_000)),
            2 => (each(Label::Session), concurrent(40)),
            3 => (only(Label::Model, "gpt"), calls(calendar(CalendarUnit::Hour, "UTC"), 300)),
            4 => (each(Label::Key), cost(Window::Minute, 5_000)),
            _ => (
                each(Label::Tag(TAGS.first().copied().unwrap().into())),
                tokens(Window::Total { starts_at: Timestamp::MIN }, 10_000_000),
            ),
        };
        let row = limit(self.tenant_id, number, scope, bound);
        put_limits(&world.ledger, vec![row.clone()]).await;
        let versions = world.database.rows(&["select tenant_id, version from limit_sets"]);
        let own = Some(self.tenant_id.number().to_string());
        let own = versions.iter().flatten().find(|row| row.first() == Some(&own)).unwrap();
        let since = own.get(1).unwrap().as_ref().unwrap().parse().unwrap();
        self.limits.push(KnownLimit { row, since });
        self.next_limit += 1;
    }

    /// Changes a limit, or deletes it and makes another.
    async fn change_limits(&mut self, world: &World, chance: &mut Chance) {
        let place = chance.below(self.limits.len() as u64) as usize;
        let Some(known) = self.limits.get_mut(place) else { return };
        let row = &mut known.row;
        match chance.between(1, 10) {
            1 | 2 => {
                let number = row.limit.id.number();
                self.limits.remove(place);
                delete_limit(&world.ledger, self.tenant_id, number).await;
                self.add_limit(world).await;
                return;
            }
            3..=5 => row.limit.enabled = chance.percent(60),
            6 | 7 => row.limit.required = chance.percent(20),
            _ => {
                let actions = [LimitAction::Block, LimitAction::Throttle, LimitAction::Warn];
                row.limit.rule.action = chance.one_of(&actions);
            }
        }
        put_limits(&world.ledger, vec![row.clone()]).await;
    }

    fn next_action(&mut self, chance: &mut Chance, now: Timestamp) -> Action {
        match chance.between(1, 100) {
            1..=40 => {
                let records = if chance.percent(80) { 1 } else { chance.between(2, 12) };
                let known_only = chance.percent(20);
                let mode = if known_only { RecordMode::KnownOnly } else { RecordMode::Any };
                Action::Record(mode, (0..records).map(|_| self.usage(chance, now)).collect())
            }
            41..=60 => Action::Reserve(self.request(chance)),
            61..=70 => self.settle_or_release(chance, now),
            71..=75 => Action::Reserve(self.strict_request(chance)),
            76..=84 => {
                let only = chance.percent(30).then(|| chance.one_of(&self.free));
                Action::Release(self.held_call(chance), only)
            }
            85..=92 => {
                let ttl = chance.percent(50).then(|| chance.between(1, 7_200) as u32);
                Action::Extend(self.held_call(chance), ttl)
            }
            93..=97 => Action::LoadAccount(chance.one_of(&self.free)),
            _ => Action::Sweep,
        }
    }

    /// Mostly one of the last held calls.
    fn held_call(&self, chance: &mut Chance) -> CallId {
        let last = self.held.get(self.held.len().saturating_sub(12)..).unwrap_or_default();
        if last.is_empty() || chance.percent(10) {
            return any_call(chance);
        }
        chance.one_of(last).call_id
    }

    fn held_or_new(&self, chance: &mut Chance) -> CallId {
        if chance.percent(15) { self.held_call(chance) } else { any_call(chance) }
    }

    /// A record on a free integration: new, repeated, or with a used call id.
    fn usage(&mut self, chance: &mut Chance, now: Timestamp) -> Usage {
        if !self.sent.is_empty() && chance.percent(20) {
            return chance.one_of(&self.sent);
        }
        let tokens_in = chance.between(0, 900);
        let cached = chance.between(0, tokens_in);
        let ago = match chance.between(1, 100) {
            1..=60 => None,
            61..=75 => Some(chance.between(0, 70)),
            76..=90 => Some(chance.between(0, 10 * 86_400)),
            91..=95 => Some(chance.between(0, 200 * 86_400)),
            _ => Some(-chance.between(0, 600)),
        };
        let moment = |ago: i64| Timestamp::from_micros(now.micros() - ago * 1_000_000).unwrap();
        let policy = [PolicyResult::Allowed, PolicyResult::Warned, PolicyResult::Blocked];
        let made = Usage {
            session_id: chance.percent(50).then(|| "session".into()),
            agent_id: any_agent(chance),
            account_key_id: KeyId::from_number(chance.between(1, 3)),
            provider: chance.one_of(&["openai", "anthropic"]).into(),
            model: chance.one_of(&["gpt", "claude", "small"]).into(),
            tokens: TokenBuckets::new(tokens_in, chance.between(0, 300), cached, 0, 0).unwrap(),
            cost: chance.percent(70).then(|| Nanos::new(chance.between(0, 70_000_001))),
            latency_ms: chance.percent(80).then(|| chance.between(0, 60_000)),
            key_id: KeyId::from_number(chance.between(0, 4)).filter(|key| key.number() > 0),
            tags: tags(chance),
            policy_result: chance.one_of(&policy),
            error_code: chance.percent(15).then(|| "failed".into()),
            occurred_at: ago.map(moment),
            call_id: self.held_or_new(chance),
            ..usage(chance.one_of(&self.free), "any")
        };
        self.sent.push(made.clone());
        made
    }

    fn request(&self, chance: &mut Chance) -> ReserveRequest {
        let last = self.held.get(self.held.len().saturating_sub(12)..).unwrap_or_default();
        if !last.is_empty() && chance.percent(10) {
            return chance.one_of(last);
        }
        ReserveRequest {
            call_id: any_call(chance),
            estimate: Estimate::new(
                Nanos::new(chance.between(0, 500_000_003)),
                chance.between(0, 3_000),
            )
            .unwrap(),
            model: chance.percent(60).then(|| "gpt".into()),
            agent_id: any_agent(chance),
            session_id: chance.percent(50).then(|| "session".into()),
            tags: tags(chance),
            account_key_id: KeyId::from_number(chance.between(1, 3)),
            ttl_seconds: chance.between(1, 900) as u32,
            ..request(chance.one_of(&self.free), "any")
        }
    }

    fn strict_request(&self, chance: &mut Chance) -> ReserveRequest {
        let call = call_id(&format!("strict {}", chance.between(1, 1_000_000)));
        let estimate =
            Estimate::new(Nanos::new(chance.between(1, 900_000_007)), chance.between(1, 500));
        ReserveRequest {
            call_id: call,
            estimate: estimate.unwrap(),
            ttl_seconds: chance.between(1, 86_400) as u32,
            ..request(self.strict, "any")
        }
    }

    /// Ends a hold of the strict integration; due holds are left to expire.
    fn settle_or_release(&mut self, chance: &mut Chance, now: Timestamp) -> Action {
        self.open.retain(|held| held.expires_at > now);
        if self.open.is_empty() {
            return Action::Reserve(self.strict_request(chance));
        }
        let place = chance.between(0, self.open.len() as i64 - 1) as usize;
        let held = self.open.swap_remove(place);
        let call = held.request.call_id;
        if chance.percent(30) {
            return Action::Release(call, None);
        }
        let held = held.request.estimate.cost.get();
        let cost = chance.percent(80).then(|| Nanos::new(chance.between(0, held)));
        let record = Usage { call_id: call, cost, ..usage(self.strict, "any") };
        Action::Record(RecordMode::KnownOnly, vec![record])
    }

    /// Checks an outcome against earlier ones, and remembers it.
    fn check_outcome(&mut self, action: &Action, outcome: &ActionOutcome) {
        if let (Action::Record(_, records), ActionOutcome::Record(outcomes)) = (action, outcome) {
            assert_eq!(records.len(), outcomes.len());
            for (usage, outcome) in records.iter().zip(outcomes) {
                let call = usage.call_id.as_str();
                let before = self.entries.get(call).copied();
                match outcome {
                    RecordOutcome::Accepted(id) => {
                        assert_eq!(before, None, "{call} was recorded before");
                        self.entries.insert(call.to_owned(), *id);
                    }
                    RecordOutcome::Duplicate(id) => assert_eq!(before, Some(*id), "{call}"),
                    RecordOutcome::Refused(_) => assert_eq!(before, None, "{call} is recorded"),
                    RecordOutcome::Conflict => {}
                }
            }
        }
        if let ActionOutcome::Reserve(ReserveOutcome::Held(held)) = outcome {
            let call = held.request.call_id.as_str();
            assert!(!self.entries.contains_key(call), "{call} was recorded before");
            if held.request.integration_id == self.strict {
                self.open.push(held.clone());
            } else {
                self.held.push(held.request.clone());
            }
        }
    }
}

/// A few of few tags.
fn tags(chance: &mut Chance) -> Tags {
    let mut tags = Tags::default();
    for name in TAGS {
        let value = format!("value {}", chance.between(1, 3));
        if !chance.percent(60) {
            assert!(tags.add(name, &value));
        }
    }
    tags
}

fn any_agent(chance: &mut Chance) -> Option<Box<str>> {
    chance.percent(60).then(|| format!("agent {}", chance.between(1, 5)).into())
}

/// One of few call ids, so that they repeat often.
fn any_call(chance: &mut Chance) -> CallId {
    call_id(&format!("call {}", chance.between(1, 1_500)))
}

/// Changes a limit or status of a free integration, or the tenant.
async fn change(world: &World, tenant: &Tenant, chance: &mut Chance) {
    let integration_id = chance.one_of(&tenant.free);
    let tenant_id = tenant.tenant_id;
    match chance.between(1, 13) {
        1..=4 => {
            let edit = IntegrationEdit {
                budget_limit_cents: Some(chance.one_of(&[0, 300, 20_000])),
                rate_limit_rpm: Some(chance.one_of(&[0, 5, 100])),
                ..IntegrationEdit::default()
            };
            let update = world.control(tenant_id, move |control| {
                control.update_integration(integration_id, edit.clone())
            });
            // The change is refused if the tenant is suspended.
            let _ = update.await.unwrap();
        }
        5 => {
            let disable = world
                .control(tenant_id, move |control| control.disable_integration(integration_id));
            let _ = disable.await.unwrap();
        }
        6..=8 => {
            let enable =
                world.control(tenant_id, move |control| control.enable_integration(integration_id));
            let _ = enable.await.unwrap();
        }
        11.. => {
            let listed = TAGS.into_iter().filter(|_| chance.percent(50));
            let names = TagNames::new(listed).unwrap();
            let list = world.control(tenant_id, move |control| control.set_tag_names(&names));
            // The change is refused if the tenant is suspended.
            let _ = list.await.unwrap();
        }
        to => {
            let lifecycle =
                if to == 9 { TenantLifecycle::Suspended } else { TenantLifecycle::Active };
            let lead = move |tx: &mut dyn ControlTx| {
                let mut row = tx.tenant(tenant_id)?.unwrap();
                row.lifecycle = lifecycle;
                tx.put_tenant(&row)
            };
            world.ledger.change(tenant_id, lead).await.unwrap();
        }
    }
}

async fn assert_strict(world: &World, tenants: &[Tenant]) {
    for tenant in tenants {
        let (tenant_id, strict) = (tenant.tenant_id, tenant.strict);
        let snapshot = account_snapshot(&world.store, tenant_id, strict).await.unwrap();
        let counter = snapshot.account.counter(snapshot.now.month()).unwrap();
        let counted = counter.used.cost.checked_add(counter.held.cost).unwrap();
        assert!(counted <= crate::support::cents(STRICT_CENTS), "{counted:?}");
        assert!(counter.held.cost >= Nanos::ZERO, "{counter:?}");
    }
}

/// Checks that all sums of the store and of its limits equal the rows.
async fn verify(world: &World, tenants: &[Tenant]) {
    world.verify().await;
    let limits = tenants.iter().flat_map(|tenant| tenant.limits.clone());
    check_limits(world.database.as_ref(), &limits.collect::<Vec<_>>(), world.clock.now());
}

/// Runs a number of groups, and returns all outcomes.
async fn run(seed: u64, groups: usize) -> Vec<ActionOutcome> {
    let mut chance = Chance::new(seed);
    let mut world = World::new(SQLITE);
    let mut tenants = Vec::new();
    for name in ["one", "two", "three"] {
        tenants.push(tenant(&world, name).await);
    }
    let mut outcomes = Vec::new();
    for group in 0..groups {
        world.clock.advance(match chance.between(1, 100) {
            1..=60 => chance.between(0, 2),
            61..=90 => chance.between(1, 100),
            91..=97 => chance.between(1, 36_000),
            _ => chance.between(1, 20 * 86_400),
        } as u32);
        let now = world.store.now();
        let size = if chance.percent(90) { chance.between(1, 30) } else { chance.between(30, 120) };
        let mut actions = Vec::new();
        for _ in 0..size {
            let index = chance.between(0, tenants.len() as i64 - 1) as usize;
            if let Some(tenant) = tenants.get_mut(index) {
                actions.push((index, tenant.tenant_id, tenant.next_action(&mut chance, now)));
            }
        }
        let requested = actions.iter().map(|(_, tenant_id, action)| {
            Box::pin(perform(&world.ledger, *tenant_id, action.clone()))
                as CommandFuture<'_, ActionOutcome>
        });
        let first = actions.iter().map(|(_, tenant_id, _)| *tenant_id).next().unwrap();
        let performed = in_one_group(&world.ledger, first, requested.collect()).await;
        // The writer takes records before admissions, and those of known calls last.
        let mut written: Vec<_> = actions.iter().zip(&performed).collect();
        written.sort_by_key(|((_, _, action), _)| match action {
            Action::Reserve(_) => 1,
            Action::Record(RecordMode::KnownOnly, _) => 2,
            Action::Record(RecordMode::Any, _)
            | Action::Release(..)
            | Action::Extend(..)
            | Action::LoadAccount(_)
            | Action::Sweep => 0,
        });
        for ((index, _, action), outcome) in written {
            if let Some(tenant) = tenants.get_mut(*index) {
                tenant.check_outcome(action, outcome);
            }
        }
        outcomes.extend(performed);
        assert_strict(&world, &tenants).await;
        if chance.percent(15) {
            let index = chance.between(0, tenants.len() as i64 - 1) as usize;
            if let Some(tenant) = tenants.get(index) {
                change(&world, tenant, &mut chance).await;
            }
        }
        if chance.percent(15) {
            let index = chance.between(0, tenants.len() as i64 - 1) as usize;
            if let Some(tenant) = tenants.get_mut(index) {
                tenant.change_limits(&world, &mut chance).await;
            }
        }
        if chance.percent(4) {
            world = world.reopened().await;
        }
        if group % 12 == 0 {
            verify(&world, &tenants).await;
        }
    }
    verify(&world, &tenants).await;
    verify(&world.reopened().await, &tenants).await;
    outcomes
}

#[tokio::test]
async fn after_thousands_of_commands_the_sums_equal_the_rows() {
    let outcomes = run(12, 300).await;
    // The random commands must have reached every kind of outcome.
    let count =
        |of: fn(&ActionOutcome) -> bool| outcomes.iter().filter(|outcome| of(outcome)).count();
    let is_strict = |held: &Reservation| held.request.call_id.as_str().starts_with("strict");
    let strict = outcomes.iter().filter(
        |one| matches!(one, ActionOutcome::Reserve(ReserveOutcome::Held(held)) if is_strict(held)),
    );
    let seen = [
        ("commands", 4_000, outcomes.len()),
        ("strict holds", 100, strict.count()),
        ("holds", 300, count(|one| matches!(one, ActionOutcome::Reserve(ReserveOutcome::Held(_))))),
        (
            "replays",
            10,
            count(|one| matches!(one, ActionOutcome::Reserve(ReserveOutcome::Replayed(_)))),
        ),
        (
            "refusals",
            100,
            count(|one| matches!(one, ActionOutcome::Reserve(ReserveOutcome::Refused(_)))),
        ),
        (
            "releases",
            50,
            count(|one| matches!(one, ActionOutcome::Release(ReleaseOutcome::Released(_)))),
        ),
        (
            "expiries",
            10,
            count(|one| matches!(one, ActionOutcome::Release(ReleaseOutcome::Expired(_)))),
        ),
        (
            "settled",
            10,
            count(|one| matches!(one, ActionOutcome::Release(ReleaseOutcome::Settled))),
        ),
        (
            "renewals",
            50,
            count(|one| matches!(one, ActionOutcome::Extend(ExtendOutcome::Extended(_)))),
        ),
        ("entries", 1_000, count(has_accepted)),
    ];
    for (what, least, times) in seen {
        assert!(times >= least, "{what}: {times} in {seen:?}");
    }
}

fn has_accepted(outcome: &ActionOutcome) -> bool {
    match outcome {
        ActionOutcome::Record(outcomes) => {
            outcomes.iter().any(|outcome| matches!(outcome, RecordOutcome::Accepted(_)))
        }
        ActionOutcome::Reserve(_)
        | ActionOutcome::Release(_)
        | ActionOutcome::Extend(_)
        | ActionOutcome::Done => false,
    }
}

#[tokio::test]
async fn sums_equal_the_rows_for_other_seeds() {
    for seed in [2, 3] {
        run(seed, 120).await;
    }
}

#[tokio::test]
async fn the_same_commands_have_the_same_outcomes() {
    assert_eq!(run(4, 40).await, run(4, 40).await);
}
