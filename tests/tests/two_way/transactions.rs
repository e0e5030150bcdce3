//! Transactions that are large, or that wait for their decision.

use anyhow::ensure;
use std::time::Duration;
use sync_worker_tests::kind::Kind;
use sync_worker_tests::two_way::{Account, Change, TwoWay};

members! { one_above_the_limit_comes_in_parts_and_its_conflicts_are_decided:
    postgres_and_postgres of Postgres Postgres,
    postgres_and_mysql of Postgres Mysql,
    mysql_and_postgres of Mysql Postgres,
    postgres_and_mongodb of Postgres Mongodb,
}

const LIMIT: Duration = Duration::from_secs(120);
const ROWS: i64 = 3_000;

/// Both members change the same rows meanwhile: as many conflicts as rows, each once, and the echo of parts is an echo.
async fn one_above_the_limit_comes_in_parts_and_its_conflicts_are_decided(kinds: &[Kind]) -> anyhow::Result<()> {
    let lines = "seed = \"a\"\ntransaction_limit = { rows = 500, size = \"64MiB\" }\n";
    let mut pair = TwoWay::new(kinds, "parts", lines).await?;
    let rows: Vec<Account> = (1..=ROWS).map(|id| Account { id, ..Account::default() }).collect();
    pair.members[0].accounts().await?.insert_all(&rows).await?;
    pair.start().await?;
    pair.settle().await?;
    pair.worker.pause(true).await?;
    let contested = ROWS / 10;
    let mut at_b = pair.members[1].accounts().await?;
    for id in 1..=contested {
        at_b.change(id, &Change::by("b")).await?;
    }
    pair.members[0].database.execute("UPDATE account SET writer = 'a', counter = counter + 1").await?;
    pair.worker.pause(false).await?;
    ensure!(pair.equal().await? == usize::try_from(ROWS)?);
    let conflicts = pair.conflicts().await?;
    let ids: std::collections::BTreeSet<i64> =
        conflicts.iter().filter_map(|conflict| conflict["key"]["id"].as_i64()).collect();
    ensure!(conflicts.len() == ids.len() && ids.iter().copied().eq(1..=contested), "{} of {ids:?}", conflicts.len());
    pair.none_drifted(&conflicts).await?;
    pair.finish().await
}

/// It holds its rows until it is decided, and so it holds the applier that has another version of them; then it is a write
/// like any other.
#[tokio::test]
async fn one_that_is_prepared_waits_for_its_decision() -> anyhow::Result<()> {
    let mut pair = TwoWay::new(&[Kind::Mysql, Kind::Postgres], "prepared", "seed = \"a\"\n").await?;
    let rows: Vec<Account> = (1..=3).map(|id| Account { id, ..Account::default() }).collect();
    pair.members[0].accounts().await?.insert_all(&rows).await?;
    pair.start().await?;
    pair.settle().await?;
    let mut at_b = pair.members[1].accounts().await?;
    for (name, decision) in [("one", "COMMIT"), ("two", "ROLLBACK")] {
        let mut at_a = pair.members[0].database.connect().await?;
        for statement in ["START", "END", "PREPARE"] {
            at_a.execute(&format!("XA {statement} '{name}'")).await?;
            if statement == "START" {
                at_a.execute(&format!("UPDATE account SET writer = '{name}', a = 5 WHERE id IN (1, 2)")).await?;
            }
        }
        for id in [1, 3] {
            at_b.change(id, &Change::by(&format!("beside {name}"))).await?;
        }
        let waits = |tasks: &[sync_worker_engine::status::TaskStatus]| {
            tasks.iter().all(|task| task.state == sync_worker_engine::status::State::Streaming)
        };
        pair.worker.until("all to go on streaming", LIMIT, waits).await?;
        at_a.execute(&format!("XA {decision} '{name}'")).await?;
        pair.equal().await?;
    }
    let mut at_a = pair.members[0].accounts().await?;
    let writers: Vec<String> = at_a.all().await?.into_iter().map(|row| row.writer).collect();
    // The first was decided after b's write, which had not seen it; the second has never been.
    ensure!(writers == ["beside two", "one", "beside two"], "{writers:?}");
    let conflicts = pair.conflicts().await?;
    ensure!(conflicts.len() == 1 && conflicts[0]["key"]["id"] == 1, "{conflicts:#?}");
    pair.finish().await
}
