//! Deadlocks and lost connections.

use crate::fixture::*;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts};
use std::time::{Duration, Instant};
use sync_worker_core::error::ErrorClass;
use sync_worker_core::sink::Sink;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[tokio::test]
async fn the_victim_of_a_deadlock_tries_again() {
    let ddl = "CREATE TABLE t (k BIGINT PRIMARY KEY, a BIGINT)";
    let Some(mut f) = Fixture::new("deadlock", &[ddl]).await else { return };
    let t = schema("t", &[("k", INT), ("a", INT)]);
    f.apply_as_sets((0..2_000).map(|k| create(&t, &[int(k), int(0)])).collect()).await;
    let url = std::env::var("SYNC_WORKER_TEST_MYSQL").unwrap();
    let mut other = Conn::new(Opts::from_url(&url).unwrap()).await.unwrap();
    other.query_drop(format!("USE {}", f.database)).await.unwrap();
    other.query_drop("START TRANSACTION").await.unwrap();
    // With more changes than the sink it is not the victim.
    other.query_drop("UPDATE t SET a = 1 WHERE k >= 10").await.unwrap();

    let deadlocks = "SELECT COUNT FROM information_schema.INNODB_METRICS WHERE NAME = 'lock_deadlocks'";
    let before = f.query(deadlocks).await;
    let batch = f.batch(vec![update(&t, &[int(1), int(5)]), update(&t, &[int(10), int(5)])]);
    let mut sink = f.another_sink().await;
    let marker = sink.take_over("log").await.unwrap().marker;
    let batch = sync_worker_core::sink::WriteBatch { expected: marker, ..batch };
    let applying = tokio::spawn(async move {
        let applied = sink.apply(&batch, &Lot::default()).await;
        (applied, batch)
    });
    let deadline = Instant::now() + Duration::from_secs(30);
    // The row of the sink's first change is taken: its second one waits for us, or soon will.
    while f.query("SELECT k FROM t WHERE k = 1 FOR UPDATE SKIP LOCKED").await == ["1"] {
        assert!(!applying.is_finished(), "the sink did not wait: {:?}", applying.await.map(|(applied, _)| applied));
        assert!(Instant::now() < deadline, "the sink never waited for the row");
        tokio::task::yield_now().await;
    }
    other.query_drop("UPDATE t SET a = 2 WHERE k = 1").await.unwrap();
    other.query_drop("COMMIT").await.unwrap();
    let (applied, _) = applying.await.unwrap();
    assert_ne!(f.query(deadlocks).await, before);
    assert_eq!(applied.unwrap().rows, 2);
    assert_eq!(f.query("SELECT k, a FROM t WHERE k IN (1, 10, 11) ORDER BY k").await, ["1|5", "10|5", "11|1"]);
    f.close().await;
}

/// While the sink waits for a lock it asks whether the server still works, among sessions whose statements are no text.
#[tokio::test]
async fn a_write_that_waits_long_is_not_taken_for_lost() {
    let Some(mut f) = Fixture::new("slow", &["CREATE TABLE t (k BIGINT PRIMARY KEY, a BIGINT)"]).await else {
        return;
    };
    let t = schema("t", &[("k", INT), ("a", INT)]);
    f.apply_as_sets(vec![create(&t, &[int(1), int(0)])]).await;
    let url = std::env::var("SYNC_WORKER_TEST_MYSQL").unwrap();
    let mut binary = Conn::new(Opts::from_url(&url).unwrap()).await.unwrap();
    let binary = tokio::spawn(async move {
        let statement: &[u8] = b"SELECT SLEEP(30), _binary'\xFF\xFE\x80'";
        binary.query_drop(statement).await
    });
    f.run("START TRANSACTION").await;
    f.run("UPDATE t SET a = 1 WHERE k = 1").await;
    let mut sink = f.another_sink().await;
    let marker = sink.take_over("log").await.unwrap().marker;
    let batch = f.batch(vec![update(&t, &[int(1), int(5)])]);
    let batch = sync_worker_core::sink::WriteBatch { expected: marker, ..batch };
    let applying = tokio::spawn(async move { sink.apply(&batch, &Lot::default()).await });
    // Time itself is what is tested: this is longer than two looks at the server take.
    f.run("SELECT SLEEP(7)").await;
    assert!(!applying.is_finished(), "the sink did not wait: {:?}", applying.await);
    f.run("COMMIT").await;
    assert_eq!(applying.await.unwrap().unwrap().rows, 1);
    binary.abort();
    assert_eq!(f.rows("t").await, ["1|5"]);
    f.close().await;
}

