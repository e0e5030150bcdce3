//! Character sets as a server has them.

use crate::codec::charset::{Charset, UNDEFINED};
use crate::error::Error;
use crate::wire::Wire;
use std::collections::HashMap;
use std::sync::Arc;

/// A character set, by the number of one of its collations.
#[derive(Clone, Debug)]
pub struct Collation {
    pub character_set: String,
    /// The most bytes that a character takes.
    pub width: usize,
    /// None for `binary` and for sets that can't be decoded here.
    pub charset: Option<Charset>,
}

pub type Collations = HashMap<u64, Collation>;

/// The server's character sets by the numbers of their collations, with tables of those with one byte a character.
pub async fn read(wire: &mut Wire) -> Result<Collations, Error> {
    let query = "SELECT c.ID, s.CHARACTER_SET_NAME, s.MAXLEN FROM information_schema.COLLATIONS c \
                 JOIN information_schema.CHARACTER_SETS s ON s.CHARACTER_SET_NAME = c.CHARACTER_SET_NAME";
    let text = |value: Option<&Option<Vec<u8>>>| {
        value.and_then(Option::as_deref).map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default()
    };
    let mut found = Collations::new();
    let mut single = Vec::new();
    for row in wire.query(query).await? {
        let id = text(row.first()).parse().map_err(|_| Error::Protocol("a collation without a number"))?;
        let character_set = text(row.get(1));
        let width = text(row.get(2)).parse().unwrap_or(1);
        let charset = Charset::by_name(&character_set);
        if width == 1 && charset.is_none() && character_set != "binary" && !single.contains(&character_set) {
            single.push(character_set.clone());
        }
        found.insert(id, Collation { character_set, width, charset });
    }
    let all: String = (0..=255).map(|byte: u8| format!("{byte:02X}")).collect();
    let parts: Vec<_> = single.iter().map(|set| format!("HEX(CONVERT(_{set} X'{all}' USING utf32))")).collect();
    let row = wire.query(&format!("SELECT {}", parts.join(", "))).await?.into_iter().next().unwrap_or_default();
    for (name, digits) in single.iter().zip(&row) {
        let Some(table) = single_byte_table(digits.as_deref().unwrap_or_default()) else { continue };
        for collation in found.values_mut().filter(|collation| collation.character_set == *name) {
            collation.charset = Some(Charset::Single(table.clone()));
        }
    }
    Ok(found)
}

/// 256 characters from the hexadecimal digits of their UTF-32 form. What the set does not define comes as a question
/// mark, and text with it is refused.
fn single_byte_table(digits: &[u8]) -> Option<Arc<[char]>> {
    let (units, rest) = digits.as_chunks::<8>();
    if units.len() != 256 || !rest.is_empty() {
        return None;
    }
    let character = |(byte, unit): (usize, &[u8; 8])| {
        let code = u32::from_str_radix(std::str::from_utf8(unit).ok()?, 16).ok()?;
        match char::from_u32(code)? {
            '?' if byte != usize::from(b'?') => Some(UNDEFINED),
            character => Some(character),
        }
    };
    units.iter().enumerate().map(character).collect()
}
