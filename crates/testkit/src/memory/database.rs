//! A database in memory: rows, a change log, and what a sink leaves there.

use super::reader::MemoryReader;
use super::sink::MemorySink;
use super::source::{MemorySource, position};
use super::{MemoryError, Shared};
use async_trait::async_trait;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use sync_worker_core::change::{Change, Op};
use sync_worker_core::database::{Database, Inspection, Role, Scope, TableAt};
use sync_worker_core::error::{ErrorClass, Result};
use sync_worker_core::name::{DatabaseName, TableName};
use sync_worker_core::position::{Checkpoint, Epoch, Position};
use sync_worker_core::reader::TableReader;
use sync_worker_core::record::Offset;
use sync_worker_core::row::{Key, Row};
use sync_worker_core::schema::Schema;
use sync_worker_core::sink::{Marker, ParkedKey, Sink};
use sync_worker_core::source::Source;
use sync_worker_core::types::Engine;

pub type RowName = (TableName, Key);

/// What goes wrong with the next transaction of a sink, or with the next time it takes the target over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An error before anything is written.
    BeforeCommit(ErrorClass),
    /// An error after the refused rows were parked in the queue and before the commit.
    BeforeCommitAfterParking,
    /// It is committed, and the answer is lost.
    AfterCommit,
    /// No answer ever, and nothing is written.
    Hang,
    /// No answer ever, and it is committed.
    HangAfterCommit,
    /// All is well, after a while.
    Slow(Duration),
}

/// A row as a target's trigger would log it.
#[derive(Clone, Debug)]
pub struct Written {
    pub table: TableName,
    pub key: Key,
    pub op: Op,
    /// None where the row went.
    pub row: Option<Row>,
    pub offset: Offset,
    /// Counts the target's transactions.
    pub transaction: u64,
}

/// Says why a target refuses a row, if it does.
pub type Refuse = Arc<dyn Fn(&TableName, &Row) -> Option<ErrorClass> + Send + Sync>;

/// Clones are handles of the same database.
#[derive(Clone)]
pub struct MemoryDatabase {
    pub(super) name: DatabaseName,
    pub(super) shared: Arc<Shared<State>>,
}

pub(super) struct State {
    pub schemas: HashMap<TableName, Arc<Schema>>,
    pub rows: BTreeMap<RowName, Row>,
    pub epoch: String,
    pub log: Vec<Vec<Change>>,
    /// Changes to a batch of the source.
    pub batch_changes: usize,
    /// The end of a transaction comes by itself, behind its last change.
    pub ends_apart: bool,
    pub confirmed: Vec<Checkpoint>,
    pub source_faults: VecDeque<ErrorClass>,
    /// Changes that the sources of this database have handed out.
    pub returned: u64,
    /// Times that a source was opened.
    pub opened: u64,
    pub reads_held: bool,
    /// Reads that have seen the rows.
    pub reads: u64,
    pub marker: Option<Marker>,
    pub parked: BTreeMap<RowName, ParkedKey>,
    pub sink_faults: VecDeque<Fault>,
    pub take_over_faults: VecDeque<Fault>,
    pub refuse: Refuse,
    pub written: Vec<Written>,
    pub transactions: u64,
    pub clock_ahead: Option<i64>,
    random: Option<StdRng>,
}

impl MemoryDatabase {
    pub fn new(name: &str, schemas: &[Arc<Schema>]) -> Self {
        let state = State {
            schemas: schemas.iter().map(|schema| (schema.table.clone(), schema.clone())).collect(),
            rows: BTreeMap::new(),
            epoch: format!("{name}/1"),
            log: Vec::new(),
            batch_changes: usize::MAX,
            ends_apart: false,
            confirmed: Vec::new(),
            source_faults: VecDeque::new(),
            returned: 0,
            opened: 0,
            reads_held: false,
            reads: 0,
            marker: None,
            parked: BTreeMap::new(),
            sink_faults: VecDeque::new(),
            take_over_faults: VecDeque::new(),
            refuse: Arc::new(|_, _| None),
            written: Vec::new(),
            transactions: 0,
            clock_ahead: None,
            random: None,
        };
        Self { name: DatabaseName::new(name), shared: Arc::new(Shared::new(state)) }
    }

