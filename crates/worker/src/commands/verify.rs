//! `sync-worker verify`: source and targets compared in full, and repaired through the running worker.

use crate::client::Client;
use crate::commands::scope_of;
use crate::config::Configuration;
use crate::outcome::Outcome;
use crate::output::say;
use crate::wiring;
use indicatif::ProgressBar;
use serde_json::json;
use std::io::IsTerminal;
use std::time::Duration;
use sync_worker_api::wire::{Count, Repair, to_hex};
use sync_worker_core::name::DatabaseName;
use sync_worker_core::row::Key;
use sync_worker_engine::envelope;
use sync_worker_engine::pipeline::Plan;
use sync_worker_engine::verify::{Side, TableReport, VerifySettings, verify as compare};

/// Keys shown per table.
const SHOWN: usize = 20;

/// Keys in one request to the worker, and about how many bytes of them unless one key alone is larger.
const REPAIRED_AT_A_TIME: usize = 1_000;
const REPAIRED_BYTES: usize = 1 << 20;

pub struct Options {
    /// All pipelines when None.
    pub pipeline: Option<String>,
    pub repair: bool,
    /// Which member is compared with all others, where it is not the source, the seed or the first.
    pub from: Option<String>,
    /// For differences that are on their way.
    pub patience: Duration,
    pub json: bool,
}

pub async fn verify(config: &Configuration, options: &Options) -> anyhow::Result<Outcome> {
    let databases = wiring::databases(config)?;
    let plans = &config.pipelines;
    if let Some(name) = &options.pipeline
        && !plans.iter().any(|plan| plan.name.as_str() == name)
    {
        anyhow::bail!("there is no pipeline {name:?}");
    }
    if options.repair {
        let named = |plan: &&Plan| options.pipeline.as_deref().is_none_or(|name| plan.name.as_str() == name);
        plans.iter().filter(named).try_for_each(|plan| is_alone(config, plan))?;
    }
    let client = Client::new(config.http)?;
    let mut equal = true;
    let mut items = Vec::new();
    for plan in plans.iter().filter(|plan| options.pipeline.as_deref().is_none_or(|name| plan.name.as_str() == name)) {
        let plan = &compared_from(plan, options)?;
        for target in &plan.to {
            let (Some(here), Some(there)) = (databases.get(&plan.from), databases.get(target)) else { continue };
            let source = Side { database: here.as_ref(), scope: scope_of(config, plan, &plan.from) };
            let target_side = Side { database: there.as_ref(), scope: scope_of(config, plan, target) };
            let mut reports = look(plan, &source, &target_side, options, options.patience).await?;
            if options.repair && reports.iter().any(|report| !report.differing.is_empty()) {
                for report in reports.iter().filter(|report| !report.differing.is_empty()) {
                    let repaired = repair(&client, plan, report).await?;
                    eprintln!("{} {}: {repaired} keys put on the bus again", plan.name, report.table);
                }
                // What is sent again takes its time, however little the differences before were given.
                let patience = options.patience.max(VerifySettings::default().patience);
                reports = look(plan, &source, &target_side, options, patience).await?;
            }
            for report in &reports {
                equal &= report.is_equal();
                if options.json {
                    items.push(as_json(plan, target, report)?);
                } else {
                    print(plan, target, report)?;
                }
            }
        }
    }
    if options.json {
        say!("{}", serde_json::to_string_pretty(&items)?);
    }
    Ok(if equal { Outcome::Done } else { Outcome::Problems })
}

/// What one of several one-way pipelines into the same table lacks is another one's, and a repair would delete it.
fn is_alone(config: &Configuration, plan: &Plan) -> anyhow::Result<()> {
    let others = config.pipelines.iter().filter(|other| other.name != plan.name && other.two_way.is_none());
    for other in others.filter(|_| plan.two_way.is_none()) {
        for target in plan.to.iter().filter(|target| other.to.contains(target)) {
            let theirs = scope_of(config, other, target).tables;
            let ours = scope_of(config, plan, target).tables;
            if let Some(both) = ours.iter().find(|ours| theirs.iter().any(|theirs| theirs.name == ours.name)) {
                anyhow::bail!(
                    "pipelines {} and {} both write to table {} of {target}: what one of them lacks is the other's, and a repair would \
                     delete it",
                    plan.name,
                    other.name,
                    both.name
                );
            }
        }
    }
    Ok(())
}

