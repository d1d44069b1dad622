//! A naive model of the rules, which computes every figure from lists of calls.
//!
//! There are no counters, indexes or sweeps. The model is slow, and hard to get wrong.

#![expect(clippy::unwrap_used, reason = "tests name only known integrations")]

pub(crate) mod decide;
pub(crate) mod limits;

use std::collections::BTreeMap;
use std::sync::Arc;

use bursar_core::{
    CallId, Caps, CostSource, Decision, EntryId, ExtendOutcome, IntegrationId, KeyId, LimitSet,
    Measure, Month, Outcome, PolicyResult, ReasonCode, RecordOutcome, RecordRefusal,
    ReleaseOutcome, Reservation, ReservationCap, ReservationState, ReserveOutcome, ReserveRefusal,
    ReserveRequest, TenantId, TenantLifecycle, Timestamp, Usage, Verdict,
};

use crate::support::storage::{Action, Profile};

const MINUTE: i64 = 60;

/// A recorded call.
#[derive(Debug)]
pub(crate) struct Recorded {
    pub(crate) tenant_id: TenantId,
    pub(crate) usage: Usage,
    pub(crate) entry_id: EntryId,
    pub(crate) occurred_at: Timestamp,
    pub(crate) arrived_at: Timestamp,
    pub(crate) cost: i64,
    pub(crate) cost_source: CostSource,
    pub(crate) account_key_id: Option<KeyId>,
    pub(crate) limits_version: i64,
    /// The index of its reservation on the same integration.
    reservation: Option<usize>,
}

/// A reserved call. Its expiry is not stored, but follows from the time.
#[derive(Debug)]
pub(crate) struct Reserved {
    pub(crate) tenant_id: TenantId,
    pub(crate) request: ReserveRequest,
    decision: Decision,
    pub(crate) made_at: Timestamp,
    pub(crate) until: Timestamp,
    ended: Option<(ReservationState, Timestamp)>,
    limits_version: i64,
}

impl Reserved {
    pub(crate) fn state(&self, now: Timestamp) -> ReservationState {
        match self.ended {
            Some((state, _)) => state,
            None if now < self.until => ReservationState::Open,
            None => ReservationState::Expired,
        }
    }

    fn shown(&self, now: Timestamp) -> Reservation {
        let expired = self.state(now) == ReservationState::Expired;
        Reservation {
            request: self.request.clone(),
            decision: self.decision.clone(),
            created_at: self.made_at,
            expires_at: self.until,
            state: self.state(now),
            ended_at: self.ended.map(|(_, at)| at).or(expired.then_some(self.until)),
            postings: Arc::default(),
            limits_version: self.limits_version,
        }
    }
}

/// Nano-dollars, tokens and calls.
pub(crate) type Sums = (i64, i64, i64);

fn sum(amounts: impl Iterator<Item = Sums>) -> Sums {
    amounts.fold((0, 0, 0), |sum, amount| (sum.0 + amount.0, sum.1 + amount.1, sum.2 + amount.2))
}

/// Something that counted, by its index.
#[derive(Clone, Copy, Debug)]
enum Event {
    Reserved(usize),
    Recorded(usize),
}

/// The model: everything that happened.
#[derive(Debug, Default)]
pub(crate) struct Naive {
    pub(crate) caps: Caps,
    pub(crate) profiles: Vec<(IntegrationId, Profile)>,
    pub(crate) limits: BTreeMap<TenantId, Arc<LimitSet>>,
    pub(crate) records: Vec<Recorded>,
    pub(crate) reservations: Vec<Reserved>,
    /// The reservations and records in the order in which they came.
    events: Vec<Event>,
}

impl Naive {
    pub(crate) fn used(&self, id: IntegrationId, month: Month) -> Sums {
        let of_month = self
            .records
            .iter()
            .filter(|record| record.usage.integration_id == id)
            .filter(|record| record.occurred_at.month() == month);
        sum(of_month.map(|record| {
            (record.cost, record.usage.tokens.tokens_in() + record.usage.tokens.tokens_out(), 1)
        }))
    }

    pub(crate) fn held(&self, id: IntegrationId, month: Month, now: Timestamp) -> Sums {
        let of_month = self
            .reservations
            .iter()
            .filter(|reserved| reserved.request.integration_id == id)
            .filter(|reserved| reserved.made_at.month() == month)
            .filter(|reserved| reserved.state(now) == ReservationState::Open);
        sum(of_month.map(|reserved| {
            let estimate = reserved.request.estimate;
            (estimate.cost.get(), estimate.tokens, 1)
        }))
    }

