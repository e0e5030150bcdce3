//! Row events: the row images of one table, one after another.

use super::event;
use super::plan::Plan;
use crate::codec::{CUT, Format, Invalid, Scratch, binlog, json_diff, take, take_slice};
use crate::error::Error;
use crate::wire::lenenc;
use sync_worker_core::change::{Change, Op};
use sync_worker_core::name::TableName;
use sync_worker_core::row::{Row, RowBuilder};
use sync_worker_core::value::{Cell, Damaged, Value};

/// The columns that images of an event have.
#[derive(Clone, Copy)]
struct Present<'a> {
    bits: &'a [u8],
    count: usize,
    all: bool,
}

impl<'a> Present<'a> {
    fn read(bytes: &mut &'a [u8], columns: usize) -> Result<Self, Invalid> {
        let bits = take_slice(bytes, columns.div_ceil(8))?;
        let count = (0..columns).filter(|at| bits[at / 8] >> (at % 8) & 1 == 1).count();
        Ok(Self { bits, count, all: count == columns })
    }

    fn has(&self, column: usize) -> bool {
        self.all || self.bits[column / 8] >> (column % 8) & 1 == 1
    }
}

const UNKEYED: Invalid = Invalid("a row image without its key");

/// Which columns an event's first images have; moves past that.
fn first_images<'a>(kind: u8, bytes: &mut &'a [u8], plan: &Plan) -> Result<Present<'a>, Invalid> {
    take::<2>(bytes)?; // flags
    if kind >= event::WRITE_ROWS {
        let extra = u16::from_le_bytes(take(bytes)?);
        take_slice(bytes, usize::from(extra).saturating_sub(2))?;
    }
    if usize::try_from(lenenc(bytes).ok_or(CUT)?) != Ok(plan.columns.len()) {
        return Err(Invalid("rows have another number of columns than their table"));
    }
    Present::read(bytes, plan.columns.len())
}

/// Whether an event inserts rows without some of their columns, which then have their defaults.
pub fn leaves_out(kind: u8, mut body: &[u8], plan: &Plan) -> bool {
    matches!(kind, event::WRITE_ROWS | event::WRITE_ROWS_V1)
        && first_images(kind, &mut body, plan)
            .is_ok_and(|present| plan.columns.iter().enumerate().any(|(at, column)| column.wanted && !present.has(at)))
}

/// Whether all images of an event have all columns that are wanted. What can't be read is refused where it is read.
pub fn is_whole(kind: u8, mut body: &[u8], plan: &Plan) -> bool {
    let body = &mut body;
    let whole =
        |present: Present<'_>| plan.columns.iter().enumerate().all(|(at, column)| !column.wanted || present.has(at));
    let updates = matches!(kind, event::UPDATE_ROWS | event::UPDATE_ROWS_V1 | event::PARTIAL_UPDATE_ROWS);
    first_images(kind, body, plan).map_or(true, whole)
        && (!updates || Present::read(body, plan.columns.len()).map_or(true, whole))
}

/// An event of a two-way pipeline that leaves columns out.
pub fn partial(table: &TableName) -> Error {
    Error::Fatal(format!(
        "the log has a change of table {table} without all of its columns, which a two-way pipeline must see (a session has set binlog_row_image); SET GLOBAL binlog_row_image = 'FULL', let no session set it, then remove the pipeline's state and take a new snapshot"
    ))
}

/// Why an image can't be taken: the column, and what is wrong with it.
type Refused = (Option<usize>, Invalid);

/// Steps from a document that is not there.
const STEPS: Invalid = Invalid("a partial JSON update without full row images");

/// Reused from event to event.
#[derive(Default)]
pub struct RowDecoder {
    builder: RowBuilder,
    scratch: Scratch,
    /// The text of a JSON document that a partial update made.
    document: String,
}

impl RowDecoder {
    /// Appends the changes of an event, whose `body` starts after the table's number. Returns about their size.
    pub fn changes(&mut self, kind: u8, body: &[u8], plan: &Plan, changes: &mut Vec<Change>) -> Result<usize, Error> {
        self.event(kind, body, plan, changes).map_err(|(column, Invalid(problem))| {
            self.builder.abandon();
            let table = plan.schema.table.to_string();
            match column {
                Some(at) => {
                    let column = plan.columns.get(at).map_or(String::new(), |column| column.name.clone());
                    Error::Value { table, column, problem: problem.to_owned() }
                }
                // It comes again however often it is read.
                None if problem == UNKEYED.0 => Error::Fatal(format!(
                    "the log has changes of table {table} without its key, as binlog_row_image = MINIMAL leaves it out where another index comes first; ALTER TABLE ... ADD PRIMARY KEY (...), or SET GLOBAL binlog_row_image = FULL, then remove the pipeline's state and take a new snapshot"
                )),
                None if problem == STEPS.0 => Error::Fatal(format!(
                    "the log has a change of table {table} with JSON in steps over a row that it does not show (a session has set binlog_row_value_options = 'PARTIAL_JSON' and binlog_row_image other than FULL); let no session set both, then remove the pipeline's state and take a new snapshot"
                )),
                None => Error::Protocol(problem),
            }
        })
    }

