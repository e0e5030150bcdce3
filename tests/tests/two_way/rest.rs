//! What one member writes the others have, and then there is peace.

use anyhow::ensure;
use std::time::Duration;
use sync_worker_engine::metrics::CAPTURED_CHANGES;
use sync_worker_tests::histogram::total;
use sync_worker_tests::kind::Kind;
use sync_worker_tests::seed::seed;
use sync_worker_tests::two_way::{Mix, TwoWay};
use sync_worker_tests::wait;

each_pair![rows_travel_both_ways_and_come_to_rest];

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

/// How many changes come to rest, and for how long nothing may move then.
const CHANGES: u64 = 10_000;
const MINUTE: Duration = Duration::from_secs(60);

/// An echo that was taken for a change, or echoed in turn, would go round for ever.
#[tokio::test]
async fn what_is_at_rest_stays_at_rest() -> anyhow::Result<()> {
    let mut group = TwoWay::new(&TwoWay::every_kind(), "rest", "seed = \"none\"\n").await?;
    group.start().await?;
    let writers =
        group.writers(seed()?, Mix { keys: 300, told_apart: true, deletes: true, transactions: false, rate: 300 });
    wait::until("the changes", Duration::from_secs(120), async || {
        let captured = total(&group.worker.metrics().await?, CAPTURED_CHANGES, "");
        Ok((captured >= CHANGES).then_some(()))
    })
    .await?;
    writers.stop().await?;
    group.settle().await?;
    let before = group.traffic().await?;
    // Nothing tells that nothing happens, and a minute of it is what is promised.
    tokio::time::sleep(MINUTE).await;
    let after = group.traffic().await?;
    ensure!(after == before, "something has moved: {before:?}, then {after:?}");
    group.finish().await
}
