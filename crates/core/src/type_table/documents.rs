//! The part of the page about documents: what becomes of samples at the edges of each type, as the code itself does it.

use super::{TypeRow, line, table};
use crate::convert::{Class, Conversion};
use crate::decimal::Digits;
use crate::document::decimal::Decimal;
use crate::document::mapping::Times;
use crate::document::write::Writer;
use crate::document::{Document, Element, field, id, kind};
use crate::types::{ColumnType, Engine};
use crate::value::Value;

pub(super) fn part(page: &mut String) {
    page.push_str(FROM_FIELDS);
    line(
        page,
        format_args!(
            "| BSON type | `_id` travels as | every value, and it comes back the same | every value, and it comes back as another type | some values, the others are refused |"
        ),
    );
    line(page, format_args!("|---|---|---|---|---|"));
    for (name, kind, samples) in fields() {
        let mut ways: [Vec<&str>; 3] = Default::default();
        for (family, column) in COLUMNS {
            let Ok(column) = column.parse::<ColumnType>() else { continue };
            if let Some(way) = way(kind, &samples, &column) {
                ways[way as usize].push(family);
            }
        }
        let [same, other, some] = ways.map(|families| match families.len() {
            0 => "none".to_owned(),
            count if count == COLUMNS.len() => "all".to_owned(),
            _ => families.join(", "),
        });
        line(page, format_args!("| {name} | {} | {same} | {other} | {some} |", canonical(kind, &samples)));
    }
    page.push_str(FIELD_NOTES);
    for (engine, title) in [(Engine::Postgres, "PostgreSQL"), (Engine::Mysql, "MySQL")] {
        line(page, format_args!("\n### From {title} to fields\n"));
        line(page, format_args!("| {title} type | BSON type | class |"));
        line(page, format_args!("|---|---|---|"));
        for TypeRow { spelling, kind, .. } in table().iter().filter(|row| row.engine == engine) {
            let (names, class) = written(engine, kind);
            line(page, format_args!("| `{spelling}` | {names} | {class} |"));
        }
    }
    page.push_str(COLUMN_NOTES);
}

/// The column types by what the page calls them.
const COLUMNS: &[(&str, &str)] = &[
    ("bool", "bool"),
    ("int(8)", "int(8)"),
    ("int(32)", "int(32)"),
    ("int(64)", "int(64)"),
    ("uint(64)", "uint(64)"),
    ("float32", "float32"),
    ("float64", "float64"),
    ("decimal", "decimal"),
    ("decimal(10,2)", "decimal(10,2)"),
    ("text", "text"),
    ("text(20)", "text(20)"),
    ("bytes", "bytes"),
    ("date", "date"),
    ("time", "time(6)"),
    ("timestamp", "timestamp(3)"),
    ("timestamptz", "timestamptz(3)"),
    ("year", "year"),
    ("uuid", "uuid"),
    ("enum", "enum"),
    ("json", "json"),
    ("bits", "varbits(8)"),
];

