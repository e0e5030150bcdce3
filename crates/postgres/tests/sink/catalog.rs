//! What the target's catalog asks for, and what it lacks.

use crate::fixture::*;
use std::sync::Arc;
use sync_worker_core::error::{Error, ErrorClass};
use sync_worker_core::schema::Schema;
use sync_worker_core::types::ColumnType;
use sync_worker_core::value::Cell::Present;
use sync_worker_core::value::Value::{Int, Null, Text};
use sync_worker_postgres::config::SessionReplicationRole;

/// A Fatal error that names all of these.
fn names(error: &Error, parts: &[&str]) {
    assert_eq!(error.class(), ErrorClass::Fatal, "{error}");
    let text = error.to_string();
    assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    assert!(!text.contains('\n'), "{text}");
}

#[test]
fn identity_generated_and_defaulted_columns() {
    on_server(async |target| {
        target
            .sql(
                "CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text, \
                  upper text GENERATED ALWAYS AS (upper(name)) STORED, extra text NOT NULL DEFAULT 'default')",
            )
            .await;
        let there = target.schema("t").await;
        let columns = there.columns.iter().filter(|column| column.name != "extra").cloned().collect();
        let t = Arc::new(Schema::new(there.table.clone(), there.engine, columns, there.key.clone()));
        let mut applier = target.applier(&["t"]).await;
        applier
            .apply(vec![
                create(&t, &[Int(7), Text("a")]),
                create(&t, &[Int(8), Text("b")]),
                read(&t, &[Int(9), Text("c")]),
            ])
            .await;
        target.sql("UPDATE t SET extra = 'own'").await;
        let applied = applier.apply(vec![update(&t, &[Int(7), Text("x")]), read(&t, &[Int(9), Text("z")])]).await;
        assert!(!applied.row_by_row);
        // A key that is always generated can't be updated.
        applier.apply(vec![rekey(&t, &[Int(8)], &[Present(Int(80)), Present(Text("eighty"))])]).await;
        assert_eq!(target.table("t").await, ["(7,x,X,own)", "(80,eighty,EIGHTY,default)", "(9,z,Z,own)"]);
    });
}

#[test]
fn a_source_column_that_is_generated_at_the_target_is_left_out() {
    on_server(async |target| {
        target.sql("CREATE TABLE t (id int PRIMARY KEY, a int, b int)").await;
        let t = target.schema("t").await;
        target
            .sql("DROP TABLE t; CREATE TABLE t (b int GENERATED ALWAYS AS (a * 2) STORED, id int PRIMARY KEY, a int)")
            .await;
        let mut applier = target.applier(&["t"]).await;
        applier.apply(vec![create(&t, &[Int(1), Int(4), Int(0)]), create(&t, &[Int(2), Int(4), Int(0)])]).await;
        applier
            .apply(vec![
                patch(&t, &[Present(Int(1)), Present(Int(5)), UNCHANGED]),
                update(&t, &[Int(2), Int(6), Int(0)]),
            ])
            .await;
        assert_eq!(target.table("t").await, ["(10,1,5)", "(12,2,6)"]);
    });
}

#[test]
fn a_missing_table_is_named() {
    on_server(async |target| {
        names(&target.try_sink(&["absent"]).await.err().unwrap(), &["public.absent"]);
        target.sql("CREATE TABLE t (id int PRIMARY KEY)").await;
        let t = target.schema("t").await;
        let mut applier = target.applier(&["t"]).await;
        applier.apply(vec![create(&t, &[Int(1)])]).await;
        target.sql("DROP TABLE t").await;
        names(&applier.fails(vec![create(&t, &[Int(2)])]).await, &["public.t"]);
        assert_eq!(target.marker().await, "(0,log-1,-1,1,2)");
    });
}

#[test]
fn mismatches_are_named() {
    on_server(async |target| {
        target.sql("CREATE TABLE t (id int PRIMARY KEY, a text, b text)").await;
        let t = target.schema("t").await;
        for (table, parts) in [
            ("CREATE TABLE t (id int PRIMARY KEY, b text)", vec!["public.t", "column a", "ADD COLUMN"]),
            ("CREATE TABLE t (id int, a text PRIMARY KEY, b text)", vec!["public.t", "(id)", "primary key"]),
            ("CREATE TABLE t (id int, a text, b text, PRIMARY KEY (id, a))", vec!["public.t", "(id)"]),
            (
                "CREATE TABLE t (id int PRIMARY KEY, a text, b int GENERATED ALWAYS AS IDENTITY)",
                vec!["\"b\"", "BY DEFAULT"],
            ),
        ] {
            target.sql(&format!("DROP TABLE t; {table}")).await;
            let mut applier = target.applier(&["t"]).await;
            names(&applier.fails(vec![create(&t, &[Int(1), Text("a"), Text("b")])]).await, &parts);
            assert!(target.table("t").await.is_empty());
        }
    });
}

#[test]
fn any_unique_index_over_the_key_will_do() {
    on_server(async |target| {
        target.sql("CREATE TABLE t (id int PRIMARY KEY, a int, name text)").await;
        let t = target.schema("t").await;
        let rest = "own int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a int, name text";
        for table in [
            format!("id int NOT NULL UNIQUE, {rest}"),
            format!("id int NOT NULL, UNIQUE (id) DEFERRABLE INITIALLY DEFERRED, {rest}"),
        ] {
            target.sql(&format!("DROP TABLE t; CREATE TABLE t ({table})")).await;
            let mut applier = target.applier(&["t"]).await;
            applier.apply(vec![read(&t, &[Int(1), Int(1), Text("a")]), create(&t, &[Int(2), Int(2), Text("b")])]).await;
            applier.apply(vec![read(&t, &[Int(1), Int(3), Text("c")]), read(&t, &[Int(3), Int(3), Text("d")])]).await;
            applier.apply(vec![update(&t, &[Int(2), Int(4), Null]), delete(&t, &[Int(3)])]).await;
            assert_eq!(target.rows("SELECT id, a, name FROM t").await, ["(1,3,c)", "(2,4,)"]);
            target.sql("DELETE FROM sync_worker.progress").await;
        }
    });
}

