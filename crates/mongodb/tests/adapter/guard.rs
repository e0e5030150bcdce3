//! Two-way: a version is written over nothing but a document that it may be written over.

use crate::fixture::{Fixture, INT, TEXT, U, gone, image, int, retry_of, schema, seen, text, try_apply, version};
use anyhow::Result;
use bson::{doc, oid::ObjectId};
use sync_worker_core::document::mapping::OtherFields;
use sync_worker_core::error::ErrorClass;
use sync_worker_core::guard::{Image, Seen};
use sync_worker_core::sink::Write;
use sync_worker_core::types::ColumnType;
use sync_worker_core::value::{Cell, Value};
use sync_worker_testkit::writer::{Lot, refused};

const NULL: Cell<'static> = Cell::Present(Value::Null);

#[tokio::test]
async fn only_expected_documents_are_written_over() -> Result<()> {
    let Some(fixture) = Fixture::two_way(&["a"]).await? else { return Ok(()) };
    let a = schema("a", &[("id", INT), ("name", TEXT), ("n", INT)]);
    let rows = fixture.rows("a");
    // Other types of numbers that say the same, and fields that no column has.
    let documents = [
        doc! { "_id": 1, "own": { "x": [1] }, "name": "a", "n": 1.0 },
        doc! { "_id": 2, "name": "b", "n": 2 },
        doc! { "_id": 3, "name": "c", "own": 3 },
        doc! { "_id": 4.0, "name": "d", "n": 4 },
    ];
    rows.insert_many(documents).await?;
    let mut writer = fixture.sink().await?;
    let batch = writer.batch(vec![
        version(&a, &[int(1), text("A"), int(1)], &[Image::Absent, image(&[int(1), text("a"), int(1)])]),
        version(&a, &[int(2), text("B"), int(2)], &[image(&[int(2), text("x"), int(2)])]),
        gone(&a, &[int(3), U, U], &[image(&[int(3), text("c"), NULL])]),
        // It is so already, whoever made it.
        version(&a, &[int(4), text("d"), int(4)], &[]),
        version(&a, &[int(5), text("e"), NULL], &[Image::Absent]),
        gone(&a, &[int(6), U, U], &[image(&[int(6), text("f"), int(6)])]),
        version(&a, &[int(7), text("g"), int(7)], &[image(&[int(7), text("x"), int(7)])]),
    ]);
    let lot = Lot::default();
    let applied = try_apply(&mut writer, &batch, &lot).await?;
    assert_eq!((applied.rows, applied.missing, applied.row_by_row), (3, 0, false), "{applied:?}");
    assert_eq!(applied.differing, [(1, seen(&[int(2), text("b"), int(2)])), (6, Seen::of(None))]);
    assert!(applied.refused.is_empty() && lot.0.lock().unwrap().is_empty(), "what differs waits for no retry");
    let expected = [
        doc! { "_id": 1, "own": { "x": [1] }, "name": "A", "n": 1.0 },
        doc! { "_id": 2, "name": "b", "n": 2 },
        doc! { "_id": 4.0, "name": "d", "n": 4 },
        doc! { "_id": 5i64, "name": "e", "n": null },
    ];
    assert_eq!(fixture.all("a").await?, expected);
    // Whoever takes over learns what was seen.
    let parked = fixture.sink().await?.parked;
    let seen: Vec<_> = parked.iter().map(|key| (key.offset.0, key.reason.as_str(), key.seen)).collect();
    let differs = "differs";
    assert_eq!(seen, [(1, differs, Some(applied.differing[0].1.image)), (6, differs, Some(Image::Absent))]);
    Ok(())
}

