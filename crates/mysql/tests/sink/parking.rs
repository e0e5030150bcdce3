//! Random histories at a target that refuses much of them: once the refused versions have been tried again, it ends as
//! its source. The retry queue here stands in for the engine's and follows the same rules.

use crate::fixture::*;
use crate::random::Random;
use async_trait::async_trait;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Mutex;
use sync_worker_core::bus::Flush;
use sync_worker_core::change::{Change, Op};
use sync_worker_core::error::Result;
use sync_worker_core::record::Offset;
use sync_worker_core::row::Key;
use sync_worker_core::sink::{Parking, Refused, Write, WriteBatch};

/// Waiting versions of one table.
#[derive(Default)]
struct Lot {
    waiting: Mutex<HashMap<Key, (Change, Offset)>>,
}

fn merged(older: &Change, newer: &Change) -> Change {
    let (Some(old), Some(new)) = (&older.after, &newer.after) else { return newer.clone() };
    if newer.old_key().unwrap().is_some() {
        return Change { after: Some(new.over(old).unwrap()), ..newer.clone() };
    }
    let op = match (older.op, newer.op) {
        (Op::Create | Op::Read, Op::Update) => Op::Create,
        (_, op) => op,
    };
    let before = if op == Op::Create { None } else { newer.before.clone().or_else(|| older.before.clone()) };
    Change { schema: newer.schema.clone(), op, before, after: Some(new.over(old).unwrap()) }
}

impl Lot {
    /// A waiting version goes into the first write of its row: those after it are over that one. What waited for a
    /// truncated table waits no more.
    fn prepare(&self, writes: &mut [Write]) {
        let waiting = self.waiting.lock().unwrap();
        let mut met = HashSet::new();
        for write in writes {
            let Some(key) = write.change.key().unwrap() else { return };
            let row = write.change.old_key().unwrap().unwrap_or_else(|| key.clone());
            write.parked = waiting.contains_key(&row) || waiting.contains_key(&key);
            if let Some((change, _)) = waiting.get(&row)
                && !met.contains(&row)
            {
                write.change = merged(change, &write.change);
            }
            met.extend([row, key]);
        }
    }

    fn settle(&self, batch: &WriteBatch, refused: &[Refused]) {
        let mut waiting = self.waiting.lock().unwrap();
        for (index, write) in batch.writes.iter().enumerate() {
            let stays = refused.iter().any(|refused| refused.write == index);
            if write.change.op == Op::Truncate {
                waiting.retain(|_, (_, offset)| *offset > write.offset);
            }
            // Not what a later write of the batch has left.
            let mut drop_older = |key: Option<Key>| {
                if let Some(key) = key
                    && waiting.get(&key).is_some_and(|(_, offset)| *offset <= write.offset)
                {
                    waiting.remove(&key);
                }
            };
            drop_older(write.change.old_key().unwrap());
            if !stays {
                drop_older(write.change.key().unwrap());
            }
        }
    }
}

#[async_trait]
impl Parking for Lot {
    fn pending(&self, _: &WriteBatch) -> Option<Flush> {
        None
    }

    async fn park(&self, batch: &WriteBatch, refused: &[Refused]) -> Result<()> {
        let mut waiting = self.waiting.lock().unwrap();
        for one in refused {
            let write = &batch.writes[one.write];
            let key = write.change.key().unwrap().unwrap();
            let mut change = write.change.clone();
            for earlier in batch.writes[..one.write].iter().rev() {
                if earlier.change.key().unwrap().as_ref() == Some(&key) {
                    change = merged(&earlier.change, &change);
                }
            }
            // A whole row that has left its old key.
            change.before = if change.op == Op::Delete { change.before } else { None };
            waiting.insert(key, (change, write.offset));
        }
        Ok(())
    }
}

