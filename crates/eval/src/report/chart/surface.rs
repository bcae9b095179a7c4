//! A value over a plane, such as the loss around a model: shaded bands between contour lines, and what they mean.

use super::axis::Ends;
use super::canvas::{self, Align, Canvas, Colour, DrawError, Marker, Stroke, TICK_SIZE};
use super::{Axis, Frame, Scale, Size};

/// Values on a grid.
#[derive(Clone, Debug, Default)]
pub struct SurfaceChart {
    pub title: String,
    pub caption: String,
    pub x: Axis,
    pub y: Axis,
    /// What is shaded; logarithmic if its axis is.
    pub value: Axis,
    /// Ascending places of the columns.
    pub xs: Vec<f64>,
    /// Ascending places of the rows.
    pub ys: Vec<f64>,
    /// `[ys, xs]`, row after row.
    pub values: Vec<f64>,
    /// Places that are marked.
    pub marks: Vec<(f64, f64)>,
}

/// Width of the scale beside the picture, with its labels.
const SCALE_WIDTH: f64 = 64.0;

/// Side of the squares that are shaded.
const SQUARE: f64 = 4.0;

/// Shade of the lowest band and of the highest.
const SHADES: (f64, f64) = (0.04, 0.78);

impl SurfaceChart {
    pub fn new(title: impl Into<String>, x: Axis, y: Axis, value: Axis) -> Self {
        Self { title: title.into(), x, y, value, ..Self::default() }
    }

    pub fn caption(mut self, caption: impl Into<String>) -> Self {
        self.caption = caption.into();
        self
    }

    /// The grid; values beyond `xs` times `ys` are not shown, and missing ones are gaps.
    pub fn grid(mut self, xs: Vec<f64>, ys: Vec<f64>, values: Vec<f64>) -> Self {
        (self.xs, self.ys, self.values) = (xs, ys, values);
        self
    }

    pub fn mark(mut self, x: f64, y: f64) -> Self {
        self.marks.push((x, y));
        self
    }

    fn value(&self, row: usize, column: usize) -> f64 {
        let value = self.values.get(row * self.xs.len() + column).copied().unwrap_or(f64::NAN);
        if self.value.can_show(value) { value } else { f64::NAN }
    }

    /// What is straight between two places: the value, or on a logarithmic axis its logarithm.
    fn height(&self, value: f64) -> f64 {
        if self.value.log { value.ln() } else { value }
    }

    /// The height at a place, between those of the four corners around it; NaN beside a gap.
    fn at(&self, x: f64, y: f64) -> f64 {
        let Some(((column, across), (row, down))) = cell(&self.xs, x).zip(cell(&self.ys, y)) else { return f64::NAN };
        let on_row = |row: usize| {
            let (left, right) = (self.height(self.value(row, column)), self.height(self.value(row, column + 1)));
            left + across * (right - left)
        };
        let (below, above) = (on_row(row), on_row(row + 1));
        below + down * (above - below)
    }

    pub(super) fn draw(&self, size: Size) -> Result<Option<String>, DrawError> {
        let all = || (0..self.ys.len()).flat_map(|row| (0..self.xs.len()).map(move |column| self.value(row, column)));
        let area = Size { width: size.width - SCALE_WIDTH, ..size };
        let x = Scale::fit(&self.x, self.xs.iter().copied(), Frame::x_ticks(area), Ends::Tight);
        let y = Scale::fit(&self.y, self.ys.iter().copied(), Frame::y_ticks(area), Ends::Tight);
        let levels = Scale::fit(&self.value, all(), 10, Ends::Tight);
        let (Some(x), Some(y), Some(levels)) = (x, y, levels) else { return Ok(None) };
        let frame = Frame::new(area, Some(x), y, 1);
        canvas::draw(size, &self.title, |canvas| {
            self.shade(canvas, &frame, &levels)?;
            for tick in &levels.ticks {
                self.contour(canvas, &frame, tick.value)?;
            }
            frame.draw_axes(canvas)?;
            for &(x, y) in &self.marks {
                canvas.marker((frame.x(x), frame.y(y)), Marker::Circle, 4.0, Colour::Series(1))?;
            }
            self.draw_scale(canvas, &frame, &levels, size)
        })
        .map(Some)
    }

    /// The band that a height lies in, counted from the bottom, and how many there are.
    fn band(&self, levels: &Scale, height: f64) -> (usize, usize) {
        (levels.ticks.iter().filter(|tick| self.height(tick.value) <= height).count(), levels.ticks.len() + 1)
    }

    fn opacity((band, bands): (usize, usize)) -> f64 {
        SHADES.0 + (SHADES.1 - SHADES.0) * band as f64 / (bands.max(2) - 1) as f64
    }

    fn shade(&self, canvas: &mut Canvas, frame: &Frame, levels: &Scale) -> Result<(), DrawError> {
        let (Some(&x0), Some(&x1), Some(&y0), Some(&y1)) =
            (self.xs.first(), self.xs.last(), self.ys.first(), self.ys.last())
        else {
            return Ok(());
        };
        let (width, height) = (frame.right - frame.left, frame.bottom - frame.top);
        let (columns, rows) = ((width / SQUARE).ceil() as usize, (height / SQUARE).ceil() as usize);
        let (dx, dy) = (width / columns as f64, height / rows as f64);
        for row in 0..rows {
            let y = y1 - (y1 - y0) * (row as f64 + 0.5) / rows as f64;
            let top = frame.top + row as f64 * dy;
            let band = |column: usize| {
                let height = self.at(x0 + (x1 - x0) * (column as f64 + 0.5) / columns as f64, y);
                height.is_finite().then(|| self.band(levels, height))
            };
            let bands: Vec<_> = (0..columns).map(band).collect();
            // Squares of one band side by side are one rectangle.
            let mut begin = 0;
            for run in bands.chunk_by(|a, b| a == b) {
                let (left, right) = (frame.left + begin as f64 * dx, frame.left + (begin + run.len()) as f64 * dx);
                if let Some(band) = run[0] {
                    canvas.rectangle((left, top), (right, top + dy), Colour::Series(0), Self::opacity(band))?;
                }
                begin += run.len();
            }
        }
        Ok(())
    }

