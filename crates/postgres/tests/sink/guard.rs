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
use sync_worker_postgres::client::{self, Purpose};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

const LIMIT: Duration = Duration::from_secs(120);

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

/// At its origin a value went round over NULL or another one, and of each key the newest version alone comes.
#[test]
fn unique_values_go_round_among_rows() {
    on_server(async |target| {
        target.sql("CREATE TABLE t (k int PRIMARY KEY, v text UNIQUE, n int GENERATED ALWAYS AS (k + 1) STORED)").await;
        target.sql("INSERT INTO t SELECT k, chr(96 + k) FROM generate_series(1, 9) AS k").await;
        let schema = target.schema("t").await;
        let version = |k, v| row(&[Value::Int(k), Value::Text(v)]);
        let becomes = |k, from, to| over(&schema, &version(k, from), Some(version(k, to)));
        let mut applier = target.guarded(&["t"]).await;
        // Two that swap, three in a circle, and one that just changes.
        let changes = vec![
            becomes(1, "a", "b"),
            becomes(2, "b", "a"),
            becomes(3, "c", "d"),
            becomes(4, "d", "e"),
            becomes(5, "e", "c"),
            becomes(6, "f", "F"),
        ];
        let applied = apply(&mut applier, changes).await;
        assert_eq!((applied.rows, applied.row_by_row, applied.refused.len()), (6, false, 0), "{applied:?}");
        // The same among rows that are refused. One wants what a row has that stays, and one what it keeps for that.
        let changes = vec![
            becomes(1, "b", "a"),
            becomes(7, "g", "i"),
            becomes(8, "h", "g"),
            becomes(2, "a", "b"),
            create(&schema, &[Value::Int(0), Value::Text("F")]),
            becomes(6, "F", "f"),
        ];
        let applied = apply(&mut applier, changes).await;
        assert_eq!(applied.refused.iter().map(|one| one.write).collect::<Vec<_>>(), [1, 2], "{applied:?}");
        assert_eq!((applied.rows, applied.row_by_row), (4, true));
        let expected = [
            "(0,F,1)", "(1,a,2)", "(2,b,3)", "(3,d,4)", "(4,e,5)", "(5,c,6)", "(6,f,7)", "(7,g,8)", "(8,h,9)",
            "(9,i,10)",
        ];
        assert_eq!(target.table("t").await, expected);
        // A row that does not fit stays, though others of its batch go and come anew.
        let changes =
            vec![becomes(1, "a", "b"), becomes(2, "b", "a"), over(&schema, &version(3, "d"), Some(version(3, "\0")))];
        let applied = apply(&mut applier, changes).await;
        assert_eq!(applied.refused.iter().map(|one| one.write).collect::<Vec<_>>(), [2], "{applied:?}");
        assert_eq!(target.rows("SELECT k, v FROM t WHERE k BETWEEN 1 AND 3").await, ["(1,b)", "(2,a)", "(3,d)"]);
    });
}

/// It would wait for the old row, find that gone, and not see the new one.
#[test]
fn an_application_that_waits_finds_the_row_that_came_anew() {
    on_server(async |target| {
        target.sql("CREATE TABLE t (k int PRIMARY KEY, v text UNIQUE, w text)").await;
        target.sql("INSERT INTO t VALUES (1, 'a', ''), (2, 'b', '')").await;
        let schema = target.schema("t").await;
        let version = |k, v| row(&[Value::Int(k), Value::Text(v), Value::Text("")]);
        let changes = vec![
            over(&schema, &version(1, "a"), Some(version(1, "b"))),
            over(&schema, &version(2, "b"), Some(version(2, "a"))),
        ];
        let mut applier = target.guarded(&["t"]).await;
        let application = client::connect(&target.config, Purpose::Control).await.unwrap();
        // Somebody writes to the table and is not done.
        target.sql("BEGIN; INSERT INTO t VALUES (3, 'c', '')").await;
        let writing = tokio::spawn(async move { apply(&mut applier, changes).await });
        somebody_waits(&target, &writing).await;
        let update = "WITH w AS (UPDATE public.t SET w = 'written' WHERE k = 1 RETURNING 1) SELECT count(*) FROM w";
        let updating = tokio::spawn(async move { application.value("a write", update).await.unwrap() });
        target.sql("COMMIT").await;
        let applied = timeout(LIMIT, writing).await.unwrap().unwrap();
        assert_eq!((applied.rows, applied.row_by_row, applied.refused.len()), (2, false, 0), "{applied:?}");
        assert_eq!(timeout(LIMIT, updating).await.unwrap().unwrap().as_deref(), Some("1"));
        assert_eq!(target.table("t").await, ["(1,b,written)", "(2,a,\"\")", "(3,c,\"\")"]);
    });
}