    fn event(&mut self, kind: u8, body: &[u8], plan: &Plan, changes: &mut Vec<Change>) -> Result<usize, Refused> {
        let whole = |invalid| (None, invalid);
        let mut rest = body;
        let bytes = &mut rest;
        let first = first_images(kind, bytes, plan).map_err(whole)?;
        let second = match kind {
            event::UPDATE_ROWS | event::UPDATE_ROWS_V1 | event::PARTIAL_UPDATE_ROWS => {
                Some(Present::read(bytes, plan.columns.len()).map_err(whole)?)
            }
            _ => None,
        };
        let creates = matches!(kind, event::WRITE_ROWS | event::WRITE_ROWS_V1);
        if !creates && plan.columns.iter().enumerate().any(|(at, column)| column.key && !first.has(at)) {
            return Err((None, UNKEYED));
        }
        let mut size = 0;
        while !bytes.is_empty() {
            let schema = plan.schema.clone();
            let change = match (kind, second) {
                (event::WRITE_ROWS | event::WRITE_ROWS_V1, _) => {
                    let after = self.inserted(plan, first, bytes)?;
                    Change { schema, op: Op::Create, before: None, after: Some(after) }
                }
                (event::DELETE_ROWS | event::DELETE_ROWS_V1, _) => {
                    let before = self.image(plan, first, bytes)?;
                    Change { schema, op: Op::Delete, before: Some(before), after: None }
                }
                (event::PARTIAL_UPDATE_ROWS, Some(second)) => {
                    let old = *bytes;
                    let before = self.image(plan, first, bytes)?;
                    let after = self.partial_image(plan, (first, old), second, bytes)?;
                    self.update(plan, (before, first.all), (after, second.all)).map_err(whole)?
                }
                (_, Some(second)) => {
                    let before = self.image(plan, first, bytes)?;
                    let after = self.image(plan, second, bytes)?;
                    self.update(plan, (before, first.all), (after, second.all)).map_err(whole)?
                }
                (_, None) => return Err((None, Invalid("an unknown kind of rows"))),
            };
            size += change.size() + std::mem::size_of::<Change>();
            changes.push(change);
        }
        Ok(size)
    }

    /// The image of a new row. What it leaves out has its default.
    fn inserted(&mut self, plan: &Plan, present: Present<'_>, bytes: &mut &[u8]) -> Result<Row, Refused> {
        let row = self.image(plan, present, bytes)?;
        if present.all {
            return Ok(row);
        }
        let columns = plan.columns.iter().enumerate().filter(|(_, column)| column.wanted);
        for ((at, column), cell) in columns.zip(row.cells()) {
            let unreadable = (Some(at), Invalid("a damaged image"));
            match cell.map_err(|_| unreadable)? {
                Cell::Unchanged => {
                    const CURE: &str =
                        "the log leaves its default out of an insert; SET GLOBAL binlog_row_image = FULL";
                    let default = column.default.as_deref().ok_or((Some(at), Invalid(CURE)))?;
                    self.builder.push(Cell::decode(&mut &default[..]).map_err(|_| unreadable)?);
                }
                cell => self.builder.push(cell),
            }
        }
        Ok(self.builder.finish())
    }

    fn image(&mut self, plan: &Plan, present: Present<'_>, bytes: &mut &[u8]) -> Result<Row, Refused> {
        let nulls = take_slice(bytes, present.count.div_ceil(8)).map_err(|invalid| (None, invalid))?;
        let mut nth = 0;
        for (at, column) in plan.columns.iter().enumerate() {
            if !present.has(at) {
                if column.wanted {
                    self.builder.push(Cell::Unchanged);
                }
                continue;
            }
            let null = nulls[nth / 8] >> (nth % 8) & 1 == 1;
            nth += 1;
            let value = match null {
                true => Value::Null,
                false => {
                    let decoded = binlog::decode(&column.format, bytes, &mut self.scratch);
                    decoded.map_err(|invalid| (Some(at), invalid))?
                }
            };
            if column.wanted {
                self.builder.push(Cell::Present(value));
            }
        }
        Ok(self.builder.finish())
    }

