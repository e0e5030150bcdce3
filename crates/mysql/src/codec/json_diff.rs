//! Partial JSON updates: the steps from a document's before image to its after image
//! (`binlog_row_value_options = PARTIAL_JSON`).

use super::json::{self, Scalar, Visitor};
use super::{CUT, Invalid, little, take, take_slice};
use crate::wire::lenenc_bytes;

/// A document in parts. Scalars are printed already.
enum Node {
    Object(Vec<(String, Node)>),
    Array(Vec<Node>),
    Scalar(String),
}

const REPLACE: u8 = 0;
const INSERT: u8 = 1;
const REMOVE: u8 = 2;

/// Applies the steps in `diffs` to the stored document `before` and appends the text of the outcome.
pub fn apply(before: &[u8], diffs: &[u8], out: &mut String) -> Result<(), Invalid> {
    let mut document = parse(before)?;
    let mut rest = diffs;
    while !rest.is_empty() {
        let [operation] = take(&mut rest)?;
        let path = lenenc_bytes(&mut rest).ok_or(CUT)?;
        let path = path_of(std::str::from_utf8(path).map_err(|_| BAD_PATH)?)?;
        let value = match operation {
            REPLACE | INSERT => Some(parse(lenenc_bytes(&mut rest).ok_or(CUT)?)?),
            REMOVE => None,
            _ => return Err(Invalid("an unknown step of a partial JSON update")),
        };
        document = step(document, &path, operation, value)?;
    }
    document.print(out);
    Ok(())
}

const BAD_PATH: Invalid = Invalid("a path of a partial JSON update can't be followed");

enum Leg {
    Member(String),
    Element(usize),
}

/// `$.name`, `$."a name"[3]`
fn path_of(text: &str) -> Result<Vec<Leg>, Invalid> {
    let mut rest = text.strip_prefix('$').ok_or(BAD_PATH)?;
    let mut legs = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let (index, after) = after.split_once(']').ok_or(BAD_PATH)?;
            legs.push(Leg::Element(index.trim().parse().map_err(|_| BAD_PATH)?));
            rest = after;
        } else if let Some(after) = rest.strip_prefix(".\"") {
            let mut end = 0;
            loop {
                match after.as_bytes().get(end).ok_or(BAD_PATH)? {
                    b'\\' => end += 2,
                    b'"' => break,
                    _ => end += 1,
                }
            }
            let quoted = format!("\"{}\"", &after[..end]);
            legs.push(Leg::Member(serde_json::from_str(&quoted).map_err(|_| BAD_PATH)?));
            rest = &after[end + 1..];
        } else {
            let after = rest.strip_prefix('.').ok_or(BAD_PATH)?;
            let end = after.find(['.', '[']).unwrap_or(after.len());
            legs.push(Leg::Member(after[..end].to_owned()));
            rest = &after[end..];
        }
    }
    Ok(legs)
}

fn step(mut document: Node, path: &[Leg], operation: u8, value: Option<Node>) -> Result<Node, Invalid> {
    let Some((last, way)) = path.split_last() else {
        return value.filter(|_| operation == REPLACE).ok_or(BAD_PATH);
    };
    let mut parent = &mut document;
    for leg in way {
        parent = match (leg, parent) {
            (Leg::Member(name), Node::Object(members)) => {
                members.iter_mut().find(|(key, _)| key == name).map(|(_, node)| node).ok_or(BAD_PATH)?
            }
            (Leg::Element(index), Node::Array(elements)) => elements.get_mut(*index).ok_or(BAD_PATH)?,
            (Leg::Member(_) | Leg::Element(_), _) => return Err(BAD_PATH),
        };
    }
    match (last, parent, value) {
        (Leg::Member(name), Node::Object(members), Some(value)) => {
            // The server keeps members by length, then by bytes.
            let found =
                members.binary_search_by(|(key, _)| (key.len(), key.as_bytes()).cmp(&(name.len(), name.as_bytes())));
            match (found, operation) {
                (Ok(at), REPLACE) => members[at].1 = value,
                (Err(at), INSERT) => members.insert(at, (name.clone(), value)),
                (Ok(_) | Err(_), _) => return Err(BAD_PATH),
            }
        }
        (Leg::Member(name), Node::Object(members), None) => {
            let at = members.iter().position(|(key, _)| key == name).ok_or(BAD_PATH)?;
            members.remove(at);
        }
        (Leg::Element(index), Node::Array(elements), Some(value)) if operation == INSERT => {
            elements.insert((*index).min(elements.len()), value);
        }
        (Leg::Element(index), Node::Array(elements), Some(value)) => {
            *elements.get_mut(*index).ok_or(BAD_PATH)? = value;
        }
        (Leg::Element(index), Node::Array(elements), None) if *index < elements.len() => {
            elements.remove(*index);
        }
        (Leg::Member(_) | Leg::Element(_), _, _) => return Err(BAD_PATH),
    }
    Ok(document)
}

fn parse(bytes: &[u8]) -> Result<Node, Invalid> {
    let mut builder = Builder::default();
    json::visit(bytes, &mut builder)?;
    builder.root.ok_or(CUT)
}

#[derive(Default)]
struct Builder {
    root: Option<Node>,
    /// Open containers, with the key under which each will stand in its parent.
    open: Vec<(Option<String>, Node)>,
    key: Option<String>,
}

impl Builder {
    fn place(&mut self, key: Option<String>, node: Node) {
        match (self.open.last_mut(), key) {
            (Some((_, Node::Object(members))), Some(key)) => members.push((key, node)),
            (Some((_, Node::Array(elements))), _) => elements.push(node),
            (Some(_) | None, _) => self.root = Some(node),
        }
    }
}

impl Visitor for Builder {
    fn object(&mut self, members: usize) {
        let key = self.key.take();
        self.open.push((key, Node::Object(Vec::with_capacity(members))));
    }

    fn array(&mut self, elements: usize) {
        let key = self.key.take();
        self.open.push((key, Node::Array(Vec::with_capacity(elements))));
    }

    fn key(&mut self, key: &str) {
        self.key = Some(key.to_owned());
    }

    fn element(&mut self) {}

    fn scalar(&mut self, scalar: Scalar<'_>) -> Result<(), Invalid> {
        let mut text = String::new();
        scalar.print(&mut text)?;
        let key = self.key.take();
        self.place(key, Node::Scalar(text));
        Ok(())
    }

    fn end(&mut self) {
        if let Some((key, node)) = self.open.pop() {
            self.place(key, node);
        }
    }
}

impl Node {
    fn print(&self, out: &mut String) {
        match self {
            Node::Scalar(text) => out.push_str(text),
            Node::Object(members) => {
                out.push('{');
                for (nth, (key, node)) in members.iter().enumerate() {
                    out.push_str(if nth > 0 { ", " } else { "" });
                    json::quote(key, out);
                    out.push_str(": ");
                    node.print(out);
                }
                out.push('}');
            }
            Node::Array(elements) => {
                out.push('[');
                for (nth, node) in elements.iter().enumerate() {
                    out.push_str(if nth > 0 { ", " } else { "" });
                    node.print(out);
                }
                out.push(']');
            }
        }
    }
}

/// A stored sequence of steps, with its length in four bytes before it.
pub fn sequence<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], Invalid> {
    let length = little(take_slice(bytes, 4)?);
    take_slice(bytes, usize::try_from(length).map_err(|_| CUT)?)
}
