//! Rows that the target refuses: only they are parked, in the transaction that writes all others.

use crate::fixture::*;
use sync_worker_core::error::ErrorClass::{Dependency, Poison};
use sync_worker_core::record::Offset;
use sync_worker_core::value::Cell::Present;
use sync_worker_core::value::Value::{Decimal, Int, Null, Text};
use sync_worker_postgres::config::SessionReplicationRole;

const TABLE: &str =
    "CREATE TABLE t (id int PRIMARY KEY, name text NOT NULL UNIQUE CHECK (name <> 'hunter2'), size smallint)";

#[test]
fn only_the_refused_rows_are_parked() {
    on_server(async |target| {
        target.sql(TABLE).await;
        target.sql("INSERT INTO t VALUES (1, 'taken', 1), (2, 'other', 2)").await;
        let t = target.schema("t").await;
        let mut applier = target.applier(&["t"]).await;
        let mut changes: Vec<_> = (100..400).map(|id| create(&t, &[Int(id), Text(&format!("n{id}")), Null])).collect();
        changes[10] = create(&t, &[Int(110), Text("taken"), Null]);
        changes[150] = create(&t, &[Int(250), Text("hunter2"), Null]);
        changes[151] = create(&t, &[Int(251), Null, Null]);
        changes[299] = update(&t, &[Int(2), Text("taken"), Int(3)]);
        let (applied, lot) = applier.park(changes).await;
        assert_eq!(lot.refused(), [(10, Dependency), (150, Poison), (151, Poison), (299, Dependency)]);
        assert!(applied.row_by_row);
        assert_eq!(applied.rows, 296);
        let expected = ["(1)", "(2)"].map(str::to_owned).into_iter();
        let expected =
            expected.chain((100..399).filter(|id| ![110, 250, 251].contains(id)).map(|id| format!("({id})")));
        let mut expected: Vec<_> = expected.collect();
        expected.sort();
        assert_eq!(target.rows("SELECT id FROM t").await, expected);
        assert_eq!(target.rows("SELECT * FROM t WHERE id < 3").await, ["(1,taken,1)", "(2,other,2)"]);
        let parked = target.parked().await;
        assert_eq!(parked.len(), 4);
        for (row, (offset, name)) in
            parked.iter().zip([(10, "t_name_key"), (150, "t_name_check"), (151, "name"), (299, "t_name_key")])
        {
            assert!(row.starts_with(&format!("(t,{offset},")) && row.contains(name), "{row}");
            // invariant 11
            assert!(!row.contains("hunter2") && !row.contains("taken\"") && !row.contains("250"), "{row}");
        }
        let progress = applier.sink.take_over(LOG).await.unwrap();
        assert_eq!(progress.parked.len(), 4);
        assert_eq!(progress.parked[0].key, t.key_of(&row(&[Int(110), Null, Null])).unwrap());
        assert_eq!(progress.parked[0].offset, Offset(10));
    });
}

/// The server calls both a check constraint, and names none.
#[test]
fn a_row_that_no_partition_takes_is_told_as_that() {
    on_server(async |target| {
        target
            .sql(
                "CREATE TABLE t (id int PRIMARY KEY, n int CHECK (n > 0)) PARTITION BY RANGE (id);
                 CREATE TABLE t_low PARTITION OF t FOR VALUES FROM (1) TO (10)",
            )
            .await;
        let t = target.schema("t").await;
        let mut applier = target.applier(&["t"]).await;
        let (applied, lot) =
            applier.park([(1, 1), (20, 1), (2, 0)].map(|(id, n)| create(&t, &[Int(id), Int(n)])).into()).await;
        assert_eq!((applied.rows, lot.refused()), (1, vec![(1, Poison), (2, Poison)]));
        let reasons: Vec<_> = applied.refused.iter().map(|refused| refused.reason.as_str()).collect();
        assert!(
            reasons[0].starts_with("no partition takes the row, ") && reasons[0].contains("table t)"),
            "{reasons:?}"
        );
        assert!(
            reasons[1].starts_with("a check constraint is not met (") && reasons[1].contains("t_n_check"),
            "{reasons:?}"
        );
    });
}

