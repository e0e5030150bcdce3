//! Our own transactions in the stream of a two-way member (invariant 4), and whole documents before and after each change.

use crate::fixture::{Fixture, INT, TEXT, apply, image, int, retry_of, row, schema, text, try_apply, version, write};
use anyhow::{Result, anyhow};
use bson::{Document, doc};
use std::sync::Arc;
use sync_worker_core::change::Op;
use sync_worker_core::database::{Database, Role, Scope};
use sync_worker_core::echo::Echo;
use sync_worker_core::error::ErrorClass;
use sync_worker_core::guard::{Image, Seen};
use sync_worker_core::position::{MongodbPosition, Position};
use sync_worker_core::row::Row;
use sync_worker_core::schema::Schema;
use sync_worker_core::sink::Write;
use sync_worker_core::source::TransactionPart;
use sync_worker_core::value::{Cell, Value};
use sync_worker_testkit::stream::Stream;
use sync_worker_testkit::writer::{Lot, Writer};

fn person() -> Arc<Schema> {
    schema("a", &[("id", INT), ("name", TEXT)])
}

fn named(id: i64, name: &str, over: &[Image]) -> Write {
    version(&person(), &[int(id), text(name)], over)
}

/// The parts that come until all is there that the server has executed by now.
async fn parts(stream: &mut Stream, fixture: &Fixture) -> Result<Vec<TransactionPart>> {
    let now = fixture.client.database("admin").run_command(doc! { "ping": 1 }).await?.get_timestamp("operationTime")?;
    let now = Position::Mongodb(MongodbPosition { seconds: now.time, increment: now.increment, ordinal: 0 });
    let mut parts = Vec::new();
    while stream.reached < now {
        parts.extend(stream.batch().await?.parts);
    }
    Ok(parts)
}

/// The echoes of parts, with the number of changes that came with each.
fn echoes(parts: &[TransactionPart]) -> Vec<(Option<Echo>, usize)> {
    parts.iter().map(|part| (part.echo.clone(), part.changes.len())).collect()
}

