//! Collections and databases as a whole, and what a preflight check asks.

use anyhow::{Result, ensure};
use bson::{Document, doc};
use futures::TryStreamExt;
use mongodb::options::ChangeStreamPreAndPostImages;

use crate::deployment::{Deployment, Rows, refused, within};
use crate::watching::take;

#[tokio::test]
async fn collections_are_listed_renamed_and_dropped() -> Result<()> {
    within(async {
        let deployment = Deployment::start().await?;
        let database = deployment.database("catalog").await?;
        database.create_collection("a").await?;
        database.collection::<Document>("b").insert_one(doc! {"_id": 1}).await?;
        let listed: Vec<_> = database.list_collections().await?.try_collect().await?;
        ensure!(listed.len() == 2 && listed.iter().all(|collection| collection.info.uuid.is_some()), "{listed:?}");
        ensure!(refused(database.create_collection("a").await)? == 48);
        let name = database.name();
        let rename = doc! {"renameCollection": format!("{name}.b"), "to": format!("{name}.a")};
        ensure!(deployment.admin(rename.clone()).await.is_err(), "an existing collection was overwritten");
        let mut rename = rename;
        rename.insert("dropTarget", true);
        deployment.admin(rename).await?;
        ensure!(database.list_collection_names().await? == ["a"]);
        ensure!(database.collection::<Document>("a").find_one(doc! {}).await? == Some(doc! {"_id": 1}));
        ensure!(deployment.client.list_database_names().await?.iter().any(|listed| listed == name));
        database.drop().await?;
        ensure!(database.list_collection_names().await?.is_empty());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn coll_mod_switches_images_on_and_off() -> Result<()> {
    within(async {
        let deployment = Deployment::start().await?;
        let database = deployment.database("images").await?;
        let rows: Rows = database.collection("a");
        rows.insert_one(doc! {"_id": 1, "v": 0}).await?;
        let mut stream = database
            .watch()
            .full_document_before_change(mongodb::options::FullDocumentBeforeChangeType::WhenAvailable)
            .await?;
        for (value, enabled) in [(10, false), (11, true), (12, false)] {
            database.run_command(doc! {"collMod": "a", "changeStreamPreAndPostImages": {"enabled": enabled}}).await?;
            rows.update_one(doc! {"_id": 1}, doc! {"$set": {"v": value}}).await?;
        }
        let images: Vec<bool> =
            take(&mut stream, 3).await?.iter().map(|event| event.full_document_before_change.is_some()).collect();
        ensure!(images == [false, true, false], "{images:?}");
        let listed: Vec<_> = database.list_collections().await?.try_collect().await?;
        let expected = ChangeStreamPreAndPostImages::builder().enabled(false).build();
        let shown = listed[0].options.change_stream_pre_and_post_images.as_ref().map(|images| images.enabled);
        ensure!(shown.unwrap_or(false) == expected.enabled, "{listed:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_validator_refuses_rows_with_121() -> Result<()> {
    within(async {
        let deployment = Deployment::start().await?;
        let database = deployment.database("validator").await?;
        database.create_collection("a").validator(doc! {"v": {"$gte": 0}}).await?;
        let rows: Rows = database.collection("a");
        rows.insert_one(doc! {"_id": 1, "v": 1}).await?;
        ensure!(refused(rows.insert_one(doc! {"_id": 2, "v": -1}).await)? == 121);
        ensure!(refused(rows.update_one(doc! {"_id": 1}, doc! {"$set": {"v": -1}}).await)? == 121);
        rows.insert_one(doc! {"_id": 3}).bypass_document_validation(true).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_preflight_check_finds_what_it_asks_for() -> Result<()> {
    within(async {
        let deployment = Deployment::start().await?;
        let built = deployment.admin(doc! {"buildInfo": 1}).await?;
        ensure!(built.get_array("versionArray")?.len() == 4, "{built}");
        let parameter = deployment.admin(doc! {"getParameter": 1, "transactionLifetimeLimitSeconds": 1}).await?;
        ensure!(parameter.get_i32("transactionLifetimeLimitSeconds")? > 0, "{parameter}");
        let status = deployment.admin(doc! {"connectionStatus": 1}).await?;
        ensure!(status.get_document("authInfo").is_ok(), "{status}");
        let database = deployment.database("preflight").await?;
        let statistics = database.run_command(doc! {"dbStats": 1}).await?;
        ensure!(statistics.contains_key("objects"), "{statistics}");
        ensure!(refused(database.run_command(doc! {"noSuchCommand": 1}).await)? == 59);
        Ok(())
    })
    .await
}
