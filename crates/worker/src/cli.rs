//! The command line.

use crate::config::Purpose;
use clap::{Args, Parser, Subcommand};
use serde_json::{Map, Value};
use std::path::PathBuf;
use sync_worker_core::rules::{OnDelete, Strategy};

/// Keeps tables of PostgreSQL and MySQL databases in sync from their own change logs.
///
/// Exit codes: 0 done, 1 differences or problems, 2 wrong usage or configuration.
#[derive(Debug, Parser)]
#[command(name = "sync-worker", version, disable_help_subcommand = true, arg_required_else_help = true)]
pub struct Cli {
    /// Configuration file; without it ./sync-worker.toml or else /etc/sync-worker/config.toml.
    #[arg(long, global = true, env = "SYNC_WORKER_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print JSON to standard output.
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Run the worker until it is told to stop; SIGTERM drains.
    Run,
    /// Look for everything that stands in the way, and say what mends it; changes nothing.
    Check,
    /// Compare source and targets in full, while both live; rows on their way are no difference.
    Verify {
        /// Only this pipeline.
        #[arg(value_name = "PIPELINE")]
        pipeline: Option<String>,
        /// Have the running worker send again what differs, then compare once more.
        #[arg(long)]
        repair: bool,
        /// Compare this member with all others; a repair of a two-way pipeline copies its rows.
        #[arg(long, value_name = "DATABASE")]
        from: Option<String>,
        /// How long a difference may take to go away by itself before it counts; what was repaired has 30 s at least.
        #[arg(long, value_name = "SECONDS", default_value_t = 30)]
        patience: u64,
    },
    /// Show what every task of the running worker is doing.
    Status,
    /// Print changes as they come, one JSON envelope a line.
    Tail {
        /// Needed where there is more than one.
        #[arg(value_name = "PIPELINE")]
        pipeline: Option<String>,
        /// The first offset to print; without it, what comes from now on.
        #[arg(long, value_name = "OFFSET")]
        from: Option<u64>,
    },
    /// Print the DDL that the targets still lack.
    Schema,
    /// Take the changes of a paused table of a two-way pipeline again, from here on.
    Resume {
        #[arg(value_name = "PIPELINE")]
        pipeline: String,
        #[arg(value_name = "TABLE")]
        table: String,
    },
    /// Show and decide about the rows that a target has refused.
    DeadLetters {
        #[command(subcommand)]
        action: Option<LetterAction>,
    },
    /// Show and decide about rows that members of a two-way pipeline have written at the same time.
    Conflicts {
        #[command(subcommand)]
        action: Option<ConflictAction>,
    },
}

#[derive(Debug, PartialEq, Eq, Subcommand)]
pub enum LetterAction {
    /// Show them; the default.
    List {
        /// Only of this pipeline.
        #[arg(long, value_name = "PIPELINE")]
        pipeline: Option<String>,
        /// Only of this target.
        #[arg(long, value_name = "DATABASE")]
        database: Option<String>,
        /// Also those that still wait for a retry.
        #[arg(long)]
        waiting: bool,
    },
    /// Try them again now.
    Retry(Letters),
    /// Give them up: the target keeps the row as it is until its next change.
    Drop(Letters),
}

/// The dead letters of one target that an action is for.
#[derive(Args, Debug, PartialEq, Eq)]
pub struct Letters {
    #[arg(long, value_name = "PIPELINE")]
    pub pipeline: String,
    /// The target.
    #[arg(long, value_name = "DATABASE")]
    pub database: String,
    /// The one at this offset, as `dead-letters list` shows it.
    #[arg(long, value_name = "OFFSET", required_unless_present = "all", conflicts_with = "all")]
    pub offset: Option<u64>,
    /// All of the target.
    #[arg(long)]
    pub all: bool,
}

