//! Random limits, and their changes between groups.

use std::sync::Arc;

use bursar_core::{
    Action, Allowance, Bound, Calendar, CalendarUnit, IntegrationId, Label, Limit, LimitId,
    LimitSet, Measure, NANOS_PER_CENT, Override, Quantity, Rule, Scope, Selected, TenantId,
    Timestamp, WarnPercents, Window, Zone,
};

use super::Run;
use super::labels::{AGENTS, MODELS, SESSIONS, TEAM, TEAMS, key};
use crate::support::calendar::{ODD, TestCalendar};
use crate::support::naive::limits::amounts;
use crate::support::{integration, seconds};

const UNITS: [CalendarUnit; 4] =
    [CalendarUnit::Hour, CalendarUnit::Day, CalendarUnit::Week, CalendarUnit::Month];

fn zones() -> [Zone; 2] {
    [Zone::utc(), Zone::new(ODD)]
}

/// The ends of all calendar periods at an instant.
pub(super) fn edges(at: Timestamp) -> Vec<Timestamp> {
    let end = |zone: Zone| UNITS.map(|unit| TestCalendar.period(unit, &zone, at).unwrap().end);
    zones().into_iter().flat_map(end).collect()
}

/// The bound of a measure; `window` counts unless it measures open reservations.
fn bound(
    measure: Measure,
    window: Window,
    (amount, overridden): (i128, Option<(i128, Timestamp)>),
) -> Bound {
    fn allowance<M: Copy>(amount: i128, overridden: Option<(i128, Timestamp)>) -> Allowance<M> {
        let overridden =
            overridden.map(|(amount, until)| Override { amount: Quantity::new(amount), until });
        Allowance { overridden, ..Allowance::new(amount) }
    }
    match measure {
        Measure::Cost => Bound::Cost(window, allowance(amount, overridden)),
        Measure::Tokens => Bound::Tokens(window, allowance(amount, overridden)),
        Measure::Calls => Bound::Calls(window, allowance(amount, overridden)),
        Measure::Concurrent => Bound::Concurrent(allowance(amount, overridden)),
    }
}

impl Run {
    /// Gives a tenant up to six random limits.
    pub(super) fn set_limits(&mut self, tenant_id: TenantId, home: (i64, i64)) {
        let mut limits: Vec<Limit> = Vec::new();
        for number in 1..=self.chance.between(0, 6) {
            let id = LimitId::from_number(tenant_id.number() * 100 + number).unwrap();
            let each: Vec<Limit> =
                limits.iter().filter(|limit| limit.is_for_each()).cloned().collect();
            let limit = if !each.is_empty() && self.chance.percent(40) {
                let each = self.chance.one_of(&each);
                self.instead_of(&each, id, home)
            } else {
                self.limit(id, home)
            };
            limits.push(limit);
        }
        self.publish(tenant_id, LimitSet::new(1, limits));
    }

    fn publish(&mut self, tenant_id: TenantId, set: LimitSet) {
        let set = Arc::new(set);
        self.storage.limits.set(tenant_id, Arc::clone(&set));
        self.naive.limits.insert(tenant_id, set);
    }

    fn limit(&mut self, id: LimitId, home: (i64, i64)) -> Limit {
        let scope = self.scope(home);
        use Measure::{Calls, Concurrent, Cost, Tokens};
        let measure = self.chance.one_of(&[Cost, Cost, Tokens, Tokens, Calls, Calls, Concurrent]);
        let window = self.window();
        let rule = self.rule(measure, window);
        let (required, enabled) = (self.chance.percent(10), self.chance.percent(90));
        Limit { id, scope, rule, required, enabled }
    }

    fn rule(&mut self, measure: Measure, window: Window) -> Rule {
        let amounts = (self.amount(measure), self.overridden(measure));
        let warn_percents = self.warn_percents();
        let action = self.action();
        Rule { bound: bound(measure, window, amounts), action, warn_percents }
    }

    /// A limit that takes the place of another one for one value, or nearly does.
    fn instead_of(&mut self, each: &Limit, id: LimitId, home: (i64, i64)) -> Limit {
        let scope = match &each.scope {
            Scope::Label { label, integration_id, .. } => {
                let selected = Selected::One(self.value(label));
                let integration_id = *integration_id;
                Scope::Label { label: label.clone(), selected, integration_id }
            }
            Scope::Tenant | Scope::Integration(_) | Scope::EachIntegration => {
                Scope::Integration(self.integration_of(home))
            }
        };
        let window = match each.rule.bound.window() {
            // All totals are alike.
            Some(Window::Total { starts_at }) if self.chance.percent(80) => {
                let later = self.chance.one_of(&[0, 60]);
                Window::Total { starts_at: seconds(*starts_at, later) }
            }
            Some(window) if self.chance.percent(80) => window.clone(),
            Some(_) | None => self.window(),
        };
        let rule = self.rule(each.rule.bound.measure(), window);
        Limit { scope, rule, ..self.limit(id, home) }
    }

