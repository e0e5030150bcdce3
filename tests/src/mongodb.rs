//! What is particular to MongoDB: there are no statements, so what tests do to tables is written out here.

use crate::connection::Texts;
use crate::ledger::{Entry, History};
use crate::tables::HOT_ROWS;
use anyhow::{Context, bail};
use futures::TryStreamExt;
use mongodb::bson::{Bson, DateTime, Decimal128, Document, Timestamp, doc};
use mongodb::change_stream::event::{ChangeStreamEvent, OperationType};
use mongodb::options::{FullDocumentBeforeChangeType, FullDocumentType, IndexOptions};
use mongodb::{Client, Database, IndexModel};
use std::time::Duration;

/// One write of a load.
#[derive(Clone, Debug)]
pub enum Write {
    Insert(Document),
    Set {
        ids: Vec<i64>,
        fields: Document,
    },
    Bump(i64),
    Delete(i64),
    /// A key never changes here: the document goes and comes again under another.
    Move {
        from: i64,
        to: i64,
        fields: Document,
    },
}

pub async fn open(url: &str) -> anyhow::Result<Database> {
    let client = Client::with_uri_str(url).await?;
    let name = client.default_database().map_or_else(|| "admin".to_owned(), |database| database.name().to_owned());
    Ok(client.database(&name))
}

/// Whether these fields are the key of a collection: a unique index is over them. One that is not there has none.
pub async fn is_keyed_by(database: &Database, collection: &str, fields: &[&str]) -> anyhow::Result<bool> {
    let indexes: Vec<IndexModel> = match database.collection::<Document>(collection).list_indexes().await {
        Err(error) if error.to_string().contains("NamespaceNotFound") => Vec::new(),
        listed => listed?.try_collect().await?,
    };
    let unique = |index: &IndexModel| index.options.as_ref().is_some_and(|options| options.unique == Some(true));
    Ok(indexes.iter().any(|index| unique(index) && index.keys.keys().eq(fields)))
}

/// Makes these fields the key of a collection.
pub async fn key_by(database: &Database, collection: &str, fields: &[&str]) -> anyhow::Result<()> {
    let keys: Document = fields.iter().map(|field| ((*field).to_owned(), Bson::Int32(1))).collect();
    let unique = IndexOptions::builder().unique(true).build();
    let index = IndexModel::builder().keys(keys).options(unique).build();
    database.collection::<Document>(collection).create_index(index).await?;
    Ok(())
}

/// The table of the loads, with rows 1 to `rows` of version 0.
pub async fn fill(database: &Database, rows: i64) -> anyhow::Result<()> {
    let row = |n: i64| {
        Ok(doc! {
            "_id": n, "version": 0i64, "name": format!("name {n}"), "amount": decimal(n * 125)?, "state": (n % 100) as i32,
            "seen": DateTime::from_millis(1_767_225_600_000 + n * 1000), "note": format!("{:064x}", n * 7919),
            "data": binary(n.to_le_bytes().to_vec()),
        })
    };
    let rows: Vec<Document> = (1..=rows).map(row).collect::<anyhow::Result<_>>()?;
    for part in rows.chunks(2_000) {
        database.collection::<Document>("item").insert_many(part).await?;
    }
    Ok(())
}

/// Hundredths as a decimal number.
pub fn decimal(hundredths: i64) -> anyhow::Result<Decimal128> {
    let (sign, size) = (if hundredths < 0 { "-" } else { "" }, hundredths.unsigned_abs());
    let text = format!("{sign}{}.{:02}", size / 100, size % 100);
    text.parse().map_err(|_| anyhow::anyhow!("{text} is no decimal number"))
}

pub fn binary(bytes: Vec<u8>) -> Bson {
    Bson::Binary(mongodb::bson::Binary { subtype: mongodb::bson::spec::BinarySubtype::Generic, bytes })
}

/// Runs a load's transaction; one that is rolled back comes to nothing.
pub async fn run(database: &Database, writes: &[Write], rolled_back: bool) -> anyhow::Result<()> {
    let rows = database.collection::<Document>("item");
    let mut session = database.client().start_session().await?;
    session.start_transaction().await?;
    for write in writes {
        match write {
            Write::Insert(row) => {
                rows.insert_one(row).session(&mut session).await?;
            }
            Write::Set { ids, fields } => {
                let filter = doc! { "_id": { "$in": ids } };
                rows.update_many(filter, doc! { "$set": fields }).session(&mut session).await?;
            }
            Write::Bump(id) => {
                rows.update_one(doc! { "_id": id }, doc! { "$inc": { "version": 1i64 } }).session(&mut session).await?;
            }
            Write::Delete(id) => {
                rows.delete_one(doc! { "_id": id }).session(&mut session).await?;
            }
            Write::Move { from, to, fields } => {
                let found = rows.find_one_and_delete(doc! { "_id": from }).session(&mut session).await?;
                let mut row = found.with_context(|| format!("row {from} is not there"))?;
                row.insert("_id", *to);
                row.extend(fields.clone());
                rows.insert_one(row).session(&mut session).await?;
            }
        }
    }
    match rolled_back {
        true => session.abort_transaction().await?,
        false => session.commit_transaction().await?,
    }
    Ok(())
}

