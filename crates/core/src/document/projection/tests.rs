use super::*;
use crate::convert::Conversion;
use crate::document::field;
use crate::document::mapping::Times;
use crate::row::Key;

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
        let bytes = document(|out| field::put(out, "v", value, &kind, Times::Refuse).unwrap());
        let element = Document::new(&bytes).unwrap().get("v").unwrap().unwrap();
        let raw = [&[element.kind], element.bytes].concat();
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
        ("json", Value::Json("null")),
    ] {
        let kind: ColumnType = kind.parse().unwrap();
        let refused = field::put(&mut Writer::default(), "v", value, &kind, Times::Refuse).unwrap_err().to_string();
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
    let projected =
        |mapping| shown(&table, &Projection::new(&table, mapping).row(&whole, &mut Room::default()).unwrap());
    let refused = projected(DocumentMapping::default());
    assert!(refused[1].contains("field \"other\""), "{refused:?}");
    // Wherever it stands among the others.
    let first = document(|out| {
        out.text("other", "x").unwrap();
        out.text("name", "x").unwrap();
    });
    let first = row(Value::Int(5), Cell::Present(Value::Document(&first)));
    let refused = shown(&table, &projected_by_default(&table, &first));
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
        |bytes: &[u8]| shown(&table, &projected(&projection, &row(Value::Int(5), Cell::Present(Value::Patch(bytes)))));
    let plain = patch(&|out| out.put(kind::INT32, "n", &1i32.to_le_bytes()).unwrap(), &["name"]);
    assert_eq!(look(&plain), ["Int(5)", "null", "Int(1)", "unchanged"]);
    let nested = patch(&|out| out.put(kind::INT32, "j.a", &1i32.to_le_bytes()).unwrap(), &[]);
    assert!(look(&nested)[3].contains("collMod"), "{:?}", look(&nested));
}

fn projected_by_default(table: &Schema, row: &Row) -> Row {
    projected(&Projection::new(table, DocumentMapping::default()), row)
}

fn projected(projection: &Projection, row: &Row) -> Row {
    projection.row(row, &mut Room::default()).unwrap()
}

/// There and back through the other table's form.
#[track_caller]
fn comes_back(projection: &Projection, id: &Key) {
    let there = projection.key(id, &mut Room::default()).unwrap();
    assert_eq!(projection.id(&there).unwrap(), *id);
    let sealed = projection.sealed(id, &mut Room::default()).unwrap();
    assert!(Projection::is_sealed(&sealed));
    assert_eq!(projection.id(&sealed).unwrap(), *id);
}

#[test]
fn keys_go_both_ways() {
    let single = schema(&[("code", "text"), ("n", "int(32)")], 1);
    let projection = Projection::new(&single, DocumentMapping::default());
    for id in [Value::Int(7), Value::Text("x"), Value::Uuid([1; 16]), Value::Raw(b"\x07abcdefghijkl")] {
        comes_back(&projection, &key_of(&[id]));
    }
    let composite = schema(&[("a", "int(32)"), ("b", "text"), ("n", "int(32)")], 2);
    let projection = Projection::new(&composite, DocumentMapping::default());
    let columns = key_of(&[Value::Int(1), Value::Text("x")]);
    let ids = projection.ids_of_columns(&columns, &composite).unwrap().unwrap();
    assert_eq!(ids.len(), 1);
    comes_back(&projection, &ids[0]);
    let bytes = document(|out| {
        out.begin(kind::DOCUMENT, "_id").unwrap();
        out.put(kind::INT32, "a", &1i32.to_le_bytes()).unwrap();
        out.text("b", "x").unwrap();
        out.end().unwrap();
    });
    let Some(Ok(Cell::Present(value))) = ids[0].cells().next() else { panic!() };
    let projected = projected(&projection, &row(value, Cell::Present(Value::Document(&bytes))));
    assert_eq!(shown(&composite, &projected), ["Int(1)", "Text(\"x\")", "null"]);
}

