//! Versions that a target has not taken, made whole from the changes that led to them.

use std::collections::HashMap;
use sync_worker_core::change::{Change, Op};
use sync_worker_core::name::TableName;
use sync_worker_core::row::{Key, Row};
use sync_worker_core::sink::Write;
use sync_worker_core::value::Damaged;

/// Which writes of a batch are about a key, in bus order.
#[derive(Default)]
pub struct History {
    of_key: HashMap<(TableName, Key), Vec<usize>>,
    truncates: Vec<usize>,
}

impl History {
    pub fn of(writes: &[Write]) -> Result<Self, Damaged> {
        let mut history = Self::default();
        for (index, write) in writes.iter().enumerate() {
            let Some(key) = write.change.key()? else {
                history.truncates.push(index);
                continue;
            };
            for key in [Some(key), write.change.old_key()?].into_iter().flatten() {
                history.of_key.entry((write.change.table().clone(), key)).or_default().push(index);
            }
        }
        Ok(history)
    }

    /// The version that a refused write stands for: earlier writes of its row in the batch were refused with it, or are
    /// the same in what it leaves unchanged.
    pub fn version(&self, writes: &[Write], refused: usize) -> Result<Change, Damaged> {
        let mut change = writes[refused].change.clone();
        let table = change.table().clone();
        let mut below = refused;
        let mut old_key = change.old_key()?;
        // The write by which the row left its old key.
        let mut left = refused;
        let mut key = old_key.clone().or(change.key()?);
        while let Some(name) = key.take().map(|key| (table.clone(), key)) {
            let indexes = self.of_key.get(&name).map(Vec::as_slice).unwrap_or_default();
            let Some(&earlier) = indexes.iter().rev().find(|index| **index < below) else { break };
            let cut = |at: &usize| (earlier..below).contains(at) && *writes[*at].change.table() == table;
            let write = &writes[earlier].change;
            // The row before a delete, a truncate or a departure under another key was another row.
            if write.op == Op::Delete || write.key()?.as_ref() != Some(&name.1) || self.truncates.iter().any(cut) {
                break;
            }
            change = merged(write, &change)?;
            old_key = change.old_key()?;
            let moved_here = write.old_key()?;
            if moved_here.is_some() {
                left = earlier;
            }
            key = moved_here.or(Some(name.1));
            below = earlier;
        }
        // Another row has come under the old key since.
        if let Some(old) = old_key {
            let name = (table, old);
            let later = self.of_key.get(&name).into_iter().flatten().rev().take_while(|index| **index > left);
            for index in later {
                if writes[*index].change.key()?.as_ref() == Some(&name.1) {
                    stay(&mut change);
                    break;
                }
            }
        }
        Ok(change)
    }
}

/// The newer change as it must be written where the older one never arrived.
pub fn merged(older: &Change, newer: &Change) -> Result<Change, Damaged> {
    let (Some(old), Some(new)) = (&older.after, &newer.after) else { return Ok(newer.clone()) };
    // The table's columns may have changed in between, and what the older change said of the others still counts.
    let schema = newer.schema.clone();
    let of_older = |row: &Row| schema.row_of(row, &older.schema);
    let after = Some(new.over(&of_older(old)?)?);
    let before_older = older.before.as_ref().map(of_older).transpose()?;
    // A row whose key has other columns now can't be found by its old one.
    let before_older = before_older.filter(|before| schema.key_of(before).is_ok());
    // The target still has the row where the first of several changes of its key found it.
    let moved = if older.old_key()?.is_some() { before_older.clone() } else { None };
    let moved = if moved.is_none() && newer.old_key()?.is_some() { newer.before.clone() } else { moved };
    if let Some(before) = moved {
        return Ok(Change { schema, op: Op::Update, before: Some(before), after });
    }
    // A row that was never inserted has nothing to update.
    let op = match (older.op, newer.op) {
        (Op::Create | Op::Read, Op::Update) => Op::Create,
        (_, op) => op,
    };
    let before = if op == Op::Create { None } else { newer.before.clone().or(before_older) };
    Ok(Change { schema, op, before, after })
}

/// Makes a change of key a plain row under the new key: the one under the old key is no longer its business.
pub fn stay(change: &mut Change) {
    (change.op, change.before) = (Op::Create, None);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use sync_worker_core::row::RowBuilder;
    use sync_worker_core::schema::{Column, Schema};
    use sync_worker_core::types::{ColumnType, Engine};
    use sync_worker_core::value::{Cell, Value};

    fn schema(names: &[&str]) -> Arc<Schema> {
        let kind = ColumnType::Int { bits: 64, unsigned: false };
        let column = |name: &&str| Column {
            name: (*name).to_owned(),
            kind: kind.clone(),
            type_name: "bigint".to_owned(),
            nullable: true,
            generated: false,
        };
        let columns = names.iter().map(column).collect();
        Arc::new(Schema::new(TableName::new("t"), Engine::Postgres, columns, vec![0]))
    }

    fn row(cells: &[Option<i64>]) -> Row {
        let mut builder = RowBuilder::default();
        cells
            .iter()
            .for_each(|cell| builder.push(cell.map_or(Cell::Unchanged, |number| Cell::Present(Value::Int(number)))));
        builder.finish()
    }

    /// By their names: between the two a column has gone, another one has come.
    #[test]
    fn changes_are_merged_over_a_change_of_columns() {
        let (old, new) = (schema(&["id", "a", "b"]), schema(&["id", "b", "c"]));
        let of = |schema: &Arc<Schema>, before: Option<Row>, after: Row| Change {
            schema: schema.clone(),
            op: Op::Update,
            before,
            after: Some(after),
        };
        let older = of(&old, Some(row(&[Some(1), None, None])), row(&[Some(2), Some(10), Some(20)]));
        let newer = of(&new, None, row(&[Some(2), None, Some(30)]));
        let change = merged(&older, &newer).unwrap();
        assert_eq!(change.schema.id, new.id);
        assert_eq!(change.after, Some(row(&[Some(2), Some(20), Some(30)])));
        assert_eq!(change.before, Some(row(&[Some(1), None, None])), "the target has the row under its old key");
    }
}
