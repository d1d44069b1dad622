//! Limits for each value: accounts of values, the account that the rest shares, and keys.

use bursar_core::{
    Caps, IntegrationId, Label, OwnedSubject, ReserveOutcome, ReserveRequest, Scope, TenantId,
    Usage, Window,
};
use bursar_store::KeyDraft;

use crate::conformance::subject::{Subject, unlimited};
use crate::support::group::{CommandFuture, in_one_group};
use crate::support::limits::{
    calls, cost, daily, each, limit, limit_sums, only, put_limits, refusal, subject_of,
};
use crate::support::{day, request, usage};

const TWO_VALUES: Caps = Caps { values_per_limit: 2, ..Caps::DEFAULT };

/// A tenant under these caps, with a limit of 10 cents for each agent, a day at a time.
async fn each_agent(subject: Subject, caps: Caps) -> (Subject, TenantId, IntegrationId) {
    let subject = Subject { world: subject.world.capped(caps).await };
    let (tenant_id, integration_id) = subject.account(unlimited()).await;
    let row = limit(tenant_id, 1, each(Label::Agent), cost(daily(), 10));
    put_limits(&subject.world.ledger, vec![row]).await;
    (subject, tenant_id, integration_id)
}

fn of_agent(integration_id: IntegrationId, agent: &str, call: &str) -> ReserveRequest {
    ReserveRequest { agent_id: Some(agent.into()), ..request(integration_id, call) }
}

async fn is_held(subject: &Subject, tenant_id: TenantId, request: ReserveRequest) -> bool {
    refusal(&subject.world.ledger, tenant_id, request).await.is_none()
}

/// The values with a row in `limit_accounts`, with what they hold, in cents. The account of all
/// further values has an empty one, and is left out while it has nothing.
fn accounts(subject: &Subject) -> Vec<(String, i64)> {
    let sql = "select value, held_cost_nanos, used_calls from limit_accounts";
    let rows = subject.world.database.rows(&[sql]).remove(0);
    let number = |text: &Option<String>| text.as_ref().unwrap().parse::<i64>().unwrap();
    let rows = rows.iter().map(|row| (row[0].clone().unwrap(), number(&row[1]), number(&row[2])));
    let rows = rows.filter(|(value, held, used)| !value.is_empty() || *held != 0 || *used != 0);
    let mut rows: Vec<(String, i64)> =
        rows.map(|(value, held, _)| (value, held / 10_000_000)).collect();
    rows.sort();
    rows
}

/// The stored number of values.
fn values(subject: &Subject) -> Option<String> {
    let rows = subject.world.database.rows(&["select accounts from limit_values"]).remove(0);
    rows.first().and_then(|row| row[0].clone())
}

fn listed(accounts: &[(&str, i64)]) -> Vec<(String, i64)> {
    accounts.iter().map(|(value, held)| ((*value).to_owned(), *held)).collect()
}

pub(crate) async fn values_beyond_the_cap_share_an_account(subject: Subject) {
    let (subject, tenant_id, integration_id) = each_agent(subject, TWO_VALUES).await;
    for (agent, is_admitted) in
        [("a", true), ("a", false), ("b", true), ("c", true), ("d", false), ("c", false)]
    {
        let call = format!("{agent} {is_admitted}");
        let request = of_agent(integration_id, agent, &call);
        assert_eq!(is_held(&subject, tenant_id, request).await, is_admitted, "{call}");
    }
    assert_eq!(accounts(&subject), listed(&[("", 10), ("a", 10), ("b", 10)]));
    assert_eq!(values(&subject).as_deref(), Some("2"));
    // The account is the same after a restart, and a hold ends where it was made.
    let subject = subject.reopened().await;
    assert!(!is_held(&subject, tenant_id, of_agent(integration_id, "d", "d")).await);
    subject.release(tenant_id, "c true").await;
    assert!(is_held(&subject, tenant_id, of_agent(integration_id, "d", "d")).await);
    let agent_id = Some("e".into());
    subject.record(tenant_id, Usage { agent_id, ..usage(integration_id, "e") }).await;
    assert_eq!(accounts(&subject), listed(&[("", 10), ("a", 10), ("b", 10)]));
    assert_eq!(values(&subject).as_deref(), Some("2"));
    subject.world.verify().await;
}

