//! Limits as rows: what is written is read back, and a deleted limit leaves nothing.

use bursar_core::{
    Action, Allowance, Bound, CalendarUnit, Concurrent, ExtendOutcome, Label, Override, Quantity,
    RecordOutcome, ReleaseOutcome, ReserveOutcome, Scope, Selected, TenantId, Timestamp,
    WarnPercents, Window,
};
use bursar_store::{ControlTx, LimitRow, ManagedBy};

use crate::conformance::subject::{Subject, unlimited};
use crate::support::limits::{
    calendar, calls, concurrent, cost, daily, delete_limit, each, limit, limit_id, limit_sums,
    put_limits, subject_of, tokens,
};
use crate::support::{day, request, usage};

/// The tables with rows of limits.
const TABLES: [&str; 5] = ["limits", "limit_accounts", "limit_seconds", "limit_values", "postings"];

/// The number of rows that a limit has in each table.
fn rows_of(subject: &Subject, number: i64) -> [usize; 5] {
    let sql = TABLES.map(|table| format!("select limit_id from {table}"));
    let tables = subject.world.database.rows(&sql.each_ref().map(String::as_str));
    let own = Some(number.to_string());
    std::array::from_fn(|at| tables[at].iter().filter(|row| row[0] == own).count())
}

/// A window of each kind.
fn windows() -> Vec<Window> {
    use CalendarUnit::{Day, Hour, Month, Week};
    let units = [(Hour, "UTC"), (Day, "Europe/Berlin"), (Week, "Asia/Kathmandu"), (Month, "UTC")];
    let calendar = units.into_iter().map(|(unit, zone)| calendar(unit, zone));
    let total = Window::Total { starts_at: day(2026, 2, 3).plus_seconds(5) };
    calendar.chain([Window::Minute, total]).collect()
}

/// A limit of each scope, measure and window, with every other field in some form.
fn all_kinds(subject: &Subject, tenant_id: TenantId, scopes: Vec<Scope>) -> Vec<LimitRow> {
    let mut bounds = vec![Bound::Concurrent(Allowance::<Concurrent>::new(3))];
    for window in windows() {
        let until = subject.world.clock.now().plus_seconds(90);
        let overridden = Some(Override { amount: Quantity::new(77), until });
        bounds.push(cost(window.clone(), 9_000_000_000));
        bounds.push(Bound::Tokens(window.clone(), Allowance { overridden, ..Allowance::new(0) }));
        bounds.push(calls(window, 1));
    }
    let actions = [Action::Block, Action::Throttle, Action::Warn];
    let percents: [&[u8]; 4] = [&[], &[80], &[1, 100], &[10, 20, 30, 40, 50]];
    let kinds = scopes.len().max(bounds.len());
    let row = |at: usize| {
        let (scope, bound) = (scopes[at % scopes.len()].clone(), bounds[at % bounds.len()].clone());
        let mut row = limit(tenant_id, 100 + at as i64, scope, bound);
        let is_overridden = matches!(&row.limit.rule.bound, Bound::Tokens(..));
        row.limit.rule.action = actions[at % 3];
        row.limit.rule.warn_percents = WarnPercents::new(percents[at % 4]).unwrap();
        (row.limit.required, row.limit.enabled) = (at.is_multiple_of(2), !at.is_multiple_of(5));
        row.override_reason = is_overridden.then(|| "a launch \u{1f680}".to_owned());
        row.managed_by = if at.is_multiple_of(2) { ManagedBy::Operator } else { ManagedBy::Tenant };
        row.updated_at = day(2026, 3, 14).plus_seconds(at as u32);
        row
    };
    (0..kinds).map(row).collect()
}

