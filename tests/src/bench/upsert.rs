//! The fastest way for one connection to write rows at a target: prepared upserts of many rows each.

use crate::bench::entries::Entries;
use crate::kind::Kind;
use mysql_async::prelude::Queryable;
use std::time::Duration;
use tokio::time::Instant;

/// Rows of a statement that are tried.
pub const SIZES: [u64; 3] = [100, 1_000, 10_000];

/// Writes the rows with the ids from `first` on, as [`Entries::write`] does, in statements of `size` rows. Returns how long
/// the server took: putting the values together is no part of what a target can do.
pub async fn run(target: &Entries, table: &str, first: u64, count: u64, size: u64) -> anyhow::Result<Duration> {
    match target.kind {
        Kind::Postgres => postgres(target, table, first, count, size).await,
        Kind::Mysql => mysql(target, table, first, count, size).await,
        Kind::Mongodb => anyhow::bail!("there are no benchmarks of MongoDB yet"),
    }
}

async fn postgres(target: &Entries, table: &str, first: u64, count: u64, size: u64) -> anyhow::Result<Duration> {
    let (client, connection) = tokio_postgres::connect(&target.url, tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    let upsert = format!(
        "INSERT INTO {table} (id, account, amount, note) SELECT * FROM unnest($1::int8[], $2::int4[], $3::int8[], $4::text[]) \
         ON CONFLICT (id) DO UPDATE SET account = EXCLUDED.account, amount = EXCLUDED.amount, note = EXCLUDED.note"
    );
    let statement = client.prepare(&upsert).await?;
    let mut took = Duration::ZERO;
    for start in (first..first + count).step_by(usize::try_from(size)?) {
        let ids: Vec<i64> = (start..(start + size).min(first + count)).map(u64::cast_signed).collect();
        let accounts: Vec<i32> = ids.iter().map(|id| i32::try_from(id % 1000).unwrap_or(0)).collect();
        let amounts: Vec<i64> = ids.iter().map(|id| id * 7).collect();
        let notes: Vec<String> = ids.iter().map(|id| format!("entry number {id}")).collect();
        let begun = Instant::now();
        client.execute(&statement, &[&ids, &accounts, &amounts, &notes]).await?;
        took += begun.elapsed();
    }
    Ok(took)
}

async fn mysql(target: &Entries, table: &str, first: u64, count: u64, size: u64) -> anyhow::Result<Duration> {
    let mut connection = mysql_async::Conn::from_url(&target.url).await?;
    let rows = vec!["(?,?,?,?)"; usize::try_from(size)?].join(",");
    let upsert = format!(
        "INSERT INTO {table} (id, account, amount, note) VALUES {rows} AS new ON DUPLICATE KEY UPDATE account = new.account, \
         amount = new.amount, note = new.note"
    );
    let statement = connection.prep(upsert).await?;
    let mut took = Duration::ZERO;
    // The counts are multiples of every size.
    for start in (first..first + count).step_by(usize::try_from(size)?) {
        let values = (start..start + size).flat_map(|id| {
            let note = mysql_async::Value::Bytes(format!("entry number {id}").into_bytes());
            [id.into(), (id % 1000).into(), (id * 7).into(), note]
        });
        let values: Vec<mysql_async::Value> = values.collect();
        let begun = Instant::now();
        connection.exec_drop(&statement, values).await?;
        took += begun.elapsed();
    }
    Ok(took)
}
