//! A fresh database in a real MySQL server, dropped at the end.

use anyhow::{Context, Result};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// The server for tests: `mysql://root@127.0.0.1:3306/`.
pub const SERVER: &str = "SYNC_WORKER_TEST_MYSQL";

pub struct MysqlDatabase {
    /// The database's name.
    pub name: String,
    /// With the database as its path.
    pub url: String,
    server: String,
}

impl MysqlDatabase {
    /// Makes a database in the server that [`SERVER`] names; None, with a word about it, where there is none.
    pub async fn create() -> Result<Option<Self>> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let Ok(server) = std::env::var(SERVER) else {
            eprintln!("skipped: {SERVER} names no server; `make test` starts one");
            return Ok(None);
        };
        // Already installed by another test of this process is as good.
        let _installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros();
        let name = format!("test_{}_{now}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let server = server.trim_end_matches('/').to_owned();
        let url = format!("{server}/{name}");
        let database = Self { name, url, server };
        let mut conn = connect(&database.server).await?;
        conn.query_drop(format!("CREATE DATABASE {} CHARACTER SET utf8mb4", database.name)).await?;
        conn.disconnect().await?;
        Ok(Some(database))
    }

    /// A connection to the database.
    pub async fn connect(&self) -> Result<Conn> {
        connect(&self.url).await
    }

    /// Runs statements in order.
    pub async fn run(&self, statements: &[&str]) -> Result<()> {
        let mut conn = self.connect().await?;
        let mut outcome = Ok(());
        for statement in statements {
            outcome = conn.query_drop(*statement).await.with_context(|| format!("statement {statement}"));
            if outcome.is_err() {
                break;
            }
        }
        // Also after an error: locks of an open session would keep the database from being dropped.
        conn.disconnect().await?;
        outcome
    }
}

async fn connect(url: &str) -> Result<Conn> {
    Conn::new(Opts::from_url(url)?).await.with_context(|| format!("no connection to {url}"))
}

impl Drop for MysqlDatabase {
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        // Drop can't wait for a future of the test's own runtime.
        let dropping = std::thread::spawn(move || -> Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let mut conn = connect(&server).await?;
                // A test that failed may have left a transaction open.
                conn.query_drop("SET SESSION lock_wait_timeout = 5").await?;
                conn.query_drop(format!("DROP DATABASE IF EXISTS {name}")).await?;
                Ok(conn.disconnect().await?)
            })
        });
        match dropping.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => eprintln!("database {} stays: {error:#}", self.name),
            Err(_) => eprintln!("database {} stays", self.name),
        }
    }
}
