//! Sets of global transaction identifiers, with their gaps and tags.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Who numbered a transaction: a server, and since MySQL 8.3 perhaps a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    pub uuid: [u8; 16],
    pub tag: Tag,
}

/// Up to 32 lower-case letters, digits and underscores; mostly none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Tag {
    length: u8,
    bytes: [u8; 32],
}

impl Tag {
    pub fn new(text: &str) -> Option<Self> {
        let valid = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'_';
        let mut tag = Self { length: u8::try_from(text.len()).ok()?, bytes: [0; 32] };
        tag.bytes.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        text.as_bytes().iter().all(valid).then_some(tag)
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.length)]).unwrap_or_default()
    }

    fn is_empty(&self) -> bool {
        self.length == 0
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.uuid.iter().enumerate() {
            let dash = if matches!(at, 4 | 6 | 8 | 10) { "-" } else { "" };
            write!(f, "{dash}{byte:02x}")?;
        }
        if !self.tag.is_empty() {
            write!(f, ":{}", self.tag.as_str())?;
        }
        Ok(())
    }
}

/// One transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gtid {
    pub origin: Origin,
    pub number: u64,
}

impl fmt::Display for Gtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.origin, self.number)
    }
}

/// Half-open intervals per origin, sorted, without overlap, none touching the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GtidSet {
    origins: BTreeMap<Origin, Vec<(u64, u64)>>,
}

impl GtidSet {
    pub fn is_empty(&self) -> bool {
        self.origins.is_empty()
    }

    pub fn add(&mut self, gtid: Gtid) {
        self.add_interval(gtid.origin, gtid.number, gtid.number + 1);
    }

    fn add_interval(&mut self, origin: Origin, start: u64, end: u64) {
        let intervals = self.origins.entry(origin).or_default();
        // Nearly always the next number of the last interval.
        if let Some(last) = intervals.last_mut()
            && last.1 == start
        {
            last.1 = end;
            return;
        }
        let first = intervals.partition_point(|interval| interval.1 < start);
        let after = intervals.partition_point(|interval| interval.0 <= end);
        let merged = match intervals.get(first..after).unwrap_or_default() {
            [] => (start, end),
            [first, .., last] => (start.min(first.0), end.max(last.1)),
            [only] => (start.min(only.0), end.max(only.1)),
        };
        intervals.splice(first..after.max(first), [merged]);
    }

    pub fn remove(&mut self, gtid: Gtid) {
        let Some(intervals) = self.origins.get_mut(&gtid.origin) else { return };
        let Some(at) = intervals.iter().position(|(start, end)| (*start..*end).contains(&gtid.number)) else { return };
        let (start, end) = intervals[at];
        let parts = [(start, gtid.number), (gtid.number + 1, end)];
        intervals.splice(at..=at, parts.into_iter().filter(|(start, end)| start < end));
        if intervals.is_empty() {
            self.origins.remove(&gtid.origin);
        }
    }

    pub fn contains(&self, gtid: Gtid) -> bool {
        self.covers(gtid.origin, gtid.number, gtid.number + 1)
    }

    fn covers(&self, origin: Origin, start: u64, end: u64) -> bool {
        let Some(intervals) = self.origins.get(&origin) else { return false };
        let at = intervals.partition_point(|interval| interval.1 <= start);
        intervals.get(at).is_some_and(|interval| interval.0 <= start && end <= interval.1)
    }

    /// Whether every transaction of the other set is in this one.
    pub fn includes(&self, other: &GtidSet) -> bool {
        other.intervals().all(|(origin, start, end)| self.covers(origin, start, end))
    }

    fn intervals(&self) -> impl Iterator<Item = (Origin, u64, u64)> {
        self.origins.iter().flat_map(|(origin, list)| list.iter().map(|(start, end)| (*origin, *start, *end)))
    }

    /// The form in which a replica tells a server what it has; the tagged one where there is a tag.
    pub fn encode(&self) -> Vec<u8> {
        const TAGGED: u64 = 1 << 56 | 1;
        let tagged = self.origins.keys().any(|origin| !origin.tag.is_empty());
        let count = self.origins.len() as u64;
        let mut out = Vec::with_capacity(64 * self.origins.len() + 8);
        out.extend_from_slice(&if tagged { TAGGED | count << 8 } else { count }.to_le_bytes());
        for (origin, intervals) in &self.origins {
            out.extend_from_slice(&origin.uuid);
            if tagged {
                out.push(origin.tag.length << 1);
                out.extend_from_slice(origin.tag.as_str().as_bytes());
            }
            out.extend_from_slice(&(intervals.len() as u64).to_le_bytes());
            for (start, end) in intervals {
                out.extend_from_slice(&start.to_le_bytes());
                out.extend_from_slice(&end.to_le_bytes());
            }
        }
        out
    }
}

