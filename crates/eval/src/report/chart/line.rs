//! Curves over steps or time, such as a training's loss.

use super::axis::Ends;
use super::canvas::{self, Colour, Marker, Stroke};
use super::{Axis, Canvas, DrawError, Frame, LegendEntry, LegendMark, Reference, Scale, Size};

/// Several curves over a common axis.
#[derive(Clone, Debug, Default)]
pub struct LineChart {
    pub title: String,
    pub caption: String,
    pub x: Axis,
    pub y: Axis,
    pub series: Vec<Series>,
    pub references: Vec<Reference>,
}

/// One curve. A point that the axes cannot show is a gap in it.
#[derive(Clone, Debug, Default)]
pub struct Series {
    pub name: String,
    /// (x, y) in the order in which they are joined.
    pub points: Vec<(f64, f64)>,
    /// Draws every value faintly, and firmly the moving average in which a value's weight halves every so many points.
    pub half_life: Option<f64>,
}

impl Series {
    pub fn new(name: impl Into<String>, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        Self { name: name.into(), points: points.into_iter().collect(), half_life: None }
    }

    pub fn smoothed(mut self, half_life: f64) -> Self {
        self.half_life = Some(half_life);
        self
    }
}

impl LineChart {
    pub fn new(title: impl Into<String>, x: Axis, y: Axis) -> Self {
        Self { title: title.into(), x, y, ..Self::default() }
    }

    pub fn caption(mut self, caption: impl Into<String>) -> Self {
        self.caption = caption.into();
        self
    }

    pub fn series(mut self, series: Series) -> Self {
        self.series.push(series);
        self
    }

    pub fn reference(mut self, name: impl Into<String>, value: f64) -> Self {
        self.references.push(Reference { name: name.into(), value });
        self
    }

    pub(super) fn draw(&self, size: Size) -> Result<Option<String>, DrawError> {
        let shown = || self.series.iter().flat_map(|series| &series.points).filter(|point| self.can_show(point));
        let references = self.references.iter().map(|reference| reference.value);
        let x = Scale::fit(&self.x, shown().map(|point| point.0), Frame::x_ticks(size), Ends::Tight);
        let y_values = shown().map(|point| point.1).chain(references);
        let y = Scale::fit(&self.y, y_values, Frame::y_ticks(size), Ends::Round);
        let (Some(x), Some(y)) = (x, y) else { return Ok(None) };
        let frame = Frame::new(size, Some(x), y, 1);
        canvas::draw(size, &self.title, |canvas| {
            frame.draw(canvas)?;
            // All faint lines go below all firm ones.
            for (index, series) in self.series.iter().enumerate().filter(|(_, series)| series.half_life.is_some()) {
                self.draw_curve(canvas, &frame, &series.points, Stroke::new(Colour::Series(index), 1.0).opacity(0.28))?;
            }
            for (index, series) in self.series.iter().enumerate() {
                let firm = Stroke::new(Colour::Series(index), 2.0);
                match series.half_life {
                    Some(half_life) => {
                        let smooth = moving_average(&series.points, half_life, |point| self.can_show(point));
                        self.draw_curve(canvas, &frame, &smooth, firm)?;
                    }
                    None => self.draw_curve(canvas, &frame, &series.points, firm)?,
                }
                self.draw_points(canvas, &frame, index, series)?;
            }
            self.draw_references(canvas, &frame)
        })
        .map(Some)
    }

    fn draw_references(&self, canvas: &mut Canvas, frame: &Frame) -> Result<(), DrawError> {
        let shown: Vec<_> =
            self.references.iter().filter(|reference| self.y.can_show(reference.value)).cloned().collect();
        frame.draw_references(canvas, &shown)
    }

    fn draw_curve(
        &self,
        canvas: &mut Canvas,
        frame: &Frame,
        points: &[(f64, f64)],
        stroke: Stroke,
    ) -> Result<(), DrawError> {
        for run in points.split(|point| !self.can_show(point)).filter(|run| run.len() > 1) {
            let places: Vec<_> = run.iter().map(|(x, y)| (frame.x(*x), frame.y(*y))).collect();
            canvas.line(&thin_out(&places), stroke)?;
        }
        Ok(())
    }

    /// Marks the values of a short series one by one, and of a longer one those that no line joins to a neighbour.
    fn draw_points(&self, canvas: &mut Canvas, frame: &Frame, index: usize, series: &Series) -> Result<(), DrawError> {
        const FEW: usize = 30;
        let marks_all = series.half_life.is_none() && series.points.len() <= FEW;
        for run in series.points.split(|point| !self.can_show(point)).filter(|run| marks_all || run.len() == 1) {
            for (x, y) in run {
                canvas.marker((frame.x(*x), frame.y(*y)), Marker::Circle, 3.0, Colour::Series(index))?;
            }
        }
        Ok(())
    }

