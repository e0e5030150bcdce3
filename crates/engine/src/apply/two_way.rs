//! What a two-way session does beside a one-way one: the proof of the echo, the ledger, checkpoints.

use super::seeds::Copies;
use super::{Apply, PATIENCE, Session};
use crate::clock::now_micros;
use crate::failure::{EngineError, timed};
use crate::publish::Shown;
use crate::resolve::applier::{Checkpoints, TwoWayParts};
use crate::status::PausedTable;
use std::collections::BTreeMap;
use std::time::Duration;
use sync_worker_core::database::Database;
use sync_worker_core::error::Result;
use sync_worker_core::ledger::{FLIP_FLOP, ResolverCheckpoint, UNFIT};
use sync_worker_core::name::{DatabaseName, TableName};
use sync_worker_core::record::Offset;
use sync_worker_core::sink::{Progress, Sink};
use sync_worker_core::store::TargetId;
use tokio::sync::watch;
use tokio::time::Instant;

/// How long the proof may take that what is written comes back as an echo, and how soon it is tried again at first and in
/// the end.
const PROOF: Duration = Duration::from_secs(60);
const PROOF_AGAIN: Duration = Duration::from_millis(250);
const PROOF_AGAIN_AT_LAST: Duration = Duration::from_secs(4);

/// Entries in one transaction of the ledger.
const RECORDED_AT_A_TIME: usize = 4_096;

/// What a two-way session has beside a one-way one.
pub(super) struct Resolving {
    pub(super) parts: TwoWayParts,
    pub(super) checkpoints: Checkpoints,
    pub(super) copies: Copies,
}

/// Shows that what is written to the target comes back as an echo and not as changes (invariant 4): the take-over is such
/// a write. It is made again now and then, since a capture that has just begun has not seen the first. A capture that has yet
/// to come to what was written before has all the time that it takes, as long as it goes on.
pub(super) async fn prove(
    sink: &mut dyn Sink,
    log: &str,
    (id, database): (&TargetId, &dyn Database),
    mut shown: watch::Receiver<Shown>,
    asked: &mut u64,
) -> Result<Progress> {
    let ahead = timed("the target", PATIENCE, database.clock_ahead()).await?.unwrap_or(0);
    let begun = now_micros() + ahead;
    let before = shown.borrow_and_update().echoes;
    let mut until = Instant::now() + PROOF;
    let mut again = PROOF_AGAIN;
    loop {
        *asked += 1;
        let progress = timed("the target", PATIENCE, sink.take_over(log)).await?;
        let up_to = shown.borrow().up_to;
        let seen =
            tokio::time::timeout(again, shown.wait_for(|shown| shown.echoes > before)).await.map(|seen| seen.is_ok());
        let catches_up = (up_to + 1..begun).contains(&shown.borrow().up_to);
        match seen {
            Ok(true) => return Ok(progress),
            Ok(false) => return Err(EngineError::Stopped("the target's capture has ended").into()),
            Err(_) if catches_up || Instant::now() < until => {
                again = (again * 2).min(PROOF_AGAIN_AT_LAST);
                if catches_up {
                    until = Instant::now() + PROOF;
                }
            }
            Err(_) => {
                let text = format!(
                    "what pipeline {} writes to {} does not come back in its change stream within {} s, so it would be taken for changes: see whether its capture runs (sync-worker status), and whether filters or the publication leave the tables sync_worker.progress and sync_worker.parked out",
                    id.pipeline,
                    id.database,
                    PROOF.as_secs()
                );
                return Err(EngineError::Configuration(text).into());
            }
        }
    }
}

