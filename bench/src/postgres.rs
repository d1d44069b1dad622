//! PostgreSQL: the bare store's transaction through its writers, and nodes over one database.

use std::time::Duration;

use bursar_core::Scope;
use bursar_server::auth::secret::SecretKey;
use bursar_server::config::database::Database as Kept;
use bursar_store::{PostgresOptions, PostgresStore, WriterConnection};
use bursar_testing::postgres::cluster::Cluster;
use bursar_testing::postgres::database::Database;
use tokio::runtime::Runtime;

use crate::client::{self, Make, Run};
use crate::report::Report;
use crate::server::Running;
use crate::setup::{Deployment, INTEGRATIONS, Setup, prepare};
use crate::{Arguments, Failure, limits, store};

/// The environment variable that names an existing PostgreSQL server.
const URL_VARIABLE: &str = "BURSAR_TEST_POSTGRES_URL";
/// Settings that every operator changes first.
const SETTINGS: [(&str, &str); 2] = [("shared_buffers", "512MB"), ("max_wal_size", "4GB")];
/// The number of concurrent writers, each for its own tenant.
const WRITERS: usize = 4;
/// Records of one transaction of a writer.
const WRITERS_GROUP: usize = 1_000;
/// The number of integrations over which reservations are spread, so that they rarely contend.
const MANY_INTEGRATIONS: usize = 1_000;
/// The number of servers over one database.
const NODES: usize = 2;

/// Measures everything that needs PostgreSQL, or prints that there is none.
pub(crate) fn measure(
    arguments: &Arguments,
    runtime: &Runtime,
    report: &mut Report,
) -> Result<(), Failure> {
    // The shared test code panics if PostgreSQL's programs are missing.
    let Ok(database) = std::panic::catch_unwind(start) else {
        eprintln!("PostgreSQL is not measured: none can be had here");
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let deployment = Deployment::node(folder.path(), database.app_url());
    let setup = prepare(&deployment, INTEGRATIONS)?;
    let duration = Duration::from_secs(arguments.seconds);

    let mut writers = open(&deployment)?;
    let writer = writers.first_mut().ok_or("no writer")?;
    eprintln!("filling PostgreSQL with {} records", arguments.records);
    store::fill(writer.as_mut(), &setup, arguments.records)?;
    // A server would do this by itself after such a load, at an unpredictable moment.
    database.run("vacuum (analyze, freeze)");
    for group in [100, 1_000, 4_000] {
        database.run("checkpoint");
        report.postgres_store(group, store::measure(writer.as_mut(), &setup, group, duration)?);
    }
    let mut tenants = vec![setup];
    for _ in 1..WRITERS {
        tenants.push(prepare(&deployment, INTEGRATIONS)?);
    }
    let rate = measure_writers(writers, &tenants, duration)?;
    let name = format!("{WRITERS} writers of a tenant each, groups of {WRITERS_GROUP}");
    report.postgres_writers(name, rate);
    let setup = tenants.first().ok_or("no tenant")?;
    nodes(&deployment, setup, duration, runtime, report)
}

/// A database with the schema, on a new server or on the one that the environment names.
fn start() -> Database {
    let migrate = |owner_url: &str, app_role: &str| {
        if let Err(error) = PostgresStore::migrate(owner_url, app_role) {
            eprintln!("PostgreSQL is not migrated: {error}");
        }
    };
    if std::env::var_os(URL_VARIABLE).is_some() {
        return Database::migrated(Cluster::shared(), migrate);
    }
    // The server ends with this process.
    Database::migrated(Box::leak(Box::new(Cluster::with_settings(&SETTINGS))), migrate)
}

fn open(deployment: &Deployment) -> Result<Vec<Box<dyn WriterConnection>>, Failure> {
    let config = deployment.config()?;
    let database = config.database();
    let Kept::Postgres(database) = &database else {
        return Err("the deployment is not that of a node".into());
    };
    let secret_key = config.secrets.secret_key.as_ref().ok_or("a node without a secret key")?;
    let secret_key = SecretKey::derive(secret_key)?;
    let options = PostgresOptions {
        writers: WRITERS,
        readers: 1,
        secret_fingerprint: secret_key.fingerprint().to_owned(),
        audit_key: secret_key.audit_key(),
        clock: None,
    };
    Ok(PostgresStore::open(database.url()?.expose(), &options)?.1)
}

/// Measures records per second of concurrent writers.
fn measure_writers(
    writers: Vec<Box<dyn WriterConnection>>,
    tenants: &[Setup],
    duration: Duration,
) -> Result<f64, Failure> {
    let write = |mut writer: Box<dyn WriterConnection>, setup| {
        // The error becomes a text, because it has to leave the thread.
        store::measure(writer.as_mut(), setup, WRITERS_GROUP, duration)
            .map_err(|error| error.to_string())
    };
    let write = &write;
    std::thread::scope(|scope| {
        let started: Vec<_> = writers
            .into_iter()
            .zip(tenants)
            .map(|(writer, setup)| scope.spawn(move || write(writer, setup)))
            .collect();
        let mut sum = 0.0;
        for writer in started {
            sum += writer.join().map_err(|_| "a writer panicked")??;
        }
        Ok(sum)
    })
}

/// Measures one node, and then two nodes over the same database.
fn nodes(
    deployment: &Deployment,
    setup: &Setup,
    duration: Duration,
    runtime: &Runtime,
    report: &mut Report,
) -> Result<(), Failure> {
    let hot = prepare(deployment, 1)?;
    let wide = prepare(deployment, MANY_INTEGRATIONS)?;
    let limited = prepare(deployment, MANY_INTEGRATIONS)?;
    limits::put(deployment, &limited, &[Scope::Tenant])?;
    runtime.block_on(async {
        let mut servers = Vec::new();
        for number in 0..NODES {
            let folder = deployment.folder.join(format!("node-{number}"));
            std::fs::create_dir(&folder)?;
            servers.push(Running::start(&deployment.beside(&folder)).await?);
        }
        let all: Vec<&str> = servers.iter().map(|server| server.address.as_str()).collect();
        let one = all.get(..1).unwrap_or_default();
        let run = async |name: &'static str, over: &[&str], connections, make: &Make<'_>| {
            client::run(over, connections, duration, make).await.map(|run: Run| (name, run))
        };
        report.postgres_http(run("batches of 100, 16 connections", one, 16, &setup.batch()).await?);
        report.postgres_http(run("single ingest, 64 connections", one, 64, &setup.single()).await?);
        report.postgres_http(run("check, 64 connections", one, 64, &setup.check()).await?);
        report.postgres_http(run("reserve, 64 connections", one, 64, &setup.reserve()).await?);
        let name = "reserve on one integration, 64 connections to two nodes";
        report.postgres_http(run(name, &all, 64, &hot.reserve()).await?);
        let name = "reserve on 1,000 integrations, 64 connections to two nodes";
        report.postgres_http(run(name, &all, 64, &wide.reserve()).await?);
        let name = "reserve under a limit of the tenant, 64 connections to two nodes";
        report.postgres_http(run(name, &all, 64, &limited.reserve()).await?);
        for server in servers {
            report.memory(server.resident_kib());
            server.stop().await?;
        }
        Ok(())
    })
}
