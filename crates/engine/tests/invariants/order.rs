//! Invariant 5: writes of one key reach a target in bus order, through retry and dead letter too.

use crate::support::{TARGET, World, let_run, within};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use sync_worker_core::bus::Bus;
use sync_worker_core::change::Change;
use sync_worker_core::error::ErrorClass;
use sync_worker_core::ledger::{BY_WORKER, Ledger, Wanted};
use sync_worker_core::name::DatabaseName;
use sync_worker_core::record::{Offset, Partition};
use sync_worker_core::row::Row;
use sync_worker_core::schema::Schema;
use sync_worker_core::sink::{Applied, Marker, ParkedKey, Parking, Refused, Write, WriteBatch};
use sync_worker_core::store::{Deferred, RetryQueue};
use sync_worker_engine::retry::{ParkingLot, RetryPolicy};
use sync_worker_testkit::memory::{Changes, Fault, MemoryDatabase, key, number};

/// Refuses rows while the switch is on.
fn refuse(target: &MemoryDatabase, class: ErrorClass, which: fn(&Row) -> bool) -> Arc<AtomicBool> {
    let switch = Arc::new(AtomicBool::new(true));
    let on = switch.clone();
    target.refuse(move |_, row| (on.load(Ordering::Relaxed) && which(row)).then_some(class));
    switch
}

async fn commit(world: &World, changes: Vec<Change>) {
    world.source.commit(changes);
    let end = world.source.rows();
    // Until capture has it on the bus and apply has looked at it.
    let last = |bus: &sync_worker_testkit::memory::MemoryBus| {
        let records = bus.records();
        let newest = records.iter().rev().find_map(|record| record.record.transaction.clone())?;
        (newest.parse::<usize>().ok()? == world.source.commits()).then_some(())
    };
    within("the log", world.bus.until(last)).await;
    world.applied().await;
    assert_eq!(end, world.source.rows());
}

#[tokio::test(start_paused = true)]
async fn invariant_5_a_parked_version_is_written_once_the_target_takes_it() {
    let world = World::new();
    let life = world.streaming().await;
    let seen = Arc::new(AtomicU32::new(0));
    let tries = seen.clone();
    world.target.refuse(move |_, _| (tries.fetch_add(1, Ordering::Relaxed) < 3).then_some(ErrorClass::Dependency));
    world.source.commit(vec![world.changes.create(1, 1, "a")]);
    world.equal().await;
    assert_eq!(seen.load(Ordering::Relaxed), 4);
    assert!(world.target.parked().is_empty());
    let empty = world.store.until(|store| store.deferred().is_empty().then_some(()));
    within("an empty retry queue", empty).await;
    life.stop().await;
}

#[tokio::test(start_paused = true)]
async fn invariant_5_a_newer_version_of_a_parked_key_is_tried_at_once_and_replaces_it() {
    let world = World::new().without_retries();
    let life = world.streaming().await;
    refuse(&world.target, ErrorClass::Dependency, |row| number(row, 1) < 3);
    commit(&world, vec![world.changes.create(1, 1, "a")]).await;
    commit(&world, vec![world.changes.update(1, 2, None)]).await;
    let deferred = world.store.deferred();
    assert_eq!(deferred.len(), 1);
    let waiting = deferred[0].change.after.as_ref().unwrap();
    assert!(number(waiting, 1) == 2 && !waiting.is_partial().unwrap(), "a partial row is merged into the parked one");
    assert_eq!(deferred[0].offset, world.target.parked()[0].offset);
    world.source.commit(vec![world.changes.update(1, 3, None)]);
    world.equal().await;
    let_run().await;
    assert!(world.target.parked().is_empty() && world.store.deferred().is_empty());
    life.stop().await;
}

