//! A PostgreSQL and a MySQL database kept in sync, both directions at a time over different tables: the copy of what is
//! there, a mixed load, a kill -9 in the middle, and a comparison in full at the end.

use clap::Parser;
use std::process::ExitCode;
use sync_worker_tests::{demo, demo_two_way};

#[derive(Parser)]
struct Arguments {
    /// Leaves servers and worker up, and prints how to look at them.
    #[arg(long)]
    keep: bool,
    /// Seconds of load.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Rows to copy, each way.
    #[arg(long, default_value_t = 100_000)]
    rows: i64,
    /// Row changes per second and direction.
    #[arg(long, default_value_t = 2_000)]
    rate: u32,
    #[arg(long)]
    seed: Option<u64>,
    /// PostgreSQL to MongoDB and MongoDB to MySQL instead.
    #[arg(long, conflicts_with = "keep")]
    mongodb: bool,
    /// Three databases that are all written to, instead.
    #[arg(long, conflicts_with_all = ["keep", "mongodb"])]
    two_way: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Arguments { keep, seconds, rows, rate, seed, mongodb, two_way } = Arguments::parse();
    let seed = seed.unwrap_or(1);
    let outcome = match two_way {
        true => demo_two_way::run(&demo_two_way::Settings { seconds, rows: rows / 10, rate: rate / 10, seed }).await,
        false => demo::run(&demo::Settings { keep, seconds, rows, rate, mongodb, seed }).await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}
