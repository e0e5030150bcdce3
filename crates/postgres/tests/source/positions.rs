//! Where a stream resumes, and where it must not.

use crate::support::Fixture;
use anyhow::Result;
use std::time::{Duration, Instant};
use sync_worker_core::database::Database;
use sync_worker_core::error::{Error, ErrorClass};
use sync_worker_core::position::{Checkpoint, Lsn};
use sync_worker_postgres::{Config, Postgres};
use sync_worker_testkit::stream::Stream;

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, v text)";

#[tokio::test]
async fn only_what_was_confirmed_is_forgotten() -> Result<()> {
    let fixture = Fixture::new(TABLE, &["t"]).await?;
    let mut stream = fixture.stream(None).await?;
    let start = fixture.confirmed().await?;
    fixture.execute("INSERT INTO t VALUES (1, 'a')").await?;
    fixture.changes(&mut stream).await?;
    let end: Lsn = stream.checkpoint.resume.parse()?;
    // A status has gone out by then: the server has answered a later one.
    fixture.execute("INSERT INTO t VALUES (2, 'b')").await?;
    fixture.changes(&mut stream).await?;
    assert_eq!(fixture.confirmed().await?, start);
    let checkpoint = stream.checkpoint.clone();
    stream.source.confirm(&checkpoint).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while fixture.confirmed().await? < end {
        assert!(Instant::now() < deadline, "the confirmation did not arrive");
    }
    Ok(())
}

fn gap(outcome: Result<Stream, Error>, part: &str) {
    let error = outcome.err().expect("a GAP");
    assert_eq!(error.class(), ErrorClass::Gap, "{error}");
    assert!(error.to_string().contains(part), "{error}");
    assert!(!error.to_string().contains('\n'));
}

async fn stopped() -> Result<(Fixture, Checkpoint)> {
    let fixture = Fixture::new(TABLE, &["t"]).await?;
    let mut stream = fixture.stream(None).await?;
    fixture.execute("INSERT INTO t VALUES (1, 'a')").await?;
    fixture.changes(&mut stream).await?;
    let checkpoint = stream.checkpoint.clone();
    Ok((fixture, checkpoint))
}

#[tokio::test]
async fn a_slot_that_is_gone_is_a_gap() -> Result<()> {
    let (fixture, checkpoint) = stopped().await?;
    fixture.postgres.forget_source(&fixture.scope).await.unwrap();
    let left =
        fixture.database.rows("SELECT slot_name FROM pg_replication_slots WHERE database = current_database()").await?;
    assert!(left.is_empty());
    assert!(fixture.database.rows("SELECT FROM pg_publication").await?.is_empty());
    gap(fixture.open(Some(&checkpoint)).await, "is gone");
    Ok(())
}

#[tokio::test]
async fn a_position_ahead_of_the_server_is_a_gap() -> Result<()> {
    let (fixture, checkpoint) = stopped().await?;
    let ahead = Checkpoint { resume: "FFFF/0".into(), ..checkpoint };
    gap(fixture.open(Some(&ahead)).await, "ahead");
    Ok(())
}

#[tokio::test]
async fn a_slot_that_was_advanced_by_others_is_a_gap() -> Result<()> {
    let (fixture, checkpoint) = stopped().await?;
    fixture.execute("INSERT INTO t VALUES (2, 'b')").await?;
    // The server may not have missed the former reader yet.
    let advance = "SELECT pg_replication_slot_advance(slot_name, pg_current_wal_lsn()) \
                   FROM pg_replication_slots WHERE database = current_database()";
    let deadline = Instant::now() + Duration::from_secs(60);
    while let Err(error) = fixture.execute(advance).await {
        assert!(Instant::now() < deadline, "{error:#}");
    }
    gap(fixture.open(Some(&checkpoint)).await, "after the position");
    Ok(())
}

#[tokio::test]
async fn a_publication_that_is_gone_is_a_gap() -> Result<()> {
    let (fixture, checkpoint) = stopped().await?;
    let name = fixture.database.value("SELECT quote_ident(pubname) FROM pg_publication").await?;
    fixture.execute(&format!("DROP PUBLICATION {name}")).await?;
    gap(fixture.open(Some(&checkpoint)).await, "publication");
    Ok(())
}