    /// The calls that count in the 60 seconds up to this one.
    pub(crate) fn calls(&self, id: IntegrationId, now_second: i64) -> i64 {
        let counts = |at: Timestamp| at.second() > now_second - MINUTE;
        let reserved = self
            .reservations
            .iter()
            .filter(|reserved| reserved.request.integration_id == id)
            .filter(|reserved| counts(reserved.made_at));
        let recorded = self
            .records
            .iter()
            .filter(|record| record.usage.integration_id == id)
            .filter(|record| counts(record.occurred_at.min(record.arrived_at)))
            .filter(|record| record.usage.policy_result != PolicyResult::Blocked)
            .filter(|record| {
                let index = self.reserved(record.tenant_id, &record.usage.call_id);
                let reserved = index.and_then(|index| self.reservations.get(index));
                reserved.is_none_or(|reserved| reserved.request.integration_id != id)
            });
        reserved.count() as i64 + recorded.count() as i64
    }

    pub(crate) fn reserved(&self, tenant_id: TenantId, call_id: &CallId) -> Option<usize> {
        let is = |reserved: &Reserved| {
            reserved.tenant_id == tenant_id && reserved.request.call_id == *call_id
        };
        self.reservations.iter().position(is)
    }

    fn record_of(&self, tenant_id: TenantId, call_id: &CallId) -> Option<&Recorded> {
        let is =
            |record: &&Recorded| record.tenant_id == tenant_id && record.usage.call_id == *call_id;
        self.records.iter().find(is)
    }

    pub(crate) fn profile(&self, id: IntegrationId) -> Option<&Profile> {
        self.profiles.iter().find(|(known, _)| *known == id).map(|(_, profile)| profile)
    }

    fn own(&self, tenant_id: TenantId, id: IntegrationId) -> Option<&Profile> {
        self.profile(id).filter(|profile| profile.tenant_id == tenant_id)
    }

    pub(crate) fn apply(
        &mut self,
        tenant_id: TenantId,
        action: &Action,
        entry_id: EntryId,
        now: Timestamp,
    ) -> Outcome {
        match action {
            Action::Record(usage) => Outcome::Record(self.record(tenant_id, usage, entry_id, now)),
            Action::RecordKnown(usage) => {
                Outcome::Record(self.record_known(tenant_id, usage, entry_id, now))
            }
            Action::Reserve(request) => Outcome::Reserve(self.reserve(tenant_id, request, now)),
            Action::Release { call_id, only } => {
                Outcome::Release(self.release(self.seen(tenant_id, call_id, *only), now))
            }
            Action::Extend { call_id, only, ttl_seconds } => {
                let seen = self.seen(tenant_id, call_id, *only);
                Outcome::Extend(self.extend(seen, *ttl_seconds, now))
            }
        }
    }

    fn record(
        &mut self,
        tenant_id: TenantId,
        usage: &Usage,
        entry_id: EntryId,
        now: Timestamp,
    ) -> RecordOutcome {
        if let Some(earlier) = self.record_of(tenant_id, &usage.call_id) {
            return if same_content(earlier, usage) {
                RecordOutcome::Duplicate(earlier.entry_id)
            } else {
                RecordOutcome::Conflict
            };
        }
        if self.own(tenant_id, usage.integration_id).is_none() {
            return RecordOutcome::Refused(RecordRefusal::IntegrationNotFound);
        }
        let limits_version = self.limits_version(tenant_id);
        let mut index = self.reserved(tenant_id, &usage.call_id);
        let mut reserved = index.and_then(|index| self.reservations.get_mut(index));
        let elsewhere = reserved
            .as_ref()
            .filter(|reserved| reserved.request.integration_id != usage.integration_id);
        if let Some(elsewhere) = elsewhere {
            if elsewhere.state(now) == ReservationState::Open {
                return RecordOutcome::Conflict;
            }
            (index, reserved) = (None, None);
        }
        let mut occurred_at = now;
        let mut settled = None;
        let mut account_key_id = usage.account_key_id;
        if let Some(reserved) = &reserved {
            occurred_at = reserved.made_at;
            account_key_id = reserved.request.account_key_id;
            if reserved.state(now) == ReservationState::Open {
                settled = Some(reserved.request.estimate.cost.get());
            }
        }
        occurred_at = usage.occurred_at.unwrap_or(occurred_at);
        if occurred_at.micros() - now.micros() > 300_000_000 {
            return RecordOutcome::Refused(RecordRefusal::InTheFuture);
        }
        let is_reserved = reserved.is_some();
        let cap = self.caps.stored_bytes_per_day;
        let bytes: i64 = self
            .records
            .iter()
            .filter(|record| record.tenant_id == tenant_id)
            .filter(|record| record.arrived_at.day() == now.day())
            .map(|record| bytes_of(&record.usage))
            .sum();
        if !is_reserved && cap != 0 && bytes + bytes_of(usage) > cap {
            return RecordOutcome::Refused(RecordRefusal::StoredBytesExceeded);
        }
        if let (Some(reserved), Some(_)) = (reserved, settled) {
            reserved.ended = Some((ReservationState::Settled, now));
        }
        let (cost, cost_source) = match (usage.cost, settled) {
            (Some(reported), _) => (reported.get(), CostSource::Reported),
            (None, Some(held)) if held > 0 => (held, CostSource::Held),
            (None, _) => (0, CostSource::Unknown),
        };
        self.events.push(Event::Recorded(self.records.len()));
        self.records.push(Recorded {
            tenant_id,
            usage: usage.clone(),
            entry_id,
            occurred_at,
            arrived_at: now,
            cost,
            cost_source,
            account_key_id,
            limits_version,
            reservation: index,
        });
        RecordOutcome::Accepted(entry_id)
    }

