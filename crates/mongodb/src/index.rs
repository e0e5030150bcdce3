//! The unique indexes of keys that are fields: without one, two documents would be one row.
//!
//! They are looked at when a source, a reader or a sink begins. One that is dropped later is noticed at the next start, or
//! by a read that needs it.

use crate::client::{Client, first_of};
use crate::ddl;
use crate::error::Error;
use crate::key::DocumentKey;
use bson::{Bson, Document, rawdoc};
use sync_worker_core::database::TableAt;

/// There is no such collection.
const NOT_FOUND: i32 = 26;

/// The name of the index that keeps a collection's key unique.
pub async fn name(client: &Client, collection: &str, key: &DocumentKey) -> Result<Option<String>, Error> {
    let doing = "a look at the indexes";
    let collation = collation(client, collection).await?;
    let command = rawdoc! { "listIndexes": collection, "cursor": { "batchSize": 10_000 } };
    let reply = match client.run(doing, command).await {
        Err(error) if error.code() == Some(NOT_FOUND) => return Ok(None),
        reply => reply?,
    };
    let batch = reply.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
    let batch = batch.map_err(|_| Error::Protocol("a list of indexes that can't be read"))?;
    let mut indexes = batch.iter().filter_map(Bson::as_document);
    let index = indexes.find(|index| is_over(index, key.fields(), collation.as_ref()));
    Ok(index.and_then(|index| index.get_str("name").ok()).map(str::to_owned))
}

async fn collation(client: &Client, collection: &str) -> Result<Option<Document>, Error> {
    let command = rawdoc! { "listCollections": 1, "filter": { "name": collection } };
    let reply = client.run("a look at the collections", command).await?;
    let first = first_of(&reply);
    let options = first.and_then(|first| first.get_document("options").ok().cloned());
    Ok(options.and_then(|options| options.get_document("collation").ok().cloned()))
}

/// Whether it has each document, by exactly these fields in their order, as a plain `find` compares them.
fn is_over(index: &Document, fields: &[String], collation: Option<&Document>) -> bool {
    let flag = |name: &str| index.get_bool(name).unwrap_or(false);
    let Ok(pattern) = index.get_document("key") else { return false };
    let ascending = |direction: &Bson| match direction {
        Bson::Int32(direction) => *direction > 0,
        Bson::Int64(direction) => *direction > 0,
        Bson::Double(direction) => *direction > 0.0,
        _ => false,
    };
    flag("unique")
        && !flag("sparse")
        && !flag("hidden")
        && !index.contains_key("partialFilterExpression")
        && index.get_document("collation").ok() == collation
        && pattern.len() == fields.len()
        && pattern.iter().zip(fields).all(|((name, direction), field)| name == field && ascending(direction))
}

/// Refuses tables whose key is fields that no unique index is over. Returns the indexes' names.
pub async fn needed<'a>(client: &Client, tables: impl IntoIterator<Item = &'a TableAt>) -> Result<Vec<String>, Error> {
    let (mut names, mut without) = (Vec::new(), Vec::new());
    for at in tables {
        let key = DocumentKey::new(&at.document);
        if key.is_id() {
            continue;
        }
        match name(client, &at.name, &key).await? {
            Some(name) => names.push(name),
            None => without.push((at.name.as_str(), &at.document.key[..])),
        }
    }
    if without.is_empty() { Ok(names) } else { Err(lacking(&without)) }
}

pub const LACKING: &str = "document.key names fields, and no unique index is over exactly these in their order: two documents could be one row";

/// Of collections and the fields of their keys.
pub fn lacking(without: &[(&str, &[String])]) -> Error {
    let names: Vec<&str> = without.iter().map(|(name, _)| *name).collect();
    let cures: Vec<String> = without.iter().map(|(name, fields)| ddl::unique_index(name, fields)).collect();
    Error::Fatal(format!("collection {}: {LACKING}; run: {}", names.join(", "), cures.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::doc;

    #[test]
    fn only_an_index_that_has_every_document_will_do() {
        let fields = ["a".to_owned(), "b".to_owned()];
        let index = doc! { "name": "i", "key": { "a": 1, "b": 1 }, "unique": true };
        assert!(is_over(&index, &fields, None));
        assert!(is_over(&doc! { "name": "i", "key": { "a": 1.0, "b": 1_i64 }, "unique": true }, &fields, None));
        for (name, value) in [
            ("unique", Bson::Boolean(false)),
            ("sparse", Bson::Boolean(true)),
            ("hidden", Bson::Boolean(true)),
            ("partialFilterExpression", doc! { "a": 1 }.into()),
            ("collation", doc! { "locale": "en", "strength": 2 }.into()),
            ("key", doc! { "b": 1, "a": 1 }.into()),
            ("key", doc! { "a": 1 }.into()),
            ("key", doc! { "a": 1, "b": -1 }.into()),
        ] {
            let mut other = index.clone();
            other.insert(name, value);
            assert!(!is_over(&other, &fields, None), "{other}");
        }
        let binary = doc! { "locale": "en" };
        assert!(!is_over(&index, &fields, Some(&binary)), "a plain find would not use it");
    }
}
