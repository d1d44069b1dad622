//! The random part of a run: integrations, steps of the clock, and commands.

use bursar_core::{
    Caps, Estimate, FailureCause, Health, IntegrationId, IntegrationStatus, LimitSettings, Measure,
    NANOS_PER_CENT, Nanos, PolicyResult, Subject, TenantId, TenantLifecycle, Timestamp,
    TokenBuckets,
};

use super::labels::Labels;
use super::limits::edges;
use super::{INTEGRATIONS, Run, estimate};
use crate::support::storage::{Action, Submission};
use crate::support::{call_id, day, integration, request, seconds, shifted, tenant, usage};

impl Run {
    /// Sets caps that are reached often, sometimes or never.
    pub(super) fn set_caps(&mut self) {
        let caps = Caps {
            reservations_per_integration: self.chance.one_of(&[1, 2, 3, 50_000, 50_000]),
            reservations_per_tenant: self.chance.one_of(&[2, 3, 4, 200_000, 200_000]),
            stored_bytes_per_day: self.chance.one_of(&[0, 0, 1_000, 2_600]),
            values_per_limit: self.chance.one_of(&[1, 2, 100_000]),
        };
        self.storage.caps = caps;
        self.naive.caps = caps;
    }

    /// The limits of an integration itself; often none, so that the others decide.
    pub(super) fn settings(&mut self) -> LimitSettings {
        if self.chance.percent(50) {
            return LimitSettings::default();
        }
        LimitSettings {
            budget_limit_cents: self.chance.one_of(&[0, 1, 5, 20, 100]),
            token_limit_month: self.chance.one_of(&[0, 0, 7, 200, 1_000]),
            rate_limit_rpm: self.chance.one_of(&[0, 0, 1, 3, 10]),
        }
    }

    pub(super) fn change_a_profile(&mut self) {
        let id = integration(self.chance.between(1, 6));
        let mut profile = *self.naive.profile(id).unwrap();
        match self.chance.between(0, 3) {
            0 => profile.integration.limits = self.settings(),
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

    /// Advances the time by nothing, a little, much, to the edge of a period, or to an instant at
    /// which something ends or begins.
    pub(super) fn move_on(&mut self) {
        let mut instants: Vec<Timestamp> =
            self.storage.holds().iter().map(|hold| hold.expires_at).collect();
        instants.extend(self.instants_of_limits());
        let next = instants.into_iter().filter(|at| *at > seconds(self.now, 1)).min();
        self.now = match self.chance.between(0, 99) {
            0..=29 => self.now,
            30..=44 => shifted(self.now, self.chance.between(1, 3)),
            45..=74 => shifted(self.now, self.chance.between(1, 9_000_000)),
            75..=80 => seconds(self.now, self.chance.between(10, 120)),
            81..=84 => seconds(self.now, self.chance.between(121, 20_000)),
            85 => seconds(self.now, self.chance.between(86_400, 20 * 86_400)),
            86..=92 => {
                let edge = self.chance.one_of(&edges(self.now));
                let off = self.chance.one_of(&[-3_000_000, -1_000_000, -2, -1, 0]);
                self.now.max(shifted(edge, off))
            }
            _ => match next {
                Some(next) => shifted(next, self.chance.one_of(&[-1, 0, 0, 1])),
                None => self.now,
            },
        };
    }

    pub(super) fn submission(&mut self) -> Submission {
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
            0..=44 => self.reserve(tenant_id, id, &call),
            45..=69 if is_reserved => self.record(tenant_id, id, &call),
            45..=54 => self.record(tenant_id, id, &call),
            55..=69 => self.reserve(tenant_id, id, &call),
            70..=74 => Action::Release { call_id: call_id(&call), only },
            75..=82 if is_reserved => Action::Release { call_id: call_id(&call), only },
            75..=94 if !is_reserved => self.reserve(tenant_id, id, &call),
            _ => {
                let ttl_seconds = self.chance.one_of(&[None, Some(1), Some(90), Some(40_000)]);
                Action::Extend { call_id: call_id(&call), only, ttl_seconds }
            }
        };
        Submission { tenant_id, action }
    }

    fn reserve(&mut self, tenant_id: TenantId, id: IntegrationId, call: &str) -> Action {
        let mut request = request(id, call);
        request.ttl_seconds = self.chance.one_of(&[5, 600, 600, 600, 600, 86_400]);
        self.labels(call).set_on_request(&mut request);
        request.estimate = match self.chance.between(0, 99) {
            0..=59 => estimate(NANOS_PER_CENT / 2, 5),
            60..=69 => estimate(self.chance.between(0, 1), self.chance.between(0, 1)),
            70..=79 => estimate(self.chance.between(1, 8) * NANOS_PER_CENT, 150),
            _ => self.remaining(tenant_id, &request.subject()),
        };
        Action::Reserve(request)
    }

    /// The labels of a call: mostly those that its id suggests, so that repetitions agree.
    fn labels(&mut self, call: &str) -> Labels {
        if self.chance.percent(85) {
            return Labels::usual(call);
        }
        Labels::random(&mut self.chance)
    }

    /// An estimate that just stays below a limit or its warning, reaches it, or exceeds it by one.
    fn remaining(&mut self, tenant_id: TenantId, subject: &Subject<'_>) -> Estimate {
        if self.naive.profile(subject.integration_id).is_none() {
            return Estimate::default();
        }
        let lines = self.naive.lines(tenant_id, subject, self.now);
        let is_amount = |measure| matches!(measure, Measure::Cost | Measure::Tokens);
        let left = lines.into_iter().filter(|line| is_amount(line.measure));
        let left: Vec<(Measure, i128, i128)> =
            left.map(|line| (line.measure, line.amount, line.taken)).collect();
        if left.is_empty() {
            return estimate(NANOS_PER_CENT / 2, 5);
        }
        let (measure, amount, taken) = self.chance.one_of(&left);
        let share = self.chance.one_of(&[10, 10, 8]);
        let off = self.chance.one_of(&[-1, 0, 0, 1]);
        let rest = i64::try_from(amount * share / 10 - taken).unwrap() + off;
        match measure {
            Measure::Cost => estimate(rest.max(0), 5),
            Measure::Tokens | Measure::Calls | Measure::Concurrent => {
                estimate(NANOS_PER_CENT / 2, rest.max(0))
            }
        }
    }

    fn record(&mut self, tenant_id: TenantId, id: IntegrationId, call: &str) -> Action {
        let mut usage = usage(id, call);
        self.labels(call).set_on_record(&mut usage);
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
            89..=90 => Some(shifted(self.now.month().start(), self.chance.one_of(&[-1, 0]))),
            91..=92 => Some(shifted(self.now.hour().start(), self.chance.one_of(&[-1, 0]))),
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
}
