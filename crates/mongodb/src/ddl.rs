//! The statements that a collection needs, as the shell takes them.

use sync_worker_core::database::TableAt;
use sync_worker_core::schema::Schema;

/// Documents have no columns of their own: a collection is there or it is not. An index of its key makes it, too.
pub fn ddl(at: &TableAt, have: Option<&Schema>) -> Option<String> {
    have.is_none().then(|| match &at.document.key[..] {
        [] => format!("db.createCollection({});", quoted(&at.name)),
        fields => unique_index(&at.name, fields),
    })
}

pub fn post_images(name: &str) -> String {
    format!("db.runCommand({{ collMod: {}, changeStreamPreAndPostImages: {{ enabled: true }} }});", quoted(name))
}

/// Keeps a key that is fields of the documents unique.
pub fn unique_index(name: &str, fields: &[String]) -> String {
    let fields: Vec<String> = fields.iter().map(|field| format!("{}: 1", quoted(field))).collect();
    format!("db.getCollection({}).createIndex({{ {} }}, {{ unique: true }});", quoted(name), fields.join(", "))
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))
}
