//! Bars with error bars, such as the sensitivity of a network's layers.

use super::axis::Ends;
use super::canvas::{self, Colour, Marker, Stroke, TICK_SIZE, fit_text, text_width};
use super::{Align, Axis, Canvas, DrawError, Frame, LegendEntry, LegendMark, Scale, Size};
use crate::report::table::{Cell, Column, Table};

/// One bar a category, on a linear axis from zero whatever `y` asks for.
#[derive(Clone, Debug, Default)]
pub struct BarChart {
    pub title: String,
    pub caption: String,
    /// What the categories are: `Encoder layer`.
    pub x_name: String,
    pub y: Axis,
    pub bars: Vec<Bar>,
    /// What a bar's shade says, by its `group`, darkest first: `3 bits`, `2 bits`.
    pub groups: Vec<String>,
    /// What a bar's height is, its error bar, its mark and its tag: names in the legend and in the table of values.
    pub value_name: String,
    pub error_name: String,
    pub mark_name: String,
    pub tag_name: String,
}

#[derive(Clone, Debug, Default)]
pub struct Bar {
    pub label: String,
    pub value: f64,
    /// Half the length of the error bar, in the unit of the value.
    pub error: Option<f64>,
    /// A value marked by a diamond over the bar.
    pub mark: Option<f64>,
    /// A few characters written on the bar, such as its bits.
    pub tag: String,
    /// Index into the chart's `groups`.
    pub group: usize,
}

impl Bar {
    pub fn new(label: impl Into<String>, value: f64) -> Self {
        Self { label: label.into(), value, ..Self::default() }
    }

    pub fn error(mut self, error: f64) -> Self {
        self.error = Some(error);
        self
    }

    pub fn mark(mut self, mark: f64) -> Self {
        self.mark = Some(mark);
        self
    }

    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tag = tag.into();
        self
    }

    pub fn group(mut self, group: usize) -> Self {
        self.group = group;
        self
    }
}

const TAG_SIZE: f64 = 12.0;
const LINE_HEIGHT: f64 = 15.0;

impl BarChart {
    pub fn new(title: impl Into<String>, x_name: impl Into<String>, y: Axis) -> Self {
        Self { title: title.into(), x_name: x_name.into(), value_name: y.name.clone(), y, ..Self::default() }
    }

    pub fn caption(mut self, caption: impl Into<String>) -> Self {
        self.caption = caption.into();
        self
    }

    pub fn bar(mut self, bar: Bar) -> Self {
        self.bars.push(bar);
        self
    }

    pub(super) fn draw(&self, size: Size) -> Result<Option<String>, DrawError> {
        let axis = self.axis();
        // Tags may have to stand above the highest bar.
        let headroom = if self.bars.iter().any(|bar| !bar.tag.is_empty()) { 1.12 } else { 1.0 };
        let extents = self.bars.iter().filter_map(|bar| bar.extent(&axis));
        let ends = extents.flat_map(|(low, high)| [low, high, high * headroom]);
        let Some(y) = Scale::fit(&axis, ends, Frame::y_ticks(size), Ends::Round) else { return Ok(None) };
        let labels = Labels::fit(&self.bars, &y, size);
        let frame = Frame::new(size, None, y, labels.lines());
        canvas::draw(size, &self.title, |canvas| {
            frame.draw(canvas)?;
            let slot = (frame.right - frame.left) / self.bars.len() as f64;
            let width = (slot * 0.62).min(72.0);
            let centre = |index: usize| frame.left + (index as f64 + 0.5) * slot;
            let tags_inside = self.bars.iter().all(|bar| bar.has_room_for_tag(&axis, &frame));
            for (index, bar) in self.bars.iter().enumerate() {
                self.draw_bar(canvas, &frame, bar, centre(index), width)?;
                // A tag too wide for its place is left to the table below the chart.
                if !bar.tag.is_empty() && text_width(&bar.tag, TAG_SIZE) <= slot {
                    let inside = tags_inside.then(|| self.opacity(bar.group));
                    let (y, colour) = bar.tag_place(&axis, &frame, inside);
                    canvas.text((centre(index), y), &bar.tag, TAG_SIZE, Align::Centre, colour)?;
                }
            }
            canvas.line(&[(frame.left, frame.y(0.0)), (frame.right, frame.y(0.0))], Stroke::new(Colour::Axis, 1.0))?;
            for (index, lines) in &labels.shown {
                for (number, line) in lines.iter().enumerate() {
                    let y = frame.bottom + 13.0 + LINE_HEIGHT * number as f64;
                    canvas.text((centre(*index), y), line, TICK_SIZE, Align::Centre, Colour::Muted)?;
                }
            }
            Ok(())
        })
        .map(Some)
    }

