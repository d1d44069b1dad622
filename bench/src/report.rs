//! The report: results as a table with ratios.

use crate::client::Run;

#[derive(Default)]
pub(crate) struct Report {
    stores: Vec<(usize, f64)>,
    runs: Vec<(&'static str, Run)>,
    resident_kib: Vec<Option<u64>>,
    summaries: Vec<(u64, Run)>,
    reads: Vec<(u64, Vec<(String, Run)>)>,
    exports: Vec<(&'static str, (f64, f64))>,
    postgres: Postgres,
}

/// Results on PostgreSQL.
#[derive(Default)]
struct Postgres {
    stores: Vec<(String, f64)>,
    /// Records a second of the bare store's quickest transaction on one writer.
    base: f64,
    runs: Vec<(&'static str, Run)>,
}

/// The targets of the measurements, as parts of E or S.
const TARGETS: &[(&str, f64, Base)] = &[
    ("single ingest, 64 connections", 0.25, Base::Requests),
    ("batches of 100, 16 connections", 0.8, Base::Records),
    ("batches of 100, 64 connections", 0.8, Base::Records),
    ("check, 64 connections", 0.6, Base::Requests),
    ("reserve, 64 connections", 0.22, Base::Requests),
    ("single ingest, five limits", 0.5, Base::Run("single ingest, 64 connections")),
    ("batches of 100, five limits", 0.5, Base::Run("batches of 100, 16 connections")),
    ("check, five limits", 0.5, Base::Run("check, 64 connections")),
    ("reserve, five limits", 0.5, Base::Run("reserve, 64 connections")),
    (
        "single ingest, a limit for each of 100,000 agents",
        1.0,
        Base::Run("single ingest, a limit for each of 100 agents"),
    ),
];
/// The result of E without authentication and protection.
pub(crate) const OPEN: &str = "E without authentication and protection, 64 connections";
/// The target for batches through a node on PostgreSQL, as a part of P.
const POSTGRES_TARGET: f64 = 0.6;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Base {
    Requests,
    Records,
    /// Another measurement.
    Run(&'static str),
}

impl Report {
    pub(crate) fn store(&mut self, group: usize, rate: f64) {
        eprintln!("S: groups of {group}: {rate:.0} records/s");
        self.stores.push((group, rate));
    }

    pub(crate) fn http(&mut self, (name, run): (&'static str, Run)) {
        eprintln!("{name}: {:.0} requests/s", run.rate());
        self.runs.push((name, run));
    }

    pub(crate) fn memory(&mut self, resident_kib: Option<u64>) {
        self.resident_kib.push(resident_kib);
    }

    pub(crate) fn summary(&mut self, records: u64, run: Run) {
        self.summaries.push((records, run));
    }

    pub(crate) fn reads(&mut self, records: u64, runs: Vec<(String, Run)>) {
        self.reads.push((records, runs));
    }

    /// Entries and bytes a second.
    pub(crate) fn export(&mut self, format: &'static str, rates: (f64, f64)) {
        self.exports.push((format, rates));
    }

    /// Records a second of the bare store on PostgreSQL, in groups on one writer: P.
    pub(crate) fn postgres_store(&mut self, group: usize, rate: f64) {
        self.postgres.base = self.postgres.base.max(rate);
        self.postgres_writers(format!("groups of {group}"), rate);
    }

    /// Records a second of the bare store on PostgreSQL, on several concurrent writers.
    pub(crate) fn postgres_writers(&mut self, name: String, rate: f64) {
        eprintln!("P: {name}: {rate:.0} records/s");
        self.postgres.stores.push((name, rate));
    }

    pub(crate) fn postgres_http(&mut self, (name, run): (&'static str, Run)) {
        eprintln!("PostgreSQL: {name}: {:.0} requests/s", run.rate());
        self.postgres.runs.push((name, run));
    }

    pub(crate) fn print(&self) {
        let e = self.runs.first().map_or(f64::NAN, |(_, run)| run.rate());
        let s = self.stores.iter().map(|(_, rate)| *rate).fold(0.0, f64::max);
        println!("| measurement | a second | p50 ms | p99 ms | ratio | bar |");
        println!("|---|---|---|---|---|---|");
        for (group, rate) in &self.stores {
            println!("| S: bare store, groups of {group} | {rate:.0} | | | | |");
        }
        for (name, run) in &self.runs {
            let bar = TARGETS.iter().find(|(bar, _, _)| bar == name);
            let by_record = run.records > run.requests;
            let rate = if by_record { run.record_rate() } else { run.rate() };
            let mut ratio =
                if by_record { format!("{:.2} S", rate / s) } else { format!("{:.2} E", rate / e) };
            let bar = bar.map_or_else(String::new, |(_, bar, base)| match base {
                Base::Records => format!("{bar} S"),
                Base::Requests => format!("{bar} E"),
                Base::Run(of) => {
                    let base = self.runs.iter().find(|(name, _)| name == of);
                    let base = base.map_or(f64::NAN, |(_, run)| run.rate());
                    ratio = format!("{ratio}; {:.2} of {of}", run.rate() / base);
                    format!("{bar} of it")
                }
            });
            let (p50, p99) = (run.quantile_ms(0.5), run.quantile_ms(0.99));
            println!("| {name} | {rate:.0} | {p50:.2} | {p99:.2} | {ratio} | {bar} |");
        }
        let open = self.runs.iter().find(|(name, _)| *name == OPEN);
        if let Some((_, open)) = open {
            let added_us = (1.0 / e - 1.0 / open.rate()) * 1e6;
            println!("| authentication and protection add, us a request | {added_us:.2} | | | | |");
        }
        for (records, run) in &self.summaries {
            let (p50, p99) = (run.quantile_ms(0.5), run.quantile_ms(0.99));
            let rate = run.rate();
            println!(
                "| summary of 30 days at {records} records | {rate:.0} | {p50:.2} | {p99:.2} | | 5 ms |"
            );
        }
        for (records, runs) in &self.reads {
            for (name, run) in runs {
                let (rate, p50, p99) = (run.rate(), run.quantile_ms(0.5), run.quantile_ms(0.99));
                println!("| {name}, at {records} | {rate:.0} | {p50:.2} | {p99:.2} | | |");
            }
        }
        for (format, (rows, bytes)) in &self.exports {
            let megabytes = bytes / 1e6;
            println!("| export as {format}: entries | {rows:.0} ({megabytes:.0} MB) | | | | |");
        }
        for resident_kib in self.resident_kib.iter().flatten() {
            println!("| resident memory | {} MiB | | | | 200 MB |", resident_kib / 1024);
        }
        self.print_postgres(e);
    }

    fn print_postgres(&self, e: f64) {
        let Postgres { stores, base, runs } = &self.postgres;
        for (name, rate) in stores {
            let ratio = rate / base;
            println!("| P: bare store on PostgreSQL, {name} | {rate:.0} | | | {ratio:.2} P | |");
        }
        for (name, run) in runs {
            let (p50, p99) = (run.quantile_ms(0.5), run.quantile_ms(0.99));
            let (rate, ratio, bar) = if run.records > run.requests {
                let rate = run.record_rate();
                (rate, format!("{:.2} P", rate / base), format!("{POSTGRES_TARGET} P"))
            } else if e.is_nan() {
                (run.rate(), String::new(), String::new())
            } else {
                (run.rate(), format!("{:.2} E", run.rate() / e), String::new())
            };
            println!("| PostgreSQL: {name} | {rate:.0} | {p50:.2} | {p99:.2} | {ratio} | {bar} |");
        }
    }
}
