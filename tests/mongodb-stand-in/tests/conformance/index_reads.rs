//! Reads by a unique index of fields, as keys of fields need them.

use anyhow::{Context, Result, ensure};
use bson::{Bson, Document, doc};
use futures::TryStreamExt;
use mongodb::options::IndexOptions;
use mongodb::{Database, IndexModel};

use crate::deployment::{Deployment, Rows, code, within};

async fn indexed(database: &Database, keys: Document) -> Result<Rows> {
    let unique = IndexOptions::builder().unique(true).build();
    let rows: Rows = database.collection("a");
    rows.create_index(IndexModel::builder().keys(keys).options(unique).build()).await?;
    Ok(rows)
}

async fn ids(database: &Database, command: Document) -> Result<Vec<i32>> {
    let reply = database.run_command(command).await?;
    let batch = reply.get_document("cursor")?.get_array("firstBatch")?;
    let id = |row: &Bson| row.as_document().and_then(|row| row.get_i32("_id").ok()).context("a row without an _id");
    batch.iter().map(id).collect()
}

#[tokio::test]
async fn bounds_of_an_index_cross_types_and_take_it_in_its_order() -> Result<()> {
    within(async {
        let deployment = Deployment::start().await?;
        let database = deployment.database("index_bounds").await?;
        let rows = indexed(&database, doc! {"k": 1, "l": 1}).await?;
        rows.insert_many([
            doc! {"_id": 1, "k": "b", "l": 1},
            doc! {"_id": 2, "k": 5, "l": 2},
            doc! {"_id": 3, "k": 5, "l": 1},
            doc! {"_id": 4, "l": 1},
            doc! {"_id": 5, "k": [4, 6], "l": 0},
            doc! {"_id": 6, "k": 7.5, "l": 0},
        ])
        .await?;
        let find = |more: Document| {
            let mut command = doc! {"find": "a", "hint": "k_1_l_1", "sort": {"k": 1, "l": 1}};
            command.extend(more);
            ids(&database, command)
        };
        let plain = doc! {"$nor": [{"k": {"$type": "array"}}]};
        ensure!(find(doc! {"filter": plain.clone()}).await? == [4, 3, 2, 6, 1]);
        ensure!(find(doc! {"filter": plain, "skip": 2, "limit": 1}).await? == [2]);
        let between = doc! {"min": {"k": 5, "l": 1}, "max": {"k": "b", "l": 1}};
        let mut found = find(between).await?;
        found.sort_unstable();
        ensure!(found == [2, 3, 5, 6], "an array is met by the element that is between: {found:?}");
        let after = doc! {"min": {"k": 5, "l": 2}, "filter": {"$nor": [{"k": {"$eq": 5}, "l": {"$eq": 2}}]}};
        let mut found = find(after).await?;
        found.sort_unstable();
        ensure!(found == [1, 5, 6], "{found:?}");
        let unknown = ids(&database, doc! {"find": "a", "hint": "no_such"}).await.err().context("a hint was taken")?;
        ensure!(unknown.downcast_ref().and_then(code) == Some(2), "{unknown:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_index_of_a_past_time_and_of_a_transaction_is_the_one_that_they_see() -> Result<()> {
    within(async {
        let deployment = Deployment::start().await?;
        let database = deployment.database("index_times").await?;
        let rows = indexed(&database, doc! {"k": 1}).await?;
        rows.insert_many([doc! {"_id": 1, "k": "a"}, doc! {"_id": 2, "k": "b"}, doc! {"_id": 3, "k": "c"}]).await?;
        let time = deployment.admin(doc! {"ping": 1}).await?.get_timestamp("operationTime")?;
        let mut session = deployment.client.start_session().await?;
        session.start_transaction().await?;
        let mut found = rows.find(doc! {"k": {"$in": ["a", "z"]}}).session(&mut session).await?;
        let found: Vec<Document> = found.stream(&mut session).try_collect().await?;
        ensure!(found.len() == 1);
        // Keys change hands behind both.
        rows.delete_one(doc! {"_id": 2}).await?;
        rows.update_one(doc! {"_id": 1}, doc! {"$set": {"k": "b"}}).await?;
        rows.insert_one(doc! {"_id": 4, "k": "a"}).await?;
        let concern = doc! {"level": "snapshot", "atClusterTime": time};
        let past = doc! {"find": "a", "hint": {"k": 1}, "sort": {"k": 1}, "readConcern": concern.clone()};
        ensure!(ids(&database, past).await? == [1, 2, 3]);
        let past = doc! {"find": "a", "filter": {"$or": [{"k": "a"}, {"k": "b"}]}, "readConcern": concern};
        let mut found = ids(&database, past).await?;
        found.sort_unstable();
        ensure!(found == [1, 2], "{found:?}");
        rows.update_one(doc! {"_id": 3}, doc! {"$set": {"k": "z"}}).session(&mut session).await?;
        let mut found = rows.find(doc! {"k": {"$in": ["a", "b", "c", "z"]}}).session(&mut session).await?;
        let mut found: Vec<i32> =
            found.stream(&mut session).map_ok(|row: Document| row.get_i32("_id").unwrap_or(0)).try_collect().await?;
        found.sort_unstable();
        ensure!(found == [1, 2, 3], "{found:?}");
        session.abort_transaction().await?;
        ensure!(ids(&database, doc! {"find": "a", "filter": {"k": "a"}}).await? == [4]);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_upsert_by_a_key_of_fields_leaves_the_id_alone_and_takes_no_array_for_it() -> Result<()> {
    within(async {
        let deployment = Deployment::start().await?;
        let database = deployment.database("index_upsert").await?;
        let rows = indexed(&database, doc! {"k": 1}).await?;
        rows.insert_many([doc! {"_id": 1, "k": 1}, doc! {"_id": 2, "k": [2, 3]}]).await?;
        let replace = |key: i32| {
            let filter = doc! {"k": {"$eq": key, "$not": {"$type": "array"}}};
            rows.replace_one(filter, doc! {"k": key, "v": true}).upsert(true)
        };
        let replaced = replace(1).await?;
        ensure!(replaced.matched_count == 1 && replaced.upserted_id.is_none());
        let made = replace(4).await?;
        ensure!(matches!(made.upserted_id, Some(Bson::ObjectId(_))), "{made:?}");
        let refused = replace(2).await.err().context("an array was written over")?;
        ensure!(code(&refused) == Some(11000), "{refused:?}");
        let mut session = deployment.client.start_session().await?;
        session.start_transaction().await?;
        let made = replace(5).session(&mut session).await?;
        ensure!(matches!(made.upserted_id, Some(Bson::ObjectId(_))), "{made:?}");
        session.commit_transaction().await?;
        ensure!(rows.find_one(doc! {"_id": 1}).await? == Some(doc! {"_id": 1, "k": 1, "v": true}));
        Ok(())
    })
    .await
}
