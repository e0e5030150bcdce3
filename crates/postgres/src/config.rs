//! How to reach a PostgreSQL database.

use crate::error::{Error, causes};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;
use sync_worker_core::secret::Secret;
use tokio_postgres::config::Host;

const DEFAULT_PORT: u16 = 5432;

/// What stands under `[databases.NAME]` with `kind = "postgres"`.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `postgres://user@host:5432/database?sslmode=verify-full&sslrootcert=/path/ca.pem`. Several hosts, with commas
    /// between them: the primary among them is found and followed.
    pub url: String,
    /// Resolved by the worker from the environment or a file.
    #[serde(skip)]
    pub password: Option<Secret>,
    /// How this database's triggers and rules treat our writes, as a target.
    #[serde(default)]
    pub session_replication_role: SessionReplicationRole,
    /// How often, in seconds, a source that has nothing to say is made to move its position, so that an idle database
    /// does not keep the server from removing its log. 0: never.
    #[serde(default = "default_heartbeat_seconds")]
    pub heartbeat_seconds: u64,
    /// Whether the slot of a source survives a failover to a standby that synchronizes it; PostgreSQL 17 and later.
    #[serde(default = "default_failover_slot")]
    pub failover_slot: bool,
}

/// Often enough that a position is never more than a log segment or two behind.
fn default_heartbeat_seconds() -> u64 {
    10
}

fn default_failover_slot() -> bool {
    true
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionReplicationRole {
    /// `replica` where the user may set it, else `origin`.
    #[default]
    Auto,
    /// Triggers fire and foreign keys are checked, as for any client.
    Origin,
    /// As with native logical replication: only triggers marked ALWAYS or REPLICA fire.
    Replica,
}

/// As in libpq.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SslMode {
    Disable,
    /// Encrypted where the server can.
    Prefer,
    /// Encrypted; the certificate is checked only where `sslrootcert` is given.
    Require,
    VerifyCa,
    VerifyFull,
}

/// One host of the URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    pub host: Host,
    pub port: u16,
}

impl Server {
    pub fn host_name(&self) -> String {
        match &self.host {
            Host::Tcp(name) => name.clone(),
            #[cfg(unix)]
            Host::Unix(path) => path.display().to_string(),
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.host_name();
        match name.contains(':') {
            true => write!(f, "[{name}]:{}", self.port),
            false => write!(f, "{name}:{}", self.port),
        }
    }
}

/// A URL taken apart.
#[derive(Clone, Debug)]
pub struct Address {
    pub servers: Vec<Server>,
    pub user: String,
    pub password: Option<Secret>,
    pub database: String,
    pub sslmode: SslMode,
    /// PEM file of the authorities to trust; without it, the system's.
    pub sslrootcert: Option<PathBuf>,
    /// PEM files of a client certificate and its key.
    pub sslcert: Option<(PathBuf, PathBuf)>,
    pub connect_timeout: Duration,
}

/// How long reaching one server may take, from the first packet to the end of authentication.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(2500);

impl Config {
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            password: None,
            session_replication_role: SessionReplicationRole::Auto,
            heartbeat_seconds: default_heartbeat_seconds(),
            failover_slot: default_failover_slot(),
        }
    }

    pub fn address(&self) -> Result<Address, Error> {
        let mut address = parse(&self.url)?;
        if self.password.is_some() {
            address.password.clone_from(&self.password);
        }
        Ok(address)
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A password may stand in the URL (invariant 11).
        f.debug_struct("Config")
            .field("address", &parse(&self.url).ok())
            .field("session_replication_role", &self.session_replication_role)
            .field("heartbeat_seconds", &self.heartbeat_seconds)
            .field("failover_slot", &self.failover_slot)
            .finish_non_exhaustive()
    }
}

