//! Rows that the target can't take: only they are parked, with a reason that names the thing and no value.

use crate::fixture::*;
use sync_worker_core::error::ErrorClass::{Fatal, Poison};
use sync_worker_core::name::TableName;
use sync_worker_core::types::ColumnType;
use sync_worker_core::value::{Cell, Value};

/// What was known of the table when the row was refused is not the last word.
#[tokio::test]
async fn a_row_fits_once_its_column_is_wide_enough() {
    let Some(mut f) = Fixture::new("widened", &["CREATE TABLE t (k BIGINT PRIMARY KEY, a VARCHAR(5))"]).await else {
        return;
    };
    let t = schema("t", &[("k", INT), ("a", TEXT)]);
    let write = create(&t, &[int(1), text("more than five")]);
    let applied = f.apply(vec![write.clone()]).await;
    assert_eq!(refused(&applied), [(0, Poison)]);
    f.run("ALTER TABLE t MODIFY a VARCHAR(50)").await;
    let mut batch = f.batch(Vec::new());
    batch.marker.offset = f.marker.offset;
    batch.writes = vec![sync_worker_core::sink::Write { parked: true, ..write }];
    batch.retry = true;
    let applied = f.try_apply(&batch).await.unwrap();
    assert!(applied.refused.is_empty(), "{applied:?}");
    assert_eq!(f.rows("t").await, ["1|more than five"]);
}

#[tokio::test]
async fn each_refusal_has_its_class_and_reason() {
    let ddl = "CREATE TABLE t (k BIGINT PRIMARY KEY, tiny TINYINT, short VARCHAR(3), needed INT NOT NULL, \
               checked INT CONSTRAINT positive CHECK (checked > 0), doc JSON, label ENUM('a', 'b'), \
               latin VARCHAR(9) CHARACTER SET latin1, real_ DOUBLE, at TIMESTAMP(6) NULL)";
    let Some(mut f) = Fixture::new("reasons", &[ddl]).await else { return };
    let t = schema(
        "t",
        &[
            ("k", INT),
            ("tiny", INT),
            ("short", TEXT),
            ("needed", INT),
            ("checked", INT),
            ("doc", ColumnType::Json { textual: false }),
            ("label", TEXT),
            ("latin", TEXT),
            ("real_", ColumnType::Float64),
            ("at", ColumnType::TimestampTz { precision: 6 }),
        ],
    );
    let good = [NULL, int(1), text("abc"), int(1), int(1), NULL, text("a"), text("é"), NULL, NULL];
    let bad: [(usize, Cell<'_>, &str); 12] = [
        (1, int(200), "tiny"),
        (2, text("abcd"), "short"),
        (2, text("abc "), "short"),
        (3, NULL, "needed"),
        (4, int(0), "positive"),
        (5, Cell::Present(Value::Json("{\"a\":")), "doc"),
        (5, Cell::Present(Value::Json("[12345678901234567890123]")), "doc"),
        (6, text("2"), "label"),
        (7, text("Ж"), "latin"),
        (8, Cell::Present(Value::Float64(f64::NAN)), "real_"),
        (9, Cell::Present(Value::TimestampTz(-1)), "at"),
        (9, Cell::Present(Value::TimestampTz(i64::MAX)), "at"),
    ];
    let mut writes = Vec::new();
    for k in 0..30 {
        let mut cells = good;
        cells[0] = int(k);
        if let Some((column, value, _)) = usize::try_from(k).ok().and_then(|k| bad.get(k)) {
            cells[*column] = *value;
        }
        writes.push(create(&t, &cells));
    }
    let applied = f.apply(writes).await;
    assert_eq!(refused(&applied), (0..bad.len()).map(|write| (write, Poison)).collect::<Vec<_>>(), "{applied:?}");
    for (refused, (_, _, object)) in applied.refused.iter().zip(&bad) {
        assert!(refused.reason.contains(object), "{refused:?} does not name {object}");
        assert!(!refused.reason.contains("Ж") && !refused.reason.contains("1234567"), "{refused:?} shows a value");
    }
    assert_eq!(applied.rows, 18);
    assert_eq!(f.query("SELECT COUNT(*), MIN(k), MAX(k) FROM t").await, ["18|12|29"]);
    assert_eq!(f.parked_rows().await.len(), bad.len());
    let calls = std::mem::take(&mut *f.parked.0.lock().unwrap());
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].len(), bad.len());
    f.close().await;
}

#[tokio::test]
async fn one_bad_row_among_many_costs_little() {
    let Some(mut f) = Fixture::new("bisect", &["CREATE TABLE t (k BIGINT PRIMARY KEY, a INT NOT NULL)"]).await else {
        return;
    };
    let t = schema("t", &[("k", INT), ("a", INT)]);
    let cell = |k: i64| if k == 3_777 { NULL } else { int(k) };
    let before = f.query("SHOW GLOBAL STATUS LIKE 'Com_insert'").await;
    let applied = f.apply((0..5_000).map(|k| create(&t, &[int(k), cell(k)])).collect()).await;
    let after = f.query("SHOW GLOBAL STATUS LIKE 'Com_insert'").await;
    assert_eq!(refused(&applied), [(3_777, Poison)]);
    assert_eq!((applied.rows, applied.row_by_row), (4_999, true));
    assert_eq!(f.query("SELECT COUNT(*) FROM t").await, ["4999"]);
    println!("{before:?} {after:?}");
    f.close().await;
}

