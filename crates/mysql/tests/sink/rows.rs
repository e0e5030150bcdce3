//! What sets of changes leave in the tables.

use crate::fixture::*;
use sync_worker_core::types::Engine;

/// The same table where an upsert is allowed and where it is not.
const TABLES: &[&str] = &[
    "CREATE TABLE plain (k BIGINT PRIMARY KEY, a BIGINT, b VARCHAR(20))",
    "CREATE TABLE uniq (k BIGINT PRIMARY KEY, a BIGINT, b VARCHAR(20), UNIQUE (a))",
    "CREATE TABLE latin (k VARCHAR(20) CHARACTER SET latin1 PRIMARY KEY, a BIGINT, UNIQUE (a))",
];

#[tokio::test]
async fn creates_updates_and_deletes_arrive() {
    let Some(mut f) = Fixture::new("crud", TABLES).await else { return };
    for table in ["plain", "uniq"] {
        let t = schema(table, &[("k", INT), ("a", INT), ("b", TEXT)]);
        let applied =
            f.apply_as_sets((1..=5).map(|k| create(&t, &[int(k), int(k * 10), text("it's \\ 'x'")])).collect()).await;
        assert_eq!((applied.rows, applied.missing), (5, 0));
        let applied = f
            .apply_as_sets(vec![
                update(&t, &[int(1), int(11), text("one")]),
                update(&t, &[int(2), int(21), NULL]),
                update(&t, &[int(3), int(31), U]),
                update(&t, &[int(4), U, text("four")]),
                delete(&t, &[int(5), U, U]),
                create(&t, &[int(6), int(60), text("")]),
                // The whole life of a row.
                create(&t, &[int(7), int(70), text("")]),
                delete(&t, &[int(7), U, U]),
                // The same row again.
                update(&t, &[int(1), int(12), U]),
            ])
            .await;
        assert_eq!((applied.rows, applied.missing), (7, 0), "{table}");
        let expected = ["1|12|one", "2|21|NULL", "3|31|it's \\ 'x'", "4|40|four", "6|60|"];
        assert_eq!(f.rows(table).await, expected, "{table}");
    }
    f.close().await;
}

#[tokio::test]
async fn a_single_change_arrives() {
    let Some(mut f) = Fixture::new("single", TABLES).await else { return };
    for table in ["plain", "uniq"] {
        let t = schema(table, &[("k", INT), ("a", INT), ("b", TEXT)]);
        f.apply_as_sets(vec![create(&t, &[int(1), int(1), text("x")])]).await;
        f.apply_as_sets(vec![update(&t, &[int(1), int(1), text("x")])]).await;
        f.apply_as_sets(vec![update(&t, &[int(1), int(2), U])]).await;
        assert_eq!(f.rows(table).await, ["1|2|x"]);
        f.apply_as_sets(vec![delete(&t, &[int(1), U, U])]).await;
        assert!(f.rows(table).await.is_empty());
    }
    f.close().await;
}

#[tokio::test]
async fn a_row_that_is_deleted_and_made_again_is_the_new_one() {
    let Some(mut f) =
        Fixture::new("replace", &["CREATE TABLE t (k BIGINT PRIMARY KEY, a BIGINT, own INT DEFAULT 5)"]).await
    else {
        return;
    };
    let t = schema("t", &[("k", INT), ("a", INT)]);
    f.apply_as_sets(vec![create(&t, &[int(1), int(1)])]).await;
    f.run("UPDATE t SET own = 6").await;
    f.apply_as_sets(vec![update(&t, &[int(1), int(2)])]).await;
    assert_eq!(f.rows("t").await, ["1|2|6"], "a column that the source lacks is left alone");
    f.apply_as_sets(vec![delete(&t, &[int(1), U]), create(&t, &[int(1), int(3)])]).await;
    assert_eq!(f.rows("t").await, ["1|3|5"]);
    f.close().await;
}