    fn draw_bar(&self, canvas: &mut Canvas, frame: &Frame, bar: &Bar, x: f64, width: f64) -> Result<(), DrawError> {
        let axis = self.axis();
        if !axis.can_show(bar.value) {
            return canvas.text((x, (frame.y(0.0) - 9.0).max(0.0)), "–", TICK_SIZE, Align::Centre, Colour::Muted);
        }
        let (base, top) = (frame.y(0.0), frame.y(bar.value));
        canvas.rectangle(
            (x - width / 2.0, base),
            (x + width / 2.0, top),
            Colour::Series(0),
            self.opacity(bar.group),
        )?;
        if let Some(error) = bar.drawn_error(&axis) {
            let (high, low) = (frame.y(bar.value + error), frame.y(bar.value - error));
            let cap = (width / 6.0).min(5.0);
            let strokes: [[(f64, f64); 2]; 3] =
                [[(x, low), (x, high)], [(x - cap, low), (x + cap, low)], [(x - cap, high), (x + cap, high)]];
            for stroke in [Stroke::new(Colour::Paper, 3.5).opacity(0.8), Stroke::new(Colour::Ink, 1.25)] {
                for line in &strokes {
                    canvas.line(line, stroke)?;
                }
            }
        }
        if let Some(mark) = bar.drawn_mark(&axis) {
            canvas.marker((x, frame.y(mark)), Marker::Diamond, 4.0, Colour::Series(1))?;
        }
        Ok(())
    }

    /// Groups are shades of one colour, evenly spaced, the first one full.
    fn opacity(&self, group: usize) -> f64 {
        const PALEST: f64 = 0.3;
        match self.groups.len() {
            0 | 1 => 1.0,
            count => 1.0 - (1.0 - PALEST) * (group % count) as f64 / (count - 1) as f64,
        }
    }

    pub(super) fn left_out(&self) -> usize {
        let axis = self.axis();
        let hidden = |value: f64| usize::from(!axis.can_show(value));
        self.bars.iter().map(|bar| hidden(bar.value) + bar.error.map_or(0, hidden) + bar.mark.map_or(0, hidden)).sum()
    }

    /// The axis as bars need it: their lengths mean something only from zero on a linear one.
    fn axis(&self) -> Axis {
        Axis { log: false, from_zero: true, ..self.y.clone() }
    }

    pub(super) fn legend(&self) -> Vec<LegendEntry> {
        let mut entries: Vec<_> = (self.groups.iter().enumerate())
            .map(|(group, name)| LegendEntry {
                name: name.clone(),
                mark: LegendMark::Box,
                colour: 0,
                opacity: self.opacity(group),
            })
            .collect();
        let explained =
            [(&self.error_name, LegendMark::Whisker), (&self.mark_name, LegendMark::Point(Marker::Diamond))];
        for (name, mark) in explained.into_iter().filter(|(name, _)| !name.is_empty()) {
            entries.push(LegendEntry { name: name.clone(), mark, colour: 1, opacity: 1.0 });
        }
        entries
    }

    pub(super) fn table(&self) -> Table {
        let columns = [Column::text(&self.x_name), Column::number(&self.value_name), Column::number(&self.error_name)]
            .into_iter()
            .chain([Column::number(&self.mark_name), Column::text(&self.tag_name)]);
        let mut table = Table::new(columns);
        let largest = self.bars.iter().flat_map(|bar| [Some(bar.value), bar.error, bar.mark]).flatten();
        let decimals = decimals_for(largest);
        for bar in &self.bars {
            let cells = [Cell::number(bar.value, decimals)]
                .into_iter()
                .chain([bar.error, bar.mark].map(|value| Cell::optional(value, decimals)));
            let row = [Cell::from(bar.label.as_str())].into_iter().chain(cells).chain([Cell::from(bar.tag.as_str())]);
            table = table.row(row);
        }
        if self.bars.iter().all(|bar| bar.tag.is_empty()) {
            table.columns.pop();
        }
        table.without_empty_columns()
    }
}

