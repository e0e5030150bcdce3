use super::*;
use crate::convert::Conversion;
use crate::document::field;

fn schema(columns: &[(&str, &str)], key: usize) -> Schema {
    let column = |(name, kind): &(&str, &str)| Column {
        name: (*name).to_owned(),
        kind: kind.parse().unwrap(),
        type_name: (*kind).to_owned(),
        nullable: true,
        generated: false,
    };
    Schema::new("t".into(), Engine::Postgres, columns.iter().map(column).collect(), (0..key).collect())
}

fn key_of(cells: &[Value<'_>]) -> Key {
    let mut builder = RowBuilder::default();
    cells.iter().for_each(|value| builder.push(Cell::Present(*value)));
    Key::from_bytes(builder.finish().as_bytes().clone())
}

fn document(build: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::default();
    build(&mut writer);
    writer.finish().unwrap()
}

fn row(id: Value<'_>, document: Cell<'_>) -> Row {
    let mut builder = RowBuilder::default();
    builder.push(Cell::Present(id));
    builder.push(document);
    builder.finish()
}

/// What a relational target makes of a projected row, column by column.
fn shown(table: &Schema, row: &Row) -> Vec<String> {
    let show = |(cell, column): (Result<Cell<'_>, Damaged>, &Column)| match cell.unwrap() {
        Cell::Unchanged => "unchanged".to_owned(),
        Cell::Present(Value::Null) => "null".to_owned(),
        Cell::Present(value) => {
            let mut scratch = String::new();
            match Conversion::new(&ColumnType::Field, &column.kind).unwrap().apply(value, &mut scratch) {
                Ok(value) => format!("{value:?}"),
                Err(refusal) => format!("refused: {refusal}"),
            }
        }
    };
    row.cells().zip(&table.columns).map(show).collect()
}

#[test]
fn every_column_type_comes_back_from_a_field_as_it_went() {
    let values: [(&str, Value<'_>); 25] = [
        ("bool", Value::Bool(true)),
        ("int(8)", Value::Int(-128)),
        ("int(32)", Value::Int(i64::from(i32::MIN))),
        ("int(64)", Value::Int(i64::MAX)),
        ("uint(32)", Value::Int(4_294_967_295)),
        ("uint(64)", Value::UInt(u64::MAX)),
        ("float32", Value::Float32(0.1)),
        ("float64", Value::Float64(-0.0)),
        ("float64", Value::Float64(f64::INFINITY)),
        ("decimal(10,2)", Value::Decimal("-12345678.90")),
        ("decimal", Value::Decimal("NaN")),
        ("decimal", Value::Decimal("0.0000000000000000000000000000000001")),
        ("text", Value::Text("žluťoučký \0 kůň")),
        ("text(3)", Value::Text("漢字🐎")),
        ("enum", Value::Text("label")),
        ("bytes", Value::Bytes(&[0, 255])),
        ("bytes(2,padded)", Value::Bytes(&[1, 0])),
        ("date", Value::Date(-719_162)),
        ("time(6)", Value::Time(-3_020_399_000_001)),
        ("timestamp(3)", Value::Timestamp(-1_000)),
        ("timestamptz(6)", Value::TimestampTz(1_700_000_000_123_000)),
        ("year", Value::Int(2155)),
        ("uuid", Value::Uuid([7; 16])),
        ("json", Value::Json(r#"{"a":[1,2.5,null,"x"],"b":{"c":true}}"#)),
        ("bits(3)", Value::Bits("101")),
    ];
    for (kind, value) in values {
        let kind: ColumnType = kind.parse().unwrap();
        let bytes = document(|out| field::put(out, "v", value, &kind).unwrap());
        let element = Document::new(&bytes).unwrap().get("v").unwrap().unwrap();
        let raw = raw(element.kind, element.bytes);
        let mut scratch = String::new();
        let conversion = Conversion::new(&ColumnType::Field, &kind).unwrap();
        let back = conversion.apply(Value::Raw(&raw), &mut scratch).unwrap();
        assert_eq!(back, value, "{kind}");
    }
}

#[test]
fn values_that_a_document_can_t_hold_are_refused() {
    for (kind, value) in [
        ("timestamp(6)", Value::Timestamp(1)),
        ("timestamp(6)", Value::Timestamp(i64::MAX)),
        ("date", Value::Date(i32::MAX)),
        ("decimal", Value::Decimal("12345678901234567890123456789012345")),
        ("named(postgres,inet)", Value::Raw(b"10.0.0.1")),
        ("json", Value::Json("{")),
    ] {
        let kind: ColumnType = kind.parse().unwrap();
        let refused = field::put(&mut Writer::default(), "v", value, &kind).unwrap_err().to_string();
        assert!(!refused.contains("10.0.0.1"), "{refused}");
    }
}

#[test]
fn a_documents_fields_become_columns_and_the_rest_is_refused_by_name() {
    let table = schema(&[("id", "int(64)"), ("name", "text"), ("n", "int(32)"), ("extra", "json")], 1);
    let bytes = document(|out| {
        out.put(kind::INT32, "_id", &5i32.to_le_bytes()).unwrap();
        out.text("name", "x").unwrap();
        out.put(kind::DOUBLE, "n", &3.0f64.to_le_bytes()).unwrap();
        out.put(kind::OBJECT_ID, "other", &[1; 12]).unwrap();
    });
    let whole = row(Value::Int(5), Cell::Present(Value::Document(&bytes)));
    let projected = |mapping| shown(&table, &Projection::new(&table, mapping).row(&whole).unwrap());
    let refused = projected(DocumentMapping::default());
    assert!(refused[1].contains("field \"other\""), "{refused:?}");
    let ignore = DocumentMapping { other_fields: OtherFields::Ignore, ..Default::default() };
    assert_eq!(projected(ignore), ["Int(5)", "Text(\"x\")", "Int(3)", "null"]);
    let column = DocumentMapping { other_fields: OtherFields::Column("extra".to_owned()), ..Default::default() };
    let rest = "Json(\"{\\\"other\\\":{\\\"$oid\\\":\\\"010101010101010101010101\\\"}}\")";
    assert_eq!(projected(column), ["Int(5)", "Text(\"x\")", "Int(3)", rest]);
}

#[test]
fn a_patch_sets_whole_fields_and_refuses_parts_of_them() {
    let table = schema(&[("id", "int(64)"), ("name", "text"), ("n", "int(32)"), ("j", "json")], 1);
    let patch = |set: &dyn Fn(&mut Writer), removed: &[&str]| {
        document(|out| {
            out.begin(kind::ARRAY, "r").unwrap();
            for (at, path) in removed.iter().enumerate() {
                out.text(&at.to_string(), path).unwrap();
            }
            out.end().unwrap();
            out.begin(kind::DOCUMENT, "u").unwrap();
            set(out);
            out.end().unwrap();
        })
    };
    let projection = Projection::new(&table, DocumentMapping::default());
    let look =
        |bytes: &[u8]| shown(&table, &projection.row(&row(Value::Int(5), Cell::Present(Value::Patch(bytes)))).unwrap());
    let plain = patch(&|out| out.put(kind::INT32, "n", &1i32.to_le_bytes()).unwrap(), &["name"]);
    assert_eq!(look(&plain), ["Int(5)", "null", "Int(1)", "unchanged"]);
    let nested = patch(&|out| out.put(kind::INT32, "j.a", &1i32.to_le_bytes()).unwrap(), &[]);
    assert!(look(&nested)[3].contains("collMod"), "{:?}", look(&nested));
}

#[test]
fn keys_go_both_ways() {
    let single = schema(&[("code", "text"), ("n", "int(32)")], 1);
    let projection = Projection::new(&single, DocumentMapping::default());
    for id in [Value::Int(7), Value::Text("x"), Value::Uuid([1; 16]), Value::Raw(b"\x07abcdefghijkl")] {
        let id = key_of(&[id]);
        assert_eq!(projection.id(&projection.key(&id).unwrap()).unwrap(), id);
    }
    let composite = schema(&[("a", "int(32)"), ("b", "text"), ("n", "int(32)")], 2);
    let projection = Projection::new(&composite, DocumentMapping::default());
    let columns = key_of(&[Value::Int(1), Value::Text("x")]);
    let id = projection.id_of_columns(&columns, &composite).unwrap().unwrap();
    assert_eq!(projection.id(&projection.key(&id).unwrap()).unwrap(), id);
    let bytes = document(|out| {
        out.begin(kind::DOCUMENT, "_id").unwrap();
        out.put(kind::INT32, "a", &1i32.to_le_bytes()).unwrap();
        out.text("b", "x").unwrap();
        out.end().unwrap();
    });
    let Some(Ok(Cell::Present(value))) = id.cells().next() else { panic!() };
    let projected = projection.row(&row(value, Cell::Present(Value::Document(&bytes)))).unwrap();
    assert_eq!(shown(&composite, &projected), ["Int(1)", "Text(\"x\")", "null"]);
}
