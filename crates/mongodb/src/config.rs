//! How to reach a MongoDB database.

use crate::error::Error;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use std::fmt;
use sync_worker_core::secret::Secret;

const DEFAULT_PORT: u16 = 27017;

/// What the guarantees rest on is not a matter of taste.
const OWN_PARAMETERS: &[&str] =
    &["readpreference", "readconcernlevel", "w", "journal", "wtimeoutms", "retrywrites", "retryreads", "appname"];

/// What stands under `[databases.NAME]` with `kind = "mongodb"`.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `mongodb://user@one:27017,two:27017/database?replicaSet=rs0&tls=true&tlsCAFile=/path/ca.pem`, with the driver's own
    /// parameters; `mongodb+srv://` too. The primary among the hosts is found and followed.
    pub url: String,
    /// Resolved by the worker from the environment or a file.
    #[serde(skip)]
    pub password: Option<Secret>,
}

/// What the worker itself needs to know of a URL; the rest is the driver's business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// `host:port`; of a `mongodb+srv` URL the name that stands for all of them.
    pub hosts: Vec<String>,
    pub database: String,
}

impl Config {
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), password: None }
    }

    pub fn address(&self) -> Result<Address, Error> {
        parse(&self.url)
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A password may stand in the URL (invariant 11).
        f.debug_struct("Config").field("address", &parse(&self.url).ok()).finish_non_exhaustive()
    }
}

fn parse(url: &str) -> Result<Address, Error> {
    let invalid = |problem: &str| Error::Config(format!("url: {problem}; write mongodb://user@host:27017/database"));
    let (rest, named) = match (url.strip_prefix("mongodb://"), url.strip_prefix("mongodb+srv://")) {
        (Some(rest), _) => (rest, false),
        (None, Some(rest)) => (rest, true),
        (None, None) => return Err(invalid("does not begin with mongodb:// or mongodb+srv://")),
    };
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let hosts = authority.rsplit_once('@').map_or(authority, |(_, hosts)| hosts);
    let hosts: Option<Vec<String>> = hosts.split(',').map(|text| host(text, named)).collect();
    let hosts = hosts.ok_or_else(|| invalid("a host is not valid"))?;
    let database = percent_decode_str(path).decode_utf8().map_err(|_| invalid("the database is not UTF-8"))?;
    if database.is_empty() {
        return Err(invalid("names no database"));
    }
    if database.len() > 63 || database.contains(['/', '\\', '.', ' ', '"', '$', '\0']) {
        return Err(invalid("the server has no database of such a name"));
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let name = pair.split_once('=').map_or(pair, |(name, _)| name).to_ascii_lowercase();
        if OWN_PARAMETERS.contains(&name.as_str()) {
            return Err(Error::Config(format!("url: {name} is set by the worker; leave it out")));
        }
    }
    Ok(Address { hosts, database: database.into_owned() })
}

fn host(text: &str, named: bool) -> Option<String> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let (name, port) = match bare {
        Some(_) => (text, None),
        None => text.rsplit_once(':').map_or((text, None), |(name, port)| (name, Some(port))),
    };
    let port: u16 = port.map_or(Some(DEFAULT_PORT), |port| port.parse().ok())?;
    (!name.is_empty()).then(|| if named { name.to_owned() } else { format!("{name}:{port}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        let address = parse("mongodb://sy%40nc:a%3Ab@one,[::1]:27018,two:99/shop?replicaSet=rs0").unwrap();
        assert_eq!(address.hosts, ["one:27017", "[::1]:27018", "two:99"]);
        assert_eq!(address.database, "shop");
        let address = parse("mongodb+srv://cluster.example.net/shop").unwrap();
        assert_eq!(address.hosts, ["cluster.example.net"]);
    }

    #[test]
    fn mistakes_are_named() {
        for (url, part) in [
            ("mysql://x/y", "mongodb://"),
            ("mongodb://u@h:x/x", "host"),
            ("mongodb://u@:1/x", "host"),
            ("mongodb://h", "database"),
            ("mongodb://h/", "database"),
            ("mongodb://h/a.b", "such a name"),
            ("mongodb://h/x?w=1", "w is set by the worker"),
        ] {
            let error = parse(url).unwrap_err().to_string();
            assert!(error.contains(part), "{url}: {error}");
        }
    }

    #[test]
    fn debug_shows_no_password() {
        assert!(!format!("{:?}", Config::new("mongodb://u:hunter2@h/x")).contains("hunter2"));
    }
}
