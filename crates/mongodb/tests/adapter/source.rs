//! What the stream says of documents and transactions, and where it goes on.

use crate::fixture::{Fixture, apply};
use anyhow::Result;
use bson::{Document, doc};
use sync_worker_core::change::Op;
use sync_worker_core::document::patch;
use sync_worker_core::error::ErrorClass;
use sync_worker_core::value::{Cell, Value};

fn whole(cell: Option<Result<Cell<'_>, sync_worker_core::value::Damaged>>) -> Document {
    match cell {
        Some(Ok(Cell::Present(Value::Document(bytes)))) => Document::from_reader(bytes).expect("a document"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn plain_writes_and_transactions_come_in_order_and_whole() -> Result<()> {
    let Some(fixture) = Fixture::new(&["a", "b"]).await? else { return Ok(()) };
    let mut stream = fixture.open(None).await?;
    let (a, b) = (fixture.rows("a"), fixture.rows("b"));
    a.insert_one(doc! { "_id": 1, "x": "one" }).await?;
    let mut session = fixture.client.start_session().await?;
    session.start_transaction().await?;
    a.insert_one(doc! { "_id": 2 }).session(&mut session).await?;
    b.insert_one(doc! { "_id": "t" }).session(&mut session).await?;
    a.replace_one(doc! { "_id": 1 }, doc! { "x": "two" }).session(&mut session).await?;
    session.commit_transaction().await?;
    b.delete_one(doc! { "_id": "t" }).await?;
    stream.until(5).await?;
    assert_eq!(stream.ops(), "cccud");
    let sizes: Vec<_> = stream.transactions.iter().map(|(_, changes)| *changes).collect();
    assert_eq!(sizes, [1, 3, 1]);
    let (_, replaced) = &stream.changes[3];
    assert_eq!(whole(replaced.after.as_ref().unwrap().cells().nth(1)), doc! { "_id": 1, "x": "two" });
    let (_, deleted) = &stream.changes[4];
    let mut cells = deleted.before.as_ref().unwrap().cells();
    assert_eq!(cells.next().unwrap()?, Cell::Present(Value::Text("t")));
    assert_eq!(cells.next().unwrap()?, Cell::Unchanged);
    Ok(())
}

#[tokio::test]
async fn an_update_comes_as_what_changed_or_whole_with_post_images() -> Result<()> {
    let Some(fixture) = Fixture::new(&["a"]).await? else { return Ok(()) };
    let rows = fixture.rows("a");
    let before = doc! { "_id": 1, "n": { "x": 1, "y": [1, 2, 3, 4] }, "gone": true };
    rows.insert_one(&before).await?;
    let mut stream = fixture.open(None).await?;
    let update = doc! { "$set": { "n.x": 2, "n.y.1": 9, "new": "v" }, "$unset": { "gone": "" } };
    rows.update_one(doc! { "_id": 1 }, update).await?;
    let cut = doc! { "$push": { "n.y": { "$each": [], "$slice": 2 } } };
    rows.update_one(doc! { "_id": 1 }, cut).await?;
    stream.until(2).await?;
    let mut document = Vec::new();
    before.to_writer(&mut document)?;
    for (_, change) in &stream.changes {
        let Some(Ok(Cell::Present(Value::Patch(bytes)))) = change.after.as_ref().unwrap().cells().nth(1) else {
            panic!("no patch")
        };
        document = patch::apply(bytes, &document)?;
    }
    let there = fixture.all("a").await?;
    assert_eq!(Document::from_reader(&document[..])?, there[0]);

    fixture.post_images("a").await?;
    let mut stream = fixture.open(Some(&stream.checkpoint)).await?;
    rows.update_one(doc! { "_id": 1 }, doc! { "$set": { "n.x": 3 } }).await?;
    stream.until(1).await?;
    assert_eq!(whole(stream.changes[0].1.after.as_ref().unwrap().cells().nth(1)), fixture.all("a").await?[0]);
    Ok(())
}

#[tokio::test]
async fn updates_from_before_the_images_do_not_stop_a_stream() -> Result<()> {
    let Some(fixture) = Fixture::new(&["a"]).await? else { return Ok(()) };
    let rows = fixture.rows("a");
    rows.insert_one(doc! { "_id": 1 }).await?;
    let stream = fixture.open(None).await?;
    rows.update_one(doc! { "_id": 1 }, doc! { "$set": { "x": 1 } }).await?;
    fixture.post_images("a").await?;
    rows.update_one(doc! { "_id": 1 }, doc! { "$set": { "x": 2 } }).await?;
    let mut stream = fixture.open(Some(&stream.checkpoint)).await?;
    stream.until(2).await?;
    assert_eq!(stream.ops(), "uu");
    Ok(())
}

#[tokio::test]
async fn a_dropped_or_renamed_collection_is_a_gap() -> Result<()> {
    for renamed in [false, true] {
        let Some(fixture) = Fixture::new(&["a"]).await? else { return Ok(()) };
        let mut stream = fixture.open(None).await?;
        fixture.rows("a").insert_one(doc! { "_id": 1 }).await?;
        if renamed {
            let name = fixture.database.name();
            let command = doc! { "renameCollection": format!("{name}.a"), "to": format!("{name}.b") };
            fixture.client.database("admin").run_command(command).await?;
        } else {
            fixture.rows("a").drop().await?;
        }
        let error = stream.refusal().await?;
        assert_eq!(error.class(), ErrorClass::Gap, "{error}");
        assert!(error.to_string().contains("collection a was"), "{error}");
    }
    Ok(())
}

#[tokio::test]
async fn a_dropped_database_is_a_gap_and_stays_one() -> Result<()> {
    let Some(fixture) = Fixture::new(&["a"]).await? else { return Ok(()) };
    let mut stream = fixture.open(None).await?;
    fixture.rows("a").insert_one(doc! { "_id": 1 }).await?;
    stream.until(1).await?;
    let before = stream.checkpoint.clone();
    fixture.database.drop().await?;
    for mut stream in [stream, fixture.open(Some(&before)).await?] {
        let error = stream.refusal().await?;
        assert_eq!(error.class(), ErrorClass::Gap, "{error}");
        assert!(error.to_string().contains("dropped"), "{error}");
    }
    Ok(())
}

#[tokio::test]
async fn an_idle_stream_moves_on() -> Result<()> {
    let Some(fixture) = Fixture::new(&["a"]).await? else { return Ok(()) };
    let mut stream = fixture.open(None).await?;
    let first = stream.batch().await?.reached;
    while stream.batch().await?.reached <= first {}
    Ok(())
}

#[tokio::test]
async fn a_large_transaction_comes_in_parts() -> Result<()> {
    let Some(fixture) = Fixture::new(&["a"]).await? else { return Ok(()) };
    let mut stream = fixture.open(None).await?;
    let mut session = fixture.client.start_session().await?;
    session.start_transaction().await?;
    let filler = "x".repeat(10_000);
    for part in 0..5 {
        let many = (0..100).map(|id| doc! { "_id": part * 100 + id, "filler": &filler });
        fixture.rows("a").insert_many(many).session(&mut session).await?;
    }
    session.commit_transaction().await?;
    let mut parts = 0;
    while stream.transactions.is_empty() {
        parts += stream.batch().await?.parts.len();
    }
    assert!(parts > 2, "{parts} parts");
    assert_eq!(stream.changes.len(), 500);
    assert_eq!(stream.changes.iter().filter(|(_, change)| change.op == Op::Create).count(), 500);
    Ok(())
}

#[tokio::test]
async fn documents_near_the_limit_and_events_above_it_arrive_whole() -> Result<()> {
    let (Some(here), Some(there)) = (Fixture::new(&["a"]).await?, Fixture::new(&["a"]).await?) else { return Ok(()) };
    here.post_images("a").await?;
    let rows = here.rows("a");
    let mut stream = here.open(None).await?;
    let text = |megabytes: f64| "x".repeat((megabytes * 1_048_576.0) as usize);
    rows.insert_one(doc! { "_id": 1, "x": text(15.9) }).await?;
    rows.insert_one(doc! { "_id": 2, "x": text(1.0) }).await?;
    // What changed and the document after it are more than an event may be.
    rows.update_one(doc! { "_id": 2 }, doc! { "$set": { "x": text(7.0), "y": text(7.0) } }).await?;
    stream.until(3).await?;
    let mut writer = there.sink().await?;
    for (_, change) in &stream.changes {
        let applied = apply(&mut writer, vec![sync_worker_testkit::writer::write(change.clone())]).await?;
        assert!(applied.refused.is_empty(), "{applied:?}");
    }
    assert!(here.all("a").await? == there.all("a").await?);
    Ok(())
}
