//! What there is in the world, and how it is described.

use lapidary_kernels::rng::{self, Stream};

use super::Split;

/// Cells along either side of the grid.
pub const GRID: usize = 4;

/// The most objects in a scene.
const MOST: usize = 4;

/// The words of descriptions that are in no question and no answer.
pub(super) const WORDS: [&str; 4] = ["a", "row", "column", "."];

/// Rows and columns in words.
const ORDINALS: [&str; GRID] = ["one", "two", "three", "four"];

/// The form of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shape {
    Circle,
    Square,
    Triangle,
}

/// The colour of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Colour {
    Red,
    Green,
    Blue,
    Yellow,
}

/// A shape of one colour in one cell of the grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Object {
    pub shape: Shape,
    pub colour: Colour,
    /// From the left, `0..GRID`.
    pub column: usize,
    /// From the top, `0..GRID`.
    pub row: usize,
}

/// One to four objects, no two in one cell.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Scene {
    /// Row by row from the top, each from the left.
    objects: Vec<Object>,
}

impl Shape {
    pub const ALL: [Shape; 3] = [Shape::Circle, Shape::Square, Shape::Triangle];

    /// Its name, as in `is there a red circle`.
    pub fn name(self) -> &'static str {
        ["circle", "square", "triangle"][self as usize]
    }

    /// Its name, as in `how many circles`.
    pub fn plural(self) -> &'static str {
        ["circles", "squares", "triangles"][self as usize]
    }
}

impl Colour {
    pub const ALL: [Colour; 4] = [Colour::Red, Colour::Green, Colour::Blue, Colour::Yellow];

    /// Its name.
    pub fn name(self) -> &'static str {
        ["red", "green", "blue", "yellow"][self as usize]
    }

    /// Red, green and blue, 0-255, told apart also by a reader who does not see hues: each has another lightness.
    pub fn rgb(self) -> [u8; 3] {
        [[208, 32, 32], [32, 160, 72], [32, 56, 192], [240, 200, 24]][self as usize]
    }
}

impl Scene {
    /// The objects, row by row from the top, each row from the left.
    pub fn objects(&self) -> &[Object] {
        &self.objects
    }

    /// A scene of one to four objects, each number equally likely; shapes, colours and cells are uniform.
    pub(super) fn draw(stream: &mut Stream) -> Scene {
        let mut taken = [false; GRID * GRID];
        let mut left = 1 + stream.below(MOST);
        while left > 0 {
            let cell = stream.below(taken.len());
            left -= usize::from(!taken[cell]);
            taken[cell] = true;
        }
        let cells = (0..taken.len()).filter(|&cell| taken[cell]);
        let object = |cell| Object {
            shape: Shape::ALL[stream.below(Shape::ALL.len())],
            colour: Colour::ALL[stream.below(Colour::ALL.len())],
            column: cell % GRID,
            row: cell / GRID,
        };
        Scene { objects: cells.map(object).collect() }
    }

    /// The split to which the scene belongs, by a hash of everything in it.
    pub fn split(&self) -> Split {
        match rng::bits(0, self.code(), 0) % 10 {
            0 => Split::Test,
            1 => Split::Validation,
            _ => Split::Train,
        }
    }

    /// A number that no other scene has: one digit a cell, 0 for an empty one.
    fn code(&self) -> u64 {
        let digits = (Shape::ALL.len() * Colour::ALL.len() + 1) as u64;
        let digit = |object: &Object| 1 + (object.shape as usize * Colour::ALL.len() + object.colour as usize) as u64;
        // 13^16 is below 2^60.
        self.objects.iter().map(|object| digit(object) * digits.pow((object.row * GRID + object.column) as u32)).sum()
    }

    /// The scene in words, one clause an object: `a red circle row two column three . a blue square ...`.
    pub fn description(&self) -> String {
        let clause = |object: &Object| {
            let (row, column) = (ORDINALS[object.row], ORDINALS[object.column]);
            format!("a {} {} row {row} column {column} .", object.colour.name(), object.shape.name())
        };
        self.objects.iter().map(clause).collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::HashMap;

    use super::*;

    /// A scene of the objects given as (colour, shape, column, row).
    pub(crate) fn scene(objects: &[(Colour, Shape, usize, usize)]) -> Scene {
        let object = |&(colour, shape, column, row)| Object { shape, colour, column, row };
        let mut objects: Vec<Object> = objects.iter().map(object).collect();
        objects.sort_by_key(|object| (object.row, object.column));
        Scene { objects }
    }

    #[test]
    fn drawn_scenes_are_valid_and_varied() {
        let mut sizes = [0; MOST + 1];
        let mut codes: HashMap<u64, Scene> = HashMap::new();
        for step in 0..20_000 {
            let scene = Scene::draw(&mut Stream::new(1, step));
            sizes[scene.objects.len()] += 1;
            let cells: Vec<_> = scene.objects.iter().map(|object| object.row * GRID + object.column).collect();
            assert!(cells.is_sorted_by(|a, b| a < b) && cells.iter().all(|&cell| cell < GRID * GRID));
            let other = codes.entry(scene.code()).or_insert_with(|| scene.clone());
            assert_eq!(*other, scene, "two scenes of one code");
        }
        assert!(sizes[0] == 0 && sizes[1..].iter().all(|size| (4_700..5_300).contains(size)), "{sizes:?}");
    }

    #[test]
    fn splits_are_eight_to_one_to_one() {
        let mut counts: HashMap<Split, u32> = HashMap::new();
        for step in 0..20_000 {
            *counts.entry(Scene::draw(&mut Stream::new(2, step)).split()).or_default() += 1;
        }
        assert!((15_500..16_500).contains(&counts[&Split::Train]), "{counts:?}");
        assert!((1_700..2_300).contains(&counts[&Split::Validation]), "{counts:?}");
    }

    #[test]
    fn descriptions_say_what_is_where() {
        let scene = scene(&[(Colour::Blue, Shape::Square, 3, 2), (Colour::Red, Shape::Circle, 2, 0)]);
        assert_eq!(scene.description(), "a red circle row one column three . a blue square row three column four .");
    }
}