#[tokio::test]
async fn a_table_that_was_made_again_is_a_gap() -> Result<()> {
    let (fixture, checkpoint) = stopped().await?;
    fixture.execute("DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (2, 'b')").await?;
    gap(fixture.open(Some(&checkpoint)).await, "made again");
    Ok(())
}

/// The same as before it, and put back afterwards.
const BACK: &str = "DROP TABLE ONLY t";

#[tokio::test]
async fn a_table_that_was_taken_out_of_the_publication_is_a_gap() -> Result<()> {
    let options = ["SET (publish = 'insert, update')", "SET (publish_via_partition_root = false)"];
    let tables = ["DROP TABLE t", BACK, "SET TABLE t WHERE (id > 5)", "SET TABLE t (id)"];
    for change in tables.into_iter().chain(options) {
        let (fixture, checkpoint) = stopped().await?;
        let name = fixture.database.value("SELECT quote_ident(pubname) FROM pg_publication").await?;
        fixture.execute(&format!("ALTER PUBLICATION {name} {change}; INSERT INTO t VALUES (2, 'b')")).await?;
        if change == BACK {
            fixture.execute(&format!("ALTER PUBLICATION {name} ADD TABLE t")).await?;
        }
        gap(fixture.open(Some(&checkpoint)).await, "taken out");
    }
    Ok(())
}

/// A stream of two tables, whose publication is looked at every second.
async fn watched() -> Result<(Fixture, Stream)> {
    let mut fixture = Fixture::new(&format!("{TABLE}; CREATE TABLE u (id int PRIMARY KEY)"), &["t", "u"]).await?;
    let mut config = Config::new(fixture.database.url.clone());
    config.heartbeat_seconds = 1;
    fixture.postgres = Postgres::new("crm".into(), config)?;
    let stream = fixture.stream(None).await?;
    Ok((fixture, stream))
}

#[tokio::test]
async fn a_publication_that_is_altered_while_it_streams_is_a_gap() -> Result<()> {
    let changes = [
        "ALTER PUBLICATION {} DROP TABLE t",
        "ALTER PUBLICATION {} DROP TABLE t; ALTER PUBLICATION {} ADD TABLE t",
        "ALTER PUBLICATION {} SET TABLE t WHERE (id > 5)",
        "ALTER PUBLICATION {} SET (publish = 'insert')",
    ];
    for sql in changes {
        let (fixture, mut stream) = watched().await?;
        fixture.execute("INSERT INTO t VALUES (1, 'a'); INSERT INTO u VALUES (1)").await?;
        assert_eq!(fixture.changes(&mut stream).await?.len(), 2);
        // A table that goes altogether has no more changes.
        fixture.execute("DROP TABLE u").await?;
        let name = fixture.database.value("SELECT quote_ident(pubname) FROM pg_publication").await?;
        fixture.execute(&sql.replace("{}", &name)).await?;
        let error = stream.refusal().await?;
        assert_eq!(error.class(), ErrorClass::Gap, "{error}");
        assert!(error.to_string().contains("table public.t was taken out of the publication"), "{error}");
    }
    Ok(())
}

/// Nothing of the new one comes, and nothing else would tell.
#[tokio::test]
async fn a_table_that_is_made_again_while_it_streams_is_a_gap() -> Result<()> {
    let changes = [
        "DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY, name text)",
        "ALTER TABLE t RENAME TO old; CREATE TABLE t (LIKE old INCLUDING ALL)",
        "ALTER TABLE t RENAME TO old; CREATE TABLE t (LIKE old INCLUDING ALL); DROP TABLE old",
        "CREATE SCHEMA other; ALTER TABLE t SET SCHEMA other; CREATE TABLE t (LIKE other.t INCLUDING ALL)",
    ];
    for sql in changes {
        let (fixture, mut stream) = watched().await?;
        // While a name is nobody's it may be on its way back.
        fixture.execute("ALTER TABLE t RENAME TO away").await?;
        fixture.execute("ALTER TABLE away RENAME TO t; INSERT INTO u VALUES (1)").await?;
        assert_eq!(fixture.changes(&mut stream).await?.len(), 1);
        fixture.execute(sql).await?;
        let error = stream.refusal().await?;
        assert_eq!(error.class(), ErrorClass::Gap, "{sql}: {error}");
        assert!(error.to_string().contains("table public.t was dropped and made again"), "{sql}: {error}");
    }
    Ok(())
}

