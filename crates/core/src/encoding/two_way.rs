//! The bytes of a two-way pipeline's configuration: members with their priorities, then tables with their columns and
//! rules.

use super::{decode_schema, encode_schema, put_bytes, put_text, take_byte, take_bytes, take_flag, take_text};
use crate::document::mapping::{DocumentMapping, OtherFields, Times};
use crate::name::DatabaseName;
use crate::rules::{ColumnGroup, Merge, OnDelete, Strategy, TableRules, TwoWay, TwoWayMember};
use crate::value::{Damaged, put_varint, take_varint};
use bytes::{BufMut, BytesMut};
use std::sync::Arc;

pub fn encode_two_way(two_way: &TwoWay, out: &mut BytesMut) {
    put_varint(out, two_way.members.len() as u64);
    for member in &two_way.members {
        put_text(out, member.name.as_str());
        out.put_i64_le(member.priority);
    }
    put_varint(out, two_way.tables.len() as u64);
    let mut schema = BytesMut::new();
    for table in &two_way.tables {
        schema.clear();
        encode_schema(&table.schema, &mut schema);
        put_bytes(out, &schema);
        put_strategy(table.strategy, out);
        out.put_u8(match table.on_delete {
            OnDelete::DeleteWins => 0,
            OnDelete::UpdateWins => 1,
            OnDelete::ByStrategy => 2,
        });
        out.put_u8(table.merge.is_some().into());
        if let Some(merge) = &table.merge {
            put_varint(out, merge.delta.len() as u64);
            merge.delta.iter().for_each(|column| put_text(out, column));
        }
        put_mapping(out, &table.document);
    }
    // Records from before there were any end here.
    let columns =
        || two_way.tables.iter().enumerate().filter_map(|(at, table)| Some((at, table.timestamp_column.as_ref()?)));
    let keys = || two_way.tables.iter().enumerate().filter(|(_, table)| !table.document.key.is_empty());
    let groups = || {
        let of = |(at, table)| table_groups(table).iter().map(move |group| (at, group));
        two_way.tables.iter().enumerate().flat_map(of)
    };
    let grouped = groups().next().is_some();
    let merged = two_way.merged_seeds;
    if columns().next().is_some() || keys().next().is_some() || merged || grouped {
        put_varint(out, columns().count() as u64);
        for (at, column) in columns() {
            put_varint(out, at as u64);
            put_text(out, column);
        }
    }
    // And these, each one step later: keys of fields, merged seeds, groups of columns.
    if keys().next().is_some() || merged || grouped {
        put_varint(out, keys().count() as u64);
        for (at, table) in keys() {
            put_varint(out, at as u64);
            put_varint(out, table.document.key.len() as u64);
            table.document.key.iter().for_each(|field| put_text(out, field));
        }
    }
    if merged || grouped {
        out.put_u8(merged.into());
    }
    if grouped {
        put_varint(out, groups().count() as u64);
        for (at, group) in groups() {
            put_varint(out, at as u64);
            put_strategy(group.strategy, out);
            put_varint(out, group.columns.len() as u64);
            group.columns.iter().for_each(|column| put_text(out, column));
        }
    }
}

fn table_groups(table: &TableRules) -> &[ColumnGroup] {
    table.merge.as_ref().map_or(&[], |merge| &merge.groups)
}

fn put_strategy(strategy: Strategy, out: &mut BytesMut) {
    out.put_u8(match strategy {
        Strategy::Timestamp => 0,
        Strategy::FirstWrite => 1,
        Strategy::Priority => 2,
        Strategy::Reject => 3,
        Strategy::Manual => 4,
    });
}

fn take_strategy(bytes: &mut &[u8]) -> Result<Strategy, Damaged> {
    Strategy::ALL.get(usize::from(take_byte(bytes)?)).copied().ok_or(Damaged("unknown strategy"))
}

