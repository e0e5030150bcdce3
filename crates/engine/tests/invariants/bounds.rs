//! Invariant 9: memory is bounded; a full queue slows the source; a large transaction is applied in parts.

use crate::support::{SOURCE, TARGET, World, let_run, within};
use sync_worker_engine::status::{State, Task};

#[tokio::test(start_paused = true)]
async fn invariant_9_a_full_bus_slows_the_source() {
    let world = World::new();
    world.source.batch_changes(5);
    world.bus.hold();
    world.bus.limit_queue(20);
    let life = world.start().await;
    life.is(SOURCE, Task::Capture, State::Streaming).await;
    for id in 0..1_000 {
        world.source.commit(vec![world.changes.create(id, 1, "a")]);
    }
    let_run().await;
    assert!(world.source.returned() <= 30, "{} changes in memory", world.source.returned());
    world.bus.release();
    world.equal().await;
    life.stop().await;
}

#[tokio::test(start_paused = true)]
async fn invariant_9_publishes_that_are_not_durable_are_bounded_in_number() {
    let world = World::new();
    world.source.batch_changes(1);
    let life = world.streaming().await;
    world.bus.hold();
    for id in 0..1_000 {
        world.source.commit(vec![world.changes.create(id, 1, "a")]);
    }
    let_run().await;
    assert!(world.source.returned() <= 64, "{} publishes under way", world.source.returned());
    world.bus.release();
    world.equal().await;
    life.stop().await;
}

#[tokio::test(start_paused = true)]
async fn invariant_9_a_target_that_does_not_answer_slows_neither_capture_nor_fills_memory() {
    let mut world = World::new();
    world.plan.limits.batch_rows = 10;
    let life = world.streaming().await;
    world.target.fail_sink(sync_worker_testkit::memory::Fault::Hang);
    for id in 0..500 {
        world.source.commit(vec![world.changes.create(id, 1, "a")]);
    }
    let all = world.bus.until(|bus| (bus.records().len() == 501).then_some(()));
    within("the log", all).await;
    world.equal().await;
    life.stop().await;
}

#[tokio::test(start_paused = true)]
async fn invariant_9_a_transaction_above_the_limit_is_applied_in_parts_and_the_others_whole() {
    let mut world = World::new();
    world.plan.limits.transaction_rows = 10;
    let life = world.streaming().await;
    // Several reads of the bus.
    let wide = "x".repeat(100_000);
    world.source.commit((0..50).map(|id| world.changes.create(id, 1, &wide)).collect());
    for transaction in 10..20 {
        world.source.commit((0..5).map(|at| world.changes.create(transaction * 10 + at, 1, "a")).collect());
    }
    world.equal().await;
    let written = world.target.written();
    let parts = written.chunk_by(|one, other| one.transaction == other.transaction);
    assert!(parts.clone().count() > 3, "the large transaction was one");
    let whole =
        |part: &[sync_worker_testkit::memory::Written]| part.iter().filter(|one| one.offset.0 > 50).count() % 5 == 0;
    assert!(parts.into_iter().all(whole));
    life.stop().await;
}

/// A part may end just before the record that says that its transaction is over.
#[tokio::test(start_paused = true)]
async fn invariant_9_the_end_of_a_transaction_in_parts_is_taken_when_it_comes() {
    let mut world = World::new();
    world.plan.limits.transaction_rows = 3;
    world.source.batch_changes(3);
    let life = world.streaming().await;
    world.source.commit((0..6).map(|id| world.changes.create(id, 1, "a")).collect());
    world.equal().await;
    life.status(TARGET, Task::Apply, |status| status.behind == 0 && status.changes == 6).await;
    world.applied().await;
    // The same with an end that was published by itself.
    world.bus.edit(|records| {
        let mut last = records.last().unwrap().clone();
        records.last_mut().unwrap().record.last = false;
        last.record.previous = Some(last.record.position);
        last.record.position = last.record.position.end_of_transaction();
        last.record.body = sync_worker_core::record::Body::Commit;
        records.push(last);
    });
    world.bus.flush();
    life.stop().await;
    let mut again = World::new();
    again.plan.limits.transaction_rows = 3;
    (again.bus, again.source, again.store) = (world.bus.clone(), world.source.clone(), world.store.clone());
    let life = again.streaming().await;
    again.equal().await;
    again.applied().await;
    life.status(TARGET, Task::Apply, |status| status.behind == 0).await;
    life.stop().await;
}