#[derive(Debug, PartialEq, Eq, Subcommand)]
pub enum ConflictAction {
    /// Show them, the newest first; the default.
    List {
        /// Only of this pipeline.
        #[arg(long, value_name = "PIPELINE")]
        pipeline: Option<String>,
        /// Only of this table.
        #[arg(long, value_name = "TABLE")]
        table: Option<String>,
        /// Only those that wait for a person.
        #[arg(long)]
        open: bool,
        /// How many of each pipeline, 10000 at most.
        #[arg(long, value_name = "NUMBER", default_value_t = 100)]
        limit: usize,
    },
    /// Show one with both versions, column by column.
    Show {
        /// As `conflicts list` shows it.
        #[arg(value_name = "ID")]
        id: i64,
        #[arg(long, value_name = "PIPELINE")]
        pipeline: Option<String>,
    },
    /// Write a version to all members, unless the row has changed since; or leave the row and close the entry.
    Decide {
        /// As `conflicts list` shows it.
        #[arg(value_name = "ID")]
        id: i64,
        #[arg(long, value_name = "PIPELINE")]
        pipeline: Option<String>,
        #[command(flatten)]
        choice: Choice,
        /// Over the row as it is now, by the name that `conflicts show` gives it, rather than as the entry left it.
        #[arg(long, value_name = "IMAGE", conflicts_with = "keep")]
        now: Option<String>,
    },
    /// Tell which outcomes on record would be others by other rules; changes nothing.
    WhatIf {
        /// Only of this pipeline.
        #[arg(long, value_name = "PIPELINE")]
        pipeline: Option<String>,
        /// Only of this table.
        #[arg(long, value_name = "TABLE")]
        table: Option<String>,
        #[command(flatten)]
        rules: OtherRules,
    },
}

// The version that is to stand there. Not a doc comment: it would become the text of the command.
#[derive(Args, Debug, PartialEq, Eq)]
#[group(required = true, multiple = false)]
pub struct Choice {
    /// The one that stayed.
    #[arg(long)]
    pub winner: bool,
    /// The one that lost.
    #[arg(long)]
    pub loser: bool,
    /// Whatever stands there now: closes the entry and writes nothing.
    #[arg(long)]
    pub keep: bool,
    /// Another one: an object with all columns, as `conflicts show --json` shows a row.
    #[arg(long, value_name = "JSON", value_parser = object)]
    pub row: Option<Map<String, Value>>,
}

// What is asked in place of the configuration. Not a doc comment either.
#[derive(Args, Debug, PartialEq, Eq)]
#[group(required = true, multiple = true)]
pub struct OtherRules {
    /// In place of each table's strategy; for tables that are merged, in place of `contested`.
    #[arg(long, value_name = "STRATEGY", value_parser = Strategy::ALL.map(Strategy::as_str))]
    pub strategy: Option<String>,
    /// In place of each table's `on_delete`.
    #[arg(long, value_name = "RULE", value_parser = OnDelete::ALL.map(OnDelete::as_str))]
    pub on_delete: Option<String>,
    /// In place of a member's priority; may stand several times.
    #[arg(long, value_name = "MEMBER=NUMBER", value_parser = priority_of)]
    pub priority: Vec<String>,
}

fn priority_of(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((member, number)) if !member.is_empty() && number.parse::<i64>().is_ok() => Ok(text.to_owned()),
        Some(_) | None => Err("not a member and a whole number, as in crm=10".to_owned()),
    }
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("no JSON object: {error}"))
}