#[test]
fn columns_that_come_while_it_runs() {
    on_server(async |target| {
        target.sql("CREATE TABLE t (id int PRIMARY KEY, a text)").await;
        let old = target.schema("t").await;
        let mut applier = target.applier(&["t"]).await;
        applier.apply(vec![create(&old, &[Int(1), Text("one")])]).await;
        target.sql("ALTER TABLE t ADD COLUMN b int").await;
        let new = target.schema("t").await;
        // Both in one batch, for the same key.
        applier
            .apply(vec![
                update(&old, &[Int(1), Text("uno")]),
                patch(&new, &[Present(Int(1)), UNCHANGED, Present(Int(1))]),
                create(&new, &[Int(2), Text("two"), Int(2)]),
            ])
            .await;
        // Behind the worker's back: the statements that it has prepared fit no more.
        target.sql("ALTER TABLE t ALTER COLUMN b TYPE text, ALTER COLUMN id TYPE bigint").await;
        applier.apply(vec![update(&old, &[Int(2), Text("dos")])]).await;
        assert_eq!(target.table("t").await, ["(1,uno,1)", "(2,dos,2)"]);
    });
}

#[test]
fn an_ordinary_user_is_told_what_it_lacks() {
    on_server(async |mut target| {
        target.sql("CREATE TABLE t (id int PRIMARY KEY, a text)").await;
        let role = format!("ordinary_{}", target.rows("SELECT current_database()").await[0].trim_matches(['(', ')']));
        target.sql(&format!("CREATE ROLE {role} LOGIN PASSWORD 'x'")).await;
        let url = target.config.url.clone();
        let at = url.find('@').unwrap();
        target.config.url = format!("postgres://{role}:x{}", &url[at..]);
        let t = target.schema("t").await;
        let mut sink = target.try_sink(&["t"]).await.unwrap();
        names(&sink.take_over(LOG).await.unwrap_err(), &["GRANT CREATE ON DATABASE", &role]);
        target.sql(&format!("CREATE SCHEMA sync_worker AUTHORIZATION {role}")).await;
        let mut applier = target.applier(&["t"]).await;
        names(&applier.fails(vec![create(&t, &[Int(1), Text("a")])]).await, &["permission denied", "table t"]);
        target.sql(&format!("GRANT SELECT, INSERT, UPDATE, DELETE ON t TO {role}")).await;
        let mut applier = target.applier(&["t"]).await;
        // Without the privilege for TRUNCATE, and without the one for session_replication_role.
        applier.apply(vec![create(&t, &[Int(1), Text("a")]), truncate(&t), create(&t, &[Int(2), Text("b")])]).await;
        target.config.session_replication_role = SessionReplicationRole::Replica;
        names(&target.try_sink(&["t"]).await.err().unwrap(), &["session_replication_role", "GRANT SET"]);
        assert_eq!(target.table("t").await, ["(2,b)"]);
        drop(applier);
        target.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
    });
}

#[test]
fn partitioned_tables_take_rows_and_move_them() {
    on_server(async |target| {
        target.sql("CREATE TABLE t (id int, part int, a text, PRIMARY KEY (id, part)) PARTITION BY LIST (part)").await;
        target
            .sql("CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1); CREATE TABLE t2 PARTITION OF t FOR VALUES IN (2)")
            .await;
        let t = target.schema("t").await;
        let mut applier = target.applier(&["t"]).await;
        applier.apply(vec![create(&t, &[Int(1), Int(1), Text("a")]), read(&t, &[Int(2), Int(2), Text("b")])]).await;
        applier
            .apply(vec![
                rekey(&t, &[Int(1), Int(1)], &[Present(Int(1)), Present(Int(2)), UNCHANGED]),
                read(&t, &[Int(2), Int(2), Text("c")]),
            ])
            .await;
        assert_eq!(target.table("t2").await, ["(1,2,a)", "(2,2,c)"]);
        // No partition takes it.
        let (applied, _) = applier.park(vec![create(&t, &[Int(3), Int(3), Null])]).await;
        assert_eq!(applied.refused.len(), 1);
        assert_eq!(target.table("t").await, ["(1,2,a)", "(2,2,c)"]);
    });
}

#[test]
fn names_that_need_quotes() {
    on_server(async |target| {
        target.sql("CREATE TABLE \"Odd\" (\"Id\" int PRIMARY KEY, \"a\"\"b\" text, \"select\" text, u text, t text, n int)").await;
        let t = target.schema("Odd").await;
        assert!(matches!(t.columns[0].kind, ColumnType::Int { .. }));
        let mut applier = target.applier(&["Odd"]).await;
        let all = [Int(1), Text("1"), Text("2"), Text("3"), Text("4"), Int(5)];
        applier.apply(vec![create(&t, &all)]).await;
        applier.apply(vec![update(&t, &[Int(1), Text("a"), Text("b"), Text("c"), Text("d"), Int(6)])]).await;
        applier
            .apply(vec![
                update(&t, &[Int(2), Text("a"), Text("b"), Text("c"), Text("d"), Int(6)]),
                delete(&t, &[Int(1)]),
            ])
            .await;
        assert_eq!(target.table("\"Odd\"").await, ["(2,a,b,c,d,6)"]);
    });
}
