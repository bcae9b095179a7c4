//! Charts as inline SVG: lines, bars with error bars, scatter plots, shaded planes.
//!
//! Only what needs coordinates is in the SVG; title, legend, axis names and caption are HTML around it, so that they
//! wrap instead of being clipped. Each chart is drawn twice, wide and narrow, and the page shows the one that fits:
//! text keeps its size on a phone. Values that are not finite (or not positive on a logarithmic axis) leave a gap and
//! a line below the chart that counts them.

mod axis;
mod bar;
mod canvas;
mod line;
mod scatter;
mod surface;

pub use axis::Axis;
pub use bar::{Bar, BarChart};
pub use line::{LineChart, Series};
pub use scatter::{Point, ScatterChart, ScatterSeries};
pub use surface::SurfaceChart;

use super::ReportError;
use super::table::Table;
use axis::{Frame, Scale};
use canvas::{Align, Canvas, DrawError, Marker};

/// Any of the charts.
#[derive(Clone, Debug)]
pub enum Chart {
    Line(LineChart),
    Bar(BarChart),
    Scatter(ScatterChart),
    Surface(SurfaceChart),
}

/// A horizontal line to hold values against: `f32, 89.4 %`.
#[derive(Clone, Debug)]
pub struct Reference {
    pub name: String,
    pub value: f64,
}

/// Width and height in CSS pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Size {
    pub width: f64,
    pub height: f64,
}

impl Size {
    /// A text column on a desk or on paper.
    pub const WIDE: Size = Size { width: 720.0, height: 320.0 };
    /// A phone, or half a text column.
    pub const NARROW: Size = Size { width: 346.0, height: 250.0 };
}

/// A line of the legend: a mark in a colour of the palette, and what it stands for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct LegendEntry {
    pub name: String,
    pub mark: LegendMark,
    /// Index into the palette.
    pub colour: usize,
    pub opacity: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum LegendMark {
    Line,
    Box,
    Whisker,
    Point(Marker),
}

impl Chart {
    pub fn title(&self) -> &str {
        match self {
            Self::Line(chart) => &chart.title,
            Self::Bar(chart) => &chart.title,
            Self::Scatter(chart) => &chart.title,
            Self::Surface(chart) => &chart.title,
        }
    }

    /// The chart as one `<svg>` element, or `None` if it has no finite value to show.
    ///
    /// # Errors
    /// The drawing backend failed.
    pub fn to_svg(&self, size: Size) -> Result<Option<String>, ReportError> {
        let drawn = match self {
            Self::Line(chart) => chart.draw(size),
            Self::Bar(chart) => chart.draw(size),
            Self::Scatter(chart) => chart.draw(size),
            Self::Surface(chart) => chart.draw(size),
        };
        drawn.map_err(|cause| ReportError::Chart { title: self.title().into(), cause: cause.0 })
    }

    pub(super) fn caption(&self) -> &str {
        match self {
            Self::Line(chart) => &chart.caption,
            Self::Bar(chart) => &chart.caption,
            Self::Scatter(chart) => &chart.caption,
            Self::Surface(chart) => &chart.caption,
        }
    }

    /// The names below and above the axes.
    pub(super) fn axis_names(&self) -> (String, String) {
        match self {
            Self::Line(chart) => (chart.x.full_name(), chart.y.full_name()),
            Self::Bar(chart) => (chart.x_name.clone(), chart.y.full_name()),
            Self::Scatter(chart) => (chart.x.full_name(), chart.y.full_name()),
            Self::Surface(chart) => (chart.x.full_name(), chart.y.full_name()),
        }
    }

    /// What the marks mean. Empty where there is only one kind of mark and the title says it all.
    pub(super) fn legend(&self) -> Vec<LegendEntry> {
        match self {
            Self::Line(chart) => chart.legend(),
            Self::Bar(chart) => chart.legend(),
            Self::Scatter(chart) => chart.legend(),
            Self::Surface(_) => Vec::new(),
        }
    }

    /// What a reader must know about how it was drawn: smoothing, values left out.
    pub(super) fn notes(&self) -> Vec<String> {
        let (mut notes, left_out) = match self {
            Self::Line(chart) => (chart.notes(), chart.left_out()),
            Self::Bar(chart) => (Vec::new(), chart.left_out()),
            Self::Scatter(chart) => (Vec::new(), chart.left_out()),
            Self::Surface(chart) => (vec![format!("Shaded: {}.", chart.value.full_name())], chart.left_out()),
        };
        match left_out {
            0 => {}
            1 => notes.push("1 value cannot be drawn (not a finite number on this axis) and is left out.".into()),
            n => notes.push(format!("{n} values cannot be drawn (not finite numbers on this axis) and are left out.")),
        }
        notes
    }

    /// The numbers behind the marks, where they are few enough to be read.
    pub(super) fn table(&self) -> Option<Table> {
        match self {
            Self::Line(_) | Self::Surface(_) => None,
            Self::Bar(chart) => Some(chart.table()),
            Self::Scatter(chart) => Some(chart.table()),
        }
    }
}

/// A colour of the palette, as the light theme has it.
pub(super) fn palette(index: usize) -> plotters::style::RGBColor {
    canvas::Colour::Series(index).rgb()
}

impl From<LineChart> for Chart {
    fn from(chart: LineChart) -> Self {
        Self::Line(chart)
    }
}

impl From<BarChart> for Chart {
    fn from(chart: BarChart) -> Self {
        Self::Bar(chart)
    }
}

impl From<ScatterChart> for Chart {
    fn from(chart: ScatterChart) -> Self {
        Self::Scatter(chart)
    }
}

impl From<SurfaceChart> for Chart {
    fn from(chart: SurfaceChart) -> Self {
        Self::Surface(chart)
    }
}
