//! The state of a stage as bytes: what a resolver that was stopped goes on from.

use super::configured::{Configured, Paused, resolver_rules};
use super::flips::{Flips, Last};
use super::key::RowKey;
use super::rules::Rules;
use super::spill::SpillError;
use super::stage::Stage;
use super::version::{Entry, Images, Member, Origin, UnderWay, Version, VersionId};
use super::{Limits, Resolver};
use crate::sequence::Sequence;
use bytes::{BufMut, Bytes, BytesMut};
use smallvec::SmallVec;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use sync_worker_core::encoding::{decode_two_way, encode_two_way, ended, put_bytes, take_byte, take_bytes, take_text};
use sync_worker_core::guard::{Expected, Image};
use sync_worker_core::name::{DatabaseName, TableName};
use sync_worker_core::record::Offset;
use sync_worker_core::row::{Key, Row};
use sync_worker_core::rules::TwoWay;
use sync_worker_core::value::{Damaged, put_varint, take_varint};

const FORMAT: u8 = 4;

/// Without merged seeds.
const FORMAT_3: u8 = 3;

/// Without the tables that went on again, too.
const FORMAT_2: u8 = 2;

/// Without paused tables, too, keys that go back and forth, and what a member may be met with.
const FORMAT_1: u8 = 1;

const FORMATS: [u8; 4] = [FORMAT, FORMAT_3, FORMAT_2, FORMAT_1];

/// The stage and the positions taken of each origin; None before the first configuration.
pub fn encode(stage: &mut Stage, sequence: &Sequence) -> Result<Option<Bytes>, SpillError> {
    let Some(configured) = stage.configured.as_mut() else { return Ok(None) };
    // Growing would take twice what it comes to.
    let mut out = BytesMut::with_capacity(configured.resolver.entries().bytes() / 2);
    out.put_u8(FORMAT);
    let mut rules = BytesMut::new();
    encode_two_way(&configured.rules, &mut rules);
    put_bytes(&mut out, &rules);
    let taken: Vec<_> = sequence.taken().collect();
    put_varint(&mut out, taken.len() as u64);
    for (origin, position) in taken {
        put_bytes(&mut out, origin.as_str().as_bytes());
        put_bytes(&mut out, position.to_string().as_bytes());
    }
    put_varint(&mut out, configured.paused.len() as u64);
    for (table, paused) in &configured.paused {
        put_bytes(&mut out, table.as_str().as_bytes());
        put_varint(&mut out, paused.offset.0);
        put_bytes(&mut out, paused.reason.as_bytes());
    }
    put_varint(&mut out, configured.resumed.len() as u64);
    for (table, resumed) in &configured.resumed {
        put_bytes(&mut out, table.as_str().as_bytes());
        put_varint(&mut out, resumed.0);
    }
    let watched: Vec<&Last> = configured.flips.all().collect();
    put_varint(&mut out, watched.len() as u64);
    for last in watched {
        put_last(&mut out, last);
    }
    put_varint(&mut out, configured.stopped.len() as u64);
    configured.stopped.iter().for_each(|key| put_key(&mut out, key));
    put_resolver(&mut out, &mut configured.resolver)?;
    put_seeds(&mut out, &configured.resolver);
    Ok(Some(out.freeze()))
}

/// Puts a state into a stage that has none. Returns the positions taken.
pub fn decode(mut bytes: &[u8], stage: &mut Stage) -> Result<Sequence, Damaged> {
    let bytes = &mut bytes;
    let format = take_byte(bytes)?;
    if !FORMATS.contains(&format) {
        return Err(Damaged("a resolver's state of another format"));
    }
    let rules = Arc::new(decode_two_way(take_bytes(bytes)?)?);
    let mut sequence = Sequence::default();
    for _ in 0..take_varint(bytes)? {
        let origin = DatabaseName::new(take_text(bytes)?);
        let position = take_text(bytes)?.parse().map_err(|_| Damaged("a strange position"))?;
        sequence.resume_at(origin, position);
    }
    let (mut paused, mut resumed) = (BTreeMap::new(), BTreeMap::new());
    let (mut flips, mut stopped) = (Flips::default(), BTreeSet::new());
    if format != FORMAT_1 {
        for _ in 0..take_varint(bytes)? {
            let table = TableName::new(take_text(bytes)?);
            let offset = Offset(take_varint(bytes)?);
            paused.insert(table, Paused { offset, reason: take_text(bytes)?.to_owned() });
        }
        for _ in 0..if format == FORMAT_2 { 0 } else { take_varint(bytes)? } {
            resumed.insert(TableName::new(take_text(bytes)?), Offset(take_varint(bytes)?));
        }
        for _ in 0..take_varint(bytes)? {
            flips.put(take_last(bytes)?);
        }
        for _ in 0..take_varint(bytes)? {
            stopped.insert(take_key(bytes)?);
        }
    }
    let mut resolver = take_resolver(bytes, format, rules.members.len(), resolver_rules(&rules))?;
    resolver.merge_seeds(rules.merged_seeds);
    if format == FORMAT {
        take_seeds(bytes, &mut resolver)?;
    }
    ended(bytes)?;
    let configured = stage.configured.insert(Configured::with(rules, &stage.target, resolver));
    (configured.paused, configured.resumed) = (paused, resumed);
    (configured.flips, configured.stopped) = (flips, stopped);
    Ok(sequence)
}

