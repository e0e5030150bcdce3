//! What changed in a document whose whole is not known: an update event without a post-image.
//!
//! A patch is a document `{t: {path: size}, r: [paths], u: {path: value}, d: {path: [parts]}}`: arrays that were cut to
//! a size, fields that went, fields that were set, and the parts of those paths that a dot does not tell apart. Several
//! of them one after another, oldest first, are what several updates did.

use super::write::Writer;
use super::{DEEPEST, Document, Element, NAME_IS_NO_TEXT, kind};
use crate::value::Damaged;

/// One edit at a path.
#[derive(Clone, Copy, Debug)]
pub enum Edit<'a> {
    Set(Element<'a>),
    Remove,
    /// Cut an array to so many elements.
    Cut(usize),
}

/// The edits of all patches in `bytes`, in the order in which they take effect.
pub fn edits(mut bytes: &[u8]) -> Result<Vec<(Vec<&str>, Edit<'_>)>, Damaged> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let patch = Document::take(&mut bytes)?;
        let told = patch.document("d")?;
        let parts = |path| parts_of(path, told);
        for cut in fields(patch.document("t")?) {
            let cut = cut?;
            let size = usize::try_from(i32::from_le_bytes(cut.array()?)).map_err(|_| Damaged("a size below zero"))?;
            found.push((parts(cut.name)?, Edit::Cut(size)));
        }
        for removed in fields(patch.document("r")?) {
            found.push((parts(removed?.text()?)?, Edit::Remove));
        }
        for set in fields(patch.document("u")?) {
            let set = set?;
            found.push((parts(set.name)?, Edit::Set(set)));
        }
    }
    Ok(found)
}

fn fields(document: Option<Document<'_>>) -> impl Iterator<Item = Result<Element<'_>, Damaged>> {
    document.into_iter().flat_map(|document| document.fields())
}

fn parts_of<'a>(path: &'a str, told: Option<Document<'a>>) -> Result<Vec<&'a str>, Damaged> {
    let Some(parts) = told.map(|told| told.document(path)).transpose()?.flatten() else {
        return Ok(path.split('.').collect());
    };
    // An array's index among them is a number in the event; the source wrote it as text.
    parts.fields().map(|part| part?.text()).collect()
}

/// The document after the patches.
pub fn apply(patches: &[u8], document: &[u8]) -> Result<Vec<u8>, Damaged> {
    let mut document = document.to_vec();
    for (path, edit) in edits(patches)? {
        if path.len() > DEEPEST {
            return Err(Damaged("a path is too deep"));
        }
        document = edited(Document::new(&document)?, kind::DOCUMENT, &path, edit)?;
    }
    Ok(document)
}

/// The bytes of a container with an edit below it. The path is no longer than [`DEEPEST`].
pub(super) fn edited(container: Document<'_>, of: u8, path: &[&str], edit: Edit<'_>) -> Result<Vec<u8>, Damaged> {
    let (&name, rest) = path.split_first().ok_or(Damaged("an empty path"))?;
    let mut out = Writer::default();
    let (mut met, mut count) = (false, 0usize);
    let mut fields = container.fields();
    loop {
        let before = fields.as_bytes();
        let Some(field) = fields.next() else { break };
        count += 1;
        let field = match field {
            Ok(field) if field.name == name => field,
            Err(error) if error.0 != NAME_IS_NO_TEXT => return Err(error),
            // As it stands, whatever its name is.
            Ok(_) | Err(_) => {
                out.copy(&before[..before.len() - fields.as_bytes().len()]);
                continue;
            }
        };
        met = true;
        if !rest.is_empty() {
            if field.is_container() {
                out.put(field.kind, name, &edited(field.document()?, field.kind, rest, edit)?)?;
            } else if let Edit::Set(_) = edit {
                out.put(kind::DOCUMENT, name, &edited(Document::new(EMPTY)?, kind::DOCUMENT, rest, edit)?)?;
            } else {
                out.put(field.kind, name, field.bytes)?;
            }
            continue;
        }
        match edit {
            Edit::Set(value) => out.put(value.kind, name, value.bytes)?,
            // What goes from an array leaves its place.
            Edit::Remove if of == kind::ARRAY => out.put(kind::NULL, name, &[])?,
            Edit::Remove => {}
            Edit::Cut(size) if field.kind == kind::ARRAY => {
                out.begin(kind::ARRAY, name)?;
                for item in field.document()?.fields().take(size) {
                    let item = item?;
                    out.put(item.kind, item.name, item.bytes)?;
                }
                out.end()?;
            }
            Edit::Cut(_) => out.put(field.kind, name, field.bytes)?,
        }
    }
    if !met && let Edit::Set(value) = edit {
        if of == kind::ARRAY {
            let index: usize = name.parse().map_err(|_| Damaged("an array has no such element"))?;
            for missing in (count..index).take(1 << 20) {
                out.put(kind::NULL, &missing.to_string(), &[])?;
            }
        }
        match rest.is_empty() {
            true => out.put(value.kind, name, value.bytes)?,
            false => out.put(kind::DOCUMENT, name, &edited(Document::new(EMPTY)?, kind::DOCUMENT, rest, edit)?)?,
        }
    }
    out.finish()
}

const EMPTY: &[u8] = &[5, 0, 0, 0, 0];
