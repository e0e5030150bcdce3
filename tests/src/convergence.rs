//! The convergence test: random writes at every member, and a worker that is killed, stopped, cut off and refused, and whose
//! rows are changed behind its back; in the end all members are equal, and no write has vanished without a trace.

use crate::kind::Kind;
use crate::two_way::{Mix, TwoWay, Writers, plain};
use crate::worker::Worker;
use anyhow::{Context, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;

#[derive(Clone, Debug)]
pub struct Settings {
    pub kinds: Vec<Kind>,
    pub seed: u64,
    /// Statements of all writers together.
    pub writes: u64,
    /// Every row carries its writer's id, and what became of each write is judged; else columns have few values.
    pub told_apart: bool,
    /// Rows are changed behind capture's back, too.
    pub hidden: bool,
}

#[derive(Debug, Default)]
pub struct Report {
    pub writes: u64,
    pub rows: usize,
    pub conflicts: usize,
    pub drifted: usize,
    pub kills: u32,
    pub cuts: u32,
    pub silences: u32,
    pub pauses: u32,
    pub refusals: u32,
    pub hidden: u32,
    /// What must not be.
    pub problems: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} writes, {} conflicts, {} drifted rows after {} hidden writes, {} kills, {} cuts, {} silences, {} pauses, {} times \
             refused; {} rows equal everywhere, {} problems",
            self.writes,
            self.conflicts,
            self.drifted,
            self.hidden,
            self.kills,
            self.cuts,
            self.silences,
            self.pauses,
            self.refusals,
            self.rows,
            self.problems.len()
        )
    }
}

/// Keys that are written to: few enough for conflicts, many enough for batches.
const KEYS: i64 = 40;

/// A refused version is tried again all the time, and never given up.
const LINES: &str = "seed = \"none\"\nretry = { attempts = 100000, first_delay = \"100ms\", max_delay = \"500ms\" }\n";

pub async fn run(settings: &Settings, progress: impl Fn(u64)) -> anyhow::Result<Report> {
    let mut rng = StdRng::seed_from_u64(settings.seed);
    let mut group = TwoWay::behind_proxies(&settings.kinds, "converge", LINES).await?;
    group.start().await?;
    let log = Log::follow(&group.worker);
    let mix = Mix { keys: KEYS, told_apart: settings.told_apart, deletes: true, rate: 250 };
    let writers = group.writers(rng.random(), mix);
    let mut report = Report::default();
    while writers.written() < settings.writes {
        let pause = writers.written() + rng.random_range(100..500);
        writers.until(pause).await?;
        disturb(&mut group, &writers, settings, &mut rng, &mut report).await?;
        progress(writers.written());
    }
    report.writes = writers.stop().await?;
    if settings.hidden {
        // A row that capture never saw shows when its key is written to again.
        group.overwrite(1..=KEYS).await?;
    }
    match group.equal().await {
        Ok(rows) => report.rows = rows,
        Err(error) => report.problems.push(format!("{error:#}")),
    }
    let conflicts = group.conflicts().await?;
    report.conflicts = conflicts.len();
    report.drifted = conflicts.iter().filter(|conflict| conflict["kind"] == "drift").count();
    if report.hidden == 0 && report.drifted > 0 {
        report
            .problems
            .push(format!("{} rows are called drifted, and nobody wrote behind capture's back", report.drifted));
    }
    if settings.told_apart {
        let held = group.held().await?;
        let losers = conflicts.iter().filter_map(|conflict| conflict["loser"]["row"]["writer"].as_str());
        log.judge(&held, &losers.map(str::to_owned).collect(), settings.hidden, &mut report);
    }
    match report.problems.is_empty() {
        true => group.end().await?,
        false => println!("{}", group.worker.log_tail()),
    }
    Ok(report)
}

async fn disturb(
    group: &mut TwoWay,
    writers: &Writers,
    settings: &Settings,
    rng: &mut StdRng,
    report: &mut Report,
) -> anyhow::Result<()> {
    let member = rng.random_range(0..group.members.len());
    let while_writing = async |count: u64| writers.until(writers.written() + count).await;
    match rng.random_range(0..7) {
        0 | 1 => {
            group.worker.kill().await?;
            while_writing(rng.random_range(1..200)).await?;
            group.worker.start()?;
            report.kills += 1;
        }
        2 => {
            group.proxies[member].cut();
            report.cuts += 1;
        }
        3 => {
            group.proxies[member].swallow();
            while_writing(rng.random_range(50..300)).await?;
            group.proxies[member].forward();
            // A server holds what a connection that it takes for alive has locked, and a killed worker can't tell it.
            group.proxies[member].cut();
            report.silences += 1;
        }
        4 => {
            group.worker.pause(true).await?;
            while_writing(rng.random_range(50..300)).await?;
            group.worker.pause(false).await?;
            report.pauses += 1;
        }
        5 if group.members[member].database.kind != Kind::Mongodb => {
            let database = &group.members[member].database;
            database.execute(refuse(database.kind)).await?;
            while_writing(rng.random_range(100..300)).await?;
            database.execute(database.kind.pick("DROP TRIGGER refuse ON account", "DROP TRIGGER refuse")).await?;
            report.refusals += 1;
        }
        _ if settings.hidden => {
            let mut mysql = group.members.iter().filter(|member| member.database.kind == Kind::Mysql);
            if let Some(member) = mysql.next_back() {
                let mut connection = member.database.connect().await?;
                connection.execute("SET SESSION sql_log_bin = 0").await?;
                let id = rng.random_range(1..=KEYS);
                let hidden = report.hidden;
                let sql = format!("UPDATE account SET writer = 'hidden{hidden}', a = a + 10 WHERE id = {id}");
                match connection.execute(&sql).await {
                    Ok(()) => report.hidden += 1,
                    Err(error) => ensure!(crate::two_way::is_conflict(&error), "{error:#}"),
                }
            }
        }
        _ => {}
    }
    Ok(())
}