/// Only what the target never took comes from the parked version, not what a later change of the batch has replaced.
#[tokio::test(start_paused = true)]
async fn invariant_5_several_changes_of_a_parked_key_in_one_batch_build_on_each_other() {
    let world = World::new().without_retries();
    let life = world.streaming().await;
    let switch = refuse(&world.target, ErrorClass::Dependency, |_| true);
    commit(&world, vec![world.changes.create(1, 1, "old")]).await;
    switch.store(false, Ordering::Relaxed);
    world.source.commit(vec![world.changes.update(1, 2, Some("new")), world.changes.update(1, 3, None)]);
    world.equal().await;
    life.stop().await;
}

#[tokio::test(start_paused = true)]
async fn invariant_5_a_parked_key_that_is_deleted_and_made_anew_keeps_nothing_of_the_old_row() {
    let world = World::new().without_retries();
    let life = world.streaming().await;
    let switch = refuse(&world.target, ErrorClass::Dependency, |_| true);
    commit(&world, vec![world.changes.create(1, 1, "old")]).await;
    switch.store(false, Ordering::Relaxed);
    let changes = &world.changes;
    world.source.commit(vec![changes.delete(1), changes.create(1, 2, "new"), changes.update(1, 3, None)]);
    world.equal().await;
    life.stop().await;
}

/// The retry of a row that moved must not take the row with it that has come under its old key, wherever in the batch the
/// version that waits was made.
#[tokio::test(start_paused = true)]
async fn invariant_5_a_row_that_comes_under_the_old_key_of_a_refused_one_stays() {
    let mut world = World::new();
    world.plan.retry.attempts = u32::MAX;
    let life = world.streaming().await;
    let changes = &world.changes;
    commit(&world, vec![changes.create(1, 1, "a")]).await;
    let switch = refuse(&world.target, ErrorClass::Dependency, |row| number(row, 0) == 2);
    let moved = vec![changes.rename(1, 2, 2, Some("a")), changes.create(1, 3, "new"), changes.update(2, 4, Some("b"))];
    commit(&world, moved).await;
    let waiting = world.store.deferred();
    assert_eq!(waiting.len(), 1);
    assert!(waiting[0].change.old_key().unwrap().is_none(), "its old key belongs to another row now");
    switch.store(false, Ordering::Relaxed);
    world.equal().await;
    life.stop().await;
}

/// The parked version is about a row that a truncate has removed.
#[tokio::test(start_paused = true)]
async fn invariant_5_a_truncate_ends_what_waits_for_a_retry() {
    let mut world = World::new();
    world.plan.retry.attempts = u32::MAX;
    let life = world.streaming().await;
    let switch = refuse(&world.target, ErrorClass::Dependency, |row| number(row, 0) == 1);
    commit(&world, vec![world.changes.create(1, 1, "a"), world.changes.create(2, 1, "b")]).await;
    commit(&world, vec![world.changes.truncate()]).await;
    switch.store(false, Ordering::Relaxed);
    world.source.commit(vec![world.changes.create(3, 1, "c")]);
    world.equal().await;
    // Another refused row keeps the retries going.
    let empty = world.store.until(|store| store.deferred().is_empty().then_some(()));
    within("an empty retry queue", empty).await;
    assert_eq!(world.target.rows(), world.source.rows(), "a retry brought a truncated row back");
    life.stop().await;
}

/// A row that waits under its old key moves to a new one.
#[tokio::test(start_paused = true)]
async fn invariant_5_a_changed_key_takes_the_parked_version_with_it() {
    let mut world = World::new();
    world.plan.retry.attempts = u32::MAX;
    let life = world.streaming().await;
    let switch = refuse(&world.target, ErrorClass::Dependency, |row| number(row, 0) == 1);
    commit(&world, vec![world.changes.create(1, 1, "a")]).await;
    world.source.commit(vec![world.changes.rename(1, 2, 2, None)]);
    world.equal().await;
    switch.store(false, Ordering::Relaxed);
    let empty = world.store.until(|store| store.deferred().is_empty().then_some(()));
    within("an empty retry queue", empty).await;
    assert_eq!(world.target.rows(), world.source.rows(), "a retry brought the old key back");
    life.stop().await;
}