    /// Microseconds that its clock is ahead; None where it does not tell.
    pub fn set_clock_ahead(&self, ahead: Option<i64>) {
        self.shared.change(|state| state.clock_ahead = ahead);
    }

    /// Makes a table.
    pub fn add(&self, schema: Arc<Schema>) {
        self.shared.change(|state| state.schemas.insert(schema.table.clone(), schema));
    }

    /// Commits a transaction and returns its position. The changes are applied to the rows as they stand.
    pub fn commit(&self, changes: Vec<Change>) -> Position {
        self.shared.change(|state| {
            for change in &changes {
                state.apply_to_rows(change);
            }
            state.log.push(changes);
            position(state.log.len() as u64, u64::MAX)
        })
    }

    /// Transactions committed so far.
    pub fn commits(&self) -> usize {
        self.shared.lock().log.len()
    }

    pub fn rows(&self) -> BTreeMap<RowName, Row> {
        self.shared.lock().rows.clone()
    }

    pub fn marker(&self) -> Option<Marker> {
        self.shared.lock().marker.clone()
    }

    /// Puts the marker there that another worker or an old backup left.
    pub fn put_marker(&self, change: impl FnOnce(&mut Marker)) {
        self.shared.change(|state| change(state.marker.as_mut().expect("no marker yet")));
    }

    pub fn parked(&self) -> Vec<ParkedKey> {
        self.shared.lock().parked.values().cloned().collect()
    }

    pub fn written(&self) -> Vec<Written> {
        self.shared.lock().written.clone()
    }

    pub fn transactions(&self) -> u64 {
        self.shared.lock().transactions
    }

    pub fn confirmed(&self) -> Vec<Checkpoint> {
        self.shared.lock().confirmed.clone()
    }

    /// Changes that the sources of this database have handed out so far.
    pub fn returned(&self) -> u64 {
        self.shared.lock().returned
    }

    pub fn opened(&self) -> u64 {
        self.shared.lock().opened
    }

    pub fn reads(&self) -> u64 {
        self.shared.lock().reads
    }

    pub fn batch_changes(&self, changes: usize) {
        self.shared.change(|state| state.batch_changes = changes);
    }

    /// A transaction's end comes by itself, behind its last change.
    pub fn end_apart(&self, apart: bool) {
        self.shared.change(|state| state.ends_apart = apart);
    }

    /// The next call of a source's `next` ends so.
    pub fn fail_source(&self, class: ErrorClass) {
        self.shared.change(|state| state.source_faults.push_back(class));
    }

    pub fn fail_sink(&self, fault: Fault) {
        self.shared.change(|state| state.sink_faults.push_back(fault));
    }

    pub fn fail_take_over(&self, fault: Fault) {
        self.shared.change(|state| state.take_over_faults.push_back(fault));
    }

    pub fn forget_faults(&self) {
        self.shared.change(|state| {
            state.source_faults.clear();
            state.sink_faults.clear();
            state.take_over_faults.clear();
        });
    }

    pub fn refuse(&self, refuse: impl Fn(&TableName, &Row) -> Option<ErrorClass> + Send + Sync + 'static) {
        self.shared.change(|state| state.refuse = Arc::new(refuse));
    }

    /// Reads see the rows, and then wait until this is called again with false.
    pub fn hold_reads(&self, held: bool) {
        self.shared.change(|state| state.reads_held = held);
    }

    /// Another server under the same name: restored, or recreated.
    pub fn replace_epoch(&self, epoch: &str) {
        self.shared.change(|state| epoch.clone_into(&mut state.epoch));
    }

