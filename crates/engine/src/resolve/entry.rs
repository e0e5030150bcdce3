//! Entries of the conflict ledger.

use super::conflict;
use super::intake::Untaken;
use super::rules::delete_decides;
use super::version::{Member, Origin, Version};
use sync_worker_core::change::Change;
use sync_worker_core::ledger::{BY_CHANGE, Conflict, Contender, NO_TIME, UNFIT};
use sync_worker_core::name::{DatabaseName, PipelineName};
use sync_worker_core::record::{Offset, Partition};
use sync_worker_core::row::{Key, Row};
use sync_worker_core::rules::{Strategy, TableRules};
use sync_worker_core::store::TargetId;

/// What the resolver has decided. `time` is the commit time of the deciding record.
pub fn of(
    pipeline: &PipelineName,
    partition: Partition,
    table: &TableRules,
    name: impl Fn(Member) -> DatabaseName,
    conflict: conflict::Conflict,
    time: i64,
) -> Conflict {
    let key = &conflict.winner.key;
    let contender = |version: &Version| Contender {
        by: version.by.map(&name),
        merged: version.origin == Origin::Merge,
        commit_time: version.commit_time,
        row: version.row.clone(),
    };
    // Nothing was decided about a row that no rule has seen.
    let loser = conflict.loser.as_ref().filter(|_| conflict.at.is_none());
    let deletes =
        loser.is_some_and(|loser| delete_decides(table.on_delete, conflict.winner.row.is_none(), loser.row.is_none()));
    // A copied row loses against a change, whatever the rules.
    let copied = |version: &Version| version.read;
    let by_change = conflict.kind == conflict::Kind::Seed
        && !(copied(&conflict.winner) && conflict.loser.as_deref().is_some_and(copied));
    let column = conflict.column.and_then(|at| table.schema.columns.get(at)).map(|column| column.name.clone());
    let strategy = match (&column, &table.merge) {
        (Some(column), Some(merge)) => merge.strategy_of(column, table.strategy),
        (None, _) | (_, None) => table.strategy,
    };
    let waits = loser.is_some() && strategy == Strategy::Manual && !deletes && !by_change;
    let strategy = match (by_change, deletes) {
        (true, _) => BY_CHANGE,
        (false, true) => table.on_delete.as_str(),
        (false, false) => strategy.as_str(),
    };
    Conflict {
        pipeline: pipeline.clone(),
        partition,
        offset: conflict.offset,
        table: key.table.clone(),
        key: key.key.clone(),
        column,
        kind: conflict.kind.as_str().to_owned(),
        strategy: strategy.to_owned(),
        winner: contender(&conflict.winner),
        loser: conflict.loser.as_deref().map(contender),
        incumbent_won: conflict.incumbent_won,
        stands: conflict.stands.and_then(|version| version.row.clone()),
        at: conflict.at.map(&name),
        schema: table.schema.clone(),
        time,
        open: waits || conflict.kind == conflict::Kind::FlipFlop,
    }
}

/// A row that the others have no place for, in its member's own columns. It waits for a person: the others keep what they
/// have until a row comes that fits.
#[allow(clippy::too_many_arguments)]
pub fn unfit(
    pipeline: &PipelineName,
    partition: Partition,
    offset: Offset,
    time: i64,
    origin: DatabaseName,
    change: &Change,
    column: String,
    strategy: Strategy,
) -> Result<Option<Conflict>, Untaken> {
    let Some(key) = change.key()? else { return Ok(None) };
    let row = change.after.as_ref().map(|row| row.detached());
    Ok(Some(Conflict {
        pipeline: pipeline.clone(),
        partition,
        offset,
        table: change.table().clone(),
        key: key.detached(),
        column: Some(column),
        kind: UNFIT.to_owned(),
        strategy: strategy.as_str().to_owned(),
        winner: Contender { by: Some(origin.clone()), merged: false, commit_time: time, row },
        loser: None,
        incumbent_won: None,
        stands: None,
        at: Some(origin),
        schema: change.schema.clone(),
        time,
        open: true,
    }))
}

/// A version that the target refuses for good. Whose it was is not known there any more; the log has that at its offset.
pub fn refused(target: &TargetId, offset: Offset, key: &Key, change: &Change, now: i64) -> Conflict {
    let row = change.after.as_ref().map(Row::detached);
    Conflict {
        pipeline: target.pipeline.clone(),
        partition: target.partition,
        offset,
        table: change.table().clone(),
        key: key.detached(),
        column: None,
        kind: UNFIT.to_owned(),
        strategy: Strategy::Manual.as_str().to_owned(),
        winner: Contender { by: None, merged: false, commit_time: NO_TIME, row },
        loser: None,
        incumbent_won: None,
        stands: None,
        at: Some(target.database.clone()),
        schema: change.schema.clone(),
        time: now,
        open: true,
    }
}
