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

/// What is copied comes in the order of the tables and keys, not in that of the foreign keys, and so does what is written to the
/// source before its parent is copied.
#[tokio::test]
async fn copied_rows_do_not_wait_for_their_parents() {
    let ddl = [
        "CREATE TABLE parent (k BIGINT PRIMARY KEY, a BIGINT UNIQUE)",
        "CREATE TABLE child (k BIGINT PRIMARY KEY, p BIGINT, boss BIGINT, n BIGINT UNIQUE, FOREIGN KEY (p) REFERENCES parent (k), \
         FOREIGN KEY (boss) REFERENCES child (k))",
    ];
    let Some(mut f) = Fixture::new("copied", &ddl).await else { return };
    let child = schema("child", &[("k", INT), ("p", INT), ("boss", INT), ("n", INT)]);
    let parent = schema("parent", &[("k", INT), ("a", INT)]);
    let copied = |k| read(&child, &[int(k), int(1), int(k + 1), int(k)]);
    let applied = f.apply((1..=30).map(copied).collect()).await;
    assert_eq!((applied.refused.len(), applied.row_by_row), (0, false), "{applied:?}");
    // Some are there already, and one has a value that another one has.
    let again = (20..=40).map(copied).chain([read(&child, &[int(50), int(1), int(50), int(1)])]);
    let applied = f.apply(again.collect()).await;
    assert_eq!(refused(&applied), [(21, ErrorClass::Dependency)]);
    // A row of its own table waits, and it may refer to that one.
    let early = |k| create(&child, &[int(k), int(1), int(k), int(k)]);
    assert_eq!(refused(&f.apply(vec![early(60)]).await), [(0, ErrorClass::Dependency)]);
    f.run("DELETE FROM sync_worker.parked WHERE installation = DATABASE()").await;
    let applied = f.apply(vec![early(60), update(&child, &[int(40), int(1), int(60), int(40)]), early(62)]).await;
    assert_eq!((applied.refused.len(), applied.row_by_row), (0, false), "{applied:?}");
    // One after the other, beside a row that is refused.
    let moved = change(&child, &[int(62), int(1), int(62), int(62)], &[int(63), int(1), int(63), int(63)]);
    let applied = f.apply(vec![early(61), moved, create(&child, &[int(64), int(1), int(64), int(1)])]).await;
    assert_eq!(refused(&applied), [(2, ErrorClass::Dependency)]);
    f.apply_as_sets(vec![read(&parent, &[int(1), int(1)]), read(&child, &[int(41), int(1), int(41), int(41)])]).await;
    let orphans = "SELECT COUNT(*) FROM child c LEFT JOIN parent p ON p.k = c.p LEFT JOIN child b ON b.k = c.boss \
                   WHERE p.k IS NULL OR b.k IS NULL";
    assert_eq!(f.query(orphans).await, ["0"]);
    assert_eq!(f.query("SELECT COUNT(*), MAX(k) FROM child").await, ["44|63"]);
    // The session checks as before.
    assert_eq!(refused(&f.apply(vec![create(&child, &[int(70), int(7), int(70), int(70)])]).await).len(), 1);
    f.close().await;
}

