//! A collection as the rows of one schema are written to it.

use crate::codec;
use crate::error::Error;
use crate::key;
use bson::raw::cstr;
use bson::{RawArrayBuf, RawDocumentBuf, rawdoc};
use sync_worker_core::convert::Refusal;
use sync_worker_core::database::TableAt;
use sync_worker_core::document::mapping::{DocumentMapping, Unfit};
use sync_worker_core::document::patch::{Edit, edits};
use sync_worker_core::document::write::Writer;
use sync_worker_core::document::{Document, field, kind};
use sync_worker_core::row::{Key, Row};
use sync_worker_core::schema::Schema;
use sync_worker_core::types::{ColumnType, Engine};
use sync_worker_core::value::{Cell, Damaged, Value};

pub struct Target {
    pub collection: String,
    columns: Vec<(String, ColumnType)>,
    /// Indexes of the key's columns.
    key: Vec<usize>,
    /// The fields that they are, where the key is not `_id`.
    fields: Vec<String>,
    /// The rows are documents themselves.
    documents: bool,
    mapping: DocumentMapping,
}

const UNKNOWN: Damaged = Damaged("a key column is unknown");

/// The server's limit for a document.
const LARGEST: usize = 16 << 20;

/// What to write for a row.
pub enum Content {
    /// The whole document.
    Whole(RawDocumentBuf),
    /// Updates of a document that is there, one after the other.
    Parts(Vec<RawDocumentBuf>),
    Refused(String),
}

impl Target {
    pub fn new(at: &TableAt, schema: &Schema) -> Result<Self, Error> {
        let documents = schema.engine == Engine::Mongodb;
        if !documents && let Some(column) = schema.columns.iter().find(|column| !is_plain(&column.name)) {
            return Err(Error::Fatal(format!(
                "table {}: column {} can't be a field's name in MongoDB, which gives a meaning of its own to a dot and to a leading $; rename it",
                schema.table, column.name
            )));
        }
        if !documents && let Err(Unfit { problem, cure, .. }) = at.document.check_documents(schema) {
            return Err(Error::Fatal(format!("table {}: column _id: {problem}; {cure}", schema.table)));
        }
        Ok(Self {
            collection: at.name.clone(),
            columns: schema.columns.iter().map(|column| (column.name.clone(), column.kind.clone())).collect(),
            key: schema.key.clone(),
            fields: at.document.key.clone(),
            documents,
            mapping: at.document.clone(),
        })
    }

    /// The document with this key; the reason where none can have it.
    pub fn filter(&self, key: &Key) -> Result<Result<RawDocumentBuf, String>, Error> {
        if self.documents {
            return codec::key_document("_id", key).map(Ok);
        }
        let mut out = Writer::default();
        if let Err(reason) = self.put_key(&mut out, key)? {
            return Ok(Err(reason));
        }
        let key = out.finish()?;
        if self.fields.is_empty() {
            return codec::raw(key).map(Ok);
        }
        let mut conditions = Writer::default();
        for part in Document::new(&key)?.fields() {
            key::put_equal(&mut conditions, part?, true)?;
        }
        codec::raw(conditions.finish()?).map(Ok)
    }

    /// One key column is the `_id` itself, several are the fields of one, unless they have fields of their own.
    fn put_key(&self, out: &mut Writer, key: &Key) -> Result<Result<(), String>, Error> {
        if !self.fields.is_empty() {
            for ((cell, &column), field) in key.cells().zip(&self.key).zip(&self.fields) {
                let Cell::Present(value) = cell? else { return Err(UNKNOWN.into()) };
                let (name, column) = &self.columns[column];
                if let Err(reason) = self.put(out, field, value, (name, column)) {
                    return Ok(Err(reason));
                }
            }
            return Ok(Ok(()));
        }
        let composite = self.key.len() > 1;
        if composite {
            out.begin(kind::DOCUMENT, "_id")?;
        }
        for (cell, &column) in key.cells().zip(&self.key) {
            let Cell::Present(value) = cell? else { return Err(UNKNOWN.into()) };
            let (name, column) = &self.columns[column];
            if let Err(reason) = self.put(out, if composite { name } else { "_id" }, value, (name, column)) {
                return Ok(Err(reason));
            }
        }
        if composite {
            out.end()?;
        }
        Ok(Ok(()))
    }

