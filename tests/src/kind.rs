//! Which servers take part, and from where to where.

use anyhow::{Context, bail};
use std::fmt;
use std::str::FromStr;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Postgres,
    Mysql,
    Mongodb,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Postgres => "postgres",
            Kind::Mysql => "mysql",
            Kind::Mongodb => "mongodb",
        }
    }

    pub fn of_url(url: &str) -> anyhow::Result<Self> {
        match url.split_once("://") {
            Some(("postgres" | "postgresql", _)) => Ok(Kind::Postgres),
            Some(("mysql", _)) => Ok(Kind::Mysql),
            Some(("mongodb", _)) => Ok(Kind::Mongodb),
            Some(_) | None => bail!("a server's URL begins with postgres://, mysql:// or mongodb://"),
        }
    }

    /// The URL of the server that the tests share, `make test` exports it.
    pub fn shared_server(self) -> anyhow::Result<String> {
        let variable = match self {
            Kind::Postgres => "SYNC_WORKER_TEST_POSTGRES",
            Kind::Mysql => "SYNC_WORKER_TEST_MYSQL",
            Kind::Mongodb => "SYNC_WORKER_TEST_MONGODB",
        };
        std::env::var(variable)
            .with_context(|| format!("{variable} is not set: run this by `tests/servers/servers run -- COMMAND`"))
    }

    /// An identifier in this engine's quotes.
    pub fn quote(self, name: &str) -> String {
        match self {
            Kind::Postgres => format!("\"{name}\""),
            Kind::Mysql => format!("`{name}`"),
            Kind::Mongodb => name.to_owned(),
        }
    }

    /// The one of two texts that this engine understands; MongoDB understands neither.
    pub fn pick<'a>(self, postgres: &'a str, mysql: &'a str) -> &'a str {
        match self {
            Kind::Postgres => postgres,
            Kind::Mysql => mysql,
            Kind::Mongodb => "",
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

    /// Those that begin or end at MongoDB.
    pub const DOCUMENTS: [Direction; 5] = [
        Direction { from: Kind::Postgres, to: Kind::Mongodb },
        Direction { from: Kind::Mysql, to: Kind::Mongodb },
        Direction { from: Kind::Mongodb, to: Kind::Postgres },
        Direction { from: Kind::Mongodb, to: Kind::Mysql },
        Direction { from: Kind::Mongodb, to: Kind::Mongodb },
    ];

    /// Whether one of its ends is MongoDB, whose dates have milliseconds.
    pub fn has_documents(self) -> bool {
        self.from == Kind::Mongodb || self.to == Kind::Mongodb
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.from, self.to)
    }
}

impl FromStr for Kind {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let found = [Kind::Postgres, Kind::Mysql, Kind::Mongodb].into_iter().find(|kind| kind.as_str() == text);
        found.with_context(|| format!("{text:?} is none of postgres, mysql and mongodb"))
    }
}

impl FromStr for Direction {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let every = || Self::ALL.into_iter().chain(Self::DOCUMENTS);
        let names = || every().map(|direction| direction.to_string()).collect::<Vec<_>>().join(", ");
        let found = every().find(|direction| direction.to_string() == text);
        found.ok_or_else(|| format!("there are {}", names()))
    }
}
