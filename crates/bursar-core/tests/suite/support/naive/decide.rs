//! The naive model of decisions: the order of the checks in docs/concepts.md.

use bursar_core::{
    Action, Bound, Decision, Estimate, FailureCause, Health, IntegrationId, IntegrationStatus,
    Limit, Measure, Reason, ReasonCode, Subject, TenantId, TenantLifecycle, Timestamp, Verdict,
    Window,
};

use super::Naive;
use super::limits::{amount_in_force, period};
use crate::support::seconds;
use crate::support::storage::Profile;

/// A limit, and what is taken of it.
#[derive(Clone, Debug)]
pub(crate) struct Line<'a> {
    /// The limit and the value of the account; `None` for a limit of the integration itself.
    pub(crate) of: Option<(&'a Limit, String)>,
    pub(crate) measure: Measure,
    is_of_minute: bool,
    action: Action,
    percents: Vec<u8>,
    pub(crate) amount: i128,
    pub(crate) taken: i128,
}

impl Line<'_> {
    /// The step of the order that checks the limit.
    fn step(&self) -> u8 {
        match self.measure {
            Measure::Cost => 4,
            Measure::Tokens => 5,
            Measure::Calls | Measure::Concurrent => 6,
        }
    }

    fn with(&self, estimate: Estimate) -> i128 {
        self.taken
            + match self.measure {
                Measure::Cost => i128::from(estimate.cost.get()),
                Measure::Tokens => i128::from(estimate.tokens),
                Measure::Calls | Measure::Concurrent => 1,
            }
    }

    fn is_exceeded(&self, estimate: Estimate) -> bool {
        self.taken >= self.amount || self.with(estimate) > self.amount
    }

    fn refuses(&self, estimate: Estimate) -> bool {
        self.action != Action::Warn && self.is_exceeded(estimate)
    }

    /// Millionths of the amount.
    fn share_left(&self) -> i128 {
        if self.taken >= self.amount {
            return 0;
        }
        (self.amount - self.taken) * 1_000_000 / self.amount
    }

    fn reason(&self, code: ReasonCode, percent: u8, retry: Option<u32>) -> Reason {
        Reason {
            code,
            measure: Some(self.measure),
            limit_value: self.amount,
            current_value: self.taken,
            threshold_percent: Some(percent),
            retry_after_seconds: retry,
        }
    }

    fn warning(&self, estimate: Estimate) -> Option<Reason> {
        let reached =
            |percent: &&u8| 100 * self.with(estimate) >= self.amount * i128::from(**percent);
        let percent = self.percents.iter().filter(reached).max()?;
        let code = match self.measure {
            Measure::Cost => ReasonCode::BudgetWarning,
            Measure::Tokens => ReasonCode::TokenWarning,
            Measure::Calls | Measure::Concurrent => ReasonCode::CallWarning,
        };
        Some(self.reason(code, *percent, None))
    }

    fn exceeded_code(&self) -> ReasonCode {
        match self.measure {
            Measure::Cost => ReasonCode::BudgetExceeded,
            Measure::Tokens => ReasonCode::TokenLimitExceeded,
            Measure::Calls if self.is_of_minute => ReasonCode::RateLimitExceeded,
            Measure::Calls => ReasonCode::CallLimitExceeded,
            Measure::Concurrent => ReasonCode::ConcurrencyExceeded,
        }
    }
}

impl Naive {
    pub(crate) fn decide(
        &self,
        subject: &Subject<'_>,
        estimate: Estimate,
        now: Timestamp,
    ) -> Decision {
        let profile = self.profile(subject.integration_id).unwrap();
        if let Some(code) = hard_block(profile) {
            return refusal(code);
        }
        if self.is_label_missing(profile.tenant_id, subject, now) {
            let reasons = vec![Reason::plain(ReasonCode::ScopeMissing)];
            return Decision { verdict: Verdict::Blocked, reasons };
        }
        let lines = self.lines(profile.tenant_id, subject, now);
        let refusing = refusing(&lines, estimate);
        if let Some(first) = refusing.first() {
            let of_step = refusing.iter().filter(|line| line.step() == first.step());
            let reasons = of_step.map(|line| {
                let retry = self.retry(profile.tenant_id, line, subject, estimate, now);
                line.reason(line.exceeded_code(), 100, retry)
            });
            let verdict = match first.action {
                Action::Block => Verdict::Blocked,
                Action::Throttle | Action::Warn => Verdict::Throttled,
            };
            return Decision { verdict, reasons: reasons.collect() };
        }
        let mut reasons: Vec<Reason> =
            lines.iter().filter_map(|line| line.warning(estimate)).collect();
        if profile.integration.health == Health::Failing(FailureCause::Provider) {
            reasons.push(Reason::plain(ReasonCode::ProviderUnreachable));
        }
        if reasons.is_empty() {
            let reasons = vec![Reason::plain(ReasonCode::AllChecksPassed)];
            return Decision { verdict: Verdict::Allowed, reasons };
        }
        Decision { verdict: Verdict::Warned, reasons }
    }

