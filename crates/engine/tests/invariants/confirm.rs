//! Invariant 1: a source position is confirmed only after all before it is durable, at commit boundaries, never backwards.

use crate::support::{SOURCE, World, let_run, within};
use std::time::Duration;
use sync_worker_core::error::ErrorClass;
use sync_worker_core::record::Offset;
use sync_worker_engine::status::{State, Task};

#[tokio::test(start_paused = true)]
async fn invariant_1_position_is_confirmed_only_after_the_bus_has_it_durably() {
    let world = World::new();
    let life = world.streaming().await;
    world.bus.hold();
    let position = world.source.commit(vec![world.changes.create(1, 1, "a")]);
    within("a publish", world.bus.until(|bus| (bus.queued() > 0).then_some(()))).await;
    let_run().await;
    assert!(world.source.confirmed().iter().all(|confirmed| confirmed.position < position));
    let stored = world.store.stored(&world.capture_id()).unwrap();
    assert!(stored.checkpoint.position < position, "the position was stored before the bus had its change");
    world.bus.flush();
    let confirmed = |source: &sync_worker_testkit::memory::MemoryDatabase| {
        source.confirmed().iter().any(|confirmed| confirmed.position == position).then_some(())
    };
    within("the confirmation", world.source.until(confirmed)).await;
    let stored = world.store.stored(&world.capture_id()).unwrap();
    assert_eq!((stored.checkpoint.position, stored.next), (position, Offset(2)));
    life.stop().await;
}

#[tokio::test(start_paused = true)]
async fn invariant_1_position_is_stored_before_it_is_confirmed() {
    let world = World::new();
    let life = world.streaming().await;
    world.store.fail(true);
    let position = world.source.commit(vec![world.changes.create(1, 1, "a")]);
    life.is(SOURCE, Task::Capture, State::Waiting).await;
    assert!(world.source.confirmed().iter().all(|confirmed| confirmed.position < position));
    world.store.fail(false);
    world.equal().await;
    let confirmed = |source: &sync_worker_testkit::memory::MemoryDatabase| {
        source.confirmed().iter().any(|confirmed| confirmed.position == position).then_some(())
    };
    within("the confirmation", world.source.until(confirmed)).await;
    assert_eq!(world.store.stored(&world.capture_id()).unwrap().checkpoint.position, position);
    life.stop().await;
}

#[tokio::test(start_paused = true)]
async fn invariant_1_positions_are_confirmed_at_commit_boundaries_and_never_backwards() {
    let world = World::new();
    world.source.batch_changes(2);
    let life = world.streaming().await;
    let mut ends = Vec::new();
    for transaction in 0..20 {
        let first = transaction * 3;
        ends.push(world.source.commit((first..first + 3).map(|id| world.changes.create(id, 1, "a")).collect()));
        if transaction % 5 == 0 {
            world.source.fail_source(ErrorClass::Transient);
        }
        let_run().await;
    }
    world.equal().await;
    life.stop().await;
    let confirmed: Vec<_> = world.source.confirmed().into_iter().map(|confirmed| confirmed.position).collect();
    assert!(confirmed.is_sorted());
    assert!(confirmed.iter().all(|position| position.ordinal() == u64::MAX));
    assert_eq!(confirmed.last(), ends.last());
}

/// A crash may lose a log's tail: what the stored position says is copied must be under the offset that it names.
#[tokio::test(start_paused = true)]
async fn invariant_1_a_snapshot_chunk_is_done_only_when_the_stored_offset_covers_its_rows() {
    let world = World::new().with_snapshot(10);
    for id in 0..30 {
        world.source.commit(vec![world.changes.create(id, 1, "a")]);
    }
    let life = world.streaming().await;
    world.equal().await;
    let rows = world.bus.records().iter().rposition(|record| record.record.position.ordinal() == u64::MAX).unwrap();
    // A crash: nothing is saved in passing.
    let stored = world.store.stored(&world.capture_id()).unwrap();
    assert!(stored.next.0 > rows as u64, "chunks are done up to offset {rows}, the stored offset is {}", stored.next);
    life.stop().await;
}

/// What lies behind the stored offset is told from what is new by its position alone.
#[tokio::test(start_paused = true)]
async fn invariant_1_the_stored_offset_never_runs_ahead_of_its_position() {
    let world = World::new();
    world.source.batch_changes(2);
    let life = world.streaming().await;
    let ids = |from: i64, count: i64| (from..from + count).map(|id| world.changes.create(id, 1, "a")).collect();
    world.source.commit(ids(0, 2));
    world.equal().await;
    let_run().await;
    // The next position is stored only a second later; until then a part of an open transaction becomes durable.
    let covered = world.source.commit(ids(10, 2));
    let_run().await;
    world.bus.hold();
    world.source.commit(ids(20, 7));
    let_run().await;
    assert_eq!(world.bus.queued(), 7);
    world.bus.flush_to(Offset(world.bus.records().len() as u64 - 3));
    let_run().await;
    tokio::time::advance(Duration::from_secs(2)).await;
    let_run().await;
    let stored = world.store.stored(&world.capture_id()).unwrap();
    assert_eq!(stored.checkpoint.position, covered);
    let records = world.bus.records();
    let below = &records[..usize::try_from(stored.next.0).unwrap()];
    let ahead = below.iter().filter(|record| record.record.position > covered).count();
    assert_eq!(ahead, 0, "the stored offset covers records above the stored position");
    world.bus.release();
    world.equal().await;
    life.stop().await;
}
