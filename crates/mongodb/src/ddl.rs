//! The statements that a collection needs, as the shell takes them.

use sync_worker_core::schema::Schema;

/// Documents have no columns of their own: a collection is there or it is not.
pub fn ddl(name: &str, have: Option<&Schema>) -> Option<String> {
    have.is_none().then(|| format!("db.createCollection({});", quoted(name)))
}

pub fn post_images(name: &str) -> String {
    format!("db.runCommand({{ collMod: {}, changeStreamPreAndPostImages: {{ enabled: true }} }});", quoted(name))
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))
}
