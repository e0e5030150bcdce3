//! Connections to a replica set or a sharded cluster, and what it says about itself.

use crate::catalog;
use crate::config::Config;
use crate::error::{Error, UNAUTHORIZED};
use bson::oid::ObjectId;
use bson::{Document, RawDocumentBuf, Timestamp, rawdoc};
use mongodb::ClientSession;
use mongodb::options::ClientOptions;
use std::future::Future;
use std::time::Duration;
use sync_worker_core::position::Epoch;

/// How long finding a primary may take. A swallowed connection is noticed within twice this.
const REACH_WITHIN: Duration = Duration::from_millis(2500);

/// How long a command may be without an answer. A batch of 12 MB over a slow link needs most of it.
const PATIENCE: Duration = Duration::from_secs(30);

/// The wire version of MongoDB 6.0, and of 8.0, which has `bulkWrite`.
const OLDEST: i32 = 17;
const BULK_WRITE: i32 = 25;

/// A driver's client, with the database that the URL names.
#[derive(Clone)]
pub struct Client {
    pub driver: mongodb::Client,
    pub database: mongodb::Database,
    pub name: String,
    /// A router of a sharded cluster answers.
    pub sharded: bool,
    pub bulk_write: bool,
}

impl Client {
    pub async fn connect(config: &Config) -> Result<Self, Error> {
        let doing = "the start of a session";
        let name = config.address()?.database;
        let mut options =
            ClientOptions::parse(&config.url).await.map_err(|error| match Error::driver(doing, &error) {
                unreachable @ Error::Unreachable { .. } => unreachable,
                // The driver's text may quote the URL, password and all.
                _ => Error::Config("url: the driver can't read it; look at its parameters".to_owned()),
            })?;
        options.app_name = Some("sync-worker".to_owned());
        options.server_selection_timeout = Some(REACH_WITHIN);
        options.connect_timeout = Some(REACH_WITHIN);
        // The driver drops a stream's place when it repeats a read.
        options.retry_reads = Some(false);
        if let (Some(password), Some(credential)) = (&config.password, options.credential.as_mut()) {
            credential.password = Some(password.expose().to_owned());
        }
        let driver = mongodb::Client::with_options(options)
            .map_err(|_| Error::Config("url: the driver can't use it; look at its parameters".to_owned()))?;
        let database = driver.database(&name);
        let mut client = Self { driver, database, name, sharded: false, bulk_write: false };
        let hello = client.admin("a look at the server", rawdoc! { "hello": 1 }).await?;
        client.sharded = hello.get_str("msg").is_ok_and(|text| text == "isdbgrid");
        if !client.sharded && hello.get_str("setName").is_err() {
            return Err(Error::Fatal(
                "the MongoDB server is not a replica set: it has neither change streams nor transactions; start it with \
                 --replSet NAME and run rs.initiate()"
                    .to_owned(),
            ));
        }
        let version = hello.get_i32("maxWireVersion").unwrap_or_default();
        if version < OLDEST {
            return Err(Error::Fatal("the MongoDB server is too old; upgrade it to 6.0 or later".to_owned()));
        }
        client.bulk_write = version >= BULK_WRITE;
        Ok(client)
    }

    /// Runs a command on the database.
    pub async fn run(&self, doing: &'static str, command: RawDocumentBuf) -> Result<Document, Error> {
        within(doing, self.database.run_raw_command(command).into_future()).await
    }

    pub async fn admin(&self, doing: &'static str, command: RawDocumentBuf) -> Result<Document, Error> {
        within(doing, self.driver.database("admin").run_raw_command(command).into_future()).await
    }

    /// Runs a command in a session's transaction.
    pub async fn run_in(
        &self,
        session: &mut ClientSession,
        doing: &'static str,
        command: RawDocumentBuf,
    ) -> Result<Document, Error> {
        within(doing, self.database.run_raw_command(command).session(session).into_future()).await
    }

    /// `bulkWrite` is a command of the whole server.
    pub async fn admin_in(
        &self,
        session: &mut ClientSession,
        doing: &'static str,
        command: RawDocumentBuf,
    ) -> Result<Document, Error> {
        within(doing, self.driver.database("admin").run_raw_command(command).session(session).into_future()).await
    }

    /// A time up to which the server has executed everything.
    pub async fn now(&self) -> Result<Timestamp, Error> {
        let reply = self.admin("a look at the clock", rawdoc! { "ping": 1 }).await?;
        reply.get_timestamp("operationTime").map_err(|_| Error::Protocol("an answer without its time"))
    }

