//! The bounded queue of the writers.
//!
//! Jobs have ranks. Facts (records, releases, extensions) leave the queue first, then large batches
//! of records, then admissions, and last the records of tenants beyond their thresholds, most of
//! which are refused. Each rank gets a part of every group, so that none starves. Within a rank,
//! tenants take turns. Several writers can share the queue, each with the jobs of one tenant at a
//! time.
//!
//! The size of the queue is limited in bytes. One tenant may use a quarter of it, and never more
//! than what is left for others, so that a flood from some tenants does not lock out the rest.
//! Changes of a tenant, such as revoking a key, have a little room in addition, so that an
//! administrator can stop such a flood.

use std::collections::{HashMap, HashSet, VecDeque};

use bursar_core::TenantId;
use parking_lot::{Condvar, Mutex};

use crate::error::StoreError;
use crate::write::writer_connection::Grouping;

/// The size of the queue: about half a second of work. Longer waits would only delay a refusal.
const BYTES_MAX: usize = 24 * 1024 * 1024;
/// The share of the queue that one tenant may use.
const TENANT_BYTES_MAX: usize = BYTES_MAX / 4;
/// The part of that share for throttled records, so that the tenant's releases still fit.
const TENANT_THROTTLED_BYTES_MAX: usize = TENANT_BYTES_MAX / 2;
/// Additional room for changes of a tenant.
const CHANGES_BYTES_MAX: usize = 64 * 1024;
/// The limit on the commands of a group.
const GROUP_COMMANDS_MAX: usize = 4_096;
/// The limit on records from large batches in a group of all tenants.
///
/// A new command waits for the current group and for its own. With 4,096 records that took 100 ms
/// under a flood of batches.
const GROUP_BULK_MAX: usize = 512;
/// The limit on the bytes of facts in a group, and again on the bytes of batches.
///
/// A group stays in memory until it is written.
pub(crate) const GROUP_BYTES_MAX: usize = BYTES_MAX / 6;
/// The parts of a full group that are reserved for large batches and for admissions.
const GROUP_BULK_MIN: usize = GROUP_COMMANDS_MAX / 2;
const GROUP_ADMISSIONS_MIN: usize = GROUP_COMMANDS_MAX / 8;
/// The limit on throttled records in a group.
///
/// A refusal costs the writer about 5 us for reading the call id, so a flood of them delays other
/// commands by less than a millisecond a group.
const GROUP_THROTTLED_MAX: usize = 128;
/// Commands of a tenant in one turn; a tenant with a larger job misses turns afterwards.
const TURN_COMMANDS: isize = 64;

/// The rank of a job, which decides its order in a long queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rank {
    /// A record, release or extension.
    Fact,
    /// A large batch of records, for which others should not have to wait.
    Bulk,
    /// A request for a reservation.
    Admission,
    /// A record beyond a threshold, which is refused unless its call is known.
    Throttled,
    /// A change of a tenant.
    Change,
}

/// An item of the queue.
pub(crate) trait QueueItem {
    fn tenant_id(&self) -> Option<TenantId>;
    fn rank(&self) -> Rank;
    /// The approximate memory of the item.
    fn bytes(&self) -> usize;
    /// The number of commands that the item adds to a group.
    fn commands(&self) -> usize;
}

/// The contents of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Jobs; a batch of records is one.
    pub jobs: usize,
    /// Commands; each record of a batch is one.
    pub commands: usize,
    /// The approximate memory of the jobs.
    pub bytes: usize,
    /// The limit on `bytes`.
    pub bytes_max: usize,
}

/// The group that a writer took from the queue and is writing.
pub(crate) struct Writing {
    grouping: Grouping,
    bytes: usize,
    tenant: Option<Option<TenantId>>,
}

impl Writing {
    pub(crate) const fn new(grouping: Grouping) -> Self {
        Self { grouping, bytes: 0, tenant: None }
    }
}

pub(crate) struct Queue<J> {
    state: Mutex<State<J>>,
    filled: Condvar,
}

