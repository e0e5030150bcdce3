//! The server's side of SCRAM-SHA-256 (RFC 5802, RFC 7677).

use std::num::NonZeroU32;

use aws_lc_rs::{constant_time, digest, hmac, pbkdf2};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

/// The least that drivers accept: this is for tests.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).expect("not zero");

#[derive(Clone)]
pub struct Credential {
    salt: [u8; 16],
    stored_key: Vec<u8>,
    server_key: Vec<u8>,
}

impl Credential {
    pub fn of(password: &str) -> Self {
        let salt: [u8; 16] = rand::random();
        let mut salted = [0; 32];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ITERATIONS, &salt, password.as_bytes(), &mut salted);
        Self { salt, stored_key: sha256(&keyed(&salted, b"Client Key")), server_key: keyed(&salted, b"Server Key") }
    }
}

/// A conversation after the client's first message.
pub struct Conversation {
    pub user: String,
    credential: Credential,
    nonce: String,
    /// The three messages over which both sides sign, without the client's last part.
    signed: String,
    pub verified: bool,
    pub skip_empty_exchange: bool,
}

impl Conversation {
    /// Takes `n,,n=user,r=nonce` and gives the server's first message.
    pub fn start(first: &str, find: impl Fn(&str) -> Option<Credential>) -> Option<(Self, String)> {
        let bare = first.strip_prefix("n,,")?;
        let user = attribute(bare, "n")?.replace("=2C", ",").replace("=3D", "=");
        let credential = find(&user)?;
        let random: [u8; 18] = rand::random();
        let nonce = format!("{}{}", attribute(bare, "r")?, BASE64.encode(random));
        let reply = format!("r={nonce},s={},i={ITERATIONS}", BASE64.encode(credential.salt));
        let signed = format!("{bare},{reply}");
        let conversation = Self { user, credential, nonce, signed, verified: false, skip_empty_exchange: false };
        Some((conversation, reply))
    }

    /// Takes `c=biws,r=nonce,p=proof` and gives the server's signature, if the proof holds.
    pub fn finish(&mut self, last: &str) -> Option<String> {
        let (without_proof, proof) = last.rsplit_once(",p=")?;
        if attribute(without_proof, "r")? != self.nonce {
            return None;
        }
        let message = format!("{},{without_proof}", self.signed);
        let signature = keyed(&self.credential.stored_key, message.as_bytes());
        let proof = BASE64.decode(proof).ok().filter(|proof| proof.len() == signature.len())?;
        let client_key: Vec<u8> = proof.iter().zip(&signature).map(|(one, two)| one ^ two).collect();
        constant_time::verify_slices_are_equal(&sha256(&client_key), &self.credential.stored_key).ok()?;
        self.verified = true;
        Some(format!("v={}", BASE64.encode(keyed(&self.credential.server_key, message.as_bytes()))))
    }
}

fn attribute<'a>(message: &'a str, name: &str) -> Option<&'a str> {
    message.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
}

fn keyed(key: &[u8], message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message).as_ref().to_vec()
}

pub fn sha256(bytes: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA256, bytes).as_ref().to_vec()
}
