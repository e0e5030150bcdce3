//! Members that are all written to, and a worker that keeps them equal.

mod accounts;
mod applications;
mod ledger;
mod replaced;
mod writers;

pub use accounts::{Account, Accounts, Change};
pub use applications::{Applications, Traced, leads_to};
pub use ledger::plain;
pub use replaced::Replaced;
pub use writers::{Mix, Writers, is_conflict};

use crate::compare;
use crate::connection::Connection;
use crate::database::Database;
use crate::histogram::total;
use crate::kind::Kind;
use crate::mongodb::{self, number};
use crate::proxy::Proxy;
use crate::settings::{Settings, TableEntry};
use crate::wait;
use crate::worker::Worker;
use ::mongodb::bson::{Document, doc};
use anyhow::{Context, ensure};
use futures::TryStreamExt;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use sync_worker_engine::metrics::{CAPTURED_CHANGES, ECHOED_ROWS};
use sync_worker_engine::status::{State, Task};
use sync_worker_store::SqliteStore;

/// What everything may take to come to rest, backlog and all.
const SETTLE: Duration = Duration::from_secs(120);

const NAMES: [&str; 3] = ["a", "b", "c"];

const ACCOUNT: &str =
    "(id BIGINT PRIMARY KEY, writer VARCHAR(40) NOT NULL, a INT NOT NULL, b INT NOT NULL, counter BIGINT NOT NULL)";
const FENCE: &str = "(member VARCHAR(20) PRIMARY KEY, mark BIGINT NOT NULL)";

pub struct Member {
    pub name: &'static str,
    pub database: Database,
}

impl Member {
    /// An application's connection to `account`.
    pub async fn accounts(&self) -> anyhow::Result<Accounts> {
        Accounts::open(&self.database).await
    }

    /// Puts this member's mark into a fence.
    async fn raise(&self, fence: &str, mark: i64) -> anyhow::Result<()> {
        let name = self.name;
        match self.database.connect().await? {
            Connection::Mongodb(documents) => {
                let fences = documents.collection::<Document>(fence);
                fences.replace_one(doc! { "_id": name }, doc! { "mark": mark }).upsert(true).await?;
                Ok(())
            }
            mut connection => {
                connection.execute(&format!("DELETE FROM {fence} WHERE member = '{name}'")).await?;
                connection.execute(&format!("INSERT INTO {fence} VALUES ('{name}', {mark})")).await
            }
        }
    }
}

/// The mark of a member as a fence has it somewhere.
async fn mark_of(connection: &mut Connection, fence: &str, member: &str) -> anyhow::Result<Option<i64>> {
    match connection {
        Connection::Mongodb(documents) => {
            let found = documents.collection::<Document>(fence).find_one(doc! { "_id": member }).await?;
            Ok(found.and_then(|found| number(found.get("mark"))))
        }
        connection => {
            let mark = connection.value(&format!("SELECT mark FROM {fence} WHERE member = '{member}'")).await?;
            Ok(mark.map(|mark| mark.parse::<i64>()).transpose()?)
        }
    }
}

/// A two-way pipeline over some of the members.
#[derive(Clone, Debug)]
pub struct Shared {
    pub name: &'static str,
    /// By their places.
    pub members: Vec<usize>,
    /// All like `account`, each with further lines for its section.
    pub tables: Vec<(String, String)>,
    /// A table with a row for each member, which tells how far the others have come.
    pub fence: &'static str,
    /// Lines of the pipeline's section.
    pub lines: String,
}

impl Shared {
    fn names(&self) -> impl Iterator<Item = &str> {
        self.tables.iter().map(|(table, _)| table.as_str()).chain([self.fence])
    }
}

/// What grows with every change and every transaction of ours.
#[derive(Debug, PartialEq, Eq)]
pub struct Traffic {
    /// Our transactions at each member.
    pub written: Vec<i64>,
    /// Where each applier stands on the log.
    pub offsets: Vec<Option<u64>>,
    /// What captures have put on the log as changes.
    pub captured: u64,
    /// Rows of ours that captures have seen.
    pub echoed: u64,
}