#[tokio::test]
async fn a_fresh_start_replaces_what_a_crash_left() -> Result<()> {
    let fixture = Fixture::new(TABLE, &["t"]).await?;
    let crashed = fixture.stream(None).await?;
    fixture.execute("INSERT INTO t VALUES (1, 'a')").await?;
    // Still connected: the server has not missed it.
    let mut stream = fixture.stream(None).await?;
    drop(crashed);
    fixture.execute("INSERT INTO t VALUES (2, 'b')").await?;
    assert_eq!(fixture.changes(&mut stream).await?, ["0 c id=2 v=b"]);
    Ok(())
}

#[tokio::test]
async fn a_table_that_joins_the_pipeline_joins_the_publication() -> Result<()> {
    let mut fixture = Fixture::new(&format!("{TABLE}; CREATE TABLE u (id int PRIMARY KEY)"), &["t"]).await?;
    let stream = fixture.stream(None).await?;
    let checkpoint = stream.checkpoint.clone();
    drop(stream);
    let more = fixture.scope.tables.iter().cloned().chain([sync_worker_core::database::TableAt {
        table: "u".into(),
        name: "public.u".into(),
        document: Default::default(),
    }]);
    fixture.scope.tables = more.collect();
    let mut stream = fixture.stream(Some(&checkpoint)).await?;
    fixture.execute("INSERT INTO u VALUES (7)").await?;
    assert_eq!(fixture.changes(&mut stream).await?, ["0 c id=7"]);
    Ok(())
}

#[tokio::test]
async fn an_idle_database_gives_places_to_resume_at() -> Result<()> {
    let fixture = Fixture::new(&format!("{TABLE}; CREATE TABLE other (id int)"), &["t"]).await?;
    let mut stream = fixture.stream(None).await?;
    let before = stream.checkpoint.clone();
    let deadline = Instant::now() + Duration::from_secs(60);
    // Others write; the server says so at once, and about every ten seconds it is a place to resume at.
    while stream.checkpoint == before {
        assert!(Instant::now() < deadline, "no checkpoint came");
        fixture.execute("INSERT INTO other VALUES (1)").await?;
        let batch = stream.batch().await?;
        assert!(batch.parts.is_empty());
    }
    Ok(())
}

#[tokio::test]
async fn the_slot_of_an_idle_database_does_not_pin_the_log_of_a_busy_server() -> Result<()> {
    let fixture = Fixture::new(TABLE, &["t"]).await?;
    let busy = sync_worker_testkit::postgres::TestDatabase::create().await?;
    busy.execute("CREATE TABLE other (v text)").await?;
    let mut stream = fixture.stream(None).await?;
    let start = fixture.confirmed().await?;
    let deadline = Instant::now() + Duration::from_secs(60);
    while fixture.confirmed().await? == start {
        assert!(Instant::now() < deadline, "the slot still stands at {start}");
        busy.execute("INSERT INTO other SELECT repeat('x', 1000) FROM generate_series(1, 100)").await?;
        let batch = stream.batch().await?;
        if let Some(checkpoint) = &batch.checkpoint {
            stream.source.confirm(checkpoint).await.unwrap();
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_consumer_slower_than_the_servers_patience_is_not_a_dead_one() -> Result<()> {
    let fixture = Fixture::new(TABLE, &["t"]).await?;
    let mut stream = fixture.stream(None).await?;
    let rows = 200_000;
    fixture.execute(&format!("INSERT INTO t SELECT n, repeat('x', 100) FROM generate_series(1, {rows}) n")).await?;
    let end = fixture.here().await?;
    stream.batch().await?;
    // Longer than the walsender's timeout of 15 s, with more behind than the sockets hold: it hears from us all the same.
    let heard = "SELECT count(*) FROM pg_stat_replication r JOIN pg_replication_slots s ON s.active_pid = r.pid \
                 WHERE s.database = current_database() AND r.reply_time > r.backend_start + interval '18 s'";
    let deadline = Instant::now() + Duration::from_secs(60);
    while fixture.database.value(heard).await? == "0" {
        assert!(Instant::now() < deadline, "the walsender has not heard from us");
        fixture.execute("SELECT pg_sleep(0.1)").await?;
    }
    stream.reach(end).await?;
    Ok(())
}
