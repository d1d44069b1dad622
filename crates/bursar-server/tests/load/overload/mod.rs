//! Ten times what the server can do, in 256 MiB: it does as much as before, says no to the rest,
//! and loses nothing.
//!
//! With `BURSAR_PROVE=1` the same test takes longer, has more clients and checks the figures too.

mod books;
mod loud;
mod plan;
mod quiet;
mod slow;
mod support;

use std::fs::File;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bursar_testing::cage::Cage;
use bursar_testing::process::descriptors::raise_descriptors;
use bursar_testing::process::folder::Folder;
use bursar_testing::process::server::Server;
use bursar_testing::process::tenant::Tenant;
use bursar_testing::waiting::{scale, within};
use rustix::fs::{Advice, fadvise};

use crate::memory::{MemoryWatch, Residents};
use crate::overload::books::check_books;
use crate::overload::loud::{Crowd, Loud, Pace, Tally, Target, load};
use crate::overload::plan::Mix;
use crate::overload::quiet::{Latencies, Quiet};
use crate::overload::slow::Slow;
use crate::overload::support::percentile;

/// What the server may have.
const MEMORY_MAX: u64 = 256 * 1024 * 1024;
/// How much more memory the second half of the load may take than the first.
const GROWTH_MAX: f64 = 1.10;
/// How much more than the capacity is asked for.
const OVERLOAD: f64 = 10.0;
/// The part of the peak that must be left of what is acknowledged.
const GOODPUT_MIN: f64 = 0.8;
/// What the clients must at least have come to ask for.
const OFFERED_MIN: f64 = 8.0;
/// Tenants of the ordinary loud clients.
const LOUD_TENANTS: usize = 6;
/// Integrations have a budget, far above what is spent.
const BUDGET_CENTS: u64 = 1_000_000_000_000;
/// Clients that send the largest batches, and records that they send a second together.
const WIDE_CLIENTS: usize = 2;
const WIDE_PACE: f64 = 1_000.0;
/// What chance may do to the part of requests that is not refused.
const CHANCE: f64 = 0.02;
/// The slowest of a hundred requests of the quiet tenant.
const QUIET_P99_MAX: Duration = Duration::from_secs(2);
/// Until when a lone request must be quick again.
const RECOVERY_MAX: Duration = Duration::from_secs(5);

/// Everything that the proof is done with.
struct Scene {
    folder: Folder,
    server: Server,
    cage: Option<Cage>,
    target: Arc<Target>,
    slow: Tenant,
    /// All loud clients until now.
    clients: Vec<Loud>,
    next_number: usize,
}

/// What was seen during the overload.
struct Seen {
    tally: Tally,
    /// Records and reservations that were acknowledged and asked for in a second.
    goodput: f64,
    offered: f64,
    residents: Residents,
    quiet: Latencies,
}

impl Scene {
    /// A server with a store that is larger than its memory, so that what it can do does not fall
    /// while it is measured.
    fn new() -> (Self, Quiet) {
        raise_descriptors(3_000 + 2 * scale(400, 2_000));
        let folder = Folder::new();
        let server = Server::start(&folder);
        let tenant = || {
            let mut tenant = Tenant::new(&folder, &server);
            tenant.add_integration(&server, BUDGET_CENTS);
            tenant
        };
        let tenants: Vec<Tenant> = (0..LOUD_TENANTS).map(|_| tenant()).collect();
        let (slow, quiet) = (tenant(), tenant());
        let target = Arc::new(Target { address: address(&server), tenants });
        let clients = Vec::new();
        let scene = Self { folder, server, cage: None, target, slow, clients, next_number: 0 };
        let scene = scene.fill().caged();
        let quiet = Quiet::new(&quiet, &scene.server, quiet.integrations.first().expect("one"));
        (scene, quiet)
    }

    fn fill(mut self) -> Self {
        self.work(32, Pace::Closed, scale(Duration::from_millis(500), Duration::from_secs(90)));
        self
    }

    /// The same with another server, in a cage.
    fn caged(self) -> Self {
        let Self { folder, server, target, slow, clients, next_number, .. } = self;
        server.stop();
        forget_pages(&folder);
        let cage = Cage::new(MEMORY_MAX);
        let server = match &cage {
            Some(cage) => {
                let door = cage.door();
                let door = door.to_str().expect("a path");
                let enter = "echo $$ > \"$0\" && exec \"$@\"";
                Server::start_by(&folder, folder.serve_under("sh", &["-c", enter, door]))
            }
            None => {
                println!("without a cgroup, only what is resident is bounded");
                Server::start(&folder)
            }
        };
        let tenants = Arc::into_inner(target).expect("no client is left").tenants;
        let target = Arc::new(Target { address: address(&server), tenants });
        Self { folder, server, cage, target, slow, clients, next_number }
    }

    fn crowd(&mut self, mix: Mix, clients: usize, pace: Pace) -> Crowd {
        let first = self.next_number;
        self.next_number += clients;
        Crowd { mix, numbers: first..self.next_number, pace }
    }

