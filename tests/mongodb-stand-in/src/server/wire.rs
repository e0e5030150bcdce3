//! The wire protocol: OP_MSG with its sections, and OP_QUERY for a driver's first hello.

use std::ops::Deref;
use std::sync::Arc;

use bson::{RawDocument, RawDocumentBuf};

use crate::failure::{Failure, code};
use crate::value::depth::{MESSAGE_LIMIT, depth};
use crate::value::read::{self, Read};
use crate::value::{INTERNAL_LIMIT, Shared};

pub const HEADER: usize = 16;
pub const MESSAGE_SIZE_LIMIT: usize = 48_000_000;

const OP_REPLY: i32 = 1;
const OP_QUERY: i32 = 2004;
const OP_MSG: i32 = 2013;

const CHECKSUM_PRESENT: u32 = 1;
const MORE_TO_COME: u32 = 2;

/// One command as it came.
#[derive(Debug)]
pub struct Request {
    pub name: String,
    pub database: String,
    body: RawDocumentBuf,
    /// Document sequences, which stand for arrays of the body.
    sequences: Vec<(String, Vec<Shared>)>,
}

impl Deref for Request {
    type Target = RawDocument;

    fn deref(&self) -> &RawDocument {
        &self.body
    }
}

impl Request {
    fn new(body: RawDocumentBuf, sequences: Vec<(String, Vec<Shared>)>, database: Option<&str>) -> Option<Self> {
        let name = body.iter_elements().next()?.ok()?.key().as_str().to_owned();
        let database = database.or(body.text("$db")).unwrap_or("admin").to_owned();
        Some(Self { name, database, body, sequences })
    }

    /// The documents under a name, from a sequence or from an array of the body.
    pub fn documents(&self, name: &str) -> Vec<Shared> {
        if let Some((_, documents)) = self.sequences.iter().find(|(sequence, _)| sequence == name) {
            return documents.clone();
        }
        let array = self.body.array(name).into_iter().flat_map(read::documents);
        array.map(|document| Arc::new(document.to_owned())).collect()
    }

    /// Sizes and nesting that the server refuses before it looks at a command.
    pub fn check(&self) -> Result<(), Failure> {
        let documents =
            self.sequences.iter().flat_map(|(_, documents)| documents.iter().map(|document| document.as_ref()));
        if let Some(large) = documents.clone().find(|document| document.as_bytes().len() > INTERNAL_LIMIT) {
            let size = large.as_bytes().len();
            let message = format!(
                "BSONObj size: {size} (0x{size:X}) is invalid. Size must be between 0 and {INTERNAL_LIMIT}(16MB)"
            );
            return Err(Failure::new(code::OBJECT_TOO_LARGE, message));
        }
        depth(&self.body, MESSAGE_LIMIT)?;
        // Documents to insert are measured when they are inserted.
        let measured = documents.filter(|_| self.name != "insert");
        measured.map(|document| depth(document, MESSAGE_LIMIT)).try_for_each(|depth| depth.map(|_| ()))
    }
}

#[derive(Debug)]
pub struct Message {
    pub id: i32,
    pub request: Request,
    pub wants_reply: bool,
    is_query: bool,
}

impl Message {
    /// Reads a message without its length field. `None`: not understood, the connection is to be closed.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut input = Input(bytes);
        let id = input.i32()?;
        let _response_to = input.i32()?;
        match input.i32()? {
            OP_MSG => {
                let flags = input.i32()? as u32;
                if flags & CHECKSUM_PRESENT != 0 {
                    input.0 = input.0.get(..input.0.len().checked_sub(4)?)?;
                }
                let (mut body, mut sequences) = (None, Vec::new());
                while !input.0.is_empty() {
                    match input.take(1)?[0] {
                        0 => body = Some(input.document()?.to_owned()),
                        1 => sequences.push(input.sequence()?),
                        _ => return None,
                    }
                }
                let request = Request::new(body?, sequences, None)?;
                Some(Self { id, request, wants_reply: flags & MORE_TO_COME == 0, is_query: false })
            }
            OP_QUERY => {
                input.i32()?;
                let namespace = input.cstring()?;
                input.take(8)?; // to skip, to return
                let body = input.document()?.to_owned();
                let request = Request::new(body, Vec::new(), namespace.split('.').next())?;
                Some(Self { id, request, wants_reply: true, is_query: true })
            }
            _ => None,
        }
    }

    pub fn reply(&self, document: &RawDocument) -> Vec<u8> {
        let body = document.as_bytes();
        let mut reply = Vec::with_capacity(HEADER + 20 + body.len());
        reply.extend_from_slice(&[0; 8]); // length, filled in below, and an id that nobody reads
        reply.extend_from_slice(&self.id.to_le_bytes());
        if self.is_query {
            reply.extend_from_slice(&OP_REPLY.to_le_bytes());
            reply.extend_from_slice(&8i32.to_le_bytes()); // await capable
            reply.extend_from_slice(&[0; 12]); // cursor, starting from
            reply.extend_from_slice(&1i32.to_le_bytes());
        } else {
            reply.extend_from_slice(&OP_MSG.to_le_bytes());
            reply.extend_from_slice(&[0; 5]); // flags, kind of the only section
        }
        reply.extend_from_slice(body);
        let length = (reply.len() as u32).to_le_bytes();
        reply[..4].copy_from_slice(&length);
        reply
    }
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn i32(&mut self) -> Option<i32> {
        Some(i32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn document(&mut self) -> Option<&'a RawDocument> {
        let length = u32::from_le_bytes(self.0.get(..4)?.try_into().ok()?) as usize;
        RawDocument::from_bytes(self.take(length)?).ok()
    }

    fn cstring(&mut self) -> Option<&'a str> {
        let end = self.0.iter().position(|byte| *byte == 0)?;
        let text = std::str::from_utf8(self.take(end)?).ok()?;
        self.take(1)?;
        Some(text)
    }

    fn sequence(&mut self) -> Option<(String, Vec<Shared>)> {
        let length = u32::from_le_bytes(self.0.get(..4)?.try_into().ok()?) as usize;
        let mut section = Input(self.take(length)?.get(4..)?);
        let name = section.cstring()?.to_owned();
        let mut documents = Vec::new();
        while !section.0.is_empty() {
            documents.push(Arc::new(section.document()?.to_owned()));
        }
        Some((name, documents))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::rawdoc;

    #[test]
    fn sections_of_both_kinds_and_a_checksum_are_read() {
        let body = rawdoc! {"insert": "rows", "$db": "shop"};
        let row = rawdoc! {"_id": 1};
        let mut section = b"documents\0".to_vec();
        section.extend_from_slice(row.as_bytes());
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&7i32.to_le_bytes());
        bytes.extend_from_slice(&0i32.to_le_bytes());
        bytes.extend_from_slice(&OP_MSG.to_le_bytes());
        bytes.extend_from_slice(&CHECKSUM_PRESENT.to_le_bytes());
        bytes.push(1);
        bytes.extend_from_slice(&(section.len() as i32 + 4).to_le_bytes());
        bytes.extend_from_slice(&section);
        bytes.push(0);
        bytes.extend_from_slice(body.as_bytes());
        bytes.extend_from_slice(&[1, 2, 3, 4]);
        let message = Message::parse(&bytes).expect("a message");
        assert_eq!((message.id, message.request.database.as_str()), (7, "shop"));
        assert_eq!(message.request.documents("documents"), [Arc::new(row)]);
        for length in 0..bytes.len() - 1 {
            let _none_or_shorter = Message::parse(&bytes[..length]);
        }
    }
}
