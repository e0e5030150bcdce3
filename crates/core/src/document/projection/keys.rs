//! Keys of documents and of the rows that they are.

use super::{Projection, Room, Slot};
use crate::convert::Refusal;
use crate::document::write::Writer;
use crate::document::{Document, Element, clock, field, id, key, kind};
use crate::row::{Key, RowBuilder};
use crate::schema::Schema;
use crate::types::ColumnType;
use crate::value::{Cell, Damaged, Value};

/// The parts of a composite key have few forms each; what has more than this of them together is no key of a document.
const MOST_FORMS: usize = 64;

/// A field without its name: its type and its bytes.
type Form = (u8, Vec<u8>);

impl Projection {
    /// The other table's form of a document's key.
    pub fn key(&self, key: &Key, room: &mut Room) -> Result<Key, Damaged> {
        let Some(Cell::Present(id)) = key.cells().next().transpose()? else { return Err(Damaged("an empty key")) };
        let Room { builder, cell, id: bytes } = room;
        let kind = id::element(id, bytes)?;
        let mut slots = vec![Slot::Unchanged; self.flat.columns.len()];
        self.put_key(kind, bytes, &mut slots)?;
        for (at, &column) in self.flat.key.iter().enumerate() {
            self.push(builder, cell, &slots[column], (at == 0).then_some((kind, bytes)));
        }
        Ok(Key::from_bytes(builder.finish().as_bytes().clone()))
    }

    /// A document's key in a form that only [`Projection::id`] reads, whatever the other table's key holds.
    pub fn sealed(&self, key: &Key, room: &mut Room) -> Result<Key, Damaged> {
        let Some(Cell::Present(id)) = key.cells().next().transpose()? else { return Err(Damaged("an empty key")) };
        let Room { builder, cell, id: bytes } = room;
        let kind = id::element(id, bytes)?;
        self.push(builder, cell, &Slot::Refused("".into()), Some((kind, bytes)));
        Ok(Key::from_bytes(builder.finish().as_bytes().clone()))
    }

    /// The document's key of one in the other table's form, whose cells are fields.
    pub fn id(&self, key: &Key) -> Result<Key, Damaged> {
        let mut fields = Vec::with_capacity(self.flat.key.len());
        for cell in key.cells() {
            match cell? {
                Cell::Present(Value::Raw([0, words @ ..])) => {
                    let end = words.iter().position(|byte| *byte == 0);
                    let id = end.and_then(|end| words[end + 1..].split_first());
                    let (&kind, bytes) = id.ok_or(Damaged("a refused key without the document's"))?;
                    return whole_id(kind, bytes);
                }
                Cell::Present(Value::Raw([kind, bytes @ ..])) => fields.push((*kind, bytes.to_vec())),
                Cell::Present(Value::Null) => fields.push((kind::NULL, Vec::new())),
                Cell::Present(_) | Cell::Unchanged => return Err(Damaged("a key that is no field")),
            }
        }
        self.id_of(&fields)
    }

    /// Whether a key is in the form of [`Projection::sealed`].
    pub fn is_sealed(key: &Key) -> bool {
        matches!(key.cells().next(), Some(Ok(Cell::Present(Value::Raw([0, ..])))))
    }

    /// The keys of documents that one in the other table's own types may be of: first the one that a row would be
    /// written with, then those of other types whose documents become the same row.
    pub fn ids_of_columns(&self, key: &Key, other: &Schema) -> Result<Result<Vec<Key>, Refusal>, Damaged> {
        let mut found: Vec<Vec<Form>> = vec![Vec::new()];
        for (cell, &column) in key.cells().zip(&other.key) {
            let Cell::Present(value) = cell? else { return Err(Damaged("a key column is unknown")) };
            let forms = match self.forms(value, &other.columns[column].kind)? {
                Ok(forms) => forms,
                Err(refusal) => return Ok(Err(refusal)),
            };
            let longer = |parts: &Vec<Form>| {
                let with = |form: &Form| parts.iter().chain([form]).cloned().collect();
                forms.iter().map(with).collect::<Vec<_>>()
            };
            found = found.iter().flat_map(longer).take(MOST_FORMS).collect();
        }
        found.iter().map(|parts| self.id_of(parts)).collect::<Result<Vec<_>, _>>().map(Ok)
    }

