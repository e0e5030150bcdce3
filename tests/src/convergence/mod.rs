//! The convergence test: random writes at every member, and a worker that is killed, stopped, cut off and refused, and whose
//! rows are changed behind its back; in the end all members are equal, and no write has vanished without a trace.

mod disturb;
mod judge;

use crate::kind::Kind;
use crate::two_way::{Account, Mix, TwoWay};
use judge::{End, Log};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Settings {
    pub kinds: Vec<Kind>,
    pub seed: u64,
    /// Statements of all writers together.
    pub writes: u64,
    /// Every row carries its writer's id, and what became of each write is judged; else columns have few values.
    pub told_apart: bool,
    /// Rows are changed behind capture's back, too, and the first copy runs while all members are written to.
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
    /// Workers that were started beside the one that runs.
    pub duplicates: u32,
    /// Reads of one member's rows for all others, in the middle of everything.
    pub repairs: u32,
    pub hidden: u32,
    /// Writes that were found to replace a row, where versions are told apart.
    pub replaced: u64,
    /// What must not be.
    pub problems: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} writes, {} conflicts, {} drifted rows after {} hidden writes, {} kills, {} cuts, {} silences, {} pauses, {} times \
             refused, {} second workers, {} repairs; {} replaced rows judged, {} rows equal everywhere, {} problems",
            self.writes,
            self.conflicts,
            self.drifted,
            self.hidden,
            self.kills,
            self.cuts,
            self.silences,
            self.pauses,
            self.refusals,
            self.duplicates,
            self.repairs,
            self.replaced,
            self.rows,
            self.problems.len()
        )
    }
}

/// Keys that are written to: few enough for conflicts, many enough for batches.
const KEYS: i64 = 40;

/// Rows of the first copy, where there is one: those that are written to, and enough others for it to take a while.
const ROWS: i64 = 20_000;

/// What a task may take to come back.
const SETTLE: Duration = Duration::from_secs(120);

/// A refused version is tried again all the time, and never given up.
const RETRY: &str = "retry = { attempts = 100000, first_delay = \"100ms\", max_delay = \"500ms\" }\n";

pub async fn run(settings: &Settings, progress: impl Fn(u64)) -> anyhow::Result<Report> {
    let mut rng = StdRng::seed_from_u64(settings.seed);
    let seed = if settings.hidden { "a" } else { "none" };
    let lines = format!("seed = \"{seed}\"\n{RETRY}");
    let mut group = TwoWay::behind_proxies(&settings.kinds, "converge", &lines).await?;
    if settings.told_apart {
        group.log_replaced().await?;
    }
    let mix = Mix { keys: KEYS, told_apart: settings.told_apart, deletes: true, transactions: true, rate: 250 };
    let writers_seed = rng.random();
    let mut writers = None;
    if settings.hidden {
        open(&group).await?;
        writers = Some(group.writers(writers_seed, mix));
        group.worker.start()?;
    } else {
        group.start().await?;
    }
    let log = Log::follow(&group.worker);
    let writers = writers.unwrap_or_else(|| group.writers(writers_seed, mix));
    let mut report = Report::default();
    while writers.written() < settings.writes {
        let pause = writers.written() + rng.random_range(100..500);
        writers.until(pause).await?;
        disturb::disturb(&mut group, &writers, settings, &mut rng, &mut report).await?;
        progress(writers.written());
    }
    report.writes = writers.stop().await?;
    if settings.hidden {
        // A row that capture never saw, or that no first copy has brought, shows when its key is written to again.
        group.worker.until_streaming(SETTLE).await?;
        group.overwrite(1..=KEYS).await?;
    }
    match group.equal().await {
        Ok(rows) => report.rows = rows,
        Err(error) => report.problems.push(format!("{error:#}")),
    }
    let conflicts = group.conflicts().await?;
    judge_ledger(&conflicts, settings.hidden, &mut report);
    if settings.told_apart {
        let (held, replaced) = (group.held().await?, group.replaced().await?);
        log.judge(&End { held, conflicts: &conflicts, replaced }, &mut report);
    }
    match report.problems.is_empty() {
        true => group.end().await?,
        false => println!("{}", group.worker.log_tail()),
    }
    Ok(report)
}

/// Gives the first member the rows that it copies to the others.
async fn open(group: &TwoWay) -> anyhow::Result<()> {
    let mut accounts = group.members[0].accounts().await?;
    let row = |id| Account { id, ..Account::default() };
    for first in (1..=ROWS).step_by(1_000) {
        accounts.insert_all(&(first..first + 1_000).map(row).collect::<Vec<_>>()).await?;
    }
    Ok(())
}

/// Every conflict once, and nothing is called drifted that nobody wrote behind capture's back.
fn judge_ledger(conflicts: &[Value], hidden: bool, report: &mut Report) {
    report.conflicts = conflicts.len();
    report.drifted = conflicts.iter().filter(|conflict| conflict["kind"] == "drift").count();
    if !hidden && report.drifted > 0 {
        let problem = format!("{} rows are called drifted, and nobody wrote behind capture's back", report.drifted);
        report.problems.push(problem);
    }
    let mut seen = BTreeSet::new();
    for conflict in conflicts {
        let what = ["offset", "table", "key", "kind", "column", "loser"].map(|part| conflict[part].to_string());
        if !seen.insert(what) {
            report.problems.push(format!("twice in the ledger: {conflict}"));
        }
    }
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
