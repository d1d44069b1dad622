//! The measurements of an attack, and whether they are accepted.

use std::fmt;
use std::time::{Duration, Instant};

use bursar_testing::process::memory::resident_kib;
use bursar_testing::waiting::{scale, within};

use crate::hostile::attack::{Attack, Client};
use crate::hostile::honest::{Caller, HonestCallers, Probe, Seen};
use crate::hostile::running_clients::{RunningClients, Tally};
use crate::hostile::scene::Scene;
use crate::memory::{MemoryWatch, Residents};

/// The honest callers run for this time before the attack, as the baseline of memory.
const WARM_UP: Duration = Duration::from_millis(400);
/// The duration of an attack in an ordinary run.
const SHORT: Duration = Duration::from_secs(2);
/// The maximal growth of the server's memory during an attack. It includes the budgets of bodies
/// (48 MiB) and responses (32 MiB), of which one tenant gets a quarter, the values parsed from
/// them, the queue of the writer and its cache.
const PEAK_KIB_MAX: u64 = 200 * 1024;
/// The maximal growth from the first to the second half of an attack, for effects of the allocator.
/// An ordinary run ends before the caches are warm.
fn growth_kib_max() -> u64 {
    scale(96, 32) * 1024
}
/// The maximal growth after an attack: the allocator does not return everything.
const LEFT_KIB_MAX: u64 = 160 * 1024;
/// The maximal time of the recovery.
const RECOVERY_MAX: Duration = Duration::from_secs(5);
/// Consecutive good rounds of all honest requests that count as recovered.
const ROUNDS: usize = 3;

/// The measurements of an attack.
pub(crate) struct Verdict {
    name: &'static str,
    statuses: &'static [u16],
    is_cut: bool,
    disk_mib_max: Option<u64>,
    p99_times: u32,
    lasted: Duration,
    tally: Tally,
    seen: Vec<(Probe, Option<Seen>)>,
    before_kib: u64,
    during: Residents,
    disk_mib: u64,
    recovery: Result<Duration, String>,
}

impl Verdict {
    /// Runs an attack.
    pub(crate) fn measure(attack: &Attack, scene: &Scene, clients: Vec<Client>) -> Self {
        let warm_up = HonestCallers::start(scene);
        std::thread::sleep(WARM_UP);
        let (before_kib, before_disk) = (resident_kib(scene.pid()), scene.disk_bytes());
        drop(warm_up.end());
        let lasts = scale(SHORT, attack.lasts);

        let (memory, callers) = (MemoryWatch::start(scene.pid()), HonestCallers::start(scene));
        let attackers = RunningClients::start(clients, scene.address());
        std::thread::sleep(lasts);
        let tally = attackers.end();
        let ended = Instant::now();
        let seen = callers.end();
        let during = memory.end();
        let recovery = recover(scene, ended, before_kib);
        let disk_mib = scene.disk_bytes().saturating_sub(before_disk) / 1024 / 1024;
        let Attack { name, statuses, is_cut, disk_mib_max, p99_times, .. } = *attack;
        Self {
            name,
            statuses,
            is_cut,
            disk_mib_max,
            p99_times,
            lasted: lasts,
            tally,
            seen,
            before_kib,
            during,
            disk_mib,
            recovery,
        }
    }

