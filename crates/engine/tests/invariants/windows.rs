//! Snapshot chunks beside the stream: a read never beats a change, and never lacks one.

use crate::support::{Life, SOURCE, World, let_run, within};
use sync_worker_core::change::{Change, Op};
use sync_worker_core::record::Body;
use sync_worker_engine::status::{State, Task};
use sync_worker_testkit::memory::{Changes, key};

/// Runs `changes` while a chunk has been read and not yet handed in; returns once the target is equal.
async fn during_a_read(before: &[i64], changes: impl FnOnce(&World) -> Vec<Vec<Change>>) -> (World, Life) {
    let world = World::new().with_snapshot(1_000);
    for id in before {
        world.source.commit(vec![world.changes.create(*id, 1, &format!("of {id}"))]);
    }
    world.source.hold_reads(true);
    let life = world.start().await;
    within("the read", world.source.until(|source| (source.reads() > 0).then_some(()))).await;
    for transaction in changes(&world) {
        world.source.commit(transaction);
    }
    let_run().await;
    world.source.hold_reads(false);
    life.is(SOURCE, Task::Capture, State::Streaming).await;
    world.equal().await;
    (world, life)
}

#[tokio::test(start_paused = true)]
async fn a_row_that_changes_while_its_chunk_is_read_keeps_the_change() {
    let (world, life) = during_a_read(&[1, 2, 3], |world| {
        vec![
            vec![world.changes.update(1, 2, Some("b"))],
            vec![world.changes.delete(2), world.changes.create(4, 1, "n")],
        ]
    })
    .await;
    let read = |record: &sync_worker_core::record::Delivered| match &record.record.body {
        Body::Change(change) if change.op == Op::Read => change.key().unwrap(),
        Body::Change(_)
        | Body::Schema(_)
        | Body::Commit
        | Body::Marker(_)
        | Body::Configuration(_)
        | Body::Decision(_)
        | Body::Resume(_)
        | Body::Seeded(_) => None,
    };
    let rows: Vec<_> = world.bus.records().iter().filter_map(read).collect();
    assert_eq!(rows, [key(3)]);
    life.stop().await;
}

