//! The audit log of a tenant as a hash chain: rows, the sealed head, filters and pages.
//!
//! Each row stores the hash of the row before it and its own hash, so that no row can be changed,
//! removed, inserted or moved without changing the hashes of all later rows. The head, one row per
//! tenant, stores the hash of the last row and a seal: a keyed hash whose key is not in the
//! database. An attacker who can write to the database but lacks the key can neither rewrite the
//! chain nor truncate it.
//!
//! Deliberately absent: SQL, and the check of stored rows, which is [`crate::AuditCheck`].

use bursar_core::{AuditId, TenantId, Timestamp};
use zeroize::ZeroizeOnDrop;

use crate::error::StoreError;
use crate::rows::columns::Columns;
use crate::rows::row::AuditRow;

/// The first field of a row's hash; a new encoding gets a new name.
const ROW_DOMAIN: &str = "bursar audit row 1";
/// The first field of a head's seal.
const HEAD_DOMAIN: &str = "bursar audit head 1";
/// The length that marks an absent field; no text is that long.
const ABSENT: u32 = u32::MAX;
/// The hash before the first row.
const BEFORE_FIRST: AuditHash = [0; 32];
/// The limit on the rows that one page scans, however few of them match.
pub(crate) const SCANNED_MAX: usize = 10_000;

/// A hash or a seal of the audit log.
pub type AuditHash = [u8; 32];

/// The key that seals the heads: derived from the server's secret key, and stored nowhere.
#[derive(Clone, ZeroizeOnDrop)]
pub struct AuditKey([u8; 32]);

impl AuditKey {
    /// A key of 32 secret bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

/// One row of the audit log, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    pub tenant_id: TenantId,
    pub audit_id: AuditId,
    pub at: Timestamp,
    pub actor_type: String,
    pub actor_id: String,
    /// The client's address; `None` if the request came from no client.
    pub address: Option<String>,
    pub action: String,
    pub target_type: String,
    pub target_id: String,
    pub request_id: String,
    /// What changed, as a JSON object, byte for byte as it was hashed.
    pub detail: String,
    pub link: AuditLink,
}

/// The position of a row in its tenant's chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditLink {
    /// Counts from 1.
    pub sequence: i64,
    /// The hash of the row before; zeros in the first row.
    pub prev_hash: AuditHash,
    /// The hash of this row, [`AuditEntry::hash_at`].
    pub hash: AuditHash,
}

impl AuditEntry {
    /// The hash of the row at this position: BLAKE3 over its fields in order.
    ///
    /// Each field is its length in bytes (32 bits, big endian) followed by its bytes. An absent
    /// field has the length 2^32 - 1 and no bytes. Integers have 8 bytes, big endian. The fields
    /// are the domain, tenant, sequence, id, instant (microseconds since 1970), actor type, actor
    /// id, address, action, target type, target id, request id, detail and `prev_hash`. Ids are
    /// encoded as on the wire.
    pub fn hash_at(&self, sequence: i64, prev_hash: &AuditHash) -> AuditHash {
        let Self {
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
            link: _,
        } = self;
        let mut encoder = Encoder(blake3::Hasher::new());
        encoder.text(ROW_DOMAIN);
        encoder.text(&tenant_id.to_string());
        encoder.number(sequence);
        encoder.text(&audit_id.to_string());
        encoder.number(at.micros());
        encoder.text(actor_type);
        encoder.text(actor_id);
        encoder.field(address.as_ref().map(String::as_bytes));
        encoder.text(action);
        encoder.text(target_type);
        encoder.text(target_id);
        encoder.text(request_id);
        encoder.text(detail);
        encoder.field(Some(prev_hash));
        encoder.hash()
    }

    pub(crate) const fn position(&self) -> AuditPosition {
        AuditPosition { at: self.at, audit_id: self.audit_id }
    }
}

/// The canonical encoding, field by field.
struct Encoder(blake3::Hasher);