struct State<J> {
    facts: Turns<J>,
    bulk: Turns<J>,
    admissions: Turns<J>,
    throttled: Turns<J>,
    bytes: usize,
    /// Bytes of the groups that are being written.
    taken_bytes: usize,
    /// The tenants whose jobs a writer is writing.
    busy: HashSet<Option<TenantId>>,
    /// Counts the groups of single tenants, so that each rank comes first at times.
    rounds: usize,
    commands: usize,
    tenant_bytes: HashMap<TenantId, usize>,
    /// The part of `tenant_bytes` that throttled records use.
    throttled_bytes: HashMap<TenantId, usize>,
    closed: bool,
}

impl<J: QueueItem> Queue<J> {
    pub(crate) fn new() -> Self {
        let state = State {
            facts: Turns::default(),
            bulk: Turns::default(),
            admissions: Turns::default(),
            throttled: Turns::default(),
            bytes: 0,
            taken_bytes: 0,
            busy: HashSet::new(),
            rounds: 0,
            commands: 0,
            tenant_bytes: HashMap::new(),
            throttled_bytes: HashMap::new(),
            closed: false,
        };
        Self { state: Mutex::new(state), filled: Condvar::new() }
    }

    /// Adds a job, or returns it with the reason for the refusal.
    pub(crate) fn push(&self, job: J) -> Result<(), (J, StoreError)> {
        let mut state = self.state.lock();
        if state.closed {
            return Err((job, StoreError::Closed));
        }
        let bytes = job.bytes();
        if !state.has_room(job.tenant_id(), job.rank(), bytes) {
            return Err((job, StoreError::Overloaded));
        }
        state.bytes += bytes;
        state.commands += job.commands();
        if let Some(tenant_id) = job.tenant_id() {
            *state.tenant_bytes.entry(tenant_id).or_default() += bytes;
            if job.rank() == Rank::Throttled {
                *state.throttled_bytes.entry(tenant_id).or_default() += bytes;
            }
        }
        match job.rank() {
            Rank::Fact => state.facts.push(job),
            Rank::Bulk => state.bulk.push(job),
            Rank::Admission | Rank::Change => state.admissions.push(job),
            Rank::Throttled => state.throttled.push(job),
        }
        drop(state);
        self.filled.notify_one();
        Ok(())
    }

    /// Whether the queue would accept a job of `bytes` now.
    pub(crate) fn has_room(&self, tenant_id: TenantId, rank: Rank, bytes: usize) -> bool {
        self.state.lock().has_room(Some(tenant_id), rank, bytes)
    }

    /// Waits for jobs and takes a group; it is empty once the queue is closed and drained.
    ///
    /// The call also tells the queue that the writer's last group, in `writing`, is written.
    pub(crate) fn take(&self, writing: &mut Writing) -> Vec<J> {
        let mut state = self.state.lock();
        state.finish(writing);
        loop {
            let group = match writing.grouping {
                Grouping::Mixed => state.take(),
                Grouping::OneTenant => state.take_of_one(writing),
            };
            if !group.is_empty() || state.closed && state.is_empty() {
                writing.bytes = state.mark_taken(&group);
                // A writer that waits because all tenants were busy may continue now.
                if state.closed {
                    self.filled.notify_all();
                } else if writing.grouping == Grouping::OneTenant && !state.is_empty() {
                    self.filled.notify_one();
                }
                return group;
            }
            self.filled.wait(&mut state);
        }
    }

    /// Drops the remaining jobs, after the last writer has ended.
    pub(crate) fn drain(&self) {
        let mut state = self.state.lock();
        while !state.is_empty() {
            let group = state.take();
            state.mark_taken(&group);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.state.lock().is_empty()
    }

    pub(crate) fn waiting(&self) -> Waiting {
        let state = self.state.lock();
        Waiting {
            jobs: state.jobs(),
            commands: state.commands,
            bytes: state.bytes,
            bytes_max: BYTES_MAX,
        }
    }

    /// Refuses new jobs; writers still take the waiting ones.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.filled.notify_all();
    }
}

impl<J: QueueItem> State<J> {
    fn jobs(&self) -> usize {
        self.facts.jobs + self.bulk.jobs + self.admissions.jobs + self.throttled.jobs
    }

    fn is_empty(&self) -> bool {
        self.jobs() == 0
    }

