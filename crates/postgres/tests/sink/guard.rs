//! Two-way: rows that are known in full are compared by the statements that write them, others are looked at.

use crate::fixture::*;
use std::sync::Arc;
use std::time::Duration;
use sync_worker_core::change::{Change, Op};
use sync_worker_core::guard::{Image, Seen};
use sync_worker_core::row::Row;
use sync_worker_core::schema::Schema;
use sync_worker_core::sink::{Applied, Write};
use sync_worker_core::value::Value;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

const LIMIT: Duration = Duration::from_secs(30);

/// A version over the row that its origin has written it over.
fn over(schema: &Arc<Schema>, before: &Row, after: Option<Row>) -> Change {
    let op = if after.is_some() { Op::Create } else { Op::Delete };
    Change { schema: schema.clone(), op, before: Some(before.clone()), after }
}

/// As the engine asks for them: over the row before each, or over nothing.
async fn apply(applier: &mut Applier, changes: Vec<Change>) -> Applied {
    let first = applier.marker.offset.map_or(0, |offset| offset.0 + 1);
    let guarded = |write: Write| Write { over: Some(vec![Image::of(write.change.before.as_ref())]), ..write };
    let writes = writes(changes, first).into_iter().map(guarded).collect();
    let batch = applier.batch(writes);
    applier.write(&batch, &Lot::default()).await.unwrap()
}

/// What a look waits for and an update does not: somebody who relies on the rows' keys.
async fn relied_on(target: &Target) {
    target.sql("BEGIN; SELECT FROM t FOR KEY SHARE").await;
}

/// Until the write is held up by a lock.
async fn somebody_waits<T>(target: &Target, write: &JoinHandle<T>) {
    let waits = "SELECT count(*) FROM pg_catalog.pg_stat_activity \
                 WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let deadline = Instant::now() + LIMIT;
    while target.rows(waits).await != ["(1)"] {
        assert!(Instant::now() < deadline && !write.is_finished(), "it waits for nobody");
    }
}

