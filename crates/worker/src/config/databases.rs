//! `[databases.NAME]`: how each database is reached.

use crate::config::place::{self, suggestion};
use crate::config::section::{Field, Section};
use crate::config::tree::{Entry, Node, Value};
use serde::de::DeserializeOwned;
use sync_worker_core::name::DatabaseName;
use sync_worker_core::secret::Secret;

/// Of every kind of database; the other fields are its adapter's.
pub const FIELDS: [Field; 4] = [
    Field {
        name: "kind",
        takes: "`\"postgres\"`, `\"mysql\"`, `\"mariadb\"` or `\"mongodb\"`",
        default: "",
        about: "What speaks at the other end. Required.",
    },
    Field {
        name: "url",
        takes: "text",
        default: "",
        about: "Where it is, as which user: `postgres://user@host:5432/database`, `mysql://user@host:3306/database`, \
                `mongodb://user@host:27017/database`. \
                With several hosts, commas between them, the one that takes writes is found and followed. Required.",
    },
    Field {
        name: "password",
        takes: "`{ env = \"NAME\" }` or `{ file = \"PATH\" }`",
        default: "",
        about: "Where the password is found: in an environment variable, or in a file, whose last line break does not \
                count.",
    },
    Field {
        name: "priority",
        takes: "whole number",
        default: "0",
        about: "Who wins a tie between two members of a two-way pipeline, and all conflicts with `strategy = \"priority\"`: \
                the higher one.",
    },
];

pub const PASSWORD: [Field; 2] = [
    Field { name: "env", takes: "text", default: "", about: "The name of an environment variable." },
    Field { name: "file", takes: "text", default: "", about: "The path of a file." },
];

/// A database as configured.
#[derive(Clone, Debug)]
pub struct DatabaseConfig {
    pub name: DatabaseName,
    pub adapter: Adapter,
    pub place: Place,
    /// The higher one wins a tie in a two-way pipeline.
    pub priority: i64,
}

/// Where a database is, whoever asks: two names with the same place are one database.
#[derive(Clone, Debug)]
pub struct Place {
    pub hosts: Vec<String>,
    pub database: String,
    /// Where a table without a schema of its own is.
    pub schema: String,
}

impl DatabaseConfig {
    /// Schema and name of a table, however the configuration writes them; the adapter refuses what it can't read.
    pub fn table(&self, called: &str) -> (String, String) {
        let default = &self.place.schema;
        match &self.adapter {
            Adapter::Postgres(_) => {
                let name = sync_worker_postgres::catalog::Qualified::parse(called);
                (name.schema, name.table)
            }
            Adapter::Mysql(_) => match sync_worker_mysql::catalog::QualifiedName::parse(called, Some(default)) {
                Ok(name) => (name.database, name.table),
                Err(_) => (default.clone(), called.to_owned()),
            },
            // A collection's name may have dots.
            Adapter::Mongodb(_) => (default.clone(), called.to_owned()),
        }
    }
}

/// The adapter that a database's kind picks, with its own settings.
#[derive(Clone, Debug)]
pub enum Adapter {
    Postgres(sync_worker_postgres::Config),
    /// MySQL and MariaDB.
    Mysql(sync_worker_mysql::Config),
    Mongodb(sync_worker_mongodb::Config),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Postgres,
    Mysql,
    Mongodb,
}

const KINDS: [(&str, Kind); 4] =
    [("postgres", Kind::Postgres), ("mysql", Kind::Mysql), ("mariadb", Kind::Mysql), ("mongodb", Kind::Mongodb)];