impl Session {
    /// Two-way, once the target has everything up to an offset: puts conflicts on record and the resolver's state aside.
    /// What rests on records that could still be lost waits for them.
    pub(super) async fn keep_up(&mut self, apply: &Apply, up_to: Offset) -> Result<()> {
        let Some(resolving) = &mut self.resolving else { return Ok(()) };
        let Some(stage) = self.assembler.stage() else { return Ok(()) };
        stage.is_sound()?;
        let under_way = i64::try_from(stage.entries()).unwrap_or(i64::MAX);
        // Nothing is at rest before the conflicts are on record.
        if under_way > 0 {
            apply.metrics.under_way.set(under_way);
        }
        if stage.pauses_changed() {
            let paused = stage.paused().iter().map(|(table, paused)| PausedTable {
                table: table.to_string(),
                offset: paused.offset.0,
                reason: paused.reason.clone(),
            });
            let paused: Vec<PausedTable> = paused.collect();
            for PausedTable { table, offset, reason } in &paused {
                tracing::error!(pipeline = %apply.id.pipeline, database = %apply.id.database, table, offset, reason, "the table is paused; mend it, then `sync-worker resume`");
            }
            apply.metrics.paused.set(i64::try_from(paused.len()).unwrap_or(i64::MAX));
            apply.status.update(|status| status.paused = paused);
        }
        for (table, reason) in stage.take_unfit() {
            tracing::warn!(pipeline = %apply.id.pipeline, database = %apply.id.database, %table, reason, "a row has no place at the other members; it is on record");
        }
        for (table, rows) in stage.take_unseen() {
            tracing::warn!(pipeline = %apply.id.pipeline, database = %apply.id.database, %table, rows, "rows of a paused table stay as they were written meanwhile; `sync-worker verify --repair --from` makes members equal");
        }
        for decided in stage.take_decided() {
            // Nobody may have asked in this life.
            drop(resolving.parts.decided.send(decided));
        }
        let (conflicts, echoed) = (stage.take_conflicts(), stage.echoed);
        let due = resolving.checkpoints.are_due(stage);
        if !conflicts.is_empty() {
            resolving.copies.differed(&conflicts);
            if let Some(last) = conflicts.last() {
                self.lot.flushed(last.offset).await?;
            }
            let mut drifted: BTreeMap<(TableName, DatabaseName), usize> = BTreeMap::new();
            let mut conflicts = conflicts.into_iter();
            // A transaction can be full of them.
            while conflicts.len() > 0 {
                let some = conflicts.by_ref().take(RECORDED_AT_A_TIME).collect();
                // Every applier comes to the same conflicts, and once more after a restart; who records them tells and counts them.
                for conflict in resolving.parts.ledger.record(some).await? {
                    let winner = conflict.winner.by.as_ref().filter(|_| !conflict.winner.merged);
                    let merged = if conflict.winner.merged { "merged" } else { "" };
                    let winner = winner.map_or(merged, DatabaseName::as_str);
                    apply.metrics.conflict(&conflict.kind, &conflict.strategy, winner);
                    if conflict.kind == FLIP_FLOP {
                        let (table, offset) = (&conflict.table, conflict.offset.0);
                        tracing::error!(pipeline = %apply.id.pipeline, %table, offset, "members undo each other's writes of a row; its key stands still until `sync-worker conflicts decide`");
                    }
                    if let Some(at) = conflict.at.filter(|_| conflict.kind != UNFIT) {
                        *drifted.entry((conflict.table, at)).or_default() += 1;
                    }
                }
            }
            for ((table, at), rows) in drifted {
                tracing::warn!(pipeline = %apply.id.pipeline, %table, %at, rows, "rows are none that their member's stream explains; they are on record and corrected");
            }
        }
        apply.metrics.under_way.set(under_way);
        if due && let Some((offset, state)) = self.assembler.state()? {
            self.lot.flushed(offset).await?;
            let log = apply.bus.identity().to_owned();
            let checkpoint = ResolverCheckpoint { offset, rests_on: self.marker.offset, log, state };
            resolving.checkpoints.save(apply.bus.as_ref(), checkpoint, echoed).await?;
        }
        self.report_seeds(apply, up_to);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::PARTITION;
    use std::path::PathBuf;
    use sync_worker_core::database::Scope;
    use sync_worker_testkit::memory::MemoryDatabase;

    /// Proves the echo of a member whose stream shows so many older transactions first, one every second, and then ours, if
    /// at all. How many seconds that takes.
    async fn proved(backlog: i64, echoes: bool) -> Option<u64> {
        let database = MemoryDatabase::new("a", &[]);
        database.set_clock_ahead(Some(-5_000_000));
        let scope = Scope {
            installation: "i".into(),
            pipeline: "p".into(),
            tables: Vec::new(),
            two_way: true,
            spill: PathBuf::new(),
        };
        let mut sink = database.sink(&scope).await.unwrap();
        let (sender, shown) = watch::channel(Shown::default());
        let now = now_micros() - 5_000_000;
        let capture = tokio::spawn(async move {
            for left in (1..=backlog).rev() {
                sender.send_modify(|shown| shown.up_to = now - left * 1_000);
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            sender.send_modify(|shown| shown.echoes += u64::from(echoes));
            std::future::pending::<()>().await;
        });
        let id = TargetId { pipeline: "p".into(), partition: PARTITION, database: "a".into() };
        let begun = Instant::now();
        let proved = prove(sink.as_mut(), "log", (&id, &database), shown, &mut 0).await;
        capture.abort();
        proved.ok().map(|_| begun.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_catches_up_has_time_to_show_the_echo() {
        assert_eq!(proved(0, true).await, Some(0));
        assert_eq!(proved(600, true).await, Some(600));
        assert_eq!(proved(600, false).await, None, "it has caught up and shown none");
    }
}
