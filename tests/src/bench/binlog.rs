//! MySQL to the log against two readers of the same file of the binary log: `mysqlbinlog`, which copies it to a file, and a
//! bare replica that throws every packet away unread, below which nothing can be.

use crate::bench::dump::Dump;
use crate::bench::entries::{self, Entries};
use crate::bench::figures::Line;
use crate::bench::worker::Installation;
use crate::connection::Texts;
use crate::kind::Kind;
use crate::servers::Servers;
use anyhow::Context;
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

const LIMIT: Duration = Duration::from_secs(300);

/// For how long a peer reads the file again and again: once is over too soon to be measured.
const READING: Duration = Duration::from_secs(10);

/// For everything that was captured, to be compared.
const DRAIN: Duration = Duration::from_secs(1_800);

/// Writes rows as [`Entries::write`] does, by statements of their own and four to a transaction.
const SINGLY: &str = "CREATE PROCEDURE singly(first BIGINT, rows_wanted BIGINT)
    BEGIN
        DECLARE n BIGINT DEFAULT first;
        WHILE n < first + rows_wanted DO
            START TRANSACTION;
            INSERT INTO entry VALUES (n, n % 1000, n * 7, CONCAT('entry number ', n));
            INSERT INTO entry VALUES (n + 1, (n + 1) % 1000, (n + 1) * 7, CONCAT('entry number ', n + 1));
            INSERT INTO entry VALUES (n + 2, (n + 2) % 1000, (n + 2) * 7, CONCAT('entry number ', n + 2));
            INSERT INTO entry VALUES (n + 3, (n + 3) % 1000, (n + 3) * 7, CONCAT('entry number ', n + 3));
            COMMIT;
            SET n = n + 4;
        END WHILE;
    END";

/// How the rows of a transaction come: each by a statement of its own, as applications write, is an event of its own; many
/// rows of one statement share an event.
#[derive(Clone, Copy)]
enum Shape {
    Single,
    Bulk,
}

impl Shape {
    fn name(self) -> &'static str {
        match self {
            Shape::Single => "four single-row inserts a transaction",
            Shape::Bulk => "inserts of a hundred rows",
        }
    }

    /// Rows of a backlog, enough for ten seconds of the worker.
    fn rows(self, scale: f64) -> u64 {
        let rows = match self {
            Shape::Single => 1_000_000.0,
            Shape::Bulk => 2_500_000.0,
        };
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let rows = (rows * scale) as u64;
        (rows / 1_000).max(1) * 1_000
    }
}

pub async fn measure(under: &Path, repetitions: usize, scale: f64) -> anyhow::Result<Vec<Line>> {
    let mut lines = Vec::new();
    for shape in [Shape::Single, Shape::Bulk] {
        lines.extend(one(under, shape, repetitions, scale).await?);
    }
    Ok(lines)
}

async fn one(under: &Path, shape: Shape, repetitions: usize, scale: f64) -> anyhow::Result<[Line; 3]> {
    let what = format!("MySQL -> log, {}, against mysqlbinlog --raw from the server to a file", shape.name());
    let mut rates = Line::new(&what, "changes/s", "at least 0.4", "0.75");
    let mut bare = Line::new("the same, against packets thrown away unread", "changes/s", "-", "-");
    let mut costs = Line::new("the same, processor time of the worker", "s per million, lower is better", "-", "-");
    let servers = Servers::new()?;
    let source = Entries::start(&servers, Kind::Mysql, "source").await?;
    let target = Entries::start(&servers, Kind::Mysql, "target").await?;
    for entries in [&source, &target] {
        entries.create("entry").await?;
    }
    source.connect().await?.execute(SINGLY).await?;
    let installation = Installation::new(under, &entries::pipeline(&source, &target))?;
    let mut worker = installation.start()?;
    worker.until_streaming().await?;
    worker.stop()?;
    // The worker captures alone from here on; in the end the target comes back and shows what the log holds.
    servers.kill("target")?;
    let count = shape.rows(scale);
    for repetition in 0..repetitions as u64 {
        // A file of its own for each repetition: the peer reads whole files.
        source.connect().await?.execute("FLUSH BINARY LOGS").await?;
        let before = logs(&source).await?.len();
        let first = repetition * count + 1;
        match shape {
            Shape::Single => source.connect().await?.execute(&format!("CALL singly({first}, {count})")).await?,
            Shape::Bulk => source.write("entry", first, count).await?,
        }
        let written = logs(&source).await?.split_off(before - 1);
        let (mut ours, mut cpu, mut tool, mut loops) = (0.0, 0.0, 0.0, 0.0);
        for turn in 0..3 {
            match (turn + repetition) % 3 {
                0 => loops = count as f64 / run_bare(&source, &written, READING.mul_f64(scale)).await?,
                1 => tool = count as f64 / run_tool(under, &source, &written, READING.mul_f64(scale)).await?,
                _ => {
                    let (seconds, spent) = run_worker(&installation, count).await?;
                    (ours, cpu) = (count as f64 / seconds, spent);
                }
            }
        }
        rates.pair(ours, tool);
        bare.pair(ours, loops);
        costs.ours.push(cpu / count as f64 * 1e6);
        eprintln!("MySQL -> log, {}: {ours:.0} changes/s, mysqlbinlog {tool:.0}, bare {loops:.0}", shape.name());
    }
    let captured = source.checksum("entry").await?;
    // Without the source nothing can be delivered but what was on the log when the measured runs had ended.
    servers.kill("source")?;
    servers.restart("target")?;
    let worker = installation.start()?;
    target.until("entry", repetitions as u64 * count, DRAIN).await?;
    worker.stop()?;
    let delivered = target.checksum("entry").await?;
    anyhow::ensure!(captured == delivered, "the log delivers {delivered:?} instead of {captured:?}");
    Ok([rates, bare, costs])
}

