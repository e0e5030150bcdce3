//! A person's decision about a conflict: made of the ledger's entry, put on the bus as a version of nobody's.

use crate::capture::PARTITION;
use crate::clock::now_micros;
use crate::pipeline::{Pipeline, Refusal};
use serde_json::{Map, Value as Json};
use std::time::Duration;
use sync_worker_core::change::{Change, Op};
use sync_worker_core::convert::Refusal as Refused;
use sync_worker_core::database::{Database, Scope};
use sync_worker_core::guard::Image;
use sync_worker_core::ledger::{BY_PERSON, Conflict, FLIP_FLOP, Settled, UNFIT};
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
}

/// Which row a choice is made over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// The one that the entry has left.
    Entry,
    /// The one that stands there now, as the person has seen it.
    Now(Image),
}

/// What an applier did about a decision: the record's offset, and whether the state that the person saw still stood.
pub type Decided = (Offset, bool);

impl Pipeline {
    /// Takes the choice to every member, and closes the key's open entries; those of a merged row that are about the same
    /// columns. Refused where the row that it is made over has changed.
    pub async fn decide(&self, id: i64, choice: Choice, over: Over) -> Result<(), Refusal> {
        let failed = |text: String| Refusal::Failed(text);
        let conflict = self.known(id).await?;
        if conflict.kind == UNFIT {
            return self.close_unfit(&conflict, &choice, over).await;
        }
        let together = self.decided_with(&conflict);
        let held = match over {
            Over::Entry => stands(&conflict).cloned(),
            Over::Now(seen) => {
                let now = self.row_now(&conflict).await?;
                if now.image() != seen {
                    return Err(failed(outdated(id, &conflict)));
                }
                now.row
            }
        };
        let row = row_of(&conflict, &choice, &together, held.as_ref(), over).map_err(failed)?;
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
        let seen = Image::of(held.as_ref());
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
            Ok(Some(false)) => Err(failed(outdated(id, &conflict))),
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

    /// Closes the one entry and writes nothing: whatever stands there stays.
    pub async fn keep(&self, id: i64) -> Result<(), Refusal> {
        let conflict = self.known(id).await?;
        if conflict.kind == FLIP_FLOP {
            let text = "the key stands still until a version is written: choose --winner, --loser or --row, or let its \
                        table go on (sync-worker resume)";
            return Err(Refusal::Failed(text.to_owned()));
        }
        self.close(&conflict.table, &Settled::Entry(id)).await
    }

    async fn known(&self, id: i64) -> Result<Conflict, Refusal> {
        let found = self.conflict(id).await?.map(|recorded| recorded.conflict);
        found.ok_or_else(|| Refusal::Failed(format!("there is no conflict {id}")))
    }

    /// Nothing can be written about such an entry: it is closed where the row may stay as it is.
    async fn close_unfit(&self, conflict: &Conflict, choice: &Choice, over: Over) -> Result<(), Refusal> {
        if over != Over::Entry {
            let text = "nothing can be written about this entry: close it with --winner, without --now";
            return Err(Refusal::Failed(text.to_owned()));
        }
        let at = conflict.at.as_ref().map_or("its member", DatabaseName::as_str);
        match choice {
            Choice::Winner => {
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

    /// The row of an entry's key as it stands now, at the first member that can be asked and whose table has the logical
    /// columns as they are.
    pub async fn row_now(&self, conflict: &Conflict) -> Result<Now, Refusal> {
        let mut problem = format!("no member's table {} has the columns that the entry has", conflict.table);
        for (name, (database, scope)) in &self.members {
            let looked = tokio::time::timeout(LOOK, look(database.as_ref(), scope, conflict)).await;
            match looked.unwrap_or_else(|_| Err("it gives no answer".to_owned())) {
                Ok(Some(row)) => return Ok(Now { at: name.clone(), row }),
                Ok(None) => {}
                Err(error) => problem = format!("{name} can't be asked: {error}"),
            }
        }
        Err(Refusal::Failed(problem))
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

impl Now {
    pub fn image(&self) -> Image {
        Image::of(self.row.as_ref())
    }
}

/// The row of an entry's key at a member, in the logical columns; None where the member's table has others.
async fn look(database: &dyn Database, scope: &Scope, conflict: &Conflict) -> Result<Option<Option<Row>>, String> {
    let mut reader = database.reader(scope).await.map_err(|error| error.to_string())?;
    let schema = reader.schema(&conflict.table).await.map_err(|error| error.to_string())?;
    if !holds_as_it_is(&schema, &conflict.schema) {
        return Ok(None);
    }
    let key = std::slice::from_ref(&conflict.key);
    let chunk = reader.read_keys(&conflict.table, key).await.map_err(|error| error.to_string())?;
    let Some(row) = chunk.rows.first() else { return Ok(Some(None)) };
    let strange = |column: String, refusal: Refused| format!("column {column}: {refusal}");
    let normalizer = Normalizer::new(&chunk.schema, conflict.schema.clone());
    let normalizer = normalizer.map_err(|(column, refusal)| strange(column, refusal))?;
    match normalizer.row(row, &mut RowBuilder::default(), &mut String::new()) {
        Ok(row) => Ok(Some(Some(row))),
        Err(Unfit::Refused(column, refusal)) => Err(strange(column, refusal)),
        Err(Unfit::Damaged(damaged)) => Err(damaged.to_string()),
    }
}

/// Why a decision is refused.
fn outdated(id: i64, conflict: &Conflict) -> String {
    let instead = match conflict.kind == FLIP_FLOP {
        true => "decide on the newest entry of the key",
        false => {
            "decide over that with --now, on a newer entry of the key if there is one, or close this one with --keep"
        }
    };
    format!("the row has changed since: `sync-worker conflicts show {id}` has it as it is now; {instead}")
}

/// Whether the rows of a table are those of the logical one: the same key, and all its columns in the same types.
fn holds_as_it_is(table: &Schema, logical: &Schema) -> bool {
    let names = |schema: &Schema| schema.key.iter().map(|at| schema.columns[*at].name.clone()).collect::<Vec<_>>();
    let holds = |column: &Column| table.column(&column.name).is_some_and(|at| table.columns[at].kind == column.kind);
    names(table) == names(logical) && logical.columns.iter().all(holds)
}

/// The row that the entry has left.
pub fn stands(conflict: &Conflict) -> Option<&Row> {
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
        Choice::Row(columns) => {
            // Over nothing that stands there now, all columns are to be given.
            let lost = conflict.loser.as_ref().and_then(|loser| loser.row.as_ref()).filter(|_| over == Over::Entry);
            return edited(conflict, held.or(lost), columns).map(Some);
        }
        Choice::Winner if over == Over::Entry => return Ok(held.cloned()),
        Choice::Winner => &conflict.winner,
        Choice::Loser => conflict.loser.as_ref().ok_or("this entry has no row that lost")?,
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

/// `held` with other columns.
fn edited(conflict: &Conflict, held: Option<&Row>, columns: &Map<String, Json>) -> Result<Row, String> {
    if let Some(name) = columns.keys().find(|name| conflict.schema.column(name).is_none()) {
        return Err(format!("table {} has no column {name}", conflict.table));
    }
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