    /// Lets clients work for a time, with some that send the largest batches; what came of it.
    fn work(&mut self, clients: usize, pace: Pace, time: Duration) -> Tally {
        let ordinary = self.crowd(Mix::Ordinary, clients, pace);
        let wide = self.crowd(Mix::Wide, WIDE_CLIENTS, Pace::Open(WIDE_PACE));
        let target = &self.target;
        let mut worked = std::thread::scope(|scope| {
            let wide = scope.spawn(move || load(target, wide, time));
            let mut worked = load(target, ordinary, time);
            worked.extend(wide.join().expect("the wide clients"));
            worked
        });
        let tally = Tally::of(&worked);
        assert_eq!(tally.odd, Vec::<String>::new(), "neither done nor refused as it should be");
        self.clients.append(&mut worked);
        tally
    }

    /// The most that is acknowledged in a second, by as many clients as are best for it.
    fn peak(&mut self) -> f64 {
        let time = scale(Duration::from_millis(700), Duration::from_secs(4));
        let mut peak: f64 = 0.0;
        for clients in scale(vec![16, 64], vec![8, 32, 128]) {
            let tally = self.work(clients, Pace::Closed, time);
            let goodput = tally.acknowledged as f64 / time.as_secs_f64();
            println!("{clients} clients: {goodput:.0} a second, {} requests", tally.answers);
            peak = peak.max(goodput);
        }
        peak
    }

    /// Brings the server into the state that it has under load. A new one has more of the cage left
    /// for pages of its file, and is faster until its connections and queues have had their memory.
    fn warm_up(&mut self) {
        let fresh = self.peak();
        let time = scale(Duration::from_millis(500), Duration::from_secs(4));
        self.work(scale(400, 2_000), Pace::Open(OVERLOAD * fresh), time);
    }

    fn overload(&mut self, quiet: Quiet, peak: f64) -> (Quiet, Seen) {
        let time = scale(Duration::from_secs(4), Duration::from_secs(40));
        let slow = Slow::gather(&self.slow, self.target.address, scale(8, 40));
        let memory = MemoryWatch::start(self.server.pid());
        let at_work = quiet.work();
        let tally = self.work(scale(400, 2_000), Pace::Open(OVERLOAD * peak), time);
        let (quiet, latencies) = at_work.end();
        let residents = memory.end();
        drop(slow);
        let goodput = tally.acknowledged as f64 / time.as_secs_f64();
        let offered = tally.sent as f64 / time.as_secs_f64();
        (quiet, Seen { tally, goodput, offered, residents, quiet: latencies })
    }
}

impl Scene {
    /// Ends the server, and checks what it stored, with one that is not in a cage.
    fn close(self) {
        let Self { folder, server, cage, target, clients, .. } = self;
        server.stop();
        if let Some(cage) = &cage {
            assert_eq!(cage.kills(), 0, "the system killed a process for want of memory");
        }
        let verified = folder.run(&["db", "verify"]);
        println!("{}", verified.trim());
        assert!(verified.contains(": 0 differences"), "{verified}");
        let server = Server::start(&folder);
        let acknowledged = check_books(server.address(), &target.tenants, &clients);
        println!("{acknowledged} records were acknowledged, and are there once");
        server.stop();
    }
}

/// Drops what the system has of the data file in its cache. A cage bounds only pages that were read in
/// it: with the others at hand the server would be quicker at first than it can be.
fn forget_pages(folder: &Folder) {
    let data = File::open(folder.file("bursar.db")).expect("the data file");
    data.sync_all().expect("pages on the disk");
    fadvise(&data, 0, None, Advice::DontNeed).expect("advice");
}

fn address(server: &Server) -> SocketAddr {
    server.address().parse().expect("an address")
}

/// The median of lone requests, when nothing else is left to be done.
fn lone(quiet: &mut Quiet) -> Duration {
    let mut medians: Vec<Duration> = (0..5).map(|_| quiet.median()).collect();
    medians.sort_unstable();
    percentile(&medians, 50)
}

/// How long after the load a lone request was as quick as before, nearly.
fn recover(quiet: &mut Quiet, before: Duration) -> Option<Duration> {
    let ended = Instant::now();
    within(RECOVERY_MAX, || (quiet.median() <= before * 2).then(|| ended.elapsed()))
}

#[test]
fn ten_times_the_capacity_is_borne_in_256_mib() {
    let _alone = crate::alone();
    let (mut scene, mut quiet) = Scene::new();
    scene.warm_up();
    let before = scene.peak();
    let lone_before = lone(&mut quiet);

    let (mut quiet, seen) = scene.overload(quiet, before);
    let recovered = recover(&mut quiet, lone_before);

    // What a store of this size bears is between what it bore before and what it bears after.
    let peak = f64::midpoint(before, scene.peak());
    seen.print(peak, before);
    println!(
        "a lone request took {lone_before:?}, and was nearly as quick again {recovered:?} after"
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
        println!("resident, in MiB, tenth by tenth: {:?}", residents.curve_mib());
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
        assert!(self.quiet.percent(99) <= QUIET_P99_MAX, "the quiet tenant waits");
        let Tally { settlements, admissions, .. } = &self.tally;
        let least = admissions.success() - CHANCE;
        assert!(settlements.success() >= least, "admissions go first");
        // A few seconds of a build for tests, beside other tests, measure nothing.
        if scale(false, true) {
            assert!(self.offered >= peak * OFFERED_MIN, "too little was asked for");
            assert!(second_kib as f64 <= first_kib as f64 * GROWTH_MAX, "memory grows");
            assert!(self.goodput >= peak * GOODPUT_MIN, "goodput");
        }
    }
}
