//! What the events of a change stream hold.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bson::{Document, doc};
use mongodb::options::{ChangeStreamPreAndPostImages, FullDocumentBeforeChangeType, FullDocumentType};

use crate::deployment::{Deployment, Rows, code, within};
use crate::watching::{operations, take, until_error};

fn images() -> ChangeStreamPreAndPostImages {
    ChangeStreamPreAndPostImages::builder().enabled(true).build()
}

#[tokio::test]
async fn writes_become_events_with_descriptions_and_times() -> Result<()> {
    within(async {
        let deployment = Deployment::start().await?;
        let database = deployment.database("events").await?;
        let rows: Rows = database.collection("a");
        rows.insert_one(doc! {"_id": 0}).await?;
        let mut stream = database.watch().await?;
        rows.insert_one(doc! {"_id": 1, "a": 1, "n": {"x": 1, "y": 2}, "l": [1, 2, 3]}).await?;
        let update = doc! {"$set": {"n.x": 5, "b": "q"}, "$unset": {"a": 1}, "$pop": {"l": 1}};
        rows.update_one(doc! {"_id": 1}, update).await?;
        rows.replace_one(doc! {"_id": 1}, doc! {"r": 1}).await?;
        rows.delete_one(doc! {"_id": 1}).await?;
        let events = take(&mut stream, 4).await?;
        ensure!(operations(&events) == "insert,update,replace,delete", "{}", operations(&events));
        let description = events[1].update_description.as_ref().context("no description")?;
        ensure!(description.updated_fields == doc! {"b": "q", "n.x": 5}, "{description:?}");
        ensure!(description.removed_fields == ["a"], "{description:?}");
        let cut = description.truncated_arrays.as_ref().context("no truncated arrays")?;
        ensure!(cut.len() == 1 && cut[0].field == "l" && cut[0].new_size == 2, "{description:?}");
        for event in &events {
            ensure!(event.cluster_time.is_some() && event.wall_time.is_some(), "{event:?}");
            ensure!(event.ns.as_ref().is_some_and(|ns| ns.db == database.name()), "{event:?}");
            ensure!(event.document_key == Some(doc! {"_id": 1}), "{event:?}");
        }
        ensure!(events[2].full_document == Some(doc! {"_id": 1, "r": 1}) && events[1].full_document.is_none());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn collections_databases_and_the_cluster_can_be_watched() -> Result<()> {
    within(async {
        let deployment = Deployment::start().await?;
        let (database, other) = (deployment.database("scope").await?, deployment.database("scope_other").await?);
        let (a, b, z): (Rows, Rows, Rows) = (database.collection("a"), database.collection("b"), other.collection("z"));
        let mut of_collection = a.watch().await?;
        // Other tests may write to the same deployment.
        let ours = doc! {"$match": {"ns.db": {"$in": [database.name(), other.name()]}}};
        let mut of_cluster = deployment.client.watch().pipeline([ours]).await?;
        let mut of_database = database.watch().await?;
        a.insert_one(doc! {"_id": 1}).await?;
        b.insert_one(doc! {"_id": 2}).await?;
        z.insert_one(doc! {"q": 3}).await?;
        a.insert_one(doc! {"_id": 4}).await?;
        ensure!(take(&mut of_collection, 2).await?[1].document_key == Some(doc! {"_id": 4}));
        let events = take(&mut of_cluster, 4).await?;
        ensure!(events[2].ns.as_ref().is_some_and(|ns| ns.db == other.name()), "{events:?}");
        ensure!(take(&mut of_database, 3).await?.len() == 3);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn images_are_looked_up_given_if_kept_or_required() -> Result<()> {
    within(async {
        let deployment = Deployment::start().await?;
        let database = deployment.database("modes").await?;
        database.create_collection("with").change_stream_pre_and_post_images(images()).await?;
        let (with, without): (Rows, Rows) = (database.collection("with"), database.collection("without"));
        with.insert_one(doc! {"_id": 1, "v": 0}).await?;
        without.insert_one(doc! {"_id": 1, "v": 0}).await?;
        let start = deployment.now().await?;
        for value in 1..3 {
            with.update_one(doc! {"_id": 1}, doc! {"$set": {"v": value}}).await?;
        }
        without.update_one(doc! {"_id": 1}, doc! {"$set": {"v": 1}}).await?;
        with.delete_one(doc! {"_id": 1}).await?;

        let mut stream = database
            .watch()
            .full_document(FullDocumentType::UpdateLookup)
            .full_document_before_change(FullDocumentBeforeChangeType::WhenAvailable)
            .start_at_operation_time(start)
            .await?;
        let events = take(&mut stream, 4).await?;
        ensure!(events[0].full_document.is_none() && events[2].full_document == Some(doc! {"_id": 1, "v": 1}));
        let before: Vec<_> = events.iter().map(|event| event.full_document_before_change.clone()).collect();
        let expected =
            [Some(doc! {"_id": 1, "v": 0}), Some(doc! {"_id": 1, "v": 1}), None, Some(doc! {"_id": 1, "v": 2})];
        ensure!(before == expected, "{before:?}");

        let watch = database.watch().full_document(FullDocumentType::WhenAvailable).start_at_operation_time(start);
        let after: Vec<_> = take(&mut watch.await?, 3).await?.into_iter().map(|event| event.full_document).collect();
        ensure!(after == [Some(doc! {"_id": 1, "v": 1}), Some(doc! {"_id": 1, "v": 2}), None], "{after:?}");

        let watch = database.watch().full_document(FullDocumentType::Required).batch_size(1);
        let (count, error) = until_error(&mut watch.start_at_operation_time(start).await?).await?;
        ensure!(count == 2 && code(&error) == Some(47), "{count} events, then {error}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_pipeline_filters_events_and_shapes_them() -> Result<()> {
    within(async {
        let deployment = Deployment::start().await?;
        let database = deployment.database("filtered").await?;
        let (a, b): (Rows, Rows) = (database.collection("a"), database.collection("b"));
        let pipeline = [
            doc! {"$match": {"operationType": {"$in": ["insert", "delete"]}, "ns.coll": {"$in": ["a"]}}},
            doc! {"$project": {"wallTime": 0}},
        ];
        let mut stream = database.watch().pipeline(pipeline).await?;
        a.insert_one(doc! {"_id": 1}).await?;
        b.insert_one(doc! {"_id": 1}).await?;
        a.update_one(doc! {"_id": 1}, doc! {"$set": {"x": 1}}).await?;
        a.delete_one(doc! {"_id": 1}).await?;
        let events = take(&mut stream, 2).await?;
        ensure!(operations(&events) == "insert,delete", "{}", operations(&events));
        ensure!(events.iter().all(|event| event.wall_time.is_none() && event.cluster_time.is_some()));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_event_above_16_mb_comes_in_fragments() -> Result<()> {
    within(async {
        let deployment = Deployment::start().await?;
        let database = deployment.database("split").await?;
        database.create_collection("big").change_stream_pre_and_post_images(images()).await?;
        let rows: Rows = database.collection("big");
        let large = "x".repeat(9_000_000);
        rows.insert_one(doc! {"_id": 2, "s": &large}).await?;
        let start = deployment.now().await?;
        rows.update_one(doc! {"_id": 2}, doc! {"$set": {"t": 1}}).await?;
        rows.delete_one(doc! {"_id": 2}).await?;
        let watch = || {
            database
                .watch()
                .full_document(FullDocumentType::Required)
                .full_document_before_change(FullDocumentBeforeChangeType::Required)
        };
        let split = || watch().pipeline([doc! {"$changeStreamSplitLargeEvent": {}}]);
        let mut stream = split().start_at_operation_time(start).await?.with_type::<Document>();
        let fragments = take(&mut stream, 3).await?;
        ensure!(
            fragments[0].get_document("splitEvent")? == &doc! {"fragment": 1, "of": 2},
            "{}",
            fragments[0].get("splitEvent").is_some()
        );
        ensure!(fragments[1].get_document("splitEvent")? == &doc! {"fragment": 2, "of": 2});
        ensure!(!fragments[2].contains_key("splitEvent"), "a small event was split");
        let fields = |name: &str| fragments[..2].iter().filter(|fragment| fragment.contains_key(name)).count();
        ensure!(
            ["fullDocument", "fullDocumentBeforeChange", "updateDescription", "ns"]
                .into_iter()
                .all(|name| fields(name) == 1)
        );

        let token = bson::deserialize_from_document(fragments[0].get_document("_id")?.clone())?;
        let mut resumed = split().resume_after(Some(token)).await?.with_type::<Document>();
        let rest = take(&mut resumed, 2).await?;
        ensure!(rest[0] == fragments[1] && rest[1] == fragments[2], "a resumed stream goes on with the next fragment");

        let error = match watch().start_at_operation_time(start).await {
            Ok(mut stream) => until_error(&mut stream).await?.1,
            Err(error) => error,
        };
        ensure!(code(&error) == Some(10334), "without the stage: {error}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn expanded_events_tell_about_collections() -> Result<()> {
    within(async {
        let deployment = Deployment::start().await?;
        let database = deployment.database("expanded").await?;
        let mut stream = database.watch().show_expanded_events(true).await?.with_type::<Document>();
        database.create_collection("fresh").await?;
        let rows: Rows = database.collection("fresh");
        rows.insert_one(doc! {"_id": 1, "o": {"a.b": 1, "x": 1}}).await?;
        let update = vec![doc! {"$set": {"o": {"$setField": {"field": "a.b", "input": "$o", "value": 2}}}}];
        rows.update_one(doc! {"_id": 1}, update).await?;
        let events = take(&mut stream, 3).await?;
        ensure!(
            events[0].get_str("operationType")? == "create" && events[0].contains_key("collectionUUID"),
            "{}",
            events[0]
        );
        let paths = events[2].get_document("updateDescription")?.get_document("disambiguatedPaths")?;
        ensure!(paths == &doc! {"o.a.b": ["o", "a.b"]}, "{paths}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_event_reaches_a_waiting_stream_at_once() -> Result<()> {
    within(async {
        let deployment = Deployment::start().await?;
        let database = deployment.database("await").await?;
        let rows: Rows = database.collection("a");
        let mut stream = database.watch().max_await_time(Duration::from_secs(10)).await?;
        rows.insert_one(doc! {"_id": 0}).await?;
        take(&mut stream, 1).await?;
        let waiting = tokio::spawn(async move { take(&mut stream, 1).await.map(|_| Instant::now()) });
        tokio::task::yield_now().await;
        let start = Instant::now();
        rows.insert_one(doc! {"_id": 1}).await?;
        let waited = waiting.await??.duration_since(start);
        ensure!(waited < Duration::from_secs(2), "{waited:?}");
        Ok(())
    })
    .await
}
