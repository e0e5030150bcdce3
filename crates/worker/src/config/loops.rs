//! Pipelines that lead back to where they began: a change would go round for ever. Within one two-way pipeline it does
//! not, for that knows its own writes; between two of them, or through another one, it would.

use crate::config::databases::DatabaseConfig;
use crate::config::section::Section;
use std::collections::{BTreeMap, HashMap};
use sync_worker_core::name::{DatabaseName, PipelineName};
use sync_worker_engine::pipeline::{Plan, Table};

/// A table at a place, whatever the configuration calls either.
type Node = (String, String);

struct Edge<'p> {
    pipeline: &'p PipelineName,
    two_way: bool,
    from: Node,
    to: Node,
    /// `crm public.customer -> shop customer`.
    shown: String,
}

/// The edges that leave a table.
type Leaving<'e, 'p> = HashMap<&'e Node, Vec<&'e Edge<'p>>>;

/// Notes each loop once, at one of its pipelines.
pub fn check(pipelines: &Section<'_>, plans: &[Plan], databases: &BTreeMap<DatabaseName, DatabaseConfig>) {
    let mut edges = Vec::new();
    for plan in plans {
        let ways = ways(plan);
        for table in &plan.tables {
            edges.extend(ways.iter().filter_map(|(from, to)| edge(plan, table, from, to, databases)));
        }
    }
    let mut leaving = Leaving::new();
    for edge in &edges {
        leaving.entry(&edge.from).or_default().push(edge);
    }
    let mut reported: Vec<Vec<&PipelineName>> = Vec::new();
    for start in &edges {
        let Some(path) = way_back(start, &leaving) else { continue };
        let mut names: Vec<&PipelineName> = path.iter().map(|edge| edge.pipeline).collect();
        names.sort();
        names.dedup();
        if reported.contains(&names) {
            continue;
        }
        let shown = path.iter().map(|edge| edge.shown.as_str()).collect::<Vec<_>>().join(", ");
        let cure = "a table whose changes go both ways is in one pipeline with members, and in no other between them";
        pipelines.problem(start.pipeline.as_str(), format!("leads back to where it began ({shown}): {cure}"));
        reported.push(names);
    }
}

/// Whose changes go to whom.
fn ways(plan: &Plan) -> Vec<(&DatabaseName, &DatabaseName)> {
    let members: Vec<&DatabaseName> = std::iter::once(&plan.from).chain(&plan.to).collect();
    let sources = if plan.two_way.is_some() { &members[..] } else { &members[..1] };
    let mut ways = Vec::new();
    for from in sources {
        ways.extend(members.iter().filter(|to| *to != from).map(|to| (*from, *to)));
    }
    ways
}

fn edge<'p>(
    plan: &'p Plan,
    table: &Table,
    from: &DatabaseName,
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
    let ((from, shown_from), (to, shown_to)) = (end(from)?, end(to)?);
    let shown = format!("{shown_from} -> {shown_to}");
    Some(Edge { pipeline: &plan.name, two_way: plan.two_way.is_some(), from, to, shown })
}

/// The edges of a loop through `start`, the shortest.
fn way_back<'e, 'p>(start: &'e Edge<'p>, leaving: &Leaving<'e, 'p>) -> Option<Vec<&'e Edge<'p>>> {
    let mut paths = vec![vec![start]];
    let mut visited = vec![&start.to];
    while !paths.is_empty() {
        let mut longer = Vec::new();
        for path in paths {
            let end = &path[path.len() - 1].to;
            if *end == start.from {
                if is_endless(&path) {
                    return Some(path);
                }
                continue;
            }
            for next in leaving.get(&end).into_iter().flatten() {
                if next.to == start.from || !visited.contains(&&next.to) {
                    visited.push(&next.to);
                    longer.push([path.as_slice(), &[*next]].concat());
                }
            }
        }
        paths = longer;
    }
    None
}

/// Whether nobody on this way round knows the change again. Two members that are one table are a way of one step.
fn is_endless(path: &[&Edge<'_>]) -> bool {
    let first = path[0];
    !first.two_way || path.len() == 1 || path.iter().any(|edge| edge.pipeline != first.pipeline)
}
