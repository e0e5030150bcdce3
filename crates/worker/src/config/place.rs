//! Where in the configuration something stands, and what is wrong there.

use std::cell::RefCell;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Line and column of the file, from 1.
    File { line: usize, column: usize },
    /// The variable of that name.
    Environment(Arc<str>),
    /// Somewhere in the file or in no file at all.
    Unknown,
}

/// One mistake. Its text is one line and holds no secret: values are shown only where they can't be one.
#[derive(Clone, Debug)]
pub struct Problem {
    place: Place,
    /// As in `pipelines.customers.from`; empty for the file as a whole.
    path: String,
    text: String,
}

/// Everything that is wrong with a configuration, for it is all reported at once.
#[derive(Debug, Default)]
pub struct Problems(RefCell<Vec<Problem>>);

impl Problems {
    pub fn add(&self, place: &Place, path: &str, text: impl Into<String>) {
        self.0.borrow_mut().push(Problem { place: place.clone(), path: path.to_owned(), text: text.into() });
    }

    pub fn into_vec(self) -> Vec<Problem> {
        self.0.into_inner()
    }
}

/// A configuration that can't be used: a line for each mistake.
#[derive(Debug)]
pub struct Invalid {
    pub file: Option<PathBuf>,
    pub problems: Vec<Problem>,
}

impl std::error::Error for Invalid {}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line_of = |problem: &Problem| match problem.place {
            Place::File { line, column } => (line, column),
            Place::Environment(_) | Place::Unknown => (usize::MAX, 0),
        };
        let mut problems: Vec<&Problem> = self.problems.iter().collect();
        problems.sort_by_key(|problem| line_of(problem));
        for (index, problem) in problems.into_iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            match (&problem.place, &self.file) {
                (Place::File { line, column }, Some(file)) => write!(f, "{}:{line}:{column}: ", file.display())?,
                (Place::Environment(name), _) => write!(f, "environment variable {name}: ")?,
                (Place::Unknown, Some(file)) => write!(f, "{}: ", file.display())?,
                (Place::File { .. } | Place::Unknown, None) => {}
            }
            if !problem.path.is_empty() {
                write!(f, "{}: ", problem.path)?;
            }
            f.write_str(&problem.text)?;
        }
        Ok(())
    }
}

/// What a mistyped word may have meant.
pub fn meant<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let distance = |candidate: &str| strsim::damerau_levenshtein(&word, &candidate.to_lowercase());
    let (distance, best) = known.into_iter().map(|candidate| (distance(candidate), candidate)).min()?;
    // Every third letter may be wrong, and one always.
    (distance <= (word.chars().count() / 3).max(1)).then_some(best)
}

/// `, did you mean "members"?`, or what there is to choose from.
pub fn suggestion<'a>(word: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> String {
    match meant(word, known.clone()) {
        Some(meant) => format!(", did you mean {meant:?}?"),
        None => match listed(known) {
            known if known.is_empty() => String::new(),
            known if !known.contains(',') => format!("; there is only {known}"),
            known => format!("; there are {known}"),
        },
    }
}

pub fn listed<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    words.into_iter().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_word_is_understood_and_another_one_is_not() {
        let known = ["members", "from", "to", "tables"];
        assert_eq!(suggestion("memebers", known), ", did you mean \"members\"?");
        assert_eq!(suggestion("table", known), ", did you mean \"tables\"?");
        assert_eq!(suggestion("form", known), ", did you mean \"from\"?");
        assert_eq!(suggestion("colour", known), "; there are members, from, to, tables");
    }
}
