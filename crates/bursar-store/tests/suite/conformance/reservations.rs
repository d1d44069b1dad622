//! Reservations: each is held once and ended once.

use bursar_core::{
    CostSource, Decision, Estimate, ExtendOutcome, LimitSettings, Nanos, ReasonCode, RecordMode,
    RecordOutcome, RecordRefusal, ReleaseOutcome, Reservation, ReservationState, ReserveOutcome,
    ReserveRefusal, ReserveRequest, TenantId, TenantLifecycle, Totals, Usage, Verdict,
};
use bursar_store::{Control, ControlTx, IntegrationEdit, Page};

use crate::conformance::subject::{ALL, Subject, totals, unlimited};
use crate::support::group::{CommandFuture, in_one_group};
use crate::support::{budget, call_id, cents, request, usage};

fn held(outcome: ReserveOutcome) -> Reservation {
    assert!(matches!(outcome, ReserveOutcome::Held(_)), "{outcome:?}");
    let ReserveOutcome::Held(reservation) = outcome else { unreachable!("checked above") };
    reservation
}

fn is_accepted(outcome: &RecordOutcome) -> bool {
    matches!(outcome, RecordOutcome::Accepted(_))
}

pub(crate) async fn a_hold_counts_until_its_call_is_recorded(subject: Subject) {
    let account = subject.account(budget(100)).await;
    let (tenant_id, integration_id) = account;
    let now = subject.world.clock.now();
    let requested = ReserveRequest { model: Some("gpt".into()), ..request(integration_id, "call") };
    let reservation = held(subject.reserve(tenant_id, requested.clone()).await);
    assert_eq!(reservation.request, requested);
    assert_eq!(reservation.decision.verdict, Verdict::Allowed);
    assert_eq!((reservation.created_at, reservation.ended_at), (now, None));
    assert_eq!(reservation.expires_at, now.plus_seconds(600));
    assert_eq!(subject.this_month(account).await.held, totals(cents(10), 100, 1));
    let snapshot = subject.account_snapshot(tenant_id, integration_id).await;
    assert_eq!(snapshot.account.counter(now.month()).unwrap().held, totals(cents(10), 100, 1));

    let subject = subject.reopened().await;
    assert_eq!(subject.this_month(account).await.held, totals(cents(10), 100, 1));
    let snapshot = subject.account_snapshot(tenant_id, integration_id).await;
    assert_eq!(snapshot.account.counter(now.month()).unwrap().held, totals(cents(10), 100, 1));
    let open = subject.world.store.open_reservations(tenant_id, None, ALL).await.unwrap();
    assert_eq!(open.rows[0].reservation, reservation);

    assert!(is_accepted(&subject.record(tenant_id, usage(integration_id, "call")).await));
    let counter = subject.this_month(account).await;
    assert_eq!((counter.used, counter.held), (totals(cents(1), 30, 1), Totals::default()));
    let open = subject.world.store.open_reservations(tenant_id, None, ALL).await.unwrap();
    assert_eq!(open.total, 0);
    assert_eq!(subject.release(tenant_id, "call").await, ReleaseOutcome::Settled);
    subject.world.verify().await;
    subject.reopened().await.world.verify().await;
}

pub(crate) async fn a_release_ends_the_hold_once(subject: Subject) {
    let account = subject.account(budget(10)).await;
    let (tenant_id, integration_id) = account;
    held(subject.reserve(tenant_id, request(integration_id, "call")).await);
    let full = subject.reserve(tenant_id, request(integration_id, "second")).await;
    assert!(matches!(full, ReserveOutcome::Refused(_)), "{full:?}");
    assert_eq!(subject.release(tenant_id, "unknown").await, ReleaseOutcome::NotFound);

    let now = subject.world.clock.now();
    let first = subject.release(tenant_id, "call").await;
    let ReleaseOutcome::Released(reservation) = &first else { unreachable!("{first:?}") };
    assert_eq!(reservation.state, ReservationState::Released);
    assert_eq!(reservation.ended_at, Some(now));
    assert_eq!(subject.this_month(account).await.held, Totals::default());
    subject.world.clock.advance(5);
    let subject = subject.reopened().await;
    assert_eq!(subject.release(tenant_id, "call").await, first);
    assert_eq!(subject.this_month(account).await.held, Totals::default());
    held(subject.reserve(tenant_id, request(integration_id, "second")).await);
    subject.world.verify().await;
}

