//! Bytes that no server would send: refused or passed over, never a panic, never a loop without an end.

use super::collations::{Collation, Collations};
use super::decoder::{Decoder, Step};
use super::event::{self, Header};
use super::payload::Payload;
use super::plan::{Catalogs, Plan};
use super::prepared::{Keep, Prepared};
use super::rows::RowDecoder;
use super::statement::Statement;
use super::table_map::{self, MapColumn, TableMap, code};
use super::tables::{Case, Tables};
use crate::catalog::QualifiedName;
use crate::codec::charset::Charset;
use crate::codec::{Format, Scratch, json, json_diff, protocol};
use crate::gtid::GtidSet;
use proptest::collection::vec;
use proptest::prelude::*;
use sync_worker_core::position::{Epoch, MysqlPosition};

const CODES: [u8; 25] = [
    code::TINY,
    code::SHORT,
    code::LONG,
    code::FLOAT,
    code::DOUBLE,
    code::LONGLONG,
    code::INT24,
    code::DATE,
    code::YEAR,
    code::VARCHAR,
    code::BIT,
    code::TIMESTAMP2,
    code::DATETIME2,
    code::TIME2,
    code::VECTOR,
    code::JSON,
    code::NEWDECIMAL,
    code::ENUM,
    code::SET,
    code::BLOB,
    code::VAR_STRING,
    code::STRING,
    code::GEOMETRY,
    14,
    200,
];

fn collations() -> Collations {
    let collation = |name: &str, charset| Collation { character_set: name.to_owned(), width: 4, charset };
    [
        (1, collation("utf8mb4", Some(Charset::Utf8))),
        (2, collation("binary", None)),
        (3, collation("utf16", Some(Charset::Utf16Be))),
        (4, collation("utf32", Some(Charset::Utf32))),
        (5, collation("utf16le", Some(Charset::Utf16Le))),
        (6, collation("short", Some(Charset::Single(vec!['a'; 3].into())))),
    ]
    .into()
}

fn column() -> impl Strategy<Value = MapColumn> {
    let labels = vec(vec(any::<u8>(), 0..3), 0..4);
    let parts = (0..CODES.len(), any::<[u8; 2]>(), any::<bool>(), any::<bool>(), 0..8u64, labels);
    parts.prop_map(|(at, meta, nullable, unsigned, collation, labels)| MapColumn {
        name: String::new(),
        code: CODES[at],
        meta,
        nullable,
        unsigned,
        collation: Some(collation),
        labels,
    })
}

fn table() -> impl Strategy<Value = TableMap> {
    vec(column(), 1..9).prop_map(|mut columns| {
        for (at, column) in columns.iter_mut().enumerate() {
            column.name = format!("c{at}");
        }
        TableMap { database: "d".into(), table: "t".into(), columns, named: true, primary_key: vec![0] }
    })
}

fn decoder() -> (Decoder, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let name = QualifiedName { database: "d".into(), table: "t".into() };
    let tables = Tables::new(vec![(name, "t".into())], Case::Kept, collations());
    let start = MysqlPosition { file: 1, offset: 4, ordinal: 0 };
    let prepared = Prepared::new(folder.path(), Keep::Ours).expect("a folder for what is prepared");
    let mut decoder = Decoder::new(tables, Epoch("e".into()), start, GtidSet::default(), prepared);
    decoder.set_checksum(false);
    (decoder, folder)
}

fn event_bytes(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 0, kind, 1, 0, 0, 0];
    bytes.extend_from_slice(&u32::try_from(event::HEADER + body.len()).unwrap_or(0).to_le_bytes());
    bytes.extend_from_slice(&[0; 6]);
    bytes.extend_from_slice(body);
    bytes
}

