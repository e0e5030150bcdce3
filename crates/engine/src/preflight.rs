//! What stands between a configuration and a running pipeline, found without changing anything.

mod documents;

use crate::clocks::{self, Apart};
use crate::failure::EngineError;
use crate::pipeline::Plan;
use crate::two_way;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use sync_worker_core::convert::{Class, Conversion};
use sync_worker_core::database::{Database, Finding, Folding, Inspection, Role, Scope, TableAt};
use sync_worker_core::error::Error;
use sync_worker_core::name::{DatabaseName, InstallationId};
use sync_worker_core::schema::Schema;
use sync_worker_core::types::Engine;

/// Microseconds that members' clocks may be apart without a word: beyond what the question itself takes.
const CLOCKS_APART: i64 = 1_000_000;

/// A member of a pipeline and what was found there.
pub struct Inspected {
    pub database: DatabaseName,
    pub role: Role,
    pub scope: Scope,
    /// An error is one that kept us from looking: unreachable, wrong password.
    pub outcome: Result<Inspection, Error>,
}

/// Inspects every member of a pipeline. `scope` says what the pipeline wants of each.
pub async fn inspect(
    plan: &Plan,
    members: &BTreeMap<DatabaseName, Arc<dyn Database>>,
    scope: impl Fn(&DatabaseName) -> Scope,
) -> Vec<Inspected> {
    let sources = plan.sources().map(|source| (source, Role::Source));
    let roles = sources.chain(plan.targets().map(|target| (target, Role::Target)));
    let inspections = roles.filter_map(|(name, role)| {
        let database = members.get(name)?;
        let scope = scope(name);
        Some(async move {
            let outcome = database.inspect(&scope, role).await;
            Inspected { database: name.clone(), role, scope, outcome }
        })
    });
    futures::future::join_all(inspections).await
}

/// The look at a member that could not be reached when the worker began: its task owes it before its first session.
pub struct Owed {
    /// With the targets that this task answers for: a capture for all, an applier for its own.
    pub plan: Plan,
    pub members: BTreeMap<DatabaseName, Arc<dyn Database>>,
    pub database: DatabaseName,
    pub installation: InstallationId,
    pub spill: PathBuf,
}

impl Owed {
    /// What a start would have refused is an error, and so is a database that still can't be looked at. Another member
    /// that can't be looked at owes that to its own task.
    pub async fn look(&self) -> Result<(), Error> {
        let scope = |name: &DatabaseName| self.plan.scope(name, &self.installation, self.spill.clone());
        let mut inspected = inspect(&self.plan, &self.members, scope).await;
        let problems = findings(&self.plan, &inspected).into_iter().filter_map(|finding| {
            let Finding { place, problem, cure, advice } = finding;
            let text = format!("{place}: {problem}; {cure}");
            if advice {
                tracing::warn!(pipeline = %self.plan.name, "{text}");
            }
            (!advice).then_some(text)
        });
        let problems: Vec<String> = problems.collect();
        while let Some(own) = inspected.iter().position(|one| one.database == self.database) {
            inspected.swap_remove(own).outcome?;
        }
        match problems.is_empty() {
            true => Ok(()),
            false => Err(EngineError::Configuration(problems.join(" | ")).into()),
        }
    }
}

/// What the members say by themselves, and where source and targets do not fit each other.
pub fn findings(plan: &Plan, inspected: &[Inspected]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for one in inspected {
        if let Ok(inspection) = &one.outcome {
            findings.extend(inspection.findings.iter().cloned());
        }
    }
    if let Some(two_way) = &plan.two_way {
        let of = |one: &Inspected| Some((one.database.clone(), one.outcome.as_ref().ok()?.tables.clone()));
        let sources = inspected.iter().filter(|one| one.role == Role::Source);
        findings.extend(two_way::findings(plan, two_way, &sources.filter_map(of).collect()));
        findings.extend(clocks_apart(plan, inspected));
    }
    for source in inspected.iter().filter(|one| one.role == Role::Source) {
        let Ok(from) = &source.outcome else { continue };
        for target in inspected.iter().filter(|one| one.role == Role::Target && one.database != source.database) {
            let Ok(to) = &target.outcome else { continue };
            findings.extend(between(plan, (&source.database, from), (target, to)));
        }
    }
    // What is found of a member in several roles is told once.
    let mut told: Vec<Finding> = Vec::with_capacity(findings.len());
    for finding in findings {
        if !told.contains(&finding) {
            told.push(finding);
        }
    }
    told
}

