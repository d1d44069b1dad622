//! Backups of a server under load, and restores, also when they are killed.

use std::collections::HashMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bursar_testing::chance::Chance;
use bursar_testing::process::books::{Books, Entry};
use bursar_testing::process::folder::Folder;
use bursar_testing::process::http::Http;
use bursar_testing::process::server::{Process, Server};
use bursar_testing::process::tenant::Tenant;
use bursar_testing::process::writer::{Outcome, Writer, check_acknowledged};
use bursar_testing::waiting::scale;

const SEED: u64 = 20_261_121;
const WRITERS: usize = 8;
const BUDGET_CENTS: u64 = 1_000_000_000_000;
/// Steps of each writer before the first backup, so that it has data.
const FIRST_STEPS: usize = 40;
/// The maximal duration of a write during a backup; seconds would mean that it waited for the
/// backup.
const WRITE_MAX: Duration = Duration::from_secs(2);

/// Writers under load, with the duration of each step.
struct Load<'a> {
    writers: &'a [Mutex<Writer>],
    is_over: AtomicBool,
    /// Whether a backup is running.
    is_backing_up: AtomicBool,
    /// Durations of the steps during backups, and of all others.
    times: [Mutex<Vec<Duration>>; 2],
}

impl Load<'_> {
    fn write(&self, writer: &Mutex<Writer>, http: &mut Http) {
        while !self.is_over.load(Ordering::Relaxed) {
            let mut writer = writer.lock().expect("no writer panicked");
            let (is_backing_up, since) =
                (self.is_backing_up.load(Ordering::Relaxed), Instant::now());
            let outcome = writer.step(http);
            let took = since.elapsed();
            assert!(matches!(outcome, Outcome::Acknowledged | Outcome::Confirmed), "{outcome:?}");
            let [during, otherwise] = &self.times;
            let times = if is_backing_up { during } else { otherwise };
            times.lock().expect("no writer panicked").push(took);
        }
    }

    /// All records acknowledged so far.
    fn acknowledged(&self) -> HashMap<String, Entry> {
        let mut all = HashMap::new();
        for writer in self.writers {
            let writer = writer.lock().expect("no writer panicked");
            all.extend(writer.records().iter().map(|(id, entry)| (id.clone(), entry.clone())));
        }
        all
    }

    /// The median, 99th percentile, maximum and number of the steps.
    fn latencies(&self, which: usize) -> (Duration, Duration, Duration, usize) {
        let times = self.times.get(which).expect("two kinds");
        let mut times = times.lock().expect("no writer panicked").clone();
        times.sort();
        let at = |per_cent: usize| {
            times.get(times.len().saturating_sub(1) * per_cent / 100).copied().unwrap_or_default()
        };
        (at(50), at(99), at(100), times.len())
    }
}

#[test]
fn a_backup_under_load_has_every_record_acknowledged_before_it_began() {
    let backups = scale(3, 20);
    let folder = Folder::new();
    let server = Server::start(&folder);
    let mut tenant = Tenant::new(&folder, &server);
    tenant.add_integration(&server, BUDGET_CENTS);
    tenant.add_integration(&server, BUDGET_CENTS);
    let mut writers = Writer::several(&tenant, WRITERS, SEED);
    for writer in &mut writers {
        assert!(writer.write(&mut tenant.client(&server), FIRST_STEPS).is_none());
    }
    let writers: Vec<Mutex<Writer>> = writers.into_iter().map(Mutex::new).collect();
    let load = Load {
        writers: &writers,
        is_over: AtomicBool::new(false),
        is_backing_up: AtomicBool::new(false),
        times: [Mutex::default(), Mutex::default()],
    };

    let mut made = Vec::new();
    std::thread::scope(|scope| {
        for writer in &writers {
            let (load, mut http) = (&load, tenant.client(&server));
            scope.spawn(move || load.write(writer, &mut http));
        }
        for number in 0..backups {
            let acknowledged = load.acknowledged();
            let file = folder.beside(&format!("backup-{number}"));
            load.is_backing_up.store(true, Ordering::Relaxed);
            let stdout = folder.run(&["db", "backup", &file.to_string_lossy()]);
            load.is_backing_up.store(false, Ordering::Relaxed);
            made.push((file, acknowledged, stdout));
        }
        load.is_over.store(true, Ordering::Relaxed);
    });
    server.stop();

    for (file, acknowledged, _) in &made {
        check_backup(&folder, &tenant, file, acknowledged);
    }
    let ((median, slow, slowest, during), (usual, usual_slow, _, _)) =
        (load.latencies(0), load.latencies(1));
    let (_, _, last) = made.last().expect("a backup");
    println!(
        "{backups} backups under {WRITERS} writers, the last one {}; {during} steps while one ran \
         took {median:?} (median), {slow:?} (p99), {slowest:?} (slowest); without one {usual:?} \
         and {usual_slow:?}",
        last.trim()
    );
    assert!(during > WRITERS, "hardly anything was written during a backup");
    assert!(slowest < WRITE_MAX, "a write waited {slowest:?}");
}

