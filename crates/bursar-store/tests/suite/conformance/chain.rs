//! The audit log as a chain: whatever is done to it behind the server's back is found.

use bursar_core::TenantId;
use bursar_store::{AuditVerified, StoreError};

use crate::conformance::subject::Subject;

/// Rows of the chain of the tenant that is tampered with.
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

/// What is found after statements that were run behind the back of the server; `{t}` in them stands
/// for the tenant.
fn after(subject: &Subject, tenant_id: TenantId, tampered: &str) -> AuditVerified {
    let sql = tampered.replace("{t}", &tenant_id.number().to_string());
    subject.world.home.tamper(&sql);
    subject.world.home.verify_audit()
}

#[track_caller]
fn check_found(verified: &AuditVerified, tampered: &str, expected: &str) {
    assert!(verified.differences.count > 0, "{tampered}: not found");
    let told = verified.differences.told.iter().any(|sentence| sentence.contains(expected));
    assert!(told, "{tampered}: {:?}", verified.differences.told);
}

/// The claim that this is found in a chain of six rows, and told in these words.
async fn finds(subject: &Subject, tampered: &str, expected: &str) {
    let tenant_id = chains(subject).await;
    let before = subject.world.home.verify_audit();
    assert_eq!(before.differences.count, 0, "{:?}", before.differences.told);
    check_found(&after(subject, tenant_id, tampered), tampered, expected);
}

pub(crate) async fn an_untouched_chain_is_whole(subject: Subject) {
    chains(&subject).await;
    let verified = subject.world.home.verify_audit();
    assert_eq!((verified.tenants, verified.rows), (2, ROWS + 1));
    assert_eq!(verified.differences.count, 0, "{:?}", verified.differences.told);
}

pub(crate) async fn a_column_that_was_edited_is_found(subject: Subject) {
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
        // Each leaves a difference of its own, so that the last ones are found among those before.
        let sequence = 2 * number + 2;
        let edit = format!(
            "update audit set {column} = {other} where tenant_id = {{t}} and sequence = {sequence}"
        );
        let verified = after(&subject, tenant_id, &edit);
        assert!(
            verified.differences.count > differences,
            "{edit}: {:?}",
            verified.differences.told
        );
        differences = verified.differences.count;
    }
}

pub(crate) async fn a_row_that_was_taken_out_is_found(subject: Subject) {
    finds(
        &subject,
        "delete from audit where tenant_id = {t} and sequence in (2, 3)",
        "rows 2 to 3 are missing",
    )
    .await;
}

pub(crate) async fn an_end_that_was_cut_off_is_found(subject: Subject) {
    let tenant_id = chains(&subject).await;
    let cut = "delete from audit where tenant_id = {t} and sequence = 6";
    check_found(&after(&subject, tenant_id, cut), cut, "row 6 is missing at the end");
    let head = "update audit_heads set sequence = 5, hash = (select hash from audit \
         where tenant_id = {t} and sequence = 5) where tenant_id = {t}";
    let verified = after(&subject, tenant_id, head);
    check_found(&verified, head, "the head was not sealed");
    assert_eq!(verified.differences.count, 1, "{:?}", verified.differences.told);
}

pub(crate) async fn rows_that_changed_places_are_found(subject: Subject) {
    finds(
        &subject,
        "update audit set sequence = -3 where tenant_id = {t} and sequence = 3; \
         update audit set sequence = 3 where tenant_id = {t} and sequence = 4; \
         update audit set sequence = 4 where tenant_id = {t} and sequence = -3",
        "is not as it was written",
    )
    .await;
}

pub(crate) async fn a_row_that_was_put_in_is_found(subject: Subject) {
    finds(
        &subject,
        "insert into audit (audit_id, tenant_id, at, actor_type, actor_id, action, target_type, \
         target_id, request_id, detail, sequence, prev_hash, hash) \
         select audit_id + 1000000, tenant_id, at, actor_type, actor_id, action, target_type, \
         target_id, request_id, detail, 7, hash, hash from audit \
         where tenant_id = {t} and sequence = 6",
        "the head stands at row 6, before row 7",
    )
    .await;
}

pub(crate) async fn a_forged_head_is_found(subject: Subject) {
    let tenant_id = chains(&subject).await;
    for (tampered, expected) in [
        ("update audit_heads set seal = hash where tenant_id = {t}", "not sealed"),
        ("update audit_heads set sequence = 7 where tenant_id = {t}", "row 7 is missing"),
        ("update audit_heads set sequence = 5 where tenant_id = {t}", "stands at row 5"),
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

pub(crate) async fn a_chain_written_anew_without_the_key_is_found(subject: Subject) {
    let tenant_id = chains(&subject).await;
    let home = &subject.world.home;
    let mut prev_hash = [0; 32];
    for mut entry in subject.world.store.audit_chain(tenant_id, None, 50).await.unwrap() {
        let sequence = entry.link.sequence;
        entry.actor_id = "somebody".to_owned();
        let hash = entry.hash_at(sequence, &prev_hash);
        home.tamper(&format!(
            "update audit set actor_id = 'somebody', prev_hash = {}, hash = {} \
             where tenant_id = {} and sequence = {sequence}",
            home.literal(&prev_hash),
            home.literal(&hash),
            tenant_id.number(),
        ));
        prev_hash = hash;
    }
    let head = format!(
        "update audit_heads set hash = {} where tenant_id = {{t}}",
        home.literal(&prev_hash)
    );
    let verified = after(&subject, tenant_id, &head);
    check_found(&verified, &head, "the head was not sealed with this secret key");
    assert_eq!(verified.differences.count, 1, "{:?}", verified.differences.told);
}

pub(crate) async fn a_log_that_was_emptied_is_found(subject: Subject) {
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
    let verified = subject.world.home.verify_audit();
    check_found(&verified, cut, "the head was not sealed with this secret key");
    assert_eq!(
        (verified.rows, verified.differences.count),
        (ROWS + 2, 1),
        "{:?}",
        verified.differences.told
    );
}

pub(crate) async fn a_row_is_not_written_where_one_stands_already(subject: Subject) {
    let tenant_id = chains(&subject).await;
    after(&subject, tenant_id, "delete from audit_heads where tenant_id = {t}");
    let refused = subject.world.control(tenant_id, |control| control.rename_tenant("f")).await;
    assert!(matches!(refused, Err(StoreError::Corrupt(_))), "{refused:?}");
    let tenant = subject.world.store.tenant(tenant_id).await.unwrap().unwrap();
    assert_eq!(tenant.name, "e");
}
