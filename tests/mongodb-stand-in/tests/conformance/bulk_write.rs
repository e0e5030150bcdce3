//! The client's `bulkWrite` of 8.0.

use anyhow::{Context, Result, ensure};
use bson::{Bson, doc};
use mongodb::error::ErrorKind;
use mongodb::options::{DeleteOneModel, InsertOneModel, ReplaceOneModel, UpdateManyModel, UpdateOneModel, WriteModel};

use crate::deployment::{Deployment, Rows, within};
use crate::watching::{operations, take};

/// `None` (and a line) on a real server that is older than the command.
async fn deployment() -> Result<Option<Deployment>> {
    let deployment = Deployment::start().await?;
    if deployment.admin(doc! {"hello": 1}).await?.get_i32("maxWireVersion")? < 25 {
        println!("skipped on a server before 8.0: bulkWrite");
        return Ok(None);
    }
    Ok(Some(deployment))
}

fn insert(rows: &Rows, id: i32) -> WriteModel {
    InsertOneModel::builder().namespace(rows.namespace()).document(doc! {"_id": id, "v": 0}).build().into()
}

#[tokio::test]
async fn one_command_writes_to_several_collections() -> Result<()> {
    within(async {
        let Some(deployment) = deployment().await? else { return Ok(()) };
        let database = deployment.database("bulk").await?;
        let (a, b): (Rows, Rows) = (database.collection("a"), database.collection("b"));
        let replace = ReplaceOneModel::builder().namespace(b.namespace()).filter(doc! {"_id": 7});
        let models: Vec<WriteModel> = vec![
            insert(&a, 1),
            insert(&a, 2),
            UpdateOneModel::builder()
                .namespace(a.namespace())
                .filter(doc! {"_id": 1})
                .update(doc! {"$set": {"v": 5}})
                .build()
                .into(),
            UpdateManyModel::builder()
                .namespace(a.namespace())
                .filter(doc! {})
                .update(doc! {"$inc": {"v": 1}})
                .build()
                .into(),
            replace.replacement(doc! {"r": 1}).upsert(true).build().into(),
            DeleteOneModel::builder().namespace(a.namespace()).filter(doc! {"_id": 2}).build().into(),
        ];
        let mut session = deployment.client.start_session().await?;
        a.insert_one(doc! {"_id": 0, "v": 0}).await?;
        b.insert_one(doc! {"_id": 0}).await?;
        let mut stream = database.watch().await?;
        session.start_transaction().await?;
        let result = deployment.client.bulk_write(models).verbose_results().session(&mut session).await?;
        session.commit_transaction().await?;
        let counts = &result.summary;
        ensure!(counts.inserted_count == 2 && counts.matched_count == 4 && counts.modified_count == 4, "{result:?}");
        ensure!(counts.upserted_count == 1 && counts.deleted_count == 1, "{result:?}");
        ensure!(result.update_results[&4].upserted_id == Some(Bson::Int32(7)), "{result:?}");
        let events = take(&mut stream, 8).await?;
        let expected = "insert,insert,update,update,update,update,insert,delete";
        ensure!(operations(&events) == expected, "{}", operations(&events));
        ensure!(events.iter().all(|event| event.cluster_time == events[0].cluster_time), "more than one commit");
        ensure!(a.find_one(doc! {"_id": 1}).await? == Some(doc! {"_id": 1, "v": 6}));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_error_names_its_operation_and_order_decides_about_the_rest() -> Result<()> {
    within(async {
        let Some(deployment) = deployment().await? else { return Ok(()) };
        let rows: Rows = deployment.database("bulk_errors").await?.collection("a");
        rows.insert_one(doc! {"_id": 1}).await?;
        for (ordered, expected) in [(true, 2), (false, 3)] {
            rows.delete_many(doc! {"_id": {"$gt": 1}}).await?;
            let models = [insert(&rows, 2), insert(&rows, 1), insert(&rows, 3)];
            let error = deployment.client.bulk_write(models).ordered(ordered).await.err().context("no error")?;
            let ErrorKind::BulkWrite(failure) = &*error.kind else { anyhow::bail!("{error:?}") };
            let codes: Vec<_> = failure.write_errors.iter().map(|(index, error)| (*index, error.code)).collect();
            ensure!(codes == [(1, 11000)], "{codes:?}");
            ensure!(rows.count_documents(doc! {}).await? == expected, "ordered: {ordered}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn thousands_of_operations_and_their_results_come_through() -> Result<()> {
    within(async {
        let Some(deployment) = deployment().await? else { return Ok(()) };
        let rows: Rows = deployment.database("bulk_many").await?.collection("a");
        let models: Vec<WriteModel> = (0..5000).map(|id| insert(&rows, id)).collect();
        let result = deployment.client.bulk_write(models).verbose_results().await?;
        ensure!(result.summary.inserted_count == 5000 && result.insert_results.len() == 5000);
        ensure!(rows.count_documents(doc! {}).await? == 5000);
        Ok(())
    })
    .await
}
