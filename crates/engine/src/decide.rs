//! A person's decision about a conflict: made of the ledger's entry, put on the bus as a version of nobody's.

use crate::capture::PARTITION;
use crate::clock::now_micros;
use crate::pipeline::{Pipeline, Refusal};
use serde_json::{Map, Value as Json};
use std::time::Duration;
use sync_worker_core::change::{Change, Op};
use sync_worker_core::error::Error;
use sync_worker_core::guard::Image;
use sync_worker_core::ledger::{BY_PERSON, Conflict, FLIP_FLOP, Recorded, Settled, UNFIT};
use sync_worker_core::logical::{Normalizer, Unfit, key_only};
use sync_worker_core::name::{DatabaseName, TableName};
use sync_worker_core::record::{Body, Decision, Offset, Record};
use sync_worker_core::row::{Row, RowBuilder};
use sync_worker_core::schema::{Column, Schema};
use sync_worker_core::types::ColumnType;
use sync_worker_core::value::{Cell, Damaged, Value};

/// How long an applier may take to come to the decision; it has a backlog of its own.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a member may take to show a row.
const LOOK: Duration = Duration::from_secs(5);

/// What a person chooses.
#[derive(Clone, Debug)]
pub enum Choice {
    Winner,
    Loser,
    /// The row that stands with these columns.
    Row(Map<String, Json>),
    /// Whatever stands there: nothing is written.
    Keep,
}

/// Which row a choice is made over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// The one that the entry has left.
    Entry,
    /// The one that stands there now.
    Now,
}

/// What an applier did about a decision: the record's offset, and whether the state that the person saw still stood.
pub type Decided = (Offset, bool);

impl Pipeline {
    /// Takes the choice to every member, and closes the key's open entries; those of a merged row that are about the same
    /// columns. Refused where the row that it is made over has changed.
    pub async fn decide(&self, id: i64, choice: Choice, over: Over) -> Result<(), Refusal> {
        let failed = |text: String| Refusal::Failed(text);
        let found = self.conflict(id).await?.ok_or_else(|| failed(format!("there is no conflict {id}")))?;
        let Recorded { conflict, .. } = found;
        if conflict.kind == UNFIT {
            return self.close_unfit(&conflict, &choice).await;
        }
        let together = self.decided_with(&conflict);
        if let Choice::Keep = choice {
            if conflict.kind == FLIP_FLOP {
                let text = "the key stands still until a version is written: choose one, or let its table go on with `sync-worker resume`";
                return Err(failed(text.to_owned()));
            }
            let stands = conflict.stands.clone();
            return self.close(&conflict.table, &settled(&conflict, &choice, together, stands.as_ref())).await;
        }
        let now = match over {
            Over::Entry => None,
            Over::Now => Some(self.row_now(&conflict).await?),
        };
        let held = now.as_ref().map_or_else(|| stands(&conflict), |now| now.row.as_ref());
        let row = row_of(&conflict, &choice, &together, held, over).map_err(failed)?;
        if let Some(row) = &row {
            let same = conflict.schema.key_of(row).is_ok_and(|key| key == conflict.key);
            if !same {
                return Err(failed("the row that was given has another key than the conflict".to_owned()));
            }
        }
        let settled = settled(&conflict, &choice, together, row.as_ref());
        let schema = conflict.schema.clone();
        let change = match row {
            Some(row) => Change { schema, op: Op::Create, before: None, after: Some(row) },
            None => {
                let key = key_only(&schema, &conflict.key).map_err(|damaged| failed(damaged.to_string()))?;
                Change { schema, op: Op::Delete, before: Some(key), after: None }
            }
        };
        let seen = Image::of(held);
        let mut decided = self.decided.subscribe();
        let record = Record::of_nobody(now_micros(), Body::Decision(Decision { change, seen }));
        let receipt = self.bus.publish(PARTITION, vec![record]).await.map_err(|error| failed(error.to_string()))?;
        let at = receipt.await.map_err(|error| failed(error.to_string()))?;
        let outcome = async {
            loop {
                match decided.recv().await {
                    Ok((offset, taken)) if offset == at => return Some(taken),
                    Ok(_) | Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                    Err(tokio::sync::broadcast::error::RecvError::Closed) => return None,
                }
            }
        };
        match tokio::time::timeout(PATIENCE, outcome).await {
            Ok(Some(true)) => self.close(&conflict.table, &settled).await,
            Ok(Some(false)) => Err(failed(format!(
                "the row has changed since: `sync-worker conflicts show {id}` has it as it is now; decide over that with --now, \
                 on a newer entry of the key if there is one, or close this one with --keep"
            ))),
            Ok(None) | Err(_) => Err(failed(format!(
                "no applier has come to the decision within {} s; it is on the log and takes effect if the row is still as it was",
                PATIENCE.as_secs()
            ))),
        }
    }

