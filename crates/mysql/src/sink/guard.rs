//! The guard of two-way pipelines: a version is written only over a row that it may be written over.
//!
//! ```text
//! marker -> the batch's rows FOR UPDATE -> judge -> plain inserts, updates, deletes -> parked rows -> COMMIT
//! ```
//!
//! The rows are read and locked in the transaction that writes them, at read committed: a write that an application
//! commits before is seen, and one after it waits and stands behind ours in the log. A key without a row can't be
//! locked: where an application inserts it in between, our insert meets its key, and the whole attempt is made again. So an
//! insert over nothing needs no look at first.
//!
//! Where a table has triggers, its rows are read once more before the commit: one that is not as it was written is refused.

use crate::catalog::Table;
use crate::client::Client;
use crate::codec::{CUT, Format, Invalid, Scratch, protocol};
use crate::error::Error;
use crate::reader::selection;
use crate::sink::MysqlSink;
use crate::sink::attempt::{Attempt, Failed};
use crate::sink::target::{Rendered, TargetTable};
use crate::source::Collations;
use mysql_async::Row as DriverRow;
use mysql_async::prelude::Queryable;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use sync_worker_core::change::{Change, Op};
use sync_worker_core::error::ErrorClass;
use sync_worker_core::guard::{ALTERED, DIFFERS_STILL, Image, Seen, Verdict, judge, keep_some};
use sync_worker_core::logical::{Normalizer, Unfit};
use sync_worker_core::name::TableName;
use sync_worker_core::row::{Key, Row, RowBuilder};
use sync_worker_core::schema::{Column, Schema, SchemaId};
use sync_worker_core::sink::{Applied, Parking, Refused, Write, WriteBatch};
use sync_worker_core::types::Engine;
use sync_worker_core::value::{Cell, Damaged};

/// How often a batch is made again for rows that came up right after they were looked for.
pub const REPEATS: u32 = 5;

/// Keys of one statement, and about how long it may get.
const KEYS: usize = 1000;
const BYTES: usize = 1 << 20;

/// How the rows of a table are read to be compared.
#[derive(Debug)]
pub struct Look {
    /// `SELECT ... WHERE key IN (`
    head: Vec<u8>,
    /// In the order of the logical columns, as they are selected.
    formats: Vec<Format>,
    rows: Normalizer,
    /// From the same rows to their keys.
    keys: Normalizer,
}

impl Look {
    pub fn new(
        found: &Table,
        target: &TargetTable,
        logical: &Arc<Schema>,
        collations: &Collations,
    ) -> Result<Self, Error> {
        let mut columns: Vec<Column> = Vec::with_capacity(logical.columns.len());
        let (mut selected, mut formats) = (Vec::with_capacity(columns.capacity()), Vec::new());
        for column in &logical.columns {
            let there = found.column(&column.name).ok_or(Damaged("a column that is not there"))?;
            let (text, format) = selection(&logical.table, there, collations)?;
            selected.push(text);
            formats.push(format);
            columns.push(there.column.clone());
        }
        let mut head =
            format!("SELECT {} FROM {} FORCE INDEX ({}) WHERE ", selected.join(","), target.quoted, target.key_index)
                .into_bytes();
        target.write_key_columns(&mut head);
        head.extend_from_slice(b" IN (");
        let here = Schema::new(logical.table.clone(), Engine::Mysql, columns, logical.key.clone());
        let key = logical.key.iter().map(|&at| logical.columns[at].clone()).collect();
        let key = Schema::new(logical.table.clone(), logical.engine, key, (0..logical.key.len()).collect());
        let normalizer = |to: Arc<Schema>| {
            Normalizer::new(&here, to).map_err(|(column, refusal)| {
                Error::Fatal(format!("table {} column {column} has no logical form: {refusal}", target.name))
            })
        };
        Ok(Self { head, formats, rows: normalizer(logical.clone())?, keys: normalizer(Arc::new(key))? })
    }
}

/// Reused from row to row.
#[derive(Default)]
struct Decoder {
    builder: RowBuilder,
    scratch: Scratch,
    text: String,
}