fn parse(url: &str) -> Result<Address, Error> {
    let invalid = |problem: &str| Error::Config(format!("url: {problem}; write postgres://user@host:5432/database"));
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(invalid("does not begin with postgres://"));
    }
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let mut sslmode = None;
    let (mut sslrootcert, mut sslcert, mut sslkey) = (None, None, None);
    // The driver knows neither verification nor certificates; the rest of the parameters is its business.
    let mut rest = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let path = || {
            let decoded = percent_decode_str(value).decode_utf8();
            decoded.map(|path| PathBuf::from(&*path)).map_err(|_| invalid("a path is not UTF-8"))
        };
        match name {
            "sslmode" => sslmode = Some(mode(value)?),
            "sslrootcert" => sslrootcert = Some(path()?),
            "sslcert" => sslcert = Some(path()?),
            "sslkey" => sslkey = Some(path()?),
            "target_session_attrs" => match value {
                "read-write" | "primary" | "any" => {}
                _ => return Err(invalid("target_session_attrs must be primary or read-write, or left out")),
            },
            "application_name" | "options" => {
                return Err(Error::Config(format!("url: {name} is set by the worker; leave it out")));
            }
            _ => rest.push(pair),
        }
    }
    let plain = if rest.is_empty() { base.to_owned() } else { format!("{base}?{}", rest.join("&")) };
    let config = tokio_postgres::Config::from_str(&plain).map_err(|error| invalid(&causes(&error)))?;
    let ports = config.get_ports();
    let hosts = config.get_hosts();
    if hosts.is_empty() {
        return Err(invalid("names no host"));
    }
    let port = |at: usize| ports.get(at).or(ports.first()).copied().unwrap_or(DEFAULT_PORT);
    let servers = hosts.iter().enumerate().map(|(at, host)| Server { host: host.clone(), port: port(at) });
    let user = config.get_user().ok_or_else(|| invalid("names no user"))?.to_owned();
    let password = config.get_password().map(|password| Secret::new(String::from_utf8_lossy(password).into_owned()));
    let sslcert = match (sslcert, sslkey) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => return Err(Error::Config("url: sslcert and sslkey go together".to_owned())),
    };
    let sslmode = match (sslmode, &sslrootcert) {
        (Some(SslMode::Require), Some(_)) => SslMode::VerifyCa,
        (Some(mode), _) => mode,
        (None, Some(_)) => SslMode::VerifyFull,
        (None, None) => SslMode::Prefer,
    };
    Ok(Address {
        servers: servers.collect(),
        database: config.get_dbname().unwrap_or(&user).to_owned(),
        user,
        password,
        sslmode,
        sslrootcert,
        sslcert,
        connect_timeout: config.get_connect_timeout().copied().unwrap_or(CONNECT_TIMEOUT),
    })
}

fn mode(value: &str) -> Result<SslMode, Error> {
    Ok(match value {
        "disable" => SslMode::Disable,
        "allow" | "prefer" => SslMode::Prefer,
        "require" => SslMode::Require,
        "verify-ca" => SslMode::VerifyCa,
        "verify-full" => SslMode::VerifyFull,
        _ => {
            let known = "disable, prefer, require, verify-ca and verify-full";
            return Err(Error::Config(format!("url: sslmode {value:?} is unknown; there are {known}")));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        let url = "postgres://sy%40nc:a%3Ab@one,[::1]:5433,two:99/app?sslmode=verify-ca&sslrootcert=/etc/c%20a.pem";
        let address = parse(url).unwrap();
        let servers: Vec<_> = address.servers.iter().map(Server::to_string).collect();
        assert_eq!(servers, ["one:5432", "[::1]:5433", "two:99"]);
        assert_eq!(address.user, "sy@nc");
        assert_eq!(address.password.unwrap().expose(), "a:b");
        assert_eq!(address.database, "app");
        assert_eq!(address.sslmode, SslMode::VerifyCa);
        assert_eq!(address.sslrootcert, Some(PathBuf::from("/etc/c a.pem")));
    }

    #[test]
    fn mistakes_are_named() {
        for (url, part) in [
            ("mysql://x", "postgres://"),
            ("postgres://u@h:x/x", "port"),
            ("postgres://h/x", "user"),
            ("postgres://u@h/x?sslmode=on", "verify-full"),
            ("postgres://u@h/x?sslcert=/c", "sslkey"),
            ("postgres://u@h/x?ssl=1", "ssl"),
        ] {
            let error = parse(url).unwrap_err().to_string();
            assert!(error.contains(part), "{url}: {error}");
        }
    }

    #[test]
    fn debug_shows_no_password() {
        let config = Config::new("postgres://u:hunter2@h/x");
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