/// Keys and versions of the rows that a filter takes, as a query would give them.
pub async fn versions(database: &Database, takes: impl Fn(i64) -> bool) -> anyhow::Result<Vec<Texts>> {
    let rows = database.collection::<Document>("item");
    let find = rows.find(doc! {}).projection(doc! { "version": 1 });
    let rows: Vec<Document> = find.sort(doc! { "_id": 1 }).await?.try_collect().await?;
    let mut found = Vec::new();
    for row in rows {
        let id = number(row.get("_id")).context("a key that is no number")?;
        if id > HOT_ROWS && takes(id) {
            found.push(vec![Some(id.to_string()), number(row.get("version")).map(|version| version.to_string())]);
        }
    }
    Ok(found)
}

pub fn number(value: Option<&Bson>) -> Option<i64> {
    match value {
        Some(Bson::Int32(number)) => Some(i64::from(*number)),
        Some(Bson::Int64(number)) => Some(*number),
        _ => None,
    }
}

/// Moves the fence on and returns its mark.
pub async fn raise_fence(database: &Database) -> anyhow::Result<i64> {
    let rows = database.collection::<Document>("fence");
    rows.update_one(doc! { "_id": 1 }, doc! { "$inc": { "mark": 1i64 } }).await?;
    fence(database).await?.context("there is no fence")
}

pub async fn fence(database: &Database) -> anyhow::Result<Option<i64>> {
    let row = database.collection::<Document>("fence").find_one(doc! { "_id": 1 }).await?;
    Ok(row.and_then(|row| number(row.get("mark"))))
}

/// From here on the stream of `item` is the history; see [`history`].
pub async fn note_time(database: &Database) -> anyhow::Result<()> {
    let reply = database.run_command(doc! { "ping": 1 }).await?;
    let time = reply.get_timestamp("operationTime")?;
    database.collection::<Document>("write_log").insert_one(doc! { "_id": 1, "time": time }).await?;
    Ok(())
}

/// Every write to `item` since [`note_time`], as the database's own stream tells it.
pub async fn history(database: &Database) -> anyhow::Result<History> {
    let mut history = History::new();
    for event in since_noted(database, "item").await? {
        let key =
            event.document_key.as_ref().and_then(|key| number(key.get("_id"))).context("a key that is no number")?;
        let updated = event.update_description.as_ref().map(|update| &update.updated_fields);
        let version = event.full_document.as_ref().or(updated).and_then(|fields| number(fields.get("version")));
        let entry = match (event.operation_type, version) {
            (OperationType::Delete, _) => Entry::Deleted,
            (_, Some(version)) => Entry::Written(version),
            (kind, None) => bail!("key {key}: {kind:?} without a version"),
        };
        history.entry(key).or_default().push(entry);
    }
    Ok(history)
}

/// The events of a collection since [`note_time`], with images where they are kept.
pub async fn since_noted(database: &Database, name: &str) -> anyhow::Result<Vec<ChangeStreamEvent<Document>>> {
    let logs = database.collection::<Document>("write_log");
    let start = logs.find_one(doc! { "_id": 1 }).await?.context("no time was noted")?;
    let Timestamp { time, increment } = start.get_timestamp("time")?;
    let from = Timestamp { time, increment: increment + 1 };
    let mut stream = database
        .watch()
        .start_at_operation_time(from)
        .full_document(FullDocumentType::WhenAvailable)
        .full_document_before_change(FullDocumentBeforeChangeType::WhenAvailable)
        .max_await_time(Duration::from_millis(200))
        .await?;
    // Where this comes by, everything before it has.
    logs.insert_one(doc! { "_id": "end" }).await?;
    let mut events = Vec::new();
    loop {
        let Some(event) = stream.next_if_any().await? else { continue };
        let event: ChangeStreamEvent<Document> = event;
        let collection = event.ns.as_ref().and_then(|ns| ns.coll.as_deref());
        let key = event.document_key.as_ref().and_then(|key| key.get("_id").cloned());
        if collection == Some("write_log") && key == Some(Bson::String("end".to_owned())) {
            logs.delete_one(doc! { "_id": "end" }).await?;
            return Ok(events);
        }
        if collection == Some(name) {
            events.push(event);
        }
    }
}

/// A field as the relational side of a comparison prints its column.
pub fn text(value: Option<&Bson>) -> Option<String> {
    Some(match value? {
        Bson::Null => return None,
        Bson::Int32(number) => number.to_string(),
        Bson::Int64(number) => number.to_string(),
        Bson::Double(number) => number.to_string(),
        Bson::Decimal128(number) => number.to_string(),
        Bson::Boolean(value) => i32::from(*value).to_string(),
        Bson::String(text) => text.clone(),
        Bson::Binary(binary) => binary.bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        Bson::DateTime(time) => {
            let text = time.try_to_rfc3339_string().ok()?;
            text.trim_end_matches('Z').replace('T', " ")
        }
        other => other.to_string(),
    })
}

/// Lines that tell whether anything was changed: each collection and how many documents it holds.
pub async fn catalog(database: &Database) -> anyhow::Result<Vec<String>> {
    let mut lines = Vec::new();
    let mut names = database.list_collection_names().await?;
    names.sort();
    for name in names {
        let count = database.collection::<Document>(&name).count_documents(doc! {}).await?;
        lines.push(format!("{name} {count}"));
    }
    Ok(lines)
}