/// Verifies a backup, and the data that a server on it shows.
#[track_caller]
fn check_backup(
    origin: &Folder,
    tenant: &Tenant,
    file: &Path,
    acknowledged: &HashMap<String, Entry>,
) {
    let path = file.to_string_lossy();
    let verified = origin.run(&["db", "verify", &path]);
    assert!(verified.contains(": 0 differences"), "{verified}");
    let folder = Folder::new();
    let key = origin.file("secret-key");
    folder.run(&["db", "restore", &path, "--secret-key", &key.to_string_lossy()]);
    let server = Server::start(&folder);
    let books = Books::read(&server, tenant);
    for (call_id, entry) in acknowledged {
        assert_eq!(books.entries.get(call_id), Some(entry), "{call_id} of {path}");
    }
    server.stop();
}

#[test]
fn a_restore_yields_exactly_the_backed_up_records() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    let mut tenant = Tenant::new(&folder, &server);
    tenant.add_integration(&server, BUDGET_CENTS);
    let mut early = Writer::new(&tenant, 0, SEED);
    let mut late = Writer::new(&tenant, 1, SEED);
    assert!(early.write(&mut tenant.client(&server), FIRST_STEPS).is_none());
    let before = Books::read(&server, &tenant);
    let file = folder.beside("backup");
    let path = file.to_string_lossy();
    folder.run(&["db", "backup", &path]);
    assert!(late.write(&mut tenant.client(&server), FIRST_STEPS).is_none());

    let refused = folder.command(&["db", "restore", &path, "--force"]).output().expect("run");
    let blamed = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{blamed}");
    assert!(blamed.contains("is in use by another bursar process"), "{blamed}");
    let both = Books::read(&server, &tenant);
    // Killed, so that some commits are only in the WAL when the restore starts.
    server.kill();
    let stdout = folder.run(&["db", "restore", &path, "--force"]);

    let server = Server::start(&folder);
    let restored = Books::read(&server, &tenant);
    assert_eq!(restored.entries, before.entries);
    assert_eq!(restored.holds, before.holds);
    assert!(early.write(&mut tenant.client(&server), 5).is_none());
    check_acknowledged(&[early], &Books::read(&server, &tenant));
    server.stop();

    let (_, aside) = stdout.trim().rsplit_once(' ').expect("where the old file is");
    folder.run(&["db", "restore", aside, "--force"]);
    let server = Server::start(&folder);
    let back = Books::read(&server, &tenant);
    assert_eq!(back.entries, both.entries);
    assert_eq!(back.holds, both.holds);
    server.stop();
}

#[test]
fn a_restore_that_is_killed_leaves_the_old_or_the_new_store() {
    let folder = Folder::new();
    Server::start(&folder).stop();
    let (new, old) = (folder.beside("new"), folder.beside("old"));
    let [new, old] = [&new, &old].map(|path| path.to_string_lossy().into_owned());
    folder.run(&["tenant", "create", "first"]);
    folder.run(&["db", "backup", &new]);
    folder.run(&["tenant", "create", "second"]);
    folder.run(&["db", "backup", &old]);
    let since = Instant::now();
    folder.run(&["db", "restore", &old, "--force"]);
    let duration = u64::try_from(since.elapsed().as_micros()).expect("a moment");
    let mut chance = Chance::new(SEED);
    let mut seen = [0; 2];

    for _ in 0..scale(12, 150) {
        let mut restore = folder.command(&["db", "restore", &new, "--force"]);
        let mut process = Process::start(restore.stdout(Stdio::null()).stderr(Stdio::null()));
        // The sleep only chooses the moment of the kill.
        std::thread::sleep(Duration::from_micros(chance.below(duration + duration / 4)));
        process.kill();

        // Opening the store for writing completes or undoes an interrupted restore.
        let tenants = folder.run(&["tenant", "list"]);
        let verified = folder.run(&["db", "verify"]);
        assert!(verified.contains(": 0 differences"), "{verified}");
        let is_old = tenants.contains("second");
        let (rows, known) = if is_old { ("2 tenants", 1) } else { ("1 tenant\n", 0) };
        assert!(tenants.contains("first") && tenants.contains(rows), "{tenants}");
        *seen.get_mut(known).expect("two kinds") += 1;
        if !is_old {
            folder.run(&["db", "restore", &old, "--force"]);
        }
    }
    println!("{} killed restores left the new store, {} the old one", seen[0], seen[1]);
}

#[test]
fn a_terminated_backup_leaves_no_partial_file() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    let file = folder.beside("backup");
    let mut chance = Chance::new(SEED);
    for _ in 0..scale(5, 50) {
        let mut backup = folder.command(&["db", "backup", &file.to_string_lossy()]);
        let mut process = Process::start(backup.stdout(Stdio::null()).stderr(Stdio::null()));
        // The sleep only chooses the moment of the end.
        std::thread::sleep(Duration::from_micros(chance.below(20_000)));
        // The process may have ended already.
        if process.exit_status().is_none() {
            bursar_testing::process::server::send_signal("TERM", process.pid());
        }
        process.wait_for_exit(Duration::from_secs(10));
        let root = file.parent().expect("a folder");
        let names = std::fs::read_dir(root).expect("listed").filter_map(Result::ok);
        let left: Vec<_> = names
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| name.starts_with("backup.partial"))
            .collect();
        assert_eq!(left, [""; 0]);
        let _ = std::fs::remove_file(&file);
    }
    server.stop();
}
