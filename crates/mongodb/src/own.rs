//! The marker and the parked rows, which a sink writes and, in a two-way pipeline, a source reads back: the collections
//! `sync_worker.progress` and `sync_worker.parked`, inside the member's own database, or its change stream would not show
//! them.

use crate::catalog;
use crate::client::Client;
use crate::error::{Error, UNAUTHORIZED};
use bson::{RawDocumentBuf, rawdoc};
use sync_worker_core::database::Scope;
use sync_worker_core::name::DatabaseName;

pub const PROGRESS: &str = "sync_worker.progress";
pub const PARKED: &str = "sync_worker.parked";

/// One partition per pipeline and target.
const PARTITION: i32 = 0;

/// `{installation, pipeline, database, partition}`: whose marker and parked rows are meant. It is the `_id` of the one and
/// `_id.of` of the others.
pub fn owner(scope: &Scope, database: &DatabaseName) -> RawDocumentBuf {
    rawdoc! {
        "installation": scope.installation.as_str(),
        "pipeline": scope.pipeline.as_str(),
        "database": database.as_str(),
        "partition": PARTITION,
    }
}

/// Makes what is missing, so that no transaction has to. Two-way, the stream has to show the documents in full: what an
/// update leaves as it was, and what a delete takes away.
pub async fn create(client: &Client, two_way: bool) -> Result<(), Error> {
    const EXISTS: i32 = 48;
    let doing = "making its own collections";
    let lacking = |error: Error, name: &str| match error.code() {
        Some(UNAUTHORIZED) => Error::Fatal(format!(
            "the user may not make collection {name} as it has to be; as an administrator run: db.grantRolesToUser(\"the user\", [{{ role: \"readWrite\", db: \"{}\" }}])",
            client.name
        )),
        _ => error,
    };
    for name in [PROGRESS, PARKED] {
        let concern = rawdoc! { "w": "majority" };
        let command = match two_way {
            true => rawdoc! {
                "create": name, "changeStreamPreAndPostImages": { "enabled": true }, "writeConcern": concern,
            },
            false => rawdoc! { "create": name, "writeConcern": concern },
        };
        match client.run(doing, command).await {
            Ok(_) => {}
            Err(error) if error.code() == Some(EXISTS) => {}
            Err(error) => return Err(lacking(error, name)),
        }
    }
    if !two_way {
        return Ok(());
    }
    // A one-way pipeline may have made them.
    for found in catalog::collections(client, &[PROGRESS, PARKED]).await? {
        if !found.images {
            let command = rawdoc! {
                "collMod": found.name.as_str(),
                "changeStreamPreAndPostImages": { "enabled": true },
                "writeConcern": { "w": "majority" },
            };
            client.run(doing, command).await.map_err(|error| lacking(error, &found.name))?;
        }
    }
    Ok(())
}
