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

use std::collections::{HashMap, HashSet};

use bursar_core::TenantId;
use parking_lot::{Condvar, Mutex};

use crate::error::StoreError;
use crate::write::turns::{QueueItem, Rank, Turns};
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
/// The limit on the bytes of these records.
///
/// It does not limit records of ordinary size. A group takes fewer records with long texts, so that
/// they do not delay other commands.
const GROUP_BULK_BYTES_MAX: usize = 512 * 1024;
/// The limit on the bytes of facts in a group, and again on those of throttled records. In a group of
/// one tenant it also limits batches.
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
        let bulk = self.bulk.take(for_bulk, GROUP_BULK_BYTES_MAX, &mut group);
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

#[cfg(test)]
mod tests;
