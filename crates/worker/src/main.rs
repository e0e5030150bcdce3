//! `sync-worker`: keeps tables of databases in sync from their own change logs.
//!
//! A start, in order: command line, configuration, logs, then the command. `run` opens the state, answers over HTTP, looks at
//! every database, starts the pipelines, and drains on a signal.

mod cli;
mod client;
mod commands;
mod config;
mod outcome;
mod output;
mod progress;
mod telemetry;
mod wiring;

use clap::Parser;
use cli::{Cli, Command, ConflictAction, LetterAction};
use client::Client;
use commands::{check, conflicts, dead_letters, resume, run, schema, status, tail, verify};
use config::Configuration;
use outcome::Outcome;
use std::process::ExitCode;
use std::time::Duration;
use telemetry::Format;

/// Batches are buffers of a megabyte that one thread fills and another frees: the C library hands each back to the system
/// and gets it again page by page, which took a third of the time of a backlog.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What is left of the tasks when a command is through gets this long.
const LAST_MOMENT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let cli = Cli::parse();
    // The first to come stays; a second one would be this program's own mistake.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        return failed(Outcome::Problems, "TLS is set up already");
    }
    let config = match Configuration::load(cli.config.as_deref(), cli.command.purpose()) {
        Ok(config) => config,
        Err(invalid) => return failed(Outcome::Usage, invalid),
    };
    if let Err(error) = start_logs(&cli.command, &config) {
        return failed(Outcome::Usage, format!("{error:#}"));
    }
    let running = cli.command == Command::Run;
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return failed(Outcome::Problems, format!("can't start: {error}")),
    };
    let outcome = runtime.block_on(command(cli, config));
    // What hangs in a system call must not hold the end back.
    runtime.shutdown_timeout(LAST_MOMENT);
    match outcome {
        Ok(outcome) => outcome.into(),
        Err(error) if running => {
            tracing::error!(error = %one_line(&error), "sync-worker has stopped");
            Outcome::Problems.into()
        }
        Err(error) => failed(Outcome::Problems, one_line(&error)),
    }
}

/// The long-lived worker logs as it is configured; the other commands speak for themselves and only warn.
fn start_logs(command: &Command, config: &Configuration) -> anyhow::Result<()> {
    let wanted = std::env::var("RUST_LOG").ok().filter(|level| !level.is_empty());
    match command {
        Command::Run => telemetry::start(wanted.as_deref().unwrap_or(&config.log.level), config.log.format)?,
        Command::Check
        | Command::Verify { .. }
        | Command::Status
        | Command::Tail { .. }
        | Command::Schema
        | Command::Resume { .. }
        | Command::DeadLetters { .. }
        | Command::Conflicts { .. } => telemetry::start(wanted.as_deref().unwrap_or("error"), Format::Text)?,
    }
    for warning in &config.warnings {
        match command {
            Command::Run => tracing::warn!("{warning}"),
            Command::Check => eprintln!("warning: {warning}"),
            Command::Verify { .. }
            | Command::Status
            | Command::Tail { .. }
            | Command::Schema
            | Command::Resume { .. }
            | Command::DeadLetters { .. }
            | Command::Conflicts { .. } => {}
        }
    }
    Ok(())
}

async fn command(cli: Cli, config: Configuration) -> anyhow::Result<Outcome> {
    let json = cli.json;
    match cli.command {
        Command::Run => run::run(config).await,
        Command::Check => check::check(&config, json).await,
        Command::Verify { pipeline, repair, from, patience } => {
            verify::verify(
                &config,
                &verify::Options { pipeline, repair, from, patience: Duration::from_secs(patience), json },
            )
            .await
        }
        Command::Schema => schema::schema(&config, json).await,
        Command::Resume { pipeline, table } => resume::resume(&config, pipeline, table, json).await,
        Command::Status => status::status(&Client::new(config.http)?, json).await,
        Command::Tail { pipeline, from } => tail::tail(&config, pipeline, from).await,
        Command::DeadLetters { action } => match action {
            None => dead_letters::list(&config, &dead_letters::Filter::default(), json).await,
            Some(LetterAction::List { pipeline, database, waiting }) => {
                dead_letters::list(&config, &dead_letters::Filter { pipeline, database, waiting }, json).await
            }
            Some(LetterAction::Retry(letters)) => dead_letters::retry(&config, letters, json).await,
            Some(LetterAction::Drop(letters)) => dead_letters::give_up(&config, letters, json).await,
        },
        Command::Conflicts { action } => match action {
            None => conflicts::list(&config, &conflicts::Filter::default(), json).await,
            Some(ConflictAction::List { pipeline, table, open, limit }) => {
                let filter = conflicts::Filter { pipeline, table, open, limit: Some(limit) };
                conflicts::list(&config, &filter, json).await
            }
            Some(ConflictAction::Show { id, pipeline }) => {
                conflicts::show(&config, id, pipeline.as_deref(), json).await
            }
            Some(ConflictAction::Decide { id, pipeline, choice, now }) => {
                conflicts::decide(&config, id, pipeline.as_deref(), choice.into(), now, json).await
            }
            Some(ConflictAction::WhatIf { pipeline, table, rules }) => {
                conflicts::what_if(&config, pipeline.as_deref(), table, rules, json).await
            }
        },
    }
}

fn failed(outcome: Outcome, error: impl std::fmt::Display) -> ExitCode {
    for line in error.to_string().lines() {
        eprintln!("error: {line}");
    }
    outcome.into()
}

fn one_line(error: &anyhow::Error) -> String {
    format!("{error:#}").replace('\n', " ")
}
