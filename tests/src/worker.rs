//! A worker process under test, with a folder of its own for configuration, state and log.

use crate::settings::Settings;
use crate::wait;
use anyhow::{Context, bail, ensure};
use rand::Rng;
use std::fs::{File, OpenOptions};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use sync_worker_engine::status::{State, Task, TaskStatus};
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// How long a command beside the worker may take.
const COMMAND: Duration = Duration::from_secs(120);

/// SIGTERM drains within 10 s; the rest is for the machine.
const DRAIN: Duration = Duration::from_secs(20);

pub struct Worker {
    folder: TempDir,
    port: u16,
    _reserved: UdpSocket,
    child: Mutex<Option<Child>>,
    environment: Vec<(String, String)>,
    http: reqwest::Client,
    /// Its log is of no interest any more.
    quiet: bool,
}

impl Worker {
    /// Writes the configuration; starts nothing.
    pub fn new(settings: &Settings) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("sync-worker-test.").tempdir()?;
        let reserved = reserve_port()?;
        let port = reserved.local_addr()?.port();
        let http = reqwest::Client::builder().timeout(Duration::from_secs(10)).build()?;
        let worker = Self {
            folder,
            port,
            _reserved: reserved,
            child: Mutex::new(None),
            environment: settings.environment.clone(),
            http,
            quiet: false,
        };
        worker.configure(settings)?;
        Ok(worker)
    }

    /// Writes the configuration anew, for the next start.
    pub fn configure(&self, settings: &Settings) -> anyhow::Result<()> {
        let state = self.folder.path().join("state");
        std::fs::write(self.folder.path().join("worker.toml"), settings.toml(&state, self.port))?;
        Ok(())
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Leaves the folder where it is after the end; returns it.
    pub fn keep_folder(&mut self) -> PathBuf {
        self.folder.disable_cleanup(true);
        self.folder.path().to_owned()
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails when the process has ended: nothing more can be waited for.
    fn lives(&self) -> anyhow::Result<()> {
        let Some(child) = &mut *self.child() else { return Ok(()) };
        match child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the worker has ended by itself: {status}"),
        }
    }

    fn program(&self) -> anyhow::Result<Command> {
        let mut command = Command::new(binary()?);
        command.arg("--config").arg(self.folder.path().join("worker.toml"));
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        // Relative paths, should there be any, stay in the folder.
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        Ok(command)
    }

    /// Starts `sync-worker run`; what it writes is appended to its log.
    pub fn start(&mut self) -> anyhow::Result<()> {
        ensure!(self.child().is_none(), "the worker is running");
        let log = OpenOptions::new().create(true).append(true).open(self.log_path())?;
        let child = self.program()?.arg("run").stdout(log.try_clone()?).stderr(log).kill_on_drop(true).spawn()?;
        *self.child() = Some(child);
        Ok(())
    }

    /// Replaces the program by one that outlives this process; returns its pid.
    pub fn start_detached(&mut self) -> anyhow::Result<u32> {
        let log = File::options().create(true).append(true).open(self.log_path())?;
        let mut command = self.program()?;
        command.arg("run").stdout(log.try_clone()?).stderr(log).process_group(0);
        let child = command.spawn()?;
        self.quiet = true;
        child.id().context("the worker ended at once")
    }

    /// SIGSTOP, or SIGCONT after one.
    pub async fn pause(&self, stopped: bool) -> anyhow::Result<()> {
        let pid = self.child().as_ref().and_then(Child::id).context("the worker is not running")?;
        signal(pid, if stopped { "STOP" } else { "CONT" }).await
    }

    /// SIGKILL; returns when the process is gone.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        let mut child = self.child().take().context("the worker is not running")?;
        if let Some(status) = child.try_wait()? {
            bail!("the worker had ended by itself: {status}{}", self.log_tail());
        }
        child.kill().await?;
        Ok(())
    }

    /// SIGTERM; returns how it ended, within the time that it has for that.
    pub async fn terminate(&mut self) -> anyhow::Result<ExitStatus> {
        let mut child = self.child().take().context("the worker is not running")?;
        let pid = child.id().context("the worker had ended by itself")?;
        signal(pid, "TERM").await?;
        match tokio::time::timeout(DRAIN, child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => bail!("the worker did not end within {} s of SIGTERM{}", DRAIN.as_secs(), self.log_tail()),
        }
    }

    /// Waits for the worker to end by itself.
    pub async fn ended(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        let mut child = self.child().take().context("the worker is not running")?;
        match tokio::time::timeout(limit, child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => bail!("the worker did not end by itself{}", self.log_tail()),
        }
    }

    /// Runs another command of the program with this worker's configuration.
    pub async fn command(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        let mut command = self.program()?;
        command.args(arguments).kill_on_drop(true);
        let output = tokio::time::timeout(COMMAND, command.output()).await;
        Ok(output.with_context(|| format!("sync-worker {} did not end", arguments.join(" ")))??)
    }

    /// The same, where anything but this exit code is a failure; returns what it printed.
    pub async fn expect(&self, code: i32, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.command(arguments).await?;
        let text = printed(&output);
        ensure!(
            output.status.code() == Some(code),
            "sync-worker {} ended with {}, not {code}: {text}",
            arguments.join(" "),
            output.status
        );
        Ok(text)
    }

    async fn get(&self, path: &str) -> anyhow::Result<reqwest::Response> {
        Ok(self.http.get(format!("http://{}{path}", self.address())).send().await?.error_for_status()?)
    }

    pub async fn status(&self) -> anyhow::Result<Vec<TaskStatus>> {
        let mut body: serde_json::Value = serde_json::from_slice(&self.get("/sync/status").await?.bytes().await?)?;
        Ok(serde_json::from_value(body["tasks"].take())?)
    }

    /// Prometheus text.
    pub async fn metrics(&self) -> anyhow::Result<String> {
        Ok(self.get("/metrics").await?.text().await?)
    }

    /// Waits until the tasks are as `look` wants them.
    pub async fn until(
        &self,
        what: &str,
        limit: Duration,
        look: impl Fn(&[TaskStatus]) -> bool,
    ) -> anyhow::Result<Vec<TaskStatus>> {
        let found = wait::until(what, limit, async || {
            if self.lives().is_err() {
                return Ok(Some(None));
            }
            let tasks = self.status().await?;
            Ok(look(&tasks).then_some(Some(tasks)))
        });
        let error = match found.await {
            Ok(Some(tasks)) => return Ok(tasks),
            Ok(None) => anyhow::anyhow!("there is no worker to wait for any more"),
            Err(error) => error,
        };
        self.lives()?;
        let now = self.status().await.map_or_else(|error| error.to_string(), |tasks| format!("{tasks:#?}"));
        Err(error.context(format!("{what}; the tasks are {now}")))
    }

    /// Waits until snapshots are complete and every task streams.
    pub async fn until_streaming(&self, limit: Duration) -> anyhow::Result<Vec<TaskStatus>> {
        self.until("every task to stream", limit, |tasks| !tasks.is_empty() && tasks.iter().all(streams)).await
    }

    pub fn log_path(&self) -> PathBuf {
        self.folder.path().join("worker.log")
    }

    pub fn log(&self) -> String {
        std::fs::read(self.log_path()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The end of the log, for a message.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        format!("\n--- the worker's log ends with\n{}\n---", lines[lines.len().saturating_sub(25)..].join("\n"))
    }

    /// The test is through: a drop does not show the log any more.
    pub fn quiet(&mut self) {
        self.quiet = true;
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if !self.quiet {
            eprintln!("{}", self.log_tail());
        }
    }
}