/// Passes everything on until a COMMIT has gone to the server, whose answer it keeps.
async fn swallow_the_answer_to_commit(listener: TcpListener, server: String) {
    let (client, _) = listener.accept().await.unwrap();
    let server = TcpStream::connect(server).await.unwrap();
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let (silence, mut silenced) = tokio::sync::oneshot::channel::<()>();
    let answers = tokio::spawn(async move {
        let mut buffer = [0; 16 << 10];
        loop {
            tokio::select! {
                biased;
                _ = &mut silenced => {
                    // Read, so that the commit is known to have happened, and not passed on.
                    assert!(from_server.read(&mut buffer).await.unwrap() > 0);
                    return;
                }
                read = from_server.read(&mut buffer) => match read.unwrap() {
                    0 => return,
                    length => to_client.write_all(&buffer[..length]).await.unwrap(),
                },
            }
        }
    });
    let mut silence = Some(silence);
    let mut buffer = [0; 16 << 10];
    while let Ok(length @ 1..) = from_client.read(&mut buffer).await {
        let commit = buffer[..length].ends_with(b"\x03COMMIT");
        if commit && let Some(silence) = silence.take() {
            silence.send(()).unwrap();
        }
        to_server.write_all(&buffer[..length]).await.unwrap();
        if commit {
            break;
        }
    }
    answers.await.unwrap();
}

#[tokio::test]
async fn a_lost_answer_to_the_commit_leaves_the_outcome_unknown() {
    let Some(mut f) = Fixture::new("unknown", &["CREATE TABLE t (k BIGINT PRIMARY KEY, a BIGINT)"]).await else {
        return;
    };
    let t = schema("t", &[("k", INT), ("a", INT)]);
    let marker = f.marker.clone();
    let url = std::env::var("SYNC_WORKER_TEST_MYSQL").unwrap();
    let options = Opts::from_url(&url).unwrap();
    let server = format!("{}:{}", options.ip_or_hostname(), options.tcp_port());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let proxy = tokio::spawn(swallow_the_answer_to_commit(listener, server));
    let mut through = f.config.clone();
    through.url =
        format!("mysql://{}@127.0.0.1:{port}/{}?ssl-mode=disabled", options.user().unwrap_or("root"), f.database);
    let name = sync_worker_core::name::DatabaseName::new("target");
    let mut sink = sync_worker_mysql::sink::MysqlSink::connect(&through, &name, &f.scope).await.unwrap();
    let batch = f.batch(vec![create(&t, &[int(1), int(5)])]);
    let error = sink.apply(&batch, &f.parked).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Transient);
    assert!(error.to_string().contains("the outcome of a commit is unknown"), "{error}");
    proxy.await.unwrap();
    // Whoever takes over sees what happened.
    f.connect().await;
    assert_eq!((f.marker.offset, f.marker.digest), (batch.marker.offset, batch.marker.digest));
    assert!(f.marker.writes > marker.writes + 1);
    assert_eq!(f.rows("t").await, ["1|5"]);
    f.close().await;
}

/// Passes the first connection on, cuts the next one at once, and passes all others on.
async fn cut_the_second_connection(listener: TcpListener, server: String) {
    for number in 0.. {
        let (mut client, _) = listener.accept().await.unwrap();
        if number == 1 {
            continue;
        }
        let mut server = TcpStream::connect(&server).await.unwrap();
        tokio::spawn(async move {
            tokio::io::copy_bidirectional(&mut client, &mut server).await.unwrap_or_default();
        });
    }
}

#[tokio::test]
async fn one_question_that_is_lost_does_not_end_a_statement_that_runs() {
    let Some(mut f) = Fixture::new("probe", &["CREATE TABLE t (k BIGINT PRIMARY KEY, a BIGINT)"]).await else {
        return;
    };
    let t = schema("t", &[("k", INT), ("a", INT)]);
    f.apply_as_sets(vec![create(&t, &[int(1), int(0)])]).await;
    let url = std::env::var("SYNC_WORKER_TEST_MYSQL").unwrap();
    let options = Opts::from_url(&url).unwrap();
    let server = format!("{}:{}", options.ip_or_hostname(), options.tcp_port());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let proxy = tokio::spawn(cut_the_second_connection(listener, server));
    let mut through = f.config.clone();
    through.url =
        format!("mysql://{}@127.0.0.1:{port}/{}?ssl-mode=disabled", options.user().unwrap_or("root"), f.database);
    let name = sync_worker_core::name::DatabaseName::new("target");
    let mut sink = sync_worker_mysql::sink::MysqlSink::connect(&through, &name, &f.scope).await.unwrap();
    let marker = sink.take_over("log").await.unwrap().marker;
    f.run("START TRANSACTION").await;
    f.run("UPDATE t SET a = 1 WHERE k = 1").await;
    let batch = f.batch(vec![update(&t, &[int(1), int(5)])]);
    let batch = sync_worker_core::sink::WriteBatch { expected: marker, ..batch };
    let applying = tokio::spawn(async move { sink.apply(&batch, &Lot::default()).await });
    // Time itself is what is tested: this is longer than two questions take.
    f.run("SELECT SLEEP(5)").await;
    assert!(!applying.is_finished(), "the sink did not wait: {:?}", applying.await);
    f.run("COMMIT").await;
    assert_eq!(applying.await.unwrap().unwrap().rows, 1);
    proxy.abort();
    assert_eq!(f.rows("t").await, ["1|5"]);
    f.close().await;
}
