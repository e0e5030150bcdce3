//! Kills the worker with -9 at random moments under load, with faults of MongoDB between, restarts it, and holds what the
//! target's trigger logged against the source's history.

use clap::Parser;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Instant;
use sync_worker_tests::kill;
use sync_worker_tests::kind::Direction;
use sync_worker_tests::seed::seed;

#[derive(Parser)]
struct Arguments {
    /// Kills per direction.
    #[arg(long)]
    cycles: Option<u32>,
    /// One direction, such as postgres-mysql, instead of all nine.
    #[arg(long)]
    direction: Option<Direction>,
    /// Repeats the load and the moments of an earlier run; also SYNC_WORKER_SEED.
    #[arg(long)]
    seed: Option<u64>,
    /// 500 kills per direction.
    #[arg(long)]
    long: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("kill-test: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<bool> {
    let seed = match arguments.seed {
        Some(seed) => seed,
        None => seed()?,
    };
    let cycles = arguments.cycles.unwrap_or(if arguments.long { 500 } else { 10 });
    let directions = arguments
        .direction
        .map_or_else(|| Direction::ALL.into_iter().chain(Direction::DOCUMENTS).collect(), |direction| vec![direction]);
    println!("kill-test: {cycles} cycles a direction, seed {seed}");
    let terminal = std::io::stderr().is_terminal();
    let mut good = true;
    for direction in directions {
        let begun = Instant::now();
        let report = kill::run(direction, cycles, seed, |cycle| {
            if terminal {
                eprint!("\r{direction}: cycle {cycle} of {cycles} ");
                std::io::stderr().flush().unwrap_or_default();
            }
        })
        .await?;
        if terminal {
            eprint!("\r");
        }
        let compared = match &report.compared {
            Ok(rows) => format!("{rows} rows equal"),
            Err(differences) => format!("NOT EQUAL: {differences}"),
        };
        let seconds = begun.elapsed().as_secs();
        println!("{direction}: {cycles} cycles in {seconds} s, {}, {}, {compared}", report.faults, report.verdict);
        good &= report.is_good();
    }
    println!("{}", if good { "kill-test: passed" } else { "kill-test: FAILED" });
    Ok(good)
}
