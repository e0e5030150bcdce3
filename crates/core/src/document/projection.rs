//! Documents as rows of a relational table: a column is a top-level field of its name, the key is `_id`.
//!
//! A single key column is `_id` itself, whatever the column is called; several are the fields of an `_id` that is a
//! document, in the order of the key. Where the mapping names fields for them, a document's key is those
//! ([`super::key`]).

mod keys;

use super::mapping::{DocumentMapping, OtherFields};
use super::patch::{self, Edit, edits};
use super::write::Writer;
use super::{Document, Element, id, kind};
use crate::row::{Row, RowBuilder};
use crate::schema::{Column, Schema};
use crate::types::{ColumnType, Engine};
use crate::value::{Cell, Damaged, Value};
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

/// A collection seen as a table with the columns of another one.
#[derive(Clone, Debug)]
pub struct Projection {
    flat: Arc<Schema>,
    mapping: DocumentMapping,
    /// The field that each column is.
    fields: Vec<String>,
    places: HashMap<String, usize>,
    /// For each column: whether it is of the key.
    is_key: Vec<bool>,
    /// The column of the fields that have none of their own.
    rest: Option<usize>,
    /// No column has it: it is the key, or nobody's.
    skips_id: bool,
}

/// Memory that is used again for each row.
#[derive(Default)]
pub struct Room {
    builder: RowBuilder,
    cell: Vec<u8>,
    id: Vec<u8>,
}

