//! How to reach a MySQL database.

use crate::error::Error;
use serde::Deserialize;
use std::fmt;
use std::path::PathBuf;
use sync_worker_core::secret::Secret;

const DEFAULT_PORT: u16 = 3306;

/// What stands under `[databases.NAME]` with `kind = "mysql"`.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `mysql://user@host:3306/database?ssl-mode=verify_identity&ssl-ca=/path/ca.pem`. Several hosts, with commas
    /// between them: the one that takes writes is used.
    pub url: String,
    /// Resolved by the worker from the environment or a file.
    #[serde(skip)]
    pub password: Option<Secret>,
    /// How the worker calls itself as a replica; unique among everything that reads this server's log. Derived from
    /// installation, pipeline and database unless it is set.
    #[serde(default)]
    pub server_id: Option<u32>,
}

/// As in MySQL's own clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SslMode {
    Disabled,
    /// Encrypted where the server can.
    Preferred,
    Required,
    VerifyCa,
    VerifyIdentity,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    pub name: String,
    pub port: u16,
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name.contains(':') {
            true => write!(f, "[{}]:{}", self.name, self.port),
            false => write!(f, "{}:{}", self.name, self.port),
        }
    }
}

/// A URL taken apart.
#[derive(Clone, Debug)]
pub struct Address {
    pub hosts: Vec<Host>,
    pub user: String,
    pub password: Option<Secret>,
    /// Where tables without a schema of their own are looked for.
    pub database: Option<String>,
    pub ssl_mode: SslMode,
    pub ssl_ca: Option<PathBuf>,
}

impl Config {
    pub fn address(&self) -> Result<Address, Error> {
        let mut address = parse(&self.url)?;
        if self.password.is_some() {
            address.password = self.password.clone();
        }
        Ok(address)
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A password may stand in the URL (invariant 11).
        f.debug_struct("Config").field("address", &parse(&self.url).ok()).field("server_id", &self.server_id).finish()
    }
}

fn parse(url: &str) -> Result<Address, Error> {
    let invalid = |problem: &str| Error::Config(format!("url: {problem}; write mysql://user@host:3306/database"));
    let rest = url.strip_prefix("mysql://").ok_or_else(|| invalid("does not begin with mysql://"))?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, hosts) = match authority.rsplit_once('@') {
        Some((user, hosts)) => (user, hosts),
        None => ("root", authority),
    };
    let (user, password) = match user.split_once(':') {
        Some((user, password)) => (user, Some(password)),
        None => (user, None),
    };
    let decode = |text: &str| decode(text).ok_or_else(|| invalid("a percent sign must be written %25"));
    let mut address = Address {
        hosts: hosts.split(',').map(host).collect::<Option<Vec<_>>>().ok_or_else(|| invalid("a host is not valid"))?,
        user: decode(user)?,
        password: password.map(decode).transpose()?.filter(|text| !text.is_empty()).map(Secret::new),
        database: Some(decode(path)?).filter(|name| !name.is_empty()),
        ssl_mode: SslMode::Preferred,
        ssl_ca: None,
    };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        match name {
            "ssl-mode" => {
                address.ssl_mode = match value.to_ascii_lowercase().as_str() {
                    "disabled" => SslMode::Disabled,
                    "preferred" => SslMode::Preferred,
                    "required" => SslMode::Required,
                    "verify_ca" | "verify-ca" => SslMode::VerifyCa,
                    "verify_identity" | "verify-identity" => SslMode::VerifyIdentity,
                    _ => {
                        let known = "disabled, preferred, required, verify_ca and verify_identity";
                        return Err(Error::Config(format!("url: ssl-mode {value:?} is unknown; there are {known}")));
                    }
                }
            }
            "ssl-ca" => address.ssl_ca = Some(PathBuf::from(decode(value)?)),
            _ => return Err(Error::Config(format!("url: unknown parameter {name:?}; there are ssl-mode and ssl-ca"))),
        }
    }
    Ok(address)
}

fn host(text: &str) -> Option<Host> {
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (name, port) = rest.split_once(']')?;
            (name, port.strip_prefix(':'))
        }
        None => match text.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (text, None),
        },
    };
    let port = match port {
        Some(port) => port.parse().ok()?,
        None => DEFAULT_PORT,
    };
    (!name.is_empty()).then(|| Host { name: name.to_owned(), port })
}

/// Percent-decoding of UTF-8 text.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
                bytes.push(u8::try_from(high << 4 | low).ok()?);
            }
            _ => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        let url = "mysql://sy%40nc:a%3Ab@one,[::1]:3307,two:99/shop?ssl-mode=verify_ca&ssl-ca=/etc/ca.pem";
        let address = parse(url).unwrap();
        let hosts: Vec<_> = address.hosts.iter().map(Host::to_string).collect();
        assert_eq!(hosts, ["one:3306", "[::1]:3307", "two:99"]);
        assert_eq!(address.user, "sy@nc");
        assert_eq!(address.password.unwrap().expose(), "a:b");
        assert_eq!(address.database.as_deref(), Some("shop"));
        assert_eq!(address.ssl_mode, SslMode::VerifyCa);
        assert_eq!(address.ssl_ca, Some(PathBuf::from("/etc/ca.pem")));
    }

    #[test]
    fn mistakes_are_named() {
        for (url, part) in [
            ("postgres://x", "mysql://"),
            ("mysql://u@:1/x", "host"),
            ("mysql://u@h:x/x", "host"),
            ("mysql://u%zz@h/x", "%25"),
            ("mysql://h/x?ssl=1", "ssl-mode"),
            ("mysql://h/x?ssl-mode=on", "verify_identity"),
        ] {
            let error = parse(url).unwrap_err().to_string();
            assert!(error.contains(part), "{url}: {error}");
        }
    }

    #[test]
    fn debug_shows_no_password() {
        let config = Config { url: "mysql://u:hunter2@h/x".into(), password: None, server_id: None };
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
