//! What is acknowledged survives the end of the process; a torn journal is repaired.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use bson::doc;
use mongodb::IndexModel;
use mongodb::options::{ChangeStreamPreAndPostImages, FullDocumentBeforeChangeType, IndexOptions};
use sync_worker_mongodb_stand_in::Options;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::deployment::{Deployment, Rows, connect, real, refused, within};
use crate::watching::{take, text};

async fn start(folder: &Path) -> Result<Option<Deployment>> {
    let options = Options { folder: Some(folder.to_owned()), ..Options::default() };
    Deployment::stand_in("a journal of its own", options).await
}

#[tokio::test]
async fn data_indexes_oplog_and_tokens_come_back_from_a_torn_journal() -> Result<()> {
    within(async {
        let folder = tempfile::tempdir()?;
        let Some(deployment) = start(folder.path()).await? else { return Ok(()) };
        let database = deployment.database("restart").await?;
        let images = ChangeStreamPreAndPostImages::builder().enabled(true).build();
        database.create_collection("a").change_stream_pre_and_post_images(images).await?;
        let rows: Rows = database.collection("a");
        let unique = IndexOptions::builder().unique(true).build();
        rows.create_index(IndexModel::builder().keys(doc! {"e": 1}).options(unique).build()).await?;
        let mut stream = database.watch().await?;
        for id in 0..10 {
            rows.insert_one(doc! {"_id": id, "e": id}).await?;
        }
        let events = take(&mut stream, 10).await?;
        let mut session = deployment.client.start_session().await?;
        session.start_transaction().await?;
        for id in 10..13 {
            rows.insert_one(doc! {"_id": id, "e": id}).session(&mut session).await?;
        }
        session.commit_transaction().await?;
        rows.update_one(doc! {"_id": 3}, doc! {"$set": {"v": 1}}).await?;
        session.start_transaction().await?;
        rows.insert_one(doc! {"_id": 99, "e": 99}).session(&mut session).await?;
        drop(deployment); // as suddenly as a kill: nothing is flushed at the end

        let mut journal = OpenOptions::new().append(true).open(folder.path().join("journal"))?;
        journal.write_all(&[200, 0, 0, 0, 1, 2, 3, 4, 5, 6])?;
        let Some(deployment) = start(folder.path()).await? else { return Ok(()) };
        let database = deployment.client.database("stand_in_restart");
        let rows: Rows = database.collection("a");
        ensure!(rows.count_documents(doc! {}).await? == 13);
        ensure!(refused(rows.insert_one(doc! {"_id": 50, "e": 3}).await)? == 11000, "the unique index is lost");
        let watch = database.watch().full_document_before_change(FullDocumentBeforeChangeType::WhenAvailable);
        let mut stream = watch.resume_after(events[4].id.clone()).await?;
        let again = take(&mut stream, 9).await?;
        ensure!(text(&again[0].id) == text(&events[5].id), "another token");
        ensure!(again[6].txn_number.is_some() && again[8].full_document_before_change.is_some(), "{again:?}");
        rows.insert_one(doc! {"_id": 100, "e": 100}).await?;
        ensure!(text(&take(&mut stream, 1).await?[0].id) > text(&again[8].id), "the clock went back");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_retried_write_is_known_after_a_restart() -> Result<()> {
    within(async {
        let folder = tempfile::tempdir()?;
        let Some(deployment) = start(folder.path()).await? else { return Ok(()) };
        let session = bson::Binary::from(bson::Uuid::new());
        let update = doc! {
            "update": "a", "lsid": {"id": session}, "txnNumber": 1i64,
            "updates": [{"q": {"_id": 1}, "u": {"$inc": {"v": 1}}, "upsert": true}],
        };
        let run = async |deployment: &Deployment| {
            let url = deployment.stand_in.as_ref().map(|stand_in| stand_in.url()).unwrap_or_default();
            crate::deployment::raw_command(&url, "stand_in_retry", &update).await
        };
        let first = run(&deployment).await?;
        drop(deployment);
        let Some(deployment) = start(folder.path()).await? else { return Ok(()) };
        let second = run(&deployment).await?;
        ensure!(first.get("n") == second.get("n") && first.get("upserted") == second.get("upserted"), "{second}");
        let rows: Rows = deployment.client.database("stand_in_retry").collection("a");
        ensure!(rows.find_one(doc! {}).await? == Some(doc! {"_id": 1, "v": 1}));
        Ok(())
    })
    .await
}

/// The stand-in as a process of its own, killed when it is dropped.
struct Process {
    child: tokio::process::Child,
    url: String,
}

impl Process {
    async fn start(folder: &Path) -> Result<Self> {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_mongodb-stand-in"));
        command.args(["--port", "0", "--dir"]).arg(folder).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let output = child.stdout.take().context("no output")?;
        let line = BufReader::new(output).lines().next_line().await?.context("it ended at once")?;
        let url = line.strip_prefix("ready ").with_context(|| format!("not ready: {line}"))?.to_owned();
        Ok(Self { child, url })
    }
}

#[tokio::test]
async fn every_acknowledged_write_survives_a_kill() -> Result<()> {
    within(async {
        if real().is_some() {
            println!("skipped on a real replica set: a process that is killed");
            return Ok(());
        }
        let folder = tempfile::tempdir()?;
        let mut acknowledged = 0;
        for _ in 0..3 {
            let mut process = Process::start(folder.path()).await?;
            let client = connect(&process.url).await?;
            let rows: Rows = client.database("killed").collection("a");
            let found = rows.count_documents(doc! {}).await?;
            ensure!(found >= acknowledged, "{found} rows of {acknowledged} acknowledged");
            for start in (found..found + 200).step_by(10) {
                rows.insert_many((start..start + 10).map(|id| doc! {"_id": id as i64})).await?;
                acknowledged = start + 10;
            }
            let last = acknowledged;
            // One more is on its way, acknowledged or not, when the process is killed.
            let unknown = tokio::spawn(async move { rows.insert_one(doc! {"_id": last as i64}).await });
            process.child.kill().await?;
            unknown.abort();
        }
        Ok(())
    })
    .await
}