    /// The limits that are checked for a call, by step; those of the integration first, then by id.
    pub(crate) fn lines<'a>(
        &'a self,
        tenant_id: TenantId,
        subject: &Subject<'a>,
        now: Timestamp,
    ) -> Vec<Line<'a>> {
        let mut lines = self.built_in_lines(subject.integration_id, now);
        for (limit, value) in self.limits_over(tenant_id, subject, now) {
            if limit.enabled {
                let (account, taken) = self.taken(tenant_id, limit, &value, (now, now));
                lines.push(Line {
                    measure: limit.rule.bound.measure(),
                    is_of_minute: limit.rule.bound.window() == Some(&Window::Minute),
                    action: limit.rule.action,
                    percents: limit.rule.warn_percents.iter().collect(),
                    amount: amount_in_force(&limit.rule.bound, now),
                    taken,
                    of: Some((limit, account)),
                });
            }
        }
        lines.sort_by_key(Line::step);
        lines
    }

    /// The limits that an integration has by its settings.
    pub(super) fn built_in_lines(&self, id: IntegrationId, now: Timestamp) -> Vec<Line<'_>> {
        let settings = self.profile(id).unwrap().integration.limits;
        let (used, held) = (self.used(id, now.month()), self.held(id, now.month(), now));
        let money = i128::from(settings.budget_limit_cents) * 10_000_000;
        let line = |measure, action, percents: &[u8], amount, taken: i64| Line {
            of: None,
            measure,
            is_of_minute: measure == Measure::Calls,
            action,
            percents: percents.to_vec(),
            amount,
            taken: i128::from(taken),
        };
        let calls = self.calls(id, now.second());
        let lines = [
            line(Measure::Cost, Action::Block, &[80], money, used.0 + held.0),
            line(
                Measure::Tokens,
                Action::Block,
                &[80],
                settings.token_limit_month.into(),
                used.1 + held.1,
            ),
            line(Measure::Calls, Action::Throttle, &[], settings.rate_limit_rpm.into(), calls),
        ];
        lines.into_iter().filter(|line| line.amount != 0).collect()
    }

    /// The account in which a call with this value counts, and what is used and held there.
    fn taken(
        &self,
        tenant_id: TenantId,
        limit: &Limit,
        value: &str,
        (now, at): (Timestamp, Timestamp),
    ) -> (String, i128) {
        let accounts = self.accounts_at(tenant_id, limit, now, at);
        let account = accounts.account_of(value);
        let (used, held) = accounts.sums(account);
        let taken = match limit.rule.bound {
            Bound::Cost(..) => used.0 + held.0,
            Bound::Tokens(..) => used.1 + held.1,
            Bound::Calls(..) | Bound::Concurrent(_) => used.2 + held.2,
        };
        (account.to_owned(), taken.into())
    }

    /// The first second from 1 to 60 after which the call would fit.
    fn retry(
        &self,
        tenant_id: TenantId,
        line: &Line<'_>,
        subject: &Subject<'_>,
        estimate: Estimate,
        now: Timestamp,
    ) -> Option<u32> {
        if line.action == Action::Block {
            return None;
        }
        let Some((limit, account)) = &line.of else {
            let calls =
                |wait: u32| self.calls(subject.integration_id, now.second() + i64::from(wait));
            return (1..).find(|wait| i128::from(calls(*wait)) < line.amount);
        };
        let helps = |wait: &u32| {
            let at = seconds(now, i64::from(*wait));
            match limit.rule.bound.window() {
                Some(Window::Minute) => {
                    let (_, taken) = self.taken(tenant_id, limit, account, (now, at));
                    let amount = amount_in_force(&limit.rule.bound, at);
                    !Line { amount, taken, ..line.clone() }.is_exceeded(estimate)
                }
                Some(Window::Calendar(..)) => period(limit, at) != period(limit, now),
                Some(Window::Total { .. }) | None => false,
            }
        };
        (1..=60).find(helps)
    }
}

/// The limits that refuse a call: first those that block, then by step, then by the share left.
pub(crate) fn refusing<'l, 'a>(lines: &'l [Line<'a>], estimate: Estimate) -> Vec<&'l Line<'a>> {
    let mut refusing: Vec<&Line<'a>> = lines.iter().filter(|line| line.refuses(estimate)).collect();
    refusing.sort_by_key(|line| (line.action != Action::Block, line.step(), line.share_left()));
    refusing
}

pub(super) fn refusal(code: ReasonCode) -> Decision {
    Decision { verdict: Verdict::HardBlocked, reasons: vec![Reason::plain(code)] }
}

pub(super) fn hard_block(profile: &Profile) -> Option<ReasonCode> {
    let failing = Health::Failing(FailureCause::Credential);
    if profile.lifecycle != TenantLifecycle::Active {
        return Some(ReasonCode::TenantSuspended);
    }
    match profile.integration.status {
        IntegrationStatus::Deleted => Some(ReasonCode::IntegrationNotFound),
        IntegrationStatus::Disabled => Some(ReasonCode::IntegrationDisabled),
        IntegrationStatus::Created => Some(ReasonCode::IntegrationNotEnabled),
        IntegrationStatus::Error => Some(ReasonCode::IntegrationError),
        IntegrationStatus::Enabled if profile.integration.health == failing => {
            Some(ReasonCode::CredentialsInvalid)
        }
        IntegrationStatus::Enabled => None,
    }
}
