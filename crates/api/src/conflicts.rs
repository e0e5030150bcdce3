//! The conflict ledger of a two-way pipeline: looked at, and decided about. Rows are shown as they are: that is what it is
//! kept for.

use crate::Worker;
use crate::error::Problem;
use crate::wire::{self, Conflict, ConflictId, ConflictList, Conflicts, Count, Decide, Version};
use axum::Json;
use axum::extract::{Query, State};
use sync_worker_core::ledger::{Contender, Recorded, Wanted};
use sync_worker_core::name::TableName;
use sync_worker_core::schema::Schema;
use sync_worker_core::value::Damaged;
use sync_worker_engine::envelope;
use sync_worker_engine::pipeline::Choice;

const LISTED: usize = 100;
const MOST_LISTED: usize = 10_000;

pub async fn list(State(worker): State<Worker>, Query(which): Query<Conflicts>) -> Result<Json<ConflictList>, Problem> {
    let wanted = Wanted {
        open_only: which.open,
        table: which.table.as_deref().map(TableName::new),
        before: which.before,
        limit: which.limit.unwrap_or(LISTED).min(MOST_LISTED),
    };
    let found = worker.pipeline(&which.pipeline)?.conflicts(&wanted).await?;
    let conflicts = found.iter().map(conflict).collect::<Result<_, _>>()?;
    Ok(Json(ConflictList { conflicts }))
}

pub async fn show(
    State(worker): State<Worker>,
    Query(which): Query<ConflictId>,
) -> Result<Json<Option<Conflict>>, Problem> {
    let found = worker.pipeline(&which.pipeline)?.conflict(which.id).await?;
    Ok(Json(found.as_ref().map(conflict).transpose()?))
}

pub async fn decide(State(worker): State<Worker>, Json(asked): Json<Decide>) -> Result<Json<Count>, Problem> {
    let choice = match asked.choice {
        wire::Choice::Winner => Choice::Winner,
        wire::Choice::Loser => Choice::Loser,
        wire::Choice::Row(row) => Choice::Row(row),
    };
    worker.pipeline(&asked.pipeline)?.decide(asked.id, choice).await?;
    Ok(Json(Count { count: 1 }))
}

fn conflict(recorded: &Recorded) -> Result<Conflict, Problem> {
    let Recorded { id, conflict, decided } = recorded;
    let damaged = |damaged: Damaged| Problem::failed(damaged.to_string());
    let of = |contender: &Contender| version(&conflict.schema, contender).map_err(damaged);
    Ok(Conflict {
        id: *id,
        table: conflict.table.to_string(),
        key: envelope::key(&conflict.schema, &conflict.key).map_err(damaged)?,
        column: conflict.column.clone(),
        kind: conflict.kind.clone(),
        strategy: conflict.strategy.clone(),
        columns: conflict.schema.columns.iter().map(|column| column.name.clone()).collect(),
        winner: of(&conflict.winner)?,
        loser: conflict.loser.as_ref().map(of).transpose()?,
        at: conflict.at.as_ref().map(ToString::to_string),
        offset: conflict.offset.0,
        time: envelope::instant(conflict.time),
        open: conflict.open,
        decided_by: decided.as_ref().map(|(by, _)| by.clone()),
        decided_at: decided.as_ref().map(|(_, at)| envelope::instant(*at)),
    })
}

fn version(schema: &Schema, contender: &Contender) -> Result<Version, Damaged> {
    Ok(Version {
        by: contender.by.as_ref().map(ToString::to_string),
        merged: contender.merged,
        commit_time: envelope::instant(contender.commit_time),
        row: contender.row.as_ref().map(|row| envelope::row(schema, row)).transpose()?,
    })
}
