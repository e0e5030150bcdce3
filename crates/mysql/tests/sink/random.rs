//! Random histories against a table that takes one change after another.

use crate::fixture::*;
use std::collections::BTreeMap;
use sync_worker_core::sink::Write;

/// A small generator with a printed seed.
pub struct Random(u64);

impl Random {
    pub fn seeded() -> Self {
        let seed = std::env::var("SYNC_WORKER_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
        println!("SYNC_WORKER_TEST_SEED={seed}");
        Self(seed)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

#[tokio::test]
async fn random_histories_end_as_at_the_source() {
    let ddl = [
        "CREATE TABLE plain (k BIGINT PRIMARY KEY, a BIGINT, b VARCHAR(9))",
        "CREATE TABLE uniq (k BIGINT PRIMARY KEY, a BIGINT, b VARCHAR(9), UNIQUE (a))",
    ];
    let Some(mut f) = Fixture::new("random", &ddl).await else { return };
    let mut random = Random::seeded();
    let schemas = ["plain", "uniq"].map(|table| schema(table, &[("k", INT), ("a", INT), ("b", TEXT)]));
    let mut tables: [BTreeMap<i64, (i64, String)>; 2] = Default::default();
    for round in 0..60 {
        let mut writes: Vec<Write> = Vec::new();
        for _ in 0..random.below(60) {
            let which = random.below(2) as usize;
            let (t, table) = (&schemas[which], &mut tables[which]);
            let key = random.below(12) as i64;
            let other = random.below(12) as i64;
            let a = random.below(30) as i64;
            let b = ["x", "y", "z"][random.below(3) as usize];
            // The source has the unique index, too.
            if which == 1 && table.iter().any(|(held, (value, _))| *held != key && *value == a) {
                continue;
            }
            match (table.get(&key).cloned(), random.below(10)) {
                (None, _) => {
                    table.insert(key, (a, b.to_owned()));
                    writes.push(create(t, &[int(key), int(a), text(b)]));
                }
                (Some(_), 0 | 1) => {
                    table.remove(&key);
                    writes.push(delete(t, &[int(key), U, U]));
                }
                (Some((_, held)), 2 | 3) => {
                    table.insert(key, (a, held));
                    writes.push(update(t, &[int(key), int(a), U]));
                }
                (Some((held, old)), 4) if !table.contains_key(&other) => {
                    table.remove(&key);
                    table.insert(other, (a, old.clone()));
                    writes.push(change(t, &[int(key), int(held), text(&old)], &[int(other), int(a), text(&old)]));
                }
                (Some(_), 5) if random.below(10) == 0 => {
                    table.clear();
                    writes.push(truncate(t));
                }
                (Some(_), _) => {
                    table.insert(key, (a, b.to_owned()));
                    writes.push(update(t, &[int(key), int(a), text(b)]));
                }
            }
        }
        let applied = f.apply(writes).await;
        assert!(applied.refused.is_empty(), "round {round}: {applied:?}");
        assert_eq!(applied.missing, 0, "round {round}");
        for (which, name) in ["plain", "uniq"].into_iter().enumerate() {
            let expected: Vec<_> = tables[which].iter().map(|(k, (a, b))| format!("{k}|{a}|{b}")).collect();
            assert_eq!(f.rows(name).await, expected, "round {round}, table {name}");
        }
    }
    f.close().await;
}
