//! The configuration file of a worker under test.

use crate::kind::Kind;
use std::fmt::Write;
use std::path::Path;

#[derive(Clone, Debug, Default)]
pub struct Settings {
    pub databases: Vec<DatabaseEntry>,
    pub pipelines: Vec<PipelineEntry>,
    /// Whole sections more.
    pub extra: String,
    /// The worker's environment beside that of the test.
    pub environment: Vec<(String, String)>,
}

#[derive(Clone, Debug)]
pub struct DatabaseEntry {
    pub name: String,
    pub kind: Kind,
    pub url: String,
    /// Further lines of its section.
    pub extra: String,
}

#[derive(Clone, Debug)]
pub struct PipelineEntry {
    pub name: String,
    pub from: String,
    pub to: Vec<String>,
    /// `to` are the members, and `from` nobody.
    pub two_way: bool,
    pub tables: Vec<TableEntry>,
    /// Further lines of its section.
    pub extra: String,
}

#[derive(Clone, Debug)]
pub struct TableEntry {
    pub name: String,
    /// What it is called at a database, where that is not its name.
    pub at: Vec<(String, String)>,
    /// The inside of its `document`, where it has one.
    pub document: String,
    /// Further lines of its section.
    pub extra: String,
}

impl TableEntry {
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), at: Vec::new(), document: String::new(), extra: String::new() }
    }
}

impl Settings {
    pub fn database(&mut self, name: &str, kind: Kind, url: &str) -> &mut DatabaseEntry {
        let entry = DatabaseEntry { name: name.to_owned(), kind, url: url.to_owned(), extra: String::new() };
        self.databases.push(entry);
        let last = self.databases.len() - 1;
        &mut self.databases[last]
    }

    pub fn pipeline(&mut self, name: &str, from: &str, to: &[&str]) -> &mut PipelineEntry {
        let to = to.iter().map(|name| (*name).to_owned()).collect();
        let (name, from) = (name.to_owned(), from.to_owned());
        self.pipelines.push(PipelineEntry { name, from, to, two_way: false, tables: Vec::new(), extra: String::new() });
        let last = self.pipelines.len() - 1;
        &mut self.pipelines[last]
    }

    /// A two-way pipeline.
    pub fn two_way(&mut self, name: &str, members: &[&str]) -> &mut PipelineEntry {
        let entry = self.pipeline(name, "", members);
        entry.two_way = true;
        entry
    }

    pub fn toml(&self, state: &Path, port: u16) -> String {
        let mut text =
            format!("[state]\npath = {:?}\n\n[http]\nlisten = \"127.0.0.1:{port}\"\n\n", state.display().to_string());
        text.push_str(&self.databases_and_pipelines());
        text.push_str(&self.extra);
        text
    }

    fn databases_and_pipelines(&self) -> String {
        let mut text = String::new();
        for DatabaseEntry { name, kind, url, extra } in &self.databases {
            write!(text, "[databases.{name}]\nkind = \"{kind}\"\nurl = {url:?}\n{extra}\n").unwrap_or_default();
        }
        for PipelineEntry { name, from, to, two_way, tables, extra } in &self.pipelines {
            let members = match two_way {
                true => format!("members = {to:?}"),
                false => format!("from = {from:?}\nto = {to:?}"),
            };
            write!(text, "[pipelines.{name}]\n{members}\n{extra}\n").unwrap_or_default();
            for TableEntry { name: table, at, document, extra } in tables {
                write!(text, "[[pipelines.{name}.tables]]\nname = {table:?}\n{extra}").unwrap_or_default();
                if !at.is_empty() {
                    let at: Vec<String> =
                        at.iter().map(|(database, there)| format!("{database} = {there:?}")).collect();
                    writeln!(text, "at = {{ {} }}", at.join(", ")).unwrap_or_default();
                }
                if !document.is_empty() {
                    writeln!(text, "document = {{ {document} }}").unwrap_or_default();
                }
            }
            text.push('\n');
        }
        text
    }
}