/// Each BSON type with values at its edges.
fn fields() -> Vec<(&'static str, u8, Vec<Vec<u8>>)> {
    let text = |texts: &[&str]| texts.iter().map(|text| only(|out| out.text("v", text))).collect();
    let binary =
        |subtype: u8, all: &[&[u8]]| all.iter().map(|bytes| only(|out| out.binary("v", subtype, bytes))).collect();
    let decimal = |text: &str| Decimal::parse(text).map(|number| number.to_bytes().to_vec());
    let empty = vec![5, 0, 0, 0, 0];
    let code = [&2i32.to_le_bytes()[..], b"f\0"].concat();
    vec![
        (
            "double",
            kind::DOUBLE,
            [0.1, 1.0, f64::NAN, f64::INFINITY, f64::MAX].map(|number| number.to_le_bytes().to_vec()).to_vec(),
        ),
        ("int", kind::INT32, [i32::MIN, 0, 1, i32::MAX].map(|number| number.to_le_bytes().to_vec()).to_vec()),
        ("long", kind::INT64, [i64::MIN, 0, 1, i64::MAX].map(|number| number.to_le_bytes().to_vec()).to_vec()),
        ("decimal", kind::DECIMAL128, ["1.50", "1", "NaN", "-1e-30"].into_iter().filter_map(decimal).collect()),
        (
            "string",
            kind::STRING,
            text(&[
                "",
                "žluťoučký kůň úpěl ďábelské",
                "00112233-4455-6677-8899-aabbccddeeff",
                "23:59:59",
                "101",
                "2024-02-29T00:00:00",
                "2024-02-29T00:00:00Z",
            ]),
        ),
        ("bool", kind::BOOL, vec![vec![0], vec![1]]),
        ("date", kind::DATE, [0, -1, 1_709_164_800_000].map(|millis: i64| millis.to_le_bytes().to_vec()).to_vec()),
        ("objectId", kind::OBJECT_ID, vec![vec![1; 12]]),
        ("binData 4 (UUID)", kind::BINARY, binary(4, &[&[1; 16]])),
        ("binData 0", kind::BINARY, binary(0, &[&[], &[0, 255]])),
        ("binData, other subtypes", kind::BINARY, binary(0x80, &[&[1]])),
        ("object", kind::DOCUMENT, vec![empty.clone()]),
        ("array", kind::ARRAY, vec![empty.clone()]),
        ("null", kind::NULL, vec![vec![]]),
        ("undefined", kind::UNDEFINED, vec![vec![]]),
        ("timestamp", kind::TIMESTAMP, vec![vec![0; 8]]),
        ("regex", kind::REGEX, vec![b"^a\0i\0".to_vec()]),
        ("javascript", kind::CODE, vec![code.clone()]),
        ("javascriptWithScope", kind::CODE_WITH_SCOPE, vec![[&15i32.to_le_bytes()[..], &code, &empty].concat()]),
        ("symbol", kind::SYMBOL, vec![code.clone()]),
        ("dbPointer", kind::DB_POINTER, vec![[&code[..], &[1; 12]].concat()]),
        ("minKey, maxKey", kind::MIN_KEY, vec![vec![]]),
    ]
}

/// The bytes of the only field of a document.
fn only(put: impl Fn(&mut Writer) -> Result<(), crate::value::Damaged>) -> Vec<u8> {
    let mut out = Writer::default();
    let document = put(&mut out).and_then(|()| out.finish()).unwrap_or_default();
    let field = Document::new(&document).and_then(|document| document.get("v")).ok().flatten();
    field.map(|field| field.bytes.to_vec()).unwrap_or_default()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Same = 0,
    Other = 1,
    Some = 2,
}

/// None: every value is refused.
fn way(kind: u8, samples: &[Vec<u8>], column: &ColumnType) -> Option<Way> {
    let conversion = Conversion::new(&ColumnType::Field, column).ok()?;
    let (mut taken, mut same) = (0, true);
    for bytes in samples {
        let mut scratch = String::new();
        let raw = [&[kind], &bytes[..]].concat();
        let Ok(value) = conversion.apply(Value::Raw(&raw), &mut scratch) else { continue };
        taken += 1;
        let mut out = Writer::default();
        let back = field::put(&mut out, "v", value, column, Times::Refuse).ok().and_then(|()| out.finish().ok());
        let field = back.as_deref().and_then(|back| Document::new(back).ok()?.get("v").ok()?);
        same &= field.is_some_and(|field| field.kind == kind && field.bytes == &bytes[..]);
    }
    match taken {
        0 => None,
        all if all == samples.len() => Some(if same { Way::Same } else { Way::Other }),
        _ => Some(Way::Some),
    }
}