/// The target refuses the new key and keeps the row under the old one until it takes a version under the new one.
#[tokio::test(start_paused = true)]
async fn invariant_5_a_refused_change_of_key_leaves_no_row_behind_under_the_old_key() {
    type Later = fn(&World) -> Vec<Change>;
    // With a partial image, what it leaves out stands in the old row alone, until another row takes its place.
    let cases: [(&str, Option<&str>, Later); 6] = [
        ("an update", None, |world| vec![world.changes.update(2, 3, None)]),
        ("a delete", None, |world| vec![world.changes.delete(2)]),
        ("another key", None, |world| vec![world.changes.rename(2, 3, 3, None)]),
        ("the old key", None, |world| vec![world.changes.rename(2, 1, 3, None)]),
        ("a new row under the old key", Some("a"), |world| vec![world.changes.create(1, 3, "b")]),
        ("a new row and an update", Some("a"), |world| {
            vec![world.changes.create(1, 3, "b"), world.changes.update(2, 4, None)]
        }),
    ];
    for (what, note, later) in cases {
        let mut world = World::new();
        world.plan.retry.attempts = u32::MAX;
        println!("{what}");
        let life = world.streaming().await;
        commit(&world, vec![world.changes.create(1, 1, "a")]).await;
        let switch = refuse(&world.target, ErrorClass::Dependency, |row| number(row, 0) == 2);
        commit(&world, vec![world.changes.rename(1, 2, 2, note)]).await;
        commit(&world, later(&world)).await;
        switch.store(false, Ordering::Relaxed);
        world.equal().await;
        let empty = world.store.until(|store| store.deferred().is_empty().then_some(()));
        within("an empty retry queue", empty).await;
        assert_eq!(world.target.rows(), world.source.rows(), "{what}");
        life.stop().await;
    }
}

/// Its transaction was lost after it had been put into the queue, and the second time the target took it.
#[tokio::test(start_paused = true)]
async fn invariant_5_a_dead_letter_that_was_never_parked_is_not_written_over_newer_versions() {
    let world = World::new().without_retries();
    let life = world.streaming().await;
    let switch = refuse(&world.target, ErrorClass::Poison, |_| true);
    world.target.fail_sink(Fault::BeforeCommitAfterParking);
    let queued = world.store.until(|store| (!store.deferred().is_empty()).then_some(()));
    world.source.commit(vec![world.changes.create(1, 1, "a")]);
    within("the retry queue", queued).await;
    switch.store(false, Ordering::Relaxed);
    world.equal().await;
    world.source.commit(vec![world.changes.update(1, 2, Some("b"))]);
    world.equal().await;
    life.pipeline.retry(&DatabaseName::new(TARGET), None).await.unwrap();
    assert_eq!(world.target.rows(), world.source.rows(), "an old version was written over a newer one");
    assert!(life.pipeline.parked(&DatabaseName::new(TARGET), true, 10).await.unwrap().is_empty());
    life.stop().await;
}

#[tokio::test(start_paused = true)]
async fn invariant_5_a_poisoned_row_is_a_dead_letter_until_a_person_retries_or_drops_it() {
    let world = World::new();
    let life = world.streaming().await;
    let target = DatabaseName::new(TARGET);
    let switch = refuse(&world.target, ErrorClass::Poison, |row| number(row, 0) < 3);
    commit(&world, (1..=3).map(|id| world.changes.create(id, 1, "a")).collect()).await;
    assert_eq!(life.pipeline.parked(&target, true, 10).await.unwrap().len(), 2);
    switch.store(false, Ordering::Relaxed);
    let first = life.pipeline.parked(&target, true, 10).await.unwrap()[0].offset;
    assert_eq!(life.pipeline.retry(&target, Some(first)).await.unwrap(), 1);
    assert_eq!(life.pipeline.drop_letters(&target, None).await.unwrap(), 1);
    assert!(world.target.parked().is_empty() && world.store.deferred().is_empty());
    let keys: Vec<_> = world.target.rows().into_keys().map(|(_, key)| key).collect();
    assert_eq!(keys, [key(1), key(3)]);
    life.stop().await;
}

