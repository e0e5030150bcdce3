//! The most memory that the worker uses while one very large transaction goes through.

use crate::bench::figures::Line;
use crate::bench::postgres::Server;
use crate::bench::worker::{Installation, Pipeline};
use std::path::Path;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(900);

pub async fn measure(source: &Server, target: &Server, under: &Path, rows: u64) -> anyhow::Result<Line> {
    let mut line =
        Line::new(&format!("resident memory, one transaction of {rows} rows"), "MiB, lower is better", "256", "128");
    for (server, database) in [(source, "memory_source"), (target, "memory_target")] {
        server.create(database).await?;
        let client = server.connect(database).await?;
        client.batch_execute("CREATE TABLE entry (id bigint PRIMARY KEY, note text, amount numeric)").await?;
    }
    let pipeline = Pipeline {
        source: ("postgres", source.url("memory_source")),
        target: ("postgres", target.url("memory_target")),
        tables: &["entry"],
        snapshot: false,
    };
    let installation = Installation::new(under, &pipeline)?;
    let mut worker = installation.start()?;
    worker.until_streaming().await?;
    let insert =
        format!("INSERT INTO entry SELECT n, 'entry ' || md5(n::text), n / 7.0 FROM generate_series(1, {rows}) n");
    source.connect("memory_source").await?.batch_execute(&insert).await?;
    target.until("memory_target", &format!("SELECT count(*) = {rows} FROM entry"), LIMIT).await?;
    line.ours.push(worker.peak_mib()?);
    let (here, there) =
        (source.checksum("memory_source", &["entry"]).await?, target.checksum("memory_target", &["entry"]).await?);
    anyhow::ensure!(here == there, "the target differs");
    worker.stop()?;
    source
        .value(
            "memory_source",
            "SELECT count(pg_drop_replication_slot(slot_name)) FROM pg_replication_slots WHERE NOT active",
        )
        .await?;
    Ok(line)
}
