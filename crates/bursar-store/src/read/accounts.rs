//! Reads of accounts and reservations.

use async_trait::async_trait;
use bursar_core::{
    Account, CallId, Counter, IntegrationId, LimitBook, Month, OwnedSubject, Reservation, TenantId,
    Timestamp,
};

use crate::error::StoreError;
use crate::read::page::{Page, Paged};

/// An account at one instant.
#[derive(Clone, Debug)]
pub struct AccountSnapshot {
    /// The account, without holds that are due at `now`.
    pub account: Account,
    /// The limits that the call falls under, with their accounts.
    pub limits: LimitBook,
    pub now: Timestamp,
}

/// An open reservation in a list.
#[derive(Clone, Debug)]
pub struct OpenReservation {
    pub call_id: CallId,
    pub reservation: Reservation,
}

/// Accounts and their open reservations.
#[async_trait]
pub trait AccountReads: Send + Sync {
    /// The account of an integration, deleted or not, with the current month, and the accounts of
    /// the limits that a call falls under.
    async fn account_snapshot(
        &self,
        tenant_id: TenantId,
        subject: OwnedSubject,
    ) -> Result<Option<AccountSnapshot>, StoreError>;

    /// The counter of a month, without due holds; an unused month has the default counter.
    async fn counter(
        &self,
        tenant_id: TenantId,
        integration_id: IntegrationId,
        month: Month,
    ) -> Result<Counter, StoreError>;

    /// The open reservations of a tenant or an integration, in order of expiry.
    async fn open_reservations(
        &self,
        tenant_id: TenantId,
        integration_id: Option<IntegrationId>,
        page: Page,
    ) -> Result<Paged<OpenReservation>, StoreError>;
}
