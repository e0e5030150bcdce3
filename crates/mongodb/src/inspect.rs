//! Preflight: what keeps a MongoDB database from being a source or a target, with the statement that mends it. Changes
//! nothing.

use crate::catalog::{self, Collection};
use crate::client::Client;
use crate::config::Config;
use crate::ddl;
use crate::error::Error;
use crate::index;
use crate::key::DocumentKey;
use crate::source::{SHARDED, SHARDED_CURE};
use bson::{Bson, Document, rawdoc};
use sync_worker_core::database::{Finding, Inspection, Role, Scope, TableAt, clock_ahead};
use sync_worker_core::document::mapping::OtherFields;
use sync_worker_core::name::DatabaseName;

pub async fn inspect(config: &Config, name: &DatabaseName, scope: &Scope, role: Role) -> Result<Inspection, Error> {
    let place = format!("databases.{name}");
    let mut found = Inspection::default();
    let client = match Client::connect(config).await {
        Ok(client) => client,
        Err(Error::Fatal(text)) => {
            let (problem, cure) = text.split_once("; ").unwrap_or((&text, "name a replica set"));
            let (problem, cure) = (problem.to_owned(), cure.to_owned());
            found.findings.push(Finding { place, problem, cure, advice: false });
            return Ok(found);
        }
        Err(error) => return Err(error),
    };
    let mut whole = |problem: String, cure: String| {
        found.findings.push(Finding { place: place.clone(), problem, cure, advice: false });
    };
    if role == Role::Source
        && let Some(version) = lacks_split(&client).await?
    {
        let problem = format!("version {version} can't split events that are larger than 16 MB");
        whole(problem, "upgrade it to 6.0.9 or later".to_owned());
    }
    if scope.two_way && client.sharded {
        whole(SHARDED.to_owned(), SHARDED_CURE.to_owned());
    }
    if scope.two_way {
        found.clock_ahead = clock(&client).await?;
    }
    let keyed = scope.tables.iter().any(|at| !at.document.key.is_empty());
    for action in missing_actions(&client, role, scope.two_way, keyed).await? {
        let role_of = if role == Role::Source { "read" } else { "readWrite" };
        let cure = format!(
            "as an administrator run: db.grantRolesToUser(\"the user\", [{{ role: \"{role_of}\", db: \"{}\" }}])",
            client.name
        );
        whole(format!("the user lacks the privilege {action} on database {}", client.name), cure);
    }
    let names: Vec<&str> = scope.tables.iter().map(|at| at.name.as_str()).collect();
    let collections = catalog::collections(&client, &names).await?;
    for at in &scope.tables {
        let place = format!("{place} table {}", at.name);
        let collection = collections.iter().find(|collection| collection.name == at.name);
        let mut findings = look(at, collection, role, scope.two_way);
        let missing = findings.iter().any(|(_, _, advice)| !advice);
        if scope.two_way {
            findings.extend(look_two_way(at, collection));
        }
        findings.extend(look_keyed(&client, at, collection, role, scope.two_way).await?);
        let finding = |(problem, cure, advice)| Finding { place: place.clone(), problem, cure, advice };
        found.findings.extend(findings.into_iter().map(finding));
        if missing {
            continue;
        }
        let count = client.run("a count of a collection", rawdoc! { "count": at.name.as_str() }).await?;
        found.tables.push(catalog::schema(&at.table, &DocumentKey::new(&at.document)));
        found.estimates.push(u64::try_from(count.get_i32("n").unwrap_or(0)).unwrap_or(0));
    }
    Ok(found)
}

/// How far the server's clock is ahead of this machine's, in microseconds.
pub async fn clock(client: &Client) -> Result<Option<i64>, Error> {
    let ask = async {
        let hello = client.admin("a look at the clock", rawdoc! { "hello": 1 }).await?;
        Ok::<_, Error>(hello.get_datetime("localTime").ok().map(|time| time.timestamp_millis() * 1_000))
    };
    clock_ahead(ask).await
}

/// The server's version, if it is one of the first of 6.0: they have no `$changeStreamSplitLargeEvent`.
async fn lacks_split(client: &Client) -> Result<Option<String>, Error> {
    let info = client.admin("a look at the version", rawdoc! { "buildInfo": 1 }).await?;
    let part = |at: usize| match info.get_array("versionArray").ok().and_then(|parts| parts.get(at)) {
        Some(Bson::Int32(part)) => Some(*part),
        _ => None,
    };
    let lacks = matches!((part(0), part(1), part(2)), (Some(6), Some(0), Some(..9)));
    Ok(lacks.then(|| info.get_str("version").unwrap_or("6.0").to_owned()))
}

