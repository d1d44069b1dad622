//! The bare store: the same transactions without HTTP, queue or threads.

use std::time::{Duration, Instant};

use bursar_core::{
    CallId, CallKey, Command, EntryId, Nanos, PolicyResult, RecordMode, TenantId, Timestamp,
    TokenBuckets, Usage,
};
use bursar_server::auth::secret::SecretKey;
use bursar_server::config::data_dir::{SECRET_KEY, secret};
use bursar_server::wire::timestamps;
use bursar_store::{
    CallToLoad, Claim, Clocks, LoadRequest, SqliteStore, WriterConnection, call_key,
};

use crate::Failure;
use crate::setup::{Deployment, Setup};

/// Records of one transaction of [`fill`].
const FILL_GROUP: u64 = 4_000;
/// The number of days over which [`fill`] spreads its records.
const FILL_DAYS: i64 = 30;

/// Opens the embedded store of a folder without a server.
pub(crate) fn open(deployment: &Deployment) -> Result<Box<dyn WriterConnection>, Failure> {
    let key = SecretKey::derive(&secret(&deployment.folder, SECRET_KEY)?)?;
    let config = deployment.config()?;
    let database = config.database();
    let path = database.file().ok_or("the deployment is not that of an embedded store")?;
    let clock = Clocks::system();
    let (_, writer) = SqliteStore::open(path, clock, key.fingerprint(), key.audit_key())?;
    Ok(writer)
}

/// Adds records from the last 30 days.
pub(crate) fn fill(
    writer: &mut dyn WriterConnection,
    setup: &Setup,
    records: u64,
) -> Result<(), Failure> {
    let now = timestamps::system_now().micros();
    let span = FILL_DAYS * 86_400 * 1_000_000;
    let mut written = 0;
    while written < records {
        let of_group = FILL_GROUP.min(records - written);
        let ago = i64::try_from(records - written)? * (span / i64::try_from(records)?);
        let at = Timestamp::from_micros(now - ago);
        let group = (0..of_group).map(|_| usage(setup, at)).collect::<Result<Vec<_>, _>>()?;
        write(writer, setup.tenant_id, &group)?;
        written += of_group;
    }
    Ok(())
}

/// Measures records per second in transactions of `group` records; creating them does not count.
pub(crate) fn measure(
    writer: &mut dyn WriterConnection,
    setup: &Setup,
    group: usize,
    duration: Duration,
) -> Result<f64, Failure> {
    let mut records = 0;
    let mut took = Duration::ZERO;
    while took < duration {
        let of_group = (0..group).map(|_| usage(setup, None)).collect::<Result<Vec<_>, _>>()?;
        let start = Instant::now();
        write(writer, setup.tenant_id, &of_group)?;
        took += start.elapsed();
        records += group;
    }
    Ok(records as f64 / took.as_secs_f64())
}

fn usage(setup: &Setup, occurred_at: Option<Timestamp>) -> Result<Usage, Failure> {
    let number = setup.next();
    let call = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let figure = |modulus: u64| i64::try_from(number % modulus).unwrap_or(0);
    let integration_id = setup.integration(number).ok_or("no integration")?;
    let call_id = CallId::new(format!("call-{call:016x}-{number}"))?;
    let model = if number % 100_000 == 3 {
        "rare-model".into()
    } else {
        format!("gpt-4o-{}", number % 5).into()
    };
    Ok(Usage {
        session_id: Some(format!("session-{}", number / 10).into()),
        agent_id: Some(if number % 100_000 == 5 {
            "rare-agent".into()
        } else {
            format!("agent-{}", number % 20).into()
        }),
        tokens: TokenBuckets::new(figure(4_000), figure(700), 0, 0, 0)?,
        cost: Some(Nanos::new(figure(9_999_999))),
        latency_ms: Some(200 + figure(3_000)),
        policy_result: if number % 1_000 == 7 {
            PolicyResult::Blocked
        } else {
            PolicyResult::Allowed
        },
        error_code: (number % 500 == 9).then(|| "timeout".into()),
        occurred_at,
        ..Usage::new(integration_id, call_id, "openai".into(), model)
    })
}

fn write(
    writer: &mut dyn WriterConnection,
    tenant_id: TenantId,
    group: &[Usage],
) -> Result<(), Failure> {
    let first = writer.allocate_ids(group.len())?;
    let mut request = LoadRequest::default();
    let mut commands: Vec<(CallKey, Command<'_>)> = Vec::with_capacity(group.len());
    for (number, usage) in (first..).zip(group) {
        let entry_id = EntryId::from_number(number).ok_or("no entry id")?;
        let key = call_key(tenant_id, &usage.call_id);
        let call = CallToLoad { call_id: &usage.call_id, claim: Claim::Record(entry_id) };
        request.calls.insert((tenant_id, key), call);
        request.integrations.insert((tenant_id, usage.integration_id));
        if let Some(occurred_at) = usage.occurred_at {
            request.months.insert((usage.integration_id, occurred_at.month()));
        }
        commands.push((key, Command::Record { entry_id, usage, mode: RecordMode::Any }));
    }
    writer.begin()?;
    let mut book = writer.load(&request)?;
    for (key, command) in &commands {
        book.apply(tenant_id, *key, *command)?;
    }
    writer.save(book)?;
    writer.commit()?;
    Ok(())
}
