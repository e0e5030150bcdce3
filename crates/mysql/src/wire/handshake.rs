//! Logging in: protocol 10 with native and caching-SHA2 passwords, in clear only inside TLS.

use super::{Stream, Wire, server_error, tls};
use crate::config::{Address, SslMode};
use crate::error::Error;
use mysql_common::crypto;
use mysql_common::scramble::{scramble_native, scramble_sha256};

const LONG_PASSWORD: u32 = 1;
const LONG_FLAG: u32 = 1 << 2;
const CONNECT_WITH_DB: u32 = 1 << 3;
const PROTOCOL_41: u32 = 1 << 9;
const SSL: u32 = 1 << 11;
const TRANSACTIONS: u32 = 1 << 13;
const SECURE_CONNECTION: u32 = 1 << 15;
const PLUGIN_AUTH: u32 = 1 << 19;
const PLUGIN_AUTH_LENENC: u32 = 1 << 21;

/// utf8mb4_general_ci, which every server since 5.5 has.
const CHARACTER_SET: u8 = 45;

const MAX_PACKET: u32 = 1 << 30;

struct Greeting {
    version: String,
    id: u32,
    scramble: Vec<u8>,
    capabilities: u32,
    plugin: String,
}

impl Wire {
    pub(super) async fn handshake(&mut self, address: &Address) -> Result<(), Error> {
        let packet = self.wait().await?;
        if packet.first() == Some(&0xFF) {
            return Err(Error::Denied { host: self.host.to_string(), source: server_error(&packet) });
        }
        let greeting = greeting(&packet).ok_or(Error::Protocol("the greeting is not that of a MySQL server"))?;
        self.version.clone_from(&greeting.version);
        self.id = greeting.id;

        let mut capabilities = LONG_PASSWORD
            | LONG_FLAG
            | PROTOCOL_41
            | TRANSACTIONS
            | SECURE_CONNECTION
            | PLUGIN_AUTH
            | PLUGIN_AUTH_LENENC;
        if address.database.is_some() {
            capabilities |= CONNECT_WITH_DB;
        }
        let offers_tls = greeting.capabilities & SSL != 0;
        let encrypted = match address.ssl_mode {
            SslMode::Disabled => false,
            SslMode::Preferred => offers_tls,
            SslMode::Required | SslMode::VerifyCa | SslMode::VerifyIdentity if offers_tls => true,
            SslMode::Required | SslMode::VerifyCa | SslMode::VerifyIdentity => {
                let problem = "the server has no TLS; use ssl-mode=disabled or give it a key".to_owned();
                return Err(Error::Tls { host: self.host.to_string(), problem });
            }
        };
        let mut response = Vec::with_capacity(256);
        if encrypted {
            capabilities |= SSL;
        }
        response.extend_from_slice(&capabilities.to_le_bytes());
        response.extend_from_slice(&MAX_PACKET.to_le_bytes());
        response.push(CHARACTER_SET);
        response.extend_from_slice(&[0; 23]);
        if encrypted {
            self.write(&response).await?;
            self.encrypt(address).await?;
        }

        let password = address.password.as_ref().map_or("", |password| password.expose());
        let answer = scrambled(&greeting.plugin, &greeting.scramble, password).unwrap_or_default();
        response.extend_from_slice(address.user.as_bytes());
        response.push(0);
        response.push(u8::try_from(answer.len()).unwrap_or(0));
        response.extend_from_slice(&answer);
        if let Some(database) = &address.database {
            response.extend_from_slice(database.as_bytes());
            response.push(0);
        }
        response.extend_from_slice(greeting.plugin.as_bytes());
        response.push(0);
        self.write(&response).await?;
        self.authenticate(greeting.scramble, password, encrypted).await
    }