pub(crate) async fn a_new_period_counts_its_values_from_zero(subject: Subject) {
    let (subject, tenant_id, integration_id) = each_agent(subject, TWO_VALUES).await;
    for agent in ["a", "b", "c"] {
        let request = of_agent(integration_id, agent, &format!("{agent} of the first day"));
        assert!(is_held(&subject, tenant_id, request).await);
    }
    subject.world.clock.set(day(2026, 3, 15));
    let subject = subject.reopened().await;
    for (agent, is_admitted) in [("c", true), ("d", true), ("a", true), ("b", false)] {
        let request = of_agent(integration_id, agent, &format!("{agent} of the second day"));
        assert_eq!(is_held(&subject, tenant_id, request).await, is_admitted, "{agent}");
    }
    let expected = [("", 10), ("a", 10), ("b", 10), ("c", 10), ("d", 10)];
    assert_eq!(accounts(&subject), listed(&expected), "two of them are of the first day");
    assert_eq!(values(&subject).as_deref(), Some("2"));
    subject.world.clock.set(day(2026, 3, 16));
    subject.world.ledger.sweep().await.unwrap();
    for agent in ["a", "b", "c"] {
        let request = of_agent(integration_id, agent, &format!("{agent} of the third day"));
        assert!(is_held(&subject, tenant_id, request).await, "{agent}");
    }
    subject.world.verify().await;
}

pub(crate) async fn new_values_of_one_group_do_not_exceed_the_cap(subject: Subject) {
    let caps = Caps { values_per_limit: 5, ..Caps::DEFAULT };
    let (subject, tenant_id, integration_id) = each_agent(subject, caps).await;
    for day_of_march in 14..17 {
        subject.world.clock.set(day(2026, 3, day_of_march).plus_seconds(40_000));
        let ledger = &subject.world.ledger;
        let commands = (0..12).map(|agent| -> CommandFuture<'_, bool> {
            let call = format!("{agent} of {day_of_march}");
            // Each agent asks twice, and its account has room for one.
            let twice = [0, 1].map(|number| {
                let call = format!("{call} {number}");
                ledger.reserve(tenant_id, of_agent(integration_id, &format!("{agent}"), &call))
            });
            Box::pin(async move {
                let [first, second] = twice;
                let (first, second) = tokio::join!(first, second);
                let held = [first, second].map(|one| one.unwrap());
                held.iter().any(|one| matches!(one, ReserveOutcome::Held(_)))
            })
        });
        let held = in_one_group(ledger, tenant_id, commands.collect()).await;
        let held = held.into_iter().filter(|is_held| *is_held).count();
        assert_eq!(held, 6, "five values and the account of the rest");
        assert_eq!(values(&subject).as_deref(), Some("5"));
    }
    subject.world.verify().await;
}

pub(crate) async fn a_record_that_counts_nothing_takes_no_value(subject: Subject) {
    let (subject, tenant_id, integration_id) = each_agent(subject, TWO_VALUES).await;
    let late = |agent: &str| Usage {
        agent_id: Some(agent.into()),
        occurred_at: Some(day(2026, 3, 1)),
        ..usage(integration_id, agent)
    };
    for agent in ["a", "b", "c"] {
        subject.record(tenant_id, late(agent)).await;
    }
    assert_eq!((accounts(&subject), values(&subject).filter(|of| of != "0")), (vec![], None));
}

