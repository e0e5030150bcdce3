//! A table of plain rows at either engine: its backlog, its content and what waits for it.

use crate::bench::worker::Pipeline;
use crate::connection::Connection;
use crate::kind::Kind;
use crate::servers::Servers;
use anyhow::{Context, bail};
use std::time::Duration;
use tokio::time::Instant;

/// Rows of a source transaction.
const TRANSACTION: u64 = 100;

/// From the table `entry` of one server to that of another one.
pub fn pipeline(source: &Entries, target: &Entries) -> Pipeline<'static> {
    Pipeline {
        source: (source.kind.as_str(), source.worker_url()),
        target: (target.kind.as_str(), target.worker_url()),
        tables: &["entry"],
        snapshot: false,
        two_way: false,
    }
}

/// A server with one database for the benchmark.
pub struct Entries {
    pub kind: Kind,
    pub url: String,
}

impl Entries {
    /// Starts a server under a name of its own.
    pub async fn start(servers: &Servers, kind: Kind, name: &str) -> anyhow::Result<Self> {
        let settings: &[&str] = match kind {
            Kind::Postgres => &["max_wal_size=4GB", "checkpoint_timeout=30min", "shared_buffers=512MB"],
            Kind::Mysql => &["innodb-buffer-pool-size=1G", "innodb-redo-log-capacity=2G", "max-allowed-packet=64M"],
            Kind::Mongodb => bail!("there are no benchmarks of MongoDB yet"),
        };
        let url = servers.start(kind, name, settings)?;
        let base = url.rsplit_once('/').context("a strange URL")?.0;
        let mut connection = Connection::open(&url).await?;
        connection.execute("CREATE DATABASE entries").await?;
        Ok(Self { kind, url: format!("{base}/entries") })
    }

    /// Without encryption, as the peers connect.
    pub fn worker_url(&self) -> String {
        match self.kind {
            Kind::Postgres => self.url.clone(),
            Kind::Mysql => format!("{}?ssl-mode=disabled", self.url),
            Kind::Mongodb => self.url.clone(),
        }
    }

    pub async fn connect(&self) -> anyhow::Result<Connection> {
        Connection::open(&self.url).await
    }

    pub async fn create(&self, table: &str) -> anyhow::Result<()> {
        let text = self.kind.pick("varchar(80)", "varchar(80) character set utf8mb4 collate utf8mb4_0900_bin");
        let mut connection = self.connect().await?;
        connection.execute(&format!("DROP TABLE IF EXISTS {table}")).await?;
        connection
            .execute(&format!(
                "CREATE TABLE {table} (id bigint PRIMARY KEY, account int NOT NULL, amount bigint NOT NULL, note {text})"
            ))
            .await
    }

    /// Inserts rows with the ids from `first` on, a hundred to a transaction.
    pub async fn write(&self, table: &str, first: u64, count: u64) -> anyhow::Result<()> {
        let mut connection = self.connect().await?;
        match self.kind {
            Kind::Postgres => {
                let insert = format!(
                    "DO $$ BEGIN FOR at IN 0..{} LOOP INSERT INTO {table} SELECT n, n % 1000, n * 7, 'entry number ' || n \
                     FROM generate_series({first} + at * {TRANSACTION}, {first} + at * {TRANSACTION} + {TRANSACTION} - 1) n; \
                     COMMIT; END LOOP; END $$",
                    count / TRANSACTION - 1
                );
                connection.execute(&insert).await
            }
            Kind::Mysql => {
                for start in (first..first + count).step_by(100) {
                    let row = |n: u64| format!("({n},{},{},'entry number {n}')", n % 1000, n * 7);
                    let rows: Vec<String> = (start..start + TRANSACTION).map(row).collect();
                    connection.execute(&format!("INSERT INTO {table} VALUES {}", rows.join(","))).await?;
                }
                Ok(())
            }
            Kind::Mongodb => bail!("there are no benchmarks of MongoDB yet"),
        }
    }

    /// Inserts rows with the ids from 1 on in one statement and one transaction.
    pub async fn write_at_once(&self, table: &str, count: u64) -> anyhow::Result<()> {
        let mut connection = self.connect().await?;
        let columns = self.kind.pick(
            "n, n % 1000, n * 7, 'entry ' || encode(sha256(n::text::bytea), 'hex')",
            "n, n % 1000, n * 7, CONCAT('entry ', SHA2(n, 256))",
        );
        let rows = match self.kind {
            Kind::Postgres => format!("SELECT {columns} FROM generate_series(1, {count}) n"),
            Kind::Mysql => {
                connection.execute(&format!("SET cte_max_recursion_depth = {count}")).await?;
                format!(
                    "WITH RECURSIVE s AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM s WHERE n < {count}) SELECT {columns} FROM s"
                )
            }
            Kind::Mongodb => bail!("there are no benchmarks of MongoDB yet"),
        };
        connection.execute(&format!("INSERT INTO {table} {rows}")).await
    }

    pub async fn checksum(&self, table: &str) -> anyhow::Result<Vec<Option<String>>> {
        // Thirty-two bits of each row's digest, as a number that both engines can add up.
        let digest = self.kind.pick(
            "('x' || left(encode(sha256(convert_to(concat_ws(',', id, account, amount, note), 'UTF8')), 'hex'), 8))::bit(32)::bigint",
            "cast(conv(left(sha2(concat_ws(',', id, account, amount, note), 256), 8), 16, 10) AS unsigned)",
        );
        let sql = format!("SELECT count(*), coalesce(sum(id), 0), coalesce(sum({digest}), 0) FROM {table}");
        self.connect().await?.rows(&sql).await?.into_iter().next().context("no checksum")
    }

    /// Waits until the row with this id is there.
    pub async fn until(&self, table: &str, id: u64, limit: Duration) -> anyhow::Result<()> {
        let mut connection = self.connect().await?;
        let deadline = Instant::now() + limit;
        while connection.number(&format!("SELECT count(*) FROM {table} WHERE id = {id}")).await? == 0 {
            anyhow::ensure!(Instant::now() < deadline, "waited {} s for row {id} of {table}", limit.as_secs());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }
}
