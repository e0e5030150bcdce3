//! Keys that are fields of the documents, whose `_id` is somebody else's.

use crate::fixture::{Fixture, INT, TEXT, U, apply, gone, image, int, seen, text, try_apply, version, write};
use anyhow::Result;
use bson::{Bson, Document, doc, oid::ObjectId};
use std::collections::HashSet;
use std::sync::Arc;
use sync_worker_core::change::{Change, Op};
use sync_worker_core::database::{Database as _, Role};
use sync_worker_core::error::ErrorClass;
use sync_worker_core::guard::Image;
use sync_worker_core::reader::KeyRange;
use sync_worker_core::schema::Schema;
use sync_worker_core::value::{Cell, Value};
use sync_worker_testkit::writer::{Lot, refused};

const FIELDS: [&str; 2] = ["region", "number"];

/// A collection whose key is the field `sku`, or `region` and `number`, with what that needs.
async fn keyed(fields: &[&str]) -> Result<Option<Fixture>> {
    let Some(mut fixture) = Fixture::new(&["a"]).await? else { return Ok(None) };
    fixture.scope.tables[0].document.key = fields.iter().map(|field| (*field).to_owned()).collect();
    fixture.post_images("a").await?;
    index(&fixture, fields, doc! { "unique": true }).await?;
    Ok(Some(fixture))
}

async fn index(fixture: &Fixture, fields: &[&str], options: Document) -> Result<()> {
    let key: Document = fields.iter().map(|field| ((*field).to_owned(), Bson::Int32(1))).collect();
    let mut index = doc! { "key": key, "name": "of the key" };
    index.extend(options);
    fixture.database.run_command(doc! { "createIndexes": "a", "indexes": [index] }).await?;
    Ok(())
}

/// A relational table whose key is called otherwise than the fields.
fn table(key: usize) -> Arc<Schema> {
    let one = crate::fixture::schema("a", &[("id", INT), ("part", INT), ("name", TEXT), ("n", INT)]);
    Arc::new(Schema::new(one.table.clone(), one.engine, one.columns.clone(), (0..key).collect()))
}

/// The key as the document that it is, or the only value of it.
fn shown(change: &Change, before: bool) -> Option<Bson> {
    let row = if before { change.before.as_ref()? } else { change.after.as_ref()? };
    let key = change.schema.key_of(row).unwrap();
    Some(match key.cells().next() {
        Some(Ok(Cell::Present(Value::Raw([3, bytes @ ..])))) => Document::from_reader(bytes).unwrap().into(),
        Some(Ok(Cell::Present(Value::Text(text)))) => text.into(),
        other => panic!("{other:?}"),
    })
}

#[tokio::test]
async fn a_key_of_fields_comes_from_the_documents_before_and_after_a_change() -> Result<()> {
    let Some(fixture) = keyed(&FIELDS).await? else { return Ok(()) };
    let rows = fixture.rows("a");
    let mut stream = fixture.open(None).await?;
    rows.insert_one(doc! { "_id": "x", "number": 1.0, "region": "n", "v": 1 }).await?;
    rows.update_one(doc! {}, doc! { "$set": { "v": 2 } }).await?;
    rows.update_one(doc! {}, doc! { "$set": { "number": 2_i64 } }).await?;
    rows.replace_one(doc! {}, doc! { "region": "s", "number": 2, "v": 3 }).await?;
    rows.delete_one(doc! {}).await?;
    stream.until(5).await?;
    assert_eq!(stream.ops(), "cuuud");
    let (one, two, south) =
        (doc! { "region": "n", "number": 1 }, doc! { "region": "n", "number": 2 }, doc! { "region": "s", "number": 2 });
    let (one, two, south) = (Some(Bson::from(one)), Some(Bson::from(two)), Some(Bson::from(south)));
    let keys: Vec<_> = stream.changes.iter().map(|(_, change)| (shown(change, true), shown(change, false))).collect();
    // The number's type changed with it: 2.0, 2 and NumberLong(2) are one.
    let expected = [(None, one.clone()), (None, one.clone()), (one, two.clone()), (two, south.clone()), (south, None)];
    assert_eq!(keys, expected);
    assert!(stream.changes[2].1.old_key()?.is_some() && stream.changes[1].1.old_key()?.is_none());
    Ok(())
}

