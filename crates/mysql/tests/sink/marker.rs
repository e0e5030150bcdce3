//! Invariant 2: rows, parked rows and marker together, or nothing.

use crate::fixture::*;
use async_trait::async_trait;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use sync_worker_core::bus::Flush;
use sync_worker_core::error::{ErrorClass, Result};
use sync_worker_core::name::DatabaseName;
use sync_worker_core::record::Offset;
use sync_worker_core::sink::{Marker, Parking, Refused, Sink, WriteBatch};
use sync_worker_mysql::sink::MysqlSink;
use tokio::sync::Mutex;

/// Ends the sink's connection when it is asked to park.
struct Disaster {
    conn: Mutex<Conn>,
    database: String,
}

#[async_trait]
impl Parking for Disaster {
    fn pending(&self, _: &WriteBatch) -> Option<Flush> {
        None
    }

    async fn park(&self, _: &WriteBatch, _: &[Refused]) -> Result<()> {
        let mut conn = self.conn.lock().await;
        let own = conn.id();
        // The view in information_schema fails over the statements of other tests.
        let sessions: Vec<mysql_async::Row> = conn.query("SHOW PROCESSLIST").await.unwrap();
        let here =
            |row: &mysql_async::Row| row.get::<Option<String>, _>("db").flatten().as_deref() == Some(&self.database);
        let ids = sessions.iter().filter(|row| here(row)).filter_map(|row| row.get::<u32, _>("Id"));
        for id in ids.filter(|id| *id != own) {
            conn.query_drop(format!("KILL {id}")).await.unwrap();
        }
        Ok(())
    }
}

/// Takes the target over by another session, inside the transaction of the first one.
struct Successor(Mutex<MysqlSink>);

#[async_trait]
impl Parking for Successor {
    fn pending(&self, _: &WriteBatch) -> Option<Flush> {
        None
    }

    async fn park(&self, _: &WriteBatch, _: &[Refused]) -> Result<()> {
        self.0.lock().await.take_over("log").await.map(drop)
    }
}

/// Such as that of a worker that was killed while its connection swallowed everything.
#[tokio::test]
async fn a_marker_held_by_a_vanished_worker_is_freed() {
    let Some(mut f) = Fixture::new("vanished", &["CREATE TABLE t (k BIGINT PRIMARY KEY, a INT NOT NULL)"]).await else {
        return;
    };
    let t = schema("t", &[("k", INT), ("a", INT)]);
    let batch = f.batch(vec![create(&t, &[int(1), int(1)]), create(&t, &[int(2), NULL])]);
    // Not the applier of the fixture's own sink, which lives.
    let other = DatabaseName::new("other");
    let mut sink = MysqlSink::connect(&f.config, &other, &f.scope).await.unwrap();
    let marker = sink.take_over("log").await.unwrap().marker;
    let next = Marker { offset: Some(Offset(2)), writes: marker.writes + 1, ..marker.clone() };
    let batch = WriteBatch { expected: marker.clone(), marker: next, ..batch };
    let successor = Successor(Mutex::new(MysqlSink::connect(&f.config, &other, &f.scope).await.unwrap()));
    let error = sink.apply(&batch, &successor).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Transient, "{error}");
    assert!(f.rows("t").await.is_empty());
    let taken = successor.0.lock().await.take_over("log").await.unwrap().marker;
    assert_eq!((taken.offset, taken.epoch), (marker.offset, marker.epoch + 2));
    f.close().await;
}

#[tokio::test]
async fn a_batch_that_is_not_committed_leaves_nothing() {
    let Some(mut f) = Fixture::new("nothing", &["CREATE TABLE t (k BIGINT PRIMARY KEY, a INT NOT NULL)"]).await else {
        return;
    };
    let t = schema("t", &[("k", INT), ("a", INT)]);
    let batch = f.batch(vec![create(&t, &[int(1), int(1)]), create(&t, &[int(2), NULL])]);
    let mut sink = f.another_sink().await;
    f.marker = sink.take_over("log").await.unwrap().marker;
    let batch = WriteBatch { expected: f.marker.clone(), ..batch };

    let opts = mysql_async::Opts::from_url(&std::env::var("SYNC_WORKER_TEST_MYSQL").unwrap()).unwrap();
    let killer = Disaster { conn: Mutex::new(Conn::new(opts).await.unwrap()), database: f.database.clone() };
    // The fixture's own connection would be killed as well.
    f.run("USE mysql").await;
    let error = sink.apply(&batch, &killer).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Transient);
    drop(sink);
    f.run(&format!("USE {}", f.database.clone())).await;
    assert!(f.rows("t").await.is_empty());
    assert!(f.parked_rows().await.is_empty());
    f.connect().await;
    let applied = f.apply(vec![create(&t, &[int(1), int(1)])]).await;
    assert_eq!((applied.rows, f.rows("t").await), (1, vec!["1|1".to_owned()]));
    f.close().await;
}
