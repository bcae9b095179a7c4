//! From values to places on paper: ranges, ticks, the frame of a chart.

use super::canvas::{self, Align, Canvas, Colour, DrawError, Stroke, TICK_SIZE, text_width};
use super::{Reference, Size};
use crate::report::number;

/// What an axis measures and how it is divided.
#[derive(Clone, Debug, Default)]
pub struct Axis {
    pub name: String,
    /// `MB`, `%`; empty for a plain number.
    pub unit: String,
    /// Logarithmic: values at or below zero cannot be drawn.
    pub log: bool,
    /// A linear axis that begins at zero even if no value is near it.
    pub from_zero: bool,
}

impl Axis {
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    pub fn unit(mut self, unit: impl Into<String>) -> Self {
        self.unit = unit.into();
        self
    }

    pub fn log(mut self) -> Self {
        self.log = true;
        self
    }

    pub fn from_zero(mut self) -> Self {
        self.from_zero = true;
        self
    }

    /// `Size (MB)`.
    pub(in crate::report) fn full_name(&self) -> String {
        if self.unit.is_empty() { self.name.clone() } else { format!("{} ({})", self.name, self.unit) }
    }

    /// Whether a value has a place on this axis. The bound keeps differences of values finite.
    pub(super) fn can_show(&self, value: f64) -> bool {
        value.abs() <= TINY.recip() && (!self.log || value >= TINY)
    }
}

/// Smallest difference that an axis shows; its reciprocal is the largest number.
const TINY: f64 = 1e-100;

/// How a scale ends: at the data, or at the round numbers around them.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Ends {
    Tight,
    Round,
}

/// An axis with its range and ticks. On a logarithmic axis `low` and `high` are exponents of ten.
pub(super) struct Scale {
    low: f64,
    high: f64,
    log: bool,
    pub ticks: Vec<Tick>,
}

pub(super) struct Tick {
    pub value: f64,
    pub label: String,
}

impl Scale {
    /// A scale around the values that the axis can show, with about `count` ticks; `None` if it can show none of them.
    ///
    /// Differences below [`TINY`] count as none, so that a tick's step never vanishes.
    pub fn fit(axis: &Axis, values: impl Iterator<Item = f64>, count: usize, ends: Ends) -> Option<Self> {
        let shown = values.filter(|value| axis.can_show(*value));
        let (mut low, mut high) = shown.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            let place = if axis.log { value.log10() } else { value };
            (low.min(place), high.max(place))
        });
        if low > high {
            return None;
        }
        if axis.from_zero && !axis.log {
            (low, high) = (low.min(0.0), high.max(0.0));
        }
        if high - low <= (1e-9 * low.abs().max(high.abs())).max(TINY) {
            // All values are the same (or as good as): give them room on both sides.
            let is_zero = low.abs() <= 2.0 * TINY;
            let room = if axis.log || is_zero { 0.5 } else { 0.1 * low.abs() };
            let floor = if axis.from_zero && !axis.log && is_zero { 0.0 } else { low - room };
            (low, high) = (floor, high + room);
        }
        Some(if axis.log { Self::logarithmic(low, high, count, ends) } else { Self::linear(low, high, count, ends) })
    }

    fn linear(mut low: f64, mut high: f64, count: usize, ends: Ends) -> Self {
        let mut step = round_step((high - low) / count.max(1) as f64);
        // Ends at the data may leave a round step a single tick, which says nothing of the scale.
        while ends == Ends::Tight && (high / step).floor() - (low / step).ceil() < 2.0 {
            step = round_step(0.4 * step);
        }
        if ends == Ends::Round {
            (low, high) = ((low / step + 1e-9).floor() * step, (high / step - 1e-9).ceil() * step);
        }
        let (first, last) = ((low / step - 1e-9).ceil(), (high / step + 1e-9).floor());
        // Ranges are at most a few steps wide by the choice of `step`; the bound guards against rounding alone.
        let values: Vec<f64> =
            (0..1000).map(|k| first + f64::from(k)).take_while(|k| *k <= last).map(|k| k * step).collect();
        let ticks =
            values.iter().map(|value| Tick { value: *value, label: linear_label(*value, step, low, high) }).collect();
        Self { low, high, log: false, ticks }
    }

    fn logarithmic(mut low: f64, mut high: f64, count: usize, ends: Ends) -> Self {
        // Ever denser families of ticks, until there are enough of them.
        const FAMILIES: [&[f64]; 4] =
            [&[1.0], &[1.0, 3.0], &[1.0, 2.0, 5.0], &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0]];
        if ends == Ends::Round && high - low > 2.0 {
            (low, high) = ((low + 1e-9).floor(), (high - 1e-9).ceil());
        } else if ends == Ends::Round {
            let room = 0.06 * (high - low);
            (low, high) = (low - room, high + room);
        }
        let slack = 1e-9 * (high - low);
        let ticks_of = |mantissas: &[f64]| -> Vec<f64> {
            let decades = low.floor() as i32..=high.ceil() as i32;
            let all = decades.flat_map(|decade| mantissas.iter().map(move |m| m * 10f64.powi(decade)));
            all.filter(|value| (low - slack..=high + slack).contains(&value.log10())).collect()
        };
        let enough = count.saturating_sub(1).clamp(2, 4);
        let family = FAMILIES.iter().find(|family| ticks_of(family).len() >= enough).unwrap_or(&FAMILIES[3]);
        let mut values = ticks_of(family);
        let every = values.len().div_ceil(count.max(2) + 2).max(1);
        values = values.into_iter().step_by(every).collect();
        let ticks = values.into_iter().map(|value| Tick { value, label: log_label(value) }).collect();
        Self { low, high, log: true, ticks }
    }

    /// Place of a value in `[0, 1]`, from the low end to the high one.
    pub fn place(&self, value: f64) -> f64 {
        let value = if self.log { value.log10() } else { value };
        (value - self.low) / (self.high - self.low)
    }

    pub fn widest_label(&self) -> f64 {
        self.ticks.iter().map(|tick| text_width(&tick.label, TICK_SIZE)).fold(0.0, f64::max)
    }
}

