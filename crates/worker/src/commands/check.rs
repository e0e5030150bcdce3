//! `sync-worker check`: everything that stands in the way, at once, with the cure; changes nothing.

use crate::commands::scope_of;
use crate::config::Configuration;
use crate::outcome::Outcome;
use crate::output::say;
use crate::wiring;
use serde_json::json;
use sync_worker_core::database::Finding;
use sync_worker_engine::preflight;

pub async fn check(config: &Configuration, json: bool) -> anyhow::Result<Outcome> {
    let databases = wiring::databases(config)?;
    let mut found: Vec<(String, Finding)> = Vec::new();
    for plan in &config.pipelines {
        let inspected = preflight::inspect(plan, &databases, |name| scope_of(config, plan, name)).await;
        for one in &inspected {
            if let Err(error) = &one.outcome {
                let place = format!("databases.{}", one.database);
                let cure = "mend that and check again".to_owned();
                found.push((plan.name.to_string(), Finding { place, problem: error.to_string(), cure, advice: false }));
            }
        }
        found.extend(preflight::findings(plan, &inspected).into_iter().map(|finding| (plan.name.to_string(), finding)));
    }
    // A database of several pipelines says the same of itself each time.
    let mut distinct: Vec<(String, Finding)> = Vec::new();
    for (pipeline, finding) in found {
        if !distinct.iter().any(|(_, known)| *known == finding) {
            distinct.push((pipeline, finding));
        }
    }
    if json {
        let items: Vec<_> = distinct
            .iter()
            .map(|(pipeline, finding)| {
                json!({ "pipeline": pipeline, "place": finding.place, "problem": finding.problem, "cure": finding.cure, "advice": finding.advice })
            })
            .collect();
        say!("{}", serde_json::to_string_pretty(&items)?);
    } else {
        for (_, finding) in &distinct {
            let kind = if finding.advice { "advice" } else { "problem" };
            say!("{kind}: {}: {}; {}", finding.place, finding.problem, finding.cure);
        }
        if distinct.is_empty() {
            say!("nothing stands in the way");
        }
    }
    Ok(if distinct.iter().all(|(_, finding)| finding.advice) { Outcome::Done } else { Outcome::Problems })
}
