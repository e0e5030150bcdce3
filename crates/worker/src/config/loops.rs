//! One-way pipelines that lead back to where they began: a change would go round for ever.

use crate::config::databases::DatabaseConfig;
use crate::config::section::Section;
use std::collections::BTreeMap;
use sync_worker_core::name::{DatabaseName, PipelineName};
use sync_worker_engine::pipeline::{Plan, Table};

/// A table at a place, whatever the configuration calls either.
type Node = (String, String);

struct Edge<'p> {
    pipeline: &'p PipelineName,
    from: Node,
    to: Node,
    /// `crm public.customer -> shop customer`.
    shown: String,
}

/// Notes each loop once, at one of its pipelines.
pub fn check(pipelines: &Section<'_>, plans: &[Plan], databases: &BTreeMap<DatabaseName, DatabaseConfig>) {
    let mut edges = Vec::new();
    for plan in plans {
        for table in &plan.tables {
            edges.extend(plan.to.iter().filter_map(|to| edge(plan, table, to, databases)));
        }
    }
    let mut reported: Vec<Vec<&PipelineName>> = Vec::new();
    for start in &edges {
        let Some(path) = way_back(start, &edges) else { continue };
        let mut names: Vec<&PipelineName> = path.iter().map(|edge| edge.pipeline).collect();
        names.sort();
        names.dedup();
        if reported.contains(&names) {
            continue;
        }
        let shown = path.iter().map(|edge| edge.shown.as_str()).collect::<Vec<_>>().join(", ");
        let text = format!("leads back to where it began ({shown}): two-way pipelines are not in this version");
        pipelines.problem(start.pipeline.as_str(), text);
        reported.push(names);
    }
}

fn edge<'p>(
    plan: &'p Plan,
    table: &Table,
    to: &DatabaseName,
    databases: &BTreeMap<DatabaseName, DatabaseConfig>,
) -> Option<Edge<'p>> {
    let end = |name: &DatabaseName| {
        let called = table.at.get(name).map_or(table.name.as_str(), String::as_str);
        let database = databases.get(name)?;
        let (place, (schema, table)) = (&database.place, database.table(called));
        let node = (format!("{}/{}", place.hosts.join(","), place.database), format!("{schema}.{table}"));
        Some((node, format!("{name} {called}")))
    };
    let ((from, shown_from), (to, shown_to)) = (end(&plan.from)?, end(to)?);
    Some(Edge { pipeline: &plan.name, from, to, shown: format!("{shown_from} -> {shown_to}") })
}

/// The edges of a loop through `start`, the shortest.
fn way_back<'e, 'p>(start: &'e Edge<'p>, edges: &'e [Edge<'p>]) -> Option<Vec<&'e Edge<'p>>> {
    let mut paths = vec![vec![start]];
    let mut visited = vec![&start.to];
    while !paths.is_empty() {
        let mut longer = Vec::new();
        for path in paths {
            let end = &path[path.len() - 1].to;
            if *end == start.from {
                return Some(path);
            }
            for next in edges.iter().filter(|edge| edge.from == *end) {
                if next.to == start.from || !visited.contains(&&next.to) {
                    visited.push(&next.to);
                    longer.push([path.as_slice(), &[next]].concat());
                }
            }
        }
        paths = longer;
    }
    None
}