/// The smallest of 1, 2, 2.5, 5 and 10 times a power of ten that is not below `raw`.
fn round_step(raw: f64) -> f64 {
    let power = 10f64.powf(raw.log10().floor());
    let steps = [1.0, 2.0, 2.5, 5.0, 10.0].map(|factor| factor * power);
    steps.into_iter().find(|step| *step >= raw * (1.0 - 1e-9)).unwrap_or(10.0 * power)
}

fn linear_label(value: f64, step: f64, low: f64, high: f64) -> String {
    let largest = low.abs().max(high.abs());
    let value = if value.abs() < step * 1e-6 { 0.0 } else { value };
    if !(1e-3..1e7).contains(&largest) {
        let decimals =
            if value == 0.0 { 0.0 } else { (value.abs().log10().floor() - step.log10().floor()).max(0.0) + 1.0 };
        return number::scientific(value, decimals.min(6.0) as usize);
    }
    let decimals = (0..8).find(|d| {
        let scaled = step * 10f64.powi(*d);
        (scaled - scaled.round()).abs() < 1e-6 * scaled
    });
    number::fixed(value, decimals.unwrap_or(8) as usize)
}

fn log_label(value: f64) -> String {
    if (1e-3..1e5).contains(&(value * (1.0 + 1e-9))) {
        let decimals = (0..5).find(|d| (value * 10f64.powi(*d)).round() > 0.0 && is_whole(value * 10f64.powi(*d)));
        number::fixed(value, decimals.unwrap_or(5) as usize)
    } else {
        number::scientific(value, 1)
    }
}

fn is_whole(value: f64) -> bool {
    (value - value.round()).abs() < 1e-6 * value.abs()
}

/// The rectangle that the data are drawn in, and the two scales across it. Pixels count from the top left.
pub(super) struct Frame {
    pub left: f64,
    pub right: f64,
    pub top: f64,
    pub bottom: f64,
    x: Option<Scale>,
    y: Scale,
}

impl Frame {
    /// Leaves room for the labels of the ticks. Without an x scale the bottom has room for `x_lines` lines of labels.
    pub fn new(size: Size, x: Option<Scale>, y: Scale, x_lines: usize) -> Self {
        let overhang = x.as_ref().map_or(0.0, |x| x.widest_label() / 2.0);
        Self {
            left: (y.widest_label() + 9.0).max(overhang + 1.0).round(),
            right: (size.width - overhang.max(8.0) - 1.0).round(),
            top: 12.0,
            bottom: (size.height - 10.0 - 15.0 * x_lines as f64).round(),
            x,
            y,
        }
    }

    /// Ticks that fit beside each other (on x) or above each other (on y) in about this length.
    pub fn x_ticks(size: Size) -> usize {
        (size.width / 95.0) as usize
    }

    pub fn y_ticks(size: Size) -> usize {
        (size.height / 58.0) as usize
    }

    pub fn x(&self, value: f64) -> f64 {
        let place = self.x.as_ref().map_or(0.5, |x| x.place(value));
        self.left + place * (self.right - self.left)
    }

    pub fn y(&self, value: f64) -> f64 {
        self.bottom - self.y.place(value) * (self.bottom - self.top)
    }

    /// Light lines at the ticks of y, a firmer one at the bottom, labels outside.
    pub fn draw(&self, canvas: &mut Canvas) -> Result<(), DrawError> {
        for tick in &self.y.ticks {
            let y = self.y(tick.value);
            canvas.line(&[(self.left, y), (self.right, y)], Stroke::new(Colour::Grid, 1.0))?;
        }
        self.draw_axes(canvas)
    }