/// What a cell is going to be.
#[derive(Clone, Debug)]
enum Slot<'a> {
    Unchanged,
    Null,
    Field(u8, Cow<'a, [u8]>),
    /// No conversion takes it, and says why in these words.
    Refused(Cow<'static, str>),
}

const NESTED: &str = "a part of the field was changed and the source sent no document after the update; turn post-images on \
                      at the source: db.runCommand({ collMod: ..., changeStreamPreAndPostImages: { enabled: true } })";
const MISFIT: &str = "the _id is no document of the key's columns in their order";
const UNREADABLE: &str = "the document has a field whose name is not UTF-8";

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
        let columns: Vec<Column> = other.columns.iter().map(column).collect();
        let mut fields: Vec<String> = columns.iter().map(|column| column.name.clone()).collect();
        for (field, &column) in mapping.key.iter().zip(&other.key) {
            fields[column].clone_from(field);
        }
        let places = fields.iter().enumerate().map(|(at, field)| (field.clone(), at)).collect();
        let is_key: Vec<bool> = (0..columns.len()).map(|at| other.key.contains(&at)).collect();
        let rest = match &mapping.other_fields {
            OtherFields::Column(name) => other.column(name).filter(|at| !is_key[*at]),
            OtherFields::Refuse | OtherFields::Ignore => None,
        };
        let skips_id = other.column("_id").is_none_or(|at| is_key[at]);
        let flat = Arc::new(Schema::new(other.table.clone(), Engine::Mongodb, columns, other.key.clone()));
        Self { flat, mapping, fields, places, is_key, rest, skips_id }
    }

    /// The columns of the other table, each a field of any type.
    pub fn schema(&self) -> &Arc<Schema> {
        &self.flat
    }

    /// A document's row, or a part of one, in the other table's columns. What can't be said there is a cell that every
    /// conversion refuses, in words.
    pub fn row(&self, row: &Row, room: &mut Room) -> Result<Row, Damaged> {
        let mut cells = row.cells();
        let Some(Cell::Present(id)) = cells.next().transpose()? else {
            return Err(Damaged("a document without its key"));
        };
        let Room { builder, cell, id: bytes } = room;
        let kind = id::element(id, bytes)?;
        let mut slots = vec![Slot::Unchanged; self.flat.columns.len()];
        self.put_key(kind, bytes, &mut slots)?;
        match cells.next().transpose()? {
            Some(Cell::Present(Value::Document(bytes))) => self.whole(Document::new(bytes)?, &mut slots)?,
            Some(Cell::Present(Value::Patch(patches))) => self.patched(patches, &mut slots)?,
            Some(Cell::Unchanged) => {}
            Some(Cell::Present(_)) | None => return Err(Damaged("a row without its document")),
        }
        for (at, slot) in slots.iter().enumerate() {
            self.push(builder, cell, slot, (self.flat.key.first() == Some(&at)).then_some((kind, bytes)));
        }
        Ok(builder.finish())
    }

    /// `id`: the whole key, which goes with a refusal in its first column, so that the key stays one of a kind.
    fn push(&self, builder: &mut RowBuilder, cell: &mut Vec<u8>, slot: &Slot<'_>, id: Option<(u8, &[u8])>) {
        cell.clear();
        match slot {
            Slot::Unchanged => return builder.push(Cell::Unchanged),
            Slot::Null => return builder.push(Cell::Present(Value::Null)),
            Slot::Field(kind, bytes) => {
                cell.push(*kind);
                cell.extend_from_slice(bytes);
            }
            Slot::Refused(words) => {
                cell.push(0);
                cell.extend_from_slice(words.as_bytes());
                if let Some((kind, bytes)) = id {
                    cell.extend_from_slice(&[0, kind]);
                    cell.extend_from_slice(bytes);
                }
            }
        }
        builder.push(Cell::Present(Value::Raw(cell)));
    }

    fn put_key<'a>(&self, kind: u8, id: &'a [u8], slots: &mut [Slot<'a>]) -> Result<(), Damaged> {
        if let [column] = self.flat.key[..] {
            slots[column] = slot(kind, id);
            return self.refuse_parts(slots);
        }
        let mut fields = match kind {
            kind::DOCUMENT => Document::new(id)?.fields(),
            _ => super::Fields::default(),
        };
        for &column in &self.flat.key {
            match fields.next() {
                Some(Ok(field)) if field.name == self.fields[column] => {
                    slots[column] = slot(field.kind, field.bytes);
                }
                _ => return self.misfit(slots),
            }
        }
        if fields.next().is_some() { self.misfit(slots) } else { self.refuse_parts(slots) }
    }

    fn misfit(&self, slots: &mut [Slot<'_>]) -> Result<(), Damaged> {
        self.refuse_key(MISFIT.into(), slots);
        Ok(())
    }

    /// All of it, since the first column has the whole key with it.
    fn refuse_key(&self, words: Cow<'static, str>, slots: &mut [Slot<'_>]) {
        self.flat.key.iter().for_each(|&column| slots[column] = Slot::Refused(words.clone()));
    }

    /// Refuses a key of fields where one of them can't be a part of it.
    fn refuse_parts(&self, slots: &mut [Slot<'_>]) -> Result<(), Damaged> {
        if self.mapping.key.is_empty() {
            return Ok(());
        }
        for &column in &self.flat.key {
            let kind = match &slots[column] {
                Slot::Field(kind, _) => *kind,
                _ => kind::NULL,
            };
            if let Some(reason) = super::key::unfit(kind) {
                let words = format!("the document's field {:?}, a part of its key, {reason}", self.fields[column]);
                self.refuse_key(words.into(), slots);
                return Ok(());
            }
        }
        Ok(())
    }

    fn whole<'a>(&self, document: Document<'a>, slots: &mut [Slot<'a>]) -> Result<(), Damaged> {
        let mut rest: Option<Writer> = None;
        // Said at the end: a field that comes later would take the words' place.
        let mut refused: Option<Cow<'static, str>> = None;
        // Fields mostly stand in the order of the columns.
        let mut next = 0;
        for field in document.fields() {
            let field = match field {
                Ok(field) => field,
                Err(error) if error.0 == super::NAME_IS_NO_TEXT => {
                    if self.mapping.other_fields != OtherFields::Ignore {
                        refused = Some(UNREADABLE.into());
                    }
                    continue;
                }
                Err(error) => return Err(error),
            };
            if field.name == "_id" && self.skips_id {
                continue;
            }
            match self.place(field.name, &mut next) {
                Some(column) if self.is_key[column] && is_part(&slots[column], field)? => {}
                Some(column) if self.is_key[column] => {
                    self.other(field, "which is not what its key says", &mut refused, &mut rest)?;
                }
                Some(column) if self.rest != Some(column) => slots[column] = slot(field.kind, field.bytes),
                Some(_) | None => self.other(field, "and the table no such column", &mut refused, &mut rest)?,
            }
        }
        if let Some(column) = self.rest {
            slots[column] = Slot::Field(kind::DOCUMENT, Cow::Owned(rest.unwrap_or_default().finish()?));
        }
        if let Some(words) = refused {
            self.refuse(words, slots);
        }
        // A field that is not there is NULL.
        slots.iter_mut().filter(|slot| matches!(slot, Slot::Unchanged)).for_each(|slot| *slot = Slot::Null);
        Ok(())
    }

    fn place(&self, name: &str, next: &mut usize) -> Option<usize> {
        let at = match self.fields.get(*next) {
            Some(field) if field == name => *next,
            Some(_) | None => *self.places.get(name)?,
        };
        *next = at + 1;
        Some(at)
    }

    fn other(
        &self,
        field: Element<'_>,
        why: &str,
        refused: &mut Option<Cow<'static, str>>,
        rest: &mut Option<Writer>,
    ) -> Result<(), Damaged> {
        match self.mapping.other_fields {
            OtherFields::Ignore => {}
            OtherFields::Column(_) => rest.get_or_insert_default().put(field.kind, field.name, field.bytes)?,
            OtherFields::Refuse => {
                *refused = Some(format!("the document has a field {:?} {why}", field.name).into());
            }
        }
        Ok(())
    }

    /// Leaves words in a column that is not of the key, where there is one.
    fn refuse(&self, words: impl Into<Cow<'static, str>>, slots: &mut [Slot<'_>]) {
        let column = self.rest.or_else(|| self.is_key.iter().position(|is_key| !is_key));
        let column = column.or(self.flat.key.first().copied());
        if let Some(slot) = column.and_then(|column| slots.get_mut(column)) {
            *slot = Slot::Refused(words.into());
        }
    }

    fn patched<'a>(&self, patches: &'a [u8], slots: &mut [Slot<'a>]) -> Result<(), Damaged> {
        let mut refused: Option<Cow<'static, str>> = None;
        let edits = match edits(patches) {
            Err(error) if error.0 == super::NAME_IS_NO_TEXT => {
                self.refuse(UNREADABLE, slots);
                return Ok(());
            }
            edits => edits?,
        };
        for (path, edit) in edits {
            let Some((&name, below)) = path.split_first() else { continue };
            let own = self.places.get(name).copied().filter(|column| self.rest != Some(*column));
            let whole = below.is_empty();
            match (own, edit) {
                (Some(column), Edit::Remove) if self.is_key[column] && whole => {}
                (Some(column), Edit::Set(value)) if self.is_key[column] && whole && is_part(&slots[column], value)? => {
                }
                (Some(column), _) if !self.is_key[column] => {
                    slots[column] = match edit {
                        Edit::Set(value) if whole => slot(value.kind, value.bytes),
                        Edit::Remove if whole => Slot::Null,
                        _ => below_field(&slots[column], &path, edit)?,
                    };
                }
                _ => match &self.mapping.other_fields {
                    OtherFields::Ignore => {}
                    OtherFields::Column(_) => refused = Some(NESTED.into()),
                    OtherFields::Refuse if matches!(edit, Edit::Remove) => {}
                    OtherFields::Refuse if own.is_some() => {
                        refused =
                            Some(format!("the document has a field {name:?} which is not what its key says").into());
                    }
                    OtherFields::Refuse => {
                        refused =
                            Some(format!("the document has a field {name:?} and the table no such column").into());
                    }
                },
            }
        }
        if let Some(words) = refused {
            self.refuse(words, slots);
        }
        Ok(())
    }
}