#[test]
fn a_key_that_does_not_fit_comes_back_exactly() {
    let composite = schema(&[("a", "int(32)"), ("b", "text"), ("n", "int(32)")], 2);
    let projection = Projection::new(&composite, DocumentMapping::default());
    let turned = document(|out| {
        out.text("b", "x\0\0y").unwrap();
        out.put(kind::INT32, "a", &1i32.to_le_bytes()).unwrap();
    });
    let turned = [&[kind::DOCUMENT], &turned[..]].concat();
    let more = document(|out| {
        out.put(kind::INT32, "a", &1i32.to_le_bytes()).unwrap();
        out.text("b", "x").unwrap();
        out.put(kind::NULL, "c", &[]).unwrap();
    });
    let more = [&[kind::DOCUMENT], &more[..]].concat();
    let text = Value::Raw(b"\x02\x03\0\0\0\xff\xfe\0");
    for id in [Value::Int(7), Value::Text("secret"), Value::Raw(&turned), Value::Raw(&more), text] {
        let id = key_of(&[id]);
        comes_back(&projection, &id);
        let Some(Ok(Cell::Present(value))) = id.cells().next() else { panic!() };
        let flat = projected(&projection, &row(value, Cell::Present(Value::Document(&document(|_| {})))));
        assert_eq!(projection.id(&projection.schema().key_of(&flat).unwrap()).unwrap(), id);
        let refused = &shown(&composite, &flat)[0];
        assert!(refused.contains(MISFIT) && !refused.contains("secret"), "{refused}");
    }
    // Words about a field stand in the key where there is nothing else.
    let bare = schema(&[("a", "text")], 1);
    let projection = Projection::new(&bare, DocumentMapping::default());
    let other = document(|out| out.text("other", "x").unwrap());
    let flat = projected(&projection, &row(Value::Text("k"), Cell::Present(Value::Document(&other))));
    assert!(shown(&bare, &flat)[0].contains("\"other\""));
    assert_eq!(projection.id(&projection.schema().key_of(&flat).unwrap()).unwrap(), key_of(&[Value::Text("k")]));
}

#[test]
fn a_field_with_the_name_of_a_key_column_says_what_the_key_says_or_is_another_field() {
    let table = schema(&[("id", "int(64)"), ("n", "int(32)"), ("extra", "json")], 1);
    let look = |other_fields: OtherFields, build: &dyn Fn(&mut Writer)| {
        let bytes = document(|out| build(out));
        let mapping = DocumentMapping { other_fields, ..Default::default() };
        let projection = Projection::new(&table, mapping);
        shown(&table, &projected(&projection, &row(Value::Int(5), Cell::Present(Value::Document(&bytes)))))
    };
    let (same, other) = (
        |out: &mut Writer| out.put(kind::DOUBLE, "id", &5.0f64.to_le_bytes()).unwrap(),
        |out: &mut Writer| {
            out.put(kind::INT32, "id", &42i32.to_le_bytes()).unwrap();
        },
    );
    assert_eq!(look(OtherFields::Refuse, &same), ["Int(5)", "null", "null"]);
    assert!(look(OtherFields::Refuse, &other)[1].contains("not what its key says"));
    assert_eq!(look(OtherFields::Ignore, &other), ["Int(5)", "null", "null"]);
    let rest = look(OtherFields::Column("extra".to_owned()), &other);
    assert_eq!(rest[2], "Json(\"{\\\"id\\\":42}\")");
    // So is one with the name of the column that takes the others.
    let rest = look(OtherFields::Column("extra".to_owned()), &|out| out.text("extra", "x").unwrap());
    assert_eq!(rest[2], "Json(\"{\\\"extra\\\":\\\"x\\\"}\")");
}

#[test]
fn a_name_that_is_no_text_is_refused_in_its_row() {
    let table = schema(&[("id", "int(64)"), ("n", "int(32)")], 1);
    let mut bytes = document(|out| {
        out.text("?", "x").unwrap();
        out.put(kind::INT32, "n", &1i32.to_le_bytes()).unwrap();
    });
    bytes[5] = 0xFF;
    let set = document(|out| {
        out.begin(kind::DOCUMENT, "u").unwrap();
        out.put(kind::INT32, "n", &2i32.to_le_bytes()).unwrap();
    });
    let mut changed = bytes.clone();
    let at = changed.len() - 5;
    changed[at] = 2;
    assert_eq!(patch::apply(&set, &bytes).unwrap(), changed);
    let whole = row(Value::Int(5), Cell::Present(Value::Document(&bytes)));
    let look = |other_fields| {
        let projection = Projection::new(&table, DocumentMapping { other_fields, ..Default::default() });
        shown(&table, &projected(&projection, &whole))
    };
    assert_eq!(look(OtherFields::Ignore), ["Int(5)", "Int(1)"]);
    let refused = look(OtherFields::Refuse);
    assert!(refused[1].contains("UTF-8"), "{refused:?}");
}

#[test]
fn an_edit_below_a_field_that_was_set_before_is_applied() {
    let table = schema(&[("id", "int(64)"), ("j", "json")], 1);
    let patch = |path: &str, set: &dyn Fn(&mut Writer, &str)| {
        document(|out| {
            out.begin(kind::DOCUMENT, "u").unwrap();
            set(out, path);
            out.end().unwrap();
        })
    };
    let inner = document(|out| out.put(kind::INT32, "a", &1i32.to_le_bytes()).unwrap());
    let whole = patch("j", &|out, path| out.put(kind::DOCUMENT, path, &inner).unwrap());
    let below = patch("j.b", &|out, path| out.text(path, "x").unwrap());
    let projection = Projection::new(&table, DocumentMapping::default());
    let look = |patches: &[u8]| {
        shown(&table, &projected(&projection, &row(Value::Int(5), Cell::Present(Value::Patch(patches)))))[1].clone()
    };
    assert_eq!(look(&[whole.clone(), below.clone()].concat()), "Json(\"{\\\"a\\\":1,\\\"b\\\":\\\"x\\\"}\")");
    assert!(look(&below).contains("collMod"));
    assert_eq!(look(&[below, whole].concat()), "Json(\"{\\\"a\\\":1}\")");
}