    /// An after image in which JSON columns may be steps from the before image.
    fn partial_image(
        &mut self,
        plan: &Plan,
        (old_present, old): (Present<'_>, &[u8]),
        present: Present<'_>,
        bytes: &mut &[u8],
    ) -> Result<Row, Refused> {
        const PARTIAL_JSON: u64 = 1;
        let whole = |invalid| (None, invalid);
        let options = lenenc(bytes).ok_or((None, CUT))?;
        if options & PARTIAL_JSON == 0 {
            return self.image(plan, present, bytes);
        }
        if !present.all || !old_present.all {
            return Err((None, STEPS));
        }
        let documents = self.documents(plan, old).map_err(whole)?;
        let json_columns = plan.columns.iter().filter(|column| matches!(column.format, Format::Json { .. })).count();
        let partial = take_slice(bytes, json_columns.div_ceil(8)).map_err(whole)?;
        let nulls = take_slice(bytes, present.count.div_ceil(8)).map_err(whole)?;
        let mut nth_json = 0;
        for (at, column) in plan.columns.iter().enumerate() {
            let is_json = matches!(column.format, Format::Json { .. });
            let in_steps = is_json && partial[nth_json / 8] >> (nth_json % 8) & 1 == 1;
            let document = if is_json { documents.get(nth_json).copied().flatten() } else { None };
            nth_json += usize::from(is_json);
            let here = |invalid| (Some(at), invalid);
            let value = if nulls[at / 8] >> (at % 8) & 1 == 1 {
                Value::Null
            } else if in_steps {
                let steps = json_diff::sequence(bytes).map_err(here)?;
                let document = document.ok_or((Some(at), Invalid("a partial update of what was NULL")))?;
                self.document.clear();
                json_diff::apply(document, steps, &mut self.document).map_err(here)?;
                Value::Json(&self.document)
            } else {
                binlog::decode(&column.format, bytes, &mut self.scratch).map_err(here)?
            };
            if column.wanted {
                self.builder.push(Cell::Present(value));
            }
        }
        Ok(self.builder.finish())
    }

    /// The stored documents of a full image, in the order of its JSON columns.
    fn documents<'a>(&mut self, plan: &Plan, image: &'a [u8]) -> Result<Vec<Option<&'a [u8]>>, Invalid> {
        let mut rest = image;
        let nulls = take_slice(&mut rest, plan.columns.len().div_ceil(8))?;
        let mut documents = Vec::new();
        for (at, column) in plan.columns.iter().enumerate() {
            let null = nulls[at / 8] >> (at % 8) & 1 == 1;
            match &column.format {
                Format::Json { .. } if null => documents.push(None),
                Format::Json { prefix } => documents.push(Some(binlog::prefixed(*prefix, &mut rest)?)),
                _ if null => {}
                format => {
                    binlog::decode(format, &mut rest, &mut self.scratch)?;
                }
            }
        }
        Ok(documents)
    }

    /// An update of two images, each full or not. A partial after image takes its key from the before image; a partial
    /// before image is of use only where the key changed.
    fn update(&mut self, plan: &Plan, before: (Row, bool), after: (Row, bool)) -> Result<Change, Invalid> {
        let ((before, full_before), (after, full_after)) = (before, after);
        let schema = plan.schema.clone();
        let after = if full_after { after } else { self.with_key(plan, &before, after).map_err(|_| UNKEYED)? };
        let keep = full_before || {
            let old = schema.key_of(&before).map_err(|_| UNKEYED)?;
            old != schema.key_of(&after).map_err(|_| UNKEYED)?
        };
        Ok(Change { schema, op: Op::Update, before: keep.then_some(before), after: Some(after) })
    }

    /// The after image with the key columns that it lacks taken from the before image.
    fn with_key(&mut self, plan: &Plan, before: &Row, after: Row) -> Result<Row, Damaged> {
        let keys = plan.columns.iter().filter(|column| column.wanted).map(|column| column.key);
        for ((old, new), key) in before.cells().zip(after.cells()).zip(keys) {
            self.builder.push(match new? {
                Cell::Unchanged if key => old?,
                new => new,
            });
        }
        Ok(self.builder.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::plan::PlanColumn;
    use std::sync::Arc;
    use sync_worker_core::error::{Classified, ErrorClass};
    use sync_worker_core::schema::{Column, Schema};
    use sync_worker_core::types::{ColumnType, Engine};

    #[test]
    fn rows_without_their_key_stop_the_pipeline_with_a_cure() {
        let int = || ColumnType::Int { bits: 32, unsigned: false };
        let named = |name: &str| Column {
            name: name.into(),
            kind: int(),
            type_name: "int".into(),
            nullable: false,
            generated: false,
        };
        let column = |name: &str, key| PlanColumn {
            name: name.into(),
            format: Format::Int { width: 4, unsigned: false },
            wanted: true,
            key,
            default: None,
        };
        let schema = Schema::new("customer".into(), Engine::Mysql, vec![named("id"), named("v")], vec![0]);
        let plan =
            Plan { schema: Arc::new(schema), columns: vec![column("id", true), column("v", false)], settled: false };
        // flags, two columns, only the second of them in the image, no NULL, 7
        let body = [0, 0, 2, 0b10, 0, 7, 0, 0, 0];
        let error = RowDecoder::default().changes(event::DELETE_ROWS_V1, &body, &plan, &mut Vec::new());
        let error = error.expect_err("a row without its key");
        assert_eq!(error.class(), ErrorClass::Fatal);
        let text = error.to_string();
        assert!(text.contains("table customer") && text.contains("SET GLOBAL binlog_row_image = FULL"), "{text}");
    }
}
