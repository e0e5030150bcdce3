//! What the worker writes has to come back in the member's stream, or it would be taken for changes.

use anyhow::{Context, ensure};
use std::time::Duration;
use sync_worker_engine::status::{State, Task, TaskStatus};
use sync_worker_tests::kind::Kind;
use sync_worker_tests::two_way::{Account, TwoWay};
use sync_worker_tests::wait;

/// The proof takes a minute at the most, and half of one passes until it is tried again.
const PROOF: Duration = Duration::from_secs(120);

/// The publication leaves updates out, so the marker's moves, too, and nobody tells. One that leaves the marker's table
/// out would be a GAP. The applier fails, and goes on once that is mended.
#[tokio::test]
async fn a_pipeline_whose_echo_does_not_come_back_refuses_to_run() -> anyhow::Result<()> {
    let mut pair = TwoWay::new(&[Kind::Postgres, Kind::Mysql], "unheard", "seed = \"a\"\n").await?;
    pair.start().await?;
    pair.settle().await?;
    pair.worker.terminate().await?;
    let mut a = pair.members[0].database.connect().await?;
    let publication = a.value("SELECT pubname FROM pg_publication").await?.context("a publication")?;
    a.execute(&format!("ALTER PUBLICATION {publication} SET (publish = 'insert, delete')")).await?;
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
    a.execute(&format!("ALTER PUBLICATION {publication} SET (publish = 'insert, update, delete, truncate')")).await?;
    pair.worker.until_streaming(PROOF).await?;
    pair.finish().await
}