#[tokio::test]
async fn without_its_images_and_its_index_a_key_of_fields_is_refused_with_the_cure() -> Result<()> {
    let Some(mut fixture) = Fixture::new(&["a"]).await? else { return Ok(()) };
    fixture.scope.tables[0].document.key = vec!["sku".to_owned()];
    let create = "db.getCollection(\"a\").createIndex({ \"sku\": 1 }, { unique: true });";
    let told = async |fixture: &Fixture, role: Role| -> Vec<String> {
        let found = fixture.mongodb.inspect(&fixture.scope, role).await.unwrap().findings;
        found.into_iter().filter(|finding| !finding.advice).map(|finding| finding.cure).collect()
    };
    // Neither is one that lacks documents, or takes two for one.
    for options in [
        doc! { "unique": false },
        doc! { "unique": true, "sparse": true },
        doc! { "unique": true, "partialFilterExpression": { "sku": { "$gt": "" } } },
    ] {
        index(&fixture, &["sku"], options).await?;
        assert_eq!(told(&fixture, Role::Target).await, [create]);
        let error = format!("{:#}", fixture.sink().await.err().expect("a sink without its index"));
        assert!(error.contains(create), "{error}");
        let error = fixture.mongodb.reader(&fixture.scope).await.unwrap();
        let mut reader = error;
        let error = reader.read_range(&"a".into(), &KeyRange::default(), 1).await.unwrap_err();
        assert!(error.class() == ErrorClass::Fatal && error.to_string().contains(create), "{error}");
        fixture.database.run_command(doc! { "dropIndexes": "a", "index": "of the key" }).await?;
    }
    let mod_images = "db.runCommand({ collMod: \"a\", changeStreamPreAndPostImages: { enabled: true } });";
    assert_eq!(told(&fixture, Role::Source).await, [mod_images, create]);
    index(&fixture, &["sku"], doc! { "unique": true }).await?;
    let error = format!("{:#}", fixture.open(None).await.err().expect("a source without its images"));
    assert!(error.contains(mod_images) && error.contains("a key of fields"), "{error}");
    fixture.post_images("a").await?;
    assert!(told(&fixture, Role::Source).await.is_empty() && told(&fixture, Role::Target).await.is_empty());
    fixture.open(None).await?;
    Ok(())
}

#[tokio::test]
async fn a_change_without_its_images_is_a_gap_where_the_key_is_fields() -> Result<()> {
    for update in [true, false] {
        let Some(fixture) = keyed(&["sku"]).await? else { return Ok(()) };
        let rows = fixture.rows("a");
        rows.insert_one(doc! { "sku": "x", "v": 1 }).await?;
        let mut stream = fixture.open(None).await?;
        let off = doc! { "enabled": false };
        fixture.database.run_command(doc! { "collMod": "a", "changeStreamPreAndPostImages": off }).await?;
        if update {
            rows.update_one(doc! {}, doc! { "$set": { "v": 2 } }).await?;
        } else {
            rows.delete_one(doc! {}).await?;
        }
        let error = stream.refusal().await?;
        assert_eq!(error.class(), ErrorClass::Gap, "{error}");
        assert!(error.to_string().contains("a key of fields") && error.to_string().contains("collMod"), "{error}");
    }
    Ok(())
}

