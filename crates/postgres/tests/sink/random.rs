//! Random changes against a model: whatever way a batch takes, the target ends as the source.

use crate::fixture::*;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, TestRunner};
use std::collections::BTreeMap;
use sync_worker_core::value::Cell::{self, Present};
use sync_worker_core::value::Value::{Int, Null, Text};

/// id -> (unique name, note)
type Model = BTreeMap<i64, (i64, Option<i64>)>;

#[derive(Clone, Copy, Debug)]
enum Change {
    Insert(i64, i64, Option<i64>),
    Rename(i64, i64),
    Note(i64, Option<i64>),
    Rekey(i64, i64, bool),
    Delete(i64),
    Copy(i64),
    Truncate,
    Commit,
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let (id, name, note) = (0..12i64, 0..14i64, proptest::option::of(0..3i64));
    let change = prop_oneof![
        6 => (id.clone(), name.clone(), note.clone()).prop_map(|(id, name, note)| Change::Insert(id, name, note)),
        4 => (id.clone(), name).prop_map(|(id, name)| Change::Rename(id, name)),
        4 => (id.clone(), note).prop_map(|(id, note)| Change::Note(id, note)),
        1 => (id.clone(), id.clone(), any::<bool>()).prop_map(|(old, new, whole)| Change::Rekey(old, new, whole)),
        4 => id.clone().prop_map(Change::Delete),
        1 => id.prop_map(Change::Copy),
        1 => Just(Change::Truncate),
        4 => Just(Change::Commit),
    ];
    proptest::collection::vec(change, 1..120)
}

#[test]
fn random_batches_end_as_the_source() {
    on_server(async |target| {
        target.sql("CREATE TABLE t (id int PRIMARY KEY, name text UNIQUE, note int)").await;
        let t = target.schema("t").await;
        let mut applier = target.applier(&["t"]).await;
        let mut runner = TestRunner::new(Config { cases: 1, failure_persistence: None, ..Config::default() });
        let mut sets = 0;
        for case in 0..150 {
            let changes = changes().new_tree(&mut runner).unwrap().current();
            let mut model = Model::new();
            let mut batch = vec![truncate(&t)];
            for change in &changes {
                let taken = |model: &Model, name| model.values().any(|row| row.0 == name);
                let label = |name: i64| format!("name {name}");
                let number = |note: Option<i64>| note.map_or(Null, Int);
                match *change {
                    Change::Insert(id, name, note) if !model.contains_key(&id) && !taken(&model, name) => {
                        model.insert(id, (name, note));
                        batch.push(create(&t, &[Int(id), Text(&label(name)), number(note)]));
                    }
                    Change::Rename(id, name) if model.contains_key(&id) && !taken(&model, name) => {
                        model.get_mut(&id).unwrap().0 = name;
                        batch.push(patch(&t, &[Present(Int(id)), Present(Text(&label(name))), UNCHANGED]));
                    }
                    Change::Note(id, note) if model.contains_key(&id) => {
                        model.get_mut(&id).unwrap().1 = note;
                        let name = label(model[&id].0);
                        batch.push(update(&t, &[Int(id), Text(&name), number(note)]));
                    }
                    Change::Rekey(old, new, whole) if model.contains_key(&old) && !model.contains_key(&new) => {
                        let row = model.remove(&old).unwrap();
                        model.insert(new, row);
                        let name = label(row.0);
                        let rest: [Cell<'_>; 2] =
                            if whole { [Present(Text(&name)), Present(number(row.1))] } else { [UNCHANGED, UNCHANGED] };
                        batch.push(rekey(&t, &[Int(old)], &[Present(Int(new)), rest[0], rest[1]]));
                    }
                    Change::Delete(id) if model.remove(&id).is_some() => batch.push(delete(&t, &[Int(id)])),
                    Change::Copy(id) if model.contains_key(&id) => {
                        let (name, note) = model[&id];
                        batch.push(read(&t, &[Int(id), Text(&label(name)), number(note)]));
                    }
                    Change::Truncate => {
                        model.clear();
                        batch.push(truncate(&t));
                    }
                    Change::Commit => sets += usize::from(!applier.apply(std::mem::take(&mut batch)).await.row_by_row),
                    _ => {}
                }
            }
            sets += usize::from(!applier.apply(batch).await.row_by_row);
            let row = |(id, (name, note)): (i64, (i64, Option<i64>))| {
                format!("({id},\"name {name}\",{})", note.map_or(String::new(), |note| note.to_string()))
            };
            let mut expected: Vec<_> = model.into_iter().map(row).collect();
            expected.sort();
            assert_eq!(target.table("t").await, expected, "case {case}: {changes:?}");
        }
        assert!(sets > 0);
    });
}