    async fn authenticate(&mut self, mut scramble: Vec<u8>, password: &str, encrypted: bool) -> Result<(), Error> {
        loop {
            let packet = self.wait().await?;
            match packet.first() {
                Some(0) => return Ok(()),
                Some(0xFF) => {
                    return Err(Error::Denied { host: self.host.to_string(), source: server_error(&packet) });
                }
                // another way of logging in
                Some(0xFE) => {
                    let (plugin, rest) = until_zero(&packet[1..]).ok_or(Error::Protocol("a cut switch of logins"))?;
                    let plugin = String::from_utf8_lossy(plugin).into_owned();
                    scramble = rest.strip_suffix(&[0]).unwrap_or(rest).to_vec();
                    let answer = match scrambled(&plugin, &scramble, password) {
                        Some(answer) => answer,
                        None if plugin == "mysql_clear_password" && encrypted => clear(password),
                        None => {
                            let text = format!(
                                "the user logs in with {plugin}, which is not supported; ALTER USER ... IDENTIFIED WITH caching_sha2_password"
                            );
                            return Err(Error::Fatal(text));
                        }
                    };
                    self.write(&answer).await?;
                }
                // caching_sha2_password: 3 is "known already", 4 asks for the password itself
                Some(1) => match packet.get(1) {
                    Some(3) => {}
                    Some(4) if encrypted => self.write(&clear(password)).await?,
                    Some(4) => {
                        self.write(&[2]).await?;
                        let key = self.wait().await?;
                        let pem = key.get(1..).filter(|pem| pem.starts_with(b"-----BEGIN PUBLIC KEY-----"));
                        let pem = pem.ok_or(Error::Protocol("no public key came"))?;
                        let mut secret = clear(password);
                        for (at, byte) in secret.iter_mut().enumerate() {
                            *byte ^= scramble[at % scramble.len().max(1)];
                        }
                        self.write(&crypto::encrypt(&secret, pem)).await?;
                    }
                    _ => return Err(Error::Protocol("an unknown step of a login")),
                },
                _ => return Err(Error::Protocol("an unknown answer to a login")),
            }
        }
    }

    async fn encrypt(&mut self, address: &Address) -> Result<(), Error> {
        let Stream::Plain(stream) = std::mem::replace(&mut self.stream, Stream::Closed) else { return Ok(()) };
        let stream = tls::encrypt(address, &self.host, stream).await?;
        self.stream = Stream::Encrypted(Box::new(stream));
        Ok(())
    }

    /// The next packet, copied: for what happens once.
    pub(super) async fn wait(&mut self) -> Result<Vec<u8>, Error> {
        loop {
            if let Some(packet) = self.packet() {
                return Ok(packet.to_vec());
            }
            self.fill().await?;
        }
    }
}

fn clear(password: &str) -> Vec<u8> {
    let mut bytes = password.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

/// The answer to a scramble; None for a plugin that has none.
fn scrambled(plugin: &str, scramble: &[u8], password: &str) -> Option<Vec<u8>> {
    match plugin {
        "mysql_native_password" => {
            Some(scramble_native(scramble, password.as_bytes()).map(|bytes| bytes.to_vec()).unwrap_or_default())
        }
        "caching_sha2_password" => {
            Some(scramble_sha256(scramble, password.as_bytes()).map(|bytes| bytes.to_vec()).unwrap_or_default())
        }
        _ => None,
    }
}

fn until_zero(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(0, bytes)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

fn greeting(packet: &[u8]) -> Option<Greeting> {
    let (&protocol, rest) = packet.split_first()?;
    if protocol != 10 {
        return None;
    }
    let (version, rest) = until_zero(rest)?;
    let (id, rest) = rest.split_first_chunk::<4>()?;
    let (scramble_start, rest) = rest.split_first_chunk::<8>()?;
    let (_, rest) = rest.split_first()?;
    let (low, rest) = rest.split_first_chunk::<2>()?;
    let (_, rest) = rest.split_first_chunk::<3>()?; // character set and status
    let (high, rest) = rest.split_first_chunk::<2>()?;
    let (&length, rest) = rest.split_first()?;
    let (_, rest) = rest.split_first_chunk::<10>()?;
    let (scramble_end, rest) = rest.split_at_checked(usize::from(length).saturating_sub(8).max(13))?;
    let plugin = until_zero(rest).map_or(rest, |(plugin, _)| plugin);
    let mut scramble = scramble_start.to_vec();
    scramble.extend_from_slice(scramble_end.strip_suffix(&[0]).unwrap_or(scramble_end));
    Some(Greeting {
        version: String::from_utf8_lossy(version).into_owned(),
        id: u32::from_le_bytes(*id),
        scramble,
        capabilities: u32::from(u16::from_le_bytes(*low)) | u32::from(u16::from_le_bytes(*high)) << 16,
        plugin: String::from_utf8_lossy(plugin).into_owned(),
    })
}