pub(crate) async fn only_an_open_hold_is_extended(subject: Subject) {
    let (tenant_id, integration_id) = subject.account(unlimited()).await;
    let now = subject.world.clock.now();
    for call in ["call", "released", "settled"] {
        held(subject.reserve(tenant_id, request(integration_id, call)).await);
    }
    subject.release(tenant_id, "released").await;
    subject.record(tenant_id, usage(integration_id, "settled")).await;
    subject.world.clock.advance(60);

    let shorter = subject.extend(tenant_id, "call", Some(1)).await;
    let ExtendOutcome::Extended(reservation) = shorter else { unreachable!("{shorter:?}") };
    assert_eq!(reservation.expires_at, now.plus_seconds(600), "time that was promised stays");
    let longer = subject.extend(tenant_id, "call", None).await;
    let ExtendOutcome::Extended(reservation) = longer else { unreachable!("{longer:?}") };
    assert_eq!(reservation.expires_at, now.plus_seconds(660));
    let subject = subject.reopened().await;
    let open = subject.world.store.open_reservations(tenant_id, None, ALL).await.unwrap();
    assert_eq!(open.rows[0].reservation, *reservation);

    let ended = |state| ExtendOutcome::Ended(state);
    let extended = subject.extend(tenant_id, "released", None).await;
    assert_eq!(extended, ended(ReservationState::Released));
    let extended = subject.extend(tenant_id, "settled", None).await;
    assert_eq!(extended, ended(ReservationState::Settled));
    assert_eq!(subject.extend(tenant_id, "unknown", None).await, ExtendOutcome::NotFound);
    subject.world.clock.advance(600);
    let extended = subject.extend(tenant_id, "call", None).await;
    assert_eq!(extended, ended(ReservationState::Expired));
    subject.world.verify().await;
}

pub(crate) async fn the_first_outcome_is_replayed_even_after_a_restart(subject: Subject) {
    let limits = LimitSettings { token_limit_month: 110, ..budget(10) };
    let (tenant_id, integration_id) = subject.account(limits).await;
    let first = held(subject.reserve(tenant_id, request(integration_id, "call")).await);
    assert_eq!(first.decision.verdict, Verdict::Warned);
    assert_eq!(first.decision.reasons.len(), 2, "budget and tokens are both nearly used up");
    let replayed = ReserveOutcome::Replayed(first);
    assert_eq!(subject.reserve(tenant_id, request(integration_id, "call")).await, replayed);

    // A change of the limits does not change the replayed decision.
    let edit = IntegrationEdit { budget_limit_cents: Some(1), ..IntegrationEdit::default() };
    let edit =
        move |control: &mut Control<'_>| control.update_integration(integration_id, edit.clone());
    subject.change(tenant_id, edit).await;
    let subject = subject.reopened().await;
    subject.world.clock.advance(5);
    assert_eq!(subject.reserve(tenant_id, request(integration_id, "call")).await, replayed);
    let counter = subject.this_month((tenant_id, integration_id)).await;
    assert_eq!(counter.held, totals(cents(10), 100, 1));
    subject.world.verify().await;
}

