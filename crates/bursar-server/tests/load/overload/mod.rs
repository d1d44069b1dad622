//! Ten times the capacity, in 256 MiB: the throughput stays, the rest is refused, and nothing is
//! lost.
//!
//! With `BURSAR_PROVE=1` the test runs longer, with more clients, and checks the throughput too.

mod books;
mod load_client;
mod plan;
mod quiet;
mod slow;

use std::fs::File;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bursar_testing::memory_cgroup::MemoryCgroup;
use bursar_testing::process::descriptors::raise_descriptors;
use bursar_testing::process::folder::Folder;
use bursar_testing::process::server::Server;
use bursar_testing::process::tenant::Tenant;
use bursar_testing::waiting::{scale, within};
use rustix::fs::{Advice, fadvise};

use crate::memory::{MemoryWatch, Residents};
use crate::overload::books::check_books;
use crate::overload::load_client::{Crowd, LoadClient, Pace, Tally, Target, run_load};
use crate::overload::plan::Mix;
use crate::overload::quiet::{Latencies, Quiet};
use crate::overload::slow::Slow;
use crate::percentile::percentile;

/// The memory limit of the server.
const MEMORY_MAX: u64 = 256 * 1024 * 1024;
/// The maximal ratio of memory in the second half of the load to the first.
const GROWTH_MAX: f64 = 1.10;
/// The ratio of the load to the capacity.
const OVERLOAD: f64 = 10.0;
/// The minimal ratio of acknowledged requests to the capacity.
const GOODPUT_MIN: f64 = 0.8;
/// The minimal ratio of the sent load to the capacity.
const OFFERED_MIN: f64 = 8.0;
/// Tenants of the ordinary load clients.
const LOAD_TENANTS: usize = 6;
/// A budget that is never used up.
const BUDGET_CENTS: u64 = 1_000_000_000_000;
/// Clients that send the largest batches, and their records a second together.
const WIDE_CLIENTS: usize = 2;
const WIDE_PACE: f64 = 1_000.0;
/// The tolerance of the success ratio.
const SUCCESS_TOLERANCE: f64 = 0.02;
/// The maximal p99 of the quiet tenant.
const QUIET_P99_MAX: Duration = Duration::from_secs(2);
/// The maximal time until a lone request is fast again.
const RECOVERY_MAX: Duration = Duration::from_secs(5);

/// The server and all clients of the test.
struct Scene {
    folder: Folder,
    server: Server,
    cgroup: Option<MemoryCgroup>,
    target: Arc<Target>,
    slow: Tenant,
    /// All load clients so far.
    clients: Vec<LoadClient>,
    next_number: usize,
}

/// The measurements of the overload.
struct Seen {
    tally: Tally,
    /// Records and reservations a second: acknowledged and sent.
    goodput: f64,
    offered: f64,
    residents: Residents,
    quiet: Latencies,
}

impl Scene {
    /// A server with a store larger than its memory, so that its capacity does not fall during the
    /// measurement.
    fn new() -> (Self, Quiet) {
        raise_descriptors(3_000 + 2 * scale(400, 2_000));
        let folder = Folder::new();
        let server = Server::start(&folder);
        let tenant = || {
            let mut tenant = Tenant::new(&folder, &server);
            tenant.add_integration(&server, BUDGET_CENTS);
            tenant
        };
        let tenants: Vec<Tenant> = (0..LOAD_TENANTS).map(|_| tenant()).collect();
        let (slow, quiet) = (tenant(), tenant());
        let target = Arc::new(Target { address: address(&server), tenants });
        let clients = Vec::new();
        let scene = Self { folder, server, cgroup: None, target, slow, clients, next_number: 0 };
        let scene = scene.fill().in_memory_cgroup();
        let quiet = Quiet::new(&quiet, &scene.server, quiet.integrations.first().expect("one"));
        (scene, quiet)
    }

    fn fill(mut self) -> Self {
        self.run(32, Pace::Closed, scale(Duration::from_millis(500), Duration::from_secs(90)));
        self
    }