    /// The fields that become this value in a column of this type.
    fn forms(&self, value: Value<'_>, column: &ColumnType) -> Result<Result<Vec<Form>, Refusal>, Damaged> {
        let mut forms = Vec::new();
        let mut written = Writer::default();
        let refused = field::put(&mut written, "v", value, column, self.mapping.times).err();
        if refused.is_none() {
            forms.push(only(written)?);
        }
        let mut more = |put: &dyn Fn(&mut Writer) -> Result<(), Damaged>| -> Result<(), Damaged> {
            let mut writer = Writer::default();
            put(&mut writer)?;
            forms.push(only(writer)?);
            Ok(())
        };
        match value {
            Value::Text(text) => {
                if let Some(id) = unhex::<12>(text) {
                    more(&|out| out.put(kind::OBJECT_ID, "v", &id))?;
                }
                let digits: String = text.chars().filter(|character| *character != '-').collect();
                if let Some(uuid) = unhex::<16>(&digits).filter(|uuid| hyphenated(uuid) == text) {
                    more(&|out| out.binary("v", 4, &uuid))?;
                }
            }
            Value::Bytes(bytes) if bytes.len() == 12 => more(&|out| out.put(kind::OBJECT_ID, "v", bytes))?,
            Value::Bytes(bytes) if bytes.len() == 16 => more(&|out| out.binary("v", 4, bytes))?,
            Value::Uuid(uuid) => more(&|out| out.text("v", &hyphenated(&uuid)))?,
            Value::Bool(value) => more(&|out| out.put(kind::INT32, "v", &i32::from(value).to_le_bytes()))?,
            Value::Int(number @ 0..=1) if matches!(column, ColumnType::Int { bits: 8, .. }) => {
                more(&|out| out.put(kind::BOOL, "v", &[u8::from(number == 1)]))?;
            }
            Value::Timestamp(micros) | Value::TimestampTz(micros) => {
                let zoned = matches!(value, Value::TimestampTz(_));
                if micros % 1_000 == 0 {
                    more(&|out| out.put(kind::DATE, "v", &(micros / 1_000).to_le_bytes()))?;
                }
                more(&|out| out.text("v", &clock::timestamp(micros, zoned)))?;
            }
            _ => {}
        }
        match refused {
            Some(refusal) if forms.is_empty() => Ok(Err(refusal)),
            Some(_) | None => Ok(Ok(forms)),
        }
    }

    fn id_of(&self, fields: &[Form]) -> Result<Key, Damaged> {
        if let [(kind, bytes)] = fields {
            return whole_id(*kind, bytes);
        }
        let mut writer = Writer::default();
        for ((kind, bytes), &column) in fields.iter().zip(&self.flat.key) {
            let name = &self.fields[column];
            match self.mapping.key.is_empty() {
                true => writer.put(*kind, name, bytes)?,
                false => key::put_part(&mut writer, name, Element { kind: *kind, name, bytes })?,
            }
        }
        whole_id(kind::DOCUMENT, &writer.finish()?)
    }
}

fn whole_id(kind: u8, bytes: &[u8]) -> Result<Key, Damaged> {
    let (mut builder, mut scratch) = (RowBuilder::default(), Vec::new());
    builder.push(Cell::Present(id::canonical(Element { kind, name: "_id", bytes }, &mut scratch)?));
    Ok(Key::from_bytes(builder.finish().as_bytes().clone()))
}

/// The only field of a document.
fn only(writer: Writer) -> Result<Form, Damaged> {
    let document = writer.finish()?;
    let field = Document::new(&document)?.get("v")?.ok_or(Damaged("a field that was written"))?;
    Ok((field.kind, field.bytes.to_vec()))
}

/// Digits in lower case alone: an upper one is another text.
fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let lower = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if text.len() != 2 * N || !text.bytes().all(lower) {
        return None;
    }
    let mut bytes = [0; N];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

fn hyphenated(uuid: &[u8; 16]) -> String {
    let digits =
        |range: std::ops::Range<usize>| uuid[range].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    [digits(0..4), digits(4..6), digits(6..8), digits(8..10), digits(10..16)].join("-")
}