pub(crate) async fn a_used_call_id_cannot_be_reserved(subject: Subject) {
    let account = subject.account(unlimited()).await;
    let (tenant_id, integration_id) = account;
    let neighbour = subject.world.integration(tenant_id, "neighbour", unlimited()).await;
    let short = ReserveRequest { ttl_seconds: 1, ..request(integration_id, "expired") };
    held(subject.reserve(tenant_id, short.clone()).await);
    for call in ["open", "released", "settled"] {
        held(subject.reserve(tenant_id, request(integration_id, call)).await);
    }
    subject.release(tenant_id, "released").await;
    subject.record(tenant_id, usage(integration_id, "settled")).await;
    subject.record(tenant_id, usage(integration_id, "recorded")).await;
    subject.world.clock.advance(1);
    let subject = subject.reopened().await;
    subject.world.ledger.sweep().await.unwrap();
    let before = subject.this_month(account).await;

    let open = request(integration_id, "open");
    let dearer = Estimate { cost: cents(11), ..open.estimate };
    let more_tokens = Estimate { tokens: 101, ..open.estimate };
    let cases = [
        (request(integration_id, "settled"), ReserveRefusal::CallRecorded),
        (request(integration_id, "recorded"), ReserveRefusal::CallRecorded),
        (
            request(integration_id, "released"),
            ReserveRefusal::CallEnded(ReservationState::Released),
        ),
        (short, ReserveRefusal::CallEnded(ReservationState::Expired)),
        (ReserveRequest { estimate: dearer, ..open.clone() }, ReserveRefusal::OtherContent),
        (ReserveRequest { estimate: more_tokens, ..open.clone() }, ReserveRefusal::OtherContent),
        (ReserveRequest { model: Some("m".into()), ..open.clone() }, ReserveRefusal::OtherContent),
        (ReserveRequest { ttl_seconds: 601, ..open.clone() }, ReserveRefusal::OtherContent),
        (ReserveRequest { integration_id: neighbour, ..open }, ReserveRefusal::OtherContent),
    ];
    for (requested, refusal) in cases {
        let outcome = subject.reserve(tenant_id, requested.clone()).await;
        assert_eq!(outcome, ReserveOutcome::Rejected(refusal), "{requested:?}");
    }
    let after = subject.this_month(account).await;
    assert_eq!((after.used, after.held), (before.used, before.held));
    subject.world.verify().await;
}

pub(crate) async fn a_refused_reservation_frees_its_call_id(subject: Subject) {
    let account = subject.account(budget(5)).await;
    let (tenant_id, integration_id) = account;
    let refused = subject.reserve(tenant_id, request(integration_id, "call")).await;
    let ReserveOutcome::Refused(decision) = refused else { unreachable!("{refused:?}") };
    assert_eq!(decision.reasons[0].code, ReasonCode::BudgetExceeded);
    let free = Estimate::default();
    let unpriced = ReserveRequest { estimate: free, ..request(integration_id, "recorded") };
    let rejected = subject.reserve(tenant_id, unpriced).await;
    assert_eq!(rejected, ReserveOutcome::Rejected(ReserveRefusal::CostEstimateRequired));
    subject.world.verify().await;

    let subject = subject.reopened().await;
    let cheaper = Estimate { cost: cents(5), tokens: 0 };
    let requested = ReserveRequest { estimate: cheaper, ..request(integration_id, "call") };
    held(subject.reserve(tenant_id, requested).await);
    assert!(is_accepted(&subject.record(tenant_id, usage(integration_id, "recorded")).await));
    assert_eq!(subject.this_month(account).await.held, totals(cents(5), 0, 1));
    subject.world.verify().await;
}

pub(crate) async fn a_record_after_the_release_counts_in_full(subject: Subject) {
    let account = subject.account(unlimited()).await;
    let (tenant_id, integration_id) = account;
    held(subject.reserve(tenant_id, request(integration_id, "call")).await);
    subject.release(tenant_id, "call").await;
    subject.world.clock.advance(5);
    assert!(is_accepted(&subject.record(tenant_id, usage(integration_id, "call")).await));
    let counter = subject.this_month(account).await;
    assert_eq!((counter.used, counter.held), (totals(cents(1), 30, 1), Totals::default()));
    let released = subject.release(tenant_id, "call").await;
    assert!(matches!(released, ReleaseOutcome::Released(_)), "it ended once: {released:?}");
    subject.world.verify().await;
}

