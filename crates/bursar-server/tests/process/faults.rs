//! A disk that fails or is full: the server returns 503 and never acknowledges what is not stored.
//!
//! After each fault the server is killed and restarted on a working disk.

use std::time::Duration;

use bursar_testing::process::books::Books;
use bursar_testing::process::disk::{SmallDisk, serve_with_small_files};
use bursar_testing::process::folder::Folder;
use bursar_testing::process::server::{Process, Server};
use bursar_testing::process::strace::{Fault, SYNCS, WRITES};
use bursar_testing::process::tenant::Tenant;
use bursar_testing::process::writer::{Outcome, Writer, check_acknowledged};
use bursar_testing::waiting::scale;

const SEED: u64 = 7;
const WRITERS: usize = 4;
const BUDGET_CENTS: u64 = 1_000_000_000_000;
/// The maximal duration of a start after a crash, even with the longest WAL.
const RESTART_MAX: Duration = Duration::from_secs(2);
/// The write-ahead log, which every commit writes and syncs.
const WAL: &str = "bursar.db-wal";
/// The database, which a checkpoint writes.
const DATABASE: &str = "bursar.db";

/// A folder with a tenant, and writers that outlive its servers.
struct Site {
    folder: Folder,
    tenant: Tenant,
    writers: Vec<Writer>,
}

/// The outcomes of the writers of a run.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    acknowledged: usize,
    unavailable: usize,
}

impl Site {
    fn new() -> Self {
        let folder = Folder::new();
        let server = Server::start(&folder);
        let (tenant, writers) = create_writers(&folder, &server);
        server.stop();
        empty_wal(&folder);
        Self { folder, tenant, writers }
    }

    /// Runs each writer until this many of its steps were acknowledged or refused.
    fn write(&mut self, server: &Server, acknowledged: usize, unavailable: usize) -> Tally {
        write_all(&mut self.writers, &self.tenant, server, acknowledged, unavailable)
    }

    /// Kills the server, starts another on a working disk, and checks its data. Returns the
    /// duration of the start.
    #[track_caller]
    fn check_after_kill(&mut self, server: Server) -> Duration {
        server.kill();
        let server = Server::start(&self.folder);
        let ready_after = server.ready_after;
        check_acknowledged(&self.writers, &Books::read(&server, &self.tenant));
        // Settles the steps in doubt, because a later server would confirm a stored one without
        // writing.
        let tally = self.write(&server, 1, 1);
        assert_eq!(tally.unavailable, 0, "a write failed on a working disk");
        server.stop();
        empty_wal(&self.folder);
        ready_after
    }
}

/// Restarts the server, which empties the WAL, so that afterwards only system calls of the writer
/// thread are counted.
fn empty_wal(folder: &Folder) {
    Server::start(folder).stop();
}

fn create_writers(folder: &Folder, server: &Server) -> (Tenant, Vec<Writer>) {
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
) -> Tally {
    let write = |writer: &mut Writer| {
        let mut http = tenant.client(server);
        let mut tally = Tally::default();
        while tally.acknowledged < acknowledged_max && tally.unavailable < unavailable_max {
            match writer.step(&mut http) {
                Outcome::Acknowledged => tally.acknowledged += 1,
                // Confirming it needed no write.
                Outcome::Confirmed => {}
                Outcome::Unavailable => tally.unavailable += 1,
                Outcome::Lost(how) => panic!("a failing disk ended the server: {how:?}"),
            }
        }
        tally
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            writers.iter_mut().map(|writer| scope.spawn(|| write(writer))).collect();
        threads.into_iter().fold(Tally::default(), |sum, thread| {
            let tally = thread.join().expect("a writer");
            Tally {
                acknowledged: sum.acknowledged + tally.acknowledged,
                unavailable: sum.unavailable + tally.unavailable,
            }
        })
    })
}

