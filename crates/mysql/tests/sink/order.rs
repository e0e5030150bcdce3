//! Changed keys, truncates, unique values that wander, parents and children.

use crate::fixture::*;
use std::time::Duration;
use sync_worker_core::error::ErrorClass;

/// For what would take a moment.
const LIMIT: Duration = Duration::from_secs(60);

const UNIQUE: &str = "CREATE TABLE t (k BIGINT PRIMARY KEY, a BIGINT, UNIQUE (a))";

#[tokio::test]
async fn a_refused_change_of_a_key_leaves_no_row_behind() {
    let Some(mut f) = Fixture::new("keyrefused", &[UNIQUE]).await else { return };
    let t = schema("t", &[("k", INT), ("a", INT)]);
    f.apply_as_sets(vec![create(&t, &[int(1), int(1)])]).await;
    f.run("INSERT INTO t VALUES (50, 5)").await;
    let moved = change(&t, &[int(1), int(1)], &[int(2), int(5)]);
    let applied = f.apply(vec![moved, create(&t, &[int(3), int(3)])]).await;
    assert_eq!(refused(&applied), [(0, ErrorClass::Dependency)]);
    assert_eq!(f.rows("t").await, ["3|3", "50|5"]);
    f.apply_as_sets(vec![delete(&t, &[int(3), U]), create(&t, &[int(1), int(7)])]).await;
    assert_eq!(f.rows("t").await, ["1|7", "50|5"]);
    // Another row has the old key now: the version that waits is about its new key alone.
    let waiting = update(&t, &[int(2), int(5)]);
    let applied = f.retry(waiting.clone(), 1).await;
    assert_eq!(refused(&applied), [(0, ErrorClass::Dependency)]);
    f.run("DELETE FROM t WHERE k = 50").await;
    let applied = f.retry(waiting, 1).await;
    assert!(applied.refused.is_empty());
    assert_eq!(f.rows("t").await, ["1|7", "2|5"]);
    assert!(f.parked_rows().await.is_empty());
    f.close().await;
}

/// It would take the rows that refer to it along, and nobody would send those again.
#[tokio::test]
async fn a_refused_change_of_a_key_that_others_go_with_leaves_its_row() {
    let ddl = [
        "CREATE TABLE parent (id BIGINT PRIMARY KEY, code BIGINT UNIQUE, u BIGINT UNIQUE)",
        "CREATE TABLE child (id BIGINT PRIMARY KEY, p BIGINT, FOREIGN KEY (p) REFERENCES parent (code) ON DELETE CASCADE)",
    ];
    let Some(mut f) = Fixture::new("keycascade", &ddl).await else { return };
    let parent = schema("parent", &[("id", INT), ("code", INT), ("u", INT)]);
    let child = schema("child", &[("id", INT), ("p", INT)]);
    f.apply_as_sets(vec![
        create(&parent, &[int(1), int(1), int(1)]),
        create(&child, &[int(1), int(1)]),
        create(&child, &[int(2), int(1)]),
    ])
    .await;
    f.run("INSERT INTO parent VALUES (999, 999, 77)").await;
    let moved = change(&parent, &[int(1), int(1), int(1)], &[int(50), int(1), int(77)]);
    let applied = f.apply(vec![moved.clone(), create(&child, &[int(3), int(1)])]).await;
    assert_eq!(refused(&applied), [(0, ErrorClass::Dependency)]);
    assert_eq!(f.rows("child").await, ["1|1", "2|1", "3|1"]);
    f.run("DELETE FROM parent WHERE id = 999").await;
    assert!(f.retry(moved, 1).await.refused.is_empty());
    assert_eq!(f.rows("parent").await, ["50|1|77"]);
    assert_eq!(f.rows("child").await, ["1|1", "2|1", "3|1"]);
    assert!(f.parked_rows().await.is_empty());
    f.close().await;
}

/// Each changed key begins another set, and what a missing row asks for holds for all of them.
#[tokio::test]
async fn a_missing_row_is_made_up_for_behind_a_hundred_sets() {
    let Some(mut f) = Fixture::new("manysets", &[UNIQUE]).await else { return };
    let t = schema("t", &[("k", INT), ("a", INT)]);
    f.apply_as_sets((1..=102).map(|k| create(&t, &[int(k), int(k)])).collect()).await;
    f.run("DELETE FROM t WHERE k = 102").await;
    let mut writes = Vec::new();
    for k in 1..=100 {
        writes.push(change(&t, &[int(k), int(k)], &[int(k + 1_000), int(k)]));
        writes.push(update(&t, &[int(101), int(2_000 + k)]));
    }
    writes.push(update(&t, &[int(102), int(7_777)]));
    let applied = tokio::time::timeout(LIMIT, f.apply(writes)).await.expect("it comes to an end");
    assert!(applied.refused.is_empty(), "{applied:?}");
    let rows = f.rows("t").await;
    assert_eq!((rows.len(), &rows[0][..], &rows[1][..]), (102, "101|2100", "102|7777"));
    f.close().await;
}

