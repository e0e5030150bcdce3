//! kill -9 of the worker at random moments under load: nothing lost, repeated or out of order. `make kill-test` runs more
//! cycles of the same.

use sync_worker_tests::kill;
use sync_worker_tests::kind::{Direction, Kind};
use sync_worker_tests::seed::seed;

const CYCLES: u32 = 10;

async fn kill_ten_times(from: Kind, to: Kind) -> anyhow::Result<()> {
    let report = kill::run(Direction { from, to }, CYCLES, seed()?, |_| {}).await?;
    println!("{}: {}", report.direction, report.verdict);
    assert!(report.is_good(), "{report:#?}");
    assert!(report.verdict.source_writes > 100, "hardly any load: {:?}", report.load);
    Ok(())
}

#[tokio::test]
async fn kill_postgres_to_postgres() -> anyhow::Result<()> {
    kill_ten_times(Kind::Postgres, Kind::Postgres).await
}

#[tokio::test]
async fn kill_postgres_to_mysql() -> anyhow::Result<()> {
    kill_ten_times(Kind::Postgres, Kind::Mysql).await
}

#[tokio::test]
async fn kill_mysql_to_postgres() -> anyhow::Result<()> {
    kill_ten_times(Kind::Mysql, Kind::Postgres).await
}

#[tokio::test]
async fn kill_mysql_to_mysql() -> anyhow::Result<()> {
    kill_ten_times(Kind::Mysql, Kind::Mysql).await
}