    /// The violated limits.
    pub(crate) fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        if self.tally.connections == 0 {
            failures.push("the attacker had no connection".to_owned());
        }
        for (status, (count, example)) in &self.tally.answers {
            if !self.statuses.contains(status) && !matches!(status, 429 | 503) {
                failures.push(format!("the attacker got {count} times {status}: {example}"));
            }
        }
        if self.is_cut && self.tally.cuts == 0 {
            failures.push("no connection of the attacker was cut".to_owned());
        }
        if self.disk_mib_max.is_some_and(|most| self.disk_mib > most) {
            failures.push(format!("the data grew by {} MiB", self.disk_mib));
        }
        for (probe, seen) in &self.seen {
            let Some(seen) = seen else {
                failures.push(format!("{probe:?} got no response"));
                continue;
            };
            if seen.percent(99) > probe.p99_max() * self.p99_times {
                failures.push(format!("the p99 of {probe:?} is {:?}", seen.percent(99)));
            }
            if !seen.failures.is_empty() {
                failures.push(format!("{probe:?} failed: {:?}", seen.failures));
            }
        }
        let (first, second) = self.during.halves_kib();
        if first.max(second) > self.before_kib + PEAK_KIB_MAX {
            failures.push(format!("memory rose by {} KiB", first.max(second) - self.before_kib));
        }
        if second > first + growth_kib_max() {
            failures.push(format!("memory is not flat: {} KiB more", second - first));
        }
        if let Err(problem) = &self.recovery {
            failures.push(format!("not normal {RECOVERY_MAX:?} after: {problem}"));
        }
        failures
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, lasted, tally, seen, before_kib, during, disk_mib, recovery, .. } = self;
        let answers: Vec<String> = tally
            .answers
            .iter()
            .map(|(status, (count, _))| format!("{count} times {status}"))
            .collect();
        writeln!(
            f,
            "{name}: {lasted:?} of {} connections, {} cut, answered [{}]",
            tally.connections,
            tally.cuts,
            answers.join(", ")
        )?;
        let unusual = tally.answers.iter().filter(|(status, _)| **status >= 400);
        for (status, (_, example)) in unusual {
            writeln!(f, "  {status}: {example}")?;
        }
        for (probe, seen) in seen {
            let Some(seen) = seen else {
                writeln!(f, "  {probe:?}: gave up")?;
                continue;
            };
            writeln!(
                f,
                "  {probe:?}: {} requests, p50 {:?}, p99 {:?}, slowest {:?}, failures {:?}",
                seen.took.len(),
                seen.percent(50),
                seen.percent(99),
                seen.percent(100),
                seen.failures
            )?;
        }
        let curve = during.curve_mib();
        writeln!(f, "  MiB resident: {} before, then by tenths {curve:?}", before_kib / 1024)?;
        write!(f, "  data: {disk_mib} MiB more; back to normal: {recovery:?}")
    }
}

/// The time until everyone is served as before and memory is back, or what was still wrong at the
/// timeout.
fn recover(scene: &Scene, ended: Instant, before_kib: u64) -> Result<Duration, String> {
    let mut callers = Probe::ALL.map(|probe| Caller::new(scene, probe));
    let mut attacker = scene.attacker_client();
    let (mut good, mut problem) = (0, String::new());
    let left = RECOVERY_MAX.saturating_sub(ended.elapsed());
    let recovered = within(left, || {
        let mut round = || -> Result<(), String> {
            for caller in &mut callers {
                caller.check()?;
            }
            let answer = attacker.get("/api/v1/telemetry/usage-history?limit=1");
            match answer {
                Ok(answer) if answer.is_success() => {}
                // The attacker still exceeds its own rate.
                Ok(answer) if matches!(answer.code(), "THROTTLED" | "RATE_LIMITED") => {}
                other => return Err(format!("the attacker's own tenant: {other:?}")),
            }
            let left_kib = resident_kib(scene.pid()).saturating_sub(before_kib);
            if left_kib > LEFT_KIB_MAX {
                return Err(format!("{left_kib} KiB of memory are left"));
            }
            Ok(())
        };
        match round() {
            Ok(()) => good += 1,
            Err(found) => (good, problem) = (0, found),
        }
        (good >= ROUNDS).then(|| ended.elapsed())
    });
    recovered.ok_or(problem)
}

impl Caller {
    /// Sends one request and returns what differs from normal.
    fn check(&mut self) -> Result<(), String> {
        let sent = Instant::now();
        self.send().map_err(|failure| format!("{:?}: {failure}", self.kind()))?;
        let took = sent.elapsed();
        let kind = self.kind();
        if took > kind.p99_max() { Err(format!("{kind:?} took {took:?}")) } else { Ok(()) }
    }
}
