//! The audit log of a tenant as a chain: what is asked of it, what a row's hash covers, and the
//! head that seals it.
//!
//! A row names the hash of the row before it and carries its own, so that no row can be changed,
//! taken out, put in or moved without changing the hashes of all that follow. The hash of the last
//! one stands in the head, one row a tenant, sealed under a key that is not in the database:
//! whoever can write to the database but has not the key can neither write the chain anew nor cut
//! its end. Absent: SQL, and checking what is stored, which is [`crate::AuditCheck`].

use bursar_core::{AuditId, TenantId, Timestamp};
use zeroize::ZeroizeOnDrop;

use crate::error::StoreError;
use crate::rows::columns::Columns;
use crate::rows::row::AuditRow;

/// What the hash of a row begins with: another encoding gets another name.
const ROW_DOMAIN: &str = "bursar audit row 1";
/// What the seal of a head begins with.
const HEAD_DOMAIN: &str = "bursar audit head 1";
/// The length that stands for a field that is not there; no text is so long.
const ABSENT: u32 = u32::MAX;
/// The hash before the first row.
const BEFORE_FIRST: AuditHash = [0; 32];
/// Rows that one page looks at, however few of them match.
pub(crate) const LOOKED_MAX: usize = 10_000;

/// A hash or a seal of the audit log.
pub type AuditHash = [u8; 32];

/// The key that seals the heads. It is derived from the server's secret key and is in no database.
#[derive(Clone, ZeroizeOnDrop)]
pub struct AuditKey([u8; 32]);

impl AuditKey {
    /// Takes 32 bytes that nobody can guess.
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
    /// Where the request came from; nothing when it came from no client.
    pub address: Option<String>,
    pub action: String,
    pub target_type: String,
    pub target_id: String,
    pub request_id: String,
    /// A JSON object of what changed, byte by byte as it was hashed.
    pub detail: String,
    /// Its place in the chain.
    pub link: AuditLink,
}

/// The place of a row in the chain of its tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditLink {
    /// 1, 2, 3 and so on.
    pub sequence: i64,
    /// The hash of the row before; zeros at the first.
    pub prev_hash: AuditHash,
    /// The hash of this row, [`AuditEntry::hash_at`].
    pub hash: AuditHash,
}

impl AuditEntry {
    /// The hash that the row has at this place: BLAKE3 over its fields, one after the other.
    ///
    /// Each field is its length in bytes (32 bits, big endian) and then its bytes; one that is not
    /// there has the length 2^32 - 1 and no bytes. Integers have 8 bytes, big endian. The fields
    /// are the domain, tenant, sequence, id, instant (microseconds since 1970), actor type, actor
    /// id, address, action, target type, target id, request id, detail and `prev_hash`; ids as
    /// they are on the wire.
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

    pub(crate) const fn place(&self) -> AuditPosition {
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

/// The end of a tenant's chain, sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AuditHead {
    pub(crate) tenant_id: TenantId,
    /// The sequence of the last row.
    pub(crate) sequence: i64,
    pub(crate) hash: AuditHash,
    pub(crate) seal: AuditHash,
}

impl AuditHead {
    /// The head of a chain that has no row yet.
    pub(crate) fn of_none(tenant_id: TenantId, key: &AuditKey) -> Self {
        let mut head = Self { tenant_id, sequence: 0, hash: BEFORE_FIRST, seal: BEFORE_FIRST };
        head.seal = head.sealed(key);
        head
    }

    /// Chains a row to it: the row as it is to be stored, and the head after it.
    ///
    /// A head that was not sealed here stays without a seal: what was forged once must not become
    /// genuine by the next change.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when there is no next number.
    pub(crate) fn follow(
        &self,
        row: &AuditRow,
        key: &AuditKey,
    ) -> Result<(AuditEntry, Self), StoreError> {
        let sequence = self.sequence.checked_add(1);
        let sequence =
            sequence.ok_or_else(|| StoreError::Corrupt("the head of an audit log".to_owned()))?;
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
            next.seal = next.sealed(key);
        } else {
            tracing::error!(
                tenant_id = %self.tenant_id,
                "the head of the audit log was not written by this server: run `bursar audit verify`"
            );
        }
        Ok((entry, next))
    }

    /// Whether it was written by someone who has the key.
    pub(crate) fn is_sealed(&self, key: &AuditKey) -> bool {
        // Hashes of this kind are compared in a time that tells nothing about them.
        blake3::Hash::from(self.sealed(key)) == blake3::Hash::from(self.seal)
    }

    fn sealed(&self, key: &AuditKey) -> AuditHash {
        let mut encoder = Encoder(blake3::Hasher::new_keyed(&key.0));
        encoder.text(HEAD_DOMAIN);
        encoder.text(&self.tenant_id.to_string());
        encoder.number(self.sequence);
        encoder.field(Some(&self.hash));
        encoder.hash()
    }
}

/// A place in the audit log, which runs from the newest to the oldest row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditPosition {
    /// The instant of the row.
    pub at: Timestamp,
    /// The row, which orders rows of one instant.
    pub audit_id: AuditId,
}

