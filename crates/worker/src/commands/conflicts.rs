//! `sync-worker conflicts`: what two-way pipelines have decided, and what a person decides otherwise.

use crate::cli;
use crate::client::Client;
use crate::config::Configuration;
use crate::outcome::Outcome;
use crate::output::say;
use serde_json::json;
use sync_worker_api::wire::{
    Changed, Choice, Conflict, ConflictId, ConflictList, Conflicts, Count, Decide, Replayed, Version, WhatIf,
};
use sync_worker_core::ledger::{FLIP_FLOP, UNFIT};

/// As many as the worker lists.
const MOST_LISTED: usize = 10_000;

/// Which conflicts are listed of each pipeline: all, unless it says otherwise.
#[derive(Debug, Default)]
pub struct Filter {
    pub pipeline: Option<String>,
    pub table: Option<String>,
    pub open: bool,
    /// None: as many as the worker shows.
    pub limit: Option<usize>,
}

/// Ends with problems when one of those shown waits for a person.
pub async fn list(config: &Configuration, filter: &Filter, json: bool) -> anyhow::Result<Outcome> {
    let client = Client::new(config.http)?;
    let (mut any, mut open, mut items) = (false, false, Vec::new());
    for pipeline in pipelines(config, filter.pipeline.as_deref())? {
        let (table, limit) = (filter.table.clone(), filter.limit);
        let asked = Conflicts { pipeline: pipeline.to_owned(), table, open: filter.open, before: None, limit };
        let list: ConflictList = client.get("/sync/conflicts", &asked).await?;
        any |= !list.conflicts.is_empty();
        open |= list.conflicts.iter().any(|conflict| conflict.open);
        if json {
            items.push(json!({ "pipeline": pipeline, "conflicts": list.conflicts }));
        } else {
            list.conflicts.iter().for_each(|conflict| say!("{pipeline} {}", line(conflict)));
        }
    }
    if json {
        say!("{}", serde_json::to_string_pretty(&items)?);
    } else if !any {
        say!("none");
    }
    Ok(if open { Outcome::Problems } else { Outcome::Done })
}

pub async fn show(config: &Configuration, id: i64, pipeline: Option<&str>, json: bool) -> anyhow::Result<Outcome> {
    let client = Client::new(config.http)?;
    let (pipeline, conflict) = find(&client, config, id, pipeline).await?;
    if json {
        say!("{}", serde_json::to_string_pretty(&json!({ "pipeline": pipeline, "conflict": conflict }))?);
        return Ok(Outcome::Done);
    }
    say!("{pipeline} {}", line(&conflict));
    say!("at offset {}, {}", conflict.offset, conflict.time);
    let lines = side_by_side(&conflict);
    let width = |at: usize| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or(0);
    let (first, second, third, fourth) = (width(0), width(1), width(2), width(3));
    for [column, winner, loser, stands, now] in &lines {
        let line = format!("{column:first$}  {winner:second$}  {loser:third$}  {stands:fourth$}  {now}");
        say!("{}", line.trim_end());
    }
    if let Some(why) = &conflict.now_unknown {
        say!("as it is now it can't be shown: {why}");
    }
    if conflict.open {
        say!("{}", advice(&conflict));
    }
    Ok(Outcome::Done)
}

pub async fn decide(
    config: &Configuration,
    id: i64,
    pipeline: Option<&str>,
    choice: Choice,
    now: Option<String>,
    json: bool,
) -> anyhow::Result<Outcome> {
    let client = Client::new(config.http)?;
    let (pipeline, conflict) = find(&client, config, id, pipeline).await?;
    let closes = conflict.kind == UNFIT || matches!(choice, Choice::Keep);
    let asked = Decide { pipeline: pipeline.to_owned(), id, choice, now };
    let done: Count = client.post("/sync/conflicts/decide", &asked).await?;
    match json {
        true => say!("{}", serde_json::to_string(&done)?),
        false if closes => say!("closed"),
        false => say!("decided; every member gets it"),
    }
    Ok(Outcome::Done)
}