/// Narrowed, the server would round what is written; widened, it takes what was refused.
#[test]
fn a_column_that_is_altered_while_the_sink_lives_takes_what_it_holds_now() {
    on_server(async |target| {
        target.sql("CREATE TABLE t (id int PRIMARY KEY, amount numeric(20, 6), name varchar(50))").await;
        let t = target.schema("t").await;
        let values = |id| [Int(id), Decimal("1.234567"), Text("more than five")];
        let becomes = |from, to| rekey(&t, &[Int(from)], &values(to).map(Present));
        let mut applier = target.applier(&["t"]).await;
        applier.apply(vec![create(&t, &values(1))]).await;
        target.sql("ALTER TABLE t ALTER amount TYPE numeric(10, 2), ALTER name TYPE varchar(14)").await;
        let (_, lot) = applier.park(vec![create(&t, &values(2))]).await;
        assert_eq!(lot.refused(), [(0, Poison)]);
        target.sql("ALTER TABLE t ALTER amount TYPE numeric(20, 6)").await;
        applier.apply(vec![create(&t, &values(2))]).await;
        // Row by row, too.
        target.sql("ALTER TABLE t ALTER amount TYPE numeric(10, 2)").await;
        let (_, lot) = applier.park(vec![becomes(2, 3), create(&t, &values(4)), becomes(4, 5)]).await;
        assert!(lot.refused().iter().any(|(_, class)| *class == Poison), "{:?}", lot.refused());
        target.sql("ALTER TABLE t ALTER amount TYPE numeric(20, 6)").await;
        applier.apply(vec![create(&t, &values(6)), becomes(6, 7), create(&t, &values(8))]).await;
        for id in [7, 8] {
            let expected = format!("({id},1.234567,\"more than five\")");
            assert!(target.table("t").await.contains(&expected), "{:?}", target.table("t").await);
        }
    });
}

#[test]
fn values_that_do_not_fit_are_refused_before_they_are_sent() {
    on_server(async |target| {
        target.sql(TABLE).await;
        let t = target.schema("t").await;
        let mut applier = target.applier(&["t"]).await;
        let (applied, lot) = applier
            .park(vec![
                create(&t, &[Int(1), Text("a"), Int(1)]),
                create(&t, &[Int(2), Text("b"), Int(40_000)]),
                create(&t, &[Int(3), Text("c\0"), Int(3)]),
                create(&t, &[Int(4), Text("d"), Text("4")]),
            ])
            .await;
        assert_eq!(lot.refused(), [(1, Poison), (2, Poison), (3, Poison)]);
        assert!(!applied.row_by_row);
        for (refused, column) in applied.refused.iter().zip(["size", "name", "size"]) {
            assert!(refused.reason.contains(&format!("column {column}")), "{}", refused.reason);
        }
        assert_eq!(target.table("t").await, ["(1,a,1)"]);
        assert_eq!(target.parked().await.len(), 3);
    });
}

#[test]
fn a_partial_image_of_a_missing_row_waits() {
    on_server(async |target| {
        target.sql(TABLE).await;
        let t = target.schema("t").await;
        let mut applier = target.applier(&["t"]).await;
        let patches = || {
            vec![
                create(&t, &[Int(1), Text("a"), Int(1)]),
                patch(&t, &[Present(Int(2)), Present(Text("b")), UNCHANGED]),
                patch(&t, &[Present(Int(3)), UNCHANGED, Present(Int(3))]),
            ]
        };
        let (applied, lot) = applier.park(patches()).await;
        assert_eq!(lot.refused(), [(1, Dependency), (2, Dependency)]);
        assert_eq!((applied.rows, applied.missing, applied.row_by_row), (1, 2, false));
        // The same, row by row.
        target.sql("TRUNCATE t").await;
        let mut changes = patches();
        changes.push(create(&t, &[Int(9), Text("hunter2"), Null]));
        let (applied, lot) = applier.park(changes).await;
        assert_eq!(lot.refused(), [(1, Dependency), (2, Dependency), (3, Poison)]);
        assert_eq!((applied.rows, applied.missing, applied.row_by_row), (1, 2, true));
        assert_eq!(target.table("t").await, ["(1,a,1)"]);
        assert_eq!(target.parked().await.len(), 3);
    });
}