    /// Refuses the record of an unknown call.
    fn record_known(
        &mut self,
        tenant_id: TenantId,
        usage: &Usage,
        entry_id: EntryId,
        now: Timestamp,
    ) -> RecordOutcome {
        let call_id = &usage.call_id;
        if self.record_of(tenant_id, call_id).is_none()
            && self.reserved(tenant_id, call_id).is_none()
        {
            return RecordOutcome::Refused(RecordRefusal::UnknownCall);
        }
        self.record(tenant_id, usage, entry_id, now)
    }

    fn reserve(
        &mut self,
        tenant_id: TenantId,
        request: &ReserveRequest,
        now: Timestamp,
    ) -> ReserveOutcome {
        if self.record_of(tenant_id, &request.call_id).is_some() {
            return ReserveOutcome::Rejected(ReserveRefusal::CallRecorded);
        }
        if let Some(index) = self.reserved(tenant_id, &request.call_id) {
            let reserved = self.reservations.get(index).unwrap();
            let state = reserved.state(now);
            if state != ReservationState::Open {
                return ReserveOutcome::Rejected(ReserveRefusal::CallEnded(state));
            }
            // The key is not part of the content.
            let mut repeated = request.clone();
            repeated.account_key_id = reserved.request.account_key_id;
            if reserved.request != repeated {
                return ReserveOutcome::Rejected(ReserveRefusal::OtherContent);
            }
            // A repeated request is replayed, unless its tenant or integration is disabled.
            return match self.own(tenant_id, request.integration_id).and_then(decide::hard_block) {
                Some(code) => ReserveOutcome::Refused(decide::refusal(code)),
                None => ReserveOutcome::Replayed(reserved.shown(now)),
            };
        }
        let Some(profile) = self.own(tenant_id, request.integration_id) else {
            return ReserveOutcome::Refused(decide::refusal(ReasonCode::IntegrationNotFound));
        };
        if let Some(code) = decide::hard_block(profile) {
            return ReserveOutcome::Refused(decide::refusal(code));
        }
        let subject = request.subject();
        let refuse = self.measures_that_refuse(tenant_id, &subject, now);
        if refuse.contains(&Measure::Cost) && request.estimate.cost.get() < 1 {
            return ReserveOutcome::Rejected(ReserveRefusal::CostEstimateRequired);
        }
        if refuse.contains(&Measure::Tokens) && request.estimate.tokens < 1 {
            return ReserveOutcome::Rejected(ReserveRefusal::TokenEstimateRequired);
        }
        let decision = self.decide(&subject, request.estimate, now);
        if decision.verdict > Verdict::Warned {
            return ReserveOutcome::Refused(decision);
        }
        if let Some(cap) = self.reached_cap(tenant_id, request.integration_id, now) {
            return ReserveOutcome::Rejected(ReserveRefusal::TooManyOpen(cap));
        }
        let reserved = Reserved {
            tenant_id,
            request: request.clone(),
            decision,
            made_at: now,
            until: Timestamp::from_micros(
                now.micros() + i64::from(request.ttl_seconds) * 1_000_000,
            )
            .unwrap(),
            ended: None,
            limits_version: self.limits_version(tenant_id),
        };
        let shown = reserved.shown(now);
        self.events.push(Event::Reserved(self.reservations.len()));
        self.reservations.push(reserved);
        ReserveOutcome::Held(shown)
    }

