//! Reads at a past cluster time.

use anyhow::{Result, ensure};
use bson::{Document, doc};
use futures::{StreamExt, TryStreamExt};

use crate::deployment::{Deployment, Rows, code, within};

#[tokio::test]
async fn a_snapshot_session_reads_all_collections_at_one_time() -> Result<()> {
    within(async {
        let deployment = Deployment::start().await?;
        let database = deployment.database("snapshot").await?;
        let (a, b): (Rows, Rows) = (database.collection("a"), database.collection("b"));
        a.insert_one(doc! {"_id": 1}).await?;
        b.insert_many([doc! {"_id": 1, "v": 1}, doc! {"_id": 3}]).await?;
        let mut session = deployment.client.start_session().snapshot(true).await?;
        let count = a.find(doc! {}).session(&mut session).await?.stream(&mut session).count().await;
        b.update_one(doc! {}, doc! {"$set": {"v": 2}}).await?;
        b.delete_one(doc! {"_id": 3}).await?;
        b.insert_one(doc! {"_id": 2}).await?;
        let mut find = b.find(doc! {}).session(&mut session).await?;
        let found: Vec<Document> = find.stream(&mut session).try_collect().await?;
        ensure!(count == 1 && found == [doc! {"_id": 1, "v": 1}, doc! {"_id": 3}], "{found:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_time_in_the_past_can_be_named() -> Result<()> {
    within(async {
        let deployment = Deployment::start().await?;
        let database = deployment.database("at_time").await?;
        let rows: Rows = database.collection("a");
        let mut times = Vec::new();
        rows.insert_one(doc! {"_id": 1, "v": 0}).await?;
        for value in 1..5 {
            rows.update_one(doc! {"_id": 1}, doc! {"$set": {"v": value}}).await?;
            times.push(deployment.admin(doc! {"ping": 1}).await?.get_timestamp("operationTime")?);
        }
        for (time, value) in times.into_iter().zip(1..5) {
            let concern = doc! {"level": "snapshot", "atClusterTime": time};
            let read = doc! {"find": "a", "filter": {"_id": 1}, "readConcern": concern};
            let reply = database.run_command(read).await?;
            let batch = reply.get_document("cursor")?.get_array("firstBatch")?;
            ensure!(batch == &[doc! {"_id": 1, "v": value}.into()], "{reply}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_time_whose_history_is_gone_is_refused() -> Result<()> {
    within(async {
        let Some(deployment) = Deployment::stand_in("an oplog that is cut", Default::default()).await? else {
            return Ok(());
        };
        let database = deployment.database("too_old").await?;
        let rows: Rows = database.collection("a");
        rows.insert_one(doc! {"_id": 1}).await?;
        let time = deployment.admin(doc! {"ping": 1}).await?.get_timestamp("operationTime")?;
        rows.insert_one(doc! {"_id": 2}).await?;
        rows.insert_one(doc! {"_id": 3}).await?;
        deployment.admin(doc! {"truncateOplog": 1, "keep": 1}).await?;
        let concern = doc! {"level": "snapshot", "atClusterTime": time};
        let read = database.run_command(doc! {"find": "a", "readConcern": concern}).await;
        ensure!(read.err().and_then(|error| code(&error)) == Some(239));
        Ok(())
    })
    .await
}
