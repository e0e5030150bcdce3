//! PostgreSQL fails over to a standby: a source is followed where the standby has everything that was read from it, and a
//! member that has lost what it was sent gets it again.

use anyhow::{Context, ensure};
use std::time::Duration;
use sync_worker_engine::status::{State, Task, TaskStatus};
use sync_worker_tests::connection::Connection;
use sync_worker_tests::database::Database;
use sync_worker_tests::kind::Kind;
use sync_worker_tests::ledger;
use sync_worker_tests::load::{Load, LoadSettings};
use sync_worker_tests::scenario::{Preparation, Scenario};
use sync_worker_tests::seed::seed;
use sync_worker_tests::servers::Servers;
use sync_worker_tests::two_way::{Account, TwoWay};
use sync_worker_tests::wait;

const PATIENCE: Duration = Duration::from_secs(120);

/// A standby has a slot of its own name at the primary.
const STANDBY: &str = "second";

/// A primary and its standby.
struct Cluster {
    servers: Servers,
    primary: String,
    standby: String,
}

impl Cluster {
    fn start() -> anyhow::Result<Self> {
        let servers = Servers::new()?;
        let primary = servers.start(Kind::Postgres, "first", &[])?;
        let standby = servers.standby(STANDBY, "first", &[])?;
        Ok(Self { servers, primary, standby })
    }

    /// As clients reach whoever is primary.
    fn url(&self) -> anyhow::Result<String> {
        let (_, standby) = self.standby.rsplit_once('@').context("a URL")?;
        let (address, _) = standby.split_once('/').context("a URL")?;
        let (before, path) = self.primary.rsplit_once('/').context("a URL")?;
        Ok(format!("{before},{address}/{path}?target_session_attrs=read-write"))
    }

    /// A pipeline out of this cluster with rows of the loads' table, whose slot the standby has.
    async fn mirrored(&self, label: &str, to: Kind, rows: i64, source: &str) -> anyhow::Result<Scenario> {
        let (from, to) = (Database::create_on(&self.url()?, label).await?, Database::create(to, label).await?);
        let mut preparation = Preparation::between(from, to).await?;
        preparation.settings.databases[0].extra.push_str(source);
        preparation.item(rows).await?;
        let scenario = preparation.streaming().await?;
        self.slots_are_synchronized().await?;
        Ok(scenario)
    }

    async fn set(url: &str, setting: &str, value: &str) -> anyhow::Result<()> {
        let mut connection = Connection::open(url).await?;
        connection.execute(&format!("ALTER SYSTEM SET {setting} = '{value}'")).await?;
        connection.execute("SELECT pg_reload_conf()").await
    }

    /// Waits until the standby would keep the worker's slots.
    async fn slots_are_synchronized(&self) -> anyhow::Result<()> {
        let count = "SELECT count(*) FROM pg_replication_slots WHERE slot_type = 'logical'";
        let mut primary = Connection::open(&self.primary).await?;
        let mut standby = Connection::open(&self.standby).await?;
        wait::until("the standby to have the slots", PATIENCE, async || {
            // What a slot needs to become one of the standby's own.
            primary.execute("SELECT pg_log_standby_snapshot()").await?;
            let wanted = primary.number(count).await?;
            let kept = standby.number(&format!("{count} AND synced AND NOT temporary")).await?;
            Ok((wanted > 0 && kept == wanted).then_some(()))
        })
        .await
    }

    /// Nothing more comes to the standby.
    async fn cut_off(&self) -> anyhow::Result<()> {
        Self::set(&self.standby, "primary_conninfo", "").await?;
        let mut standby = Connection::open(&self.standby).await?;
        wait::until("the standby to be cut off", PATIENCE, async || {
            let receivers = standby.number("SELECT count(*) FROM pg_stat_wal_receiver").await?;
            Ok((receivers == 0).then_some(()))
        })
        .await
    }

    async fn fail_over(&self) -> anyhow::Result<()> {
        self.servers.kill("first")?;
        Connection::open(&self.standby).await?.execute("SELECT pg_promote()").await
    }
}

/// Under a load whose commits the standby confirms.
#[tokio::test]
async fn a_promoted_source_is_followed() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let scenario = cluster.mirrored("failover", Kind::Mysql, 1_000, "").await?;
    Cluster::set(&cluster.primary, "synchronous_standby_names", "*").await?;
    Cluster::set(&cluster.primary, "synchronized_standby_slots", STANDBY).await?;
    ledger::install(&scenario.source).await?;
    ledger::install(&scenario.target).await?;
    let load = Load::start(&scenario.source.url(), &LoadSettings { rate: Some(500), ..LoadSettings::new(seed()?) })?;
    scenario.until_changes(&load, 1_000).await?;
    cluster.fail_over().await?;
    scenario.until_changes(&load, 1_000).await?;
    load.stop().await?;
    scenario.settle().await?;
    let verdict = ledger::judge(&ledger::read(&scenario.source).await?, &ledger::read(&scenario.target).await?);
    ensure!(verdict.is_good(), "{verdict}");
    ensure!(scenario.worker.log().contains("a promoted server is followed"), "it was not followed");
    scenario.finish().await
}

