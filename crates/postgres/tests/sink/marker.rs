//! Marker, takeover, and errors of whole batches.

use crate::fixture::*;
use sync_worker_core::error::ErrorClass;
use sync_worker_core::value::Value::{Int, Text};

const TABLE: &str = "CREATE TABLE t (id bigint PRIMARY KEY, name text)";

#[test]
fn a_marker_that_is_gone_stops_the_sink() {
    on_server(async |target| {
        target.sql(TABLE).await;
        let mut applier = target.applier(&["t"]).await;
        target.sql("DELETE FROM sync_worker.progress").await;
        assert_eq!(applier.fails(vec![]).await.class(), ErrorClass::Superseded);
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
