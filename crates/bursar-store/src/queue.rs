//! The bounded queue before a writer.
//!
//! Facts (records, releases, renewals) leave it before admissions when it is long, but never all
//! of a group, so that neither starves. It is bounded in bytes, and one tenant may fill a quarter.

use std::collections::{HashMap, VecDeque};

use bursar_core::TenantId;
use parking_lot::{Condvar, Mutex};

use crate::error::StoreError;

/// Bytes that may wait.
const BYTES_MAX: usize = 64 * 1024 * 1024;
/// The share of the queue that one tenant may fill.
const TENANT_BYTES_MAX: usize = BYTES_MAX / 4;
/// Commands taken into one group.
const GROUP_COMMANDS_MAX: usize = 4_096;
/// The part of a full group that is kept for admissions.
const GROUP_ADMISSIONS_MIN: usize = GROUP_COMMANDS_MAX / 8;

/// Which jobs go first when there are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rank {
    /// What happened, or gives money back.
    Fact,
    /// What asks for more.
    Admission,
}

/// Something that waits to be written.
pub(crate) trait Weighed {
    fn tenant_id(&self) -> Option<TenantId>;
    fn rank(&self) -> Rank;
    /// About how much memory it takes.
    fn bytes(&self) -> usize;
    /// How many commands it brings into a group.
    fn commands(&self) -> usize;
}

/// What waits to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Requests to the writer, a batch of records being one.
    pub jobs: usize,
    /// Commands in them, each record of a batch being one.
    pub commands: usize,
    /// About how much memory they take.
    pub bytes: usize,
    /// How much memory they may take before more is refused.
    pub bytes_max: usize,
}

pub(crate) struct Queue<J> {
    state: Mutex<State<J>>,
    filled: Condvar,
}

struct State<J> {
    facts: VecDeque<J>,
    admissions: VecDeque<J>,
    bytes: usize,
    commands: usize,
    tenant_bytes: HashMap<TenantId, usize>,
    closed: bool,
}

impl<J: Weighed> Queue<J> {
    pub(crate) fn new() -> Self {
        let state = State {
            facts: VecDeque::new(),
            admissions: VecDeque::new(),
            bytes: 0,
            commands: 0,
            tenant_bytes: HashMap::new(),
            closed: false,
        };
        Self { state: Mutex::new(state), filled: Condvar::new() }
    }

    /// Puts a job in, or gives it back with the reason.
    pub(crate) fn push(&self, job: J) -> Result<(), (J, StoreError)> {
        let mut state = self.state.lock();
        if state.closed {
            return Err((job, StoreError::Closed));
        }
        let bytes = job.bytes();
        let of_tenant =
            job.tenant_id().and_then(|id| state.tenant_bytes.get(&id)).copied().unwrap_or(0);
        // A job that is alone always fits: its size was bounded where it was read.
        let full = state.bytes > 0 && state.bytes + bytes > BYTES_MAX;
        let unfair = of_tenant > 0 && of_tenant + bytes > TENANT_BYTES_MAX;
        if full || unfair {
            return Err((job, StoreError::Overloaded));
        }
        state.bytes += bytes;
        state.commands += job.commands();
        if let Some(tenant_id) = job.tenant_id() {
            *state.tenant_bytes.entry(tenant_id).or_default() += bytes;
        }
        match job.rank() {
            Rank::Fact => state.facts.push_back(job),
            Rank::Admission => state.admissions.push_back(job),
        }
        drop(state);
        self.filled.notify_one();
        Ok(())
    }

    /// Waits for jobs and takes a group of them; empty when closed and drained.
    pub(crate) fn take(&self) -> Vec<J> {
        let mut state = self.state.lock();
        while state.is_empty() && !state.closed {
            self.filled.wait(&mut state);
        }
        state.take()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.state.lock().is_empty()
    }

    pub(crate) fn waiting(&self) -> Waiting {
        let state = self.state.lock();
        Waiting {
            jobs: state.facts.len() + state.admissions.len(),
            commands: state.commands,
            bytes: state.bytes,
            bytes_max: BYTES_MAX,
        }
    }

    /// Refuses new jobs; those that wait are still taken.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.filled.notify_all();
    }
}

impl<J: Weighed> State<J> {
    fn is_empty(&self) -> bool {
        self.facts.is_empty() && self.admissions.is_empty()
    }

