//! Random transactions under random crashes, reconnects, failing transactions and refusals, with snapshot chunks racing the
//! stream. In the end the target is equal, and every key saw its versions in order and each change once.

use crate::support::{TARGET, World};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use sync_worker_core::change::{Change, Op};
use sync_worker_core::error::ErrorClass;
use sync_worker_core::name::DatabaseName;
use sync_worker_engine::status::State;
use sync_worker_testkit::memory::{Fault, MemoryDatabase, number};
use tokio::runtime::Runtime;

const KEYS: i64 = 12;
const LIVES: usize = 12;

/// Seeds to a run of the tests.
const ROUNDS: u64 = 25;

/// What an application does: small transactions over few keys.
struct Application {
    random: StdRng,
    /// Grows over all keys.
    version: i64,
    rows: HashMap<i64, i64>,
    /// Keys change.
    renames: bool,
}

impl Application {
    fn transaction(&mut self, world: &World) -> Vec<Change> {
        (0..self.random.random_range(1..6)).map(|_| self.change(world)).collect()
    }

    fn change(&mut self, world: &World) -> Change {
        let changes = &world.changes;
        self.version += 1;
        let version = self.version;
        let id = self.random.random_range(0..KEYS);
        let text = format!("note {version}");
        let note = self.random.random_ratio(1, 2).then_some(text.as_str());
        if let Entry::Vacant(free) = self.rows.entry(id) {
            free.insert(version);
            return changes.create(id, version, &text);
        }
        match self.random.random_range(0..100) {
            0..15 => {
                self.rows.remove(&id);
                changes.delete(id)
            }
            15..25 if self.renames => {
                let Some(to) = (0..KEYS).find(|to| !self.rows.contains_key(to)) else {
                    return changes.update(id, version, note);
                };
                self.rows.remove(&id);
                self.rows.insert(to, version);
                // A whole image, as full row images are.
                changes.rename(id, to, version, Some(&text))
            }
            25 => {
                self.rows.clear();
                changes.truncate()
            }
            _ => changes.update(id, version, note),
        }
    }
}

fn fault(random: &mut StdRng) -> Fault {
    match random.random_range(0..5) {
        0 => Fault::BeforeCommit(ErrorClass::Transient),
        1 => Fault::BeforeCommitAfterParking,
        2 => Fault::AfterCommit,
        3 => Fault::Hang,
        _ => Fault::HangAfterCommit,
    }
}

/// One life of the worker; dropping the runtime is the crash.
fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

fn run(seed: u64, renames: bool) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut world = World::new().with_snapshot(random.random_range(1..8));
    world.plan.retry.attempts = random.random_range(1..8);
    world.plan.limits.batch_rows = random.random_range(1..30);
    world.plan.snapshot.chunk_bytes = random.random_range(1..100);
    world.source.interleave(random.random());
    world.target.interleave(random.random());
    let refused = Arc::new(AtomicU64::new(0));
    let switch = refused.clone();
    world.target.refuse(move |_, row| {
        let bit = 1 << (number(row, 0) % 32);
        let refused = switch.load(Ordering::Relaxed);
        let class = if number(row, 1) % 3 == 0 { ErrorClass::Poison } else { ErrorClass::Dependency };
        (refused & bit != 0).then_some(class)
    });
    let mut application =
        Application { random: StdRng::seed_from_u64(random.random()), version: 0, rows: HashMap::new(), renames };
    for _ in 0..random.random_range(0..20) {
        world.source.commit(application.transaction(&world));
    }
    for _ in 0..LIVES {
        world.source.batch_changes(random.random_range(1..12));
        world.source.end_apart(random.random_ratio(1, 3));
        if random.random_ratio(1, 2) {
            world.bus.hold();
        }
        let crash = runtime();
        crash.block_on(life(&world, &mut application, &refused, &mut random));
        drop(crash);
        world.bus.crash();
        world.bus.release();
    }
    refused.store(0, Ordering::Relaxed);
    world.source.forget_faults();
    world.target.forget_faults();
    runtime().block_on(settle(&world));
    in_order(&world);
}

