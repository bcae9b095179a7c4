//! The few marks that the charts are made of, over plotters' SVG backend.
//!
//! The backend works in whole units. Everything here is in CSS pixels and drawn [`SCALE`] times larger under a view box
//! of that size, so places are exact to an eighth of a pixel.

use plotters::coord::Shift;
use plotters::prelude::{
    Circle, DrawingArea, DrawingAreaErrorKind, IntoDrawingArea, PathElement, Polygon, RGBColor, Rectangle, SVGBackend,
    Text,
};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, IntoFont, ShapeStyle, TextStyle};

use super::Size;

const SCALE: f64 = 8.0;

/// Font size of tick labels and of text at marks, in CSS pixels.
pub(super) const TICK_SIZE: f64 = 12.0;

/// The palette of Okabe and Ito (2008), told apart with every kind of colour vision; its yellow is left out, too pale
/// on white, and its black is the ink.
pub(super) const PALETTE: [RGBColor; 6] = [
    RGBColor(0x00, 0x72, 0xB2), // blue
    RGBColor(0xD5, 0x5E, 0x00), // vermillion
    RGBColor(0x00, 0x9E, 0x73), // bluish green
    RGBColor(0xCC, 0x79, 0xA7), // reddish purple
    RGBColor(0xE6, 0x9F, 0x00), // orange
    RGBColor(0x56, 0xB4, 0xE9), // sky blue
];

/// What a colour is for. The SVG holds the light theme's values; the page's style finds them by value and replaces them
/// in the dark one, so each role has a value of its own.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Colour {
    Ink,
    Muted,
    Axis,
    Grid,
    Paper,
    /// Index into the palette, counted round and round.
    Series(usize),
}

impl Colour {
    pub const fn rgb(self) -> RGBColor {
        match self {
            Self::Ink => RGBColor(0x1B, 0x1F, 0x24),
            Self::Muted => RGBColor(0x5C, 0x64, 0x6E),
            Self::Axis => RGBColor(0x8E, 0x96, 0xA0),
            Self::Grid => RGBColor(0xE3, 0xE6, 0xEA),
            Self::Paper => RGBColor(0xFF, 0xFF, 0xFE),
            Self::Series(index) => PALETTE[index % PALETTE.len()],
        }
    }
}

#[derive(Clone, Copy)]
pub(super) struct Stroke {
    colour: Colour,
    width: f64,
    opacity: f64,
}

impl Stroke {
    pub fn new(colour: Colour, width: f64) -> Self {
        Self { colour, width, opacity: 1.0 }
    }

    pub fn opacity(mut self, opacity: f64) -> Self {
        self.opacity = opacity;
        self
    }

    fn style(self) -> ShapeStyle {
        let width = (self.width * SCALE).round().max(1.0) as u32;
        self.colour.rgb().mix(self.opacity).stroke_width(width)
    }
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Align {
    Centre,
    Right,
}

/// Shapes that stay different without colour.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::report) enum Marker {
    Circle,
    Square,
    Diamond,
    Triangle,
}

impl Marker {
    pub const ALL: [Marker; 4] = [Marker::Circle, Marker::Square, Marker::Triangle, Marker::Diamond];

    /// Corners around the origin for a radius of one, of about the same area each; empty for the circle.
    pub fn corners(self) -> &'static [(f64, f64)] {
        match self {
            Self::Circle => &[],
            Self::Square => &[(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
            Self::Diamond => &[(0.0, -1.25), (1.25, 0.0), (0.0, 1.25), (-1.25, 0.0)],
            Self::Triangle => &[(0.0, -1.25), (1.2, 0.85), (-1.2, 0.85)],
        }
    }
}

/// The backend could not draw; it is a string because plotters' own error borrows from the backend's type.
#[derive(Debug)]
pub(super) struct DrawError(pub String);

impl<E: std::error::Error + Send + Sync> From<DrawingAreaErrorKind<E>> for DrawError {
    fn from(error: DrawingAreaErrorKind<E>) -> Self {
        Self(error.to_string())
    }
}

pub(super) struct Canvas<'a> {
    area: DrawingArea<SVGBackend<'a>, Shift>,
}

/// Draws onto a fresh canvas and gives back its `<svg>` element.
pub(super) fn draw(
    size: Size,
    label: &str,
    paint: impl FnOnce(&mut Canvas) -> Result<(), DrawError>,
) -> Result<String, DrawError> {
    let mut drawn = String::new();
    let (width, height) = (unit(size.width), unit(size.height));
    {
        let backend = SVGBackend::with_string(&mut drawn, (width.unsigned_abs(), height.unsigned_abs()));
        let mut canvas = Canvas { area: backend.into_drawing_area() };
        paint(&mut canvas)?;
        canvas.area.present()?;
    }
    // The backend fixes width and height in its own large units: the opening tag is replaced by one that scales.
    let body = drawn.split_once(">\n").map_or("", |(_, body)| body);
    let label = label
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;");
    Ok(format!("<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{label}\">\n{body}"))
}

