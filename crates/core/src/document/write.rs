//! Building documents.

use super::kind;
use crate::value::Damaged;

/// Writes one document, nested ones inside of it.
#[derive(Debug)]
pub struct Writer {
    bytes: Vec<u8>,
    /// Where the documents that are open begin, innermost last.
    open: Vec<usize>,
}

impl Default for Writer {
    fn default() -> Self {
        Self { bytes: vec![0; 4], open: vec![0] }
    }
}

impl Writer {
    /// A field from the bytes of its value. Names with a zero byte do not exist in BSON.
    pub fn put(&mut self, kind: u8, name: &str, bytes: &[u8]) -> Result<(), Damaged> {
        self.name(kind, name)?;
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// A whole field as it stands in another document.
    pub fn copy(&mut self, field: &[u8]) {
        self.bytes.extend_from_slice(field);
    }

    pub fn text(&mut self, name: &str, text: &str) -> Result<(), Damaged> {
        self.name(kind::STRING, name)?;
        self.bytes.extend_from_slice(&length_of(text.len() + 1)?);
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(0);
        Ok(())
    }

    pub fn binary(&mut self, name: &str, subtype: u8, bytes: &[u8]) -> Result<(), Damaged> {
        self.name(kind::BINARY, name)?;
        self.bytes.extend_from_slice(&length_of(bytes.len())?);
        self.bytes.push(subtype);
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// Opens a nested document or array; [`Writer::end`] closes it.
    pub fn begin(&mut self, kind: u8, name: &str) -> Result<(), Damaged> {
        self.name(kind, name)?;
        self.open.push(self.bytes.len());
        self.bytes.extend_from_slice(&[0; 4]);
        Ok(())
    }

    pub fn end(&mut self) -> Result<(), Damaged> {
        let start = self.open.pop().ok_or(Damaged("a document was closed twice"))?;
        self.bytes.push(0);
        let length = length_of(self.bytes.len() - start)?;
        self.bytes[start..start + 4].copy_from_slice(&length);
        Ok(())
    }

    pub fn finish(mut self) -> Result<Vec<u8>, Damaged> {
        while !self.open.is_empty() {
            self.end()?;
        }
        Ok(self.bytes)
    }

    fn name(&mut self, kind: u8, name: &str) -> Result<(), Damaged> {
        if name.as_bytes().contains(&0) {
            return Err(Damaged("a field's name has a zero byte"));
        }
        self.bytes.push(kind);
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        Ok(())
    }
}

fn length_of(length: usize) -> Result<[u8; 4], Damaged> {
    Ok(i32::try_from(length).map_err(|_| Damaged("a document is too long"))?.to_le_bytes())
}