#[tokio::test]
async fn what_was_refused_arrives_in_the_end() {
    let ddl = "CREATE TABLE t (k BIGINT PRIMARY KEY, a BIGINT, b VARCHAR(9), UNIQUE (a))";
    let Some(mut f) = Fixture::new("parking", &[ddl]).await else { return };
    let mut random = Random::seeded();
    let t = schema("t", &[("k", INT), ("a", INT), ("b", TEXT)]);
    let lot = Lot::default();
    let mut table: BTreeMap<i64, (i64, String)> = BTreeMap::new();
    let mut refusals = 0;
    for round in 0..120 {
        let mut writes = Vec::new();
        for _ in 0..random.below(20) {
            let key = random.below(10) as i64;
            let (other, a) = (random.below(10) as i64, random.below(8) as i64);
            let b = ["x", "y", "z"][random.below(3) as usize];
            match (table.get(&key).cloned(), random.below(12)) {
                (None, _) => {
                    table.insert(key, (a, b.to_owned()));
                    writes.push(create(&t, &[int(key), int(a), text(b)]));
                }
                (Some(_), 0 | 1) => {
                    table.remove(&key);
                    writes.push(delete(&t, &[int(key), U, U]));
                }
                (Some((_, held)), 2 | 3) => {
                    table.insert(key, (a, held));
                    writes.push(update(&t, &[int(key), int(a), U]));
                }
                (Some((held, old)), 4 | 5) if !table.contains_key(&other) => {
                    table.remove(&key);
                    table.insert(other, (a, old.clone()));
                    writes.push(change(&t, &[int(key), int(held), text(&old)], &[int(other), int(a), text(&old)]));
                }
                (Some(_), 6) if random.below(12) == 0 => {
                    table.clear();
                    writes.push(truncate(&t));
                }
                (Some(_), _) => {
                    table.insert(key, (a, b.to_owned()));
                    writes.push(update(&t, &[int(key), int(a), text(b)]));
                }
            }
        }
        lot.prepare(&mut writes);
        let batch = f.batch(writes);
        let applied = f.try_apply_with(&batch, &lot).await.unwrap_or_else(|error| panic!("round {round}: {error}"));
        refusals += applied.refused.len();
        lot.settle(&batch, &applied.refused);
        // What is not waiting is as at the source.
        let waiting: Vec<_> = lot.waiting.lock().unwrap().keys().cloned().collect();
        let parked = f.parked_rows().await.len();
        assert_eq!(parked, waiting.len(), "round {round}");
        let is_waiting = |key: i64| waiting.contains(&t.key_of(&row(&[int(key), NULL, NULL])).unwrap());
        let key_of = |line: &String| line.split('|').next().unwrap().parse::<i64>().unwrap();
        let got: Vec<_> = f.rows("t").await.into_iter().filter(|line| !is_waiting(key_of(line))).collect();
        let expected = table.iter().filter(|(key, _)| !is_waiting(**key)).map(|(k, (a, b))| format!("{k}|{a}|{b}"));
        assert_eq!(got, expected.collect::<Vec<_>>(), "round {round}");
    }
    assert!(refusals > 100, "only {refusals} refusals");
    // At last nothing stands in the way.
    f.run("ALTER TABLE t DROP INDEX a").await;
    let waiting: Vec<_> = lot.waiting.lock().unwrap().values().cloned().collect();
    for (change, offset) in waiting {
        let mut batch = f.batch(Vec::new());
        batch.marker.offset = f.marker.offset;
        batch.writes = vec![again(Write { change, offset, parked: true, over: None })];
        let applied = f.try_apply_with(&batch, &lot).await.unwrap();
        assert!(applied.refused.is_empty(), "{applied:?}");
        lot.settle(&batch, &applied.refused);
    }
    assert!(f.parked_rows().await.is_empty());
    let expected: Vec<_> = table.iter().map(|(k, (a, b))| format!("{k}|{a}|{b}")).collect();
    assert_eq!(f.rows("t").await, expected);
    f.close().await;
}
