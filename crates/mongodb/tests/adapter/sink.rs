//! Batches in one transaction: what is written, what is parked, and who may write.

use crate::fixture::{Fixture, INT, TEXT, U, apply, int, schema, text, write};
use anyhow::Result;
use bson::{Document, doc};
use std::sync::Arc;
use sync_worker_core::change::Op;
use sync_worker_core::error::ErrorClass;
use sync_worker_core::schema::Schema;
use sync_worker_core::types::ColumnType;
use sync_worker_core::value::{Cell, Value};
use sync_worker_testkit::writer::{self, Lot};

#[tokio::test]
async fn rows_of_a_relational_source_become_documents() -> Result<()> {
    let Some(fixture) = Fixture::new(&["a"]).await? else { return Ok(()) };
    let a = schema("a", &[("id", INT), ("name", TEXT), ("n", INT)]);
    let mut writer = fixture.sink().await?;
    let applied = apply(
        &mut writer,
        vec![
            write(&a, Op::Create, None, Some(&[int(1), text("one"), int(10)])),
            write(&a, Op::Create, None, Some(&[int(2), text("two"), Cell::Present(Value::Null)])),
            write(&a, Op::Update, None, Some(&[int(1), U, int(11)])),
            write(&a, Op::Create, None, Some(&[int(3), text("three"), int(3)])),
        ],
    )
    .await?;
    assert!(applied.refused.is_empty() && !applied.row_by_row, "{applied:?}");
    apply(
        &mut writer,
        vec![
            write(&a, Op::Update, None, Some(&[int(2), U, int(22)])),
            write(&a, Op::Delete, Some(&[int(3), U, U]), None),
            // The key changes, and the name stays what it was at the target.
            write(&a, Op::Update, Some(&[int(1), U, U]), Some(&[int(9), U, int(12)])),
        ],
    )
    .await?;
    let expected = [doc! { "_id": 2i64, "name": "two", "n": 22i64 }, doc! { "_id": 9i64, "name": "one", "n": 12i64 }];
    assert_eq!(fixture.all("a").await?, expected);
    let applied = apply(&mut writer, vec![write(&a, Op::Truncate, None, None)]).await?;
    assert_eq!((applied.rows, fixture.all("a").await?.len()), (1, 0));
    Ok(())
}

/// The collection has no key of its own that could be compared with.
#[tokio::test]
async fn a_source_that_gets_another_key_is_refused_while_there_are_documents() -> Result<()> {
    let Some(fixture) = Fixture::new(&["a"]).await? else { return Ok(()) };
    let a = schema("a", &[("id", INT), ("n", INT)]);
    let again = Arc::new(Schema::new(a.table.clone(), a.engine, a.columns.clone(), vec![1]));
    let row = |schema, id, n| write(schema, Op::Create, None, Some(&[int(id), int(n)]));
    apply(&mut fixture.sink().await?, vec![row(&a, 1, 10)]).await?;
    // Neither the applier that wrote them, nor the next one.
    for _ in 0..2 {
        let mut writer = fixture.sink().await?;
        apply(&mut writer, vec![write(&a, Op::Update, None, Some(&[int(1), int(11)]))]).await?;
        let batch = writer.batch(vec![row(&again, 1, 10)]);
        let error = writer.try_apply(&batch, &Lot::default()).await.expect_err("the key is another one");
        assert_eq!(error.class(), ErrorClass::Fatal);
        let told = error.to_string();
        assert!(["collection a ", "(id)", "(n)", "--repair"].iter().all(|part| told.contains(part)), "{told}");
        assert_eq!(fixture.all("a").await?, [doc! { "_id": 1i64, "n": 11i64 }]);
    }
    fixture.rows("a").delete_many(doc! {}).await?;
    apply(&mut fixture.sink().await?, vec![row(&again, 1, 10)]).await?;
    apply(&mut fixture.sink().await?, vec![row(&again, 2, 20)]).await?;
    assert_eq!(fixture.all("a").await?, [doc! { "_id": 10i64, "id": 1i64 }, doc! { "_id": 20i64, "id": 2i64 }]);
    // Or the source empties the table itself, in whichever order. A batch that is not written leaves the key as it was.
    let truncate = |schema| write(schema, Op::Truncate, None, None);
    let mut writer = fixture.sink().await?;
    let batch = writer.batch(vec![truncate(&a), row(&a, 3, 30)]);
    let stale = sync_worker_core::sink::WriteBatch { expected: batch.marker.clone(), ..batch };
    assert!(writer.try_apply(&stale, &Lot::default()).await.is_err());
    apply(&mut fixture.sink().await?, vec![row(&again, 4, 40)]).await?;
    apply(&mut fixture.sink().await?, vec![truncate(&again), row(&a, 3, 30)]).await?;
    apply(&mut fixture.sink().await?, vec![row(&a, 5, 50)]).await?;
    assert_eq!(fixture.all("a").await?, [doc! { "_id": 3i64, "n": 30i64 }, doc! { "_id": 5i64, "n": 50i64 }]);
    Ok(())
}

