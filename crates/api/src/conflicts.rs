//! The conflict ledger of a two-way pipeline: looked at, and decided about. Rows are shown as they are: that is what it is
//! kept for.

use crate::Worker;
use crate::error::Problem;
use crate::wire::{
    self, Changed, Conflict, ConflictId, ConflictList, Conflicts, Count, Decide, Replayed, Version, WhatIf,
};
use axum::Json;
use axum::extract::{Query, State};
use std::collections::BTreeMap;
use sync_worker_core::guard::Image;
use sync_worker_core::ledger::{Contender, NO_TIME, Recorded, Wanted};
use sync_worker_core::name::{DatabaseName, TableName};
use sync_worker_core::rules::{OnDelete, Strategy};
use sync_worker_core::schema::Schema;
use sync_worker_core::value::Damaged;
use sync_worker_engine::envelope;
use sync_worker_engine::pipeline::{Choice, Over, stands};
use sync_worker_engine::what_if::{Instead, Would};

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
    let pipeline = worker.pipeline(&which.pipeline)?;
    let Some(found) = pipeline.conflict(which.id).await? else { return Ok(Json(None)) };
    let mut shown = conflict(&found)?;
    match pipeline.row_now(&found.conflict).await {
        Ok(now) => {
            let row = now.row.as_ref().map(|row| envelope::row(&found.conflict.schema, row)).transpose();
            let row = row.map_err(|damaged| Problem::failed(damaged.to_string()))?;
            let (at, image) = (now.at.to_string(), now.image());
            let changed = image != Image::of(stands(&found.conflict));
            shown.now = Some(wire::Now { at, row, image: image.to_string(), changed });
        }
        // Nobody who can be asked takes nothing from what is on record.
        Err(error) => shown.now_unknown = Some(error.to_string()),
    }
    Ok(Json(Some(shown)))
}

pub async fn decide(State(worker): State<Worker>, Json(asked): Json<Decide>) -> Result<Json<Count>, Problem> {
    let pipeline = worker.pipeline(&asked.pipeline)?;
    let choice = match asked.choice {
        wire::Choice::Winner => Choice::Winner,
        wire::Choice::Loser => Choice::Loser,
        wire::Choice::Row(row) => Choice::Row(row),
        wire::Choice::Keep => {
            pipeline.keep(asked.id).await?;
            return Ok(Json(Count { count: 1 }));
        }
    };
    let strange = |_| Problem::bad_request("now takes the image of a row, as `conflicts show` has it");
    let over = match asked.now.as_deref().map(str::parse).transpose().map_err(strange)? {
        Some(image) => Over::Now(image),
        None => Over::Entry,
    };
    pipeline.decide(asked.id, choice, over).await?;
    Ok(Json(Count { count: 1 }))
}

pub async fn what_if(State(worker): State<Worker>, Query(which): Query<WhatIf>) -> Result<Json<Replayed>, Problem> {
    let instead = instead(&which)?;
    let limit = which.limit.unwrap_or(LISTED).min(MOST_LISTED);
    let table = which.table.as_deref().map(TableName::new);
    let replayed = worker.pipeline(&which.pipeline)?.what_if(table, &instead, limit).await?;
    Ok(Json(Replayed {
        looked_at: replayed.looked_at,
        would_change: replayed.would_change,
        unknown: replayed.unknown,
        changed: replayed.changed.iter().map(changed).collect::<Result<_, _>>()?,
    }))
}

fn instead(which: &WhatIf) -> Result<Instead, Problem> {
    let strategy = which.strategy.as_deref();
    let strategy = strategy.map(|text| word("strategy", text, Strategy::ALL, Strategy::as_str)).transpose()?;
    let on_delete = which.on_delete.as_deref();
    let on_delete = on_delete.map(|text| word("on_delete", text, OnDelete::ALL, OnDelete::as_str)).transpose()?;
    let priorities = which.priority.as_deref().map(priorities).transpose()?.unwrap_or_default();
    if strategy.is_none() && on_delete.is_none() && priorities.is_empty() {
        return Err(Problem::bad_request("a strategy, on_delete or a priority is asked for, and none was given"));
    }
    Ok(Instead { strategy, on_delete, priorities })
}

fn word<T: Copy, const N: usize>(
    name: &str,
    text: &str,
    all: [T; N],
    as_str: fn(T) -> &'static str,
) -> Result<T, Problem> {
    let known = || Problem::bad_request(format!("{name} takes {}, not {text:?}", all.map(as_str).join(", ")));
    all.into_iter().find(|one| as_str(*one) == text).ok_or_else(known)
}

fn priorities(text: &str) -> Result<BTreeMap<DatabaseName, i64>, Problem> {
    let mut priorities = BTreeMap::new();
    for part in text.split(',') {
        let unfit = || Problem::bad_request(format!("{part:?} is no priority: write crm=10 for that of member crm"));
        let (member, priority) = part.split_once('=').ok_or_else(unfit)?;
        let priority: i64 = priority.parse().map_err(|_| unfit())?;
        if priorities.insert(DatabaseName::new(member), priority).is_some() {
            return Err(Problem::bad_request(format!("there are two priorities of member {member}")));
        }
    }
    Ok(priorities)
}

fn changed((recorded, would): &(Recorded, Would)) -> Result<Changed, Problem> {
    let conflict = conflict(recorded)?;
    Ok(Changed { conflict, loser_wins: would.loser_wins, strategy: would.by.to_owned(), open: would.open })
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
        stands: conflict
            .stands
            .as_ref()
            .map(|row| envelope::row(&conflict.schema, row))
            .transpose()
            .map_err(damaged)?,
        now: None,
        now_unknown: None,
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
        commit_time: Some(contender.commit_time)
            .filter(|time| *time != NO_TIME)
            .map(envelope::instant)
            .unwrap_or_default(),
        row: contender.row.as_ref().map(|row| envelope::row(schema, row)).transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(strategy: Option<&str>, on_delete: Option<&str>, priority: Option<&str>) -> Result<Instead, Problem> {
        let text = |text: Option<&str>| text.map(str::to_owned);
        let (strategy, on_delete, priority) = (text(strategy), text(on_delete), text(priority));
        instead(&WhatIf { strategy, on_delete, priority, ..WhatIf::default() })
    }

    #[test]
    fn other_rules_are_the_words_of_the_configuration() {
        for strategy in Strategy::ALL {
            assert_eq!(asked(Some(strategy.as_str()), None, None).unwrap().strategy, Some(strategy));
        }
        for on_delete in OnDelete::ALL {
            assert_eq!(asked(None, Some(on_delete.as_str()), None).unwrap().on_delete, Some(on_delete));
        }
        let priorities = asked(None, None, Some("crm=10,shop=-5")).unwrap().priorities;
        assert_eq!(priorities, BTreeMap::from([("crm".into(), 10), ("shop".into(), -5)]));
    }

    #[test]
    fn what_no_rule_is_is_refused_by_name() {
        for (strategy, on_delete, priority, part) in [
            (None, None, None, "none was given"),
            (Some("merge"), None, None, "strategy takes timestamp, first_write, priority, reject, manual, not"),
            (None, Some("wins"), None, "on_delete takes delete_wins, update_wins, by_strategy, not"),
            (None, None, Some("crm"), "is no priority"),
            (None, None, Some("crm=high"), "is no priority"),
            (None, None, Some("crm=1,crm=2"), "there are two priorities of member crm"),
        ] {
            let refused = asked(strategy, on_delete, priority).unwrap_err();
            assert!(format!("{refused:?}").contains(part), "{refused:?}");
        }
    }
}
