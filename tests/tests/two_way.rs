//! Two-way pipelines on real servers.

use anyhow::ensure;
use sync_worker_tests::kind::Kind;
use sync_worker_tests::seed::seed;
use sync_worker_tests::two_way::{Mix, TwoWay};

/// One test for each pair of kinds.
macro_rules! each_pair {
    ($($test:ident),+ $(,)?) => {$(
        mod $test {
            use super::Kind;

            #[tokio::test]
            async fn postgres_and_postgres() -> anyhow::Result<()> {
                super::$test(&[Kind::Postgres, Kind::Postgres]).await
            }

            #[tokio::test]
            async fn postgres_and_mysql() -> anyhow::Result<()> {
                super::$test(&[Kind::Postgres, Kind::Mysql]).await
            }

            #[tokio::test]
            async fn mysql_and_mysql() -> anyhow::Result<()> {
                super::$test(&[Kind::Mysql, Kind::Mysql]).await
            }
        }
    )+};
}

each_pair![rows_travel_both_ways_and_come_to_rest, concurrent_writers_converge, a_kill_loses_and_repeats_nothing];

/// Without conflicts: what one member writes the other has, seeded rows too, and then nobody writes any more.
async fn rows_travel_both_ways_and_come_to_rest(kinds: &[Kind]) -> anyhow::Result<()> {
    let mut pair = TwoWay::new(kinds, "both", "seed = \"a\"\n").await?;
    pair.members[0]
        .database
        .execute("INSERT INTO account VALUES (1, 'seeded', 0, 0, 0), (2, 'seeded', 0, 0, 0)")
        .await?;
    pair.start().await?;
    pair.settle().await?;
    let [a, b] = &pair.members[..] else { anyhow::bail!("two members") };
    a.database.execute("INSERT INTO account VALUES (10, 'a', 1, 1, 1)").await?;
    b.database.execute("INSERT INTO account VALUES (20, 'b', 1, 1, 1)").await?;
    b.database.execute("UPDATE account SET writer = 'b' WHERE id = 1").await?;
    pair.settle().await?;
    let [a, b] = &pair.members[..] else { anyhow::bail!("two members") };
    a.database.execute("UPDATE account SET a = 7 WHERE id = 20").await?;
    a.database.execute("UPDATE account SET id = 11 WHERE id = 10").await?;
    b.database.execute("DELETE FROM account WHERE id = 2").await?;
    pair.equal().await?;
    let [a, _] = &pair.members[..] else { anyhow::bail!("two members") };
    let ids = a.database.connect().await?.rows("SELECT id, writer, a FROM account ORDER BY id").await?;
    let ids: Vec<String> = ids.into_iter().map(|row| row.into_iter().flatten().collect::<Vec<_>>().join(" ")).collect();
    ensure!(ids == ["1 b 0", "11 a 1", "20 b 7"], "{ids:?}");
    let conflicts = pair.conflicts().await?;
    ensure!(conflicts.is_empty(), "there was no conflict, and the ledger has {conflicts:#?}");
    // What came to rest stays there: a marker that moved for an echo would move for ever.
    let before = pair.written().await?;
    pair.at_rest().await?;
    ensure!(pair.written().await? == before, "somebody was written to: {before:?}, {:?}", pair.written().await?);
    pair.finish().await
}

async fn concurrent_writers_converge(kinds: &[Kind]) -> anyhow::Result<()> {
    let seed = seed()?;
    for told_apart in [true, false] {
        let mut pair = TwoWay::new(kinds, "conflict", "seed = \"none\"\n").await?;
        pair.start().await?;
        let writers = pair.writers(seed, Mix { keys: 8, told_apart, deletes: true, rate: 200 });
        writers.until(2_000).await?;
        let written = writers.stop().await?;
        pair.equal().await?;
        let conflicts = pair.conflicts().await?;
        println!("{written} writes, {} conflicts", conflicts.len());
        ensure!(!conflicts.is_empty(), "no conflict in {written} writes");
        none_drifted(&conflicts)?;
        pair.finish().await?;
    }
    Ok(())
}

async fn a_kill_loses_and_repeats_nothing(kinds: &[Kind]) -> anyhow::Result<()> {
    let mut pair = TwoWay::new(kinds, "killed", "seed = \"none\"\n").await?;
    pair.start().await?;
    let writers = pair.writers(seed()?, Mix { keys: 20, told_apart: true, deletes: true, rate: 200 });
    for round in 1..=5 {
        writers.until(round * 300).await?;
        pair.worker.kill().await?;
        writers.until(round * 300 + 100).await?;
        pair.worker.start()?;
    }
    writers.stop().await?;
    pair.equal().await?;
    let conflicts = pair.conflicts().await?;
    none_drifted(&conflicts)?;
    pair.finish().await
}

/// Nobody writes behind capture's back here.
fn none_drifted(conflicts: &[serde_json::Value]) -> anyhow::Result<()> {
    let drifted: Vec<_> = conflicts.iter().filter(|conflict| conflict["kind"] == "drift").collect();
    ensure!(drifted.is_empty(), "called drifted: {drifted:#?}");
    Ok(())
}
