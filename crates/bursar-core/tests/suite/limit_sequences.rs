//! Random sequences of calls under limits that the test itself adds up.

#![expect(clippy::unwrap_used, reason = "a sequence names what it created")]

use std::collections::BTreeMap;

use bursar_core::{
    Allowance, Bound, CalendarUnit, Estimate, Label, Limit, Measure, Nanos, Scope, Window, Zone,
};
use proptest::prelude::*;

use crate::support::limited::{Limited, concurrent, each, limit, total};
use crate::support::now;
use crate::support::script::{record, release, reserve};

/// The tokens of a record of the tests.
const RECORDED_TOKENS: i128 = 30;

/// One step of a sequence. A call is named by the number of the step that reserved it.
#[derive(Clone, Debug)]
enum Step {
    Reserve { agent: &'static str, model: &'static str, cost: i64, tokens: i64 },
    Record { call: usize, agent: &'static str, cost: i64 },
    Release { call: usize },
}

fn steps() -> impl Strategy<Value = Step> {
    let agents = prop::sample::select(vec!["ada", "bob"]);
    let models = prop::sample::select(vec!["gpt", "opus"]);
    prop_oneof![
        3 => (agents.clone(), models, 1..40_i64, 1..40_i64)
            .prop_map(|(agent, model, cost, tokens)| Step::Reserve { agent, model, cost, tokens }),
        1 => (0..20_usize, agents, 0..60_i64)
            .prop_map(|(call, agent, cost)| Step::Record { call, agent, cost }),
        1 => (0..20_usize).prop_map(|call| Step::Release { call }),
    ]
}

fn bounds() -> impl Strategy<Value = Bound> {
    use CalendarUnit::{Day, Hour, Month, Week};
    let calendar = |unit| Window::Calendar(unit, Zone::utc());
    let windows = [Window::Minute, total()].into_iter();
    let windows = windows.chain([Hour, Day, Week, Month].map(calendar));
    let window = prop::sample::select(windows.collect::<Vec<_>>());
    (prop::sample::select(Measure::ALL.to_vec()), window, 1..10_i128).prop_map(
        |(measure, window, amount)| match measure {
            Measure::Cost => Bound::Cost(window, Allowance::new(amount * 20)),
            Measure::Tokens => Bound::Tokens(window, Allowance::new(amount * 20)),
            Measure::Calls => Bound::Calls(window, Allowance::new(amount)),
            Measure::Concurrent => concurrent(amount),
        },
    )
}

fn limits() -> impl Strategy<Value = Vec<Limit>> {
    let scopes = vec![Scope::Tenant, each(Label::Agent), each(Label::Model)];
    let of = (prop::sample::select(scopes), bounds());
    prop::collection::vec(of, 1..5).prop_map(|limits| {
        let numbered = (1..).zip(limits);
        numbered.map(|(number, (scope, bound))| limit(number, scope, bound)).collect()
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Recorded,
    Released,
}

/// A call that was admitted, as the test adds it up.
struct Admitted {
    agent: &'static str,
    model: &'static str,
    cost: i128,
    tokens: i128,
    state: State,
}

impl Admitted {
    /// What the call takes of a limit at the instant of its reservation.
    fn takes(&self, bound: &Bound) -> i128 {
        let is_of_minute = bound.window() == Some(&Window::Minute);
        match (bound.measure(), self.state) {
            (Measure::Cost, State::Open | State::Recorded) => self.cost,
            (Measure::Tokens, State::Open | State::Recorded) => self.tokens,
            (Measure::Calls, State::Open | State::Recorded) => 1,
            (Measure::Calls, State::Released) => i128::from(is_of_minute),
            (Measure::Concurrent, State::Open) => 1,
            (Measure::Concurrent, State::Recorded | State::Released)
            | (Measure::Cost | Measure::Tokens, State::Released) => 0,
        }
    }

    /// Whether another call counts in the same account of a limit.
    fn shares(&self, scope: &Scope, other: &Self) -> bool {
        match scope {
            Scope::Label { label: Label::Agent, .. } => self.agent == other.agent,
            Scope::Label { label: Label::Model, .. } => self.model == other.model,
            Scope::Tenant
            | Scope::Integration(_)
            | Scope::EachIntegration
            | Scope::Label { .. } => true,
        }
    }
}

fn amount_of(bound: &Bound) -> i128 {
    match bound {
        Bound::Cost(_, allowance) => allowance.amount.get(),
        Bound::Tokens(_, allowance) => allowance.amount.get(),
        Bound::Calls(_, allowance) => allowance.amount.get(),
        Bound::Concurrent(allowance) => allowance.amount.get(),
    }
}

/// Limits, and the calls that they admitted, by the number of the step.
struct Sequence {
    limits: Vec<Limit>,
    limited: Limited,
    admitted: BTreeMap<usize, Admitted>,
}

impl Sequence {
    fn new(limits: Vec<Limit>) -> Self {
        let limited = Limited::new(limits.clone());
        Self { limits, limited, admitted: BTreeMap::new() }
    }

    fn open(&mut self, call: usize) -> Option<&mut Admitted> {
        self.admitted.get_mut(&call).filter(|call| call.state == State::Open)
    }

    /// Whether a call fits all limits.
    fn fits(&self, call: &Admitted) -> bool {
        self.limits.iter().all(|Limit { scope, rule, .. }| {
            let others = self.admitted.values().filter(|other| call.shares(scope, other));
            let taken: i128 = others.map(|other| other.takes(&rule.bound)).sum();
            let amount = amount_of(&rule.bound);
            taken < amount && taken + call.takes(&rule.bound) <= amount
        })
    }

    /// Runs a step. Returns whether a reservation was admitted, and whether it fits.
    fn step(&mut self, number: usize, step: Step) -> Option<(bool, bool)> {
        match step {
            Step::Reserve { agent, model, cost, tokens } => {
                let submission = reserve(&format!("c{number}"), |request| {
                    request.agent_id = Some(agent.into());
                    request.model = Some(model.into());
                    request.estimate = Estimate::new(Nanos::new(cost), tokens).unwrap();
                });
                let (of_cost, of_tokens) = (cost.into(), tokens.into());
                let call =
                    Admitted { agent, model, cost: of_cost, tokens: of_tokens, state: State::Open };
                let fits = self.fits(&call);
                let is_admitted = self.limited.decision(now(), &submission).verdict.admits();
                if is_admitted {
                    self.admitted.insert(number, call);
                }
                Some((is_admitted, fits))
            }
            Step::Record { call: number, agent, cost } => {
                let call = self.open(number)?;
                let model = call.model;
                let (of_cost, of_tokens) = (cost.into(), RECORDED_TOKENS);
                *call = Admitted {
                    agent,
                    model,
                    cost: of_cost,
                    tokens: of_tokens,
                    state: State::Recorded,
                };
                let submission = record(&format!("c{number}"), |usage| {
                    usage.agent_id = Some(agent.into());
                    usage.model = model.into();
                    usage.cost = Some(Nanos::new(cost));
                });
                self.limited.run(now(), &submission);
                None
            }
            Step::Release { call: number } => {
                self.open(number)?.state = State::Released;
                self.limited.run(now(), &release(&format!("c{number}"), None));
                None
            }
        }
    }
}

proptest! {
    #[test]
    fn a_call_is_admitted_exactly_when_it_fits_every_limit(
        limits in limits(),
        steps in prop::collection::vec(steps(), 1..40),
    ) {
        let mut sequence = Sequence::new(limits);
        for (number, step) in steps.into_iter().enumerate() {
            if let Some((is_admitted, fits)) = sequence.step(number, step) {
                prop_assert_eq!(is_admitted, fits);
            }
        }
    }
}