impl Encoder {
    fn field(&mut self, bytes: Option<&[u8]>) {
        let length = bytes.map_or(ABSENT, |bytes| u32::try_from(bytes.len()).unwrap_or(ABSENT));
        self.0.update(&length.to_be_bytes());
        self.0.update(bytes.unwrap_or_default());
    }

    fn text(&mut self, text: &str) {
        self.field(Some(text.as_bytes()));
    }

    fn number(&mut self, number: i64) {
        self.field(Some(&number.to_be_bytes()));
    }

    fn hash(&self) -> AuditHash {
        *self.0.finalize().as_bytes()
    }
}

/// The sealed end of a tenant's chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AuditHead {
    pub(crate) tenant_id: TenantId,
    /// The sequence of the last row.
    pub(crate) sequence: i64,
    pub(crate) hash: AuditHash,
    pub(crate) seal: AuditHash,
}

impl AuditHead {
    /// The head of an empty chain.
    pub(crate) fn empty(tenant_id: TenantId, key: &AuditKey) -> Self {
        let mut head = Self { tenant_id, sequence: 0, hash: BEFORE_FIRST, seal: BEFORE_FIRST };
        head.seal = head.compute_seal(key);
        head
    }

    /// Appends a row: returns the row to store, and the new head.
    ///
    /// A head with a wrong seal keeps it, because a new seal would make a forged head genuine.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if the sequence number overflows.
    pub(crate) fn append(
        &self,
        row: &AuditRow,
        key: &AuditKey,
    ) -> Result<(AuditEntry, Self), StoreError> {
        let sequence = self.sequence.checked_add(1);
        let sequence = sequence.ok_or_else(|| {
            StoreError::Corrupt("the sequence numbers of an audit log are used up".to_owned())
        })?;
        let mut entry = AuditEntry {
            tenant_id: row.tenant_id,
            audit_id: row.audit_id,
            at: row.at,
            actor_type: row.actor.actor_type.to_owned(),
            actor_id: row.actor.actor_id.clone(),
            address: row.actor.address.clone(),
            action: row.action.to_owned(),
            target_type: row.target_type.to_owned(),
            target_id: row.target_id.clone(),
            request_id: row.actor.request_id.clone(),
            detail: row.detail.clone(),
            link: AuditLink { sequence, prev_hash: self.hash, hash: BEFORE_FIRST },
        };
        let hash = entry.hash_at(sequence, &self.hash);
        entry.link.hash = hash;
        let mut next = Self { sequence, hash, ..self.clone() };
        if self.is_sealed(key) {
            next.seal = next.compute_seal(key);
        } else {
            tracing::error!(
                tenant_id = %self.tenant_id,
                "the head of the audit log was not written by this server: run `bursar audit verify`"
            );
        }
        Ok((entry, next))
    }

    /// Whether the seal was made with this key.
    pub(crate) fn is_sealed(&self, key: &AuditKey) -> bool {
        // `blake3::Hash` compares in constant time.
        blake3::Hash::from(self.compute_seal(key)) == blake3::Hash::from(self.seal)
    }

    fn compute_seal(&self, key: &AuditKey) -> AuditHash {
        let mut encoder = Encoder(blake3::Hasher::new_keyed(&key.0));
        encoder.text(HEAD_DOMAIN);
        encoder.text(&self.tenant_id.to_string());
        encoder.number(self.sequence);
        encoder.field(Some(&self.hash));
        encoder.hash()
    }
}

/// A position in the audit log, which runs from the newest to the oldest row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditPosition {
    pub at: Timestamp,
    /// Orders the rows of one instant.
    pub audit_id: AuditId,
}

/// A filter of audit rows.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    pub actor_id: Option<String>,
    pub action: Option<String>,
    pub target_type: Option<String>,
    pub target_id: Option<String>,
    /// The first instant, inclusive.
    pub start: Option<Timestamp>,
    /// The last instant, exclusive.
    pub end: Option<Timestamp>,
    /// Only rows after this position, which are older.
    pub after: Option<AuditPosition>,
}

