//! What a version may be written over in a two-way pipeline: images told apart by their values.

use crate::decimal::Digits;
use crate::json;
use crate::record::Offset;
use crate::row::Row;
use crate::sink::Write;
use crate::value::{Cell, Damaged, Value, is_plain};
use bytes::Bytes;
use std::fmt;
use std::str::FromStr;
use xxhash_rust::xxh3::xxh3_128;

/// The reason in a parked row whose version was not written because the row there is another one.
pub const DIFFERS: &str = "differs";

/// The reason of a retry that comes to the same.
pub const DIFFERS_STILL: &str = "the row there is none that this version may be written over";

/// The reason of a refusal: a row must be at all members as it is, or it would be another version that nobody has written.
pub const ALTERED: &str = "a trigger of the target makes another row of it";

/// The image of no row, in words.
const NO_ROW: &str = "none";

/// Bytes of a row's digest.
const IMAGE: usize = 16;

/// What a member holds under a key: no row, or a row that has this digest.
///
/// The digest covers the values of the logical row, so that equal rows have equal images whichever engine they come from,
/// and equal are those that [`convert::same`](crate::convert::same) calls so: `1.10` and `1.1`, JSON with its members in
/// another order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Image {
    Absent,
    Row([u8; IMAGE]),
}

impl Image {
    /// Of a row that was there and has no logical form, or is not known in full: no row has it.
    pub const UNKNOWN: Self = Image::Row([u8::MAX; IMAGE]);

    pub fn of(row: Option<&Row>) -> Self {
        row.map_or(Image::Absent, |row| {
            let bytes = row.as_bytes();
            // What can't be read is no less an image of its own.
            let canonical = canonical(bytes).unwrap_or_default();
            Image::Row(xxh3_128(canonical.as_deref().unwrap_or(bytes)).to_be_bytes())
        })
    }

    /// As it stands in `sync_worker.parked` and in checkpoints: nothing for no row.
    pub fn to_bytes(self) -> Vec<u8> {
        match self {
            Image::Absent => Vec::new(),
            Image::Row(digest) => digest.to_vec(),
        }
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Damaged> {
        match bytes {
            [] => Ok(Image::Absent),
            bytes => bytes.try_into().map(Image::Row).map_err(|_| Damaged("an image of another length")),
        }
    }
}

/// Bytes of rows that one transaction puts beside its parked keys, where they become a part of a record and of the
/// ledger.
const MOST_SEEN: usize = 1 << 20;

/// What stands under a key in place of a row that a version may be written over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub image: Image,
    /// The logical row; None where there is none, where it has no such form, and where it is too much to keep.
    pub row: Option<Row>,
}

impl Seen {
    pub const NOTHING: Self = Seen { image: Image::Absent, row: None };

    /// Something of which nothing else is known.
    pub const UNKNOWN: Self = Seen { image: Image::UNKNOWN, row: None };

    pub fn of(row: Option<Row>) -> Self {
        Self { image: Image::of(row.as_ref()), row }
    }

    /// What a write has met: the row, in memory of its own, only where it makes a difference.
    pub fn by(write: &Write, image: Image, row: Option<&Row>) -> Self {
        let over = write.over.as_deref().unwrap_or_default();
        // The quick look first: most rows are what was expected.
        let differs = !over.contains(&image) && judge(image, write.change.after.as_ref(), over) == Verdict::Differs;
        Self { image, row: row.filter(|_| differs).map(Row::detached) }
    }

    /// As it stands in `sync_worker.parked`: the image, then the row.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.image.to_bytes();
        bytes.extend_from_slice(self.row.as_ref().map_or(&[], |row| row.as_bytes()));
        bytes
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Damaged> {
        let (image, row) = bytes.split_at(bytes.len().min(IMAGE));
        let row = (!row.is_empty()).then(|| Row::from_bytes(Bytes::copy_from_slice(row)));
        row.iter().flat_map(Row::cells).try_for_each(|cell| cell.map(drop))?;
        Ok(Self { image: Image::from_bytes(image)?, row })
    }

    /// Bytes of the row.
    pub fn size(&self) -> usize {
        self.row.as_ref().map_or(0, |row| row.as_bytes().len())
    }
}

/// Drops the rows of what was seen that are too much to keep.
pub fn keep_some<'a>(all: impl Iterator<Item = &'a mut Seen>) {
    let mut left = MOST_SEEN;
    for seen in all {
        match left.checked_sub(seen.size()) {
            Some(rest) => left = rest,
            None => seen.row = None,
        }
    }
}

/// As people are shown it and give it back.
impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Image::Absent => f.write_str(NO_ROW),
            Image::Row(digest) => digest.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
        }
    }
}

impl FromStr for Image {
    type Err = Damaged;

    fn from_str(text: &str) -> Result<Self, Damaged> {
        const STRANGE: Damaged = Damaged("no image of a row");
        if text == NO_ROW {
            return Ok(Image::Absent);
        }
        if text.len() != 2 * IMAGE || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(STRANGE);
        }
        let number = u128::from_str_radix(text, 16).map_err(|_| STRANGE)?;
        Ok(Image::Row(number.to_be_bytes()))
    }
}

