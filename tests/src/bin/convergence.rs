//! Random writes at every member of a two-way pipeline, through kills, cuts, refusals and hidden writes, and what became of
//! them.

use clap::Parser;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Instant;
use sync_worker_tests::convergence::{self, Settings};
use sync_worker_tests::kind::Kind;
use sync_worker_tests::seed::seed;

#[derive(Parser)]
struct Arguments {
    /// Repeats the writes and the disturbances of an earlier run; also SYNC_WORKER_SEED.
    #[arg(long)]
    seed: Option<u64>,
    /// Writes of each run.
    #[arg(long, default_value_t = 3_000)]
    writes: u64,
    /// 100,000 writes each.
    #[arg(long)]
    long: bool,
    /// One set of members, such as postgres-mysql, instead of each pair and the triple.
    #[arg(long)]
    direction: Option<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("convergence: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<bool> {
    let seed = match arguments.seed {
        Some(seed) => seed,
        None => seed()?,
    };
    let writes = if arguments.long { 100_000 } else { arguments.writes };
    let sets = match &arguments.direction {
        Some(names) => vec![names.split('-').map(str::parse).collect::<Result<Vec<Kind>, _>>()?],
        None => convergence::sets(),
    };
    println!("convergence: {writes} writes a run, seed {seed}");
    let terminal = std::io::stderr().is_terminal();
    let mut good = true;
    for kinds in sets {
        let name = kinds.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join("-");
        for (number, (told_apart, hidden)) in [(true, false), (false, false), (false, true)].into_iter().enumerate() {
            let begun = Instant::now();
            let settings = Settings { kinds: kinds.clone(), seed: seed + number as u64, writes, told_apart, hidden };
            let report = convergence::run(&settings, |written| {
                if terminal {
                    eprint!("\r{name}: {written} of {writes} ");
                    std::io::stderr().flush().unwrap_or_default();
                }
            })
            .await?;
            let what = if told_apart { "writers told apart" } else { "few values" };
            println!("{name}, {what}: {report}, in {} s", begun.elapsed().as_secs());
            report.problems.iter().take(20).for_each(|problem| println!("  {problem}"));
            good &= report.problems.is_empty();
        }
    }
    println!("{}", if good { "convergence: passed" } else { "convergence: FAILED" });
    Ok(good)
}
