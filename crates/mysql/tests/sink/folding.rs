//! Keys that the target's collation takes for one although the source keeps them apart.

use crate::fixture::*;
use sync_worker_core::error::ErrorClass::Dependency;
use sync_worker_core::types::Engine;

/// A table, and two keys that are one by its collation.
const TABLES: [(&str, &str, [&str; 2]); 5] = [
    ("letters", "CREATE TABLE letters (k VARCHAR(20) COLLATE utf8mb4_0900_ai_ci PRIMARY KEY, v INT)", ["a", "A"]),
    ("accents", "CREATE TABLE accents (k VARCHAR(20) COLLATE utf8mb4_general_ci PRIMARY KEY, v INT)", ["e", "é"]),
    ("blanks", "CREATE TABLE blanks (k VARCHAR(20) COLLATE utf8mb4_bin PRIMARY KEY, v INT)", ["a", "a "]),
    ("latin", "CREATE TABLE latin (k VARCHAR(20) CHARACTER SET latin1 PRIMARY KEY, v INT)", ["é", "É"]),
    (
        "uniq",
        "CREATE TABLE uniq (k VARCHAR(20) COLLATE utf8mb4_0900_ai_ci PRIMARY KEY, v INT, w INT UNIQUE)",
        ["a", "A"],
    ),
];

#[tokio::test]
async fn no_row_is_written_over_another_one() {
    let ddl = TABLES.map(|(_, ddl, _)| ddl);
    let Some(mut f) = Fixture::new("folding", &ddl).await else { return };
    for (table, _, [one, other]) in TABLES {
        let t = schema(table, &[("k", TEXT), ("v", INT)]);
        let rows = format!("SELECT k, v FROM {table} ORDER BY v");
        let there = |v: i64| vec![format!("{one}|{v}"), format!("z|{v}")];
        // In one batch, each with others beside it so that sets are written.
        let writes = [one, other, "z"].map(|k| create(&t, &[text(k), int(1)]));
        let applied = f.apply(writes.to_vec()).await;
        assert_eq!(refused(&applied), [(1, Dependency)], "{table}");
        assert!(applied.refused[0].reason.contains("the same by"), "{applied:?}");
        assert_eq!(f.query(&rows).await, there(1), "{table}");
        // A later version of the refused key, by itself and among others.
        let writes = [one, other, "z"].map(|k| update(&t, &[text(k), int(2)]));
        let applied = f.apply(writes.map(|write| Write { parked: true, ..write }).to_vec()).await;
        assert_eq!(refused(&applied), [(1, Dependency)], "{table}");
        assert_eq!(f.query(&rows).await, there(2), "{table}");
        let applied = f.apply(vec![again(update(&t, &[text(other), int(3)]))]).await;
        assert_eq!(refused(&applied), [(0, Dependency)], "{table}");
        // A snapshot row.
        let writes = [one, other, "z"].map(|k| read(&t, &[text(k), int(4)]));
        assert_eq!(refused(&f.apply(writes.to_vec()).await), [(1, Dependency)], "{table}");
        assert_eq!(f.query(&rows).await, there(4), "{table}");
        // The refused key goes at the source, and takes no other row with it.
        let applied = f.apply(vec![delete(&t, &[text(other), U]), delete(&t, &[text("none"), U])]).await;
        assert!(applied.refused.is_empty(), "{table}: {applied:?}");
        f.apply_as_sets(vec![delete(&t, &[text(other), U])]).await;
        assert_eq!(f.query(&rows).await, there(4), "{table}");
        // The row itself may take the other spelling, and give it back.
        f.apply_as_sets(vec![change(&t, &[text(one), U], &[text(other), int(5)])]).await;
        f.apply_as_sets(vec![delete(&t, &[text(other), U]), create(&t, &[text(one), int(6)])]).await;
        f.apply_as_sets(vec![update(&t, &[text("z"), int(7)]), update(&t, &[text(one), int(6)])]).await;
        assert_eq!(f.query(&rows).await, [format!("{one}|6"), "z|7".to_owned()], "{table}");
        f.apply_as_sets(vec![delete(&t, &[text(one), U]), delete(&t, &[text("z"), U])]).await;
        assert!(f.query(&rows).await.is_empty(), "{table}");
    }
    f.close().await;
}

#[tokio::test]
async fn keys_of_which_one_column_folds() {
    let ddl = "CREATE TABLE t (a INT, b VARCHAR(9) COLLATE utf8mb4_0900_as_cs, v INT, PRIMARY KEY (b, a))";
    let Some(mut f) = Fixture::new("folding_pair", &[ddl]).await else { return };
    let t = schema_of(Engine::Postgres, "t", &[("a", INT), ("b", TEXT), ("v", INT)], 2);
    // The letter with its accent, and the letter followed by the accent.
    let (one, other) = ("\u{e9}", "e\u{301}");
    let writes = [(1, one), (1, other), (2, other)].map(|(a, b)| create(&t, &[int(a), text(b), int(1)]));
    assert_eq!(refused(&f.apply(writes.to_vec()).await), [(1, Dependency)]);
    f.apply_as_sets([(1, one), (2, other)].map(|(a, b)| update(&t, &[int(a), text(b), int(2)])).to_vec()).await;
    let writes = [(1, other), (2, other)].map(|(a, b)| delete(&t, &[int(a), text(b), U]));
    f.apply_as_sets(writes.to_vec()).await;
    assert_eq!(f.rows("t").await, [format!("1|{one}|2")]);
    f.close().await;
}
