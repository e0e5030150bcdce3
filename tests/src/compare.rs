//! A full compare of a table at two databases that owes nothing to the product: every row of both sides as text in one
//! canonical form per column, by key.

use crate::connection::{Connection, Texts};
use crate::database::Database;
use crate::kind::Kind;
use crate::{mongodb, mysql, postgres};
use ::mongodb::bson::{Document, doc};
use anyhow::{Context, bail, ensure};
use futures::TryStreamExt;
use std::collections::BTreeMap;

/// How many differences are told.
const TOLD: usize = 10;

/// What two texts of a column must agree in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Text,
    /// Digits apart from trailing zeros of the fraction.
    Number,
    Float,
    /// Dates and times apart from trailing zeros of the second.
    Time,
    Json,
    Uuid,
}

#[derive(Debug)]
struct Column {
    name: String,
    type_name: String,
}

/// Fails with the first differences, by key, unless every row of `table` is equal at both; returns how many there are.
pub async fn equal(source: &Database, target: &Database, table: &str) -> anyhow::Result<usize> {
    renamed_equal(source, table, target, table).await
}

/// The same, for a table that the two call differently. Names are as the catalogs have them.
pub async fn renamed_equal(source: &Database, here: &str, target: &Database, there: &str) -> anyhow::Result<usize> {
    if source.kind == Kind::Mongodb && target.kind == Kind::Mongodb {
        return documents_equal(source, here, target, there).await;
    }
    let (mut at_source, mut at_target) = (source.connect().await?, target.connect().await?);
    // A collection has the columns of the table that it is compared with.
    let ((columns, key), (others, _)) = match (source.kind, target.kind) {
        (Kind::Mongodb, _) => (describe(&mut at_target, there).await?, describe(&mut at_target, there).await?),
        (_, Kind::Mongodb) => (describe(&mut at_source, here).await?, describe(&mut at_source, here).await?),
        _ => (describe(&mut at_source, here).await?, describe(&mut at_target, there).await?),
    };
    let mut forms = Vec::new();
    let mut matching = Vec::new();
    for column in &columns {
        let other = others.iter().position(|other| other.name == column.name);
        let other = &others[other.with_context(|| format!("the target's {there} lacks column {}", column.name))?];
        forms.push(form(&column.type_name, &other.type_name));
        matching.push(Column { name: other.name.clone(), type_name: other.type_name.clone() });
    }
    let key: Vec<usize> =
        key.iter().filter_map(|name| columns.iter().position(|column| column.name == *name)).collect();
    ensure!(!key.is_empty(), "{here} has no primary key to compare by");

    let expected = read(&mut at_source, here, &columns, &forms, &key).await?;
    let mut found = read(&mut at_target, there, &matching, &forms, &key).await?;
    let mut differences = Vec::new();
    for (key, row) in &expected {
        match found.remove(key) {
            None => differences.push(format!("{key:?} is missing at the target")),
            Some(other) if other != *row => differences.push(difference(key, &columns, row, &other)),
            Some(_) => {}
        }
    }
    differences.extend(found.keys().map(|key| format!("{key:?} is at the target alone")));
    if !differences.is_empty() {
        let count = differences.len();
        differences.truncate(TOLD);
        bail!("{here}: {count} of {} rows differ: {}", expected.len(), differences.join("; "));
    }
    Ok(expected.len())
}

async fn describe(connection: &mut Connection, table: &str) -> anyhow::Result<(Vec<Column>, Vec<String>)> {
    let (types, key) = match connection.kind() {
        Kind::Postgres => {
            (postgres::column_types(connection, table).await?, postgres::key_columns(connection, table).await?)
        }
        Kind::Mysql => (mysql::column_types(connection, table).await?, mysql::key_columns(connection, table).await?),
        Kind::Mongodb => bail!("a collection has no columns"),
    };
    ensure!(!types.is_empty(), "there is no table {table}");
    let columns = types.into_iter().map(|(name, type_name)| Column { name, type_name: type_name.to_lowercase() });
    Ok((columns.collect(), key))
}

pub fn pairs(rows: Vec<Texts>) -> anyhow::Result<Vec<(String, String)>> {
    let pair = |row: Texts| match <[Option<String>; 2]>::try_from(row) {
        Ok([Some(name), Some(value)]) => Ok((name, value)),
        Ok(_) | Err(_) => bail!("a catalog's row is incomplete"),
    };
    rows.into_iter().map(pair).collect()
}

fn form(one: &str, other: &str) -> Form {
    let any = |words: &[&str]| words.iter().any(|word| one.starts_with(word) || other.starts_with(word));
    let numbers = ["boolean", "smallint", "integer", "bigint", "int", "tinyint", "mediumint", "numeric", "decimal"];
    if any(&["json"]) {
        Form::Json
    } else if any(&["real", "double", "float"]) {
        Form::Float
    } else if any(&["uuid"]) {
        Form::Uuid
    } else if any(&["timestamp", "datetime", "time"]) {
        Form::Time
    } else if any(&numbers) {
        Form::Number
    } else {
        Form::Text
    }
}

