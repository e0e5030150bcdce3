//! Which servers take part, and from where to where.

use anyhow::{Context, bail};
use std::fmt;
use std::str::FromStr;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Postgres,
    Mysql,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Postgres => "postgres",
            Kind::Mysql => "mysql",
        }
    }

    pub fn of_url(url: &str) -> anyhow::Result<Self> {
        match url.split_once("://") {
            Some(("postgres" | "postgresql", _)) => Ok(Kind::Postgres),
            Some(("mysql", _)) => Ok(Kind::Mysql),
            Some(_) | None => bail!("a server's URL begins with postgres:// or mysql://"),
        }
    }

    /// The URL of the server that the tests share, `make test` exports it.
    pub fn shared_server(self) -> anyhow::Result<String> {
        let variable = match self {
            Kind::Postgres => "SYNC_WORKER_TEST_POSTGRES",
            Kind::Mysql => "SYNC_WORKER_TEST_MYSQL",
        };
        std::env::var(variable)
            .with_context(|| format!("{variable} is not set: run this by `tests/servers/servers run -- COMMAND`"))
    }

    /// An identifier in this engine's quotes.
    pub fn quote(self, name: &str) -> String {
        match self {
            Kind::Postgres => format!("\"{name}\""),
            Kind::Mysql => format!("`{name}`"),
        }
    }

    /// The one of two texts that this engine understands.
    pub fn pick<'a>(self, postgres: &'a str, mysql: &'a str) -> &'a str {
        match self {
            Kind::Postgres => postgres,
            Kind::Mysql => mysql,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Direction {
    pub from: Kind,
    pub to: Kind,
}

impl Direction {
    pub const ALL: [Direction; 4] = [
        Direction { from: Kind::Postgres, to: Kind::Postgres },
        Direction { from: Kind::Postgres, to: Kind::Mysql },
        Direction { from: Kind::Mysql, to: Kind::Postgres },
        Direction { from: Kind::Mysql, to: Kind::Mysql },
    ];
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.from, self.to)
    }
}

impl FromStr for Direction {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(|direction| direction.to_string()).join(", ");
        let found = Self::ALL.into_iter().find(|direction| direction.to_string() == text);
        found.ok_or_else(|| format!("there are {}", names()))
    }
}