fn streams(task: &TaskStatus) -> bool {
    let copied = task.task == Task::Apply || task.snapshot.as_ref().is_none_or(|snapshot| snapshot.done);
    task.state == State::Streaming && copied
}

/// Both streams of a command's output.
pub fn printed(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Sends a signal by the shell's own `kill`.
pub async fn signal(pid: u32, name: &str) -> anyhow::Result<()> {
    let status = Command::new("sh").arg("-c").arg(format!("kill -{name} {pid}")).status().await?;
    ensure!(status.success(), "can't send SIG{name} to {pid}");
    Ok(())
}

/// `SYNC_WORKER_BINARY`, or the one that was built into the folder of this program or of the one above.
pub fn binary() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("SYNC_WORKER_BINARY") {
        return Ok(PathBuf::from(path));
    }
    let own = std::env::current_exe()?;
    let folders = own.ancestors().skip(1).take(2);
    let found = folders.map(|folder| folder.join("sync-worker")).find(|path| path.is_file());
    found.with_context(|| {
        format!("there is no sync-worker beside {}: run `cargo build --bin sync-worker`", own.display())
    })
}

/// A port that stays free while its worker is down: below the range from which the system takes ports for outgoing
/// connections, and whoever holds the UDP port of that number has it among the tests.
fn reserve_port() -> anyhow::Result<UdpSocket> {
    let mut rng = rand::rng();
    let reserved = (0..1_000).find_map(|_| {
        let address = (Ipv4Addr::LOCALHOST, rng.random_range(10_000..15_000));
        let held = UdpSocket::bind(address).ok()?;
        TcpListener::bind(address).is_ok().then_some(held)
    });
    reserved.context("no port is free")
}
