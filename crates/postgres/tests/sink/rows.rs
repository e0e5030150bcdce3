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
fn several_changes_of_a_key_collapse() {
    on_server(async |target| {
        target.sql(TABLE).await;
        target.sql("INSERT INTO t SELECT n, 'old', 'kept' FROM generate_series(1, 3) n").await;
        let t = target.schema("t").await;
        let mut applier = target.applier(&["t"]).await;
        let applied = applier
            .apply(vec![
                patch(&t, &[Present(Int(1)), Present(Text("a")), UNCHANGED]),
                patch(&t, &[Present(Int(1)), Present(Text("b")), UNCHANGED]),
                delete(&t, &[Int(2)]),
                create(&t, &[Int(2), Text("again"), Null]),
                update(&t, &[Int(3), Text("x"), Text("x")]),
                delete(&t, &[Int(3)]),
                create(&t, &[Int(4), Text("never"), Text("seen")]),
                delete(&t, &[Int(4)]),
                create(&t, &[Int(5), Text("a"), Text("first")]),
                patch(&t, &[Present(Int(5)), Present(Text("b")), UNCHANGED]),
                create(&t, &[Int(6), Text("a"), Null]),
                delete(&t, &[Int(6)]),
                create(&t, &[Int(6), Text("b"), Null]),
            ])
            .await;
        assert_eq!((applied.rows, applied.missing, applied.row_by_row), (6, 0, false));
        assert_eq!(target.table("t").await, ["(1,b,kept)", "(2,again,)", "(5,b,first)", "(6,b,)"]);
    });
}

#[test]
fn snapshot_rows_are_inserted_or_overwrite_their_key() {
    on_server(async |target| {
        target.sql(TABLE).await;
        target.sql("INSERT INTO t VALUES (1, 'old', 'old')").await;
        let t = target.schema("t").await;
        let mut applier = target.applier(&["t"]).await;
        let rows = (1..=1_000).map(|id| read(&t, &[Int(id), Text("copied"), Null])).collect::<Vec<_>>();
        assert!(!applier.apply(rows.clone()).await.row_by_row);
        applier.apply(rows).await;
        assert_eq!(
            target.rows("SELECT count(*), min(name), max(name), max(note) FROM t").await,
            ["(1000,copied,copied,)"]
        );
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
fn an_update_that_finds_no_row_inserts_a_complete_image() {
    on_server(async |target| {
        target.sql(TABLE).await;
        target.sql("INSERT INTO t SELECT n, 'old', 'old' FROM generate_series(1, 100) n").await;
        let t = target.schema("t").await;
        let mut applier = target.applier(&["t"]).await;
        for _ in 0..2 {
            let changes = (51..=150).map(|id| update(&t, &[Int(id), Text("new"), Null])).collect();
            let applied = applier.apply(changes).await;
            assert_eq!((applied.rows, applied.missing, applied.row_by_row), (100, 50, false));
            assert_eq!(target.rows("SELECT name, count(*) FROM t GROUP BY 1").await, ["(new,100)", "(old,50)"]);
            target.sql("DELETE FROM t WHERE id > 100").await;
        }
    });
}

#[test]
fn a_delete_that_finds_no_row_is_counted() {
    on_server(async |target| {
        target.sql(TABLE).await;
        target.sql("INSERT INTO t VALUES (1, 'x', 'x')").await;
        let t = target.schema("t").await;
        let mut applier = target.applier(&["t"]).await;
        let applied = applier.apply(vec![delete(&t, &[Int(1)]), delete(&t, &[Int(2)])]).await;
        assert_eq!((applied.rows, applied.missing, applied.row_by_row), (2, 1, false));
        assert!(target.table("t").await.is_empty());
    });
}

#[test]
fn changed_keys_keep_their_place_in_the_order() {
    on_server(async |target| {
        target.sql(TABLE).await;
        target.sql("INSERT INTO t SELECT n, 'n' || n, 'kept' FROM generate_series(1, 3) n").await;
        let t = target.schema("t").await;
        let mut applier = target.applier(&["t"]).await;
        let moved = |id| [Present(Int(id)), UNCHANGED, UNCHANGED];
        let applied = applier
            .apply(vec![
                patch(&t, &[Present(Int(1)), Present(Text("one")), UNCHANGED]),
                // 1 and 2 change places by way of 10.
                rekey(&t, &[Int(1)], &moved(10)),
                rekey(&t, &[Int(2)], &moved(1)),
                rekey(&t, &[Int(10)], &[Present(Int(2)), UNCHANGED, Present(Text("moved"))]),
                patch(&t, &[Present(Int(2)), Present(Text("last")), UNCHANGED]),
                rekey(&t, &[Int(3)], &moved(4)),
                create(&t, &[Int(3), Text("new"), Null]),
            ])
            .await;
        assert!(!applied.row_by_row);
        assert_eq!(target.table("t").await, ["(1,n2,kept)", "(2,last,moved)", "(3,new,)", "(4,n3,kept)"]);
    });
}

#[test]
fn a_changed_key_whose_row_is_missing_or_already_there() {
    on_server(async |target| {
        target.sql(TABLE).await;
        target.sql("INSERT INTO t VALUES (1, 'stale', 'stale'), (2, 'copied', 'copied'), (3, 'stale', 'x')").await;
        target.sql("INSERT INTO t VALUES (4, 'copied', 'kept')").await;
        let t = target.schema("t").await;
        let mut applier = target.applier(&["t"]).await;
        let whole = |id, name| [Present(Int(id)), Present(Text(name)), Present(Null)];
        // Its new key was copied before the change came.
        assert!(applier.apply(vec![rekey(&t, &[Int(1)], &whole(2, "two"))]).await.row_by_row);
        let partial = [Present(Int(4)), Present(Text("four")), UNCHANGED];
        applier.apply(vec![rekey(&t, &[Int(3)], &partial)]).await;
        // Its old key was never copied.
        let applied = applier.apply(vec![rekey(&t, &[Int(7)], &whole(8, "eight"))]).await;
        assert_eq!((applied.missing, applied.row_by_row), (1, false));
        assert_eq!(target.table("t").await, ["(2,two,)", "(4,four,kept)", "(8,eight,)"]);
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
fn an_insert_that_finds_its_key_overwrites_the_row() {
    on_server(async |target| {
        target.sql(TABLE).await;
        target.sql("INSERT INTO t SELECT n, 'old', 'old' FROM generate_series(1, 100) n").await;
        let t = target.schema("t").await;
        let mut applier = target.applier(&["t"]).await;
        for _ in 0..2 {
            let changes = (51..=150).map(|id| create(&t, &[Int(id), Text("new"), Null])).collect();
            let applied = applier.apply(changes).await;
            assert_eq!((applied.rows, applied.row_by_row), (100, false));
            assert_eq!(target.rows("SELECT name, count(*) FROM t GROUP BY 1").await, ["(new,100)", "(old,50)"]);
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
