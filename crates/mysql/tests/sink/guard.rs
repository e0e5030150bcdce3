//! Two-way: a version is written over nothing but a row that it may be written over.

use crate::fixture::*;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts};
use std::time::Duration;
use sync_worker_core::database::Database;
use sync_worker_core::error::ErrorClass;
use sync_worker_core::guard::{Image, Seen};
use sync_worker_core::record::Offset;
use sync_worker_core::sink::{Sink, WriteBatch};
use sync_worker_core::types::ColumnType;
use sync_worker_core::value::{Cell, Value};
use sync_worker_mysql::Mysql;

const DECIMAL: ColumnType = ColumnType::Decimal { precision: Some(9), scale: 3 };

const STILL: &str = "the row there is none that this version may be written over";

fn image(cells: &[Cell<'_>]) -> Image {
    Image::of(Some(&row(cells)))
}

fn seen(cells: &[Cell<'_>]) -> Seen {
    Seen::of(Some(row(cells)))
}

fn over(write: Write, images: &[Image]) -> Write {
    Write { over: Some(images.to_vec()), ..write }
}

fn decimal(digits: &str) -> Cell<'_> {
    Cell::Present(Value::Decimal(digits))
}

/// A parked version that is tried again: the marker has passed it and stays.
fn retry_of(f: &Fixture, write: Write, offset: Offset) -> WriteBatch {
    let mut batch = f.batch(Vec::new());
    batch.marker.offset = f.marker.offset;
    batch.writes = vec![Write { offset, parked: true, ..write }];
    batch.retry = true;
    batch
}

#[tokio::test]
async fn only_expected_rows_are_written_over() {
    let ddl = "CREATE TABLE t (k BIGINT PRIMARY KEY, a INT, n DECIMAL(9,3), own INT NOT NULL DEFAULT 7)";
    let Some(mut f) = Fixture::new("guard", &[ddl]).await else { return };
    let t = schema("t", &[("k", INT), ("a", INT), ("n", DECIMAL)]);
    f.run("INSERT INTO t (k, a, n) VALUES (1, 1, 1), (2, 2, 2), (3, 3, 3), (4, 4, 4.5)").await;
    let version = |k, a, n| [int(k), int(a), decimal(n)];
    let batch = f.batch(vec![
        over(update(&t, &version(1, 10, "1.50")), &[Image::Absent, image(&version(1, 1, "1.00"))]),
        over(update(&t, &version(2, 20, "2")), &[image(&version(2, 0, "2"))]),
        over(delete(&t, &[int(3), U, U]), &[image(&version(3, 3, "3"))]),
        // It is so already, whoever made it.
        over(update(&t, &version(4, 4, "4.50")), &[]),
        over(create(&t, &version(5, 5, "5")), &[Image::Absent]),
        over(delete(&t, &[int(6), U, U]), &[image(&version(6, 6, "6"))]),
        // Whichever its op.
        over(update(&t, &version(7, 7, "7")), &[Image::Absent]),
        over(create(&t, &version(8, 8, "8")), &[image(&version(8, 0, "8"))]),
    ]);
    let applied = f.try_apply(&batch).await.unwrap();
    assert_eq!((applied.rows, applied.missing, applied.row_by_row), (4, 0, false), "{applied:?}");
    assert_eq!(applied.differing, [(1, seen(&version(2, 2, "2.000"))), (7, Seen::of(None))]);
    assert!(applied.refused.is_empty() && f.parked.0.lock().unwrap().is_empty(), "what differs waits for no retry");
    assert_eq!(f.parked_rows().await, ["t|1|differs", "t|7|differs"]);
    let rows = ["1|10|1.500|7", "2|2|2.000|7", "4|4|4.500|7", "5|5|5.000|7", "7|7|7.000|7"];
    assert_eq!(f.rows("t").await, rows);
    // Whoever takes over learns what was seen.
    let parked = f.another_sink().await.take_over("log").await.unwrap().parked;
    let seen: Vec<_> = parked.iter().map(|key| (key.offset.0, key.seen)).collect();
    assert_eq!(seen, [(1, Some(image(&version(2, 2, "2")))), (7, Some(Image::Absent))]);
    f.close().await;
}

#[tokio::test]
async fn a_retry_that_still_differs_is_refused_until_it_may_be_written() {
    let Some(mut f) = Fixture::new("guard_retry", &["CREATE TABLE t (k BIGINT PRIMARY KEY, a INT)"]).await else {
        return;
    };
    let t = schema("t", &[("k", INT), ("a", INT)]);
    f.run("INSERT INTO t VALUES (1, 1)").await;
    let write = |expected| over(update(&t, &[int(1), int(10)]), &[image(&[int(1), int(expected)])]);
    let batch = f.batch(vec![write(5)]);
    let offset = batch.writes[0].offset;
    assert_eq!(f.try_apply(&batch).await.unwrap().differing.len(), 1);
    let batch = retry_of(&f, write(5), offset);
    let applied = f.try_apply(&batch).await.unwrap();
    assert_eq!(refused(&applied), [(0, ErrorClass::Dependency)]);
    assert_eq!(f.parked.refused(), [(0, ErrorClass::Dependency)]);
    assert!(applied.differing.is_empty());
    assert_eq!(f.parked_rows().await, [format!("t|0|{STILL}")]);
    assert_eq!(f.rows("t").await, ["1|1"]);
    let batch = retry_of(&f, write(1), offset);
    let applied = f.try_apply(&batch).await.unwrap();
    assert_eq!((applied.rows, applied.refused.len()), (1, 0));
    assert!(f.parked_rows().await.is_empty());
    assert_eq!(f.rows("t").await, ["1|10"]);
    f.close().await;
}

#[tokio::test]
async fn a_refused_write_is_named_by_its_place_in_the_whole_batch() {
    let ddl = "CREATE TABLE t (k BIGINT PRIMARY KEY, u BIGINT, UNIQUE (u))";
    let Some(mut f) = Fixture::new("guard_places", &[ddl]).await else { return };
    let t = schema("t", &[("k", INT), ("u", INT)]);
    f.run("INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)").await;
    let version = |k, u| [int(k), int(u)];
    let batch = f.batch(vec![
        over(update(&t, &version(1, 1)), &[]),
        over(update(&t, &version(2, 20)), &[]),
        over(create(&t, &version(4, 4)), &[Image::Absent]),
        over(create(&t, &version(5, 2)), &[Image::Absent]),
        over(update(&t, &version(3, 30)), &[image(&version(3, 3))]),
    ]);
    let applied = f.try_apply(&batch).await.unwrap();
    assert_eq!(refused(&applied), [(3, ErrorClass::Dependency)]);
    assert_eq!(f.parked.refused(), [(3, ErrorClass::Dependency)]);
    assert_eq!(applied.differing, [(1, seen(&version(2, 2)))]);
    assert_eq!(applied.rows, 2);
    let parked = f.parked_rows().await;
    assert_eq!((parked.len(), parked[0].as_str()), (2, "t|1|differs"));
    assert!(parked[1].starts_with("t|3|another row has the same value in unique index"), "{parked:?}");
    assert_eq!(f.rows("t").await, ["1|1", "2|2", "3|30", "4|4"]);
    // A newer version takes the place of what is parked; one that is there already needs no write.
    let newer = over(update(&t, &version(5, 50)), &[Image::Absent]);
    let there = over(update(&t, &version(2, 2)), &[]);
    let batch = f.batch(vec![again(newer), again(there)]);
    let applied = f.try_apply(&batch).await.unwrap();
    assert_eq!((applied.rows, applied.refused.len(), applied.differing.len()), (1, 0, 0));
    assert!(f.parked_rows().await.is_empty());
    assert_eq!(f.rows("t").await, ["1|1", "2|2", "3|30", "4|4", "5|50"]);
    f.close().await;
}

#[tokio::test]
async fn a_row_that_comes_up_after_the_look_is_looked_at_again() {
    let ddl = "CREATE TABLE t (k BIGINT PRIMARY KEY, u BIGINT, UNIQUE (u))";
    let Some(mut f) = Fixture::new("guard_overtaken", &[ddl]).await else { return };
    let t = schema("t", &[("k", INT), ("u", INT)]);
    let mut sink = f.another_sink().await;
    f.marker = sink.take_over("log").await.unwrap().marker;
    let batch = f.batch(vec![
        over(create(&t, &[int(1), int(5)]), &[Image::Absent]),
        over(create(&t, &[int(2), int(6)]), &[Image::Absent]),
    ]);
    // The first insert waits for an application that may have taken its unique value.
    f.run("START TRANSACTION").await;
    f.run("INSERT INTO t VALUES (9, 5)").await;
    let applying = tokio::spawn(async move { sink.apply(&batch, &Lot::default()).await });
    let url = std::env::var("SYNC_WORKER_TEST_MYSQL").unwrap();
    let mut application = Conn::new(Opts::from_url(&url).unwrap()).await.unwrap();
    // Whoever else waits here: what is asserted holds without it, too, though the look may come after the row then.
    let waiting = "SELECT COUNT(*) FROM information_schema.INNODB_TRX WHERE trx_state = 'LOCK WAIT'";
    let waits = async {
        while application.query_first::<u64, _>(waiting).await.unwrap() == Some(0) {
            // The server looks again only if nobody has asked for a tenth of a second.
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(8), waits).await.expect("the sink waits for the application's row");
    application.query_drop(format!("INSERT INTO {}.t VALUES (2, 8)", f.database)).await.unwrap();
    f.run("ROLLBACK").await;
    let applied = applying.await.unwrap().unwrap();
    assert_eq!(applied.differing, [(1, seen(&[int(2), int(8)]))]);
    assert_eq!((applied.rows, applied.refused.len()), (1, 0));
    assert_eq!(f.parked_rows().await, ["t|1|differs"]);
    assert_eq!(f.rows("t").await, ["1|5", "2|8"]);
    application.disconnect().await.unwrap();
    f.close().await;
}

/// The guard sees a row as the table reader does, whatever its types.
#[tokio::test]
async fn values_of_every_type_are_known_again() {
    let ddl = "CREATE TABLE t (k VARCHAR(9) COLLATE utf8mb4_0900_bin, k2 DECIMAL(5,2), ti TINYINT, \
               bu BIGINT UNSIGNED, f FLOAT, fd FLOAT(7,3), d DOUBLE, n DECIMAL(20,5), y YEAR, da DATE, ti6 TIME(6), dt DATETIME(3), \
               ts TIMESTAMP(6) NULL, b BIT(9), c CHAR(5), vc VARCHAR(20), l1 VARCHAR(9) CHARACTER SET latin1, \
               l2 VARCHAR(9) CHARACTER SET latin2, bi BINARY(4), vb VARBINARY(300), bl BLOB, e ENUM('a', 'b'), \
               s SET('x', 'y'), j JSON, PRIMARY KEY (k, k2))";
    let Some(mut f) = Fixture::new("guard_values", &[ddl]).await else { return };
    f.run("SET sql_mode = ''").await;
    f.run(
        "INSERT INTO t VALUES \
         ('a''\\\\:x?', 1.10, -7, 18446744073709551615, 0.1, 12.345, 0.1, -1.10, 2024, '2024-02-29', '-838:59:59', \
          '1999-12-31 23:59:59.123', '2038-01-19 03:14:07.999999', b'101', 'c ', ' v', 'é', 'ł', x'0100', \
          REPEAT(x'00FF27', 100), x'', 'b', 'x,y', '{\"b\": 1.0, \"a\": [null]}'), \
         ('b', 0, 0, 0, -0.0, 0, 1e300, 0, 0, '0000-00-00', '00:00:00', '2024-00-00', '0000-00-00 00:00:00', b'0', '', \
          '', '', '', x'', x'', x'', 'a', '', '[]')",
    )
    .await;
    f.run("INSERT INTO t (k, k2) VALUES ('null', -1)").await;
    let database = Mysql::new("target".into(), f.config.clone()).unwrap();
    let mut reader = database.reader(&f.scope).await.unwrap();
    let chunk = reader.read_range(&"t".into(), &Default::default(), usize::MAX).await.unwrap();
    assert_eq!(chunk.rows.len(), 3);
    let before = f.rows("t").await;
    let write = |row: &sync_worker_core::row::Row, images: &[Image]| {
        let cells = row.cells().collect::<Result<Vec<_>, _>>().unwrap();
        over(update(&chunk.schema, &cells), images)
    };
    let as_they_are: Vec<_> = chunk.rows.iter().map(|row| write(row, &[])).collect();
    let applied = f.apply(as_they_are).await;
    assert!(applied.differing.is_empty() && applied.refused.is_empty(), "{applied:?}");
    assert_eq!(applied.rows, 0);
    // What comes back after it was deleted is the same.
    let expected: Vec<_> = chunk.rows.iter().map(|row| Image::of(Some(row))).collect();
    let keys = chunk.rows.iter().zip(&expected);
    let deletes = keys.map(|(row, image)| {
        let cells = row.cells().collect::<Result<Vec<_>, _>>().unwrap();
        let cells: Vec<_> = cells.iter().enumerate().map(|(at, cell)| if at < 2 { *cell } else { U }).collect();
        over(delete(&chunk.schema, &cells), &[*image])
    });
    assert_eq!(f.apply(deletes.collect()).await.rows, 3);
    assert!(f.rows("t").await.is_empty());
    let creates = chunk.rows.iter().map(|row| write(row, &[Image::Absent]));
    assert_eq!(f.apply(creates.collect()).await.rows, 3);
    assert_eq!(f.rows("t").await, before);
    f.close().await;
}

/// At its origin a value went round over NULL or another one, and of each key the newest version alone comes.
#[tokio::test]
async fn unique_values_go_round_among_rows() {
    let ddl = "CREATE TABLE t (k BIGINT PRIMARY KEY, u BIGINT, g BIGINT AS (k + 1), UNIQUE (u))";
    let Some(mut f) = Fixture::new("guard_round", &[ddl]).await else { return };
    let t = schema("t", &[("k", INT), ("u", INT)]);
    f.run("INSERT INTO t (k, u) VALUES (1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 6), (7, 7), (8, 8), (9, 9)").await;
    let becomes = |k, from, to| over(update(&t, &[int(k), int(to)]), &[image(&[int(k), int(from)])]);
    // Two that swap, three in a circle, and one that just changes.
    let round =
        [becomes(1, 1, 2), becomes(2, 2, 1), becomes(3, 3, 4), becomes(4, 4, 5), becomes(5, 5, 3), becomes(6, 6, 60)];
    let applied = f.apply(round.to_vec()).await;
    assert_eq!((applied.rows, applied.row_by_row, applied.refused.len()), (6, false, 0), "{applied:?}");
    // The same among rows that are refused. One wants what a row has that stays, and one what it keeps for that.
    let batch = f.batch(vec![
        becomes(1, 2, 1),
        becomes(7, 7, 9),
        becomes(8, 8, 7),
        becomes(2, 1, 2),
        over(create(&t, &[int(0), int(60)]), &[Image::Absent]),
        becomes(6, 60, 6),
    ]);
    let applied = f.try_apply(&batch).await.unwrap();
    assert_eq!(refused(&applied), [1, 2].map(|write| (write, ErrorClass::Dependency)), "{applied:?}");
    assert_eq!((applied.rows, applied.row_by_row), (4, true));
    let expected = ["0|60|1", "1|1|2", "2|2|3", "3|4|4", "4|5|5", "5|3|6", "6|6|7", "7|7|8", "8|8|9", "9|9|10"];
    assert_eq!(f.rows("t").await, expected);
    assert_eq!(f.parked_rows().await.len(), 2);
    // Tried again together, once the row in the way has gone.
    f.run("DELETE FROM t WHERE k = 9").await;
    let mut batch = retry_of(&f, becomes(7, 7, 9), batch.writes[1].offset);
    let other = retry_of(&f, becomes(8, 8, 7), Offset(batch.writes[0].offset.0 + 1));
    batch.writes.extend(other.writes);
    assert_eq!(f.try_apply(&batch).await.unwrap().rows, 2);
    assert_eq!(f.query("SELECT k, u FROM t WHERE k IN (7, 8) ORDER BY k").await, ["7|9", "8|7"]);
    assert!(f.parked_rows().await.is_empty());
    f.close().await;
}

/// A row that does not fit stays, though others of its batch go and come anew.
#[tokio::test]
async fn a_row_that_is_refused_does_not_go() {
    let ddl = "CREATE TABLE t (k BIGINT PRIMARY KEY, u TINYINT UNIQUE)";
    let Some(mut f) = Fixture::new("guard_stays", &[ddl]).await else { return };
    let t = schema("t", &[("k", INT), ("u", INT)]);
    f.run("INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)").await;
    let becomes = |k, from, to| over(update(&t, &[int(k), int(to)]), &[image(&[int(k), int(from)])]);
    let batch = f.batch(vec![becomes(1, 1, 2), becomes(2, 2, 1), becomes(3, 3, 300)]);
    let applied = f.try_apply(&batch).await.unwrap();
    assert_eq!(refused(&applied), [(2, ErrorClass::Poison)], "{applied:?}");
    assert_eq!(f.rows("t").await, ["1|2", "2|1", "3|3"]);
    f.close().await;
}

/// What the source does not know of a row would be lost, and a trigger would fire for a delete that nobody has made.
#[tokio::test]
async fn rows_with_columns_of_their_own_or_triggers_never_go_to_come_anew() {
    let own = "CREATE TABLE own (k BIGINT PRIMARY KEY, u BIGINT UNIQUE, o BIGINT DEFAULT 7)";
    let fires = "CREATE TABLE fires (k BIGINT PRIMARY KEY, u BIGINT UNIQUE)";
    let Some(mut f) = Fixture::new("guard_own", &[own, fires]).await else { return };
    f.run("CREATE TRIGGER gone BEFORE DELETE ON fires FOR EACH ROW SIGNAL SQLSTATE '45000'").await;
    for (table, o) in [("own", "|7"), ("fires", "")] {
        f.run(&format!("INSERT INTO {table} (k, u) VALUES (1, 1), (2, 2), (3, 3)")).await;
        let t = schema(table, &[("k", INT), ("u", INT)]);
        let becomes = |k, from, to| over(update(&t, &[int(k), int(to)]), &[image(&[int(k), int(from)])]);
        let batch = f.batch(vec![becomes(1, 1, 2), becomes(2, 2, 1), becomes(3, 3, 30)]);
        let applied = f.try_apply(&batch).await.unwrap();
        assert_eq!(refused(&applied), [0, 1].map(|write| (write, ErrorClass::Dependency)), "{applied:?}");
        assert_eq!(f.rows(table).await, ["1|1", "2|2", "3|30"].map(|row| format!("{row}{o}")));
    }
    f.close().await;
}
