//! A source's stream as a test reads it: what has come so far, checked against what every source promises.

use anyhow::{Context, Result, bail, ensure};
use std::time::Duration;
use sync_worker_core::change::Change;
use sync_worker_core::database::{Database, Scope};
use sync_worker_core::error::{Error, Result as Opened};
use sync_worker_core::position::{Checkpoint, Position};
use sync_worker_core::source::{Source, SourceBatch};

/// How long a batch may take.
pub const DEADLINE: Duration = Duration::from_secs(120);

pub struct Stream {
    pub source: Box<dyn Source>,
    /// The newest.
    pub checkpoint: Checkpoint,
    pub changes: Vec<(Position, Change)>,
    /// Of each transaction that is complete: its name, and how many changes it had.
    pub transactions: Vec<(String, usize)>,
    pub parts: usize,
    pub reached: Position,
    last: Position,
    /// The transaction whose end has not come, and how many of its changes have.
    open: Option<(String, usize)>,
}

impl Stream {
    pub async fn open(database: &dyn Database, scope: &Scope, from: Option<&Checkpoint>) -> Opened<Self> {
        let (source, start) = database.source(scope, from).await?;
        Ok(Self {
            source,
            changes: Vec::new(),
            transactions: Vec::new(),
            parts: 0,
            reached: start.position,
            last: start.position,
            checkpoint: start,
            open: None,
        })
    }

    /// Reads one batch. Not an error alone: changes whose positions do not grow, transactions that are interleaved,
    /// checkpoints inside of one or before its changes.
    pub async fn batch(&mut self) -> Result<SourceBatch> {
        let batch = tokio::time::timeout(DEADLINE, self.source.next()).await.context("no batch in time")?;
        let batch = batch.map_err(|error| anyhow::anyhow!("{error:?}"))?;
        self.take(&batch)?;
        Ok(batch)
    }

    /// Adds a batch that was read from the source by other means.
    pub fn take(&mut self, batch: &SourceBatch) -> Result<()> {
        for part in &batch.parts {
            self.parts += 1;
            let (open, mut changes) = self.open.take().unwrap_or_else(|| (part.id.to_string(), 0));
            ensure!(open == *part.id, "{} begins inside {open}", part.id);
            for (ordinal, change) in (part.first.ordinal()..).zip(&part.changes) {
                let position = part.first.with_ordinal(ordinal);
                if position <= self.last {
                    bail!("position {position} came after {}", self.last);
                }
                self.last = position;
                self.changes.push((position, change.clone()));
            }
            changes += part.changes.len();
            match part.complete {
                true => self.transactions.push((open, changes)),
                false => self.open = Some((open, changes)),
            }
        }
        ensure!(batch.reached >= self.reached, "from {} the stream got back to {}", self.reached, batch.reached);
        self.reached = batch.reached;
        if let Some(checkpoint) = &batch.checkpoint {
            ensure!(self.open.is_none(), "a checkpoint inside a transaction");
            ensure!(checkpoint.position >= self.checkpoint.position, "a checkpoint went backwards");
            ensure!(checkpoint.position >= self.last, "a checkpoint before its changes");
            self.checkpoint = checkpoint.clone();
        }
        Ok(())
    }

    /// Reads until this many changes have come.
    pub async fn until(&mut self, changes: usize) -> Result<()> {
        while self.changes.len() < changes {
            let have = self.changes.len();
            self.batch().await.with_context(|| format!("{have} of {changes} changes have come"))?;
        }
        Ok(())
    }

    /// Reads until all that committed up to a position has come.
    pub async fn reach(&mut self, position: Position) -> Result<()> {
        while self.reached < position || self.open.is_some() {
            self.batch().await.with_context(|| format!("at {}, before {position}", self.reached))?;
        }
        Ok(())
    }

    /// Reads until the stream refuses to go on.
    pub async fn refusal(&mut self) -> Result<Error> {
        let refusal = async {
            loop {
                if let Err(error) = self.source.next().await {
                    return error;
                }
            }
        };
        tokio::time::timeout(DEADLINE, refusal).await.context("the stream goes on")
    }

    /// The operations so far, one letter each.
    pub fn ops(&self) -> String {
        self.changes.iter().map(|(_, change)| change.op.code()).collect()
    }
}