/// Members whose clocks differ, where commit times decide.
fn clocks_apart(plan: &Plan, inspected: &[Inspected]) -> Option<Finding> {
    if !clocks::decide(plan) {
        return None;
    }
    let sources = inspected.iter().filter(|one| one.role == Role::Source);
    let clock = |one: &Inspected| Some((one.outcome.as_ref().ok()?.clock_ahead?, one.database.clone()));
    let Apart { slow, fast, by } = clocks::apart(&sources.filter_map(clock).collect::<Vec<_>>())?;
    (by > CLOCKS_APART).then(|| Finding {
        place: format!("databases.{fast}"),
        problem: format!(
            "its clock is {:.1} s ahead of that of {slow}, and the strategy of pipeline {} goes by commit times",
            by as f64 / 1e6,
            plan.name
        ),
        cure: "let both follow one time server, or choose the strategy priority or a timestamp_column".to_owned(),
        advice: true,
    })
}

/// Where what comes from one member does not fit another.
fn between(
    plan: &Plan,
    (source, here): (&DatabaseName, &Inspection),
    (target, there): (&Inspected, &Inspection),
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for table in &plan.tables {
        let find = |inspection: &Inspection| inspection.tables.iter().find(|s| s.table == table.name).cloned();
        let (Some(from), Some(to)) = (find(here), find(there)) else { continue };
        let at = target.scope.tables.iter().find(|at| at.table == table.name);
        // Two-way, a member may have columns that others lack: only the shared ones travel.
        if plan.two_way.is_none() || *source == plan.from {
            findings.extend(fit(&target.database, at, &from, &to, plan.two_way.is_some()));
        }
        findings.extend(folding(&target.database, at, (here, &from), (there, &to)));
        findings.extend(generated(&target.database, at, (here, &from), &to));
        // A document may have any field.
        if from.engine == Engine::Mongodb {
            continue;
        }
        let place = there.tables.iter().position(|schema| schema.table == table.name);
        let required = place.and_then(|place| there.required.get(place)).into_iter().flatten();
        for column in required.filter(|column| from.column(column).is_none()) {
            let name = called(at, &to);
            findings.push(Finding {
                place: format!("databases.{} table {name} column {column}", target.database),
                problem: "it has no default and is not NULL, and the source has no such column".to_owned(),
                cure: "give it a default at the target, or let it be NULL".to_owned(),
                advice: false,
            });
        }
    }
    findings
}

/// What a table is called at its database.
fn called(at: Option<&TableAt>, table: &Schema) -> String {
    at.map_or_else(|| table.table.to_string(), |at| at.name.clone())
}

/// Where a value that the source generates is missed at the target.
fn generated(
    database: &DatabaseName,
    at: Option<&TableAt>,
    (source, from): (&Inspection, &Schema),
    to: &Schema,
) -> Vec<Finding> {
    let place = source.tables.iter().position(|schema| schema.table == from.table);
    let columns = place.and_then(|place| source.generated.get(place)).into_iter().flatten();
    let documents = to.engine == Engine::Mongodb;
    let missed = columns.filter(|column| documents || to.column(column).is_some());
    let (stays, cure) = match documents {
        true => {
            ("documents have no such field", "compute it where it is read, or make a plain column of it at the source")
        }
        false => ("it stays here as its default makes it", "generate it here, too"),
    };
    let name = called(at, to);
    let finding = |column: &String| Finding {
        place: format!("databases.{database} table {name} column {column}"),
        problem: format!("the source generates this column, and no change has it: {stays}"),
        cure: cure.to_owned(),
        advice: true,
    };
    missed.map(finding).collect()
}

/// Where a target's key takes rows for one that the source keeps apart.
fn folding(
    database: &DatabaseName,
    at: Option<&TableAt>,
    (source, from): (&Inspection, &Schema),
    (target, to): (&Inspection, &Schema),
) -> Vec<Finding> {
    let of = |inspection: &Inspection, table: &Schema| {
        let place = inspection.tables.iter().position(|schema| schema.table == table.table);
        place.and_then(|place| inspection.folding.get(place).cloned()).unwrap_or_default()
    };
    let name = called(at, to);
    let here = of(source, from);
    // What folds at the source by the same rule comes from there once.
    let same = |one: &Folding| {
        let known = |other: &Folding| other.column == one.column && other.collation == one.collation;
        from.engine == to.engine && here.iter().any(known)
    };
    let there = of(target, to).into_iter().filter(|one| !same(one));
    let finding = |Folding { column, collation, alike, cure, advice }: Folding| Finding {
        place: format!("databases.{database} table {name} column {column}"),
        problem: format!(
            "the key is compared by {collation}, which takes {alike} for one: of rows that the source keeps apart, only one can be here"
        ),
        cure,
        advice,
    };
    there.map(finding).collect()
}