    /// Restarts the server in a memory cgroup.
    fn in_memory_cgroup(self) -> Self {
        let Self { folder, server, target, slow, clients, next_number, .. } = self;
        server.stop();
        forget_pages(&folder);
        let cgroup = MemoryCgroup::new(MEMORY_MAX);
        let server = match &cgroup {
            Some(cgroup) => {
                let procs_file = cgroup.procs_file();
                let procs_file = procs_file.to_str().expect("a path");
                let enter = "echo $$ > \"$0\" && exec \"$@\"";
                Server::start_with(&folder, folder.serve_under("sh", &["-c", enter, procs_file]))
            }
            None => {
                println!("without a cgroup only the resident memory is limited");
                Server::start(&folder)
            }
        };
        let tenants = Arc::into_inner(target).expect("no client is left").tenants;
        let target = Arc::new(Target { address: address(&server), tenants });
        Self { folder, server, cgroup, target, slow, clients, next_number }
    }

    fn crowd(&mut self, mix: Mix, clients: usize, pace: Pace) -> Crowd {
        let first = self.next_number;
        self.next_number += clients;
        Crowd { mix, numbers: first..self.next_number, pace }
    }

    /// Runs clients for a time, with some that send the largest batches.
    fn run(&mut self, clients: usize, pace: Pace, time: Duration) -> Tally {
        let ordinary = self.crowd(Mix::Ordinary, clients, pace);
        let wide = self.crowd(Mix::Wide, WIDE_CLIENTS, Pace::Open(WIDE_PACE));
        let target = &self.target;
        let mut clients = std::thread::scope(|scope| {
            let wide = scope.spawn(move || run_load(target, wide, time));
            let mut clients = run_load(target, ordinary, time);
            clients.extend(wide.join().expect("the wide clients"));
            clients
        });
        let tally = Tally::of(&clients);
        assert_eq!(tally.unexpected, Vec::<String>::new());
        self.clients.append(&mut clients);
        tally
    }

    /// The capacity: the most acknowledged requests a second over several numbers of clients.
    fn peak(&mut self) -> f64 {
        let time = scale(Duration::from_millis(700), Duration::from_secs(4));
        let mut peak: f64 = 0.0;
        for clients in scale(vec![16, 64], vec![8, 32, 128]) {
            let tally = self.run(clients, Pace::Closed, time);
            let goodput = tally.acknowledged as f64 / time.as_secs_f64();
            println!("{clients} clients: {goodput:.0} a second, {} requests", tally.answers);
            peak = peak.max(goodput);
        }
        peak
    }

    /// Brings the server into its state under load. A new one has more of the cgroup's memory for
    /// pages of its file, and is faster until its connections and queues have taken theirs.
    fn warm_up(&mut self) {
        let fresh = self.peak();
        let time = scale(Duration::from_millis(500), Duration::from_secs(4));
        self.run(scale(400, 2_000), Pace::Open(OVERLOAD * fresh), time);
    }

    fn overload(&mut self, quiet: Quiet, peak: f64) -> (Quiet, Seen) {
        let time = scale(Duration::from_secs(4), Duration::from_secs(40));
        let slow = Slow::start(&self.slow, self.target.address, scale(8, 40));
        let memory = MemoryWatch::start(self.server.pid());
        let running = quiet.start();
        let tally = self.run(scale(400, 2_000), Pace::Open(OVERLOAD * peak), time);
        let (quiet, latencies) = running.end();
        let residents = memory.end();
        drop(slow);
        let goodput = tally.acknowledged as f64 / time.as_secs_f64();
        let offered = tally.sent as f64 / time.as_secs_f64();
        (quiet, Seen { tally, goodput, offered, residents, quiet: latencies })
    }
}

impl Scene {
    /// Stops the server and checks its records with a server outside of the cgroup.
    fn close(self) {
        let Self { folder, server, cgroup, target, clients, .. } = self;
        server.stop();
        if let Some(cgroup) = &cgroup {
            assert_eq!(cgroup.kills(), 0, "the kernel killed a process for lack of memory");
        }
        let verified = folder.run(&["db", "verify"]);
        println!("{}", verified.trim());
        assert!(verified.contains(": 0 differences"), "{verified}");
        let server = Server::start(&folder);
        let acknowledged = check_books(server.address(), &target.tenants, &clients);
        println!("{acknowledged} records were acknowledged and are stored once");
        server.stop();
    }
}

