//! Going on after a stop, and knowing when that can't be.

use crate::fixture::{Fixture, first_int, read_all};
use anyhow::{Result, anyhow};
use mysql_async::prelude::Queryable;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use sync_worker_core::database::Database;
use sync_worker_core::error::{Error, ErrorClass};
use sync_worker_core::position::Checkpoint;
use sync_worker_testkit::stream::DEADLINE;

const T: &str = "CREATE TABLE t (id INT PRIMARY KEY, v INT)";

async fn refused(fixture: &Fixture, from: &Checkpoint) -> Result<Error> {
    let mut source = match fixture.mysql.source(&fixture.scope, Some(from)).await {
        Ok((source, _)) => source,
        Err(error) => return Ok(error),
    };
    loop {
        let next = tokio::time::timeout(DEADLINE, source.next()).await?;
        if let Err(error) = next {
            return Ok(error);
        }
    }
}

#[tokio::test]
async fn every_checkpoint_is_a_place_to_go_on_from() -> Result<()> {
    let Some(fixture) = Fixture::new(&[T], &["t"]).await? else { return Ok(()) };
    let mut stream = fixture.open(None).await?;
    let mut checkpoints = vec![(stream.checkpoint.clone(), 0)];
    for n in 0..6 {
        let two = format!("INSERT INTO t VALUES ({}, 0), ({}, 0)", 2 * n, 2 * n + 1);
        let statements = if n == 3 { vec!["FLUSH BINARY LOGS", &two] } else { vec![two.as_str()] };
        fixture.run(&statements).await?;
        stream.until(2 * (n + 1)).await?;
        checkpoints.push((stream.checkpoint.clone(), 2 * (n + 1)));
    }
    drop(stream.source);
    for (checkpoint, taken) in checkpoints {
        let mut again = fixture.open(Some(&checkpoint)).await?;
        read_all(&mut again, &fixture).await?;
        let ids: Vec<_> = again.changes.iter().map(|(_, c)| first_int(c.after.as_ref().expect("an image"))).collect();
        assert_eq!(ids, (taken as i64..12).collect::<Vec<_>>());
        for ((position, _), (first, _)) in again.changes.iter().zip(&stream.changes[taken..]) {
            assert_eq!(position, first, "the same change has the same position each time");
        }
    }
    Ok(())
}

#[tokio::test]
async fn another_history_is_a_gap() -> Result<()> {
    let Some(fixture) = Fixture::new(&[T], &["t"]).await? else { return Ok(()) };
    let checkpoint = fixture.open(None).await?.checkpoint;
    // Transactions that the server does not have: its log was reset.
    let ahead = Checkpoint { resume: format!("{}:1-4000000000", checkpoint.epoch), ..checkpoint.clone() };
    let error = refused(&fixture, &ahead).await?;
    assert_eq!(error.class(), ErrorClass::Gap, "{error}");
    assert!(error.to_string().contains("lacks transactions"), "{error}");

    let broken = Checkpoint { resume: "nonsense".into(), ..checkpoint };
    assert_eq!(refused(&fixture, &broken).await?.class(), ErrorClass::Gap);
    Ok(())
}

#[tokio::test]
async fn an_idle_server_keeps_the_stream_alive() -> Result<()> {
    let Some(fixture) = Fixture::new(&[T], &["t"]).await? else { return Ok(()) };
    let mut stream = fixture.open(None).await?;
    // Longer than the silence after which a server counts as gone; other tests may write meanwhile.
    let quiet = Instant::now();
    while quiet.elapsed().as_secs() < 6 {
        let next = tokio::time::timeout(std::time::Duration::from_secs(1), stream.source.next()).await;
        if let Ok(Err(error)) = next {
            return Err(anyhow!("{error:?}"));
        }
    }
    fixture.run(&["INSERT INTO t VALUES (1, 1)"]).await?;
    stream.until(1).await
}

#[tokio::test]
async fn a_transaction_that_commits_while_the_stream_opens_is_not_missed() -> Result<()> {
    const WRITERS: i64 = 4;
    let Some(fixture) = Fixture::new(&[T], &["t"]).await? else { return Ok(()) };
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let mut conn = fixture.database.connect().await?;
        let stop = stop.clone();
        writers.push(tokio::spawn(async move {
            let mut id = writer;
            while !stop.load(Ordering::Relaxed) {
                conn.query_drop(format!("INSERT INTO t VALUES ({id}, 0)")).await?;
                id += WRITERS;
            }
            anyhow::Ok(conn.disconnect().await?)
        }));
    }
    for _ in 0..40 {
        // A change at or below the start would count as taken before: reading the stream fails on one.
        fixture.open(None).await?.until(1).await?;
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await??;
    }
    Ok(())
}