pub struct TwoWay {
    // Dropped first: a worker holds connections and slots.
    pub worker: Worker,
    pub members: Vec<Member>,
    /// On the worker's way to each member, where there are any.
    pub proxies: Vec<Proxy>,
    /// What the worker was told; a change takes effect by [`Worker::configure`] and a start.
    pub settings: Settings,
    /// What may pass until something has come through.
    pub patience: Duration,
    pipelines: Vec<Shared>,
    marks: i64,
}

impl TwoWay {
    /// One member of each kind that two-way pipelines have.
    pub fn every_kind() -> [Kind; 3] {
        [Kind::Postgres, Kind::Mysql, Kind::Mongodb]
    }

    /// Members with the table of the writers. `lines` go into the pipeline's section.
    pub async fn new(kinds: &[Kind], label: &str, lines: &str) -> anyhow::Result<Self> {
        Self::with(kinds, label, lines, &[("account".to_owned(), String::new())]).await
    }

    /// The same, where the worker reaches each member through a proxy.
    pub async fn behind_proxies(kinds: &[Kind], label: &str, lines: &str) -> anyhow::Result<Self> {
        let tables = [("account".to_owned(), String::new())];
        Self::made(kinds, label, vec![all_of(kinds, lines, &tables)], true, None).await
    }

    /// Members with such tables, each with further lines for its section.
    pub async fn with(kinds: &[Kind], label: &str, lines: &str, tables: &[(String, String)]) -> anyhow::Result<Self> {
        Self::made(kinds, label, vec![all_of(kinds, lines, tables)], false, None).await
    }

    /// Members that several pipelines have shares in.
    pub async fn shared(kinds: &[Kind], label: &str, pipelines: Vec<Shared>) -> anyhow::Result<Self> {
        Self::made(kinds, label, pipelines, false, None).await
    }

    /// The same as [`Self::new`], with the first member on a server of its own.
    pub async fn with_server(kinds: &[Kind], label: &str, lines: &str, server: &str) -> anyhow::Result<Self> {
        let tables = [("account".to_owned(), String::new())];
        Self::made(kinds, label, vec![all_of(kinds, lines, &tables)], false, Some(server)).await
    }

    /// Member `b` has the higher priority.
    async fn made(
        kinds: &[Kind],
        label: &str,
        pipelines: Vec<Shared>,
        proxied: bool,
        first_server: Option<&str>,
    ) -> anyhow::Result<Self> {
        let mut proxies = Vec::new();
        let (mut settings, mut members) = (Settings::default(), Vec::new());
        for (place, (kind, name)) in kinds.iter().zip(NAMES).enumerate() {
            let label = format!("{label}_{name}");
            let database = match first_server.filter(|_| place == 0) {
                Some(server) => Database::create_on(server, &label).await?,
                None => Database::create(*kind, &label).await?,
            };
            let mut tables: BTreeMap<&str, &str> = BTreeMap::new();
            for shared in pipelines.iter().filter(|shared| shared.members.contains(&place)) {
                tables.extend(shared.tables.iter().map(|(table, _)| (table.as_str(), ACCOUNT)));
                tables.insert(shared.fence, FENCE);
            }
            let mut connection = database.connect().await?;
            for (table, columns) in tables {
                create(&mut connection, table, columns).await?;
            }
            if let Connection::Mongodb(documents) = &connection {
                let keyed = |(_, lines): &&(String, String)| lines.contains("key = \"id\"");
                for (table, _) in pipelines.iter().flat_map(|shared| &shared.tables).filter(keyed) {
                    mongodb::key_by(documents, table, &["id"]).await?;
                }
            }
            let mut url = database.url();
            if proxied {
                let proxy = Proxy::start(&database.address()).await?;
                // A driver of MongoDB goes where the replica set says that it is.
                if *kind != Kind::Mongodb {
                    url = database.url_at(None, Some(&proxy.address()));
                }
                proxies.push(proxy);
            }
            let entry = settings.database(name, *kind, &url);
            entry.extra.push_str(if name == "b" { "priority = 10\n" } else { "" });
            members.push(Member { name, database });
        }
        for shared in &pipelines {
            let names: Vec<&str> = shared.members.iter().map(|place| members[*place].name).collect();
            let pipeline = settings.two_way(shared.name, &names);
            pipeline.extra.push_str(&shared.lines);
            let entry = |(name, extra): &(String, String)| TableEntry { extra: extra.clone(), ..TableEntry::new(name) };
            pipeline.tables.extend(shared.tables.iter().map(entry).chain([TableEntry::new(shared.fence)]));
        }
        let worker = Worker::new(&settings)?;
        Ok(Self { worker, members, proxies, settings, patience: SETTLE, pipelines, marks: 0 })
    }

