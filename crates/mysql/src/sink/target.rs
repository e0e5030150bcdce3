//! A table as the sink writes it: how each column of the source's rows arrives.

use crate::catalog::{QualifiedName, Table, TableColumn, quoted};
use crate::collation::{self, EXACT};
use crate::error::Error;
use crate::sink::encode;
use crate::sink::guard::Look;
use sync_worker_core::convert::{Conversion, Refusal};
use sync_worker_core::row::{Key, Row};
use sync_worker_core::schema::Schema;
use sync_worker_core::types::{ColumnType, Engine};
use sync_worker_core::value::{Cell, Value};

/// 1000-01-01 and 0001-01-01.
const DOCUMENTED_FIRST_DAY: i32 = -354_285;
const FIRST_DAY: i32 = -719_162;

/// How a value that only MySQL has is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RawForm {
    /// MySQL's own literal text.
    Text,
    /// The bytes that the server stores.
    Binary,
}

/// The labels of an ENUM or SET. MySQL takes a text of digits that is no label for a number: such a text must not pass.
#[derive(Clone, Debug)]
pub struct Labels {
    labels: Vec<String>,
    several: bool,
}

impl Labels {
    /// Takes the type as the catalog spells it: `enum('a','b')`.
    pub fn parse(type_name: &str, several: bool) -> Self {
        let mut labels = Vec::new();
        let mut rest = type_name.chars().peekable();
        let mut label: Option<String> = None;
        while let Some(character) = rest.next() {
            match (&mut label, character) {
                (None, '\'') => label = Some(String::new()),
                (None, _) => {}
                (Some(text), '\'') if rest.peek() == Some(&'\'') => {
                    rest.next();
                    text.push('\'');
                }
                (Some(_), '\'') => labels.extend(label.take()),
                (Some(text), '\\') => match rest.next() {
                    Some('n') => text.push('\n'),
                    Some('r') => text.push('\r'),
                    Some('0') => text.push('\0'),
                    Some(escaped) => text.push(escaped),
                    None => {}
                },
                (Some(text), character) => text.push(character),
            }
        }
        Self { labels, several }
    }

    pub fn check(&self, text: &str) -> Result<(), Refusal> {
        let known = |label: &str| self.labels.iter().any(|known| known == label);
        let valid = match self.several {
            true => text.is_empty() || text.split(',').all(known),
            false => known(text),
        };
        if valid { Ok(()) } else { Err(Refusal("is not one of the column's labels".to_owned())) }
    }
}

#[derive(Clone, Debug)]
pub struct TargetColumn {
    pub name: String,
    pub quoted: String,
    pub kind: ColumnType,
    /// `varchar`, `timestamp`: without length and attributes.
    pub data_type: String,
    pub labels: Option<Labels>,
    pub raw: RawForm,
    /// The earliest day that is taken.
    pub first_day: i32,
    conversion: Conversion,
    /// For comparing with a text of a derived table: the column's collation.
    collation: Option<String>,
    /// Its collation takes values for one although they differ.
    folds: bool,
    /// Its characters are those of UTF-8, so that every text can be compared in the column's own character set.
    universal: bool,
}

#[cfg(test)]
impl TargetColumn {
    pub fn for_tests(kind: ColumnType, data_type: &str) -> Self {
        Self {
            name: "c".into(),
            quoted: "`c`".into(),
            conversion: Conversion::new(&kind, &kind).unwrap(),
            kind,
            data_type: data_type.into(),
            labels: None,
            raw: RawForm::Text,
            first_day: DOCUMENTED_FIRST_DAY,
            collation: None,
            folds: false,
            universal: true,
        }
    }
}

/// A refused value: the column and why.
pub type Refused = String;

/// What became of a row.
pub enum Rendered {
    Done,
    /// A column is Unchanged, and all were wanted.
    Partial,
    Refused(Refused),
}