/// A page of the audit log.
#[derive(Clone, Debug, Default)]
pub struct AuditPage {
    /// The rows, newest first.
    pub rows: Vec<AuditEntry>,
    /// The position of the next page, if there may be one.
    ///
    /// A page that ends early also has a next one: it stops after a limited number of scanned rows,
    /// even if few of them match.
    pub next: Option<AuditPosition>,
}

/// The index that is scanned from the newest row to the oldest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AuditIndex {
    Target,
    Actor,
    Action,
    Time,
}

impl AuditIndex {
    /// The most selective index for a filter.
    pub(crate) const fn of(filter: &AuditFilter) -> Self {
        if filter.target_id.is_some() {
            Self::Target
        } else if filter.actor_id.is_some() {
            Self::Actor
        } else if filter.action.is_some() {
            Self::Action
        } else {
            Self::Time
        }
    }
}

/// The range of rows that a page scans, in stored values.
pub(crate) struct AuditRange {
    pub(crate) first_at: i64,
    /// Lets the index scan start where the last page ended. `after_at` and `after_id` only skip
    /// rows of that instant.
    pub(crate) last_at: i64,
    pub(crate) after_at: i64,
    pub(crate) after_id: i64,
}

impl AuditRange {
    pub(crate) fn of(filter: &AuditFilter) -> Self {
        let end = filter.end.map_or(i64::MAX, |end| end.micros().saturating_sub(1));
        let after = filter.after.map(|after| (after.at.micros(), after.audit_id.number()));
        let (after_at, after_id) = after.unwrap_or((i64::MAX, i64::MAX));
        Self {
            first_at: filter.start.map_or(i64::MIN, Timestamp::micros),
            last_at: end.min(after_at),
            after_at,
            after_id,
        }
    }
}

/// Reads `tenant_id, audit_id, at, actor_type, actor_id, address, action, target_type, target_id,
/// request_id, detail, sequence, prev_hash, hash`.
pub(crate) fn audit_entry(row: &impl Columns) -> Result<AuditEntry, StoreError> {
    Ok(AuditEntry {
        tenant_id: row.id(0, TenantId::from_number)?,
        audit_id: row.id(1, AuditId::from_number)?,
        at: row.instant(2)?,
        actor_type: row.text(3)?,
        actor_id: row.text(4)?,
        address: row.opt_text(5)?,
        action: row.text(6)?,
        target_type: row.text(7)?,
        target_id: row.text(8)?,
        request_id: row.text(9)?,
        detail: row.text(10)?,
        link: AuditLink { sequence: row.int(11)?, prev_hash: row.bytes(12)?, hash: row.bytes(13)? },
    })
}

/// Reads the position from the columns of [`audit_entry`].
pub(crate) fn audit_position(row: &impl Columns) -> Result<AuditPosition, StoreError> {
    Ok(AuditPosition { at: row.instant(2)?, audit_id: row.id(1, AuditId::from_number)? })
}

/// Reads `sequence, hash, seal`.
pub(crate) fn audit_head(tenant_id: TenantId, row: &impl Columns) -> Result<AuditHead, StoreError> {
    Ok(AuditHead { tenant_id, sequence: row.int(0)?, hash: row.bytes(1)?, seal: row.bytes(2)? })
}

/// Builds a page of the audit log.
pub(crate) struct AuditPageBuilder {
    rows: Vec<AuditEntry>,
    limit: usize,
    scanned: usize,
    next: Option<AuditPosition>,
}

impl AuditPageBuilder {
    pub(crate) fn new(limit: u32) -> Self {
        Self { rows: Vec::new(), limit: limit as usize, scanned: 0, next: None }
    }

    pub(crate) const fn is_complete(&self) -> bool {
        self.next.is_some()
    }

    /// Adds the next scanned row, if it matches the filter.
    pub(crate) fn add(&mut self, row: &impl Columns, matches: bool) -> Result<(), StoreError> {
        self.scanned += 1;
        if matches && self.rows.len() == self.limit {
            // The page is full, and there is at least one more row.
            self.next = self.rows.last().map(AuditEntry::position);
            return Ok(());
        }
        if matches {
            self.rows.push(audit_entry(row)?);
        }
        if self.scanned == SCANNED_MAX {
            self.next = Some(audit_position(row)?);
        }
        Ok(())
    }