/// The row's cells with one form for each meaning; None where they have it already, as most rows do.
fn canonical(row: &[u8]) -> Result<Option<Vec<u8>>, Damaged> {
    let mut rest = row;
    let mut plain = true;
    while let Some(&tag) = rest.first() {
        plain &= is_plain(tag);
        Cell::skip(&mut rest)?;
    }
    if plain {
        return Ok(None);
    }
    // A length that took one byte takes eight.
    let (mut out, mut rest) = (Vec::with_capacity(2 * row.len()), row);
    while let Some(&tag) = rest.first() {
        let from = rest;
        Cell::skip(&mut rest)?;
        let cell = &from[..from.len() - rest.len()];
        if is_plain(tag) {
            out.extend_from_slice(cell);
            continue;
        }
        out.push(tag);
        match Cell::decode(&mut &*cell)? {
            Cell::Present(Value::Decimal(text)) => match Digits::parse(text) {
                Some(digits) => put(&mut out, &digits.canonical()),
                None => put(&mut out, &[text]),
            },
            Cell::Present(Value::Json(text)) => {
                put(&mut out, &[&json::canonical(text).unwrap_or_else(|| text.to_owned())]);
            }
            Cell::Present(Value::Float32(float)) => {
                out.extend_from_slice(&if float.is_nan() { f32::NAN } else { float + 0.0 }.to_be_bytes());
            }
            Cell::Present(Value::Float64(float)) => {
                out.extend_from_slice(&if float.is_nan() { f64::NAN } else { float + 0.0 }.to_be_bytes());
            }
            Cell::Present(_) | Cell::Unchanged => out.extend_from_slice(cell),
        }
    }
    Ok(Some(out))
}

fn put(out: &mut Vec<u8>, parts: &[&str]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    out.extend_from_slice(&(length as u64).to_be_bytes());
    parts.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
}

/// One of the states that a version may be written over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Expected {
    Image(Image),
    /// What the member's parked row says was seen there when the send of this offset was left alone.
    Seen(Offset),
}

/// What becomes of a version at a member that holds some image under its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The row is as wanted, whoever made it so.
    AsWanted,
    Write,
    /// The row is none that the version may be written over: it is left alone and its key is parked.
    Differs,
}

/// The guard: writing is compare-and-set. `wanted` is the row that is to be there, None for no row.
pub fn judge(found: Image, wanted: Option<&Row>, over: &[Image]) -> Verdict {
    let as_wanted = match (found, wanted) {
        (Image::Absent, wanted) => wanted.is_none(),
        (Image::Row(_), None) => false,
        (Image::Row(_), Some(_)) => found == Image::of(wanted),
    };
    if as_wanted {
        Verdict::AsWanted
    } else if over.contains(&found) {
        Verdict::Write
    } else {
        Verdict::Differs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::RowBuilder;

    fn image(values: &[Value<'_>]) -> Image {
        let mut builder = RowBuilder::default();
        values.iter().for_each(|value| builder.push(Cell::Present(*value)));
        Image::of(Some(&builder.finish()))
    }

    #[test]
    fn values_that_mean_the_same_have_one_image() {
        let decimal = |text| image(&[Value::Int(1), Value::Decimal(text)]);
        assert_eq!(decimal("1.10"), decimal("1.1"));
        assert_ne!(decimal("1.10"), decimal("1.01"));
        let json = |text| image(&[Value::Json(text), Value::Text("a")]);
        assert_eq!(json(r#"{"a": 1, "b": [2.0]}"#), json(r#"{"b":[2],"a":1}"#));
        assert_ne!(json("[1,2]"), json("[2,1]"));
        assert_eq!(image(&[Value::Float64(-0.0)]), image(&[Value::Float64(0.0)]));
        assert_ne!(image(&[Value::Null]), Image::Absent);
    }

    #[test]
    fn an_image_comes_back_from_its_bytes() {
        for image in [Image::Absent, image(&[Value::Int(7)])] {
            assert_eq!(Image::from_bytes(&image.to_bytes()).unwrap(), image);
        }
        assert!(Image::from_bytes(b"short").is_err());
    }

    #[test]
    fn only_an_expected_row_is_written_over() {
        let rows @ [held, wanted, fresh] = [1, 2, 3].map(|number| image(&[Value::Int(number)]));
        let mut builder = RowBuilder::default();
        builder.push(Cell::Present(Value::Int(2)));
        let row = builder.finish();
        assert_eq!(judge(held, Some(&row), &[Image::Absent, held]), Verdict::Write);
        assert_eq!(judge(fresh, Some(&row), &[Image::Absent, held]), Verdict::Differs);
        assert_eq!(judge(wanted, Some(&row), &[]), Verdict::AsWanted);
        assert_eq!(judge(Image::Absent, Some(&row), &[Image::Absent]), Verdict::Write);
        assert_eq!(judge(Image::Absent, Some(&row), &rows), Verdict::Differs);
        assert_eq!(judge(Image::Absent, None, &[held]), Verdict::AsWanted);
        assert_eq!(judge(held, None, &[held]), Verdict::Write);
    }

    #[test]
    fn what_was_seen_comes_back_as_far_as_it_is_kept() {
        let mut builder = RowBuilder::default();
        builder.push(Cell::Present(Value::Text("x")));
        let whole = Seen::of(Some(builder.finish()));
        for seen in [Seen::NOTHING, whole.clone(), Seen { image: Image::Row([7; 16]), row: None }] {
            assert_eq!(Seen::from_bytes(&seen.to_bytes()).unwrap(), seen);
            assert_eq!(seen.image.to_string().parse::<Image>().unwrap(), seen.image);
        }
        let bytes = whole.to_bytes();
        assert!(Seen::from_bytes(&[7; 9]).is_err() && Seen::from_bytes(&bytes[..bytes.len() - 1]).is_err());
        assert!(["", "nothing", &"0".repeat(31), &"g".repeat(32)].iter().all(|text| text.parse::<Image>().is_err()));
        let row = |bytes| Row::from_bytes(vec![b'x'; bytes].into());
        let mut all = [MOST_SEEN / 2, MOST_SEEN, MOST_SEEN / 2, 1].map(|bytes| Seen::of(Some(row(bytes))));
        keep_some(all.iter_mut());
        assert_eq!(all.map(|seen| seen.row.is_some()), [true, false, true, false]);
    }
}