/// Under a deferrable constraint of the source, which no order of the rows makes up for.
#[tokio::test]
async fn values_that_one_statement_hands_round_arrive() {
    let ddl = [
        UNIQUE,
        "CREATE TABLE parent (k BIGINT PRIMARY KEY, a BIGINT UNIQUE)",
        "CREATE TABLE child (k BIGINT PRIMARY KEY, p BIGINT, FOREIGN KEY (p) REFERENCES parent (k) ON DELETE CASCADE)",
        "CREATE TABLE named (k BIGINT PRIMARY KEY, a BIGINT UNIQUE)",
        "CREATE TABLE by_name (k BIGINT PRIMARY KEY, a BIGINT, FOREIGN KEY (a) REFERENCES named (a) ON DELETE CASCADE)",
    ];
    let Some(mut f) = Fixture::new("round", &ddl).await else { return };
    for (table, others) in [("t", None), ("parent", Some("child")), ("named", Some("by_name"))] {
        let t = schema(table, &[("k", INT), ("a", INT)]);
        f.apply((1..=4).map(|k| create(&t, &[int(k), int(k)])).collect()).await;
        if let Some(others) = others {
            f.run(&format!("INSERT INTO {others} VALUES (1, 1), (2, 3)")).await;
        }
        let becomes = |k, a| update(&t, &[int(k), int(a)]);
        let applied = f.apply(vec![becomes(1, 2), becomes(2, 3), becomes(3, 1)]).await;
        assert!(applied.row_by_row);
        // What refers to the values would refer to other rows.
        let (refused, rows) = match table {
            "named" => (3, ["1|1", "2|2", "3|3", "4|4"]),
            _ => (0, ["1|2", "2|3", "3|1", "4|4"]),
        };
        assert_eq!(applied.refused.len(), refused, "{applied:?}");
        assert_eq!(f.rows(table).await, rows);
        if let Some(others) = others {
            assert_eq!(f.rows(others).await, ["1|1", "2|3"], "nothing has acted");
        }
    }
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
async fn a_child_whose_parent_waits_does_so_too() {
    let Some(mut f) = Fixture::new("orphan", FAMILY).await else { return };
    f.run("ALTER TABLE parent ADD CHECK (a > 0)").await;
    let parent = schema("parent", &[("id", INT), ("a", INT)]);
    let child = schema("child", &[("id", INT), ("p", INT)]);
    let applied = f
        .apply(vec![
            create(&parent, &[int(1), int(1)]),
            create(&child, &[int(1), int(1)]),
            create(&parent, &[int(7), int(0)]),
            create(&child, &[int(2), int(7)]),
        ])
        .await;
    assert_eq!(refused(&applied), [(2, ErrorClass::Poison), (3, ErrorClass::Dependency)]);
    let missing = "the parent row is missing for foreign key child_p (error 1452)";
    assert_eq!(f.parked_rows().await[1], format!("child|3|{missing}"));
    // In a later batch as well, until it has come.
    let applied = f.apply(vec![create(&child, &[int(3), int(7)]), create(&child, &[int(4), int(1)])]).await;
    assert_eq!(refused(&applied), [(0, ErrorClass::Dependency)]);
    assert_eq!(f.rows("child").await, ["1|1", "4|1"]);
    let applied = f.apply(vec![delete(&parent, &[int(1), U])]).await;
    assert_eq!(refused(&applied), [(0, ErrorClass::Dependency)]);
    let writes = [again(update(&parent, &[int(7), int(1)])), again(create(&child, &[int(2), int(7)]))];
    let applied = f.apply(writes.into_iter().chain([again(create(&child, &[int(3), int(7)]))]).collect()).await;
    assert!(applied.refused.is_empty());
    assert_eq!(f.rows("child").await, ["1|1", "2|7", "3|7", "4|1"]);
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

/// A replaced row never was away, whichever statements say so.
#[tokio::test]
async fn a_row_that_comes_back_takes_nothing_along() {
    let ddl = [
        "CREATE TABLE above (k BIGINT PRIMARY KEY)",
        "CREATE TABLE p (k BIGINT PRIMARY KEY, u BIGINT UNIQUE, v BIGINT UNIQUE, a BIGINT, FOREIGN KEY (a) REFERENCES above (k))",
        "CREATE TABLE c (k BIGINT PRIMARY KEY, f BIGINT, FOREIGN KEY (f) REFERENCES p (k) ON DELETE CASCADE)",
        "CREATE TABLE other (k BIGINT PRIMARY KEY, n BIGINT CHECK (n < 10))",
    ];
    let Some(mut f) = Fixture::new("comes_back", &ddl).await else { return };
    let p = schema("p", &[("k", INT), ("u", INT), ("v", INT)]);
    let other = schema("other", &[("k", INT), ("n", INT)]);
    let (above, c) = (schema("above", &[("k", INT)]), schema("c", &[("k", INT), ("f", INT)]));
    f.run("INSERT INTO p (k, u, v) VALUES (1, 1, 2), (2, 11, 22)").await;
    f.run("INSERT INTO c VALUES (5, 1)").await;
    let goes = |k| delete(&p, &[int(k), U, U]);
    let comes = |k, u| create(&p, &[int(k), int(u), int(2 * u)]);
    // By itself; over another row's unique values; beside a refused row.
    f.apply(vec![goes(1), comes(1, 1)]).await;
    let applied = f.apply(vec![goes(1), goes(2), comes(1, 11)]).await;
    assert!(applied.refused.is_empty(), "{applied:?}");
    assert_eq!((f.rows("p").await, f.rows("c").await), (vec!["1|11|22|NULL".to_owned()], vec!["5|1".to_owned()]));
    let applied = f.apply(vec![goes(1), create(&other, &[int(1), int(99)]), comes(1, 12)]).await;
    assert_eq!(refused(&applied), [(1, ErrorClass::Poison)]);
    assert_eq!((f.rows("p").await, f.rows("c").await), (vec!["1|12|24|NULL".to_owned()], vec!["5|1".to_owned()]));
    // Before and behind a changed key.
    f.apply(vec![create(&p, &[int(7), int(70), int(71)])]).await;
    f.apply(vec![goes(1), change(&p, &[int(7), U, U], &[int(8), int(70), int(71)]), comes(1, 13)]).await;
    assert_eq!(f.rows("p").await, ["1|13|26|NULL", "8|70|71|NULL"]);
    assert_eq!(f.rows("c").await, ["5|1"]);
    // One that goes for good takes them.
    f.apply(vec![goes(1)]).await;
    assert!(f.rows("c").await.is_empty());
    // Its parents' table, too, has deletes that are put off, now that all are known.
    f.apply(vec![create(&c, &[int(9), NULL]), create(&above, &[int(1)]), create(&p, &[int(1), int(1), int(2)])]).await;
    f.apply(vec![delete(&above, &[int(1)]), create(&above, &[int(1)])]).await;
    assert_eq!(f.query("SELECT k FROM above").await, ["1"]);
    f.close().await;
}

/// What it would be is the trigger's row that has no parent.
#[tokio::test]
async fn a_row_whose_trigger_writes_a_child_without_its_parent_waits() {
    let ddl = [
        "CREATE TABLE parent (id BIGINT PRIMARY KEY)",
        "CREATE TABLE child (p BIGINT, FOREIGN KEY (p) REFERENCES parent (id))",
        "CREATE TABLE t (id BIGINT PRIMARY KEY)",
        "CREATE TRIGGER makes AFTER INSERT ON t FOR EACH ROW INSERT INTO child VALUES (NEW.id)",
    ];
    let Some(mut f) = Fixture::new("trigger_child", &ddl).await else { return };
    let t = schema("t", &[("id", INT)]);
    f.run("INSERT INTO parent VALUES (1)").await;
    let applied = f.apply(vec![create(&t, &[int(1)]), create(&t, &[int(2)])]).await;
    assert_eq!(refused(&applied), [(1, ErrorClass::Dependency)]);
    assert_eq!(
        (f.query("SELECT id FROM t").await, f.query("SELECT p FROM child").await),
        (vec!["1".to_owned()], vec!["1".to_owned()])
    );
    f.close().await;
}
