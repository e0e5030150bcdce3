//! `[pipelines.NAME]`: which tables go from where to where, and how. What two-way pipelines add is in `two_way`.

use crate::config::databases::{DatabaseConfig, exists};
use crate::config::place::suggestion;
use crate::config::section::{Field, Section};
use crate::config::{documents, two_way};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use sync_worker_core::name::{DatabaseName, PipelineName, TableName};
use sync_worker_engine::assemble::BatchLimits;
use sync_worker_engine::pipeline::{Plan, Resolution, Table};
use sync_worker_engine::retry::RetryPolicy;
use sync_worker_engine::snapshot::SnapshotSettings;

pub const FIELDS: [Field; 10] = [
    Field {
        name: "from",
        takes: "name of a database",
        default: "",
        about: "Whose changes are taken. Required, unless there are `members`.",
    },
    Field {
        name: "to",
        takes: "list of names of databases",
        default: "",
        about: "Where they are written. A target that is slow or gone holds back no other. Required, unless there are \
                `members`.",
    },
    Field { name: "tables", takes: "list of tables", default: "", about: "What is kept in sync, see below. Required." },
    Field {
        name: "snapshot",
        takes: "`\"initial\"` or `\"never\"`",
        default: "\"initial\"",
        about: "Whether a pipeline that starts for the first time copies the rows that are there. With `never` only \
                later changes arrive.",
    },
    Field {
        name: "snapshot_chunk_rows",
        takes: "number",
        default: "10000",
        about: "Rows that are copied at a time; a restart goes on after the last chunk.",
    },
    Field {
        name: "snapshot_chunk_size",
        takes: "size",
        default: "\"8MiB\"",
        about: "What one reader holds in memory; a chunk above it is published in pieces.",
    },
    Field { name: "snapshot_parallel", takes: "number", default: "2", about: "Chunks that are read at the same time." },
    Field {
        name: "batch_limit",
        takes: "`{ rows, size }`",
        default: "{ rows = 20000, size = \"8MiB\" }",
        about: "A transaction at a target holds whole transactions of the source until one of these is reached. Smaller \
                ones are written at once when nothing else waits.",
    },
    Field {
        name: "transaction_limit",
        takes: "`{ rows, size }`",
        default: "{ rows = 100000, size = \"32MiB\" }",
        about: "A single transaction of the source above one of these is written in several parts, counted and logged: \
                readers of the target can see a part of it.",
    },
    Field {
        name: "retry",
        takes: "`{ attempts, first_delay, max_delay }`",
        default: "{ attempts = 5, first_delay = \"1s\", max_delay = \"60s\" }",
        about: "A row that a target refuses is tried so often, the delay doubling each time, before it becomes a dead \
                letter. What can never be taken becomes one at once.",
    },
];

pub const TABLE: [Field; 3] = [
    Field {
        name: "name",
        takes: "text",
        default: "",
        about: "What the table is called in the log, in messages and in metrics. Required.",
    },
    Field {
        name: "at",
        takes: "`{ DATABASE = \"TABLE\" }`",
        default: "",
        about: "What it is called at a database, `schema.table` or `table`, where that is not `name`.",
    },
    Field {
        name: "document",
        takes: "`{ key, other_fields, keep_key_columns, times }`",
        default: "",
        about: "How its rows are documents, in a pipeline between MongoDB and another kind of database.",
    },
];

pub const LIMIT: [Field; 2] = [
    Field { name: "rows", takes: "number", default: "", about: "Rows written." },
    Field { name: "size", takes: "size", default: "", about: "Bytes of their images." },
];

pub const RETRY: [Field; 3] = [
    Field { name: "attempts", takes: "number", default: "5", about: "How often, the first attempt included." },
    Field {
        name: "first_delay",
        takes: "duration",
        default: "\"1s\"",
        about: "Before the second attempt, one-way +-20 %. Two-way, what was refused together is tried together.",
    },
    Field { name: "max_delay", takes: "duration", default: "\"60s\"", about: "Where doubling ends." },
];

/// The databases by name; None for one that is configured wrongly.
pub type Databases = BTreeMap<String, Option<DatabaseConfig>>;

/// The source, or the member that the others are compared with, and the targets, or the other members.
pub type Ends = (DatabaseName, Vec<DatabaseName>);