/// As a source tells a statement that names several.
#[tokio::test]
async fn tables_that_refer_to_each_other_are_truncated_together() {
    let ddl = [
        "CREATE TABLE parent (id BIGINT PRIMARY KEY, v BIGINT)",
        "CREATE TABLE child (id BIGINT PRIMARY KEY, p BIGINT, FOREIGN KEY (p) REFERENCES parent (id))",
    ];
    let Some(mut f) = Fixture::new("truncates", &ddl).await else { return };
    let [parent, child] =
        [("parent", "v"), ("child", "p")].map(|(table, column)| schema(table, &[("id", INT), (column, INT)]));
    f.apply_as_sets(vec![create(&parent, &[int(1), int(1)]), create(&child, &[int(1), int(1)])]).await;
    f.apply_as_sets(vec![truncate(&parent), truncate(&child), create(&parent, &[int(2), int(2)])]).await;
    assert_eq!((f.rows("parent").await, f.rows("child").await), (vec!["2|2".to_owned()], Vec::new()));
    f.close().await;
}

#[tokio::test]
async fn a_truncate_empties_the_table_in_its_place() {
    let Some(mut f) = Fixture::new("truncate", &[UNIQUE]).await else { return };
    let t = schema("t", &[("k", INT), ("a", INT)]);
    f.apply_as_sets((1..=5).map(|k| create(&t, &[int(k), int(k)])).collect()).await;
    f.apply_as_sets(vec![
        create(&t, &[int(6), int(6)]),
        truncate(&t),
        create(&t, &[int(2), int(6)]),
        create(&t, &[int(3), int(5)]),
    ])
    .await;
    assert_eq!(f.rows("t").await, ["2|6", "3|5"]);
    f.close().await;
}

#[tokio::test]
async fn unique_values_wander_between_rows() {
    let Some(mut f) = Fixture::new("unique", &[UNIQUE]).await else { return };
    let t = schema("t", &[("k", INT), ("a", INT)]);
    f.apply_as_sets((1..=4).map(|k| create(&t, &[int(k), int(k)])).collect()).await;
    // Freed by a delete and by an update, each used in the same batch.
    f.apply_as_sets(vec![
        delete(&t, &[int(1), int(1)]),
        create(&t, &[int(10), int(1)]),
        update(&t, &[int(2), int(20)]),
        create(&t, &[int(11), int(2)]),
    ])
    .await;
    assert_eq!(f.rows("t").await, ["2|20", "3|3", "4|4", "10|1", "11|2"]);
    // A swap: no set of statements can do it, the rows one after another can.
    let applied = f
        .apply(vec![
            update(&t, &[int(3), int(0)]),
            update(&t, &[int(4), int(3)]),
            update(&t, &[int(3), int(4)]),
            update(&t, &[int(2), int(21)]),
        ])
        .await;
    assert!(applied.refused.is_empty() && applied.row_by_row);
    assert_eq!(f.rows("t").await, ["2|21", "3|4", "4|3", "10|1", "11|2"]);
    f.close().await;
}

#[tokio::test]
async fn a_taken_unique_value_parks_its_row_and_spares_the_other() {
    let Some(mut f) = Fixture::new("taken", &[UNIQUE]).await else { return };
    let t = schema("t", &[("k", INT), ("a", INT)]);
    f.run("INSERT INTO t VALUES (100, 5)").await;
    let mut writes: Vec<_> = (1..=8).map(|k| create(&t, &[int(k), int(k)])).collect();
    writes.push(read(&t, &[int(9), int(5)]));
    writes.push(update(&t, &[int(10), int(5)]));
    let applied = f.apply(writes).await;
    assert_eq!(
        refused(&applied),
        [(4, ErrorClass::Dependency), (8, ErrorClass::Dependency), (9, ErrorClass::Dependency)]
    );
    let mut expected: Vec<_> = [1, 2, 3, 4, 6, 7, 8].map(|k| format!("{k}|{k}")).into();
    expected.push("100|5".to_owned());
    assert_eq!(f.rows("t").await, expected);
    let reason = "another row has the same value in unique index t.a (error 1062)";
    assert_eq!(f.parked_rows().await, [4, 8, 9].map(|offset| format!("t|{offset}|{reason}")));
    // Tried again when the value is free.
    f.run("DELETE FROM t WHERE k = 100").await;
    let applied = f.apply(vec![again(create(&t, &[int(5), int(5)]))]).await;
    assert!(applied.refused.is_empty());
    assert_eq!(f.parked_rows().await.len(), 2);
    f.close().await;
}

const FAMILY: &[&str] = &[
    "CREATE TABLE parent (id BIGINT PRIMARY KEY, a INT)",
    "CREATE TABLE child (id BIGINT PRIMARY KEY, p BIGINT, CONSTRAINT child_p FOREIGN KEY (p) REFERENCES parent (id))",
    "CREATE TABLE tree (id BIGINT PRIMARY KEY, up BIGINT, FOREIGN KEY (up) REFERENCES tree (id))",
];