/// Ends well whatever would change.
pub async fn what_if(
    config: &Configuration,
    only: Option<&str>,
    table: Option<String>,
    rules: cli::OtherRules,
    json: bool,
) -> anyhow::Result<Outcome> {
    let client = Client::new(config.http)?;
    let priority = Some(rules.priority.join(",")).filter(|priorities| !priorities.is_empty());
    // One that is refused is told before anything is printed.
    let mut answers = Vec::new();
    for pipeline in pipelines(config, only)? {
        let asked = WhatIf {
            pipeline: pipeline.to_owned(),
            table: table.clone(),
            strategy: rules.strategy.clone(),
            on_delete: rules.on_delete.clone(),
            priority: priority.clone(),
            limit: Some(MOST_LISTED),
        };
        let answer: Replayed = client.get("/sync/conflicts/what-if", &asked).await?;
        answers.push((pipeline, answer));
    }
    if json {
        let items = answers.iter().map(|(pipeline, answer)| {
            let Replayed { looked_at, would_change, unknown, changed } = answer;
            json!({
                "pipeline": pipeline,
                "looked_at": looked_at,
                "would_change": would_change,
                "unknown": unknown,
                "changed": changed,
            })
        });
        say!("{}", serde_json::to_string_pretty(&items.collect::<Vec<_>>())?);
        return Ok(Outcome::Done);
    }
    let (mut looked_at, mut would_change, mut unknown) = (0, 0, 0);
    for (pipeline, answer) in &answers {
        answer.changed.iter().for_each(|changed| say!("{pipeline} {}", would_be(changed)));
        let older = answer.would_change.saturating_sub(answer.changed.len() as u64);
        if older > 0 {
            say!("{pipeline} has {older} older ones that would change, too");
        }
        looked_at += answer.looked_at;
        would_change += answer.would_change;
        unknown += answer.unknown;
    }
    say!("{looked_at} looked at, {would_change} would change, {unknown} cannot be told");
    Ok(Outcome::Done)
}

impl From<cli::Choice> for Choice {
    /// The command line takes exactly one.
    fn from(choice: cli::Choice) -> Self {
        match choice.row {
            Some(row) => Choice::Row(row),
            None if choice.loser => Choice::Loser,
            None if choice.keep => Choice::Keep,
            None => Choice::Winner,
        }
    }
}

/// The two-way pipelines that are meant.
fn pipelines<'c>(config: &'c Configuration, only: Option<&str>) -> anyhow::Result<Vec<&'c str>> {
    let two_way = config.pipelines.iter().filter(|plan| plan.two_way.is_some()).map(|plan| plan.name.as_str());
    let found: Vec<&str> = two_way.filter(|name| only.is_none_or(|only| only == *name)).collect();
    match (found.is_empty(), only) {
        (true, Some(only)) => anyhow::bail!("the configuration has no two-way pipeline {only:?}"),
        (true, None) => anyhow::bail!("the configuration has no two-way pipeline"),
        (false, _) => Ok(found),
    }
}

/// A conflict and its pipeline: its number is that of one alone.
async fn find<'c>(
    client: &Client,
    config: &'c Configuration,
    id: i64,
    only: Option<&str>,
) -> anyhow::Result<(&'c str, Conflict)> {
    for pipeline in pipelines(config, only)? {
        let asked = ConflictId { pipeline: pipeline.to_owned(), id };
        let found: Option<Conflict> = client.get("/sync/conflicts/show", &asked).await?;
        if let Some(conflict) = found {
            return Ok((pipeline, conflict));
        }
    }
    anyhow::bail!("there is no conflict {id}; `sync-worker conflicts` lists them")
}

/// Whether it is about a version that its member refuses.
fn is_refusal(conflict: &Conflict) -> bool {
    conflict.kind == UNFIT && conflict.column.is_none()
}