fn fault(calls: &'static str, error: &'static str, when: String) -> Fault {
    Fault { calls, error, when, file: WAL }
}

/// The disk fails for a while: its group gets 503, and the server continues.
#[track_caller]
fn check_transient(site: &mut Site, fault: &Fault) {
    const STEPS: usize = 25;
    let server = Server::start_with(&site.folder, fault.serve(&site.folder));
    let tally = site.write(&server, STEPS, 200);
    assert_eq!(tally.acknowledged, WRITERS * STEPS, "it did not recover: {fault:?}, {tally:?}");
    let injected = Fault::injected(&site.folder);
    assert!(injected > 0, "{fault:?} was never injected");
    assert!(tally.unavailable > 0, "{fault:?} was injected {injected} times, and no write got 503");
    check_acknowledged(&site.writers, &Books::read(&server, &site.tenant));
    site.check_after_kill(server);
}

/// The disk fails permanently: nothing that needs a write is acknowledged.
#[track_caller]
fn check_permanent(site: &mut Site, fault: &Fault) {
    const REFUSALS: usize = 6;
    let server = Server::start_with(&site.folder, fault.serve(&site.folder));
    let tally = site.write(&server, 1_000, REFUSALS);
    assert_eq!(tally.unavailable, WRITERS * REFUSALS, "{fault:?}, {tally:?}");
    let again = site.write(&server, 1, REFUSALS);
    assert_eq!(again.acknowledged, 0, "acknowledged on a disk that fails: {fault:?}, {again:?}");
    // Reads need no working disk.
    check_acknowledged(&site.writers, &Books::read(&server, &site.tenant));
    site.check_after_kill(server);
}

#[test]
fn a_failed_sync_returns_503_to_its_group_and_loses_nothing() {
    let mut site = Site::new();
    for nth in 1..=scale(3, 12) {
        check_transient(&mut site, &fault(SYNCS, "EIO", nth.to_string()));
    }
}

#[test]
fn a_write_without_disk_space_returns_503_to_its_group_and_loses_nothing() {
    let mut site = Site::new();
    for nth in scale(vec![1, 2, 7], (1..=16).chain([25, 40, 60]).collect()) {
        check_transient(&mut site, &fault(WRITES, "ENOSPC", nth.to_string()));
    }
}

#[test]
fn writes_resume_when_a_failed_disk_works_again() {
    let mut site = Site::new();
    for first in scale(vec![2], vec![1, 2, 3, 5, 8]) {
        check_transient(&mut site, &fault(SYNCS, "EIO", format!("{first}..{}", first + 8)));
        check_transient(&mut site, &fault(WRITES, "ENOSPC", format!("{first}..{}", first + 20)));
        check_transient(&mut site, &fault(WRITES, "EIO", format!("{first}..{}", first + 20)));
    }
}

#[test]
fn a_permanently_failing_disk_returns_503_and_never_acknowledges() {
    let mut site = Site::new();
    for first in scale(vec![1, 4], vec![1, 2, 3, 4, 6, 9, 13]) {
        check_permanent(&mut site, &fault(SYNCS, "EIO", format!("{first}+")));
        check_permanent(&mut site, &fault(WRITES, "ENOSPC", format!("{first}+")));
    }
}

