//! Each type at its edges: snapshot and stream decode to the same bytes.

use crate::fixture::{Fixture, applied, assert_rows_equal};
use anyhow::Result;
use sync_worker_core::database::Database;
use sync_worker_core::value::{Cell, Value};

const COLUMNS: &str = "
    id INT PRIMARY KEY,
    t TINYINT, tu TINYINT UNSIGNED, s SMALLINT, su SMALLINT UNSIGNED, m MEDIUMINT, mu MEDIUMINT UNSIGNED,
    i INT, iu INT UNSIGNED, b BIGINT, bu BIGINT UNSIGNED, y YEAR, z INT(8) ZEROFILL,
    f FLOAT, d DOUBLE, f73 FLOAT(7,3), d73 DOUBLE(10,3),
    n DECIMAL(65,30), n0 DECIMAL(10,0), n5 DECIMAL(5,5), nz DECIMAL(10,2) ZEROFILL,
    dt DATE, ti TIME, ti1 TIME(1), ti3 TIME(3), ti6 TIME(6), dd DATETIME, dd2 DATETIME(2), dd4 DATETIME(4),
    dd6 DATETIME(6), ts TIMESTAMP NULL, ts3 TIMESTAMP(3) NULL, ts6 TIMESTAMP(6) NULL,
    c CHAR(10), cl CHAR(255), v VARCHAR(20), vl VARCHAR(1000), vlatin VARCHAR(20) CHARACTER SET latin1,
    v2 VARCHAR(20) CHARACTER SET latin2, vg VARCHAR(20) CHARACTER SET greek, v16 VARCHAR(20) CHARACTER SET utf16,
    vle VARCHAR(20) CHARACTER SET utf16le, v32 VARCHAR(20) CHARACTER SET utf32, vascii VARCHAR(20) CHARACTER SET ascii,
    vbin VARCHAR(20) CHARACTER SET utf8mb3 COLLATE utf8mb3_bin,
    tt TINYTEXT, tx TEXT, tm MEDIUMTEXT, tl LONGTEXT, tlatin TEXT CHARACTER SET latin1,
    bi BINARY(8), vb VARBINARY(300), btt TINYBLOB, bb BLOB, bm MEDIUMBLOB, bl LONGBLOB,
    bit1 BIT(1), bit9 BIT(9), bit64 BIT(64),
    e ENUM('a','it''s','\u{e9}'), el ENUM('x','y') CHARACTER SET latin1, se SET('a','b','c d','\u{fc}'),
    j JSON, g GEOMETRY, p POINT,
    gv INT GENERATED ALWAYS AS (i DIV 2) VIRTUAL, gs VARCHAR(40) GENERATED ALWAYS AS (CONCAT(v, '!')) STORED";