impl Command {
    /// Whether the command connects to the databases itself or asks the running worker.
    pub fn purpose(&self) -> Purpose {
        match self {
            Command::Run | Command::Check | Command::Verify { .. } | Command::Schema => Purpose::Connect,
            Command::Status
            | Command::Tail { .. }
            | Command::Resume { .. }
            | Command::DeadLetters { .. }
            | Command::Conflicts { .. } => Purpose::Ask,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_is_understood() {
        let letters = |offset, all| Letters { pipeline: "p".into(), database: "d".into(), offset, all };
        let list = |pipeline: Option<&str>, waiting| LetterAction::List {
            pipeline: pipeline.map(str::to_owned),
            database: None,
            waiting,
        };
        let letter = |action| Command::DeadLetters { action };
        let conflict = |action| Command::Conflicts { action };
        let decide = |choice: Choice, now: Option<&str>| {
            conflict(Some(ConflictAction::Decide { id: 7, pipeline: None, choice, now: now.map(str::to_owned) }))
        };
        let choice = || Choice { winner: false, loser: false, keep: false, row: None };
        let listed = |pipeline: Option<&str>, table: Option<&str>, open, limit| {
            let (pipeline, table) = (pipeline.map(str::to_owned), table.map(str::to_owned));
            conflict(Some(ConflictAction::List { pipeline, table, open, limit }))
        };
        let what_if = |table: Option<&str>, strategy: Option<&str>, on_delete: Option<&str>, priority: &[&str]| {
            let [table, strategy, on_delete] = [table, strategy, on_delete].map(|text| text.map(str::to_owned));
            let priority = priority.iter().map(ToString::to_string).collect();
            let rules = OtherRules { strategy, on_delete, priority };
            conflict(Some(ConflictAction::WhatIf { pipeline: None, table, rules }))
        };
        let cases = [
            ("run", Command::Run),
            ("check", Command::Check),
            ("verify", Command::Verify { pipeline: None, repair: false, from: None, patience: 30 }),
            ("resume p t", Command::Resume { pipeline: "p".into(), table: "t".into() }),
            (
                "verify p --repair --patience 2",
                Command::Verify { pipeline: Some("p".into()), repair: true, from: None, patience: 2 },
            ),
            ("status", Command::Status),
            ("tail", Command::Tail { pipeline: None, from: None }),
            ("tail p --from 7", Command::Tail { pipeline: Some("p".into()), from: Some(7) }),
            ("schema", Command::Schema),
            ("dead-letters", letter(None)),
            ("dead-letters list", letter(Some(list(None, false)))),
            ("dead-letters list --pipeline p --waiting", letter(Some(list(Some("p"), true)))),
            (
                "dead-letters retry --pipeline p --database d --offset 3",
                letter(Some(LetterAction::Retry(letters(Some(3), false)))),
            ),
            (
                "dead-letters drop --pipeline p --database d --all",
                letter(Some(LetterAction::Drop(letters(None, true)))),
            ),
            ("conflicts", conflict(None)),
            ("conflicts list", listed(None, None, false, 100)),
            ("conflicts list --pipeline p --table t --open --limit 3", listed(Some("p"), Some("t"), true, 3)),
            (
                "conflicts show 7 --pipeline p",
                conflict(Some(ConflictAction::Show { id: 7, pipeline: Some("p".into()) })),
            ),
            ("conflicts decide 7 --winner", decide(Choice { winner: true, ..choice() }, None)),
            ("conflicts decide 7 --loser --now 3f", decide(Choice { loser: true, ..choice() }, Some("3f"))),
            ("conflicts decide 7 --keep", decide(Choice { keep: true, ..choice() }, None)),
            (
                "conflicts decide 7 --row {\"id\":1}",
                decide(Choice { row: Some(object("{\"id\":1}").unwrap()), ..choice() }, None),
            ),
            ("conflicts what-if --strategy first_write", what_if(None, Some("first_write"), None, &[])),
            (
                "conflicts what-if --table t --on-delete update_wins --priority crm=10 --priority shop=-5",
                what_if(Some("t"), None, Some("update_wins"), &["crm=10", "shop=-5"]),
            ),
        ];
        for (line, command) in cases {
            let cli = parse(&format!("sync-worker --config /c.toml {line} --json")).unwrap();
            assert_eq!(cli.command, command, "{line}");
            assert_eq!(cli.config, Some(PathBuf::from("/c.toml")));
            assert!(cli.json);
        }
        assert!(!parse("sync-worker run").unwrap().json);
        assert!(parse("sync-worker run --config /c.toml").unwrap().config.is_some(), "options may stand behind, too");
    }

    #[test]
    fn wrong_usage_ends_with_2() {
        for line in [
            "sync-worker",
            "sync-worker walk",
            "sync-worker run --confg x",
            "sync-worker tail p --from yesterday",
            "sync-worker dead-letters retry --pipeline p --database d",
            "sync-worker dead-letters drop --pipeline p --database d --all --offset 3",
            "sync-worker dead-letters drop --all",
            "sync-worker conflicts show",
            "sync-worker conflicts decide 7",
            "sync-worker conflicts decide 7 --winner --loser",
            "sync-worker conflicts decide 7 --keep --now 3f",
            "sync-worker conflicts decide 7 --row [1]",
            "sync-worker conflicts what-if",
            "sync-worker conflicts what-if --table t",
            "sync-worker conflicts what-if --strategy merge",
            "sync-worker conflicts what-if --on-delete wins",
            "sync-worker conflicts what-if --priority crm",
            "sync-worker conflicts what-if --priority crm=high",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
        for (line, kind) in
            [("sync-worker --help", ErrorKind::DisplayHelp), ("sync-worker -V", ErrorKind::DisplayVersion)]
        {
            let error = parse(line).unwrap_err();
            assert_eq!((error.kind(), error.exit_code()), (kind, 0));
        }
    }

    #[test]
    fn help_says_what_the_exit_codes_mean() {
        let help = Cli::command().render_long_help().to_string();
        for part in ["0 done", "1 differences or problems", "2 wrong usage or configuration", "SYNC_WORKER_CONFIG"] {
            assert!(help.contains(part), "{help}");
        }
    }
}
