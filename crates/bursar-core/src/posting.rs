//! The keys of accounts of limits, and the postings of reservations to them.

use std::sync::Arc;

use crate::id::{LimitId, TenantId};
use crate::time::Timestamp;

/// The key of a limit's account.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LimitAccountKey {
    pub tenant_id: TenantId,
    pub limit_id: LimitId,
    /// A value of a limit for each value. Empty for the account of other limits, and for the one
    /// that values beyond [`crate::Caps::values_per_limit`] share.
    pub value: Arc<str>,
}

/// Where a reservation is held: an account, and the part of it by its start.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Posting {
    pub account: LimitAccountKey,
    /// The start of the period in which the reservation was made; in a window of a minute, the
    /// second.
    pub start: Timestamp,
}
