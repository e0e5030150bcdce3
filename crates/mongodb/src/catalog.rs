//! Collections as the server describes them.

use crate::client::Client;
use crate::error::Error;
use crate::key::DocumentKey;
use bson::{Bson, Document, RawArrayBuf, rawdoc};
use std::sync::Arc;
use sync_worker_core::name::TableName;
use sync_worker_core::schema::{Column, Schema};
use sync_worker_core::types::{ColumnType, Engine};

/// One collection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collection {
    pub name: String,
    /// `collection`, `view` or `timeseries`.
    pub kind: String,
    /// The server keeps the documents before and after a change.
    pub images: bool,
    /// The server checks what is written by rules of its own.
    pub validated: bool,
    pub capped: bool,
    /// The server's own identity of it, its first half in hexadecimal digits.
    pub uuid: Option<String>,
    /// Strings that differ may be equal as an `_id`.
    pub folds: bool,
}

/// Those of the named collections that are there.
pub async fn collections(client: &Client, names: &[&str]) -> Result<Vec<Collection>, Error> {
    let names: RawArrayBuf = names.iter().copied().collect();
    let command = rawdoc! {
        "listCollections": 1,
        "filter": { "name": { "$in": names } },
        "cursor": { "batchSize": 10_000 },
    };
    let reply = client.run("a look at the collections", command).await?;
    let batch = reply.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
    let batch = batch.map_err(|_| Error::Protocol("a list of collections that can't be read"))?;
    Ok(batch.iter().filter_map(|one| one.as_document()).filter_map(collection).collect())
}

fn collection(found: &Document) -> Option<Collection> {
    let options = found.get_document("options").ok();
    let images = options.and_then(|options| options.get_document("changeStreamPreAndPostImages").ok());
    Some(Collection {
        name: found.get_str("name").ok()?.to_owned(),
        kind: found.get_str("type").unwrap_or("collection").to_owned(),
        images: images.is_some_and(|images| images.get_bool("enabled").unwrap_or(false)),
        validated: options.is_some_and(|options| options.contains_key("validator")),
        capped: options.is_some_and(|options| options.get_bool("capped").unwrap_or(false)),
        uuid: found.get_document("info").ok().and_then(uuid),
        folds: options.and_then(|options| options.get_document("collation").ok()).is_some_and(folds),
    })
}

fn uuid(info: &Document) -> Option<String> {
    let binary = info.get("uuid").and_then(|uuid| match uuid {
        Bson::Binary(binary) => Some(&binary.bytes),
        _ => None,
    })?;
    Some(binary.iter().take(8).map(|byte| format!("{byte:02x}")).collect())
}

/// Below strength 3 a collation looks at neither case nor accents; some look past punctuation.
fn folds(collation: &Document) -> bool {
    let simple = collation.get_str("locale").is_ok_and(|locale| locale == "simple");
    !simple
        && (collation.get_i32("strength").unwrap_or(3) < 3
            || collation.get_str("alternate").is_ok_and(|alternate| alternate == "shifted"))
}

/// The columns of every collection: its key, and the document as a whole.
pub fn schema(table: &TableName, key: &DocumentKey) -> Arc<Schema> {
    let column = |name: &str, kind: ColumnType, type_name: &str| Column {
        name: name.to_owned(),
        kind,
        type_name: type_name.to_owned(),
        nullable: false,
        generated: false,
    };
    let columns =
        vec![column(&key.name(), ColumnType::Id, "any"), column("document", ColumnType::Document, "document")];
    Arc::new(Schema::new(table.clone(), Engine::Mongodb, columns, vec![0]))
}
