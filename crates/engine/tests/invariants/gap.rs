//! Invariant 8: a lost, recreated or foreign position is a named GAP state with a repair, never a silent resume.

use crate::support::{SOURCE, TARGET, World};
use sync_worker_core::error::ErrorClass;
use sync_worker_core::record::Offset;
use sync_worker_engine::status::{State, Task};
use sync_worker_testkit::memory::{MemoryBus, MemoryStore};

/// A pipeline that has copied some changes and was stopped.
async fn stopped() -> World {
    let world = World::new();
    let life = world.streaming().await;
    for id in 0..5 {
        world.source.commit(vec![world.changes.create(id, 1, "a")]);
    }
    world.equal().await;
    life.stop().await;
    world
}

async fn capture_is_a_gap(world: &World, says: &str) {
    let opened = world.source.opened();
    let stored = world.store.stored(&world.capture_id());
    let confirmed = world.source.confirmed().len();
    let life = world.start().await;
    let reason = life.is(SOURCE, Task::Capture, State::Gap).await;
    assert!(reason.contains(says) && reason.contains("GAP"), "{reason}");
    assert_eq!(world.store.stored(&world.capture_id()), stored, "the position was replaced");
    assert_eq!(world.source.confirmed().len(), confirmed);
    assert!(world.source.opened() <= opened + 1);
    life.stop().await;
}

async fn apply_is_a_gap(world: &World, says: &str) {
    let rows = world.target.rows();
    let offset = world.target.marker().and_then(|marker| marker.offset);
    let life = world.start().await;
    let reason = life.is(TARGET, Task::Apply, State::Gap).await;
    assert!(reason.contains(says) && reason.contains("new snapshot"), "{reason}");
    world.source.commit(vec![world.changes.create(99, 1, "z")]);
    assert_eq!(world.target.rows(), rows);
    assert_eq!(world.target.marker().and_then(|marker| marker.offset), offset);
    life.stop().await;
}

#[tokio::test(start_paused = true)]
async fn invariant_8_capture_on_another_log_is_a_gap() {
    let mut world = stopped().await;
    world.bus = MemoryBus::new("log-2", 1);
    capture_is_a_gap(&world, "rests on log log-1, but the log here is log-2").await;
}

#[tokio::test(start_paused = true)]
async fn invariant_8_capture_on_a_log_that_ends_too_early_is_a_gap() {
    let world = stopped().await;
    world.bus.lose_from(Offset(4));
    capture_is_a_gap(&world, "the log ends at 4").await;
}

#[tokio::test(start_paused = true)]
async fn invariant_8_capture_whose_store_was_lost_is_a_gap() {
    let world = stopped().await;
    world.store.forget_everything();
    capture_is_a_gap(&world, "the position that goes with them is lost").await;
}

#[tokio::test(start_paused = true)]
async fn invariant_8_capture_of_a_recreated_source_is_a_gap() {
    let world = stopped().await;
    world.source.replace_epoch("crm/2");
    capture_is_a_gap(&world, "belongs to another server").await;
}

/// The source says so while it streams: a slot that was invalidated, a log that was purged.
#[tokio::test(start_paused = true)]
async fn invariant_8_a_gap_in_the_stream_stops_the_capture_alone() {
    let world = World::new();
    let life = world.streaming().await;
    world.source.commit(vec![world.changes.create(1, 1, "a")]);
    world.equal().await;
    world.source.fail_source(ErrorClass::Gap);
    world.source.commit(vec![world.changes.create(2, 1, "a")]);
    life.is(SOURCE, Task::Capture, State::Gap).await;
    life.is(TARGET, Task::Apply, State::Streaming).await;
    life.stop().await;
}

#[tokio::test(start_paused = true)]
async fn invariant_8_apply_with_the_marker_of_another_log_is_a_gap() {
    let world = stopped().await;
    world.target.put_marker(|marker| marker.log = "log-0".to_owned());
    apply_is_a_gap(&world, "belongs to log log-0, not to log-1").await;
}

#[tokio::test(start_paused = true)]
async fn invariant_8_apply_without_a_position_on_a_log_whose_start_is_gone_is_a_gap() {
    let world = stopped().await;
    world.target.put_marker(|marker| (marker.offset, marker.digest) = (None, 0));
    world.bus.trim(Offset(2));
    apply_is_a_gap(&world, "the log begins at offset 2").await;
}

#[tokio::test(start_paused = true)]
async fn invariant_8_apply_below_the_start_of_the_log_is_a_gap() {
    let world = stopped().await;
    world.target.put_marker(|marker| marker.offset = Some(Offset(1)));
    world.bus.trim(Offset(3));
    apply_is_a_gap(&world, "marker is at offset 1, but the log holds 3 to 6").await;
}

#[tokio::test(start_paused = true)]
async fn invariant_8_apply_above_the_end_of_the_log_is_a_gap() {
    let mut world = stopped().await;
    world.bus.lose_from(Offset(5));
    // As if capture's own state had been removed.
    world.store = MemoryStore::default();
    apply_is_a_gap(&world, "marker is at offset 5, but the log holds 0 to 5").await;
}

#[tokio::test(start_paused = true)]
async fn invariant_8_apply_over_another_record_than_it_took_is_a_gap() {
    let world = stopped().await;
    world.target.put_marker(|marker| marker.digest ^= 1);
    apply_is_a_gap(&world, "is another one than it applied").await;
}

/// Not even a record that a target has yet to see may go before the target could be reached for the first time.
#[tokio::test(start_paused = true)]
async fn invariant_8_a_log_keeps_what_a_target_that_was_never_reached_still_needs() {
    use sync_worker_testkit::memory::Fault;
    let world = World::new();
    for _ in 0..50 {
        world.target.fail_take_over(Fault::BeforeCommit(ErrorClass::Transient));
    }
    let life = world.start().await;
    life.is(SOURCE, Task::Capture, State::Streaming).await;
    world.source.commit(vec![world.changes.create(1, 1, "a")]);
    let durable = world.bus.until(|bus| (bus.records().len() == 2).then_some(()));
    crate::support::within("the log", durable).await;
    assert_eq!(world.bus.needed(&format!("apply:{TARGET}")), Some(Offset(0)));
    world.target.forget_faults();
    world.equal().await;
    life.stop().await;
}
