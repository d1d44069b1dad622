//! Random chains and whatever can be done to them: it is found.

use bursar_core::{AuditId, Timestamp};
use bursar_testing::fuzzing::{Choices, Effort, Fate, fuzz};

use super::*;
use crate::rows::row::{Actor, AuditRow};

fn key() -> AuditKey {
    AuditKey::new([3; 32])
}

fn tenant(number: i64) -> TenantId {
    TenantId::from_number(number).unwrap()
}

fn row(choices: &mut Choices<'_>, number: i64) -> AuditRow {
    let address = choices.one_in(2).then(|| choices.one_of(&["", "192.0.2.1"]).to_owned());
    AuditRow {
        tenant_id: tenant(1),
        audit_id: AuditId::from_number(number).unwrap(),
        at: Timestamp::from_micros(choices.byte().into()).unwrap(),
        actor: Actor {
            actor_type: choices.one_of(&["founder", "machine"]),
            actor_id: choices.one_of(&["", "a", "ab"]).to_owned(),
            request_id: choices.one_of(&["", "b", "ab"]).to_owned(),
            address,
        },
        action: if number == 1 { "tenant.create" } else { choices.one_of(&["a.create", "a"]) },
        target_type: choices.one_of(&["a", ""]),
        target_id: choices.one_of(&["a", "b"]).to_owned(),
        detail: choices.one_of(&["{}", r#"{"a":1}"#]).to_owned(),
    }
}

/// Two rows or more, and their head.
fn chain(choices: &mut Choices<'_>) -> (Vec<AuditEntry>, AuditHead) {
    let mut head = AuditHead::of_none(tenant(1), &key());
    let mut entries = Vec::new();
    for number in 1..=choices.below(11) as i64 + 2 {
        let (entry, next) = head.follow(&row(choices, number), &key()).unwrap();
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

/// What is done to a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    Edited,
    TakenOut,
    PutIn,
    Moved,
    Cut,
}

const FAULTS: [Fault; 6] =
    [Fault::None, Fault::Edited, Fault::TakenOut, Fault::PutIn, Fault::Moved, Fault::Cut];

/// Changes one thing of a row.
fn edit(choices: &mut Choices<'_>, entry: &mut AuditEntry) {
    let longer = |text: &mut String| text.push('x');
    match choices.below(13) {
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
        10 => entry.link.hash[7] ^= 1,
        11 => entry.link.prev_hash[7] ^= 1,
        _ => entry.link.sequence += 1,
    }
}

fn tamper(choices: &mut Choices<'_>, entries: &mut Vec<AuditEntry>) -> Fault {
    let fault = choices.one_of(&FAULTS);
    let count = entries.len();
    let at = choices.below(count);
    match fault {
        Fault::None => {}
        Fault::Edited => edit(choices, &mut entries[at]),
        Fault::TakenOut => drop(entries.remove(choices.below(count - 1))),
        Fault::PutIn => {
            let mut copy = entries[at].clone();
            copy.audit_id = AuditId::from_number(1_000).unwrap();
            entries.insert(at, copy);
        }
        Fault::Moved => entries.swap(at, (at + 1) % count),
        Fault::Cut => entries.truncate(count - 1),
    }
    fault
}

/// Numbers and hashes the rows anew, as whoever knows the encoding can.
fn hash_anew(entries: &mut [AuditEntry]) {
    let mut prev_hash = [0; 32];
    for (sequence, entry) in (1..).zip(entries) {
        let hash = entry.hash_at(sequence, &prev_hash);
        entry.link = AuditLink { sequence, prev_hash, hash };
        prev_hash = hash;
    }
}

#[track_caller]
fn fate(verified: &AuditVerified, is_touched: bool) -> Fate {
    assert_eq!(verified.differences.count > 0, is_touched, "{:?}", verified.differences.told);
    if is_touched { Fate::Refused } else { Fate::Accepted }
}

#[test]
fn any_fault_of_a_chain_is_found() {
    fuzz(bolero::check!(), Effort::PLAIN, |choices| {
        let (mut entries, head) = chain(choices);
        let fault = tamper(choices, &mut entries);
        fate(&checked(&entries).finish_at(Some(&head), &key()), fault != Fault::None)
    });
}

#[test]
fn any_fault_of_a_file_is_found_but_that_its_end_is_missing() {
    fuzz(bolero::check!(), Effort::PLAIN, |choices| {
        let (mut entries, _) = chain(choices);
        let fault = tamper(choices, &mut entries);
        // Nobody knows how long it was.
        let is_found = fault != Fault::None && fault != Fault::Cut;
        fate(&checked(&entries).finish(), is_found)
    });
}

#[test]
fn a_chain_without_a_head_is_found() {
    fuzz(bolero::check!(), Effort::PLAIN, |choices| {
        let (entries, head) = chain(choices);
        let head = choices.one_in(2).then_some(&head);
        fate(&checked(&entries).finish_at(head, &key()), head.is_none())
    });
}

#[test]
fn any_fault_is_found_though_everything_is_hashed_anew() {
    fuzz(bolero::check!(), Effort::PLAIN, |choices| {
        let (mut entries, head) = chain(choices);
        let before = entries.clone();
        tamper(choices, &mut entries);
        hash_anew(&mut entries);
        // The head too, with the seal that was there.
        let (sequence, hash) = checked(&entries).end().unwrap();
        let forged = AuditHead { sequence, hash, ..head.clone() };
        let is_touched = entries != before;
        fate(&checked(&entries).finish_at(Some(&forged), &key()), is_touched);
        fate(&checked(&entries).finish_at(Some(&head), &key()), is_touched)
    });
}

#[test]
fn the_chain_of_one_tenant_is_none_of_another() {
    let mut check = AuditCheck::new(tenant(2));
    let mut head = AuditHead::of_none(tenant(2), &key());
    let row = AuditRow {
        tenant_id: tenant(1),
        audit_id: AuditId::from_number(1).unwrap(),
        at: Timestamp::MIN,
        actor: Actor {
            actor_type: "founder",
            actor_id: String::new(),
            request_id: String::new(),
            address: None,
        },
        action: "tenant.create",
        target_type: "tenant",
        target_id: String::new(),
        detail: "{}".to_owned(),
    };
    let (entry, next) = head.follow(&row, &key()).unwrap();
    head = next;
    check.take(&entry);
    let verified = check.finish_at(Some(&head), &key());
    assert_eq!(verified.differences.count, 1, "{:?}", verified.differences.told);
}
