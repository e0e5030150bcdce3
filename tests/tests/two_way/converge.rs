//! Writers at every member over the same keys: all members end equal.

use anyhow::ensure;
use sync_worker_tests::convergence::{Settings, run};
use sync_worker_tests::kind::Kind;
use sync_worker_tests::seed::seed;
use sync_worker_tests::two_way::{Account, Accounts, Change, Mix, TwoWay};

each_pair_of_any![concurrent_writers_converge, a_row_that_is_written_all_the_time_is_not_taken_for_strange];

members! { a_kill_loses_and_repeats_nothing:
    postgres_and_postgres of Postgres Postgres,
    postgres_and_mysql of Postgres Mysql,
    mysql_and_mysql of Mysql Mysql,
    all_three of Postgres Mysql Mongodb,
}

async fn concurrent_writers_converge(kinds: &[Kind]) -> anyhow::Result<()> {
    let seed = seed()?;
    for told_apart in [true, false] {
        let mut pair = TwoWay::new(kinds, "conflict", "seed = \"none\"\n").await?;
        pair.start().await?;
        let writers =
            pair.writers(seed, Mix { keys: 8, told_apart, deletes: true, transactions: !told_apart, rate: 200 });
        writers.until(2_000).await?;
        let written = writers.stop().await?;
        pair.equal().await?;
        let conflicts = pair.conflicts().await?;
        println!("{written} writes, {} conflicts", conflicts.len());
        ensure!(!conflicts.is_empty(), "no conflict in {written} writes");
        pair.none_drifted(&conflicts).await?;
        pair.finish().await?;
    }
    Ok(())
}

/// Far more states of a row are under way than a send remembers: what the appliers have written themselves is no strange row,
/// after a kill neither.
async fn a_row_that_is_written_all_the_time_is_not_taken_for_strange(kinds: &[Kind]) -> anyhow::Result<()> {
    let mut pair = TwoWay::new(kinds, "hot", "seed = \"a\"\n").await?;
    let mut rows = pair.members[0].accounts().await?;
    rows.insert(&Account { id: 1, ..Account::default() }).await?;
    pair.start().await?;
    pair.settle().await?;
    for round in 0..4 {
        let write = async |rows: &mut Accounts, numbers: std::ops::Range<u32>| {
            for number in numbers {
                rows.change(1, &Change::by(&format!("w{round}.{number}"))).await?;
            }
            anyhow::Ok(())
        };
        pair.worker.pause(true).await?;
        write(&mut rows, 0..500).await?;
        pair.worker.pause(false).await?;
        write(&mut rows, 500..1_000).await?;
        if round == 2 {
            pair.worker.kill().await?;
            pair.worker.start()?;
        }
    }
    pair.equal().await?;
    let conflicts = pair.conflicts().await?;
    ensure!(conflicts.is_empty(), "only one member has written: {conflicts:#?}");
    pair.finish().await
}

async fn a_kill_loses_and_repeats_nothing(kinds: &[Kind]) -> anyhow::Result<()> {
    let mut pair = TwoWay::new(kinds, "killed", "seed = \"none\"\n").await?;
    pair.start().await?;
    let writers =
        pair.writers(seed()?, Mix { keys: 20, told_apart: true, deletes: true, transactions: false, rate: 200 });
    for round in 1..=5 {
        writers.until(round * 300).await?;
        pair.worker.kill().await?;
        writers.until(round * 300 + 100).await?;
        pair.worker.start()?;
    }
    writers.stop().await?;
    pair.equal().await?;
    let conflicts = pair.conflicts().await?;
    pair.none_drifted(&conflicts).await?;
    pair.finish().await
}

/// `make convergence` has more of the same, for each pair and the triple.
#[tokio::test]
async fn every_write_is_accounted_for() -> anyhow::Result<()> {
    all_converge(true, false).await
}

#[tokio::test]
async fn few_values_and_hidden_writes() -> anyhow::Result<()> {
    all_converge(false, true).await
}

async fn all_converge(told_apart: bool, hidden: bool) -> anyhow::Result<()> {
    let kinds = TwoWay::every_kind().to_vec();
    let report = run(&Settings { kinds, seed: seed()?, writes: 4_000, told_apart, hidden }, |_| {}).await?;
    println!("{report}");
    ensure!(report.problems.is_empty(), "{:#?}", report.problems);
    Ok(())
}