    /// What the positions of this database count in. A user who may not see the identity of the set sees those of the
    /// collections that are named.
    pub async fn epoch(&self, names: &[&str]) -> Result<Epoch, Error> {
        let doing = "a look at the replica set";
        if self.sharded {
            let version = rawdoc! { "find": "version", "limit": 1 };
            let reply = within(doing, self.driver.database("config").run_raw_command(version).into_future()).await;
            let first = allowed(reply)?.and_then(|reply| first_of(&reply));
            let id = first.and_then(|version| version.get_object_id("clusterId").ok());
            return Ok(epoch("sharded", self.identity(id, names).await?, &self.name));
        }
        let hello = self.admin(doing, rawdoc! { "hello": 1 }).await?;
        let set = hello.get_str("setName").map_err(|_| Error::Protocol("a replica set without a name"))?.to_owned();
        let config = allowed(self.admin(doing, rawdoc! { "replSetGetConfig": 1 }).await)?.unwrap_or_default();
        let settings = config.get_document("config").and_then(|config| config.get_document("settings"));
        let id = settings.ok().and_then(|settings| settings.get_object_id("replicaSetId").ok());
        Ok(epoch(&set, self.identity(id, names).await?, &self.name))
    }

    async fn identity(&self, id: Option<ObjectId>, names: &[&str]) -> Result<String, Error> {
        if let Some(id) = id {
            return Ok(id.to_hex());
        }
        let found = catalog::collections(self, names).await?;
        let short = |one: &catalog::Collection| Some((one.name.clone(), one.uuid.clone()?));
        let mut known: Vec<(String, String)> = found.iter().filter_map(short).collect();
        known.sort();
        Ok(known
            .iter()
            .map(|(name, uuid)| format!("{uuid}:{}", name.replace(['/', ','], "_")))
            .collect::<Vec<_>>()
            .join(","))
    }
}

/// None where the user may not ask.
fn allowed(answer: Result<Document, Error>) -> Result<Option<Document>, Error> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.code() == Some(UNAUTHORIZED) => Ok(None),
        Err(error) => Err(error),
    }
}

fn epoch(set: &str, identity: String, database: &str) -> Epoch {
    Epoch(format!("{set}/{identity}/{database}"))
}

/// Whether two epochs are one, as far as both say: an identity that one of them could not see is taken to be the same, and
/// so are collections that only one of them has seen.
pub fn same_epoch(one: &Epoch, other: &Epoch) -> bool {
    let parts = |epoch: &Epoch| -> Vec<String> { epoch.0.splitn(3, '/').map(str::to_owned).collect() };
    match (&parts(one)[..], &parts(other)[..]) {
        ([set, id, name], [other_set, other_id, other_name]) => {
            set == other_set && name == other_name && same_identity(id, other_id)
        }
        _ => false,
    }
}

fn same_identity(one: &str, other: &str) -> bool {
    if one.contains(':') && other.contains(':') {
        let names = |text: &str| -> Vec<(String, String)> {
            let parts = text.split(',').filter_map(|part| part.split_once(':'));
            parts.map(|(uuid, name)| (name.to_owned(), uuid.to_owned())).collect()
        };
        let (one, other) = (names(one), names(other));
        return one.iter().all(|(name, uuid)| other.iter().all(|(same, its)| name != same || uuid == its));
    }
    one == other || [one, other].iter().any(|id| id.is_empty() || id.contains(':'))
}

/// The first document of a cursor's first batch.
pub fn first_of(reply: &Document) -> Option<Document> {
    let batch = reply.get_document("cursor").ok()?.get_array("firstBatch").ok()?;
    batch.first()?.as_document().cloned()
}

/// A dead peer may keep a connection open without a word.
pub async fn within<T>(doing: &'static str, work: impl Future<Output = mongodb::error::Result<T>>) -> Result<T, Error> {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(outcome) => outcome.map_err(|error| Error::driver(doing, &error)),
        Err(_) => Err(Error::Silent { doing, seconds: PATIENCE.as_secs() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_that_could_not_be_seen_is_taken_to_be_the_same() {
        let epoch = |text: &str| Epoch(text.to_owned());
        assert!(same_epoch(&epoch("rs0/1/a/b"), &epoch("rs0//a/b")));
        assert!(same_epoch(&epoch("rs0/1/a"), &epoch("rs0/1/a")));
        for other in ["rs0/2/a", "rs1/1/a", "rs0/1/b", "rs0"] {
            assert!(!same_epoch(&epoch("rs0/1/a"), &epoch(other)), "{other}");
        }
        let seen = epoch("rs0/00a1:one,00a2:two/a");
        assert!(same_epoch(&seen, &epoch("rs0/00a2:two,00a3:three/a")), "another table joined");
        assert!(same_epoch(&seen, &epoch("rs0/1/a")), "a privilege was granted");
        assert!(!same_epoch(&seen, &epoch("rs0/00b1:one,00a2:two/a")), "a collection of the same name elsewhere");
    }
}
