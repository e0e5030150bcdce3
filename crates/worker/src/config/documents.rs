//! `document` of a table: how its rows are documents.

use crate::config::databases::Adapter;
use crate::config::pipelines::{Databases, Ends};
use crate::config::place::suggestion;
use crate::config::section::{At, Field, Section};
use sync_worker_core::document::mapping::{DocumentMapping, OtherFields, Times};
use sync_worker_core::name::DatabaseName;

pub const DOCUMENT: [Field; 4] = [
    Field {
        name: "other_fields",
        takes: "`\"refuse\"`, `\"ignore\"` or `\"column:NAME\"`",
        default: "\"refuse\"",
        about: "What becomes of a document's fields that the table has no column for. `refuse`: the row becomes a dead \
                letter that names the field; `ignore`: they are left out; `column:NAME`: that JSON column takes them, \
                from MongoDB only.",
    },
    Field {
        name: "key",
        takes: "name of a field, or a list of them",
        default: "\"_id\"",
        about: "The fields of a document that the table's key columns are, in the order of the key; `_id` is the \
                application's or MongoDB's own then. Not between two MongoDB databases. A unique index over exactly \
                these fields is needed, and at a source and at members the documents before and after each change. A \
                pipeline whose `key` changes begins anew: remove its state.",
    },
    Field {
        name: "keep_key_columns",
        takes: "`true` or `false`",
        default: "false",
        about: "To MongoDB: whether the key columns are fields of the document beside its `_id`. Not with `key`.",
    },
    Field {
        name: "times",
        takes: "`\"refuse\"` or `\"text\"`",
        default: "\"refuse\"",
        about: "To MongoDB, whose dates have milliseconds: what becomes of timestamps with more digits. `refuse`: such a \
                row becomes a dead letter; `text`: all values of a column with more than three digits of a second become \
                ISO 8601 texts, as in `2024-02-29T23:59:59.000001Z`.",
    },
];

/// Where the documents of a pipeline are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    FromDocuments,
    ToDocuments,
}

/// `two_way`: each member is a source, too.
pub fn read(table: &Section<'_>, members: Option<&Ends>, databases: &Databases, two_way: bool) -> DocumentMapping {
    if !table.has("document") {
        return DocumentMapping::default();
    }
    let section = table.section("document", &DOCUMENT);
    let mapping = DocumentMapping {
        other_fields: other_fields(&section).unwrap_or_default(),
        keep_key_columns: section.flag("keep_key_columns").unwrap_or_default(),
        times: section.choice("times", &[("refuse", Times::Refuse), ("text", Times::Text)]).unwrap_or_default(),
        key: key(&section),
    };
    if !mapping.key.is_empty() {
        if mapping.keep_key_columns {
            section.problem("keep_key_columns", "stands beside key, which says what fields the key columns are");
        }
        if members.is_some_and(|members| among_documents(members, databases, two_way)) {
            section.problem("key", "can't be fields between two MongoDB databases: their documents have one _id");
        }
    }
    match members.map(|members| way(members, databases)) {
        Some(Some(Way::FromDocuments)) => {
            for name in ["keep_key_columns", "times"].into_iter().filter(|name| section.has(name)) {
                let problem = match two_way {
                    true => "is for rows that go to MongoDB: name a member of another kind first",
                    false => "is for rows that go to MongoDB; the source of this pipeline is MongoDB itself",
                };
                section.problem(name, problem);
            }
        }
        Some(Some(Way::ToDocuments)) if matches!(mapping.other_fields, OtherFields::Column(_)) => {
            section.problem(
                "other_fields",
                "can name a column where the source is MongoDB only; there are refuse, ignore",
            );
        }
        Some(None) => table.problem("document", "is for pipelines between MongoDB and another kind of database"),
        // Without members that are right nothing can be said of them.
        Some(Some(Way::ToDocuments)) | None => {}
    }
    mapping
}

/// None where it is `_id`.
fn key(section: &Section<'_>) -> Vec<String> {
    let mut fields: Vec<String> = Vec::new();
    let Some(listed) = section.text_or_texts("key") else { return fields };
    let alone = listed.len() == 1;
    if listed.is_empty() {
        section.problem("key", "names no field; leave it out where the key is _id");
    }
    for At { value, place } in listed {
        let problem = match value.as_str() {
            "_id" if alone => continue,
            "_id" => Some(
                "names _id among several fields: leave key out, and the key columns are the fields of an _id"
                    .to_owned(),
            ),
            "" => Some("names a field without a name".to_owned()),
            name if name.starts_with('$') || name.contains(['.', '\0']) => {
                Some(format!("can't name {name:?}: it is a top-level field, without a dot and a leading $"))
            }
            name if fields.iter().any(|field| field == name) => Some(format!("names {name:?} twice")),
            _ => None,
        };
        if let Some(problem) = problem {
            section.problem_at(&place, "key", problem);
        }
        fields.push(value);
    }
    fields
}

/// Whether documents go from one MongoDB database to another.
fn among_documents((from, to): &Ends, databases: &Databases, two_way: bool) -> bool {
    let documents = |name: &&DatabaseName| {
        let database = databases.get(name.as_str()).and_then(Option::as_ref);
        database.is_some_and(|database| matches!(database.adapter, Adapter::Mongodb(_)))
    };
    let targets = to.iter().filter(documents).count();
    targets > 0 && documents(&from) || two_way && targets > 1
}

fn other_fields(section: &Section<'_>) -> Option<OtherFields> {
    let text = section.text("other_fields")?.value;
    let found = match (text.as_str(), text.strip_prefix("column:")) {
        ("refuse", _) => Some(OtherFields::Refuse),
        ("ignore", _) => Some(OtherFields::Ignore),
        (_, Some(name)) if !name.is_empty() => Some(OtherFields::Column(name.to_owned())),
        _ => None,
    };
    if found.is_none() {
        let word = text.split_once(':').map_or(&*text, |(word, _)| word);
        let suggestion = suggestion(word, ["refuse", "ignore", "column:NAME"]);
        section.problem("other_fields", format!("there is no {text:?}{suggestion}"));
    }
    found
}

/// None where no documents become rows or rows documents. A database that is configured wrongly may be of any kind.
fn way((from, to): &Ends, databases: &Databases) -> Option<Way> {
    let documents = |name: &DatabaseName| match databases.get(name.as_str()) {
        Some(Some(database)) => Some(matches!(database.adapter, Adapter::Mongodb(_))),
        Some(None) | None => None,
    };
    let any = |which: bool| to.iter().any(|target| documents(target).is_none_or(|documents| documents == which));
    match documents(from) {
        Some(true) => any(false).then_some(Way::FromDocuments),
        Some(false) => any(true).then_some(Way::ToDocuments),
        None => Some(Way::ToDocuments).filter(|_| any(true)).or(Some(Way::FromDocuments)),
    }
}
