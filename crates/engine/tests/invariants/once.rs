//! Invariant 3: at-least-once transport, exactly-once effect.

use crate::support::{SOURCE, TARGET, World, let_run};
use sync_worker_core::error::ErrorClass;
use sync_worker_core::name::TableName;
use sync_worker_core::record::{Body, Offset};
use sync_worker_engine::status::{State, Task};

/// The source sends again from the stored position; what is on the bus already stays out.
#[tokio::test(start_paused = true)]
async fn invariant_3_what_the_source_sends_again_is_published_once() {
    let world = World::new();
    world.source.batch_changes(2);
    let life = world.streaming().await;
    let first = world.store.stored(&world.capture_id()).unwrap();
    for transaction in 0..10 {
        world.source.commit((0..3).map(|id| world.changes.create(transaction * 3 + id, 1, "a")).collect());
    }
    world.equal().await;
    life.stop().await;
    world.store.put_checkpoint(&world.capture_id(), first);
    let life = world.streaming().await;
    world.source.commit(vec![world.changes.update(0, 2, None)]);
    world.equal().await;
    life.stop().await;
    assert_eq!(world.source.returned(), 30 + 31);
    let records = world.bus.records();
    let changes = records.iter().filter(|record| matches!(record.record.body, Body::Change(_))).count();
    assert_eq!(changes, 31);
    assert_eq!(world.target.written().len(), 31);
}

/// A crash in the middle of a transaction: the rest follows, and its end.
#[tokio::test(start_paused = true)]
async fn invariant_3_a_transaction_cut_by_a_reconnect_takes_effect_once_and_whole() {
    for (cut, apart) in (1..=6).flat_map(|cut| [(cut, false), (cut, true)]) {
        let world = World::new();
        world.source.batch_changes(1);
        world.source.end_apart(apart);
        let life = world.streaming().await;
        world.bus.hold();
        world.source.commit((0..6).map(|id| world.changes.create(id, 1, "a")).collect());
        let_run().await;
        world.bus.edit(|records| records.truncate(cut));
        world.bus.flush();
        world.bus.release();
        world.bus.crash();
        life.stop().await;
        let life = world.streaming().await;
        world.equal().await;
        life.stop().await;
        let written = world.target.written();
        assert_eq!(written.len(), 6, "cut after {cut} records");
        assert!(written.iter().all(|one| one.transaction == written[0].transaction), "cut after {cut} records");
    }
}

/// The rest of the transaction would come without that table's changes, and with other numbers.
#[tokio::test(start_paused = true)]
async fn invariant_3_a_table_may_not_leave_in_the_middle_of_a_transaction_that_changes_it() {
    let mut world = World::new();
    world.source.batch_changes(1);
    let life = world.streaming().await;
    world.bus.hold();
    world.source.commit((0..6).map(|id| world.changes.create(id, 1, "a")).collect());
    let_run().await;
    world.bus.edit(|records| records.truncate(3));
    world.bus.flush();
    world.bus.release();
    world.bus.crash();
    life.stop().await;
    let tables = world.plan.tables.clone();
    world.plan.tables[0].name = TableName::new("other");
    let opened = world.source.opened();
    let life = world.start().await;
    let reason = life.is(SOURCE, Task::Capture, State::Failed).await;
    assert!(reason.contains("table customer was taken out of pipeline customers"), "{reason}");
    assert_eq!(world.source.opened(), opened, "the source was told of it");
    life.stop().await;
    world.plan.tables = tables;
    let life = world.streaming().await;
    world.equal().await;
    life.stop().await;
    assert_eq!(world.target.written().len(), 6);
}

#[tokio::test(start_paused = true)]
async fn invariant_3_a_record_that_the_bus_repeats_is_applied_once() {
    let world = World::new();
    let life = world.streaming().await;
    for version in 1..=4 {
        let change = match version {
            1 => world.changes.create(1, 1, "a"),
            version => world.changes.update(1, version, Some("a")),
        };
        world.source.commit(vec![change]);
    }
    world.equal().await;
    life.stop().await;
    // The log as a producer leaves it that sent two records again.
    world.bus.edit(|records| {
        let again: Vec<_> = records[2..4].to_vec();
        records.splice(4..4, again);
    });
    world.bus.flush();
    let mut again = World::new();
    (again.bus, again.source, again.store) = (world.bus.clone(), world.source.clone(), world.store.clone());
    let life = again.streaming().await;
    again.equal().await;
    life.stop().await;
    assert_eq!(again.target.written().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn invariant_3_a_record_that_the_bus_lost_is_a_gap() {
    let world = World::new();
    let life = world.streaming().await;
    for id in 0..5 {
        world.source.commit(vec![world.changes.create(id, 1, "a")]);
    }
    world.equal().await;
    life.stop().await;
    world.bus.lose_one(Offset(3));
    let mut again = World::new();
    (again.bus, again.source, again.store) = (world.bus.clone(), world.source.clone(), world.store.clone());
    let life = again.start().await;
    let reason = life.is(TARGET, Task::Apply, State::Gap).await;
    assert!(reason.contains("lost records") && reason.contains("snapshot"), "{reason}");
    life.stop().await;
}

#[tokio::test(start_paused = true)]
async fn invariant_3_reconnects_of_the_source_neither_lose_nor_repeat() {
    let world = World::new();
    world.source.batch_changes(2);
    let life = world.streaming().await;
    for id in 0..30 {
        world.source.commit((0..3).map(|at| world.changes.create(id * 3 + at, 1, "a")).collect());
        world.source.fail_source(ErrorClass::Transient);
        life.is(SOURCE, Task::Capture, State::Waiting).await;
        life.is(SOURCE, Task::Capture, State::Streaming).await;
    }
    world.equal().await;
    assert_eq!(world.target.written().len(), 90);
    life.stop().await;
}
