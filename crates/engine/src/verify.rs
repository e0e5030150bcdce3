//! Verification: source and target compared in full, row by row, while both live.
//!
//! A first pass reads both sides in chunks. What differs is looked at again until it is equal once, or until the
//! patience is used up: a row on its way is no difference. The source is read first and the target followed until it shows
//! that version, so that a row which changes all the time is found equal, too.

mod mapping;

use crate::failure::EngineError;
use crate::pipeline::Plan;
use crate::projected::reader::ProjectedReader;
use mapping::Mapping;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use sync_worker_core::database::{Database, Scope};
use sync_worker_core::error::Result;
use sync_worker_core::name::TableName;
use sync_worker_core::reader::{KeyRange, TableReader};
use sync_worker_core::row::{Key, Row};
use sync_worker_core::schema::Schema;
use sync_worker_core::types::Engine;
use tokio::time::Instant;

const CHUNK_ROWS: u64 = 10_000;
const CHUNK_BYTES: usize = 16 << 20;

/// Keys compared at a time in the second pass.
const KEYS_AT_A_TIME: usize = 500;

#[derive(Clone, Debug)]
pub struct VerifySettings {
    /// How long the differences of a table may take to go away by themselves.
    pub patience: Duration,
    /// Between two looks at the target.
    pub interval: Duration,
    /// Differing keys kept per table; above it, counting goes on but they are not looked at again.
    pub most_keys: usize,
}

impl Default for VerifySettings {
    fn default() -> Self {
        Self { patience: Duration::from_secs(30), interval: Duration::from_millis(20), most_keys: 1_000_000 }
    }
}

/// A table's outcome at one target.
#[derive(Clone, Debug)]
pub struct TableReport {
    pub table: TableName,
    /// Rows of the source that were compared.
    pub rows: u64,
    /// Differed in the first pass.
    pub in_flight: u64,
    /// Still differ. Keys are the source's.
    pub differing: Vec<Key>,
    /// Differing keys that were not kept.
    pub more: u64,
    pub schema: Arc<Schema>,
}

impl TableReport {
    pub fn is_equal(&self) -> bool {
        self.differing.is_empty() && self.more == 0
    }
}

/// One side of a comparison.
pub struct Side<'a> {
    pub database: &'a dyn Database,
    pub scope: Scope,
}

/// Compares every table of a pipeline between its source and one target. `progress` hears the rows compared so far.
pub async fn verify(
    plan: &Plan,
    source: &Side<'_>,
    target: &Side<'_>,
    settings: &VerifySettings,
    progress: &mut (dyn FnMut(&TableName, u64) + Send),
) -> Result<Vec<TableReport>> {
    let mut here = source.database.reader(&source.scope).await?;
    let mut there = target.database.reader(&target.scope).await?;
    let documents = |side: &Side<'_>| side.database.engine() == Engine::Mongodb;
    if documents(source) == documents(target) {
        let mut reports = Vec::new();
        for table in &plan.tables {
            let mut comparison = Comparison::new(plan, &table.name, here.as_mut(), there.as_mut(), settings).await?;
            reports.push(comparison.run(progress).await?);
        }
        return Ok(reports);
    }
    between(plan, here, there, documents(source), settings, progress).await
}

/// Compares documents with rows: the collection is seen as the table is.
async fn between(
    plan: &Plan,
    here: Box<dyn TableReader>,
    there: Box<dyn TableReader>,
    from_documents: bool,
    settings: &VerifySettings,
    progress: &mut (dyn FnMut(&TableName, u64) + Send),
) -> Result<Vec<TableReport>> {
    let (documents, mut rows) = if from_documents { (here, there) } else { (there, here) };
    let mut documents = ProjectedReader::new(documents);
    let mut reports = Vec::new();
    for table in &plan.tables {
        documents.see(&table.name, rows.schema(&table.name).await?.as_ref(), table.document.clone())?;
        let (here, there): (&mut dyn TableReader, &mut dyn TableReader) =
            if from_documents { (&mut documents, rows.as_mut()) } else { (rows.as_mut(), &mut documents) };
        let mut report = Comparison::new(plan, &table.name, here, there, settings).await?.run(progress).await?;
        // No row is equal to a document whose key no row can have.
        let (unheld, more) = documents.unheld(&table.name).await?;
        report.more += more;
        if from_documents {
            // A repair asks the source, by its own keys.
            report.differing = documents.own_keys(&table.name, &report.differing).await?;
            report.rows += unheld.len() as u64;
            report.differing.extend(unheld);
            report.schema = documents.own_schema(&table.name).await?;
        } else {
            report.more += unheld.len() as u64;
        }
        reports.push(report);
    }
    Ok(reports)
}

struct Comparison<'a> {
    table: TableName,
    here: &'a mut dyn TableReader,
    there: &'a mut dyn TableReader,
    settings: &'a VerifySettings,
    forth: Mapping,
    back: Mapping,
    report: TableReport,
    differing: HashSet<Key>,
}

