//! A member that is cut off while all are written to, and comes back.

use anyhow::{Context, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeSet;
use std::time::Duration;
use sync_worker_engine::status::State;
use sync_worker_tests::seed::seed;
use sync_worker_tests::two_way::{Account, Accounts, Mix, TwoWay};
use sync_worker_tests::wait;
use tokio::task::JoinSet;

const LIMIT: Duration = Duration::from_secs(120);

/// Keys that the applications of all members write to.
const KEYS: i64 = 40;

/// What a backlog may take beside everything else.
const PER_CHANGE: Duration = Duration::from_millis(1);

/// Rows of a backlog in one statement.
const ROWS: i64 = 500;

/// `SYNC_WORKER_BACKLOG`, else short enough for every day.
fn backlog() -> anyhow::Result<i64> {
    match std::env::var("SYNC_WORKER_BACKLOG") {
        Ok(text) => text.parse().context("SYNC_WORKER_BACKLOG is no number"),
        Err(_) => Ok(5_000),
    }
}

/// Who is cut off: a driver of MongoDB goes round a proxy.
fn one_with_a_proxy(rng: &mut StdRng) -> usize {
    rng.random_range(0..2)
}

/// Rows under keys of a member's own.
async fn pile_up(mut accounts: Accounts, keys: std::ops::Range<i64>) -> anyhow::Result<()> {
    let last = keys.end;
    for from in keys.step_by(ROWS as usize) {
        let row = |id| Account { id, writer: "pile".to_owned(), ..Account::default() };
        accounts.insert_all(&(from..last.min(from + ROWS)).map(row).collect::<Vec<_>>()).await?;
    }
    Ok(())
}

/// Applications read back what they write at each member, before, while one is away and while it catches up. What one
/// is shown has seen its own last write of that key, or has won over it.
#[tokio::test]
async fn a_member_that_was_cut_off_never_shows_an_application_older_rows() -> anyhow::Result<()> {
    let (seed, backlog) = (seed()?, backlog()?);
    let mut rng = StdRng::seed_from_u64(seed);
    let mut group = TwoWay::behind_proxies(&TwoWay::every_kind(), "away", "seed = \"a\"\n").await?;
    group.patience += PER_CHANGE * u32::try_from(backlog)?;
    group.open_accounts(KEYS).await?;
    group.start().await?;
    group.settle().await?;
    let away = one_with_a_proxy(&mut rng);
    let applications = group.applications(rng.random(), KEYS).await?;
    applications.until_each(20).await?;
    group.cut_off(away).await?;
    let mut piling = JoinSet::new();
    let mut piles = Vec::new();
    let each = backlog / i64::try_from(group.members.len())?;
    for (place, member) in group.members.iter().enumerate() {
        let first = 1_000_000 * (i64::try_from(place)? + 1);
        piling.spawn(pile_up(member.accounts().await?, first..first + each));
        piles.push(first + each - 1);
    }
    while let Some(done) = piling.join_next().await {
        done??;
    }
    applications.until_each(60).await?;
    group.let_back(away);
    for (place, last) in piles.into_iter().enumerate() {
        for there in (0..group.members.len()).filter(|there| *there != place) {
            let mut accounts = group.members[there].accounts().await?;
            let what = format!("the last of {}'s rows at {}", group.members[place].name, group.members[there].name);
            wait::until(&what, group.patience, async || Ok(accounts.read(last).await?.map(drop))).await?;
        }
    }
    applications.until_each(20).await?;
    let traced = applications.stop().await?;
    let rows = group.equal().await?;
    let conflicts = group.conflicts().await?;
    println!("{rows} rows, {} conflicts, {} rows of others were shown", conflicts.len(), traced.shown());
    ensure!(!conflicts.is_empty() && traced.shown() > 0, "nobody met anybody");
    group.none_drifted(&conflicts).await?;
    traced.judge(&conflicts)?;
    group.finish().await
}

/// The new strategy takes effect at one place of the log: the appliers that were up decide the same as the one whose
/// member was away.
#[tokio::test]
async fn a_strategy_changed_under_backlog_while_one_applier_is_down_is_the_same_for_all() -> anyhow::Result<()> {
    const CONFIGURED: &str = "the configuration is on the log";
    let seed = seed()?;
    let mut rng = StdRng::seed_from_u64(seed);
    let mut group = TwoWay::behind_proxies(&TwoWay::every_kind(), "changed", "seed = \"none\"\n").await?;
    group.start().await?;
    let away = one_with_a_proxy(&mut rng);
    let writers =
        group.writers(rng.random(), Mix { keys: 20, told_apart: true, deletes: true, transactions: false, rate: 100 });
    let more = async |count: u64| writers.until(writers.written() + count).await;
    more(500).await?;
    group.cut_off(away).await?;
    more(1_000).await?;
    group.worker.terminate().await?;
    more(200).await?;
    group.settings.pipelines[0].extra.push_str("strategy = \"priority\"\n");
    group.worker.configure(&group.settings)?;
    group.worker.start()?;
    let missed = group.members[away].name;
    group
        .worker
        .until("the others to go on", LIMIT, |tasks| {
            let (away, others): (Vec<_>, Vec<_>) = tasks.iter().partition(|task| task.database == missed);
            !away.is_empty() && others.iter().all(|task| task.state == State::Streaming)
        })
        .await?;
    more(500).await?;
    let begun = group.worker.log().matches(CONFIGURED).count();
    ensure!(begun == 1, "a member can't be looked at, and {CONFIGURED} {begun} times");
    group.let_back(away);
    wait::until("the new strategy", LIMIT, async || {
        Ok((group.worker.log().matches(CONFIGURED).count() == 2).then_some(()))
    })
    .await?;
    more(1_000).await?;
    writers.stop().await?;
    group.equal().await?;
    let conflicts = group.conflicts().await?;
    group.none_drifted(&conflicts).await?;
    let by = |strategy: &str| {
        let of = conflicts.iter().filter(|conflict| conflict["strategy"] == strategy);
        of.filter_map(|conflict| conflict["offset"].as_u64()).collect::<BTreeSet<_>>()
    };
    let (before, after) = (by("timestamp"), by("priority"));
    println!("conflicts at {} offsets before, at {} after", before.len(), after.len());
    let last = before.last().context("no conflict before the change")?;
    let first = after.first().context("no conflict after the change")?;
    ensure!(last < first, "at offset {last} the old strategy has decided, at {first} the new one had");
    let mut lost = BTreeSet::new();
    for writer in conflicts.iter().filter_map(|conflict| conflict["loser"]["row"]["writer"].as_str()) {
        ensure!(lost.insert(writer), "{writer} has lost twice");
    }
    group.finish().await
}
