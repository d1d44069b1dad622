//! The audit log: one row for each change, in the transaction of the change.

use std::collections::BTreeSet;

use bursar_core::TenantId;
use bursar_store::{
    AuditEntry, AuditFilter, AuditPosition, Control, ControlRefusal, ControlTx, IntegrationEdit,
    IntegrationFilter, KeyDraft, StoreError,
};

use crate::conformance::subject::{ALL, Subject, unlimited};
use crate::support::{actor, draft};

/// The limit on the rows that one page scans.
const SCANNED_MAX: i64 = 10_000;

pub(crate) async fn every_change_is_audited_once(subject: Subject) {
    let (tenant_id, integration_id) = subject.account(unlimited()).await;
    let api_key = subject.change(tenant_id, |control| {
        control.create_key(KeyDraft::api("key", "*", None), |_| [1; 32])
    });
    let api_key_id = api_key.await.key_id;
    let key = subject.change(tenant_id, move |control| {
        control.create_key(KeyDraft::integration(integration_id, None, None), |_| [2; 32])
    });
    let key_id = key.await.key_id;
    let rotated = [api_key_id.to_string(), key_id.to_string()];
    let api_key_id = subject
        .change(tenant_id, move |control| control.rotate_key(None, api_key_id, 1, |_| [3; 32]))
        .await
        .key_id;
    let key_id = subject
        .change(tenant_id, move |control| {
            control.rotate_key(Some(integration_id), key_id, 1, |_| [4; 32])
        })
        .await
        .key_id;
    let edit = IntegrationEdit { rate_limit_rpm: Some(1), ..IntegrationEdit::default() };
    subject
        .change(tenant_id, move |control| control.update_integration(integration_id, edit.clone()))
        .await;
    // The second run changes nothing, and is not audited.
    for _ in 0..2 {
        subject.change(tenant_id, move |control| control.revoke_key(None, api_key_id)).await;
        subject
            .change(tenant_id, move |control| control.revoke_key(Some(integration_id), key_id))
            .await;
        subject.change(tenant_id, move |control| control.disable_integration(integration_id)).await;
    }
    subject.change(tenant_id, move |control| control.delete_integration(integration_id)).await;

    let (integration, operator) = (integration_id.to_string(), actor().actor_id);
    let expected = [
        ("tenant.create", tenant_id.to_string()),
        ("integration.create", integration.clone()),
        ("integration.enable", integration.clone()),
        ("tenant.onboarding", tenant_id.to_string()),
        ("api_key.create", rotated[0].clone()),
        ("integration_key.create", rotated[1].clone()),
        ("api_key.rotate", rotated[0].clone()),
        ("integration_key.rotate", rotated[1].clone()),
        ("integration.update", integration.clone()),
        ("api_key.revoke", api_key_id.to_string()),
        ("integration_key.revoke", key_id.to_string()),
        ("integration.disable", integration.clone()),
        ("integration.delete", integration),
    ];
    let expected = expected.map(|(action, target)| [action.to_owned(), target, operator.clone()]);
    assert_eq!(subject.audit(), expected);
}

pub(crate) async fn a_failed_change_stores_neither_its_row_nor_its_audit_row(subject: Subject) {
    let tenant_id = subject.tenant().await;
    let before = subject.audit();
    let change = move |tx: &mut dyn ControlTx| {
        let made = Control::new(tx, &actor(), tenant_id)
            .create_integration(draft("integration", unlimited()))?;
        assert!(made.is_ok());
        Err::<(), StoreError>(StoreError::Corrupt("after everything was written".to_owned()))
    };
    let failed = subject.world.ledger.change(tenant_id, change).await;
    assert!(matches!(failed, Err(StoreError::Corrupt(_))));
    let filter = IntegrationFilter::default();
    let listed = subject.world.store.integrations(tenant_id, filter, ALL).await.unwrap();
    assert_eq!(listed.total, 0);
    assert_eq!(subject.audit(), before);
}

pub(crate) async fn a_refused_change_is_not_audited(subject: Subject) {
    let tenant_id = subject.tenant().await;
    subject.world.integration(tenant_id, "taken", unlimited()).await;
    let before = subject.audit();
    let refused = subject
        .world
        .control(tenant_id, |control| control.create_integration(draft("taken", unlimited())));
    assert_eq!(refused.await.unwrap(), Err(ControlRefusal::NameTaken));
    assert_eq!(subject.audit(), before);
}

