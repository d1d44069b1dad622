//! Verification of the stored sums.

use bursar_core::{Label, ReserveRequest, Scope};

use crate::conformance::subject::Subject;
use crate::support::limits::{concurrent, cost, daily, each, limit, put_limits};
use crate::support::{budget, request, usage};

/// One recorded and one reserved call.
async fn two_calls(subject: &Subject) {
    let (tenant_id, integration_id) = subject.account(budget(100)).await;
    subject.record(tenant_id, usage(integration_id, "recorded")).await;
    subject.reserve(tenant_id, request(integration_id, "reserved")).await;
}

/// Checks that verification finds nothing at first, and then each of these changes.
///
/// The changes accumulate, so each must add a difference.
async fn check_found(subject: &Subject, changes: &[&str]) {
    subject.world.verify().await;
    let mut differences = 0;
    for change in changes {
        subject.world.database.tamper(change);
        let verified = subject.world.database.verify();
        assert!(
            verified.differences.count > differences,
            "{change}: {:?}",
            verified.differences.listed
        );
        differences = verified.differences.count;
    }
}

pub(crate) async fn verification_reports_what_it_counted(subject: Subject) {
    two_calls(&subject).await;
    let verified = subject.world.database.verify();
    assert_eq!((verified.entries, verified.open_reservations), (1, 1));
    // The call has one month, one quarter hour and one day by model, and no agent.
    assert_eq!((verified.counters, verified.rollups), (1, 2));
    assert_eq!(verified.differences.count, 0, "{:?}", verified.differences.listed);
}

pub(crate) async fn a_changed_figure_is_found(subject: Subject) {
    two_calls(&subject).await;
    check_found(
        &subject,
        &[
            "update counters set used_tokens = used_tokens + 1",
            "update counters set held_calls = held_calls + 1",
            "update rollups set cost_nanos = cost_nanos + 1 where grain = 2",
            "update rollups set latency_max_ms = latency_max_ms + 1 where grain = 1",
            "update calls set entry_id = null where entry_id is not null",
        ],
    )
    .await;
}

/// The calls of [`two_calls`], and a limit for each model and one of calls at the same time.
async fn two_limited_calls(subject: &Subject) {
    let (tenant_id, integration_id) = subject.account(budget(100)).await;
    let by_model = limit(tenant_id, 1, each(Label::Model), cost(daily(), 100));
    let open = limit(tenant_id, 2, Scope::Tenant, concurrent(5));
    put_limits(&subject.world.ledger, vec![by_model, open]).await;
    subject.record(tenant_id, usage(integration_id, "recorded")).await;
    let request = request(integration_id, "reserved");
    let request = ReserveRequest { model: Some("gpt".into()), ..request };
    subject.reserve(tenant_id, request).await;
}

pub(crate) async fn a_changed_account_of_a_limit_is_found(subject: Subject) {
    two_limited_calls(&subject).await;
    check_found(
        &subject,
        &[
            "update limit_accounts set used_tokens = used_tokens + 1 where limit_id = 1",
            "update limit_accounts set held_cost_nanos = held_cost_nanos + 1 where limit_id = 1",
            "update limit_accounts set held_calls = held_calls + 1 where limit_id = 2",
            "update limit_values set accounts = accounts + 1",
            "update postings set tokens = tokens + 1 where limit_id = 1",
            "delete from postings where limit_id = 2",
        ],
    )
    .await;
}

pub(crate) async fn a_missing_row_is_found(subject: Subject) {
    two_calls(&subject).await;
    check_found(
        &subject,
        &[
            "delete from rollups where grain = 1",
            "delete from rollups where grain = 2",
            "delete from counters",
        ],
    )
    .await;
}

pub(crate) async fn a_changed_entry_is_found(subject: Subject) {
    two_calls(&subject).await;
    subject.world.database.tamper("update usage_entries set tokens_in = tokens_in + 1");
    assert!(subject.world.database.verify().differences.count > 0);
}