    /// Whether a column is a field of its own.
    fn is_field(&self, column: usize) -> bool {
        !self.key.contains(&column) || (self.mapping.keep_key_columns && self.columns[column].0 != "_id")
    }

    /// The reason where the column's value has no form in a document.
    fn put(
        &self,
        out: &mut Writer,
        field: &str,
        value: Value<'_>,
        (name, column): (&str, &ColumnType),
    ) -> Result<(), String> {
        let put = field::put(out, field, value, column, self.mapping.times);
        put.map_err(|Refusal(reason)| format!("column {name}: {reason}"))
    }

    pub fn content(&self, row: &Row, key: &Key) -> Result<Content, Error> {
        let content = if self.documents { document(row)? } else { self.fields(row, key)? };
        // A command that is too large would be refused as a whole.
        match content {
            Content::Whole(document) if document.as_bytes().len() > LARGEST => {
                Ok(Content::Refused("the document is larger than 16 MB".to_owned()))
            }
            content => Ok(content),
        }
    }

    fn fields(&self, row: &Row, key: &Key) -> Result<Content, Error> {
        let mut out = Writer::default();
        let partial = row.is_partial()?;
        if !partial && let Err(reason) = self.put_key(&mut out, key)? {
            return Ok(Content::Refused(reason));
        }
        for (at, (cell, (name, column))) in row.cells().zip(&self.columns).enumerate() {
            let Cell::Present(value) = cell? else { continue };
            if !self.is_field(at) {
                continue;
            }
            if let Err(reason) = self.put(&mut out, name, value, (name, column)) {
                return Ok(Content::Refused(reason));
            }
        }
        let document = codec::raw(out.finish()?)?;
        if !partial {
            return Ok(Content::Whole(document));
        }
        Ok(Content::Parts(vec![update(document)]))
    }

    /// The fields that a document needs to become a whole row; the reason where it is refused. `there`: what the
    /// document says as a row: fields that say the same stay, whatever their types.
    pub fn changes(&self, row: &Row, there: Option<&Row>) -> Result<Result<RawDocumentBuf, String>, Error> {
        let mut out = Writer::default();
        let mut there = there.map(Row::cells);
        for (at, (cell, (name, column))) in row.cells().zip(&self.columns).enumerate() {
            let now = there.as_mut().and_then(Iterator::next).transpose()?;
            let Cell::Present(value) = cell? else { return Err(Damaged("a part of a row").into()) };
            if self.key.contains(&at) || now == Some(Cell::Present(value)) {
                continue;
            }
            if let Err(reason) = self.put(&mut out, name, value, (name, column)) {
                return Ok(Err(reason));
            }
        }
        let document = codec::raw(out.finish()?)?;
        if document.as_bytes().len() > LARGEST {
            return Ok(Err("the document is larger than 16 MB".to_owned()));
        }
        Ok(Ok(document))
    }

    /// A row with those of its fields that an older document of the target has and the row leaves out.
    pub fn completed(&self, row: &Row, key: &Key, older: &[u8]) -> Result<Content, Error> {
        let mut out = Writer::default();
        if let Err(reason) = self.put_key(&mut out, key)? {
            return Ok(Content::Refused(reason));
        }
        let older = Document::new(older)?;
        for (at, (cell, (name, column))) in row.cells().zip(&self.columns).enumerate() {
            if !self.is_field(at) {
                continue;
            }
            match cell? {
                Cell::Present(value) => {
                    if let Err(reason) = self.put(&mut out, name, value, (name, column)) {
                        return Ok(Content::Refused(reason));
                    }
                }
                Cell::Unchanged => {
                    if let Some(field) = older.get(name)? {
                        out.put(field.kind, name, field.bytes)?;
                    }
                }
            }
        }
        Ok(Content::Whole(codec::raw(out.finish()?)?))
    }
}

/// Sets these fields. An update that changes nothing still says that the document is there.
pub fn update(fields: RawDocumentBuf) -> RawDocumentBuf {
    match fields.is_empty() {
        true => rawdoc! { "$unset": { "sync_worker_nothing": "" } },
        false => rawdoc! { "$set": fields },
    }
}

