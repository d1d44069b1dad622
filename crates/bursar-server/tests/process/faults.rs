//! A disk that fails or is full: 503 and nothing lost, never an acknowledgement of what is not
//! stored.
//!
//! After each fault the server is killed and started again on a disk that works.

use std::time::Duration;

use bursar_testing::process::books::Books;
use bursar_testing::process::disk::{SmallDisk, serve_with_small_files};
use bursar_testing::process::folder::Folder;
use bursar_testing::process::server::{Process, Server};
use bursar_testing::process::strace::{Fault, SYNCS, WRITES};
use bursar_testing::process::tenant::Tenant;
use bursar_testing::process::writer::{Outcome, Writer, check_promises};
use bursar_testing::waiting::scale;

const SEED: u64 = 7;
const WRITERS: usize = 4;
const BUDGET_CENTS: u64 = 1_000_000_000_000;
/// In how long a server must answer after a crash, even when its log is as long as it may become.
const RESTART_MAX: Duration = Duration::from_secs(2);
/// The log that every commit writes and syncs.
const LOG: &str = "bursar.db-wal";
/// The file into which the log is moved.
const FILE: &str = "bursar.db";

/// A folder with a tenant, and writers that remember across servers.
struct Site {
    folder: Folder,
    tenant: Tenant,
    writers: Vec<Writer>,
}

/// What the writers of a run were told.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    acknowledged: usize,
    unavailable: usize,
}

impl Site {
    fn new() -> Self {
        let folder = Folder::new();
        let server = Server::start(&folder);
        let (tenant, writers) = staff(&folder, &server);
        server.stop();
        empty_log(&folder);
        Self { folder, tenant, writers }
    }

    /// Lets every writer write until so many of its steps were acknowledged, or refused.
    fn write(&mut self, server: &Server, acknowledged: usize, unavailable: usize) -> Told {
        write_all(&mut self.writers, &self.tenant, server, acknowledged, unavailable)
    }

    /// Kills the server, starts another on a good disk, and checks what it has. Answers how long
    /// it took to start.
    #[track_caller]
    fn check_after_kill(&mut self, server: Server) -> Duration {
        server.kill();
        let server = Server::start(&self.folder);
        let ready_after = server.ready_after;
        check_promises(&self.writers, &Books::read(&server, &self.tenant));
        // What was in doubt is settled here: it may be stored, and a later server would then
        // confirm it without writing anything.
        let told = self.write(&server, 1, 1);
        assert_eq!(told.unavailable, 0, "a disk that works");
        server.stop();
        empty_log(&self.folder);
        ready_after
    }
}

/// Lets a start move the log into the file, so that the calls that are counted from then on are
/// those of the thread that writes.
fn empty_log(folder: &Folder) {
    Server::start(folder).stop();
}

fn staff(folder: &Folder, server: &Server) -> (Tenant, Vec<Writer>) {
    let mut tenant = Tenant::new(folder, server);
    tenant.add_integration(server, BUDGET_CENTS);
    tenant.add_integration(server, BUDGET_CENTS);
    let writers = Writer::several(&tenant, WRITERS, SEED);
    (tenant, writers)
}

fn write_all(
    writers: &mut [Writer],
    tenant: &Tenant,
    server: &Server,
    acknowledged_max: usize,
    unavailable_max: usize,
) -> Told {
    let write = |writer: &mut Writer| {
        let mut http = tenant.client(server);
        let mut told = Told::default();
        while told.acknowledged < acknowledged_max && told.unavailable < unavailable_max {
            match writer.step(&mut http) {
                Outcome::Acknowledged => told.acknowledged += 1,
                // Nothing had to be written for it.
                Outcome::Confirmed => {}
                Outcome::Unavailable => told.unavailable += 1,
                Outcome::Lost(how) => panic!("a failing disk ended the server: {how:?}"),
            }
        }
        told
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            writers.iter_mut().map(|writer| scope.spawn(|| write(writer))).collect();
        threads.into_iter().fold(Told::default(), |sum, thread| {
            let told = thread.join().expect("a writer");
            Told {
                acknowledged: sum.acknowledged + told.acknowledged,
                unavailable: sum.unavailable + told.unavailable,
            }
        })
    })
}

