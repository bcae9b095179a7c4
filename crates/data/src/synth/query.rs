//! Questions about a scene, and their answers.

use lapidary_kernels::rng::Stream;

use super::scene::{Colour, Object, Scene, Shape};

/// The answers there are. A question's label is an index into them.
const ANSWERS: [&str; 14] = [
    "no", "yes", "red", "green", "blue", "yellow", "circle", "square", "triangle", "zero", "one", "two", "three",
    "four",
];
const FIRST_COLOUR: u32 = 2;
const FIRST_SHAPE: u32 = 6;
const FIRST_NUMBER: u32 = 9;

/// The words of questions that are no answers.
pub(super) const WORDS: [&str; 18] = [
    "what",
    "colour",
    "shape",
    "is",
    "the",
    "how",
    "many",
    "circles",
    "squares",
    "triangles",
    "ones",
    "there",
    "a",
    "left",
    "right",
    "of",
    "above",
    "below",
];

/// The closed answer vocabulary, the same for every seed and split.
pub fn answers() -> &'static [&'static str] {
    &ANSWERS
}

/// What has to be seen to answer a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `what colour is the circle`, of the only circle.
    Colour,
    /// `what shape is the red one`, of the only red object.
    Shape,
    /// `how many squares`, `how many red ones`.
    Count,
    /// `is there a blue triangle`.
    Exists,
    /// `is the red one left of the green one`, of two objects that differ along that axis.
    Relation,
}

/// A way to point at one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Referent {
    /// `the circle`
    Shape(Shape),
    /// `the red one`
    Colour(Colour),
}

/// Where one object may be, seen from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    LeftOf,
    RightOf,
    Above,
    Below,
}

/// A question apart from any scene.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Query {
    /// The colour of the only object of a shape.
    ColourOf(Shape),
    /// The shape of the only object of a colour.
    ShapeOf(Colour),
    /// The number of objects of a shape or colour.
    Count(Referent),
    /// Whether there is such an object.
    Exists(Colour, Shape),
    /// Whether the first is in that direction from the second; both are colours or both are shapes.
    Relation(Referent, Direction, Referent),
}

impl Kind {
    pub const ALL: [Kind; 5] = [Kind::Colour, Kind::Shape, Kind::Count, Kind::Exists, Kind::Relation];

    /// The answers that questions of this kind have, all equally frequent: indices into [`answers`].
    pub fn answers(self) -> Vec<u32> {
        match self {
            Kind::Colour => (FIRST_COLOUR..FIRST_SHAPE).collect(),
            Kind::Shape => (FIRST_SHAPE..FIRST_NUMBER).collect(),
            Kind::Count => (FIRST_NUMBER..ANSWERS.len() as u32).collect(),
            Kind::Exists | Kind::Relation => vec![0, 1],
        }
    }
}

impl Referent {
    fn fits(self, object: &Object) -> bool {
        match self {
            Referent::Shape(shape) => object.shape == shape,
            Referent::Colour(colour) => object.colour == colour,
        }
    }

    /// The object that it points at, if there is exactly one.
    fn find(self, scene: &Scene) -> Option<&Object> {
        let mut fitting = scene.objects().iter().filter(|object| self.fits(object));
        fitting.next().filter(|_| fitting.next().is_none())
    }

    fn text(self) -> String {
        match self {
            Referent::Shape(shape) => format!("the {}", shape.name()),
            Referent::Colour(colour) => format!("the {} one", colour.name()),
        }
    }
}

impl Direction {
    pub const ALL: [Direction; 4] = [Direction::LeftOf, Direction::RightOf, Direction::Above, Direction::Below];

    fn text(self) -> &'static str {
        ["left of", "right of", "above", "below"][self as usize]
    }

    /// Whether `one` is in this direction from `other`; nothing when they are level.
    fn holds(self, one: &Object, other: &Object) -> Option<bool> {
        let (near, far) = match self {
            Direction::LeftOf => (one.column, other.column),
            Direction::RightOf => (other.column, one.column),
            Direction::Above => (one.row, other.row),
            Direction::Below => (other.row, one.row),
        };
        (near != far).then_some(near < far)
    }
}

impl Query {
    /// A query: a kind, then one of its questions, each equally likely.
    pub(super) fn draw(stream: &mut Stream) -> Query {
        let mut pick = |count: usize| stream.below(count);
        match Kind::ALL[pick(Kind::ALL.len())] {
            Kind::Colour => Query::ColourOf(Shape::ALL[pick(Shape::ALL.len())]),
            Kind::Shape => Query::ShapeOf(Colour::ALL[pick(Colour::ALL.len())]),
            Kind::Count => match pick(Shape::ALL.len() + Colour::ALL.len()) {
                place if place < Shape::ALL.len() => Query::Count(Referent::Shape(Shape::ALL[place])),
                place => Query::Count(Referent::Colour(Colour::ALL[place - Shape::ALL.len()])),
            },
            Kind::Exists => Query::Exists(Colour::ALL[pick(Colour::ALL.len())], Shape::ALL[pick(Shape::ALL.len())]),
            Kind::Relation => {
                let direction = Direction::ALL[pick(Direction::ALL.len())];
                let colours = pick(2) == 0;
                let count = if colours { Colour::ALL.len() } else { Shape::ALL.len() };
                let first = pick(count);
                let second = (first + 1 + pick(count - 1)) % count;
                let referent = |place: usize| match colours {
                    true => Referent::Colour(Colour::ALL[place]),
                    false => Referent::Shape(Shape::ALL[place]),
                };
                Query::Relation(referent(first), direction, referent(second))
            }
        }
    }