pub(crate) async fn a_named_value_has_a_limit_of_its_own(subject: Subject) {
    let (subject, tenant_id, integration_id) = each_agent(subject, TWO_VALUES).await;
    let row = limit(tenant_id, 2, only(Label::Agent, "big"), cost(daily(), 20));
    put_limits(&subject.world.ledger, vec![row]).await;
    for (call, is_admitted) in [("1", true), ("2", true), ("3", false)] {
        let request = of_agent(integration_id, "big", call);
        assert_eq!(is_held(&subject, tenant_id, request).await, is_admitted, "{call}");
    }
    let big = subject_of(&of_agent(integration_id, "big", "any"));
    let store = subject.world.store.as_ref();
    assert_eq!(limit_sums(store, tenant_id, &big).await, [(2, 0, 20)]);
    // A limit of another window does not take the place of the one for each value.
    let row = limit(tenant_id, 3, only(Label::Agent, "small"), calls(Window::Minute, 9));
    put_limits(&subject.world.ledger, vec![row]).await;
    let small = subject_of(&of_agent(integration_id, "small", "any"));
    assert_eq!(limit_sums(store, tenant_id, &small).await, [(1, 0, 0), (3, 0, 0)]);
}

pub(crate) async fn each_integration_has_an_account_unless_it_has_a_limit(subject: Subject) {
    let (tenant_id, one) = subject.account(unlimited()).await;
    let other = subject.world.integration(tenant_id, "other", unlimited()).await;
    let rows = vec![
        limit(tenant_id, 1, Scope::EachIntegration, cost(daily(), 10)),
        limit(tenant_id, 2, Scope::Integration(other), cost(daily(), 20)),
    ];
    put_limits(&subject.world.ledger, rows).await;
    for (integration_id, call, is_admitted) in
        [(one, "1", true), (one, "2", false), (other, "3", true), (other, "4", true)]
    {
        let asked = request(integration_id, call);
        assert_eq!(is_held(&subject, tenant_id, asked).await, is_admitted, "{call}");
    }
    let subject = subject.reopened().await;
    let store = subject.world.store.as_ref();
    let of = |integration_id| OwnedSubject::new(integration_id);
    assert_eq!(limit_sums(store, tenant_id, &of(one)).await, [(1, 0, 10)]);
    assert_eq!(limit_sums(store, tenant_id, &of(other)).await, [(2, 0, 20)]);
}

pub(crate) async fn a_rotated_key_goes_on_in_the_account_of_its_line(subject: Subject) {
    let (tenant_id, integration_id) = subject.account(unlimited()).await;
    let first = subject
        .change(tenant_id, |control| {
            control.create_key(KeyDraft::api("key", "*", None), |_| [1; 32])
        })
        .await;
    let key_id = first.key_id;
    let rows = vec![
        limit(tenant_id, 1, each(Label::Key), cost(daily(), 20)),
        limit(tenant_id, 2, only(Label::Key, &key_id.to_string()), calls(daily(), 2)),
    ];
    put_limits(&subject.world.ledger, rows).await;
    let second = subject
        .change(tenant_id, move |control| control.rotate_key(None, key_id, 60, |_| [2; 32]))
        .await;
    let second_id = second.key_id;
    let third = subject
        .change(tenant_id, move |control| control.rotate_key(None, second_id, 60, |_| [3; 32]))
        .await;
    let by = |key: &bursar_store::KeyRow, call: &str| ReserveRequest {
        account_key_id: Some(key.account_key_id),
        ..request(integration_id, call)
    };
    assert!(is_held(&subject, tenant_id, by(&first, "first")).await);
    assert!(is_held(&subject, tenant_id, by(&second, "second")).await);
    assert!(!is_held(&subject, tenant_id, by(&third, "third")).await);
    let subject = subject.reopened().await;
    let store = subject.world.store.as_ref();
    let of = subject_of(&by(&third, "any"));
    assert_eq!(limit_sums(store, tenant_id, &of).await, [(1, 0, 20), (2, 0, 2)]);
    // A call counts for the key that reserved it, even if another key records it.
    subject.record(tenant_id, usage(integration_id, "first")).await;
    assert_eq!(limit_sums(store, tenant_id, &of).await, [(1, 1, 10), (2, 1, 1)]);
}
