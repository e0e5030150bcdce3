//! Our own transactions in the log of a two-way member (invariant 4).

use crate::fixture::{Fixture, applied, assert_rows_equal};
use anyhow::{Result, anyhow};
use mysql_async::prelude::Queryable;
use std::sync::Arc;
use sync_worker_core::change::{Change, Op};
use sync_worker_core::database::{Database, Scope};
use sync_worker_core::echo::Echo;
use sync_worker_core::error::ErrorClass;
use sync_worker_core::guard::{Image, Seen};
use sync_worker_core::record::Offset;
use sync_worker_core::row::{Row, RowBuilder};
use sync_worker_core::schema::Schema;
use sync_worker_core::sink::{Write, WriteBatch};
use sync_worker_core::source::TransactionPart;
use sync_worker_core::value::{Cell, Value};
use sync_worker_mysql::Mysql;
use sync_worker_testkit::stream::Stream;
use sync_worker_testkit::writer::{self, Lot, Writer};

const PERSON: &str = "CREATE TABLE person (id INT PRIMARY KEY, name VARCHAR(50))";

async fn two_way() -> Result<Option<Fixture>> {
    let Some(mut fixture) = Fixture::new(&[PERSON], &["person"]).await? else { return Ok(None) };
    fixture.scope.two_way = true;
    Ok(Some(fixture))
}

fn failed(error: sync_worker_core::error::Error) -> anyhow::Error {
    anyhow!("{error:?}")
}

async fn schema(fixture: &Fixture) -> Result<Arc<Schema>> {
    let mut reader = fixture.mysql.reader(&fixture.scope).await.map_err(failed)?;
    reader.schema(&"person".into()).await.map_err(failed)
}

async fn writer(database: &Mysql, scope: &Scope) -> Result<Writer> {
    Writer::over(database.sink(scope).await.map_err(failed)?).await.map_err(failed)
}

fn person(id: i64, name: &str) -> Row {
    let mut builder = RowBuilder::default();
    builder.push(Cell::Present(Value::Int(id)));
    builder.push(Cell::Present(Value::Text(name)));
    builder.finish()
}

fn write(schema: &Arc<Schema>, id: i64, name: &str, over: Option<&[Image]>) -> Write {
    let change = Change { schema: schema.clone(), op: Op::Create, before: None, after: Some(person(id, name)) };
    Write { over: over.map(<[Image]>::to_vec), ..writer::write(change) }
}

/// The parts that come until all is there that the server has executed by now.
async fn parts(stream: &mut Stream, fixture: &Fixture) -> Result<Vec<TransactionPart>> {
    let mut conn = fixture.database.connect().await?;
    let executed: Option<String> = conn.query_first("SELECT @@global.gtid_executed").await?;
    let executed = executed.unwrap_or_default();
    let mut parts = Vec::new();
    loop {
        let missing = format!("SELECT GTID_SUBTRACT('{executed}', '{}')", stream.checkpoint.resume);
        let missing: Option<String> = conn.query_first(missing).await?;
        if missing.is_none_or(|set| set.is_empty()) {
            return Ok(parts);
        }
        parts.extend(stream.batch().await?.parts);
    }
}

/// The echoes of parts, with the number of changes that came with each.
fn echoes(parts: &[TransactionPart]) -> Vec<(Option<Echo>, usize)> {
    parts.iter().map(|part| (part.echo.clone(), part.changes.len())).collect()
}

fn echo(offset: Option<Offset>) -> Echo {
    Echo { offset, ..Echo::default() }
}

