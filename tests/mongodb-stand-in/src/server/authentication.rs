//! Users and who a connection is.

use std::collections::HashMap;

use bson::raw::cstr;
use bson::{Binary, RawDocument, RawDocumentBuf, rawdoc, spec::BinarySubtype};

use super::scram::{Conversation, Credential, sha256};
use crate::failure::{Failure, code};
use crate::value::read::Read;

const MECHANISM: &str = "SCRAM-SHA-256";

/// Users of the database `admin`. Without any, nobody has to log in.
#[derive(Default)]
pub struct Users(HashMap<String, Credential>);

impl Users {
    pub fn new(users: &[(String, String)]) -> Self {
        Self(users.iter().map(|(name, password)| (name.clone(), Credential::of(password))).collect())
    }

    pub fn are_asked(&self) -> bool {
        !self.0.is_empty()
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    fn knows(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

#[derive(Default)]
pub struct Login {
    conversation: Option<Conversation>,
    user: Option<String>,
}

impl Login {
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    pub fn log_out(&mut self) {
        *self = Self::default();
    }

    /// The part of a transaction's session id that tells users apart.
    pub fn digest(&self) -> Binary {
        let name = self.user.as_ref().map(|user| format!("{user}@admin")).unwrap_or_default();
        Binary { subtype: BinarySubtype::Generic, bytes: sha256(name.as_bytes()) }
    }

    pub fn start(&mut self, users: &Users, command: &RawDocument) -> Result<RawDocumentBuf, Failure> {
        if command.text("mechanism") != Some(MECHANISM) {
            return Err(Failure::new(334, format!("Received authentication for a mechanism other than {MECHANISM}")));
        }
        let first = payload(command)?;
        let started = Conversation::start(&first, |name| users.0.get(name).cloned());
        let (mut conversation, reply) = started.ok_or_else(failed)?;
        conversation.skip_empty_exchange =
            command.document("options").is_some_and(|options| options.is_set("skipEmptyExchange"));
        self.conversation = Some(conversation);
        Ok(step(&reply, false))
    }

    pub fn go_on(&mut self, command: &RawDocument) -> Result<RawDocumentBuf, Failure> {
        let message = payload(command)?;
        let mut conversation = self.conversation.take().ok_or_else(failed)?;
        if conversation.verified {
            self.user = Some(conversation.user);
            return Ok(step("", true));
        }
        let reply = conversation.finish(&message).ok_or_else(failed)?;
        let done = conversation.skip_empty_exchange;
        if done {
            self.user = Some(conversation.user);
        } else {
            self.conversation = Some(conversation);
        }
        Ok(step(&reply, done))
    }

    /// What a hello tells about logging in.
    pub fn greet(&mut self, users: &Users, hello: &RawDocument, reply: &mut RawDocumentBuf) {
        if let Some((_, user)) = hello.text("saslSupportedMechs").and_then(|user| user.split_once('.')) {
            let known: bson::RawArrayBuf = users.knows(user).then_some(MECHANISM).into_iter().collect();
            reply.append(cstr!("saslSupportedMechs"), known);
        }
        if let Some(speculative) = hello.document("speculativeAuthenticate")
            && let Ok(started) = self.start(users, speculative)
        {
            reply.append(cstr!("speculativeAuthenticate"), started);
        }
    }
}

fn payload(command: &RawDocument) -> Result<String, Failure> {
    let payload = command.get_binary("payload").map_err(|_| failed())?;
    String::from_utf8(payload.bytes.to_vec()).map_err(|_| failed())
}

fn step(payload: &str, done: bool) -> RawDocumentBuf {
    let payload = Binary { subtype: BinarySubtype::Generic, bytes: payload.as_bytes().to_vec() };
    rawdoc! { "conversationId": 1, "done": done, "payload": payload }
}

fn failed() -> Failure {
    Failure::new(code::AUTHENTICATION_FAILED, "Authentication failed.")
}
