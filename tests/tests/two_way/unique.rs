//! Unique values that go from row to row.

use anyhow::{Context, ensure};
use mongodb::bson::doc;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::time::Duration;
use sync_worker_tests::database::Database;
use sync_worker_tests::kind::Kind;
use sync_worker_tests::seed::seed;
use sync_worker_tests::two_way::{Account, Accounts, Change, TwoWay};
use sync_worker_tests::wait;

const LIMIT: Duration = Duration::from_secs(120);
const ROWS: i64 = 40;
const ROUNDS: usize = 150;

each_pair_of_any![values_that_go_round_arrive];

/// One member alone writes: no two rows ever want the same value, so nothing may be refused for good, whatever of it comes in
/// one batch.
async fn values_that_go_round_arrive(kinds: &[Kind]) -> anyhow::Result<()> {
    let mut rng = StdRng::seed_from_u64(seed()?);
    let mut pair = TwoWay::new(kinds, "unique", "seed = \"a\"\n").await?;
    for member in &pair.members {
        makes_unique(&member.database).await?;
    }
    let mut at_a = pair.members[0].accounts().await?;
    let rows: Vec<Account> = (1..=ROWS).map(|id| Account { id, a: id as i32, ..Account::default() }).collect();
    at_a.insert_all(&rows).await?;
    pair.start().await?;
    pair.settle().await?;
    // As they come, and a backlog.
    for stopped in [false, true] {
        if stopped {
            pair.worker.terminate().await?;
        }
        for _ in 0..ROUNDS {
            goes_round(&mut at_a, &mut rng).await?;
        }
        if stopped {
            pair.worker.start()?;
        }
        pair.settle().await?;
        pair.worker.until("nothing to be parked", LIMIT, |tasks| tasks.iter().all(|task| task.parked == 0)).await?;
        pair.equal().await?;
        let conflicts = pair.conflicts().await?;
        ensure!(conflicts.is_empty(), "{conflicts:#?}");
    }
    pair.finish().await
}

/// Of each, another one stands in the way for good.
#[tokio::test]
async fn rows_that_wait_for_each_other_are_tried_together() -> anyhow::Result<()> {
    let retry = "seed = \"a\"\nretry = { attempts = 3, first_delay = \"4s\", max_delay = \"8s\" }\n";
    let mut pair = TwoWay::new(&[Kind::Mysql, Kind::Mysql], "together", retry).await?;
    for member in &pair.members {
        makes_unique(&member.database).await?;
    }
    let mut at_a = pair.members[0].accounts().await?;
    at_a.insert_all(&[1, 2, 3, 4].map(|id| Account { id, a: id as i32, ..Account::default() })).await?;
    pair.start().await?;
    pair.settle().await?;
    // What no stream shows holds two values at b.
    let mut hidden = pair.members[1].database.connect().await?;
    hidden.execute("SET SESSION sql_log_bin = 0").await?;
    hidden.execute("INSERT INTO account VALUES (98, 'hidden', 80, 0, 0), (99, 'hidden', 90, 0, 0)").await?;
    let becomes = |a| Change { a: Some(a), ..Change::default() };
    let parked = async |pair: &TwoWay, keys: u64| {
        let at_b = pair.worker.until("keys to be parked", LIMIT, |tasks| {
            tasks.iter().any(|task| task.database == "b" && task.parked == keys)
        });
        at_b.await.map(drop)
    };
    // Each in a batch of its own: the first for the hidden row, the second for the first, the first for the second.
    at_a.change(1, &becomes(90)).await?;
    parked(&pair, 1).await?;
    at_a.change(2, &becomes(1)).await?;
    parked(&pair, 2).await?;
    at_a.change(1, &becomes(2)).await?;
    parked(&pair, 0).await?;
    let conflicts = pair.conflicts().await?;
    ensure!(conflicts.is_empty(), "{conflicts:#?}");
    // Dead letters, too, once a person says so, or another version of the table waits.
    at_a.change(3, &becomes(80)).await?;
    parked(&pair, 1).await?;
    at_a.change(4, &becomes(3)).await?;
    let dead = async |pair: &TwoWay, open: bool| {
        let conflicts = pair.conflicts().await?;
        Ok((conflicts.iter().filter(|one| one["open"] == open && one["kind"] == "constraint").count() == 2)
            .then_some(()))
    };
    wait::until("two dead letters", LIMIT, async || dead(&pair, true).await).await?;
    hidden.execute("DELETE FROM account WHERE id > 90").await?;
    let retry = ["dead-letters", "retry", "--pipeline", "shared", "--database", "b"];
    let told = pair.worker.expect(1, &[&retry[..], &["--offset", "999999999"]].concat()).await?;
    ensure!(told.contains("no dead letter at offset 999999999"), "{told}");
    pair.worker.expect(0, &[&retry[..], &["--all"]].concat()).await?;
    pair.equal().await?;
    parked(&pair, 0).await?;
    ensure!(dead(&pair, false).await?.is_some(), "their entries are open");
    pair.finish().await
}

/// Hands a value round among two to four rows over one that nobody has, or by a row that is deleted and comes again.
async fn goes_round(accounts: &mut Accounts, rng: &mut StdRng) -> anyhow::Result<()> {
    let count = rng.random_range(2..=4);
    let mut ids: Vec<i64> = Vec::with_capacity(count);
    while ids.len() < count {
        let id = rng.random_range(1..=ROWS);
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    let becomes = |a| Change { a: Some(a), ..Change::default() };
    let (first, others) = ids.split_first().context("two rows at least")?;
    let gone = match rng.random_bool(0.2) {
        true => accounts.delete(*first).await?,
        false => accounts.change(*first, &becomes(-1)).await?,
    };
    let gone = gone.context("the first row")?;
    let mut free = gone.a;
    let deleted = accounts.read(*first).await?.is_none();
    for id in others {
        free = accounts.change(*id, &becomes(free)).await?.context("another row")?.a;
    }
    if deleted {
        accounts.insert(&Account { a: free, ..gone }).await?;
    } else {
        accounts.change(*first, &becomes(free)).await?;
    }
    Ok(())
}

async fn makes_unique(database: &Database) -> anyhow::Result<()> {
    if database.kind == Kind::Mongodb {
        let index = doc! { "key": { "a": 1 }, "name": "a_1", "unique": true };
        database.documents().await?.run_command(doc! { "createIndexes": "account", "indexes": [index] }).await?;
        return Ok(());
    }
    database.execute("CREATE UNIQUE INDEX account_a ON account (a)").await
}