    fn take(&mut self) -> Vec<J> {
        let mut group = Vec::new();
        let waiting: usize = self.admissions.iter().map(Weighed::commands).sum();
        let kept = waiting.min(GROUP_ADMISSIONS_MIN);
        let facts = move_jobs(&mut self.facts, &mut group, GROUP_COMMANDS_MAX - kept);
        // A batch is taken whole and may fill more than its part; admissions get theirs all the same.
        let room = GROUP_COMMANDS_MAX.saturating_sub(facts).max(kept);
        move_jobs(&mut self.admissions, &mut group, room);
        for job in &group {
            let bytes = job.bytes();
            self.bytes -= bytes;
            self.commands -= job.commands();
            if let Some(tenant_id) = job.tenant_id()
                && let Some(of_tenant) = self.tenant_bytes.get_mut(&tenant_id)
            {
                *of_tenant -= bytes;
                if *of_tenant == 0 {
                    self.tenant_bytes.remove(&tenant_id);
                }
            }
        }
        group
    }
}

/// Moves jobs until they have brought at least `room` commands, and says how many they brought.
fn move_jobs<J: Weighed>(from: &mut VecDeque<J>, to: &mut Vec<J>, room: usize) -> usize {
    let mut commands = 0;
    while commands < room
        && let Some(job) = from.pop_front()
    {
        commands += job.commands();
        to.push(job);
    }
    commands
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Job(i64, Rank, usize, usize);

    impl Weighed for Job {
        fn tenant_id(&self) -> Option<TenantId> {
            TenantId::from_number(self.0)
        }
        fn rank(&self) -> Rank {
            self.1
        }
        fn bytes(&self) -> usize {
            self.2
        }
        fn commands(&self) -> usize {
            self.3
        }
    }

    #[test]
    fn one_tenant_fills_at_most_a_quarter() {
        let queue = Queue::new();
        let eighth = BYTES_MAX / 8;
        let mut pushed = Vec::new();
        for tenant in [1, 1, 1, 2, 2, 3, 3, 4, 4, 5] {
            pushed.push(queue.push(Job(tenant, Rank::Fact, eighth, 1)).is_ok());
        }
        assert_eq!(pushed, [true, true, false, true, true, true, true, true, true, false]);
        assert_eq!(queue.take().len(), 8);
        assert!(queue.push(Job(1, Rank::Fact, eighth, 1)).is_ok());
    }

    #[test]
    fn facts_go_first_and_admissions_do_not_starve() {
        let queue = Queue::new();
        for _ in 0..1_000 {
            let _ = queue.push(Job(1, Rank::Admission, 1, 1));
        }
        for _ in 0..10_000 {
            let _ = queue.push(Job(2, Rank::Fact, 1, 1));
        }
        let group = queue.take();
        let facts = group.iter().filter(|job| job.1 == Rank::Fact).count();
        assert_eq!(group.len(), GROUP_COMMANDS_MAX);
        assert_eq!(facts, GROUP_COMMANDS_MAX - GROUP_ADMISSIONS_MIN);
    }

    #[test]
    fn large_batches_leave_admissions_their_part() {
        let queue = Queue::new();
        for batch in [590, 597, 700, 716, 820, 1_000] {
            for tenant in 1..=10 {
                let _ = queue.push(Job(tenant, Rank::Fact, 1, batch));
            }
            for _ in 0..2 * GROUP_ADMISSIONS_MIN {
                let _ = queue.push(Job(11, Rank::Admission, 1, 1));
            }
            let group = queue.take();
            let admitted = group.iter().filter(|job| job.1 == Rank::Admission).count();
            assert_eq!(admitted, GROUP_ADMISSIONS_MIN, "batches of {batch}");
            while !queue.is_empty() {
                queue.take();
            }
        }
    }

    #[test]
    fn what_waits_is_told() {
        let queue = Queue::new();
        let told = |jobs, commands, bytes| Waiting { jobs, commands, bytes, bytes_max: BYTES_MAX };
        assert_eq!(queue.waiting(), told(0, 0, 0));
        let _ = queue.push(Job(1, Rank::Fact, 700, 1_000));
        let _ = queue.push(Job(2, Rank::Admission, 5, 1));
        assert_eq!(queue.waiting(), told(2, 1_001, 705));
        queue.take();
        assert_eq!(queue.waiting(), told(0, 0, 0));
    }

    #[test]
    fn a_closed_queue_drains_and_refuses() {
        let queue = Queue::new();
        assert!(queue.push(Job(1, Rank::Fact, 1, 1)).is_ok());
        queue.close();
        assert!(matches!(queue.push(Job(1, Rank::Fact, 1, 1)), Err((_, StoreError::Closed))));
        assert_eq!(queue.take().len(), 1);
        assert!(queue.take().is_empty());
    }
}
