//! One row of the audit log on the wire and in files, and how a file is read back.

use bursar_core::{AuditId, TenantId};
use bursar_store::{AuditEntry, AuditHash, AuditLink};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use utoipa::ToSchema;

use crate::wire::scalars::{Digest, FreeObject, Id, Instant};
use crate::wire::timestamps;

/// A row of the audit log.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AuditView {
    #[schema(value_type = Id)]
    id: String,
    #[schema(value_type = Id)]
    tenant_id: String,
    /// The position in the tenant's chain, from 1. Never null.
    #[schema(required)]
    sequence: Option<i64>,
    #[schema(value_type = Instant)]
    at: String,
    /// The kind of actor.
    actor_type: String,
    /// Who made the change: the id of a key, `<issuer>|<subject>` for a person, or `operator`.
    actor_id: String,
    /// The client's address. Null for a command that works on the store itself.
    #[schema(required)]
    address: Option<String>,
    /// The change.
    action: String,
    /// The kind of object that was changed.
    target_type: String,
    /// The id of the object.
    target_id: String,
    request_id: String,
    /// What changed. Never contains a secret.
    #[schema(value_type = FreeObject)]
    detail: Box<RawValue>,
    /// The hash of the previous row. Zeros in the first row.
    #[schema(value_type = Option<Digest>, required)]
    prev_hash: Option<String>,
    /// The hash of this row.
    #[schema(value_type = Option<Digest>, required)]
    hash: Option<String>,
}

impl From<AuditEntry> for AuditView {
    fn from(entry: AuditEntry) -> Self {
        let AuditEntry {
            tenant_id,
            audit_id,
            at,
            actor_type,
            actor_id,
            address,
            action,
            target_type,
            target_id,
            request_id,
            detail,
            link,
        } = entry;
        Self {
            id: audit_id.to_string(),
            tenant_id: tenant_id.to_string(),
            sequence: Some(link.sequence),
            at: timestamps::text(at),
            actor_type,
            actor_id,
            address,
            action,
            target_type,
            target_id,
            request_id,
            detail: shown(detail),
            prev_hash: Some(hash_text(&link.prev_hash)),
            hash: Some(hash_text(&link.hash)),
        }
    }
}

/// The detail byte for byte, because the hash covers these bytes.
///
/// A detail that is not an object on one line was not written by a server. It is shown as a string.
fn shown(detail: String) -> Box<RawValue> {
    let is_object = detail.starts_with('{') && !detail.contains(['\n', '\r']);
    let object = is_object.then(|| RawValue::from_string(detail.clone()).ok()).flatten();
    object.or_else(|| to_raw_value(&detail).ok()).unwrap_or_else(|| RawValue::NULL.to_owned())
}

impl AuditView {
    /// Converts the row back to what the server stored.
    ///
    /// # Errors
    /// Which field cannot come from a server.
    pub fn entry(self) -> Result<AuditEntry, &'static str> {
        let (Some(sequence), Some(prev_hash), Some(hash)) =
            (self.sequence, self.prev_hash, self.hash)
        else {
            return Err("the row is in no chain");
        };
        let read = |text: &str| read_hash(text).ok_or("a hash is not 64 hexadecimal digits");
        let link = AuditLink { sequence, prev_hash: read(&prev_hash)?, hash: read(&hash)? };
        Ok(AuditEntry {
            tenant_id: TenantId::parse(&self.tenant_id).map_err(|_| "tenant_id is not an id")?,
            audit_id: AuditId::parse(&self.id).map_err(|_| "id is not an id")?,
            at: timestamps::parse(&self.at).map_err(|_| "at is not an instant")?,
            actor_type: self.actor_type,
            actor_id: self.actor_id,
            address: self.address,
            action: self.action,
            target_type: self.target_type,
            target_id: self.target_id,
            request_id: self.request_id,
            detail: self.detail.get().to_owned(),
            link,
        })
    }
}

/// A hash as 64 hexadecimal digits.
pub(crate) fn hash_text(hash: &AuditHash) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read_hash(text: &str) -> Option<AuditHash> {
    let (digits, rest) = text.as_bytes().as_chunks::<2>();
    if digits.len() != 32 || !rest.is_empty() || text.contains(char::is_uppercase) {
        return None;
    }
    let mut hash = AuditHash::default();
    for (byte, pair) in hash.iter_mut().zip(digits) {
        let pair = std::str::from_utf8(pair).ok().filter(|pair| !pair.starts_with('+'))?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use bursar_core::Timestamp;

    use super::*;

    fn entry(detail: &str) -> AuditEntry {
        AuditEntry {
            tenant_id: TenantId::from_number(1).unwrap(),
            audit_id: AuditId::from_number(2).unwrap(),
            at: Timestamp::from_micros(1_780_000_000_000_001).unwrap(),
            actor_type: "machine".to_owned(),
            actor_id: "a\"b".to_owned(),
            address: None,
            action: "key.create".to_owned(),
            target_type: "key".to_owned(),
            target_id: "ä".to_owned(),
            request_id: String::new(),
            detail: detail.to_owned(),
            link: AuditLink { sequence: 3, prev_hash: [0; 32], hash: [0xab; 32] },
        }
    }

    fn through_a_line(entry: AuditEntry) -> AuditEntry {
        let line = serde_json::to_string(&AuditView::from(entry)).unwrap();
        assert!(!line.contains('\n'), "{line}");
        serde_json::from_str::<AuditView>(&line).unwrap().entry().unwrap()
    }

    #[test]
    fn a_row_leads_back_through_a_line_byte_by_byte() {
        for detail in ["{}", r#"{"name":"a","b":1.50}"#, r#"{"b" : [1, "\u00e4"]}"#] {
            assert_eq!(through_a_line(entry(detail)), entry(detail));
        }
    }

    #[test]
    fn a_detail_that_no_server_wrote_does_not_pass_for_one() {
        for detail in ["", "1", "{", "{\n}", "null"] {
            assert_ne!(through_a_line(entry(detail)).detail, detail);
        }
    }

    #[test]
    fn only_the_digits_of_a_hash_are_one() {
        assert_eq!(read_hash(&hash_text(&[0x9f; 32])), Some([0x9f; 32]));
        for wrong in ["", "9f", &"9F".repeat(32), &"+f".repeat(32), &"9f".repeat(33)] {
            assert_eq!(read_hash(wrong), None, "{wrong}");
        }
    }
}
