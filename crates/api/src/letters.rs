//! Dead letters: looked at, tried again, given up.

use crate::Worker;
use crate::error::Problem;
use crate::wire::{Count, Letter, LetterList, Letters};
use axum::Json;
use axum::extract::{Query, State};
use sync_worker_core::name::DatabaseName;
use sync_worker_core::record::Offset;
use sync_worker_core::store::Deferred;
use sync_worker_engine::envelope;

const MOST_LISTED: usize = 10_000;

pub async fn list(State(worker): State<Worker>, Query(which): Query<Letters>) -> Result<Json<LetterList>, Problem> {
    let pipeline = worker.pipeline(&which.pipeline)?;
    let target = DatabaseName::new(&which.database);
    let mut parked = pipeline.parked(&target, true, MOST_LISTED).await?;
    if which.waiting {
        parked.extend(pipeline.parked(&target, false, MOST_LISTED).await?);
    }
    let letters = parked.iter().map(letter).collect::<Result<_, _>>()?;
    Ok(Json(LetterList { letters }))
}

pub async fn retry(State(worker): State<Worker>, Json(which): Json<Letters>) -> Result<Json<Count>, Problem> {
    let target = DatabaseName::new(&which.database);
    let count = worker.pipeline(&which.pipeline)?.retry(&target, which.offset.map(Offset)).await?;
    Ok(Json(Count { count }))
}

pub async fn give_up(State(worker): State<Worker>, Json(which): Json<Letters>) -> Result<Json<Count>, Problem> {
    let target = DatabaseName::new(&which.database);
    let count = worker.pipeline(&which.pipeline)?.drop_letters(&target, which.offset.map(Offset)).await?;
    Ok(Json(Count { count }))
}

fn letter(deferred: &Deferred) -> Result<Letter, Problem> {
    let key = envelope::key(&deferred.change.schema, &deferred.key);
    Ok(Letter {
        table: deferred.change.table().to_string(),
        key: key.map_err(|damaged| Problem::failed(damaged.to_string()))?,
        op: deferred.change.op.to_string(),
        offset: deferred.offset.0,
        class: deferred.class.as_str().to_owned(),
        reason: deferred.reason.clone(),
        attempts: deferred.attempts,
        dead: deferred.dead,
    })
}