#[tokio::test]
async fn keys_of_several_columns_and_of_text() {
    let tables = [
        "CREATE TABLE pair (a BIGINT, b VARCHAR(20) COLLATE utf8mb4_0900_bin, c INT, d INT UNIQUE, PRIMARY KEY (b, a))",
        "CREATE TABLE general (k VARCHAR(20) COLLATE utf8mb4_general_ci PRIMARY KEY, d INT UNIQUE)",
        "CREATE TABLE latin (k VARCHAR(20) CHARACTER SET latin1 COLLATE latin1_bin PRIMARY KEY, d INT UNIQUE)",
        "CREATE TABLE label (k ENUM('a', 'b', 'č') PRIMARY KEY, d INT UNIQUE)",
        "CREATE TABLE moment (k DATETIME(6) PRIMARY KEY, d INT UNIQUE)",
        "CREATE TABLE bytes (k VARBINARY(20) PRIMARY KEY, d INT UNIQUE)",
    ];
    let Some(mut f) = Fixture::new("keys", &tables).await else { return };
    let t = schema_of(Engine::Postgres, "pair", &[("a", INT), ("b", TEXT), ("c", INT), ("d", INT)], 2);
    f.apply_as_sets(
        (1..=9)
            .map(|k| create(&t, &[int(k % 3), text(["x", "y", "ž"][(k as usize - 1) / 3]), int(k), int(k)]))
            .collect(),
    )
    .await;
    let before = f.rows("pair").await;
    assert_eq!(before.len(), 9);
    let updates =
        (1..=9).map(|k| update(&t, &[int(k % 3), text(["x", "y", "ž"][(k as usize - 1) / 3]), int(-k), int(-k)]));
    f.apply_as_sets(updates.collect()).await;
    assert!(f.rows("pair").await.iter().all(|row| row.contains("|-")));
    f.apply_as_sets(vec![delete(&t, &[int(1), text("x"), U, U]), delete(&t, &[int(2), text("x"), U, U])]).await;
    assert_eq!(f.rows("pair").await.len(), 7);

    use sync_worker_core::types::ColumnType;
    use sync_worker_core::value::{Cell, Value};
    let cell = |table: &str, n: i64| -> Cell<'static> {
        match table {
            "label" => text(["a", "b", "č"][n as usize]),
            "moment" => Cell::Present(Value::Timestamp(n * 1_000_001)),
            "bytes" => Cell::Present(Value::Bytes([b"\0", b"'", b"\xFF"][n as usize])),
            _ => text(["a", "b", "é"][n as usize]),
        }
    };
    for (table, kind) in [
        ("general", TEXT),
        ("latin", TEXT),
        ("label", ColumnType::Enum),
        ("moment", ColumnType::Timestamp { precision: 6 }),
        ("bytes", ColumnType::Bytes { limit: None, padded: false }),
    ] {
        let t = schema(table, &[("k", kind), ("d", INT)]);
        f.apply_as_sets((0..3).map(|n| create(&t, &[cell(table, n), int(n)])).collect()).await;
        let applied = f.apply_as_sets((0..3).map(|n| update(&t, &[cell(table, n), int(n + 10)])).collect()).await;
        assert_eq!(applied.missing, 0, "{table}");
        let applied = f.apply_as_sets(vec![delete(&t, &[cell(table, 0), U]), delete(&t, &[cell(table, 2), U])]).await;
        assert_eq!(applied.missing, 0, "{table}");
        assert_eq!(f.query(&format!("SELECT d FROM {table}")).await, ["11"], "{table}");
    }
    f.close().await;
}

#[tokio::test]
async fn computed_and_counted_columns() {
    let ddl =
        "CREATE TABLE t (k BIGINT AUTO_INCREMENT PRIMARY KEY, a INT, twice INT AS (a * 2) STORED, d INT DEFAULT 7)";
    let Some(mut f) = Fixture::new("computed", &[ddl]).await else { return };
    let t = schema("t", &[("k", INT), ("a", INT), ("twice", INT)]);
    f.apply_as_sets(vec![create(&t, &[int(0), int(1), int(9)]), create(&t, &[int(5), int(2), int(9)])]).await;
    f.apply_as_sets(vec![update(&t, &[int(0), int(3), int(9)]), update(&t, &[int(5), int(4), int(9)])]).await;
    assert_eq!(f.rows("t").await, ["0|3|6|7", "5|4|8|7"]);
    f.close().await;
}

#[tokio::test]
async fn a_table_may_have_the_name_of_any_alias() {
    let names = ["n", "t", "N2"];
    let ddl = names.map(|name| format!("CREATE TABLE {name} (k BIGINT PRIMARY KEY, a BIGINT)"));
    let Some(mut f) = Fixture::new("aliases", &ddl.each_ref().map(String::as_str)).await else { return };
    for name in names {
        let t = schema(name, &[("k", INT), ("a", INT)]);
        f.apply_as_sets((1..=3).map(|k| read(&t, &[int(k), int(1)])).collect()).await;
        f.apply_as_sets((1..=3).map(|k| update(&t, &[int(k), int(2)])).collect()).await;
        f.apply_as_sets((1..=2).map(|k| delete(&t, &[int(k), U])).collect()).await;
        assert_eq!(f.rows(name).await, ["3|2"], "{name}");
    }
    f.close().await;
}

#[tokio::test]
async fn snapshot_rows_are_sent_once_and_fire_triggers_once() {
    let ddl = [
        "CREATE TABLE t (k BIGINT PRIMARY KEY, a BIGINT UNIQUE)",
        "CREATE TABLE fired (what VARCHAR(9), k BIGINT)",
        "CREATE TRIGGER inserted AFTER INSERT ON t FOR EACH ROW INSERT INTO fired VALUES ('insert', NEW.k)",
        "CREATE TRIGGER updated AFTER UPDATE ON t FOR EACH ROW INSERT INTO fired VALUES ('update', NEW.k)",
    ];
    let Some(mut f) = Fixture::new("once", &ddl).await else { return };
    let t = schema("t", &[("k", INT), ("a", INT)]);
    let fired = "SELECT what, COUNT(*), COUNT(DISTINCT k) FROM fired GROUP BY what ORDER BY what";
    f.apply_as_sets((1..=200).map(|k| read(&t, &[int(k), int(k)])).collect()).await;
    assert_eq!(f.query(fired).await, ["insert|200|200"]);
    let seen = format!(
        "SELECT COALESCE(SUM(COUNT_STAR), 0) FROM performance_schema.events_statements_summary_by_digest \
         WHERE SCHEMA_NAME = '{}' AND DIGEST_TEXT LIKE 'UPDATE%'",
        f.database
    );
    assert_eq!(f.query(&seen).await, ["0"], "rows of which none was there were looked for");
    // Some are there.
    f.apply_as_sets((101..=300).map(|k| read(&t, &[int(k), int(k + 1000)])).collect()).await;
    assert_eq!(f.query(fired).await, ["insert|300|300", "update|100|100"]);
    f.close().await;
}
