//! Verification of the stored sums.

use crate::conformance::subject::Subject;
use crate::support::{budget, request, usage};

/// One recorded and one reserved call.
async fn two_calls(subject: &Subject) {
    let (tenant_id, integration_id) = subject.account(budget(100)).await;
    subject.record(tenant_id, usage(integration_id, "recorded")).await;
    subject.reserve(tenant_id, request(integration_id, "reserved")).await;
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
    subject.world.verify().await;
    // The changes accumulate, so each must add a difference.
    let mut differences = 0;
    for tampered in [
        "update counters set used_tokens = used_tokens + 1",
        "update counters set held_calls = held_calls + 1",
        "update rollups set cost_nanos = cost_nanos + 1 where grain = 2",
        "update rollups set latency_max_ms = latency_max_ms + 1 where grain = 1",
        "update calls set entry_id = null where entry_id is not null",
    ] {
        subject.world.database.tamper(tampered);
        let verified = subject.world.database.verify();
        assert!(
            verified.differences.count > differences,
            "{tampered}: {:?}",
            verified.differences.listed
        );
        differences = verified.differences.count;
    }
}

pub(crate) async fn a_missing_row_is_found(subject: Subject) {
    two_calls(&subject).await;
    subject.world.verify().await;
    let mut differences = 0;
    for tampered in [
        "delete from rollups where grain = 1",
        "delete from rollups where grain = 2",
        "delete from counters",
    ] {
        subject.world.database.tamper(tampered);
        let verified = subject.world.database.verify();
        assert!(
            verified.differences.count >= differences.max(1),
            "{tampered}: {:?}",
            verified.differences.listed
        );
        differences = verified.differences.count;
    }
}

pub(crate) async fn a_changed_entry_is_found(subject: Subject) {
    two_calls(&subject).await;
    subject.world.database.tamper("update usage_entries set tokens_in = tokens_in + 1");
    assert!(subject.world.database.verify().differences.count > 0);
}