pub(crate) async fn a_record_without_a_price_counts_the_held_amount(subject: Subject) {
    let account = subject.account(unlimited()).await;
    let (tenant_id, integration_id) = account;
    held(subject.reserve(tenant_id, request(integration_id, "held")).await);
    for call in ["held", "unknown"] {
        let unpriced = Usage { cost: None, ..usage(integration_id, call) };
        assert!(is_accepted(&subject.record(tenant_id, unpriced).await));
    }
    let rows = subject.entries(tenant_id).await;
    let costs: Vec<(Nanos, CostSource)> =
        rows.iter().map(|row| (row.cost, row.cost_source)).collect();
    assert_eq!(costs, [(Nanos::ZERO, CostSource::Unknown), (cents(10), CostSource::Held)]);
    assert_eq!(subject.this_month(account).await.used, totals(cents(10), 60, 2));
    subject.world.verify().await;
}

pub(crate) async fn the_reservation_of_another_integration_is_unknown(subject: Subject) {
    let (tenant_id, integration_id) = subject.account(unlimited()).await;
    let neighbour = subject.world.integration(tenant_id, "neighbour", unlimited()).await;
    held(subject.reserve(tenant_id, request(integration_id, "call")).await);
    let ledger = &subject.world.ledger;
    let released = ledger.release(tenant_id, call_id("call"), Some(neighbour)).await.unwrap();
    assert_eq!(released, ReleaseOutcome::NotFound);
    let extended = ledger.extend(tenant_id, call_id("call"), Some(neighbour), None).await.unwrap();
    assert_eq!(extended, ExtendOutcome::NotFound);
    let recorded = subject.record(tenant_id, usage(neighbour, "call")).await;
    assert_eq!(recorded, RecordOutcome::Conflict);
    let released = ledger.release(tenant_id, call_id("call"), Some(integration_id)).await.unwrap();
    assert!(matches!(released, ReleaseOutcome::Released(_)), "{released:?}");
    subject.world.verify().await;

    // After the release, the call may be recorded on another integration.
    assert!(is_accepted(&subject.record(tenant_id, usage(neighbour, "call")).await));
    let counter = subject.this_month((tenant_id, neighbour)).await;
    assert_eq!(counter.used, totals(cents(1), 30, 1));
    subject.world.verify().await;
}

pub(crate) async fn open_reservations_are_listed_by_expiry(subject: Subject) {
    let (tenant_id, integration_id) = subject.account(unlimited()).await;
    let neighbour = subject.world.integration(tenant_id, "neighbour", unlimited()).await;
    for (owner, call, ttl_seconds) in [
        (integration_id, "third", 300),
        (neighbour, "second", 200),
        (integration_id, "due", 50),
        (integration_id, "first", 100),
        (integration_id, "released", 150),
    ] {
        let requested = ReserveRequest { ttl_seconds, ..request(owner, call) };
        held(subject.reserve(tenant_id, requested).await);
    }
    subject.release(tenant_id, "released").await;
    subject.world.clock.advance(50);

    let list = async |only, page| {
        let store = &subject.world.store;
        let found = store.open_reservations(tenant_id, only, page).await.unwrap();
        let calls = found.rows.iter().map(|row| row.call_id.as_str().to_owned()).collect();
        (calls, found.total)
    };
    let named = |calls: &[&str]| calls.iter().map(|call| (*call).to_owned()).collect::<Vec<_>>();
    assert_eq!(list(None, ALL).await, (named(&["first", "second", "third"]), 3));
    assert_eq!(list(Some(integration_id), ALL).await, (named(&["first", "third"]), 2));
    let second = Page { offset: 1, limit: 1 };
    assert_eq!(list(None, second).await, (named(&["second"]), 3));
}