    /// Source, readers and sink let others run at random points from now on.
    pub fn interleave(&self, seed: u64) {
        self.shared.change(|state| state.random = Some(StdRng::seed_from_u64(seed)));
    }

    /// Waits until the database looks like this.
    pub async fn until<R>(&self, mut ready: impl FnMut(&Self) -> Option<R>) -> R {
        let mut changes = self.shared.changed.subscribe();
        loop {
            changes.mark_unchanged();
            if let Some(result) = ready(self) {
                return result;
            }
            changes.changed().await.unwrap_or_default();
        }
    }

    pub(super) async fn pause(&self) {
        let turns = match &mut self.shared.lock().random {
            Some(random) => random.random_range(0..36_u32).saturating_sub(24),
            None => 0,
        };
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
    }
}

impl State {
    pub fn head(&self) -> Position {
        position(self.log.len() as u64, u64::MAX)
    }

    fn apply_to_rows(&mut self, change: &Change) {
        let table = change.table().clone();
        let valid = "a test's change is whole";
        match change.op {
            Op::Truncate => self.rows.retain(|(name, _), _| *name != table),
            Op::Delete => {
                let key = change.key().expect(valid).expect(valid);
                self.rows.remove(&(table, key)).expect("a test deletes a row that is there");
            }
            Op::Create | Op::Read | Op::Update => {
                let key = change.key().expect(valid).expect(valid);
                let after = change.after.as_ref().expect(valid);
                let old = change.old_key().expect(valid).unwrap_or_else(|| key.clone());
                let row = match self.rows.remove(&(table.clone(), old)) {
                    Some(older) => after.over(&older).expect(valid),
                    None => after.clone(),
                };
                assert!(!row.is_partial().expect(valid), "a test updates a row that is not there");
                self.rows.insert((table, key), row);
            }
        }
    }
}

#[async_trait]
impl Database for MemoryDatabase {
    fn name(&self) -> &DatabaseName {
        &self.name
    }

    fn engine(&self) -> Engine {
        Engine::Postgres
    }

    /// Two-way its tables, else nothing.
    async fn inspect(&self, scope: &Scope, _: Role) -> Result<Inspection> {
        let table = |at: &TableAt| self.shared.change(|state| state.schemas.get(&at.table).cloned());
        let tables = if scope.two_way { scope.tables.iter().filter_map(table).collect() } else { Vec::new() };
        Ok(Inspection { tables, clock_ahead: self.clock_ahead().await?, ..Inspection::default() })
    }

    async fn clock_ahead(&self) -> Result<Option<i64>> {
        Ok(self.shared.change(|state| state.clock_ahead))
    }

    async fn source(&self, scope: &Scope, from: Option<&Checkpoint>) -> Result<(Box<dyn Source>, Checkpoint)> {
        self.pause().await;
        let start = self.shared.change(|state| {
            state.opened += 1;
            let epoch = Epoch(state.epoch.clone());
            match from {
                Some(from) if from.epoch != epoch => {
                    let text = format!("GAP: the position belongs to another server, {}", from.epoch);
                    Err(MemoryError::new(ErrorClass::Gap, text))
                }
                Some(from) => Ok(from.clone()),
                None => Ok(Checkpoint { epoch, position: state.head(), resume: state.log.len().to_string() }),
            }
        })?;
        let tables = scope.tables.iter().map(|at| at.table.clone()).collect();
        Ok((Box::new(MemorySource::new(self.clone(), tables, &start)), start))
    }

    async fn reader(&self, _: &Scope) -> Result<Box<dyn TableReader>> {
        Ok(Box::new(MemoryReader::new(self.clone())))
    }

    async fn sink(&self, _: &Scope) -> Result<Box<dyn Sink>> {
        Ok(Box::new(MemorySink::new(self.clone())))
    }

    async fn forget_source(&self, _: &Scope) -> Result<()> {
        Ok(())
    }

    fn ddl(&self, _: &TableAt, _: &Schema, _: Option<&Schema>) -> Option<String> {
        None
    }
}
