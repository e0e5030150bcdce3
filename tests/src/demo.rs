//! The demo: from empty servers to both directions live, and a look at what came of it.

use crate::compare;
use crate::database::Database;
use crate::histogram::{Histogram, total};
use crate::kind::Kind;
use crate::load::{Load, LoadSettings};
use crate::scenario::{fence, fill, make, make_fence};
use crate::servers::{self, Servers};
use crate::settings::{self, TableEntry};
use crate::tables::{self, ITEM};
use crate::worker::Worker;
use anyhow::ensure;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::time::Duration;
use sync_worker_engine::metrics::{APPLIED_CHANGES, APPLY_LAG};
use sync_worker_engine::status::{Task, TaskStatus};
use tokio::time::Instant;

#[derive(Clone, Debug)]
pub struct Settings {
    pub keep: bool,
    /// Seconds of load.
    pub seconds: u64,
    /// Rows to copy, each way.
    pub rows: i64,
    /// Row changes per second and direction.
    pub rate: u32,
    /// PostgreSQL to MongoDB and MongoDB to MySQL, instead of PostgreSQL and MySQL both ways.
    pub mongodb: bool,
    pub seed: u64,
}

/// Longer than anything takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// One direction: its pipeline's name, its source and its target.
struct Way {
    pipeline: &'static str,
    source: Database,
    target: Database,
}

pub async fn run(settings: &Settings) -> anyhow::Result<()> {
    // Servers that are to stay can't be those of `servers run`, which takes them down.
    let mut own = if settings.keep { Some(Servers::new()?) } else { None };
    let (postgres, mysql) = match &own {
        Some(servers) => (servers.start(Kind::Postgres, "postgres", &[])?, servers.start(Kind::Mysql, "mysql", &[])?),
        None => (Kind::Postgres.shared_server()?, Kind::Mysql.shared_server()?),
    };
    let ways = match settings.mongodb {
        false => [way("orders", &postgres, &mysql, settings).await?, way("stock", &mysql, &postgres, settings).await?],
        true => {
            let mongodb = Kind::Mongodb.shared_server()?;
            println!("MongoDB is {}", what_mongodb_is());
            [way("orders", &postgres, &mongodb, settings).await?, way("stock", &mongodb, &mysql, settings).await?]
        }
    };
    let mut worker = Worker::new(&configuration(&ways))?;

    println!(
        "\n1. copy {} rows from {} to {}, and {} from {} to {}",
        settings.rows,
        word(&ways[0].source),
        word(&ways[0].target),
        settings.rows,
        word(&ways[1].source),
        word(&ways[1].target)
    );
    let begun = Instant::now();
    worker.start()?;
    copy(&worker).await?;
    for way in &ways {
        fence(&way.source, &way.target, PATIENCE).await?;
    }
    println!("   done in {:.1} s", begun.elapsed().as_secs_f32());

    let half = settings.seconds.div_ceil(2);
    println!(
        "\n2. {} s of inserts, updates, deletes and large values both ways; a kill -9 in the middle",
        settings.seconds
    );
    let mut loads = Vec::new();
    for way in &ways {
        let load = LoadSettings { rate: Some(settings.rate), rows: 5_000, ..LoadSettings::new(settings.seed) };
        loads.push(Load::start(&way.source.url(), &load)?);
    }
    let begun = Instant::now();
    watch(&worker, &ways, begun, half).await?;
    worker.kill().await?;
    println!("   {:>4} s  kill -9 of the worker, and a new start", begun.elapsed().as_secs());
    worker.start()?;
    watch(&worker, &ways, begun, settings.seconds).await?;
    let mut changes = 0;
    for load in loads {
        changes += load.stop().await?.changes;
    }
    for way in &ways {
        fence(&way.source, &way.target, PATIENCE).await?;
    }
    println!("   {changes} changes were made and have arrived");

    println!("\n3. sync-worker verify: every row of both sides");
    print!("{}", indented(&worker.expect(0, &["verify"]).await?));
    println!("   and once more by plain SELECTs:");
    for Way { pipeline, source, target } in &ways {
        let rows = compare::equal(source, target, ITEM).await?;
        println!("   {pipeline}: {rows} rows, all equal");
    }

    let status = worker.terminate().await?;
    ensure!(status.success(), "the worker ended with {status} after SIGTERM{}", worker.log_tail());
    worker.quiet();
    if let Some(servers) = own.as_mut() {
        leave(&mut worker, servers, ways)?;
    }
    println!("\ndemo: passed");
    Ok(())
}

