//! `members` instead of `from` and `to`: a pipeline whose changes go from each to all others, and how conflicts are decided.

use crate::config::databases::exists;
use crate::config::pipelines::{Databases, Ends};
use crate::config::place::suggestion;
use crate::config::section::{At, Field, Section};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;
use sync_worker_core::name::DatabaseName;
use sync_worker_core::rules::{ColumnGroup, Merge, OnDelete, Strategy, TwoWayMember};
use sync_worker_engine::pipeline::{Resolution, Table, TwoWayPlan};
use sync_worker_engine::seeding::Seed;
use sync_worker_engine::snapshot::SnapshotSettings;

/// Of a pipeline, beside those of every pipeline.
pub const FIELDS: [Field; 6] = [
    Field {
        name: "members",
        takes: "list of names of databases",
        default: "",
        about: "Two to 16 PostgreSQL, MySQL and MongoDB databases, in place of `from` and `to`. Required.",
    },
    Field {
        name: "seed",
        takes: "name of a member, `\"merge\"` or `\"none\"`",
        default: "",
        about: "Whose rows are copied to the others on the first start. `merge`: every member's to all others; of rows that \
                differ under one key one stays, as `strategy` says, and the other is recorded. `none`: the members are \
                taken to be equal, and nothing is copied. Required.",
    },
    Field {
        name: "strategy",
        takes: "`\"timestamp\"`, `\"first_write\"`, `\"priority\"`, `\"merge\"`, `\"reject\"` or `\"manual\"`",
        default: "\"timestamp\"",
        about: "Which of two versions stays when members have written a row without having seen each other's write. \
                `timestamp`: the last write by commit time, or by `timestamp_column`; `first_write`: the first; `priority`: that of the member with \
                the highest priority; `merge`: columns that only one of them has changed are all kept, and `contested` \
                decides about the others; `reject`: the one that the members have already; `manual`: the same, and a \
                person may decide otherwise with `sync-worker conflicts decide`. Ties go to the higher priority, then to \
                the name that sorts first. Every conflict is recorded.",
    },
    Field {
        name: "contested",
        takes: "`\"timestamp\"`, `\"first_write\"`, `\"priority\"`, `\"reject\"` or `\"manual\"`",
        default: "\"timestamp\"",
        about: "With `merge`: how columns are decided that both have changed.",
    },
    Field {
        name: "on_delete",
        takes: "`\"delete_wins\"`, `\"update_wins\"` or `\"by_strategy\"`",
        default: "\"by_strategy\"",
        about: "What becomes of a row that one member has deleted and another one changed.",
    },
    Field {
        name: "clock_limit",
        takes: "duration",
        default: "",
        about: "Where members' clocks are further apart, tables and groups that go by commit times go by `priority`, until clocks are \
                within half of it. Looked at every 30 s. Not for tables with a `timestamp_column`. Without it clocks are only told.",
    },
];

/// Of a group of columns.
pub const GROUP: [Field; 2] = [
    Field {
        name: "columns",
        takes: "list of columns",
        default: "",
        about: "At least two, none of them in the key, in `delta` or in another group.",
    },
    Field { name: "contested", takes: "as above", default: "", about: "For this group, in place of the table's." },
];

/// Of a table, beside those of every table.
pub const TABLE: [Field; 7] = [
    Field { name: "strategy", takes: "as above", default: "", about: "For this table, in place of the pipeline's." },
    Field { name: "contested", takes: "as above", default: "", about: "For this table, in place of the pipeline's." },
    Field { name: "on_delete", takes: "as above", default: "", about: "For this table, in place of the pipeline's." },
    Field {
        name: "delta",
        takes: "list of columns",
        default: "",
        about: "With `merge`: numbers, as counters and balances are, to which is added what each member has added to them.",
    },
    Field {
        name: "groups",
        takes: "list of `{ columns, contested }`",
        default: "",
        about: "With `merge`: columns that mean something together, as those of an address do. They are merged as one: \
                where two members have changed any of them, one of the two has written all of them as they are.",
    },
    Field {
        name: "timestamp_column",
        takes: "name of a column",
        default: "",
        about: "A column of date and time that stands for the time of commit, as one that applications set with each write \
                does. A row that has NULL there, and a delete, has the time of its commit.",
    },
    Field {
        name: "lossy",
        takes: "list of columns",
        default: "",
        about: "Columns that may have types which do not hold all of each other's values. Otherwise such a table is \
                refused.",
    },
];

