//! An outage of one server under load, and how soon the worker goes on after it.

use crate::database::Database;
use crate::kind::Direction;
use crate::ledger;
use crate::load::{Load, LoadSettings};
use crate::proxy::Proxy;
use crate::scenario::{Preparation, Scenario};
use crate::seed::seed;
use crate::servers::Servers;
use crate::wait;
use anyhow::{Context, ensure};
use std::time::Duration;
use tokio::time::Instant;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Source,
    Target,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Side::Source => "source",
            Side::Target => "target",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL to all processes of the server, and a start after the outage.
    Killed,
    /// SIGSTOP, SIGCONT.
    Paused,
    /// A network that takes everything and delivers nothing.
    Swallowed,
}

/// How soon the worker must go on after a server's return.
const RETURN: Duration = Duration::from_secs(5);

/// An outage that is longer than this is noticed by the worker's own patience. After a shorter one the network resets
/// the connections that lost bytes, as one does that has forgotten them.
const NOTICED: Duration = Duration::from_secs(20);

/// Row changes per second.
const RATE: u32 = 1_500;

/// `SYNC_WORKER_OUTAGE_SECONDS`, else short enough for every day.
pub fn duration() -> anyhow::Result<Duration> {
    match std::env::var("SYNC_WORKER_OUTAGE_SECONDS") {
        Ok(text) => Ok(Duration::from_secs(text.parse().context("SYNC_WORKER_OUTAGE_SECONDS is no number")?)),
        Err(_) => Ok(Duration::from_secs(6)),
    }
}

/// Runs the faults one after another on servers of their own, under one load.
pub async fn run(direction: Direction, side: Side, faults: &[Fault]) -> anyhow::Result<()> {
    let (outage, seed) = (duration()?, seed()?);
    let servers = Servers::new()?;
    let source = servers.start(direction.from, "source", &[])?;
    let target = servers.start(direction.to, "target", &[])?;
    let (source, target) =
        (Database::create_on(&source, "outage").await?, Database::create_on(&target, "outage").await?);
    let proxy = Proxy::start(&if side == Side::Source { source.address() } else { target.address() }).await?;
    let mut preparation = Preparation::between(source, target).await?;
    if faults.contains(&Fault::Swallowed) {
        let (at, database) = match side {
            Side::Source => (0, &preparation.source),
            Side::Target => (1, &preparation.target),
        };
        preparation.settings.databases[at].url = database.url_at(None, Some(&proxy.address()));
    }
    preparation.item(1_000).await?;
    let scenario = preparation.streaming().await?;
    ledger::install(&scenario.source).await?;
    ledger::install(&scenario.target).await?;
    let load = Load::start(&scenario.source.url(), &LoadSettings { rate: Some(RATE), ..LoadSettings::new(seed) })?;
    scenario.until_changes(&load, 1_000).await?;
    for &fault in faults {
        let test = Test { servers: &servers, proxy: &proxy, scenario: &scenario, load: &load, side, fault };
        test.run(outage)
            .await
            .with_context(|| format!("{direction}, {side:?} {fault:?} for {} s", outage.as_secs()))?;
    }
    load.stop().await?;
    scenario.settle().await?;
    let verdict = ledger::judge(&ledger::read(&scenario.source).await?, &ledger::read(&scenario.target).await?);
    println!("{direction}, {side:?} {faults:?}: {verdict}");
    ensure!(verdict.is_good(), "{verdict}");
    scenario.finish().await
}

struct Test<'a> {
    servers: &'a Servers,
    proxy: &'a Proxy,
    scenario: &'a Scenario,
    load: &'a Load,
    side: Side,
    fault: Fault,
}

impl Test<'_> {
    async fn run(&self, outage: Duration) -> anyhow::Result<()> {
        let (name, before) = (self.side.name(), self.load.report().changes);
        match self.fault {
            Fault::Killed => self.servers.kill(name)?,
            Fault::Paused => self.servers.pause(name)?,
            Fault::Swallowed => self.proxy.swallow(),
        }
        // The length of the outage, not a wait for something.
        tokio::time::sleep(outage).await;
        let written = self.load.report().changes - before;
        match self.fault {
            Fault::Killed => self.servers.restart(name)?,
            Fault::Paused => self.servers.resume(name)?,
            Fault::Swallowed => {
                self.proxy.forward();
                if outage < NOTICED {
                    self.proxy.cut();
                }
            }
        }
        let returned = Instant::now();
        // A source that can be written to was.
        let alive = self.side == Side::Target || self.fault == Fault::Swallowed;
        ensure!(!alive || written >= 1_000 * outage.as_secs(), "only {written} changes during the outage");
        let mut target = self.scenario.target.connect().await?;
        let arrived = "SELECT coalesce(max(seq), 0) FROM write_log";
        let at_return = target.number(arrived).await?;
        wait::until("the worker to go on", RETURN, async || {
            Ok((target.number(arrived).await? > at_return).then_some(()))
        })
        .await?;
        println!(
            "{:?} {:?}: went on {:.2} s after the return",
            self.side,
            self.fault,
            returned.elapsed().as_secs_f32()
        );
        self.scenario.until_changes(self.load, 500).await
    }
}