/// Reads one pipeline, with what it needs of `databases`.
pub fn read(name: &str, section: &Section<'_>, databases: &Databases) -> Option<Plan> {
    let known = || FIELDS.iter().chain(&two_way::FIELDS).map(|field| field.name);
    for entry in section.entries() {
        if entry.name == "priority" {
            section.problem_at(&entry.place, "priority", "is a field of a database: write it in [databases.NAME]");
        } else if !known().any(|name| name == entry.name) {
            section.unknown(entry, known());
        }
    }
    let is_two_way = section.has("members");
    let (members, two_way) = if is_two_way {
        two_way::members(section, databases).map_or((None, None), |(ends, plan)| (Some(ends), Some(plan)))
    } else {
        two_way::refuse(section, &two_way::FIELDS);
        (members(section, databases), None)
    };
    let defaults = is_two_way.then(|| two_way::defaults(section));
    let tables = tables(section, members.as_ref(), databases, defaults.as_ref());
    if is_two_way && let Some(tables) = &tables {
        two_way::check_contested(section, tables);
    }
    let (snapshot, limits, retry) = (snapshot(section), limits(section), retry(section));
    if let Some(two_way) = &two_way {
        two_way::check_seed(section, two_way, &snapshot);
    }
    let (from, to) = members?;
    Some(Plan { name: PipelineName::new(name), from, to, two_way, tables: tables?, snapshot, limits, retry })
}

fn members(section: &Section<'_>, databases: &Databases) -> Option<Ends> {
    let known = || databases.keys().map(String::as_str);
    let from = section.text("from").filter(|from| exists(section, "from", &from.place, &from.value, known()));
    if !section.has("from") {
        section.missing("from", "from = \"NAME\" with the name of a database");
    }
    let Some(listed) = section.texts("to") else {
        if !section.has("to") {
            section.missing("to", "to = [\"NAME\"] with the names of databases");
        }
        return None;
    };
    if listed.is_empty() {
        section.problem("to", "names no database");
    }
    let mut to: Vec<DatabaseName> = Vec::new();
    for target in &listed {
        if !exists(section, "to", &target.place, &target.value, known()) {
            continue;
        }
        let name = DatabaseName::new(&target.value);
        if to.contains(&name) {
            section.problem_at(&target.place, "to", format!("names {name} twice"));
        } else if from.as_ref().is_some_and(|from| from.value == target.value) {
            section.problem_at(
                &target.place,
                "to",
                format!("names {name}, which is the source; a target is another database"),
            );
        } else {
            to.push(name);
        }
    }
    let from = from?;
    (!to.is_empty()).then(|| (DatabaseName::new(&from.value), to))
}

fn tables(
    section: &Section<'_>,
    members: Option<&Ends>,
    databases: &Databases,
    two_way: Option<&two_way::Defaults>,
) -> Option<Vec<Table>> {
    const EXAMPLE: &str = "tables = [{ name = \"customer\" }]";
    if !section.has("tables") {
        section.missing("tables", EXAMPLE);
        return None;
    }
    let sections = section.sections("tables", &[&TABLE[..], &two_way::TABLE[..]].concat())?;
    if sections.is_empty() {
        section.problem("tables", format!("names no table; write {EXAMPLE}"));
    }
    let (mut tables, mut names) = (Vec::new(), BTreeSet::new());
    for one in &sections {
        if !one.has("name") {
            one.missing("name", "name = \"customer\"");
        }
        let at = at(one, members, databases);
        let document = documents::read(one, members, databases, two_way.is_some());
        let resolution = match two_way {
            Some(defaults) => two_way::resolution(one, defaults),
            None => {
                two_way::refuse(one, &two_way::TABLE);
                Resolution::default()
            }
        };
        let Some(name) = one.text("name") else { continue };
        if name.value.is_empty() || name.value.chars().any(char::is_control) {
            one.problem("name", "must be a table's name");
        } else if !names.insert(name.value.clone()) {
            one.problem("name", format!("there are two tables {:?} in this pipeline", name.value));
        }
        tables.push(Table { name: TableName::new(&name.value), at, document, resolution });
    }
    for database in members.iter().flat_map(|(from, to)| to.iter().chain([from])) {
        let known = databases.get(database.as_str()).and_then(Option::as_ref);
        twice(section, database, known, &tables);
    }
    (!tables.is_empty()).then_some(tables)
}

