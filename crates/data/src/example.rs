//! An example on its way from a file to a model: [`Example`] as read, [`Encoded`] as tokenised, [`Batch`] as padded.

use std::mem::discriminant;
use std::sync::Arc;

use lapidary_kernels::cross_entropy::IGNORED;

use crate::Picture;

/// One piece of an input, of one medium.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Text, as it stood in the file.
    Text(String),
    /// A decoded picture, shared rather than copied.
    Image(Arc<Picture>),
}

/// One example as a source gives it: parts in the order in which a model should read them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// The input; at most two texts (a sentence, or a pair of them) and one picture for a classifier.
    pub parts: Vec<Part>,
    /// The index of its class, when it has one.
    pub label: Option<u32>,
}

/// What a model is to say of an example.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The index of its class.
    Class(u32),
    /// The places of the first and the last token of a span; place 0 twice where there is none.
    Span { start: usize, end: usize },
    /// The index of a tag for each token, `[length]`; [`IGNORED`] at a token that has none.
    Tags(Vec<i64>),
}

impl Target {
    /// The class, of an example that has one.
    pub fn class(&self) -> Option<u32> {
        match self {
            Target::Class(class) => Some(*class),
            Target::Span { .. } | Target::Tags(_) => None,
        }
    }

    /// How many rows of logits an example has that is padded to `length`, and so how many targets.
    fn width(&self, length: usize) -> usize {
        match self {
            Target::Class(_) => 1,
            Target::Span { .. } => 2,
            Target::Tags(_) => length,
        }
    }
}

/// One example as token ids, special tokens included and not yet padded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Token ids, `[length]`.
    pub ids: Vec<u32>,
    /// BERT's segment of every token, `[length]`: 0 in the first text, 1 in the second.
    pub types: Vec<u32>,
    /// The picture that goes with the text.
    pub image: Option<Arc<Picture>>,
    /// What a model is to say of it.
    pub target: Target,
}

/// A tokenised set, in the order of its file.
pub type Dataset = Vec<Encoded>;

/// Rows padded to one length, ready for a model.
///
/// `ids` and `types` are `[rows, length]` row-major; row `i` holds `lengths[i]` real tokens, then the pad id with
/// type 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The number of examples.
    pub rows: usize,
    /// The padded length: that of the longest row.
    pub length: usize,
    /// Token ids, `[rows, length]`.
    pub ids: Vec<u32>,
    /// Segment ids, `[rows, length]`.
    pub types: Vec<u32>,
    /// Real tokens in each row, `[rows]`.
    pub lengths: Vec<usize>,
    /// One target for each row of logits, as cross-entropy takes them. Classes: `[rows]`. Spans: start and end of each
    /// row, `[rows, 2]`, both places in `0..length`. Tags: `[rows, length]`, and [`IGNORED`] at padding too.
    pub targets: Vec<i64>,
    /// One picture a row, or none at all.
    pub images: Vec<Arc<Picture>>,
}

