//! Unique values, foreign keys, deferred constraints and triggers that a batch can meet.

use crate::fixture::*;
use sync_worker_core::error::ErrorClass::Dependency;
use sync_worker_core::value::Cell;
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

/// At the source the orders got another customer before their old one went.
#[test]
fn a_delete_acts_on_none_that_has_left_before() {
    on_server(async |target| {
        let target = target.with_role(SessionReplicationRole::Origin);
        target.sql("CREATE TABLE customer (id int PRIMARY KEY)").await;
        target
            .sql("CREATE TABLE orders (id int PRIMARY KEY, customer int REFERENCES customer ON DELETE CASCADE)")
            .await;
        target.sql("CREATE TABLE item (id int PRIMARY KEY, orders int REFERENCES orders ON DELETE CASCADE)").await;
        target.sql("INSERT INTO customer VALUES (1), (2); INSERT INTO orders VALUES (5, 1), (6, 1)").await;
        target.sql("INSERT INTO item VALUES (7, 5)").await;
        let (customer, orders) = (target.schema("customer").await, target.schema("orders").await);
        let mut applier = target.applier(&["customer", "orders"]).await;
        let applied = applier
            .apply(vec![
                update(&orders, &[Int(5), Int(2)]),
                update(&orders, &[Int(6), Int(2)]),
                delete(&customer, &[Int(1)]),
            ])
            .await;
        assert!(!applied.row_by_row && applied.missing == 0);
        assert_eq!(target.table("orders").await, ["(5,2)", "(6,2)"]);
        assert_eq!(target.table("item").await, ["(7,5)"]);
        assert_eq!(target.table("customer").await, ["(2)"]);
    });
}

/// A replaced row never was away, whichever statements say so.
#[test]
fn a_row_that_comes_back_takes_nothing_along() {
    on_server(async |target| {
        let target = target.with_role(SessionReplicationRole::Origin);
        target.sql("CREATE TABLE p (k int PRIMARY KEY, u int UNIQUE, v int UNIQUE)").await;
        target.sql("CREATE TABLE c (k int PRIMARY KEY, f int REFERENCES p ON DELETE CASCADE)").await;
        target.sql("INSERT INTO p VALUES (1, 1, 2), (2, 11, 22), (7, 70, 71); INSERT INTO c VALUES (5, 1)").await;
        let p = target.schema("p").await;
        let mut applier = target.applier(&["p"]).await;
        let goes = |k| delete(&p, &[Int(k)]);
        let comes = |k, u| create(&p, &[Int(k), Int(u), Int(2 * u)]);
        applier.apply(vec![goes(1), comes(1, 1)]).await;
        applier.apply(vec![goes(1), goes(2), comes(1, 11)]).await;
        assert_eq!(target.table("p").await, ["(1,11,22)", "(7,70,71)"]);
        let moves = rekey(&p, &[Int(7)], &[Int(8), Int(70), Int(71)].map(Cell::Present));
        applier.apply(vec![goes(1), moves, comes(1, 13)]).await;
        assert_eq!(target.table("p").await, ["(1,13,26)", "(8,70,71)"]);
        assert_eq!(target.table("c").await, ["(5,1)"]);
        // Another row gets its key, and keeps what refers to it.
        target.sql("ALTER TABLE c DROP CONSTRAINT c_f_fkey").await;
        target.sql("ALTER TABLE c ADD FOREIGN KEY (f) REFERENCES p ON DELETE CASCADE ON UPDATE CASCADE").await;
        target.sql("INSERT INTO c VALUES (6, 8)").await;
        let moves = rekey(&p, &[Int(8)], &[Int(1), Int(70), Int(71)].map(Cell::Present));
        applier.apply(vec![goes(1), moves]).await;
        assert_eq!(target.table("p").await, ["(1,70,71)"]);
        assert_eq!(target.table("c").await, ["(6,1)"]);
        applier.apply(vec![goes(1)]).await;
        assert!(target.table("c").await.is_empty());
    });
}

/// It would take the rows that refer to it along, and nobody would send those again.
#[test]
fn a_refused_change_of_a_key_that_others_go_with_leaves_its_row() {
    on_server(async |target| {
        let target = target.with_role(SessionReplicationRole::Origin);
        target.sql("CREATE TABLE parent (id int PRIMARY KEY, code int UNIQUE, u int UNIQUE)").await;
        target.sql("CREATE TABLE child (id int PRIMARY KEY, p int REFERENCES parent (code) ON DELETE CASCADE)").await;
        target
            .sql("INSERT INTO parent VALUES (1, 1, 1), (999, 999, 77); INSERT INTO child VALUES (1, 1), (2, 1)")
            .await;
        let (parent, child) = (target.schema("parent").await, target.schema("child").await);
        let mut applier = target.applier(&["parent", "child"]).await;
        let moved = rekey(&parent, &[Int(1)], &[Int(50), Int(1), Int(77)].map(Cell::Present));
        let (_, lot) = applier.park(vec![moved, create(&child, &[Int(3), Int(1)])]).await;
        assert_eq!(lot.refused(), [(0, Dependency)]);
        assert_eq!(target.table("child").await, ["(1,1)", "(2,1)", "(3,1)"]);
        assert_eq!(target.table("parent").await, ["(1,1,1)", "(999,999,77)"]);
    });
}

