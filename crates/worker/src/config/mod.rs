//! The configuration: a TOML file, environment variables over it, and every mistake reported at once with its place.
//!
//! ```text
//! file -> tree -> environment over it -> sections, field by field -> Configuration
//!                                                   |
//!                                                   +-> problems, with line and column and a likely meaning
//! ```
//!
//! The fields of each section stand in one list beside the code that reads them; `docs/configuration.md` is generated
//! from those lists.

mod databases;
mod documents;
mod environment;
mod loops;
mod pipelines;
mod place;
#[cfg(test)]
mod reference;
mod section;
#[cfg(test)]
mod tests;
mod tree;
mod two_way;
mod units;

pub use databases::{Adapter, DatabaseConfig};
pub use place::Invalid;

use crate::telemetry::Format;
use environment::PREFIX;
use place::{Place, Problems};
use section::{Field, Section};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use sync_worker_core::name::DatabaseName;
use sync_worker_engine::pipeline::Plan;
use tracing_subscriber::EnvFilter;

const ROOT: [Field; 6] = [
    Field { name: "databases", takes: "tables", default: "", about: "" },
    Field { name: "pipelines", takes: "tables", default: "", about: "" },
    Field { name: "state", takes: "table", default: "", about: "" },
    Field { name: "bus", takes: "table", default: "", about: "" },
    Field { name: "http", takes: "table", default: "", about: "" },
    Field { name: "log", takes: "table", default: "", about: "" },
];

const STATE: [Field; 1] = [Field {
    name: "path",
    takes: "text",
    default: "\"./sync-worker-data\"",
    about: "The folder of the embedded log, of checkpoints, retries and dead letters. It holds rows, so only its owner can \
            read it, and it belongs to one worker at a time.",
}];

const BUS: [Field; 3] = [
    Field {
        name: "segment_size",
        takes: "size",
        default: "\"64MiB\"",
        about: "How large a file of the log becomes; whole files are removed.",
    },
    Field {
        name: "retention_size",
        takes: "size",
        default: "\"1GiB\"",
        about: "Beyond this the oldest files of a pipeline's log go, unless a target still needs them.",
    },
    Field {
        name: "retention_age",
        takes: "duration",
        default: "\"7d\"",
        about: "Older files go, unless a target still needs them.",
    },
];

const HTTP: [Field; 1] = [Field {
    name: "listen",
    takes: "address and port",
    default: "\"127.0.0.1:3001\"",
    about: "Where health, metrics and status are served, and where the commands that speak to a running worker look for \
            it. There is no authentication yet: leave it on this machine.",
}];

const LOG: [Field; 2] = [
    Field {
        name: "level",
        takes: "`error`, `warn`, `info`, `debug`, `trace`, or `info,sync_worker_engine=debug`",
        default: "\"info\"",
        about: "Which lines are written. The environment variable `RUST_LOG` comes first. What libraries say below `info` is left out: rows could be in it.",
    },
    Field {
        name: "format",
        takes: "`\"auto\"`, `\"json\"` or `\"text\"`",
        default: "\"auto\"",
        about: "`auto`: readable on a terminal, JSON elsewhere.",
    },
];

/// Everything that a start needs to know.
#[derive(Debug)]
pub struct Configuration {
    pub databases: BTreeMap<DatabaseName, DatabaseConfig>,
    pub pipelines: Vec<Plan>,
    /// The state folder.
    pub state: PathBuf,
    pub bus: sync_worker_bus::Config,
    /// Where the HTTP API listens.
    pub http: SocketAddr,
    pub log: LogConfig,
    /// What is unwise, a line each.
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct LogConfig {
    /// Directives of [`EnvFilter`].
    pub level: String,
    pub format: Format,
}

/// What a command does with the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Connects to the databases: passwords must be there.
    Connect,
    /// Speaks to a running worker alone.
    Ask,
}

/// Where a file is looked for when none is named.
const PLACES: [&str; 2] = ["./sync-worker.toml", "/etc/sync-worker/config.toml"];

impl Configuration {
    /// Reads the file at `path`, or else the first that is found, with this process's environment over it.
    pub fn load(path: Option<&Path>, purpose: Purpose) -> Result<Self, Invalid> {
        // Variables that are no text are none of ours.
        let texts =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let variables: Vec<(String, String)> = texts.collect();
        let problems = Problems::default();
        let file = match path {
            Some(path) => Some(path.to_owned()),
            None => PLACES.iter().map(PathBuf::from).find(|path| path.exists()),
        };
        let text = match &file {
            Some(file) => match std::fs::read_to_string(file) {
                Ok(text) => text,
                Err(error) => {
                    problems.add(&Place::Unknown, "", format!("can't read the configuration: {error}"));
                    return Err(Invalid { file: Some(file.clone()), problems: problems.into_vec() });
                }
            },
            None if variables.iter().any(|(name, _)| name.starts_with(PREFIX)) => String::new(),
            None => {
                let text = format!("found no configuration at {}: name one with --config FILE", PLACES.join(" or "));
                problems.add(&Place::Unknown, "", text);
                return Err(Invalid { file: None, problems: problems.into_vec() });
            }
        };
        Self::read(&text, &variables, purpose).map_err(|problems| Invalid { file, problems })
    }

