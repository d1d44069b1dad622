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
        for (rank, bytes) in [(Rank::Fact, GROUP_BYTES_MAX), (Rank::Bulk, GROUP_BULK_BYTES_MAX)] {
            let _ = queue.push(Job(tenant, rank, bytes / 2, 1));
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
    let waiting = |jobs, commands, bytes| Waiting { jobs, commands, bytes, bytes_max: BYTES_MAX };
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
