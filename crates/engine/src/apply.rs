//! Apply: the bus onto one target, in batches of whole transactions.
//!
//! A feeder reads and decodes the bus while the sink's transaction is under way; what has come in by the time it is
//! committed makes up the next one. Two-way that is resolved meanwhile, too, and once it is enough it is the next batch. So
//! batches are small while the stream is quiet and grow by themselves under load.
//!
//! At the tail the records are read before they are durable: their flush and the target's statements take their time side
//! by side, and the sink waits for the flush before it commits (invariant 2).

mod left;
mod resume;
mod seeds;
mod two_way;

use crate::assemble::{Assembler, Batch, BatchLimits};
use crate::breaker::Breaker;
use crate::capture::PARTITION;
use crate::clock::now_micros;
use crate::failure::{Action, EngineError, FAILED_RETRY, Halt, action, timed, wait_failed};
use crate::letters::{self, Asked, Command};
use crate::metrics::ApplyMetrics;
use crate::preflight::Owed;
use crate::projected;
use crate::resolve::applier::TwoWayParts;
use crate::retry::{ParkingLot, RetryPolicy};
use crate::status::{Entry, State};
use resume::Resuming;
use std::panic::resume_unwind;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use sync_worker_core::bus::{Ahead, Bus, Subscription};
use sync_worker_core::change::Op;
use sync_worker_core::database::{Database, Scope};
use sync_worker_core::error::{Error, Result};
use sync_worker_core::ledger::{BY_PERSON, BY_WORKER, UNFIT};
use sync_worker_core::record::{Delivered, Offset};
use sync_worker_core::rules::Strategy;
use sync_worker_core::sink::{Applied, Marker, Refused, Sink, Write, WriteBatch};
use sync_worker_core::store::{Deferred, Name, RetryQueue, TargetId};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use two_way::{Resolving, prove};

/// Bytes of records in one read of the bus, and reads held ready: what an applier holds in memory beside its batch.
const READ_BYTES: usize = 256 << 10;
const READS_READY: usize = 16;

/// A target that gives no answer for this long is taken for gone, however healthy its connection looks; every row of the
/// batch adds [`PATIENCE_PER_ROW`], so that a slow target is not mistaken for a dead one. Each time that it was too little, the
/// next transaction gets twice as long: a source's transaction comes whole, however slow the target's triggers are.
const PATIENCE: Duration = Duration::from_secs(15);
const PATIENCE_PER_ROW: Duration = Duration::from_millis(2);

/// A quarter of a day, for a batch without rows.
const MOST_DOUBLED: u32 = 10;

/// A truncate may have to be a delete of every row, which takes as long as it takes; a sink notices by itself that its
/// server has gone.
const PATIENCE_FOR_TRUNCATE: Duration = Duration::from_secs(24 * 3600);

/// Retries taken from the queue at a time.
const RETRIES_AT_A_TIME: usize = 100;

/// Two-way, retries that are tried together, with others of their tables; fewer where their rows come to more than so many bytes.
const RETRIES_TOGETHER: usize = 4_000;
const RETRIED_BYTES: usize = 32 << 20;

pub struct Apply {
    pub id: TargetId,
    pub scope: Scope,
    pub database: Arc<dyn Database>,
    /// The source has documents, and this target has tables.
    pub documents: bool,
    pub bus: Arc<dyn Bus>,
    pub queue: Arc<dyn RetryQueue>,
    pub breaker: Arc<Breaker>,
    pub status: Entry,
    pub metrics: ApplyMetrics,
    /// The next record that the target is to take, where that is known already.
    pub next: Arc<AtomicU64>,
    pub limits: BatchLimits,
    pub retry: RetryPolicy,
    pub owed: Option<Owed>,
    pub two_way: Option<TwoWayParts>,
    pub commands: mpsc::Receiver<Command>,
    pub shutdown: CancellationToken,
}

