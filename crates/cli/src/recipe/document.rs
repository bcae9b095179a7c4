//! A TOML document that remembers where each value came from: a place in the file, or a `--set`.

use std::borrow::Cow;
use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer, Error};

use super::RecipeError;

/// The texts that a document is made of. Every one has a stretch of offsets of its own, first the file and then each
/// `--set`, so that an error's span alone tells where to look.
pub struct Sources<'a> {
    file: &'a str,
    text: &'a str,
    assignments: Vec<Assignment<'a>>,
}

/// One `--set key=value`.
struct Assignment<'a> {
    given: &'a str,
    path: Vec<&'a str>,
    value: &'a str,
    /// `v = value`, moved right so that it begins where its stretch does.
    toml: String,
    stretch: Range<usize>,
}

impl<'a> Sources<'a> {
    /// `file` is what errors call `text`; `assignments` are of the form `key=value`.
    pub fn new(file: &'a str, text: &'a str, assignments: &'a [String]) -> Result<Self, RecipeError> {
        let mut sources = Self { file, text, assignments: Vec::with_capacity(assignments.len()) };
        let mut start = text.len() + 1;
        for given in assignments {
            let assignment = Assignment::parse(given, start)?;
            start = assignment.stretch.end;
            sources.assignments.push(assignment);
        }
        Ok(sources)
    }

    /// Parses the file and applies the assignments in their order.
    pub fn document(&'a self) -> Result<Document<'a>, RecipeError> {
        let root = DeTable::parse(self.text).map_err(|error| self.invalid(error.span(), &one_line(&error)))?;
        let mut document = Document { sources: self, root };
        for assignment in &self.assignments {
            assignment.apply(document.root.get_mut())?;
        }
        Ok(document)
    }

    fn invalid(&self, span: Option<Range<usize>>, message: &str) -> RecipeError {
        let start = span.map_or(0, |span| span.start);
        if let Some(assignment) = self.assignments.iter().find(|assignment| assignment.stretch.contains(&start)) {
            return assignment.invalid(message);
        }
        let before = self.text.get(..start).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        RecipeError::Invalid { place: format!("{}:{line}:{column}", self.file), message: message.to_owned() }
    }
}

impl<'a> Assignment<'a> {
    fn parse(given: &'a str, start: usize) -> Result<Self, RecipeError> {
        let mut assignment = Self { given, path: Vec::new(), value: "", toml: String::new(), stretch: start..start };
        let Some((path, value)) = given.split_once('=') else {
            return Err(assignment.invalid("should be key=value, such as seeds=[1]"));
        };
        assignment.path = path.split('.').map(str::trim).collect();
        if assignment.path.contains(&"") {
            return Err(assignment.invalid("has an empty key"));
        }
        assignment.value = value.trim();
        assignment.toml = format!("{:start$}v = {}", "", assignment.value);
        assignment.stretch.end = assignment.toml.len() + 1;
        Ok(assignment)
    }

    /// The value in TOML, or else as a string without quotes.
    fn value(&self) -> Spanned<DeValue<'_>> {
        let parsed = DeTable::parse(&self.toml).ok().map(Spanned::into_inner);
        parsed
            .filter(|table| table.len() == 1)
            .and_then(|mut table| table.remove("v"))
            .unwrap_or_else(|| Spanned::new(self.stretch.clone(), DeValue::String(Cow::Borrowed(self.value))))
    }

    /// Puts the value into its place. An element of an array is called by its number or by its `name`. Tables on the
    /// way are made: a path that no recipe has is found when the document is deserialised.
    fn apply<'s>(&'s self, root: &mut DeTable<'s>) -> Result<(), RecipeError> {
        let Some((&last, way)) = self.path.split_last() else { return Ok(()) };
        let key = |name: &'s str| Spanned::new(self.stretch.clone(), Cow::Borrowed(name));
        let mut table = root;
        let mut way = way.iter();
        while let Some(&name) = way.next() {
            let empty = || Spanned::new(self.stretch.clone(), DeValue::Table(DeTable::new()));
            let mut here = table.entry(key(name)).or_insert_with(empty).get_mut();
            if let DeValue::Array(elements) = here {
                let Some(&wanted) = way.next() else {
                    return Err(self.invalid(&format!("`{name}` is a list: name an element, as in {name}.0.{last}")));
                };
                let count = elements.len();
                let found = elements.iter_mut().enumerate().find(|(index, element)| {
                    let called = element.get_ref().get("name").and_then(|name| name.get_ref().as_str());
                    called == Some(wanted) || index.to_string() == wanted
                });
                let Some((_, element)) = found else {
                    return Err(self.invalid(&format!("`{name}` has {count} elements and none called `{wanted}`")));
                };
                here = element.get_mut();
            }
            let DeValue::Table(next) = here else {
                return Err(self.invalid(&format!("`{name}` is a value and has no keys")));
            };
            table = next;
        }
        // Removed first: the map would keep the old key, and with it the old place.
        table.remove(last);
        table.insert(key(last), self.value());
        Ok(())
    }

    fn invalid(&self, message: &str) -> RecipeError {
        RecipeError::Invalid { place: format!("--set {}", self.given), message: message.to_owned() }
    }
}

/// A parsed document with its assignments applied.
pub struct Document<'a> {
    sources: &'a Sources<'a>,
    root: Spanned<DeTable<'a>>,
}

impl Document<'_> {
    pub fn deserialize<T: DeserializeOwned>(&self) -> Result<T, RecipeError> {
        T::deserialize(Deserializer::from(self.root.clone())).map_err(|error| {
            let message = one_line(&error);
            match error.span().and_then(|span| key_at(self.root.get_ref(), span.start)) {
                Some(key) => self.sources.invalid(error.span(), &format!("{key}: {message}")),
                None => self.sources.invalid(error.span(), &message),
            }
        })
    }

    /// The error for a value that is of the right type and still cannot be used; `key` is its path, with numbers for
    /// the elements of arrays.
    pub fn fault(&self, key: &str, message: &str) -> RecipeError {
        let mut parts = key.split('.');
        let mut span = self.root.span();
        let mut here = parts.next().and_then(|part| self.root.get_ref().get(part));
        // What is absent has its default: the place is then that of the table it would be in.
        while let Some(value) = here {
            span = value.span();
            here = parts.next().and_then(|part| match value.get_ref() {
                DeValue::Table(table) => table.get(part),
                DeValue::Array(elements) => elements.get(part.parse::<usize>().ok()?),
                _ => None,
            });
        }
        self.sources.invalid(Some(span), &format!("{key}: {message}"))
    }
}

/// The path of the innermost key whose name or value is at an offset.
fn key_at(table: &DeTable<'_>, offset: usize) -> Option<String> {
    fn within(value: &Spanned<DeValue<'_>>, offset: usize) -> Option<String> {
        match value.get_ref() {
            DeValue::Table(table) => key_at(table, offset),
            DeValue::Array(elements) => elements.iter().enumerate().find_map(|(index, element)| {
                let inner = within(element, offset);
                let here = || element.span().contains(&offset).then(|| index.to_string());
                inner.map(|inner| format!("{index}.{inner}")).or_else(here)
            }),
            _ => None,
        }
    }
    table.iter().find_map(|(key, value)| {
        // A table under a header has only the header as its span, so the values in it are looked at first.
        let inner = within(value, offset).map(|inner| format!("{}.{inner}", key.get_ref()));
        let here = key.span().contains(&offset) || value.span().contains(&offset);
        inner.or_else(|| here.then(|| key.get_ref().to_string()))
    })
}

fn one_line(error: &Error) -> String {
    error.message().trim().replace('\n', ", ")
}
