//! Invariant 10: one bad row parks its key; one dead target stops only its applier.

use crate::support::{SOURCE, TARGET, World, within};
use std::time::Duration;
use sync_worker_core::error::ErrorClass;
use sync_worker_core::name::DatabaseName;
use sync_worker_engine::status::{State, Task};
use sync_worker_testkit::memory::{Fault, MemoryDatabase, key, number, schema};

#[tokio::test(start_paused = true)]
async fn invariant_10_one_bad_row_parks_its_key_and_nothing_else() {
    let world = World::new();
    let life = world.streaming().await;
    world.target.refuse(|_, row| (number(row, 0) == 7).then_some(ErrorClass::Poison));
    for id in 0..20 {
        world.source.commit(vec![world.changes.create(id, 1, "a")]);
    }
    let rows = world.target.until(|target| (target.rows().len() == 19).then_some(()));
    within("the other rows", rows).await;
    let parked: Vec<_> = world.target.parked().into_iter().map(|parked| parked.key).collect();
    assert_eq!(parked, [key(7)]);
    life.status(TARGET, Task::Apply, |status| status.state == State::Streaming && status.parked == 1).await;
    life.stop().await;
}

fn with_second_target() -> World {
    let mut world = World::new();
    world.others.push(MemoryDatabase::new("archive", &[schema("customer")]));
    world.plan.to.push(DatabaseName::new("archive"));
    world
}

#[tokio::test(start_paused = true)]
async fn invariant_10_a_target_that_fails_for_good_stops_only_its_applier() {
    for (class, state) in
        [(ErrorClass::Fatal, State::Failed), (ErrorClass::Gap, State::Gap), (ErrorClass::Superseded, State::Superseded)]
    {
        let world = with_second_target();
        world.others[0].fail_sink(Fault::BeforeCommit(class));
        let life = world.streaming().await;
        world.source.commit(vec![world.changes.create(1, 1, "a")]);
        life.is("archive", Task::Apply, state).await;
        world.source.commit(vec![world.changes.create(2, 1, "a")]);
        world.equal().await;
        life.is(SOURCE, Task::Capture, State::Streaming).await;
        assert!(world.others[0].rows().is_empty());
        life.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn invariant_10_a_target_that_does_not_answer_holds_back_nobody_and_catches_up() {
    let world = with_second_target();
    world.others[0].fail_take_over(Fault::Hang);
    let life = world.streaming().await;
    world.source.commit(vec![world.changes.create(1, 1, "a")]);
    world.equal().await;
    assert!(world.others[0].rows().is_empty());
    let rows = world.source.rows();
    within("the slow target", world.others[0].until(|target| (target.rows() == rows).then_some(()))).await;
    life.stop().await;
}

/// However long each of its transactions takes: no deadline is the same twice.
#[tokio::test(start_paused = true)]
async fn invariant_10_a_target_that_is_slow_for_good_gets_the_time_that_it_takes() {
    let world = World::new();
    let life = world.streaming().await;
    for _ in 0..40 {
        world.target.fail_sink(Fault::Slow(Duration::from_secs(50)));
    }
    world.source.commit(vec![world.changes.create(1, 1, "a")]);
    world.equal().await;
    // It is known by now.
    let transactions = world.target.transactions();
    world.source.commit(vec![world.changes.create(2, 1, "a")]);
    world.equal().await;
    assert_eq!(world.target.transactions(), transactions + 1);
    life.stop().await;
}

#[tokio::test(start_paused = true)]
async fn invariant_10_a_source_that_fails_leaves_the_appliers_running() {
    let world = World::new();
    let life = world.streaming().await;
    world.source.fail_source(ErrorClass::Fatal);
    world.source.commit(vec![world.changes.create(1, 1, "a")]);
    life.is(SOURCE, Task::Capture, State::Failed).await;
    life.is(TARGET, Task::Apply, State::Streaming).await;
    // What was wrong is mended meanwhile, and nobody has to restart the worker.
    world.source.forget_faults();
    world.equal().await;
    life.is(SOURCE, Task::Capture, State::Streaming).await;
    life.stop().await;
}