impl Apply {
    /// Runs until shutdown or until an error that reconnecting does not mend.
    pub async fn run(mut self) {
        let mut held = Held::default();
        let counting = count_behind(self.bus.clone(), self.next.clone(), self.status.clone(), self.metrics.clone());
        let _counting = AbortOnDropHandle::new(tokio::spawn(counting));
        loop {
            tokio::select! {
                () = self.shutdown.cancelled() => break,
                () = self.breaker.ready() => {}
            }
            let Err(error) = self.session(&mut held).await else { break };
            self.status.error(error.class().as_str());
            let halted = match action(error.class()) {
                Action::Reconnect => {
                    let delay = self.breaker.failed();
                    tracing::warn!(pipeline = %self.id.pipeline, database = %self.id.database, %error, ?delay, "apply is interrupted");
                    self.status.set(State::Waiting, &error.to_string());
                    continue;
                }
                Action::Halt(Halt::Gap) => State::Gap,
                Action::Halt(Halt::Superseded) => State::Superseded,
                Action::Halt(Halt::Failed) => {
                    tracing::error!(pipeline = %self.id.pipeline, database = %self.id.database, %error, again_in = ?FAILED_RETRY, "apply has failed");
                    self.status.set(State::Failed, &error.to_string());
                    tokio::select! {
                        () = self.shutdown.cancelled() => break,
                        () = wait_failed(&mut self.commands) => continue,
                    }
                }
            };
            tracing::error!(pipeline = %self.id.pipeline, database = %self.id.database, %error, "apply has stopped");
            self.status.set(halted, &error.to_string());
            return;
        }
        self.status.set(State::Stopped, "");
    }

    /// From taking the target over to its first error, or to shutdown.
    async fn session(&mut self, held: &mut Held) -> Result<()> {
        if let Some(owed) = &self.owed {
            tokio::select! {
                () = self.shutdown.cancelled() => return Ok(()),
                seen = owed.look() => seen?,
            }
            self.owed = None;
        }
        let open = async {
            // It looks at every table: how long that takes, their number decides.
            let mut sink = projected::sink::open(&self.database, &self.scope, self.documents).await?;
            held.asked += 1;
            let progress = timed("the target", PATIENCE, sink.take_over(self.bus.identity())).await?;
            Ok::<_, Error>((sink, progress))
        };
        let opened = tokio::select! {
            () = self.shutdown.cancelled() => return Ok(()),
            opened = open => opened,
        };
        let (mut sink, mut progress) = opened?;
        // Somebody else took the target over since this task last held it (invariant 2).
        if held.epoch.is_some_and(|epoch| progress.marker.epoch > epoch + held.asked) {
            return Err(EngineError::Superseded(format!("the target {}", self.id.database)).into());
        }
        (held.epoch, held.asked) = (Some(progress.marker.epoch), 0);
        if let Some(two_way) = &self.two_way
            && !held.proved
        {
            tokio::select! {
                () = self.shutdown.cancelled() => return Ok(()),
                proved = prove(sink.as_mut(), self.bus.identity(), (&self.id, self.database.as_ref()), two_way.shown.clone(), &mut held.asked) => progress = proved?,
            }
            *held = Held { epoch: Some(progress.marker.epoch), asked: 0, proved: true, ..*held };
        }
        let Resuming { ahead: Ahead { subscription, durability }, next, sequence, resolving } =
            self.resume(&progress.marker).await?;
        let (stage, resolving) = resolving.unzip();
        let lot = ParkingLot::new(self.id.clone(), self.queue.clone(), self.retry.clone(), durability);
        let mut lot = match &self.two_way {
            Some(parts) => lot.with_ledger(parts.ledger.clone()),
            None => lot,
        };
        self.count_refusals(lot.reset(&progress.parked, progress.marker.offset).await?);
        self.breaker.succeeded();
        self.status.set(State::Streaming, "");
        tracing::info!(pipeline = %self.id.pipeline, database = %self.id.database, offset = ?progress.marker.offset.map(|offset| offset.0), "apply is streaming");

        let (feed, records) = mpsc::channel(READS_READY);
        let mut feeder = JoinSet::new();
        feeder.spawn(read_ahead(subscription, feed));
        let assembler = Assembler::new(self.limits.clone(), sequence, self.metrics.clone(), stage, held.pace);
        let assembler = assembler.of_tables(self.scope.tables.iter().map(|at| at.table.clone()).collect());
        let mut session = Session {
            sink: Some(sink),
            marker: progress.marker,
            lot: Arc::new(lot),
            assembler,
            resolving,
            records,
            next_retry: None,
            asked: None,
            together: held.together.unwrap_or(RETRIES_TOGETHER),
            retrying: false,
            doubled: held.doubled,
        };
        if session.resolving.is_none() {
            session.give_up_left_tables(self).await?;
        }
        session.schedule_retry().await?;
        let behind = self.behind(next).await?;
        self.status.update(|status| self.metrics.is_behind(status, behind));
        if let Some(stage) = session.assembler.stage() {
            self.metrics.under_way.set(i64::try_from(stage.entries()).unwrap_or(i64::MAX));
        }
        let outcome = session.stream(self, &mut feeder).await;
        // A batch that was too much for the link or the target would be so again.
        held.pace = Some(session.assembler.pace_after(outcome.is_err()));
        held.doubled = session.doubled;
        held.together = Some(if session.retrying { (session.together / 2).max(1) } else { session.together });
        outcome
    }
}