fn rows() -> Vec<String> {
    let null = "(1, NULL".to_owned();
    let zero = "(2, 0,0,0,0,0,0,0,0,0,0, 0, 0, 0,0,0,0, 0,0,0,0, '0000-00-00','00:00:00','0:0:0','0:0:0','0:0:0',
        '0000-00-00 00:00:00','0000-00-00 00:00:00','0000-00-00 00:00:00','0000-00-00 00:00:00','0000-00-00 00:00:00',
        '0000-00-00 00:00:00','0000-00-00 00:00:00', '','','','','','','','','','','','', '','','','','',
        '','','','','','', b'0',b'0',0, 'a','x','', '{}', ST_GeomFromText('POINT(0 0)'), ST_GeomFromText('POINT(0 0)'))";
    let most = "(3, 127,255,32767,65535,8388607,16777215,2147483647,4294967295,9223372036854775807,18446744073709551615,
        2155, 12345678, 3.4028234e38, 1.7976931348623157e308, 1234.567, 1234567.891,
        99999999999999999999999999999999999.999999999999999999999999999999, 9999999999, 0.99999, 12345.67,
        '9999-12-31','838:59:59','838:59:58.9','838:59:58.999','838:59:58.999999','9999-12-31 23:59:59',
        '9999-12-31 23:59:59.99','9999-12-31 23:59:59.9999','9999-12-31 23:59:59.999999','2038-01-19 03:14:07',
        '2038-01-19 03:14:07.499','2038-01-19 03:14:07.499999',
        '\u{10348}z  ', REPEAT('\u{20ac}',255), 'v\u{e9}\u{1F600}', REPEAT('\u{20ac}',1000), 'a\u{e9}\u{20ac}',
        '\u{17e}\u{159}', '\u{3b1}\u{3b2}', 'a\u{1F600}', 'b\u{1F600}', 'c\u{1F600}', '~', '\u{4e2d}',
        REPEAT('x',255), REPEAT('y',65535), REPEAT('z',70000), REPEAT('\u{e9}',70000), '\u{ff}',
        X'0102030405060708', REPEAT(X'00FF',150), REPEAT('b',255), REPEAT(X'00',65535), REPEAT('b',70000),
        REPEAT('b',70000), b'1', b'111111111', ~0, '\u{e9}','y','a,b,c d,\u{fc}',
        '{\"k\": [1, \"x\", null, true, 1.5]}', ST_GeomFromText('LINESTRING(0 0,1 1)', 4326), ST_GeomFromText('POINT(1 2)', 4326))";
    let least = "(4, -128,0,-32768,0,-8388608,0,-2147483648,0,-9223372036854775808,0, 1901, 1,
        -3.4028234e38, -1.7976931348623157e308, -1234.567, -1234567.891,
        -99999999999999999999999999999999999.999999999999999999999999999999, -9999999999, -0.99999, 0.01,
        '1000-01-01','-838:59:59','-838:59:58.9','-838:59:58.999','-838:59:58.999999','1000-01-01 00:00:00',
        '1000-01-01 00:00:00.01','1000-01-01 00:00:00.0001','1000-01-01 00:00:00.000001','1970-01-01 00:00:01',
        '1970-01-01 00:00:01.001','1970-01-01 00:00:01.000001',
        'a','b','c','d','e','f','g','h','i','j','k','l','m','n','o','p','q',
        X'0100', X'0100', 'x', X'00', 'y', 'z', b'0', b'000000001', 1, 'it''s','x','b',
        '[]', ST_GeomFromText('POLYGON((0 0,1 0,1 1,0 0))'), ST_GeomFromText('POINT(-1 -2)'))";
    let odd = "(5, -1,128,-1,32768,-1,8388608,-1,2147483648,-1,9223372036854775808, 2000, 0,
        0.1, 0.1, 0.001, 0.001, -0.000000000000000000000000000001, -1, 0.00001, 0,
        '2024-02-31','-00:00:01','-00:00:00.1','-00:00:00.001','-00:00:00.000001','2024-00-00 00:00:00',
        '0000-01-01 00:00:00.5','2023-02-29 10:00:00.25','0001-01-01 00:00:00.123456','2000-02-29 12:34:56',
        '2000-02-29 12:34:56.7','2000-02-29 12:34:56.789',
        ' lead','tab\\t','new\\nline','q\"uote','ba\\\\ck','x','x','x','x','x','x','x','x','x','x','x','x',
        X'00', X'', '', X'FF', '', '', b'1', b'100000000', 9223372036854775808, 'a','x','a,\u{fc}',
        'null', ST_GeomFromText('GEOMETRYCOLLECTION EMPTY'), ST_GeomFromText('POINT(0.1 0.2)'))";
    [null, zero.to_owned(), most.to_owned(), least.to_owned(), odd.to_owned()].to_vec()
}

fn inserts(ids_from: u32) -> Vec<String> {
    let names = "id,t,tu,s,su,m,mu,i,iu,b,bu,y,z,f,d,f73,d73,n,n0,n5,nz,dt,ti,ti1,ti3,ti6,dd,dd2,dd4,dd6,ts,ts3,ts6,\
                 c,cl,v,vl,vlatin,v2,vg,v16,vle,v32,vascii,vbin,tt,tx,tm,tl,tlatin,bi,vb,btt,bb,bm,bl,bit1,bit9,bit64,\
                 e,el,se,j,g,p";
    let mut all =
        vec!["SET SESSION sql_mode = 'ALLOW_INVALID_DATES,STRICT_ALL_TABLES', time_zone = '+00:00'".to_owned()];
    let nulls = vec!["NULL"; names.split(',').count() - 1].join(", ") + ")";
    all.extend(rows().iter().enumerate().map(|(at, row)| {
        let rest = row.split_once(',').map_or("", |(_, rest)| rest);
        let rest = if at == 0 { &nulls } else { rest };
        format!("INSERT INTO v ({names}) VALUES ({}, {rest}", ids_from + u32::try_from(at).unwrap_or(0))
    }));
    all
}

