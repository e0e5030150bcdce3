//! The five directions that begin or end at MongoDB: snapshot, stream, kills, comparison.

use mongodb::bson::{Document, doc};
use std::time::Duration;
use sync_worker_engine::status::{State, Task};
use sync_worker_mongodb_stand_in::{Options, StandIn};
use sync_worker_tests::database::Database;
use sync_worker_tests::each_direction_of_documents;
use sync_worker_tests::kind::Direction;
use sync_worker_tests::load::{Load, LoadSettings};
use sync_worker_tests::scenario::Preparation;
use sync_worker_tests::seed::seed;
use sync_worker_tests::{kill, ledger};

const LIMIT: Duration = Duration::from_secs(60);
const CYCLES: u32 = 10;

each_direction_of_documents![
    a_snapshot_then_the_stream,
    a_snapshot_while_others_write,
    a_snapshot_goes_on_after_a_kill,
    killed_ten_times,
    verify_takes_nothing_in_flight_for_a_difference,
];

async fn a_snapshot_then_the_stream(direction: Direction) -> anyhow::Result<()> {
    let mut preparation = Preparation::new(direction, "snapshot").await?;
    preparation.item(5_000).await?;
    let scenario = preparation.streaming().await?;
    scenario.equal().await?;
    let load = LoadSettings { rate: Some(3_000), writers: 2, ..LoadSettings::new(seed()?) };
    let load = Load::start(&scenario.source.url(), &load)?;
    scenario.until_changes(&load, 2_000).await?;
    load.stop().await?;
    scenario.finish().await
}

async fn a_snapshot_while_others_write(direction: Direction) -> anyhow::Result<()> {
    let mut preparation = Preparation::new(direction, "busy").await?;
    preparation.item(10_000).await?;
    preparation.pipeline("snapshot_chunk_rows = 500\nsnapshot_parallel = 3");
    let load = LoadSettings { rate: Some(1_500), rows: 3_000, ..LoadSettings::new(seed()?) };
    let load = Load::start(&preparation.source.url(), &load)?;
    // Changes are under way before, during and after the copy.
    let scenario = preparation.streaming().await?;
    scenario.until_changes(&load, 500).await?;
    load.stop().await?;
    scenario.finish().await
}

async fn a_snapshot_goes_on_after_a_kill(direction: Direction) -> anyhow::Result<()> {
    let mut preparation = Preparation::new(direction, "resume").await?;
    preparation.item(30_000).await?;
    preparation.pipeline("snapshot_chunk_rows = 500\nsnapshot_parallel = 1");
    let mut scenario = preparation.scenario()?;
    let (mut copied, mut kills) = (0, 0);
    loop {
        scenario.worker.start()?;
        let tasks = scenario.worker.until("some more of the snapshot", LIMIT, |tasks| {
            tasks.iter().filter_map(|task| task.snapshot.as_ref()).any(|copy| copy.done || copy.rows > copied + 3_000)
        });
        let tasks = tasks.await?;
        let capture = tasks.iter().find(|task| task.task == Task::Capture);
        let Some(snapshot) = capture.and_then(|task| task.snapshot.as_ref()) else { continue };
        assert!(snapshot.rows >= copied, "{copied} rows were copied, of which {} are known", snapshot.rows);
        if snapshot.done {
            break;
        }
        copied = snapshot.rows;
        scenario.worker.kill().await?;
        kills += 1;
    }
    assert!(kills >= 2, "the copy was through after {kills} kills");
    scenario.finish().await
}

async fn killed_ten_times(direction: Direction) -> anyhow::Result<()> {
    let report = kill::run(direction, CYCLES, seed()?, |_| {}).await?;
    println!("{}: {}", report.direction, report.verdict);
    assert!(report.is_good(), "{report:#?}");
    assert!(report.verdict.source_writes > 100, "hardly any load: {:?}", report.load);
    Ok(())
}

