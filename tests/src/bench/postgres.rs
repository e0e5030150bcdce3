//! PostgreSQL servers as a benchmark needs them.

use anyhow::Context;
use std::process::Command;
use std::time::Duration;
use tokio::time::Instant;
use tokio_postgres::{Client, NoTls};

/// A server of our own, started and stopped by the servers' script.
#[derive(Clone, Debug)]
pub struct Server {
    base: String,
}

impl Server {
    /// Starts a server under a name of its own, with settings.
    pub fn start(name: &str, settings: &[&str]) -> anyhow::Result<Self> {
        let script = std::env::var("SYNC_WORKER_SERVERS").context("run through `make bench`")?;
        let output = Command::new(script).args(["start", "postgres", name]).args(settings).output()?;
        anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let url = String::from_utf8(output.stdout)?.trim().to_owned();
        let base = url.rsplit_once('/').context("a strange URL")?.0.to_owned();
        Ok(Self { base })
    }

    pub fn url(&self, database: &str) -> String {
        format!("{}/{database}", self.base)
    }

    pub async fn connect(&self, database: &str) -> anyhow::Result<Client> {
        let (client, connection) = tokio_postgres::connect(&self.url(database), NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    pub async fn create(&self, database: &str) -> anyhow::Result<()> {
        let client = self.connect("postgres").await?;
        client.batch_execute(&format!("DROP DATABASE IF EXISTS {database} WITH (FORCE)")).await?;
        client.batch_execute(&format!("CREATE DATABASE {database}")).await?;
        Ok(())
    }

    /// One value, as text.
    pub async fn value(&self, database: &str, sql: &str) -> anyhow::Result<String> {
        value(&self.connect(database).await?, sql).await
    }

    /// A digest of everything in these tables.
    pub async fn checksum(&self, database: &str, tables: &[&str]) -> anyhow::Result<String> {
        let client = self.connect(database).await?;
        let mut sums = Vec::new();
        for table in tables {
            let sql = format!(
                "SELECT count(*) || ' ' || coalesce(sum(hashtextextended(t::text, 0)::numeric), 0) FROM {table} t"
            );
            sums.push(value(&client, &sql).await?);
        }
        Ok(sums.join(", "))
    }

    /// Waits until a query answers `t`.
    pub async fn until(&self, database: &str, sql: &str, limit: Duration) -> anyhow::Result<()> {
        let client = self.connect(database).await?;
        let deadline = Instant::now() + limit;
        while value(&client, sql).await? != "t" {
            anyhow::ensure!(Instant::now() < deadline, "waited {} s for: {sql}", limit.as_secs());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

pub async fn value(client: &Client, sql: &str) -> anyhow::Result<String> {
    for message in client.simple_query(sql).await? {
        if let tokio_postgres::SimpleQueryMessage::Row(row) = message {
            return Ok(row.get(0).unwrap_or_default().to_owned());
        }
    }
    anyhow::bail!("no row: {sql}")
}