/// Reads one database. Without `secrets` its password is not looked for: the command does not connect to it.
pub fn read(name: &str, section: &Section<'_>, secrets: bool, warnings: &mut Vec<String>) -> Option<DatabaseConfig> {
    let kind = match section.has("kind") {
        true => section.choice("kind", &KINDS),
        false => {
            section.missing("kind", "kind = \"postgres\", kind = \"mysql\" or kind = \"mongodb\"");
            None
        }
    };
    let url = section.text("url");
    if !section.has("url") {
        section.missing("url", "url = \"postgres://user@host:5432/database\" or one that begins with mysql://");
    }
    let password = password(section, secrets);
    let priority = section.signed("priority").unwrap_or(0);
    let (kind, url) = (kind?, url?.value);
    // Before anybody takes it apart: a part of the password would be taken for something that may be shown.
    if breaks_early(&url) {
        let problem =
            "its user or password ends early: write / as %2F, ? as %3F and # as %23 there, and @ as %40 elsewhere";
        section.problem("url", problem);
        return None;
    }
    if holds_password(&url) {
        warnings.push(format!(
            "databases.{name}.url holds a password: better write password = {{ env = \"NAME\" }} or {{ file = \"PATH\" }}"
        ));
    }
    let adapter = match kind {
        Kind::Postgres => {
            let mut config: sync_worker_postgres::Config = adapter(section, &url)?;
            config.password = password.or(config.password);
            Adapter::Postgres(config)
        }
        Kind::Mysql => {
            let mut config: sync_worker_mysql::Config = adapter(section, &url)?;
            config.password = password.or(config.password);
            Adapter::Mysql(config)
        }
        Kind::Mongodb => {
            let mut config: sync_worker_mongodb::Config = adapter(section, &url)?;
            config.password = password.or(config.password);
            Adapter::Mongodb(config)
        }
    };
    match adapter.place() {
        Ok(place) => Some(DatabaseConfig { name: DatabaseName::new(name), adapter, place, priority }),
        Err(problem) => {
            section.problem("url", problem.strip_prefix("url: ").unwrap_or(&problem));
            None
        }
    }
}

impl Adapter {
    fn place(&self) -> Result<Place, String> {
        match self {
            Adapter::Postgres(config) => {
                let address = config.address().map_err(|error| error.to_string())?;
                let hosts = address.servers.iter().map(|server| server.to_string().to_lowercase()).collect();
                Ok(Place { hosts, database: address.database, schema: "public".to_owned() })
            }
            Adapter::Mysql(config) => {
                let address = config.address().map_err(|error| error.to_string())?;
                let hosts = address.hosts.iter().map(|host| host.to_string().to_lowercase()).collect();
                // Tables of all its databases are in one place there.
                Ok(Place { hosts, database: String::new(), schema: address.database.unwrap_or_default() })
            }
            Adapter::Mongodb(config) => {
                let address = config.address().map_err(|error| error.to_string())?;
                let hosts = address.hosts.iter().map(|host| host.to_lowercase()).collect();
                Ok(Place { hosts, database: address.database, schema: String::new() })
            }
        }
    }
}

fn password(section: &Section<'_>, secrets: bool) -> Option<Secret> {
    const CURE: &str = "write password = { env = \"NAME\" } or password = { file = \"PATH\" }";
    let entry = section.entries().iter().find(|entry| entry.name == "password")?;
    if let Some(text) = entry.node.environment_text()
        && !text.trim_start().starts_with('{')
    {
        return Some(Secret::new(text.to_owned()));
    }
    if let Value::Text(_) = entry.node.value
        && entry.node.environment_text().is_none()
    {
        section.problem("password", format!("does not stand in the file itself; {CURE}"));
        return None;
    }
    let source = section.section("password", &PASSWORD);
    let (env, file) = (source.text("env"), source.text("file"));
    let read = match (env, file) {
        _ if !secrets => return None,
        (Some(env), None) => match std::env::var(&env.value) {
            Ok(value) => Ok(value),
            Err(std::env::VarError::NotPresent) => Err(format!("environment variable {} is not set", env.value)),
            Err(std::env::VarError::NotUnicode(_)) => Err(format!("environment variable {} is not UTF-8", env.value)),
        },
        (None, Some(file)) => match std::fs::read_to_string(&file.value) {
            Ok(text) => {
                Ok(text.strip_suffix('\n').map_or(&*text, |text| text.strip_suffix('\r').unwrap_or(text)).into())
            }
            Err(error) => Err(format!("can't read {}: {error}", file.value)),
        },
        (Some(_), Some(_)) => Err(format!("names two sources; {CURE}")),
        (None, None) => Err(format!("names no source; {CURE}")),
    };
    match read {
        Ok(value) => Some(Secret::new(value)),
        Err(problem) => {
            section.problem("password", problem);
            None
        }
    }
}

