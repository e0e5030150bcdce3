//! What the worker writes has to come back in the member's stream, or it would be taken for changes.

use anyhow::ensure;
use std::time::Duration;
use sync_worker_engine::status::{State, Task, TaskStatus};
use sync_worker_tests::kind::Kind;
use sync_worker_tests::servers::Servers;
use sync_worker_tests::two_way::{Account, TwoWay};
use sync_worker_tests::wait;

/// The proof takes a minute at the most, and half of one passes until it is tried again.
const PROOF: Duration = Duration::from_secs(120);

/// The marker stands in the log under another name, and nobody tells. A publication that leaves out the marker's table or updates
/// would be a GAP. The applier fails, and goes on once that is mended.
#[tokio::test]
async fn a_pipeline_whose_echo_does_not_come_back_refuses_to_run() -> anyhow::Result<()> {
    let servers = Servers::new()?;
    let server = servers.start(Kind::Mysql, "unheard", &[])?;
    let mut pair = TwoWay::with_server(&[Kind::Mysql, Kind::Postgres], "unheard", "seed = \"a\"\n", &server).await?;
    pair.start().await?;
    pair.settle().await?;
    pair.worker.terminate().await?;
    let mut a = pair.members[0].database.connect().await?;
    // What the worker writes as its marker stands in the log under another name.
    a.execute("RENAME TABLE sync_worker.progress TO sync_worker.marks").await?;
    a.execute("CREATE VIEW sync_worker.progress AS SELECT * FROM sync_worker.marks").await?;
    let (mut at_a, mut at_b) = (pair.members[0].accounts().await?, pair.members[1].accounts().await?);
    at_a.insert(&Account { id: 1, writer: "a".to_owned(), ..Account::default() }).await?;
    at_b.insert(&Account { id: 2, writer: "b".to_owned(), ..Account::default() }).await?;
    pair.worker.start()?;
    wait::until("a's row at b", PROOF, async || Ok(at_b.read(1).await?.map(drop))).await?;
    let of_a = |task: &TaskStatus| task.database == "a" && task.task == Task::Apply;
    let failed = |task: &TaskStatus| of_a(task) && task.state == State::Failed;
    let tasks = pair.worker.until("a's applier to fail", PROOF, |tasks| tasks.iter().any(failed)).await?;
    let reason = tasks.iter().find(|task| of_a(task)).map(|task| task.reason.as_str()).unwrap_or_default();
    ensure!(reason.contains("does not come back in its change stream"), "{reason}");
    let others: Vec<&TaskStatus> = tasks.iter().filter(|task| !of_a(task)).collect();
    ensure!(others.iter().all(|task| task.state == State::Streaming), "{others:#?}");
    // Its row is on the log, and stays there.
    let from_b = others.iter().find(|task| task.database == "b" && task.task == Task::Capture);
    ensure!(from_b.is_some_and(|task| task.changes > 0), "{others:#?}");
    ensure!(at_a.read(2).await?.is_none(), "it was written to a, where that would be taken for a change");
    a.execute("DROP VIEW sync_worker.progress").await?;
    a.execute("RENAME TABLE sync_worker.marks TO sync_worker.progress").await?;
    pair.worker.until_streaming(PROOF).await?;
    pair.finish().await
}