/// Drops the data file from the page cache. A cgroup counts only pages that it read itself, so with
/// a warm cache the server would be too fast at first.
fn forget_pages(folder: &Folder) {
    let data = File::open(folder.file("bursar.db")).expect("the data file");
    data.sync_all().expect("pages on the disk");
    fadvise(&data, 0, None, Advice::DontNeed).expect("advice");
}

fn address(server: &Server) -> SocketAddr {
    server.address().parse().expect("an address")
}

/// The latency of lone requests: the median of several medians.
fn lone_latency(quiet: &mut Quiet) -> Duration {
    let mut medians: Vec<Duration> = (0..5).map(|_| quiet.median()).collect();
    medians.sort_unstable();
    percentile(&medians, 50)
}

/// The time until a lone request takes at most twice as long as before the load.
fn recover(quiet: &mut Quiet, before: Duration) -> Option<Duration> {
    let ended = Instant::now();
    within(RECOVERY_MAX, || (quiet.median() <= before * 2).then(|| ended.elapsed()))
}

#[test]
fn ten_times_the_capacity_is_handled_in_256_mib() {
    let _alone = crate::alone();
    let (mut scene, mut quiet) = Scene::new();
    scene.warm_up();
    let before = scene.peak();
    let lone_before = lone_latency(&mut quiet);

    let (mut quiet, seen) = scene.overload(quiet, before);
    let recovered = recover(&mut quiet, lone_before);

    // The store grew, so its capacity is between that before and that after the load.
    let peak = f64::midpoint(before, scene.peak());
    seen.print(peak, before);
    println!(
        "a lone request took {lone_before:?}, and at most twice that again after {recovered:?}"
    );
    scene.close();
    seen.check(peak);
    assert!(recovered.is_some(), "a lone request took {lone_before:?} before the load");
}

impl Seen {
    fn print(&self, peak: f64, before: f64) {
        let Self { tally, goodput, offered, residents, quiet } = self;
        println!(
            "peak {peak:.0} a second ({before:.0} before the load); {offered:.0} were offered ({:.1} \
             times), {goodput:.0} acknowledged ({:.0} %), {} refused; {} answers",
            offered / peak,
            100.0 * goodput / peak,
            tally.refused,
            tally.answers
        );
        for (name, kind) in [("settle", &tally.settlements), ("reserve", &tally.admissions)] {
            println!(
                "{name}: {:.2} % of {} at the first try, p50 {:?}, p99 {:?}",
                100.0 * kind.success(),
                kind.answers,
                percentile(&kind.took, 50),
                percentile(&kind.took, 99)
            );
        }
        println!("resident, in MiB, by tenths: {:?}", residents.curve_mib());
        println!(
            "quiet tenant: {} requests, p50 {:?}, p99 {:?}, slowest {:?}",
            quiet.count(),
            quiet.percent(50),
            quiet.percent(99),
            quiet.percent(100)
        );
    }

    #[track_caller]
    fn check(&self, peak: f64) {
        let (first_kib, second_kib) = self.residents.halves_kib();
        assert!(first_kib.max(second_kib) * 1024 <= MEMORY_MAX, "too much memory");
        assert!(self.quiet.percent(99) <= QUIET_P99_MAX, "the quiet tenant is slow");
        let Tally { settlements, admissions, .. } = &self.tally;
        let least = admissions.success() - SUCCESS_TOLERANCE;
        assert!(
            settlements.success() >= least,
            "settlements are refused more often than admissions"
        );
        // A short run of a debug build says nothing about throughput.
        if scale(false, true) {
            assert!(self.offered >= peak * OFFERED_MIN, "too little load");
            assert!(second_kib as f64 <= first_kib as f64 * GROWTH_MAX, "memory grows");
            assert!(self.goodput >= peak * GOODPUT_MIN, "goodput");
        }
    }
}