#[test]
fn later_writes_of_a_refused_key_are_tried_by_themselves() {
    on_server(async |target| {
        target.sql(TABLE).await;
        target.sql("INSERT INTO t VALUES (0, 'taken', 0), (5, 'e', 5)").await;
        let t = target.schema("t").await;
        let mut applier = target.applier(&["t"]).await;
        let (applied, lot) = applier
            .park(vec![
                // Mended by a partial image over the refused one.
                create(&t, &[Int(1), Text("taken"), Int(1)]),
                patch(&t, &[Present(Int(1)), Present(Text("a")), UNCHANGED]),
                // Refused, twice changed, still refused: the newest counts.
                create(&t, &[Int(2), Text("taken"), Int(1)]),
                patch(&t, &[Present(Int(2)), UNCHANGED, Present(Int(2))]),
                // Gone again.
                create(&t, &[Int(3), Text("taken"), Int(3)]),
                delete(&t, &[Int(3)]),
                // A partial image whose columns come from two refused ones.
                patch(&t, &[Present(Int(5)), Present(Text("taken")), UNCHANGED]),
                patch(&t, &[Present(Int(5)), UNCHANGED, Present(Int(55))]),
                // A swap, so that it is not done in sets; and a key change over a refused row.
                create(&t, &[Int(6), Text("taken"), Int(6)]),
                rekey(&t, &[Int(6)], &[Present(Int(7)), Present(Text("seven")), UNCHANGED]),
                patch(&t, &[Present(Int(7)), UNCHANGED, Present(Int(77))]),
            ])
            .await;
        assert!(applied.row_by_row);
        assert_eq!(lot.refused(), [(3, Dependency), (7, Dependency)]);
        assert_eq!(target.table("t").await, ["(0,taken,0)", "(1,a,1)", "(5,e,5)", "(7,seven,77)"]);
        assert_eq!(target.parked().await.len(), 2);
    });
}

#[test]
fn a_child_without_its_parent_waits_where_foreign_keys_are_checked() {
    on_server(async |target| {
        let target = target.with_role(SessionReplicationRole::Origin);
        target
            .sql("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a)")
            .await;
        target.sql("CREATE TABLE d (id int PRIMARY KEY, a int REFERENCES a DEFERRABLE INITIALLY DEFERRED)").await;
        let (a, b, d) = (target.schema("a").await, target.schema("b").await, target.schema("d").await);
        let mut applier = target.applier(&["a", "b", "d"]).await;
        let (_, lot) = applier
            .park(vec![create(&b, &[Int(1), Int(7)]), create(&a, &[Int(1)]), create(&b, &[Int(2), Int(1)])])
            .await;
        assert_eq!(lot.refused(), [(0, Dependency)]);
        // A deferred one is told only at the end, and then it has to be found which row it was.
        let (_, lot) = applier
            .park(vec![create(&d, &[Int(1), Int(1)]), create(&d, &[Int(2), Int(8)]), create(&d, &[Int(3), Null])])
            .await;
        assert_eq!(lot.refused(), [(1, Dependency)]);
        // A parent that still has children stays.
        let (_, lot) = applier.park(vec![delete(&a, &[Int(1)])]).await;
        assert_eq!(lot.refused(), [(0, Dependency)]);
        assert_eq!(target.table("a").await, ["(1)"]);
        assert_eq!(target.table("b").await, ["(2,1)"]);
        assert_eq!(target.table("d").await, ["(1,1)", "(3,)"]);
    });
}

#[test]
fn what_a_trigger_objects_to_waits() {
    on_server(async |target| {
        target.sql(TABLE).await;
        target
            .sql(
                "CREATE FUNCTION object() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                    IF NEW.size = 7 THEN RAISE EXCEPTION 'not %', NEW.name; END IF; RETURN NEW; END $$",
            )
            .await;
        target.sql("CREATE TRIGGER object BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION object()").await;
        target.sql("ALTER TABLE t ENABLE ALWAYS TRIGGER object").await;
        let t = target.schema("t").await;
        let mut applier = target.applier(&["t"]).await;
        let (applied, lot) = applier
            .park(vec![create(&t, &[Int(1), Text("secret"), Int(7)]), create(&t, &[Int(2), Text("b"), Int(8)])])
            .await;
        assert_eq!(lot.refused(), [(0, Dependency)]);
        assert!(!applied.refused[0].reason.contains("secret"), "{}", applied.refused[0].reason);
        assert_eq!(target.table("t").await, ["(2,b,8)"]);
    });
}