    /// The columns that an entry is about; none for one about the whole row.
    fn decided_with(&self, conflict: &Conflict) -> Vec<String> {
        let Some(column) = &conflict.column else { return Vec::new() };
        let table = self.plan.tables.iter().find(|table| table.name == conflict.table);
        let merge = table.and_then(|table| table.resolution.merge.as_ref());
        merge.map_or_else(|| vec![column.clone()], |merge| merge.decided_with(column))
    }

    /// Nothing can be written about such an entry: it is closed where the row may stay as it is.
    async fn close_unfit(&self, conflict: &Conflict, choice: &Choice) -> Result<(), Refusal> {
        let at = conflict.at.as_ref().map_or("its member", DatabaseName::as_str);
        match choice {
            Choice::Winner | Choice::Keep => {
                let key = conflict.key.clone();
                let settled = match conflict.at.clone().filter(|_| conflict.is_refusal()) {
                    Some(at) => Settled::Refused { keys: vec![key], at },
                    None => Settled::Unfit(key),
                };
                self.close(&conflict.table, &settled).await
            }
            Choice::Loser | Choice::Row(_) if conflict.is_refusal() => Err(Refusal::Failed(format!(
                "{at} refuses the row: write one that it takes at any member, mend {at} and try its dead letter again \
                 (sync-worker dead-letters), or close the entry with --winner"
            ))),
            Choice::Loser | Choice::Row(_) => Err(Refusal::Failed(format!(
                "the row has no place at the other members: write one that fits at {at}, or close the entry with --winner"
            ))),
        }
    }

    /// The row of an entry's key as it stands now, at the first member whose table has the logical columns as they are.
    pub async fn row_now(&self, conflict: &Conflict) -> Result<Now, Refusal> {
        let failed = |text: String| Refusal::Failed(text);
        for (name, (database, scope)) in &self.members {
            let look = async {
                let mut reader = database.reader(scope).await?;
                let schema = reader.schema(&conflict.table).await?;
                if !holds_as_it_is(&schema, &conflict.schema) {
                    return Ok::<_, Error>(None);
                }
                let chunk = reader.read_keys(&conflict.table, std::slice::from_ref(&conflict.key)).await?;
                Ok(Some((chunk.schema, chunk.rows.into_iter().next())))
            };
            let looked =
                tokio::time::timeout(LOOK, look).await.map_err(|_| failed(format!("{name} gives no answer")))?;
            let Some((schema, row)) = looked.map_err(|error| failed(format!("{name}: {error}")))? else { continue };
            let strange = |why: String| failed(format!("{name} holds a row that is none of the pipeline's: {why}"));
            let normalizer = Normalizer::new(&schema, conflict.schema.clone());
            let normalizer = normalizer.map_err(|(column, refusal)| strange(format!("column {column}: {refusal}")))?;
            let (mut builder, mut text) = (RowBuilder::default(), String::new());
            let row = row.map(|row| normalizer.row(&row, &mut builder, &mut text)).transpose();
            let row = row.map_err(|unfit| match unfit {
                Unfit::Refused(column, refusal) => strange(format!("column {column}: {refusal}")),
                Unfit::Damaged(damaged) => strange(damaged.to_string()),
            })?;
            return Ok(Now { at: name.clone(), row });
        }
        Err(failed(format!("no member's table {} has the columns that the entry has", conflict.table)))
    }

    /// A person has settled these entries.
    pub(crate) async fn close(&self, table: &TableName, settled: &Settled) -> Result<(), Refusal> {
        let closed = self.ledger.close(&self.plan.name, table, settled, BY_PERSON, now_micros()).await;
        closed.map(drop).map_err(|error| Refusal::Failed(error.to_string()))
    }
}

/// The row under a key at a member.
#[derive(Debug)]
pub struct Now {
    pub at: DatabaseName,
    pub row: Option<Row>,
}

/// Whether the rows of a table are those of the logical one: the same key, and all its columns in the same types.
fn holds_as_it_is(table: &Schema, logical: &Schema) -> bool {
    let names = |schema: &Schema| schema.key.iter().map(|at| schema.columns[*at].name.clone()).collect::<Vec<_>>();
    let holds = |column: &Column| table.column(&column.name).is_some_and(|at| table.columns[at].kind == column.kind);
    names(table) == names(logical) && logical.columns.iter().all(holds)
}

/// The row that the entry has left.
fn stands(conflict: &Conflict) -> Option<&Row> {
    conflict.stands.as_ref().or(conflict.winner.row.as_ref())
}