#[tokio::test]
async fn chunks_by_a_key_of_fields_have_every_document_at_least_once() -> Result<()> {
    let Some(fixture) = keyed(&FIELDS).await? else { return Ok(()) };
    let regions: Vec<Bson> = vec![
        1.into(),
        2.5.into(),
        "a".into(),
        "b".into(),
        true.into(),
        Bson::Null,
        vec![1, 5].into(),
        vec!["a", "c"].into(),
        doc! { "x": 1 }.into(),
        ObjectId::new().into(),
    ];
    let mut documents: Vec<Document> = regions
        .iter()
        .flat_map(|region| (1..4).map(move |number| doc! { "region": region, "number": number }))
        .collect();
    // In an array they stand for numbers that no other document has.
    for (at, document) in documents.iter_mut().enumerate() {
        document.insert("number", i32::try_from(at)?);
    }
    documents.push(doc! { "number": -1 });
    documents.push(doc! { "region": "a" });
    fixture.rows("a").insert_many(&documents).await?;
    let _stream = fixture.open(None).await?;
    for (rows, bytes) in [(1, usize::MAX), (3, usize::MAX), (7, 1), (100, 200)] {
        let mut reader = fixture.mongodb.reader(&fixture.scope).await.unwrap();
        let (mut range, mut found) = (KeyRange::default(), HashSet::new());
        loop {
            let up_to = reader.boundary(&"a".into(), range.after.as_ref(), rows).await.unwrap();
            range.up_to = up_to.clone();
            loop {
                let chunk = reader.read_range(&"a".into(), &range, bytes).await.unwrap();
                for row in &chunk.rows {
                    found.insert(chunk.schema.key_of(row)?);
                }
                match chunk.cut_at {
                    Some(cut) => range.after = Some(cut),
                    None => break,
                }
            }
            match up_to {
                Some(key) => range.after = Some(key),
                None => break,
            }
        }
        assert_eq!(found.len(), documents.len(), "{rows} at a time");
        let keys: Vec<_> = found.into_iter().collect();
        let chunk = reader.read_keys(&"a".into(), &keys).await.unwrap();
        assert_eq!(chunk.rows.len(), documents.len());
        for key in &keys {
            let chunk = reader.read_keys(&"a".into(), std::slice::from_ref(key)).await.unwrap();
            assert_eq!(chunk.rows.len(), 1, "one that has it in an array is another");
        }
    }
    Ok(())
}

#[tokio::test]
async fn rows_are_found_by_their_fields_and_keep_the_id_that_they_have() -> Result<()> {
    for key in [1, 2] {
        let fields = if key == 1 { &["sku"][..] } else { &FIELDS[..] };
        let Some(fixture) = keyed(fields).await? else { return Ok(()) };
        let table = table(key);
        let cells = |id: i64, name, n| [int(id), int(7), name, n];
        let document = |id: i32, more: Document| -> Document {
            let mut out: Document =
                fields.iter().zip([id, 7]).map(|(name, part)| ((*name).to_owned(), part.into())).collect();
            out.extend(more);
            out
        };
        fixture
            .rows("a")
            .insert_one({
                let mut own = doc! { "_id": "own" };
                own.extend(document(1, doc! { "name": "old", "n": 0 }));
                own
            })
            .await?;
        let mut writer = fixture.sink().await?;
        let writes = vec![
            write(&table, Op::Create, None, Some(&cells(1, text("one"), int(1)))),
            write(&table, Op::Create, None, Some(&cells(2, text("two"), int(2)))),
            write(&table, Op::Create, None, Some(&cells(3, text("three"), int(3)))),
            write(&table, Op::Update, None, Some(&cells(2, U, int(22)))),
        ];
        let applied = apply(&mut writer, writes).await?;
        assert!(applied.refused.is_empty() && !applied.row_by_row && applied.missing == 0, "{applied:?}");
        let made = fixture.rows("a").find_one(document(2, doc! {})).await?.unwrap().get_object_id("_id")?;
        let writes = vec![
            write(&table, Op::Update, None, Some(&cells(2, text("TWO"), U))),
            write(&table, Op::Delete, Some(&cells(3, U, U)), None),
            // The name stays what it was at the target.
            write(&table, Op::Update, Some(&cells(1, U, U)), Some(&cells(9, U, int(99)))),
            write(&table, Op::Delete, Some(&cells(5, U, U)), None),
        ];
        let applied = apply(&mut writer, writes).await?;
        assert!(applied.refused.is_empty() && applied.missing == 1, "{applied:?}");
        let mut all: Vec<Document> = fixture.all("a").await?;
        assert_eq!(all.iter().filter(|one| one.get_object_id("_id").is_ok_and(|id| id == made)).count(), 1);
        all.iter_mut().for_each(|one| drop(one.remove("_id")));
        all.sort_by_key(|one| one.get_i64(fields[0]).unwrap());
        let part = |more: Document| {
            if key == 1 {
                let mut out = doc! { "part": 7_i64 };
                out.extend(more);
                out
            } else {
                more
            }
        };
        let long = |id: i64, more: Document| -> Document {
            let mut out: Document =
                fields.iter().zip([id, 7]).map(|(name, part)| ((*name).to_owned(), part.into())).collect();
            out.extend(part(more));
            out
        };
        assert_eq!(all, [long(2, doc! { "name": "TWO", "n": 22_i64 }), long(9, doc! { "name": "one", "n": 99_i64 })]);
    }
    Ok(())
}