/// Name and size of each file of the binary log.
async fn logs(source: &Entries) -> anyhow::Result<Vec<(String, u64)>> {
    let rows = source.connect().await?.rows("SHOW BINARY LOGS").await?;
    let file = |row: &Texts| Some((row.first()?.clone()?, row.get(1)?.clone()?.parse().ok()?));
    rows.iter().map(file).collect::<Option<_>>().context("strange binary logs")
}

/// Seconds that one read takes, connecting included as the worker's start is.
async fn run_bare(source: &Entries, files: &[(String, u64)], reading: Duration) -> anyhow::Result<f64> {
    let (url, file) = (source.url.clone(), files.first().context("no binary log")?.0.clone());
    let size: u64 = files.iter().map(|(_, size)| size).sum();
    // Threads of its own: what reads is one blocking loop.
    tokio::task::spawn_blocking(move || {
        let begun = Instant::now();
        let mut reads = 0;
        while reads == 0 || begun.elapsed() < reading {
            let bytes = Dump::open(&url)?.read(&file)?;
            anyhow::ensure!(bytes.abs_diff(size) < 1_000, "{bytes} bytes came of {size}");
            reads += 1;
        }
        Ok(begun.elapsed().as_secs_f64() / f64::from(reads))
    })
    .await?
}

/// Seconds that one copy by `mysqlbinlog` takes, over TCP without TLS, to the disk that the worker's log is on.
async fn run_tool(under: &Path, source: &Entries, files: &[(String, u64)], reading: Duration) -> anyhow::Result<f64> {
    let file = files.first().context("no binary log")?.0.clone();
    let size: u64 = files.iter().map(|(_, size)| size).sum();
    let (server, folder) = (mysql_async::Opts::from_url(&source.url)?, tempfile::tempdir_in(under)?);
    let begun = Instant::now();
    let mut copies = 0;
    while copies == 0 || begun.elapsed() < reading {
        let mut tool = tokio::process::Command::new("mysqlbinlog");
        tool.args([
            "--read-from-remote-server",
            "--raw",
            "--to-last-log",
            "--ssl-mode=DISABLED",
            "--get-server-public-key",
        ]);
        tool.args(["--host", server.ip_or_hostname(), "--port", &server.tcp_port().to_string()]);
        tool.args(["--user", server.user().unwrap_or_default()]);
        tool.env("MYSQL_PWD", server.pass().unwrap_or_default());
        tool.arg(format!("--result-file={}/", folder.path().display())).arg(&file);
        let output = tool.output().await.context("mysqlbinlog is one of the server's programs")?;
        let said = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "mysqlbinlog: {}", said.trim());
        copies += 1;
    }
    let seconds = begun.elapsed().as_secs_f64() / f64::from(copies);
    let mut bytes = 0;
    for copy in std::fs::read_dir(folder.path())? {
        bytes += copy?.metadata()?.len();
    }
    anyhow::ensure!(bytes.abs_diff(size) < 1_000, "mysqlbinlog copied {bytes} bytes of {size}");
    Ok(seconds)
}

/// Seconds from the start of the process to its end in order, before which everything is durable on the log and the
/// position behind it is stored; and seconds of its processor time until it was told to end.
async fn run_worker(installation: &Installation, changes: u64) -> anyhow::Result<(f64, f64)> {
    let begun = Instant::now();
    let mut worker = installation.start()?;
    worker.until("capture", "the changes", LIMIT, |status| status["changes"].as_u64() >= Some(changes)).await?;
    let cpu = worker.cpu_seconds()?;
    worker.stop()?;
    Ok((begun.elapsed().as_secs_f64(), cpu))
}
