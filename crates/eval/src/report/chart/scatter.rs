//! Labelled points, such as accuracy over size.

use super::axis::Ends;
use super::bar::decimals_for;
use super::canvas::{self, Colour, Marker, Stroke, TICK_SIZE, fit_text, text_width};
use super::{Align, Axis, Canvas, DrawError, Frame, LegendEntry, LegendMark, Reference, Scale, Size};
use crate::report::table::{Cell, Column, Table};

/// Series of points, each with a colour and a shape.
#[derive(Clone, Debug, Default)]
pub struct ScatterChart {
    pub title: String,
    pub caption: String,
    pub x: Axis,
    pub y: Axis,
    pub series: Vec<ScatterSeries>,
    pub references: Vec<Reference>,
}

#[derive(Clone, Debug, Default)]
pub struct ScatterSeries {
    pub name: String,
    pub points: Vec<Point>,
    /// Joins the points by a line, in the order given.
    pub joined: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Point {
    pub x: f64,
    pub y: f64,
    /// A few characters beside the point.
    pub label: String,
    /// Half the length of an error bar on y.
    pub error: Option<f64>,
}

impl Point {
    pub fn new(x: f64, y: f64, label: impl Into<String>) -> Self {
        Self { x, y, label: label.into(), error: None }
    }

    pub fn error(mut self, error: f64) -> Self {
        self.error = Some(error);
        self
    }
}

impl ScatterSeries {
    pub fn new(name: impl Into<String>, points: impl IntoIterator<Item = Point>) -> Self {
        Self { name: name.into(), points: points.into_iter().collect(), joined: false }
    }

    pub fn joined(mut self) -> Self {
        self.joined = true;
        self
    }
}

const RADIUS: f64 = 5.0;

impl ScatterChart {
    pub fn new(title: impl Into<String>, x: Axis, y: Axis) -> Self {
        Self { title: title.into(), x, y, ..Self::default() }
    }

    pub fn caption(mut self, caption: impl Into<String>) -> Self {
        self.caption = caption.into();
        self
    }

    pub fn series(mut self, series: ScatterSeries) -> Self {
        self.series.push(series);
        self
    }

    pub fn reference(mut self, name: impl Into<String>, value: f64) -> Self {
        self.references.push(Reference { name: name.into(), value });
        self
    }

    pub(super) fn draw(&self, size: Size) -> Result<Option<String>, DrawError> {
        let shown = || self.series.iter().flat_map(|series| &series.points).filter(|point| self.can_show(point));
        let references: Vec<_> =
            self.references.iter().filter(|reference| self.y.can_show(reference.value)).cloned().collect();
        let ends = |point: &Point| {
            let error = point.error.unwrap_or(0.0);
            [point.y, point.y - error, point.y + error]
        };
        let y_values = shown().flat_map(ends).chain(references.iter().map(|reference| reference.value));
        let x = Scale::fit(&self.x, shown().map(|point| point.x), Frame::x_ticks(size), Ends::Round);
        let y = Scale::fit(&self.y, y_values, Frame::y_ticks(size), Ends::Round);
        let (Some(x), Some(y)) = (x, y) else { return Ok(None) };
        let frame = Frame::new(size, Some(x), y, 1);
        canvas::draw(size, &self.title, |canvas| {
            frame.draw(canvas)?;
            frame.draw_references(canvas, &references)?;
            for (index, series) in self.series.iter().enumerate() {
                self.draw_lines(canvas, &frame, index, series)?;
            }
            for (index, series) in self.series.iter().enumerate() {
                for point in series.points.iter().filter(|point| self.can_show(point)) {
                    let place = (frame.x(point.x), frame.y(point.y));
                    canvas.marker(place, shape(index), RADIUS, Colour::Series(index))?;
                }
            }
            self.draw_labels(canvas, &frame)
        })
        .map(Some)
    }

    fn draw_lines(
        &self,
        canvas: &mut Canvas,
        frame: &Frame,
        index: usize,
        series: &ScatterSeries,
    ) -> Result<(), DrawError> {
        let place = |point: &Point| (frame.x(point.x), frame.y(point.y));
        let runs = series.points.split(|point| !self.can_show(point)).filter(|run| series.joined && run.len() > 1);
        for run in runs {
            let places: Vec<_> = run.iter().map(place).collect();
            canvas.line(&places, Stroke::new(Colour::Series(index), 1.75).opacity(0.55))?;
        }
        for point in series.points.iter().filter(|point| self.can_show(point)) {
            let error = point.error.unwrap_or(0.0).abs();
            if error > 0.0 && self.y.can_show(point.y - error) && self.y.can_show(point.y + error) {
                let (x, low, high) = (frame.x(point.x), frame.y(point.y - error), frame.y(point.y + error));
                canvas.line(&[(x, low), (x, high)], Stroke::new(Colour::Series(index), 1.5))?;
            }
        }
        Ok(())
    }

