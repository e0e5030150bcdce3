//! Servers of a test's own, for tests that kill, pause or restart them.

use crate::kind::Kind;
use anyhow::{Context, ensure};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A run of servers; all are taken down when it is dropped.
pub struct Servers {
    run: Option<TempDir>,
    path: PathBuf,
}

impl Servers {
    pub fn new() -> anyhow::Result<Self> {
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() { memory } else { Path::new("/var/tmp") };
        // A name and a file by which the script finds runs whose owner has died.
        let run = tempfile::Builder::new().prefix("sync-worker.").tempdir_in(base)?;
        std::fs::set_permissions(run.path(), std::fs::Permissions::from_mode(0o755))?;
        std::fs::write(run.path().join("owner"), format!("{} {}\n", std::process::id(), started_at()?))?;
        let path = run.path().to_owned();
        Ok(Self { run: Some(run), path })
    }

    /// The run's folder, which `SYNC_WORKER_RUN` names for the script.
    pub fn folder(&self) -> &Path {
        &self.path
    }

    /// Leaves the servers up when this is dropped; nobody takes them down but a person.
    pub fn keep(&mut self) -> anyhow::Result<()> {
        std::fs::write(self.path.join("owner"), "\n")?;
        if let Some(run) = self.run.take() {
            drop(run.keep());
        }
        Ok(())
    }

    /// Starts a server and returns its URL.
    pub fn start(&self, kind: Kind, name: &str, settings: &[&str]) -> anyhow::Result<String> {
        let mut arguments = vec!["start", kind.as_str(), name];
        arguments.extend_from_slice(settings);
        self.script(&arguments)
    }

    /// Starts a standby of a PostgreSQL server and returns its URL.
    pub fn standby(&self, name: &str, of: &str, settings: &[&str]) -> anyhow::Result<String> {
        let mut arguments = vec!["standby", name, of];
        arguments.extend_from_slice(settings);
        self.script(&arguments)
    }

    /// SIGKILL to all its processes.
    pub fn kill(&self, name: &str) -> anyhow::Result<()> {
        self.script(&["kill", name]).map(drop)
    }

    /// SIGSTOP.
    pub fn pause(&self, name: &str) -> anyhow::Result<()> {
        self.script(&["pause", name]).map(drop)
    }

    /// SIGCONT.
    pub fn resume(&self, name: &str) -> anyhow::Result<()> {
        self.script(&["resume", name]).map(drop)
    }

    /// Starts it again where it was; returns when it answers.
    pub fn restart(&self, name: &str) -> anyhow::Result<()> {
        self.script(&["restart", name]).map(drop)
    }

    pub fn down(&self) -> anyhow::Result<()> {
        self.script(&["down"]).map(drop)
    }

    fn script(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let script = script();
        let output = Command::new(&script).args(arguments).env("SYNC_WORKER_RUN", &self.path).output();
        let output = output.with_context(|| format!("can't run {}", script.display()))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "servers {}: {}", arguments.join(" "), said.trim());
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        let Some(run) = self.run.take() else { return };
        if let Err(error) = self.down() {
            eprintln!("{}: {error:#}", run.path().display());
        }
    }
}

/// The script that brings servers up, wherever this was built.
pub fn script() -> PathBuf {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("servers/servers");
    std::env::var_os("SYNC_WORKER_SERVERS").map_or_else(beside, PathBuf::from)
}

/// Field 22 of this process's `stat`, by which the script tells apart two that had the same pid.
fn started_at() -> anyhow::Result<String> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let after = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    after.split_whitespace().nth(19).map(str::to_owned).context("/proc/self/stat is short")
}