#[tokio::test]
async fn a_document_that_has_the_key_in_an_array_is_not_written_over() -> Result<()> {
    let Some(fixture) = keyed(&["sku"]).await? else { return Ok(()) };
    let theirs = doc! { "_id": 1, "sku": [1_i64, 2] };
    fixture.rows("a").insert_one(&theirs).await?;
    let table = table(1);
    let mut writer = fixture.sink().await?;
    let row = |id| [int(id), int(7), text("x"), int(1)];
    let writes = vec![
        write(&table, Op::Create, None, Some(&row(1))),
        write(&table, Op::Create, None, Some(&row(3))),
        write(&table, Op::Delete, Some(&row(2)), None),
    ];
    let applied = apply(&mut writer, writes).await?;
    assert_eq!(refused(&applied.refused), [(0, ErrorClass::Dependency)]);
    assert!(
        applied.refused[0].reason.contains("of the key") || applied.refused[0].reason.contains("unique index"),
        "{applied:?}"
    );
    assert_eq!(fixture.all("a").await?[0], theirs);
    assert_eq!(fixture.all("a").await?.len(), 2);
    Ok(())
}

#[tokio::test]
async fn two_way_only_expected_documents_are_written_over_by_their_fields() -> Result<()> {
    let Some(mut fixture) = Fixture::two_way(&["a"]).await? else { return Ok(()) };
    fixture.scope.tables[0].document.key = vec!["sku".to_owned()];
    index(&fixture, &["sku"], doc! { "unique": true }).await?;
    let table = table(1);
    let theirs =
        |id: &str, sku: Bson, name: &str| doc! { "_id": id, "sku": sku, "part": 7, "name": name, "n": 1, "own": true };
    let documents = [
        theirs("a", 1.0.into(), "a"),
        theirs("b", 2.into(), "b"),
        theirs("c", 3.into(), "c"),
        theirs("d", vec![4].into(), "d"),
    ];
    fixture.rows("a").insert_many(&documents).await?;
    let row = |id: i64, name| [int(id), int(7), text(name), int(1)];
    let mut writer = fixture.sink().await?;
    let batch = writer.batch(vec![
        version(&table, &row(1, "A"), &[image(&row(1, "a"))]),
        version(&table, &row(2, "B"), &[image(&row(2, "x"))]),
        gone(&table, &[int(3), U, U, U], &[image(&row(3, "c"))]),
        version(&table, &row(5, "e"), &[Image::Absent]),
    ]);
    let applied = try_apply(&mut writer, &batch, &Lot::default()).await?;
    assert_eq!(applied.differing, [(1, seen(&row(2, "b")))], "{applied:?}");
    assert_eq!((applied.rows, applied.refused.len()), (3, 0), "{applied:?}");
    let there = fixture.all("a").await?;
    assert_eq!(there.len(), 4);
    let find = |id: &str| there.iter().find(|one| one.get_str("_id").is_ok_and(|its| its == id)).cloned();
    // Its field stays as its application wrote it, and so does what no column is.
    assert_eq!(find("a"), Some(theirs("a", 1.0.into(), "A")));
    assert_eq!((find("b"), find("c")), (Some(documents[1].clone()), None));
    // One that has the key in an array is another document, and in the way of a new one.
    let batch = writer.batch(vec![version(&table, &row(4, "D"), &[Image::Absent])]);
    let applied = try_apply(&mut writer, &batch, &Lot::default()).await?;
    assert_eq!(refused(&applied.refused), [(0, ErrorClass::Dependency)]);
    assert_eq!(fixture.all("a").await?, there);
    Ok(())
}
