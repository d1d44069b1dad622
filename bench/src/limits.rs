//! The cost of limits: several that apply to each call, and one with an account for each agent.

use std::time::Duration;

use bursar_core::{
    Action, Allowance, Bound, CalendarUnit, Label, Limit, LimitId, Rule, Scope, Selected,
    WarnPercents, Window, Zone,
};
use bursar_server::server;
use bursar_store::{ControlTx, LimitRow, ManagedBy};
use tokio::runtime::Runtime;

use crate::Failure;
use crate::client::{self, Make};
use crate::report::Report;
use crate::server::Running;
use crate::setup::{Deployment, Setup, TAG};

/// The numbers of agents with an account of their own.
const AGENTS: [(u64, &str); 2] = [
    (100, "single ingest, a limit for each of 100 agents"),
    (100_000, "single ingest, a limit for each of 100,000 agents"),
];

/// Measures the embedded store under limits.
pub(crate) fn measure(
    deployment: &Deployment,
    setup: &Setup,
    duration: Duration,
    runtime: &Runtime,
    report: &mut Report,
) -> Result<(), Failure> {
    let label = |label| Scope::Label { label, selected: Selected::Each, integration_id: None };
    let five = [
        Scope::Tenant,
        label(Label::Key),
        label(Label::Agent),
        label(Label::Model),
        label(Label::Tag(TAG.into())),
    ];
    put(deployment, setup, &five)?;
    setup.set_tagged(true);
    runtime.block_on(async {
        let server = Running::start(deployment).await?;
        let run = async |name: &'static str, connections, make: &Make<'_>| {
            client::run(&[&server.address], connections, duration, make).await.map(|r| (name, r))
        };
        report.http(run("single ingest, five limits", 64, &setup.single()).await?);
        report.http(run("batches of 100, five limits", 16, &setup.batch()).await?);
        report.http(run("check, five limits", 64, &setup.check()).await?);
        report.http(run("reserve, five limits", 64, &setup.reserve()).await?);
        server.stop().await
    })?;
    setup.set_tagged(false);
    put(deployment, setup, &[label(Label::Agent)])?;
    for (agents, name) in AGENTS {
        setup.set_agents(agents);
        runtime.block_on(async {
            let server = Running::start(deployment).await?;
            let addresses = [&*server.address];
            // Each agent gets its account first.
            let mut seen = 0;
            while seen < agents {
                let second = Duration::from_secs(1);
                seen += client::run(&addresses, 16, second, &setup.batch()).await?.records;
            }
            let run = client::run(&addresses, 64, duration, &setup.single()).await?;
            report.http((name, run));
            report.memory(server.resident_kib());
            server.stop().await
        })?;
    }
    put(deployment, setup, &[])
}

/// Gives the tenant limits of these scopes on the cost of a day, in the place of those before. They
/// refuse nothing.
pub(crate) fn put(deployment: &Deployment, setup: &Setup, scopes: &[Scope]) -> Result<(), Failure> {
    let tenant_id = setup.tenant_id;
    let day = || Window::Calendar(CalendarUnit::Day, Zone::utc());
    let row = |(number, scope): (i64, &Scope)| {
        let rule = Rule {
            bound: Bound::Cost(day(), Allowance::new(1_000_000_000_000_000)),
            action: Action::Block,
            warn_percents: WarnPercents::DEFAULT,
        };
        let id = LimitId::from_number(number)?;
        let limit = Limit { id, scope: scope.clone(), rule, required: false, enabled: true };
        Some(LimitRow {
            tenant_id,
            name: format!("limit {number}"),
            limit,
            override_reason: None,
            managed_by: ManagedBy::Tenant,
            created_at: bursar_core::Timestamp::MIN,
            updated_at: bursar_core::Timestamp::MIN,
            created_by: "bench".to_owned(),
        })
    };
    let rows: Vec<LimitRow> = (1..).zip(scopes).filter_map(row).collect();
    let change = move |tx: &mut dyn ControlTx| {
        tx.lock_limits(tenant_id)?;
        for number in 1..10 {
            if let Some(limit_id) = LimitId::from_number(number) {
                tx.delete_limit(tenant_id, limit_id)?;
            }
        }
        rows.iter().try_for_each(|row| tx.put_limit(row))
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let app = server::open(&deployment.config()?, None)?;
        app.ledger.change(tenant_id, change).await?;
        app.ledger.close().await;
        Ok(())
    })
}
