//! Reads what a pipeline's slot holds and prints the rate and the CPU time that it took: `drain URL TABLE...`.
//! With SNAPSHOT set it reads the tables in chunks instead. The first run makes the slot; nothing is confirmed, so each further run reads the same again, up to now.

use std::time::Instant;
use sync_worker_core::database::{Database, Scope, TableAt};
use sync_worker_core::position::{Checkpoint, Epoch, Lsn, Position, PostgresPosition};
use sync_worker_core::reader::KeyRange;
use sync_worker_postgres::{Config, Postgres};

fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks: u64 = stat.split(' ').skip(13).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    ticks as f64 / 100.0
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().unwrap_or_default();
    let folder = tempfile::tempdir()?;
    let scope = Scope {
        installation: "drain".into(),
        pipeline: "drain".into(),
        tables: arguments
            .map(|name| TableAt { table: name.as_str().into(), name: name.clone(), document: Default::default() })
            .collect(),
        two_way: false,
        spill: folder.path().join("spill"),
    };
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    let postgres = Postgres::new("drain".into(), Config::new(url))?;
    if std::env::var_os("SNAPSHOT").is_some() {
        return snapshot(&postgres, &scope).await;
    }
    let state = std::env::temp_dir().join("drain-checkpoint");
    let Ok(saved) = std::fs::read_to_string(&state) else {
        let (_source, start) = postgres.source(&scope, None).await.map_err(|error| anyhow::anyhow!("{error:?}"))?;
        std::fs::write(&state, format!("{}\n{}\n{}", start.epoch.0, start.position, start.resume))?;
        println!("made the slot");
        return Ok(());
    };
    let mut lines = saved.lines();
    let mut line = || lines.next().unwrap_or_default();
    let from = Checkpoint { epoch: Epoch(line().into()), position: line().parse()?, resume: line().into() };
    let row = client.query_one("SELECT pg_logical_emit_message(true, 'drain', '')::text", &[]).await?;
    let end: Lsn = row.get::<_, String>(0).parse()?;
    let end = Position::Postgres(PostgresPosition { commit: Lsn(end.0 - 1), ordinal: u64::MAX });
    let (mut source, _) = postgres.source(&scope, Some(&from)).await.map_err(|error| anyhow::anyhow!("{error:?}"))?;
    let (start, before) = (Instant::now(), cpu());
    let (mut changes, mut batches, mut transactions, mut bytes) = (0usize, 0usize, 0usize, 0usize);
    loop {
        let batch = source.next().await.map_err(|error| anyhow::anyhow!("{error:?}"))?;
        batches += 1;
        transactions += batch.parts.iter().filter(|part| part.complete).count();
        for part in &batch.parts {
            changes += part.changes.len();
            bytes += part.changes.iter().map(|change| change.size()).sum::<usize>();
        }
        if batch.reached >= end {
            break;
        }
    }
    let (wall, used) = (start.elapsed().as_secs_f64(), cpu() - before);
    println!(
        "{changes} changes, {transactions} transactions, {batches} batches, {:.1} MB of rows in {wall:.2} s: {:.0}/s, {used:.2} s CPU, {:.2} s per million",
        bytes as f64 / 1e6,
        changes as f64 / wall,
        used * 1e6 / changes as f64
    );
    Ok(())
}

/// Reads the tables one after another in chunks of 50,000 rows.
async fn snapshot(postgres: &Postgres, scope: &Scope) -> anyhow::Result<()> {
    let failed = |error: sync_worker_core::error::Error| anyhow::anyhow!("{error:?}");
    let mut reader = postgres.reader(scope).await.map_err(failed)?;
    for at in &scope.tables {
        let (start, before) = (Instant::now(), cpu());
        let (mut rows, mut range) = (0, KeyRange::default());
        loop {
            range.up_to = reader.boundary(&at.table, range.after.as_ref(), 50_000).await.map_err(failed)?;
            let chunk = reader.read_range(&at.table, &range, usize::MAX).await.map_err(failed)?;
            rows += chunk.rows.len();
            if range.up_to.is_none() {
                break;
            }
            range.after = range.up_to.take();
        }
        let (wall, used) = (start.elapsed().as_secs_f64(), cpu() - before);
        println!("{}: {rows} rows in {wall:.2} s: {:.0}/s, {used:.2} s CPU", at.name, rows as f64 / wall);
    }
    Ok(())
}