/// A long WAL is checkpointed into the database. Commits are safe in the WAL and may be
/// acknowledged; the checkpoint must not lose a page.
#[test]
fn a_disk_failure_during_a_checkpoint_loses_nothing() {
    let mut site = Site::new();
    site.writers = site.writers.into_iter().map(|writer| writer.with_batches(1_000)).collect();
    let faults = [(SYNCS, "EIO", "1..3"), (WRITES, "ENOSPC", "2..30"), (WRITES, "EIO", "1+")];
    for (calls, error, when) in scale(&faults[..1], &faults[..]) {
        let fault = Fault { calls, error, when: (*when).to_owned(), file: DATABASE };
        let server = Server::start_with(&site.folder, fault.serve(&site.folder));
        let mut tally = Tally::default();
        let mut rounds_after = 0;
        for _ in 0..200 {
            let more = site.write(&server, 10, 20);
            tally.acknowledged += more.acknowledged;
            tally.unavailable += more.unavailable;
            rounds_after += usize::from(Fault::injected(&site.folder) > 0);
            if rounds_after > 3 {
                break;
            }
        }
        assert_eq!(tally.unavailable, 0, "a commit to the WAL failed: {fault:?}");
        assert!(Fault::injected(&site.folder) > 0, "{fault:?} was never injected, {tally:?}");
        check_acknowledged(&site.writers, &Books::read(&server, &site.tenant));
        let log = std::fs::metadata(site.folder.file(WAL)).expect("the log").len() / 1_000_000;
        let ready_after = site.check_after_kill(server);
        println!("{tally:?}; a restart over a log of {log} MB took {ready_after:?}");
        assert!(ready_after <= RESTART_MAX, "{ready_after:?} over {log} MB");
    }
}

#[test]
fn a_disk_failure_at_startup_refuses_the_start_and_loses_nothing() {
    let mut site = Site::new();
    for (calls, file) in [(SYNCS, WAL), (SYNCS, DATABASE), (WRITES, DATABASE)] {
        // The WAL of a killed server is checkpointed at the next start.
        let server = Server::start(&site.folder);
        let tally = site.write(&server, 10, 1);
        assert_eq!(tally.unavailable, 0);
        server.kill();

        let fault = Fault { calls, error: "EIO", when: "1+".to_owned(), file };
        let mut process = Process::start(&mut fault.serve(&site.folder));
        let status = process.wait_for_exit(Duration::from_secs(15));

        assert_eq!(status.code(), Some(1), "{fault:?}");
        assert!(site.folder.log().contains("cannot use"), "{}", site.folder.log());
        let server = Server::start(&site.folder);
        check_acknowledged(&site.writers, &Books::read(&server, &site.tenant));
        server.stop();
    }
}

/// Writes until the disk is full, and checks the outcomes.
#[track_caller]
fn fill(site: &mut Site, server: &Server) {
    const REFUSALS: usize = 6;
    let tally = site.write(server, 20_000, REFUSALS);
    assert!(tally.unavailable >= REFUSALS, "the disk was never full: {tally:?}");
    check_acknowledged(&site.writers, &Books::read(server, &site.tenant));
}

/// Mounting needs root and may be forbidden in containers. The tests of an injected ENOSPC and of
/// the file size limit cover that case.
#[test]
fn a_full_disk_returns_503_and_is_used_again_when_there_is_space() {
    let folder = Folder::new();
    let Some(disk) = SmallDisk::mount(folder.beside("disk"), 32) else {
        return;
    };
    let data = disk.path().canonicalize().expect("a path").join("data");
    let folder = folder.with_data(data);
    let server = Server::start(&folder);
    let (tenant, writers) = create_writers(&folder, &server);
    let mut site = Site { folder, tenant, writers };

    fill(&mut site, &server);
    disk.grow(128);
    let tally = site.write(&server, 5, 10);

    assert_eq!(tally.acknowledged, WRITERS * 5, "it did not recover: {tally:?}");
    site.check_after_kill(server);
}

#[test]
fn a_file_size_limit_returns_503_and_loses_nothing() {
    let folder = Folder::new();
    let server = Server::start_with(&folder, serve_with_small_files(&folder, 1_500));
    let (tenant, writers) = create_writers(&folder, &server);
    let mut site = Site { folder, tenant, writers };

    fill(&mut site, &server);

    site.check_after_kill(server);
    let server = Server::start(&site.folder);
    let tally = site.write(&server, 5, 1);
    assert_eq!(tally.unavailable, 0, "{tally:?}");
    site.check_after_kill(server);
}