/// The plan as seen from the member that is asked for.
fn compared_from(plan: &Plan, options: &Options) -> anyhow::Result<Plan> {
    let mut plan = plan.clone();
    let name = &plan.name;
    if let Some(from) = options.from.as_deref().map(DatabaseName::new) {
        anyhow::ensure!(
            from == plan.from || plan.two_way.is_some() && plan.to.contains(&from),
            "{from} is not a database that pipeline {name} can copy from"
        );
        let others = std::iter::once(&plan.from).chain(&plan.to).filter(|other| **other != from);
        (plan.to, plan.from) = (others.cloned().collect(), from);
    } else if options.repair && plan.two_way.is_some() {
        anyhow::bail!(
            "no member knows which of two rows is right in the two-way pipeline {name}: name the one to copy from with --from, or \
             write the right row at any of them"
        );
    }
    Ok(plan)
}

async fn look(
    plan: &Plan,
    source: &Side<'_>,
    target: &Side<'_>,
    options: &Options,
    patience: Duration,
) -> anyhow::Result<Vec<TableReport>> {
    let bar = match std::io::stderr().is_terminal() && !options.json {
        true => ProgressBar::new_spinner(),
        false => ProgressBar::hidden(),
    };
    let mut progress = |table: &sync_worker_core::name::TableName, rows: u64| {
        bar.set_message(format!("{} {table}: {rows} rows compared", plan.name));
        bar.tick();
    };
    let settings = VerifySettings { patience, ..VerifySettings::default() };
    let reports = compare(plan, source, target, &settings, &mut progress).await;
    bar.finish_and_clear();
    reports.map_err(|error| anyhow::anyhow!("pipeline {}: {error}", plan.name))
}

async fn repair(client: &Client, plan: &Plan, report: &TableReport) -> anyhow::Result<u64> {
    let mut count = 0;
    for keys in portions(&report.differing) {
        let keys = keys.iter().map(|key| to_hex(key.as_bytes())).collect();
        let (pipeline, table) = (plan.name.to_string(), report.table.to_string());
        let asked = Repair { pipeline, from: Some(plan.from.to_string()), table, keys };
        count += client.post::<Count>("/sync/repair", &asked).await?.count;
    }
    Ok(count)
}

/// Keys for one request each.
fn portions(keys: &[Key]) -> Vec<&[Key]> {
    let (mut portions, mut rest) = (Vec::new(), keys);
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = rest.iter().take(REPAIRED_AT_A_TIME).take_while(|key| {
            bytes += key.as_bytes().len();
            bytes <= REPAIRED_BYTES
        });
        let (portion, after) = rest.split_at(fits.count().max(1));
        portions.push(portion);
        rest = after;
    }
    portions
}

fn print(plan: &Plan, target: &DatabaseName, report: &TableReport) -> anyhow::Result<()> {
    let place = format!("{} {} {} -> {target}", plan.name, report.table, plan.from);
    if report.is_equal() {
        say!("{place}: equal, {} rows ({} were in flight)", report.rows, report.in_flight);
        return Ok(());
    }
    let differing = report.differing.len() as u64 + report.more;
    say!("{place}: {differing} keys differ among {} rows", report.rows);
    for key in report.differing.iter().take(SHOWN) {
        say!("  {}", envelope::key(&report.schema, key)?);
    }
    if differing > SHOWN as u64 {
        say!("  and {} more", differing - SHOWN as u64);
    }
    Ok(())
}

fn as_json(plan: &Plan, target: &DatabaseName, report: &TableReport) -> anyhow::Result<serde_json::Value> {
    let keys = report.differing.iter().map(|key| envelope::key(&report.schema, key)).collect::<Result<Vec<_>, _>>()?;
    Ok(json!({
        "pipeline": plan.name.as_str(),
        "table": report.table.as_str(),
        "source": plan.from.as_str(),
        "target": target.as_str(),
        "rows": report.rows,
        "in_flight": report.in_flight,
        "equal": report.is_equal(),
        "differing": keys,
        "more": report.more,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_go_in_portions_that_a_request_can_hold() {
        let sizes = |lengths: &[usize]| {
            let keys: Vec<Key> = lengths.iter().map(|&length| Key::from_bytes(vec![7; length].into())).collect();
            portions(&keys).iter().map(|portion| portion.len()).collect::<Vec<_>>()
        };
        assert_eq!(sizes(&[]), [0; 0]);
        assert_eq!(sizes(&[8; 2_500]), [1_000, 1_000, 500]);
        assert_eq!(sizes(&[3_000; 500]), [349, 151]);
        assert_eq!(sizes(&[8, REPAIRED_BYTES + 1, 8, 8]), [1, 1, 2]);
    }
}