impl Apply {
    /// How many records there are that the target has yet to take.
    async fn behind(&self, next: Offset) -> Result<u64> {
        self.next.store(next.0, Ordering::Relaxed);
        Ok(self.bus.bounds(PARTITION).await?.next.0.saturating_sub(next.0))
    }

    fn count_refusals(&self, new: usize) {
        (0..new).for_each(|_| self.metrics.conflict(UNFIT, Strategy::Manual.as_str(), ""));
    }
}

/// What this task knows of the target's epoch.
#[derive(Default)]
struct Held {
    /// Of the last session.
    epoch: Option<u64>,
    /// Take-overs since, answered or not: one whose answer was lost may have moved the epoch.
    asked: u64,
    /// An echo has been seen.
    proved: bool,
    /// How many rows the target takes in good time, as far as the last session has seen.
    pace: Option<usize>,
    /// Two-way, how many parked versions it takes at a time.
    together: Option<usize>,
    /// How often it has been given twice as long.
    doubled: u32,
}

/// How often a target that takes nothing is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Counts what comes to stand behind a target that is stuck or away: a batch that is through counts for itself, and less than
/// before is its word to say.
async fn count_behind(bus: Arc<dyn Bus>, next: Arc<AtomicU64>, status: Entry, metrics: ApplyMetrics) {
    loop {
        tokio::time::sleep(LOOK).await;
        // A bus that can't be read is told by whoever reads it.
        let Ok(bounds) = bus.bounds(PARTITION).await else { continue };
        status.update(|status| {
            let behind = bounds.next.0.saturating_sub(next.load(Ordering::Relaxed));
            if behind > status.behind {
                metrics.is_behind(status, behind);
            }
        });
    }
}

async fn read_ahead(mut subscription: Box<dyn Subscription>, feed: mpsc::Sender<Vec<Delivered>>) -> Result<()> {
    loop {
        let records = subscription.next(READ_BYTES).await?;
        if feed.send(records).await.is_err() {
            return Ok(());
        }
    }
}

/// Makes the next batch while the target writes. Nothing comes in another order for it: a batch is written when the one
/// before it has been, and no record is taken between its making and that.
async fn resolve_meanwhile<T>(
    writing: impl Future<Output = Result<T>>,
    assembler: &mut Assembler,
    records: &mut mpsc::Receiver<Vec<Delivered>>,
) -> Result<T> {
    let mut writing = pin!(writing);
    let mut taken = Ok(());
    while taken.is_ok() && !assembler.is_full() {
        let received = tokio::select! {
            biased;
            written = &mut writing => return written,
            received = records.recv() => received,
        };
        // The stream's turn is next, and it asks why there are no more.
        let Some(received) = received else { break };
        taken = assembler.push_all(received);
    }
    if taken.is_ok() {
        assembler.make_ready();
    }
    // A transaction that is let go of may or may not be at the target.
    let written = writing.await?;
    taken?;
    Ok(written)
}

struct Session {
    /// Gone while it writes in a task of its own, and after one that has failed.
    sink: Option<Box<dyn Sink>>,
    marker: Marker,
    /// Shared with that task.
    lot: Arc<ParkingLot>,
    assembler: Assembler,
    resolving: Option<Resolving>,
    records: mpsc::Receiver<Vec<Delivered>>,
    next_retry: Option<Instant>,
    asked: Option<Asked>,
    /// Two-way, how many parked versions are tried in one transaction.
    together: usize,
    /// Such a transaction is under way, or has failed.
    retrying: bool,
    /// How often [`PATIENCE`] was too little.
    doubled: u32,
}

