//! Unique values, foreign keys, deferred constraints and triggers that a batch can meet.

use crate::fixture::*;
use sync_worker_core::value::Value::{Int, Text};
use sync_worker_postgres::config::SessionReplicationRole;

#[test]
fn unique_values_that_move_between_rows() {
    on_server(async |target| {
        target.sql("CREATE TABLE t (id int PRIMARY KEY, name text UNIQUE)").await;
        target.sql("INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd')").await;
        let t = target.schema("t").await;
        let mut applier = target.applier(&["t"]).await;
        // Freed by a delete and by an update, taken by an insert: in sets.
        let applied = applier
            .apply(vec![
                delete(&t, &[Int(3)]),
                create(&t, &[Int(5), Text("c")]),
                update(&t, &[Int(4), Text("x")]),
                create(&t, &[Int(6), Text("d")]),
            ])
            .await;
        assert!(!applied.row_by_row);
        // Swapped by way of a third value: in source order only.
        let applied = applier
            .apply(vec![
                update(&t, &[Int(1), Text("t")]),
                update(&t, &[Int(2), Text("a")]),
                update(&t, &[Int(1), Text("b")]),
            ])
            .await;
        assert!(applied.refused.is_empty());
        assert_eq!(target.table("t").await, ["(1,b)", "(2,a)", "(4,x)", "(5,c)", "(6,d)"]);
        assert_eq!(target.marker().await, "(3,log-1,-4,1,3)");
    });
}

#[test]
fn parents_before_children_where_foreign_keys_are_checked() {
    on_server(async |target| {
        let target = target.with_role(SessionReplicationRole::Origin);
        target
            .sql("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a)")
            .await;
        target.sql("CREATE TABLE c (id int PRIMARY KEY, b int REFERENCES b, a int REFERENCES a)").await;
        let (a, b, c) = (target.schema("a").await, target.schema("b").await, target.schema("c").await);
        let mut applier = target.applier(&["c", "b", "a"]).await;
        let rows = vec![
            create(&c, &[Int(1), Int(1), Int(1)]),
            create(&b, &[Int(1), Int(1)]),
            create(&a, &[Int(1)]),
            create(&a, &[Int(2)]),
        ];
        assert!(!applier.apply(rows).await.row_by_row);
        let rows = vec![update(&b, &[Int(1), Int(3)]), create(&a, &[Int(3)]), delete(&a, &[Int(2)])];
        assert!(!applier.apply(rows).await.row_by_row);
        assert_eq!(target.table("b").await, ["(1,3)"]);
        let rows = vec![delete(&a, &[Int(1)]), delete(&a, &[Int(3)]), delete(&b, &[Int(1)]), delete(&c, &[Int(1)])];
        assert!(!applier.apply(rows).await.row_by_row);
        for table in ["a", "b", "c"] {
            assert!(target.table(table).await.is_empty());
        }
    });
}

#[test]
fn triggers_and_foreign_keys_rest_as_with_native_replication() {
    on_server(async |target| {
        target
            .sql("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a)")
            .await;
        target.sql("CREATE TABLE seen (what text)").await;
        target.sql("CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.seen VALUES (TG_NAME); \
                    RETURN NEW; END $$").await;
        target.sql("CREATE TRIGGER ordinary AFTER INSERT ON b FOR EACH ROW EXECUTE FUNCTION note()").await;
        target.sql("CREATE TRIGGER always AFTER INSERT ON b FOR EACH ROW EXECUTE FUNCTION note()").await;
        target.sql("ALTER TABLE b ENABLE ALWAYS TRIGGER always").await;
        let b = target.schema("b").await;
        let mut applier = target.applier(&["b"]).await;
        applier.apply(vec![create(&b, &[Int(1), Int(9)])]).await;
        assert_eq!(target.table("b").await, ["(1,9)"]);
        assert_eq!(target.table("seen").await, ["(always)"]);
    });
}

#[test]
fn deferred_constraints_are_met_at_the_end() {
    on_server(async |target| {
        let target = target.with_role(SessionReplicationRole::Origin);
        target.sql("CREATE TABLE t (id int PRIMARY KEY, peer int REFERENCES t DEFERRABLE INITIALLY DEFERRED, name text UNIQUE)").await;
        let t = target.schema("t").await;
        let mut applier = target.applier(&["t"]).await;
        let applied = applier
            .apply(vec![create(&t, &[Int(1), Int(2), Text("a")]), create(&t, &[Int(2), Int(1), Text("b")])])
            .await;
        assert!(!applied.row_by_row);
        // A swap makes it go row by row, through which the circle holds too.
        let applied = applier
            .apply(vec![
                update(&t, &[Int(1), Int(3), Text("t")]),
                update(&t, &[Int(2), Int(1), Text("a")]),
                update(&t, &[Int(1), Int(3), Text("b")]),
                create(&t, &[Int(3), Int(2), Text("c")]),
            ])
            .await;
        assert!(applied.refused.is_empty());
        assert_eq!(target.table("t").await, ["(1,3,b)", "(2,1,a)", "(3,2,c)"]);
    });
}
