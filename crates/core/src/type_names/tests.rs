use super::*;
use crate::convert::{Class, Conversion};

fn mysql(column_type: &str) -> ColumnType {
    let data_type = column_type.split(['(', ' ']).next().unwrap();
    mysql_type(column_type, data_type, None)
}

#[test]
fn postgres_spellings_are_read() {
    for (spelling, canonical) in [
        ("boolean", "bool"),
        ("smallint", "int(16)"),
        ("integer", "int(32)"),
        ("bigint", "int(64)"),
        ("real", "float32"),
        ("double precision", "float64"),
        ("numeric", "decimal"),
        ("numeric(10,2)", "decimal(10,2)"),
        ("numeric(5,-2)", "decimal(5,-2)"),
        ("numeric(3,5)", "decimal(3,5)"),
        ("text", "text"),
        ("character varying", "text"),
        ("character varying(20)", "text(20)"),
        ("character(3)", "text(3,padded)"),
        ("bpchar", "text"),
        ("bytea", "bytes"),
        ("date", "date"),
        ("time without time zone", "time(6)"),
        ("time(3) without time zone", "time(3)"),
        ("timestamp without time zone", "timestamp(6)"),
        ("timestamp(0) without time zone", "timestamp(0)"),
        ("timestamp(3) with time zone", "timestamptz(3)"),
        ("uuid", "uuid"),
        ("json", "json(textual)"),
        ("jsonb", "json"),
        ("bit(8)", "bits(8)"),
        ("bit varying(5)", "varbits(5)"),
        ("bit varying", "varbits(4294967295)"),
    ] {
        assert_eq!(postgres_type(spelling).to_string(), canonical, "{spelling}");
    }
}

#[test]
fn unknown_postgres_types_keep_their_name() {
    for spelling in [
        "integer[]",
        "numeric(10,2)[]",
        "character varying(5)[]",
        "time(3) with time zone",
        "interval day to second(3)",
        "inet",
        "\"char\"",
        "public.citext",
        "geometry(Point,4326)",
        "money",
        "oid",
        "name",
        "xml",
        "int4range",
        "app.\"weird (type)\"",
        "bit",
    ] {
        let named = ColumnType::Named { engine: Engine::Postgres, name: spelling.to_owned() };
        assert_eq!(postgres_type(spelling), named, "{spelling}");
    }
}

#[test]
fn mysql_spellings_are_read() {
    for (spelling, canonical) in [
        ("tinyint(1)", "int(8)"),
        ("tinyint(3) unsigned zerofill", "uint(8)"),
        ("smallint", "int(16)"),
        ("mediumint unsigned", "uint(24)"),
        ("int(11)", "int(32)"),
        ("int(5) unsigned zerofill", "uint(32)"),
        ("bigint unsigned", "uint(64)"),
        ("float", "float32"),
        ("float unsigned", "float32"),
        ("double", "float64"),
        ("double unsigned", "float64"),
        ("decimal(10,2)", "decimal(10,2)"),
        ("decimal(10,0) unsigned", "decimal(10,0)"),
        ("char(1)", "text(1,padded)"),
        ("varchar(20)", "text(20)"),
        ("tinytext", "text(255 bytes)"),
        ("text", "text(65535 bytes)"),
        ("mediumtext", "text(16777215 bytes)"),
        ("longtext", "text(4294967295 bytes)"),
        ("binary(16)", "bytes(16,padded)"),
        ("varbinary(20)", "bytes(20)"),
        ("tinyblob", "bytes(255)"),
        ("blob", "bytes(65535)"),
        ("mediumblob", "bytes(16777215)"),
        ("longblob", "bytes(4294967295)"),
        ("date", "date"),
        ("time", "time(0)"),
        ("time(3)", "time(3)"),
        ("datetime", "timestamp(0)"),
        ("datetime(6)", "timestamp(6)"),
        ("timestamp(6)", "timestamptz(6)"),
        ("year", "year"),
        ("year(4)", "year"),
        ("json", "json"),
        ("enum('a,b)','unsigned')", "enum"),
        ("set('x','y')", "set"),
        ("bit(64)", "bits(64)"),
    ] {
        assert_eq!(mysql(spelling).to_string(), canonical, "{spelling}");
    }
    assert_eq!(mysql_type("char(3)", "char", Some("binary")).to_string(), "bytes(3,padded)");
    assert_eq!(mysql_type("text", "text", Some("binary")).to_string(), "bytes(65535)");
    assert_eq!(mysql_type("varchar(3)", "varchar", Some("latin1")).to_string(), "text(3)");
}