impl Canvas<'_> {
    pub fn line(&mut self, points: &[(f64, f64)], stroke: Stroke) -> Result<(), DrawError> {
        let points: Vec<_> = points.iter().copied().map(units).collect();
        Ok(self.area.draw(&PathElement::new(points, stroke.style()))?)
    }

    pub fn dashes(&mut self, from: (f64, f64), to: (f64, f64), stroke: Stroke) -> Result<(), DrawError> {
        const DASH: f64 = 4.0;
        let length = (to.0 - from.0).hypot(to.1 - from.1);
        let at = |distance: f64| {
            let share = (distance / length).min(1.0);
            (from.0 + share * (to.0 - from.0), from.1 + share * (to.1 - from.1))
        };
        let mut begin = 0.0;
        while begin < length {
            self.line(&[at(begin), at(begin + DASH)], stroke)?;
            begin += 2.0 * DASH;
        }
        Ok(())
    }

    /// A filled rectangle between two opposite corners.
    pub fn rectangle(&mut self, a: (f64, f64), b: (f64, f64), fill: Colour, opacity: f64) -> Result<(), DrawError> {
        let corners = [units((a.0.min(b.0), a.1.min(b.1))), units((a.0.max(b.0), a.1.max(b.1)))];
        Ok(self.area.draw(&Rectangle::new(corners, fill.rgb().mix(opacity).filled()))?)
    }

    /// A filled mark with a rim of paper, so that it stands out from lines and from other marks under it.
    pub fn marker(&mut self, at: (f64, f64), marker: Marker, radius: f64, fill: Colour) -> Result<(), DrawError> {
        const RIM: f64 = 1.5;
        self.filled(at, marker, radius + RIM, Colour::Paper)?;
        self.filled(at, marker, radius, fill)
    }

    fn filled(&mut self, at: (f64, f64), marker: Marker, radius: f64, fill: Colour) -> Result<(), DrawError> {
        let style = fill.rgb().filled();
        let corners = marker.corners();
        if corners.is_empty() {
            return Ok(self.area.draw(&Circle::new(units(at), unit(radius), style))?);
        }
        let points: Vec<_> = corners.iter().map(|(x, y)| units((at.0 + x * radius, at.1 + y * radius))).collect();
        Ok(self.area.draw(&Polygon::new(points, style))?)
    }

    /// One line of text, centred on the height of `at`.
    pub fn text(
        &mut self,
        at: (f64, f64),
        text: &str,
        size: f64,
        align: Align,
        colour: Colour,
    ) -> Result<(), DrawError> {
        // The backend divides font sizes by this number.
        const BACKEND_FACTOR: f64 = 1.24;
        let horizontal = match align {
            Align::Centre => HPos::Center,
            Align::Right => HPos::Right,
        };
        let colour = colour.rgb();
        let style = TextStyle::from(("sans-serif", size * SCALE * BACKEND_FACTOR).into_font())
            .color(&colour)
            .pos(Pos::new(horizontal, VPos::Center));
        Ok(self.area.draw(&Text::new(text.to_owned(), units(at), style))?)
    }
}

/// CSS pixels to the backend's units, kept within what it can count with.
fn unit(pixels: f64) -> i32 {
    (pixels * SCALE).round().clamp(-1e6, 1e6) as i32
}

fn units((x, y): (f64, f64)) -> (i32, i32) {
    (unit(x), unit(y))
}

/// About how wide text is, in CSS pixels. The reader's font is unknown: this measures a wide one, so that room is left
/// over rather than missing.
pub(super) fn text_width(text: &str, size: f64) -> f64 {
    let ems = text.chars().map(|character| match character {
        'i' | 'j' | 'l' | 'I' | '.' | ',' | ':' | ';' | '\'' | '|' | '!' | ' ' | '⁻' => 0.36,
        'f' | 'r' | 't' | '(' | ')' | '-' | '/' | '[' | ']' => 0.42,
        '⁰' | '¹' | '²' | '³' | '⁴' | '⁵' | '⁶' | '⁷' | '⁸' | '⁹' => 0.42,
        'm' | 'w' | 'M' | 'W' | '%' | '@' => 0.96,
        'A'..='Z' => 0.72,
        character if character.is_ascii() => 0.63,
        character if (character as u32) < 0x1100 => 0.72,
        _ => 1.05,
    });
    ems.sum::<f64>() * size
}

/// The text, cut off with an ellipsis where it would be wider than `room`.
pub(super) fn fit_text(text: &str, size: f64, room: f64) -> String {
    if text_width(text, size) <= room {
        return text.into();
    }
    let mut cut = String::new();
    let ellipsis = text_width("…", size);
    for character in text.chars() {
        cut.push(character);
        if text_width(&cut, size) + ellipsis > room {
            cut.pop();
            break;
        }
    }
    format!("{}…", cut.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_to_its_room() {
        assert_eq!(fit_text("short", 12.0, 100.0), "short");
        let cut = fit_text("a very long category name", 12.0, 60.0);
        assert!(cut.ends_with('…') && text_width(&cut, 12.0) <= 60.0, "{cut}");
        assert_eq!(fit_text("x", 12.0, 0.0), "…");
    }

    /// The dark theme is a replacement by value: each value must stand for one role and be in the style sheet.
    #[test]
    fn style_sheet_knows_every_colour() {
        let style = include_str!("../style.css");
        let roles = [Colour::Ink, Colour::Muted, Colour::Axis, Colour::Grid, Colour::Paper];
        let colours: Vec<_> =
            roles.into_iter().chain((0..PALETTE.len()).map(Colour::Series)).map(Colour::rgb).collect();
        for (index, RGBColor(r, g, b)) in colours.iter().enumerate() {
            let value = format!("#{r:02X}{g:02X}{b:02X}");
            for attribute in ["stroke", "fill"] {
                assert!(style.contains(&format!("[{attribute}=\"{value}\"]")), "{attribute} {value}");
            }
            assert!(!colours[..index].contains(&colours[index]), "{value} has two roles");
        }
    }
}