async fn way(pipeline: &'static str, source: &str, target: &str, settings: &Settings) -> anyhow::Result<Way> {
    let (source, target) = (Database::create_on(source, pipeline).await?, Database::create_on(target, pipeline).await?);
    make_fence(&source, &target).await?;
    let digits = if settings.mongodb { 3 } else { 6 };
    for database in [&source, &target] {
        make(database, ITEM, &tables::item_with(database.kind, digits)).await?;
    }
    fill(&source, settings.rows).await?;
    Ok(Way { pipeline, source, target })
}

fn word(database: &Database) -> &'static str {
    match database.kind {
        Kind::Postgres => "PostgreSQL",
        Kind::Mysql => "MySQL",
        Kind::Mongodb => "MongoDB",
    }
}

/// As `servers run` says.
fn what_mongodb_is() -> &'static str {
    match std::env::var("SYNC_WORKER_TEST_MONGODB_IS").as_deref() {
        Ok("mongod") => "a real mongod, from the PATH",
        Ok("stand-in") => "the project's stand-in for a replica set: there is no mongod on the PATH",
        Ok(_) | Err(_) => "the server that SYNC_WORKER_TEST_MONGODB names",
    }
}

fn configuration(ways: &[Way; 2]) -> settings::Settings {
    let mut settings = settings::Settings::default();
    for Way { pipeline, source, target } in ways {
        let (from, to) = (format!("{pipeline}-{}", source.kind), format!("{pipeline}-{}", target.kind));
        settings.database(&from, source.kind, &source.url());
        settings.database(&to, target.kind, &target.url());
        let entry = settings.pipeline(pipeline, &from, &[&to]);
        entry.tables.extend([TableEntry::new(ITEM), TableEntry::new("fence")]);
    }
    settings
}

/// Shows the copies until they are through: a bar each on a terminal, a line a second elsewhere.
async fn copy(worker: &Worker) -> anyhow::Result<()> {
    let (bars, terminal) = (MultiProgress::new(), std::io::stderr().is_terminal());
    let style = ProgressStyle::with_template("   {prefix:<8} {bar:40} {pos}/{len} rows {per_sec} {eta}")?;
    let mut shown: Vec<(String, ProgressBar)> = Vec::new();
    let (deadline, mut line_due) = (Instant::now() + PATIENCE, Instant::now() + Duration::from_secs(1));
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    loop {
        ticks.tick().await;
        ensure!(Instant::now() < deadline, "the copy did not end within {} s{}", PATIENCE.as_secs(), worker.log_tail());
        let Ok(tasks) = worker.status().await else { continue };
        ensure!(!tasks.iter().any(|task| task.state.is_final()), "a task has ended{}", worker.log_tail());
        let captures: Vec<&TaskStatus> = tasks.iter().filter(|task| task.task == Task::Capture).collect();
        for task in &captures {
            let Some(snapshot) = &task.snapshot else { continue };
            if !shown.iter().any(|(name, _)| *name == task.pipeline) {
                let bar = bars.add(ProgressBar::new(snapshot.estimate).with_style(style.clone()));
                shown.push((task.pipeline.clone(), bar.with_prefix(task.pipeline.clone())));
            }
            for (_, bar) in shown.iter().filter(|(name, _)| *name == task.pipeline) {
                bar.set_length(snapshot.estimate);
                bar.set_position(snapshot.rows);
            }
        }
        if !terminal && Instant::now() >= line_due {
            line_due += Duration::from_secs(1);
            for task in &captures {
                let Some(snapshot) = &task.snapshot else { continue };
                println!("   {:<8} {} of about {} rows", task.pipeline, snapshot.rows, snapshot.estimate);
            }
        }
        let is_done = |task: &&TaskStatus| task.snapshot.as_ref().is_some_and(|snapshot| snapshot.done);
        if !captures.is_empty() && captures.iter().all(is_done) {
            shown.iter().for_each(|(_, bar)| bar.finish());
            return Ok(());
        }
    }
}

