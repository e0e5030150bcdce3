//! Rows that take unique values from each other.
//!
//! At its origin a value went from one row to another over NULL, over another value, or by a delete. Two-way, of all that only
//! the newest version of each key comes, and they may fit together in no order of updates; so may the rows of one statement
//! under a deferrable constraint of PostgreSQL. So the old rows go first, all of them, then the new ones come. Foreign keys rest
//! while they go, and what refers to a row by its key finds it again. That is for tables whose rows are known in full, that
//! have no triggers, and that nothing refers to by other columns.

use crate::error::Error;
use crate::sink::attempt::Attempt;
use crate::sink::progress::literal;
use crate::sink::script::{Script, What};
use crate::sink::statement::delete_of_row;
use mysql_async::prelude::Queryable;
use std::collections::HashSet;
use sync_worker_core::collapse::{Effect, Version};
use sync_worker_core::exchange::{Group, TRIES, Trials, by_table};
use sync_worker_core::schema::Schema;
use sync_worker_core::value::Damaged;

impl Attempt<'_> {
    /// Tries what has been refused for other rows once more, all of a table together.
    pub(super) async fn exchange(&mut self) -> Result<(), Error> {
        let mut versions = Group::new();
        for (schema, version) in self.refusals.values().filter(|(_, version)| self.taken.contains(&version.write)) {
            // Of a delete there is none.
            if let Some(row) = &version.row
                && self.target(schema)?.present(row)?.is_none()
            {
                versions.push((schema.clone(), version.clone()));
            }
        }
        for group in by_table(versions) {
            let Some((schema, _)) = group.first().cloned() else { continue };
            match self.comes_anew(&schema).await? {
                true => self.anew(group).await?,
                false => self.in_place(group).await?,
            }
        }
        Ok(())
    }

    /// Writes rows whose old ones have gone first.
    async fn anew(&mut self, group: Group) -> Result<(), Error> {
        let mut trials = Trials::new(group);
        while let Some(tried) = trials.take() {
            let refused = self.all_anew(&tried.group).await?;
            if refused.is_empty() {
                for (schema, version) in tried.group {
                    self.written(&schema.table, &version.key, version.parked);
                }
                continue;
            }
            let mut script = Script::new(self.sink.largest);
            script.push(What::Control, None, 0, b"ROLLBACK TO SAVEPOINT sync_worker_exchange");
            if let Some((_, error)) = self.send(script).await.failed {
                return Err(error);
            }
            trials.refused(tried, &refused);
        }
        Ok(())
    }

    /// Writes rows that stay where they are, as long as one makes room for another.
    async fn in_place(&mut self, mut group: Group) -> Result<(), Error> {
        let mut tries = TRIES.max(group.len());
        loop {
            let before = group.len();
            if before == 0 || tries < before {
                return Ok(());
            }
            tries -= before;
            for (schema, version) in std::mem::take(&mut group) {
                if self.write_one(&schema, &version).await? {
                    self.written(&schema.table, &version.key, version.parked);
                } else {
                    group.push((schema, version));
                }
            }
            if group.len() == before {
                return Ok(());
            }
        }
    }

    /// Whether the row is written.
    async fn write_one(&mut self, schema: &Schema, version: &Version) -> Result<bool, Error> {
        let row = version.row.as_ref().ok_or(Damaged("a version without a row"))?;
        Ok(match version.effect {
            Effect::Insert if self.is_guarded() => self.insert(schema, row, false).await?.is_ok(),
            Effect::Update if self.is_guarded() => {
                self.update(schema, row, &version.key, false).await?.is_ok_and(|found| found > 0)
            }
            _ => {
                let unchecked = self.is_copied(version);
                self.insert_or_update(schema, row, &version.key, unchecked).await?.is_ok()
            }
        })
    }

    /// Sets a savepoint, to which the caller rolls back where any of the writes is refused: returns those.
    async fn all_anew(&mut self, group: &Group) -> Result<HashSet<usize>, Error> {
        let guarded = self.is_guarded();
        let mut script = self.open_script();
        script.push(What::Control, None, 0, b"SAVEPOINT sync_worker_exchange");
        // One-way, a row may be there that is to be inserted.
        for (schema, version) in group.iter().filter(|(_, version)| !guarded || version.effect != Effect::Insert) {
            let mut sql = Vec::new();
            delete_of_row(self.target(schema)?, &version.key, true, &mut sql)?;
            script.push(What::Delete { fresh: 1 }, Some(&schema.table), 1, &sql);
        }
        let outcome = self.send(script).await;
        if self.judge(outcome)?.is_err() {
            return Ok(group.iter().map(|(_, version)| version.write).collect());
        }
        let mut refused = HashSet::new();
        for (schema, version) in group {
            let row = version.row.as_ref().ok_or(Damaged("a version without a row"))?;
            if self.insert(schema, row, self.is_copied(version)).await?.is_err() {
                refused.insert(version.write);
            }
        }
        Ok(refused)
    }

    /// Whether rows of a table may go and come anew.
    async fn comes_anew(&mut self, schema: &Schema) -> Result<bool, Error> {
        let target = self.target(schema)?;
        if !target.comes_anew() {
            return Ok(false);
        }
        // Two-way, nobody checks what is written.
        if self.is_guarded() {
            return Ok(true);
        }
        let (database, table) = (literal(&target.name.database), literal(&target.name.table));
        let keys = target.key_columns().map(|(_, column)| literal(&column.name)).collect::<Vec<_>>().join(",");
        let sql = format!(
            "SELECT COUNT(*) FROM information_schema.KEY_COLUMN_USAGE WHERE REFERENCED_TABLE_SCHEMA={database} \
             AND REFERENCED_TABLE_NAME={table} AND REFERENCED_COLUMN_NAME NOT IN ({keys})"
        );
        let crate::client::Client { conn, liveness, .. } = &mut self.sink.client;
        let asked = conn.query_first::<u64, _>(sql);
        Ok(liveness.watch("a look at the foreign keys", asked).await? == Some(0))
    }
}