    fn has_room(&self, tenant_id: Option<TenantId>, rank: Rank, bytes: usize) -> bool {
        // An empty queue accepts any job: request bodies are limited in size.
        if self.bytes == 0 {
            return true;
        }
        let of_tenant = tenant_id.and_then(|id| self.tenant_bytes.get(&id)).copied().unwrap_or(0);
        let held = self.bytes + self.taken_bytes + bytes;
        let Some(left) = BYTES_MAX.checked_sub(held) else { return false };
        // Facts are refused last.
        let left = match rank {
            Rank::Fact => left,
            Rank::Admission => left / 4 * 3,
            Rank::Bulk => left / 2,
            Rank::Throttled => {
                let throttled = tenant_id.and_then(|id| self.throttled_bytes.get(&id)).copied();
                if throttled.is_some_and(|held| held + bytes > TENANT_THROTTLED_BYTES_MAX) {
                    return false;
                }
                left / 2
            }
            Rank::Change => {
                return of_tenant + bytes <= TENANT_BYTES_MAX + CHANGES_BYTES_MAX;
            }
        };
        let is_fair = of_tenant == 0 || of_tenant + bytes <= TENANT_BYTES_MAX;
        is_fair && of_tenant + bytes <= left
    }

    fn take(&mut self) -> Vec<J> {
        let mut group = Vec::new();
        let for_admissions = self.admissions.commands.min(GROUP_ADMISSIONS_MIN);
        let for_bulk = self.bulk.commands.min(GROUP_BULK_MAX);
        let mut room = GROUP_COMMANDS_MAX;
        let for_facts = room - for_admissions - for_bulk;
        room -= self.facts.take(for_facts, GROUP_BYTES_MAX, &mut group).min(room);
        // A batch is not split, so it can exceed its part. Admissions get their part regardless.
        let bulk = self.bulk.take(for_bulk, GROUP_BYTES_MAX, &mut group);
        let for_admissions = room.saturating_sub(bulk).max(for_admissions);
        self.admissions.take(for_admissions, BYTES_MAX, &mut group);
        self.throttled.take(GROUP_THROTTLED_MAX, GROUP_BYTES_MAX, &mut group);
        group
    }

    /// Takes a group of the next tenant that no other writer is writing for.
    fn take_of_one(&mut self, writing: &mut Writing) -> Vec<J> {
        let Some(tenant_id) = self.next_idle() else { return Vec::new() };
        self.rounds = self.rounds.wrapping_add(1);
        let mut group = Vec::new();
        let for_admissions = self.admissions.waiting_of(tenant_id).min(GROUP_ADMISSIONS_MIN);
        let for_bulk = self.bulk.waiting_of(tenant_id).min(GROUP_BULK_MIN);
        let mut room = GROUP_COMMANDS_MAX;
        let for_facts = room - for_admissions - for_bulk;
        let taken = self.facts.take_of(tenant_id, for_facts, GROUP_BYTES_MAX, &mut group);
        room = room.saturating_sub(taken);
        let for_bulk = room.saturating_sub(for_admissions).max(for_bulk);
        let bulk = self.bulk.take_of(tenant_id, for_bulk, GROUP_BYTES_MAX, &mut group);
        let for_admissions = room.saturating_sub(bulk).max(for_admissions);
        self.admissions.take_of(tenant_id, for_admissions, BYTES_MAX, &mut group);
        self.throttled.take_of(tenant_id, GROUP_THROTTLED_MAX, GROUP_BYTES_MAX, &mut group);
        self.busy.insert(tenant_id);
        writing.tenant = Some(tenant_id);
        group
    }

    /// The next tenant that has jobs and no writer.
    ///
    /// Most rounds look at facts first. Every few rounds another rank comes first, so that a tenant
    /// without facts gets its turn.
    fn next_idle(&self) -> Option<Option<TenantId>> {
        let Self { facts, bulk, admissions, throttled, .. } = self;
        let ranks = match self.rounds % 8 {
            1 | 5 => [bulk, facts, admissions, throttled],
            3 | 7 => [admissions, facts, bulk, throttled],
            6 => [throttled, facts, bulk, admissions],
            _ => [facts, bulk, admissions, throttled],
        };
        ranks.into_iter().find_map(|turns| {
            turns.order.iter().find(|tenant_id| !self.busy.contains(*tenant_id)).copied()
        })
    }

    /// Notes that the writer's last group is written.
    fn finish(&mut self, writing: &mut Writing) {
        self.taken_bytes -= std::mem::take(&mut writing.bytes);
        if let Some(tenant_id) = writing.tenant.take() {
            self.busy.remove(&tenant_id);
        }
    }