/// A line a second and direction, until `seconds` after the beginning: rate, and the lag from commit to commit.
async fn watch(worker: &Worker, ways: &[Way; 2], begun: Instant, seconds: u64) -> anyhow::Result<()> {
    let mut before: [(u64, Histogram); 2] = [(0, Histogram::default()), (0, Histogram::default())];
    if let Ok(text) = worker.metrics().await {
        before = ways.each_ref().map(|way| look(&text, way));
    }
    let mut looked = Instant::now();
    while begun.elapsed().as_secs() < seconds {
        tokio::time::sleep_until(begun + Duration::from_secs(begun.elapsed().as_secs() + 1)).await;
        let now = Instant::now();
        let Ok(text) = worker.metrics().await else {
            println!("   {:>4} s  the worker is starting", begun.elapsed().as_secs());
            continue;
        };
        let after = ways.each_ref().map(|way| look(&text, way));
        let mut line = format!("   {:>4} s", begun.elapsed().as_secs());
        for ((way, before), after) in ways.iter().zip(&before).zip(&after) {
            let changes = after.0.checked_sub(before.0).unwrap_or(after.0);
            #[allow(clippy::cast_precision_loss)] // shown without a fraction
            let rate = changes as f64 / (now - looked).as_secs_f64();
            let lag = after.1.since(&before.1);
            let percentile = |part| lag.percentile(part).map_or_else(|| "-".to_owned(), milliseconds);
            let (p50, p99) = (percentile(0.5), percentile(0.99));
            line.push_str(&format!("  {}: {rate:>5.0} changes/s, lag p50 {p50} p99 {p99}", way.pipeline));
        }
        println!("{line}");
        (before, looked) = (after, now);
    }
    Ok(())
}

fn milliseconds(seconds: f64) -> String {
    match seconds * 1_000.0 {
        milliseconds if milliseconds < 10.0 => format!("{milliseconds:.1} ms"),
        milliseconds => format!("{milliseconds:.0} ms"),
    }
}

fn look(text: &str, way: &Way) -> (u64, Histogram) {
    let label = format!("pipeline=\"{}\"", way.pipeline);
    (total(text, APPLIED_CHANGES, &label), Histogram::parse(text, APPLY_LAG, &label))
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("   {line}\n")).collect()
}

/// Starts the worker once more, to stay, and says how to reach everything and how to end it.
fn leave(worker: &mut Worker, servers: &mut Servers, ways: [Way; 2]) -> anyhow::Result<()> {
    let (pid, folder) = (worker.start_detached()?, worker.keep_folder());
    servers.keep()?;
    let script = servers::script();
    let (config, run, binary) = (folder.join("worker.toml"), servers.folder(), crate::worker::binary()?);
    println!("\nThe servers and the worker stay up. Write to a source and look at the target:");
    for Way { pipeline, source, target } in &ways {
        println!("   {pipeline}: table item, from {} to {}", client(source), client(target));
    }
    let (binary, config) = (binary.display(), config.display());
    println!("   export PATH=\"$({} path):$PATH\"   # psql and mysql", script.display());
    println!("   {binary} --config {config} status");
    println!("   {binary} --config {config} tail orders");
    println!("   curl http://{}/metrics; tail -f {}", worker.address(), worker.log_path().display());
    println!("and to end all of it:");
    println!("   kill {pid}; SYNC_WORKER_RUN={} {} down; rm -r {}", run.display(), script.display(), folder.display());
    // Their databases stay, too.
    ways.into_iter().for_each(|way| {
        way.source.keep();
        way.target.keep();
    });
    Ok(())
}

fn client(database: &Database) -> String {
    let (host, port) = database
        .address()
        .rsplit_once(':')
        .map_or_else(|| (database.address(), String::new()), |(host, port)| (host.to_owned(), port.to_owned()));
    match database.kind {
        Kind::Postgres => format!("`psql {}`", database.url()),
        Kind::Mysql => format!("`mysql -h {host} -P {port} -u root {}`", database.name),
        Kind::Mongodb => format!("`mongosh {}`", database.url()),
    }
}