impl Decoder {
    /// The row as the table has it.
    fn row(&mut self, look: &Look, row: &DriverRow) -> Result<Row, Error> {
        for (at, format) in look.formats.iter().enumerate() {
            let value = match row.as_ref(at) {
                Some(value) => protocol::of_driver(format, value, &mut self.scratch),
                None => Err(CUT),
            };
            match value {
                Ok(value) => self.builder.push(Cell::Present(value)),
                Err(Invalid(problem)) => {
                    self.builder.abandon();
                    let schema = look.rows.schema();
                    let column = schema.columns.get(at).map_or(String::new(), |column| column.name.clone());
                    return Err(Error::Value { table: schema.table.to_string(), column, problem: problem.to_owned() });
                }
            }
        }
        Ok(self.builder.finish())
    }

    /// The row as all members see it; None where it has no such form.
    fn normal(&mut self, normalizer: &Normalizer, row: &Row) -> Result<Option<Row>, Error> {
        match normalizer.row(row, &mut self.builder, &mut self.text) {
            Ok(row) => Ok(Some(row)),
            Err(Unfit::Refused(..)) => Ok(None),
            Err(Unfit::Damaged(damaged)) => Err(damaged.into()),
        }
    }
}

/// A batch whose rows have been looked at.
pub struct Judged {
    /// What is left to write, as plain changes.
    pub batch: WriteBatch,
    /// The place of each of its writes in the whole batch.
    pub places: Vec<usize>,
    /// Parked keys whose row is as wanted already.
    pub as_wanted: Vec<(TableName, Key)>,
    /// All writes whose row is.
    pub equal: Vec<usize>,
    pub differing: Vec<(usize, Seen)>,
    pub refused: Vec<Refused>,
}

/// `trusting`: a row that may come only where none is is not looked for. Its insert says whether one is. Of `altered` is known
/// that triggers make other rows of them.
pub async fn run(
    sink: &mut MysqlSink,
    batch: &WriteBatch,
    trusting: bool,
    altered: &HashSet<usize>,
    parking: &dyn Parking,
) -> Result<Applied, Failed> {
    Attempt::new(sink, batch).begin().await?;
    let is_looked_for = |place: usize, target: &TargetTable| {
        let write = &batch.writes[place];
        let over_nothing = write.change.after.is_some() && write.over.as_deref() == Some(&[Image::Absent]);
        // Where keys fold, a row in the way may be one of another key.
        !(trusting && over_nothing && target.folding.is_none())
    };
    let found = look(sink, batch, is_looked_for).await?;
    let judged = judge_all(batch, &found, altered)?;
    Attempt::guarded(sink, batch, &judged).run(parking).await
}

/// The writes among these that have been made and whose row is another one now.
pub async fn altered(sink: &mut MysqlSink, batch: &WriteBatch, written: &HashSet<usize>) -> Result<Vec<usize>, Error> {
    let meets_triggers = |place: usize, target: &TargetTable| target.has_triggers && written.contains(&place);
    let looked_for: Vec<usize> = batch
        .writes
        .iter()
        .enumerate()
        .filter(|(place, write)| {
            sink.targets.get(&write.change.schema.id).is_some_and(|target| meets_triggers(*place, target))
        })
        .map(|(place, _)| place)
        .collect();
    if looked_for.is_empty() {
        return Ok(looked_for);
    }
    let found = look(sink, batch, meets_triggers).await?;
    let is_other = |place: &usize| found[*place].image != Image::of(batch.writes[*place].change.after.as_ref());
    Ok(looked_for.into_iter().filter(is_other).collect())
}