    /// Removes the jobs of a group from the sums, and returns their bytes.
    ///
    /// The bytes count as taken until the group is written.
    fn mark_taken(&mut self, group: &[J]) -> usize {
        let mut taken = 0;
        for job in group {
            let bytes = job.bytes();
            self.bytes -= bytes;
            self.commands -= job.commands();
            if let Some(tenant_id) = job.tenant_id() {
                take_from(&mut self.tenant_bytes, tenant_id, bytes);
                if job.rank() == Rank::Throttled {
                    take_from(&mut self.throttled_bytes, tenant_id, bytes);
                }
            }
            taken += bytes;
        }
        self.taken_bytes += taken;
        taken
    }
}

/// Takes bytes from those of a tenant.
fn take_from(held: &mut HashMap<TenantId, usize>, tenant_id: TenantId, bytes: usize) {
    if let Some(of_tenant) = held.get_mut(&tenant_id) {
        *of_tenant -= bytes;
        if *of_tenant == 0 {
            held.remove(&tenant_id);
        }
    }
}

/// The jobs of one rank. Tenants take turns; the jobs of a tenant keep their order.
struct Turns<J> {
    lines: HashMap<Option<TenantId>, Line<J>>,
    /// The waiting tenants in the order of their turns, each once.
    order: VecDeque<Option<TenantId>>,
    jobs: usize,
    commands: usize,
}

/// The jobs of one tenant.
struct Line<J> {
    jobs: VecDeque<J>,
    /// Commands that it may still take; negative after a batch that exceeded its turn.
    credit: isize,
}

impl<J> Default for Turns<J> {
    fn default() -> Self {
        Self { lines: HashMap::new(), order: VecDeque::new(), jobs: 0, commands: 0 }
    }
}

impl<J: QueueItem> Turns<J> {
    fn push(&mut self, job: J) {
        self.jobs += 1;
        self.commands += job.commands();
        let line = self.lines.entry(job.tenant_id()).or_insert_with(|| {
            self.order.push_back(job.tenant_id());
            Line { jobs: VecDeque::new(), credit: 0 }
        });
        line.jobs.push_back(job);
    }

    /// Moves jobs to `to` until they have at least `room` commands or `bytes_room` bytes, and
    /// returns their commands.
    fn take(&mut self, room: usize, bytes_room: usize, to: &mut Vec<J>) -> usize {
        let (mut taken, mut bytes) = (0, 0);
        while taken < room
            && bytes < bytes_room
            && let Some(tenant_id) = self.order.pop_front()
        {
            let Some(line) = self.lines.get_mut(&tenant_id) else { continue };
            line.credit += TURN_COMMANDS;
            while taken < room
                && bytes < bytes_room
                && line.credit > 0
                && let Some(job) = line.jobs.pop_front()
            {
                let commands = job.commands();
                bytes += job.bytes();
                line.credit = line.credit.saturating_sub_unsigned(commands);
                taken += commands;
                self.jobs -= 1;
                to.push(job);
            }
            if line.jobs.is_empty() {
                self.lines.remove(&tenant_id);
            } else {
                self.order.push_back(tenant_id);
            }
        }
        self.commands -= taken;
        taken
    }

    /// The waiting commands of a tenant.
    fn waiting_of(&self, tenant_id: Option<TenantId>) -> usize {
        let line = self.lines.get(&tenant_id);
        line.map_or(0, |line| line.jobs.iter().map(QueueItem::commands).sum())
    }