    fn reached_cap(
        &self,
        tenant_id: TenantId,
        id: IntegrationId,
        now: Timestamp,
    ) -> Option<ReservationCap> {
        let open = self
            .reservations
            .iter()
            .filter(|reserved| reserved.tenant_id == tenant_id)
            .filter(|reserved| reserved.state(now) == ReservationState::Open);
        let here = |reserved: &&Reserved| reserved.request.integration_id == id;
        let of_tenant = open.clone().count() as i64;
        let of_integration = open.filter(here).count() as i64;
        let (allowed_here, allowed) =
            (self.caps.reservations_per_integration, self.caps.reservations_per_tenant);
        let bounds = [
            (of_integration + 1 > allowed_here, ReservationCap::Integration(allowed_here)),
            (of_tenant + 1 > allowed, ReservationCap::Tenant(allowed)),
        ];
        bounds.into_iter().find(|(is_met, _)| *is_met).map(|(_, cap)| cap)
    }

    /// The reservation of a call, if the caller may see it.
    fn seen(
        &self,
        tenant_id: TenantId,
        call_id: &CallId,
        only: Option<IntegrationId>,
    ) -> Option<usize> {
        let index = self.reserved(tenant_id, call_id)?;
        let of = self.reservations.get(index)?.request.integration_id;
        (only.is_none() || only == Some(of)).then_some(index)
    }

    fn release(&mut self, index: Option<usize>, now: Timestamp) -> ReleaseOutcome {
        let Some(reserved) = index.and_then(|index| self.reservations.get_mut(index)) else {
            return ReleaseOutcome::NotFound;
        };
        match reserved.state(now) {
            ReservationState::Settled => ReleaseOutcome::Settled,
            ReservationState::Expired => ReleaseOutcome::Expired(reserved.shown(now)),
            ReservationState::Released => ReleaseOutcome::Released(reserved.shown(now)),
            ReservationState::Open => {
                reserved.ended = Some((ReservationState::Released, now));
                ReleaseOutcome::Released(reserved.shown(now))
            }
        }
    }

    fn extend(
        &mut self,
        index: Option<usize>,
        ttl_seconds: Option<u32>,
        now: Timestamp,
    ) -> ExtendOutcome {
        let is_active = |reserved: &Reserved| {
            let profile = self.profile(reserved.request.integration_id).unwrap();
            profile.lifecycle == TenantLifecycle::Active
        };
        let is_active = index.and_then(|index| self.reservations.get(index)).is_some_and(is_active);
        let Some(reserved) = index.and_then(|index| self.reservations.get_mut(index)) else {
            return ExtendOutcome::NotFound;
        };
        if !is_active {
            return ExtendOutcome::TenantNotActive;
        }
        if reserved.state(now) != ReservationState::Open {
            return ExtendOutcome::Ended(reserved.state(now));
        }
        let ttl_seconds = i64::from(ttl_seconds.unwrap_or(reserved.request.ttl_seconds));
        let until = Timestamp::from_micros(now.micros() + ttl_seconds * 1_000_000).unwrap();
        if until > reserved.until {
            reserved.until = until;
        }
        ExtendOutcome::Extended(Box::new(reserved.shown(now)))
    }
}

/// 400 plus the bytes of all texts, and of the tags as a JSON object.
fn bytes_of(usage: &Usage) -> i64 {
    let texts = [
        Some(usage.call_id.as_str()),
        usage.session_id.as_deref(),
        usage.agent_id.as_deref(),
        Some(usage.provider.as_ref()),
        Some(usage.model.as_ref()),
        usage.error_code.as_deref(),
        usage.error_message.as_deref(),
        usage.metadata.as_deref(),
    ];
    let tags: Vec<String> =
        usage.tags.iter().map(|(name, value)| format!("\"{name}\":\"{value}\"")).collect();
    let tags = if tags.is_empty() { 0 } else { format!("{{{}}}", tags.join(",")).len() as i64 };
    400 + tags + texts.map(|text| text.unwrap_or_default().len() as i64).iter().sum::<i64>()
}

/// Whether a repeated record agrees with the stored one.
fn same_content(earlier: &Recorded, usage: &Usage) -> bool {
    let first = &earlier.usage;
    first.integration_id == usage.integration_id
        && first.session_id == usage.session_id
        && first.agent_id == usage.agent_id
        && first.provider == usage.provider
        && first.model == usage.model
        && first.tokens.tokens_in() == usage.tokens.tokens_in()
        && first.tokens.tokens_out() == usage.tokens.tokens_out()
        && first.cost == usage.cost
        && first.policy_result == usage.policy_result
        && first.error_code == usage.error_code
        && (usage.occurred_at.is_none() || usage.occurred_at == Some(earlier.occurred_at))
}
