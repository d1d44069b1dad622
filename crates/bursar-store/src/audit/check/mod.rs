//! The audit log checked: every row against its hash, its neighbours and the sealed head.
//!
//! Knows nothing of where the rows come from: a database in one snapshot, or a file that was
//! exported. Changes nothing.

use std::fmt;

use bursar_core::TenantId;

use crate::audit::chain::{AuditEntry, AuditHash, AuditHead, AuditKey, AuditLink};
use crate::verify::differences::Differences;

/// With what every tenant's log begins.
const FIRST_ACTION: &str = "tenant.create";

/// What checking the audit log came to.
#[derive(Debug, Default)]
pub struct AuditVerified {
    /// Tenants whose log was checked.
    pub tenants: u64,
    /// Rows that were checked.
    pub rows: u64,
    /// Where they are not as they should be.
    pub differences: Differences,
}

impl AuditVerified {
    /// Adds what the log of another tenant came to.
    pub(crate) fn merge(&mut self, other: Self) {
        let Self { tenants, rows, differences } = other;
        self.tenants += tenants;
        self.rows += rows;
        self.differences.merge(differences);
    }
}

/// Checks the log of one tenant, in the order of its chain.
///
/// After a difference it goes on from what is stored, so that one edit is told once or twice and
/// not once for every row that follows.
#[derive(Debug)]
pub struct AuditCheck {
    tenant_id: TenantId,
    /// The last row of the chain that was seen.
    sequence: i64,
    hash: AuditHash,
    has_beginning: bool,
    verified: AuditVerified,
}

impl AuditCheck {
    /// Before the first row of a tenant.
    pub fn new(tenant_id: TenantId) -> Self {
        let verified = AuditVerified { tenants: 1, ..AuditVerified::default() };
        let (sequence, hash, has_beginning) = (0, [0; 32], false);
        Self { tenant_id, sequence, hash, has_beginning, verified }
    }

    /// Takes the next row.
    pub fn take(&mut self, entry: &AuditEntry) {
        if entry.tenant_id != self.tenant_id {
            let other = entry.tenant_id;
            self.differ(|| format!("row {} is one of tenant {other}", entry.audit_id));
        }
        self.verified.rows += 1;
        let AuditLink { sequence, prev_hash, hash } = entry.link;
        self.has_beginning |= sequence == 1 && entry.action == FIRST_ACTION;
        let expected = expected(self.sequence);
        if sequence > expected {
            self.differ(|| format!("{} missing", rows(expected, sequence - 1)));
        } else if sequence < expected {
            self.differ(|| format!("row {sequence} comes after row {}", expected - 1));
        } else if prev_hash != self.hash {
            self.differ(|| format!("row {sequence} does not follow the row before it"));
        }
        if entry.hash_at(sequence, &prev_hash) != hash {
            let audit_id = entry.audit_id;
            self.differ(|| format!("row {sequence} ({audit_id}) is not as it was written"));
        }
        if sequence >= expected {
            (self.sequence, self.hash) = (sequence, hash);
        }
    }

    /// Takes note of rows that have no place in the chain, which the schema forbids.
    pub(crate) fn take_unchained(&mut self, count: u64) {
        if count > 0 {
            self.differ(|| format!("rows that are in no chain: {count}"));
        }
    }

    /// Takes note of a row that cannot be read at all.
    pub fn unreadable(&mut self, error: &dyn fmt::Display) {
        self.differ(|| format!("a row cannot be read: {error}"));
    }

    /// The end of the chain: the sequence and the hash of the last row; nothing without one.
    pub fn end(&self) -> Option<(i64, AuditHash)> {
        (self.sequence > 0).then_some((self.sequence, self.hash))
    }

    /// What it came to, without the head: rows that were cut off the end are not missed.
    pub fn finish(mut self) -> AuditVerified {
        if !self.has_beginning {
            self.differ(|| "the log does not begin with the tenant's creation".to_owned());
        }
        self.verified
    }

    /// What it came to, compared with the head.
    pub(crate) fn finish_at(mut self, head: Option<&AuditHead>, key: &AuditKey) -> AuditVerified {
        let (last, hash) = (self.sequence, self.hash);
        match head {
            None => self.differ(|| "the chain has no head".to_owned()),
            Some(head) => {
                if head.sequence > last {
                    let (first, last) = (expected(last), head.sequence);
                    self.differ(|| format!("{} missing at the end", rows(first, last)));
                } else if head.sequence < last {
                    let sequence = head.sequence;
                    self.differ(|| format!("the head stands at row {sequence}, before row {last}"));
                } else if head.hash != hash {
                    self.differ(|| format!("row {last} is not the one that the head names"));
                }
                if !head.is_sealed(key) {
                    self.differ(|| "the head was not sealed with this secret key".to_owned());
                }
            }
        }
        self.finish()
    }

    fn differ(&mut self, sentence: impl FnOnce() -> String) {
        let tenant_id = self.tenant_id;
        self.verified.differences.add(|| format!("tenant {tenant_id}: {}", sentence()));
    }
}

/// What comes after a row.
const fn expected(sequence: i64) -> i64 {
    sequence.saturating_add(1)
}

/// Some rows and their verb.
fn rows(first: i64, last: i64) -> String {
    if first == last { format!("row {first} is") } else { format!("rows {first} to {last} are") }
}

#[cfg(test)]
mod tests;