/// The configuration that a state was made under.
pub fn rules(mut bytes: &[u8]) -> Result<TwoWay, Damaged> {
    match take_byte(&mut bytes)? {
        format if FORMATS.contains(&format) => decode_two_way(take_bytes(&mut bytes)?),
        _ => Err(Damaged("a resolver's state of another format")),
    }
}

/// A key and what is under way of it.
pub fn put_entry(out: &mut BytesMut, entry: &Entry) {
    put_version(out, &entry.version);
    put_varint(out, entry.under_way.len() as u64);
    for way in &entry.under_way {
        out.put_u8(way.member.0);
        put_varint(out, way.sent.0);
        out.put_u8(u8::from(way.unsure) | u8::from(way.over.cut) << 1);
        put_varint(out, way.over.as_slice().len() as u64);
        for expected in way.over.as_slice() {
            match expected {
                Expected::Image(image) => {
                    out.put_u8(0);
                    put_bytes(out, &image.to_bytes());
                }
                Expected::Seen(offset) => {
                    out.put_u8(1);
                    put_varint(out, offset.0);
                }
            }
        }
        put_varint(out, way.near.len() as u64);
        way.near.iter().for_each(|image| put_bytes(out, &image.to_bytes()));
    }
}

pub fn take_entry(bytes: &mut &[u8]) -> Result<Entry, Damaged> {
    entry_of(bytes, FORMAT)
}

fn entry_of(bytes: &mut &[u8], format: u8) -> Result<Entry, Damaged> {
    let version = Arc::new(take_version(bytes)?);
    let mut under_way = SmallVec::new();
    for _ in 0..take_varint(bytes)? {
        let member = Member(take_byte(bytes)?);
        let offset = Offset(take_varint(bytes)?);
        let flags = take_byte(bytes)?;
        let mut list = Vec::new();
        for _ in 0..take_varint(bytes)? {
            list.push(match take_byte(bytes)? {
                0 => Expected::Image(Image::from_bytes(take_bytes(bytes)?)?),
                1 => Expected::Seen(Offset(take_varint(bytes)?)),
                _ => return Err(Damaged("an unknown expectation")),
            });
        }
        let over = Images::of(list, flags & 2 != 0);
        let mut near = SmallVec::new();
        for _ in 0..if format == FORMAT_1 { 0 } else { take_varint(bytes)? } {
            near.push(Image::from_bytes(take_bytes(bytes)?)?);
        }
        under_way.push(UnderWay { member, sent: offset, over, near, unsure: flags & 1 != 0 });
    }
    Ok(Entry::new(version, under_way))
}

fn put_resolver(out: &mut BytesMut, resolver: &mut Resolver) -> Result<(), SpillError> {
    put_varint(out, resolver.entries.len() as u64);
    resolver.encode_entries(out)?;
    put_varint(out, resolver.parked().count() as u64);
    for (member, key, offset) in resolver.parked() {
        out.put_u8(member.0);
        put_key(out, key);
        put_varint(out, offset.0);
    }
    let disputed: Vec<_> =
        resolver.disputed_order.iter().filter_map(|key| Some((key, resolver.disputed.get(key)?))).collect();
    put_varint(out, disputed.len() as u64);
    for (key, image) in disputed {
        put_key(out, key);
        put_bytes(out, &image.to_bytes());
    }
    Ok(())
}

fn take_resolver(
    bytes: &mut &[u8],
    format: u8,
    members: usize,
    rules: HashMap<TableName, Arc<Rules>>,
) -> Result<Resolver, Damaged> {
    let mut resolver = Resolver::new(members, rules, Limits::default());
    let mut sent: Vec<Vec<(Offset, u64)>> = vec![Vec::new(); members];
    for _ in 0..take_varint(bytes)? {
        let entry = entry_of(bytes, format)?;
        for way in &entry.under_way {
            let to = sent.get_mut(usize::from(way.member.0)).ok_or(Damaged("a member that is not there"))?;
            to.push((way.sent, entry.hash()));
        }
        resolver.entries.put(entry);
    }
    for list in &mut sent {
        list.sort_by_key(|(offset, _)| *offset);
    }
    for (of, list) in resolver.sent.iter_mut().zip(sent) {
        list.into_iter().for_each(|(offset, hash)| of.push(offset, hash));
    }
    for _ in 0..take_varint(bytes)? {
        let member = usize::from(take_byte(bytes)?);
        let key = take_key(bytes)?;
        let of = resolver.parked.get_mut(member).ok_or(Damaged("a member that is not there"))?;
        of.insert(key, Offset(take_varint(bytes)?));
    }
    for _ in 0..take_varint(bytes)? {
        let key = take_key(bytes)?;
        resolver.disputed.insert(key.clone(), Image::from_bytes(take_bytes(bytes)?)?);
        resolver.disputed_order.push_back(key);
    }
    Ok(resolver)
}

