//! A table that is written once and comes out as HTML in a report or as Markdown in the README.

use super::number;

/// Columns, rows and what they show. Rows shorter than the columns are filled up with empty cells.
#[derive(Clone, Debug, Default)]
pub struct Table {
    pub caption: String,
    pub columns: Vec<Column>,
    pub rows: Vec<Vec<Cell>>,
    /// The row that the text speaks of, set off from the others.
    pub highlight: Option<usize>,
}

/// A column's head. Neighbours with the same `group` share a spanning head above theirs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Column {
    pub name: String,
    pub group: String,
    /// Numbers stand at the right, words at the left.
    pub numeric: bool,
}

impl Column {
    pub fn text(name: impl Into<String>) -> Self {
        Self { name: name.into(), group: String::new(), numeric: false }
    }

    pub fn number(name: impl Into<String>) -> Self {
        Self { name: name.into(), group: String::new(), numeric: true }
    }

    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.group = group.into();
        self
    }
}

/// One entry. A missing one is shown as a dash, so that it cannot be taken for zero or forgotten.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    Text(String),
    /// `spread` is the standard deviation behind the sign ±, in the same unit.
    Number {
        value: f64,
        decimals: usize,
        spread: Option<f64>,
    },
    Missing,
}

impl Cell {
    pub fn number(value: f64, decimals: usize) -> Self {
        Self::Number { value, decimals, spread: None }
    }

    /// A number where there is one.
    pub fn optional(value: Option<f64>, decimals: usize) -> Self {
        value.map_or(Self::Missing, |value| Self::number(value, decimals))
    }

    /// The cell as plain text.
    pub fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number { value, decimals, spread } => {
                let mut text = number::fixed(*value, *decimals);
                if let Some(spread) = spread {
                    text.push_str(&format!(" ± {}", number::fixed(*spread, *decimals)));
                }
                text
            }
            Self::Missing => "–".into(),
        }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl Table {
    pub fn new(columns: impl IntoIterator<Item = Column>) -> Self {
        Self { columns: columns.into_iter().collect(), ..Self::default() }
    }

    pub fn caption(mut self, caption: impl Into<String>) -> Self {
        self.caption = caption.into();
        self
    }

    pub fn row<C: Into<Cell>>(mut self, cells: impl IntoIterator<Item = C>) -> Self {
        self.rows.push(cells.into_iter().map(Into::into).collect());
        self
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Leaves out the numeric columns in which no row has a value.
    pub fn without_empty_columns(mut self) -> Self {
        for index in (0..self.columns.len()).rev() {
            let is_empty = self.rows.iter().all(|row| matches!(row.get(index), None | Some(Cell::Missing)));
            if self.columns[index].numeric && is_empty {
                self.columns.remove(index);
                self.rows.iter_mut().filter(|row| index < row.len()).for_each(|row| {
                    row.remove(index);
                });
            }
        }
        self
    }

    /// A GitHub Markdown table, columns padded so that the source reads as a table too. Markdown has no spanning heads:
    /// a column's group goes before its name.
    pub fn to_markdown(&self) -> String {
        let heads = self.columns.iter().map(|column| match column.group.as_str() {
            "" => column.name.clone(),
            group => format!("{group}, {}", column.name),
        });
        let cells_of = |row: &Vec<Cell>| -> Vec<String> {
            let cell = |index| row.get(index).map_or_else(String::new, Cell::text);
            (0..self.columns.len()).map(|index| escape_markdown(&cell(index))).collect()
        };
        let mut lines = vec![heads.map(|head| escape_markdown(&head)).collect::<Vec<_>>()];
        lines.extend(self.rows.iter().map(cells_of));
        let width_of = |index: usize| lines.iter().map(|line| line[index].chars().count()).max().unwrap_or(0).max(3);
        let widths: Vec<usize> = (0..self.columns.len()).map(width_of).collect();

        let mut text = String::new();
        for (number, line) in lines.iter().enumerate() {
            for ((cell, column), width) in line.iter().zip(&self.columns).zip(&widths) {
                let padding = " ".repeat(width - cell.chars().count());
                text.push_str(&if column.numeric {
                    format!("| {padding}{cell} ")
                } else {
                    format!("| {cell}{padding} ")
                });
            }
            text.push_str("|\n");
            if number == 0 {
                for (column, width) in self.columns.iter().zip(&widths) {
                    let dashes = "-".repeat(width - usize::from(column.numeric));
                    text.push_str(&format!("| {dashes}{} ", if column.numeric { ":" } else { "" }));
                }
                text.push_str("|\n");
            }
        }
        text
    }
}

/// Keeps text from ending its cell, its line or the comment markers around the table, and from being read as markup.
pub(crate) fn escape_markdown(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\r' => escaped.push(' '),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '|' | '\\' | '`' | '*' | '_' | '[' | ']' => {
                escaped.push('\\');
                escaped.push(character);
            }
            _ => escaped.push(character),
        }
    }
    escaped
}