    fn integration_of(&mut self, home: (i64, i64)) -> IntegrationId {
        integration(self.chance.between(home.0, home.1))
    }

    fn scope(&mut self, home: (i64, i64)) -> Scope {
        match self.chance.between(0, 9) {
            0 => Scope::Tenant,
            1 => Scope::Integration(self.integration_of(home)),
            2 => Scope::EachIntegration,
            _ => {
                let tag = Label::Tag(TEAM.into());
                let labels = [Label::Model, Label::Agent, Label::Session, Label::Key, tag];
                let label = self.chance.one_of(&labels);
                let value = self.value(&label);
                let is_each = self.chance.percent(50);
                let selected = if is_each { Selected::Each } else { Selected::One(value) };
                let only = self.integration_of(home);
                let integration_id = self.chance.percent(25).then_some(only);
                Scope::Label { label, selected, integration_id }
            }
        }
    }

    fn value(&mut self, label: &Label) -> Box<str> {
        match label {
            Label::Model => self.chance.one_of(&MODELS).into(),
            Label::Agent => self.chance.one_of(&AGENTS).into(),
            Label::Session => self.chance.one_of(&SESSIONS).into(),
            Label::Key => key(self.chance.between(1, 2)).to_string().into(),
            Label::Tag(_) => self.chance.one_of(&TEAMS).into(),
        }
    }

    fn window(&mut self) -> Window {
        match self.chance.between(0, 9) {
            0..=2 => Window::Minute,
            3..=4 => {
                let starts_at = seconds(self.now, self.chance.one_of(&[-86_400, 0, 5, 600]));
                Window::Total { starts_at }
            }
            _ => {
                let unit = self.chance.one_of(&UNITS);
                Window::Calendar(unit, self.chance.one_of(&zones()))
            }
        }
    }

    fn amount(&mut self, measure: Measure) -> i128 {
        let amounts: &[i64] = match measure {
            Measure::Cost => &[0, 1, 2, 4, 8, 20],
            Measure::Tokens => &[0, 5, 12, 30, 200, 400],
            Measure::Calls => &[0, 1, 2, 3, 4, 8],
            Measure::Concurrent => &[0, 1, 1, 2, 3, 4],
        };
        let amount = match self.chance.between(0, 9) {
            0..=4 => self.chance.one_of(amounts),
            _ => *amounts.last().unwrap(),
        };
        let unit = if measure == Measure::Cost { NANOS_PER_CENT / 2 } else { 1 };
        i128::from(amount) * i128::from(unit)
    }

    fn overridden(&mut self, measure: Measure) -> Option<(i128, Timestamp)> {
        if !self.chance.percent(15) {
            return None;
        }
        let until = seconds(self.now, self.chance.one_of(&[1, 20, 60, 3_600]));
        Some((self.amount(measure), until))
    }

    fn action(&mut self) -> Action {
        self.chance.one_of(&[Action::Block, Action::Block, Action::Throttle, Action::Warn])
    }

    fn warn_percents(&mut self) -> WarnPercents {
        let percents: [&[u8]; 5] = [&[], &[80], &[80], &[1, 50, 100], &[10, 20, 30, 40, 99]];
        WarnPercents::new(self.chance.one_of(&percents)).unwrap()
    }

    /// Changes what a limit allows or does. What it counts stays.
    pub(super) fn change_a_limit(&mut self, tenant_id: TenantId) {
        let Some(set) = self.naive.limits.get(&tenant_id).cloned() else { return };
        let mut limits = set.limits().to_vec();
        let index = self.chance.below(6) as usize;
        let Some(limit) = limits.get_mut(index) else { return };
        let measure = limit.rule.bound.measure();
        let (amount, overridden) = amounts(&limit.rule.bound);
        let window = limit.rule.bound.window().cloned().unwrap_or(Window::Minute);
        match self.chance.between(0, 5) {
            0 => limit.rule.action = self.action(),
            1 => limit.rule.warn_percents = self.warn_percents(),
            2 => limit.enabled = !limit.enabled,
            3 => limit.required = !limit.required,
            4 => limit.rule.bound = bound(measure, window, (self.amount(measure), overridden)),
            _ => limit.rule.bound = bound(measure, window, (amount, self.overridden(measure))),
        }
        self.publish(tenant_id, LimitSet::new(set.version() + 1, limits));
    }

    /// The instants at which a limit begins to count, or an override ends.
    pub(super) fn instants_of_limits(&self) -> Vec<Timestamp> {
        let of = |limit: &Limit| {
            let starts = match limit.rule.bound.window() {
                Some(Window::Total { starts_at }) => Some(*starts_at),
                Some(Window::Minute | Window::Calendar(..)) | None => None,
            };
            let until = amounts(&limit.rule.bound).1.map(|(_, until)| until);
            starts.into_iter().chain(until).collect::<Vec<_>>()
        };
        self.naive.limits.values().flat_map(|set| set.limits()).flat_map(of).collect()
    }
}
