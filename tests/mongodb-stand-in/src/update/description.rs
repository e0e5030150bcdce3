//! `updateDescription`: what turns the old document into the new one, with dotted paths and shortened arrays.
//!
//! A nested document or array is described from inside where old and new have something in common, else as a whole,
//! as the server's own difference of documents does.

use bson::raw::CString;
use bson::{RawArray, RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf, rawdoc};

use crate::failure::Failure;
use crate::value::identical;

#[derive(Default)]
pub struct Description {
    updated: RawDocumentBuf,
    removed: RawArrayBuf,
    truncated: RawArrayBuf,
    /// Paths with a part that could be an index or a name, or with a dot inside a name: `[path, [parts]]`.
    ambiguous: Vec<(String, Vec<Part>)>,
}

#[derive(Clone)]
enum Part {
    Name(String),
    Index(i32),
}

enum Nested<'a> {
    Documents(Vec<Part>, &'a RawDocument, &'a RawDocument),
    Arrays(Vec<Part>, &'a RawArray, &'a RawArray),
}

impl Description {
    pub fn between(old: &RawDocument, new: &RawDocument) -> Result<RawDocumentBuf, Failure> {
        let mut description = Self::default();
        description.documents(&[], old, new)?;
        Ok(description.finish())
    }

    fn finish(self) -> RawDocumentBuf {
        let mut ambiguous = RawDocumentBuf::new();
        for (path, parts) in self.ambiguous {
            let mut list = RawArrayBuf::new();
            for part in parts {
                match part {
                    Part::Name(name) => list.push(name),
                    Part::Index(index) => list.push(index),
                }
            }
            if let Ok(path) = CString::try_from(path) {
                ambiguous.append(path, list);
            }
        }
        rawdoc! {
            "updatedFields": self.updated,
            "removedFields": self.removed,
            "truncatedArrays": self.truncated,
            "disambiguatedPaths": ambiguous,
        }
    }

    fn documents(&mut self, at: &[Part], old: &RawDocument, new: &RawDocument) -> Result<(), Failure> {
        for field in old.iter_elements() {
            let name = field?.key().as_str();
            if new.get(name)?.is_none() {
                let path = self.path(&below(at, Part::Name(name.to_owned())));
                self.removed.push(path);
            }
        }
        // Changed fields come first, then new ones, then what is described from inside.
        let (mut fresh, mut nested) = (Vec::new(), Vec::new());
        for field in new.iter() {
            let (name, value) = field?;
            let path = below(at, Part::Name(name.as_str().to_owned()));
            match old.get(name.as_str())? {
                None => fresh.push((path, value)),
                Some(before) if identical(before, value) => {}
                Some(before) => match nest(&path, before, value) {
                    Some(pair) => nested.push(pair),
                    None => self.update(&path, value)?,
                },
            }
        }
        for (path, value) in fresh {
            self.update(&path, value)?;
        }
        nested.into_iter().try_for_each(|pair| self.inside(pair))
    }

    fn inside(&mut self, pair: Nested<'_>) -> Result<(), Failure> {
        match pair {
            Nested::Documents(at, old, new) => self.documents(&at, old, new),
            Nested::Arrays(at, old, new) => self.arrays(&at, old, new),
        }
    }

    fn arrays(&mut self, at: &[Part], old: &RawArray, new: &RawArray) -> Result<(), Failure> {
        let old: Vec<_> = old.into_iter().collect::<Result<_, _>>()?;
        let new: Vec<_> = new.into_iter().collect::<Result<_, _>>()?;
        if new.len() < old.len() {
            let path = self.path(at);
            self.truncated.push(rawdoc! { "field": path, "newSize": new.len() as i32 });
        }
        let mut nested = Vec::new();
        for (index, value) in new.into_iter().enumerate() {
            let path = below(at, Part::Index(index as i32));
            match old.get(index) {
                Some(before) if identical(*before, value) => {}
                Some(before) => match nest(&path, *before, value) {
                    Some(pair) => nested.push(pair),
                    None => self.update(&path, value)?,
                },
                None => self.update(&path, value)?,
            }
        }
        nested.into_iter().try_for_each(|pair| self.inside(pair))
    }

    fn update(&mut self, path: &[Part], value: RawBsonRef<'_>) -> Result<(), Failure> {
        let path = CString::try_from(self.path(path))?;
        self.updated.append(path, value);
        Ok(())
    }

    fn path(&mut self, parts: &[Part]) -> String {
        let texts = parts.iter().map(|part| match part {
            Part::Name(name) => name.clone(),
            Part::Index(index) => index.to_string(),
        });
        let path = texts.collect::<Vec<_>>().join(".");
        let unclear = |(place, part): (usize, &Part)| match part {
            Part::Name(name) => name.contains('.') || (place > 0 && name.bytes().all(|byte| byte.is_ascii_digit())),
            Part::Index(_) => false,
        };
        if parts.iter().enumerate().any(unclear) {
            self.ambiguous.push((path.clone(), parts.to_vec()));
        }
        path
    }
}

fn below(at: &[Part], part: Part) -> Vec<Part> {
    at.iter().cloned().chain([part]).collect()
}

fn nest<'a>(path: &[Part], old: RawBsonRef<'a>, new: RawBsonRef<'a>) -> Option<Nested<'a>> {
    match (old, new) {
        (RawBsonRef::Document(old), RawBsonRef::Document(new)) => {
            let shared = new.iter_elements().flatten().any(|field| old.get(field.key()).is_ok_and(|old| old.is_some()));
            shared.then(|| Nested::Documents(path.to_vec(), old, new))
        }
        (RawBsonRef::Array(old), RawBsonRef::Array(new)) => {
            let mut pairs = old.into_iter().flatten().zip(new.into_iter().flatten());
            pairs.any(|(old, new)| identical(old, new)).then(|| Nested::Arrays(path.to_vec(), old, new))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_changes_are_dotted_and_shorter_arrays_are_cut() {
        let old = rawdoc! {"_id": 1, "a": 1, "n": {"x": 1, "y": 2}, "l": [1, 2, 3]};
        let new = rawdoc! {"_id": 1, "n": {"x": 5, "y": 2}, "l": [1, 2], "b": "q"};
        let description = Description::between(&old, &new).expect("a description");
        let expected = rawdoc! {
            "updatedFields": {"b": "q", "n.x": 5}, "removedFields": ["a"],
            "truncatedArrays": [{"field": "l", "newSize": 2}], "disambiguatedPaths": {},
        };
        assert_eq!(description, expected);
    }

    #[test]
    fn what_has_nothing_in_common_is_given_whole() {
        let old = rawdoc! {"n": {"x": 1}, "l": [1]};
        let new = rawdoc! {"n": {"z": 1}, "l": [2]};
        let description = Description::between(&old, &new).expect("a description");
        let updated = description.get_document("updatedFields").expect("fields");
        assert_eq!(updated, rawdoc! {"n": {"z": 1}, "l": [2]}.as_ref() as &RawDocument);
    }

    #[test]
    fn a_name_with_a_dot_is_made_clear() {
        let description = Description::between(&rawdoc! {"o": {"x": 1, "a.b": 1}}, &rawdoc! {"o": {"x": 1, "a.b": 2}});
        let paths = description.expect("a description").get_document("disambiguatedPaths").expect("paths").to_owned();
        assert_eq!(paths, rawdoc! {"o.a.b": ["o", "a.b"]});
    }
}