#[tokio::test]
async fn every_type_at_its_edges_reads_the_same_by_snapshot_and_by_stream() -> Result<()> {
    let create = format!("CREATE TABLE v ({COLUMNS})");
    let mode = "SET SESSION sql_mode = ''";
    let Some(fixture) = Fixture::new(&[mode, &create], &["v"]).await? else { return Ok(()) };
    let mut stream = fixture.open(None).await?;
    let statements = inserts(1);
    fixture.run(&statements.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    stream.until(5).await?;
    let streamed = applied(&stream, "v")?;
    let read = fixture.rows("v").await?;
    assert_eq!(read.len(), 5);
    assert_rows_equal(&streamed, &read);
    // Both name the columns alike, too.
    let mut reader = fixture.mysql.reader(&fixture.scope).await.map_err(|error| anyhow::anyhow!("{error:?}"))?;
    let schema = reader.schema(&"v".into()).await.map_err(|error| anyhow::anyhow!("{error:?}"))?;
    let of_stream = &stream.changes[0].1.schema;
    for (one, other) in schema.columns.iter().zip(&of_stream.columns) {
        assert_eq!(one, other);
    }
    assert_eq!(schema.id, of_stream.id);
    Ok(())
}

#[tokio::test]
async fn a_text_with_a_byte_that_its_character_set_does_not_define_comes_as_its_bytes() -> Result<()> {
    let create = "CREATE TABLE v (id INT PRIMARY KEY, g VARCHAR(20) CHARACTER SET greek)";
    let Some(fixture) = Fixture::new(&[create], &["v"]).await? else { return Ok(()) };
    let mut stream = fixture.open(None).await?;
    fixture.run(&["INSERT INTO v VALUES (1, _greek X'E1E23F')"]).await?;
    stream.until(1).await?;
    assert_rows_equal(&applied(&stream, "v")?, &fixture.rows("v").await?);
    fixture.run(&["INSERT INTO v VALUES (2, _greek X'61D262')"]).await?;
    stream.until(2).await?;
    let streamed = applied(&stream, "v")?;
    assert_rows_equal(&streamed, &fixture.rows("v").await?);
    let cells = streamed[1].cells().collect::<Result<Vec<_>, _>>()?;
    assert_eq!(cells[1], Cell::Present(Value::Raw(b"a\xD2b")));
    Ok(())
}

#[tokio::test]
async fn json_is_printed_as_the_server_prints_it() -> Result<()> {
    let Some(fixture) = Fixture::new(&["CREATE TABLE j (id INT PRIMARY KEY, j JSON)"], &["j"]).await? else {
        return Ok(());
    };
    let mut stream = fixture.open(None).await?;
    let mut documents: Vec<String> = [
        "'null'", "'true'", "'false'", "'0'", "'-1'", "'32767'", "'32768'", "'-32769'", "'2147483648'",
        "'9223372036854775807'", "'18446744073709551615'", "'-9223372036854775808'", "'18446744073709551616'",
        "'1.0'", "'1e2'", "'1e14'", "'1e15'", "'123456789012345678'", "'1.5e300'", "'1e-5'", "'1e-14'", "'1e-15'",
        "'1.7976931348623157e308'", "'2.2250738585072014e-308'", "'4.9e-324'", "'-0.0'", "'0.1'", "'100000.25'",
        "'[]'", "'{}'", "'[[],{}]'", "'{\"\": 1, \"b\": 2, \"aa\": 3}'",
        "'\"quote \\\\\" back \\\\\\\\ slash / \\\\b\\\\f\\\\n\\\\r\\\\t \\\\u0001 \\\\u001f \\\\u007f \u{e9} \u{1F600}\"'",
        "JSON_OBJECT('d', CAST('2024-02-29' AS DATE), 't', CAST('-12:34:56.789' AS TIME(3)), \
         'dt', CAST('2024-02-29 01:02:03.000004' AS DATETIME(6)), 'ts', TIMESTAMP'2024-01-01 00:00:00', \
         'n', CAST(1234.5600 AS DECIMAL(20,4)), 'neg', CAST(-0.5 AS DECIMAL(5,2)), 'y', CAST(2024 AS YEAR))",
        "JSON_OBJECT('b', CAST('bytes' AS BINARY), 'bit', b'101')",
        "JSON_ARRAY(REPEAT('x', 127), REPEAT('y', 128), REPEAT('z', 20000))",
        "JSON_ARRAY(CAST(REPEAT('b', 57) AS BINARY), CAST(REPEAT('b', 58) AS BINARY), CAST(REPEAT('b', 200) AS BINARY))",
        "CAST(CONCAT('[', REPEAT('[1,{\"k\":', 49), '2', REPEAT('}]', 49), ']') AS JSON)",
        "CAST(CONCAT('[', REPEAT('70000,', 20000), '1]') AS JSON)",
        "JSON_OBJECT(REPEAT('k', 60000), REPEAT('v', 60000), 'big', 4294967296)",
        "NULL",
    ]
    .map(str::to_owned)
    .to_vec();
    // Doubles of all sizes, by a generator with a fixed seed.
    let mut seed = 0x9E37_79B9_7F4A_7C15u64;
    for _ in 0..300 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let number = f64::from_bits(seed);
        if number.is_finite() {
            documents.push(format!("'[{number:e}, {:e}]'", number % 1e6));
        }
    }
    let mut conn = fixture.database.connect().await?;
    use mysql_async::prelude::Queryable;
    for (at, document) in documents.iter().enumerate() {
        conn.query_drop(format!("INSERT INTO j VALUES ({at}, {document})")).await?;
    }
    stream.until(documents.len()).await?;
    assert_rows_equal(&applied(&stream, "j")?, &fixture.rows("j").await?);
    Ok(())
}

