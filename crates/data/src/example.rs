//! An example on its way from a file to a model: [`Example`] as read, [`Encoded`] as tokenised, [`Batch`] as padded.

use std::sync::Arc;

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

/// One example as token ids, special tokens included and not yet padded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Token ids, `[length]`.
    pub ids: Vec<u32>,
    /// BERT's segment of every token, `[length]`: 0 in the first text, 1 in the second.
    pub types: Vec<u32>,
    /// The picture that goes with the text.
    pub image: Option<Arc<Picture>>,
    /// The index of its class.
    pub label: u32,
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
    /// Class indices, `[rows]`.
    pub labels: Vec<u32>,
    /// One picture a row, or none at all.
    pub images: Vec<Arc<Picture>>,
}

impl Batch {
    /// Pads `rows` on the right to the longest of them.
    ///
    /// # Panics
    /// When some rows have a picture and others have none, or a row has not one type per id: rows come from one
    /// tokenised set, so this is a mistake of the caller and never of a file.
    pub fn collate(rows: &[&Encoded], pad_id: u32) -> Batch {
        let length = rows.iter().map(|row| row.ids.len()).max().unwrap_or(0);
        let images: Vec<_> = rows.iter().filter_map(|row| row.image.clone()).collect();
        assert!(images.is_empty() || images.len() == rows.len(), "either every row of a batch has a picture or none");

        let mut ids = Vec::with_capacity(rows.len() * length);
        let mut types = Vec::with_capacity(rows.len() * length);
        for (index, row) in rows.iter().enumerate() {
            assert_eq!(row.ids.len(), row.types.len(), "a row has one type per id");
            ids.extend_from_slice(&row.ids);
            types.extend_from_slice(&row.types);
            ids.resize((index + 1) * length, pad_id);
            types.resize((index + 1) * length, 0);
        }
        Batch {
            rows: rows.len(),
            length,
            ids,
            types,
            lengths: rows.iter().map(|row| row.ids.len()).collect(),
            labels: rows.iter().map(|row| row.label).collect(),
            images,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(ids: &[u32], types: &[u32], label: u32) -> Encoded {
        Encoded { ids: ids.to_vec(), types: types.to_vec(), image: None, label }
    }

    #[test]
    fn rows_are_padded_on_the_right() {
        let (long, short) = (row(&[2, 7, 3, 8, 3], &[0, 0, 0, 1, 1], 1), row(&[2, 9, 3], &[0, 0, 0], 0));
        let batch = Batch::collate(&[&short, &long], 42);
        assert_eq!((batch.rows, batch.length), (2, 5));
        assert_eq!(batch.ids, [2, 9, 3, 42, 42, 2, 7, 3, 8, 3]);
        assert_eq!(batch.types, [0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(batch.lengths, [3, 5]);
        assert_eq!(batch.labels, [0, 1]);
        assert!(batch.images.is_empty());
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
