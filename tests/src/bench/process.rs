//! What a process has used, as the kernel counts it.

use anyhow::Context;
use std::fs;

/// Seconds of processor time of a process, user and system.
pub fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name may hold blanks; the fields after it do not.
    let fields: Vec<&str> = text.rsplit_once(')').context("a strange stat line")?.1.split_whitespace().collect();
    let ticks = |at: usize| -> anyhow::Result<f64> { Ok(fields.get(at).context("a short stat line")?.parse()?) };
    // Linux counts in hundredths on every architecture that matters here.
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}

/// The most memory that a process has had resident, in MiB.
pub fn peak_mib(pid: u32) -> anyhow::Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib / 1024.0)
}