/// One table for rows of one schema.
#[derive(Debug)]
pub struct TargetTable {
    pub name: QualifiedName,
    pub quoted: String,
    /// By the source's columns; None for one that the target computes itself.
    pub columns: Vec<Option<TargetColumn>>,
    /// The source's key columns.
    pub key: Vec<usize>,
    /// Nothing but the key can refuse a second row, the key is hit by none but the same key, and no trigger tells an
    /// insert from an update: then both may be written as an upsert.
    pub simple: bool,
    /// The collation of a key column that takes keys for one although they differ. A row is then found by its key's
    /// characters too, so that none is ever written over another one.
    pub folding: Option<String>,
    /// A delete never scans the table, whatever the statistics say.
    pub index_hint: String,
    /// The name of the key's index, as it stands in a statement and as it is.
    pub key_index: String,
    key_name: String,
    /// Uses left of the slower statements that insert where an update finds no row.
    pub fill: u32,
    /// Uses left of the slower statements for snapshot rows that may be there already.
    pub overlap: u32,
    pub parents: Vec<QualifiedName>,
    /// The same, with this one where its rows refer to each other; none where triggers fire, whose rows would go unchecked, too.
    pub refers_to: Vec<QualifiedName>,
    /// Tables whose deletes change rows of this one, perhaps its own: parents by a foreign key with an action.
    pub acted_on_by: Vec<QualifiedName>,
    /// Triggers fire for what is written, as far as the user may know.
    pub has_triggers: bool,
    /// The table has no columns but the source's.
    is_whole: bool,
    /// A delete of a row changes rows of a table that is written, too, or has to come behind such a delete.
    pub deletes_act: bool,
    /// A delete of a row takes rows of some table along, or changes them: a foreign key with an action refers to it.
    pub takes_along: bool,
    /// Parents have lower levels than their children.
    pub level: usize,
    /// How its rows are compared with versions; None until a guarded batch asks.
    pub look: Option<Look>,
}

impl TargetTable {
    pub fn new(table: &Table, schema: &Schema) -> Result<Self, Error> {
        let name = &table.name;
        if table.storage.as_deref().is_none_or(|storage| !storage.eq_ignore_ascii_case("InnoDB")) {
            return Err(Error::Fatal(format!(
                "table {name} is not stored in InnoDB, so its rows could not be written together with their marker; run: \
                 ALTER TABLE {} ENGINE = InnoDB",
                name.quoted()
            )));
        }
        let mut columns = Vec::with_capacity(schema.columns.len());
        for source in &schema.columns {
            let Some(column) = table.column(&source.name) else {
                return Err(Error::Fatal(format!(
                    "table {name} lacks column {}; add it (sync-worker schema prints the statement)",
                    source.name
                )));
            };
            if column.column.generated {
                columns.push(None);
                continue;
            }
            let conversion = Conversion::new(&source.kind, &column.column.kind).map_err(|refusal| {
                Error::Fatal(format!("table {name} column {}: {refusal}; change the column's type", source.name))
            })?;
            columns.push(Some(target_column(column, conversion, schema.engine)));
        }
        if let Some(column) = table.required().find(|column| schema.column(column).is_none()) {
            return Err(Error::Fatal(format!(
                "table {name} column {column} has no default and the source has no such column; give it a default or let \
                 it be NULL"
            )));
        }
        let mut wanted: Vec<&str> = schema.key.iter().map(|&at| schema.columns[at].name.as_str()).collect();
        let index = table.key.as_ref();
        let mut have: Vec<&str> = index.iter().flat_map(|key| key.columns.iter().map(String::as_str)).collect();
        wanted.sort_unstable();
        have.sort_unstable();
        let (Some(index), true) = (index, wanted == have) else {
            let list = |names: &[&str]| names.join(", ");
            return Err(Error::Fatal(format!(
                "table {name} has the key ({}), but its source has ({}); give both the same primary key",
                list(&have),
                list(&wanted)
            )));
        };
        let named = index.columns.iter().filter_map(|name| table.column(name));
        let folding = named.filter_map(collation::folds).next().map(|(collation, _)| collation.to_owned());
        let parents = table.foreign_keys.iter().map(|key| key.parent.clone()).filter(|parent| parent != name);
        let acting =
            table.foreign_keys.iter().filter(|key| matches!(&*key.on_delete, "CASCADE" | "SET NULL" | "SET DEFAULT"));
        let acted_on_by = acting.map(|key| key.parent.clone()).collect();
        Ok(Self {
            quoted: name.quoted(),
            columns,
            key: schema.key.clone(),
            simple: folding.is_none() && table.unique.is_empty() && table.triggers.is_empty(),
            folding,
            index_hint: format!("/*+ INDEX({} {}) */", quoted(&name.table), quoted(&index.name)),
            key_index: quoted(&index.name),
            key_name: index.name.clone(),
            fill: 0,
            overlap: 0,
            parents: parents.collect(),
            refers_to: match table.triggers.is_empty() {
                true => table.foreign_keys.iter().map(|key| key.parent.clone()).collect(),
                false => Vec::new(),
            },
            acted_on_by,
            is_whole: table
                .columns
                .iter()
                .all(|column| column.column.generated || schema.column(&column.column.name).is_some()),
            has_triggers: !table.triggers.is_empty() || !table.sees_triggers,
            deletes_act: false,
            takes_along: false,
            level: 0,
            look: None,
            name: name.clone(),
        })
    }