#[tokio::test]
async fn a_retry_that_still_differs_is_refused_until_it_may_be_written() -> Result<()> {
    let Some(fixture) = Fixture::two_way(&["a"]).await? else { return Ok(()) };
    let a = schema("a", &[("id", INT), ("n", INT)]);
    fixture.rows("a").insert_one(doc! { "_id": 1, "n": 1 }).await?;
    let mut writer = fixture.sink().await?;
    let write = |expected| version(&a, &[int(1), int(10)], &[image(&[int(1), int(expected)])]);
    let batch = writer.batch(vec![write(5)]);
    let offset = batch.writes[0].offset;
    assert_eq!(try_apply(&mut writer, &batch, &Lot::default()).await?.differing.len(), 1);
    let (batch, lot) = (retry_of(&writer, vec![(write(5), offset)]), Lot::default());
    let applied = try_apply(&mut writer, &batch, &lot).await?;
    assert_eq!(refused(&applied.refused), [(0, ErrorClass::Dependency)]);
    assert_eq!(lot.refused(), [(0, ErrorClass::Dependency)]);
    assert!(applied.differing.is_empty());
    assert_eq!(fixture.all("a").await?, [doc! { "_id": 1, "n": 1 }]);
    let batch = retry_of(&writer, vec![(write(1), offset)]);
    let applied = try_apply(&mut writer, &batch, &Lot::default()).await?;
    assert_eq!((applied.rows, applied.refused.len()), (1, 0));
    assert_eq!(fixture.all("a").await?, [doc! { "_id": 1, "n": 10i64 }]);
    assert!(fixture.sink().await?.parked.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_refused_write_is_named_by_its_place_in_the_whole_batch() -> Result<()> {
    let Some(fixture) = Fixture::two_way(&["a"]).await? else { return Ok(()) };
    let index = doc! { "key": { "u": 1 }, "name": "u_1", "unique": true };
    fixture.database.run_command(doc! { "createIndexes": "a", "indexes": [index] }).await?;
    let a = schema("a", &[("id", INT), ("u", INT)]);
    fixture.rows("a").insert_many((1..=3).map(|id| doc! { "_id": id, "u": id })).await?;
    let mut writer = fixture.sink().await?;
    let row = |id, u| [int(id), int(u)];
    let batch = writer.batch(vec![
        version(&a, &row(1, 1), &[]),
        version(&a, &row(2, 20), &[]),
        version(&a, &row(4, 4), &[Image::Absent]),
        version(&a, &row(5, 2), &[Image::Absent]),
        version(&a, &row(3, 30), &[image(&row(3, 3))]),
    ]);
    let lot = Lot::default();
    let applied = try_apply(&mut writer, &batch, &lot).await?;
    assert_eq!(refused(&applied.refused), [(3, ErrorClass::Dependency)]);
    assert_eq!(lot.refused(), [(3, ErrorClass::Dependency)]);
    assert_eq!(applied.differing, [(1, seen(&row(2, 2)))]);
    assert_eq!((applied.rows, applied.row_by_row), (2, true));
    // A newer version takes the place of what is parked; one that is there already needs no write.
    let again = |write: Write| Write { parked: true, ..write };
    let (newer, there) = (version(&a, &row(5, 50), &[Image::Absent]), version(&a, &row(2, 2), &[]));
    let batch = writer.batch(vec![again(newer), again(there)]);
    let applied = try_apply(&mut writer, &batch, &Lot::default()).await?;
    assert_eq!((applied.rows, applied.refused.len(), applied.differing.len()), (1, 0, 0));
    assert!(fixture.sink().await?.parked.is_empty());
    let all = fixture.all("a").await?;
    let values = all.iter().map(|row| row.get_i64("u").or_else(|_| row.get_i32("u").map(i64::from)).unwrap());
    assert_eq!(values.collect::<Vec<_>>(), [1, 2, 30, 4, 50]);
    Ok(())
}

#[tokio::test]
async fn a_document_is_found_under_any_id_that_becomes_the_key() -> Result<()> {
    let Some(mut fixture) = Fixture::two_way(&["a"]).await? else { return Ok(()) };
    let a = schema("a", &[("id", TEXT), ("n", INT)]);
    let (kept, replaced) = (ObjectId::new(), ObjectId::new());
    let rows = fixture.rows("a");
    rows.insert_many([doc! { "_id": kept, "n": 1, "own": true }, doc! { "_id": replaced, "n": 1 }]).await?;
    let write = |id: &str| version(&a, &[text(id), int(2)], &[image(&[text(id), int(1)])]);
    let mut writer = fixture.sink().await?;
    let batch = writer.batch(vec![write(&kept.to_hex())]);
    assert_eq!(try_apply(&mut writer, &batch, &Lot::default()).await?.rows, 1);
    // Where a document has the columns' fields alone, the whole of it is replaced.
    fixture.scope.tables[0].document.other_fields = OtherFields::Refuse;
    let mut writer = fixture.sink().await?;
    let batch = writer.batch(vec![write(&replaced.to_hex())]);
    assert_eq!(try_apply(&mut writer, &batch, &Lot::default()).await?.rows, 1);
    let expected = [doc! { "_id": kept, "n": 2i64, "own": true }, doc! { "_id": replaced, "n": 2i64 }];
    assert_eq!(fixture.all("a").await?, expected);
    // Two documents that become one row are no row that may be written over.
    rows.insert_one(doc! { "_id": kept.to_hex(), "n": 2 }).await?;
    fixture.scope.tables[0].document.other_fields = OtherFields::Ignore;
    let mut writer = fixture.sink().await?;
    let id = kept.to_hex();
    let batch = writer.batch(vec![version(&a, &[text(&id), int(3)], &[image(&[text(&id), int(2)])])]);
    assert_eq!(try_apply(&mut writer, &batch, &Lot::default()).await?.differing.len(), 1);
    Ok(())
}

/// The server takes numbers of two types for one key, and the look does not: an upsert would write over what it has not seen.
#[tokio::test]
async fn a_number_of_another_type_is_not_written_over_as_if_it_were_not_there() -> Result<()> {
    let Some(fixture) = Fixture::two_way(&["a"]).await? else { return Ok(()) };
    let a = schema("a", &[("id", ColumnType::Decimal { precision: Some(5), scale: 2 }), ("n", INT)]);
    fixture.rows("a").insert_one(doc! { "_id": 1.5, "n": 1 }).await?;
    let mut writer = fixture.sink().await?;
    let id = Cell::Present(Value::Decimal("1.50"));
    let batch = writer.batch(vec![version(&a, &[id, int(2)], &[Image::Absent])]);
    let applied = try_apply(&mut writer, &batch, &Lot::default()).await?;
    assert_eq!(refused(&applied.refused), [(0, ErrorClass::Dependency)]);
    assert_eq!(fixture.all("a").await?, [doc! { "_id": 1.5, "n": 1 }]);
    Ok(())
}

#[tokio::test]
async fn a_write_that_conflicts_is_made_again_over_what_is_there_then() -> Result<()> {
    let Some(fixture) = Fixture::two_way(&["a"]).await? else { return Ok(()) };
    let a = schema("a", &[("id", INT), ("n", INT)]);
    fixture.rows("a").insert_one(doc! { "_id": 1, "n": 1 }).await?;
    let mut writer = fixture.sink().await?;
    let admin = fixture.client.database("admin");
    for (code, label, was) in [(112, "TransientTransactionError", 1), (251, "TransientTransactionError", 2)] {
        let data = doc! { "failCommands": ["bulkWrite", "update"], "errorCode": code, "errorLabels": [label] };
        let point = doc! { "configureFailPoint": "failCommand", "mode": { "times": 1 }, "data": data };
        admin.run_command(point).await?;
        let batch = writer.batch(vec![version(&a, &[int(1), int(was + 1)], &[image(&[int(1), int(was)])])]);
        let applied = try_apply(&mut writer, &batch, &Lot::default()).await;
        admin.run_command(doc! { "configureFailPoint": "failCommand", "mode": "off" }).await?;
        assert_eq!(applied?.rows, 1);
    }
    assert_eq!(fixture.all("a").await?, [doc! { "_id": 1, "n": 3i64 }]);
    Ok(())
}

/// At its origin a value went round over another one, and of each key the newest version alone comes.
#[tokio::test]
async fn unique_values_go_round_among_documents() -> Result<()> {
    let Some(fixture) = Fixture::two_way(&["a"]).await? else { return Ok(()) };
    let index = doc! { "key": { "u": 1 }, "name": "u_1", "unique": true };
    fixture.database.run_command(doc! { "createIndexes": "a", "indexes": [index] }).await?;
    let a = schema("a", &[("id", INT), ("u", INT)]);
    // An `_id` of another type stays what it is.
    let documents = (1..=8i32).map(|id| {
        if id == 2 {
            doc! { "_id": 2.0, "u": 2 }
        } else {
            doc! { "_id": id, "u": id }
        }
    });
    fixture.rows("a").insert_many(documents).await?;
    let mut writer = fixture.sink().await?;
    let row = |id, u| [int(id), int(u)];
    let becomes = |id, from, to| version(&a, &row(id, to), &[image(&row(id, from))]);
    // Two that swap, three in a circle; one wants what a row has that stays, one what it keeps for that.
    let batch = writer.batch(vec![
        becomes(1, 1, 2),
        becomes(6, 6, 8),
        becomes(7, 7, 6),
        becomes(2, 2, 1),
        becomes(3, 3, 4),
        version(&a, &row(9, 3), &[Image::Absent]),
        becomes(4, 4, 5),
        becomes(5, 5, 50),
    ]);
    let lot = Lot::default();
    let applied = try_apply(&mut writer, &batch, &lot).await?;
    assert_eq!(refused(&applied.refused), [1, 2].map(|write| (write, ErrorClass::Dependency)), "{applied:?}");
    assert_eq!((applied.rows, applied.missing), (6, 0));
    let all = fixture.all("a").await?;
    let values = all.iter().map(|row| row.get_i64("u").or_else(|_| row.get_i32("u").map(i64::from)).unwrap());
    assert_eq!(values.collect::<Vec<_>>(), [2, 1, 4, 5, 50, 6, 7, 8, 3]);
    assert_eq!(all[1].get_f64("_id")?, 2.0);
    Ok(())
}