#[tokio::test(start_paused = true)]
async fn invariant_5_a_version_becomes_a_dead_letter_after_its_attempts_also_over_restarts() {
    let world = World::new();
    let tries = Arc::new(AtomicU32::new(0));
    let count = tries.clone();
    world.target.refuse(move |_, _| {
        count.fetch_add(1, Ordering::Relaxed);
        Some(ErrorClass::Dependency)
    });
    let mut life = world.streaming().await;
    world.source.commit(vec![world.changes.create(1, 1, "a")]);
    let attempts = world.store.until(|store| store.deferred().first().filter(|one| one.attempts >= 2).map(|_| ()));
    within("the second attempt", attempts).await;
    life.stop().await;
    life = world.streaming().await;
    within("a dead letter", world.store.until(|store| store.deferred().first()?.dead.then_some(()))).await;
    life.stop().await;
    assert_eq!(world.store.deferred()[0].attempts, world.plan.retry.attempts);
    assert_eq!(tries.load(Ordering::Relaxed), world.plan.retry.attempts);
}

#[tokio::test(start_paused = true)]
async fn invariant_5_several_refused_changes_of_a_key_wait_as_one_whole_version() {
    let world = World::new().without_retries();
    let life = world.streaming().await;
    let switch = refuse(&world.target, ErrorClass::Poison, |_| true);
    let changes = &world.changes;
    commit(&world, vec![changes.create(1, 1, "a"), changes.update(1, 2, None), changes.rename(1, 2, 3, None)]).await;
    let waiting = world.store.deferred().pop().unwrap().change.after.unwrap();
    assert!(number(&waiting, 1) == 3 && !waiting.is_partial().unwrap());
    switch.store(false, Ordering::Relaxed);
    life.pipeline.retry(&DatabaseName::new(TARGET), None).await.unwrap();
    assert_eq!(world.target.rows(), world.source.rows());
    life.stop().await;
}

/// The new row under the old key came in the same transaction: it is not the one that the refused change is about.
#[tokio::test(start_paused = true)]
async fn invariant_5_a_refused_change_of_key_does_not_take_the_next_row_under_the_old_key() {
    let world = World::new().without_retries();
    let life = world.streaming().await;
    commit(&world, vec![world.changes.create(1, 1, "a")]).await;
    let switch = refuse(&world.target, ErrorClass::Poison, |row| number(row, 0) == 2);
    commit(&world, vec![world.changes.rename(1, 2, 2, Some("a")), world.changes.create(1, 3, "b")]).await;
    switch.store(false, Ordering::Relaxed);
    life.pipeline.retry(&DatabaseName::new(TARGET), None).await.unwrap();
    assert_eq!(world.target.rows(), world.source.rows());
    life.stop().await;
}

