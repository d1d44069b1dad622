//! The audit log as a chain: changes around the server are found.

use bursar_core::TenantId;
use bursar_store::{AuditReport, StoreError};

use crate::conformance::subject::Subject;

/// The number of rows of the chain that is tampered with.
const ROWS: u64 = 6;

/// Two tenants, the first of which has a chain of six rows.
async fn chains(subject: &Subject) -> TenantId {
    let tenant_id = subject.tenant().await;
    for name in ["a", "b", "c", "d", "e"] {
        subject.world.clock.advance(1);
        subject.change(tenant_id, move |control| control.rename_tenant(name)).await;
    }
    subject.tenant().await;
    tenant_id
}

/// The report after statements were run around the server; `{t}` in them stands for the tenant.
fn after(subject: &Subject, tenant_id: TenantId, tampered: &str) -> AuditReport {
    let sql = tampered.replace("{t}", &tenant_id.number().to_string());
    subject.world.database.tamper(&sql);
    subject.world.database.verify_audit()
}

#[track_caller]
fn check_found(verified: &AuditReport, tampered: &str, expected: &str) {
    assert!(verified.differences.count > 0, "{tampered}: not found");
    let listed = &verified.differences.listed;
    assert!(listed.iter().any(|sentence| sentence.contains(expected)), "{tampered}: {listed:?}");
}

/// Checks that a change of a chain of six rows is found, and reported in these words.
async fn finds(subject: &Subject, tampered: &str, expected: &str) {
    let tenant_id = chains(subject).await;
    let before = subject.world.database.verify_audit();
    assert_eq!(before.differences.count, 0, "{:?}", before.differences.listed);
    check_found(&after(subject, tenant_id, tampered), tampered, expected);
}

pub(crate) async fn an_unchanged_chain_has_no_differences(subject: Subject) {
    chains(&subject).await;
    let verified = subject.world.database.verify_audit();
    assert_eq!((verified.tenants, verified.rows), (2, ROWS + 1));
    assert_eq!(verified.differences.count, 0, "{:?}", verified.differences.listed);
}

pub(crate) async fn an_edited_column_is_found(subject: Subject) {
    let tenant_id = subject.tenant().await;
    for number in 0..40 {
        let name = format!("name {number}");
        subject.change(tenant_id, move |control| control.rename_tenant(&name)).await;
    }
    let mut differences = 0;
    for (number, (column, other)) in [
        ("at", "at + 1"),
        ("actor_type", "'machine'"),
        ("actor_id", "'somebody'"),
        ("address", "'198.51.100.9'"),
        ("address", "null"),
        ("action", "'tenant.suspend'"),
        ("target_type", "'integration'"),
        ("target_id", "'other'"),
        ("request_id", "'other'"),
        ("detail", "'{}'"),
        ("detail", "detail || ' '"),
        ("audit_id", "audit_id - 1000000"),
        ("audit_id", "-1"),
        ("prev_hash", "hash"),
        ("hash", "prev_hash"),
        ("sequence", "1000"),
        ("sequence", "-1"),
    ]
    .into_iter()
    .enumerate()
    {
        // The edits accumulate, so each must add a difference.
        let sequence = 2 * number + 2;
        let edit = format!(
            "update audit set {column} = {other} where tenant_id = {{t}} and sequence = {sequence}"
        );
        let verified = after(&subject, tenant_id, &edit);
        assert!(
            verified.differences.count > differences,
            "{edit}: {:?}",
            verified.differences.listed
        );
        differences = verified.differences.count;
    }
}

pub(crate) async fn a_removed_row_is_found(subject: Subject) {
    finds(
        &subject,
        "delete from audit where tenant_id = {t} and sequence in (2, 3)",
        "rows 2 to 3 are missing",
    )
    .await;
}

pub(crate) async fn a_truncated_chain_is_found(subject: Subject) {
    let tenant_id = chains(&subject).await;
    let cut = "delete from audit where tenant_id = {t} and sequence = 6";
    check_found(&after(&subject, tenant_id, cut), cut, "row 6 is missing at the end");
    let head = "update audit_heads set sequence = 5, hash = (select hash from audit \
         where tenant_id = {t} and sequence = 5) where tenant_id = {t}";
    let verified = after(&subject, tenant_id, head);
    check_found(&verified, head, "the head was not sealed");
    assert_eq!(verified.differences.count, 1, "{:?}", verified.differences.listed);
}

