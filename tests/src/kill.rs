//! The kill test: a worker killed with -9 at random moments under load, again and again, and a MongoDB server with faults
//! between the kills; nothing is lost, repeated or out of order.

use crate::compare;
use crate::faults::{Faults, Tally};
use crate::kind::Direction;
use crate::ledger::{self, Verdict};
use crate::load::{Load, LoadReport, LoadSettings};
use crate::scenario::Preparation;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::time::Duration;

/// How long a worker lives at the most; the shortest life ends while it still starts.
const LONGEST_LIFE: Duration = Duration::from_millis(1_800);

/// Rows that stand there before the load.
const ROWS: i64 = 2_000;

#[derive(Debug)]
pub struct KillReport {
    pub direction: Direction,
    pub cycles: u32,
    /// Those of MongoDB.
    pub faults: Tally,
    pub load: LoadReport,
    pub verdict: Verdict,
    /// Rows compared at the end; the first differences where they are not equal.
    pub compared: Result<usize, String>,
}

impl KillReport {
    pub fn is_good(&self) -> bool {
        self.verdict.is_good() && self.compared.is_ok()
    }
}

/// Runs the cycles of one direction. `tell` hears after each one.
pub async fn run(
    direction: Direction,
    cycles: u32,
    seed: u64,
    mut tell: impl FnMut(u32),
) -> anyhow::Result<KillReport> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut preparation = Preparation::new(direction, "kill").await?;
    preparation.item(ROWS).await?;
    let mut scenario = preparation.streaming().await?;
    // From here on: what a snapshot copies is no change.
    ledger::install(&scenario.source).await?;
    ledger::install(&scenario.target).await?;
    let load = Load::start(&scenario.source.url(), &LoadSettings::new(seed))?;
    let mut faults = Faults::at([&scenario.source, &scenario.target], seed).await?;
    for cycle in 1..=cycles {
        let life = rng.random_range(Duration::ZERO..LONGEST_LIFE);
        // The kill's random moment, not a wait for something.
        faults.during(life).await?;
        scenario.worker.kill().await?;
        scenario.worker.start()?;
        tell(cycle);
    }
    let faults = faults.end().await?;
    let load = load.stop().await?;
    scenario.settle().await?;
    let verdict = ledger::judge(&ledger::read(&scenario.source).await?, &ledger::read(&scenario.target).await?);
    let compared = compare::equal(&scenario.source, &scenario.target, "item").await;
    let report = KillReport {
        direction,
        cycles,
        faults,
        load,
        verdict,
        compared: compared.map_err(|error| format!("{error:#}")),
    };
    if report.is_good() {
        scenario.finish().await?;
    }
    Ok(report)
}