fn line(conflict: &Conflict) -> String {
    let Conflict { id, table, key, kind, strategy, winner, .. } = conflict;
    let state = match (&conflict.decided_by, &conflict.decided_at) {
        _ if conflict.open => ", open".to_owned(),
        (Some(by), Some(at)) => format!(", closed by {by} at {at}"),
        _ => String::new(),
    };
    if let Some(at) = conflict.at.as_ref().filter(|_| is_refusal(conflict)) {
        return format!("{id} {table} {key} {kind}: {at} refuses the version of offset {}{state}", conflict.offset);
    }
    if kind == UNFIT {
        let column = conflict.column.as_deref().unwrap_or_default();
        return format!("{id} {table} {key} {kind}: column {column} of {} has no place at others{state}", who(winner));
    }
    let column = conflict.column.as_ref().map(|column| format!(" column {column}")).unwrap_or_default();
    let over = match (&conflict.loser, &conflict.at) {
        (_, Some(at)) => format!(" over what {at} held"),
        (Some(loser), None) => format!(" over {}", who(loser)),
        (None, None) => String::new(),
    };
    format!("{id} {table} {key}{column} {kind}: {} by {strategy}{over}{state}", who(winner))
}

fn would_be(changed: &Changed) -> String {
    let Changed { conflict, strategy, open, .. } = changed;
    let would = match &conflict.loser {
        Some(loser) if changed.loser_wins => {
            let waits = if *open { " and wait for a person" } else { "" };
            format!("be {} by {strategy}{waits}", who(loser))
        }
        Some(_) | None => "wait for a person".to_owned(),
    };
    format!("{}, would {would}", line(conflict))
}

/// What may be done about an open entry.
fn advice(conflict: &Conflict) -> String {
    let decide = format!("`sync-worker conflicts decide {}`", conflict.id);
    let changed = conflict.now.as_ref().filter(|now| now.changed);
    match (&conflict.kind[..], changed) {
        (UNFIT, _) => format!("{decide} with --winner closes it"),
        (FLIP_FLOP, _) => format!("{decide} with --winner, --loser or --row decides about it"),
        (_, Some(now)) => format!(
            "the row has changed since: {decide} with --now {} and one of --winner, --loser or --row decides over the row \
             as it is now, and --keep leaves it so",
            now.image
        ),
        (_, None) => format!("{decide} with --winner, --loser, --row or --keep decides about it"),
    }
}

fn who(version: &Version) -> &str {
    match &version.by {
        _ if version.merged => "a merged row",
        Some(by) => by,
        None => "a person",
    }
}

/// Column, winner, loser, the row that was merged of both, and the row as it is now.
fn side_by_side(conflict: &Conflict) -> Vec<[String; 5]> {
    let (loser, stands) = (conflict.loser.as_ref(), conflict.stands.as_ref());
    let title = |version: &Version, what: &str| match is_refusal(conflict) {
        true => "refused".to_owned(),
        false => format!("{} ({what})", who(version)),
    };
    let loses = loser.map(|loser| title(loser, "loser")).unwrap_or_default();
    let committed = loser.map(|loser| loser.commit_time.clone()).unwrap_or_default();
    let mut lines = vec![
        [
            String::new(),
            title(&conflict.winner, "winner"),
            loses,
            stands.map(|_| "stands".to_owned()).unwrap_or_default(),
            conflict.now.as_ref().map(|now| format!("now, at {}", now.at)).unwrap_or_default(),
        ],
        ["committed".to_owned(), conflict.winner.commit_time.clone(), committed, String::new(), String::new()],
    ];
    let columns = conflict.columns.iter().map(|column| {
        let loses = loser.map(|loser| cell(loser.row.as_ref(), column)).unwrap_or_default();
        let stands = stands.map(|row| cell(Some(row), column)).unwrap_or_default();
        let now = conflict.now.as_ref().map(|now| cell(now.row.as_ref(), column)).unwrap_or_default();
        [column.clone(), cell(conflict.winner.row.as_ref(), column), loses, stands, now]
    });
    lines.extend(columns);
    lines
}

