//! Random changes to a target that refuses some: what is not parked ends as the source, and what is parked gets there
//! when it is tried again.

use crate::fixture::*;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, TestRunner};
use std::collections::BTreeMap;
use std::sync::Arc;
use sync_worker_core::change::{Change, Op};
use sync_worker_core::record::Offset;
use sync_worker_core::schema::Schema;
use sync_worker_core::sink::Write;
use sync_worker_core::value::Cell::{Present, Unchanged};
use sync_worker_core::value::Value::{Int, Null, Text};

/// id -> (name, note); the target wants names to be unique and notes not to be 2.
type Model = BTreeMap<i64, (i64, Option<i64>)>;

#[derive(Clone, Copy, Debug)]
enum Step {
    Insert(i64, i64, Option<i64>),
    Rename(i64, i64),
    Note(i64, Option<i64>),
    Delete(i64),
    Commit,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (id, name, note) = (0..8i64, 0..10i64, proptest::option::of(0..4i64));
    let step = prop_oneof![
        4 => (id.clone(), name.clone(), note.clone()).prop_map(|(id, name, note)| Step::Insert(id, name, note)),
        4 => (id.clone(), name).prop_map(|(id, name)| Step::Rename(id, name)),
        4 => (id.clone(), note).prop_map(|(id, note)| Step::Note(id, note)),
        2 => id.prop_map(Step::Delete),
        4 => Just(Step::Commit),
    ];
    proptest::collection::vec(step, 1..100)
}

/// What the engine does about parked keys, in short.
struct Waiting {
    changes: BTreeMap<i64, Change>,
    schema: Arc<Schema>,
}

impl Waiting {
    fn id(&self, change: &Change) -> i64 {
        let key = change.key().unwrap().unwrap();
        match key.cells().next().unwrap().unwrap() {
            Present(Int(id)) => id,
            other => panic!("{other:?}"),
        }
    }

    /// The newer change where the older one never arrived.
    fn merged(older: &Change, newer: &Change) -> Change {
        let (Some(old), Some(new)) = (&older.after, &newer.after) else { return newer.clone() };
        let op = if older.op == Op::Create { Op::Create } else { newer.op };
        Change { op, after: Some(new.over(old).unwrap()), ..newer.clone() }
    }

    async fn apply(&mut self, applier: &mut Applier, changes: Vec<Change>) {
        let mut writes = Vec::new();
        let mut over = self.changes.clone();
        for change in changes {
            let id = self.id(&change);
            let parked = self.changes.contains_key(&id);
            let change = over.get(&id).map_or_else(|| change.clone(), |older| Self::merged(older, &change));
            if parked {
                over.insert(id, change.clone());
            }
            writes.push(Write { change, offset: Offset(writes.len() as u64), parked, over: None });
        }
        let lot = Lot::default();
        let batch = applier.batch(writes);
        let applied = applier.write(&batch, &lot).await.unwrap();
        for write in &batch.writes {
            self.changes.remove(&self.id(&write.change));
        }
        for refused in &applied.refused {
            let id = self.id(&batch.writes[refused.write].change);
            let mut change = batch.writes[refused.write].change.clone();
            let earlier = batch.writes[..refused.write].iter().rev().filter(|write| self.id(&write.change) == id);
            for write in earlier {
                change = Self::merged(&write.change, &change);
            }
            self.changes.insert(id, change);
        }
    }

    /// The parked rows are those that wait; every other row is as the source's.
    async fn agree(&self, target: &Target, model: &Model) {
        let parked: Vec<_> = target.rows("SELECT key_digest FROM sync_worker.parked").await;
        assert_eq!(parked.len(), self.changes.len());
        let mut expected: Vec<_> = model
            .iter()
            .filter(|(id, _)| !self.changes.contains_key(id))
            .map(|(id, (name, note))| format!("({id},n{name},{})", note.map_or(String::new(), |note| note.to_string())))
            .collect();
        expected.sort();
        let ids = self.changes.keys().map(i64::to_string).chain(["-1".to_owned()]).collect::<Vec<_>>().join(", ");
        let there = target.rows(&format!("SELECT * FROM t WHERE id NOT IN ({ids})")).await;
        assert_eq!(there, expected, "parked: {ids}; {}", self.schema.table);
    }
}

#[test]
fn random_batches_of_which_some_rows_are_refused() {
    on_server(async |target| {
        target.sql("CREATE TABLE t (id int PRIMARY KEY, name text UNIQUE, note int CHECK (note <> 2))").await;
        let t = target.schema("t").await;
        let mut applier = target.applier(&["t"]).await;
        let mut runner = TestRunner::new(Config { cases: 1, failure_persistence: None, ..Config::default() });
        let mut refused = 0;
        for case in 0..60 {
            let steps = steps().new_tree(&mut runner).unwrap().current();
            eprintln!("case {case}: {steps:?}");
            target.sql("TRUNCATE t, sync_worker.parked").await;
            let mut waiting = Waiting { changes: BTreeMap::new(), schema: t.clone() };
            let mut model = Model::new();
            let mut batch = Vec::new();
            for step in steps.into_iter().chain([Step::Commit]) {
                let number = |note: Option<i64>| note.map_or(Null, Int);
                match step {
                    Step::Insert(id, name, note) if !model.contains_key(&id) => {
                        model.insert(id, (name, note));
                        batch.push(create(&t, &[Int(id), Text(&format!("n{name}")), number(note)]));
                    }
                    Step::Rename(id, name) if model.contains_key(&id) => {
                        model.get_mut(&id).unwrap().0 = name;
                        batch.push(patch(&t, &[Present(Int(id)), Present(Text(&format!("n{name}"))), Unchanged]));
                    }
                    Step::Note(id, note) if model.contains_key(&id) => {
                        model.get_mut(&id).unwrap().1 = note;
                        batch.push(patch(&t, &[Present(Int(id)), Unchanged, Present(number(note))]));
                    }
                    Step::Delete(id) if model.remove(&id).is_some() => batch.push(delete(&t, &[Int(id)])),
                    Step::Commit => {
                        waiting.apply(&mut applier, std::mem::take(&mut batch)).await;
                        waiting.agree(&target, &model).await;
                        refused += waiting.changes.len();
                    }
                    _ => {}
                }
            }
            // Nothing stands in the way any more: every retry succeeds.
            target.sql("ALTER TABLE t DROP CONSTRAINT t_note_check, DROP CONSTRAINT t_name_key").await;
            for change in waiting.changes.clone().into_values() {
                waiting.apply(&mut applier, vec![change]).await;
            }
            assert!(waiting.changes.is_empty());
            waiting.agree(&target, &model).await;
            target.sql("TRUNCATE t; ALTER TABLE t ADD UNIQUE (name), ADD CHECK (note <> 2)").await;
        }
        assert!(refused > 100, "only {refused}");
    });
}