#[test]
fn rows_of_every_kind_of_value_are_written_without_a_look() {
    on_server(async |target| {
        target
            .sql(
                "CREATE TYPE mood AS ENUM ('sad', 'glad');
                 CREATE TABLE t (k bigint PRIMARY KEY, b boolean, c char(5), e mood, f float8, j jsonb, js json, n numeric,
                                 s varchar(9), ts timestamptz, u uuid, v bytea, x int);
                 INSERT INTO t SELECT k, true, 'ab', 'sad', 1.5, '{\"a\": 1}', '{ \"a\":1}', 1.50, 'é', 'epoch',
                                      '00000000-0000-0000-0000-000000000001', '\\x0001', NULL FROM generate_series(1, 3) AS k",
            )
            .await;
        let schema = target.schema("t").await;
        let version = |k, s| {
            row(&[
                Value::Int(k),
                Value::Bool(true),
                Value::Text("ab"),
                Value::Text("sad"),
                Value::Float64(1.5),
                Value::Json("{\"a\": 1}"),
                Value::Json("{ \"a\":1}"),
                Value::Decimal("1.50"),
                Value::Text(s),
                Value::TimestampTz(0),
                Value::Uuid([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
                Value::Bytes(&[0, 1]),
                Value::Null,
            ])
        };
        let mut applier = target.guarded(&["t"]).await;
        relied_on(&target).await;
        let changes = vec![
            over(&schema, &version(1, "é"), Some(version(1, "new"))),
            over(&schema, &version(3, "é"), Some(version(3, "newer"))),
        ];
        let applied = timeout(LIMIT, apply(&mut applier, changes)).await.expect("no look");
        assert_eq!((applied.rows, applied.differing.len(), applied.equal.len()), (2, 0, 0), "{applied:?}");
        target.sql("COMMIT").await;
        apply(&mut applier, vec![over(&schema, &version(2, "é"), None)]).await;
        assert_eq!(target.rows("SELECT k, s FROM t").await, ["(1,new)", "(3,newer)"]);
    });
}

#[test]
fn a_row_that_somebody_has_changed_is_left_alone_and_the_next_ones_are_looked_at() {
    on_server(async |target| {
        target.sql("CREATE TABLE t (k int PRIMARY KEY, v text)").await;
        target.sql("INSERT INTO t VALUES (1, 'a'), (2, 'fresh'), (3, 'c'), (4, 'other'), (5, 'e')").await;
        let schema = target.schema("t").await;
        let version = |k, v| row(&[Value::Int(k), Value::Text(v)]);
        let mut applier = target.guarded(&["t"]).await;
        let changes = vec![
            over(&schema, &version(1, "a"), Some(version(1, "A"))),
            over(&schema, &version(2, "b"), Some(version(2, "B"))),
            over(&schema, &version(3, "c"), None),
            over(&schema, &version(4, "d"), None),
            // As wanted already.
            over(&schema, &version(5, "before"), Some(version(5, "e"))),
            // Gone, and that is as wanted.
            over(&schema, &version(6, "f"), None),
        ];
        let applied = apply(&mut applier, changes).await;
        assert_eq!(
            applied.differing,
            [(1, Seen::of(Some(version(2, "fresh")))), (3, Seen::of(Some(version(4, "other"))))]
        );
        assert_eq!((applied.rows, applied.equal), (2, vec![4, 5]));
        assert_eq!(target.table("t").await, ["(1,A)", "(2,fresh)", "(4,other)", "(5,e)"]);
        assert_eq!(target.parked().await, ["(t,1,differs)", "(t,3,differs)"]);
        relied_on(&target).await;
        let looking = tokio::spawn(async move {
            apply(&mut applier, vec![over(&schema, &version(1, "A"), Some(version(1, "AA")))]).await;
        });
        somebody_waits(&target, &looking).await;
        target.sql("COMMIT").await;
        looking.await.unwrap();
        assert_eq!(target.rows("SELECT v FROM t WHERE k = 1").await, ["(AA)"]);
    });
}

/// With nothing else in their batches that would fail: the comparison alone tells.
#[test]
fn one_column_that_differs_is_enough() {
    on_server(async |target| {
        target.sql("CREATE TABLE t (k int PRIMARY KEY, v text, n int)").await;
        target.sql("INSERT INTO t VALUES (1, 'a', 1), (2, 'b', 2), (3, 'c', NULL), (4, 'd', 4)").await;
        let schema = target.schema("t").await;
        let version = |k, v, n: Option<i64>| row(&[Value::Int(k), Value::Text(v), n.map_or(Value::Null, Value::Int)]);
        let cases = [
            (version(1, "a", Some(0)), Some(version(1, "new", Some(0)))),
            (version(2, "B", Some(2)), None),
            (version(3, "c", Some(3)), Some(version(3, "new", Some(3)))),
            (version(4, "d", None), None),
        ];
        for (before, after) in cases {
            let mut applier = target.guarded(&["t"]).await;
            let applied = apply(&mut applier, vec![over(&schema, &before, after)]).await;
            assert_eq!((applied.rows, applied.differing.len()), (0, 1), "{applied:?}");
        }
        assert_eq!(target.table("t").await, ["(1,a,1)", "(2,b,2)", "(3,c,)", "(4,d,4)"]);
    });
}

#[test]
fn a_row_that_is_being_changed_is_waited_for() {
    on_server(async |target| {
        target.sql("CREATE TABLE t (k int PRIMARY KEY, v text)").await;
        target.sql("INSERT INTO t VALUES (1, 'a'), (2, 'b')").await;
        let schema = target.schema("t").await;
        let version = |k, v| row(&[Value::Int(k), Value::Text(v)]);
        for (k, old, after, now) in [(1, "a", Some(version(1, "A")), "fresh"), (2, "b", None, "fresher")] {
            let mut applier = target.guarded(&["t"]).await;
            target.sql(&format!("BEGIN; UPDATE t SET v = '{now}' WHERE k = {k}")).await;
            let change = over(&schema, &version(k, old), after);
            let write = tokio::spawn(async move { apply(&mut applier, vec![change]).await });
            somebody_waits(&target, &write).await;
            target.sql("COMMIT").await;
            assert_eq!(write.await.unwrap().differing, [(0, Seen::of(Some(version(k, now))))]);
        }
        assert_eq!(target.table("t").await, ["(1,fresh)", "(2,fresher)"]);
    });
}

#[test]
fn what_a_statement_can_not_compare_is_looked_at() {
    on_server(async |target| {
        target
            .sql(
                "CREATE DOMAIN positive AS int CHECK (VALUE > 0);
                 CREATE TABLE d (k int PRIMARY KEY, v positive);
                 CREATE TABLE g (k int PRIMARY KEY, v int, double int GENERATED ALWAYS AS (v * 2) STORED);
                 CREATE TABLE n (k int PRIMARY KEY, v numeric);
                 INSERT INTO d VALUES (1, 1); INSERT INTO g VALUES (1, 1); INSERT INTO n VALUES (1, 1.10)",
            )
            .await;
        let ints = |v| row(&[Value::Int(1), Value::Int(v)]);
        // The same number in another spelling.
        let number = |text| row(&[Value::Int(1), Value::Decimal(text)]);
        let cases = [
            ("d", ints(1), ints(2), "(1,2)"),
            ("g", ints(1), ints(2), "(1,2,4)"),
            ("n", number("1.1"), number("2"), "(1,2)"),
        ];
        for (table, before, after, expected) in cases {
            let schema = target.schema(table).await;
            let mut applier = target.guarded(&[table]).await;
            let applied = apply(&mut applier, vec![over(&schema, &before, Some(after))]).await;
            assert_eq!(
                (applied.rows, applied.differing.len(), applied.row_by_row),
                (1, 0, false),
                "{table}: {applied:?}"
            );
            assert_eq!(target.table(table).await, [expected]);
        }
    });
}

#[test]
fn a_unique_value_is_freed_before_it_is_taken() {
    on_server(async |target| {
        target.sql("CREATE TABLE t (k int PRIMARY KEY, v text UNIQUE)").await;
        target.sql("INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')").await;
        let schema = target.schema("t").await;
        let version = |k, v| row(&[Value::Int(k), Value::Text(v)]);
        let mut applier = target.guarded(&["t"]).await;
        let changes = vec![
            create(&schema, &[Value::Int(4), Value::Text("a")]),
            over(&schema, &version(1, "a"), Some(version(1, "b"))),
            over(&schema, &version(2, "b"), None),
        ];
        let applied = apply(&mut applier, changes).await;
        assert_eq!((applied.rows, applied.row_by_row, applied.refused.len()), (3, false, 0), "{applied:?}");
        assert_eq!(target.table("t").await, ["(1,b)", "(3,c)", "(4,a)"]);
        // One that is taken is refused, and the rest is written.
        let changes = vec![
            over(&schema, &version(3, "c"), Some(version(3, "a"))),
            over(&schema, &version(1, "b"), Some(version(1, "B"))),
        ];
        let applied = apply(&mut applier, changes).await;
        assert_eq!(applied.refused.iter().map(|one| one.write).collect::<Vec<_>>(), [0]);
        assert_eq!(target.table("t").await, ["(1,B)", "(3,c)", "(4,a)"]);
    });
}
