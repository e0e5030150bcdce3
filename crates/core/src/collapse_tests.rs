//! Collapsing against a table that takes one change after another.

use super::*;
use crate::record::Offset;
use crate::row::RowBuilder;
use crate::schema::Column;
use crate::types::{ColumnType, Engine};
use crate::value::{Cell, Value};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn schema(table: &str, columns: &[&str]) -> Arc<Schema> {
    let column = |name: &&str| Column {
        name: (*name).to_owned(),
        kind: ColumnType::Int { bits: 64, unsigned: false },
        type_name: "bigint".to_owned(),
        nullable: false,
        generated: false,
    };
    Arc::new(Schema::new(TableName::new(table), Engine::Mysql, columns.iter().map(column).collect(), vec![0]))
}

/// None is Unchanged.
fn row(cells: &[Option<i64>]) -> Row {
    let mut builder = RowBuilder::default();
    for cell in cells {
        builder.push(cell.map_or(Cell::Unchanged, |value| Cell::Present(Value::Int(value))));
    }
    builder.finish()
}

fn write(schema: &Arc<Schema>, op: Op, before: Option<Row>, after: Option<Row>) -> Write {
    let change = Change { schema: schema.clone(), op, before, after };
    Write { change, offset: Offset(0), parked: false, over: None }
}

fn values(row: &Row) -> Vec<Option<i64>> {
    let value = |cell: Result<Cell<'_>, Damaged>| match cell.unwrap() {
        Cell::Present(Value::Int(value)) => Some(value),
        _ => None,
    };
    row.cells().map(value).collect()
}

fn effects(steps: &[Step]) -> Vec<String> {
    let mut out = Vec::new();
    for step in steps {
        match step {
            Step::Alone(index) => out.push(format!("alone {index}")),
            Step::Set(sets) => {
                for set in sets {
                    for version in &set.versions {
                        let image = version.row.as_ref().map(values);
                        out.push(format!("{} {:?} {} {image:?}", set.schema.table, version.effect, version.write));
                    }
                }
            }
        }
    }
    out
}

#[test]
fn changes_of_one_key_become_one() {
    let t = schema("t", &["k", "a", "b"]);
    let writes = [
        write(&t, Op::Create, None, Some(row(&[Some(1), Some(1), Some(1)]))),
        write(&t, Op::Update, None, Some(row(&[Some(2), Some(5), None]))),
        write(&t, Op::Update, None, Some(row(&[Some(1), None, Some(2)]))),
        write(&t, Op::Update, None, Some(row(&[Some(2), None, Some(6)]))),
        write(&t, Op::Delete, Some(row(&[Some(3), None, None])), None),
        write(&t, Op::Create, None, Some(row(&[Some(3), Some(3), Some(3)]))),
        write(&t, Op::Read, None, Some(row(&[Some(4), Some(4), Some(4)]))),
        write(&t, Op::Create, None, Some(row(&[Some(5), Some(5), Some(5)]))),
        write(&t, Op::Delete, Some(row(&[Some(5), None, None])), None),
    ];
    let steps = collapse(&writes, 0..writes.len(), &Refusals::new()).unwrap();
    let expected = [
        "t Insert 2 Some([Some(1), Some(1), Some(2)])",
        "t Update 3 Some([Some(2), Some(5), Some(6)])",
        "t Replace 5 Some([Some(3), Some(3), Some(3)])",
        "t Upsert 6 Some([Some(4), Some(4), Some(4)])",
        "t Delete 8 None",
    ];
    assert_eq!(effects(&steps), expected);
}

#[test]
fn a_changed_key_and_a_truncate_stand_between_sets() {
    let t = schema("t", &["k", "a"]);
    let full = |key, value| Some(row(&[Some(key), Some(value)]));
    let writes = [
        write(&t, Op::Create, None, full(1, 1)),
        write(&t, Op::Update, full(1, 1), full(2, 1)),
        write(&t, Op::Update, full(2, 1), full(2, 3)),
        write(&t, Op::Truncate, None, None),
        write(&t, Op::Create, None, full(2, 1)),
    ];
    let steps = collapse(&writes, 0..5, &Refusals::new()).unwrap();
    let expected = [
        "t Insert 0 Some([Some(1), Some(1)])",
        "alone 1",
        "t Update 2 Some([Some(2), Some(3)])",
        "alone 3",
        "t Insert 4 Some([Some(2), Some(1)])",
    ];
    assert_eq!(effects(&steps), expected);
}