/// A document as it replaces one whose `_id` stays.
pub fn without_id(document: &RawDocumentBuf) -> Result<RawDocumentBuf, Error> {
    let mut out = Writer::default();
    for field in Document::new(document.as_bytes())?.fields() {
        let field = field?;
        if field.name != "_id" {
            out.put(field.kind, field.name, field.bytes)?;
        }
    }
    codec::raw(out.finish()?)
}

/// A document with the fields of a newer one in the place of its own, and what else that one has.
pub fn over(older: &RawDocumentBuf, newer: &RawDocumentBuf) -> Result<RawDocumentBuf, Error> {
    let (older, newer) = (Document::new(older.as_bytes())?, Document::new(newer.as_bytes())?);
    let mut out = Writer::default();
    for field in older.fields() {
        let field = field?;
        let field = newer.get(field.name)?.unwrap_or(field);
        out.put(field.kind, field.name, field.bytes)?;
    }
    for field in newer.fields() {
        let field = field?;
        if older.get(field.name)?.is_none() {
            out.put(field.kind, field.name, field.bytes)?;
        }
    }
    codec::raw(out.finish()?)
}

fn is_plain(name: &str) -> bool {
    !name.starts_with('$') && !name.contains(['.', '\0']) && !name.is_empty()
}

/// A document goes through byte for byte; what changed in one becomes updates by operators.
fn document(row: &Row) -> Result<Content, Error> {
    match row.cells().nth(1).transpose()? {
        Some(Cell::Present(Value::Document(bytes))) => Ok(Content::Whole(codec::raw(bytes.to_vec())?)),
        Some(Cell::Present(Value::Patch(patches))) => {
            let (mut rest, mut parts) = (patches, Vec::new());
            // Two of them may change the same field, which one update may not.
            while !rest.is_empty() {
                let patch = Document::take(&mut rest)?;
                match updates(patch.as_bytes())? {
                    Ok(updates) => parts.extend(updates),
                    Err(reason) => return Ok(Content::Refused(reason)),
                }
            }
            // An update that changes nothing still says that the document is there.
            if parts.is_empty() {
                parts.push(rawdoc! { "$unset": { "sync_worker_nothing": "" } });
            }
            Ok(Content::Parts(parts))
        }
        _ => Err(Damaged("a row without its document").into()),
    }
}

/// The updates that do what a patch says, or why none can. A cut and a change below the same array do not go into one update, so each
/// kind of edit has one of its own, in their order.
fn updates(patch: &[u8]) -> Result<Result<Vec<RawDocumentBuf>, String>, Error> {
    let mut out: Vec<(u8, Writer)> = Vec::new();
    for (path, edit) in edits(patch)? {
        if !path.iter().all(|part| is_plain(part)) {
            let reason = "a field's name with a dot or a leading $ was changed, and the source sent no document after the update; \
                          turn post-images on at the source: db.runCommand({ collMod: ..., changeStreamPreAndPostImages: { enabled: true } })";
            return Ok(Err(reason.to_owned()));
        }
        let path = path.join(".");
        let which = match edit {
            Edit::Cut(_) => 0,
            Edit::Remove => 1,
            Edit::Set(_) => 2,
        };
        if out.last().is_none_or(|(last, _)| *last != which) {
            out.push((which, Writer::default()));
        }
        let Some((_, writer)) = out.last_mut() else { continue };
        match edit {
            Edit::Set(value) => writer.put(value.kind, &path, value.bytes)?,
            Edit::Remove => writer.text(&path, "")?,
            Edit::Cut(size) => {
                let slice = i32::try_from(size).map_err(|_| Damaged("a size that is too large"))?;
                let push = rawdoc! { "$each": RawArrayBuf::new(), "$slice": slice };
                writer.put(kind::DOCUMENT, &path, push.as_bytes())?;
            }
        }
    }
    let mut parts = Vec::with_capacity(out.len());
    for (which, writer) in out {
        let fields = codec::raw(writer.finish()?)?;
        let mut update = RawDocumentBuf::new();
        match which {
            0 => update.append(cstr!("$push"), fields),
            1 => update.append(cstr!("$unset"), fields),
            _ => update.append(cstr!("$set"), fields),
        }
        parts.push(update);
    }
    Ok(Ok(parts))
}