/// Locks the rows of some writes and returns what each finds, with the row where it may not be written over.
async fn look(
    sink: &mut MysqlSink,
    batch: &WriteBatch,
    is_looked_for: impl Fn(usize, &TargetTable) -> bool,
) -> Result<Vec<Seen>, Error> {
    let MysqlSink { client, targets, largest, .. } = sink;
    let longest = BYTES.min(*largest / 2);
    let mut found = vec![Seen::NOTHING; batch.writes.len()];
    let mut tables: Vec<(SchemaId, Vec<usize>)> = Vec::new();
    for (place, write) in batch.writes.iter().enumerate() {
        let id = write.change.schema.id;
        if targets.get(&id).is_some_and(|target| !is_looked_for(place, target)) {
            continue;
        }
        match tables.iter_mut().find(|(known, _)| *known == id) {
            Some((_, writes)) => writes.push(place),
            None => tables.push((id, vec![place])),
        }
    }
    let mut decoder = Decoder::default();
    for (id, writes) in tables {
        let target = targets.get(&id).ok_or(Damaged("a table was not looked at"))?;
        let look = target.look.as_ref().ok_or(Damaged("a table was not looked at"))?;
        let mut places: HashMap<Image, usize> = HashMap::with_capacity(writes.len());
        let (mut sql, mut keys, mut row) = (Vec::<u8>::new(), 0, Vec::new());
        for (nth, &place) in writes.iter().enumerate() {
            let key = batch.writes[place].change.key()?.ok_or(Damaged("a guarded write without a key"))?;
            row.clear();
            match target.render_key(&mut row, &key)? {
                Rendered::Done => {
                    let several = target.key.len() > 1;
                    let separator: &[u8] = if keys == 0 { &look.head } else { b"," };
                    let (open, close): (&[u8], &[u8]) = if several { (b"(", b")") } else { (b"", b"") };
                    for part in [separator, open, &row, close] {
                        sql.extend_from_slice(part);
                    }
                    keys += 1;
                    places.insert(image_of(&key), place);
                }
                // The target can't hold such a key, so there is no such row.
                Rendered::Partial | Rendered::Refused(_) => {}
            }
            let last = nth + 1 == writes.len();
            if keys == 0 || !last && keys < KEYS && sql.len() < longest {
                continue;
            }
            sql.extend_from_slice(b") FOR UPDATE");
            for row in rows(client, &sql).await? {
                let row = decoder.row(look, &row)?;
                // Where the key's collation folds, rows of other keys come too.
                let Some(key) = decoder.normal(&look.keys, &row)? else { continue };
                if let Some(&place) = places.get(&Image::of(Some(&key))) {
                    let normal = decoder.normal(&look.rows, &row)?;
                    // A row that no version can be is an image of its own.
                    let image = Image::of(Some(normal.as_ref().unwrap_or(&row)));
                    found[place] = Seen::by(&batch.writes[place], image, normal.as_ref());
                }
            }
            sql.clear();
            keys = 0;
        }
    }
    Ok(found)
}

/// Keys by their values, as images are: an engine may spell the same number in another way.
fn image_of(key: &Key) -> Image {
    Image::of(Some(&Row::from_bytes(key.as_bytes().clone())))
}

/// Values must not come as text, which does not have all of a FLOAT.
async fn rows(client: &mut Client, sql: &[u8]) -> Result<Vec<DriverRow>, Error> {
    let Client { conn, liveness, .. } = client;
    let work = async {
        let statement = conn.prep(sql).await?;
        let rows: Vec<DriverRow> = conn.exec(&statement, ()).await?;
        conn.close(statement).await?;
        Ok::<_, mysql_async::Error>(rows)
    };
    liveness.watch("a look at a batch's rows", work).await
}

