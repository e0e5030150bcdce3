//! `sync-worker schema`: the DDL that a target still lacks.

use crate::commands::scope_of;
use crate::config::Configuration;
use crate::outcome::Outcome;
use crate::output::say;
use crate::wiring;
use serde_json::json;
use std::collections::BTreeMap;
use sync_worker_core::database::Role;
use sync_worker_core::name::TableName;

/// Ends with problems when something is lacking, so that a script can tell.
pub async fn schema(config: &Configuration, json: bool) -> anyhow::Result<Outcome> {
    let databases = wiring::databases(config)?;
    let mut lacking = Vec::new();
    for plan in &config.pipelines {
        let mut inspected = BTreeMap::new();
        // Two-way, every member is a target, too.
        for name in std::iter::once(&plan.from).chain(&plan.to) {
            let (Some(database), scope) = (databases.get(name), scope_of(config, plan, name)) else { continue };
            let role = if *name == plan.from && plan.two_way.is_none() { Role::Source } else { Role::Target };
            let inspection = database.inspect(&scope, role).await;
            inspected.insert(name, inspection.map_err(|error| anyhow::anyhow!("databases.{name}: {error}"))?);
        }
        let holder = |table: &TableName| {
            let inspections = plan.sources().filter_map(|name| inspected.get(name));
            inspections.flat_map(|inspection| &inspection.tables).find(|schema| schema.table == *table)
        };
        for target in plan.targets() {
            let (Some(database), scope) = (databases.get(target), scope_of(config, plan, target)) else { continue };
            let Some(inspection) = inspected.get(target) else { continue };
            for at in &scope.tables {
                let Some(wanted) = holder(&at.table) else { continue };
                let have = inspection.tables.iter().find(|schema| schema.table == at.table);
                if let Some(ddl) = database.ddl(at, wanted, have.map(|schema| &**schema)) {
                    let (pipeline, database) = (plan.name.as_str(), target.as_str());
                    let table = at.table.as_str();
                    let then = have.map(|_| filled_by(pipeline));
                    if !json {
                        say!("-- {target}: table {table} of pipeline {pipeline}");
                        then.iter().for_each(|then| say!("-- {then}"));
                        say!("{ddl}");
                    }
                    lacking.push(json!({
                        "pipeline": pipeline, "database": database, "table": table, "ddl": ddl, "then": then,
                    }));
                }
            }
        }
    }
    if json {
        say!("{}", serde_json::to_string_pretty(&lacking)?);
    }
    Ok(if lacking.is_empty() { Outcome::Done } else { Outcome::Problems })
}

/// What a column that is added needs: the rows that are there were copied without it.
fn filled_by(pipeline: &str) -> String {
    format!(
        "rows that are there have NULL in a new column until `sync-worker verify {pipeline} --repair` copies them again, \
         while the pipeline runs; add NOT NULL after that"
    )
}