#[test]
fn the_ids_of_a_row_are_all_that_become_it() {
    let ids = |kind: &str, value: Value<'_>| {
        let table = schema(&[("k", kind), ("n", "int(32)")], 1);
        let projection = Projection::new(&table, DocumentMapping::default());
        let ids = projection.ids_of_columns(&key_of(&[value]), &table).unwrap().unwrap();
        for id in &ids {
            let there = projection.key(id, &mut Room::default()).unwrap();
            let Some(Ok(Cell::Present(field))) = there.cells().next() else { panic!() };
            let mut scratch = String::new();
            let conversion = Conversion::new(&ColumnType::Field, &kind.parse().unwrap()).unwrap();
            assert_eq!(conversion.apply(field, &mut scratch).unwrap(), value);
        }
        ids.len()
    };
    assert_eq!(ids("text", Value::Text("x")), 1);
    assert_eq!(ids("text", Value::Text("0123456789abcdef01234567")), 2);
    assert_eq!(ids("text", Value::Text("0123456789ABCDEF01234567")), 1);
    assert_eq!(ids("text", Value::Text("01234567-89ab-cdef-0123-456789abcdef")), 2);
    assert_eq!(ids("bytes", Value::Bytes(&[1; 12])), 2);
    assert_eq!(ids("uuid", Value::Uuid([1; 16])), 2);
    assert_eq!(ids("bool", Value::Bool(true)), 2);
    assert_eq!(ids("int(8)", Value::Int(1)), 2);
    assert_eq!(ids("int(64)", Value::Int(1)), 1);
    assert_eq!(ids("timestamptz(6)", Value::TimestampTz(1)), 1);
}

#[test]
fn keys_of_fields_go_both_ways_and_leave_the_id_alone() {
    let table = schema(&[("a", "int(32)"), ("b", "text"), ("n", "int(32)")], 2);
    let mapping = DocumentMapping { key: vec!["region".to_owned(), "b".to_owned()], ..Default::default() };
    let projection = Projection::new(&table, mapping.clone());
    let bytes = document(|out| {
        out.put(kind::OBJECT_ID, "_id", &[1; 12]).unwrap();
        out.text("b", "x").unwrap();
        out.put(kind::DOUBLE, "region", &1f64.to_le_bytes()).unwrap();
        out.put(kind::INT32, "n", &3i32.to_le_bytes()).unwrap();
    });
    let mut scratch = Vec::new();
    let key = super::super::key::of_document(Document::new(&bytes).unwrap(), &mapping.key, &mut scratch).unwrap();
    let flat = projected(&projection, &row(key, Cell::Present(Value::Document(&bytes))));
    assert_eq!(shown(&table, &flat), ["Int(1)", "Text(\"x\")", "Int(3)"]);
    comes_back(&projection, &key_of(&[key]));
    let columns = key_of(&[Value::Int(1), Value::Text("x")]);
    assert_eq!(projection.ids_of_columns(&columns, &table).unwrap().unwrap(), [key_of(&[key])]);
}

#[test]
fn a_document_without_a_fit_key_is_refused_by_the_fields_name() {
    let fields = ["sku".to_owned(), "part".to_owned()];
    for (columns, fields) in [
        (&[("id", "json"), ("n", "text")][..], &fields[..1]),
        (&[("id", "json"), ("b", "text"), ("n", "text")], &fields[..]),
    ] {
        let table = schema(columns, fields.len());
        let mapping = DocumentMapping { key: fields.to_vec(), ..Default::default() };
        let projection = Projection::new(&table, mapping);
        let array = document(|out| {
            out.begin(kind::ARRAY, "sku").unwrap();
            out.end().unwrap();
            out.text("part", "x").unwrap();
            out.text("n", "secret").unwrap();
        });
        let missing = document(|out| out.text("part", "x").unwrap());
        for (bytes, words) in [(array, "\"sku\", a part of its key, is an array"), (missing, "is missing or null")] {
            let mut scratch = Vec::new();
            let key = super::super::key::of_document(Document::new(&bytes).unwrap(), fields, &mut scratch).unwrap();
            let flat = projected(&projection, &row(key, Cell::Present(Value::Document(&bytes))));
            let told = shown(&table, &flat);
            assert!(told[0].contains(words), "{told:?}");
            // It stays one of a kind: it can be parked, and found again.
            assert_eq!(projection.id(&projection.schema().key_of(&flat).unwrap()).unwrap(), key_of(&[key]));
            comes_back(&projection, &key_of(&[key]));
        }
    }
}