fn fault(calls: &'static str, error: &'static str, when: String) -> Fault {
    Fault { calls, error, when, file: LOG }
}

/// The disk fails for a while: the group at fault is answered with 503, and the server goes on.
#[track_caller]
fn check_passing(site: &mut Site, fault: &Fault) {
    const STEPS: usize = 25;
    let server = Server::start_by(&site.folder, fault.serve(&site.folder));
    let told = site.write(&server, STEPS, 200);
    assert_eq!(told.acknowledged, WRITERS * STEPS, "it did not recover: {fault:?}, {told:?}");
    let met = Fault::met(&site.folder);
    assert!(met > 0, "{fault:?} was never met");
    assert!(told.unavailable > 0, "{fault:?} was met {met} times, and nobody was told");
    check_promises(&site.writers, &Books::read(&server, &site.tenant));
    site.check_after_kill(server);
}

/// The disk fails for good: from then on nothing that has to be written is acknowledged.
#[track_caller]
fn check_lasting(site: &mut Site, fault: &Fault) {
    const REFUSALS: usize = 6;
    let server = Server::start_by(&site.folder, fault.serve(&site.folder));
    let told = site.write(&server, 1_000, REFUSALS);
    assert_eq!(told.unavailable, WRITERS * REFUSALS, "{fault:?}, {told:?}");
    let again = site.write(&server, 1, REFUSALS);
    assert_eq!(again.acknowledged, 0, "acknowledged on a disk that fails: {fault:?}, {again:?}");
    // Reading needs no working disk.
    check_promises(&site.writers, &Books::read(&server, &site.tenant));
    site.check_after_kill(server);
}

#[test]
fn a_sync_that_fails_once_costs_its_group_a_503_and_loses_nothing() {
    let mut site = Site::new();
    for nth in 1..=scale(3, 12) {
        check_passing(&mut site, &fault(SYNCS, "EIO", nth.to_string()));
    }
}

#[test]
fn a_write_for_which_there_is_no_room_once_costs_its_group_a_503_and_loses_nothing() {
    let mut site = Site::new();
    for nth in scale(vec![1, 2, 7], (1..=16).chain([25, 40, 60]).collect()) {
        check_passing(&mut site, &fault(WRITES, "ENOSPC", nth.to_string()));
    }
}

#[test]
fn a_disk_that_fails_for_a_while_is_used_again_when_it_works() {
    let mut site = Site::new();
    for first in scale(vec![2], vec![1, 2, 3, 5, 8]) {
        check_passing(&mut site, &fault(SYNCS, "EIO", format!("{first}..{}", first + 8)));
        check_passing(&mut site, &fault(WRITES, "ENOSPC", format!("{first}..{}", first + 20)));
        check_passing(&mut site, &fault(WRITES, "EIO", format!("{first}..{}", first + 20)));
    }
}

#[test]
fn a_disk_that_fails_for_good_is_answered_with_503_and_never_with_success() {
    let mut site = Site::new();
    for first in scale(vec![1, 4], vec![1, 2, 3, 4, 6, 9, 13]) {
        check_lasting(&mut site, &fault(SYNCS, "EIO", format!("{first}+")));
        check_lasting(&mut site, &fault(WRITES, "ENOSPC", format!("{first}+")));
    }
}

