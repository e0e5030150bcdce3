//! The worker under measurement: the release binary beside this program, with a pipeline written for one run.

use crate::bench::process;
use anyhow::Context;
use std::fmt::Write;
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::time::Instant;

/// A pipeline of one source and one target, or of two members.
pub struct Pipeline<'a> {
    pub source: (&'static str, String),
    pub target: (&'static str, String),
    /// The tables' names, the same at both ends.
    pub tables: &'a [&'a str],
    /// Whether it copies what is there first.
    pub snapshot: bool,
    /// Both are members, taken to be equal.
    pub two_way: bool,
}

/// A state folder with its configuration; the worker in it can be started again and again.
pub struct Installation {
    folder: tempfile::TempDir,
    pub port: u16,
}

impl Installation {
    /// `under`: the folder that the state goes into; its disk is what the log is flushed to.
    pub fn new(under: &Path, pipeline: &Pipeline<'_>) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("bench").tempdir_in(under)?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut text = String::new();
        for (name, (kind, url)) in [("source", &pipeline.source), ("target", &pipeline.target)] {
            writeln!(text, "[databases.{name}]\nkind = \"{kind}\"\nurl = \"{url}\"")?;
        }
        let snapshot = if pipeline.snapshot { "initial" } else { "never" };
        let members = match pipeline.two_way {
            true => "members = [\"source\", \"target\"]\nseed = \"none\"".to_owned(),
            false => format!("from = \"source\"\nto = [\"target\"]\nsnapshot = \"{snapshot}\""),
        };
        writeln!(text, "[pipelines.bench]\n{members}")?;
        for table in pipeline.tables {
            writeln!(text, "[[pipelines.bench.tables]]\nname = \"{table}\"")?;
        }
        writeln!(text, "[state]\npath = \"{}\"", folder.path().join("state").display())?;
        writeln!(text, "[http]\nlisten = \"127.0.0.1:{port}\"\n[log]\nlevel = \"warn\"")?;
        std::fs::write(folder.path().join("worker.toml"), text)?;
        Ok(Self { folder, port })
    }

    pub fn start(&self) -> anyhow::Result<Worker> {
        let log = File::options().create(true).append(true).open(self.log())?;
        let child = Command::new(binary()?)
            .arg("--config")
            .arg(self.folder.path().join("worker.toml"))
            .arg("run")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        Ok(Worker { child, port: self.port, log: self.log() })
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }
}

fn binary() -> anyhow::Result<PathBuf> {
    let here = std::env::current_exe()?;
    let binary = here.with_file_name("sync-worker");
    anyhow::ensure!(binary.exists(), "{} is not there: build it first, `make bench` does", binary.display());
    Ok(binary)
}

/// A running worker; ended when it is dropped.
pub struct Worker {
    child: Child,
    port: u16,
    log: PathBuf,
}

impl Worker {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn cpu_seconds(&self) -> anyhow::Result<f64> {
        process::cpu_seconds(self.pid())
    }

    pub fn peak_mib(&self) -> anyhow::Result<f64> {
        process::peak_mib(self.pid())
    }

    /// The task's line of `/sync/status`.
    pub async fn status(&self, task: &str) -> anyhow::Result<serde_json::Value> {
        let url = format!("http://127.0.0.1:{}/sync/status", self.port);
        let status: serde_json::Value = reqwest::get(url).await?.json().await?;
        let tasks = status["tasks"].as_array().context("no tasks")?;
        tasks.iter().find(|one| one["task"] == task).cloned().context("no such task")
    }

    /// The sum of a metric over all of its labels.
    pub async fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let text = reqwest::get(format!("http://127.0.0.1:{}/metrics", self.port)).await?.text().await?;
        let mut sum = 0.0;
        for line in text.lines().filter(|line| line.starts_with(name)) {
            sum += line.rsplit(' ').next().context("a value")?.parse::<f64>()?;
        }
        Ok(sum)
    }

    /// Waits until a task's status is as wanted.
    pub async fn until(
        &mut self,
        task: &str,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&serde_json::Value) -> bool,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let status = self.status(task).await;
            if status.as_ref().is_ok_and(&wanted) {
                return Ok(());
            }
            if self.child.try_wait()?.is_some() || Instant::now() >= deadline {
                let log = std::fs::read_to_string(&self.log).unwrap_or_default();
                anyhow::bail!("waited for {what}; status {status:?}; log:\n{log}");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub async fn until_streaming(&mut self) -> anyhow::Result<()> {
        let limit = Duration::from_secs(120);
        for task in ["capture", "apply"] {
            self.until(task, "streaming", limit, |status| status["state"] == "streaming").await?;
        }
        Ok(())
    }

    /// kill -9.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Ends it in order.
    pub fn stop(mut self) -> anyhow::Result<()> {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended by itself.
        if matches!(self.child.try_wait(), Ok(None)) && self.child.kill().is_ok() {
            self.child.wait().map(drop).unwrap_or_default();
        }
    }
}
