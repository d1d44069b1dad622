//! The waiting jobs of one rank: tenants take turns, and the jobs of a tenant keep their order.

use std::collections::{HashMap, VecDeque};

use bursar_core::TenantId;

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

/// The jobs of one rank. Tenants take turns; the jobs of a tenant keep their order.
pub(super) struct Turns<J> {
    lines: HashMap<Option<TenantId>, Line<J>>,
    /// The waiting tenants in the order of their turns, each once.
    pub(super) order: VecDeque<Option<TenantId>>,
    pub(super) jobs: usize,
    pub(super) commands: usize,
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
    pub(super) fn push(&mut self, job: J) {
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
    pub(super) fn take(&mut self, room: usize, bytes_room: usize, to: &mut Vec<J>) -> usize {
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
    pub(super) fn waiting_of(&self, tenant_id: Option<TenantId>) -> usize {
        let line = self.lines.get(&tenant_id);
        line.map_or(0, |line| line.jobs.iter().map(QueueItem::commands).sum())
    }

    /// Moves jobs of one tenant, whose next turn comes after those of all other tenants.
    pub(super) fn take_of(
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