/// In one statement of the source, which no order of single rows makes up for.
#[test]
fn values_of_a_deferrable_index_are_swapped_row_by_row_too() {
    on_server(async |target| {
        let target = target.with_role(SessionReplicationRole::Origin);
        target.sql("CREATE TABLE t (id int PRIMARY KEY, name text, UNIQUE (name) DEFERRABLE)").await;
        target.sql("CREATE TABLE u (id int PRIMARY KEY, n int CHECK (n < 10))").await;
        target.sql("INSERT INTO t VALUES (1, 'a'), (2, 'b')").await;
        let (t, u) = (target.schema("t").await, target.schema("u").await);
        let mut applier = target.applier(&["t", "u"]).await;
        let (applied, lot) = applier
            .park(vec![
                update(&t, &[Int(1), Text("b")]),
                update(&t, &[Int(2), Text("a")]),
                create(&u, &[Int(1), Int(10)]),
            ])
            .await;
        assert!(applied.row_by_row);
        assert_eq!(lot.refused().len(), 1, "the check's row only");
        assert_eq!(target.table("t").await, ["(1,b)", "(2,a)"]);
    });
}

/// The source's constraint is deferrable and the target's is not: no order of the rows does it.
#[test]
fn values_that_one_statement_hands_round_arrive() {
    on_server(async |target| {
        target.sql("CREATE TABLE t (id int PRIMARY KEY, name text UNIQUE, big text)").await;
        target.sql("CREATE TABLE child (id int PRIMARY KEY, t int REFERENCES t ON DELETE CASCADE)").await;
        target.sql("INSERT INTO t SELECT id, chr(96 + id), 'big' FROM generate_series(1, 5) AS id").await;
        target.sql("INSERT INTO child VALUES (1, 1)").await;
        let t = target.schema("t").await;
        let becomes = |id, name| update(&t, &[Int(id), Text(name), Text("big")]);
        let mut applier = target.applier(&["t"]).await;
        let applied = applier.apply(vec![becomes(1, "b"), becomes(2, "c"), becomes(3, "a")]).await;
        assert_eq!((applied.rows, applied.missing, applied.row_by_row), (3, 0, true), "{applied:?}");
        assert_eq!(target.table("t").await, ["(1,b,big)", "(2,c,big)", "(3,a,big)", "(4,d,big)", "(5,e,big)"]);
        assert_eq!(target.table("child").await, ["(1,1)"], "nothing has acted");
        // What a change leaves out stands in the old row alone.
        let part = |id, name| patch(&t, &[Cell::Present(Int(id)), Cell::Present(Text(name)), UNCHANGED]);
        let (applied, lot) = applier.park(vec![part(4, "e"), part(5, "d")]).await;
        assert_eq!(lot.refused(), [(0, Dependency), (1, Dependency)], "{applied:?}");
        assert_eq!(target.rows("SELECT * FROM t WHERE id > 3").await, ["(4,d,big)", "(5,e,big)"]);
    });
}

/// What the change leaves out comes from the row that moves, not from one that has not gone yet.
#[test]
fn a_part_of_a_row_that_moves_to_a_taken_key_is_made_whole_from_its_old_one() {
    on_server(async |target| {
        target.sql("CREATE TABLE t (id int PRIMARY KEY, n int, big text)").await;
        target.sql("INSERT INTO t VALUES (1, 1, 'of one'), (2, 1, 'of two')").await;
        let t = target.schema("t").await;
        let mut applier = target.applier(&["t"]).await;
        let moved = [Cell::Present(Int(2)), Cell::Present(Int(3)), UNCHANGED];
        let applied = applier.apply(vec![rekey(&t, &[Int(1)], &moved)]).await;
        assert!(applied.row_by_row);
        assert_eq!(target.table("t").await, ["(2,3,\"of one\")"]);
    });
}

/// The key can't be updated, and a new row would lack what the change leaves out: the old one is all there is of it.
#[test]
fn a_part_of_a_row_with_a_generated_key_leaves_the_old_row_where_it_is() {
    on_server(async |target| {
        target
            .sql("CREATE TABLE t (tenant int, id int GENERATED ALWAYS AS IDENTITY, big text, PRIMARY KEY (tenant, id))")
            .await;
        target.sql("INSERT INTO t OVERRIDING SYSTEM VALUE VALUES (1, 1, 'of one')").await;
        let t = target.schema("t").await;
        let mut applier = target.applier(&["t"]).await;
        let moved = [Cell::Present(Int(2)), Cell::Present(Int(1)), UNCHANGED];
        let (_, lot) = applier.park(vec![rekey(&t, &[Int(1), Int(1)], &moved)]).await;
        assert_eq!(lot.refused().len(), 1);
        assert_eq!(target.table("t").await, ["(1,1,\"of one\")"]);
    });
}