fn judge_all(whole: &WriteBatch, found: &[Seen], altered: &HashSet<usize>) -> Result<Judged, Damaged> {
    let batch = WriteBatch {
        expected: whole.expected.clone(),
        marker: whole.marker.clone(),
        writes: Vec::with_capacity(whole.writes.len()),
        unpark: whole.unpark.clone(),
        retry: whole.retry,
    };
    let (places, as_wanted, differing, refused) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut judged = Judged { batch, places, as_wanted, equal: Vec::new(), differing, refused };
    for (place, (write, found)) in whole.writes.iter().zip(found).enumerate() {
        let over = write.over.as_ref().ok_or(Damaged("a write without its images among guarded ones"))?;
        let change = &write.change;
        match judge(found.image, change.after.as_ref(), over) {
            Verdict::AsWanted => {
                judged.equal.push(place);
                if write.parked {
                    let key = change.key()?.ok_or(Damaged("a guarded write without a key"))?;
                    judged.as_wanted.push((change.table().clone(), key));
                }
            }
            Verdict::Write if altered.contains(&place) => {
                let (class, reason) = (ErrorClass::Poison, ALTERED.to_owned());
                judged.refused.push(Refused { write: place, class, reason });
            }
            Verdict::Write => {
                let change = plain(change, found.image);
                judged.batch.writes.push(Write { change, over: None, ..write.clone() });
                judged.places.push(place);
            }
            Verdict::Differs if whole.retry => {
                let reason = DIFFERS_STILL.to_owned();
                judged.refused.push(Refused { write: place, class: ErrorClass::Dependency, reason });
            }
            Verdict::Differs => judged.differing.push((place, found.clone())),
        }
    }
    keep_some(judged.differing.iter_mut().map(|(_, seen)| seen));
    Ok(judged)
}

/// The change as it is for the row that is there.
fn plain(change: &Change, found: Image) -> Change {
    let op = match (&change.after, found) {
        (None, _) => Op::Delete,
        (Some(_), Image::Absent) => Op::Create,
        (Some(_), Image::Row(_)) => Op::Update,
    };
    // A before image could say that the key changes.
    let before = if op == Op::Delete { change.before.clone() } else { None };
    Change { op, before, ..change.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sync_worker_core::record::Offset;
    use sync_worker_core::sink::Marker;
    use sync_worker_core::types::ColumnType;
    use sync_worker_core::value::Value;

    #[test]
    fn each_version_is_written_as_what_the_row_there_asks_for() {
        let int = ColumnType::Int { bits: 64, unsigned: false };
        let column = |name: &str| Column {
            name: name.to_owned(),
            kind: int.clone(),
            type_name: "bigint".into(),
            nullable: true,
            generated: false,
        };
        let schema = Arc::new(Schema::new("t".into(), Engine::Mysql, vec![column("k"), column("v")], vec![0]));
        let mut builder = RowBuilder::default();
        let mut row = |key, value: Option<i64>| {
            builder.push(Cell::Present(Value::Int(key)));
            builder.push(value.map_or(Cell::Unchanged, |value| Cell::Present(Value::Int(value))));
            builder.finish()
        };
        let marker = Marker { offset: None, log: String::new(), digest: 0, epoch: 0, writes: 0 };
        let (mut writes, mut found) = (Vec::new(), Vec::new());
        // What is wanted (None: no row), what is there, and whether it was expected.
        for (key, (wanted, there, expected)) in (0..).zip([
            (Some(2), None, true),
            (Some(2), Some(1), true),
            (None, Some(1), true),
            (Some(2), Some(2), false),
            (Some(2), Some(9), false),
        ]) {
            let there = Seen::of(there.map(|value| row(key, Some(value))));
            let (op, before, after) = match wanted {
                Some(value) => (Op::Update, Some(row(key, Some(1))), Some(row(key, Some(value)))),
                None => (Op::Delete, Some(row(key, None)), None),
            };
            let change = Change { schema: schema.clone(), op, before, after };
            let over = Some(if expected { vec![there.image] } else { Vec::new() });
            writes.push(Write { change, offset: Offset(0), parked: true, over });
            found.push(there);
        }
        for retry in [false, true] {
            let batch = WriteBatch {
                expected: marker.clone(),
                marker: marker.clone(),
                writes: writes.clone(),
                unpark: Vec::new(),
                retry,
            };
            let judged = judge_all(&batch, &found, &HashSet::new()).unwrap();
            let ops: String = judged.batch.writes.iter().map(|write| write.change.op.code()).collect();
            assert_eq!((ops.as_str(), judged.places, judged.as_wanted.len()), ("cud", vec![0, 1, 2], 1));
            assert_eq!(judged.differing, if retry { Vec::new() } else { vec![(4, found[4].clone())] });
            assert_eq!(judged.refused.len(), usize::from(retry));
        }
    }
}