/// The log is moved into the file when it has become long. Commits are safe in the log, so that
/// they may be acknowledged; what must not happen is that a page is lost in between.
#[test]
fn a_disk_that_fails_while_the_log_is_moved_loses_nothing() {
    let mut site = Site::new();
    site.writers = site.writers.into_iter().map(|writer| writer.with_batches(1_000)).collect();
    let faults = [(SYNCS, "EIO", "1..3"), (WRITES, "ENOSPC", "2..30"), (WRITES, "EIO", "1+")];
    for (calls, error, when) in scale(&faults[..1], &faults[..]) {
        let fault = Fault { calls, error, when: (*when).to_owned(), file: FILE };
        let server = Server::start_by(&site.folder, fault.serve(&site.folder));
        let mut told = Told::default();
        let mut rounds_after = 0;
        for _ in 0..200 {
            let more = site.write(&server, 10, 20);
            told.acknowledged += more.acknowledged;
            told.unavailable += more.unavailable;
            rounds_after += usize::from(Fault::met(&site.folder) > 0);
            if rounds_after > 3 {
                break;
            }
        }
        assert_eq!(told.unavailable, 0, "the log takes what the file does not: {fault:?}");
        assert!(Fault::met(&site.folder) > 0, "{fault:?} was never met, {told:?}");
        check_promises(&site.writers, &Books::read(&server, &site.tenant));
        let log = std::fs::metadata(site.folder.file(LOG)).expect("the log").len() / 1_000_000;
        let ready_after = site.check_after_kill(server);
        println!("{told:?}; a restart over a log of {log} MB took {ready_after:?}");
        assert!(ready_after <= RESTART_MAX, "{ready_after:?} over {log} MB");
    }
}

#[test]
fn a_disk_that_fails_at_the_start_refuses_the_start_and_loses_nothing() {
    let mut site = Site::new();
    for (calls, file) in [(SYNCS, LOG), (SYNCS, FILE), (WRITES, FILE)] {
        // What a killed server leaves in its log has to be moved at the next start.
        let server = Server::start(&site.folder);
        let told = site.write(&server, 10, 1);
        assert_eq!(told.unavailable, 0);
        server.kill();

        let fault = Fault { calls, error: "EIO", when: "1+".to_owned(), file };
        let mut process = Process::start(&mut fault.serve(&site.folder));
        let status = process.end_within(Duration::from_secs(15));

        assert_eq!(status.code(), Some(1), "{fault:?}");
        assert!(site.folder.log().contains("cannot use"), "{}", site.folder.log());
        let server = Server::start(&site.folder);
        check_promises(&site.writers, &Books::read(&server, &site.tenant));
        server.stop();
    }
}

/// Fills a disk, and checks what is told and kept. Answers the server, still on the full disk.
#[track_caller]
fn fill(site: &mut Site, server: &Server) {
    const REFUSALS: usize = 6;
    let told = site.write(server, 20_000, REFUSALS);
    assert!(told.unavailable >= REFUSALS, "the disk was never full: {told:?}");
    check_promises(&site.writers, &Books::read(server, &site.tenant));
}

/// Mounting takes root and may be forbidden even then, as in some containers of CI. There the
/// injected ENOSPC above and the limit on the size of files below stand for it.
#[test]
fn a_full_disk_is_answered_with_503_and_used_again_when_there_is_room() {
    let folder = Folder::new();
    let Some(disk) = SmallDisk::mount(folder.beside("disk"), 32) else {
        return;
    };
    let data = disk.path().canonicalize().expect("a path").join("data");
    let folder = folder.with_data(data);
    let server = Server::start(&folder);
    let (tenant, writers) = staff(&folder, &server);
    let mut site = Site { folder, tenant, writers };

    fill(&mut site, &server);
    disk.grow(128);
    let told = site.write(&server, 5, 10);

    assert_eq!(told.acknowledged, WRITERS * 5, "it did not recover: {told:?}");
    site.check_after_kill(server);
}

#[test]
fn a_file_that_cannot_grow_is_answered_with_503_and_loses_nothing() {
    let folder = Folder::new();
    let server = Server::start_by(&folder, serve_with_small_files(&folder, 1_500));
    let (tenant, writers) = staff(&folder, &server);
    let mut site = Site { folder, tenant, writers };

    fill(&mut site, &server);

    site.check_after_kill(server);
    let server = Server::start(&site.folder);
    let told = site.write(&server, 5, 1);
    assert_eq!(told.unavailable, 0, "{told:?}");
    site.check_after_kill(server);
}