impl Batch {
    /// Pads `rows` on the right to the longest of them.
    ///
    /// # Panics
    /// When some rows have a picture and others have none, when their targets are of several kinds, or when a row has
    /// not one type per id, a tag per id or its span within it: rows come from one tokenised set, so this is a mistake
    /// of the caller and never of a file.
    pub fn collate(rows: &[&Encoded], pad_id: u32) -> Batch {
        let length = rows.iter().map(|row| row.ids.len()).max().unwrap_or(0);
        let images: Vec<_> = rows.iter().filter_map(|row| row.image.clone()).collect();
        assert!(images.is_empty() || images.len() == rows.len(), "either every row of a batch has a picture or none");
        let same = rows.windows(2).all(|pair| discriminant(&pair[0].target) == discriminant(&pair[1].target));
        assert!(same, "the targets of a batch are of one kind");

        let width = rows.first().map_or(0, |row| row.target.width(length));
        let mut targets = Vec::with_capacity(rows.len() * width);
        let mut ids = Vec::with_capacity(rows.len() * length);
        let mut types = Vec::with_capacity(rows.len() * length);
        for (index, row) in rows.iter().enumerate() {
            assert_eq!(row.ids.len(), row.types.len(), "a row has one type per id");
            ids.extend_from_slice(&row.ids);
            types.extend_from_slice(&row.types);
            ids.resize((index + 1) * length, pad_id);
            types.resize((index + 1) * length, 0);
            match &row.target {
                Target::Class(class) => targets.push(i64::from(*class)),
                Target::Span { start, end } => {
                    assert!(start <= end && *end < row.ids.len(), "a span is within its row");
                    targets.extend([*start as i64, *end as i64]);
                }
                Target::Tags(tags) => {
                    assert_eq!(row.ids.len(), tags.len(), "a row has one tag per id");
                    targets.extend_from_slice(tags);
                    targets.resize((index + 1) * length, IGNORED);
                }
            }
        }
        Batch {
            rows: rows.len(),
            length,
            ids,
            types,
            lengths: rows.iter().map(|row| row.ids.len()).collect(),
            targets,
            images,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(ids: &[u32], types: &[u32], label: u32) -> Encoded {
        Encoded { ids: ids.to_vec(), types: types.to_vec(), image: None, target: Target::Class(label) }
    }

    /// A row of `length` tokens.
    fn target(length: usize, target: Target) -> Encoded {
        Encoded { ids: vec![7; length], types: vec![0; length], image: None, target }
    }

    #[test]
    fn rows_are_padded_on_the_right() {
        let (long, short) = (row(&[2, 7, 3, 8, 3], &[0, 0, 0, 1, 1], 1), row(&[2, 9, 3], &[0, 0, 0], 0));
        let batch = Batch::collate(&[&short, &long], 42);
        assert_eq!((batch.rows, batch.length), (2, 5));
        assert_eq!(batch.ids, [2, 9, 3, 42, 42, 2, 7, 3, 8, 3]);
        assert_eq!(batch.types, [0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(batch.lengths, [3, 5]);
        assert_eq!(batch.targets, [0, 1]);
        assert!(batch.images.is_empty());
    }

    #[test]
    fn spans_and_tags_are_rows_of_targets() {
        let spans = [target(4, Target::Span { start: 1, end: 3 }), target(2, Target::Span { start: 0, end: 0 })];
        assert_eq!(Batch::collate(&spans.each_ref(), 0).targets, [1, 3, 0, 0]);
        assert_eq!(spans[0].target.class(), None);
        let tags = [target(2, Target::Tags(vec![IGNORED, 5])), target(3, Target::Tags(vec![IGNORED, 0, 2]))];
        assert_eq!(Batch::collate(&tags.each_ref(), 0).targets, [IGNORED, 5, IGNORED, IGNORED, 0, 2]);
    }

    #[test]
    #[should_panic(expected = "the targets of a batch are of one kind")]
    fn mixed_targets_are_refused() {
        Batch::collate(&[&target(1, Target::Class(0)), &target(1, Target::Tags(vec![0]))], 0);
    }

    #[test]
    #[should_panic(expected = "a span is within its row")]
    fn a_span_in_the_padding_is_refused() {
        Batch::collate(
            &[&target(2, Target::Span { start: 1, end: 2 }), &target(3, Target::Span { start: 1, end: 2 })],
            0,
        );
    }

    #[test]
    #[should_panic(expected = "a row has one tag per id")]
    fn too_few_tags_are_refused() {
        Batch::collate(&[&target(2, Target::Tags(vec![0]))], 0);
    }

    #[test]
    fn a_batch_of_no_rows_is_empty() {
        let batch = Batch::collate(&[], 0);
        assert_eq!((batch.rows, batch.length, batch.ids.len()), (0, 0, 0));
    }

    #[test]
    fn pictures_travel_with_their_rows() {
        let picture = |value| Some(Arc::new(Picture { width: 1, height: 1, rgb: vec![value; 3] }));
        let (first, second) =
            (Encoded { image: picture(1), ..row(&[1], &[0], 0) }, Encoded { image: picture(2), ..row(&[2], &[0], 0) });
        let batch = Batch::collate(&[&second, &first], 0);
        assert_eq!(batch.images.iter().map(|image| image.rgb[0]).collect::<Vec<_>>(), [2, 1]);
    }

    #[test]
    #[should_panic(expected = "either every row of a batch has a picture or none")]
    fn a_mixed_batch_is_refused() {
        let picture = Some(Arc::new(Picture { width: 1, height: 1, rgb: vec![0; 3] }));
        Batch::collate(&[&Encoded { image: picture, ..row(&[1], &[0], 0) }, &row(&[1], &[0], 0)], 0);
    }
}
