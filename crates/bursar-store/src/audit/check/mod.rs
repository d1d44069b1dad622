//! Checks an audit log: each row against its hash, its neighbours and the sealed head.
//!
//! The rows come from one snapshot of a database, or from an exported file.

use std::fmt;

use bursar_core::TenantId;

use crate::audit::chain::{AuditEntry, AuditHash, AuditHead, AuditKey, AuditLink};
use crate::verify::differences::Differences;

/// The action of the first row of every tenant's log.
const FIRST_ACTION: &str = "tenant.create";

/// The result of a check of the audit log.
#[derive(Debug, Default)]
pub struct AuditReport {
    /// Tenants whose log was checked.
    pub tenants: u64,
    /// Rows that were checked.
    pub rows: u64,
    pub differences: Differences,
}

impl AuditReport {
    /// Adds the result of another tenant.
    pub(crate) fn merge(&mut self, other: Self) {
        let Self { tenants, rows, differences } = other;
        self.tenants += tenants;
        self.rows += rows;
        self.differences.merge(differences);
    }
}

/// Checks the log of one tenant, in the order of its chain.
///
/// After a difference the check continues from the stored row, so that one edit is reported once or
/// twice, and not again for each later row.
#[derive(Debug)]
pub struct AuditCheck {
    tenant_id: TenantId,
    /// The sequence and the hash of the last row of the chain so far.
    sequence: i64,
    hash: AuditHash,
    has_first_row: bool,
    report: AuditReport,
}

impl AuditCheck {
    /// Starts the check of a tenant's log.
    pub fn new(tenant_id: TenantId) -> Self {
        let report = AuditReport { tenants: 1, ..AuditReport::default() };
        let (sequence, hash, has_first_row) = (0, [0; 32], false);
        Self { tenant_id, sequence, hash, has_first_row, report }
    }

    /// Checks the next row.
    pub fn check(&mut self, entry: &AuditEntry) {
        if entry.tenant_id != self.tenant_id {
            let other = entry.tenant_id;
            self.differ(|| format!("row {} belongs to tenant {other}", entry.audit_id));
        }
        self.report.rows += 1;
        let AuditLink { sequence, prev_hash, hash } = entry.link;
        self.has_first_row |= sequence == 1 && entry.action == FIRST_ACTION;
        let expected = next(self.sequence);
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

    /// Reports rows without a sequence number, which the schema forbids.
    pub(crate) fn report_unchained(&mut self, count: u64) {
        if count > 0 {
            self.differ(|| format!("rows that are in no chain: {count}"));
        }
    }

    /// Reports a row that cannot be decoded.
    pub fn report_unreadable(&mut self, error: &dyn fmt::Display) {
        self.differ(|| format!("a row cannot be read: {error}"));
    }

    /// The sequence and the hash of the last row of the chain; `None` if there is no row.
    pub fn last_row(&self) -> Option<(i64, AuditHash)> {
        (self.sequence > 0).then_some((self.sequence, self.hash))
    }

    /// Ends the check without a head: rows missing at the end are not noticed.
    pub fn finish(mut self) -> AuditReport {
        if !self.has_first_row {
            self.differ(|| "the log does not begin with the tenant's creation".to_owned());
        }
        self.report
    }

    /// Ends the check, and compares the last row with the head.
    pub(crate) fn finish_with_head(
        mut self,
        head: Option<&AuditHead>,
        key: &AuditKey,
    ) -> AuditReport {
        let (last, hash) = (self.sequence, self.hash);
        match head {
            None => self.differ(|| "the chain has no head".to_owned()),
            Some(head) => {
                if head.sequence > last {
                    let (first, last) = (next(last), head.sequence);
                    self.differ(|| format!("{} missing at the end", rows(first, last)));
                } else if head.sequence < last {
                    let sequence = head.sequence;
                    self.differ(|| format!("the head is at row {sequence}, before row {last}"));
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
        self.report.differences.add(|| format!("tenant {tenant_id}: {}", sentence()));
    }
}

/// The sequence number after this one.
const fn next(sequence: i64) -> i64 {
    sequence.saturating_add(1)
}

/// A range of rows, with its verb.
fn rows(first: i64, last: i64) -> String {
    if first == last { format!("row {first} is") } else { format!("rows {first} to {last} are") }
}

#[cfg(test)]
mod tests;
