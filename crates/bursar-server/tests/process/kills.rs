//! SIGKILL at random moments: each acknowledged record is stored once, and all sums agree.

use std::time::Duration;

use bursar_testing::chance::Chance;
use bursar_testing::process::books::Books;
use bursar_testing::process::folder::Folder;
use bursar_testing::process::server::{Process, Server};
use bursar_testing::process::tenant::Tenant;
use bursar_testing::process::writer::{Writer, check_acknowledged};
use bursar_testing::waiting::{scale, within};

const SEED: u64 = 20_261_120;
const WRITERS: usize = 8;
/// More than the writers can spend.
const BUDGET_CENTS: u64 = 1_000_000_000_000;
/// The maximal duration of a start after a crash.
const RESTART_MAX: Duration = Duration::from_secs(2);
/// Records of a batch, which make the WAL long, and the bytes of one checkpoint.
const BATCH: usize = 500;
const CHECKPOINT_BYTES: u64 = 16 * 1024 * 1024;
/// The timeout of growing the WAL to that size.
const WAL_WAIT_MAX: Duration = Duration::from_secs(20);
/// More steps than a writer takes between two kills.
const STEPS_MAX: usize = 20_000;

#[test]
fn acknowledged_records_are_stored_once_after_a_kill() {
    let kills = scale(3, 30);
    let mut folder = Folder::new();
    // The limit on a day's cost counts all calls, and refuses none.
    folder.set("BURSAR_PROTECTION_COST_CENTS_DAY", "1000000000");
    let mut server = Server::start(&folder);
    let mut tenant = Tenant::new(&folder, &server);
    tenant.add_integration(&server, BUDGET_CENTS);
    tenant.add_integration(&server, BUDGET_CENTS);
    let mut writers = Writer::several(&tenant, WRITERS, SEED);
    let mut chance = Chance::new(SEED);
    let mut restarts = Vec::new();

    for kill in 0..kills {
        // Every third server is killed right after its start.
        let millis = if kill % 3 == 2 { chance.below(20) } else { 50 + chance.below(600) };
        write_until_killed(server, &tenant, &mut writers, || {
            // The sleep only chooses the moment of the kill.
            std::thread::sleep(Duration::from_millis(millis));
        });
        if kill % 3 == 0 {
            kill_while_starting(&folder, Duration::from_millis(chance.below(40)));
        }

        server = Server::start(&folder);
        restarts.push(server.ready_after);
        check_acknowledged(&writers, &Books::read(&server, &tenant));
    }

    let mut clients: Vec<_> = writers.iter().map(|_| tenant.client(&server)).collect();
    for (writer, http) in writers.iter_mut().zip(&mut clients) {
        assert!(writer.write(http, 20).is_none(), "a request failed without a kill");
    }
    server.stop();
    let server = Server::start(&folder);
    let acknowledged = check_acknowledged(&writers, &Books::read(&server, &tenant));
    server.stop();
    let verified = folder.run(&["db", "verify"]);
    assert!(verified.ends_with(" 0 differences\n"), "{verified}");

    restarts.sort();
    let repeated: usize = writers.iter().map(|writer| writer.repeated).sum();
    let median = restarts.get(restarts.len() / 2).copied().unwrap_or_default();
    let slowest = restarts.last().copied().unwrap_or_default();
    println!(
        "{kills} kills under load, {acknowledged} records acknowledged, {repeated} steps repeated; \
         restarts took {median:?} (median), {slowest:?} (slowest)"
    );
    assert!(slowest <= RESTART_MAX, "{restarts:?}");
    assert!(repeated > 0, "no kill interrupted a request");
}

/// Batches make a long WAL that is checkpointed in parts and restarted.
#[test]
fn acknowledged_records_survive_a_kill_during_a_checkpoint() {
    let folder = Folder::new();
    let mut server = Server::start(&folder);
    let mut tenant = Tenant::new(&folder, &server);
    tenant.add_integration(&server, BUDGET_CENTS);
    let writers = Writer::several(&tenant, WRITERS, SEED + 1);
    let mut writers: Vec<_> =
        writers.into_iter().map(|writer| writer.with_batches(BATCH)).collect();
    let mut chance = Chance::new(SEED + 1);
    let (mut wal_max, mut restarts) = (0, Vec::new());

    for _ in 0..scale(2, 15) {
        let wal_bytes =
            || std::fs::metadata(folder.file("bursar.db-wal")).map_or(0, |wal| wal.len());
        let millis = chance.below(1_200);
        write_until_killed(server, &tenant, &mut writers, || {
            within(WAL_WAIT_MAX, || (wal_bytes() >= CHECKPOINT_BYTES).then_some(()));
            // The sleep only chooses the moment of the kill.
            std::thread::sleep(Duration::from_millis(millis));
        });
        wal_max = wal_bytes().max(wal_max);
        server = Server::start(&folder);
        restarts.push(server.ready_after);
        check_acknowledged(&writers, &Books::read(&server, &tenant));
    }
    server.stop();

    let slowest = restarts.iter().max().copied().unwrap_or_default();
    println!("a WAL of up to {wal_max} bytes; the slowest restart took {slowest:?}");
    assert!(wal_max >= CHECKPOINT_BYTES, "the WAL is too short for a checkpoint: {wal_max} bytes");
    assert!(slowest <= RESTART_MAX, "{restarts:?}");
}

#[test]
fn a_server_killed_during_its_first_start_starts_afterwards() {
    let mut chance = Chance::new(SEED);
    for _ in 0..scale(4, 40) {
        let folder = Folder::new();
        kill_while_starting(&folder, Duration::from_micros(chance.below(60_000)));
        let server = Server::start(&folder);
        let mut tenant = Tenant::new(&folder, &server);
        tenant.add_integration(&server, BUDGET_CENTS);
        let mut writer = Writer::new(&tenant, 0, SEED);
        let _ = writer.write(&mut tenant.client(&server), 5);
        server.kill();
        let server = Server::start(&folder);
        check_acknowledged(&[writer], &Books::read(&server, &tenant));
    }
}

/// Runs the writers, kills the server, and waits until all writers noticed.
fn write_until_killed(
    server: Server,
    tenant: &Tenant,
    writers: &mut [Writer],
    wait: impl FnOnce(),
) {
    std::thread::scope(|scope| {
        for writer in writers {
            let mut http = tenant.client(&server);
            scope.spawn(move || {
                let lost = writer.write(&mut http, STEPS_MAX);
                assert!(lost.is_some(), "a writer finished before the kill");
            });
        }
        wait();
        server.kill();
    });
}

fn kill_while_starting(folder: &Folder, after: Duration) {
    let mut process = Process::start(&mut folder.serve());
    // The sleep only chooses the moment of the kill.
    std::thread::sleep(after);
    process.kill();
}
