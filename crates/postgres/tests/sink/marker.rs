//! Marker, takeover, and errors of whole batches.

use crate::fixture::*;
use sync_worker_core::error::ErrorClass;
use sync_worker_core::record::Offset;
use sync_worker_core::value::Value::{Int, Text};
use sync_worker_testkit::flush::apply_late;

const TABLE: &str = "CREATE TABLE t (id bigint PRIMARY KEY, name text)";

#[test]
fn a_takeover_begins_a_new_epoch_and_keeps_the_rest() {
    on_server(async |target| {
        target.sql(TABLE).await;
        let mut first = target.try_sink(&["t"]).await.unwrap();
        let progress = first.take_over(LOG).await.unwrap();
        assert_eq!((progress.marker.offset, progress.marker.digest), (None, 0));
        assert_eq!((progress.marker.log.as_str(), progress.marker.epoch, progress.marker.writes), (LOG, 1, 1));
        assert_eq!(target.marker().await, "(,log-1,0,1,1)");

        let mut applier = target.applier(&["t"]).await;
        let schema = target.schema("t").await;
        applier.apply(vec![create(&schema, &[Int(1), Text("one")])]).await;
        let progress = applier.sink.take_over("another log").await.unwrap();
        assert_eq!(progress.marker.offset, Some(Offset(0)));
        assert_eq!((progress.marker.log.as_str(), progress.marker.digest, progress.marker.epoch), (LOG, u64::MAX, 3));
        assert!(progress.parked.is_empty());
        assert_eq!(target.marker().await, "(0,log-1,-1,3,4)");
    });
}

#[test]
fn a_sink_that_was_superseded_writes_nothing() {
    on_server(async |target| {
        target.sql(TABLE).await;
        let schema = target.schema("t").await;
        let mut old = target.applier(&["t"]).await;
        let mut new = target.applier(&["t"]).await;
        let error = old.fails(vec![create(&schema, &[Int(1), Text("old")])]).await;
        assert_eq!(error.class(), ErrorClass::Superseded, "{error}");
        new.apply(vec![create(&schema, &[Int(2), Text("new")])]).await;
        assert_eq!(target.table("t").await, ["(2,new)"]);
        assert_eq!(target.marker().await, "(0,log-1,-1,2,3)");
    });
}

#[test]
fn a_marker_that_anybody_moved_stops_the_sink() {
    on_server(async |target| {
        target.sql(TABLE).await;
        let schema = target.schema("t").await;
        for change in ["writes = writes + 1", "\"offset\" = 7", "log = 'other'", "epoch = epoch + 1"] {
            let mut applier = target.applier(&["t"]).await;
            target.sql(&format!("UPDATE sync_worker.progress SET {change}")).await;
            let error = applier.fails(vec![create(&schema, &[Int(1), Text("one")])]).await;
            assert_eq!(error.class(), ErrorClass::Superseded, "{change}: {error}");
            target.sql("DELETE FROM sync_worker.progress").await;
        }
        let mut applier = target.applier(&["t"]).await;
        target.sql("DELETE FROM sync_worker.progress").await;
        assert_eq!(applier.fails(vec![]).await.class(), ErrorClass::Superseded);
        assert!(target.table("t").await.is_empty());
    });
}

/// In one round trip, and with a look at what the updates found.
#[test]
fn nothing_is_committed_before_its_records_are_durable() {
    on_server(async |target| {
        target.sql(TABLE).await;
        let schema = target.schema("t").await;
        let mut there = Vec::new();
        for (id, looks) in [(1, false), (2, true)] {
            for durable in [false, true] {
                let mut applier = target.applier(&["t"]).await;
                if looks {
                    applier.apply(vec![update(&schema, &[Int(id + 10), Text("missing")])]).await;
                    there.retain(|row: &String| !row.contains("missing"));
                    there.push(format!("({},missing)", id + 10));
                }
                let marker = target.marker().await;
                let batch = applier.batch(writes(vec![create(&schema, &[Int(id), Text("late")])], 9));
                let look = async {
                    assert_eq!(target.table("t").await, there);
                    assert_eq!(target.marker().await, marker);
                };
                let applied = apply_late(&mut *applier.sink, &batch, durable, look).await;
                assert_eq!(applied.err().map(|error| error.class()), (!durable).then_some(ErrorClass::Transient));
                if durable {
                    there.push(format!("({id},late)"));
                    there.sort();
                }
                drop(applier);
                assert_eq!(target.table("t").await, there);
            }
        }
    });
}