/// Each one's changes go to all others: the work grows with the square.
const MOST_MEMBERS: usize = 16;

/// Clocks are known to a quarter of a second each.
const CLOCK_LIMITS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);

/// What `seed` takes where nobody's rows are copied, and where all are; so no member can be called that.
const NO_SEED: &str = "none";
const MERGE: &str = "merge";

/// None: merge.
const STRATEGIES: [(&str, Option<Strategy>); 6] = [
    ("timestamp", Some(Strategy::Timestamp)),
    ("first_write", Some(Strategy::FirstWrite)),
    ("priority", Some(Strategy::Priority)),
    ("merge", None),
    ("reject", Some(Strategy::Reject)),
    ("manual", Some(Strategy::Manual)),
];

/// How the tables of a pipeline are resolved that say nothing else.
pub struct Defaults {
    /// None: merge.
    strategy: Option<Strategy>,
    contested: Strategy,
    on_delete: OnDelete,
}

/// Reads the members: the one that the others are compared with, the others, and the plan.
pub fn members(section: &Section<'_>, databases: &Databases) -> Option<(Ends, TwoWayPlan)> {
    let beside: Vec<&str> = ["from", "to"].into_iter().filter(|name| section.has(name)).collect();
    if !beside.is_empty() {
        let beside = beside.join(" and ");
        let text =
            format!("stands beside {beside}: write members for a two-way pipeline, from and to for a one-way one");
        section.problem("members", text);
    }
    let names = section.texts("members").and_then(|listed| names(section, &listed, databases));
    let seed = seed(section, names.as_ref());
    let (names, seed) = (names?, seed?);
    let from = match &seed {
        Seed::Member(name) => name.clone(),
        Seed::Merge | Seed::None => names.keys().next().cloned()?,
    };
    let to = names.keys().filter(|name| **name != from).cloned().collect();
    let members = names.into_iter().map(|(name, priority)| TwoWayMember { name, priority }).collect();
    let clock_limit = section.duration("clock_limit", CLOCK_LIMITS);
    Some(((from, to), TwoWayPlan { members, seed, clock_limit }))
}

/// The members with their priorities.
fn names(section: &Section<'_>, listed: &[At<String>], databases: &Databases) -> Option<BTreeMap<DatabaseName, i64>> {
    let mut names = BTreeMap::new();
    for member in listed {
        let problem = |text: String| section.problem_at(&member.place, "members", text);
        let name = DatabaseName::new(&member.value);
        if !exists(section, "members", &member.place, &member.value, databases.keys().map(String::as_str)) {
            continue;
        }
        let database = databases.get(&member.value).and_then(Option::as_ref);
        if [NO_SEED, MERGE].contains(&member.value.as_str()) {
            problem(format!("{name:?} can't be a member's name: seed = {name:?} means something else"));
        } else if names.insert(name, database.map_or(0, |database| database.priority)).is_some() {
            problem(format!("names {} twice", member.value));
        }
    }
    if !(2..=MOST_MEMBERS).contains(&listed.len()) {
        section.problem("members", format!("must name from 2 to {MOST_MEMBERS} databases"));
        return None;
    }
    (names.len() == listed.len()).then_some(names)
}

fn seed(section: &Section<'_>, names: Option<&BTreeMap<DatabaseName, i64>>) -> Option<Seed> {
    if !section.has("seed") {
        let text = "is missing; seed = \"NAME\" copies that member's rows to the others first, seed = \"merge\" every \
                    member's to all others, seed = \"none\" takes the members as equal";
        section.problem("seed", text);
        return None;
    }
    let seed = section.text("seed")?;
    match seed.value.as_str() {
        NO_SEED => return Some(Seed::None),
        MERGE => return Some(Seed::Merge),
        _ => {}
    }
    let name = DatabaseName::new(&seed.value);
    let Some(names) = names else { return Some(Seed::Member(name)) };
    if !names.contains_key(&name) {
        let known = names.keys().map(DatabaseName::as_str).chain([MERGE, NO_SEED]);
        let text = format!("there is no member {:?}{}", seed.value, suggestion(&seed.value, known));
        section.problem_at(&seed.place, "seed", text);
        return None;
    }
    Some(Seed::Member(name))
}

