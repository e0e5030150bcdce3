//! Documents as rows of a relational table: a column is a top-level field of its name, the key is `_id`.
//!
//! A single key column is `_id` itself, whatever the column is called; several are the fields of an `_id` that is a
//! document, in the order of the key.

use super::patch::{Edit, edits};
use super::write::Writer;
use super::{Document, Element, id, kind};
use crate::convert::Refusal;
use crate::row::{Key, Row, RowBuilder};
use crate::schema::{Column, Schema};
use crate::types::{ColumnType, Engine};
use crate::value::{Cell, Damaged, Value};
use std::sync::Arc;

/// What becomes of a document's fields that the table has no column for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OtherFields {
    /// The row is refused, by the field's name.
    #[default]
    Refuse,
    Ignore,
    /// A JSON column takes them all.
    Column(String),
}

/// How a table's rows are documents; of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DocumentMapping {
    pub other_fields: OtherFields,
    /// The key columns are fields beside `_id`.
    pub keep_key_columns: bool,
}

/// A collection seen as a table with the columns of another one.
#[derive(Clone, Debug)]
pub struct Projection {
    flat: Arc<Schema>,
    mapping: DocumentMapping,
}

const NESTED: &str = "a part of the field was changed and the source sent no document after the update; turn post-images on \
                      at the source: db.runCommand({ collMod: ..., changeStreamPreAndPostImages: { enabled: true } })";

impl Projection {
    /// `other`: the relational table that the documents go to, or come from.
    pub fn new(other: &Schema, mapping: DocumentMapping) -> Self {
        let column = |column: &Column| Column {
            name: column.name.clone(),
            kind: ColumnType::Field,
            type_name: "field".to_owned(),
            nullable: true,
            generated: false,
        };
        let columns = other.columns.iter().map(column).collect();
        let flat = Schema::new(other.table.clone(), Engine::Mongodb, columns, other.key.clone());
        Self { flat: Arc::new(flat), mapping }
    }

    /// The columns of the other table, each a field of any type.
    pub fn schema(&self) -> &Arc<Schema> {
        &self.flat
    }

    /// A document's row, or a part of one, in the other table's columns. What can't be said there is a cell that every
    /// conversion refuses, in words.
    pub fn row(&self, row: &Row) -> Result<Row, Damaged> {
        let mut cells = row.cells();
        let Some(Cell::Present(id)) = cells.next().transpose()? else {
            return Err(Damaged("a document without its key"));
        };
        let mut out: Vec<Option<Vec<u8>>> = vec![None; self.flat.columns.len()];
        self.put_key(id, &mut out)?;
        match cells.next().transpose()? {
            Some(Cell::Present(Value::Document(bytes))) => self.whole(Document::new(bytes)?, &mut out)?,
            Some(Cell::Present(Value::Patch(patches))) => self.patched(patches, &mut out)?,
            Some(Cell::Unchanged) => {}
            Some(Cell::Present(_)) | None => return Err(Damaged("a row without its document")),
        }
        let mut builder = RowBuilder::default();
        for cell in &out {
            builder.push(match cell {
                None => Cell::Unchanged,
                Some(raw) if raw.first() == Some(&kind::NULL) => Cell::Present(Value::Null),
                Some(raw) => Cell::Present(Value::Raw(raw)),
            });
        }
        Ok(builder.finish())
    }

    fn put_key(&self, id: Value<'_>, out: &mut [Option<Vec<u8>>]) -> Result<(), Damaged> {
        let mut bytes = Vec::new();
        let kind = id::element(id, &mut bytes)?;
        if let [column] = self.flat.key[..] {
            out[column] = Some(raw(kind, &bytes));
            return Ok(());
        }
        let fields = match kind {
            kind::DOCUMENT => Document::new(&bytes)?.fields().collect::<Result<Vec<_>, _>>()?,
            _ => Vec::new(),
        };
        let names = self.flat.key.iter().map(|&column| self.flat.columns[column].name.as_str());
        let fits = fields.len() == self.flat.key.len() && names.eq(fields.iter().map(|field| field.name));
        for (at, &column) in self.flat.key.iter().enumerate() {
            out[column] = Some(match fits {
                true => raw(fields[at].kind, fields[at].bytes),
                // The first part carries all of it, so that the key stays one of a kind.
                false => refusal(&format!(
                    "the _id is no document of the key's columns in their order ({:016x})",
                    xxhash_rust::xxh3::xxh3_64(&bytes)
                )),
            });
        }
        Ok(())
    }

    fn whole(&self, document: Document<'_>, out: &mut [Option<Vec<u8>>]) -> Result<(), Damaged> {
        let mut rest: Option<Writer> = None;
        for field in document.fields() {
            let field = field?;
            match self.flat.column(field.name) {
                _ if field.name == "_id" && self.flat.column("_id").is_none_or(|at| self.flat.key.contains(&at)) => {}
                // A key column is told by `_id` alone.
                Some(column) if self.flat.key.contains(&column) => {}
                Some(column) => out[column] = Some(raw(field.kind, field.bytes)),
                None => self.other(field, out, &mut rest)?,
            }
        }
        if let OtherFields::Column(name) = &self.mapping.other_fields
            && let Some(column) = self.flat.column(name)
        {
            out[column] = Some(raw(kind::DOCUMENT, &rest.unwrap_or_default().finish()?));
        }
        // A field that is not there is NULL.
        out.iter_mut().filter(|cell| cell.is_none()).for_each(|cell| *cell = Some(vec![kind::NULL]));
        Ok(())
    }

