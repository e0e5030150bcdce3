//! Connecting, reading and writing.

use anyhow::{Context, Result, ensure};
use bson::{Bson, Document, doc};
use futures::TryStreamExt;
use mongodb::IndexModel;
use mongodb::options::{IndexOptions, ReturnDocument};

use crate::deployment::{Deployment, Rows, refused, within};

#[tokio::test]
async fn hello_is_that_of_a_replica_sets_primary() -> Result<()> {
    within(async {
        let deployment = Deployment::start().await?;
        deployment.admin(doc! {"ping": 1}).await?;
        let hello = deployment.admin(doc! {"hello": 1}).await?;
        ensure!(hello.get_bool("isWritablePrimary")? && hello.get_str("setName").is_ok(), "{hello}");
        ensure!(hello.get_str("primary").is_ok() && !hello.get_array("hosts")?.is_empty(), "{hello}");
        ensure!(
            hello.get_i32("maxWireVersion")? >= 17 && hello.get_i32("logicalSessionTimeoutMinutes")? > 0,
            "{hello}"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn sessions_carry_the_cluster_time() -> Result<()> {
    within(async {
        let deployment = Deployment::start().await?;
        let rows: Rows = deployment.database("sessions").await?.collection("a");
        let mut session = deployment.client.start_session().await?;
        rows.insert_one(doc! {"a": 1}).session(&mut session).await?;
        ensure!(session.cluster_time().is_some(), "no cluster time came with the reply");
        ensure!(deployment.now().await?.time > 0, "no operation time");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn ranges_of_id_are_read_in_order_and_in_small_batches() -> Result<()> {
    within(async {
        let deployment = Deployment::start().await?;
        let rows: Rows = deployment.database("ranges").await?.collection("a");
        let inserted =
            rows.insert_many((0..2500).map(|id| doc! {"_id": id, "v": id % 7, "s": format!("s{id}")})).await?;
        ensure!(inserted.inserted_ids.len() == 2500);
        let find = rows.find(doc! {"_id": {"$gt": 1000}}).sort(doc! {"_id": 1}).limit(500).batch_size(77).await?;
        let found: Vec<Document> = find.try_collect().await?;
        let ids: Vec<i32> = found.iter().flat_map(|row| row.get_i32("_id")).collect();
        ensure!(ids == (1001..1501).collect::<Vec<_>>(), "{ids:?}");
        let filter = doc! {"v": {"$in": [1, 2]}, "_id": {"$lt": 100}};
        let find = rows.find(filter).sort(doc! {"v": -1, "_id": 1}).projection(doc! {"v": 1}).await?;
        let found: Vec<Document> = find.try_collect().await?;
        ensure!(found[0] == doc! {"_id": 2, "v": 2}, "{}", found[0]);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn bounds_of_the_index_cross_types_where_comparisons_do_not() -> Result<()> {
    within(async {
        let deployment = Deployment::start().await?;
        let rows: Rows = deployment.database("bounds").await?.collection("a");
        let ids = [Bson::Int32(1), Bson::Double(1.5), Bson::String("a".into()), Bson::Boolean(true)];
        rows.insert_many(ids.iter().map(|id| doc! {"_id": id.clone()})).await?;
        let above = rows.count_documents(doc! {"_id": {"$gt": 1}}).await?;
        ensure!(above == 1, "a comparison looked at {above} rows");
        let find =
            rows.find(doc! {}).hint(mongodb::options::Hint::Keys(doc! {"_id": 1})).min(doc! {"_id": 1.5}).await?;
        let found: Vec<Document> = find.try_collect().await?;
        let expected: Vec<Document> = ids[1..].iter().map(|id| doc! {"_id": id.clone()}).collect();
        ensure!(found == expected, "{found:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn rows_are_updated_upserted_replaced_and_deleted() -> Result<()> {
    within(async {
        let deployment = Deployment::start().await?;
        let rows: Rows = deployment.database("updates").await?.collection("a");
        rows.insert_many((0..2500).map(|id| doc! {"_id": id, "v": id % 7, "s": "x"})).await?;
        let upsert = doc! {"$set": {"x": 1}, "$setOnInsert": {"y": 2}};
        let updated = rows.update_one(doc! {"_id": 9001}, upsert).upsert(true).await?;
        ensure!(updated.upserted_id == Some(Bson::Int32(9001)), "{updated:?}");
        let updated = rows.update_many(doc! {"v": 3}, doc! {"$inc": {"v": 100}, "$push": {"l": "q"}}).await?;
        ensure!(updated.modified_count > 300, "{updated:?}");
        ensure!(rows.replace_one(doc! {"_id": 1}, doc! {"z": true}).await?.modified_count == 1);
        let found = rows
            .find_one_and_update(doc! {"_id": 2}, doc! {"$unset": {"s": ""}})
            .return_document(ReturnDocument::After)
            .await?;
        ensure!(found == Some(doc! {"_id": 2, "v": 2}), "{found:?}");
        ensure!(rows.delete_one(doc! {"_id": 5}).await?.deleted_count == 1);
        ensure!(rows.delete_many(doc! {"_id": {"$gte": 2400, "$lt": 2500}}).await?.deleted_count == 100);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn operators_and_pipelines_change_fields_and_arrays() -> Result<()> {
    within(async {
        let deployment = Deployment::start().await?;
        let rows: Rows = deployment.database("operators").await?.collection("a");
        rows.insert_one(doc! {"_id": 1, "n": {"x": 1}, "l": [1, 2, 3], "old": "v"}).await?;
        let update = doc! {"$rename": {"old": "new"}, "$inc": {"n.x": 4i64}, "$push": {"l": {"$each": [], "$slice": 2}}, "$set": {"m.0": 1}};
        rows.update_one(doc! {"_id": 1}, update).await?;
        let expected = doc! {"_id": 1, "n": {"x": 5i64}, "l": [1, 2], "m": {"0": 1}, "new": "v"};
        ensure!(rows.find_one(doc! {}).await? == Some(expected));
        let pipeline = vec![
            doc! {"$set": {"l": {"$concatArrays": ["$l", [{"$literal": "$x"}]]}, "n": {"$literal": {"y": 1}}}},
            doc! {"$unset": ["m", "new"]},
            doc! {"$replaceWith": {"$setField": {"field": "a.b", "input": "$$ROOT", "value": 7}}},
        ];
        rows.update_one(doc! {"_id": 1}, pipeline).await?;
        let expected = doc! {"_id": 1, "n": {"x": 5i64, "y": 1}, "l": [1, 2, "$x"], "a.b": 7};
        let found = rows.find_one(doc! {}).await?.context("the row is gone")?;
        ensure!(found.get("a.b") == expected.get("a.b") && found.get("l") == expected.get("l"), "{found}");
        let refusal = refused(rows.update_one(doc! {"_id": 1}, doc! {"$set": {"_id": 2}}).await)?;
        ensure!(refusal == 66, "{refusal}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_unique_index_refuses_a_second_row_by_name() -> Result<()> {
    within(async {
        let deployment = Deployment::start().await?;
        let rows: Rows = deployment.database("unique").await?.collection("u");
        let unique = IndexOptions::builder().unique(true).build();
        rows.create_index(IndexModel::builder().keys(doc! {"e": 1}).options(unique).build()).await?;
        rows.insert_one(doc! {"_id": 1, "e": "a"}).await?;
        let error = rows.insert_one(doc! {"_id": 2, "e": "a"}).await.err().context("not refused")?;
        let text = error.to_string();
        ensure!(text.contains("E11000 duplicate key error collection: stand_in_unique.u index: e_1 dup key"), "{text}");
        ensure!(refused(rows.insert_one(doc! {"_id": 1, "e": "b"}).await)? == 11000);
        rows.insert_one(doc! {"_id": 3, "e": "c"}).await?;
        ensure!(refused(rows.update_one(doc! {"_id": 3}, doc! {"$set": {"e": "a"}}).await)? == 11000);
        ensure!(rows.list_index_names().await? == ["_id_", "e_1"]);
        rows.delete_one(doc! {"_id": 1}).await?;
        rows.insert_one(doc! {"_id": 2, "e": "a"}).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn pipelines_and_counts_agree() -> Result<()> {
    within(async {
        let deployment = Deployment::start().await?;
        let database = deployment.database("counts").await?;
        let rows: Rows = database.collection("a");
        rows.insert_many((0..240).map(|id| doc! {"_id": id, "v": id % 3})).await?;
        let pipeline = vec![doc! {"$match": {"_id": {"$lt": 50}}}, doc! {"$sort": {"_id": -1}}, doc! {"$limit": 3}];
        let found: Vec<Document> = rows.aggregate(pipeline).await?.try_collect().await?;
        ensure!(found.len() == 3 && found[0].get_i32("_id")? == 49, "{found:?}");
        let group = vec![doc! {"$group": {"_id": "$v", "n": {"$sum": 1}}}, doc! {"$sort": {"_id": 1}}];
        let groups: Vec<Document> = rows.aggregate(group).await?.try_collect().await?;
        ensure!(groups[2] == doc! {"_id": 2, "n": 80}, "{groups:?}");
        ensure!(rows.estimated_document_count().await? == 240 && rows.count_documents(doc! {}).await? == 240);
        let sampled: Vec<Document> = rows.aggregate(vec![doc! {"$sample": {"size": 7}}]).await?.try_collect().await?;
        ensure!(sampled.len() == 7);
        Ok(())
    })
    .await
}
