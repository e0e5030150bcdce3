//! One write by itself, when a set with nothing but it was refused: overwrite by key, insert what is missing, or name
//! the reason.

use crate::error::Error;
use crate::sink::attempt::{Attempt, Reason};
use crate::sink::failure::{DUPLICATE, NO_PARENT};
use crate::sink::script::What;
use crate::sink::statement::{delete_of_row, insert_of_row, update_of_row};
use crate::sink::target::{Rendered, TargetTable};
use std::sync::Arc;
use sync_worker_core::change::Op;
use sync_worker_core::collapse::{Effect, Step, Version, collapse};
use sync_worker_core::error::ErrorClass;
use sync_worker_core::row::{Key, Row};
use sync_worker_core::schema::Schema;
use sync_worker_core::value::Damaged;

type Counted = Result<u64, Reason>;

/// A foreign key's action in the same transaction may take a row that was looked at.
const GONE: &str = "the row has gone with another one of the batch";

impl Attempt<'_> {
    pub(super) async fn write_alone(&mut self, write: usize, reason: Reason) -> Result<(), Error> {
        self.applied.row_by_row = true;
        let steps = collapse(&self.batch.writes, write..write + 1, &self.refusals)?;
        match steps.into_iter().next() {
            Some(Step::Set(sets)) => {
                for set in sets {
                    for version in &set.versions {
                        self.write_version(&set.schema, version).await?;
                    }
                }
                Ok(())
            }
            Some(Step::Alone(write)) if self.batch.writes[write].change.op == Op::Truncate => {
                // A truncate has no key to be parked under.
                let table = self.batch.writes[write].change.table();
                Err(Error::Fatal(format!(
                    "the target refuses to empty table {table}, as its source did: {}; remove what stands in the way",
                    reason.text
                )))
            }
            Some(Step::Alone(write)) => self.change_key(write).await,
            None => Ok(()),
        }
    }

    async fn write_version(&mut self, schema: &Arc<Schema>, version: &Version) -> Result<(), Error> {
        let row = || version.row.as_ref().ok_or(Damaged("a version without a row"));
        let outcome = match version.effect {
            // Over nothing but the row that was looked at.
            Effect::Insert if self.is_guarded() => self.insert(schema, row()?, false).await?.map(|_| 0),
            Effect::Update if self.is_guarded() => {
                let gone = || Reason { class: ErrorClass::Dependency, text: GONE.to_owned(), code: 0 };
                let updated = self.update(schema, row()?, &version.key, false).await?;
                updated.and_then(|found| if found == 0 { Err(gone()) } else { Ok(0) })
            }
            Effect::Delete => {
                let unchecked = self.coming_back.contains(&version.write);
                let deleted = self.delete(schema, &version.key, unchecked).await?;
                deleted.map(|found| u64::from(found == 0 && !version.fresh))
            }
            Effect::Insert | Effect::Upsert => {
                let copied = self.is_copied(version);
                self.insert_or_update(schema, row()?, &version.key, copied).await?.map(|()| 0)
            }
            Effect::Update => self.update_or_insert(schema, row()?, &version.key).await?.map(u64::from),
            Effect::Replace => {
                // A row that can't go is overwritten, and what refers to one that goes finds it again.
                let unchecked = self.target(schema)?.takes_along;
                if self.delete(schema, &version.key, unchecked).await?.is_err() {
                    self.mark_dirty();
                }
                self.insert_or_update(schema, row()?, &version.key, false).await?.map(|()| 0)
            }
        };
        match outcome {
            Ok(missing) => {
                self.applied.missing += missing;
                self.written(&schema.table, &version.key, version.parked);
            }
            Err(reason) => {
                if reason.code == DUPLICATE {
                    self.taken.insert(version.write);
                }
                self.refuse(schema, version, reason);
            }
        }
        Ok(())
    }

    /// A row that is there is overwritten by its key. `unchecked`: foreign keys rest.
    pub(super) async fn insert_or_update(
        &mut self,
        schema: &Schema,
        row: &Row,
        key: &Key,
        unchecked: bool,
    ) -> Result<Result<(), Reason>, Error> {
        let refused = match self.insert(schema, row, unchecked).await? {
            Ok(_) => return Ok(Ok(())),
            Err(reason) if reason.code == DUPLICATE => reason,
            Err(reason) => return Ok(Err(reason)),
        };
        // Another row stands in the way unless this one is there.
        Ok(match self.update(schema, row, key, unchecked).await? {
            Ok(0) => Err(match &self.target(schema)?.folding {
                Some(collation) => {
                    Reason { text: format!("{}, or one whose key is the same by {collation}", refused.text), ..refused }
                }
                None => refused,
            }),
            Ok(_) => Ok(()),
            Err(reason) => Err(reason),
        })
    }

    /// Whether the row was missing.
    async fn update_or_insert(&mut self, schema: &Schema, row: &Row, key: &Key) -> Result<Result<bool, Reason>, Error> {
        match self.update(schema, row, key, false).await? {
            Ok(0) => {}
            Ok(_) => return Ok(Ok(false)),
            Err(reason) => return Ok(Err(reason)),
        }
        if self.target(schema)?.present(row)?.is_some() {
            let text = "the row is missing at the target and the source sent only a part of it".to_owned();
            return Ok(Err(Reason { class: ErrorClass::Dependency, text, code: 0 }));
        }
        Ok(self.insert(schema, row, false).await?.map(|_| true))
    }

    /// The row moves to its new key. Where it can't, but its image is complete, the old row goes all the same: what
    /// waits is the whole row, and a later delete of it finds nothing left behind under the old key.
    async fn change_key(&mut self, write: usize) -> Result<(), Error> {
        let change = self.batch.writes[write].change.clone();
        let parked = self.batch.writes[write].parked;
        let (Some(old), Some(key), Some(after)) = (change.old_key()?, change.key()?, change.after) else {
            return Err(Damaged("a change that is no change of a key").into());
        };
        let schema = &change.schema;
        let row = match self.refused_row(schema, &old)? {
            Some(refused) => after.over(&refused)?,
            None => after,
        };
        let complete = self.target(schema)?.present(&row)?.is_none();
        let mut reason = None;
        match self.update(schema, &row, &old, false).await? {
            Ok(0) => self.applied.missing += u64::from(!self.is_refused(&schema.table, &old)),
            Ok(_) => {
                self.moved(schema, &old, &key, parked);
                return Ok(());
            }
            Err(refused) => reason = Some(refused),
        }
        let version =
            Version { effect: Effect::Upsert, key: key.clone(), row: Some(row.clone()), write, fresh: false, parked };
        if !complete {
            let text = "the row is missing at the target and the source sent only a part of it".to_owned();
            let reason = reason.unwrap_or(Reason { class: ErrorClass::Dependency, text, code: 0 });
            self.refuse(schema, &Version { effect: Effect::Update, ..version }, reason);
            return Ok(());
        }
        // The rows that refer to it would go with it, and nobody sends those again.
        if let Some(stays) = reason.take() {
            if self.target(schema)?.takes_along {
                self.refuse(schema, &version, stays);
                return Ok(());
            }
            reason = Some(stays);
        }
        if let Err(stays) = self.delete(schema, &old, false).await? {
            self.refuse(schema, &version, stays);
            return Ok(());
        }
        match self.insert_or_update(schema, &row, &key, false).await? {
            Ok(()) => self.moved(schema, &old, &key, parked),
            Err(refused) => {
                self.forgive(&schema.table, &old);
                self.also_unpark(&schema.table, old);
                self.refuse(schema, &version, reason.unwrap_or(refused));
            }
        }
        Ok(())
    }

    /// What waited under the old key is a part of the moved row.
    fn moved(&mut self, schema: &Schema, old: &Key, key: &Key, parked: bool) {
        self.forgive(&schema.table, old);
        self.also_unpark(&schema.table, old.clone());
        self.written(&schema.table, key, parked);
    }

    pub(super) async fn insert(&mut self, schema: &Schema, row: &Row, unchecked: bool) -> Result<Counted, Error> {
        let mut unchecked = unchecked || self.goes_first(&schema.table);
        loop {
            let insert = |target: &TargetTable, out: &mut Vec<u8>| insert_of_row(target, row, unchecked, out);
            match self.statement(schema, What::Insert, insert).await? {
                Err(reason) if self.lets_it_go_first(schema, &reason, unchecked).await? => unchecked = true,
                counted => return Ok(counted),
            }
        }
    }

    pub(super) async fn update(
        &mut self,
        schema: &Schema,
        row: &Row,
        key: &Key,
        unchecked: bool,
    ) -> Result<Counted, Error> {
        let mut unchecked = unchecked || self.goes_first(&schema.table);
        loop {
            let update = |target: &TargetTable, out: &mut Vec<u8>| update_of_row(target, row, key, unchecked, out);
            match self.statement(schema, What::Control, update).await? {
                Err(reason) if self.lets_it_go_first(schema, &reason, unchecked).await? => unchecked = true,
                counted => return Ok(counted),
            }
        }
    }

    async fn lets_it_go_first(&mut self, schema: &Schema, reason: &Reason, unchecked: bool) -> Result<bool, Error> {
        Ok(reason.code == NO_PARENT && !unchecked && self.may_go_first(&schema.table).await?)
    }

    async fn delete(&mut self, schema: &Schema, key: &Key, unchecked: bool) -> Result<Counted, Error> {
        let mut sql = Vec::new();
        // The target can't hold such a key, so there is no such row.
        if let Rendered::Refused(_) = delete_of_row(self.target(schema)?, key, unchecked, &mut sql)? {
            return Ok(Ok(0));
        }
        self.statement(schema, What::Control, |target, out| delete_of_row(target, key, unchecked, out)).await
    }

    /// Runs one statement; returns the rows that it met, or its refusal, of which nothing is left.
    async fn statement(
        &mut self,
        schema: &Schema,
        what: What,
        render: impl FnOnce(&TargetTable, &mut Vec<u8>) -> Result<Rendered, Error>,
    ) -> Result<Counted, Error> {
        let poison = |text: String| Ok(Err(Reason { class: ErrorClass::Poison, text, code: 0 }));
        let mut sql = Vec::new();
        if let Rendered::Refused(text) = render(self.target(schema)?, &mut sql)? {
            return poison(text);
        }
        let mut script = self.open_script();
        if !script.fits(sql.len()) {
            return poison(script.too_large());
        }
        script.push(what, Some(&schema.table), 0, &sql);
        let outcome = self.send(script).await;
        let answer = outcome.answers.last().map(|(_, answer)| *answer);
        let warned = outcome.failed.is_none() && answer.is_some_and(|answer| answer.warnings > 0);
        if warned {
            let text = self.warning().await?;
            self.mark_dirty();
            return poison(text.unwrap_or_else(|| "the server would change a value".to_owned()));
        }
        match self.judge(outcome)? {
            Ok(_) => Ok(Ok(answer.map_or(0, |answer| answer.affected))),
            Err((reason, _)) => {
                self.mark_dirty();
                Ok(Err(reason))
            }
        }
    }
}