/// None for a delete. Of an entry about columns the rest of the row stays as it is `held`: it may be neither side's.
fn row_of(
    conflict: &Conflict,
    choice: &Choice,
    together: &[String],
    held: Option<&Row>,
    over: Over,
) -> Result<Option<Row>, String> {
    let side = match choice {
        Choice::Row(columns) => return edited(conflict, held, columns).map(Some),
        Choice::Keep => return Ok(held.cloned()),
        Choice::Winner if over == Over::Entry => return Ok(held.cloned()),
        Choice::Winner => &conflict.winner,
        Choice::Loser => conflict
            .loser
            .as_ref()
            .ok_or("nothing is known of a row that lost: there is none that could stand there")?,
    };
    match (&conflict.stands, held, &side.row) {
        (Some(_), Some(held), Some(row)) => {
            replaced(conflict, held, row, together).map(Some).map_err(|damaged| damaged.to_string())
        }
        (Some(_), None, _) => Err("the row has gone: write one with --row, or close the entry with --keep".to_owned()),
        (None, ..) | (.., None) => Ok(side.row.clone()),
    }
}

/// A row with some columns of another one.
fn replaced(conflict: &Conflict, held: &Row, other: &Row, columns: &[String]) -> Result<Row, Damaged> {
    let mut builder = RowBuilder::default();
    for ((column, held), other) in conflict.schema.columns.iter().zip(held.cells()).zip(other.cells()) {
        builder.push(if columns.contains(&column.name) { other? } else { held? });
    }
    Ok(builder.finish())
}

/// What a choice settles: all of a key, or what is open about the columns that it is about.
fn settled(conflict: &Conflict, choice: &Choice, mut columns: Vec<String>, row: Option<&Row>) -> Settled {
    let key = conflict.key.clone();
    match (&conflict.stands, row) {
        (Some(before), Some(row)) => {
            if let Choice::Row(edited) = choice {
                columns.extend(edited.keys().cloned());
            }
            Settled::Columns { key, columns, before: before.clone(), stands: row.clone() }
        }
        (None, _) | (_, None) => Settled::Key(key),
    }
}

/// `held` with other columns; where there is none, the row that lost.
fn edited(conflict: &Conflict, held: Option<&Row>, columns: &Map<String, Json>) -> Result<Row, String> {
    if let Some(name) = columns.keys().find(|name| conflict.schema.column(name).is_none()) {
        return Err(format!("table {} has no column {name}", conflict.table));
    }
    let held = held.or(conflict.loser.as_ref().and_then(|loser| loser.row.as_ref()));
    let held = held.map(|row| row.cells().collect::<Result<Vec<_>, _>>()).transpose();
    let held = held.map_err(|damaged| damaged.to_string())?.unwrap_or_default();
    let mut builder = RowBuilder::default();
    for (at, column) in conflict.schema.columns.iter().enumerate() {
        match columns.get(&column.name) {
            Some(value) => push(&mut builder, value, &column.kind).ok_or_else(|| {
                format!("column {} of type {} does not take that value", column.name, column.type_name)
            })?,
            None => {
                let cell =
                    held.get(at).ok_or_else(|| format!("the row that was given lacks column {}", column.name))?;
                builder.push(*cell);
            }
        }
    }
    Ok(builder.finish())
}

/// None for what is no value of the type, or of a type that has no plain form in JSON.
fn push(builder: &mut RowBuilder, value: &Json, kind: &ColumnType) -> Option<()> {
    let text;
    let value = match (kind, value) {
        (_, Json::Null) => Value::Null,
        (ColumnType::Bool, Json::Bool(value)) => Value::Bool(*value),
        (ColumnType::Int { .. } | ColumnType::Year, Json::Number(number)) => {
            number.as_i64().map(Value::Int).or_else(|| number.as_u64().map(Value::unsigned))?
        }
        #[allow(clippy::cast_possible_truncation)] // it comes back the same, or is refused
        (ColumnType::Float32, Json::Number(number)) => {
            let wide = number.as_f64()?;
            Value::Float32(Some(wide as f32).filter(|narrow| f64::from(*narrow) == wide)?)
        }
        (ColumnType::Float64, Json::Number(number)) => Value::Float64(number.as_f64()?),
        (ColumnType::Decimal { .. }, Json::Number(number)) => {
            text = number.to_string();
            Value::Decimal(Some(text.as_str()).filter(|text| is_decimal(text))?)
        }
        (ColumnType::Decimal { .. }, Json::String(text)) => {
            Value::Decimal(Some(text.as_str()).filter(|text| is_decimal(text))?)
        }
        (ColumnType::Text { .. } | ColumnType::Enum | ColumnType::Set, Json::String(text)) => Value::Text(text),
        (ColumnType::Json { .. }, value) => {
            text = value.to_string();
            Value::Json(&text)
        }
        _ => return None,
    };
    builder.push(Cell::Present(value));
    Some(())
}

fn is_decimal(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    !whole.is_empty() && whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit())
}
