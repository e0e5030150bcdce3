//! Events above 16 MB come in fragments, each with some of the fields; here they are put together again.

use crate::error::Error;
use sync_worker_core::document::write::Writer;
use sync_worker_core::document::{Document, kind};
use sync_worker_core::value::Damaged;

#[derive(Default)]
pub struct Fragments(Vec<Vec<u8>>);

impl Fragments {
    /// Takes a document of the stream that is said to be one of several. Returns the whole event with the last of them.
    pub fn take(&mut self, fragment: Document<'_>, split: Document<'_>) -> Result<Option<Vec<u8>>, Error> {
        let number = |name: &str| -> Result<usize, Damaged> {
            let field = split.get(name)?.filter(|field| field.kind == kind::INT32);
            let number = i32::from_le_bytes(field.ok_or(Damaged("a fragment without its number"))?.array()?);
            usize::try_from(number).map_err(|_| Damaged("a fragment below zero"))
        };
        let (at, of) = (number("fragment")?, number("of")?);
        if at != self.0.len() + 1 || at > of {
            return Err(Error::Protocol("fragments of an event out of order"));
        }
        self.0.push(fragment.as_bytes().to_vec());
        if at < of {
            return Ok(None);
        }
        let mut whole = Writer::default();
        for (at, fragment) in std::mem::take(&mut self.0).iter().enumerate() {
            for field in Document::new(fragment)?.fields() {
                let field = field?;
                // The last fragment's token is the one behind the event.
                let stays = match field.name {
                    "_id" => at + 1 == of,
                    name => name != "splitEvent",
                };
                if stays {
                    whole.put(field.kind, field.name, field.bytes)?;
                }
            }
        }
        Ok(Some(whole.finish()?))
    }

    /// Whether an event is not complete yet.
    pub fn is_open(&self) -> bool {
        !self.0.is_empty()
    }
}
