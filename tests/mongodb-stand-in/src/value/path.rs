//! Dotted paths: reading them in stored bytes, and setting or removing them in a document that is being changed.

use bson::{Bson, Document, RawArray, RawBsonRef, RawDocument};

use crate::failure::Failure;

pub type Path = Vec<String>;

pub fn parse(path: &str) -> Path {
    path.split('.').map(str::to_owned).collect()
}

/// An array index, if the path's part can be one.
fn index(part: &str) -> Option<usize> {
    if part.len() < 9 && part.bytes().all(|byte| byte.is_ascii_digit()) { part.parse().ok() } else { None }
}

/// The one value at a path; arrays are entered by index only.
pub fn get<'a>(document: &'a RawDocument, path: &[String]) -> Option<RawBsonRef<'a>> {
    let (first, rest) = path.split_first()?;
    let mut value = document.get(first).ok().flatten()?;
    for part in rest {
        value = match value {
            RawBsonRef::Document(document) => document.get(part).ok().flatten()?,
            RawBsonRef::Array(array) => array.get(index(part)?).ok().flatten()?,
            _ => return None,
        };
    }
    Some(value)
}

/// Every value that a query on the path looks at: arrays on the way are entered element by element. `None` is a missing field.
pub fn resolve<'a>(document: &'a RawDocument, path: &[String], found: &mut Vec<Option<RawBsonRef<'a>>>) {
    let Some((first, rest)) = path.split_first() else { return };
    match document.get(first).ok().flatten() {
        None => found.push(None),
        Some(value) if rest.is_empty() => found.push(Some(value)),
        Some(RawBsonRef::Document(inner)) => resolve(inner, rest, found),
        Some(RawBsonRef::Array(array)) => resolve_array(array, rest, found),
        Some(_) => found.push(None),
    }
}

fn resolve_array<'a>(array: &'a RawArray, path: &[String], found: &mut Vec<Option<RawBsonRef<'a>>>) {
    let before = found.len();
    if let Some(value) = index(&path[0]).and_then(|index| array.get(index).ok().flatten()) {
        match value {
            value if path.len() == 1 => found.push(Some(value)),
            RawBsonRef::Document(inner) => resolve(inner, &path[1..], found),
            RawBsonRef::Array(inner) => resolve_array(inner, &path[1..], found),
            _ => {}
        }
    }
    for element in array.into_iter().flatten().filter_map(RawBsonRef::as_document) {
        resolve(element, path, found);
    }
    if found.len() == before {
        found.push(None);
    }
}

pub fn get_in<'a>(document: &'a Document, path: &[String]) -> Option<&'a Bson> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(document.get(first)?, |value, part| match value {
        Bson::Document(inner) => inner.get(part),
        Bson::Array(inner) => inner.get(index(part)?),
        _ => None,
    })
}

pub fn get_mut<'a>(document: &'a mut Document, path: &[String]) -> Option<&'a mut Bson> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(document.get_mut(first)?, |value, part| match value {
        Bson::Document(inner) => inner.get_mut(part),
        Bson::Array(inner) => inner.get_mut(index(part)?),
        _ => None,
    })
}

/// Sets a value, making documents on the way and filling arrays up with null.
pub fn set(document: &mut Document, path: &[String], value: Bson) -> Result<(), Failure> {
    let Some((first, rest)) = path.split_first() else { return Ok(()) };
    if rest.is_empty() {
        document.insert(first.clone(), value);
        return Ok(());
    }
    if !document.contains_key(first) {
        document.insert(first.clone(), Document::new());
    }
    match document.get_mut(first) {
        Some(inner) => set_inside(inner, rest, value),
        None => Ok(()),
    }
}

fn set_inside(target: &mut Bson, path: &[String], value: Bson) -> Result<(), Failure> {
    match target {
        Bson::Document(document) => set(document, path, value),
        Bson::Array(array) => {
            let at = index(&path[0]).ok_or_else(|| not_viable(&path[0], "array"))?;
            if array.len() <= at {
                array.resize(at + 1, Bson::Null);
            }
            if path.len() == 1 {
                array[at] = value;
                return Ok(());
            }
            if array[at] == Bson::Null {
                array[at] = Bson::Document(Document::new());
            }
            set_inside(&mut array[at], &path[1..], value)
        }
        other => Err(not_viable(&path[0], &format!("{:?}", other.element_type()))),
    }
}

fn not_viable(part: &str, kind: &str) -> Failure {
    Failure::new(28, format!("Cannot create field '{part}' in element of type {kind}"))
}

/// Removes a field; an array's element becomes null instead.
pub fn unset(document: &mut Document, path: &[String]) {
    match path {
        [] => {}
        [name] => drop(document.remove(name)),
        [parents @ .., name] => match get_mut(document, parents) {
            Some(Bson::Document(inner)) => drop(inner.remove(name)),
            Some(Bson::Array(inner)) => {
                if let Some(slot) = index(name).and_then(|at| inner.get_mut(at)) {
                    *slot = Bson::Null;
                }
            }
            _ => {}
        },
    }
}