async fn verify_takes_nothing_in_flight_for_a_difference(direction: Direction) -> anyhow::Result<()> {
    let mut preparation = Preparation::new(direction, "flight").await?;
    preparation.item(2_000).await?;
    let scenario = preparation.streaming().await?;
    let load = Load::start(&scenario.source.url(), &LoadSettings { rate: Some(1_000), ..LoadSettings::new(seed()?) })?;
    scenario.until_changes(&load, 500).await?;
    for _ in 0..3 {
        scenario.worker.expect(0, &["verify"]).await?;
    }
    load.stop().await?;
    scenario.finish().await
}

/// A server of its own, whose faults are nobody else's.
#[tokio::test]
async fn faults_of_a_replica_set_lose_and_repeat_nothing() -> anyhow::Result<()> {
    let server = StandIn::start(Options::default()).await?;
    let (source, target) =
        (Database::create_on(&server.url(), "faults").await?, Database::create_on(&server.url(), "faults").await?);
    let admin = source.documents().await?.client().database("admin");
    let mut preparation = Preparation::between(source, target).await?;
    preparation.item(1_000).await?;
    let scenario = preparation.streaming().await?;
    ledger::install(&scenario.source).await?;
    ledger::install(&scenario.target).await?;
    let load = Load::start(&scenario.source.url(), &LoadSettings { rate: Some(1_000), ..LoadSettings::new(seed()?) })?;
    let fail = |data: Document| doc! { "configureFailPoint": "failCommand", "mode": { "times": 1 }, "data": data };
    for fault in [
        doc! { "killAllCursors": 1 },
        doc! { "dropConnections": 1 },
        fail(doc! { "failCommands": ["commitTransaction"], "closeConnection": true, "afterExecution": true }),
        fail(doc! { "failCommands": ["bulkWrite"], "errorCode": 112, "errorLabels": ["TransientTransactionError"] }),
        fail(doc! { "failCommands": ["bulkWrite"], "errorCode": 225 }),
        fail(doc! { "failCommands": ["getMore"], "errorCode": 91, "closeConnection": true }),
        doc! { "replSetStepDown": 1, "force": true },
        doc! { "killAllCursors": 1 },
    ] {
        // A command that cuts its own connection has no answer.
        drop(admin.run_command(fault).await);
        scenario.until_changes(&load, 300).await?;
    }
    load.stop().await?;
    scenario.settle().await?;
    let verdict = ledger::judge(&ledger::read(&scenario.source).await?, &ledger::read(&scenario.target).await?);
    assert!(verdict.is_good(), "{verdict}");
    scenario.finish().await
}

#[tokio::test]
async fn an_oplog_that_has_rolled_over_is_a_gap() -> anyhow::Result<()> {
    let server = StandIn::start(Options::default()).await?;
    let (source, target) =
        (Database::create_on(&server.url(), "gap").await?, Database::create_on(&server.url(), "gap").await?);
    let mut preparation = Preparation::between(source, target).await?;
    preparation.item(100).await?;
    let mut scenario = preparation.streaming().await?;
    scenario.worker.kill().await?;
    let documents = scenario.source.documents().await?;
    let rows = documents.collection::<Document>("item");
    for id in 1_000..1_100i64 {
        rows.insert_one(doc! { "_id": id, "version": 1i64 }).await?;
    }
    documents.client().database("admin").run_command(doc! { "truncateOplog": 1, "keep": 10 }).await?;
    scenario.worker.start()?;
    let tasks =
        scenario.worker.until("a gap", LIMIT, |tasks| tasks.iter().any(|task| task.state == State::Gap)).await?;
    let gap = tasks.iter().find(|task| task.state == State::Gap).map(|task| task.reason.clone());
    assert!(gap.as_ref().is_some_and(|text| text.contains("oplog")), "{gap:?}");
    scenario.worker.quiet();
    Ok(())
}