/// A table that others write to all the time is not waited for long: its rows wait instead, and later batches do not try.
#[test]
fn a_table_in_use_keeps_its_rows() {
    on_server(async |target| {
        target.sql("CREATE TABLE t (k int PRIMARY KEY, v text UNIQUE)").await;
        target.sql("INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')").await;
        let schema = target.schema("t").await;
        let version = |k, v| row(&[Value::Int(k), Value::Text(v)]);
        let becomes = |k, from, to| over(&schema, &version(k, from), Some(version(k, to)));
        let mut applier = target.guarded(&["t"]).await;
        target.sql("BEGIN; UPDATE t SET v = 'C' WHERE k = 3").await;
        let applied =
            timeout(LIMIT, apply(&mut applier, vec![becomes(1, "a", "b"), becomes(2, "b", "a")])).await.unwrap();
        assert_eq!(applied.refused.iter().map(|one| one.write).collect::<Vec<_>>(), [0, 1], "{applied:?}");
        target.sql("COMMIT").await;
        assert_eq!(target.table("t").await, ["(1,a)", "(2,b)", "(3,C)"]);
    });
}

/// What the source does not know of a row would be lost, and a trigger would fire for a delete that nobody has made.
#[test]
fn rows_with_columns_of_their_own_or_triggers_never_go_to_come_anew() {
    on_server(async |target| {
        let trigger = "CREATE FUNCTION gone() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'deleted'; END $$;
                       CREATE TABLE fires (k int PRIMARY KEY, v text UNIQUE);
                       CREATE TRIGGER gone BEFORE DELETE ON fires FOR EACH ROW EXECUTE FUNCTION gone();
                       ALTER TABLE fires ENABLE ALWAYS TRIGGER gone";
        target.sql("CREATE TABLE own (k int PRIMARY KEY, v text UNIQUE)").await;
        target.sql(trigger).await;
        for table in ["own", "fires"] {
            target.sql(&format!("INSERT INTO {table} VALUES (1, 'a'), (2, 'b'), (3, 'c')")).await;
            let schema = target.schema(table).await;
            target.sql("ALTER TABLE own ADD COLUMN IF NOT EXISTS o int DEFAULT 7").await;
            let version = |k, v| row(&[Value::Int(k), Value::Text(v)]);
            let becomes = |k, from, to| over(&schema, &version(k, from), Some(version(k, to)));
            let mut applier = target.guarded(&[table]).await;
            let changes = vec![becomes(1, "a", "b"), becomes(2, "b", "a"), becomes(3, "c", "C")];
            let applied = apply(&mut applier, changes).await;
            assert_eq!(applied.refused.iter().map(|one| one.write).collect::<Vec<_>>(), [0, 1], "{table}: {applied:?}");
            let rows = target.rows(&format!("SELECT k, v FROM {table}")).await;
            assert_eq!(rows, ["(1,a)", "(2,b)", "(3,C)"], "{table}");
        }
        assert_eq!(target.rows("SELECT DISTINCT o FROM own").await, ["(7)"]);
    });
}
