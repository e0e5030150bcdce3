//! What becomes of rows: sets, several changes of a key, missing rows, changed keys, truncates.

use crate::fixture::*;
use sync_worker_core::value::Cell::Present;
use sync_worker_core::value::Value::{Int, Null, Text};
use sync_worker_postgres::config::SessionReplicationRole;

const TABLE: &str = "CREATE TABLE t (id bigint PRIMARY KEY, name text, note text)";

#[test]
fn inserts_updates_and_deletes_of_one_batch() {
    on_server(async |target| {
        target.sql(TABLE).await;
        target.sql("INSERT INTO t SELECT n, 'old', 'kept' FROM generate_series(1, 6) n").await;
        let t = target.schema("t").await;
        let mut applier = target.applier(&["t"]).await;
        let applied = applier
            .apply(vec![
                update(&t, &[Int(1), Text("new"), Null]),
                patch(&t, &[Present(Int(2)), Present(Text("new")), UNCHANGED]),
                patch(&t, &[Present(Int(3)), UNCHANGED, Present(Text("new"))]),
                patch(&t, &[Present(Int(6)), UNCHANGED, UNCHANGED]),
                delete(&t, &[Int(4)]),
                create(&t, &[Int(7), Text("seven"), Text("it's \"quoted\", with {braces} and \\")]),
                create(&t, &[Int(8), Null, Text("")]),
            ])
            .await;
        assert_eq!((applied.rows, applied.missing, applied.row_by_row), (7, 0, false));
        let expected = [
            "(1,new,)",
            "(2,new,kept)",
            "(3,old,new)",
            "(5,old,kept)",
            "(6,old,kept)",
            "(7,seven,\"it's \"\"quoted\"\", with {braces} and \\\\\")",
            "(8,,\"\")",
        ];
        assert_eq!(target.table("t").await, expected);
        assert_eq!(target.marker().await, "(0,log-1,-1,1,2)");
    });
}

#[test]
fn composite_keys_in_another_order_than_the_columns() {
    on_server(async |target| {
        target.sql("CREATE TABLE t (v text, b varchar(10), a char(4), PRIMARY KEY (a, b))").await;
        let t = target.schema("t").await;
        let mut applier = target.applier(&["t"]).await;
        let key = |a, b| [Text(a), Text(b)];
        applier
            .apply(vec![
                create(&t, &[Text("1"), Text("x"), Text("k   ")]),
                create(&t, &[Text("2"), Text("y"), Text("k   ")]),
                create(&t, &[Text("3"), Text("y"), Text("kkkk")]),
            ])
            .await;
        let applied = applier
            .apply(vec![
                update(&t, &[Text("1b"), Text("x"), Text("k   ")]),
                delete(&t, &key("k   ", "y")),
                rekey(&t, &key("kkkk", "y"), &[UNCHANGED, Present(Text("z")), Present(Text("kkkk"))]),
            ])
            .await;
        assert_eq!((applied.rows, applied.missing, applied.row_by_row), (3, 0, false));
        assert_eq!(target.table("t").await, ["(1b,x,\"k   \")", "(3,z,kkkk)"]);
    });
}

#[test]
fn a_table_that_is_all_key() {
    on_server(async |target| {
        target.sql("CREATE TABLE t (a int, b int, PRIMARY KEY (a, b))").await;
        let t = target.schema("t").await;
        let mut applier = target.applier(&["t"]).await;
        applier.apply(vec![create(&t, &[Int(1), Int(2)]), read(&t, &[Int(1), Int(3)])]).await;
        applier
            .apply(vec![update(&t, &[Int(1), Int(2)]), read(&t, &[Int(1), Int(3)]), update(&t, &[Int(2), Int(2)])])
            .await;
        applier
            .apply(vec![
                delete(&t, &[Int(1), Int(3)]),
                rekey(&t, &[Int(2), Int(2)], &[Present(Int(9)), Present(Int(2))]),
            ])
            .await;
        assert_eq!(target.table("t").await, ["(1,2)", "(9,2)"]);
    });
}

#[test]
fn a_truncate_keeps_its_place_in_the_order() {
    on_server(async |mut target| {
        target
            .sql("CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (id int PRIMARY KEY REFERENCES parent)")
            .await;
        target.sql("INSERT INTO parent VALUES (1), (2); INSERT INTO child VALUES (1), (2)").await;
        let (parent, child) = (target.schema("parent").await, target.schema("child").await);
        for role in [SessionReplicationRole::Replica, SessionReplicationRole::Origin] {
            target.config.session_replication_role = role;
            let mut applier = target.applier(&["parent", "child"]).await;
            let applied = applier
                .apply(vec![
                    update(&parent, &[Int(1)]),
                    truncate(&child),
                    truncate(&parent),
                    create(&parent, &[Int(5)]),
                    create(&child, &[Int(5)]),
                ])
                .await;
            assert!(!applied.row_by_row, "{role:?}");
            assert_eq!(target.table("parent").await, ["(5)"]);
            assert_eq!(target.table("child").await, ["(5)"]);
        }
    });
}

#[test]
fn rows_are_found_by_their_key_however_a_table_grows() {
    on_server(async |target| {
        target.sql(TABLE).await;
        target.sql("ALTER TABLE t SET (autovacuum_enabled = off)").await;
        let t = target.schema("t").await;
        let mut applier = target.applier(&["t"]).await;
        let mut rows = 0;
        // Its plans are made while the table is all but empty.
        for size in [1, 1, 3, 10, 100, 1_000, 5_000, 5_000] {
            applier.apply((rows..rows + size).map(|id| create(&t, &[Int(id), Null, Null])).collect()).await;
            rows += size;
            applier.apply((0..rows).map(|id| update(&t, &[Int(id), Text("x"), Null])).collect()).await;
        }
        assert_eq!(target.rows("SELECT name, count(*) FROM t GROUP BY 1").await, [format!("(x,{rows})")]);
        drop(applier);
        // Its backend reports what it did when it ends.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        loop {
            let sql =
                "SELECT n_tup_upd >= 18483, seq_tup_read + idx_tup_fetch FROM pg_stat_user_tables WHERE relname = 't'";
            let seen = target.rows(sql).await.remove(0);
            if let Some(read) = seen.strip_prefix("(t,") {
                let read: i64 = read.trim_end_matches(')').parse().unwrap();
                assert!(read < 100_000, "{read} rows were read for 18,483 updates");
                return;
            }
            assert!(std::time::Instant::now() < deadline, "no statistics came: {seen}");
        }
    });
}

#[test]
fn tables_that_inherit_are_left_alone() {
    on_server(async |target| {
        target.sql(TABLE).await;
        target.sql("CREATE TABLE heir () INHERITS (t); INSERT INTO heir VALUES (1, 'heir', 'own')").await;
        let t = target.schema("t").await;
        let mut applier = target.applier(&["t"]).await;
        applier.apply(vec![create(&t, &[Int(1), Text("a"), Null]), create(&t, &[Int(2), Text("a"), Null])]).await;
        applier.apply(vec![update(&t, &[Int(1), Text("b"), Null]), delete(&t, &[Int(2)])]).await;
        assert_eq!(target.rows("SELECT * FROM ONLY t").await, ["(1,b,)"]);
        applier.apply(vec![truncate(&t)]).await;
        assert_eq!(target.table("t").await, ["(1,heir,own)"]);
    });
}