/// The chunk row is the only one that has the columns which the change leaves out.
#[tokio::test(start_paused = true)]
async fn a_row_that_changes_in_part_while_its_chunk_is_read_arrives_whole() {
    let (world, life) = during_a_read(&[1, 2], |world| vec![vec![world.changes.update(1, 2, None)]]).await;
    within("no parked key", world.target.until(|target| target.parked().is_empty().then_some(()))).await;
    life.stop().await;
    let (_, life) = during_a_read(&[1, 2], |world| {
        let changes = &world.changes;
        vec![vec![changes.update(1, 2, None)], vec![changes.update(1, 3, Some("b"))], vec![changes.update(1, 4, None)]]
    })
    .await;
    life.stop().await;
    let (_, life) = during_a_read(&[1, 2], |world| {
        let changes = &world.changes;
        vec![vec![changes.update(1, 2, None)], vec![changes.delete(1)], vec![changes.create(1, 3, "c")]]
    })
    .await;
    life.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_row_whose_key_changes_while_its_chunk_is_read_arrives_whole_and_once() {
    let (world, life) = during_a_read(&[1, 2], |world| vec![vec![world.changes.rename(1, 9, 2, None)]]).await;
    assert!(!world.target.rows().contains_key(&("customer".into(), key(1))));
    life.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_table_truncated_while_its_chunk_is_read_is_read_again() {
    let (world, life) =
        during_a_read(&[1, 2], |world| vec![vec![world.changes.truncate(), world.changes.create(5, 1, "n")]]).await;
    assert!(world.source.reads() > 1);
    life.stop().await;
}

/// The rows of a chunk may not stand inside a transaction whose end is still to come.
#[tokio::test(start_paused = true)]
async fn a_chunk_never_stands_inside_a_transaction() {
    for seed in 0..20 {
        let world = World::new().with_snapshot(2);
        world.source.batch_changes(1);
        world.source.interleave(seed);
        for id in 0..20 {
            world.source.commit(vec![world.changes.create(id, 1, "a")]);
        }
        let life = world.start().await;
        for version in 2..40 {
            world.source.commit((0..5).map(|id| world.changes.update(id, version, Some("b"))).collect());
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
        }
        world.equal().await;
        life.stop().await;
        let mut open = false;
        for delivered in world.bus.records() {
            match &delivered.record.body {
                Body::Change(change) if change.op == Op::Read => assert!(!open, "a chunk row inside a transaction"),
                Body::Change(_)
                | Body::Commit
                | Body::Marker(_)
                | Body::Configuration(_)
                | Body::Decision(_)
                | Body::Resume(_)
                | Body::Seeded(_) => open = !delivered.record.last,
                Body::Schema(_) => {}
            }
        }
    }
}

/// Chunks are stored before they are read: a restart goes on, and a chunk that was under way is read again.
#[tokio::test(start_paused = true)]
async fn a_snapshot_goes_on_after_a_restart_where_it_was() {
    let world = World::new().with_snapshot(10);
    for id in 0..100 {
        world.source.commit(vec![world.changes.create(id, 1, "a")]);
    }
    let life = world.start().await;
    within("some chunks", world.source.until(|source| (source.reads() >= 4).then_some(()))).await;
    life.stop().await;
    let reads = world.source.reads();
    let life = world.start().await;
    life.is(SOURCE, Task::Capture, State::Streaming).await;
    world.equal().await;
    life.stop().await;
    assert!(reads < 11 && world.source.reads() <= 11 + 4, "{reads} reads, then {}", world.source.reads() - reads);
}

#[tokio::test(start_paused = true)]
async fn a_repair_puts_rows_and_deletes_on_the_bus_as_they_are() {
    let world = World::new();
    let life = world.streaming().await;
    for id in 1..=3 {
        world.source.commit(vec![world.changes.create(id, 1, "a")]);
    }
    world.equal().await;
    let repaired = life.pipeline.repair(None, "customer".into(), vec![key(1), key(9)]);
    assert_eq!(within("the repair", repaired).await.unwrap(), 2);
    world.applied().await;
    let written = world.target.written();
    let ops: Vec<_> = written[3..].iter().map(|one| (one.op, one.key.clone())).collect();
    assert!(ops.contains(&(Op::Read, key(1))) && ops.contains(&(Op::Delete, key(9))), "{ops:?}");
    assert_eq!(world.target.rows(), world.source.rows());
    life.stop().await;
}

/// Under load there is always another batch.
#[tokio::test(start_paused = true)]
async fn a_source_that_always_has_more_does_not_keep_a_read_waiting() {
    let world = World::new();
    world.source.batch_changes(1);
    world.source.interleave(1);
    let life = world.streaming().await;
    for id in 0..2_000 {
        world.source.commit(vec![world.changes.create(id, 1, "a")]);
    }
    let seen = async {
        let read = world.source.until(|source| (source.reads() > 0).then(|| source.returned()));
        let repair = life.pipeline.repair(None, "customer".into(), vec![key(1)]);
        let (returned, repaired) = futures::join!(read, repair);
        repaired.unwrap();
        returned
    };
    let returned = within("the repair", seen).await;
    assert!(returned < 500, "{returned} changes were taken before the read began");
    world.equal().await;
    life.stop().await;
}

/// A part of a row that comes where another row was: what it lacks is not that row's.
#[tokio::test(start_paused = true)]
async fn a_row_that_moves_to_the_key_of_one_that_has_gone_keeps_its_own_columns() {
    for (from, to) in [(1, 2), (2, 1)] {
        let (_, life) = during_a_read(&[1, 2], |world| {
            let changes = &world.changes;
            vec![
                vec![changes.update(from, 2, Some("moves"))],
                vec![changes.delete(to), changes.rename(from, to, 3, None)],
            ]
        })
        .await;
        life.stop().await;
        let (_, life) = during_a_read(&[1, 2], |world| {
            let changes = &world.changes;
            vec![vec![changes.delete(to), changes.rename(from, to, 3, None)]]
        })
        .await;
        life.stop().await;
    }
}

/// What is sent again after a crash is on the log already, but nothing of a table that has joined since: its copy begins behind it.
#[tokio::test(start_paused = true)]
async fn a_table_that_joins_after_a_crash_lacks_nothing_that_was_sent_again() {
    let mut world = World::new();
    let joining = Changes::of("joining");
    world.source.add(joining.0.clone());
    world.target.add(joining.0.clone());
    let life = world.streaming().await;
    let first = world.store.stored(&world.capture_id()).unwrap();
    for id in 0..20 {
        world.source.commit(vec![joining.create(id, 1, "a"), world.changes.create(id, 1, "a")]);
    }
    within("the first table", world.target.until(|target| (target.rows().len() == 20).then_some(()))).await;
    life.stop().await;
    world.store.put_checkpoint(&world.capture_id(), first);
    world.source.batch_changes(1);
    let table = sync_worker_engine::pipeline::Table { name: "joining".into(), ..world.plan.tables[0].clone() };
    world.plan.tables.push(table);
    world.plan.snapshot.initial = true;
    let life = world.start().await;
    life.is(SOURCE, Task::Capture, State::Streaming).await;
    world.equal().await;
    life.stop().await;
    // Its rows stand between the others in what is sent again, and nothing of those is published twice.
    let records = world.bus.records();
    let twice = |record: &&sync_worker_core::record::Delivered| match &record.record.body {
        Body::Change(change) => change.op == Op::Create && change.table().as_str() == "customer",
        _ => false,
    };
    assert_eq!(records.iter().filter(twice).count(), 20);
}
