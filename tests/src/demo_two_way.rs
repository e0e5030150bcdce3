//! The two-way demo: three databases that are all written to, conflicts included, and kept equal through a kill -9.

use crate::compare;
use crate::histogram::total;
use crate::two_way::{Mix, TwoWay};
use anyhow::Context;
use std::time::Duration;
use sync_worker_engine::metrics::{APPLIED_CHANGES, CONFLICTS, ECHOED_ROWS};
use tokio::time::Instant;

#[derive(Clone, Debug)]
pub struct Settings {
    /// Seconds of load.
    pub seconds: u64,
    /// Rows to copy from the first member to the others.
    pub rows: i64,
    /// Statements per second and member.
    pub rate: u32,
    pub seed: u64,
}

/// Conflicts that are shown in the end.
const SHOWN: &str = "5";

pub async fn run(settings: &Settings) -> anyhow::Result<()> {
    let mut group = TwoWay::new(&TwoWay::every_kind(), "demo", "seed = \"a\"\n").await?;
    let names: Vec<String> =
        group.members.iter().map(|member| format!("{} ({})", member.name, member.database.kind)).collect();
    println!("\nmembers: {}; the last write wins", names.join(", "));

    println!("\n1. copy {} rows from a to the others", settings.rows);
    let begun = Instant::now();
    let first = group.members.first().context("members")?;
    for from in (1..=settings.rows).step_by(1_000) {
        let rows = (from..from + 1_000).map(|id| format!("({id}, 'seeded', 0, 0, 0)")).collect::<Vec<_>>().join(", ");
        first.database.execute(&format!("INSERT INTO account VALUES {rows}")).await?;
    }
    group.start().await?;
    group.settle().await?;
    println!("   done in {:.1} s", begun.elapsed().as_secs_f32());

    println!(
        "\n2. {} s of inserts, updates and deletes of the same rows at every member; a kill -9 in the middle",
        settings.seconds
    );
    // A tenth of the rows, so that members meet in some of them.
    let mix = Mix {
        keys: (settings.rows / 10).max(10),
        told_apart: true,
        deletes: true,
        transactions: false,
        rate: settings.rate,
    };
    let writers = group.writers(settings.seed, mix);
    let begun = Instant::now();
    watch(&group, begun, settings.seconds.div_ceil(2)).await?;
    group.worker.kill().await?;
    println!("   {:>4} s  kill -9 of the worker, and a new start", begun.elapsed().as_secs());
    group.worker.start()?;
    watch(&group, begun, settings.seconds).await?;
    let written = writers.stop().await?;
    let stopped = Instant::now();
    group.settle().await?;
    println!("   {written} writes were made; at rest {:.1} s after the last", stopped.elapsed().as_secs_f32());

    println!("\n3. every row of every member, by plain SELECTs");
    let (first, others) = group.members.split_first().context("members")?;
    for other in others {
        let rows = compare::equal(&first.database, &other.database, "account").await?;
        println!("   {} and {}: {rows} rows, all equal", first.name, other.name);
    }

    let conflicts = group.conflicts().await?;
    println!("\n4. {} conflicts are on record, the newest of them: sync-worker conflicts list", conflicts.len());
    let shown = group.worker.expect(0, &["conflicts", "list", "--limit", SHOWN]).await?;
    shown.lines().for_each(|line| println!("   {line}"));
    group.end().await?;
    println!("\ndemo-two-way: passed");
    Ok(())
}

/// A line a second, until `seconds` after the beginning.
async fn watch(group: &TwoWay, begun: Instant, seconds: u64) -> anyhow::Result<()> {
    let mut before = None;
    while begun.elapsed().as_secs() < seconds {
        tokio::time::sleep_until(begun + Duration::from_secs(begun.elapsed().as_secs() + 1)).await;
        let now = begun.elapsed().as_secs();
        let Ok(text) = group.worker.metrics().await else {
            println!("   {now:>4} s  the worker is starting");
            before = None;
            continue;
        };
        let label = "pipeline=\"shared\"";
        let [applied, conflicts, echoes] =
            [APPLIED_CHANGES, CONFLICTS, ECHOED_ROWS].map(|name| total(&text, name, label));
        let rate = before.map_or(applied, |before| applied - before);
        println!("   {now:>4} s  {rate:>6} rows/s written, {conflicts} conflicts, {echoes} echoes since the start");
        before = Some(applied);
    }
    Ok(())
}
