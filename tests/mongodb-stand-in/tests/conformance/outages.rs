//! Connections, cursors, primaries and members that go away: a stream loses nothing and repeats nothing.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bson::doc;
use mongodb::options::{CollectionOptions, ReadPreference, SelectionCriteria};
use sync_worker_mongodb_stand_in::Options;

use crate::deployment::{Deployment, Rows, code, connect, within};
use crate::watching::take;

#[tokio::test]
async fn the_driver_resumes_over_a_cut_connection_a_killed_cursor_and_a_step_down() -> Result<()> {
    within(async {
        let what = "connections, cursors and a primary that are taken away";
        let Some(deployment) = Deployment::stand_in(what, Default::default()).await? else { return Ok(()) };
        let database = deployment.database("resumes").await?;
        let rows: Rows = database.collection("a");
        let mut stream = database.watch().max_await_time(Duration::from_millis(300)).await?;
        let disturbances = [
            doc! {"ping": 1},
            doc! {"configureFailPoint": "failCommand", "mode": {"times": 1}, "data": {"failCommands": ["getMore"], "closeConnection": true}},
            doc! {"killAllCursors": 1},
            doc! {"replSetStepDown": 1, "force": true},
        ];
        for (id, disturbance) in (0..).zip(disturbances) {
            deployment.admin(disturbance).await?;
            rows.insert_one(doc! {"_id": id}).await?;
            ensure!(take(&mut stream, 1).await?[0].document_key == Some(doc! {"_id": id}));
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn three_members_take_over_from_each_other() -> Result<()> {
    within(async {
        let options = Options { members: 3, ..Options::default() };
        let Some(deployment) = Deployment::stand_in("members that are stopped", options).await? else { return Ok(()) };
        let database = deployment.database("failover").await?;
        let rows: Rows = database.collection("a");
        let mut stream = database.watch().max_await_time(Duration::from_millis(300)).await?;
        let (mut next, mut primaries) = (0, Vec::new());
        for step in [doc! {"ping": 1}, doc! {"replSetStepDown": 5}, doc! {"stopMember": 1}, doc! {"stopMember": 2}] {
            // The member that is stopped can't answer.
            let _answer = deployment.admin(step).await;
            for _ in 0..5 {
                rows.insert_one(doc! {"_id": next}).await?;
                next += 1;
            }
            let keys: Vec<_> = take(&mut stream, 5).await?.into_iter().filter_map(|event| event.document_key).collect();
            ensure!(keys == (next - 5..next).map(|id| doc! {"_id": id}).collect::<Vec<_>>(), "{keys:?}");
            primaries.push(deployment.admin(doc! {"hello": 1}).await?.get_str("me")?.to_owned());
        }
        ensure!(primaries.windows(2).all(|pair| pair[0] != pair[1]) && primaries[0] == primaries[3], "{primaries:?}");
        deployment.admin(doc! {"startMember": 1}).await?;
        deployment.admin(doc! {"startMember": 2}).await?;
        let mut secondary = CollectionOptions::builder().build();
        secondary.selection_criteria =
            Some(SelectionCriteria::ReadPreference(ReadPreference::Secondary { options: None }));
        let elsewhere: Rows = database.collection_with_options("a", secondary);
        ensure!(elsewhere.count_documents(doc! {}).await? == next as u64);
        let mut stream = elsewhere.watch().await?;
        rows.insert_one(doc! {"_id": next}).await?;
        ensure!(take(&mut stream, 1).await?[0].document_key == Some(doc! {"_id": next}));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn connections_dropped_again_and_again_lose_and_repeat_nothing() -> Result<()> {
    within(async {
        let Some(deployment) = Deployment::stand_in("dropped connections", Default::default()).await? else {
            return Ok(());
        };
        let rows: Rows = deployment.database("soak").await?.collection("a");
        // Driver 3.9.1 loses the resume token when it retries the `aggregate` of a stream that it resumes by itself.
        let url = deployment.stand_in.as_ref().map(|stand_in| stand_in.url()).unwrap_or_default();
        let database = connect(&format!("{url}&retryReads=false")).await?.database(&rows.namespace().db);
        let watch = || database.watch().max_await_time(Duration::from_millis(300));
        let mut stream = watch().await?;
        let start = stream.resume_token().context("a stream without a token")?;
        let end = Instant::now() + Duration::from_secs(6);
        let writer = rows.clone();
        let writing = tokio::spawn(async move {
            let mut next = 0;
            while Instant::now() < end {
                match writer.insert_one(doc! {"_id": next}).await {
                    Ok(_) => next += 1,
                    Err(error) if code(&error) == Some(11000) => next += 1,
                    Err(_) => {}
                }
            }
            next
        });
        let cutter = deployment.client.clone();
        let cutting = tokio::spawn(async move {
            // A driver needs about half a second after each.
            let mut pace = tokio::time::interval(Duration::from_millis(1500));
            while Instant::now() < end {
                pace.tick().await;
                let _no_answer = cutter.database("admin").run_command(doc! {"dropConnections": 1}).await;
            }
        });
        let (mut seen, mut token, mut written) = (0, start, None);
        let mut writing = Some(writing);
        while written != Some(seen) {
            match stream.next_if_any().await {
                Ok(Some(event)) => {
                    ensure!(
                        event.document_key == Some(doc! {"_id": seen}),
                        "{:?} where {seen} was due",
                        event.document_key
                    );
                    (seen, token) = (seen + 1, event.id);
                }
                Ok(None) => {
                    if writing.as_ref().is_some_and(|task| task.is_finished())
                        && let Some(task) = writing.take()
                    {
                        written = Some(task.await?);
                    }
                }
                Err(_) => {
                    if let Ok(resumed) = watch().resume_after(token.clone()).await {
                        stream = resumed;
                    }
                }
            }
        }
        cutting.await?;
        ensure!(seen > 20, "only {seen} rows were written");
        Ok(())
    })
    .await
}
