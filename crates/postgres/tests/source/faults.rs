//! Connections that die in the middle.

use crate::support::Fixture;
use anyhow::Result;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use sync_worker_core::database::Database;
use sync_worker_core::error::ErrorClass;
use sync_worker_core::reader::{KeyRange, TableReader};
use sync_worker_postgres::{Config, Postgres};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[tokio::test]
async fn a_walsender_that_is_ended_is_a_transient_error() -> Result<()> {
    let fixture = Fixture::new("CREATE TABLE t (id int PRIMARY KEY)", &["t"]).await?;
    let mut stream = fixture.stream(None).await?;
    fixture.execute("INSERT INTO t VALUES (1)").await?;
    fixture.changes(&mut stream).await?;
    let checkpoint = stream.checkpoint.clone();
    let end = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE database = current_database()";
    fixture.execute(end).await?;
    let error = loop {
        if let Err(error) = stream.source.next().await {
            break error;
        }
    };
    assert_eq!(error.class(), ErrorClass::Transient, "{error}");
    let mut again = fixture.stream(Some(&checkpoint)).await?;
    fixture.execute("INSERT INTO t VALUES (2)").await?;
    assert_eq!(fixture.changes(&mut again).await?, ["0 c id=2"]);
    Ok(())
}

/// Forwards to a server until it is told to swallow everything.
async fn proxy(server: String) -> Result<(u16, Arc<AtomicBool>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let swallow = Arc::new(AtomicBool::new(false));
    let flag = swallow.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(upstream) = TcpStream::connect(&server).await else { continue };
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = upstream.into_split();
            tokio::spawn(forward(from_client, to_server, flag.clone()));
            tokio::spawn(forward(from_server, to_client, flag.clone()));
        }
    });
    Ok((port, swallow))
}

async fn forward(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    swallow: Arc<AtomicBool>,
) {
    let mut buffer = vec![0; 65536];
    while let Ok(read) = from.read(&mut buffer).await {
        let end = read == 0;
        if swallow.load(Ordering::Relaxed) {
            if end {
                // The end is swallowed, too: the other side keeps waiting.
                std::future::pending::<()>().await;
            }
            continue;
        }
        if end || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn a_connection_that_swallows_everything_is_noticed_and_its_slot_taken_back() -> Result<()> {
    let mut fixture = Fixture::new("CREATE TABLE t (id int PRIMARY KEY)", &["t"]).await?;
    let url = fixture.database.url.clone();
    let server = url.split('@').nth(1).and_then(|rest| rest.split('/').next()).unwrap().to_owned();
    let (port, swallow) = proxy(server.clone()).await?;
    fixture.postgres = Postgres::new("crm".into(), Config::new(url.replace(&server, &format!("127.0.0.1:{port}"))))?;
    let mut stream = fixture.stream(None).await?;
    fixture.execute("INSERT INTO t VALUES (1)").await?;
    fixture.changes(&mut stream).await?;
    let checkpoint = stream.checkpoint.clone();
    swallow.store(true, Ordering::Relaxed);
    let start = Instant::now();
    let error = loop {
        if let Err(error) = stream.source.next().await {
            break error;
        }
    };
    assert_eq!(error.class(), ErrorClass::Transient);
    assert!(error.to_string().contains("silent"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(12), "it took {:?}", start.elapsed());
    let refused = fixture.open(Some(&checkpoint)).await.err().unwrap();
    assert_eq!(refused.class(), ErrorClass::Transient, "{refused}");
    swallow.store(false, Ordering::Relaxed);
    // The server still believes in the former reader.
    let mut again = fixture.stream(Some(&checkpoint)).await?;
    fixture.execute("INSERT INTO t VALUES (2)").await?;
    assert_eq!(fixture.changes(&mut again).await?, ["0 c id=2"]);
    Ok(())
}

#[tokio::test]
async fn a_read_whose_answer_is_swallowed_is_given_up_and_a_long_one_is_not() -> Result<()> {
    let mut fixture = Fixture::new("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)", &["t"]).await?;
    let direct = fixture.postgres.reader(&fixture.scope).await.unwrap();
    let url = fixture.database.url.clone();
    let server = url.split('@').nth(1).and_then(|rest| rest.split('/').next()).unwrap().to_owned();
    let (port, swallow) = proxy(server.clone()).await?;
    fixture.postgres = Postgres::new("crm".into(), Config::new(url.replace(&server, &format!("127.0.0.1:{port}"))))?;
    let swallowed = fixture.postgres.reader(&fixture.scope).await.unwrap();
    swallow.store(true, Ordering::Relaxed);
    // A lock keeps the direct read waiting for longer than a watch is patient.
    let blocker = fixture.database.connect().await?;
    blocker.batch_execute("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE").await?;
    let read = |mut reader: Box<dyn TableReader>| async move {
        let start = Instant::now();
        let outcome = reader.read_range(&"t".into(), &KeyRange::default(), usize::MAX).await;
        (outcome, start.elapsed())
    };
    let release = async {
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' \
                     AND query_start < clock_timestamp() - interval '7 s'";
        while fixture.database.value(waits).await? == "0" {
            fixture.execute("SELECT pg_sleep(0.1)").await?;
        }
        blocker.batch_execute("COMMIT").await.map_err(anyhow::Error::from)
    };
    let ((given_up, after), (long, took), released) = tokio::join!(read(swallowed), read(direct), release);
    released?;
    let error = given_up.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Transient);
    assert!(error.to_string().contains("silent") && after < Duration::from_secs(20), "{error} after {after:?}");
    assert!(took >= Duration::from_secs(6), "{took:?}");
    assert_eq!(long.unwrap().rows.len(), 1);
    Ok(())
}