async fn life(world: &World, application: &mut Application, refused: &AtomicU64, random: &mut StdRng) {
    let life = world.start().await;
    for _ in 0..random.random_range(0..300) {
        match random.random_range(0..40) {
            0..8 => drop(world.source.commit(application.transaction(world))),
            8 => world.source.fail_source(ErrorClass::Transient),
            9 => world.target.fail_sink(fault(random)),
            10 if random.random_ratio(1, 4) => world.target.fail_take_over(fault(random)),
            11 => refused.store(random.random::<u64>() & random.random::<u64>(), Ordering::Relaxed),
            12 => refused.store(0, Ordering::Relaxed),
            13..17 => world.bus.flush(),
            17 => tokio::time::advance(Duration::from_millis(random.random_range(1..3_000))).await,
            18 if random.random_ratio(1, 5) => {
                let target = DatabaseName::new(TARGET);
                let ask = life.pipeline.retry(&target, None);
                // Whether it is there, and what it answers, is the crash's business.
                drop(tokio::time::timeout(Duration::from_millis(100), ask).await);
            }
            _ => {
                for _ in 0..random.random_range(0..40) {
                    tokio::task::yield_now().await;
                }
            }
        }
    }
}

/// The last life: everything gets through, dead letters when somebody asks.
async fn settle(world: &World) {
    let life = world.start().await;
    let target = DatabaseName::new(TARGET);
    for _ in 0..5_000 {
        let stopped = life.board.all().into_iter().find(|status| status.state.is_final());
        if let Some(stopped) = stopped {
            panic!("{} has stopped: {:?} {}", stopped.database, stopped.state, stopped.reason);
        }
        let streaming = life.board.all().iter().all(|status| status.state == State::Streaming);
        if streaming && world.target.parked().is_empty() && world.target.rows() == world.source.rows() {
            return life.stop().await;
        }
        if streaming && !world.target.parked().is_empty() {
            // An answer may be an error of the moment.
            drop(life.pipeline.retry(&target, None).await);
        }
        let done = |target: &MemoryDatabase| {
            (target.parked().is_empty() && target.rows() == world.source.rows()).then_some(())
        };
        tokio::task::yield_now().await;
        // Every so often the dead letters are asked for again.
        drop(tokio::time::timeout(Duration::from_millis(100), world.target.until(done)).await);
    }
    let rows = |rows: std::collections::BTreeMap<_, sync_worker_core::row::Row>| {
        rows.values().map(|row| (number(row, 0), number(row, 1))).collect::<Vec<_>>()
    };
    let (here, there) = (rows(world.source.rows()), rows(world.target.rows()));
    panic!(
        "not equal in the end: {here:?} at the source, {there:?} at the target, {} parked",
        world.target.parked().len()
    );
}

/// Snapshot rows may repeat a version; nothing else may, and none comes late.
fn in_order(world: &World) {
    let mut last: HashMap<_, (i64, u64)> = HashMap::new();
    for written in world.target.written() {
        let Some(row) = &written.row else { continue };
        let (version, name) = (number(row, 1), (written.table.clone(), written.key.clone()));
        if let Some((before, offset)) = last.insert(name, (version, written.offset.0)) {
            let repeats = written.op == Op::Read && version == before && written.offset.0 > offset;
            assert!(version > before || repeats, "version {version} after {before} by {}", written.op);
        }
    }
}

fn seeds() -> (u64, u64) {
    match std::env::var("SYNC_WORKER_SEED") {
        Ok(seed) => (seed.parse().expect("SYNC_WORKER_SEED is a number"), 1),
        Err(_) => (rand::rng().random_range(0..1 << 32), ROUNDS),
    }
}

fn rounds(renames: bool) {
    let (first, count) = seeds();
    for seed in first..first + count {
        println!("SYNC_WORKER_SEED={seed}");
        run(seed, renames);
    }
}

#[test]
fn random_crashes_failures_and_refusals_neither_lose_nor_repeat_nor_reorder() {
    rounds(false);
}

#[test]
fn random_changes_of_keys_under_crashes_failures_and_refusals_end_equal() {
    rounds(true);
}