/// The queue holds a version of a transaction that never committed: neither tried before the bus brings it again, nor
/// forgotten.
#[tokio::test(start_paused = true)]
async fn invariant_5_a_version_above_the_marker_waits_for_the_bus() {
    let world = World::new();
    let deferred = |offset: u64| Deferred {
        target: world.target_id(),
        key: key(1),
        change: world.changes.update(1, i64::try_from(offset).unwrap(), Some("a")),
        over: None,
        offset: Offset(offset),
        class: ErrorClass::Dependency,
        reason: String::new(),
        attempts: 1,
        due: 0,
        dead: false,
    };
    let parked = |offset: u64| ParkedKey {
        table: "customer".into(),
        key: key(1),
        offset: Offset(offset),
        reason: String::new(),
        seen: None,
    };
    let durability = world.bus.subscribe_ahead(Partition::default(), Offset(0)).await.unwrap().durability;
    let (queue, policy) = (Arc::new(world.store.clone()), world.plan.retry.clone());
    let mut lot = ParkingLot::new(world.target_id(), queue, policy, durability);
    // In the queue, parked at the target, the marker: what is tried, and whether the queue keeps it.
    for (queued, at, marker, tried, kept) in
        [(50, 40, 45, 0, true), (40, 40, 45, 1, true), (40, 42, 45, 0, false), (50, 40, 50, 0, false)]
    {
        lot.reset(&[parked(at)], None).await.unwrap();
        world.store.defer(vec![deferred(queued)]).await.unwrap();
        let (due, _) = lot.due(10, Some(Offset(marker))).await.unwrap();
        assert_eq!((due.len(), !world.store.deferred().is_empty()), (tried, kept), "{queued} {at} {marker}");
    }
}

/// Two-way: the entry about a dead letter is open until the version waits no longer, whatever becomes of it in between.
#[tokio::test]
async fn what_is_refused_for_good_is_on_record_until_it_waits_no_longer() {
    const GIVEN_UP: &str = "a person";
    let world = World::new();
    let durability = world.bus.subscribe_ahead(Partition::default(), Offset(0)).await.unwrap().durability;
    let (target, store) = (world.target_id(), Arc::new(world.store.clone()));
    let mut lot = ParkingLot::new(target.clone(), store.clone(), RetryPolicy::default(), durability).with_ledger(store);
    let write = |offset, parked| {
        let change = world.changes.create(1, i64::try_from(offset).unwrap(), "a");
        Write { change, offset: Offset(offset), parked, over: Some(Vec::new()) }
    };
    let open = async || {
        let wanted = Wanted { open_only: true, limit: 10, ..Wanted::default() };
        let found = world.store.conflicts(&target.pipeline, &wanted).await.unwrap();
        found.iter().map(|one| one.conflict.offset.0).collect::<Vec<_>>()
    };
    let (poison, dependency) = (Some(ErrorClass::Poison), Some(ErrorClass::Dependency));
    // The version and whether its key was parked, how it was refused; what is open then.
    let steps: [(u64, bool, Option<ErrorClass>, &[u64]); 8] = [
        (1, false, dependency, &[]),
        (1, true, poison, &[1]),
        // Tried again by a person: refused for another reason, and then taken.
        (1, true, dependency, &[1]),
        (1, true, None, &[]),
        (2, false, poison, &[2]),
        (3, true, poison, &[3]),
        (4, true, dependency, &[]),
        (5, true, None, &[]),
    ];
    for (offset, parked, class, expected) in steps {
        settle(&mut lot, &world, vec![write(offset, parked)], class, BY_WORKER).await;
        assert_eq!(open().await, expected, "{offset} {class:?}");
    }
    settle(&mut lot, &world, vec![write(6, false)], poison, BY_WORKER).await;
    // After a restart, too.
    let waits =
        ParkedKey { table: "customer".into(), key: key(1), offset: Offset(6), reason: String::new(), seen: None };
    assert_eq!(lot.reset(&[waits], Some(Offset(6))).await.unwrap(), 0, "it is on record");
    assert_eq!(open().await, [6]);
    settle(&mut lot, &world, Vec::new(), None, GIVEN_UP).await;
    assert_eq!(open().await, [0u64; 0]);
    let last = world.store.conflicts(&target.pipeline, &Wanted { limit: 1, ..Wanted::default() }).await.unwrap();
    assert_eq!(last[0].decided.as_ref().map(|(by, _)| by.as_str()), Some(GIVEN_UP));
}

