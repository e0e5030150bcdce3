//! Transactions in each other's way.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bson::{Document, doc};
use futures::TryStreamExt;
use mongodb::options::IndexOptions;
use mongodb::{ClientSession, IndexModel};

use crate::deployment::{Deployment, Rows, code, refused, within};
use crate::watching::{operations, take, tokens_ascend};

#[tokio::test]
async fn the_second_writer_of_a_row_gets_112_and_may_repeat() -> Result<()> {
    within(async {
        let deployment = Deployment::start().await?;
        let rows: Rows = deployment.database("conflict").await?.collection("a");
        rows.insert_one(doc! {"_id": 0, "v": 0}).await?;
        let (mut one, mut two) = (deployment.client.start_session().await?, deployment.client.start_session().await?);
        one.start_transaction().await?;
        two.start_transaction().await?;
        rows.update_one(doc! {"_id": 0}, doc! {"$set": {"v": 7}}).session(&mut one).await?;
        let conflict = rows.update_one(doc! {"_id": 0}, doc! {"$set": {"v": 8}}).session(&mut two).await;
        let error = conflict.err().context("no conflict")?;
        ensure!(code(&error) == Some(112) && error.contains_label("TransientTransactionError"), "{error:?}");
        two.abort_transaction().await?;
        one.commit_transaction().await?;
        ensure!(rows.find_one(doc! {}).await? == Some(doc! {"_id": 0, "v": 7}));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_plain_write_waits_for_the_transaction_that_holds_its_row() -> Result<()> {
    within(async {
        let deployment = Deployment::start().await?;
        let rows: Rows = deployment.database("held").await?.collection("a");
        rows.insert_one(doc! {"_id": 1, "v": 0}).await?;
        let mut session = deployment.client.start_session().await?;
        session.start_transaction().await?;
        rows.update_one(doc! {"_id": 1}, doc! {"$inc": {"v": 1}}).session(&mut session).await?;
        let plain = rows.clone();
        let mut waiting =
            tokio::spawn(async move { plain.update_one(doc! {"_id": 1}, doc! {"$inc": {"v": 10}}).await });
        let early = tokio::time::timeout(Duration::from_millis(300), &mut waiting).await;
        ensure!(early.is_err(), "the plain write did not wait");
        session.commit_transaction().await?;
        waiting.await??;
        ensure!(rows.find_one(doc! {}).await? == Some(doc! {"_id": 1, "v": 11}));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn unique_values_are_held_until_the_commit() -> Result<()> {
    within(async {
        let deployment = Deployment::start().await?;
        let rows: Rows = deployment.database("held_unique").await?.collection("a");
        let unique = IndexOptions::builder().unique(true).build();
        rows.create_index(IndexModel::builder().keys(doc! {"e": 1}).options(unique).build()).await?;
        rows.insert_one(doc! {"_id": 1, "e": 1}).await?;
        let (mut one, mut two) = (deployment.client.start_session().await?, deployment.client.start_session().await?);
        one.start_transaction().await?;
        rows.update_one(doc! {"_id": 1}, doc! {"$set": {"e": 2}}).session(&mut one).await?;
        rows.insert_one(doc! {"_id": 2, "e": 1}).session(&mut one).await?;
        two.start_transaction().await?;
        ensure!(refused(rows.insert_one(doc! {"_id": 3, "e": 2}).session(&mut two).await)? == 112);
        one.commit_transaction().await?;
        let mut three = deployment.client.start_session().await?;
        three.start_transaction().await?;
        ensure!(refused(rows.insert_one(doc! {"_id": 3, "e": 2}).session(&mut three).await)? == 11000);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_transaction_that_lives_too_long_is_aborted() -> Result<()> {
    within(async {
        let deployment = Deployment::start().await?;
        let rows: Rows = deployment.database("too_old").await?.collection("a");
        rows.insert_one(doc! {"_id": 1, "v": 0}).await?;
        let parameter = "transactionLifetimeLimitSeconds";
        let before = deployment.admin(doc! {"getParameter": 1, parameter: 1}).await?.get(parameter).cloned();
        deployment.admin(doc! {"setParameter": 1, parameter: 1}).await?;
        let mut session = deployment.client.start_session().await?;
        session.start_transaction().await?;
        rows.update_one(doc! {"_id": 1}, doc! {"$inc": {"v": 1}}).session(&mut session).await?;
        // A plain write waits until the transaction is aborted for its age.
        rows.update_one(doc! {"_id": 1}, doc! {"$inc": {"v": 10}}).await?;
        let late = rows.insert_one(doc! {"_id": 2}).session(&mut session).await;
        deployment.admin(doc! {"setParameter": 1, parameter: before}).await?;
        let error = late.err().context("the transaction lives on")?;
        ensure!(code(&error) == Some(251) && error.contains_label("TransientTransactionError"), "{error:?}");
        ensure!(rows.find_one(doc! {}).await? == Some(doc! {"_id": 1, "v": 10}));
        Ok(())
    })
    .await
}

async fn transfer(
    session: &mut ClientSession,
    accounts: &Rows,
    ledger: &Rows,
    from: i32,
    to: i32,
    entry: Document,
) -> mongodb::error::Result<()> {
    session.start_transaction().await?;
    accounts.update_one(doc! {"_id": from}, doc! {"$inc": {"v": -1}}).session(&mut *session).await?;
    accounts.update_one(doc! {"_id": to}, doc! {"$inc": {"v": 1}}).session(&mut *session).await?;
    ledger.insert_one(entry).session(&mut *session).await?;
    session.commit_transaction().await
}

#[tokio::test]
async fn transfers_of_many_tasks_stay_whole() -> Result<()> {
    within(async {
        let deployment = Deployment::start().await?;
        let database = deployment.database("transfers").await?;
        let (accounts, ledger): (Rows, Rows) = (database.collection("accounts"), database.collection("ledger"));
        accounts.insert_many((0..6).map(|id| doc! {"_id": id, "v": 100})).await?;
        let mut stream = database.watch().await?;
        let mut tasks = Vec::new();
        for worker in 0..4i32 {
            let (client, accounts, ledger) = (deployment.client.clone(), accounts.clone(), ledger.clone());
            tasks.push(tokio::spawn(async move {
                let mut session = client.start_session().await?;
                for step in 0..40i32 {
                    let (from, to) = ((worker + step) % 6, (worker * 2 + step * 3 + 1) % 6);
                    if from == to {
                        continue;
                    }
                    while let Err(error) =
                        transfer(&mut session, &accounts, &ledger, from, to, doc! {"worker": worker, "step": step})
                            .await
                    {
                        if !error.contains_label("TransientTransactionError") {
                            return Err(error);
                        }
                        session.abort_transaction().await?;
                    }
                }
                mongodb::error::Result::Ok(())
            }));
        }
        for task in tasks {
            task.await??;
        }
        let count = ledger.count_documents(doc! {}).await? as usize;
        let events = take(&mut stream, count * 3).await?;
        for group in events.chunks(3) {
            ensure!(operations(group) == "update,update,insert", "a torn transaction: {}", operations(group));
            let first = &group[0];
            let whole = group.iter().all(|event| {
                event.cluster_time == first.cluster_time
                    && event.txn_number == first.txn_number
                    && event.lsid == first.lsid
            });
            ensure!(whole, "{group:?}");
        }
        ensure!(tokens_ascend(&events));
        let rows: Vec<_> = accounts.find(doc! {}).await?.try_collect().await?;
        let sum: i32 = rows.iter().flat_map(|row| row.get_i32("v")).sum();
        ensure!(sum == 600, "{sum}");
        Ok(())
    })
    .await
}