impl Session {
    async fn stream(&mut self, apply: &mut Apply, feeder: &mut JoinSet<Result<()>>) -> Result<()> {
        loop {
            let retry_at = self.next_retry.unwrap_or_else(Instant::now);
            tokio::select! {
                biased;
                () = apply.shutdown.cancelled() => return Ok(()),
                Some(command) = apply.commands.recv(), if self.asked.is_none() => {
                    self.asked = Some(Asked::begin(command, self.lot.queue.as_ref(), &apply.id).await?);
                }
                () = tokio::time::sleep_until(retry_at), if self.next_retry.is_some() => self.retry(apply).await?,
                () = std::future::ready(()), if self.asked.is_some() => self.obey(apply).await?,
                records = self.records.recv() => match records {
                    Some(records) => self.assembler.push_all(records)?,
                    None => {
                        return match feeder.join_next().await {
                            Some(Ok(Err(error))) => Err(error),
                            Some(Ok(Ok(())) | Err(_)) | None => Err(EngineError::Stopped("reading the bus ended").into()),
                        };
                    }
                },
            }
            loop {
                while !self.assembler.is_full() {
                    match self.records.try_recv() {
                        Ok(records) => self.assembler.push_all(records)?,
                        Err(_) => break,
                    }
                }
                let Some(batch) = self.assembler.take() else { break };
                self.assembler.stage().map_or(Ok(()), |stage| stage.is_sound())?;
                self.write(apply, batch).await?;
                if apply.shutdown.is_cancelled() {
                    return Ok(());
                }
            }
        }
    }

    async fn write(&mut self, apply: &Apply, batch: Batch) -> Result<()> {
        let Batch { mut writes, over, keep, copied, offset, digest, commit_times, split } = batch;
        let unpark = match self.resolving {
            Some(_) => self.lot.prepare_guarded(&mut writes, over, keep)?,
            None => self.lot()?.prepare(&mut writes).await?,
        };
        // A marker that moved for an echo alone would be echoed in turn, for ever.
        if self.resolving.is_some() && writes.is_empty() && unpark.is_empty() {
            self.keep_up(apply, offset).await?;
            return self.show(apply, offset, &commit_times).await;
        }
        let marker = Marker { offset: Some(offset), digest, writes: self.marker.writes + 1, ..self.marker.clone() };
        let changes = writes.len();
        let copies: Vec<_> = copied.into_iter().map(|at| (at, writes[at].change.table().clone())).collect();
        let (applied, took) = self.commit(apply, marker, writes, unpark, None, BY_WORKER).await?;
        self.assembler.took(changes, took);
        self.count_copies(copies, &applied);

        let metrics = &apply.metrics;
        metrics.applied.inc_by(changes as u64);
        metrics.transactions.inc_by(commit_times.len() as u64);
        metrics.batches.inc();
        metrics.missing.inc_by(applied.missing);
        metrics.row_by_row.inc_by(u64::from(applied.row_by_row));
        if split {
            metrics.split.inc();
            tracing::info!(pipeline = %apply.id.pipeline, database = %apply.id.database, changes, "a transaction above the limit is applied in parts");
        }
        match self.resolving {
            Some(_) => self.keep_up(apply, offset).await?,
            None => apply.bus.retain(PARTITION, &format!("apply:{}", apply.id.database), offset).await?,
        }
        self.show(apply, offset, &commit_times).await
    }

    async fn show(&mut self, apply: &Apply, offset: Offset, commit_times: &[i64]) -> Result<()> {
        if let Some(resolving) = &self.resolving {
            resolving.parts.progress.moved(offset.0 + 1);
        }
        let metrics = &apply.metrics;
        let now = now_micros();
        #[allow(clippy::cast_precision_loss)] // a lag is no exact figure
        let lag = |commit_time: i64| (now - commit_time).max(0) as f64 / 1e6;
        commit_times.iter().for_each(|time| metrics.lag.observe(lag(*time)));
        let behind = apply.behind(offset.next()).await?;
        let changes = metrics.applied.get();
        apply.status.update(|status| {
            status.offset = Some(offset.0);
            metrics.is_behind(status, behind);
            status.changes = changes;
            status.lag_ms = commit_times.last().map(|time| lag(*time) * 1e3).or(status.lag_ms);
        });
        Ok(())
    }