/// Decimals that show the largest of the numbers with four digits.
pub(super) fn decimals_for(values: impl Iterator<Item = f64>) -> usize {
    let largest = values.map(f64::abs).filter(|value| value.is_finite()).fold(0.0, f64::max);
    if largest == 0.0 { 0 } else { (3.0 - largest.log10().floor()).clamp(0.0, 9.0) as usize }
}

impl Bar {
    fn drawn_error(&self, y: &Axis) -> Option<f64> {
        self.error.map(f64::abs).filter(|error| y.can_show(self.value + error) && y.can_show(self.value - error))
    }

    fn drawn_mark(&self, y: &Axis) -> Option<f64> {
        self.mark.filter(|mark| y.can_show(*mark))
    }

    /// The lowest and highest value that is drawn, the foot included; `None` if the bar cannot be drawn.
    fn extent(&self, axis: &Axis) -> Option<(f64, f64)> {
        if !axis.can_show(self.value) {
            return None;
        }
        let error = self.drawn_error(axis).unwrap_or(0.0);
        let mark = self.drawn_mark(axis).unwrap_or(0.0);
        Some(((self.value - error).min(mark).min(0.0), (self.value + error).max(mark).max(0.0)))
    }

    /// Whether the tag fits between the foot of the bar and everything drawn above.
    fn has_room_for_tag(&self, axis: &Axis, frame: &Frame) -> bool {
        let clear = self.value - self.drawn_error(axis).unwrap_or(0.0);
        self.tag.is_empty() || frame.y(0.0) - frame.y(clear) > 1.6 * TAG_SIZE
    }

    /// Where and in which colour the tag stands: at the foot of the bar if its shade is given, above everything drawn
    /// if not.
    fn tag_place(&self, axis: &Axis, frame: &Frame, inside: Option<f64>) -> (f64, Colour) {
        match (inside, self.extent(axis)) {
            // Text on a full shade is paper, on a pale one ink.
            (Some(opacity), _) => {
                (frame.y(0.0) - 0.8 * TAG_SIZE, if opacity > 0.8 { Colour::Paper } else { Colour::Ink })
            }
            (None, Some((_, high))) => ((frame.y(high) - 14.0).max(TAG_SIZE / 2.0), Colour::Ink),
            // Above the dash that stands for a missing bar.
            (None, None) => ((frame.y(0.0) - 24.0).max(TAG_SIZE / 2.0), Colour::Ink),
        }
    }
}

/// The names below the bars, in one or two lines each; with many bars only every so many.
struct Labels {
    shown: Vec<(usize, Vec<String>)>,
}

impl Labels {
    fn fit(bars: &[Bar], y: &Scale, size: Size) -> Self {
        const READABLE: f64 = 40.0;
        let slot = (size.width - y.widest_label() - 18.0) / bars.len().max(1) as f64;
        let widest = bars.iter().map(|bar| text_width(&bar.label, TICK_SIZE)).fold(0.0, f64::max);
        let needed = (widest + 4.0).min(READABLE.max(slot));
        let every = (needed / slot).ceil().max(1.0) as usize;
        let room = every as f64 * slot - 4.0;
        let shown = bars.iter().enumerate().step_by(every);
        Self { shown: shown.map(|(index, bar)| (index, in_two_lines(&bar.label, room))).collect() }
    }

    fn lines(&self) -> usize {
        self.shown.iter().map(|(_, lines)| lines.len()).max().unwrap_or(1)
    }
}

/// Breaks a name between words into at most two lines, the last one cut where it is too wide.
fn in_two_lines(name: &str, room: f64) -> Vec<String> {
    let fits = |text: &str| text_width(text, TICK_SIZE) <= room;
    if fits(name) {
        return vec![name.into()];
    }
    let mut breaks = name.match_indices(' ').map(|(at, _)| at);
    match breaks.rfind(|at| fits(&name[..*at])) {
        Some(at) => vec![name[..at].into(), fit_text(name[at..].trim(), TICK_SIZE, room)],
        None => vec![fit_text(name, TICK_SIZE, room)],
    }
}
