//! Measures Bursar against its own baselines, in one run on one machine.
//!
//! There are three baselines. E is the HTTP stack with authentication and parsing, which stores
//! nothing. S is the bare embedded store, which runs the same transactions without HTTP. P is the
//! same on PostgreSQL. All other results are reported as a part of these, because ratios can be
//! compared between machines and absolute figures cannot.

mod client;
mod limits;
mod postgres;
mod reads;
mod report;
mod server;
mod setup;
mod store;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use tokio::runtime::Runtime;

use setup::{Deployment, INTEGRATIONS, Setup};

type Failure = Box<dyn std::error::Error>;

#[derive(Parser)]
#[command(about = "Measures Bursar against its own limits")]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// The length of each measurement, in seconds.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Records in the store before the measurement of writes.
    #[arg(long, default_value_t = 1_000_000)]
    records: u64,
    /// Records in the store before the measurement of reads.
    #[arg(long, default_value_t = 10_000_000)]
    records_large: u64,
    /// Measure only one of the stores.
    #[arg(long)]
    only: Option<Only>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Only {
    Embedded,
    Postgres,
}

#[derive(Subcommand)]
enum Command {
    /// The server that is measured; started by the harness.
    #[command(hide = true)]
    Serve { data_dir: PathBuf },
}

fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    match arguments.command {
        Some(Command::Serve { data_dir }) => server::serve(data_dir),
        None => measure(&arguments),
    }
}

fn measure(arguments: &Arguments) -> Result<(), Failure> {
    // The client runs on a single thread, so that it takes little of the machine.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut report = report::Report::default();
    match arguments.only {
        Some(Only::Embedded) => embedded(arguments, &runtime, &mut report)?,
        Some(Only::Postgres) => postgres::measure(arguments, &runtime, &mut report)?,
        None => {
            embedded(arguments, &runtime, &mut report)?;
            postgres::measure(arguments, &runtime, &mut report)?;
        }
    }
    report.print();
    Ok(())
}

/// Measures the server with its embedded store.
fn embedded(
    arguments: &Arguments,
    runtime: &Runtime,
    report: &mut report::Report,
) -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let deployment = Deployment::embedded(folder.path());
    let duration = Duration::from_secs(arguments.seconds);

    let setup = setup::prepare(&deployment, INTEGRATIONS)?;
    eprintln!("filling the store with {} records", arguments.records);
    let mut writer = store::open(&deployment)?;
    store::fill(writer.as_mut(), &setup, arguments.records)?;
    for group in [100, 1_000, 4_000] {
        report.store(group, store::measure(writer.as_mut(), &setup, group, duration)?);
    }
    drop(writer);
    runtime.block_on(async {
        let server = server::Running::start(&deployment).await?;
        let run = async |name: &'static str, connections, make: &client::Make<'_>| {
            client::run(&[&server.address], connections, duration, make).await.map(|r| (name, r))
        };
        report.http(run("E: no store, 64 connections", 64, &setup.null()).await?);
        report.http(run(report::OPEN, 64, &setup.open()).await?);
        report.http(run("single ingest, 64 connections", 64, &setup.single()).await?);
        report.http(run("single ingest, 256 connections", 256, &setup.single()).await?);
        report.http(run("batches of 100, 16 connections", 16, &setup.batch()).await?);
        report.http(run("batches of 100, 64 connections", 64, &setup.batch()).await?);
        report.http(run("check, 64 connections", 64, &setup.check()).await?);
        report.http(run("reserve, 64 connections", 64, &setup.reserve()).await?);
        report.memory(server.resident_kib());
        let second = Duration::from_secs(1);
        let summary = client::run(&[&server.address], 1, second, &setup.summary()).await?;
        report.summary(arguments.records, summary);
        server.stop().await?;
        Ok::<(), Failure>(())
    })?;
    limits::measure(&deployment, &setup, duration, runtime, report)?;
    if arguments.records_large > arguments.records {
        large(arguments, runtime, &deployment, &setup, report)?;
    }
    Ok(())
}

/// Measures reads of a large store.
fn large(
    arguments: &Arguments,
    runtime: &Runtime,
    deployment: &Deployment,
    setup: &Setup,
    report: &mut report::Report,
) -> Result<(), Failure> {
    eprintln!("filling the store up to {} records", arguments.records_large);
    let mut writer = store::open(deployment)?;
    store::fill(writer.as_mut(), setup, arguments.records_large - arguments.records)?;
    drop(writer);
    runtime.block_on(async {
        let server = server::Running::start(deployment).await?;
        let second = Duration::from_secs(1);
        let summary = client::run(&[&server.address], 1, second, &setup.summary()).await?;
        report.summary(arguments.records_large, summary);
        report.reads(arguments.records_large, reads::measure(&server.address, setup).await?);
        for format in ["csv", "ndjson"] {
            report.export(format, reads::export(&server.address, setup, format).await?);
        }
        report.memory(server.resident_kib());
        server.stop().await
    })
}
