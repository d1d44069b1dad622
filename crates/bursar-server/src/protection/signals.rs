//! A log of what protection did, for the operator. Signals are collected in memory and written once a
//! second.

use std::time::Duration;

use bursar_core::{Dimension, ProtectionDecision, SignalId, TenantId, Timestamp};
use bursar_store::{ControlTx, SignalRow, StoreError};

use super::route_protection::RouteProtection;
use crate::jobs::coalesced_log::{CoalescedLog, CoalescedRow, Event, LogBounds};

/// Rows kept for a tenant.
pub(crate) const KEPT: u32 = 1_000;

/// Collects signals and writes them.
pub(super) type SignalLog = CoalescedLog<Signal>;

/// A log of no signals yet, for so many routes on which a tenant can be refused.
pub(super) fn signal_log(routes: u32) -> SignalLog {
    CoalescedLog::new(LogBounds {
        windows_max: 20_000,
        // A dimension has one action, so a tenant never has more.
        tenant_windows_max: routes as usize * Dimension::ALL.len(),
        singles_max: 0,
        tenant_singles_max: 0,
        window_singles_max: 0,
        kept: KEPT,
        drop_every: 100,
    })
}

/// A decision other than "allow".
#[derive(Clone, Debug)]
pub(super) struct Signal {
    pub(super) tenant_id: TenantId,
    pub(super) route: &'static RouteProtection,
    pub(super) decision: ProtectionDecision,
    /// When it was made, by the clock that windows move by.
    pub(super) elapsed: Duration,
    /// And as it is shown.
    pub(super) at: Timestamp,
}

/// What equal signals have in common.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct SignalKey {
    endpoint: &'static str,
    operation: &'static str,
    dimension: Dimension,
    action: &'static str,
}

impl Event for Signal {
    type Key = SignalKey;
    type RowId = SignalId;

    const NAME: &'static str = "protection-signals";
    const EVENTS: &'static str = "signals";

    fn tenant_id(&self) -> TenantId {
        self.tenant_id
    }

    fn key(&self) -> Option<SignalKey> {
        let RouteProtection { endpoint, operation, .. } = *self.route;
        let dimension = self.decision.breach()?.dimension;
        Some(SignalKey { endpoint, operation, dimension, action: self.decision.as_str() })
    }

    fn elapsed(&self) -> Duration {
        self.elapsed
    }

    fn at(&self) -> Timestamp {
        self.at
    }

    fn row_id(number: i64) -> Option<SignalId> {
        SignalId::from_number(number)
    }

    fn put(&self, tx: &mut dyn ControlTx, row: CoalescedRow<SignalId>) -> Result<(), StoreError> {
        tx.put_signal(&SignalRow {
            tenant_id: self.tenant_id,
            signal_id: row.row_id,
            decision: self.decision,
            endpoint: self.route.endpoint.to_owned(),
            operation: self.route.operation.to_owned(),
            times: row.times,
            first_at: row.first_at,
            last_at: self.at,
        })
    }

    fn drop_old(tx: &mut dyn ControlTx, tenant_id: TenantId, kept: u32) -> Result<(), StoreError> {
        tx.drop_signals(tenant_id, kept)
    }
}
