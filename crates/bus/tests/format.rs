//! The bytes of records: they round trip, foreign bytes never panic, and those of earlier versions stay readable.
//! `SYNC_WORKER_UPDATE=1` writes the golden file anew.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use sync_worker_bus::format::{Decoder, encode};
use sync_worker_core::change::{Change, Op};
use sync_worker_core::echo::{Echo, ParkedEcho, UnparkedEcho};
use sync_worker_core::encoding::{decode_schema, encode_schema};
use sync_worker_core::guard::{Image, Seen};
use sync_worker_core::name::{DatabaseName, TableName};
use sync_worker_core::position::Position;
use sync_worker_core::record::{Body, Decision, Offset, Record};
use sync_worker_core::row::{Key, Row, RowBuilder};
use sync_worker_core::rules::{ColumnGroup, Merge, OnDelete, Strategy as Rule, TableRules, TwoWay, TwoWayMember};
use sync_worker_core::schema::{Column, Schema};
use sync_worker_core::types::{ColumnType, Engine, TextLimit};
use sync_worker_core::value::{Cell, Value};
use sync_worker_testkit::records::{Records, same};

fn encoded(record: &Record) -> Bytes {
    let mut out = BytesMut::new();
    encode(record, &mut out);
    out.freeze()
}

fn schema(engine: Engine) -> Arc<Schema> {
    let column = |name: &str, kind: ColumnType, type_name: &str, nullable, generated| Column {
        name: name.to_owned(),
        kind,
        type_name: type_name.to_owned(),
        nullable,
        generated,
    };
    let columns = vec![
        column("id", ColumnType::Int { bits: 64, unsigned: false }, "bigint", false, false),
        column(
            "name",
            ColumnType::Text { limit: TextLimit::Characters(40), padded: false },
            "varchar(40)",
            true,
            false,
        ),
        column("price", ColumnType::Decimal { precision: Some(10), scale: 2 }, "decimal(10,2)", true, false),
        column("region", ColumnType::Uuid, "uuid", false, true),
    ];
    Arc::new(Schema::new(TableName::new("žluťoučký kůň"), engine, columns, vec![3, 0]))
}