/// As an applier does: what is refused goes to the queue, and once it is committed the lot follows. Without a write the key
/// is given up.
async fn settle(lot: &mut ParkingLot, world: &World, writes: Vec<Write>, class: Option<ErrorClass>, by: &str) {
    let marker = Marker { offset: None, log: String::new(), digest: 0, epoch: 1, writes: 0 };
    let unpark = if writes.is_empty() { vec![("customer".into(), key(1))] } else { Vec::new() };
    let batch = WriteBatch { expected: marker.clone(), marker, writes, unpark, retry: false };
    let refused = class.map(|class| Refused { write: 0, class, reason: String::new() });
    let applied = Applied { refused: refused.into_iter().collect(), ..Applied::default() };
    if !applied.refused.is_empty() {
        lot.park(&batch, &applied.refused).await.unwrap();
    }
    lot.settle(&batch, &applied, by).await.unwrap();
    assert_eq!(world.store.deferred().is_empty(), applied.refused.is_empty());
}

/// However many there are, what is committed meanwhile does not wait for the last of them.
#[tokio::test(start_paused = true)]
async fn the_stream_goes_on_while_many_dead_letters_are_tried_again_or_given_up() {
    for again in [true, false] {
        let world = World::new().without_retries();
        let life = world.streaming().await;
        let target = DatabaseName::new(TARGET);
        let switch = refuse(&world.target, ErrorClass::Poison, |row| number(row, 0) < 1_500);
        commit(&world, (0..1_500).map(|id| world.changes.create(id, 1, "a")).collect()).await;
        assert_eq!(world.target.parked().len(), 1_500);
        switch.store(false, Ordering::Relaxed);
        let asked = async {
            match again {
                true => life.pipeline.retry(&target, None).await,
                false => life.pipeline.drop_letters(&target, None).await,
            }
        };
        let arrived = world.target.until(|target| {
            let there = target.rows().into_keys().any(|(_, there)| there == key(2_000));
            there.then(|| target.parked().len())
        });
        world.source.commit(vec![world.changes.create(2_000, 1, "new")]);
        let (done, left) = tokio::join!(asked, within("the new row", arrived));
        assert_eq!(done.unwrap(), 1_500);
        assert!(left > 0, "the new row came after all dead letters");
        assert!(world.target.parked().is_empty() && world.store.deferred().is_empty());
        life.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_asked_once_for_a_batch_however_many_keys_of_it_were_parked() {
    let world = World::new().without_retries();
    let life = world.streaming().await;
    let switch = refuse(&world.target, ErrorClass::Dependency, |_| true);
    commit(&world, (0..50).map(|id| world.changes.create(id, 1, "a")).collect()).await;
    assert_eq!(world.store.deferred().len(), 50);
    switch.store(false, Ordering::Relaxed);
    let before = world.store.removals();
    commit(&world, (0..50).map(|id| world.changes.update(id, 2, None)).collect()).await;
    within("an empty queue", world.store.until(|store| store.deferred().is_empty().then_some(()))).await;
    assert_eq!(world.store.removals() - before, 1);
    assert_eq!(world.target.rows(), world.source.rows());
    life.stop().await;
}

/// A column may be NULL from now on while a version waits: what the version said counts as before.
#[tokio::test(start_paused = true)]
async fn invariant_5_a_parked_version_outlives_a_change_of_columns() {
    let world = World::new().without_retries();
    let life = world.streaming().await;
    let switch = refuse(&world.target, ErrorClass::Dependency, |_| true);
    commit(&world, vec![world.changes.create(1, 1, "kept")]).await;
    switch.store(false, Ordering::Relaxed);
    let before = &world.changes.0;
    let mut columns = before.columns.clone();
    columns[2].nullable = true;
    let changes = Changes(Arc::new(Schema::new(before.table.clone(), before.engine, columns, before.key.clone())));
    world.source.commit(vec![changes.update(1, 2, None)]);
    world.equal().await;
    life.stop().await;
}
