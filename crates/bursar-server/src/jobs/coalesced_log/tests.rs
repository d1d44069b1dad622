use super::*;

const BOUNDS: LogBounds = LogBounds {
    windows_max: 400,
    tenant_windows_max: 100,
    singles_max: 400,
    tenant_singles_max: 100,
    window_singles_max: 10,
    kept: 1_000,
    drop_every: 100,
};

/// Something that a call of a tenant did, or that happened without one.
#[derive(Clone, Debug)]
struct Happened {
    tenant: i64,
    kind: i64,
    call: Option<i64>,
    second: u32,
}

impl Event for Happened {
    type Key = i64;
    type RowId = i64;

    const NAME: &'static str = "happened";
    const EVENTS: &'static str = "things";

    fn tenant_id(&self) -> TenantId {
        TenantId::from_number(self.tenant).expect("in range")
    }

    fn key(&self) -> Option<i64> {
        Some(self.kind)
    }

    fn elapsed(&self) -> Duration {
        Duration::from_secs(self.second.into())
    }

    /// The time stands meanwhile.
    fn at(&self) -> Timestamp {
        Timestamp::MIN
    }

    fn is_single(&self) -> bool {
        self.call.is_some()
    }

    fn shared(self) -> Self {
        Self { call: None, ..self }
    }

    fn row_id(number: i64) -> Option<i64> {
        Some(number)
    }

    fn put(&self, _: &mut dyn ControlTx, _: CoalescedRow<i64>) -> Result<(), StoreError> {
        Ok(())
    }

    fn drop_old(_: &mut dyn ControlTx, _: TenantId, _: u32) -> Result<(), StoreError> {
        Ok(())
    }
}

fn buffer() -> Buffer<Happened> {
    Buffer::new(BOUNDS)
}

/// Takes note of something of a tenant, of this kind and at this second.
fn note(buffer: &mut Buffer<Happened>, (tenant, kind): (i64, i64), second: u32) {
    buffer.note(kind, Happened { tenant, kind, call: None, second });
}

/// Takes note of a call of a tenant.
fn note_call(buffer: &mut Buffer<Happened>, (tenant, kind): (i64, i64), call: i64) {
    buffer.note(kind, Happened { tenant, kind, call: Some(call), second: 0 });
}

/// What each row to be written stands for: its call, how often, and where it is stored already.
fn taken(buffer: &mut Buffer<Happened>) -> Vec<(Option<i64>, i64, Option<i64>)> {
    let (pending, _) = buffer.take_pending();
    let ids: Vec<i64> = (1..).take(pending.len()).collect();
    buffer.note_written(&pending, &ids);
    let shown =
        |pending: Pending<Happened>| (pending.row.last.call, pending.row.times, pending.row.stored);
    pending.into_iter().map(shown).collect()
}

fn tenant(number: i64) -> Option<TenantId> {
    TenantId::from_number(number)
}

#[test]
fn equal_events_of_a_minute_share_a_row() {
    let mut buffer = buffer();
    for second in [0, 1, 59] {
        note(&mut buffer, (1, 1), second);
    }
    assert_eq!(taken(&mut buffer), [(None, 3, None)]);
    assert_eq!(taken(&mut buffer), []);
    note(&mut buffer, (1, 1), 59);
    assert_eq!(taken(&mut buffer), [(None, 4, Some(1))]);
    for (key, second) in [((1, 1), 60), ((1, 2), 60), ((2, 2), 61)] {
        note(&mut buffer, key, second);
    }
    assert_eq!(taken(&mut buffer), [(None, 1, None); 3]);
}

#[test]
fn a_few_calls_have_rows_of_their_own_and_the_rest_share_one() {
    let mut buffer = buffer();
    for call in 0..15 {
        note_call(&mut buffer, (1, 1), call);
    }
    let rows = taken(&mut buffer);
    assert_eq!(rows.first(), Some(&(Some(0), 1, None)));
    assert_eq!((rows.len(), rows.last()), (11, Some(&(None, 5, None))));
    assert_eq!(taken(&mut buffer), []);
    note_call(&mut buffer, (1, 1), 15);
    assert_eq!(taken(&mut buffer), [(None, 6, Some(11))]);
}

#[test]
fn what_could_not_be_written_comes_again() {
    let mut buffer = buffer();
    note(&mut buffer, (1, 1), 0);
    let (pending, to_trim) = buffer.take_pending();
    buffer.note_unwritten(&pending, &to_trim);
    note(&mut buffer, (1, 1), 1);
    assert_eq!(taken(&mut buffer), [(None, 2, None)]);
    // Also when its minute is over meanwhile.
    note(&mut buffer, (1, 1), 2);
    note(&mut buffer, (2, 1), 70);
    let (pending, to_trim) = buffer.take_pending();
    buffer.note_unwritten(&pending, &to_trim);
    assert_eq!(taken(&mut buffer), [(None, 3, Some(1)), (None, 1, None)]);
}