/// A tenant with an integration that was created and disabled, one change per second.
async fn three_rows(subject: &Subject) -> TenantId {
    let tenant_id = subject.tenant().await;
    subject.world.clock.advance(1);
    let draft = draft("integration", unlimited());
    let made =
        subject.change(tenant_id, move |control| control.create_integration(draft.clone())).await;
    subject.world.clock.advance(1);
    subject
        .change(tenant_id, move |control| control.disable_integration(made.integration_id))
        .await;
    tenant_id
}

/// The rows that match a filter, read in pages of `limit` rows, and the number of pages.
async fn listed(
    subject: &Subject,
    tenant_id: TenantId,
    filter: &AuditFilter,
    limit: u32,
) -> (Vec<AuditEntry>, usize) {
    let (mut rows, mut after, mut pages) = (Vec::new(), None::<AuditPosition>, 0);
    loop {
        let filter = AuditFilter { after, ..filter.clone() };
        let page = subject.world.store.audit(tenant_id, filter, limit).await.unwrap();
        assert!(page.rows.len() <= limit as usize);
        rows.extend(page.rows);
        pages += 1;
        if page.next.is_none() {
            return (rows, pages);
        }
        assert!(after != page.next, "the next page is the same page");
        after = page.next;
    }
}

fn actions(rows: &[AuditEntry]) -> Vec<&str> {
    rows.iter().map(|row| row.action.as_str()).collect()
}