#[tokio::test]
async fn a_batch_full_of_refusals_ends_in_good_time() -> Result<()> {
    let Some(fixture) = Fixture::new(&["a"]).await? else { return Ok(()) };
    let time = ColumnType::Timestamp { precision: 6 };
    let a = schema("a", &[("id", INT), ("at", time), ("n", INT)]);
    let mut writer = fixture.sink().await?;
    let microseconds = Cell::Present(Value::Timestamp(1_000_001));
    // Every other row can't be a date of milliseconds, some are not there, and one has no place beside its `_id`.
    let rows = (0..2_000).map(|id| match id % 4 {
        0 | 2 => write(&a, Op::Create, None, Some(&[int(id), microseconds, int(1)])),
        1 if id % 20 == 1 => write(&a, Op::Update, None, Some(&[int(id), U, int(1)])),
        _ => write(&a, Op::Create, None, Some(&[int(id), Cell::Present(Value::Null), int(1)])),
    });
    let batch = writer.batch(rows.collect());
    // One attempt for the set, one to find what is missing, one that goes through.
    let applied =
        tokio::time::timeout(std::time::Duration::from_secs(20), writer.try_apply(&batch, &Lot::default())).await?;
    let applied = applied.map_err(|error| anyhow::anyhow!("{error:?}"))?;
    assert_eq!((applied.refused.len(), applied.rows), (1_100, 900), "{:?}", applied.refused.first());
    assert_eq!(fixture.all("a").await?.len(), 900);
    assert_eq!(fixture.sink().await?.parked.len(), 1_100);
    Ok(())
}

#[tokio::test]
async fn updates_of_one_field_in_one_batch_take_effect_in_their_order() -> Result<()> {
    let (Some(here), Some(there)) = (Fixture::new(&["a"]).await?, Fixture::new(&["a"]).await?) else { return Ok(()) };
    let rows = here.rows("a");
    rows.insert_one(doc! { "_id": 1, "x": 0, "n": { "y": 0 } }).await?;
    there.rows("a").insert_one(doc! { "_id": 1, "x": 0, "n": { "y": 0 } }).await?;
    let mut stream = here.open(None).await?;
    for update in [
        doc! { "$set": { "x": 1, "n.y": 1 } },
        doc! { "$set": { "x": 2, "n": { "z": 5 } } },
        doc! { "$set": { "n.y": 3 }, "$unset": { "x": "" } },
        doc! { "$set": { "zeta": 1 } },
        doc! { "$set": { "alpha": 1 } },
    ] {
        rows.update_one(doc! {}, update).await?;
    }
    stream.until(5).await?;
    let changes = stream.changes.iter();
    let writes = changes.map(|(_, change)| writer::write(change.clone()));
    let applied = apply(&mut there.sink().await?, writes.collect()).await?;
    assert!(applied.refused.is_empty() && !applied.row_by_row, "{applied:?}");
    assert_eq!(here.all("a").await?, there.all("a").await?);
    Ok(())
}