#[test]
fn unknown_mysql_types_keep_their_name() {
    for spelling in ["geometry", "point", "vector(3)", "float(7,3)", "double(10,2)", "inet6"] {
        let named = ColumnType::Named { engine: Engine::Mysql, name: spelling.to_owned() };
        assert_eq!(mysql(spelling), named, "{spelling}");
    }
}

#[test]
fn labels_are_read_with_their_quotes_and_commas() {
    let labels = |text| mysql_labels(text).map(|labels| labels.join("|"));
    assert_eq!(labels("enum('a','b')").as_deref(), Some("a|b"));
    assert_eq!(labels("ENUM('it''s','a,b)','')").as_deref(), Some("it's|a,b)|"));
    assert_eq!(labels("set('''','x')").as_deref(), Some("'|x"));
    for other in ["varchar(3)", "enum", "enum('a'", "enum(a)", "enum('a',)"] {
        assert_eq!(labels(other), None, "{other}");
    }
}

#[test]
fn recommended_columns_hold_every_value_of_the_other_engine() {
    for from in [
        "bool",
        "int(16)",
        "int(32)",
        "int(64)",
        "float32",
        "float64",
        "decimal(10,2)",
        "decimal(5,-2)",
        "decimal(3,5)",
        "decimal(65,30)",
        "text",
        "text(20)",
        "text(5,padded)",
        "text(300,padded)",
        "text(16384)",
        "bytes",
        "date",
        "time(6)",
        "timestamp(3)",
        "timestamptz(6)",
        "uuid",
        "json",
        "enum",
        "bits(64)",
        "bits(65)",
        "varbits(5)",
        "varbits(4294967295)",
    ] {
        let kind: ColumnType = from.parse().unwrap();
        let name = mysql_name(&kind, false).unwrap();
        let class = Conversion::new(&kind, &mysql(&name)).unwrap().class();
        assert!(class <= Class::Widened, "{from} -> {name}: {class}");
    }
    for from in [
        "int(8)",
        "uint(8)",
        "uint(16)",
        "int(24)",
        "uint(24)",
        "uint(32)",
        "uint(64)",
        "float32",
        "float64",
        "decimal(65,30)",
        "text(1,padded)",
        "text(0)",
        "text(0,padded)",
        "text(16383)",
        "text(4294967295 bytes)",
        "bytes(16,padded)",
        "bytes(20)",
        "date",
        "time(6)",
        "timestamp(0)",
        "timestamptz(6)",
        "year",
        "json",
        "enum",
        "set",
        "bits(64)",
    ] {
        let kind: ColumnType = from.parse().unwrap();
        let name = postgres_name(&kind).unwrap();
        let class = Conversion::new(&kind, &postgres_type(&name)).unwrap().class();
        assert!(class <= Class::Widened, "{from} -> {name}: {class}");
    }
}

#[test]
fn a_name_of_the_same_engine_is_the_type_itself() {
    for spelling in [
        "boolean",
        "numeric(5,-2)",
        "character(3)",
        "bytea",
        "timestamp(3) with time zone",
        "bit varying(5)",
        "bit varying",
        "jsonb",
        "time without time zone",
        "integer[]",
    ] {
        assert_eq!(postgres_name(&postgres_type(spelling)).as_deref(), Some(spelling));
    }
    for spelling in [
        "tinyint unsigned",
        "bigint",
        "decimal(10,2)",
        "binary(16)",
        "varbinary(20)",
        "longblob",
        "time(3)",
        "datetime",
        "bit(8)",
        "geometry",
    ] {
        assert_eq!(mysql_name(&mysql(spelling), false).as_deref(), Some(spelling));
    }
}

#[test]
fn keys_have_columns_that_an_index_holds() {
    let key = |text: &str| mysql_name(&text.parse().unwrap(), true).unwrap();
    assert_eq!(key("text"), "varchar(255) character set utf8mb4 collate utf8mb4_0900_bin");
    assert_eq!(key("text(20)"), "varchar(20) character set utf8mb4 collate utf8mb4_0900_bin");
    assert_eq!(key("text(5000)"), "varchar(768) character set utf8mb4 collate utf8mb4_0900_bin");
    assert_eq!(key("bytes"), "varbinary(255)");
    assert_eq!(key("int(64)"), "bigint");
}

#[test]
fn what_the_other_engine_lacks_has_no_name_there() {
    assert_eq!(mysql_name(&postgres_type("inet"), false), None);
    assert_eq!(postgres_name(&mysql("geometry")), None);
}