    /// Notes that the database stopped its scan at this row.
    pub(crate) fn stopped_at(&mut self, position: AuditPosition) {
        self.next.get_or_insert(position);
    }

    pub(crate) fn page(self) -> AuditPage {
        AuditPage { rows: self.rows, next: self.next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::row::Actor;

    fn row(number: i64) -> AuditRow {
        AuditRow {
            tenant_id: TenantId::from_number(7).expect("an id"),
            audit_id: AuditId::from_number(number).expect("an id"),
            at: Timestamp::from_micros(1_780_000_000_000_000 + number).expect("an instant"),
            actor: Actor {
                actor_type: "machine",
                actor_id: "key".to_owned(),
                request_id: "request".to_owned(),
                address: Some("192.0.2.1".to_owned()),
            },
            action: "integration.create",
            target_type: "integration",
            target_id: "target".to_owned(),
            detail: r#"{"name":"a"}"#.to_owned(),
        }
    }

    fn first(number: i64) -> (AuditEntry, AuditHead) {
        let key = AuditKey::new([1; 32]);
        let row = row(number);
        AuditHead::empty(row.tenant_id, &key).append(&row, &key).expect("a number")
    }

    #[test]
    fn the_hash_follows_the_documented_encoding() {
        let (entry, _) = first(9);
        let mut bytes = Vec::new();
        let mut field = |field: &[u8]| {
            bytes.extend((field.len() as u32).to_be_bytes());
            bytes.extend(field);
        };
        field(b"bursar audit row 1");
        field(entry.tenant_id.to_string().as_bytes());
        field(&1_i64.to_be_bytes());
        field(entry.audit_id.to_string().as_bytes());
        field(&1_780_000_000_000_009_i64.to_be_bytes());
        for text in ["machine", "key", "192.0.2.1", "integration.create", "integration", "target"] {
            field(text.as_bytes());
        }
        field(b"request");
        field(br#"{"name":"a"}"#);
        field(&[0; 32]);
        let link = entry.link;
        assert_eq!(link.hash, *blake3::hash(&bytes).as_bytes());
        // A new encoding would invalidate the stored hashes.
        let text: String = link.hash.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(text, "4222bcd49e4c4afd4ca0c2f667d4628e2a5cebca2ab1dafcecf9bf3a909bf49b");
    }

    #[test]
    fn an_absent_field_hashes_differently_from_an_empty_one() {
        let (entry, _) = first(9);
        let with = |address: Option<&str>| {
            let address = address.map(str::to_owned);
            AuditEntry { address, ..entry.clone() }.hash_at(1, &BEFORE_FIRST)
        };
        assert_ne!(with(None), with(Some("")));
    }

    #[test]
    fn a_character_moved_to_the_next_field_changes_the_hash() {
        let (entry, _) = first(9);
        let with = |actor_type: &str, actor_id: &str| {
            let (actor_type, actor_id) = (actor_type.to_owned(), actor_id.to_owned());
            AuditEntry { actor_type, actor_id, ..entry.clone() }.hash_at(1, &BEFORE_FIRST)
        };
        assert_ne!(with("ab", "c"), with("a", "bc"));
    }

    #[test]
    fn only_the_key_seals_a_head() {
        let (_, head) = first(9);
        assert!(head.is_sealed(&AuditKey::new([1; 32])));
        assert!(!head.is_sealed(&AuditKey::new([2; 32])));
        let forged = AuditHead { sequence: 2, ..head };
        assert!(!forged.is_sealed(&AuditKey::new([1; 32])));
    }

    #[test]
    fn a_forged_head_never_becomes_a_genuine_one() {
        let key = AuditKey::new([1; 32]);
        let (_, head) = first(9);
        let forged = AuditHead { hash: [9; 32], ..head };
        let (_, after) = forged.append(&row(10), &key).expect("a number");
        let (_, after) = after.append(&row(11), &key).expect("a number");
        assert_eq!(after.sequence, 3);
        assert!(!after.is_sealed(&key));
    }
}