    /// Whether a row may go and come anew while foreign keys rest: nothing of it would be lost, and nothing fires.
    pub fn comes_anew(&self) -> bool {
        self.is_whole && !self.has_triggers
    }

    /// Whether a delete is put off, or has to be spared: what goes and comes back in one batch is written over.
    pub fn acts(&self) -> bool {
        self.takes_along || self.deletes_act
    }

    /// Whether this is what the server calls the key's index: its name, with the table's before it.
    pub fn is_key(&self, index: &str) -> bool {
        index.strip_suffix(&self.key_name).is_some_and(|table| table.is_empty() || table.ends_with('.'))
    }

    pub fn column(&self, at: usize) -> Option<&TargetColumn> {
        self.columns.get(at).and_then(Option::as_ref)
    }

    pub fn key_columns(&self) -> impl Iterator<Item = (usize, &TargetColumn)> {
        self.key.iter().filter_map(|&at| Some((at, self.column(at)?)))
    }

    /// Appends the row's values with commas between them. Of a partial row only the columns in `present` are wanted;
    /// without it all are. `derived`: the row becomes one of a derived table.
    pub fn render(
        &self,
        out: &mut Vec<u8>,
        row: &Row,
        present: Option<&[bool]>,
        derived: bool,
    ) -> Result<Rendered, Error> {
        let mut scratch = String::new();
        let mut first = true;
        for (at, (cell, column)) in row.cells().zip(&self.columns).enumerate() {
            let (cell, Some(column)) = (cell?, column) else { continue };
            let value = match cell {
                Cell::Unchanged if present.is_none() => return Ok(Rendered::Partial),
                Cell::Unchanged => continue,
                Cell::Present(value) => value,
            };
            if !first {
                out.push(b',');
            }
            first = false;
            let typed = derived && self.key.contains(&at);
            if let Err(refusal) = render(out, value, column, typed, &mut scratch) {
                return Ok(Rendered::Refused(format!("column {}: {refusal}", column.name)));
            }
        }
        Ok(Rendered::Done)
    }

    /// Appends `column=value` for every column that the row has.
    pub fn render_assignments(&self, out: &mut Vec<u8>, row: &Row) -> Result<Rendered, Error> {
        let mut scratch = String::new();
        let mut first = true;
        for (cell, column) in row.cells().zip(&self.columns) {
            let (Cell::Present(value), Some(column)) = (cell?, column) else { continue };
            if !first {
                out.push(b',');
            }
            first = false;
            out.extend_from_slice(column.quoted.as_bytes());
            out.push(b'=');
            if let Err(refusal) = render(out, value, column, false, &mut scratch) {
                return Ok(Rendered::Refused(format!("column {}: {refusal}", column.name)));
            }
        }
        Ok(Rendered::Done)
    }

    /// Appends the key's values with commas between them.
    pub fn render_key(&self, out: &mut Vec<u8>, key: &Key) -> Result<Rendered, Error> {
        let mut scratch = String::new();
        for (at, (cell, &column)) in key.cells().zip(&self.key).enumerate() {
            let (Cell::Present(value), Some(column)) = (cell?, self.column(column)) else { continue };
            if at > 0 {
                out.push(b',');
            }
            if let Err(refusal) = render(out, value, column, true, &mut scratch) {
                return Ok(Rendered::Refused(format!("column {}: {refusal}", column.name)));
            }
        }
        Ok(Rendered::Done)
    }

