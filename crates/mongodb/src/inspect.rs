//! Preflight: what keeps a MongoDB database from being a source or a target, with the statement that mends it. Changes
//! nothing.

use crate::catalog::{self, Collection};
use crate::client::Client;
use crate::config::Config;
use crate::ddl;
use crate::error::Error;
use bson::rawdoc;
use sync_worker_core::database::{Finding, Inspection, Role, Scope, TableAt};
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
    let names: Vec<&str> = scope.tables.iter().map(|at| at.name.as_str()).collect();
    let collections = catalog::collections(&client, &names).await?;
    for at in &scope.tables {
        let place = format!("{place} table {}", at.name);
        let collection = collections.iter().find(|collection| collection.name == at.name);
        let findings = look(at, collection, role);
        let missing = findings.iter().any(|(_, _, advice)| !advice);
        let finding = |(problem, cure, advice)| Finding { place: place.clone(), problem, cure, advice };
        found.findings.extend(findings.into_iter().map(finding));
        if missing {
            continue;
        }
        let count = client.run("a count of a collection", rawdoc! { "count": at.name.as_str() }).await?;
        found.tables.push(catalog::schema(&at.table));
        found.estimates.push(u64::try_from(count.get_i32("n").unwrap_or(0)).unwrap_or(0));
    }
    Ok(found)
}

/// Problem, cure, and whether it is advice only.
fn look(at: &TableAt, collection: Option<&Collection>, role: Role) -> Vec<(String, String, bool)> {
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
    match role {
        Role::Source if !collection.post_images => {
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