proptest! {
    #[test]
    fn rows_of_any_table(map in table(), kind in 23u8..40, body in vec(any::<u8>(), 0..300)) {
        if let Ok(plan) = Plan::new(&"t".into(), &map, Catalogs::default(), &collations()) {
            let mut changes = Vec::new();
            let _refused = RowDecoder::default().changes(kind, &body, &plan, &mut changes);
            for change in &changes {
                prop_assert!(change.key().is_ok(), "a row without its key came through");
            }
        }
    }

    /// The same with a header that fits, so that values are reached.
    #[test]
    fn values_of_any_table(map in table(), values in vec(any::<u8>(), 0..300)) {
        if let Ok(plan) = Plan::new(&"t".into(), &map, Catalogs::default(), &collations()) {
            let columns = map.columns.len();
            for kind in [event::WRITE_ROWS, event::PARTIAL_UPDATE_ROWS] {
                let mut body = vec![0, 0, 2, 0, u8::try_from(columns).unwrap_or(0)];
                let images = if kind == event::WRITE_ROWS { 1 } else { 2 };
                body.extend(std::iter::repeat_n(0xFF, columns.div_ceil(8) * images));
                body.extend(std::iter::repeat_n(0, columns.div_ceil(8)));
                body.extend_from_slice(&values);
                let _refused = RowDecoder::default().changes(kind, &body, &plan, &mut Vec::new());
            }
        }
    }

    #[test]
    fn table_maps(bytes in vec(any::<u8>(), 0..200), kind in 0u8..14, value in vec(any::<u8>(), 0..40)) {
        let _parsed = table_map::parse(&bytes);
        let mut body = vec![0, 0, 1, b'd', 0, 1, b't', 0, 2, code::VARCHAR, code::ENUM, 2, 10, 0, 0];
        body.extend_from_slice(&[kind, u8::try_from(value.len()).unwrap_or(0)]);
        body.extend_from_slice(&value);
        let _parsed = table_map::parse(&body);
    }

    #[test]
    fn any_run_of_events(events in vec((0u8..46, vec(any::<u8>(), 0..120)), 0..12)) {
        let (mut decoder, _folder) = decoder();
        for (kind, body) in events {
            let bytes = event_bytes(kind, &body);
            match decoder.event(&bytes) {
                Ok((Step::Payload, body)) => {
                    if let Ok(mut payload) = Payload::open(body) {
                        while let Ok(Some(_)) = payload.next() {}
                    }
                }
                Ok((Step::Catalog(name), _)) => decoder.tables.learn(name, None),
                Ok((Step::Done | Step::Defaults(_) | Step::Decided(_) | Step::Undecided { .. }, _)) | Err(_) => {}
            }
            decoder.batch();
        }
    }

    #[test]
    fn any_bytes_as_an_event(bytes in vec(any::<u8>(), 0..100)) {
        let _header = Header::read(&mut &bytes[..]);
        let (mut decoder, _folder) = decoder();
        let _refused = decoder.event(&bytes);
        let _inner = decoder.inner(&bytes);
        for parse in [event::gtid, event::gtid_tagged] {
            let _parsed = parse(&bytes);
        }
        let _parsed = (event::query(&bytes).is_ok(), event::rotate(&bytes), event::payload(&bytes).is_ok());
    }

    #[test]
    fn any_text_as_a_statement(text in ".*", bytes in vec(any::<u8>(), 0..60)) {
        Statement::parse(text.as_bytes());
        Statement::parse(&bytes);
        for verb in ["ALTER TABLE ", "DROP TABLE ", "TRUNCATE ", "RENAME TABLE ", "INSERT INTO "] {
            Statement::parse(format!("{verb}{text}").as_bytes());
        }
    }

    #[test]
    fn any_bytes_as_json(kind in 0u8..16, bytes in vec(any::<u8>(), 0..80), path in "\\$(\\.[a-z]|\\[[0-9]\\]){0,3}") {
        let mut document = vec![kind];
        document.extend_from_slice(&bytes);
        let mut text = String::new();
        if json::print(&document, &mut text).is_ok() {
            prop_assert!(!text.is_empty());
        }
        let mut steps = vec![0, u8::try_from(path.len()).unwrap_or(0)];
        steps.extend_from_slice(path.as_bytes());
        steps.push(u8::try_from(document.len()).unwrap_or(0));
        steps.extend_from_slice(&document);
        let _refused = json_diff::apply(&document, &steps, &mut text);
        let _refused = json_diff::apply(&document, &bytes, &mut text);
    }

    #[test]
    fn any_bytes_as_protocol_values(bytes in vec(any::<u8>(), 0..40)) {
        let mut scratch = Scratch::default();
        for format in [
            Format::Int { width: 8, unsigned: true },
            Format::Int { width: 3, unsigned: false },
            Format::Float { literal: true },
            Format::Double { literal: true },
            Format::Decimal { precision: 65, scale: 30 },
            Format::Year,
            Format::Date,
            Format::Time { digits: 6 },
            Format::DateTime { digits: 6 },
            Format::Timestamp { digits: 6 },
            Format::Bit { length: 64 },
            Format::Text { prefix: 0, charset: Charset::Utf8 },
            Format::Json { prefix: 0 },
            Format::Opaque { prefix: 0 },
        ] {
            let _refused = protocol::decode(&format, &mut &bytes[..], &mut scratch).is_ok();
        }
    }
}