    /// One transaction at the target, and what follows from it for the parked keys, done `by` somebody. `retry`: parked versions
    /// are tried again, of which so many are due. Also how long the target took.
    async fn commit(
        &mut self,
        apply: &Apply,
        marker: Marker,
        writes: Vec<Write>,
        unpark: Vec<Name>,
        retry: Option<usize>,
        by: &str,
    ) -> Result<(Applied, Duration)> {
        let batch = WriteBatch { expected: self.marker.clone(), marker, writes, unpark, retry: retry.is_some() };
        let mut patience = PATIENCE + PATIENCE_PER_ROW * u32::try_from(batch.writes.len()).unwrap_or(u32::MAX);
        if batch.writes.iter().any(|write| write.change.op == Op::Truncate) {
            patience = PATIENCE_FOR_TRUNCATE;
        }
        patience *= 1 << self.doubled;
        // A checkpoint wants everything that has been resolved handed out.
        let meanwhile = self.resolving.as_ref().zip(self.assembler.stage());
        let meanwhile = meanwhile.is_some_and(|(resolving, stage)| !resolving.checkpoints.are_due(stage));
        let stopped = || EngineError::Stopped("writing to the target ended");
        let mut sink = self.sink.take().ok_or_else(stopped)?;
        let what = "the target's transaction";
        let begun = Instant::now();
        let written = if meanwhile {
            let lot = self.lot.clone();
            // Two-way, making a batch and writing one take about as much of a processor.
            let writing = AbortOnDropHandle::new(tokio::spawn(async move {
                let applied = sink.apply(&batch, lot.as_ref()).await?;
                Ok::<_, Error>((sink, batch, applied, begun.elapsed()))
            }));
            // It stands behind this task until that lets go.
            tokio::task::yield_now().await;
            let writing = async {
                match writing.await {
                    Ok(written) => written,
                    Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
                    Err(_) => Err(stopped().into()),
                }
            };
            resolve_meanwhile(timed(what, patience, writing), &mut self.assembler, &mut self.records).await
        } else {
            let applied = timed(what, patience, sink.apply(&batch, self.lot.as_ref())).await;
            applied.map(|applied| (sink, batch, applied, begun.elapsed()))
        };
        if written.is_err() && begun.elapsed() >= patience {
            self.doubled = (self.doubled + 1).min(MOST_DOUBLED);
        }
        let (sink, batch, applied, took) = written?;
        // As much as it takes, with room to spare: a dead peer is not to be waited for any longer than that.
        while self.doubled > 0 && patience / 2 >= took * 2 {
            self.doubled -= 1;
            patience /= 2;
        }
        self.sink = Some(sink);
        let had_parked = !self.lot.is_empty();
        apply.count_refusals(self.lot()?.settle(&batch, &applied, by).await?);
        apply.metrics.differing.inc_by(applied.differing.len() as u64);
        self.marker = batch.marker;
        if had_parked || !applied.refused.is_empty() || !applied.differing.is_empty() {
            // What was tried along with others has been told before.
            let told = |refused: &&Refused| retry.is_none_or(|due| refused.write < due);
            for refused in applied.refused.iter().filter(told) {
                let table = batch.writes[refused.write].change.table();
                tracing::warn!(pipeline = %apply.id.pipeline, database = %apply.id.database, %table, reason = %refused.reason, class = refused.class.as_str(), "the target refused a row; its key is parked");
            }
            self.schedule_retry().await?;
            let parked = self.lot.len() as u64;
            apply.metrics.parked.set(i64::try_from(parked).unwrap_or(i64::MAX));
            apply.status.update(|status| status.parked = parked);
        }
        Ok((applied, took))
    }

    /// Nobody else has it between two writes.
    fn lot(&mut self) -> Result<&mut ParkingLot> {
        Ok(Arc::get_mut(&mut self.lot).ok_or(EngineError::Stopped("writing to the target has not ended"))?)
    }

    async fn schedule_retry(&mut self) -> Result<()> {
        self.next_retry = self.lot.until_next().await?.map(|delay| Instant::now() + delay);
        Ok(())
    }

