//! One connection to either engine, in the text protocol: statements out, rows of text back.

use crate::kind::Kind;
use anyhow::Context;
use mysql_async::prelude::Queryable;
use tokio_postgres::SimpleQueryMessage;

/// A row as the server prints it; None is NULL.
pub type Texts = Vec<Option<String>>;

pub enum Connection {
    Postgres(tokio_postgres::Client),
    Mysql(Box<mysql_async::Conn>),
    Mongodb(mongodb::Database),
}

impl Connection {
    pub async fn open(url: &str) -> anyhow::Result<Self> {
        match Kind::of_url(url)? {
            Kind::Postgres => {
                let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
                // Its end shows as an error of the client.
                tokio::spawn(connection);
                Ok(Self::Postgres(client))
            }
            Kind::Mysql => {
                let mut connection = mysql_async::Conn::from_url(url).await?;
                connection.query_drop("SET NAMES utf8mb4").await?;
                Ok(Self::Mysql(Box::new(connection)))
            }
            Kind::Mongodb => Ok(Self::Mongodb(crate::mongodb::open(url).await?)),
        }
    }

    pub fn kind(&self) -> Kind {
        match self {
            Self::Postgres(_) => Kind::Postgres,
            Self::Mysql(_) => Kind::Mysql,
            Self::Mongodb(_) => Kind::Mongodb,
        }
    }

    /// Runs one statement or several with semicolons between them, in one round trip.
    pub async fn execute(&mut self, sql: &str) -> anyhow::Result<()> {
        let done = match self {
            Self::Postgres(client) => client.batch_execute(sql).await.map_err(anyhow::Error::from),
            Self::Mysql(connection) => connection.query_drop(sql).await.map_err(anyhow::Error::from),
            Self::Mongodb(_) => Err(anyhow::anyhow!("MongoDB has no statements")),
        };
        done.with_context(|| beginning(sql))
    }

    pub async fn rows(&mut self, sql: &str) -> anyhow::Result<Vec<Texts>> {
        let rows = match self {
            Self::Postgres(client) => client.simple_query(sql).await.map_err(anyhow::Error::from).map(postgres_rows),
            Self::Mysql(connection) => {
                connection.query::<mysql_async::Row, _>(sql).await.map_err(anyhow::Error::from).map(mysql_rows)
            }
            Self::Mongodb(_) => Err(anyhow::anyhow!("MongoDB has no statements")),
        };
        rows.with_context(|| beginning(sql))
    }

    /// The only value of the only row.
    pub async fn value(&mut self, sql: &str) -> anyhow::Result<Option<String>> {
        let rows = self.rows(sql).await?;
        Ok(rows.into_iter().next().and_then(|row| row.into_iter().next()).flatten())
    }

    pub async fn number(&mut self, sql: &str) -> anyhow::Result<i64> {
        let value = self.value(sql).await?.unwrap_or_default();
        value.parse().with_context(|| format!("{}: {value:?} is no number", beginning(sql)))
    }
}

fn postgres_rows(messages: Vec<SimpleQueryMessage>) -> Vec<Texts> {
    let row = |message| match message {
        SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect()),
        _ => None,
    };
    messages.into_iter().filter_map(row).collect()
}

fn mysql_rows(rows: Vec<mysql_async::Row>) -> Vec<Texts> {
    let text = |value| match value {
        mysql_async::Value::NULL => None,
        mysql_async::Value::Bytes(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        other => Some(other.as_sql(false)),
    };
    rows.into_iter().map(|row| row.unwrap().into_iter().map(text).collect()).collect()
}

/// Enough of a statement to find it by.
fn beginning(sql: &str) -> String {
    let line: String = sql.split_whitespace().take(30).collect::<Vec<_>>().join(" ");
    line.chars().take(200).collect()
}
