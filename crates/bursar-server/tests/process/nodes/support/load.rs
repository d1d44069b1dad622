//! Writers under load while nodes or the database are disturbed.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bursar_testing::process::http::Http;
use bursar_testing::process::tenant::Tenant;
use bursar_testing::process::writer::{Outcome, Writer};
use bursar_testing::waiting::within;

use super::fleet::Fleet;

/// The pause of a writer that was not served before it repeats.
const PAUSE: Duration = Duration::from_millis(5);
/// The maximal time until writers are served after the disturbance.
const SERVED_AGAIN_MAX: Duration = Duration::from_secs(20);
/// The maximal time until all writers notice a crash of the database.
const REFUSED_MAX: Duration = Duration::from_secs(30);

/// The addresses of the nodes. A writer moves on from a node that does not serve it.
pub(crate) struct Addresses(Mutex<Vec<String>>);

impl Addresses {
    pub(crate) fn of(fleet: &Fleet) -> Self {
        let addresses = Self(Mutex::default());
        addresses.update(fleet);
        addresses
    }

    /// Updates the addresses after a restart.
    pub(crate) fn update(&self, fleet: &Fleet) {
        let now = fleet.nodes.iter().map(|node| node.server.address().to_owned()).collect();
        *self.0.lock().expect("addresses") = now;
    }

    fn client(&self, tenant: &Tenant, number: usize) -> Http {
        let addresses = self.0.lock().expect("addresses");
        let address = addresses.get(number % addresses.len()).expect("a node");
        tenant.client_of(address)
    }
}

/// The outcomes of the writers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outcomes {
    /// Completed steps.
    pub(crate) steps: usize,
    /// Responses of 503.
    pub(crate) unavailable: usize,
    /// Requests without a response.
    pub(crate) lost: usize,
    /// The slowest 503.
    pub(crate) slowest_refusal: Duration,
}

impl Outcomes {
    fn merge(self, other: Self) -> Self {
        Self {
            steps: self.steps + other.steps,
            unavailable: self.unavailable + other.unavailable,
            lost: self.lost + other.lost,
            slowest_refusal: self.slowest_refusal.max(other.slowest_refusal),
        }
    }
}

/// The progress of the writers, for the thread that disturbs them.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    steps: AtomicUsize,
    /// The refusals of each writer since `wait_for_refusals` started.
    refusals: Mutex<BTreeMap<usize, usize>>,
}

impl Progress {
    /// Waits until the writers have completed this many more steps.
    #[track_caller]
    pub(crate) fn wait_for(&self, steps: usize) {
        let done = || self.steps.load(Ordering::Relaxed);
        let enough = done() + steps;
        let served = within(SERVED_AGAIN_MAX, || (done() >= enough).then_some(()));
        assert!(served.is_some(), "the writers are not served for {SERVED_AGAIN_MAX:?}");
    }

    /// Waits until each writer has been refused this many times from now on, and calls `look`
    /// meanwhile.
    #[track_caller]
    pub(crate) fn wait_for_refusals(&self, writers: usize, times: usize, mut look: impl FnMut()) {
        let refusals = || self.refusals.lock().expect("no writer failed");
        refusals().clear();
        let all_refused = || {
            look();
            let refused = refusals().values().filter(|count| **count >= times).count();
            (refused == writers).then_some(())
        };
        let refused = within(REFUSED_MAX, all_refused);
        assert!(refused.is_some(), "not each writer is refused within {REFUSED_MAX:?}");
    }

    fn refuse(&self, writer: usize) {
        *self.refusals.lock().expect("no writer failed").entry(writer).or_default() += 1;
    }
}

/// Stops the writers when it is dropped, also when the test fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs the writers while a function disturbs the nodes, and then until no request of a writer is
/// in doubt.
pub(crate) fn write_while<T>(
    tenant: &Tenant,
    addresses: &Addresses,
    writers: &mut [Writer],
    disturb: impl FnOnce(&Progress) -> T,
) -> (T, Outcomes) {
    let (ended, progress) = (AtomicBool::new(false), Progress::default());
    let (ended, progress) = (&ended, &progress);
    std::thread::scope(|scope| {
        let writers = writers.iter_mut().enumerate();
        let start = |(number, writer)| {
            scope.spawn(move || write_until(ended, tenant, addresses, number, writer, progress))
        };
        let writing: Vec<_> = writers.map(start).collect();
        let done = {
            let _end = End(ended);
            disturb(progress)
        };
        let outcomes = writing
            .into_iter()
            .map(|writer| writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        (done, outcomes.fold(Outcomes::default(), Outcomes::merge))
    })
}

fn write_until(
    ended: &AtomicBool,
    tenant: &Tenant,
    addresses: &Addresses,
    mut number: usize,
    writer: &mut Writer,
    progress: &Progress,
) -> Outcomes {
    let mut outcomes = Outcomes::default();
    let writer_number = number;
    let mut http = addresses.client(tenant, number);
    let mut ends = None;
    loop {
        let began = Instant::now();
        match writer.step(&mut http) {
            Outcome::Acknowledged | Outcome::Confirmed => {
                outcomes.steps += 1;
                progress.steps.fetch_add(1, Ordering::Relaxed);
                if ended.load(Ordering::Relaxed) {
                    return outcomes;
                }
                continue;
            }
            Outcome::Unavailable => {
                outcomes.unavailable += 1;
                progress.refuse(writer_number);
                outcomes.slowest_refusal = outcomes.slowest_refusal.max(began.elapsed());
            }
            Outcome::Lost(_) => outcomes.lost += 1,
        }
        if ended.load(Ordering::Relaxed) {
            let end = *ends.get_or_insert_with(|| Instant::now() + SERVED_AGAIN_MAX);
            assert!(Instant::now() < end, "a writer is not served within {SERVED_AGAIN_MAX:?}");
        }
        number += 1;
        http = addresses.client(tenant, number);
        std::thread::sleep(PAUSE);
    }
}