    fn other(&self, field: Element<'_>, out: &mut [Option<Vec<u8>>], rest: &mut Option<Writer>) -> Result<(), Damaged> {
        match self.mapping.other_fields {
            OtherFields::Ignore => {}
            OtherFields::Column(_) => rest.get_or_insert_default().put(field.kind, field.name, field.bytes)?,
            OtherFields::Refuse => {
                self.refuse(&format!("the document has a field {:?} and the table no such column", field.name), out)
            }
        }
        Ok(())
    }

    /// Leaves words in a column that is not of the key, where there is one.
    fn refuse(&self, text: &str, out: &mut [Option<Vec<u8>>]) {
        let column = (0..out.len()).find(|column| !self.flat.key.contains(column)).unwrap_or(0);
        if let Some(cell) = out.get_mut(column) {
            *cell = Some(refusal(text));
        }
    }

    fn patched(&self, patches: &[u8], out: &mut [Option<Vec<u8>>]) -> Result<(), Damaged> {
        let mut refused = None;
        for (path, edit) in edits(patches)? {
            let Some((&name, below)) = path.split_first() else { continue };
            let Some(column) = self.flat.column(name).filter(|column| !self.flat.key.contains(column)) else {
                match &self.mapping.other_fields {
                    _ if self.flat.column(name).is_some() => {}
                    OtherFields::Ignore => {}
                    OtherFields::Column(_) => refused = Some(NESTED.to_owned()),
                    OtherFields::Refuse if matches!(edit, Edit::Remove) => {}
                    OtherFields::Refuse => {
                        refused = Some(format!("the document has a field {name:?} and the table no such column"));
                    }
                }
                continue;
            };
            out[column] = Some(match edit {
                Edit::Set(value) if below.is_empty() => raw(value.kind, value.bytes),
                Edit::Remove if below.is_empty() => vec![kind::NULL],
                Edit::Set(_) | Edit::Remove | Edit::Cut(_) => refusal(NESTED),
            });
        }
        if let Some(text) = refused {
            self.refuse(&text, out);
        }
        Ok(())
    }

    /// The other table's form of a document's key.
    pub fn key(&self, key: &Key) -> Result<Key, Damaged> {
        let Some(Cell::Present(id)) = key.cells().next().transpose()? else { return Err(Damaged("an empty key")) };
        let mut out = vec![None; self.flat.columns.len()];
        self.put_key(id, &mut out)?;
        let mut builder = RowBuilder::default();
        for &column in &self.flat.key {
            let raw = out[column].as_ref().ok_or(Damaged("a key column is unknown"))?;
            builder.push(Cell::Present(if raw.first() == Some(&kind::NULL) { Value::Null } else { Value::Raw(raw) }));
        }
        Ok(Key::from_bytes(builder.finish().as_bytes().clone()))
    }

    /// The document's key of one in the other table's form, whose cells are fields.
    pub fn id(&self, key: &Key) -> Result<Key, Damaged> {
        let cells = key.cells().collect::<Result<Vec<_>, _>>()?;
        let field = |cell: &Cell<'_>| match *cell {
            Cell::Present(Value::Raw(raw)) => raw.split_first().map(|(kind, bytes)| (*kind, bytes.to_vec())),
            Cell::Present(Value::Null) => Some((kind::NULL, Vec::new())),
            Cell::Present(_) | Cell::Unchanged => None,
        };
        let fields: Option<Vec<(u8, Vec<u8>)>> = cells.iter().map(field).collect();
        self.id_of(&fields.ok_or(Damaged("a key that is no field"))?)
    }

    /// The document's key of one in the other table's own types.
    pub fn id_of_columns(&self, key: &Key, other: &Schema) -> Result<Result<Key, Refusal>, Damaged> {
        let mut fields = Vec::new();
        for (cell, &column) in key.cells().zip(&other.key) {
            let Cell::Present(value) = cell? else { return Err(Damaged("a key column is unknown")) };
            let mut writer = Writer::default();
            if let Err(refusal) = super::field::put(&mut writer, "v", value, &other.columns[column].kind) {
                return Ok(Err(refusal));
            }
            let document = writer.finish()?;
            let field = Document::new(&document)?.get("v")?.ok_or(Damaged("a field that was written"))?;
            fields.push((field.kind, field.bytes.to_vec()));
        }
        self.id_of(&fields).map(Ok)
    }

    fn id_of(&self, fields: &[(u8, Vec<u8>)]) -> Result<Key, Damaged> {
        let (mut builder, mut scratch) = (RowBuilder::default(), Vec::new());
        if let [(kind, bytes)] = fields {
            let element = Element { kind: *kind, name: "_id", bytes };
            builder.push(Cell::Present(id::canonical(element, &mut scratch)?));
        } else {
            let mut writer = Writer::default();
            for ((kind, bytes), &column) in fields.iter().zip(&self.flat.key) {
                writer.put(*kind, &self.flat.columns[column].name, bytes)?;
            }
            let bytes = writer.finish()?;
            let element = Element { kind: kind::DOCUMENT, name: "_id", bytes: &bytes };
            builder.push(Cell::Present(id::canonical(element, &mut scratch)?));
        }
        Ok(Key::from_bytes(builder.finish().as_bytes().clone()))
    }
}

fn raw(kind: u8, bytes: &[u8]) -> Vec<u8> {
    let mut raw = Vec::with_capacity(bytes.len() + 1);
    raw.push(kind);
    raw.extend_from_slice(bytes);
    raw
}

fn refusal(text: &str) -> Vec<u8> {
    raw(0, text.as_bytes())
}

#[cfg(test)]
mod tests;
