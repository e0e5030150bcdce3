//! Columns whose types do not hold each other's values.

use anyhow::ensure;
use std::time::Duration;
use sync_worker_tests::kind::Kind;
use sync_worker_tests::two_way::{Account, Accounts, Change, TwoWay};
use sync_worker_tests::wait;

const LIMIT: Duration = Duration::from_secs(120);

members! { a_lossy_column_is_refused_unless_named_and_takes_what_fits:
    postgres_and_postgres of Postgres Postgres,
    postgres_and_mysql of Postgres Mysql,
    mysql_and_mysql of Mysql Mysql,
}

/// The second member has room for less.
async fn narrowed(kinds: &[Kind], lossy: &str) -> anyhow::Result<TwoWay> {
    let lines = "seed = \"none\"\nretry = { attempts = 2, first_delay = \"100ms\", max_delay = \"100ms\" }\n";
    let pair = TwoWay::with(kinds, "lossy", lines, &[("account".to_owned(), lossy.to_owned())]).await?;
    let narrow = match pair.members[1].database.kind {
        Kind::Mysql => "ALTER TABLE account MODIFY a SMALLINT NOT NULL",
        Kind::Postgres | Kind::Mongodb => "ALTER TABLE account ALTER COLUMN a TYPE smallint",
    };
    pair.members[1].database.execute(narrow).await?;
    Ok(pair)
}

/// The keys of what a member refuses for good.
async fn open(pair: &TwoWay) -> anyhow::Result<Vec<String>> {
    let conflicts = pair.conflicts().await?;
    let open = conflicts.iter().filter(|one| one["open"] == true && one["kind"] == "constraint");
    let mut keys: Vec<String> = open.map(|one| one["key"]["id"].to_string()).collect();
    keys.sort_unstable();
    Ok(keys)
}

async fn a_lossy_column_is_refused_unless_named_and_takes_what_fits(kinds: &[Kind]) -> anyhow::Result<()> {
    let refused = narrowed(kinds, "").await?;
    let found = refused.worker.expect(1, &["check"]).await?;
    ensure!(found.contains("column a") && found.contains("lossy"), "{found}");
    drop(refused);

    let mut pair = narrowed(kinds, "lossy = [\"a\"]\n").await?;
    let [mut at_a, mut at_b] = [pair.members[0].accounts().await?, pair.members[1].accounts().await?];
    pair.start().await?;
    let row = |id, a| Account { id, writer: "a".to_owned(), a, ..Account::default() };
    at_a.insert_all(&[row(1, 7), row(2, 7), row(3, 70_000)]).await?;
    at_a.change(2, &Change { a: Some(80_000), ..Change::default() }).await?;
    at_a.change(1, &Change { b: Some(9), ..Change::default() }).await?;
    // Neither is cut to what fits, neither stops the other row.
    // Neither is cut to what fits, neither stops the other row.
    wait::until("two dead letters", LIMIT, async || Ok((open(&pair).await? == ["2", "3"]).then_some(()))).await?;
    let arrived = async |rows: &mut Accounts, wanted: Account| {
        wait::until("the row that fits", LIMIT, async || {
            Ok((rows.read(wanted.id).await?.as_ref() == Some(&wanted)).then_some(()))
        })
        .await
    };
    arrived(&mut at_b, Account { b: 9, ..row(1, 7) }).await?;
    ensure!(at_b.read(3).await?.is_none());
    ensure!(at_b.read(2).await?.is_none_or(|held| held == row(2, 7)), "{:?}", at_b.read(2).await?);
    for id in [2, 3] {
        at_a.change(id, &Change { a: Some(-8), ..Change::default() }).await?;
    }
    pair.equal().await?;
    wait::until("no dead letter", LIMIT, async || Ok(open(&pair).await?.is_empty().then_some(()))).await?;
    pair.finish().await
}
