//! A report: one self-contained HTML page with the finding, the numbers behind it, charts and tables.
//!
//! The page loads nothing: style, charts (SVG) and pictures (PNG as data URIs) are inside it, and its content security
//! policy forbids everything else. It reads in light and dark, on a phone and on paper. Every string given here is
//! data, never markup.

use std::io;
use std::path::{Path, PathBuf};

use crate::atomic;
use crate::result::RunResult;

pub mod chart;
mod curvature;
mod html;
pub mod number;
pub mod qbert;
pub mod readme;
mod study;
pub mod table;
mod text;

pub use chart::{
    Axis, Bar, BarChart, Chart, LineChart, Point, Reference, ScatterChart, ScatterSeries, Series, SurfaceChart,
};
pub use table::{Cell, Column, Table};

/// A page, from its title down to where the numbers came from.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub title: String,
    /// What the run found, in one sentence.
    pub finding: String,
    pub key_numbers: Vec<KeyNumber>,
    pub sections: Vec<Section>,
    /// The run behind the page: its notes become a section, its machine, commit and time the foot of the page.
    pub run: Option<RunResult>,
}

/// One of the few numbers at the top of the page.
#[derive(Clone, Debug)]
pub struct KeyNumber {
    /// The number as it is printed, see [`number`].
    pub value: String,
    /// `%`, `MB`, `s`; empty for a plain number.
    pub unit: String,
    pub label: String,
    /// What to hold it against: `89.4 % in f32`.
    pub note: String,
}

impl KeyNumber {
    pub fn new(value: impl Into<String>, unit: impl Into<String>, label: impl Into<String>) -> Self {
        Self { value: value.into(), unit: unit.into(), label: label.into(), note: String::new() }
    }

    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }
}

/// A headed part of the page.
#[derive(Clone, Debug, Default)]
pub struct Section {
    pub title: String,
    pub blocks: Vec<Block>,
}

/// One thing in a section.
#[derive(Clone, Debug)]
pub enum Block {
    Paragraph(String),
    Table(Table),
    /// One chart over the whole width, or several side by side (one below the other on a phone).
    Charts(Vec<Chart>),
    Gallery(ImageGallery),
    Details(Details),
}

/// Pictures in a row that wraps, each with its caption.
#[derive(Clone, Debug, Default)]
pub struct ImageGallery {
    pub caption: String,
    pub images: Vec<GalleryImage>,
}

/// A PNG file's bytes and what they show.
#[derive(Clone, Debug)]
pub struct GalleryImage {
    pub png: Vec<u8>,
    pub caption: String,
}

/// JSON behind a line that opens it.
#[derive(Clone, Debug)]
pub struct Details {
    pub summary: String,
    pub json: serde_json::Value,
}

impl Report {
    pub fn new(title: impl Into<String>, finding: impl Into<String>) -> Self {
        Self { title: title.into(), finding: finding.into(), ..Self::default() }
    }

    pub fn key_number(mut self, number: KeyNumber) -> Self {
        self.key_numbers.push(number);
        self
    }

    pub fn section(mut self, section: Section) -> Self {
        self.sections.push(section);
        self
    }

    pub fn run(mut self, run: RunResult) -> Self {
        self.run = Some(run);
        self
    }

    /// The whole page.
    ///
    /// # Errors
    /// A gallery image that is not a PNG file, or a chart that could not be drawn.
    pub fn to_html(&self) -> Result<String, ReportError> {
        html::page(self)
    }

    /// Writes the page atomically.
    ///
    /// # Errors
    /// As [`to_html`](Self::to_html), and a file that cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), ReportError> {
        let page = self.to_html()?;
        atomic::write(path, page.as_bytes()).map_err(|cause| ReportError::Write { path: path.into(), cause })
    }
}

impl Section {
    pub fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), blocks: Vec::new() }
    }

    pub fn paragraph(self, text: impl Into<String>) -> Self {
        self.block(Block::Paragraph(text.into()))
    }

    pub fn table(self, table: Table) -> Self {
        self.block(Block::Table(table))
    }

    /// A chart over the whole width.
    pub fn chart(self, chart: impl Into<Chart>) -> Self {
        self.block(Block::Charts(vec![chart.into()]))
    }

    /// Charts side by side.
    pub fn charts(self, charts: impl IntoIterator<Item = Chart>) -> Self {
        self.block(Block::Charts(charts.into_iter().collect()))
    }

    pub fn gallery(self, gallery: ImageGallery) -> Self {
        self.block(Block::Gallery(gallery))
    }

    pub fn details(self, summary: impl Into<String>, json: serde_json::Value) -> Self {
        self.block(Block::Details(Details { summary: summary.into(), json }))
    }

    fn block(mut self, block: Block) -> Self {
        self.blocks.push(block);
        self
    }
}

impl ImageGallery {
    pub fn new(caption: impl Into<String>) -> Self {
        Self { caption: caption.into(), images: Vec::new() }
    }

    pub fn image(mut self, png: Vec<u8>, caption: impl Into<String>) -> Self {
        self.images.push(GalleryImage { png, caption: caption.into() });
        self
    }
}

/// Why a report could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    #[error("cannot draw the chart {title:?}: {cause}")]
    Chart { title: String, cause: String },
    #[error("the picture {caption:?} is not a PNG file: encode it as PNG first")]
    NotPng { caption: String },
    #[error("cannot fill in the report's page: {0}")]
    Page(minijinja::Error),
    #[error("cannot write the report {}: {cause}; nothing was changed", path.display())]
    Write { path: PathBuf, cause: io::Error },
}