#[test]
fn however_much_comes_memory_is_bounded() {
    let mut buffer = buffer();
    for tenant in 1..=2 * BOUNDS.windows_max as i64 {
        for call in 0..3 {
            note_call(&mut buffer, (tenant, 1), call);
        }
        note(&mut buffer, (tenant, 1), 0);
    }
    assert_eq!(buffer.windows.len(), BOUNDS.windows_max);
    assert_eq!(buffer.singles.len(), BOUNDS.singles_max);
    assert_eq!(buffer.lost, 4 * BOUNDS.windows_max as u64);
    assert!(buffer.shares.len() <= BOUNDS.windows_max);
    // Later everything is as before, whatever was lost until then.
    taken(&mut buffer);
    note(&mut buffer, (7, 1), 3_600);
    taken(&mut buffer);
    note(&mut buffer, (7, 1), 3_601);
    assert_eq!(taken(&mut buffer), [(None, 1, None)]);
    assert_eq!(buffer.windows.len(), 1);
}

#[test]
fn one_tenant_takes_no_more_than_its_share() {
    let mut buffer = buffer();
    for kind in 1..=BOUNDS.windows_max as i64 {
        for call in 0..2 {
            note_call(&mut buffer, (1, kind), call);
        }
    }
    assert_eq!(buffer.windows.len(), BOUNDS.tenant_windows_max);
    assert_eq!(buffer.singles.len(), BOUNDS.tenant_singles_max);
    note_call(&mut buffer, (2, 1), 77);
    assert!(taken(&mut buffer).contains(&(Some(77), 1, None)));
}

/// Notes one new row of a tenant, and says for how many tenants old ones are dropped with it.
fn drops(buffer: &mut Buffer<Happened>, tenant: i64, minute: u32) -> usize {
    note(buffer, (tenant, 1), minute * 60);
    buffer.take_pending().1.len()
}

#[test]
fn the_oldest_rows_of_a_tenant_are_dropped_with_its_first_row_and_every_hundredth_after() {
    let mut buffer = buffer();
    let dropping: Vec<u32> =
        (0..=BOUNDS.drop_every * 2).filter(|minute| drops(&mut buffer, 1, *minute) > 0).collect();
    assert_eq!(dropping, [0, BOUNDS.drop_every, BOUNDS.drop_every * 2]);
    assert_eq!(drops(&mut buffer, 2, 0), 1);
}

#[test]
fn what_could_not_be_dropped_is_dropped_with_the_next_row() {
    let mut buffer = buffer();
    note(&mut buffer, (1, 1), 0);
    let (pending, to_trim) = buffer.take_pending();
    buffer.note_unwritten(&pending, &to_trim);
    assert_eq!(buffer.take_pending().1, to_trim);
    assert_eq!(to_trim.len(), 1);
}

#[test]
fn however_many_tenants_come_what_counts_their_rows_is_bounded() {
    let mut buffer = buffer();
    for number in 1..=COUNTED_MAX as i64 + 1 {
        assert!(buffer.needs_trim(tenant(number).unwrap()));
    }
    assert_eq!(buffer.written.len(), COUNTED_MAX);
    // Only the oldest was forgotten, and is as after a start.
    assert!(!buffer.needs_trim(tenant(2).unwrap()));
    assert!(buffer.needs_trim(tenant(1).unwrap()));
    assert!(!buffer.needs_trim(tenant(1).unwrap()));
}

#[test]
fn the_operator_clears_one_tenant_or_all() {
    let log: CoalescedLog<Happened> = CoalescedLog::new(BOUNDS);
    for tenant in 1..=3 {
        note(&mut log.buffer.lock(), (tenant, 1), 0);
    }
    let (pending, _) = log.buffer.lock().take_pending();
    note_call(&mut log.buffer.lock(), (2, 2), 7);
    assert_eq!(log.in_use().entries, 5);
    assert_eq!((log.clear(tenant(2)), log.clear(tenant(2))), (3, 0));
    assert_eq!((log.in_use().entries, log.in_use().tenants.len()), (2, 2));
    // What is being written meanwhile comes back with a row of its own.
    note(&mut log.buffer.lock(), (2, 1), 1);
    log.buffer.lock().note_written(&pending, &[1, 2, 3]);
    assert_eq!(taken(&mut log.buffer.lock()), [(None, 1, None)]);
    assert_eq!((log.clear(None), log.in_use().entries), (3, 0));
    assert_eq!(log.buffer.lock().written.len(), 0);
}