    /// Places each label beside its point where it covers least: marks, lines and labels placed before it.
    fn draw_labels(&self, canvas: &mut Canvas, frame: &Frame) -> Result<(), DrawError> {
        let place = |point: &Point| (frame.x(point.x), frame.y(point.y));
        let points: Vec<&Point> =
            self.series.iter().flat_map(|series| &series.points).filter(|point| self.can_show(point)).collect();
        let mut taken: Vec<Area> = points.iter().map(|point| Area::around(place(point), RADIUS + 1.5)).collect();
        let mut lines: Vec<[(f64, f64); 2]> = Vec::new();
        for series in self.series.iter().filter(|series| series.joined) {
            let pairs = series.points.windows(2).filter(|pair| pair.iter().all(|point| self.can_show(point)));
            lines.extend(pairs.map(|pair| [place(&pair[0]), place(&pair[1])]));
        }
        for reference in self.references.iter().filter(|reference| self.y.can_show(reference.value)) {
            let y = frame.y(reference.value);
            lines.push([(frame.left, y), (frame.right, y)]);
        }
        let page = Area { left: frame.left, right: frame.right, top: 0.0, bottom: frame.bottom };
        for point in points.iter().filter(|point| !point.label.is_empty()) {
            let label = fit_text(&point.label, TICK_SIZE, (frame.right - frame.left) / 2.0);
            let candidates = Area::beside(place(point), text_width(&label, TICK_SIZE));
            let cost = |area: &Area| {
                let covered = taken.iter().filter(|other| area.overlaps(other)).count();
                let crossed = lines.iter().filter(|line| area.is_crossed(line)).count();
                4 * covered + 2 * crossed + 16 * usize::from(!area.is_inside(&page))
            };
            if let Some(area) = candidates.into_iter().min_by_key(cost) {
                let middle = ((area.left + area.right) / 2.0, (area.top + area.bottom) / 2.0);
                canvas.text(middle, &label, TICK_SIZE, Align::Centre, Colour::Ink)?;
                taken.push(area);
            }
        }
        Ok(())
    }

    fn can_show(&self, point: &Point) -> bool {
        self.x.can_show(point.x) && self.y.can_show(point.y)
    }

    pub(super) fn left_out(&self) -> usize {
        let points = self.series.iter().flat_map(|series| &series.points).filter(|point| !self.can_show(point)).count();
        points + self.references.iter().filter(|reference| !self.y.can_show(reference.value)).count()
    }

    pub(super) fn legend(&self) -> Vec<LegendEntry> {
        if self.series.len() < 2 {
            return Vec::new();
        }
        let entry = |(colour, series): (usize, &ScatterSeries)| LegendEntry {
            name: series.name.clone(),
            mark: LegendMark::Point(shape(colour)),
            colour,
            opacity: 1.0,
        };
        self.series.iter().enumerate().map(entry).collect()
    }

    pub(super) fn table(&self) -> Table {
        let columns = [Column::text("Series"), Column::text("Point")]
            .into_iter()
            .chain([&self.x, &self.y].map(|axis| Column::number(axis.full_name())));
        let points = || self.series.iter().flat_map(|series| &series.points);
        let decimals = [decimals_for(points().map(|point| point.x)), decimals_for(points().map(|point| point.y))];
        let mut table = Table::new(columns);
        for series in &self.series {
            for point in &series.points {
                table = table.row([
                    Cell::from(series.name.as_str()),
                    Cell::from(point.label.as_str()),
                    Cell::number(point.x, decimals[0]),
                    Cell::Number { value: point.y, decimals: decimals[1], spread: point.error },
                ]);
            }
        }
        table
    }
}

fn shape(index: usize) -> Marker {
    Marker::ALL[index % Marker::ALL.len()]
}

/// A rectangle on the canvas, in CSS pixels.
struct Area {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

impl Area {
    fn around((x, y): (f64, f64), radius: f64) -> Self {
        Self { left: x - radius, right: x + radius, top: y - radius, bottom: y + radius }
    }

    /// Where a label of this width can stand around a point: over, under, right, left, then the corners.
    fn beside((x, y): (f64, f64), width: f64) -> Vec<Self> {
        let (height, gap) = (TICK_SIZE + 1.0, RADIUS + 3.0);
        let (across, along) = (width / 2.0 + gap, height / 2.0 + gap);
        let offsets = [
            (0.0, -along),
            (0.0, along),
            (across, 0.0),
            (-across, 0.0),
            (across - 4.0, -along + 4.0),
            (-across + 4.0, -along + 4.0),
            (across - 4.0, along - 4.0),
            (-across + 4.0, along - 4.0),
        ];
        let area = |(dx, dy): (f64, f64)| Self {
            left: x + dx - width / 2.0,
            right: x + dx + width / 2.0,
            top: y + dy - height / 2.0,
            bottom: y + dy + height / 2.0,
        };
        offsets.map(area).into()
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.left < other.right && other.left < self.right && self.top < other.bottom && other.top < self.bottom
    }

    fn is_inside(&self, other: &Self) -> bool {
        self.left >= other.left && self.right <= other.right && self.top >= other.top && self.bottom <= other.bottom
    }

    /// Whether a line passes through, by cutting it off at each side in turn (Liang and Barsky, 1984).
    fn is_crossed(&self, line: &[(f64, f64); 2]) -> bool {
        let [(x0, y0), (x1, y1)] = *line;
        let (mut from, mut to) = (0.0f64, 1.0f64);
        let sides = [
            (x0 - x1, x0 - self.left),
            (x1 - x0, self.right - x0),
            (y0 - y1, y0 - self.top),
            (y1 - y0, self.bottom - y0),
        ];
        for (slope, distance) in sides {
            if slope == 0.0 {
                if distance < 0.0 {
                    return false;
                }
            } else if slope < 0.0 {
                from = from.max(distance / slope);
            } else {
                to = to.min(distance / slope);
            }
        }
        from <= to
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crossing_lines_are_seen() {
        let area = Area { left: 0.0, right: 10.0, top: 0.0, bottom: 4.0 };
        assert!(area.is_crossed(&[(-5.0, 2.0), (15.0, 3.0)]));
        assert!(area.is_crossed(&[(5.0, -10.0), (5.0, 10.0)]));
        assert!(area.is_crossed(&[(2.0, 2.0), (3.0, 3.0)]));
        assert!(!area.is_crossed(&[(-5.0, 2.0), (-1.0, 2.0)]));
        assert!(!area.is_crossed(&[(0.0, 20.0), (20.0, 0.0)]));
    }
}