pub fn decode_two_way(mut bytes: &[u8]) -> Result<TwoWay, Damaged> {
    let (mut members, mut tables) = (Vec::new(), Vec::new());
    for _ in 0..take_varint(&mut bytes)? {
        let name = DatabaseName::new(take_text(&mut bytes)?);
        let (priority, rest) = bytes.split_first_chunk::<8>().ok_or(Damaged("ends early"))?;
        bytes = rest;
        members.push(TwoWayMember { name, priority: i64::from_le_bytes(*priority) });
    }
    for _ in 0..take_varint(&mut bytes)? {
        let schema = Arc::new(decode_schema(take_bytes(&mut bytes)?)?);
        let strategy = take_strategy(&mut bytes)?;
        let on_delete =
            OnDelete::ALL.get(usize::from(take_byte(&mut bytes)?)).ok_or(Damaged("unknown rule for deletes"))?;
        let merge = if take_flag(&mut bytes)? { Some(take_merge(&mut bytes)?) } else { None };
        let document = take_mapping(&mut bytes)?;
        let (on_delete, timestamp_column) = (*on_delete, None);
        tables.push(TableRules { schema, strategy, on_delete, merge, timestamp_column, document });
    }
    if !bytes.is_empty() {
        for _ in 0..take_varint(&mut bytes)? {
            let at = usize::try_from(take_varint(&mut bytes)?).unwrap_or(usize::MAX);
            let table = tables.get_mut(at).ok_or(Damaged("a column of a table that is not there"))?;
            table.timestamp_column = Some(take_text(&mut bytes)?.to_owned());
        }
    }
    if !bytes.is_empty() {
        for _ in 0..take_varint(&mut bytes)? {
            let at = usize::try_from(take_varint(&mut bytes)?).unwrap_or(usize::MAX);
            let table = tables.get_mut(at).ok_or(Damaged("a key of a table that is not there"))?;
            for _ in 0..take_varint(&mut bytes)? {
                table.document.key.push(take_text(&mut bytes)?.to_owned());
            }
        }
    }
    let merged_seeds = !bytes.is_empty() && take_flag(&mut bytes)?;
    if !bytes.is_empty() {
        for _ in 0..take_varint(&mut bytes)? {
            let at = usize::try_from(take_varint(&mut bytes)?).unwrap_or(usize::MAX);
            let merge = tables.get_mut(at).and_then(|table| table.merge.as_mut());
            let merge = merge.ok_or(Damaged("a group of columns of a table that is not merged"))?;
            let strategy = take_strategy(&mut bytes)?;
            let mut columns = Vec::new();
            for _ in 0..take_varint(&mut bytes)? {
                columns.push(take_text(&mut bytes)?.to_owned());
            }
            merge.groups.push(ColumnGroup { columns, strategy });
        }
    }
    super::ended(bytes)?;
    Ok(TwoWay { members, tables, merged_seeds })
}

fn take_merge(bytes: &mut &[u8]) -> Result<Merge, Damaged> {
    let mut delta = Vec::new();
    for _ in 0..take_varint(bytes)? {
        delta.push(take_text(bytes)?.to_owned());
    }
    Ok(Merge { delta, groups: Vec::new() })
}

fn put_mapping(out: &mut BytesMut, mapping: &DocumentMapping) {
    match &mapping.other_fields {
        OtherFields::Refuse => out.put_u8(0),
        OtherFields::Ignore => out.put_u8(1),
        OtherFields::Column(name) => {
            out.put_u8(2);
            put_text(out, name);
        }
    }
    out.put_u8(mapping.keep_key_columns.into());
    out.put_u8((mapping.times == Times::Text).into());
}

fn take_mapping(bytes: &mut &[u8]) -> Result<DocumentMapping, Damaged> {
    let other_fields = match take_byte(bytes)? {
        0 => OtherFields::Refuse,
        1 => OtherFields::Ignore,
        2 => OtherFields::Column(take_text(bytes)?.to_owned()),
        _ => return Err(Damaged("unknown rule for other fields")),
    };
    let keep_key_columns = take_flag(bytes)?;
    let times = if take_flag(bytes)? { Times::Text } else { Times::Refuse };
    Ok(DocumentMapping { other_fields, keep_key_columns, times, key: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Column, Schema};
    use crate::types::{ColumnType, Engine};

    fn table(timestamp_column: Option<&str>, key: &[&str]) -> TableRules {
        let column = Column {
            name: "id".to_owned(),
            kind: ColumnType::Int { bits: 64, unsigned: false },
            type_name: "bigint".to_owned(),
            nullable: false,
            generated: false,
        };
        TableRules {
            schema: Arc::new(Schema::new("t".into(), Engine::Postgres, vec![column], vec![0])),
            strategy: Strategy::Timestamp,
            on_delete: OnDelete::ByStrategy,
            merge: None,
            timestamp_column: timestamp_column.map(str::to_owned),
            document: DocumentMapping {
                key: key.iter().map(|field| (*field).to_owned()).collect(),
                ..Default::default()
            },
        }
    }

    #[test]
    fn what_was_added_to_rules_comes_back_and_rules_without_it_stay_as_they_were() {
        let rules = |tables, merged_seeds| TwoWay { members: Vec::new(), tables, merged_seeds };
        let plain = rules(vec![table(None, &[])], false);
        let mut short = BytesMut::new();
        encode_two_way(&plain, &mut short);
        for (timestamp_column, key) in [(None, &["a", "b"][..]), (Some("at"), &["a"]), (Some("at"), &[]), (None, &[])] {
            for merged_seeds in [true, false] {
                for grouped in [true, false] {
                    let group =
                        ColumnGroup { columns: vec!["a".to_owned(), "b".to_owned()], strategy: Strategy::Reject };
                    let merge = Merge { delta: vec!["id".to_owned()], groups: vec![group; 2] };
                    let table =
                        |column, key| TableRules { merge: grouped.then(|| merge.clone()), ..table(column, key) };
                    let rules = rules(vec![table(None, &[]), table(timestamp_column, key)], merged_seeds);
                    let mut bytes = BytesMut::new();
                    encode_two_way(&rules, &mut bytes);
                    assert_eq!(decode_two_way(&bytes).unwrap(), rules);
                }
            }
        }
        // Nothing follows the tables.
        assert_eq!(decode_two_way(&short).unwrap(), plain);
        assert_eq!(short.last(), Some(&0), "the last rule of the last table");
    }
}
