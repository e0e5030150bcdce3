//! Invariant 2: rows, parked rows and marker are one transaction, and the marker moves by compare-and-set.

use crate::support::{SOURCE, TARGET, World, let_run, within};
use sync_worker_core::error::ErrorClass;
use sync_worker_core::record::Offset;
use sync_worker_engine::status::{State, Task};
use sync_worker_testkit::memory::{Fault, number};

#[tokio::test(start_paused = true)]
async fn invariant_2_a_batch_that_fails_before_or_after_its_commit_has_its_effect_once() {
    let faults = [Fault::BeforeCommit(ErrorClass::Transient), Fault::AfterCommit, Fault::Hang, Fault::HangAfterCommit];
    for fault in faults {
        let world = World::new();
        let life = world.streaming().await;
        world.target.fail_sink(fault);
        world.source.commit(vec![world.changes.create(1, 1, "a"), world.changes.create(2, 1, "b")]);
        world.equal().await;
        assert_eq!(world.target.written().len(), 2, "{fault:?}");
        world.source.commit(vec![world.changes.update(1, 2, None)]);
        world.equal().await;
        assert_eq!(world.target.written().len(), 3, "{fault:?}");
        life.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn invariant_2_what_is_parked_is_durable_in_the_retry_queue_before_the_commit() {
    let world = World::new().without_retries();
    let life = world.streaming().await;
    world.target.refuse(|_, row| (number(row, 0) == 1).then_some(ErrorClass::Dependency));
    world.target.fail_sink(Fault::BeforeCommitAfterParking);
    let queued = world.store.until(|store| (!store.deferred().is_empty()).then_some(()));
    world.source.commit(vec![world.changes.create(1, 1, "a"), world.changes.create(2, 1, "b")]);
    within("the retry queue", queued).await;
    assert!(world.target.parked().is_empty() && world.target.rows().is_empty(), "committed before it was parked");
    world.applied().await;
    assert_eq!((world.target.parked().len(), world.target.rows().len()), (1, 1));
    assert_eq!(world.store.deferred()[0].offset, world.target.parked()[0].offset);
    life.stop().await;
}

/// The sink is at work on records that the bus may still lose. Its statements may run; their commit may not.
#[tokio::test(start_paused = true)]
async fn invariant_2_nothing_is_committed_or_parked_before_its_records_are_durable_on_the_bus() {
    let world = World::new().without_retries();
    let life = world.streaming().await;
    world.target.refuse(|_, row| (number(row, 0) == 2).then_some(ErrorClass::Poison));
    for version in 1..=2 {
        world.bus.hold();
        world
            .source
            .commit(vec![world.changes.create(version * 10, 1, "a"), world.changes.create(version * 10 + 1, 1, "b")]);
        let_run().await;
        assert!(world.bus.queued() > 0);
        assert_eq!(world.target.rows().len(), 2 * (usize::try_from(version).unwrap() - 1));
        world.bus.release();
        world.equal().await;
    }
    let before = world.target.marker();
    world.bus.hold();
    world.source.commit(vec![world.changes.create(2, 1, "refused"), world.changes.create(3, 1, "b")]);
    let_run().await;
    assert!(world.store.deferred().is_empty(), "parked for a record that may get lost");
    // What was read ahead is lost, and comes again under the same offsets.
    world.bus.crash();
    let_run().await;
    assert_eq!((world.target.marker(), world.target.rows().len()), (before, 4));
    world.bus.release();
    life.is(SOURCE, Task::Capture, State::Streaming).await;
    world.target.until(|target| (target.rows().len() == 5).then_some(())).await;
    assert_eq!((world.store.deferred().len(), world.target.parked().len()), (1, 1));
    assert_eq!(world.target.written().len(), 5);
    life.stop().await;
}

/// The store is gone: a row that can't be put in the queue may not be skipped.
#[tokio::test(start_paused = true)]
async fn invariant_2_a_refused_row_that_the_queue_does_not_take_holds_the_marker_back() {
    let world = World::new().without_retries();
    let life = world.streaming().await;
    world.target.refuse(|_, _| Some(ErrorClass::Poison));
    world.store.fail(true);
    world.source.commit(vec![world.changes.create(1, 1, "a")]);
    life.is(TARGET, Task::Apply, State::Waiting).await;
    assert_eq!(world.target.marker().unwrap().offset, None);
    world.store.fail(false);
    world.applied().await;
    assert_eq!(world.target.parked().len(), 1);
    life.stop().await;
}

#[tokio::test(start_paused = true)]
async fn invariant_2_a_marker_that_somebody_else_moved_stops_this_sink() {
    let world = World::new();
    let life = world.streaming().await;
    world.target.put_marker(|marker| marker.writes += 1);
    world.source.commit(vec![world.changes.create(1, 1, "a")]);
    life.is(TARGET, Task::Apply, State::Superseded).await;
    assert!(world.target.rows().is_empty());
    life.stop().await;
}

#[tokio::test(start_paused = true)]
async fn invariant_2_a_target_that_was_taken_over_meanwhile_is_left_alone() {
    let world = World::new();
    let life = world.streaming().await;
    world.target.fail_sink(Fault::BeforeCommit(ErrorClass::Transient));
    world.target.put_marker(|marker| marker.epoch += 1);
    world.source.commit(vec![world.changes.create(1, 1, "a")]);
    let reason = life.is(TARGET, Task::Apply, State::Superseded).await;
    assert!(reason.contains("taken over"), "{reason}");
    life.is(SOURCE, Task::Capture, State::Streaming).await;
    life.stop().await;
}

/// The connection is lost while the target is being taken over: the epoch may have moved, by our own hand.
#[tokio::test(start_paused = true)]
async fn invariant_2_a_take_over_of_our_own_whose_answer_was_lost_is_nobody_else_s() {
    for fault in [Fault::AfterCommit, Fault::HangAfterCommit, Fault::Hang] {
        let world = World::new();
        let life = world.streaming().await;
        world.target.fail_sink(Fault::BeforeCommit(ErrorClass::Transient));
        world.target.fail_take_over(fault);
        world.target.fail_take_over(fault);
        world.source.commit(vec![world.changes.create(1, 1, "a")]);
        world.equal().await;
        life.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn invariant_2_the_marker_names_the_last_record_and_grows_with_every_transaction() {
    let world = World::new();
    let life = world.streaming().await;
    let mut writes = world.target.marker().unwrap().writes;
    for id in 0..5 {
        world.source.commit(vec![world.changes.create(id, 1, "a")]);
        world.equal().await;
        let_run().await;
        let marker = world.target.marker().unwrap();
        let last = world.bus.records().pop().unwrap();
        assert_eq!((marker.offset, marker.digest, marker.writes), (Some(last.offset), last.digest(), writes + 1));
        writes = marker.writes;
    }
    assert_eq!(world.target.marker().unwrap().offset, Some(Offset(5)), "five changes behind one schema record");
    life.stop().await;
}