/// A trigger that refuses a third of all rows, applications' and ours.
fn refuse(kind: Kind) -> &'static str {
    kind.pick(
        "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.a = 2 THEN RAISE 'refused' \
         USING ERRCODE = '23503'; END IF; RETURN NEW; END $$; CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON account FOR EACH \
         ROW EXECUTE FUNCTION refuse(); ALTER TABLE account ENABLE ALWAYS TRIGGER refuse",
        "CREATE TRIGGER refuse BEFORE UPDATE ON account FOR EACH ROW BEGIN IF NEW.a = 2 THEN SIGNAL SQLSTATE '23000' SET \
         MYSQL_ERRNO = 1452, MESSAGE_TEXT = 'refused'; END IF; END",
    )
}

/// What the log says of the writers' versions, read as it grows: the worker lets go of its beginning.
struct Log {
    seen: Arc<Mutex<Versions>>,
    _following: JoinSet<()>,
}

#[derive(Default)]
struct Versions {
    /// With the member whose stream showed it.
    written: BTreeSet<(String, String)>,
    /// A local write was made over it.
    replaced: BTreeSet<String>,
    next: u64,
}

impl Log {
    fn follow(worker: &Worker) -> Self {
        let (seen, address) = (Arc::new(Mutex::new(Versions::default())), worker.address());
        let mut following = JoinSet::new();
        let versions = seen.clone();
        following.spawn(async move {
            loop {
                // The worker is down now and then.
                if read(&address, &versions).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        });
        Self { seen, _following: following }
    }

    /// Every write is held in the end, was replaced by one that saw it, or is on record as a loser; and none of ours has come
    /// back as a change.
    fn judge(&self, held: &BTreeSet<String>, losers: &BTreeSet<String>, hidden: bool, report: &mut Report) {
        let versions = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for (origin, writer) in &versions.written {
            let own = writer.starts_with(origin.as_str()) || writer.starts_with("last");
            if !own && !writer.starts_with("hidden") {
                report.problems.push(format!("{writer} has come back as a change of {origin}"));
            }
            let traced = held.contains(writer) || losers.contains(writer) || versions.replaced.contains(writer);
            // What is corrected over a hidden row is on record as drift.
            if !traced && !hidden {
                report.problems.push(format!("{writer} has vanished without a trace"));
            }
        }
        if versions.written.is_empty() {
            report.problems.push("nothing was seen of the log".to_owned());
        }
    }
}

/// Reads the log until the worker goes away.
async fn read(address: &str, versions: &Mutex<Versions>) -> anyhow::Result<()> {
    let next = versions.lock().unwrap_or_else(PoisonError::into_inner).next;
    let url = format!("http://{address}/sync/tail?pipeline=shared&from={next}");
    let mut response = reqwest::get(url).await?.error_for_status()?;
    let mut rest = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        rest.extend_from_slice(&chunk);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let mut record: serde_json::Value = serde_json::from_slice(&line)?;
            plain(&mut record);
            let mut versions = versions.lock().unwrap_or_else(PoisonError::into_inner);
            versions.next = record["offset"].as_u64().context("an offset")? + 1;
            if record["source"]["table"] != "account" {
                continue;
            }
            let writer = |image: &str| record[image]["writer"].as_str().map(str::to_owned);
            versions.replaced.extend(writer("before"));
            let origin = record["source"]["name"].as_str().unwrap_or_default().to_owned();
            versions.written.extend(writer("after").map(|writer| (origin, writer)));
        }
    }
    anyhow::bail!("the worker has closed its log")
}

/// Each pair and the triple.
pub fn sets() -> Vec<Vec<Kind>> {
    use Kind::{Mongodb, Mysql, Postgres};
    vec![
        vec![Postgres, Postgres],
        vec![Postgres, Mysql],
        vec![Mysql, Mysql],
        vec![Postgres, Mongodb],
        vec![Mysql, Mongodb],
        vec![Mongodb, Mongodb],
        vec![Postgres, Mysql, Mongodb],
    ]
}
