//! One caller takes as much of a resource as it can, and the others do not notice: memory, worker
//! time, writer time, readers, connections, label sets, the disk and the log.
//!
//! An ordinary run is short, and its bounds leave room for a build for tests and a busy machine.
//! With `BURSAR_PROVE=1` attacks last longer and the bounds are those that are promised.

mod attack;
mod connections;
mod disk;
mod force;
mod labels;
mod log;
mod memory;
mod readers;
mod request;
mod scene;
mod verdict;
mod watch;
mod workers;
mod writer;

use bursar_testing::process::descriptors::raise_descriptors;

use crate::hostile::attack::Attack;
use crate::hostile::scene::Scene;
use crate::hostile::verdict::Verdict;

/// Descriptors of this process and of the server.
const DESCRIPTORS: u64 = 4_000;

/// Claims that an attack leaves the honest callers, and the server's memory, as they are.
#[track_caller]
fn check(attack: &Attack) {
    let _alone = crate::alone();
    raise_descriptors(DESCRIPTORS);
    let mut failures = Vec::new();
    // The machine has other work too: what does not hold in a run gets a second one.
    for _ in 0..2 {
        let mut scene = Scene::new(attack);
        let clients = (attack.prepare)(&mut scene);
        let verdict = Verdict::of(attack, &scene, clients);
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
fn memory_is_not_filled_by_what_the_server_remembers() {
    check(&memory::REMEMBERED);
}

#[test]
fn memory_is_not_filled_by_slow_bodies_and_answers_that_are_not_taken() {
    check(&memory::HELD);
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
fn writer_time_is_not_taken_on_postgresql_either() {
    check(&writer::WRITING_POSTGRES);
}

#[test]
fn writer_time_is_not_taken_by_records_beyond_a_threshold() {
    check(&writer::UNKNOWN);
}

#[test]
fn writer_time_is_not_taken_by_them_on_postgresql_either() {
    check(&writer::UNKNOWN_POSTGRES);
}

#[test]
fn readers_are_not_taken_by_sums_over_a_year_and_slow_exports() {
    check(&readers::READING);
}

#[test]
fn readers_are_not_taken_on_postgresql_either() {
    check(&readers::READING_POSTGRES);
}

#[test]
fn connections_are_not_taken_by_idle_ones() {
    check(&connections::IDLE);
}

#[test]
fn connections_of_http2_do_not_hold_up_the_others() {
    check(&connections::FRAMES);
}

#[test]
fn label_sets_do_not_end_the_metrics() {
    check(&labels::LABELS);
}

#[test]
fn the_disk_is_not_taken_by_the_largest_records() {
    check(&disk::STORING);
}

#[test]
fn the_disk_is_not_taken_beyond_a_day_s_bytes() {
    check(&disk::STORING_BOUNDED);
}

#[test]
fn the_disk_is_not_taken_on_postgresql_either() {
    check(&disk::STORING_POSTGRES);
}

#[test]
fn the_disk_is_not_taken_by_refusals() {
    check(&disk::REFUSED);
}

#[test]
fn a_log_that_is_not_read_stops_nothing() {
    check(&log::STUCK);
}