/// Which rows of the audit log are asked for.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    pub actor_id: Option<String>,
    pub action: Option<String>,
    pub target_type: Option<String>,
    pub target_id: Option<String>,
    /// From this instant on.
    pub start: Option<Timestamp>,
    /// Up to, not including, this instant.
    pub end: Option<Timestamp>,
    /// Only what comes after this place, that is, older rows.
    pub after: Option<AuditPosition>,
}

/// A page of the audit log.
#[derive(Clone, Debug, Default)]
pub struct AuditPage {
    /// The rows, newest first.
    pub rows: Vec<AuditEntry>,
    /// Where the next page begins, if there may be more. A page can have fewer rows than asked for
    /// and still name a next one, when filters that seldom meet made it look at very many rows.
    pub next: Option<AuditPosition>,
}

/// The index that leads from the newest row to the oldest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AuditWay {
    Target,
    Actor,
    Action,
    Time,
}

impl AuditWay {
    /// The most selective one that a filter has.
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

/// Between which instants, and after which row, a page looks; all as they are stored.
pub(crate) struct AuditStretch {
    pub(crate) first_at: i64,
    /// The index begins where the last page ended; the pair below only tells rows of one instant
    /// apart.
    pub(crate) last_at: i64,
    pub(crate) after_at: i64,
    pub(crate) after_id: i64,
}

impl AuditStretch {
    pub(crate) fn of(filter: &AuditFilter) -> Self {
        let end = filter.end.map_or(i64::MAX, |end| end.micros().saturating_sub(1));
        let after = filter.after.map(|place| (place.at.micros(), place.audit_id.number()));
        let (after_at, after_id) = after.unwrap_or((i64::MAX, i64::MAX));
        Self {
            first_at: filter.start.map_or(i64::MIN, Timestamp::micros),
            last_at: end.min(after_at),
            after_at,
            after_id,
        }
    }
}

/// `tenant_id, audit_id, at, actor_type, actor_id, address, action, target_type, target_id,
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

/// The same columns, of which only the place is read.
pub(crate) fn audit_position(row: &impl Columns) -> Result<AuditPosition, StoreError> {
    Ok(AuditPosition { at: row.instant(2)?, audit_id: row.id(1, AuditId::from_number)? })
}

/// `sequence, hash, seal` of a tenant's head.
pub(crate) fn audit_head(tenant_id: TenantId, row: &impl Columns) -> Result<AuditHead, StoreError> {
    Ok(AuditHead { tenant_id, sequence: row.int(0)?, hash: row.bytes(1)?, seal: row.bytes(2)? })
}

/// A page of the audit log in the making.
pub(crate) struct AuditPageMaker {
    rows: Vec<AuditEntry>,
    limit: usize,
    looked: usize,
    end: Option<AuditPosition>,
}

impl AuditPageMaker {
    pub(crate) fn new(limit: u32) -> Self {
        Self { rows: Vec::new(), limit: limit as usize, looked: 0, end: None }
    }

    /// Whether another row may be looked at.
    pub(crate) const fn goes_on(&self) -> bool {
        self.end.is_none()
    }

    /// Looks at the next row, of [`audit_entry`]; `matches` says whether the filter lets it
    /// through.
    pub(crate) fn look(&mut self, row: &impl Columns, matches: bool) -> Result<(), StoreError> {
        self.looked += 1;
        if matches && self.rows.len() == self.limit {
            // One more than asked for: the next page begins after the last one on this.
            self.end = self.rows.last().map(AuditEntry::place);
            return Ok(());
        }
        if matches {
            self.rows.push(audit_entry(row)?);
        }
        if self.looked == LOOKED_MAX {
            self.end = Some(audit_position(row)?);
        }
        Ok(())
    }

    /// Takes note that no row after this one was looked at.
    pub(crate) fn gave_up(&mut self, place: AuditPosition) {
        self.end.get_or_insert(place);
    }

    pub(crate) fn page(self) -> AuditPage {
        AuditPage { rows: self.rows, next: self.end }
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
        AuditHead::of_none(row.tenant_id, &key).follow(&row, &key).expect("a number")
    }

    #[test]
    fn the_encoding_is_the_one_that_is_documented() {
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
        // Written down, so that a change of the encoding is seen: stored hashes would not hold.
        let text: String = link.hash.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(text, "4222bcd49e4c4afd4ca0c2f667d4628e2a5cebca2ab1dafcecf9bf3a909bf49b");
    }

    #[test]
    fn a_missing_field_hashes_differently_from_an_empty_one() {
        let (entry, _) = first(9);
        let with = |address: Option<&str>| {
            let address = address.map(str::to_owned);
            AuditEntry { address, ..entry.clone() }.hash_at(1, &BEFORE_FIRST)
        };
        assert_ne!(with(None), with(Some("")));
    }

    #[test]
    fn a_field_does_not_flow_into_the_next() {
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
        let (_, after) = forged.follow(&row(10), &key).expect("a number");
        let (_, after) = after.follow(&row(11), &key).expect("a number");
        assert_eq!(after.sequence, 3);
        assert!(!after.is_sealed(&key));
    }
}
