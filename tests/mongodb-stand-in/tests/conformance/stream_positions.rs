//! Where a change stream starts, ends and goes on.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bson::doc;

use crate::deployment::{Deployment, Rows, refused, within};
use crate::watching::{operations, take, text, tokens_ascend, until_error};

#[tokio::test]
async fn a_drop_ends_a_collections_stream_and_only_start_after_passes_it() -> Result<()> {
    within(async {
        let deployment = Deployment::start().await?;
        let database = deployment.database("invalidate").await?;
        let rows: Rows = database.collection("a");
        rows.insert_one(doc! {"_id": 1}).await?;
        let (mut stream, mut of_database) = (rows.watch().await?, database.watch().await?);
        rows.insert_one(doc! {"_id": 2}).await?;
        rows.drop().await?;
        let events = take(&mut stream, 3).await?;
        ensure!(operations(&events) == "insert,drop,invalidate" && !stream.is_alive(), "{}", operations(&events));
        ensure!(refused(rows.watch().resume_after(events[2].id.clone()).await)? == 260);
        rows.insert_one(doc! {"_id": 3}).await?;
        let mut after = rows.watch().start_after(events[2].id.clone()).await?;
        ensure!(take(&mut after, 1).await?[0].document_key == Some(doc! {"_id": 3}));
        let mut after = rows.watch().resume_after(events[1].id.clone()).await?;
        let again = take(&mut after, 1).await?;
        ensure!(operations(&again) == "invalidate" && text(&again[0].id) == text(&events[2].id), "{again:?}");

        let name = database.name();
        deployment.admin(doc! {"renameCollection": format!("{name}.a"), "to": format!("{name}.b")}).await?;
        database.drop().await?;
        let events = take(&mut of_database, 7).await?;
        let expected = "insert,drop,insert,rename,drop,dropdatabase,invalidate";
        ensure!(operations(&events) == expected, "{}", operations(&events));
        ensure!(events[3].to.is_some(), "a rename without its target");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_rename_ends_a_collections_stream() -> Result<()> {
    within(async {
        let deployment = Deployment::start().await?;
        let database = deployment.database("renamed").await?;
        let rows: Rows = database.collection("a");
        rows.insert_one(doc! {"_id": 1}).await?;
        let mut stream = rows.watch().await?;
        let name = database.name();
        deployment.admin(doc! {"renameCollection": format!("{name}.a"), "to": format!("{name}.b")}).await?;
        let events = take(&mut stream, 2).await?;
        ensure!(operations(&events) == "rename,invalidate", "{}", operations(&events));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn tokens_ascend_and_streams_go_on_after_a_token_or_at_a_time() -> Result<()> {
    within(async {
        let deployment = Deployment::start().await?;
        let database = deployment.database("tokens").await?;
        let rows: Rows = database.collection("a");
        let mut stream = database.watch().await?;
        for id in 0..300 {
            rows.insert_one(doc! {"_id": id}).await?;
        }
        let events = take(&mut stream, 300).await?;
        ensure!(tokens_ascend(&events));
        let mut resumed = database.watch().resume_after(events[99].id.clone()).batch_size(13).await?;
        let rest = take(&mut resumed, 200).await?;
        ensure!(text(&rest[0].id) == text(&events[100].id) && text(&rest[199].id) == text(&events[299].id));
        let time = events[250].cluster_time.context("no cluster time")?;
        let mut at_time = database.watch().start_at_operation_time(time).await?;
        ensure!(text(&take(&mut at_time, 50).await?[0].id) == text(&events[250].id));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_token_of_an_empty_batch_moves_on_and_can_be_resumed() -> Result<()> {
    within(async {
        let deployment = Deployment::start().await?;
        let database = deployment.database("marks").await?;
        let (rows, elsewhere): (Rows, Rows) =
            (database.collection("a"), deployment.database("marks_other").await?.collection("x"));
        let mut stream = database.watch().max_await_time(Duration::from_millis(200)).await?;
        ensure!(stream.next_if_any().await?.is_none());
        let first = text(&stream.resume_token().context("no token")?);
        for _ in 0..3 {
            elsewhere.insert_one(doc! {}).await?;
        }
        ensure!(stream.next_if_any().await?.is_none());
        let mark = stream.resume_token().context("no token")?;
        ensure!(text(&mark) > first, "{} after {first}", text(&mark));
        rows.insert_one(doc! {"_id": 1}).await?;
        ensure!(text(&take(&mut stream, 1).await?[0].id) > text(&mark));
        let mut resumed = database.watch().resume_after(mark).await?;
        ensure!(take(&mut resumed, 1).await?[0].document_key == Some(doc! {"_id": 1}));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_token_whose_history_is_cut_off_is_lost_with_286() -> Result<()> {
    within(async {
        let Some(deployment) = Deployment::stand_in("an oplog that is cut", Default::default()).await? else {
            return Ok(());
        };
        let database = deployment.database("lost").await?;
        let rows: Rows = database.collection("a");
        let mut stream = database.watch().await?;
        for id in 0..20 {
            rows.insert_one(doc! {"_id": id}).await?;
        }
        let events = take(&mut stream, 20).await?;
        deployment.admin(doc! {"truncateOplog": 1, "keep": 5}).await?;
        ensure!(refused(database.watch().resume_after(events[3].id.clone()).await)? == 286);
        let time = events[3].cluster_time.context("no cluster time")?;
        ensure!(refused(database.watch().start_at_operation_time(time).await)? == 286);
        let mut resumed = database.watch().resume_after(events[17].id.clone()).await?;
        ensure!(operations(&take(&mut resumed, 2).await?) == "insert,insert");

        let mut slow = database.watch().batch_size(2).await?;
        for id in 100..120 {
            rows.insert_one(doc! {"_id": id}).await?;
        }
        take(&mut slow, 2).await?;
        deployment.admin(doc! {"truncateOplog": 1, "keep": 3}).await?;
        let (_, error) = until_error(&mut slow).await?;
        ensure!(crate::deployment::code(&error) == Some(286), "a reader left behind: {error}");
        Ok(())
    })
    .await
}