    async fn retry(&mut self, apply: &Apply) -> Result<()> {
        let marker = self.marker.offset;
        let (mut due, mut superseded) = self.lot()?.due(RETRIES_AT_A_TIME, marker).await?;
        let room = self.tried_together(&due);
        if due.len() == RETRIES_AT_A_TIME && room > due.len() {
            let (more, left) = self.lot()?.due(room, marker).await?;
            (due, superseded) = (more, superseded + left);
        }
        (0..superseded).for_each(|_| apply.metrics.retried("superseded"));
        let mut due = due.into_iter().peekable();
        while due.peek().is_some() {
            if apply.shutdown.is_cancelled() {
                return Ok(());
            }
            let together: Vec<Deferred> = due.by_ref().take(room).collect();
            let (written, refused) = self.write_again(apply, together).await?;
            (0..written).for_each(|_| apply.metrics.retried("written"));
            (0..refused).for_each(|_| apply.metrics.retried("refused"));
        }
        self.schedule_retry().await
    }

    /// How many versions like these are tried in one transaction. One-way, each comes by itself, as its source made it.
    fn tried_together(&self, like: &[Deferred]) -> usize {
        if self.resolving.is_none() {
            return 1;
        }
        let bytes: usize = like.iter().map(|one| one.change.size()).sum();
        (RETRIED_BYTES.saturating_mul(like.len()) / bytes.max(1)).clamp(1, self.together)
    }

    /// Tries parked versions in one transaction; two-way, with others of their tables. Returns how many the target has taken, and
    /// how many that were due it has refused again.
    async fn write_again(&mut self, apply: &Apply, mut together: Vec<Deferred>) -> Result<(usize, usize)> {
        let due = together.len();
        let along = self.tried_together(&together).saturating_sub(due);
        together.extend(self.lot()?.along(&together, along).await?);
        let all = together.len();
        let marker = Marker { writes: self.marker.writes + 1, ..self.marker.clone() };
        let again = |one: Deferred| Write { change: one.change, offset: one.offset, parked: true, over: one.over };
        let writes = together.into_iter().map(again).collect();
        self.retrying = true;
        let (applied, _) = self.commit(apply, marker, writes, Vec::new(), Some(due), BY_WORKER).await?;
        self.retrying = false;
        self.together = (self.together * 2).min(RETRIES_TOGETHER);
        let refused = applied.refused.iter().filter(|refused| refused.write < due).count();
        Ok((all - applied.refused.len(), refused))
    }

    /// Carries on with what a person has asked, for a while.
    async fn obey(&mut self, apply: &Apply) -> Result<()> {
        let turns = if self.resolving.is_some() { 1 } else { letters::AT_A_TIME };
        for _ in 0..turns {
            if apply.shutdown.is_cancelled() {
                return Ok(());
            }
            let Some(mut asked) = self.asked.take() else { return Ok(()) };
            match self.decide(apply, &mut asked).await {
                Ok(true) => self.asked = Some(asked),
                Ok(false) => asked.answer(Ok(())),
                Err(error) => {
                    asked.answer(Err(&error));
                    return Err(error);
                }
            }
        }
        // What feeds the stream may need a turn, too.
        tokio::task::yield_now().await;
        Ok(())
    }

    /// The next of the dead letters, as many as are tried together. Whether there may be more.
    async fn decide(&mut self, apply: &Apply, asked: &mut Asked) -> Result<bool> {
        let (mut letters, mut more) = (Vec::new(), true);
        for _ in 0..RETRIES_TOGETHER {
            if !letters.is_empty() && letters.len() >= self.tried_together(&letters) {
                break;
            }
            let Some(letter) = asked.next(self.lot.queue.as_ref(), &apply.id).await? else {
                more = false;
                break;
            };
            // Left over from a transaction that was lost: the target has another version of that key (invariant 5).
            match self.lot.is_parked(&letter) {
                true => letters.push(letter),
                false => self.lot.purge(&[letter], self.marker.offset).await?,
            }
        }
        let decided = letters.len();
        if asked.again && decided > 0 {
            self.write_again(apply, letters).await?;
        } else if decided > 0 {
            let marker = Marker { writes: self.marker.writes + 1, ..self.marker.clone() };
            let unpark = letters.into_iter().map(|letter| (letter.change.table().clone(), letter.key)).collect();
            self.commit(apply, marker, Vec::new(), unpark, None, BY_PERSON).await?;
        }
        asked.done(decided);
        Ok(more)
    }
}
