//! `sync-worker dead-letters`: rows that a target has refused for good, and what a person decides about them.

use crate::cli;
use crate::client::Client;
use crate::config::Configuration;
use crate::outcome::Outcome;
use crate::output::say;
use serde_json::json;
use sync_worker_api::wire::{Count, Letter, LetterList, Letters};

/// Which dead letters are listed: all, unless it says otherwise.
#[derive(Debug, Default)]
pub struct Filter {
    pub pipeline: Option<String>,
    pub database: Option<String>,
    pub waiting: bool,
}

/// Ends with problems when there are any.
pub async fn list(config: &Configuration, filter: &Filter, json: bool) -> anyhow::Result<Outcome> {
    let client = Client::new(config.http)?;
    let targets = targets(config, filter);
    if targets.is_empty() {
        anyhow::bail!("no pipeline of the configuration has such a target");
    }
    let (mut any, mut items) = (false, Vec::new());
    for (pipeline, database) in targets {
        let asked = Letters { pipeline, database, offset: None, waiting: filter.waiting };
        let list: LetterList = client.get("/sync/dead-letters", &asked).await?;
        any |= !list.letters.is_empty();
        if json {
            items.push(json!({ "pipeline": asked.pipeline, "database": asked.database, "letters": list.letters }));
        } else {
            list.letters.iter().for_each(|letter| say!("{} {} {}", asked.pipeline, asked.database, line(letter)));
        }
    }
    if json {
        say!("{}", serde_json::to_string_pretty(&items)?);
    } else if !any {
        say!("none");
    }
    Ok(if any { Outcome::Problems } else { Outcome::Done })
}

/// The targets that the filter leaves, each with its pipeline.
fn targets(config: &Configuration, filter: &Filter) -> Vec<(String, String)> {
    let wanted = |filter: &Option<String>, name: &str| filter.as_deref().is_none_or(|filter| filter == name);
    let pipelines = config.pipelines.iter().filter(|plan| wanted(&filter.pipeline, plan.name.as_str()));
    let all = pipelines.flat_map(|plan| plan.targets().map(|target| (plan.name.to_string(), target.to_string())));
    all.filter(|(_, database)| wanted(&filter.database, database)).collect()
}

fn line(letter: &Letter) -> String {
    let Letter { table, key, op, offset, reason, attempts, .. } = letter;
    let state = if letter.dead { "dead" } else { "waits" };
    format!("offset {offset} {table} {op} {key} {state} after {attempts} attempts: {reason}")
}

pub async fn retry(config: &Configuration, which: cli::Letters, json: bool) -> anyhow::Result<Outcome> {
    let done = ask(config, "/sync/dead-letters/retry", which).await?;
    match json {
        true => say!("{}", serde_json::to_string(&done)?),
        false => say!("{} tried again; `sync-worker dead-letters` shows what was refused once more", done.count),
    }
    Ok(Outcome::Done)
}

pub async fn give_up(config: &Configuration, which: cli::Letters, json: bool) -> anyhow::Result<Outcome> {
    let done = ask(config, "/sync/dead-letters/drop", which).await?;
    match json {
        true => say!("{}", serde_json::to_string(&done)?),
        false => say!("{} given up", done.count),
    }
    Ok(Outcome::Done)
}

/// One that is named has to be there.
async fn ask(config: &Configuration, path: &str, which: cli::Letters) -> anyhow::Result<Count> {
    let cli::Letters { pipeline, database, offset, all: _ } = which;
    let place = format!("pipeline {pipeline} at {database}");
    let done: Count =
        Client::new(config.http)?.post(path, &Letters { pipeline, database, offset, waiting: false }).await?;
    if let (0, Some(offset)) = (done.count, offset) {
        anyhow::bail!("{place} has no dead letter at offset {offset}; `sync-worker dead-letters` lists them");
    }
    Ok(done)
}