async fn read(
    connection: &mut Connection,
    table: &str,
    columns: &[Column],
    forms: &[Form],
    key: &[usize],
) -> anyhow::Result<BTreeMap<Vec<String>, Texts>> {
    if let Connection::Mongodb(database) = connection {
        return read_documents(database, table, columns, forms, key).await;
    }
    let kind = connection.kind();
    connection.execute(kind.pick("SET TimeZone = 'UTC'; SET DateStyle = 'ISO'", "SET time_zone = '+00:00'")).await?;
    let list: Vec<String> = columns.iter().map(|column| expression(kind, column)).collect();
    let rows = connection.rows(&format!("SELECT {} FROM {}", list.join(", "), kind.quote(table))).await?;
    let mut found = BTreeMap::new();
    for row in rows {
        let row: Texts =
            row.into_iter().zip(forms).map(|(text, form)| text.map(|text| canonical(text, *form))).collect();
        let key: Vec<String> = key.iter().map(|&at| row[at].clone().unwrap_or_default()).collect();
        if let Some(twice) = found.insert(key, row) {
            bail!("{table} at {kind} has two rows with one key, {} columns", twice.len());
        }
    }
    Ok(found)
}

/// A collection as a table with these columns: a single key column is `_id`, several are the fields of one, unless a unique
/// index says that they are fields of their own.
async fn read_documents(
    database: &::mongodb::Database,
    collection: &str,
    columns: &[Column],
    forms: &[Form],
    key: &[usize],
) -> anyhow::Result<BTreeMap<Vec<String>, Texts>> {
    let documents: Vec<Document> =
        database.collection::<Document>(collection).find(doc! {}).await?.try_collect().await?;
    let names: Vec<&str> = key.iter().map(|&at| columns[at].name.as_str()).collect();
    let own = mongodb::is_keyed_by(database, collection, &names).await?;
    let mut found = BTreeMap::new();
    for document in documents {
        let id = document.get("_id");
        let cell = |(at, column): (usize, &Column)| {
            let field = match (!own && key.contains(&at), key.len()) {
                (true, 1) => id,
                (true, _) => id.and_then(|id| id.as_document()).and_then(|id| id.get(&column.name)),
                (false, _) => document.get(&column.name),
            };
            mongodb::text(field).map(|text| canonical(text, forms[at]))
        };
        let row: Texts = columns.iter().enumerate().map(cell).collect();
        let key: Vec<String> = key.iter().map(|&at| row[at].clone().unwrap_or_default()).collect();
        found.insert(key, row);
    }
    Ok(found)
}

/// Two collections, document by document.
async fn documents_equal(source: &Database, here: &str, target: &Database, there: &str) -> anyhow::Result<usize> {
    let all = async |database: &Database, name: &str| -> anyhow::Result<BTreeMap<String, String>> {
        let rows = database.documents().await?.collection::<Document>(name);
        let documents: Vec<Document> = rows.find(doc! {}).await?.try_collect().await?;
        let pair = |document: Document| (format!("{:?}", document.get("_id")), format!("{document:?}"));
        Ok(documents.into_iter().map(pair).collect())
    };
    let (expected, found) = (all(source, here).await?, all(target, there).await?);
    let keys: std::collections::BTreeSet<&String> = expected.keys().chain(found.keys()).collect();
    let differing: Vec<&&String> = keys.iter().filter(|key| expected.get(**key) != found.get(**key)).collect();
    if !differing.is_empty() {
        let told: Vec<_> = differing.iter().take(TOLD).collect();
        bail!("{here}: {} of {} documents differ: {told:?}", differing.len(), expected.len());
    }
    Ok(expected.len())
}

/// A column as the engine is to print it.
fn expression(kind: Kind, column: &Column) -> String {
    let (name, type_name) = (kind.quote(&column.name), column.type_name.as_str());
    match kind {
        Kind::Postgres => match type_name {
            "bytea" => format!("encode({name}, 'hex')"),
            "boolean" => format!("{name}::int"),
            "real" => format!("{name}::float8"),
            _ => format!("{name}::text"),
        },
        Kind::Mysql => {
            if type_name.contains("blob") || type_name.contains("binary") {
                format!("LOWER(HEX({name}))")
            } else if let Some(length) = type_name.strip_prefix("bit(").and_then(|rest| rest.strip_suffix(')')) {
                format!("LPAD(BIN({name}), {length}, '0')")
            } else if type_name.starts_with("float") {
                format!("CAST({name} AS DOUBLE)")
            } else {
                name
            }
        }
        Kind::Mongodb => name,
    }
}

fn canonical(text: String, form: Form) -> String {
    let without_zeros = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    match form {
        Form::Text => text,
        Form::Number => without_zeros(&text),
        Form::Float => text.parse::<f64>().map_or(text, |number| format!("{number:?}")),
        Form::Time => without_zeros(text.strip_suffix("+00").unwrap_or(&text)),
        Form::Json => serde_json::from_str::<serde_json::Value>(&text).map_or(text, |value| value.to_string()),
        Form::Uuid => text.to_lowercase().replace('-', ""),
    }
}

fn difference(key: &[String], columns: &[Column], row: &Texts, other: &Texts) -> String {
    let shorten = |text: &Option<String>| match text {
        None => "NULL".to_owned(),
        Some(text) if text.chars().count() > 40 => {
            format!("{}... ({} bytes)", text.chars().take(40).collect::<String>(), text.len())
        }
        Some(text) => text.clone(),
    };
    let cells = columns.iter().zip(row.iter().zip(other)).filter(|(_, (one, other))| one != other);
    let told =
        cells.map(|(column, (one, other))| format!("{} is {}, not {}", column.name, shorten(other), shorten(one)));
    format!("{key:?}: {}", told.collect::<Vec<_>>().join(", "))
}