fn canonical(kind: u8, samples: &[Vec<u8>]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for bytes in samples {
        let mut scratch = Vec::new();
        let name = match id::canonical(Element { kind, name: "_id", bytes }, &mut scratch) {
            Ok(Value::Int(_)) => "int",
            Ok(Value::Text(_)) => "text",
            Ok(Value::Bool(_)) => "bool",
            Ok(Value::TimestampTz(_)) => "timestamptz",
            Ok(Value::Uuid(_)) => "uuid",
            Ok(Value::Bytes(_)) => "bytes",
            Ok(_) | Err(_) => "its own bytes",
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.join(" or ")
}

/// The BSON types that a column's values become, and the class of the way there.
fn written(engine: Engine, column: &ColumnType) -> (String, String) {
    let (mut names, mut refused): (Vec<&str>, bool) = (Vec::new(), false);
    for value in samples(engine, column) {
        let mut out = Writer::default();
        let document = field::put(&mut out, "v", value, column, Times::Refuse).ok().and_then(|()| out.finish().ok());
        let field = document.as_deref().and_then(|bytes| Document::new(bytes).ok()?.get("v").ok()?);
        match field.map(|field| (kind::name(field.kind), field)) {
            Some(("binData", field)) => match id::binary(field) {
                Ok((4, _)) => names.push("binData 4"),
                Ok(_) | Err(_) => names.push("binData 0"),
            },
            Some((name, _)) => names.push(name),
            None => refused = true,
        }
    }
    names.dedup();
    let class = if refused { Class::Lossy } else { Class::Widened };
    match names.is_empty() {
        true => ("none".to_owned(), "refused".to_owned()),
        false if matches!(column, ColumnType::Json { .. }) => ("any".to_owned(), class.to_string()),
        false => (names.join(", "), class.to_string()),
    }
}

/// Values at the edges of a column's type.
fn samples(engine: Engine, column: &ColumnType) -> Vec<Value<'static>> {
    // PostgreSQL alone has infinite dates and times.
    let wide = engine == Engine::Postgres;
    let micros = |precision: u8| if precision > 3 { 1 } else { 1_000 };
    match *column {
        ColumnType::Bool => vec![Value::Bool(true)],
        ColumnType::Int { bits: 64, unsigned: true } => vec![Value::Int(0), Value::UInt(u64::MAX)],
        ColumnType::Int { .. } => vec![Value::Int(0)],
        ColumnType::Year => vec![Value::Int(2155)],
        ColumnType::Float32 => vec![Value::Float32(f32::MAX)],
        ColumnType::Float64 => vec![Value::Float64(f64::MAX)],
        ColumnType::Decimal { precision: None, .. } => vec![Value::Decimal("0.1"), Value::Decimal(LONG)],
        ColumnType::Decimal { precision: Some(precision), .. } => {
            // As many digits as the column has.
            let most = LONG.get(..usize::from(precision)).unwrap_or(LONG);
            debug_assert!(Digits::parse(most).is_some());
            vec![Value::Decimal("0.1"), Value::Decimal(most)]
        }
        ColumnType::Text { .. } | ColumnType::Enum | ColumnType::Set => vec![Value::Text("a")],
        ColumnType::Bytes { .. } => vec![Value::Bytes(&[0])],
        ColumnType::Date if wide => vec![Value::Date(0), Value::Date(i32::MAX)],
        ColumnType::Date => vec![Value::Date(0)],
        ColumnType::Time { .. } => vec![Value::Time(1)],
        ColumnType::Timestamp { precision } if wide => {
            vec![Value::Timestamp(0), Value::Timestamp(i64::MAX), Value::Timestamp(micros(precision))]
        }
        ColumnType::TimestampTz { precision } if wide => {
            vec![Value::TimestampTz(0), Value::TimestampTz(i64::MAX), Value::TimestampTz(micros(precision))]
        }
        ColumnType::Timestamp { precision } => vec![Value::Timestamp(0), Value::Timestamp(micros(precision))],
        ColumnType::TimestampTz { precision } => vec![Value::TimestampTz(0), Value::TimestampTz(micros(precision))],
        ColumnType::Uuid => vec![Value::Uuid([1; 16])],
        ColumnType::Json { .. } => vec![Value::Json("{}"), Value::Json(LONG)],
        ColumnType::Bits { .. } => vec![Value::Bits("1")],
        ColumnType::Id | ColumnType::Document | ColumnType::Field | ColumnType::Named { .. } => Vec::new(),
    }
}

/// More digits than a decimal of MongoDB has.
const LONG: &str = "1234567890123456789012345678901234567890";

const FROM_FIELDS: &str = "
## MongoDB

Between two MongoDB databases documents go through byte for byte. To and from a relational table a column is a top-level
field of its name; a single key column is `_id` itself, several are the fields of an `_id` that is a document, in the
order of the key. `document` of a table in the configuration says what is different; its `key` names fields that the
key columns are instead, and `_id` is MongoDB's or the application's own then.

A document's field may be of any type, so it is the value that decides, not the type of a column: it goes into the
columns that the table names, or its row is refused. `sync-worker verify` compares what a column says with the field, so
that 1 as int, as long and as double are equal to an integer's 1.

### From fields to columns

";

const FIELD_NOTES: &str = "
- **missing and null**: a field that a document lacks is NULL in its row, as one that is null; a table can't tell them
  apart. An update that leaves a field alone leaves the column alone. A column that is NOT NULL refuses both.
- **numbers**: any type of number goes into any column of numbers where its value is exactly that; a double does not go
  into a decimal unless it is whole. A decimal keeps its zeros at the end, and its exponent is written out.
- **dates**: milliseconds since 1970 in UTC. Into a column of whole seconds go whole seconds, into a `date` midnights.
- **string**: into columns of times and timestamps in ISO 8601 (`23:59:59.000001`, `2024-02-29T23:59:59.000001`, with a
  `Z` at the end where the column has a zone), into a uuid with or without hyphens, into bits as `0` and `1`.
- **objectId**: as 24 hexadecimal digits into text, as 12 bytes into bytes: the column's type chooses.
- **UUID**: a binary of subtype 4 into a uuid, into text with hyphens, into bytes as 16 of them.
- **object and array**: into JSON. What JSON has no word for stands there as canonical extended JSON, as in
  `{\"$numberDecimal\":\"1.50\"}`; doubles always have a fraction or an exponent, so that they are told from integers.
- **minKey, maxKey, regex, code, symbol, dbPointer, timestamp**: into JSON alone, as canonical extended JSON.
- **keys**: an `_id` that the table's key can't hold is refused, and `sync-worker verify` counts it as a difference. A
  field with the name of a key column has to say what the key says, else it is a field without a column.
- **keys of fields**: what the table says of an `_id` holds for the field, or for each of several. A document in which one
  is missing, null or an array is refused by the field's name; of a composite key each part counts by its value, so that
  1 and 1.0 are one key. `_id` goes nowhere but into a column of that name that is no key column.
- **fields without a column**: `other_fields` refuses them (the default), leaves them out, or puts them into a JSON column.
- **edits below a field**: without post-images the source tells only the part that changed. Where the whole field is not
  known the row is refused, with the `collMod` that turns post-images on.
- **text that is not UTF-8**: a value or a field's name of such bytes is refused in its row.
";

const COLUMN_NOTES: &str = "
- **NULL** is null, never a missing field. A JSON `null` would be the same and is refused.
- **integers**: the column decides, so that all of its values have one type: up to 32 bits with a sign, and up to 24
  without, are int, the others long. Above a long's largest a `bigint unsigned` is a decimal.
- **decimals** of more than 34 digits are refused; a JSON number, too.
- **dates, timestamps**: the date of that moment in milliseconds, one without a zone taken to be in UTC. More digits are
  refused unless the column has `precision` 3 or the table says `times = \"text\"`: then all values of the column are
  texts. Infinite ones are refused, but as text.
- **time**: a string, as in `23:59:59.000001` and `-838:59:59`.
- **JSON**: objects, arrays and scalars of their own; extended JSON becomes the type that it names, so that what came from
  MongoDB goes back as it was. At most 98 levels. A member's name keeps its dots; a column's name must have none.
- **back again**: a row that went to MongoDB and from there to a table of the same columns is the same row. Into a `set`
  of MySQL nothing goes from MongoDB.
";
