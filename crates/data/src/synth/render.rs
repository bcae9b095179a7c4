//! The picture of a scene.

use super::scene::{GRID, Object, Scene, Shape};
use crate::Picture;

/// What there is where nothing is.
const BACKGROUND: [u8; 3] = [240, 240, 236];

/// Sub-samples along either side of a pixel: edges have 17 levels.
const SUBSAMPLES: u32 = 4;

/// Half the extent of a shape, in cells.
const RADIUS: f32 = 0.4;

impl Scene {
    /// The scene as a square picture of `size` pixels a side, edges smoothed. The grid takes the whole picture.
    pub fn render(&self, size: u32) -> Picture {
        let side = size as usize;
        let mut rgb = BACKGROUND.repeat(side * side);
        let cell = size as f32 / GRID as f32;
        for object in self.objects() {
            let (left, top) = (object.column as f32 * cell, object.row as f32 * cell);
            let span = |start: f32| start.floor() as usize..((start + cell).ceil() as usize).min(side);
            for y in span(top) {
                for x in span(left) {
                    let cover = coverage(object, (x as f32 - left) / cell, (y as f32 - top) / cell, 1.0 / cell);
                    let pixel = &mut rgb[(y * side + x) * 3..][..3];
                    for (value, colour) in pixel.iter_mut().zip(object.colour.rgb()) {
                        *value = (f32::from(*value) * (1.0 - cover) + f32::from(colour) * cover).round() as u8;
                    }
                }
            }
        }
        Picture { width: size, height: size, rgb }
    }
}

/// The part of a pixel that the object covers, 0-1. The pixel's upper left corner and its side are in cells, seen from
/// the upper left corner of the object's cell.
fn coverage(object: &Object, x: f32, y: f32, pixel: f32) -> f32 {
    let at = |start: f32, step: u32| start + (step as f32 + 0.5) / SUBSAMPLES as f32 * pixel - 0.5;
    let inside = (0..SUBSAMPLES)
        .flat_map(|row| (0..SUBSAMPLES).map(move |column| (column, row)))
        .filter(|&(column, row)| contains(object.shape, at(x, column), at(y, row)))
        .count();
    inside as f32 / (SUBSAMPLES * SUBSAMPLES) as f32
}

/// Whether a shape around the origin covers a point; `y` grows downwards.
fn contains(shape: Shape, x: f32, y: f32) -> bool {
    match shape {
        Shape::Circle => x * x + y * y <= RADIUS * RADIUS,
        // Somewhat smaller than its box, so that its area is near the circle's and size gives no shape away.
        Shape::Square => x.abs().max(y.abs()) <= 0.9 * RADIUS,
        // The tip is above: half as wide as it is far from the tip.
        Shape::Triangle => y.abs() <= RADIUS && x.abs() <= (y + RADIUS) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::super::scene::tests::scene;
    use super::super::scene::{Colour, Scene};
    use super::*;

    fn pixel(picture: &Picture, x: u32, y: u32) -> [u8; 3] {
        let start = 3 * (y * picture.width + x) as usize;
        picture.rgb[start..start + 3].try_into().unwrap()
    }

    fn one(colour: Colour, shape: Shape) -> Scene {
        scene(&[(colour, shape, 1, 2)])
    }

    #[test]
    fn objects_are_where_the_scene_says() {
        for colour in Colour::ALL {
            for shape in Shape::ALL {
                let picture = one(colour, shape).render(32);
                assert_eq!(pixel(&picture, 12, 20), colour.rgb(), "the middle of column 1, row 2");
                for (x, y) in [(0, 0), (4, 20), (20, 20), (12, 12), (12, 28), (31, 31)] {
                    assert_eq!(pixel(&picture, x, y), BACKGROUND);
                }
            }
        }
    }

    #[test]
    fn edges_are_smooth() {
        let picture = one(Colour::Red, Shape::Circle).render(32);
        let (full, none) = (Colour::Red.rgb(), BACKGROUND);
        let edges = picture.rgb.chunks(3).filter(|&pixel| pixel != full && pixel != none).count();
        assert!(edges >= 8, "{edges}");
    }

    #[test]
    fn every_scene_of_one_object_looks_different() {
        let pictures: Vec<Picture> =
            (Colour::ALL.iter()).flat_map(|&c| Shape::ALL.map(|shape| one(c, shape).render(32))).collect();
        for (index, first) in pictures.iter().enumerate() {
            for second in &pictures[..index] {
                let apart: u32 = first.rgb.iter().zip(&second.rgb).map(|(a, b)| u32::from(a.abs_diff(*b))).sum();
                assert!(apart > 1000, "{apart}");
            }
        }
    }

    #[test]
    fn any_size_will_do() {
        let scene = one(Colour::Blue, Shape::Triangle);
        for size in [0, 1, 2, 3, 5, 7, 31, 33, 129] {
            assert_eq!(scene.render(size).rgb.len() as u32, size * size * 3);
        }
        let large = scene.render(256);
        assert_eq!(pixel(&large, 96, 160), Colour::Blue.rgb());
        assert!(large.to_png().is_ok());
    }
}
