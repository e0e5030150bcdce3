//! Transactions that come to their end.

use std::time::Duration;

use anyhow::{Result, ensure};
use bson::{Document, doc};
use futures::{StreamExt, TryStreamExt};

use crate::deployment::{Deployment, Rows, refused, within};
use crate::watching::{operations, take, text, tokens_ascend};

#[tokio::test]
async fn a_commit_shows_all_writes_at_one_cluster_time() -> Result<()> {
    within(async {
        let deployment = Deployment::start().await?;
        let database = deployment.database("commit").await?;
        let (a, b): (Rows, Rows) = (database.collection("a"), database.collection("b"));
        a.insert_one(doc! {"_id": 0, "v": 0}).await?;
        b.insert_one(doc! {"_id": 0}).await?;
        let mut stream = database.watch().max_await_time(Duration::from_millis(200)).await?;
        let mut session = deployment.client.start_session().await?;
        session.start_transaction().await?;
        a.insert_one(doc! {"_id": 1}).session(&mut session).await?;
        b.insert_many([doc! {"_id": 1}, doc! {"_id": 2}]).session(&mut session).await?;
        a.update_one(doc! {"_id": 0}, doc! {"$set": {"v": 1}}).session(&mut session).await?;
        ensure!(stream.next_if_any().await?.is_none(), "an event before the commit");
        ensure!(b.count_documents(doc! {}).await? == 1, "a dirty read");
        let own = b.find(doc! {}).session(&mut session).await?.stream(&mut session).count().await;
        ensure!(own == 3, "{own} rows inside the transaction");
        session.commit_transaction().await?;

        let events = take(&mut stream, 4).await?;
        ensure!(operations(&events) == "insert,insert,insert,update", "{}", operations(&events));
        let first = &events[0];
        ensure!(first.lsid.is_some() && first.txn_number.is_some(), "{first:?}");
        let same = |event: &crate::watching::Event| {
            event.cluster_time == first.cluster_time && event.lsid == first.lsid && event.txn_number == first.txn_number
        };
        ensure!(events.iter().all(same) && tokens_ascend(&events), "{events:?}");
        let mut resumed = database.watch().resume_after(events[1].id.clone()).await?;
        ensure!(text(&take(&mut resumed, 2).await?[0].id) == text(&events[2].id), "no resuming inside a transaction");
        session.commit_transaction().await?;
        ensure!(stream.next_if_any().await?.is_none(), "a second commit wrote");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_abort_leaves_nothing_behind() -> Result<()> {
    within(async {
        let deployment = Deployment::start().await?;
        let database = deployment.database("abort").await?;
        let rows: Rows = database.collection("a");
        rows.insert_one(doc! {"_id": 0, "v": 0}).await?;
        let mut stream = database.watch().max_await_time(Duration::from_millis(200)).await?;
        let mut session = deployment.client.start_session().await?;
        session.start_transaction().await?;
        rows.insert_one(doc! {"_id": 50}).session(&mut session).await?;
        rows.delete_one(doc! {"_id": 0}).session(&mut session).await?;
        session.abort_transaction().await?;
        ensure!(stream.next_if_any().await?.is_none(), "an event of an aborted transaction");
        ensure!(rows.count_documents(doc! {}).await? == 1);
        session.start_transaction().await?;
        rows.insert_one(doc! {"_id": 51}).session(&mut session).await?;
        session.commit_transaction().await?;
        ensure!(operations(&take(&mut stream, 1).await?) == "insert");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn reads_in_a_transaction_see_one_snapshot() -> Result<()> {
    within(async {
        let deployment = Deployment::start().await?;
        let rows: Rows = deployment.database("isolation").await?.collection("a");
        rows.insert_one(doc! {"_id": 1, "v": 0}).await?;
        let mut session = deployment.client.start_session().await?;
        session.start_transaction().await?;
        rows.find_one(doc! {}).session(&mut session).await?;
        rows.update_one(doc! {}, doc! {"$set": {"v": 1}}).await?;
        rows.insert_one(doc! {"_id": 2}).await?;
        let mut found = rows.find(doc! {}).session(&mut session).await?;
        let found: Vec<Document> = found.stream(&mut session).try_collect().await?;
        ensure!(found == [doc! {"_id": 1, "v": 0}], "{found:?}");
        let stale = rows.update_one(doc! {"_id": 1}, doc! {"$set": {"v": 9}}).session(&mut session).await;
        ensure!(refused(stale)? == 112);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_drivers_own_transaction_helper_works() -> Result<()> {
    within(async {
        let deployment = Deployment::start().await?;
        let rows: Rows = deployment.database("helper").await?.collection("a");
        rows.insert_one(doc! {"_id": 1}).await?;
        let mut session = deployment.client.start_session().await?;
        let inside = rows.clone();
        let run = async move |session: &mut mongodb::ClientSession| {
            inside.insert_one(doc! {"_id": 3}).session(&mut *session).await?;
            inside.insert_one(doc! {"_id": 4}).session(session).await
        };
        session.start_transaction().and_run2(run).await?;
        ensure!(rows.count_documents(doc! {}).await? == 3);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_retryable_write_is_executed_once_and_answered_twice() -> Result<()> {
    within(async {
        let deployment = Deployment::start().await?;
        let database = deployment.database("retry").await?;
        let rows: Rows = database.collection("a");
        let mut session = deployment.client.start_session().await?;
        let insert = doc! {"insert": "a", "documents": [{"_id": 1}], "txnNumber": 1_000_041i64};
        let update =
            doc! {"update": "a", "updates": [{"q": {"_id": 1}, "u": {"$inc": {"v": 1}}}], "txnNumber": 1_000_042i64};
        for command in [&insert, &insert, &update, &update] {
            let reply = database.run_command(command.clone()).session(&mut session).await?;
            ensure!(reply.get_i32("n")? == 1 && !reply.contains_key("writeErrors"), "{reply}");
        }
        ensure!(rows.find_one(doc! {}).await? == Some(doc! {"_id": 1, "v": 1}));
        ensure!(refused(database.run_command(insert).session(&mut session).await)? == 225, "an older number was taken");
        std::mem::forget(session); // the driver's own counter is behind what was sent
        Ok(())
    })
    .await
}