impl<'a> Comparison<'a> {
    async fn new(
        plan: &Plan,
        table: &TableName,
        here: &'a mut dyn TableReader,
        there: &'a mut dyn TableReader,
        settings: &'a VerifySettings,
    ) -> Result<Self> {
        let table = table.clone();
        let (from, to) = (here.schema(&table).await?, there.schema(&table).await?);
        // Of a two-way table, a member's columns that others lack are its own.
        if plan.two_way.is_none()
            && let Some(column) = from.columns.iter().find(|column| to.column(&column.name).is_none())
        {
            let text = format!("table {table}: the target has no column {}", column.name);
            return Err(EngineError::Configuration(text).into());
        }
        let report = TableReport {
            table: table.clone(),
            rows: 0,
            in_flight: 0,
            differing: Vec::new(),
            more: 0,
            schema: from.clone(),
        };
        let (forth, back) = (Mapping::new(from.clone(), to.clone())?, Mapping::of_keys(to, from)?);
        Ok(Self { table, here, there, settings, forth, back, report, differing: HashSet::new() })
    }

    async fn run(&mut self, progress: &mut (dyn FnMut(&TableName, u64) + Send)) -> Result<TableReport> {
        if self.forth.ordered_alike() {
            self.compare_ranges(progress).await?;
        } else {
            self.compare_source(progress).await?;
            self.find_extra().await?;
        }
        self.report.in_flight = self.differing.len() as u64 + self.report.more;
        let keys: Vec<Key> = self.differing.drain().collect();
        let deadline = Instant::now() + self.settings.patience;
        for keys in keys.chunks(KEYS_AT_A_TIME) {
            let left = self.settle(keys, deadline).await?;
            self.report.differing.extend(left);
        }
        self.report.differing.sort_unstable();
        Ok(self.report.clone())
    }

    /// Reads the same key range on both sides: what is missing, extra or different shows at once.
    async fn compare_ranges(&mut self, progress: &mut (dyn FnMut(&TableName, u64) + Send)) -> Result<()> {
        let mut after = None;
        loop {
            let up_to = self.bound(after.as_ref()).await?;
            let rows = self.rows_here(after.clone(), up_to.clone()).await?;
            self.report.rows += rows.len() as u64;
            progress(&self.table, self.report.rows);
            let mut expected = HashMap::with_capacity(rows.len());
            for row in rows {
                let key = self.forth.from.key_of(&row).map_err(EngineError::Damaged)?;
                match self.forth.key(&key).map_err(EngineError::Damaged)? {
                    Some(there) => drop(expected.insert(there, (key, row))),
                    None => self.differs(key),
                }
            }
            let bound = |key: &Option<Key>| key.as_ref().map(|key| self.forth.key(key)).transpose();
            let range = (bound(&after).map_err(EngineError::Damaged)?, bound(&up_to).map_err(EngineError::Damaged)?);
            let mut range = KeyRange { after: range.0.flatten(), up_to: range.1.flatten() };
            loop {
                let chunk = self.there.read_range(&self.table, &range, CHUNK_BYTES).await?;
                for row in chunk.rows {
                    let key = self.forth.to.key_of(&row).map_err(EngineError::Damaged)?;
                    match expected.remove(&key) {
                        Some((_, here)) if self.forth.equal(&here, &row).map_err(EngineError::Damaged)? => {}
                        Some((key, _)) => self.differs(key),
                        None => self.extra(&key)?,
                    }
                }
                match chunk.cut_at {
                    Some(cut) => range.after = Some(cut),
                    None => break,
                }
            }
            expected.into_values().for_each(|(key, _)| self.differs(key));
            match up_to {
                Some(key) => after = Some(key),
                None => return Ok(()),
            }
        }
    }

    /// The end of a chunk that both sides can name: where one can't, the chunk goes on.
    async fn bound(&mut self, after: Option<&Key>) -> Result<Option<Key>> {
        let mut found = self.here.boundary(&self.table, after, CHUNK_ROWS).await?;
        let mut further = 1;
        while let Some(key) = &found
            && self.forth.key(key).map_err(EngineError::Damaged)?.is_none()
        {
            found = self.here.boundary(&self.table, Some(key), further).await?;
            further = (2 * further).min(CHUNK_ROWS);
        }
        Ok(found)
    }

    /// Every row of the source, looked up at the target by its key.
    async fn compare_source(&mut self, progress: &mut (dyn FnMut(&TableName, u64) + Send)) -> Result<()> {
        let mut range = KeyRange::default();
        loop {
            range.up_to = self.here.boundary(&self.table, range.after.as_ref(), 1_000).await?;
            let rows = self.rows_here(range.after.clone(), range.up_to.clone()).await?;
            self.report.rows += rows.len() as u64;
            progress(&self.table, self.report.rows);
            let left = self.compare_rows(rows).await?;
            left.into_iter().for_each(|key| self.differs(key));
            match range.up_to.take() {
                Some(key) => range.after = Some(key),
                None => return Ok(()),
            }
        }
    }