#[test]
fn another_schema_of_a_table_begins_another_set() {
    let (old, new) = (schema("t", &["k", "a"]), schema("t", &["k", "b", "a"]));
    let writes = [
        write(&old, Op::Create, None, Some(row(&[Some(1), Some(1)]))),
        write(&new, Op::Update, None, Some(row(&[Some(1), Some(2), None]))),
    ];
    let steps = collapse(&writes, 0..2, &Refusals::new()).unwrap();
    assert_eq!(steps.len(), 2);
    // Where the first one was refused, the second one carries it in the new columns.
    let Step::Set(sets) = &steps[0] else { panic!("no set") };
    let refused = sets[0].versions[0].clone();
    let refusals = Refusals::from([((TableName::new("t"), refused.key.clone()), (old, refused))]);
    let steps = collapse(&writes, 1..2, &refusals).unwrap();
    assert_eq!(effects(&steps), ["t Insert 1 Some([Some(1), Some(2), Some(1)])"]);
}

#[test]
fn an_update_after_a_delete_waits_for_the_next_set() {
    let t = schema("t", &["k", "a"]);
    let writes = [
        write(&t, Op::Delete, Some(row(&[Some(1), None])), None),
        write(&t, Op::Update, None, Some(row(&[Some(1), Some(2)]))),
    ];
    let steps = collapse(&writes, 0..2, &Refusals::new()).unwrap();
    assert_eq!(effects(&steps), ["t Delete 0 None", "t Update 1 Some([Some(1), Some(2)])"]);
}

type Table = BTreeMap<i64, [i64; 2]>;

fn put(table: &mut Table, key: i64, row: &Row) {
    let cells = values(row);
    let held = table.entry(key).or_insert([-1, -1]);
    for (slot, cell) in held.iter_mut().zip(&cells[1..]) {
        *slot = cell.unwrap_or(*slot);
    }
}

fn key_of(version: &Version) -> i64 {
    match version.key.cells().next().unwrap().unwrap() {
        Cell::Present(Value::Int(key)) => key,
        other => panic!("{other:?}"),
    }
}

proptest! {
    /// A history that a source could have written ends in the same table, change by change and collapsed.
    #[test]
    fn sets_end_where_single_changes_end(
        start in proptest::collection::btree_map(0..6i64, [0..9i64, 0..9i64], 0..6),
        moves in proptest::collection::vec((0..6i64, 0..6i64, 0..9i64, 0..9i64, 0..10u8), 0..60),
    ) {
        let t = schema("t", &["k", "a", "b"]);
        let (mut table, mut writes) = (start.clone(), Vec::new());
        for (key, other, a, b, what) in moves {
            let full = row(&[Some(key), Some(a), Some(b)]);
            match (table.get(&key).copied(), what) {
                (None, _) => {
                    table.insert(key, [a, b]);
                    let op = if what == 0 { Op::Read } else { Op::Create };
                    writes.push(write(&t, op, None, Some(full)));
                }
                (Some(_), 0 | 1) => {
                    table.remove(&key);
                    writes.push(write(&t, Op::Delete, Some(row(&[Some(key), None, None])), None));
                }
                (Some([_, old]), 2 | 3) => {
                    table.insert(key, [a, old]);
                    writes.push(write(&t, Op::Update, None, Some(row(&[Some(key), Some(a), None]))));
                }
                (Some(_), 4) if !table.contains_key(&other) => {
                    table.remove(&key);
                    table.insert(other, [a, b]);
                    let after = row(&[Some(other), Some(a), Some(b)]);
                    writes.push(write(&t, Op::Update, Some(full), Some(after)));
                }
                (Some(_), 5) if a == 0 => {
                    table.clear();
                    writes.push(write(&t, Op::Truncate, None, None));
                }
                (Some(_), _) => {
                    table.insert(key, [a, b]);
                    writes.push(write(&t, Op::Update, Some(full.clone()), Some(full)));
                }
            }
        }
        let mut target = start;
        for step in collapse(&writes, 0..writes.len(), &Refusals::new()).unwrap() {
            match step {
                Step::Alone(index) => match &writes[index].change {
                    Change { op: Op::Truncate, .. } => target.clear(),
                    Change { before: Some(before), after: Some(after), .. } => {
                        target.remove(&values(before)[0].unwrap());
                        put(&mut target, values(after)[0].unwrap(), after);
                    }
                    other => panic!("{other:?} stands alone"),
                },
                Step::Set(sets) => {
                    for version in &sets[0].versions {
                        let key = key_of(version);
                        match version.effect {
                            Effect::Delete => drop(target.remove(&key)),
                            Effect::Replace => {
                                target.remove(&key);
                                put(&mut target, key, version.row.as_ref().unwrap());
                            }
                            Effect::Insert => {
                                prop_assert!(!target.contains_key(&key), "inserted over a row");
                                put(&mut target, key, version.row.as_ref().unwrap());
                            }
                            Effect::Update => {
                                prop_assert!(target.contains_key(&key), "updated a missing row");
                                put(&mut target, key, version.row.as_ref().unwrap());
                            }
                            Effect::Upsert => put(&mut target, key, version.row.as_ref().unwrap()),
                        }
                    }
                }
            }
        }
        prop_assert_eq!(target, table);
    }
}
