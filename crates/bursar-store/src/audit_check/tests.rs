//! Random chains and whatever can be done to them: it is found.

#[path = "../../tests/support/chance.rs"]
mod chance;

use bursar_core::AuditId;
use chance::Chance;

use super::*;
use crate::row::{Actor, AuditRow};

/// Chains that are made, each with one fault.
const CHAINS: u64 = 2_000;

fn key() -> AuditKey {
    AuditKey::new([3; 32])
}

fn tenant(number: i64) -> TenantId {
    TenantId::from_number(number).unwrap()
}

fn row(chance: &mut Chance, number: i64) -> AuditRow {
    let address = chance.percent(50).then(|| chance.one_of(&["", "192.0.2.1"]).to_owned());
    AuditRow {
        tenant_id: tenant(1),
        audit_id: AuditId::from_number(number).unwrap(),
        at: Timestamp::from_micros(chance.between(0, 3)).unwrap(),
        actor: Actor {
            actor_type: chance.one_of(&["founder", "machine"]),
            actor_id: chance.one_of(&["", "a", "ab"]).to_owned(),
            request_id: chance.one_of(&["", "b", "ab"]).to_owned(),
            address,
        },
        action: if number == 1 { "tenant.create" } else { chance.one_of(&["a.create", "a"]) },
        target_type: chance.one_of(&["a", ""]),
        target_id: chance.one_of(&["a", "b"]).to_owned(),
        detail: chance.one_of(&["{}", r#"{"a":1}"#]).to_owned(),
    }
}

/// Some rows and their head.
fn chain(chance: &mut Chance) -> (Vec<AuditEntry>, AuditHead) {
    let mut head = AuditHead::of_none(tenant(1), &key());
    let mut entries = Vec::new();
    for number in 1..=chance.between(2, 12) {
        let (entry, next) = head.follow(&row(chance, number), &key()).unwrap();
        entries.push(entry);
        head = next;
    }
    (entries, head)
}

fn checked(entries: &[AuditEntry]) -> AuditCheck {
    let mut check = AuditCheck::new(tenant(1));
    entries.iter().for_each(|entry| check.take(entry));
    check
}

/// What was done to a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Edited,
    TakenOut,
    PutIn,
    Moved,
    Cut,
}

const FAULTS: [Fault; 5] = [Fault::Edited, Fault::TakenOut, Fault::PutIn, Fault::Moved, Fault::Cut];

/// Changes one thing of a row.
fn edit(chance: &mut Chance, entry: &mut AuditEntry) {
    let longer = |text: &mut String| text.push('x');
    match chance.between(0, 12) {
        0 => entry.audit_id = AuditId::from_number(entry.audit_id.number() + 100).unwrap(),
        1 => entry.at = entry.at.plus_seconds(1),
        2 => longer(&mut entry.actor_type),
        3 => longer(&mut entry.actor_id),
        4 => {
            entry.address = match &entry.address {
                None => Some(String::new()),
                Some(_) => None,
            };
        }
        5 => longer(&mut entry.action),
        6 => longer(&mut entry.target_type),
        7 => longer(&mut entry.target_id),
        8 => longer(&mut entry.request_id),
        9 => longer(&mut entry.detail),
        10 => entry.link.as_mut().unwrap().hash[7] ^= 1,
        11 => entry.link.as_mut().unwrap().prev_hash[7] ^= 1,
        _ => entry.link = None,
    }
}

fn tamper(chance: &mut Chance, entries: &mut Vec<AuditEntry>, fault: Fault) {
    let last = entries.len() as i64 - 1;
    let at = chance.between(0, last) as usize;
    match fault {
        Fault::Edited => edit(chance, &mut entries[at]),
        Fault::TakenOut => {
            entries.remove(chance.between(0, last - 1) as usize);
        }
        Fault::PutIn => {
            let mut copy = entries[at].clone();
            copy.audit_id = AuditId::from_number(1_000).unwrap();
            entries.insert(at, copy);
        }
        Fault::Moved => entries.swap(at, (at + 1) % (last as usize + 1)),
        Fault::Cut => entries.truncate(last as usize),
    }
}

/// Numbers and hashes the rows anew, as whoever knows the encoding can.
fn hash_anew(entries: &mut [AuditEntry]) {
    let mut prev_hash = [0; 32];
    for (number, entry) in entries.iter_mut().enumerate() {
        let sequence = number as i64 + 1;
        let hash = entry.hash_at(sequence, &prev_hash);
        entry.link = Some(AuditLink { sequence, prev_hash, hash });
        prev_hash = hash;
    }
}

#[test]
fn a_chain_as_it_was_written_is_whole() {
    for seed in 0..CHAINS {
        let (entries, head) = chain(&mut Chance::new(seed));
        let verified = checked(&entries).finish_at(Some(&head), &key());
        assert_eq!(verified.told, Vec::<String>::new(), "{seed}");
        assert_eq!(verified.rows, entries.len() as u64);
    }
}

#[test]
fn any_fault_of_a_chain_is_found() {
    for seed in 0..CHAINS {
        let mut chance = Chance::new(seed);
        let (mut entries, head) = chain(&mut chance);
        let fault = chance.one_of(&FAULTS);
        tamper(&mut chance, &mut entries, fault);
        let check = checked(&entries);
        let in_a_file = checked(&entries).finish();
        // Without the head nobody knows how long the chain was.
        assert!(in_a_file.differences > 0 || is_cut(fault, &entries, &head), "{seed}: {fault:?}");
        let verified = check.finish_at(Some(&head), &key());
        assert!(verified.differences > 0, "{seed}: {fault:?}");
    }
}

/// Whether only rows at the end are no longer in the chain.
fn is_cut(fault: Fault, entries: &[AuditEntry], head: &AuditHead) -> bool {
    let is_last_out = entries.last().is_some_and(|last| last.link.is_none());
    fault == Fault::Cut || (fault == Fault::Edited && is_last_out && head.sequence > 1)
}

#[test]
fn any_fault_is_found_though_everything_is_hashed_anew() {
    for seed in 0..CHAINS {
        let mut chance = Chance::new(seed);
        let (mut entries, head) = chain(&mut chance);
        let fault = chance.one_of(&FAULTS);
        let before = entries.clone();
        tamper(&mut chance, &mut entries, fault);
        hash_anew(&mut entries);
        if entries == before {
            // A hash or a link that was edited is what it was.
            continue;
        }
        // The head is written anew too, with the seal that was there.
        let (sequence, hash) = checked(&entries).end().unwrap();
        let forged = AuditHead { sequence, hash, ..head.clone() };
        for head in [head, forged] {
            let verified = checked(&entries).finish_at(Some(&head), &key());
            assert!(verified.differences > 0, "{seed}: {fault:?}");
        }
    }
}

#[test]
fn the_chain_of_one_tenant_is_none_of_another() {
    let (entries, head) = chain(&mut Chance::new(1));
    let mut check = AuditCheck::new(tenant(2));
    entries.iter().for_each(|entry| check.take(entry));
    assert!(check.finish_at(Some(&head), &key()).differences > 0);
}
