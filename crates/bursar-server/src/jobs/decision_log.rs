//! A log of decisions other than "allowed", so that clients can find out why a call was refused.
//!
//! A check must stay cheap, so decisions are collected in memory and written once a second. A few
//! reservations get rows of their own.

use std::time::Duration;

use bursar_core::{
    Decision, DecisionId, Estimate, IntegrationId, ReasonCode, TenantId, Timestamp, Verdict,
};
use bursar_store::{ControlTx, DecisionKind, DecisionRow, StoreError};

use crate::jobs::coalesced_log::{CoalescedLog, CoalescedRow, Event, LogBounds};

const BOUNDS: LogBounds = LogBounds {
    windows_max: 20_000,
    tenant_windows_max: 5_000,
    singles_max: 20_000,
    tenant_singles_max: 5_000,
    window_singles_max: 10,
    kept: 10_000,
    drop_every: 500,
};

/// Collects decisions and writes them.
pub(crate) type DecisionLog = CoalescedLog<DecisionNote>;

/// An empty log of decisions.
pub(crate) fn decision_log() -> DecisionLog {
    CoalescedLog::new(BOUNDS)
}

/// A decision to log.
#[derive(Clone, Debug)]
pub struct DecisionNote {
    pub(crate) tenant_id: TenantId,
    /// The kind of request.
    pub(crate) kind: DecisionKind,
    /// `None` if the tenant has no such integration.
    pub(crate) integration_id: Option<IntegrationId>,
    pub(crate) decision: Decision,
    /// The call, if it has an id.
    pub(crate) call_id: Option<String>,
    /// The estimate of the call.
    pub(crate) estimate: Estimate,
    pub(crate) at: Timestamp,
}

/// The fields that equal decisions have in common.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct DecisionKey {
    kind: DecisionKind,
    integration_id: Option<IntegrationId>,
    verdict: Verdict,
    code: Option<ReasonCode>,
}

impl Event for DecisionNote {
    type Key = DecisionKey;
    type RowId = DecisionId;

    const NAME: &'static str = "decisions";
    const EVENTS: &'static str = "refusals";

    fn tenant_id(&self) -> TenantId {
        self.tenant_id
    }

    /// An allowed call needs no explanation, so it is not logged.
    fn key(&self) -> Option<DecisionKey> {
        let Self { kind, integration_id, ref decision, .. } = *self;
        let verdict = decision.verdict;
        let code = decision.reasons.first().map(|reason| reason.code);
        (verdict != Verdict::Allowed).then_some(DecisionKey { kind, integration_id, verdict, code })
    }

    fn elapsed(&self) -> Duration {
        Duration::from_micros(u64::try_from(self.at.micros()).unwrap_or_default())
    }

    fn at(&self) -> Timestamp {
        self.at
    }

    fn is_single(&self) -> bool {
        self.call_id.is_some()
    }

    /// A shared row stands for several calls.
    fn shared(self) -> Self {
        Self { call_id: None, ..self }
    }

    fn row_id(number: i64) -> Option<DecisionId> {
        DecisionId::from_number(number)
    }

    fn put(&self, tx: &mut dyn ControlTx, row: CoalescedRow<DecisionId>) -> Result<(), StoreError> {
        tx.put_decision(&DecisionRow {
            tenant_id: self.tenant_id,
            decision_id: row.row_id,
            kind: self.kind,
            integration_id: self.integration_id,
            decision: self.decision.clone(),
            call_id: self.call_id.clone(),
            estimate: self.estimate,
            times: row.times,
            first_at: row.first_at,
            last_at: self.at,
        })
    }

    fn drop_old(tx: &mut dyn ControlTx, tenant_id: TenantId, kept: u32) -> Result<(), StoreError> {
        tx.drop_decisions(tenant_id, kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_of_other_kinds_integrations_and_reasons_share_no_row() {
        let note = DecisionNote {
            tenant_id: TenantId::from_number(1).expect("in range"),
            kind: DecisionKind::Reservation,
            integration_id: None,
            decision: Decision::hard_blocked(ReasonCode::IntegrationNotFound),
            call_id: Some("call".to_owned()),
            estimate: Estimate::default(),
            at: Timestamp::MIN,
        };
        let key = note.key();
        let later =
            DecisionNote { at: Timestamp::MIN.plus_seconds(9), call_id: None, ..note.clone() };
        assert!(key.is_some() && later.key() == key);
        let others = [
            DecisionNote { kind: DecisionKind::Check, ..note.clone() },
            DecisionNote { integration_id: IntegrationId::from_number(1), ..note.clone() },
            DecisionNote {
                decision: Decision::hard_blocked(ReasonCode::TenantSuspended),
                ..note.clone()
            },
        ];
        assert!(others.iter().all(|other| other.key().is_some() && other.key() != key));
        assert_eq!(note.shared().call_id, None);
    }
}