pub(crate) async fn reserving_and_recording_in_one_group_settles(subject: Subject) {
    let account = subject.account(budget(10)).await;
    let (tenant_id, integration_id) = account;
    // In either order, the call counts once and holds nothing afterwards.
    let (reserved, recorded) = tokio::join!(
        subject.reserve(tenant_id, request(integration_id, "call")),
        subject.record(tenant_id, usage(integration_id, "call")),
    );
    assert!(is_accepted(&recorded));
    let fits = matches!(
        reserved,
        ReserveOutcome::Held(_) | ReserveOutcome::Rejected(ReserveRefusal::CallRecorded)
    );
    assert!(fits, "{reserved:?}");
    let counter = subject.this_month(account).await;
    assert_eq!((counter.used, counter.held), (totals(cents(1), 30, 1), Totals::default()));
    let unknown = subject.reserve(tenant_id, request(integration_id, "call")).await;
    assert_eq!(unknown, ReserveOutcome::Rejected(ReserveRefusal::CallRecorded));
    let unknown = bursar_core::IntegrationId::from_number(7).unwrap();
    let refused = subject.reserve(tenant_id, request(unknown, "other")).await;
    let code = ReasonCode::IntegrationNotFound;
    assert_eq!(refused, ReserveOutcome::Refused(Decision::hard_blocked(code)));
    subject.world.verify().await;
}

/// Sets the lifecycle of a tenant, without its rules.
async fn set_lifecycle(subject: &Subject, tenant_id: TenantId, lifecycle: TenantLifecycle) {
    let write = move |tx: &mut dyn ControlTx| {
        let mut tenant = tx.tenant(tenant_id)?.unwrap();
        tenant.lifecycle = lifecycle;
        tx.put_tenant(&tenant)
    };
    subject.world.ledger.change(tenant_id, write).await.unwrap();
}

pub(crate) async fn a_replay_is_refused_while_its_tenant_or_integration_is_inactive(
    subject: Subject,
) {
    let account = subject.account(budget(30)).await;
    let (tenant_id, integration_id) = account;
    let requested = request(integration_id, "call");
    let reservation = held(subject.reserve(tenant_id, requested.clone()).await);
    held(subject.reserve(tenant_id, request(integration_id, "other")).await);
    let refused = async |code| {
        let again = subject.reserve(tenant_id, requested.clone()).await;
        assert_eq!(again, ReserveOutcome::Refused(Decision::hard_blocked(code)));
        assert_eq!(subject.this_month(account).await.held, totals(cents(20), 200, 2));
    };
    set_lifecycle(&subject, tenant_id, TenantLifecycle::Suspended).await;
    refused(ReasonCode::TenantSuspended).await;
    let renewed = subject.extend(tenant_id, "call", Some(900)).await;
    assert_eq!(renewed, ExtendOutcome::TenantNotActive);
    set_lifecycle(&subject, tenant_id, TenantLifecycle::Active).await;
    let replayed = subject.reserve(tenant_id, requested.clone()).await;
    assert_eq!(replayed, ReserveOutcome::Replayed(reservation));

    subject.change(tenant_id, move |control| control.disable_integration(integration_id)).await;
    refused(ReasonCode::IntegrationDisabled).await;
    // The call may be running, so its amount stays held.
    let renewed = subject.extend(tenant_id, "call", Some(900)).await;
    assert!(matches!(renewed, ExtendOutcome::Extended(_)), "{renewed:?}");
    subject.change(tenant_id, move |control| control.delete_integration(integration_id)).await;
    refused(ReasonCode::IntegrationNotFound).await;
    let subject = subject.reopened().await;
    let again = subject.reserve(tenant_id, requested).await;
    let not_found = Decision::hard_blocked(ReasonCode::IntegrationNotFound);
    assert_eq!(again, ReserveOutcome::Refused(not_found));
    assert!(is_accepted(&subject.record(tenant_id, usage(integration_id, "call")).await));
    let released = subject.release(tenant_id, "other").await;
    assert!(matches!(released, ReleaseOutcome::Released(_)), "{released:?}");
    subject.world.verify().await;
}