impl fmt::Display for GtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, (origin, intervals)) in self.origins.iter().enumerate() {
            write!(f, "{}{origin}", if nth > 0 { "," } else { "" })?;
            for (start, end) in intervals {
                match end - start {
                    1 => write!(f, ":{start}")?,
                    _ => write!(f, ":{start}-{}", end - 1)?,
                }
            }
        }
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
#[error("not a set of GTIDs: {0:?}")]
pub struct InvalidGtidSet(String);

impl FromStr for GtidSet {
    type Err = InvalidGtidSet;

    fn from_str(text: &str) -> Result<Self, InvalidGtidSet> {
        let mut set = GtidSet::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            set.parse_origin(part).ok_or_else(|| InvalidGtidSet(text.to_owned()))?;
        }
        Ok(set)
    }
}

impl GtidSet {
    /// `uuid:1-5:7` or `uuid:1-5:tag:1-3`, as servers print it.
    fn parse_origin(&mut self, text: &str) -> Option<()> {
        let mut parts = text.split(':').map(str::trim);
        let mut origin = Origin { uuid: parse_uuid(parts.next()?)?, tag: Tag::default() };
        let mut any = false;
        for part in parts {
            if !part.as_bytes().first()?.is_ascii_digit() {
                origin.tag = Tag::new(part)?;
                any = false;
                continue;
            }
            let (start, last) = part.split_once('-').unwrap_or((part, part));
            let (start, last) = (start.trim().parse::<u64>().ok()?, last.trim().parse::<u64>().ok()?);
            if start == 0 || last < start || last > i64::MAX.unsigned_abs() {
                return None;
            }
            self.add_interval(origin, start, last + 1);
            any = true;
        }
        any.then_some(())
    }
}

pub fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let mut uuid = [0; 16];
    let mut digits = text.bytes().filter(|byte| *byte != b'-');
    for byte in &mut uuid {
        let mut digit = || char::from(digits.next()?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        *byte = digit()? << 4 | digit()?;
    }
    (digits.next().is_none() && text.len() == 36).then_some(uuid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
    const B: &str = "4e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn set(text: &str) -> GtidSet {
        text.parse().unwrap()
    }

    fn gtid(text: &str) -> Gtid {
        let (origin, start, _) = set(text).intervals().next().unwrap();
        Gtid { origin, number: start }
    }

    #[test]
    fn sets_round_trip_through_text() {
        for text in ["", &format!("{A}:1-5:7:9-10"), &format!("{A}:1,{A}:tag_1:3-4,{B}:2-9")] {
            assert_eq!(set(text).to_string(), text);
        }
        let printed = format!("{}:1-3:b:5:7-8,\n {B}:4", A.to_uppercase());
        assert_eq!(set(&printed).to_string(), format!("{A}:1-3,{A}:b:5:7-8,{B}:4"));
        assert_eq!(set(&format!("{A}:5:1-2:3-4")).to_string(), format!("{A}:1-5"));
        for text in ["x", A, &format!("{A}:0"), &format!("{A}:5-4"), &format!("{A}:Tag!:1"), &format!("{A}:t")] {
            assert!(text.parse::<GtidSet>().is_err(), "{text} was taken");
        }
    }

    #[test]
    fn transactions_come_and_go() {
        let mut holed = set(&format!("{A}:1-10"));
        holed.remove(gtid(&format!("{A}:4")));
        assert_eq!(holed.to_string(), format!("{A}:1-3:5-10"));
        assert!(!holed.contains(gtid(&format!("{A}:4"))) && holed.contains(gtid(&format!("{A}:5"))));
        assert!(set(&format!("{A}:1-10")).includes(&holed));
        assert!(!holed.includes(&set(&format!("{A}:3-5"))));
        assert!(!holed.includes(&set(&format!("{A}:t:1"))));
        holed.add(gtid(&format!("{A}:12")));
        holed.add(gtid(&format!("{A}:4")));
        holed.add(gtid(&format!("{A}:11")));
        assert_eq!(holed.to_string(), format!("{A}:1-12"));
        holed.remove(gtid(&format!("{A}:1")));
        holed.remove(gtid(&format!("{A}:12")));
        assert_eq!(holed.to_string(), format!("{A}:2-11"));
    }

    #[test]
    fn the_encoded_form_is_that_of_the_protocol() {
        let plain = set(&format!("{A}:1-5")).encode();
        assert_eq!(plain.len(), 8 + 16 + 8 + 16);
        assert_eq!(plain[..8], [1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(plain[32..], [1, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0]);
        let tagged = set(&format!("{A}:ab:1")).encode();
        assert_eq!(tagged[..8], [1, 1, 0, 0, 0, 0, 0, 1]);
        assert_eq!(tagged[24..27], [4, b'a', b'b']);
    }
}