    /// The same without the light lines.
    pub fn draw_axes(&self, canvas: &mut Canvas) -> Result<(), DrawError> {
        for tick in &self.y.ticks {
            let at = (self.left - 7.0, self.y(tick.value));
            canvas.text(at, &tick.label, TICK_SIZE, Align::Right, Colour::Muted)?;
        }
        canvas.line(&[(self.left, self.bottom), (self.right, self.bottom)], Stroke::new(Colour::Axis, 1.0))?;
        for tick in self.x.iter().flat_map(|x| &x.ticks) {
            let x = self.x(tick.value);
            canvas.line(&[(x, self.bottom), (x, self.bottom + 4.0)], Stroke::new(Colour::Axis, 1.0))?;
            canvas.text((x, self.bottom + 14.0), &tick.label, TICK_SIZE, Align::Centre, Colour::Muted)?;
        }
        Ok(())
    }

    /// Dashed lines across the frame with their names at the right end, over the line or, at the top, under it.
    pub fn draw_references(&self, canvas: &mut Canvas, references: &[Reference]) -> Result<(), DrawError> {
        for reference in references {
            let y = self.y(reference.value);
            canvas.dashes((self.left, y), (self.right, y), Stroke::new(Colour::Muted, 1.0))?;
            let name = canvas::fit_text(&reference.name, TICK_SIZE, self.right - self.left - 8.0);
            let text_y = if y - 10.0 < self.top { y + 10.0 } else { y - 9.0 };
            canvas.text((self.right - 2.0, text_y), &name, TICK_SIZE, Align::Right, Colour::Muted)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn labels(axis: &Axis, values: &[f64], count: usize, ends: Ends) -> Vec<String> {
        let scale = Scale::fit(axis, values.iter().copied(), count, ends).unwrap();
        scale.ticks.into_iter().map(|tick| tick.label).collect()
    }

    #[test]
    fn linear_ticks_are_round() {
        let axis = Axis::new("Accuracy").unit("%");
        assert_eq!(labels(&axis, &[50.9, 89.5], 4, Ends::Round), ["50", "60", "70", "80", "90"]);
        assert_eq!(labels(&axis, &[0.0, 2106.0], 5, Ends::Tight), ["0", "500", "1,000", "1,500", "2,000"]);
        assert_eq!(labels(&axis, &[0.0, 5e-5], 5, Ends::Round), ["0", "10⁻⁵", "2×10⁻⁵", "3×10⁻⁵", "4×10⁻⁵", "5×10⁻⁵"]);
        assert_eq!(labels(&axis, &[-0.3, 0.2], 3, Ends::Round), ["−0.4", "−0.2", "0.0", "0.2"]);
        assert_eq!(labels(&axis, &[-0.09, 0.09], 2, Ends::Tight), ["−0.05", "0.00", "0.05"], "not zero alone");
        assert_eq!(axis.full_name(), "Accuracy (%)");
    }

    #[test]
    fn logarithmic_ticks_fit_the_range() {
        let axis = Axis::new("Size").log();
        assert_eq!(labels(&axis, &[12.0, 90.0], 5, Ends::Tight), ["15", "20", "30", "40", "50", "60", "80"]);
        assert_eq!(labels(&axis, &[1.0, 1000.0], 5, Ends::Tight), ["1", "10", "100", "1,000"]);
        assert_eq!(labels(&axis, &[1e-5, 1e-2], 5, Ends::Tight), ["10⁻⁵", "10⁻⁴", "0.001", "0.01"]);
    }

    #[test]
    fn nothing_to_show_has_no_scale() {
        let axis = Axis::new("x").log();
        assert!(Scale::fit(&axis, [f64::NAN, -1.0, 0.0, f64::INFINITY].into_iter(), 5, Ends::Round).is_none());
        assert!(Scale::fit(&axis, std::iter::empty(), 5, Ends::Round).is_none());
    }

    proptest! {
        /// Whatever the values, they lie on the scale, and there are a few ticks, on the scale too.
        #[test]
        fn every_value_lies_on_its_scale(
            values in prop::collection::vec(prop_oneof![prop::num::f64::ANY, -10.0..10.0f64], 1..8),
            log: bool, from_zero: bool, round: bool, count in 2usize..8,
        ) {
            let axis = Axis { log, from_zero, ..Axis::default() };
            let ends = if round { Ends::Round } else { Ends::Tight };
            if let Some(scale) = Scale::fit(&axis, values.iter().copied(), count, ends) {
                let inside = -1e-6..=1.0 + 1e-6;
                for value in values.into_iter().filter(|value| axis.can_show(*value)) {
                    prop_assert!(inside.contains(&scale.place(value)), "{value} at {}", scale.place(value));
                }
                prop_assert!(scale.ticks.len() <= 24, "{} ticks", scale.ticks.len());
                for tick in &scale.ticks {
                    prop_assert!(inside.contains(&scale.place(tick.value)));
                }
            }
        }
    }
}
