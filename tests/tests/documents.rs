//! What only MongoDB does: faults of a replica set one after another, and an oplog that has rolled over.

use mongodb::bson::{Document, doc};
use std::time::Duration;
use sync_worker_engine::status::State;
use sync_worker_mongodb_stand_in::{Options, StandIn};
use sync_worker_tests::database::Database;
use sync_worker_tests::ledger;
use sync_worker_tests::load::{Load, LoadSettings};
use sync_worker_tests::scenario::Preparation;
use sync_worker_tests::seed::seed;

const LIMIT: Duration = Duration::from_secs(120);

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
