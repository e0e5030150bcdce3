//! Members that are all written to, and a worker that keeps them equal.

use crate::compare;
use crate::connection::Connection;
use crate::database::Database;
use crate::kind::Kind;
use crate::proxy::Proxy;
use crate::settings::{Settings, TableEntry};
use crate::wait;
use crate::worker::{Worker, printed};
use ::mongodb::bson::{Document, doc};
use anyhow::{Context, ensure};
use futures::TryStreamExt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use sync_worker_store::SqliteStore;
use tokio::task::JoinSet;

/// What everything may take to come to rest, backlog and all.
const SETTLE: Duration = Duration::from_secs(120);

const NAMES: [&str; 3] = ["a", "b", "c"];

pub const ACCOUNT: &str = "CREATE TABLE account (id BIGINT PRIMARY KEY, writer VARCHAR(40) NOT NULL, a INT NOT NULL, \
                           b INT NOT NULL, counter BIGINT NOT NULL)";
const FENCE: &str = "CREATE TABLE fence (member VARCHAR(20) PRIMARY KEY, mark BIGINT NOT NULL)";

pub struct Member {
    pub name: &'static str,
    pub database: Database,
}

pub struct TwoWay {
    // Dropped first: a worker holds connections and slots.
    pub worker: Worker,
    pub members: Vec<Member>,
    /// On the worker's way to each member, where there are any.
    pub proxies: Vec<Proxy>,
    tables: Vec<String>,
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
        Self::made(kinds, label, lines, &[("account".to_owned(), String::new())], true).await
    }

    /// Members with such tables, each with further lines for its section. Member `b` has the higher priority.
    pub async fn with(kinds: &[Kind], label: &str, lines: &str, tables: &[(String, String)]) -> anyhow::Result<Self> {
        Self::made(kinds, label, lines, tables, false).await
    }

    async fn made(
        kinds: &[Kind],
        label: &str,
        lines: &str,
        tables: &[(String, String)],
        proxied: bool,
    ) -> anyhow::Result<Self> {
        let mut proxies = Vec::new();
        let (mut settings, mut members) = (Settings::default(), Vec::new());
        for (kind, name) in kinds.iter().zip(NAMES) {
            let database = Database::create(*kind, &format!("{label}_{name}")).await?;
            if *kind == Kind::Mongodb {
                let documents = database.documents().await?;
                for table in tables.iter().map(|(table, _)| table.as_str()).chain(["fence"]) {
                    let images = doc! { "create": table, "changeStreamPreAndPostImages": { "enabled": true } };
                    documents.run_command(images).await?;
                }
            }
            let mut connection = database.connect().await?;
            let accounts = tables.iter().map(|(table, _)| (table.as_str(), ACCOUNT.replace("account", table)));
            let statements = accounts.chain([("fence", FENCE.to_owned())]);
            for (table, create) in statements.filter(|_| *kind != Kind::Mongodb) {
                // Text keys must be told apart by every byte.
                let create = match kind {
                    Kind::Mysql => format!("{create} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"),
                    Kind::Postgres | Kind::Mongodb => create,
                };
                connection.execute(&create).await?;
                if *kind == Kind::Postgres {
                    connection.execute(&format!("ALTER TABLE {table} REPLICA IDENTITY FULL")).await?;
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
        let names: Vec<&str> = members.iter().map(|member| member.name).collect();
        let pipeline = settings.two_way("shared", &names);
        pipeline.extra.push_str(lines);
        let entry = |(name, extra): &(String, String)| TableEntry { extra: extra.clone(), ..TableEntry::new(name) };
        pipeline.tables.extend(tables.iter().map(entry).chain([TableEntry::new("fence")]));
        let tables = tables.iter().map(|(name, _)| name.clone()).chain(["fence".to_owned()]).collect();
        Ok(Self { worker: Worker::new(&settings)?, members, proxies, tables, marks: 0 })
    }

    pub async fn start(&mut self) -> anyhow::Result<()> {
        self.worker.start()?;
        self.worker.until_streaming(SETTLE).await?;
        Ok(())
    }

    /// Waits until every member has what every other has committed before the call, and nothing is under way.
    pub async fn settle(&mut self) -> anyhow::Result<()> {
        self.marks += 1;
        let mark = self.marks;
        for Member { name, database } in &self.members {
            match database.connect().await? {
                Connection::Mongodb(documents) => {
                    let fences = documents.collection::<Document>("fence");
                    fences.replace_one(doc! { "_id": *name }, doc! { "mark": mark }).upsert(true).await?;
                }
                mut connection => {
                    connection.execute(&format!("DELETE FROM fence WHERE member = '{name}'")).await?;
                    connection.execute(&format!("INSERT INTO fence VALUES ('{name}', {mark})")).await?;
                }
            }
        }
        for Member { name, .. } in &self.members {
            for there in self.members.iter().filter(|there| there.name != *name) {
                let mut connection = there.database.connect().await?;
                wait::until(&format!("{name}'s fence at {}", there.name), SETTLE, async || {
                    let seen = match &mut connection {
                        Connection::Mongodb(documents) => {
                            let fence =
                                documents.collection::<Document>("fence").find_one(doc! { "_id": *name }).await?;
                            fence.and_then(|fence| number(&fence, "mark")).map(|mark| mark.to_string())
                        }
                        connection => {
                            connection.value(&format!("SELECT mark FROM fence WHERE member = '{name}'")).await?
                        }
                    };
                    Ok((seen == Some(mark.to_string())).then_some(()))
                })
                .await?;
            }
        }
        self.at_rest().await
    }

    /// Waits until no version is under way to anybody and all of the log is applied.
    pub async fn at_rest(&self) -> anyhow::Result<()> {
        let members = self.members.len();
        wait::until("everything to come to rest", SETTLE, async || {
            let metrics = self.worker.metrics().await?;
            let still = |name: &str| {
                let lines = metrics.lines().filter(|line| line.starts_with(name));
                lines.filter_map(|line| line.rsplit(' ').next()).filter(|value| *value == "0").count() == members
            };
            Ok((still("sync_worker_keys_under_way{") && still("sync_worker_bus_records_behind{")).then_some(()))
        })
        .await
    }

    /// Every table is equal at all members, row by row.
    pub async fn equal(&mut self) -> anyhow::Result<usize> {
        self.settle().await?;
        let (first, others) = self.members.split_first().context("members")?;
        let mut rows = 0;
        for other in others {
            for table in &self.tables {
                let equal = compare::equal(&first.database, &other.database, table).await;
                rows = rows.max(equal.with_context(|| format!("{} and {}", first.name, other.name))?);
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
                        writes += number(&marker, "writes").context("writes")?;
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

    /// Gives keys new rows at the first member.
    pub async fn overwrite(&self, ids: std::ops::RangeInclusive<i64>) -> anyhow::Result<()> {
        let first = self.members.first().context("members")?;
        let mut connection = first.database.connect().await?;
        for id in ids {
            match &mut connection {
                Connection::Mongodb(documents) => {
                    let row = doc! { "writer": format!("last{id}"), "a": 0, "b": 0, "counter": 0i64 };
                    let accounts = documents.collection::<Document>("account");
                    accounts.delete_one(doc! { "_id": id }).await?;
                    accounts.replace_one(doc! { "_id": id }, row).upsert(true).await?;
                }
                connection => {
                    connection.execute(&format!("DELETE FROM account WHERE id = {id}")).await?;
                    connection.execute(&format!("INSERT INTO account VALUES ({id}, 'last{id}', 0, 0, 0)")).await?;
                }
            }
        }
        Ok(())
    }

    /// The writers of the rows that the first member holds.
    pub async fn held(&self) -> anyhow::Result<BTreeSet<String>> {
        let first = self.members.first().context("members")?;
        match first.database.connect().await? {
            Connection::Mongodb(documents) => {
                let mut held = BTreeSet::new();
                let mut rows = documents.collection::<Document>("account").find(doc! {}).await?;
                while let Some(row) = rows.try_next().await? {
                    held.insert(row.get_str("writer")?.to_owned());
                }
                Ok(held)
            }
            mut connection => {
                let rows = connection.rows("SELECT writer FROM account").await?;
                Ok(rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect())
            }
        }
    }

    /// The conflict ledger.
    pub async fn conflicts(&self) -> anyhow::Result<Vec<serde_json::Value>> {
        // It ends with 1 where one of them waits for a person.
        let output = self.worker.command(&["conflicts", "list", "--limit", "1000000", "--json"]).await?;
        ensure!(matches!(output.status.code(), Some(0 | 1)), "{}", printed(&output));
        let mut pipelines: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout)?;
        let conflicts = pipelines.first_mut().context("the pipeline")?["conflicts"].take();
        Ok(serde_json::from_value(conflicts)?)
    }

    /// What the log holds of a key of `account`, and the echoes between, as lines: to see how something came about.
    pub async fn history(&self, id: &serde_json::Value, up_to: u64) -> anyhow::Result<String> {
        let url = format!("http://{}/sync/tail?pipeline=shared&from=0", self.worker.address());
        let mut response = reqwest::get(url).await?.error_for_status()?;
        let (mut text, mut lines) = (Vec::new(), String::new());
        while let Ok(Some(chunk)) =
            tokio::time::timeout(Duration::from_secs(1), response.chunk()).await.unwrap_or(Ok(None))
        {
            text.extend_from_slice(&chunk);
        }
        for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let mut record: serde_json::Value = serde_json::from_slice(line)?;
            plain(&mut record);
            let at = record["offset"].as_u64().context("an offset")?;
            let of_key = ["before", "after"].iter().any(|image| record[image]["id"] == *id);
            if at <= up_to && at + 150 > up_to && (of_key || !record["marker"].is_null()) {
                let row = |image: &str| match &record[image] {
                    serde_json::Value::Null => "nothing".to_owned(),
                    row => format!("{} {} {} {}", row["writer"], row["a"], row["b"], row["counter"]),
                };
                let line = match record["marker"].is_null() {
                    true => format!("{} {} -> {}", record["source"]["name"], row("before"), row("after")),
                    false => record["marker"].to_string(),
                };
                lines.push_str(&format!("{at}: {line}\n"));
            }
        }
        Ok(lines)
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

    /// Writers at every member over the same few keys.
    pub fn writers(&self, seed: u64, mix: Mix) -> Writers {
        let (stop, writes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut tasks = JoinSet::new();
        for (place, member) in self.members.iter().enumerate() {
            let (url, name) = (member.database.url(), member.name);
            let (stop, writes) = (stop.clone(), writes.clone());
            let rng = StdRng::seed_from_u64(seed ^ (place as u64) << 32);
            tasks.spawn(async move { write(&url, name, mix, rng, &stop, &writes).await });
        }
        Writers { stop, writes, tasks }
    }
}

/// What writers do.
#[derive(Clone, Copy, Debug)]
pub struct Mix {
    pub keys: i64,
    /// Every row carries its writer's id; else columns have few values.
    pub told_apart: bool,
    pub deletes: bool,
    /// Statements a second, each writer.
    pub rate: u32,
}

pub struct Writers {
    stop: Arc<AtomicBool>,
    writes: Arc<AtomicU64>,
    tasks: JoinSet<anyhow::Result<()>>,
}

impl Writers {
    pub fn written(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    /// Waits for so many writes in all.
    pub async fn until(&self, count: u64) -> anyhow::Result<()> {
        wait::until("the writers", SETTLE, async || Ok((self.written() >= count).then_some(()))).await
    }

    /// Ends them; fails where one has failed.
    pub async fn stop(mut self) -> anyhow::Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended??;
        }
        Ok(self.written())
    }
}

async fn write(
    url: &str,
    name: &str,
    mix: Mix,
    mut rng: StdRng,
    stop: &AtomicBool,
    writes: &AtomicU64,
) -> anyhow::Result<()> {
    let mut connection = Connection::open(url).await?;
    let mut pace = tokio::time::interval(Duration::from_secs(1) / mix.rate);
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        pace.tick().await;
        number += 1;
        let id = rng.random_range(1..=mix.keys);
        let writer = if mix.told_apart { format!("{name}{number}") } else { String::new() };
        let (a, b) = (rng.random_range(0..3), rng.random_range(0..3));
        let step = rng.random_range(-3..=3);
        if let Connection::Mongodb(documents) = &connection {
            match write_document(documents, id, &writer, [a, b, step], mix.deletes, &mut rng).await {
                Ok(()) => drop(writes.fetch_add(1, Ordering::Relaxed)),
                Err(error) if is_conflict(&error) || is_refused(&error) => {}
                Err(error) => return Err(error),
            }
            continue;
        }
        let insert = match connection.kind() {
            Kind::Postgres | Kind::Mongodb => "INSERT INTO account VALUES",
            Kind::Mysql => "INSERT IGNORE INTO account VALUES",
        };
        let otherwise = if connection.kind() == Kind::Postgres { " ON CONFLICT DO NOTHING" } else { "" };
        let sql = match rng.random_range(0..10) {
            0 | 1 => format!("{insert} ({id}, '{writer}', {a}, {b}, {step}){otherwise}"),
            2 if mix.deletes => format!("DELETE FROM account WHERE id = {id}"),
            3 | 4 => format!("UPDATE account SET writer = '{writer}', a = {a} WHERE id = {id}"),
            5 | 6 => format!("UPDATE account SET writer = '{writer}', b = {b} WHERE id = {id}"),
            _ => format!(
                "UPDATE account SET writer = '{writer}', a = {a}, b = {b}, counter = counter + {step} WHERE id = {id}"
            ),
        };
        // The worker may be in the way of a moment: that is an application's business to repeat.
        match connection.execute(&sql).await {
            Ok(()) => drop(writes.fetch_add(1, Ordering::Relaxed)),
            Err(error) if is_conflict(&error) || is_refused(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The same mix as of the statements.
async fn write_document(
    documents: &::mongodb::Database,
    id: i64,
    writer: &str,
    [a, b, step]: [i32; 3],
    deletes: bool,
    rng: &mut StdRng,
) -> anyhow::Result<()> {
    let accounts = documents.collection::<Document>("account");
    let key = doc! { "_id": id };
    let change = match rng.random_range(0..10) {
        0 | 1 => {
            let row = doc! { "_id": id, "writer": writer, "a": a, "b": b, "counter": i64::from(step) };
            return match accounts.insert_one(row).await {
                // It is there already.
                Err(error) if error.to_string().contains("11000") => Ok(()),
                done => Ok(done.map(drop)?),
            };
        }
        2 if deletes => return Ok(accounts.delete_one(key).await.map(drop)?),
        3 | 4 => doc! { "$set": { "writer": writer, "a": a } },
        5 | 6 => doc! { "$set": { "writer": writer, "b": b } },
        _ => doc! { "$set": { "writer": writer, "a": a, "b": b }, "$inc": { "counter": i64::from(step) } },
    };
    Ok(accounts.update_one(key, change).await.map(drop)?)
}

/// A record of `account` as the log prints it, with documents as rows.
pub fn plain(record: &mut serde_json::Value) {
    for image in ["before", "after"] {
        let hex =
            record[image].as_object().and_then(|row| row.values().filter_map(serde_json::Value::as_str).next_back());
        let Some(row) = hex.and_then(document).filter(|row| row.contains_key("_id")) else { continue };
        let of = |field| number(&row, field);
        let writer = row.get_str("writer").ok();
        record[image] = serde_json::json!({ "id": of("_id"), "writer": writer, "a": of("a"), "b": of("b"), "counter": of("counter") });
    }
}

/// A document that the log prints as hexadecimal digits.
fn document(hex: &str) -> Option<Document> {
    let digits: Option<Vec<u8>> =
        hex.chars().map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let bytes: Vec<u8> = digits?.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    Document::from_reader(&bytes[..]).ok()
}

fn number(document: &Document, field: &str) -> Option<i64> {
    document.get_i64(field).ok().or_else(|| document.get_i32(field).ok().map(i64::from))
}

/// A deadlock or a serialization failure.
pub fn is_conflict(error: &anyhow::Error) -> bool {
    let text = format!("{error:#}").to_ascii_lowercase();
    text.contains("deadlock")
        || text.contains("writeconflict")
        || text.contains("write conflict")
        || text.contains("could not serialize")
        || text.contains("lock wait timeout")
}

/// By a trigger of the convergence test.
fn is_refused(error: &anyhow::Error) -> bool {
    format!("{error:#}").contains("refused")
}