pub(crate) async fn swapped_rows_are_found(subject: Subject) {
    finds(
        &subject,
        "update audit set sequence = -3 where tenant_id = {t} and sequence = 3; \
         update audit set sequence = 3 where tenant_id = {t} and sequence = 4; \
         update audit set sequence = 4 where tenant_id = {t} and sequence = -3",
        "is not as it was written",
    )
    .await;
}

pub(crate) async fn an_inserted_row_is_found(subject: Subject) {
    finds(
        &subject,
        "insert into audit (audit_id, tenant_id, at, actor_type, actor_id, action, target_type, \
         target_id, request_id, detail, sequence, prev_hash, hash) \
         select audit_id + 1000000, tenant_id, at, actor_type, actor_id, action, target_type, \
         target_id, request_id, detail, 7, hash, hash from audit \
         where tenant_id = {t} and sequence = 6",
        "the head is at row 6, before row 7",
    )
    .await;
}

pub(crate) async fn a_forged_head_is_found(subject: Subject) {
    let tenant_id = chains(&subject).await;
    for (tampered, expected) in [
        ("update audit_heads set seal = hash where tenant_id = {t}", "not sealed"),
        ("update audit_heads set sequence = 7 where tenant_id = {t}", "row 7 is missing"),
        ("update audit_heads set sequence = 5 where tenant_id = {t}", "is at row 5"),
        (
            "update audit_heads set sequence = 6, hash = (select hash from audit \
             where tenant_id = {t} and sequence = 5) where tenant_id = {t}",
            "is not the one that the head names",
        ),
        ("delete from audit_heads where tenant_id = {t}", "the chain has no head"),
    ] {
        check_found(&after(&subject, tenant_id, tampered), tampered, expected);
    }
}

pub(crate) async fn a_chain_rewritten_without_the_key_is_found(subject: Subject) {
    let tenant_id = chains(&subject).await;
    let database = &subject.world.database;
    let mut prev_hash = [0; 32];
    for mut entry in subject.world.store.audit_chain(tenant_id, None, 50).await.unwrap() {
        let sequence = entry.link.sequence;
        entry.actor_id = "somebody".to_owned();
        let hash = entry.hash_at(sequence, &prev_hash);
        database.tamper(&format!(
            "update audit set actor_id = 'somebody', prev_hash = {}, hash = {} \
             where tenant_id = {} and sequence = {sequence}",
            database.literal(&prev_hash),
            database.literal(&hash),
            tenant_id.number(),
        ));
        prev_hash = hash;
    }
    let head = format!(
        "update audit_heads set hash = {} where tenant_id = {{t}}",
        database.literal(&prev_hash)
    );
    let verified = after(&subject, tenant_id, &head);
    check_found(&verified, &head, "the head was not sealed with this secret key");
    assert_eq!(verified.differences.count, 1, "{:?}", verified.differences.listed);
}

pub(crate) async fn a_deleted_log_is_found(subject: Subject) {
    finds(
        &subject,
        "delete from audit where tenant_id = {t}; delete from audit_heads where tenant_id = {t}",
        "does not begin with the tenant's creation",
    )
    .await;
}

pub(crate) async fn a_forged_head_is_not_made_genuine_by_the_next_change(subject: Subject) {
    let tenant_id = chains(&subject).await;
    let cut = "delete from audit where tenant_id = {t} and sequence = 6; \
         update audit_heads set sequence = 5, hash = (select hash from audit \
         where tenant_id = {t} and sequence = 5) where tenant_id = {t}";
    after(&subject, tenant_id, cut);
    for name in ["f", "g"] {
        subject.change(tenant_id, move |control| control.rename_tenant(name)).await;
    }
    let verified = subject.world.database.verify_audit();
    check_found(&verified, cut, "the head was not sealed with this secret key");
    assert_eq!(
        (verified.rows, verified.differences.count),
        (ROWS + 2, 1),
        "{:?}",
        verified.differences.listed
    );
}

pub(crate) async fn a_taken_sequence_number_is_not_written_again(subject: Subject) {
    let tenant_id = chains(&subject).await;
    after(&subject, tenant_id, "delete from audit_heads where tenant_id = {t}");
    let refused = subject.world.control(tenant_id, |control| control.rename_tenant("f")).await;
    assert!(matches!(refused, Err(StoreError::Corrupt(_))), "{refused:?}");
    let tenant = subject.world.store.tenant(tenant_id).await.unwrap().unwrap();
    assert_eq!(tenant.name, "e");
}