    /// Every row of the target whose key the source lacks.
    async fn find_extra(&mut self) -> Result<()> {
        let mut range = KeyRange::default();
        loop {
            range.up_to = self.there.boundary(&self.table, range.after.as_ref(), 1_000).await?;
            let up_to = range.up_to.clone();
            loop {
                let chunk = self.there.read_range(&self.table, &range, CHUNK_BYTES).await?;
                let mut asked = Vec::with_capacity(chunk.rows.len());
                for row in &chunk.rows {
                    let key = self.back.from.key_of(row).map_err(EngineError::Damaged)?;
                    match self.back.key(&key).map_err(EngineError::Damaged)? {
                        Some(key) => asked.push(key),
                        None => self.report.more += 1,
                    }
                }
                let found = self.here.read_keys(&self.table, &asked).await?;
                let mut there = HashSet::with_capacity(found.rows.len());
                for row in &found.rows {
                    there.insert(self.back.to.key_of(row).map_err(EngineError::Damaged)?);
                }
                asked.into_iter().filter(|key| !there.contains(key)).for_each(|key| self.differs(key));
                match chunk.cut_at {
                    Some(cut) => range.after = Some(cut),
                    None => break,
                }
            }
            match up_to {
                Some(key) => range.after = Some(key),
                None => return Ok(()),
            }
        }
    }

    async fn rows_here(&mut self, after: Option<Key>, up_to: Option<Key>) -> Result<Vec<Row>> {
        let (mut range, mut rows) = (KeyRange { after, up_to }, Vec::new());
        loop {
            let chunk = self.here.read_range(&self.table, &range, CHUNK_BYTES).await?;
            rows.extend(chunk.rows);
            match chunk.cut_at {
                Some(cut) => range.after = Some(cut),
                None => return Ok(rows),
            }
        }
    }

    /// The keys among these source rows whose row at the target says something else.
    async fn compare_rows(&mut self, rows: Vec<Row>) -> Result<Vec<Key>> {
        let mut expected = HashMap::with_capacity(rows.len());
        let mut left = Vec::new();
        for row in rows {
            let key = self.forth.from.key_of(&row).map_err(EngineError::Damaged)?;
            match self.forth.key(&key).map_err(EngineError::Damaged)? {
                Some(there) => drop(expected.insert(there, (key, row))),
                None => left.push(key),
            }
        }
        let asked: Vec<Key> = expected.keys().cloned().collect();
        for row in self.there.read_keys(&self.table, &asked).await?.rows {
            let key = self.forth.to.key_of(&row).map_err(EngineError::Damaged)?;
            let Some((key, here)) = expected.remove(&key) else { continue };
            if !self.forth.equal(&here, &row).map_err(EngineError::Damaged)? {
                left.push(key);
            }
        }
        left.extend(expected.into_values().map(|(key, _)| key));
        Ok(left)
    }

    /// Looks at differing keys again until they are equal or the deadline has passed, once at least. Returns those that
    /// stay different.
    async fn settle(&mut self, keys: &[Key], deadline: Instant) -> Result<Vec<Key>> {
        let mut left = keys.to_vec();
        loop {
            // What the source says now; the target is followed until it says the same.
            let rows = self.here.read_keys(&self.table, &left).await?.rows;
            let mut existing = HashSet::with_capacity(rows.len());
            for row in &rows {
                existing.insert(self.forth.from.key_of(row).map_err(EngineError::Damaged)?);
            }
            let gone: Vec<Key> = left.iter().filter(|key| !existing.contains(*key)).cloned().collect();
            for _ in 0..10 {
                left = self.compare_rows(rows.clone()).await?;
                left.extend(self.still_there(&gone).await?);
                if left.is_empty() || Instant::now() >= deadline {
                    return Ok(left);
                }
                tokio::time::sleep(self.settings.interval).await;
            }
        }
    }

    /// Source keys without a row there that still have one at the target.
    async fn still_there(&mut self, keys: &[Key]) -> Result<Vec<Key>> {
        let mut names = HashMap::with_capacity(keys.len());
        for key in keys {
            if let Some(there) = self.forth.key(key).map_err(EngineError::Damaged)? {
                names.insert(there, key.clone());
            }
        }
        let asked: Vec<Key> = names.keys().cloned().collect();
        let mut left = Vec::new();
        for row in self.there.read_keys(&self.table, &asked).await?.rows {
            let key = self.forth.to.key_of(&row).map_err(EngineError::Damaged)?;
            left.extend(names.remove(&key));
        }
        Ok(left)
    }

    fn extra(&mut self, there: &Key) -> Result<()> {
        match self.back.key(there).map_err(EngineError::Damaged)? {
            Some(key) => self.differs(key),
            None => self.report.more += 1,
        }
        Ok(())
    }

    fn differs(&mut self, key: Key) {
        if self.differing.len() < self.settings.most_keys {
            self.differing.insert(key);
        } else {
            self.report.more += 1;
        }
    }
}