    /// The pipeline, or the first of several.
    fn first(&self) -> anyhow::Result<&Shared> {
        self.pipelines.first().context("a pipeline")
    }

    pub async fn start(&mut self) -> anyhow::Result<()> {
        self.worker.start()?;
        self.worker.until_streaming(SETTLE).await?;
        Ok(())
    }

    /// Waits until every member has what the others of its pipelines have committed before the call, and nothing is
    /// under way. What one pipeline has brought may still be on its way in the next.
    pub async fn settle(&mut self) -> anyhow::Result<()> {
        self.marks += 1;
        let mark = self.marks;
        let mut fences: BTreeSet<(usize, &str)> = BTreeSet::new();
        for shared in &self.pipelines {
            fences.extend(shared.members.iter().map(|place| (*place, shared.fence)));
        }
        for (place, fence) in fences {
            self.members[place].raise(fence, mark).await?;
        }
        for shared in &self.pipelines {
            for from in &shared.members {
                for to in shared.members.iter().filter(|to| *to != from) {
                    let (from, to) = (&self.members[*from], &self.members[*to]);
                    let mut connection = to.database.connect().await?;
                    wait::until(&format!("{}'s fence at {}", from.name, to.name), self.patience, async || {
                        let seen = mark_of(&mut connection, shared.fence, from.name).await?;
                        Ok((seen == Some(mark)).then_some(()))
                    })
                    .await?;
                }
            }
        }
        self.at_rest().await
    }

    /// Waits until no version is under way to anybody and all of the log is applied.
    pub async fn at_rest(&self) -> anyhow::Result<()> {
        let appliers = self.pipelines.iter().map(|shared| shared.members.len()).sum::<usize>();
        wait::until("everything to come to rest", self.patience, async || {
            let metrics = self.worker.metrics().await?;
            let still = |name: &str| {
                let lines = metrics.lines().filter(|line| line.starts_with(name));
                lines.filter_map(|line| line.rsplit(' ').next()).filter(|value| *value == "0").count() == appliers
            };
            Ok((still("sync_worker_keys_under_way{") && still("sync_worker_bus_records_behind{")).then_some(()))
        })
        .await
    }

    /// Every table is equal at all members of its pipeline, row by row.
    pub async fn equal(&mut self) -> anyhow::Result<usize> {
        self.settle().await?;
        let mut rows = 0;
        for shared in &self.pipelines {
            let (first, others) = shared.members.split_first().context("members")?;
            for other in others {
                let (first, other) = (&self.members[*first], &self.members[*other]);
                for table in shared.names() {
                    let equal = compare::equal(&first.database, &other.database, table).await;
                    rows = rows.max(equal.with_context(|| format!("{} and {}", first.name, other.name))?);
                }
            }
        }
        Ok(rows)
    }

    /// How many transactions each member has had from us.
    pub async fn written(&self) -> anyhow::Result<Vec<i64>> {
        let state = self.worker.folder().join("state");
        let installation = SqliteStore::installation_of(&state)?.context("an installation")?;
        let mut written = Vec::new();
        for member in &self.members {
            written.push(match member.database.connect().await? {
                Connection::Mongodb(documents) => {
                    let mut progress = documents.collection::<Document>("sync_worker.progress").find(doc! {}).await?;
                    let mut writes = 0;
                    while let Some(marker) = progress.try_next().await? {
                        writes += number(marker.get("writes")).context("writes")?;
                    }
                    writes
                }
                mut connection => {
                    let sql =
                        format!("SELECT sum(writes) FROM sync_worker.progress WHERE installation = '{installation}'");
                    connection.number(&sql).await?
                }
            });
        }
        Ok(written)
    }

