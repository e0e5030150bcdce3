//! `mongodb-stand-in`: the stand-in as a process of its own.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;
use sync_worker_mongodb_stand_in::{Options, StandIn, Tls};

/// A stand-in for a MongoDB replica set, for tests only.
#[derive(Parser)]
#[command(name = "mongodb-stand-in")]
struct Arguments {
    /// Port of the first member; 0 lets the system choose.
    #[arg(long, default_value_t = 27017)]
    port: u16,
    /// Folder of the journal; without it everything is lost at the end.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Members of the replica set: 1 or 3.
    #[arg(long, default_value_t = 1)]
    members: usize,
    /// A user as NAME:PASSWORD; may be given several times.
    #[arg(long)]
    user: Vec<String>,
    #[arg(long, requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    #[arg(long, requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// How many entries the oplog keeps; 0 keeps all.
    #[arg(long, default_value_t = Options::default().oplog)]
    oplog: usize,
    /// Wire version: 25 shows itself as 8.0, 21 as 7.0.
    #[arg(long, default_value_t = Options::default().wire_version)]
    wire: i32,
}

/// Documents may be nested 180 levels deep, and unoptimised code needs much room for each.
const STACK: usize = 16 << 20;

fn main() -> Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().thread_stack_size(STACK).enable_all().build()?;
    runtime.block_on(run(Arguments::parse()))
}

async fn run(arguments: Arguments) -> Result<()> {
    let users = arguments.user.iter().map(|user| {
        let (name, password) = user.split_once(':').context("--user takes NAME:PASSWORD")?;
        Ok((name.to_owned(), password.to_owned()))
    });
    let options = Options {
        port: arguments.port,
        members: arguments.members,
        folder: arguments.dir,
        users: users.collect::<Result<_>>()?,
        tls: arguments.tls_cert.zip(arguments.tls_key).map(|(certificate, key)| Tls { certificate, key }),
        oplog: arguments.oplog,
        wire_version: arguments.wire,
        ..Options::default()
    };
    let stand_in = StandIn::start(options).await?;
    println!("ready {}", stand_in.url());
    tokio::signal::ctrl_c().await?;
    stand_in.shutdown().await;
    Ok(())
}
