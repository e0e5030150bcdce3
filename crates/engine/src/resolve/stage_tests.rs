//! What a stage does about tables and keys that stand still.

use super::*;
use crate::sequence::Sequence;
use sync_worker_core::echo::ParkedEcho;
use sync_worker_core::guard::Seen;
use sync_worker_core::row::RowBuilder;
use sync_worker_core::rules::{OnDelete, TableRules, TwoWayMember};
use sync_worker_core::schema::Column;
use sync_worker_core::types::ColumnType;

const PAUSES: Op = Op::Truncate;

/// What stands at `b` where it differs.
const OTHER: i64 = 99;

/// A table of rows (id, v) that these members share.
pub(crate) fn rules(members: [&str; 2]) -> (Arc<Schema>, TwoWay) {
    let column = |name: &str| Column {
        name: name.to_owned(),
        kind: ColumnType::Int { bits: 64, unsigned: false },
        type_name: "bigint".to_owned(),
        nullable: true,
        generated: false,
    };
    let schema = Arc::new(Schema::new("t".into(), Engine::Postgres, vec![column("id"), column("v")], vec![0]));
    let table = TableRules {
        schema: schema.clone(),
        strategy: Strategy::Timestamp,
        on_delete: OnDelete::ByStrategy,
        merge: None,
        timestamp_column: None,
        document: Default::default(),
    };
    let members = members.map(|name| TwoWayMember { name: name.into(), priority: 0 }).to_vec();
    (schema, TwoWay { members, tables: vec![table], merged_seeds: false })
}

pub(crate) fn row(id: i64, value: i64) -> Row {
    let mut builder = RowBuilder::default();
    [id, value].into_iter().for_each(|number| builder.push(Cell::Present(Value::Int(number))));
    builder.finish()
}

struct Bus {
    stage: Stage,
    schema: Arc<Schema>,
    rules: TwoWay,
    next: u64,
}

impl Bus {
    /// Of the applier of `b`; the other member is `a`.
    fn new() -> Self {
        Self::with(false)
    }

    fn with(merged_seeds: bool) -> Self {
        let (schema, rules) = rules(["a", "b"]);
        let rules = TwoWay { merged_seeds, ..rules };
        let stage = Stage::new(PipelineName::new("p"), Partition(0), "b".into(), None);
        let mut bus = Self { stage, schema, rules: rules.clone(), next: 0 };
        bus.take(Record::of_nobody(0, Body::Configuration(Arc::new(rules))));
        bus
    }

    /// Returns where the record stands.
    fn take(&mut self, record: Record) -> Offset {
        let at = Offset(self.next);
        self.next += 1;
        self.stage.take(at, record).unwrap();
        at
    }

    fn of(&mut self, origin: &str, body: Body) -> Offset {
        self.take(Record { origin: origin.into(), ..Record::of_nobody(0, body) })
    }

    fn change(&mut self, origin: &str, op: Op, before: Option<Row>, after: Option<Row>) -> Offset {
        self.of(origin, Body::Change(Change { schema: self.schema.clone(), op, before, after }))
    }

    /// `b` has not taken the version of row 1 that was sent at the offset: its row differs.
    fn differs(&mut self, sent: Offset) {
        let key = self.schema.key_of(&row(1, 0)).unwrap();
        let seen = Some(Seen::of(Some(row(1, OTHER))));
        let parked = vec![ParkedEcho { table: "t".into(), key, offset: sent, seen }];
        self.of("b", Body::Marker(echo::Echo { offset: Some(sent), parked, unparked: vec![] }));
    }

    /// The tasks since the last time: values that are to be written, and None for a version that is superseded.
    fn tasks(&mut self) -> Vec<Option<i64>> {
        let value = |row: &Row| match row.cells().nth(1) {
            Some(Ok(Cell::Present(Value::Int(value)))) => value,
            other => panic!("{other:?}"),
        };
        let told = |task| match task {
            Task::Write(write, _) => write.change.after.as_ref().map(value),
            Task::Keep(_) => None,
        };
        self.stage.take_tasks().into_iter().map(told).collect()
    }

    /// With its state put aside and taken up again.
    fn restart(&mut self) {
        let state = super::super::checkpoint::encode(&mut self.stage, &Sequence::default()).unwrap().unwrap();
        let mut stage = Stage::new(PipelineName::new("p"), Partition(0), "b".into(), None);
        super::super::checkpoint::decode(&state, &mut stage).unwrap();
        self.stage = stage;
    }
}

#[test]
fn a_row_that_differs_without_an_event_is_written_over_unless_its_table_stood_still() {
    for pauses in [false, true] {
        let mut bus = Bus::new();
        // Whatever the rules: none was asked.
        let mut rules = bus.rules.clone();
        (rules.tables[0].strategy, rules.tables[0].on_delete) = (Strategy::Manual, OnDelete::DeleteWins);
        bus.take(Record::of_nobody(0, Body::Configuration(Arc::new(rules))));
        let sent = bus.change("a", Op::Create, None, Some(row(1, 5)));
        assert_eq!(bus.tasks(), [Some(5)]);
        if pauses {
            bus.change("a", PAUSES, None, None);
            assert_eq!(bus.stage.paused().len(), 1);
        }
        bus.differs(sent);
        assert_eq!(bus.tasks(), [if pauses { None } else { Some(5) }]);
        assert_eq!(bus.stage.entries(), usize::from(!pauses));
        let drifted = bus.stage.take_conflicts();
        let told = drifted.iter().map(|one| (one.at.as_ref(), one.loser.as_ref().and_then(|loser| loser.row.clone())));
        let expected = (Some(&"b".into()), Some(row(1, OTHER)));
        assert_eq!(told.collect::<Vec<_>>(), if pauses { vec![] } else { vec![expected] });
        assert!(drifted.iter().all(|one| !one.open), "nobody is asked");
    }
}

