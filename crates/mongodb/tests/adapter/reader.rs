//! Ranges of keys of any type, in the server's order.

use crate::fixture::Fixture;
use anyhow::Result;
use bson::{Bson, doc, oid::ObjectId};
use sync_worker_core::database::Database;
use sync_worker_core::reader::KeyRange;

#[tokio::test]
async fn chunks_cover_keys_of_mixed_types_once_each() -> Result<()> {
    let Some(fixture) = Fixture::new(&["a"]).await? else { return Ok(()) };
    let ids: Vec<Bson> = vec![
        Bson::Int32(1),
        Bson::Double(1.5),
        Bson::Int64(1 << 40),
        "a".into(),
        "b".into(),
        doc! { "k": 1 }.into(),
        doc! { "k": 1, "l": 2 }.into(),
        Bson::Binary(bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes: vec![1] }),
        Bson::ObjectId(ObjectId::new()),
        true.into(),
        Bson::DateTime(bson::DateTime::from_millis(5)),
        Bson::Null,
    ];
    fixture.rows("a").insert_many(ids.iter().map(|id| doc! { "_id": id, "v": 1 })).await?;
    let stream = fixture.open(None).await?;
    for rows in [1, 3, 5, 100] {
        let mut reader = fixture.mongodb.reader(&fixture.scope).await.unwrap();
        let (mut range, mut found, mut looks) = (KeyRange::default(), Vec::new(), 0);
        loop {
            range.up_to = reader.boundary(&"a".into(), range.after.as_ref(), rows).await.unwrap();
            let chunk = reader.read_range(&"a".into(), &range, usize::MAX).await.unwrap();
            assert!(chunk.rows.len() as u64 <= rows && chunk.high <= stream.checkpoint.position);
            for row in &chunk.rows {
                found.push(chunk.schema.key_of(row)?);
            }
            looks += 1;
            match range.up_to.take() {
                Some(key) => range.after = Some(key),
                None => break,
            }
        }
        assert_eq!(found.len(), ids.len(), "{rows} at a time: {looks} looks");
        let mut sorted = found.clone();
        sorted.sort();
        sorted.dedup();
        assert_eq!(sorted.len(), ids.len());
        let chunk = reader.read_keys(&"a".into(), &found).await.unwrap();
        assert_eq!(chunk.rows.len(), ids.len());
        let chunk = reader.read_range(&"a".into(), &KeyRange::default(), 1).await.unwrap();
        assert_eq!((chunk.rows.len(), chunk.cut_at.as_ref()), (1, Some(&found[0])));
    }
    Ok(())
}

#[tokio::test]
async fn a_read_sees_what_the_source_has_returned_and_nothing_later_than_it_says() -> Result<()> {
    let Some(fixture) = Fixture::new(&["a"]).await? else { return Ok(()) };
    let mut stream = fixture.open(None).await?;
    for id in 0..20 {
        fixture.rows("a").insert_one(doc! { "_id": id }).await?;
        stream.until(id as usize + 1).await?;
        let mut reader = fixture.mongodb.reader(&fixture.scope).await.unwrap();
        let chunk = reader.read_range(&"a".into(), &KeyRange::default(), usize::MAX).await.unwrap();
        assert_eq!(chunk.rows.len(), id as usize + 1);
        assert!(chunk.high >= stream.changes[id as usize].0);
    }
    // Nobody streams: the newest there is.
    let other = sync_worker_core::database::Scope { pipeline: "other".into(), ..fixture.scope.clone() };
    fixture.rows("a").insert_one(doc! { "_id": 20 }).await?;
    let mut reader = fixture.mongodb.reader(&other).await.unwrap();
    assert_eq!(reader.read_range(&"a".into(), &KeyRange::default(), usize::MAX).await.unwrap().rows.len(), 21);
    Ok(())
}