#[tokio::test]
async fn partial_json_updates_arrive_whole() -> Result<()> {
    let create = "CREATE TABLE j (id INT PRIMARY KEY, a JSON, n INT, b JSON)";
    let Some(fixture) = Fixture::new(&[create], &["j"]).await? else { return Ok(()) };
    let mut stream = fixture.open(None).await?;
    let filler = "x".repeat(500);
    let insert = format!(
        "INSERT INTO j VALUES (1, '{{\"a\": [1, 2, 3], \"o\": {{\"x y\": 1, \"z\": \"q\\\\\"\"}}, \"fill\": \"{filler}\"}}', 0, '{{\"k\": \"{filler}\"}}')"
    );
    let statements = [
        "SET SESSION binlog_row_value_options = 'PARTIAL_JSON'",
        &insert,
        "UPDATE j SET a = JSON_REPLACE(a, '$.a[1]', 'two')",
        "UPDATE j SET a = JSON_SET(a, '$.new', 5, '$.o.\"x y\"', JSON_ARRAY(1, 2)), n = 1",
        "UPDATE j SET a = JSON_REMOVE(a, '$.a[0]'), b = JSON_SET(b, '$.m', JSON_OBJECT('deep', 1.50))",
        "UPDATE j SET a = JSON_REMOVE(JSON_SET(a, '$.a[1]', CAST('[9]' AS JSON)), '$.new')",
        "UPDATE j SET a = JSON_SET(a, '$.a[2]', 4), b = NULL",
        "UPDATE j SET n = 7",
        "UPDATE j SET b = '{\"fresh\": true}'",
    ];
    fixture.run(&statements).await?;
    stream.until(8).await?;
    assert_eq!(stream.ops(), "cuuuuuuu");
    assert_rows_equal(&applied(&stream, "j")?, &fixture.rows("j").await?);
    Ok(())
}