#[tokio::test]
async fn a_trigger_that_refuses_is_no_reason_to_stop() {
    let ddl = [
        "CREATE TABLE t (k BIGINT PRIMARY KEY, a INT)",
        "CREATE TRIGGER guard BEFORE INSERT ON t FOR EACH ROW \
         IF NEW.a < 0 THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'secret'; END IF",
    ];
    let Some(mut f) = Fixture::new("trigger", &ddl).await else { return };
    let t = schema("t", &[("k", INT), ("a", INT)]);
    let applied = f.apply(vec![create(&t, &[int(1), int(1)]), create(&t, &[int(2), int(-1)])]).await;
    assert_eq!(refused(&applied), [(1, Poison)]);
    // With triggers an update stays an update.
    f.apply_as_sets(vec![update(&t, &[int(1), int(-5)]), update(&t, &[int(1), int(-6)])]).await;
    assert_eq!(f.rows("t").await, ["1|-6"]);
    f.close().await;
}

#[tokio::test]
async fn what_can_not_be_mended_row_by_row_stops_the_target() {
    let ddl = [
        "CREATE TABLE lacks (k BIGINT PRIMARY KEY)",
        "CREATE TABLE needs (k BIGINT PRIMARY KEY, a INT NOT NULL)",
        "CREATE TABLE other_key (k BIGINT, a BIGINT PRIMARY KEY)",
        "CREATE TABLE no_key (k BIGINT, a BIGINT)",
        "CREATE TABLE aria (k BIGINT PRIMARY KEY, a BIGINT) ENGINE = MyISAM",
        "CREATE TABLE goes (k BIGINT PRIMARY KEY, a BIGINT)",
    ];
    let Some(mut f) = Fixture::new("fatal", &ddl).await else { return };
    for (table, columns, part) in [
        ("lacks", &[("k", INT), ("a", INT)][..], "lacks column a"),
        ("needs", &[("k", INT)][..], "column a has no default"),
        ("other_key", &[("k", INT), ("a", INT)][..], "has the key (a), but its source has (k)"),
        ("no_key", &[("k", INT), ("a", INT)][..], "has the key (), but its source has (k)"),
        ("aria", &[("k", INT), ("a", INT)][..], "not stored in InnoDB"),
        ("nowhere", &[("k", INT), ("a", INT)][..], "not in the pipeline"),
    ] {
        let t = schema(table, columns);
        let cells = [int(1), int(1)];
        let batch = f.batch(vec![create(&t, &cells[..columns.len()])]);
        let error = f.try_apply(&batch).await.unwrap_err();
        assert_eq!(error.class(), Fatal, "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
    // Known to the sink, then changed: it looks again, and says what it finds.
    let t = schema("goes", &[("k", INT), ("a", INT)]);
    f.apply_as_sets(vec![create(&t, &[int(1), int(1)])]).await;
    f.run("ALTER TABLE goes DROP COLUMN a").await;
    let batch = f.batch(vec![create(&t, &[int(2), int(2)])]);
    let error = f.try_apply(&batch).await.unwrap_err();
    assert_eq!((error.class(), error.to_string().contains("lacks column a")), (Fatal, true), "{error}");
    f.run("ALTER TABLE goes ADD COLUMN a INT").await;
    f.apply_as_sets(vec![create(&t, &[int(2), int(2)])]).await;
    assert_eq!(f.rows("goes").await, ["1|NULL", "2|2"]);
    assert_eq!(t.table, TableName::new("goes"));
    f.close().await;
}

#[tokio::test]
async fn a_row_above_the_packet_limit_is_refused_and_large_batches_are_split() {
    let ddl = "CREATE TABLE t (k BIGINT PRIMARY KEY, a LONGTEXT)";
    let Some(mut f) = Fixture::new("packets", &[ddl]).await else { return };
    let t = schema("t", &[("k", INT), ("a", TEXT)]);
    let limit: usize = f.query("SELECT @@max_allowed_packet").await[0].parse().unwrap();
    let (large, huge) = ("x".repeat(limit / 3), "y".repeat(limit));
    let applied = f
        .apply(vec![
            create(&t, &[int(1), text(&large)]),
            create(&t, &[int(2), text(&huge)]),
            create(&t, &[int(3), text(&large)]),
            create(&t, &[int(4), text(&large)]),
        ])
        .await;
    assert_eq!(refused(&applied), [(1, Poison)]);
    assert!(applied.refused[0].reason.contains("max_allowed_packet"), "{applied:?}");
    let length = limit / 3;
    assert_eq!(f.query("SELECT k, LENGTH(a) FROM t ORDER BY k").await, [1, 3, 4].map(|k| format!("{k}|{length}")));
    f.close().await;
}

#[tokio::test]
async fn what_an_index_over_an_expression_refuses_is_parked() {
    let ddl = ["CREATE TABLE t (k BIGINT PRIMARY KEY, j JSON, INDEX tags ((CAST(j->'$.tags' AS UNSIGNED ARRAY))), \
         INDEX word ((CAST(j->>'$.word' AS CHAR(3)))))"];
    let Some(mut f) = Fixture::new("expressions", &ddl).await else { return };
    let t = schema("t", &[("k", INT), ("j", sync_worker_core::types::ColumnType::Json { textual: false })]);
    let json = |text| sync_worker_core::value::Cell::Present(sync_worker_core::value::Value::Json(text));
    let documents =
        [r#"{"tags":[1,2]}"#, r#"{"tags":["x"]}"#, r#"{"word":"abcdef"}"#, r#"{"tags":[-1]}"#, r#"{"word":"ab"}"#];
    let writes = documents.iter().zip(1..).map(|(document, k)| create(&t, &[int(k), json(document)]));
    let applied = f.apply(writes.collect()).await;
    assert_eq!(refused(&applied), [(1, Poison), (2, Poison), (3, Poison)], "{applied:?}");
    assert!(applied.refused[1].reason.contains("index word"), "{applied:?}");
    assert_eq!(f.query("SELECT k FROM t ORDER BY k").await, ["1", "5"]);
    f.close().await;
}