pub(crate) async fn known_only_accepts_reserved_and_recorded_calls_only(subject: Subject) {
    let account = subject.account(budget(100)).await;
    let (tenant_id, integration_id) = account;
    let other = subject.world.integration(tenant_id, "other", unlimited()).await;
    for call in ["open", "released", "expired", "held elsewhere"] {
        let ttl_seconds = if call == "expired" { 60 } else { 600 };
        let requested = ReserveRequest { ttl_seconds, ..request(integration_id, call) };
        held(subject.reserve(tenant_id, requested).await);
    }
    subject.release(tenant_id, "released").await;
    let recorded = subject.record(tenant_id, usage(integration_id, "recorded")).await;
    let RecordOutcome::Accepted(entry_id) = recorded else { unreachable!("{recorded:?}") };
    subject.world.clock.advance(60);
    let known = async |usage: Usage| subject.record_known(tenant_id, usage).await;
    let unknown = RecordOutcome::Refused(RecordRefusal::UnknownCall);
    for call in ["never reserved", "never reserved"] {
        assert_eq!(known(usage(integration_id, call)).await, unknown);
    }
    for call in ["open", "released", "expired"] {
        assert!(is_accepted(&known(usage(integration_id, call)).await), "{call}");
        let again = known(usage(integration_id, call)).await;
        assert!(matches!(again, RecordOutcome::Duplicate(_)), "{call}: {again:?}");
    }
    let again = known(usage(integration_id, "recorded")).await;
    assert_eq!(again, RecordOutcome::Duplicate(entry_id));
    let changed = Usage { model: "other".into(), ..usage(integration_id, "recorded") };
    assert_eq!(known(changed).await, RecordOutcome::Conflict);
    assert_eq!(known(usage(other, "held elsewhere")).await, RecordOutcome::Conflict);
    // Calls of another tenant are unknown.
    let stranger = subject.world.tenant("stranger").await;
    let own = subject.world.integration(stranger, "own", unlimited()).await;
    assert_eq!(subject.record_known(stranger, usage(own, "open")).await, unknown);
    // The refused records left their call ids free.
    assert!(is_accepted(&subject.record(tenant_id, usage(integration_id, "never reserved")).await));
    let counter = subject.this_month(account).await;
    assert_eq!((counter.used.calls, counter.held.calls), (5, 1));
    subject.world.verify().await;
}

pub(crate) async fn reserving_and_recording_a_known_call_in_one_group_settles(subject: Subject) {
    let account = subject.account(budget(100)).await;
    let (tenant_id, integration_id) = account;
    let ledger = &subject.world.ledger;
    let record = |mode| -> CommandFuture<'_, bool> {
        let records = vec![usage(integration_id, "call"), usage(integration_id, "unknown")];
        Box::pin(async move {
            let outcomes = ledger.record_as(mode, tenant_id, records).await.unwrap();
            let outcomes: Vec<_> = outcomes.into_iter().map(|costed| costed.outcome).collect();
            is_accepted(&outcomes[0]) && !is_accepted(&outcomes[1])
        })
    };
    let reserve: CommandFuture<'_, bool> = Box::pin(async {
        let requested = request(integration_id, "call");
        matches!(ledger.reserve(tenant_id, requested).await.unwrap(), ReserveOutcome::Held(_))
    });
    let commands = vec![record(RecordMode::KnownOnly), reserve];
    assert_eq!(in_one_group(ledger, tenant_id, commands).await, [true, true]);
    let counter = subject.this_month(account).await;
    assert_eq!((counter.used, counter.held), (totals(cents(1), 30, 1), Totals::default()));
    let again = subject.record(tenant_id, usage(integration_id, "call")).await;
    assert!(matches!(again, RecordOutcome::Duplicate(_)), "{again:?}");
    subject.world.verify().await;
}