fn cell(row: Option<&serde_json::Value>, column: &str) -> String {
    match row {
        Some(row) => row.get(column).map_or_else(|| "not known".to_owned(), ToString::to_string),
        None => "deleted".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sync_worker_api::wire::Now;

    fn version(by: Option<&str>, row: serde_json::Value) -> Version {
        let row = Some(row).filter(|row| !row.is_null());
        Version { by: by.map(str::to_owned), merged: false, commit_time: "2024-02-29T00:00:00.000000Z".to_owned(), row }
    }

    fn conflict() -> Conflict {
        Conflict {
            id: 7,
            table: "customer".to_owned(),
            key: json!({ "id": 1 }),
            column: None,
            kind: "update_deleted".to_owned(),
            strategy: "on_delete".to_owned(),
            columns: vec!["id".to_owned(), "name".to_owned()],
            winner: version(Some("crm"), json!(null)),
            loser: Some(version(Some("shop"), json!({ "id": 1, "name": "Ann" }))),
            stands: None,
            now: None,
            now_unknown: None,
            at: None,
            offset: 4711,
            time: "2024-02-29T00:00:01.000000Z".to_owned(),
            open: true,
            decided_by: None,
            decided_at: None,
        }
    }

    #[test]
    fn a_conflict_is_a_line() {
        let open = conflict();
        assert_eq!(line(&open), "7 customer {\"id\":1} update_deleted: crm by on_delete over shop, open");
        let (seed, change) = ("seed".to_owned(), "change".to_owned());
        let seeded = Conflict { kind: seed, strategy: change, open: false, ..conflict() };
        assert_eq!(line(&seeded), "7 customer {\"id\":1} seed: crm by change over shop");
        let (by, at) = (Some("a person".to_owned()), Some("2024-03-01T00:00:00.000000Z".to_owned()));
        let drift = Conflict {
            loser: None,
            at: Some("shop".to_owned()),
            kind: "drift".to_owned(),
            open: false,
            decided_by: by,
            decided_at: at,
            ..open
        };
        let expected = "7 customer {\"id\":1} drift: crm by on_delete over what shop held, \
                        closed by a person at 2024-03-01T00:00:00.000000Z";
        assert_eq!(line(&drift), expected);
    }

    #[test]
    fn a_refusal_names_who_refuses() {
        let at = Some("shop".to_owned());
        let refused = Conflict { kind: UNFIT.to_owned(), loser: None, at, ..conflict() };
        assert_eq!(line(&refused), "7 customer {\"id\":1} constraint: shop refuses the version of offset 4711, open");
        assert_eq!(side_by_side(&refused)[0], ["", "refused", "", "", ""]);
    }

    #[test]
    fn another_outcome_stands_behind_the_one_on_record() {
        let would = |loser_wins, open| {
            let strategy = if open { "manual" } else { "priority" }.to_owned();
            would_be(&Changed { conflict: Conflict { open: false, ..conflict() }, loser_wins, strategy, open })
        };
        let on_record = "7 customer {\"id\":1} update_deleted: crm by on_delete over shop";
        assert_eq!(would(true, false), format!("{on_record}, would be shop by priority"));
        assert_eq!(would(true, true), format!("{on_record}, would be shop by manual and wait for a person"));
        assert_eq!(would(false, true), format!("{on_record}, would wait for a person"));
    }

    #[test]
    fn versions_stand_side_by_side() {
        let lines = side_by_side(&conflict());
        assert_eq!(lines[0], ["", "crm (winner)", "shop (loser)", "", ""]);
        assert_eq!(lines[2..], [["id", "deleted", "1", "", ""], ["name", "deleted", "\"Ann\"", "", ""]]);
        let merged = Conflict { stands: Some(json!({ "id": 1, "name": "Bob" })), ..conflict() };
        let lines = side_by_side(&merged);
        assert_eq!((&lines[0][3][..], &lines[3][3][..]), ("stands", "\"Bob\""));
        let now = |row| Some(Now { at: "crm".to_owned(), row, image: "3f".to_owned(), changed: true });
        let lines = side_by_side(&Conflict { now: now(Some(json!({ "id": 1, "name": "Eve" }))), ..conflict() });
        assert_eq!((&lines[0][4][..], &lines[3][4][..]), ("now, at crm", "\"Eve\""));
        let gone = Conflict { now: now(None), ..conflict() };
        assert_eq!(side_by_side(&gone)[3][4], "deleted");
        assert!(advice(&gone).contains("--now 3f"), "{}", advice(&gone));
        let stopped = Conflict { kind: FLIP_FLOP.to_owned(), ..gone };
        assert!(
            !advice(&stopped).contains("--now") && !advice(&stopped).contains("--keep"),
            "a version must be written"
        );
    }
}
