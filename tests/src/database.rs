//! A database made for one test on a server, and dropped after it.

use crate::connection::Connection;
use crate::kind::Kind;
use crate::{mongodb, mysql, postgres};
use anyhow::Context;
use rand::Rng;

pub struct Database {
    pub kind: Kind,
    pub name: String,
    /// The server's URL, as a user that may do everything.
    server: String,
    kept: bool,
}

impl Database {
    /// A new database on the server that the tests share.
    pub async fn create(kind: Kind, label: &str) -> anyhow::Result<Self> {
        Self::create_on(&kind.shared_server()?, label).await
    }

    pub async fn create_on(server: &str, label: &str) -> anyhow::Result<Self> {
        let kind = Kind::of_url(server)?;
        let name = format!("sw_{label}_{:08x}", rand::rng().random::<u32>());
        let mut connection = Connection::open(server).await.with_context(|| format!("the {kind} server"))?;
        match kind {
            Kind::Postgres => connection.execute(&postgres::create(&name)).await?,
            Kind::Mysql => connection.execute(&mysql::create(&name)).await?,
            // It comes with its first collection.
            Kind::Mongodb => {}
        }
        Ok(Self { kind, name, server: server.to_owned(), kept: false })
    }

    /// Leaves the database where it is.
    pub fn keep(mut self) {
        self.kept = true;
    }

    pub fn url(&self) -> String {
        with_path(&self.server, &self.name)
    }

    /// The URL of this database when its server is reached at another `host:port`, as this or another user.
    pub fn url_at(&self, user: Option<&str>, address: Option<&str>) -> String {
        let url = self.url();
        let Some((scheme, rest)) = url.split_once("://") else { return url };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (own_user, own_address) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, address) = (user.unwrap_or(own_user), address.unwrap_or(own_address));
        format!("{scheme}://{user}@{address}/{path}")
    }

    /// The server's `host:port`.
    pub fn address(&self) -> String {
        let authority = self.server.split_once("://").map_or("", |(_, rest)| rest);
        let authority = authority.split('/').next().unwrap_or_default();
        authority.rsplit_once('@').map_or(authority, |(_, address)| address).to_owned()
    }

    pub async fn connect(&self) -> anyhow::Result<Connection> {
        Connection::open(&self.url()).await.with_context(|| format!("database {} at {}", self.name, self.kind))
    }

    /// The database itself, of MongoDB.
    pub async fn documents(&self) -> anyhow::Result<::mongodb::Database> {
        mongodb::open(&self.url()).await
    }

    pub async fn execute(&self, sql: &str) -> anyhow::Result<()> {
        self.connect().await?.execute(sql).await
    }

    /// Gives a row of the loads' table its next version.
    pub async fn bump(&self, id: i64) -> anyhow::Result<()> {
        match self.connect().await? {
            Connection::Mongodb(database) => mongodb::run(&database, &[mongodb::Write::Bump(id)], false).await,
            mut connection => {
                connection.execute(&format!("UPDATE item SET version = version + 1 WHERE id = {id}")).await
            }
        }
    }

    pub async fn number(&self, sql: &str) -> anyhow::Result<i64> {
        self.connect().await?.number(sql).await
    }

    /// Everything that is defined in the database and around it by its name, and how many rows each table holds: to
    /// tell whether anything was changed.
    pub async fn catalog(&self) -> anyhow::Result<Vec<String>> {
        let mut connection = self.connect().await?;
        let (queries, tables) = match self.kind {
            Kind::Postgres => (postgres::CATALOG.map(str::to_owned).to_vec(), postgres::TABLES.to_owned()),
            Kind::Mysql => (mysql::catalog(&self.name).to_vec(), mysql::tables(&self.name)),
            Kind::Mongodb => return mongodb::catalog(&self.documents().await?).await,
        };
        let mut lines = Vec::new();
        for query in queries {
            for row in connection.rows(&query).await? {
                lines.push(row.iter().map(|text| text.as_deref().unwrap_or("-")).collect::<Vec<_>>().join(" "));
            }
        }
        for row in connection.rows(&tables).await? {
            let Some(Some(table)) = row.into_iter().next() else { continue };
            lines.push(format!("{table} {}", connection.number(&format!("SELECT count(*) FROM {table}")).await?));
        }
        Ok(lines)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let (kind, name, server, url) = (self.kind, self.name.clone(), self.server.clone(), self.url());
        // A thread of its own, because the one that drops may belong to a runtime.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let work = async {
                    if kind == Kind::Mongodb {
                        return Ok(mongodb::open(&url).await?.drop().await?);
                    }
                    let mut connection = Connection::open(&server).await?;
                    match kind {
                        Kind::Postgres => postgres::remove(&mut connection, &name).await,
                        Kind::Mysql => mysql::remove(&mut connection, &name).await,
                        Kind::Mongodb => Ok(()),
                    }
                };
                tokio::time::timeout(std::time::Duration::from_secs(20), work).await?
            })
        });
        // A server that a test has taken down has nothing to drop.
        if let Ok(Err(error)) = dropping.join() {
            eprintln!("database {} is left at {}: {error:#}", self.name, self.kind);
        }
    }
}

fn with_path(url: &str, name: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (rest, query) = rest.split_once('?').map_or((rest, String::new()), |(rest, query)| (rest, format!("?{query}")));
    let authority = rest.split('/').next().unwrap_or_default();
    format!("{scheme}://{authority}/{name}{query}")
}