pub(crate) async fn a_limit_is_read_back_field_by_field(subject: Subject) {
    let (tenant_id, integration_id) = subject.account(unlimited()).await;
    let mut scopes =
        vec![Scope::Tenant, Scope::Integration(integration_id), Scope::EachIntegration];
    let labels =
        [Label::Model, Label::Agent, Label::Session, Label::Key, Label::Tag("team é".into())];
    for label in labels {
        for selected in [Selected::Each, Selected::One("a value 'é'".into())] {
            for of in [None, Some(integration_id)] {
                let (label, selected) = (label.clone(), selected.clone());
                scopes.push(Scope::Label { label, selected, integration_id: of });
            }
        }
    }
    let rows = all_kinds(&subject, tenant_id, scopes);
    put_limits(&subject.world.ledger, rows.clone()).await;
    assert_eq!(subject.world.store.limits(tenant_id).await.unwrap(), rows);

    let subject = subject.reopened().await;
    assert_eq!(subject.world.store.limits(tenant_id).await.unwrap(), rows);
    let expected = rows.clone();
    let read = move |tx: &mut dyn ControlTx| {
        tx.lock_limits(tenant_id)?;
        for row in &expected {
            assert_eq!(tx.limit(tenant_id, row.limit.id)?.as_ref(), Some(row));
        }
        tx.limit(tenant_id, limit_id(1))
    };
    assert_eq!(subject.world.ledger.change(tenant_id, read).await.unwrap(), None);
    let stranger = subject.world.tenant("stranger").await;
    assert_eq!(subject.world.store.limits(stranger).await.unwrap(), []);
}

pub(crate) async fn a_changed_limit_is_read_back(subject: Subject) {
    let tenant_id = subject.tenant().await;
    let made = limit(tenant_id, 1, Scope::Tenant, cost(daily(), 5));
    put_limits(&subject.world.ledger, vec![made.clone()]).await;
    let mut changed = made;
    let overridden = Override { amount: Quantity::new(4), until: day(2026, 4, 1) };
    changed.name = "another".to_owned();
    changed.limit.rule.bound =
        Bound::Cost(daily(), Allowance { overridden: Some(overridden), ..Allowance::new(6) });
    changed.override_reason = Some("a reason".to_owned());
    changed.limit.rule.action = Action::Warn;
    changed.limit.rule.warn_percents = WarnPercents::DEFAULT;
    (changed.limit.required, changed.limit.enabled) = (true, false);
    changed.updated_at = Timestamp::MIN.plus_seconds(9);
    put_limits(&subject.world.ledger, vec![changed.clone()]).await;
    assert_eq!(subject.world.store.limits(tenant_id).await.unwrap(), [changed]);
}

pub(crate) async fn a_deleted_limit_leaves_no_rows(subject: Subject) {
    let (tenant_id, integration_id) = subject.account(unlimited()).await;
    let ledger = &subject.world.ledger;
    let rows = [tokens(Window::Minute, 1_000), concurrent(10)].into_iter().zip(1..);
    let rows = rows.map(|(bound, number)| limit(tenant_id, number, each(Label::Model), bound));
    put_limits(ledger, rows.collect()).await;
    let labelled = |call: &str| {
        let model = Some("gpt".into());
        bursar_core::ReserveRequest { model, ..request(integration_id, call) }
    };
    for call in ["settled", "released", "extended", "expired"] {
        let held = subject.reserve(tenant_id, labelled(call)).await;
        assert!(matches!(held, ReserveOutcome::Held(_)), "{held:?}");
    }
    assert_eq!(rows_of(&subject, 1), [1, 1, 1, 1, 4]);
    assert_eq!(rows_of(&subject, 2), [1, 1, 0, 1, 4]);

    delete_limit(ledger, tenant_id, 1).await;
    assert_eq!(rows_of(&subject, 1), [0; 5]);
    // Commands about holds that were made under it do not bring it back.
    let extended = subject.extend(tenant_id, "extended", Some(900)).await;
    assert!(matches!(extended, ExtendOutcome::Extended(_)), "{extended:?}");
    assert_eq!(rows_of(&subject, 1), [0; 5]);
    let of = subject_of(&labelled("any"));
    let sums = limit_sums(subject.world.store.as_ref(), tenant_id, &of).await;
    assert_eq!(sums, [(2, 0, 4)]);
    let settled = subject.record(tenant_id, usage(integration_id, "settled")).await;
    assert!(matches!(settled, RecordOutcome::Accepted(_)), "{settled:?}");
    let released = subject.release(tenant_id, "released").await;
    assert!(matches!(released, ReleaseOutcome::Released(_)), "{released:?}");
    subject.world.clock.advance(600);
    ledger.sweep().await.unwrap();
    assert_eq!((rows_of(&subject, 1), rows_of(&subject, 2)), ([0; 5], [1, 1, 0, 1, 1]));
    let subject = subject.reopened().await;
    subject.world.clock.advance(300);
    subject.world.ledger.sweep().await.unwrap();
    assert_eq!((rows_of(&subject, 1), rows_of(&subject, 2)), ([0; 5], [1, 1, 0, 1, 0]));
    subject.world.verify().await;
}