    /// What has to be seen to answer it.
    pub fn kind(&self) -> Kind {
        match self {
            Query::ColourOf(_) => Kind::Colour,
            Query::ShapeOf(_) => Kind::Shape,
            Query::Count(_) => Kind::Count,
            Query::Exists(..) => Kind::Exists,
            Query::Relation(..) => Kind::Relation,
        }
    }

    /// The question in words.
    pub fn text(&self) -> String {
        match *self {
            Query::ColourOf(shape) => format!("what colour is the {}", shape.name()),
            Query::ShapeOf(colour) => format!("what shape is the {} one", colour.name()),
            Query::Count(Referent::Shape(shape)) => format!("how many {}", shape.plural()),
            Query::Count(Referent::Colour(colour)) => format!("how many {} ones", colour.name()),
            Query::Exists(colour, shape) => format!("is there a {} {}", colour.name(), shape.name()),
            Query::Relation(one, direction, other) => {
                format!("is {} {} {}", one.text(), direction.text(), other.text())
            }
        }
    }

    /// The answer, an index into [`answers`]; nothing when the question supposes what is not so.
    pub fn answer(&self, scene: &Scene) -> Option<u32> {
        let yes_or_no = |holds: bool| u32::from(holds);
        match *self {
            Query::ColourOf(shape) => Some(FIRST_COLOUR + Referent::Shape(shape).find(scene)?.colour as u32),
            Query::ShapeOf(colour) => Some(FIRST_SHAPE + Referent::Colour(colour).find(scene)?.shape as u32),
            Query::Count(referent) => {
                let count = scene.objects().iter().filter(|object| referent.fits(object)).count();
                Some(FIRST_NUMBER + count as u32)
            }
            Query::Exists(colour, shape) => {
                let fits = |object: &Object| object.colour == colour && object.shape == shape;
                Some(yes_or_no(scene.objects().iter().any(fits)))
            }
            Query::Relation(one, direction, other) => {
                direction.holds(one.find(scene)?, other.find(scene)?).map(yes_or_no)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::scene::tests::scene;
    use super::*;

    fn answer(query: Query, scene: &Scene) -> Option<&'static str> {
        query.answer(scene).map(|answer| answers()[answer as usize])
    }

    #[test]
    fn answers_are_right() {
        use Colour::*;
        use Shape::*;
        // A red circle above and left of a green square; a blue square level with the green one.
        let scene = scene(&[(Red, Circle, 0, 0), (Green, Square, 2, 3), (Blue, Square, 3, 3)]);
        for (query, text, expected) in [
            (Query::ColourOf(Circle), "what colour is the circle", Some("red")),
            (Query::ColourOf(Square), "what colour is the square", None),
            (Query::ColourOf(Triangle), "what colour is the triangle", None),
            (Query::ShapeOf(Green), "what shape is the green one", Some("square")),
            (Query::ShapeOf(Yellow), "what shape is the yellow one", None),
            (Query::Count(Referent::Shape(Square)), "how many squares", Some("two")),
            (Query::Count(Referent::Colour(Yellow)), "how many yellow ones", Some("zero")),
            (Query::Exists(Blue, Square), "is there a blue square", Some("yes")),
            (Query::Exists(Red, Square), "is there a red square", Some("no")),
        ] {
            assert_eq!((query.text().as_str(), answer(query, &scene)), (text, expected));
        }
        let relation = |one, direction, other| {
            answer(Query::Relation(Referent::Colour(one), direction, Referent::Colour(other)), &scene)
        };
        assert_eq!(relation(Red, Direction::LeftOf, Green), Some("yes"));
        assert_eq!(relation(Red, Direction::RightOf, Green), Some("no"));
        assert_eq!(relation(Red, Direction::Above, Blue), Some("yes"));
        assert_eq!(relation(Blue, Direction::Below, Red), Some("yes"));
        assert_eq!(relation(Blue, Direction::Above, Green), None, "they are level");
        let shapes = Query::Relation(Referent::Shape(Circle), Direction::LeftOf, Referent::Shape(Square));
        assert_eq!((shapes.text().as_str(), answer(shapes, &scene)), ("is the circle left of the square", None));
    }

    #[test]
    fn an_answer_is_always_one_of_its_kind() {
        for step in 0..5_000 {
            let mut stream = Stream::new(11, step);
            let (query, scene) = (Query::draw(&mut stream), Scene::draw(&mut stream));
            if let Some(answer) = query.answer(&scene) {
                assert!(query.kind().answers().contains(&answer), "{query:?}");
            }
        }
    }

    #[test]
    fn the_answers_of_all_kinds_are_the_answers() {
        let mut all: Vec<u32> = Kind::ALL.iter().flat_map(|kind| kind.answers()).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all, (0..answers().len() as u32).collect::<Vec<_>>());
        let name = |index: u32| answers()[index as usize];
        assert!(Colour::ALL.iter().all(|&colour| name(FIRST_COLOUR + colour as u32) == colour.name()));
        assert!(Shape::ALL.iter().all(|&shape| name(FIRST_SHAPE + shape as u32) == shape.name()));
    }
}