/// What the user may not do, as far as the server tells. Without users there is nothing to grant.
async fn missing_actions(client: &Client, role: Role, two_way: bool, keyed: bool) -> Result<Vec<&'static str>, Error> {
    let wanted: &[&str] = match role {
        Role::Source => &["find", "changeStream", "listCollections"],
        Role::Target if two_way => {
            &["find", "insert", "update", "remove", "createCollection", "collMod", "listCollections"]
        }
        Role::Target => &["find", "insert", "update", "remove", "createCollection", "listCollections"],
    };
    let command = rawdoc! { "connectionStatus": 1, "showPrivileges": true };
    let status = client.admin("a look at the user's privileges", command).await?;
    let Ok(told) = status.get_document("authInfo") else { return Ok(Vec::new()) };
    let Ok(privileges) = told.get_array("authenticatedUserPrivileges") else { return Ok(Vec::new()) };
    if privileges.is_empty() {
        return Ok(Vec::new());
    }
    let ours = |privilege: &&Document| {
        let Ok(resource) = privilege.get_document("resource") else { return false };
        let names = (resource.get_str("db").ok(), resource.get_str("collection").ok());
        // A privilege on single collections is not looked into: it may be enough.
        resource.get_bool("anyResource").unwrap_or(false)
            || names.0.is_some_and(|db| db.is_empty() || db == client.name)
    };
    let granted: Vec<&Bson> = privileges
        .iter()
        .filter_map(Bson::as_document)
        .filter(ours)
        .filter_map(|privilege| privilege.get_array("actions").ok())
        .flatten()
        .collect();
    let has = |action: &str| {
        granted.iter().any(|one| matches!(one.as_str(), Some(name) if name == action || name == "anyAction"))
    };
    let indexes = keyed.then_some("listIndexes");
    Ok(wanted.iter().copied().chain(indexes).filter(|action| !has(action)).collect())
}

/// What a two-way pipeline wants beside that.
fn look_two_way(at: &TableAt, collection: Option<&Collection>) -> Vec<(String, String, bool)> {
    let mut findings = Vec::new();
    if collection.is_some_and(|collection| !collection.images) {
        let problem = "the server keeps no documents before and after its changes, which a two-way pipeline needs";
        findings.push((problem.to_owned(), ddl::post_images(&at.name), false));
    }
    if let OtherFields::Column(name) = &at.document.other_fields {
        let problem =
            format!("other_fields names column {name}, whose members would come back as a field of that name");
        let cure = "write document = { other_fields = \"ignore\" } or \"refuse\"";
        findings.push((problem, cure.to_owned(), false));
    }
    findings
}

/// What a key of fields wants beside that.
async fn look_keyed(
    client: &Client,
    at: &TableAt,
    collection: Option<&Collection>,
    role: Role,
    two_way: bool,
) -> Result<Vec<(String, String, bool)>, Error> {
    let (mut findings, key) = (Vec::new(), DocumentKey::new(&at.document));
    let Some(collection) = collection.filter(|_| !key.is_id()) else { return Ok(findings) };
    if role == Role::Source && !two_way && !collection.images {
        let problem = "its changes come without the documents before and after them, which a key of fields needs";
        findings.push((problem.to_owned(), ddl::post_images(&at.name), false));
    }
    if index::name(client, &at.name, &key).await?.is_none() {
        findings.push((index::LACKING.to_owned(), ddl::unique_index(&at.name, key.fields()), false));
    }
    Ok(findings)
}

/// Problem, cure, and whether it is advice only.
fn look(at: &TableAt, collection: Option<&Collection>, role: Role, two_way: bool) -> Vec<(String, String, bool)> {
    let mut findings = Vec::new();
    let Some(collection) = collection else {
        let cure = match role {
            Role::Source => "correct its name in the configuration, or create it",
            Role::Target => "create it: `sync-worker schema` prints the statement",
        };
        return vec![("there is no such collection".to_owned(), cure.to_owned(), false)];
    };
    match collection.kind.as_str() {
        "view" => {
            let cure = "name the collection that it shows";
            findings.push(("it is a view".to_owned(), cure.to_owned(), false));
        }
        "timeseries" => {
            let cure = "name a plain collection: a change stream does not tell of measurements";
            findings.push(("it is a time series".to_owned(), cure.to_owned(), false));
        }
        _ => {}
    }
    if collection.folds {
        let cure = "name a collection whose collation tells them apart: strength 3 or more, or none";
        findings.push((
            "its collation makes one _id of strings that differ, such as in case".to_owned(),
            cure.to_owned(),
            false,
        ));
    }
    match role {
        Role::Source if !collection.images && !two_way && at.document.key.is_empty() => {
            let problem = "its updates come without the document after them: edits inside of nested fields can be written to MongoDB only";
            findings.push((problem.to_owned(), ddl::post_images(&at.name), true));
        }
        Role::Target if collection.capped => {
            let cure = "name a collection that is not capped: documents would go by themselves";
            findings.push(("it is capped".to_owned(), cure.to_owned(), false));
        }
        Role::Target if collection.validated => {
            let cure = "make sure that it takes what the source has: a document that it refuses becomes a dead letter";
            findings.push(("the server checks its documents by rules".to_owned(), cure.to_owned(), true));
        }
        Role::Source | Role::Target => {}
    }
    findings
}