fn slot(kind: u8, bytes: &[u8]) -> Slot<'_> {
    match kind {
        kind::NULL => Slot::Null,
        _ => Slot::Field(kind, Cow::Borrowed(bytes)),
    }
}

/// Whether a field says what its part of the key says.
fn is_part(part: &Slot<'_>, field: Element<'_>) -> Result<bool, Damaged> {
    match part {
        Slot::Field(kind, bytes) => {
            let part = Element { kind: *kind, name: field.name, bytes };
            let (mut one, mut other) = (Vec::new(), Vec::new());
            Ok(id::canonical(part, &mut one)? == id::canonical(field, &mut other)?)
        }
        Slot::Null => Ok(field.kind == kind::NULL),
        // The row is refused for its key.
        Slot::Refused(_) => Ok(true),
        Slot::Unchanged => Ok(false),
    }
}

/// A field after an edit below it: exact where the whole of it is known.
fn below_field<'a>(slot: &Slot<'a>, path: &[&str], edit: Edit<'_>) -> Result<Slot<'a>, Damaged> {
    let mut around = Writer::default();
    let &name = path.first().ok_or(Damaged("an empty path"))?;
    match slot {
        Slot::Unchanged => return Ok(Slot::Refused(NESTED.into())),
        Slot::Refused(words) => return Ok(Slot::Refused(words.clone())),
        Slot::Null => {}
        Slot::Field(kind, bytes) => around.put(*kind, name, bytes)?,
    }
    let after = patch::edited(Document::new(&around.finish()?)?, kind::DOCUMENT, path, edit)?;
    Ok(match Document::new(&after)?.get(name)? {
        Some(field) => Slot::Field(field.kind, Cow::Owned(field.bytes.to_vec())),
        None => Slot::Null,
    })
}

#[cfg(test)]
mod tests;