#[tokio::test]
async fn parents_come_before_children_and_go_after_them() {
    let Some(mut f) = Fixture::new("family", FAMILY).await else { return };
    let parent = schema("parent", &[("id", INT), ("a", INT)]);
    let child = schema("child", &[("id", INT), ("p", INT)]);
    let tree = schema("tree", &[("id", INT), ("up", INT)]);
    // The child comes up first in the batch.
    f.apply_as_sets(vec![create(&parent, &[int(1), int(1)])]).await;
    f.apply_as_sets(vec![
        create(&child, &[int(1), int(1)]),
        create(&parent, &[int(2), int(2)]),
        create(&child, &[int(2), int(2)]),
        update(&child, &[int(1), int(2)]),
        create(&tree, &[int(1), NULL]),
        create(&tree, &[int(2), int(1)]),
        create(&tree, &[int(3), int(2)]),
    ])
    .await;
    assert_eq!(f.rows("child").await, ["1|2", "2|2"]);
    f.apply_as_sets(vec![
        delete(&child, &[int(1), U]),
        delete(&child, &[int(2), U]),
        delete(&parent, &[int(2), U]),
        delete(&parent, &[int(1), U]),
    ])
    .await;
    assert!(f.rows("child").await.is_empty() && f.rows("parent").await.is_empty());
    let applied = f.apply((1..=3).rev().map(|id| delete(&tree, &[int(id), U])).collect()).await;
    assert!(applied.refused.is_empty() && f.rows("tree").await.is_empty());
    f.close().await;
}

#[tokio::test]
async fn a_child_without_its_parent_waits() {
    let Some(mut f) = Fixture::new("orphan", FAMILY).await else { return };
    let parent = schema("parent", &[("id", INT), ("a", INT)]);
    let child = schema("child", &[("id", INT), ("p", INT)]);
    let applied = f
        .apply(vec![
            create(&parent, &[int(1), int(1)]),
            create(&child, &[int(1), int(1)]),
            create(&child, &[int(2), int(7)]),
        ])
        .await;
    assert_eq!(refused(&applied), [(2, ErrorClass::Dependency)]);
    assert_eq!(f.parked_rows().await, ["child|2|the parent row is missing for foreign key child_p (error 1452)"]);
    assert_eq!(f.rows("child").await, ["1|1"]);
    let applied = f.apply(vec![delete(&parent, &[int(1), U])]).await;
    assert_eq!(refused(&applied), [(0, ErrorClass::Dependency)]);
    let applied = f.apply(vec![create(&parent, &[int(7), int(1)]), again(create(&child, &[int(2), int(7)]))]).await;
    assert!(applied.refused.is_empty());
    assert_eq!(f.rows("child").await, ["1|1", "2|7"]);
    // A truncate can't wait under a key.
    let batch = f.batch(vec![truncate(&parent)]);
    assert_eq!(f.try_apply(&batch).await.unwrap_err().class(), ErrorClass::Fatal);
    f.close().await;
}

const ACTIONS: &[&str] = &[
    "CREATE TABLE customer (id BIGINT PRIMARY KEY, name BIGINT)",
    "CREATE TABLE orders (id BIGINT PRIMARY KEY, c BIGINT, FOREIGN KEY (c) REFERENCES customer (id) ON DELETE CASCADE)",
    "CREATE TABLE item (id BIGINT PRIMARY KEY, o BIGINT, FOREIGN KEY (o) REFERENCES orders (id) ON DELETE CASCADE)",
];

/// At the source the orders got another customer before their old one went, and a customer that comes again is the same to them.
#[tokio::test]
async fn a_delete_acts_on_none_that_has_left_before() {
    let Some(mut f) = Fixture::new("actions", ACTIONS).await else { return };
    let customer = schema("customer", &[("id", INT), ("name", INT)]);
    let orders = schema("orders", &[("id", INT), ("c", INT)]);
    f.run("INSERT INTO customer VALUES (1, 1), (2, 2), (3, 3)").await;
    f.run("INSERT INTO orders VALUES (5, 1), (6, 1), (8, 3)").await;
    f.run("INSERT INTO item VALUES (7, 5), (9, 8)").await;
    f.apply_as_sets(vec![
        update(&orders, &[int(5), int(2)]),
        update(&orders, &[int(6), int(2)]),
        delete(&customer, &[int(1), U]),
        delete(&customer, &[int(3), U]),
        create(&customer, &[int(3), int(4)]),
    ])
    .await;
    assert_eq!(f.rows("customer").await, ["2|2", "3|4"]);
    assert_eq!(f.rows("orders").await, ["5|2", "6|2", "8|3"]);
    assert_eq!(f.rows("item").await, ["7|5", "9|8"]);
    f.close().await;
}