/// Hands the fields that are not common to all databases to an adapter's own configuration, one by one first, so that
/// each mistake is found and has its place.
fn adapter<T: DeserializeOwned>(section: &Section<'_>, url: &str) -> Option<T> {
    let mut whole = toml::Table::new();
    whole.insert("url".to_owned(), toml::Value::String(url.to_owned()));
    let mut good = true;
    for entry in section.entries() {
        if FIELDS.iter().any(|field| field.name == entry.name) {
            continue;
        }
        match try_field::<T>(url, entry) {
            Ok(value) => drop(whole.insert(entry.name.clone(), value)),
            Err(Mistake::Unknown(names)) => {
                let own = names.iter().map(String::as_str).filter(|name| *name != "url");
                section.unknown(entry, FIELDS.iter().map(|field| field.name).chain(own));
                good = false;
            }
            Err(Mistake::Wrong(text)) => {
                section.problem(&entry.name, text);
                good = false;
            }
        }
    }
    match T::deserialize(toml::Value::Table(whole)) {
        Ok(config) => good.then_some(config),
        Err(error) => {
            section.problem("", without_value(error.message()));
            None
        }
    }
}

enum Mistake {
    /// With the names that there are.
    Unknown(Vec<String>),
    Wrong(String),
}

/// The value in the form in which the adapter takes it: an environment variable's text may stand for a number.
fn try_field<T: DeserializeOwned>(url: &str, entry: &Entry) -> Result<toml::Value, Mistake> {
    let mut first = None;
    for value in forms(&entry.node) {
        let mut table = toml::Table::new();
        table.insert("url".to_owned(), toml::Value::String(url.to_owned()));
        table.insert(entry.name.clone(), value.clone());
        let Err(error) = T::deserialize(toml::Value::Table(table)) else { return Ok(value) };
        let message = error.message();
        if message.starts_with("missing field") {
            return Ok(value);
        }
        if let Some(names) = message.strip_prefix(&format!("unknown field `{}`", entry.name)) {
            return Err(Mistake::Unknown(names.split('`').skip(1).step_by(2).map(str::to_owned).collect()));
        }
        first.get_or_insert_with(|| without_value(message));
    }
    Err(Mistake::Wrong(first.unwrap_or_else(|| format!("can't be {}", entry.node.kind()))))
}

/// What is expected, without the value that was found: it may be a secret (invariant 11).
fn without_value(message: &str) -> String {
    match message.split_once(", expected ") {
        Some((found, expected)) if found.starts_with("invalid") => format!("must be {expected}"),
        Some(_) | None => message.replace('\n', " "),
    }
}

fn forms(node: &Node) -> Vec<toml::Value> {
    let Some(text) = node.environment_text() else { return plain(node).into_iter().collect() };
    let mut forms = vec![toml::Value::String(text.to_owned())];
    forms.extend(text.parse().ok().map(toml::Value::Integer));
    forms.extend(text.parse().ok().map(toml::Value::Boolean));
    forms
}

fn plain(node: &Node) -> Option<toml::Value> {
    Some(match &node.value {
        Value::Text(text) => toml::Value::String(text.clone()),
        Value::Integer(number) => toml::Value::Integer(*number),
        Value::Boolean(value) => toml::Value::Boolean(*value),
        Value::Array(items) => toml::Value::Array(items.iter().map(plain).collect::<Option<_>>()?),
        Value::Table(table) => {
            let pairs = table.0.iter().map(|entry| Some((entry.name.clone(), plain(&entry.node)?)));
            toml::Value::Table(pairs.collect::<Option<_>>()?)
        }
        Value::Other(_) => return None,
    })
}

/// Between the scheme and the path.
fn authority(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())]
}

/// Whether the user and the password may not end where they seem to.
fn breaks_early(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest[authority(url).len()..].contains('@')
}

fn holds_password(url: &str) -> bool {
    let user = authority(url).rsplit_once('@').map_or("", |(user, _)| user);
    user.split_once(':').is_some_and(|(_, password)| !password.is_empty())
        || url.split_once('?').is_some_and(|(_, query)| query.split('&').any(|pair| pair.starts_with("password=")))
}

/// Notes a name that can't stand in file names, slot names and metrics alike.
pub fn check_name(root: &Section<'_>, place: &place::Place, outer: &str, name: &str) {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if !begins || !name.chars().all(fits) || name.len() > 40 {
        let rule = "letters, digits, _ and -, up to 40, the first a letter or a digit";
        root.problem_at(place, outer, format!("{name:?} can't be a name; it takes {rule}"));
    }
}

/// Notes a database that is not there; whether it is.
pub fn exists<'n>(
    section: &Section<'_>,
    field: &str,
    place: &place::Place,
    name: &str,
    known: impl IntoIterator<Item = &'n str> + Clone,
) -> bool {
    let found = known.clone().into_iter().any(|one| one == name);
    if !found {
        section.problem_at(place, field, format!("there is no database {name:?}{}", suggestion(name, known)));
    }
    found
}