/// Refuses two logical tables that are one at a database: each would overwrite the other's rows.
fn twice(section: &Section<'_>, database: &DatabaseName, known: Option<&DatabaseConfig>, tables: &[Table]) {
    let mut seen = BTreeMap::new();
    for table in tables {
        let there = table.at.get(database).cloned().unwrap_or_else(|| table.name.to_string());
        let place = known.map_or_else(|| (String::new(), there.clone()), |known| known.table(&there));
        if let Some(other) = seen.insert(place, &table.name) {
            let text = format!("{other} and {} are both {there:?} at {database}", table.name);
            section.problem("tables", text);
        }
    }
}

fn at(section: &Section<'_>, members: Option<&Ends>, databases: &Databases) -> BTreeMap<DatabaseName, String> {
    let mut at = BTreeMap::new();
    if !section.has("at") {
        return at;
    }
    let known: Vec<&str> = match members {
        Some((from, to)) => std::iter::once(from).chain(to).map(DatabaseName::as_str).collect(),
        None => databases.keys().map(String::as_str).collect(),
    };
    let names = section.open_section("at");
    for entry in names.entries() {
        if !known.contains(&entry.name.as_str()) {
            let suggestion = suggestion(&entry.name, known.iter().copied());
            let text = format!("{:?} is no database of this pipeline{suggestion}", entry.name);
            section.problem_at(&entry.place, "at", text);
            continue;
        }
        let Some(name) = names.text(&entry.name) else { continue };
        match name.value.is_empty() || name.value.chars().any(char::is_control) {
            true => names.problem(&entry.name, "must be a table's name"),
            false => drop(at.insert(DatabaseName::new(&entry.name), name.value)),
        }
    }
    at
}

fn snapshot(section: &Section<'_>) -> SnapshotSettings {
    let default = SnapshotSettings::default();
    let initial = section.choice("snapshot", &[("initial", true), ("never", false)]);
    SnapshotSettings {
        initial: initial.unwrap_or(default.initial),
        chunk_rows: section.number("snapshot_chunk_rows", 1..=10_000_000).unwrap_or(default.chunk_rows),
        chunk_bytes: bytes(section, "snapshot_chunk_size", default.chunk_bytes),
        parallel: count(section, "snapshot_parallel", 64, default.parallel),
    }
}

fn limits(section: &Section<'_>) -> BatchLimits {
    let default = BatchLimits::default();
    let batch = section.section("batch_limit", &LIMIT);
    let transaction = section.section("transaction_limit", &LIMIT);
    BatchLimits {
        batch_rows: count(&batch, "rows", 10_000_000, default.batch_rows),
        batch_bytes: bytes(&batch, "size", default.batch_bytes),
        transaction_rows: count(&transaction, "rows", 10_000_000, default.transaction_rows),
        transaction_bytes: bytes(&transaction, "size", default.transaction_bytes),
    }
}

fn retry(section: &Section<'_>) -> RetryPolicy {
    const DELAYS: std::ops::RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(24 * 3600);
    let default = RetryPolicy::default();
    let retry = section.section("retry", &RETRY);
    let attempts = retry.number("attempts", 1..=1_000_000).and_then(|attempts| u32::try_from(attempts).ok());
    let policy = RetryPolicy {
        attempts: attempts.unwrap_or(default.attempts),
        first_delay: retry.duration("first_delay", DELAYS).unwrap_or(default.first_delay),
        longest_delay: retry.duration("max_delay", DELAYS).unwrap_or(default.longest_delay),
    };
    if policy.first_delay > policy.longest_delay {
        retry.problem("first_delay", "is longer than max_delay");
    }
    policy
}

fn count(section: &Section<'_>, name: &str, most: u64, default: usize) -> usize {
    section.number(name, 1..=most).and_then(|number| usize::try_from(number).ok()).unwrap_or(default)
}

/// What is held in memory.
fn bytes(section: &Section<'_>, name: &str, default: usize) -> usize {
    section.size(name, 1 << 10..=1 << 30).and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(default)
}
