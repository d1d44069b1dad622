//! A caller that takes as much of a resource as it can does not affect the others: memory, worker
//! time, writer time, readers, connections, label sets, the disk and the log.
//!
//! An ordinary run is short, with limits for a debug build on a busy machine. With `BURSAR_PROVE=1`
//! attacks last longer, with the documented limits.

mod attack;
mod connections;
mod disk;
mod honest;
mod labels;
mod log;
mod memory;
mod readers;
mod request;
mod running_clients;
mod scene;
mod verdict;
mod workers;
mod writer;

use bursar_testing::process::descriptors::raise_descriptors;

use crate::hostile::attack::Attack;
use crate::hostile::scene::Scene;
use crate::hostile::verdict::Verdict;

/// The descriptors that this process and the server need.
const DESCRIPTORS: u64 = 4_000;

/// Asserts that an attack affects neither the honest callers nor the server's memory.
#[track_caller]
fn check(attack: &Attack) {
    let _alone = crate::alone();
    raise_descriptors(DESCRIPTORS);
    let mut failures = Vec::new();
    // A failed run is repeated once, because the machine may be busy.
    for _ in 0..2 {
        let mut scene = Scene::new(attack);
        let clients = (attack.prepare)(&mut scene);
        let verdict = Verdict::measure(attack, &scene, clients);
        println!("{verdict}");
        scene.close();
        failures = verdict.failures();
        if failures.is_empty() {
            break;
        }
    }
    assert_eq!(failures, Vec::<String>::new(), "{}", attack.name);
}

#[test]
fn memory_is_not_filled_by_cached_keys_and_integrations() {
    check(&memory::CACHED);
}

#[test]
fn memory_is_not_filled_by_slow_bodies_and_unread_responses() {
    check(&memory::BUFFERED);
}

#[test]
fn worker_time_is_not_taken_by_bodies_that_are_hard_to_decode() {
    check(&workers::DECODED);
}

#[test]
fn writer_time_is_not_taken_by_reservations_that_expire_at_one_moment() {
    check(&writer::EXPIRING);
}

#[test]
fn writer_time_is_not_taken_by_batches_conflicts_and_changes() {
    check(&writer::WRITING);
}

#[test]
fn writer_time_is_not_taken_by_batches_conflicts_and_changes_on_postgresql() {
    check(&writer::WRITING_POSTGRES);
}

#[test]
fn writer_time_is_not_taken_by_records_beyond_a_threshold() {
    check(&writer::UNKNOWN);
}

#[test]
fn writer_time_is_not_taken_by_records_beyond_a_threshold_on_postgresql() {
    check(&writer::UNKNOWN_POSTGRES);
}

#[test]
fn readers_are_not_taken_by_sums_over_a_year_and_slow_exports() {
    check(&readers::READING);
}

#[test]
fn readers_are_not_taken_by_sums_over_a_year_and_slow_exports_on_postgresql() {
    check(&readers::READING_POSTGRES);
}

#[test]
fn idle_connections_do_not_block_new_ones() {
    check(&connections::IDLE);
}

#[test]
fn http2_floods_do_not_delay_other_connections() {
    check(&connections::FRAMES);
}

#[test]
fn many_label_sets_do_not_break_the_metrics() {
    check(&labels::LABELS);
}

#[test]
fn the_disk_is_not_taken_by_the_largest_records() {
    check(&disk::STORING);
}

#[test]
fn the_disk_is_not_taken_beyond_the_bytes_of_a_day() {
    check(&disk::STORING_BOUNDED);
}

#[test]
fn the_disk_is_not_taken_by_the_largest_records_on_postgresql() {
    check(&disk::STORING_POSTGRES);
}

#[test]
fn the_disk_is_not_taken_by_refusals() {
    check(&disk::REFUSED);
}

#[test]
fn a_blocked_log_output_stops_nothing() {
    check(&log::STUCK);
}