#[test]
fn a_batch_without_writes_moves_the_marker() {
    on_server(async |target| {
        target.sql(TABLE).await;
        let mut applier = target.applier(&["t"]).await;
        applier.apply(vec![]).await;
        applier.apply(vec![]).await;
        assert_eq!(target.marker().await, "(0,log-1,-1,1,3)");
    });
}

#[test]
fn a_lost_connection_is_transient_and_a_takeover_mends_it() {
    on_server(async |target| {
        target.sql(TABLE).await;
        let schema = target.schema("t").await;
        let mut applier = target.applier(&["t"]).await;
        applier.apply(vec![create(&schema, &[Int(1), Text("one")])]).await;
        let others = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity \
                      WHERE datname = current_database() AND pid <> pg_backend_pid()";
        target.sql(others).await;
        let change = || vec![update(&schema, &[Int(1), Text("two")])];
        assert_eq!(applier.fails(change()).await.class(), ErrorClass::Transient);
        assert_eq!(applier.fails(change()).await.class(), ErrorClass::Transient, "without a takeover");
        applier.marker = applier.sink.take_over(LOG).await.unwrap().marker;
        applier.apply(change()).await;
        assert_eq!(target.table("t").await, ["(1,two)"]);
    });
}

#[test]
fn a_marker_held_by_a_vanished_worker_is_freed() {
    on_server(async |target| {
        target.sql(TABLE).await;
        let applier = target.applier(&["t"]).await;
        // The session of a worker that is gone, inside its transaction; only its name tells.
        let name =
            target.rows("SELECT application_name FROM pg_stat_activity WHERE application_name LIKE '%pipeline%'");
        let name = name.await.remove(0);
        drop(applier);
        let held =
            sync_worker_postgres::client::connect(&target.config, sync_worker_postgres::client::Purpose::Control);
        let held = held.await.unwrap();
        let name = name.trim_matches(|c| c == '(' || c == ')' || c == '"').to_owned();
        held.batch_execute(&format!(
            "SET application_name = '{name}'; BEGIN; UPDATE sync_worker.progress SET writes = 99"
        ))
        .await
        .unwrap();
        let mut sink = target.try_sink(&["t"]).await.unwrap();
        assert_eq!(sink.take_over(LOG).await.unwrap_err().class(), ErrorClass::Transient);
        assert_eq!(sink.take_over(LOG).await.unwrap().marker.epoch, 2);
        assert!(held.batch_execute("COMMIT").await.is_err(), "the other session is still there");
    });
}

#[test]
fn a_held_row_makes_a_batch_wait_and_then_fail_as_transient() {
    on_server(async |target| {
        target.sql(TABLE).await;
        let schema = target.schema("t").await;
        let mut applier = target.applier(&["t"]).await;
        applier.apply(vec![create(&schema, &[Int(1), Text("one")])]).await;
        target.sql("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE").await;
        let error = applier.fails(vec![update(&schema, &[Int(1), Text("two")])]).await;
        assert_eq!(error.class(), ErrorClass::Transient, "{error}");
        target.sql("COMMIT").await;
        applier.marker = applier.sink.take_over(LOG).await.unwrap().marker;
        applier.apply(vec![update(&schema, &[Int(1), Text("two")])]).await;
        assert_eq!(target.table("t").await, ["(1,two)"]);
    });
}

#[test]
fn two_sinks_may_create_the_schema_at_the_same_time() {
    on_server(async |target| {
        target.sql(TABLE).await;
        let mut sinks = Vec::new();
        for _ in 0..4 {
            sinks.push(target.try_sink(&["t"]).await.unwrap());
        }
        let taken = futures::future::join_all(sinks.iter_mut().map(|sink| sink.take_over(LOG))).await;
        let mut epochs = taken.into_iter().map(|progress| progress.unwrap().marker.epoch).collect::<Vec<_>>();
        epochs.sort_unstable();
        assert_eq!(epochs, [1, 2, 3, 4]);
    });
}