    fn read(text: &str, variables: &[(String, String)], purpose: Purpose) -> Result<Self, Vec<place::Problem>> {
        let problems = Problems::default();
        let mut table = tree::parse(text, &problems);
        environment::overlay(&mut table, variables, &problems);
        let root = Section::new("", Place::Unknown, table, &ROOT, &problems);
        let mut warnings = Vec::new();

        let mut databases = pipelines::Databases::new();
        for (name, section) in root.named("databases") {
            databases::check_name(&root, &section.place, "databases", &name);
            let database = databases::read(&name, &section, purpose == Purpose::Connect, &mut warnings);
            databases.insert(name, database);
        }
        if databases.is_empty() {
            root.missing("databases", "[databases.NAME] with kind and url");
        }
        let mut plans = Vec::new();
        let sections = root.named("pipelines");
        for (name, section) in &sections {
            databases::check_name(&root, &section.place, "pipelines", name);
            plans.extend(pipelines::read(name, section, &databases));
        }
        if sections.is_empty() {
            root.missing("pipelines", "[pipelines.NAME] with from and to, or members, and with tables");
        }
        let databases: BTreeMap<_, _> =
            databases.into_values().flatten().map(|database| (database.name.clone(), database)).collect();
        loops::check(&root.open_section("pipelines"), &plans, &databases);

        let configuration = Self {
            databases,
            pipelines: plans,
            state: state(&root),
            bus: bus(&root),
            http: http(&root),
            log: log(&root),
            warnings,
        };
        match problems.into_vec() {
            problems if problems.is_empty() => Ok(configuration),
            problems => Err(problems),
        }
    }
}

fn state(root: &Section<'_>) -> PathBuf {
    let state = root.section("state", &STATE);
    PathBuf::from(state.text("path").map_or_else(|| "./sync-worker-data".to_owned(), |path| path.value))
}

fn bus(root: &Section<'_>) -> sync_worker_bus::Config {
    let bus = root.section("bus", &BUS);
    let default = sync_worker_bus::Config::default();
    let ages = Duration::from_secs(1)..=Duration::from_secs(10 * 365 * 24 * 3600);
    let config = sync_worker_bus::Config {
        segment_bytes: bus.size("segment_size", 64 << 10..=4 << 30).unwrap_or(default.segment_bytes),
        max_bytes: bus.size("retention_size", 64 << 10..=1 << 50).unwrap_or(default.max_bytes),
        max_age: bus.duration("retention_age", ages).unwrap_or(default.max_age),
        ..default
    };
    if config.segment_bytes > config.max_bytes {
        bus.problem("segment_size", "is larger than retention_size");
    }
    config
}

fn http(root: &Section<'_>) -> SocketAddr {
    let http = root.section("http", &HTTP);
    let default = SocketAddr::from(([127, 0, 0, 1], 3001));
    let Some(listen) = http.text("listen") else { return default };
    listen.value.parse().unwrap_or_else(|_| {
        let text = format!("{:?} is no address with a port, as in \"127.0.0.1:3001\" or \"[::1]:3001\"", listen.value);
        http.problem("listen", text);
        default
    })
}

fn log(root: &Section<'_>) -> LogConfig {
    const FORMATS: [(&str, Format); 3] = [("auto", Format::Auto), ("json", Format::Json), ("text", Format::Text)];
    let log = root.section("log", &LOG);
    let level = log.text("level").map_or_else(|| "info".to_owned(), |level| level.value);
    if let Err(problem) = levels(&level) {
        log.problem("level", problem);
    }
    LogConfig { level, format: log.choice("format", &FORMATS).unwrap_or(Format::Auto) }
}

/// A bare word is a level here; the filter itself would take any other for the name of a target.
fn levels(text: &str) -> Result<(), String> {
    const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
    if let Err(error) = EnvFilter::try_new(text) {
        return Err(format!("{text:?} is no log level: {error}"));
    }
    let bare = text.split(',').map(str::trim).filter(|part| !part.contains(['=', '[', ':']));
    for word in bare {
        if !LEVELS.contains(&word.to_ascii_lowercase().as_str()) {
            return Err(format!("there is no level {word:?}{}", place::suggestion(word, LEVELS)));
        }
    }
    Ok(())
}