    /// Appends `(k1,k2)`, or the bare column of a key of one.
    pub fn write_key_columns(&self, out: &mut Vec<u8>) {
        let several = self.key.len() > 1;
        if several {
            out.push(b'(');
        }
        for (at, (_, column)) in self.key_columns().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            out.extend_from_slice(column.quoted.as_bytes());
        }
        if several {
            out.push(b')');
        }
    }

    /// Appends `AND k = 'value'` by characters for every key column that folds.
    pub fn write_exact_key(&self, out: &mut Vec<u8>, key: &Key) -> Result<Rendered, Error> {
        let mut scratch = String::new();
        for (cell, &column) in key.cells().zip(&self.key) {
            let (Cell::Present(value), Some(column)) = (cell?, self.column(column)) else { continue };
            if !column.folds {
                continue;
            }
            let text = format!(" AND CONVERT({} USING utf8mb4) COLLATE {EXACT}=", column.quoted);
            out.extend_from_slice(text.as_bytes());
            if let Err(refusal) = render(out, value, column, true, &mut scratch) {
                return Ok(Rendered::Refused(format!("column {}: {refusal}", column.name)));
            }
        }
        Ok(Rendered::Done)
    }

    /// Appends `t.k = n.k`, with the column's own collation, so that its index is used, and by characters where that
    /// one folds.
    pub fn write_key_join(&self, out: &mut Vec<u8>) {
        for (at, (_, column)) in self.key_columns().enumerate() {
            if at > 0 {
                out.extend_from_slice(b" AND ");
            }
            out.extend_from_slice(b"t.");
            out.extend_from_slice(column.quoted.as_bytes());
            out.extend_from_slice(b"=n.");
            out.extend_from_slice(column.quoted.as_bytes());
            if let Some(collation) = &column.collation {
                out.extend_from_slice(b" COLLATE ");
                out.extend_from_slice(collation.as_bytes());
            }
            if column.folds {
                let text = format!(" AND t.{0} COLLATE {EXACT}=n.{0}", column.quoted);
                out.extend_from_slice(text.as_bytes());
            }
        }
    }

    /// Whether rows can be found by the columns of a derived table: a text key in another character set than ours can't.
    pub fn joinable(&self) -> bool {
        self.key_columns().all(|(_, column)| column.universal)
    }

    /// Which columns a row has; None where it has all of them.
    pub fn present(&self, row: &Row) -> Result<Option<Vec<bool>>, Error> {
        let mut all = true;
        let mut present = Vec::with_capacity(self.columns.len());
        for (cell, column) in row.cells().zip(&self.columns) {
            let there = cell? != Cell::Unchanged;
            all &= there || column.is_none();
            present.push(there);
        }
        Ok(if all { None } else { Some(present) })
    }
}

fn render(
    out: &mut Vec<u8>,
    value: Value<'_>,
    column: &TargetColumn,
    typed: bool,
    scratch: &mut String,
) -> Result<(), Refusal> {
    let value = column.conversion.apply(value, scratch)?;
    encode::literal(out, value, column, typed)
}

fn target_column(column: &TableColumn, conversion: Conversion, source: Engine) -> TargetColumn {
    let folds = collation::folds(column).is_some();
    let TableColumn { column, data_type, collation, character_set, .. } = column;
    let labels = match column.kind {
        ColumnType::Enum => Some(Labels::parse(&column.type_name, false)),
        ColumnType::Set => Some(Labels::parse(&column.type_name, true)),
        _ => None,
    };
    let text = matches!(column.kind, ColumnType::Text { .. } | ColumnType::Enum | ColumnType::Set);
    let spelled =
        matches!(data_type.as_str(), "float" | "double" | "date" | "time" | "datetime" | "timestamp" | "year");
    let universal = character_set.as_deref().is_none_or(|name| name == "utf8mb4");
    TargetColumn {
        name: column.name.clone(),
        quoted: quoted(&column.name),
        kind: column.kind.clone(),
        data_type: data_type.clone(),
        labels,
        raw: if spelled { RawForm::Text } else { RawForm::Binary },
        first_day: if source == Engine::Mysql { FIRST_DAY } else { DOCUMENTED_FIRST_DAY },
        conversion,
        collation: collation.clone().filter(|_| text && universal),
        folds,
        // An ENUM or SET is looked up by its number: a text finds it as a constant only.
        universal: universal && !matches!(column.kind, ColumnType::Enum | ColumnType::Set),
    }
}