/// The standby was behind, and did not hold back what others read: what the target has is not at the new primary.
#[tokio::test]
async fn what_a_promoted_source_lacks_is_a_gap() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let scenario = cluster.mirrored("lacks", Kind::Postgres, 10, "").await?;
    cluster.cut_off().await?;
    scenario.source.bump(1).await?;
    scenario.equal().await?;
    cluster.fail_over().await?;
    let gap = |task: &TaskStatus| task.task == Task::Capture && task.state == State::Gap;
    let tasks = scenario.worker.until("the capture to stop", PATIENCE, |tasks| tasks.iter().any(gap)).await?;
    let reason = tasks.iter().find(|task| gap(task)).map(|task| task.reason.as_str()).unwrap_or_default();
    ensure!(reason.contains("has taken over at") && reason.contains("lacks what was read"), "{reason}");
    Ok(())
}

/// The stream had come further than the standby, without a change for the pipeline: nothing is lost, and what the new primary
/// writes at those places is new.
#[tokio::test]
async fn what_was_read_beyond_the_standby_without_a_change_is_no_loss() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let scenario = cluster.mirrored("beyond", Kind::Mysql, 10, "heartbeat_seconds = 1\n").await?;
    cluster.cut_off().await?;
    let mut primary = Connection::open(&cluster.primary).await?;
    primary.execute("CREATE TABLE elsewhere AS SELECT * FROM generate_series(1, 100000)").await?;
    let place = primary.rows("SELECT pg_current_wal_lsn()").await?.into_iter().flatten().next().flatten();
    let place = place.context("a place in the log")?;
    let behind = format!(
        "SELECT count(*) FROM pg_replication_slots WHERE slot_type = 'logical' AND confirmed_flush_lsn <= '{place}'"
    );
    wait::until("the stream to come further", PATIENCE, async || {
        Ok((primary.number(&behind).await? == 0).then_some(()))
    })
    .await?;
    cluster.fail_over().await?;
    for id in 1..=9 {
        scenario.source.bump(id).await?;
    }
    scenario.equal().await?;
    ensure!(scenario.worker.log().contains("a promoted server is followed"), "it was not followed");
    scenario.finish().await
}

/// Sends of ours vanish with the old primary, before its stream has shown them: the standby holds that back.
#[tokio::test]
async fn a_promoted_member_gets_again_what_it_has_forgotten() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let kinds = [Kind::Postgres, Kind::Mysql];
    let mut pair = TwoWay::with_server(&kinds, "forgets", "seed = \"a\"\n", &cluster.url()?).await?;
    pair.start().await?;
    let row = |id: i64, writer: &str| Account { id, writer: writer.to_owned(), ..Account::default() };
    for id in 1..=50 {
        pair.members[0].accounts().await?.insert(&row(id, "a")).await?;
    }
    pair.equal().await?;
    cluster.slots_are_synchronized().await?;
    Cluster::set(&cluster.primary, "synchronized_standby_slots", STANDBY).await?;
    pair.settle().await?;
    cluster.cut_off().await?;
    let (mut at_a, mut at_b) = (pair.members[0].accounts().await?, pair.members[1].accounts().await?);
    for id in 1..=20 {
        at_b.delete(id).await?;
    }
    for id in 100..=400 {
        at_b.insert(&row(id, "b")).await?;
    }
    wait::until("b's rows at a", PATIENCE, async || Ok(at_a.read(400).await?.map(drop))).await?;
    cluster.fail_over().await?;
    let mut at_a = pair.members[0].accounts().await?;
    ensure!(at_a.read(400).await?.is_none() && at_a.read(1).await?.is_some(), "nothing was forgotten");
    // Both are written to, perhaps before the worker is back.
    at_a.insert(&row(50_000, "a")).await?;
    at_b.insert(&row(60_000, "b")).await?;
    pair.equal().await?;
    let conflicts = pair.conflicts().await?;
    ensure!(conflicts.is_empty(), "there was no conflict, and the ledger has {conflicts:#?}");
    ensure!(pair.worker.log().contains("a promoted server is followed"), "it was not followed");
    pair.finish().await
}