#[tokio::test]
async fn a_document_that_a_command_can_t_hold_with_its_key_is_parked() -> Result<()> {
    let Some(fixture) = Fixture::new(&["a"]).await? else { return Ok(()) };
    let a = schema("a", &[("id", TEXT), ("body", TEXT)]);
    let mut writer = fixture.sink().await?;
    let (key, body) = ("k".repeat(100 << 10), "b".repeat((16 << 20) - (110 << 10)));
    let applied = apply(
        &mut writer,
        vec![
            write(&a, Op::Create, None, Some(&[text("small"), text("x")])),
            write(&a, Op::Create, None, Some(&[text(&key), text(&body)])),
        ],
    )
    .await?;
    assert_eq!((applied.refused.len(), applied.refused[0].write), (1, 1), "{applied:?}");
    assert!(applied.refused[0].reason.contains("16 MB"), "{applied:?}");
    assert_eq!(fixture.all("a").await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn two_hundred_levels_of_nesting_are_refused_without_harm() -> Result<()> {
    let Some(fixture) = Fixture::new(&["a"]).await? else { return Ok(()) };
    let a = schema("a", &[("id", INT), ("body", ColumnType::Json { textual: true })]);
    let mut writer = fixture.sink().await?;
    let nested = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
    let (deep, shallow) = (nested(200), nested(50));
    let json = |text| Cell::Present(Value::Json(text));
    let applied = apply(
        &mut writer,
        vec![
            write(&a, Op::Create, None, Some(&[int(1), json(shallow.as_str())])),
            write(&a, Op::Create, None, Some(&[int(2), json(deep.as_str())])),
            write(&a, Op::Create, None, Some(&[int(3), json("{}")])),
        ],
    )
    .await?;
    assert_eq!((applied.refused.len(), applied.refused[0].write), (1, 1), "{applied:?}");
    assert!(applied.refused[0].reason.contains("deep"), "{applied:?}");
    assert_eq!(fixture.all("a").await?.len(), 2);
    Ok(())
}

#[tokio::test]
async fn what_a_stream_says_makes_the_same_documents_elsewhere() -> Result<()> {
    let (Some(here), Some(there)) = (Fixture::new(&["a"]).await?, Fixture::new(&["a"]).await?) else { return Ok(()) };
    let rows = here.rows("a");
    let mut stream = here.open(None).await?;
    rows.insert_one(doc! { "_id": "x", "n": { "y": [1, 2, 3, 4] }, "gone": 1, "d.o": 1 }).await?;
    rows.update_one(doc! {}, doc! { "$set": { "n.y.0": 5, "n.z": { "q": 1 } }, "$unset": { "gone": "" } }).await?;
    rows.update_one(doc! {}, doc! { "$push": { "n.y": { "$each": [], "$slice": 2 } } }).await?;
    rows.update_one(doc! {}, doc! { "$set": { "n.y.1": "last" } }).await?;
    rows.insert_one(doc! { "_id": 2.5, "v": 1 }).await?;
    rows.insert_one(doc! { "_id": { "a": 1 }, "v": 1 }).await?;
    rows.delete_one(doc! { "_id": 2.5 }).await?;
    stream.until(7).await?;
    let mut writer = there.sink().await?;
    let writes = |from: usize, to: usize| {
        stream.changes[from..to].iter().map(|(_, change)| writer::write(change.clone())).collect()
    };
    // One batch collapses them, another one applies what changed to what is there.
    apply(&mut writer, writes(0, 2)).await?;
    apply(&mut writer, writes(2, 4)).await?;
    let applied = apply(&mut writer, writes(4, 7)).await?;
    assert!(applied.refused.is_empty(), "{applied:?}");
    let (one, other): (Vec<Document>, Vec<Document>) = (here.all("a").await?, there.all("a").await?);
    assert_eq!(one, other);
    Ok(())
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_and_a_transaction_that_is_cut_off_have_one_effect() -> Result<()> {
    let Some(fixture) = Fixture::new(&["a"]).await? else { return Ok(()) };
    let a = schema("a", &[("id", INT), ("n", INT)]);
    let admin = fixture.client.database("admin");
    for (number, data) in [
        doc! { "failCommands": ["commitTransaction"], "closeConnection": true, "afterExecution": true },
        doc! { "failCommands": ["commitTransaction"], "closeConnection": true },
        doc! { "failCommands": ["bulkWrite", "update"], "errorCode": 112, "errorLabels": ["TransientTransactionError"] },
        doc! { "failCommands": ["commitTransaction"], "errorCode": 251, "errorLabels": ["TransientTransactionError"] },
        doc! { "failCommands": ["bulkWrite"], "closeConnection": true },
        // What a transaction meets that the server has ended for its age.
        doc! { "failCommands": ["bulkWrite"], "errorCode": 251, "errorLabels": ["TransientTransactionError"] },
        doc! { "failCommands": ["commitTransaction"], "errorCode": 10107, "errorLabels": ["RetryableWriteError", "UnknownTransactionCommitResult"] },
    ]
    .into_iter()
    .enumerate()
    {
        let number = i64::try_from(number)?;
        let mut writer = fixture.sink().await?;
        admin
            .run_command(doc! { "configureFailPoint": "failCommand", "mode": { "times": 1 }, "data": data.clone() })
            .await?;
        let applied = apply(&mut writer, vec![write(&a, Op::Create, None, Some(&[int(number), int(1)]))]).await;
        admin.run_command(doc! { "configureFailPoint": "failCommand", "mode": "off" }).await?;
        applied.map_err(|error| error.context(format!("{data}")))?;
        assert_eq!(fixture.all("a").await?.len() as i64, number + 1, "{data}");
        assert_eq!(fixture.sink().await?.marker.writes, writer.marker.writes + 1);
    }
    Ok(())
}