pub(crate) async fn an_audit_row_is_read_back_field_by_field(subject: Subject) {
    let start = subject.world.clock.now();
    let tenant_id = three_rows(&subject).await;
    let page = subject.world.store.audit(tenant_id, AuditFilter::default(), 1).await.unwrap();
    let [row] = page.rows.as_slice() else { unreachable!("{page:?}") };
    let actor = actor();
    assert_eq!(row.tenant_id, tenant_id);
    assert_eq!(row.at, start.plus_seconds(2));
    assert_eq!(row.actor_type, actor.actor_type);
    assert_eq!(row.actor_id, actor.actor_id);
    assert_eq!(row.address, actor.address);
    assert_eq!(row.request_id, actor.request_id);
    assert_eq!(
        (row.action.as_str(), row.target_type.as_str()),
        ("integration.disable", "integration")
    );
    assert_eq!(row.detail, r#"{"from":"created","to":"disabled"}"#);
    let link = row.link;
    assert_eq!(link.sequence, 3);
    assert_eq!(link.hash, row.hash_at(3, &link.prev_hash));
    let after = page.next.unwrap();
    let filter = AuditFilter { after: Some(after), ..AuditFilter::default() };
    let before = subject.world.store.audit(tenant_id, filter, 1).await.unwrap();
    assert_eq!(before.rows[0].link.hash, link.prev_hash);
}

pub(crate) async fn the_audit_log_is_listed_newest_first_page_by_page(subject: Subject) {
    let tenant_id = three_rows(&subject).await;
    for limit in [1, 2, 3, 50] {
        let (rows, _) = listed(&subject, tenant_id, &AuditFilter::default(), limit).await;
        assert_eq!(
            actions(&rows),
            ["integration.disable", "integration.create", "tenant.create"],
            "{limit}"
        );
    }
}

pub(crate) async fn the_chain_is_read_in_order_page_by_page(subject: Subject) {
    let tenant_id = three_rows(&subject).await;
    let store = &subject.world.store;
    let whole = store.audit_chain(tenant_id, None, 50).await.unwrap();
    let sequences: Vec<_> = whole.iter().map(|row| row.link.sequence).collect();
    assert_eq!(sequences, [1, 2, 3]);
    for limit in [1, 2, 3, 4] {
        let (mut rows, mut after) = (Vec::new(), None);
        loop {
            let page = store.audit_chain(tenant_id, after, limit).await.unwrap();
            let is_last = page.len() < limit as usize;
            rows.extend(page);
            after = rows.last().map(|row: &AuditEntry| row.link.sequence);
            if is_last {
                break;
            }
        }
        assert_eq!(rows, whole, "{limit}");
    }
}

pub(crate) async fn each_filter_of_the_audit_log_returns_matching_rows(subject: Subject) {
    let start = subject.world.clock.now();
    let tenant_id = three_rows(&subject).await;
    let text = |text: &str| Some(text.to_owned());
    let any = AuditFilter::default;
    let (all, _) = listed(&subject, tenant_id, &any(), 50).await;
    let (disable, create, tenant) = ("integration.disable", "integration.create", "tenant.create");
    let integration = Some(all[0].target_id.clone());
    let at = |seconds: u32| Some(start.plus_seconds(seconds));
    for (filter, expected) in [
        (AuditFilter { actor_id: text("operator"), ..any() }, vec![disable, create, tenant]),
        (AuditFilter { actor_id: text("unknown"), ..any() }, vec![]),
        (AuditFilter { action: text(create), ..any() }, vec![create]),
        (AuditFilter { target_type: text("integration"), ..any() }, vec![disable, create]),
        (AuditFilter { target_id: integration.clone(), ..any() }, vec![disable, create]),
        (
            AuditFilter { target_id: integration.clone(), action: text(disable), ..any() },
            vec![disable],
        ),
        (AuditFilter { target_id: integration, target_type: text("tenant"), ..any() }, vec![]),
        (AuditFilter { start: at(1), ..any() }, vec![disable, create]),
        (AuditFilter { end: at(1), ..any() }, vec![tenant]),
        (AuditFilter { start: at(1), end: at(2), ..any() }, vec![create]),
        (AuditFilter { actor_id: text("operator"), start: at(2), ..any() }, vec![disable]),
    ] {
        for limit in [1, 50] {
            let (rows, _) = listed(&subject, tenant_id, &filter, limit).await;
            assert_eq!(actions(&rows), expected, "{filter:?} by {limit}");
        }
    }
}

pub(crate) async fn audit_filters_that_rarely_match_find_every_match(subject: Subject) {
    let tenant_id = three_rows(&subject).await;
    // Older rows, of which two have a rare action.
    let zeros = subject.world.database.literal(&[0; 32]);
    subject.world.database.tamper(&format!(
        "insert into audit (audit_id, tenant_id, at, actor_type, actor_id, action, target_type, \
         target_id, request_id, detail, sequence, prev_hash, hash) \
         with recursive numbers (n) as (select 1 union all select n + 1 from numbers \
         where n < {SCANNED_MAX} * 2 + 5) select n, tenant_id, n, 'founder', 'operator', \
         case when n in (1, 9000) then 'rare' else 'common' end, 'a', 'b', 'request', '{{}}', \
         n + 1000, {zeros}, {zeros} from numbers cross join tenants"
    ));
    let (actor_id, target_id) = (Some("operator".to_owned()), Some("b".to_owned()));
    let rare = AuditFilter { action: Some("rare".to_owned()), ..AuditFilter::default() };
    for (filter, pages_min) in [
        (AuditFilter { actor_id, ..rare.clone() }, 3),
        (AuditFilter { target_id, ..rare.clone() }, 3),
        (rare, 1),
    ] {
        let (rows, pages) = listed(&subject, tenant_id, &filter, 50).await;
        let found: Vec<i64> = rows.iter().map(|row| row.audit_id.number()).collect();
        assert_eq!(found, [9_000, 1], "{filter:?}");
        assert_eq!(pages, pages_min, "{filter:?}");
    }
    let (rows, _) = listed(&subject, tenant_id, &AuditFilter::default(), 1_000).await;
    let ids: BTreeSet<_> = rows.iter().map(|row| row.audit_id).collect();
    assert_eq!(ids.len() as i64, SCANNED_MAX * 2 + 5 + 3);
    assert!(rows.is_sorted_by_key(|row| std::cmp::Reverse(row.at)));
}

pub(crate) async fn a_chain_continues_after_a_restart(subject: Subject) {
    let tenant_id = three_rows(&subject).await;
    let subject = subject.reopened().await;
    subject.change(tenant_id, |control| control.rename_tenant("other")).await;
    let verified = subject.world.database.verify_audit();
    assert_eq!(
        (verified.rows, verified.differences.count),
        (4, 0),
        "{:?}",
        verified.differences.listed
    );
}

pub(crate) async fn the_audit_log_of_another_tenant_is_not_read(subject: Subject) {
    three_rows(&subject).await;
    let other = subject.tenant().await;
    let (rows, _) = listed(&subject, other, &AuditFilter::default(), 50).await;
    assert_eq!(actions(&rows), ["tenant.create"]);
    let rows = subject.world.store.audit_chain(other, None, 50).await.unwrap();
    assert_eq!(actions(&rows), ["tenant.create"]);
    assert_eq!(rows[0].link.sequence, 1);
    let unknown = TenantId::from_number(1).unwrap();
    let (rows, _) = listed(&subject, unknown, &AuditFilter::default(), 50).await;
    assert_eq!(rows, []);
}
