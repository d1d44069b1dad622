//! The check finds every fault of random chains.

use bursar_core::{AuditId, Timestamp};
use bursar_testing::fuzzing::{Choices, Effort, Outcome, fuzz};

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

/// A chain of two or more rows, and its head.
fn chain(choices: &mut Choices<'_>) -> (Vec<AuditEntry>, AuditHead) {
    let mut head = AuditHead::empty(tenant(1), &key());
    let mut entries = Vec::new();
    for number in 1..=choices.below(11) as i64 + 2 {
        let (entry, next) = head.append(&row(choices, number), &key()).unwrap();
        entries.push(entry);
        head = next;
    }
    (entries, head)
}

fn checked(entries: &[AuditEntry]) -> AuditCheck {
    let mut check = AuditCheck::new(tenant(1));
    entries.iter().for_each(|entry| check.check(entry));
    check
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    Edited,
    Removed,
    Inserted,
    Moved,
    Truncated,
}

const FAULTS: [Fault; 6] =
    [Fault::None, Fault::Edited, Fault::Removed, Fault::Inserted, Fault::Moved, Fault::Truncated];

/// Changes one field of a row.
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
        Fault::Removed => drop(entries.remove(choices.below(count - 1))),
        Fault::Inserted => {
            let mut copy = entries[at].clone();
            copy.audit_id = AuditId::from_number(1_000).unwrap();
            entries.insert(at, copy);
        }
        Fault::Moved => entries.swap(at, (at + 1) % count),
        Fault::Truncated => entries.truncate(count - 1),
    }
    fault
}

/// Renumbers and rehashes the rows, as an attacker can who knows the encoding.
fn rehash(entries: &mut [AuditEntry]) {
    let mut prev_hash = [0; 32];
    for (sequence, entry) in (1..).zip(entries) {
        let hash = entry.hash_at(sequence, &prev_hash);
        entry.link = AuditLink { sequence, prev_hash, hash };
        prev_hash = hash;
    }
}

#[track_caller]
fn fate(report: &AuditReport, is_faulty: bool) -> Outcome {
    assert_eq!(report.differences.count > 0, is_faulty, "{:?}", report.differences.listed);
    if is_faulty { Outcome::Refused } else { Outcome::Accepted }
}

#[test]
fn every_fault_of_a_chain_is_found() {
    fuzz(bolero::check!(), Effort::PLAIN, |choices| {
        let (mut entries, head) = chain(choices);
        let fault = tamper(choices, &mut entries);
        fate(&checked(&entries).finish_with_head(Some(&head), &key()), fault != Fault::None)
    });
}

#[test]
fn every_fault_of_a_file_is_found_except_a_missing_end() {
    fuzz(bolero::check!(), Effort::PLAIN, |choices| {
        let (mut entries, _) = chain(choices);
        let fault = tamper(choices, &mut entries);
        let is_found = fault != Fault::None && fault != Fault::Truncated;
        fate(&checked(&entries).finish(), is_found)
    });
}

#[test]
fn a_missing_head_is_found() {
    fuzz(bolero::check!(), Effort::PLAIN, |choices| {
        let (entries, head) = chain(choices);
        let head = choices.one_in(2).then_some(&head);
        fate(&checked(&entries).finish_with_head(head, &key()), head.is_none())
    });
}

#[test]
fn every_fault_is_found_even_if_all_rows_are_rehashed() {
    fuzz(bolero::check!(), Effort::PLAIN, |choices| {
        let (mut entries, head) = chain(choices);
        let before = entries.clone();
        tamper(choices, &mut entries);
        rehash(&mut entries);
        // The attacker can also change the head, but not its seal.
        let (sequence, hash) = checked(&entries).last_row().unwrap();
        let forged = AuditHead { sequence, hash, ..head.clone() };
        let is_faulty = entries != before;
        fate(&checked(&entries).finish_with_head(Some(&forged), &key()), is_faulty);
        fate(&checked(&entries).finish_with_head(Some(&head), &key()), is_faulty)
    });
}

#[test]
fn a_row_of_another_tenant_is_found() {
    let mut check = AuditCheck::new(tenant(2));
    let mut head = AuditHead::empty(tenant(2), &key());
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
    let (entry, next) = head.append(&row, &key()).unwrap();
    head = next;
    check.check(&entry);
    let report = check.finish_with_head(Some(&head), &key());
    assert_eq!(report.differences.count, 1, "{:?}", report.differences.listed);
}