    /// What has gone through so far.
    pub async fn traffic(&self) -> anyhow::Result<Traffic> {
        let tasks = self.worker.status().await?;
        let offsets = tasks.iter().filter(|task| task.task == Task::Apply).map(|task| task.offset).collect();
        let metrics = self.worker.metrics().await?;
        let [captured, echoed] = [CAPTURED_CHANGES, ECHOED_ROWS].map(|name| total(&metrics, name, ""));
        Ok(Traffic { written: self.written().await?, offsets, captured, echoed })
    }

    /// Cuts a member off from the worker and waits until that has noticed, for which somebody has to write.
    /// Applications still reach the member.
    pub async fn cut_off(&self, place: usize) -> anyhow::Result<()> {
        let name = self.members[place].name;
        self.proxies[place].swallow();
        self.proxies[place].cut();
        let what = format!("{name} to be missed");
        let waits = self.worker.until(&what, self.patience, |tasks| {
            tasks.iter().filter(|task| task.database == name).all(|task| task.state == State::Waiting)
        });
        waits.await.map(drop)
    }

    /// Ends that.
    pub fn let_back(&self, place: usize) {
        self.proxies[place].forward();
        // What lost bytes stays silent.
        self.proxies[place].cut();
    }

    /// Gives keys new rows at the first member.
    pub async fn overwrite(&self, ids: std::ops::RangeInclusive<i64>) -> anyhow::Result<()> {
        let mut accounts = self.members.first().context("members")?.accounts().await?;
        for id in ids {
            let row = Account { id, writer: format!("last{id}"), ..Account::default() };
            accounts.delete(id).await?;
            // What is still on its way may have come in between.
            while !accounts.insert(&row).await? {
                accounts.delete(id).await?;
            }
        }
        Ok(())
    }

    /// The writers of the rows that the first member holds.
    pub async fn held(&self) -> anyhow::Result<BTreeSet<String>> {
        let rows = self.members.first().context("members")?.accounts().await?.all().await?;
        Ok(rows.into_iter().map(|row| row.writer).collect())
    }

    /// The end of a test: equal in full, and a clean end.
    pub async fn finish(mut self) -> anyhow::Result<()> {
        self.equal().await?;
        self.end().await
    }

    /// A clean end.
    pub async fn end(mut self) -> anyhow::Result<()> {
        let status = self.worker.terminate().await?;
        ensure!(status.success(), "the worker ended with {status} after SIGTERM");
        self.worker.quiet();
        Ok(())
    }
}

/// The pipeline that all have a share in.
fn all_of(kinds: &[Kind], lines: &str, tables: &[(String, String)]) -> Shared {
    let (members, lines, tables) = ((0..kinds.len()).collect(), lines.to_owned(), tables.to_vec());
    Shared { name: "shared", members, tables, fence: "fence", lines }
}

/// A table as two-way pipelines need it.
async fn create(connection: &mut Connection, table: &str, columns: &str) -> anyhow::Result<()> {
    match connection {
        Connection::Mongodb(documents) => {
            let images = doc! { "create": table, "changeStreamPreAndPostImages": { "enabled": true } };
            documents.run_command(images).await?;
            Ok(())
        }
        Connection::Postgres(_) => {
            connection.execute(&format!("CREATE TABLE {table} {columns}")).await?;
            connection.execute(&format!("ALTER TABLE {table} REPLICA IDENTITY FULL")).await
        }
        Connection::Mysql(_) => {
            // Text keys must be told apart by every byte.
            let collation = "CHARACTER SET utf8mb4 COLLATE utf8mb4_bin";
            connection.execute(&format!("CREATE TABLE {table} {columns} {collation}")).await
        }
    }
}