/// Notes seeds that nothing would copy: what differs would wait for that without end.
pub fn check_seed(section: &Section<'_>, two_way: &TwoWayPlan, snapshot: &SnapshotSettings) {
    if two_way.seed == Seed::Merge && !snapshot.initial {
        let text = "copies nothing beside seed = \"merge\", which copies all members' rows: leave it out, or write seed = \"none\"";
        section.problem("snapshot", text);
    }
}

/// Notes what has a meaning in two-way pipelines alone.
pub fn refuse(section: &Section<'_>, fields: &[Field]) {
    for name in fields.iter().map(|field| field.name).filter(|name| section.has(name)) {
        let text =
            "is for two-way pipelines: leave it out, or write members = [\"crm\", \"shop\"] in place of from and to";
        section.problem(name, text);
    }
}

pub fn defaults(section: &Section<'_>) -> Defaults {
    let default = Resolution::default();
    Defaults {
        strategy: section.choice("strategy", &STRATEGIES).unwrap_or(Some(default.strategy)),
        contested: section.choice("contested", &contested()).unwrap_or(default.strategy),
        on_delete: on_delete(section).unwrap_or(default.on_delete),
    }
}

/// How a table is resolved.
pub fn resolution(table: &Section<'_>, defaults: &Defaults) -> Resolution {
    let strategy = table.choice("strategy", &STRATEGIES).unwrap_or(defaults.strategy);
    let contested = table.choice("contested", &contested()).unwrap_or(defaults.contested);
    let delta = columns(table, "delta");
    if strategy.is_some() {
        for name in ["contested", "delta", "groups"].into_iter().filter(|name| table.has(name)) {
            table.problem(name, "is for strategy = \"merge\"");
        }
    }
    let groups = groups(table, contested, &delta);
    Resolution {
        strategy: strategy.unwrap_or(contested),
        on_delete: on_delete(table).unwrap_or(defaults.on_delete),
        merge: strategy.is_none().then_some(Merge { delta, groups }),
        timestamp_column: table.text("timestamp_column").map(|column| column.value),
        lossy: columns(table, "lossy"),
    }
}

/// Columns that are merged as one: each in one group only, and none of the counters.
fn groups(table: &Section<'_>, otherwise: Strategy, delta: &[String]) -> Vec<ColumnGroup> {
    let mut taken = delta.to_vec();
    let mut groups = Vec::new();
    for group in table.sections("groups", &GROUP).unwrap_or_default() {
        let columns = columns(&group, "columns");
        if columns.len() < 2 {
            group.problem("columns", "must name at least two columns");
        }
        if let Some(column) = columns.iter().find(|column| taken.contains(column)) {
            group.problem("columns", format!("names {column}, which is in delta or in another group"));
        }
        taken.extend_from_slice(&columns);
        let strategy = group.choice("contested", &contested()).unwrap_or(otherwise);
        groups.push(ColumnGroup { columns, strategy });
    }
    groups
}

/// Notes a `contested` that none of the tables asks.
pub fn check_contested(section: &Section<'_>, tables: &[Table]) {
    if section.has("contested") && tables.iter().all(|table| table.resolution.merge.is_none()) {
        section.problem("contested", "is for strategy = \"merge\", which none of the tables has");
    }
}

fn contested() -> [(&'static str, Strategy); 5] {
    Strategy::ALL.map(|strategy| (strategy.as_str(), strategy))
}

fn on_delete(section: &Section<'_>) -> Option<OnDelete> {
    section.choice("on_delete", &OnDelete::ALL.map(|on_delete| (on_delete.as_str(), on_delete)))
}

fn columns(section: &Section<'_>, name: &str) -> Vec<String> {
    let mut columns = Vec::new();
    for column in section.texts(name).unwrap_or_default() {
        if column.value.is_empty() || column.value.chars().any(char::is_control) {
            section.problem_at(&column.place, name, "must be names of columns");
        } else if columns.contains(&column.value) {
            section.problem_at(&column.place, name, format!("names {} twice", column.value));
        } else {
            columns.push(column.value);
        }
    }
    columns
}