fn row(cells: &[Cell<'_>]) -> Row {
    let mut builder = RowBuilder::default();
    cells.iter().for_each(|cell| builder.push(*cell));
    builder.finish()
}

/// One record of each shape, under a name.
fn shapes() -> Vec<(String, Record)> {
    let mut shapes = Vec::new();
    let postgres = ["16/B374D848+0", "16/B374D847+3", "16/B374D848", "16/B374D848+300", "16/B374D848+299"];
    let mysql = ["000012:4711+0", "000011:1048576+3", "000012:4711", "000012:4711+300", "000012:4711+299"];
    for (engine, positions) in [(Engine::Postgres, postgres), (Engine::Mysql, mysql)] {
        let [first, before, end, later, step] = positions.map(|text| text.parse::<Position>().unwrap());
        let schema = schema(engine);
        let uuid = Cell::Present(Value::Uuid([7; 16]));
        let full = row(&[Cell::Present(Value::Int(-1)), Cell::Present(Value::Text("ž")), Cell::Unchanged, uuid]);
        let other = row(&[Cell::Present(Value::Int(2)), Cell::Unchanged, Cell::Present(Value::Decimal("1.10")), uuid]);
        let change = |op, before: Option<&Row>, after: Option<&Row>| {
            Body::Change(Change { schema: schema.clone(), op, before: before.cloned(), after: after.cloned() })
        };
        let record = |position, previous, transaction: Option<&str>, last, body| Record {
            origin: DatabaseName::new("crm"),
            position,
            previous,
            transaction: transaction.map(Arc::from),
            last,
            commit_time: 1_700_000_000_123_456,
            body,
        };
        let bodies = [
            ("schema", record(before, Some(before), None, true, Body::Schema(schema.clone()))),
            ("very-first", record(first, None, Some("749"), false, change(Op::Create, None, Some(&full)))),
            ("create", record(first, Some(before), Some("749"), false, change(Op::Create, None, Some(&full)))),
            ("read", record(first, Some(first), None, true, change(Op::Read, None, Some(&full)))),
            ("update", record(later, Some(step), None, false, change(Op::Update, None, Some(&other)))),
            ("update-before", record(later, Some(step), None, true, change(Op::Update, Some(&full), Some(&other)))),
            ("delete", record(later, Some(step), None, true, change(Op::Delete, Some(&full), None))),
            ("truncate", record(later, Some(step), None, true, change(Op::Truncate, None, None))),
            ("commit", record(end, Some(later), None, true, Body::Commit)),
        ];
        shapes.extend(bodies.map(|(name, record)| (format!("{engine}-{name}"), record)));
    }
    shapes.extend(two_way().into_iter().map(|(name, record)| (name.to_owned(), record)));
    shapes
}

/// What only two-way pipelines write.
fn two_way() -> Vec<(&'static str, Record)> {
    let schema = schema(Engine::Postgres);
    let uuid = Cell::Present(Value::Uuid([7; 16]));
    let full = row(&[Cell::Present(Value::Int(-1)), Cell::Present(Value::Text("ž")), Cell::Present(Value::Null), uuid]);
    let (table, key) = (schema.table.clone(), schema.key_of(&full).unwrap());
    let seen = |image| Some(Seen { image, row: None });
    let echo = Echo {
        offset: Some(Offset(4711)),
        parked: vec![
            ParkedEcho { table: table.clone(), key: key.clone(), offset: Offset(4711), seen: seen(Image::UNKNOWN) },
            ParkedEcho { table: table.clone(), key: key.clone(), offset: Offset(0), seen: None },
        ],
        unparked: vec![
            UnparkedEcho { table: table.clone(), key: key.clone(), written: true },
            UnparkedEcho { table, key: key.clone(), written: false },
        ],
    };
    let told = |seen| ParkedEcho { table: schema.table.clone(), key: key.clone(), offset: Offset(3), seen };
    let parked = vec![told(Some(Seen::of(Some(full.clone())))), told(Some(Seen::of(None)))];
    let echo_of_seen = Echo { offset: Some(Offset(4)), parked, unparked: Vec::new() };
    let marker = |echo, position: &str, previous: &str| Record {
        origin: DatabaseName::new("crm"),
        position: position.parse().unwrap(),
        previous: Some(previous.parse().unwrap()),
        transaction: Some(Arc::from("749")),
        last: true,
        commit_time: 1_700_000_000_123_456,
        body: Body::Marker(echo),
    };
    let nobody = |body| Record::of_nobody(1_700_000_000_123_456, body);
    let member = |name: &str, priority| TwoWayMember { name: DatabaseName::new(name), priority };
    let rules = |strategy, on_delete, merge| TableRules {
        schema: schema.clone(),
        strategy,
        on_delete,
        merge,
        timestamp_column: None,
        document: Default::default(),
    };
    let merge = Merge { delta: vec!["price".to_owned()], ..Merge::default() };
    let tables = vec![
        rules(Rule::Timestamp, OnDelete::ByStrategy, Some(merge)),
        rules(Rule::FirstWrite, OnDelete::DeleteWins, Some(Merge::default())),
        rules(Rule::Priority, OnDelete::UpdateWins, None),
        rules(Rule::Reject, OnDelete::ByStrategy, None),
        rules(Rule::Manual, OnDelete::ByStrategy, None),
    ];
    let configuration = TwoWay { members: vec![member("crm", 10), member("shop", -1)], tables, merged_seeds: false };
    let merged_seeds =
        TwoWay { tables: configuration.tables[2..3].to_vec(), merged_seeds: true, ..configuration.clone() };
    let decision = |op, before: Option<&Row>, after: Option<&Row>, seen| {
        let change = Change { schema: schema.clone(), op, before: before.cloned(), after: after.cloned() };
        nobody(Body::Decision(Decision { change, seen }))
    };
    vec![
        ("marker", marker(echo, "16/B374D848+0", "16/B374D847+3")),
        ("marker-of-a-take-over", marker(Echo::default(), "000012:4711+0", "000011:1048576+3")),
        ("configuration", nobody(Body::Configuration(Arc::new(configuration)))),
        ("decision-row", decision(Op::Create, None, Some(&full), Image::Absent)),
        ("resume", nobody(Body::Resume("customer".into()))),
        ("configuration-of-merged-seeds", nobody(Body::Configuration(Arc::new(merged_seeds)))),
        ("seeded", nobody(Body::Seeded("customer".into()))),
        ("decision-delete", decision(Op::Delete, Some(&full), None, Image::Row([9; 16]))),
        ("marker-of-rows-seen", marker(echo_of_seen, "16/B374D849+0", "16/B374D848+0")),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn unhex(text: &str) -> Bytes {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn records_of_version_1_stay_readable() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/bus/records-v1.txt");
    if std::env::var_os("SYNC_WORKER_UPDATE").is_some() {
        let lines = shapes()
            .iter()
            .fold(String::new(), |text, (name, record)| format!("{text}{name} {}\n", hex(&encoded(record))));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, lines).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    assert_eq!(golden.lines().count(), shapes().len());
    let mut decoder = Decoder::default();
    for (line, (name, record)) in golden.lines().zip(shapes()) {
        let (golden_name, bytes) = line.split_once(' ').unwrap();
        assert_eq!(golden_name, name);
        let bytes = unhex(bytes);
        let known = [schema(Engine::Postgres), schema(Engine::Mysql)];
        let decoded = decoder.decode(&bytes, |id| known.iter().find(|schema| schema.id == id).cloned()).unwrap();
        assert!(same(&decoded, &record), "{name} means something else");
        assert_eq!(encoded(&record), bytes, "{name} is written in another way under the same version");
    }
}

#[test]
fn rows_are_decoded_without_a_copy() {
    let (_, record) = shapes().into_iter().find(|(name, _)| name == "postgres-update-before").unwrap();
    let bytes = encoded(&record);
    let decoded = Decoder::default().decode(&bytes, |_| Some(schema(Engine::Postgres))).unwrap();
    let Body::Change(change) = decoded.body else { panic!("it was a change") };
    let within = bytes.as_ptr_range();
    for row in [change.before.unwrap(), change.after.unwrap()] {
        assert!(within.contains(&row.as_bytes().as_ptr()));
    }
}

#[test]
fn a_usual_previous_position_costs_nothing() {
    let mut shapes = shapes().into_iter();
    let (_, mut record) = shapes.find(|(name, _)| name == "mysql-update").unwrap();
    let step = encoded(&record).len();
    record.previous = None;
    assert_eq!(encoded(&record).len(), step);
}

proptest! {
    #[test]
    fn every_record_round_trips(seed: u64, mysql: bool) {
        let engine = if mysql { Engine::Mysql } else { Engine::Postgres };
        let mut records = Records::new("crm", engine, seed);
        records.alter_every = 2;
        let mut known: Vec<Arc<Schema>> = Vec::new();
        let mut decoder = Decoder::default();
        for record in (0..4).flat_map(|_| records.transaction()) {
            let bytes = encoded(&record);
            if let Body::Schema(schema) = &record.body {
                known.push(schema.clone());
            }
            let decoded = decoder.decode(&bytes, |id| known.iter().find(|schema| schema.id == id).cloned());
            prop_assert!(same(&decoded.unwrap(), &record));
        }
    }

    #[test]
    fn every_marker_round_trips(
        offset: Option<u32>,
        parked in prop::collection::vec(any::<(String, Vec<u8>, u64, Option<(Option<[u8; 16]>, Option<String>)>)>(), 0..8),
        unparked: Vec<(String, Vec<u8>, bool)>,
    ) {
        let name = |table: &str, key: Vec<u8>| (TableName::new(table), Key::from_bytes(key.into()));
        let echo = Echo {
            offset: offset.map(|offset| Offset(offset.into())),
            parked: parked.into_iter().map(|(table, key, offset, seen)| {
                let (table, key) = name(&table, key);
                let one = |text: String| row(&[Cell::Present(Value::Text(&text))]);
                let seen = seen.map(|(image, text)| match image {
                    None => Seen::NOTHING,
                    Some(image) => Seen { image: Image::Row(image), row: text.map(one) },
                });
                ParkedEcho { table, key, offset: Offset(offset), seen }
            }).collect(),
            unparked: unparked.into_iter().map(|(table, key, written)| {
                let (table, key) = name(&table, key);
                UnparkedEcho { table, key, written }
            }).collect(),
        };
        let (_, record) = two_way().remove(0);
        let record = Record { body: Body::Marker(echo), ..record };
        let decoded = Decoder::default().decode(&encoded(&record), |_| None).unwrap();
        prop_assert!(same(&decoded, &record));
    }

    #[test]
    fn every_configuration_round_trips(
        members: Vec<(String, i64)>,
        tables in prop::collection::vec((0usize..5, 0usize..3, any::<Option<Vec<String>>>(), any::<bool>()), 0..4),
        merged_seeds: bool,
    ) {
        let member = |(name, priority): (String, i64)| TwoWayMember { name: DatabaseName::new(&name), priority };
        let tables = tables.into_iter().map(|(strategy, on_delete, delta, mysql)| TableRules {
            document: Default::default(),
            schema: schema(if mysql { Engine::Mysql } else { Engine::Postgres }),
            strategy: Rule::ALL[strategy],
            on_delete: OnDelete::ALL[on_delete],
            merge: delta.map(|delta| {
                let columns = delta.clone();
                let group = ColumnGroup { columns, strategy: Rule::ALL[4 - strategy] };
                Merge { groups: if mysql { vec![group] } else { Vec::new() }, delta }
            }),
            timestamp_column: mysql.then(|| "changed".to_owned()),
        });
        let two_way = TwoWay { members: members.into_iter().map(member).collect(), tables: tables.collect(), merged_seeds };
        let record = Record::of_nobody(-1, Body::Configuration(Arc::new(two_way)));
        let decoded = Decoder::default().decode(&encoded(&record), |_| None).unwrap();
        prop_assert!(same(&decoded, &record));
    }

    /// Whatever a damaged or hostile file holds, decoding ends with a record or an error.
    #[test]
    fn foreign_bytes_never_panic(bytes: Vec<u8>, shape in 0usize..24, at: prop::sample::Index, byte: u8) {
        let known = || Some(schema(Engine::Postgres));
        let read = |bytes: Vec<u8>| drop(Decoder::default().decode(&bytes.into(), |_| known()));
        read(bytes.clone());
        drop(decode_schema(&bytes));
        let mut changed = encoded(&shapes()[shape].1).to_vec();
        let index = at.index(changed.len());
        changed[index] = byte;
        read(changed.clone());
        changed.truncate(index);
        read(changed);
        let mut out = BytesMut::new();
        encode_schema(&schema(Engine::Mysql), &mut out);
        let index = at.index(out.len());
        out[index] = byte;
        drop(decode_schema(&out));
    }
}