/// Where a target's table can't hold what the source's has.
fn fit(database: &DatabaseName, at: Option<&TableAt>, from: &Schema, to: &Schema, two_way: bool) -> Vec<Finding> {
    let name = called(at, to);
    if from.engine != to.engine && (from.engine == Engine::Mongodb || to.engine == Engine::Mongodb) {
        let mapping = at.map(|at| at.document.clone()).unwrap_or_default();
        return documents::findings(database, &name, &mapping, from, to);
    }
    let mut findings = Vec::new();
    let mut find = |column: Option<&str>, problem: String, cure: String, advice: bool| {
        let column = column.map_or_else(String::new, |column| format!(" column {column}"));
        findings.push(Finding { place: format!("databases.{database} table {name}{column}"), problem, cure, advice });
    };
    for column in &from.columns {
        let Some(there) = to.column(&column.name).map(|at| &to.columns[at]) else {
            let (problem, cure) = if two_way {
                ("another member has this column; it stays that one's own", "add it here if it is to be kept in sync")
            } else {
                (
                    "the source has this column, the target lacks it",
                    "add it with the statement that `sync-worker schema` prints",
                )
            };
            find(Some(&column.name), problem.to_owned(), cure.to_owned(), two_way);
            continue;
        };
        match Conversion::new(&column.kind, &there.kind) {
            Err(refusal) => {
                let problem = format!("{} can't become {}: {refusal}", column.type_name, there.type_name);
                find(Some(&column.name), problem, "change the column's type at the target".to_owned(), false);
            }
            Ok(conversion) if conversion.class_between(from.engine, to.engine) == Class::Lossy => {
                let problem = format!(
                    "{} does not hold every value of {}: a row with such a value is refused and becomes a dead letter",
                    there.type_name, column.type_name
                );
                find(Some(&column.name), problem, "widen the column at the target".to_owned(), true);
            }
            Ok(_) => {}
        }
        if column.nullable && !there.nullable {
            let problem = "NULL is allowed at the source and not at the target".to_owned();
            find(Some(&column.name), problem, "drop NOT NULL at the target".to_owned(), true);
        }
    }
    let key = |schema: &Schema| schema.key.iter().map(|&at| schema.columns[at].name.clone()).collect::<Vec<_>>();
    let (mut here, mut there) = (key(from), key(to));
    here.sort_unstable();
    there.sort_unstable();
    if here != there {
        let problem = format!("its key is ({}), the source's is ({})", there.join(", "), here.join(", "));
        find(None, problem, "give both tables the same primary key".to_owned(), false);
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assemble::BatchLimits;
    use crate::pipeline::{Resolution, Table};
    use crate::retry::RetryPolicy;
    use crate::snapshot::SnapshotSettings;
    use std::time::Duration;
    use sync_worker_core::name::{PipelineName, TableName};
    use sync_worker_core::rules::Strategy;

    fn told(resolution: Resolution, clocks_ahead: &[(&str, Option<i64>)]) -> Option<String> {
        let table = Table { name: TableName::new("t"), at: BTreeMap::new(), document: Default::default(), resolution };
        let plan = Plan {
            name: PipelineName::new("shared"),
            from: DatabaseName::new("crm"),
            to: vec![DatabaseName::new("shop")],
            two_way: None,
            tables: vec![table],
            snapshot: SnapshotSettings::default(),
            limits: BatchLimits::default(),
            retry: RetryPolicy { attempts: 1, first_delay: Duration::ZERO, longest_delay: Duration::ZERO },
        };
        let inspected = clocks_ahead.iter().map(|(name, clock_ahead)| Inspected {
            database: DatabaseName::new(name),
            role: Role::Source,
            scope: plan.scope(&DatabaseName::new(name), &InstallationId::new("i"), PathBuf::new()),
            outcome: Ok(Inspection { clock_ahead: *clock_ahead, ..Inspection::default() }),
        });
        clocks_apart(&plan, &inspected.collect::<Vec<_>>())
            .map(|finding| format!("{}: {}", finding.place, finding.problem))
    }

    #[test]
    fn clocks_that_are_apart_are_told_where_commit_times_decide() {
        let apart = [("crm", Some(-2_000_000)), ("shop", Some(500_000)), ("web", None)];
        let text = "databases.shop: its clock is 2.5 s ahead of that of crm, and the strategy of pipeline shared goes by commit times";
        assert_eq!(told(Resolution::default(), &apart).as_deref(), Some(text));
        assert_eq!(told(Resolution::default(), &[("crm", Some(0)), ("shop", Some(900_000))]), None);
        assert_eq!(told(Resolution { strategy: Strategy::Priority, ..Resolution::default() }, &apart), None);
        let by_column = Resolution { timestamp_column: Some("changed".to_owned()), ..Resolution::default() };
        assert_eq!(told(by_column, &apart), None);
    }
}
