//! A fresh PostgreSQL database per test, inside the server that `SYNC_WORKER_TEST_POSTGRES` names.

use anyhow::{Context, Result, bail};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// The variable that `tests/servers/servers run` sets.
pub const SERVER: &str = "SYNC_WORKER_TEST_POSTGRES";

static NEXT: AtomicU64 = AtomicU64::new(0);

/// A database of its own for one test, with a connection to it. It goes when this is dropped, with its slots.
pub struct TestDatabase {
    pub name: String,
    /// As the worker's configuration takes it.
    pub url: String,
    pub client: Client,
    server: String,
}

impl TestDatabase {
    pub async fn create() -> Result<Self> {
        Self::create_in("ENCODING 'UTF8'").await
    }

    /// With such options of `CREATE DATABASE`.
    pub async fn create_in(options: &str) -> Result<Self> {
        let server = std::env::var(SERVER)
            .with_context(|| format!("{SERVER} is not set; run the test under `tests/servers/servers run -- ...`"))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros();
        let name = format!("test_{now}_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let maintenance = connect(&server).await?;
        // The plain template: nobody is connected to it while another test copies it.
        maintenance.batch_execute(&format!("CREATE DATABASE {name} TEMPLATE template0 {options}")).await?;
        let url = with_database(&server, &name)?;
        let client = connect(&url).await?;
        Ok(Self { name, url, client, server })
    }

    pub async fn execute(&self, sql: &str) -> Result<()> {
        self.client.batch_execute(sql).await.with_context(|| sql.to_owned())
    }

    /// The rows of a query as text.
    pub async fn rows(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
        let messages = self.client.simple_query(sql).await.with_context(|| sql.to_owned())?;
        let row = |message| match message {
            SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect()),
            _ => None,
        };
        Ok(messages.into_iter().filter_map(row).collect())
    }

    /// The first column of the first row.
    pub async fn value(&self, sql: &str) -> Result<String> {
        let rows = self.rows(sql).await?;
        rows.into_iter().flatten().next().flatten().with_context(|| format!("no value: {sql}"))
    }

    /// Another connection to this database.
    pub async fn connect(&self) -> Result<Client> {
        connect(&self.url).await
    }
}

pub async fn connect(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.context("the test server")?;
    // Ends with the client; an error reaches whoever waits for an answer.
    tokio::spawn(connection);
    Ok(client)
}

/// The same server's URL for another database.
pub fn with_database(url: &str, name: &str) -> Result<String> {
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let Some((scheme, rest)) = base.split_once("://") else { bail!("{SERVER} is not a URL") };
    let authority = rest.split_once('/').map_or(rest, |(authority, _)| authority);
    let query = if query.is_empty() { String::new() } else { format!("?{query}") };
    Ok(format!("{scheme}://{authority}/{name}{query}"))
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        // A runtime of its own: the test's may be ending.
        let removed = std::thread::spawn(move || -> Result<()> {
            tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(remove(&server, &name))
        });
        match removed.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => eprintln!("database {} stays behind: {error:#}", self.name),
            Err(_) => eprintln!("database {} stays behind", self.name),
        }
    }
}

async fn remove(server: &str, name: &str) -> Result<()> {
    let client = connect(server).await?;
    let slots = format!("FROM pg_replication_slots WHERE database = '{name}'");
    // A walsender lets go of its slot a moment after it was told to.
    for _ in 0..500 {
        let end = format!("SELECT pg_terminate_backend(active_pid) {slots} AND active_pid IS NOT NULL");
        client.simple_query(&end).await?;
        let drop = format!("SELECT pg_drop_replication_slot(slot_name) {slots}");
        match client.simple_query(&drop).await {
            Ok(_) => break,
            Err(_) => client.simple_query("SELECT pg_sleep(0.01)").await?,
        };
    }
    client.batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await?;
    Ok(())
}
