//! Faults on demand: errors, lost and delayed replies, writes that no change stream tells about.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bson::{Document, doc};
use mongodb::error::UNKNOWN_TRANSACTION_COMMIT_RESULT;

use crate::deployment::{Deployment, Rows, code, within};
use crate::watching::take;

fn fail(times: i32, commands: &[&str], data: Document) -> Document {
    let mut all = doc! {"failCommands": commands};
    all.extend(data);
    doc! {"configureFailPoint": "failCommand", "mode": {"times": times}, "data": all}
}

async fn deployment(what: &str) -> Result<Option<Deployment>> {
    Deployment::stand_in(what, Default::default()).await
}

#[tokio::test]
async fn a_write_whose_reply_was_lost_is_repeated_without_a_second_effect() -> Result<()> {
    within(async {
        let Some(deployment) = deployment("a lost reply").await? else { return Ok(()) };
        let rows: Rows = deployment.database("lost_reply").await?.collection("a");
        rows.insert_one(doc! {"_id": 1, "v": 0}).await?;
        deployment.admin(fail(1, &["update"], doc! {"closeConnection": true, "afterExecution": true})).await?;
        let updated = rows.update_one(doc! {"_id": 1}, doc! {"$inc": {"v": 1}}).await?;
        ensure!(updated.modified_count == 1 && rows.find_one(doc! {}).await? == Some(doc! {"_id": 1, "v": 1}));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_commit_whose_reply_was_lost_is_found_committed() -> Result<()> {
    within(async {
        let Some(deployment) = deployment("a lost commit reply").await? else { return Ok(()) };
        let rows: Rows = deployment.database("lost_commit").await?.collection("a");
        rows.insert_one(doc! {"_id": 0}).await?;
        // The driver itself repeats once: both replies are lost.
        deployment
            .admin(fail(2, &["commitTransaction"], doc! {"closeConnection": true, "afterExecution": true}))
            .await?;
        let mut session = deployment.client.start_session().await?;
        session.start_transaction().await?;
        rows.insert_one(doc! {"_id": 1}).session(&mut session).await?;
        let error = session.commit_transaction().await.err().context("the reply came")?;
        ensure!(error.contains_label(UNKNOWN_TRANSACTION_COMMIT_RESULT), "{error:?}");
        ensure!(rows.count_documents(doc! {}).await? == 2, "it was not committed");
        session.commit_transaction().await?;
        ensure!(rows.count_documents(doc! {}).await? == 2, "it was committed twice");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_commit_cut_off_before_it_ran_is_repeated_by_the_driver() -> Result<()> {
    within(async {
        let Some(deployment) = deployment("a fail point").await? else { return Ok(()) };
        let rows: Rows = deployment.database("cut_commit").await?.collection("a");
        deployment.admin(fail(1, &["commitTransaction"], doc! {"closeConnection": true})).await?;
        let mut session = deployment.client.start_session().await?;
        session.start_transaction().await?;
        rows.insert_one(doc! {"_id": 1}).session(&mut session).await?;
        session.commit_transaction().await?;
        ensure!(rows.count_documents(doc! {}).await? == 1);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn replies_can_be_delayed_before_and_after_the_execution() -> Result<()> {
    within(async {
        let Some(deployment) = deployment("a delayed reply").await? else { return Ok(()) };
        let database = deployment.database("delayed").await?;
        let rows: Rows = database.collection("a");
        rows.insert_one(doc! {"_id": 0}).await?;
        for (id, after) in [(1, false), (2, true)] {
            let mut stream = database.watch().max_await_time(Duration::from_millis(50)).await?;
            let data = doc! {"blockConnection": true, "blockTimeMS": 3000, "afterExecution": after};
            deployment.admin(fail(1, &["insert"], data)).await?;
            let (writer, start) = (rows.clone(), Instant::now());
            let write = tokio::spawn(async move { writer.insert_one(doc! {"_id": id}).await });
            take(&mut stream, 1).await?;
            let seen = start.elapsed();
            write.await??;
            ensure!(start.elapsed() >= Duration::from_secs(3), "the reply was not delayed");
            ensure!((seen < Duration::from_secs(3)) == after, "after execution {after}: seen after {seen:?}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn errors_carry_the_codes_and_labels_that_were_asked_for() -> Result<()> {
    within(async {
        let Some(deployment) = deployment("a fail point").await? else { return Ok(()) };
        let rows: Rows = deployment.database("codes").await?.collection("a");
        rows.insert_one(doc! {"_id": 0}).await?;
        let mut session = deployment.client.start_session().await?;
        for (error_code, labels) in [(112, vec!["TransientTransactionError"]), (290, vec![])] {
            deployment.admin(fail(1, &["insert"], doc! {"errorCode": error_code, "errorLabels": &labels})).await?;
            session.start_transaction().await?;
            let error = rows.insert_one(doc! {"_id": 1}).session(&mut session).await.err().context("no error")?;
            ensure!(code(&error) == Some(error_code), "{error:?}");
            ensure!(error.contains_label("TransientTransactionError") != labels.is_empty(), "{error:?}");
            session.abort_transaction().await?;
        }
        let skipping = doc! {"configureFailPoint": "failCommand", "mode": {"skip": 2}, "data": {"failCommands": ["count"], "errorCode": 2}};
        deployment.admin(skipping).await?;
        let mut outcomes = Vec::new();
        for _ in 0..4 {
            outcomes.push(rows.estimated_document_count().await.is_ok());
        }
        ensure!(outcomes == [true, true, false, false], "{outcomes:?}");
        deployment.admin(doc! {"configureFailPoint": "failCommand", "mode": "off"}).await?;
        rows.estimated_document_count().await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_write_behind_the_oplog_is_seen_by_reads_and_not_by_streams() -> Result<()> {
    within(async {
        let Some(deployment) = deployment("a write behind the oplog").await? else { return Ok(()) };
        let database = deployment.database("behind").await?;
        let rows: Rows = database.collection("a");
        rows.insert_many([doc! {"_id": 1, "v": 1}, doc! {"_id": 2, "v": 1}]).await?;
        let mut stream = database.watch().await?;
        let behind =
            doc! {"writeBehindOplog": "a", "documents": [{"_id": 1, "v": 2}, {"_id": 3}], "deletes": [{"_id": 2}]};
        database.run_command(behind).await?;
        rows.insert_one(doc! {"_id": 4}).await?;
        ensure!(take(&mut stream, 1).await?[0].document_key == Some(doc! {"_id": 4}), "a stream told about it");
        ensure!(rows.find_one(doc! {"_id": 1}).await? == Some(doc! {"_id": 1, "v": 2}));
        ensure!(rows.count_documents(doc! {}).await? == 3);
        Ok(())
    })
    .await
}