    /// Moves jobs of one tenant, whose next turn comes after those of all other tenants.
    fn take_of(
        &mut self,
        tenant_id: Option<TenantId>,
        room: usize,
        bytes_room: usize,
        to: &mut Vec<J>,
    ) -> usize {
        let Some(line) = self.lines.get_mut(&tenant_id) else { return 0 };
        let (mut taken, mut bytes) = (0, 0);
        while taken < room
            && bytes < bytes_room
            && let Some(job) = line.jobs.pop_front()
        {
            taken += job.commands();
            bytes += job.bytes();
            self.jobs -= 1;
            to.push(job);
        }
        self.commands -= taken;
        let is_done = line.jobs.is_empty();
        if is_done {
            self.lines.remove(&tenant_id);
        }
        if let Some(at) = self.order.iter().position(|waiting| *waiting == tenant_id) {
            self.order.remove(at);
        }
        if !is_done {
            self.order.push_back(tenant_id);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Job(i64, Rank, usize, usize);

    impl QueueItem for Job {
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

    fn take(queue: &Queue<Job>) -> Vec<Job> {
        queue.take(&mut Writing::new(Grouping::Mixed))
    }

    #[test]
    fn one_tenant_fills_at_most_a_quarter_and_no_more_than_is_left() {
        let queue = Queue::new();
        let eighth = BYTES_MAX / 8;
        let mut pushed = Vec::new();
        for tenant in [1, 1, 1, 2, 2, 3, 3, 4, 4, 5] {
            pushed.push(queue.push(Job(tenant, Rank::Fact, eighth, 1)).is_ok());
        }
        assert_eq!(pushed, [true, true, false, true, true, true, true, true, false, false]);
        assert!(queue.push(Job(5, Rank::Fact, eighth / 2, 1)).is_ok(), "a quiet tenant has room");
        while !queue.is_empty() {
            take(&queue);
        }
        assert!(queue.push(Job(1, Rank::Fact, eighth, 1)).is_ok());
    }

    #[test]
    fn a_tenant_that_fills_its_quarter_can_still_be_changed() {
        let queue = Queue::new();
        for rank in [Rank::Bulk, Rank::Fact] {
            assert!(queue.push(Job(1, rank, TENANT_BYTES_MAX / 2, 1)).is_ok());
        }
        for rank in [Rank::Fact, Rank::Bulk, Rank::Admission] {
            assert!(queue.push(Job(1, rank, 512, 1)).is_err(), "{rank:?}");
        }
        let changes = || queue.push(Job(1, Rank::Change, 512, 1));
        let taken = (0..1_000).take_while(|_| changes().is_ok()).count();
        assert_eq!(taken, CHANGES_BYTES_MAX / 512);
    }

    #[test]
    fn a_filling_queue_refuses_batches_first_and_facts_last() {
        let queue = Queue::new();
        for tenant in 1..=3 {
            assert!(queue.push(Job(tenant, Rank::Fact, BYTES_MAX / 4, 1)).is_ok());
        }
        let is_taken = |rank, part: usize| {
            let tenant_id = TenantId::from_number(4).expect("a number of an id");
            queue.has_room(tenant_id, rank, BYTES_MAX / 4 / 100 * part)
        };
        assert!(is_taken(Rank::Bulk, 33) && !is_taken(Rank::Bulk, 34));
        assert!(is_taken(Rank::Admission, 42) && !is_taken(Rank::Admission, 43));
        assert!(is_taken(Rank::Fact, 50) && !is_taken(Rank::Fact, 51));
    }

    #[test]
    fn tenants_take_turns_by_commands_whatever_the_size_of_their_batches() {
        let queue = Queue::new();
        for _ in 0..20 {
            let _ = queue.push(Job(1, Rank::Bulk, 1, 1_000));
        }
        for _ in 0..2_000 {
            let _ = queue.push(Job(2, Rank::Bulk, 1, 20));
        }
        let _ = queue.push(Job(3, Rank::Bulk, 1, 20));
        let mut group = take(&queue);
        group.extend(take(&queue));
        let taken = |tenant| {
            let of_tenant = group.iter().filter(|job| job.0 == tenant);
            of_tenant.map(QueueItem::commands).sum::<usize>()
        };
        assert_eq!(taken(3), 20);
        // The difference is at most a batch and a turn.
        assert!(taken(1).abs_diff(taken(2)) <= 1_064, "{} {}", taken(1), taken(2));
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
        let group = take(&queue);
        let facts = group.iter().filter(|job| job.1 == Rank::Fact).count();
        assert_eq!(group.len(), GROUP_COMMANDS_MAX);
        assert_eq!(facts, GROUP_COMMANDS_MAX - GROUP_ADMISSIONS_MIN);
    }

    #[test]
    fn large_batches_leave_admissions_their_part() {
        let queue = Queue::new();
        for batch in [590, 597, 700, 716, 820, 1_000] {
            for tenant in 1..=10 {
                let _ = queue.push(Job(tenant, Rank::Bulk, 1, batch));
            }
            for _ in 0..2 * GROUP_ADMISSIONS_MIN {
                let _ = queue.push(Job(11, Rank::Admission, 1, 1));
            }
            let group = take(&queue);
            let admitted = group.iter().filter(|job| job.1 == Rank::Admission).count();
            assert!(admitted >= GROUP_ADMISSIONS_MIN, "batches of {batch}: {admitted}");
            let bulk: usize =
                group.iter().filter(|job| job.1 == Rank::Bulk).map(QueueItem::commands).sum();
            assert!(bulk < GROUP_BULK_MAX + batch, "batches of {batch}: {bulk}");
            while !queue.is_empty() {
                take(&queue);
            }
        }
    }

    #[test]
    fn a_group_is_limited_in_bytes_and_has_jobs_of_every_rank() {
        let queue = Queue::new();
        for tenant in 1..=3 {
            for rank in [Rank::Fact, Rank::Bulk] {
                let _ = queue.push(Job(tenant, rank, BYTES_MAX / 12, 1));
            }
            let _ = queue.push(Job(tenant, Rank::Admission, 1, 1));
        }
        let taken: Vec<Rank> = take(&queue).iter().map(|job| job.1).collect();
        assert_eq!(taken.iter().filter(|rank| **rank == Rank::Fact).count(), 2);
        assert_eq!(taken.iter().filter(|rank| **rank == Rank::Bulk).count(), 2);
        assert_eq!(taken.iter().filter(|rank| **rank == Rank::Admission).count(), 3);
    }

    #[test]
    fn throttled_records_get_a_limited_part_of_a_group_and_of_their_tenants_share() {
        let queue = Queue::new();
        let record = TENANT_THROTTLED_BYTES_MAX / 4_096;
        let pushed = (0..8_192).take_while(|_| {
            let job = Job(1, Rank::Throttled, record, 1);
            queue.push(job).is_ok()
        });
        assert_eq!(pushed.count(), 4_096);
        // The same tenant can still release reservations, and others are not affected.
        assert!(queue.push(Job(1, Rank::Fact, record, 1)).is_ok());
        for rank in [Rank::Fact, Rank::Bulk, Rank::Admission, Rank::Throttled] {
            assert!(queue.push(Job(2, rank, record, 1)).is_ok(), "{rank:?}");
        }
        let group: Vec<(i64, Rank)> = take(&queue).iter().map(|job| (job.0, job.1)).collect();
        let is_refused = |(_, rank): &&(i64, Rank)| *rank == Rank::Throttled;
        assert_eq!(group.iter().filter(is_refused).count(), GROUP_THROTTLED_MAX);
        assert_eq!(group.len(), GROUP_THROTTLED_MAX + 4);
        assert!(group.contains(&(2, Rank::Throttled)), "tenants take turns");
        assert_eq!(group.first(), Some(&(1, Rank::Fact)));
    }

    #[test]
    fn records_below_the_threshold_do_not_use_the_part_of_throttled_ones() {
        let queue = Queue::new();
        for _ in 0..5 {
            assert!(queue.push(Job(1, Rank::Fact, TENANT_BYTES_MAX / 10, 1)).is_ok());
        }
        for _ in 0..4 {
            assert!(queue.push(Job(1, Rank::Throttled, TENANT_BYTES_MAX / 10, 1)).is_ok());
        }
        assert!(queue.push(Job(1, Rank::Throttled, TENANT_BYTES_MAX / 5, 1)).is_err());
        while !queue.is_empty() {
            take(&queue);
        }
        assert!(queue.state.lock().throttled_bytes.is_empty());
    }

    #[test]
    fn throttled_records_of_one_tenant_get_a_turn_beside_facts_of_another() {
        let queue = Queue::new();
        let mut writing = Writing::new(Grouping::OneTenant);
        let _ = queue.push(Job(2, Rank::Throttled, 1, 1));
        let got_its_turn = (0..10).any(|_| {
            let _ = queue.push(Job(1, Rank::Fact, 1, 1));
            tenants_of(&queue.take(&mut writing)) == [2]
        });
        assert!(got_its_turn);
    }

    #[test]
    fn a_group_that_is_being_written_counts_against_the_queue() {
        let queue = Queue::new();
        for tenant in 1..=4 {
            assert!(queue.push(Job(tenant, Rank::Fact, BYTES_MAX / 16, 1)).is_ok());
        }
        let tenant_id = TenantId::from_number(5).expect("a number of an id");
        let has_room = || queue.has_room(tenant_id, Rank::Fact, BYTES_MAX / 4);
        assert_eq!(take(&queue).len(), 3);
        assert!(has_room());
        assert!(queue.push(Job(6, Rank::Fact, BYTES_MAX / 4, 1)).is_ok());
        assert!(!queue.has_room(tenant_id, Rank::Fact, BYTES_MAX / 2 - BYTES_MAX / 16));
        assert_eq!(take(&queue).len(), 2);
    }

    fn tenants_of(group: &[Job]) -> Vec<i64> {
        group.iter().map(|job| job.0).collect()
    }

    #[test]
    fn two_writers_never_write_for_the_same_tenant_at_once() {
        let queue = Queue::new();
        let (mut one, mut other) =
            (Writing::new(Grouping::OneTenant), Writing::new(Grouping::OneTenant));
        for tenant in [1, 2, 1, 1, 2] {
            let _ = queue.push(Job(tenant, Rank::Fact, 1, 1));
        }
        assert_eq!(tenants_of(&queue.take(&mut one)), [1, 1, 1]);
        let _ = queue.push(Job(1, Rank::Fact, 1, 1));
        assert_eq!(tenants_of(&queue.take(&mut other)), [2, 2]);
        let _ = queue.push(Job(2, Rank::Fact, 1, 1));
        assert_eq!(tenants_of(&queue.take(&mut one)), [1]);
        assert_eq!(tenants_of(&queue.take(&mut other)), [2]);
    }

    #[test]
    fn admissions_of_one_tenant_get_a_turn_beside_facts_of_another() {
        let queue = Queue::new();
        let mut writing = Writing::new(Grouping::OneTenant);
        let _ = queue.push(Job(2, Rank::Admission, 1, 1));
        let mut groups = 0;
        while queue.waiting().jobs > 0 && groups < 10 {
            let _ = queue.push(Job(1, Rank::Fact, 1, 1));
            groups += 1;
            if tenants_of(&queue.take(&mut writing)) == [2] {
                break;
            }
        }
        assert!(groups < 5, "{groups}");
    }

    #[test]
    fn several_writers_drain_a_closed_queue() {
        let queue = std::sync::Arc::new(Queue::new());
        for tenant in 1..=50 {
            let _ = queue.push(Job(tenant % 5 + 1, Rank::Fact, 1, 1));
        }
        queue.close();
        let writers: Vec<_> = (0..4)
            .map(|_| {
                let queue = std::sync::Arc::clone(&queue);
                std::thread::spawn(move || {
                    let (mut writing, mut count) = (Writing::new(Grouping::OneTenant), 0);
                    loop {
                        let group = queue.take(&mut writing);
                        if group.is_empty() {
                            return count;
                        }
                        count += group.len();
                    }
                })
            })
            .collect();
        let drained: usize =
            writers.into_iter().map(|writer| writer.join().expect("a writer that ends")).sum();
        assert_eq!(drained, 50);
    }

    #[test]
    fn the_contents_of_the_queue_are_reported() {
        let queue = Queue::new();
        let waiting =
            |jobs, commands, bytes| Waiting { jobs, commands, bytes, bytes_max: BYTES_MAX };
        assert_eq!(queue.waiting(), waiting(0, 0, 0));
        let _ = queue.push(Job(1, Rank::Fact, 700, 1_000));
        let _ = queue.push(Job(2, Rank::Admission, 5, 1));
        assert_eq!(queue.waiting(), waiting(2, 1_001, 705));
        take(&queue);
        assert_eq!(queue.waiting(), waiting(0, 0, 0));
    }

    #[test]
    fn a_closed_queue_refuses_new_jobs_and_drains() {
        let queue = Queue::new();
        assert!(queue.push(Job(1, Rank::Fact, 1, 1)).is_ok());
        queue.close();
        assert!(matches!(queue.push(Job(1, Rank::Fact, 1, 1)), Err((_, StoreError::Closed))));
        assert_eq!(take(&queue).len(), 1);
        assert!(take(&queue).is_empty());
    }
}