#[test]
fn what_was_written_while_a_table_stood_still_stays_when_the_echo_comes_after_it_went_on() {
    let mut bus = Bus::new();
    let sent = bus.change("a", Op::Create, None, Some(row(1, 5)));
    bus.change("a", PAUSES, None, None);
    bus.change("b", Op::Create, None, Some(row(1, 6)));
    bus.take(Record::of_nobody(0, Body::Resume("t".into())));
    bus.restart();
    bus.tasks();
    bus.differs(sent);
    assert_eq!(bus.tasks(), [None]);
    // What is sent from here on is not.
    let sent = bus.change("a", Op::Update, Some(row(1, 5)), Some(row(1, 7)));
    assert_eq!(bus.tasks(), [Some(7)]);
    bus.differs(sent);
    assert_eq!(bus.tasks(), [Some(7)]);
}

#[test]
fn a_resume_that_nothing_waited_for_changes_nothing() {
    let mut bus = Bus::new();
    let sent = bus.change("a", Op::Create, None, Some(row(1, 5)));
    bus.take(Record::of_nobody(0, Body::Resume("t".into())));
    bus.tasks();
    bus.differs(sent);
    assert_eq!(bus.tasks(), [Some(5)]);
}

/// The kinds of the conflicts since the last time, with who won.
fn kinds(bus: &mut Bus) -> Vec<(String, String, String)> {
    let told = |conflict: Conflict| {
        let by = conflict.winner.by.map(|by| by.to_string()).unwrap_or_default();
        (conflict.kind, by, conflict.strategy)
    };
    bus.stage.take_conflicts().into_iter().map(told).collect()
}

fn told(kind: &str, winner: &str, strategy: &str) -> Vec<(String, String, String)> {
    vec![(kind.to_owned(), winner.to_owned(), strategy.to_owned())]
}

#[test]
fn a_row_that_differs_waits_for_the_copy_of_it_and_goes_by_rank_over_restarts() {
    let mut bus = Bus::with(true);
    let sent = bus.change("a", Op::Read, None, Some(row(1, 5)));
    assert_eq!(bus.tasks(), [Some(5)]);
    bus.differs(sent);
    assert!(bus.tasks().is_empty() && kinds(&mut bus).is_empty());
    bus.restart();
    let sent = bus.change("b", Op::Read, None, Some(row(1, 6)));
    assert_eq!(bus.tasks(), [Some(5)]);
    assert_eq!(kinds(&mut bus), told("seed", "a", "timestamp"));
    bus.of("b", Body::Marker(echo::Echo { offset: Some(sent), parked: vec![], unparked: vec![] }));
    assert_eq!(bus.stage.entries(), 0);
}

#[test]
fn what_still_waits_when_all_is_copied_has_drifted() {
    for (pauses, ends_by_configuration) in [(false, false), (false, true), (true, false)] {
        let mut bus = Bus::with(true);
        let sent = bus.change("a", Op::Read, None, Some(row(1, 5)));
        bus.differs(sent);
        bus.tasks();
        bus.restart();
        if pauses {
            bus.change("a", PAUSES, None, None);
        }
        if ends_by_configuration {
            let rules = Arc::new(TwoWay { merged_seeds: false, ..bus.rules.clone() });
            bus.take(Record::of_nobody(0, Body::Configuration(rules)));
        } else {
            bus.take(Record::of_nobody(0, Body::Seeded("t".into())));
            bus.take(Record::of_nobody(0, Body::Seeded("t".into())));
        }
        assert_eq!(bus.tasks(), [if pauses { None } else { Some(5) }]);
        let found = kinds(&mut bus);
        assert_eq!(found, if pauses { Vec::new() } else { told("drift", "a", "timestamp") });
        // From here on a snapshot row of a key under way is dropped.
        bus.restart();
        bus.change("b", Op::Read, None, Some(row(1, 6)));
        assert!(bus.tasks().is_empty() && kinds(&mut bus).is_empty());
    }
}

#[test]
fn a_change_beats_a_copied_row_and_has_it_on_record_if_it_had_not_seen_it() {
    for seen in [false, true] {
        let mut bus = Bus::with(true);
        bus.change("a", Op::Read, None, Some(row(1, 5)));
        bus.change("b", Op::Update, Some(row(1, if seen { 5 } else { 6 })), Some(row(1, 7)));
        assert_eq!(bus.tasks(), [Some(5), None]);
        assert_eq!(kinds(&mut bus), if seen { Vec::new() } else { told("seed", "b", "change") });
    }
}

/// A copy leaves out what the stream shows meanwhile, also where that says nothing new about the shared columns.
#[test]
fn a_change_of_nothing_shared_takes_the_place_of_a_copied_row() {
    let mut bus = Bus::with(true);
    bus.change("a", Op::Update, Some(row(1, 5)), Some(row(1, 5)));
    assert_eq!(bus.tasks(), [Some(5)]);
    bus.take(Record::of_nobody(0, Body::Seeded("t".into())));
    bus.change("a", Op::Update, Some(row(2, 5)), Some(row(2, 5)));
    assert!(bus.tasks().is_empty());
}