fn put_seeds(out: &mut BytesMut, resolver: &Resolver) {
    let seeds = resolver.seeds();
    put_varint(out, seeds.done().len() as u64);
    seeds.done().iter().for_each(|table| put_bytes(out, table.as_str().as_bytes()));
    let waiting = seeds.all_waiting();
    put_varint(out, waiting.len() as u64);
    for (key, member, sent) in waiting {
        put_key(out, key);
        out.put_u8(member.0);
        put_varint(out, sent.0);
    }
}

fn take_seeds(bytes: &mut &[u8], resolver: &mut Resolver) -> Result<(), Damaged> {
    let (mut done, mut waiting) = (BTreeSet::new(), Vec::new());
    for _ in 0..take_varint(bytes)? {
        done.insert(TableName::new(take_text(bytes)?));
    }
    for _ in 0..take_varint(bytes)? {
        let (key, member) = (take_key(bytes)?, take_byte(bytes)?);
        if usize::from(member) >= resolver.members.len() {
            return Err(Damaged("a member that is not there"));
        }
        waiting.push((key, Member(member), Offset(take_varint(bytes)?)));
    }
    resolver.resume_seeds(done, waiting);
    Ok(())
}

fn put_version(out: &mut BytesMut, version: &Version) {
    let (tag, at) = match version.id {
        VersionId::Record(at) => (0, at),
        VersionId::Merged(at) => (1, at),
    };
    out.put_u8(tag | u8::from(version.read) << 1 | u8::from(version.row.is_some()) << 2);
    put_varint(out, at.0);
    put_key(out, &version.key);
    match version.origin {
        Origin::Member(member) => out.put_u8(member.0),
        Origin::Merge => out.put_u8(u8::MAX),
        Origin::Person => out.put_u8(u8::MAX - 1),
    }
    out.put_u8(version.by.map_or(u8::MAX, |member| member.0));
    out.put_i64_le(version.commit_time);
    if let Some(row) = &version.row {
        put_bytes(out, row.as_bytes());
    }
}

fn take_version(bytes: &mut &[u8]) -> Result<Version, Damaged> {
    let flags = take_byte(bytes)?;
    let at = Offset(take_varint(bytes)?);
    let id = if flags & 1 == 0 { VersionId::Record(at) } else { VersionId::Merged(at) };
    let key = take_key(bytes)?;
    let origin = match take_byte(bytes)? {
        u8::MAX => Origin::Merge,
        254 => Origin::Person,
        member => Origin::Member(Member(member)),
    };
    let by = Some(take_byte(bytes)?).filter(|member| *member != u8::MAX).map(Member);
    let commit_time = i64::from_le_bytes(take_array(bytes)?);
    let row = match flags & 4 {
        0 => None,
        _ => Some(Row::from_bytes(Bytes::copy_from_slice(take_bytes(bytes)?))),
    };
    let image = Image::of(row.as_ref());
    Ok(Version { id, key, origin, by, commit_time, row, image, read: flags & 2 != 0 })
}

fn put_last(out: &mut BytesMut, last: &Last) {
    out.put_u64_le(last.key);
    out.put_u8(last.by.0);
    put_bytes(out, &last.from.to_bytes());
    put_bytes(out, &last.to.to_bytes());
    put_varint(out, u64::from(last.undone));
    out.put_i64_le(last.since);
}

fn take_last(bytes: &mut &[u8]) -> Result<Last, Damaged> {
    let key = u64::from_le_bytes(take_array(bytes)?);
    let by = Member(take_byte(bytes)?);
    let from = Image::from_bytes(take_bytes(bytes)?)?;
    let to = Image::from_bytes(take_bytes(bytes)?)?;
    let undone = u32::try_from(take_varint(bytes)?).map_err(|_| Damaged("an impossible count"))?;
    Ok(Last { key, by, from, to, undone, since: i64::from_le_bytes(take_array(bytes)?) })
}

fn take_array(bytes: &mut &[u8]) -> Result<[u8; 8], Damaged> {
    let (array, rest) = bytes.split_first_chunk::<8>().ok_or(Damaged("ends early"))?;
    *bytes = rest;
    Ok(*array)
}

fn put_key(out: &mut BytesMut, key: &RowKey) {
    put_bytes(out, key.table.as_str().as_bytes());
    put_bytes(out, key.key.as_bytes());
}

fn take_key(bytes: &mut &[u8]) -> Result<RowKey, Damaged> {
    let table = TableName::new(take_text(bytes)?);
    Ok(RowKey::new(table, Key::from_bytes(Bytes::copy_from_slice(take_bytes(bytes)?))))
}