fn document(row: Option<&Row>) -> Document {
    match row.expect("a row").cells().nth(1) {
        Some(Ok(Cell::Present(Value::Document(bytes)))) => Document::from_reader(bytes).expect("a document"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn our_own_transactions_come_as_echoes() -> Result<()> {
    let Some(fixture) = Fixture::two_way(&["a"]).await? else { return Ok(()) };
    let mut stream = fixture.open(None).await?;
    let mut writer = fixture.sink().await?;
    fixture.rows("a").insert_one(doc! { "_id": 1, "name": "a", "own": 7 }).await?;
    let came = parts(&mut stream, &fixture).await?;
    assert_eq!(echoes(&came), [(Some(Echo::default()), 0), (None, 1)]);

    // One is written, one is left alone.
    let batch = writer.batch(vec![named(2, "b", &[Image::Absent]), named(1, "z", &[Image::Absent])]);
    let offset = batch.writes[1].offset;
    try_apply(&mut writer, &batch, &Lot::default()).await?;
    let came = parts(&mut stream, &fixture).await?;
    assert_eq!(came.len(), 1);
    let seen = came[0].echo.as_ref().expect("an echo");
    assert_eq!((seen.offset, came[0].changes.len(), came[0].complete), (batch.marker.offset, 1, true));
    assert!(seen.unparked.is_empty());
    let key = person().key_of(&row(&[int(1), text("")]))?;
    let parked = seen.parked.iter().map(|one| (one.table.as_str(), &one.key, one.offset, one.seen.clone()));
    let there = Seen::of(Some(row(&[int(1), text("a")])));
    assert_eq!(parked.collect::<Vec<_>>(), [("a", &key, offset, Some(there))]);

    // Left alone again: the parked row is replaced.
    let batch = writer.batch(vec![Write { parked: true, ..named(1, "y", &[Image::Absent]) }]);
    let offset = batch.writes[0].offset;
    try_apply(&mut writer, &batch, &Lot::default()).await?;
    let came = parts(&mut stream, &fixture).await?;
    let seen = came[0].echo.as_ref().expect("an echo");
    assert_eq!((seen.parked.len(), seen.parked[0].offset), (1, offset));
    assert_eq!(seen.unparked.iter().map(|one| (&one.key, one.written)).collect::<Vec<_>>(), [(&key, false)]);

    // A retry writes it.
    let batch = retry_of(&writer, vec![(named(1, "y", &[image(&[int(1), text("a")])]), offset)]);
    try_apply(&mut writer, &batch, &Lot::default()).await?;
    let came = parts(&mut stream, &fixture).await?;
    let seen = came[0].echo.as_ref().expect("an echo");
    assert_eq!((seen.parked.len(), seen.offset, came[0].changes.len()), (0, writer.marker.offset, 1));
    assert_eq!(seen.unparked.iter().map(|one| (&one.key, one.written)).collect::<Vec<_>>(), [(&key, true)]);

    // Parked once more, and given up.
    let batch = writer.batch(vec![named(1, "x", &[Image::Absent])]);
    try_apply(&mut writer, &batch, &Lot::default()).await?;
    let mut batch = retry_of(&writer, Vec::new());
    batch.unpark.push(("a".into(), key.clone()));
    try_apply(&mut writer, &batch, &Lot::default()).await?;
    let came = parts(&mut stream, &fixture).await?;
    assert_eq!(came.len(), 2);
    let seen = came[1].echo.as_ref().expect("an echo");
    assert_eq!(seen.unparked.iter().map(|one| (&one.key, one.written)).collect::<Vec<_>>(), [(&key, false)]);
    assert!(came[1].complete && came[1].changes.is_empty());
    let expected = [doc! { "_id": 1, "name": "y", "own": 7 }, doc! { "_id": 2i64, "name": "b" }];
    assert_eq!(fixture.all("a").await?, expected);

    // The same comes again after the checkpoint of a transaction before.
    let from = stream.checkpoint.clone();
    fixture.rows("a").delete_one(doc! { "_id": 2 }).await?;
    let mut stream = fixture.open(Some(&from)).await?;
    assert_eq!(echoes(&parts(&mut stream, &fixture).await?), [(None, 1)]);
    Ok(())
}

#[tokio::test]
async fn what_others_write_is_a_change_like_any_other() -> Result<()> {
    let Some(fixture) = Fixture::two_way(&["a"]).await? else { return Ok(()) };
    let failed = |error| anyhow!("{error:?}");
    let mut stream = fixture.open(None).await?;
    let other = Scope { pipeline: "other".into(), two_way: false, ..fixture.scope.clone() };
    let mut writer = Writer::over(fixture.mongodb.sink(&other).await.map_err(failed)?).await.map_err(failed)?;
    apply(&mut writer, vec![write(&person(), Op::Create, None, Some(&[int(1), text("a")]))]).await?;
    let mut session = fixture.client.start_session().await?;
    session.start_transaction().await?;
    fixture.rows("sync_worker.parked").insert_one(doc! { "_id": 1 }).session(&mut session).await?;
    fixture.rows("a").insert_one(doc! { "_id": 2 }).session(&mut session).await?;
    session.commit_transaction().await?;
    assert_eq!(echoes(&parts(&mut stream, &fixture).await?), [(None, 1), (None, 1)]);
    Ok(())
}

#[tokio::test]
async fn changes_come_with_the_documents_before_and_after_them() -> Result<()> {
    let Some(fixture) = Fixture::two_way(&["a"]).await? else { return Ok(()) };
    let rows = fixture.rows("a");
    let mut stream = fixture.open(None).await?;
    rows.insert_one(doc! { "_id": 1, "n": { "x": 1 } }).await?;
    rows.update_one(doc! {}, doc! { "$set": { "n.x": 2 } }).await?;
    rows.replace_one(doc! {}, doc! { "v": 3 }).await?;
    rows.delete_one(doc! {}).await?;
    stream.until(4).await?;
    assert_eq!(stream.ops(), "cuud");
    let documents = [doc! { "_id": 1, "n": { "x": 1 } }, doc! { "_id": 1, "n": { "x": 2 } }, doc! { "_id": 1, "v": 3 }];
    for (at, expected) in documents.iter().enumerate() {
        assert_eq!(document(stream.changes[at].1.after.as_ref()), *expected);
        assert_eq!(document(stream.changes[at + 1].1.before.as_ref()), *expected);
    }
    Ok(())
}

#[tokio::test]
async fn a_collection_without_images_is_refused_with_the_cure() -> Result<()> {
    let Some(mut fixture) = Fixture::new(&["a"]).await? else { return Ok(()) };
    fixture.scope.two_way = true;
    let refusal = fixture.mongodb.source(&fixture.scope, None).await.err().expect("a refusal");
    assert_eq!(refusal.class(), ErrorClass::Fatal);
    assert!(refusal.to_string().contains("collMod"), "{refusal}");
    let found = fixture.mongodb.inspect(&fixture.scope, Role::Source).await.map_err(|error| anyhow!("{error:?}"))?;
    let cures: Vec<_> = found.findings.iter().filter(|one| !one.advice).map(|one| one.cure.as_str()).collect();
    assert!(matches!(cures[..], [cure] if cure.contains("collMod")), "{cures:?}");

    // Turned off and on again meanwhile, a change is lost for good.
    fixture.post_images("a").await?;
    fixture.rows("a").insert_one(doc! { "_id": 1 }).await?;
    let mut stream = fixture.open(None).await?;
    let images = |enabled: bool| doc! { "collMod": "a", "changeStreamPreAndPostImages": { "enabled": enabled } };
    fixture.database.run_command(images(false)).await?;
    fixture.rows("a").update_one(doc! {}, doc! { "$set": { "n": 1 } }).await?;
    fixture.database.run_command(images(true)).await?;
    let error = stream.refusal().await?;
    assert_eq!(error.class(), ErrorClass::Gap, "{error}");
    Ok(())
}
