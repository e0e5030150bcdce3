//! `$changeStreamSplitLargeEvent`: an event above the size limit in fragments of whole fields.

use bson::raw::cstr;
use bson::{RawBsonRef, RawDocument, RawDocumentBuf, rawdoc};

use super::token::Token;
use crate::failure::Failure;
use crate::storage::oplog::Entry;
use crate::value::DOCUMENT_LIMIT;

/// Room in each fragment for its token and its number.
const RESERVE: usize = 1024;

/// All fragments, numbered from one; each of them names how many there are.
pub fn split(event: &RawDocument, entry: &Entry) -> Result<Vec<RawDocumentBuf>, Failure> {
    let mut fields = Vec::new();
    for element in event.iter_elements() {
        let element = element?;
        if element.key().as_str() != "_id" {
            fields.push((element.size(), element.key(), element.value()?));
        }
    }
    fields.sort_by_key(|(size, ..)| *size); // the largest come last, as the server puts them
    let mut groups: Vec<Vec<(&bson::raw::CStr, RawBsonRef<'_>)>> = vec![Vec::new()];
    let mut size = 0;
    for (bytes, name, value) in fields {
        if size + bytes > DOCUMENT_LIMIT - RESERVE && size > 0 {
            groups.push(Vec::new());
            size = 0;
        }
        size += bytes;
        if let Some(group) = groups.last_mut() {
            group.push((name, value));
        }
    }
    let count = groups.len() as i32;
    let fragments = groups.into_iter().zip(0u32..).map(|(group, number)| {
        let token =
            Token::Event { time: entry.time, ordinal: entry.ordinal, invalidate: false, fragment: Some(number) };
        let mut fragment = RawDocumentBuf::new();
        fragment.append(cstr!("_id"), token.document());
        fragment.append(cstr!("splitEvent"), rawdoc! { "fragment": number as i32 + 1, "of": count });
        group.into_iter().for_each(|(name, value)| fragment.append(name, value));
        fragment
    });
    Ok(fragments.collect())
}
