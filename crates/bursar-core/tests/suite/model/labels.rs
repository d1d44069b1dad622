//! Random labels of calls, from small pools.

use bursar_core::{KeyId, ReserveRequest, Tags, Usage};
use bursar_testing::chance::Chance;

pub(super) const AGENTS: [&str; 3] = ["ada", "bob", "cyd"];
pub(super) const MODELS: [&str; 3] = ["gpt", "opus", "flash"];
pub(super) const SESSIONS: [&str; 2] = ["morning", "evening"];
pub(super) const TEAM: &str = "team";
pub(super) const TEAMS: [&str; 2] = ["red", "blue"];

/// The labels of a call.
#[derive(Clone, Debug)]
pub(super) struct Labels {
    model: Option<&'static str>,
    agent: Option<&'static str>,
    session: Option<&'static str>,
    team: Option<&'static str>,
    key: Option<KeyId>,
}

pub(super) fn key(number: i64) -> KeyId {
    KeyId::from_number(number).unwrap()
}

impl Labels {
    pub(super) fn random(chance: &mut Chance) -> Self {
        fn some<const N: usize>(
            chance: &mut Chance,
            pool: [&'static str; N],
        ) -> Option<&'static str> {
            let value = chance.one_of(&pool);
            chance.percent(85).then_some(value)
        }
        Self {
            model: some(chance, MODELS),
            agent: some(chance, AGENTS),
            session: some(chance, SESSIONS),
            team: some(chance, TEAMS),
            key: chance.one_of(&[None, Some(key(1)), Some(key(1)), Some(key(2))]),
        }
    }

    /// The labels that a call mostly has, so that repetitions agree.
    pub(super) fn usual(call: &str) -> Self {
        let seed = call.bytes().fold(11, |seed: u64, byte| seed * 257 + u64::from(byte));
        Self::random(&mut Chance::new(seed))
    }

    pub(super) fn set_on_request(&self, request: &mut ReserveRequest) {
        request.model = self.model.map(Box::from);
        request.agent_id = self.agent.map(Box::from);
        request.session_id = self.session.map(Box::from);
        request.account_key_id = self.key;
        request.tags = self.tags();
    }

    pub(super) fn set_on_record(&self, usage: &mut Usage) {
        usage.model = self.model.unwrap_or("gpt").into();
        usage.agent_id = self.agent.map(Box::from);
        usage.session_id = self.session.map(Box::from);
        usage.account_key_id = self.key;
        usage.tags = self.tags();
    }

    fn tags(&self) -> Tags {
        let mut tags = Tags::default();
        if let Some(team) = self.team {
            assert!(tags.add(TEAM, team));
        }
        tags
    }
}