    /// The line on which the value is `level`: through each triangle of the grid a straight piece.
    fn contour(&self, canvas: &mut Canvas, frame: &Frame, level: f64) -> Result<(), DrawError> {
        let stroke = Stroke::new(Colour::Ink, 1.0).opacity(0.55);
        for row in 1..self.ys.len() {
            for column in 1..self.xs.len() {
                let corner = |down: usize, left: usize| {
                    let (row, column) = (row - down, column - left);
                    (frame.x(self.xs[column]), frame.y(self.ys[row]), self.height(self.value(row, column)))
                };
                for triangle in [[corner(0, 0), corner(0, 1), corner(1, 1)], [corner(0, 0), corner(1, 0), corner(1, 1)]]
                {
                    let crossings: Vec<(f64, f64)> = [(0, 1), (1, 2), (2, 0)]
                        .into_iter()
                        .filter_map(|(a, b)| crossing(triangle[a], triangle[b], self.height(level)))
                        .collect();
                    if let [from, to] = crossings[..] {
                        canvas.line(&[from, to], stroke)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The bands one above the other, with the values between them.
    fn draw_scale(&self, canvas: &mut Canvas, frame: &Frame, levels: &Scale, size: Size) -> Result<(), DrawError> {
        const WIDTH: f64 = 14.0;
        let bands = levels.ticks.len() + 1;
        let left = size.width - SCALE_WIDTH + 2.0;
        let each = (frame.bottom - frame.top) / bands as f64;
        for band in 0..bands {
            let bottom = frame.bottom - band as f64 * each;
            let opacity = Self::opacity((band, bands));
            canvas.rectangle((left, bottom - each), (left + WIDTH, bottom), Colour::Series(0), opacity)?;
            if let Some(tick) = levels.ticks.get(band) {
                let y = bottom - each;
                canvas.line(&[(left, y), (left + WIDTH, y)], Stroke::new(Colour::Ink, 1.0).opacity(0.55))?;
                canvas.text((size.width - 2.0, y), &tick.label, TICK_SIZE, Align::Right, Colour::Muted)?;
            }
        }
        Ok(())
    }

    pub(super) fn left_out(&self) -> usize {
        let shown = (0..self.ys.len()).flat_map(|row| (0..self.xs.len()).map(move |column| self.value(row, column)));
        shown.filter(|value| value.is_nan()).count()
    }
}

/// The cell of ascending places that `x` lies in, and how far into it, 0 to 1.
fn cell(places: &[f64], x: f64) -> Option<(usize, f64)> {
    let after = places.partition_point(|place| *place <= x).clamp(1, places.len().max(2) - 1);
    let (before, after) = (places.get(after - 1)?, (after, places.get(after)?));
    let share = (x - before) / (after.1 - before);
    (0.0..=1.0).contains(&share).then_some((after.0 - 1, share))
}

/// Where a line between two corners passes through a level.
fn crossing(a: (f64, f64, f64), b: (f64, f64, f64), level: f64) -> Option<(f64, f64)> {
    if (a.2 < level) == (b.2 < level) || a.2.is_nan() || b.2.is_nan() {
        return None;
    }
    let share = (level - a.2) / (b.2 - a.2);
    Some((a.0 + share * (b.0 - a.0), a.1 + share * (b.1 - a.1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bowl(n: i32) -> SurfaceChart {
        let places: Vec<f64> = (-n..=n).map(f64::from).collect();
        let values = places.iter().flat_map(|y| places.iter().map(move |x| x * x + y * y)).collect();
        SurfaceChart::new("Loss", Axis::new("First"), Axis::new("Second"), Axis::new("Loss"))
            .grid(places.clone(), places, values)
            .mark(0.0, 0.0)
    }

    #[test]
    fn values_between_the_places() {
        let bowl = bowl(2);
        assert_eq!((bowl.at(1.0, -2.0), bowl.at(0.5, 0.0), bowl.at(2.0, 2.0)), (5.0, 0.5, 8.0));
        assert!(bowl.at(2.1, 0.0).is_nan());
        assert_eq!(crossing((0.0, 0.0, 1.0), (4.0, 8.0, 5.0), 2.0), Some((1.0, 2.0)));
        assert_eq!(crossing((0.0, 0.0, 1.0), (4.0, 8.0, 1.5), 2.0), None);
    }

    #[test]
    fn bands_contours_and_gaps_are_drawn() {
        let size = Size::NARROW;
        let mut bowl = bowl(5);
        let svg = bowl.draw(size).unwrap().unwrap();
        assert!(svg.matches("<rect").count() > 100 && svg.matches("<polyline").count() > 100);
        assert!(svg.len() < 200_000, "{}", svg.len());
        assert_eq!(bowl.left_out(), 0);
        bowl.values[7] = f64::INFINITY;
        bowl.values.pop();
        assert_eq!(bowl.left_out(), 2);
        assert!(bowl.draw(size).unwrap().is_some());
        for (xs, ys) in [(vec![], vec![]), (vec![0.0], vec![0.0, 1.0]), (vec![0.0, 1.0], vec![])] {
            let chart = SurfaceChart::default().grid(xs, ys, vec![1.0, 2.0]);
            chart.draw(size).unwrap();
        }
    }
}
