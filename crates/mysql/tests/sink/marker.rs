//! Invariant 2: rows, parked rows and marker together, from exactly the marker that was read.

use crate::fixture::*;
use async_trait::async_trait;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use sync_worker_core::bus::Flush;
use sync_worker_core::error::{Error, ErrorClass, Result};
use sync_worker_core::record::Offset;
use sync_worker_core::sink::{Marker, Parking, Refused, Sink, WriteBatch};
use sync_worker_testkit::flush::apply_late;
use tokio::sync::Mutex;

const TABLE: &str = "CREATE TABLE t (k BIGINT PRIMARY KEY, a VARCHAR(20))";

#[tokio::test]
async fn a_take_over_makes_the_marker_and_moves_its_epoch() {
    let Some(mut f) = Fixture::new("take_over", &[TABLE]).await else { return };
    assert_eq!(f.marker, Marker { offset: None, log: "log".into(), digest: 0, epoch: 1, writes: 1 });
    let mut other = f.another_sink().await;
    let progress = other.take_over("another log").await.unwrap();
    // The log of a marker that is there stays: the engine compares it.
    assert_eq!(progress.marker, Marker { offset: None, log: "log".into(), digest: 0, epoch: 2, writes: 2 });
    let t = schema("t", &[("k", INT), ("a", TEXT)]);
    let batch = f.batch(vec![create(&t, &[int(1), text("x")])]);
    let error = f.try_apply(&batch).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Superseded);
    assert!(f.rows("t").await.is_empty());
    f.close().await;
}

#[tokio::test]
async fn the_marker_moves_only_from_what_was_read() {
    let Some(mut f) = Fixture::new("marker", &[TABLE]).await else { return };
    let t = schema("t", &[("k", INT), ("a", TEXT)]);
    f.apply_as_sets(vec![create(&t, &[int(1), text("x")])]).await;
    let right = f.marker.clone();
    for wrong in [
        Marker { offset: None, ..right.clone() },
        Marker { offset: Some(Offset(9)), ..right.clone() },
        Marker { log: "other".into(), ..right.clone() },
        Marker { epoch: 0, ..right.clone() },
        Marker { writes: 1, ..right.clone() },
    ] {
        f.marker = wrong;
        let batch = f.batch(vec![create(&t, &[int(2), text("y")])]);
        assert_eq!(f.try_apply(&batch).await.unwrap_err().class(), ErrorClass::Superseded);
    }
    assert_eq!(f.rows("t").await, ["1|x"]);
    f.marker = right;
    f.apply_as_sets(vec![create(&t, &[int(2), text("y")])]).await;
    f.apply_as_sets(Vec::new()).await;
    assert_eq!(f.rows("t").await, ["1|x", "2|y"]);
    let marker = f.another_sink().await.take_over("log").await.unwrap().marker;
    let writes = f.marker.writes + 1;
    assert_eq!(marker, Marker { epoch: 2, writes, ..f.marker.clone() });
    f.close().await;
}

#[tokio::test]
async fn nothing_is_committed_before_its_records_are_durable() {
    let Some(mut f) = Fixture::new("late", &[TABLE]).await else { return };
    let t = schema("t", &[("k", INT), ("a", TEXT)]);
    let mut sink = f.another_sink().await;
    f.marker = sink.take_over("log").await.unwrap().marker;
    let batch = f.batch(vec![create(&t, &[int(1), text("x")])]);
    for durable in [false, true] {
        let look = async { assert!(f.rows("t").await.is_empty()) };
        let applied = apply_late(&mut sink, &batch, durable, look).await;
        assert_eq!(applied.err().map(|error| error.class()), (!durable).then_some(ErrorClass::Transient));
        assert_eq!(f.rows("t").await.len(), usize::from(durable));
    }
    f.close().await;
}

#[tokio::test]
async fn parked_keys_come_back_with_a_take_over() {
    let Some(mut f) = Fixture::new("parked", &["CREATE TABLE t (k BIGINT PRIMARY KEY, a INT NOT NULL)"]).await else {
        return;
    };
    let t = schema("t", &[("k", INT), ("a", INT)]);
    let applied = f.apply(vec![create(&t, &[int(1), NULL]), create(&t, &[int(2), NULL])]).await;
    assert_eq!(refused(&applied), [(0, ErrorClass::Poison), (1, ErrorClass::Poison)]);
    let parked = f.another_sink().await.take_over("log").await.unwrap().parked;
    let first = t.key_of(&row(&[int(1), NULL])).unwrap();
    assert_eq!(parked.len(), 2);
    assert_eq!((parked[0].offset, &parked[0].key), (Offset(0), &first));
    assert_eq!(parked[0].reason, "NULL is not allowed in column a (error 1048)");
    f.connect().await;
    let mut batch = f.batch(Vec::new());
    batch.unpark = vec![(t.table.clone(), first)];
    f.try_apply(&batch).await.unwrap();
    assert_eq!(f.parked_rows().await.len(), 1);
    f.close().await;
}

/// Ends the sink's connection, or refuses, when it is asked to park.
struct Disaster {
    conn: Option<Mutex<Conn>>,
    database: String,
}

#[async_trait]
impl Parking for Disaster {
    fn pending(&self, _: &WriteBatch) -> Option<Flush> {
        None
    }

    async fn park(&self, _: &WriteBatch, _: &[Refused]) -> Result<()> {
        let Some(conn) = &self.conn else {
            return Err(Error::from(sync_worker_mysql::Error::Config("the queue is full".into())));
        };
        let mut conn = conn.lock().await;
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

    let full = Disaster { conn: None, database: f.database.clone() };
    let error = sink.apply(&batch, &full).await.unwrap_err();
    assert!(error.to_string().contains("the queue is full"), "{error}");
    assert!(f.rows("t").await.is_empty());

    let opts = mysql_async::Opts::from_url(&std::env::var("SYNC_WORKER_TEST_MYSQL").unwrap()).unwrap();
    let killer = Disaster { conn: Some(Mutex::new(Conn::new(opts).await.unwrap())), database: f.database.clone() };
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