async fn close(stream: Stream, fixture: &Fixture) -> Result<()> {
    assert_rows_equal(&applied(&stream, "person")?, &fixture.rows("person").await?);
    let name = &fixture.scope.installation;
    for table in ["progress", "parked"] {
        fixture.run(&[&format!("DELETE FROM sync_worker.{table} WHERE installation = '{name}'")]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn our_own_transactions_come_as_echoes() -> Result<()> {
    let Some(fixture) = two_way().await? else { return Ok(()) };
    let mut stream = fixture.open(None).await?;
    let schema = schema(&fixture).await?;
    let mut writer = writer(&fixture.mysql, &fixture.scope).await?;
    fixture.run(&["INSERT INTO person VALUES (1, 'a')"]).await?;
    let came = parts(&mut stream, &fixture).await?;
    assert_eq!(echoes(&came), [(Some(echo(None)), 0), (None, 1)]);

    // One is written, one is left alone.
    let batch = writer
        .batch(vec![write(&schema, 2, "b", Some(&[Image::Absent])), write(&schema, 1, "z", Some(&[Image::Absent]))]);
    let version = batch.writes[1].clone();
    writer.try_apply(&batch, &Lot::default()).await.map_err(failed)?;
    let came = parts(&mut stream, &fixture).await?;
    assert_eq!(came.len(), 1);
    let seen = came[0].echo.as_ref().expect("an echo");
    assert_eq!((seen.offset, came[0].changes.len(), came[0].complete), (batch.marker.offset, 1, true));
    assert!(seen.unparked.is_empty());
    let key = schema.key_of(&person(1, ""))?;
    let parked = seen.parked.iter().map(|one| (one.table.as_str(), &one.key, one.offset, one.seen.clone()));
    let there = Seen::of(Some(person(1, "a")));
    assert_eq!(parked.collect::<Vec<_>>(), [("person", &key, version.offset, Some(there))]);

    // Left alone again: the parked row is replaced.
    let batch = writer.batch(vec![Write { parked: true, ..write(&schema, 1, "y", Some(&[Image::Absent])) }]);
    writer.try_apply(&batch, &Lot::default()).await.map_err(failed)?;
    let came = parts(&mut stream, &fixture).await?;
    let seen = came[0].echo.as_ref().expect("an echo");
    assert_eq!((seen.parked.len(), seen.parked[0].offset), (1, batch.writes[0].offset));
    assert_eq!(seen.unparked.iter().map(|one| (&one.key, one.written)).collect::<Vec<_>>(), [(&key, false)]);

    // A retry writes it.
    let retried = Write { parked: true, over: Some(vec![Image::of(Some(&person(1, "a")))]), ..batch.writes[0].clone() };
    let retry = |writer: &Writer, writes: Vec<Write>| {
        let mut batch = WriteBatch { retry: true, ..writer.batch(Vec::new()) };
        batch.marker.offset = writer.marker.offset;
        batch.writes = writes;
        batch
    };
    let batch = retry(&writer, vec![retried.clone()]);
    writer.try_apply(&batch, &Lot::default()).await.map_err(failed)?;
    let came = parts(&mut stream, &fixture).await?;
    let seen = came[0].echo.as_ref().expect("an echo");
    assert_eq!((seen.parked.len(), seen.offset, came[0].changes.len()), (0, writer.marker.offset, 1));
    assert_eq!(seen.unparked.iter().map(|one| (&one.key, one.written)).collect::<Vec<_>>(), [(&key, true)]);

    // Parked once more, and given up.
    let batch = writer.batch(vec![write(&schema, 1, "x", Some(&[Image::Absent]))]);
    writer.try_apply(&batch, &Lot::default()).await.map_err(failed)?;
    let mut batch = retry(&writer, Vec::new());
    batch.unpark.push(("person".into(), key.clone()));
    writer.try_apply(&batch, &Lot::default()).await.map_err(failed)?;
    let came = parts(&mut stream, &fixture).await?;
    assert_eq!(came.len(), 2);
    let seen = came[1].echo.as_ref().expect("an echo");
    assert_eq!(seen.unparked.iter().map(|one| (&one.key, one.written)).collect::<Vec<_>>(), [(&key, false)]);
    assert!(came[1].complete && came[1].changes.is_empty());
    assert_eq!(fixture.rows("person").await?, [person(1, "y"), person(2, "b")]);
    close(stream, &fixture).await
}

#[tokio::test]
async fn what_others_write_is_a_change_like_any_other() -> Result<()> {
    let Some(fixture) = two_way().await? else { return Ok(()) };
    let mut stream = fixture.open(None).await?;
    let schema = schema(&fixture).await?;
    let other = Scope { pipeline: "other".into(), two_way: false, ..fixture.scope.clone() };
    let mut writer_of_other = writer(&fixture.mysql, &other).await?;
    writer_of_other.apply(vec![write(&schema, 1, "a", None)]).await.map_err(failed)?;
    // The same pipeline has another member, whose marker may stand at the same server.
    let config = sync_worker_mysql::Config { url: fixture.database.url.clone(), password: None, server_id: None };
    let member = Mysql::new("crm".into(), config)?;
    let mut writer_of_member = writer(&member, &fixture.scope).await?;
    writer_of_member.apply(vec![write(&schema, 2, "b", None)]).await.map_err(failed)?;
    let name = &fixture.scope.installation;
    fixture
        .run(&[
            "BEGIN",
            &format!("UPDATE sync_worker.progress SET writes = writes + 1 WHERE installation = '{name}'"),
            "INSERT INTO person VALUES (3, 'c')",
            "COMMIT",
        ])
        .await?;
    assert_eq!(echoes(&parts(&mut stream, &fixture).await?), [(None, 1), (None, 1), (None, 1)]);
    close(stream, &fixture).await
}

#[tokio::test]
async fn an_echo_is_one_from_its_first_part_on_however_it_is_logged() -> Result<()> {
    let Some(fixture) = two_way().await? else { return Ok(()) };
    let mut stream = fixture.open(None).await?;
    writer(&fixture.mysql, &fixture.scope).await?;
    parts(&mut stream, &fixture).await?;
    let name = &fixture.scope.installation;
    let moves =
        format!("UPDATE sync_worker.progress SET `offset` = 7, writes = writes + 1 WHERE installation = '{name}'");
    let xa = format!("'{name}'");
    let (start, end, prepare, commit) =
        (format!("XA START {xa}"), format!("XA END {xa}"), format!("XA PREPARE {xa}"), format!("XA COMMIT {xa}"));
    fixture.run(&[&start, &moves, "INSERT INTO person VALUES (1, 'a')", &end, &prepare, &commit]).await?;
    let compressed = "SET SESSION binlog_transaction_compression = ON";
    fixture.run(&[compressed, "BEGIN", &moves, "INSERT INTO person VALUES (2, 'b')", "COMMIT"]).await?;
    let came = echoes(&parts(&mut stream, &fixture).await?);
    assert_eq!(came, vec![(Some(echo(Some(Offset(7)))), 1); 2]);

    let many = "INSERT INTO person \
                WITH RECURSIVE n AS (SELECT 1000 AS id UNION ALL SELECT id + 1 FROM n WHERE id < 80999) \
                SELECT id, REPEAT('x', 50) FROM n";
    fixture.run(&["SET SESSION cte_max_recursion_depth = 100000", "BEGIN", &moves, many, "COMMIT"]).await?;
    let came = parts(&mut stream, &fixture).await?;
    assert!(came.len() > 2, "{} parts", came.len());
    assert!(came.iter().all(|part| part.echo == Some(echo(Some(Offset(7))))));
    assert_eq!(came.iter().map(|part| part.changes.len()).sum::<usize>(), 80_000);
    assert_eq!(came.iter().filter(|part| part.complete).count(), 1);
    close(stream, &fixture).await
}

#[tokio::test]
async fn a_row_image_that_is_not_whole_ends_a_two_way_stream() -> Result<()> {
    let Some(fixture) = two_way().await? else { return Ok(()) };
    fixture.run(&["INSERT INTO person VALUES (1, 'a')"]).await?;
    for statement in ["INSERT INTO person (id) VALUES (2)", "UPDATE person SET name = 'b'", "DELETE FROM person"] {
        let mut stream = fixture.open(None).await?;
        fixture.run(&["SET SESSION binlog_row_image = 'MINIMAL'", statement]).await?;
        let error = stream.refusal().await?;
        assert_eq!(error.class(), ErrorClass::Fatal, "{error}");
        let text = error.to_string();
        assert!(text.contains("table person") && text.contains("binlog_row_image = 'FULL'"), "{text}");
    }
    Ok(())
}