    fn can_show(&self, point: &(f64, f64)) -> bool {
        self.x.can_show(point.0) && self.y.can_show(point.1)
    }

    pub(super) fn left_out(&self) -> usize {
        let points = self.series.iter().flat_map(|series| &series.points).filter(|point| !self.can_show(point)).count();
        points + self.references.iter().filter(|reference| !self.y.can_show(reference.value)).count()
    }

    pub(super) fn legend(&self) -> Vec<LegendEntry> {
        if self.series.len() < 2 {
            return Vec::new();
        }
        let entry = |(colour, series): (usize, &Series)| LegendEntry {
            name: series.name.clone(),
            mark: LegendMark::Line,
            colour,
            opacity: 1.0,
        };
        self.series.iter().enumerate().map(entry).collect()
    }

    pub(super) fn notes(&self) -> Vec<String> {
        let mut half_lives: Vec<f64> = self.series.iter().filter_map(|series| series.half_life).collect();
        half_lives.dedup();
        match half_lives.as_slice() {
            [] => Vec::new(),
            [one] => vec![format!("Faint: every value. Firm: moving average with a half-life of {one} values.")],
            _ => vec!["Faint: every value. Firm: moving average.".into()],
        }
    }
}

/// Exponential moving average over the points that can be shown, without the usual pull towards zero at its start: the
/// weighted sum is divided by the sum of the weights (Kingma and Ba, 1412.6980, section 3). Gaps stay gaps.
fn moving_average(points: &[(f64, f64)], half_life: f64, can_show: impl Fn(&(f64, f64)) -> bool) -> Vec<(f64, f64)> {
    let decay = if half_life > 0.0 { 0.5f64.powf(1.0 / half_life) } else { 0.0 };
    let (mut sum, mut weight) = (0.0, 0.0);
    let average = |point: &(f64, f64)| {
        if !can_show(point) {
            return (point.0, f64::NAN);
        }
        sum = decay * sum + (1.0 - decay) * point.1;
        weight = decay * weight + (1.0 - decay);
        (point.0, sum / weight)
    };
    points.iter().map(average).collect()
}

/// Of each stretch of points within one pixel's width keeps the first, lowest, highest and last: the line looks the
/// same, and a million points cost no more than the chart has pixels.
fn thin_out(places: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut kept = Vec::new();
    for stretch in places.chunk_by(|a, b| a.0.floor() == b.0.floor()) {
        let by_height = |a: &usize, b: &usize| stretch[*a].1.total_cmp(&stretch[*b].1);
        let (first, last) = (0, stretch.len() - 1);
        let lowest = (0..stretch.len()).min_by(by_height).unwrap_or(first);
        let highest = (0..stretch.len()).max_by(by_height).unwrap_or(first);
        let mut chosen = [first, lowest.min(highest), lowest.max(highest), last].to_vec();
        chosen.dedup();
        kept.extend(chosen.into_iter().map(|index| stretch[index]));
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moving_average_starts_unbiased_and_keeps_gaps() {
        let points = [(0.0, 2.0), (1.0, f64::NAN), (2.0, 2.0), (3.0, 4.0)];
        let smooth = moving_average(&points, 1.0, |point| point.1.is_finite());
        assert_eq!(smooth[0], (0.0, 2.0));
        assert!(smooth[1].1.is_nan());
        assert_eq!(smooth[2], (2.0, 2.0));
        // Weights 1/8, 1/4 and 1/2 (half-life of one value).
        assert!((smooth[3].1 - (0.125 * 2.0 + 0.25 * 2.0 + 0.5 * 4.0) / 0.875).abs() < 1e-12);
    }

    #[test]
    fn thinning_keeps_extremes_in_order() {
        let places: Vec<_> = (0..10_000).map(|i| (f64::from(i) / 1000.0, f64::from(i * 7919 % 1000))).collect();
        let kept = thin_out(&places);
        assert!(kept.len() <= 40, "{}", kept.len());
        assert!(kept.is_sorted_by(|a, b| a.0 <= b.0));
        assert_eq!(kept.first(), places.first());
        assert_eq!(kept.last(), places.last());
        let lowest = |places: &[(f64, f64)]| places.iter().map(|place| place.1).fold(f64::INFINITY, f64::min);
        assert_eq!(lowest(&kept), lowest(&places));
        assert!(thin_out(&[]).is_empty());
    }
}
