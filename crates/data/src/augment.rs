//! Pictures to what a network reads: drawn to be cut and mirrored for training, then normalized.

use lapidary_kernels::rng;

use crate::PictureSet;

/// What is taken from each colour and what the rest is divided by, in units of the brightest value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Normalization {
    /// Of red, green and blue.
    pub mean: [f32; 3],
    /// Of red, green and blue; none is 0.
    pub deviation: [f32; 3],
}

impl Normalization {
    /// Of ImageNet's pictures; many networks for CIFAR-10 are trained with it too.
    pub const IMAGENET: Normalization = Normalization { mean: [0.485, 0.456, 0.406], deviation: [0.229, 0.224, 0.225] };

    /// Mean and standard deviation over all pixels of a set. A colour that never changes is not divided.
    pub fn of(set: &PictureSet) -> Self {
        let (mut sums, mut squares) = ([0u64; 3], [0u64; 3]);
        for pixel in set.pixels.chunks_exact(3) {
            for (colour, &value) in pixel.iter().enumerate() {
                sums[colour] += u64::from(value);
                squares[colour] += u64::from(value) * u64::from(value);
            }
        }
        let count = (set.pixels.len() / 3).max(1) as f64;
        let mean = sums.map(|sum| sum as f64 / count);
        let deviation = |colour: usize| (squares[colour] as f64 / count - mean[colour] * mean[colour]).max(0.0).sqrt();
        let deviation = [0, 1, 2].map(deviation).map(|deviation| if deviation == 0.0 { 255.0 } else { deviation });
        Self { mean: mean.map(|mean| (mean / 255.0) as f32), deviation: deviation.map(|x| (x / 255.0) as f32) }
    }

    /// Every value that a byte can have, by colour.
    fn table(&self) -> [[f32; 256]; 3] {
        let value = |colour: usize, byte: usize| (byte as f32 / 255.0 - self.mean[colour]) / self.deviation[colour];
        [0, 1, 2].map(|colour| std::array::from_fn(|byte| value(colour, byte)))
    }
}

/// What training does to a picture, drawn anew each time it is shown (He et al., 1512.03385, section 4.2, take 4 and
/// yes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Augmentation {
    /// Black pixels around the picture, out of which a piece of the old size is cut.
    pub padding: usize,
    /// Every second one is mirrored, left to right.
    pub mirror: bool,
}

/// Pictures as a network reads them.
#[derive(Debug, Clone, PartialEq)]
pub struct PictureBatch {
    /// `[pictures, height, width, 3]`.
    pub pixels: Vec<f32>,
    /// Class of each.
    pub labels: Vec<u32>,
    /// Pixels from top to bottom.
    pub height: usize,
    /// Pixels from left to right.
    pub width: usize,
}

impl PictureBatch {
    /// Pictures of a set as they are; `rows` are below its length.
    pub fn plain(set: &PictureSet, rows: &[usize], normalization: &Normalization) -> Self {
        Self::new(set, rows, normalization, |_| (0, 0, false))
    }

    /// Pictures of a set as training shows them in an epoch: a picture's draw depends on `seed`, `epoch` and its own
    /// place, not on its batch.
    pub fn drawn(
        set: &PictureSet,
        rows: &[usize],
        normalization: &Normalization,
        augmentation: Augmentation,
        (seed, epoch): (u64, u64),
    ) -> Self {
        let places = 2 * augmentation.padding as u64 + 1;
        Self::new(set, rows, normalization, |row| {
            let bits = rng::bits(seed, epoch, row as u64);
            let shift = |bits: u64| (((bits & 0xffff_ffff) * places) >> 32) as isize - augmentation.padding as isize;
            // The lowest bit of one half is the mirror's; what it takes from the shift is nothing one could see.
            (shift(bits), shift(bits >> 32), augmentation.mirror && bits & 1 == 1)
        })
    }

    /// `draw` gives, for a row of the set, how far its picture moves up and left, and whether it is mirrored.
    fn new(
        set: &PictureSet,
        rows: &[usize],
        normalization: &Normalization,
        draw: impl Fn(usize) -> (isize, isize, bool),
    ) -> Self {
        let (height, width) = (set.height, set.width);
        let table = normalization.table();
        let mut pixels = Vec::with_capacity(rows.len() * set.stride());
        for &row in rows {
            let picture = set.pixels_of(row);
            let (up, left, mirrored) = draw(row);
            for y in 0..height {
                for x in 0..width {
                    let x = if mirrored { width - 1 - x } else { x };
                    let from = (y.checked_add_signed(up), x.checked_add_signed(left));
                    let at = match from {
                        (Some(y), Some(x)) if y < height && x < width => Some(3 * (y * width + x)),
                        _ => None,
                    };
                    for (colour, table) in table.iter().enumerate() {
                        pixels.push(table[at.map_or(0, |at| usize::from(picture[at + colour]))]);
                    }
                }
            }
        }
        Self { pixels, labels: rows.iter().map(|&row| set.labels[row]).collect(), height, width }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pictures whose red is the row, green the column, blue the number.
    fn set(pictures: usize, side: usize) -> PictureSet {
        let pixel = |i: usize| [i / side % side + 1, i % side + 1, i / (side * side)].map(|value| value as u8);
        PictureSet {
            height: side,
            width: side,
            classes: vec!["one".into()],
            pixels: (0..pictures * side * side).flat_map(pixel).collect(),
            labels: vec![0; pictures],
        }
    }

    const BYTES: Normalization = Normalization { mean: [0.0; 3], deviation: [1.0 / 255.0; 3] };

    #[test]
    fn a_drawn_picture_is_a_shifted_and_perhaps_mirrored_one() {
        let (set, rows) = (set(200, 5), (0..200).collect::<Vec<_>>());
        let augmentation = Augmentation { padding: 2, mirror: true };
        let batch = PictureBatch::drawn(&set, &rows, &BYTES, augmentation, (1, 0));
        let mut seen = std::collections::BTreeMap::new();
        for picture in batch.pixels.chunks_exact(set.stride()) {
            let middle = |dx: usize| &picture[3 * (2 * 5 + dx)..][..2];
            let (row, column) = (middle(2)[0].round(), middle(2)[1].round());
            let mirrored = middle(1)[1] > middle(2)[1] || middle(2)[1] > middle(3)[1] && middle(3)[1] > 0.5;
            *seen.entry((row as u8, column as u8, mirrored)).or_insert(0) += 1;
            for (at, pixel) in picture.chunks_exact(3).enumerate() {
                let (y, x) = ((at / 5) as f32 - 2.0 + row, (at % 5) as f32 - 2.0);
                let x = if mirrored { column - x } else { column + x };
                let inside = [y, x].iter().all(|place| (1.0..=5.0).contains(place));
                let expected = if inside { [y, x] } else { [0.0, 0.0] };
                assert!((pixel[0] - expected[0]).abs() < 1e-3 && (pixel[1] - expected[1]).abs() < 1e-3, "{pixel:?}");
            }
        }
        // 5 rows, 5 columns, two ways: of 50 cases 200 draws miss one in fifty.
        assert!(seen.len() > 40, "{seen:?}");
        let half = seen.iter().filter(|((_, _, mirrored), _)| *mirrored).map(|(_, count)| count).sum::<usize>();
        assert!((70..=130).contains(&half), "{half}");
        // The same in another batch, another in another epoch.
        let one = PictureBatch::drawn(&set, &[17], &BYTES, augmentation, (1, 0));
        assert_eq!(one.pixels, batch.pixels[17 * set.stride()..][..set.stride()]);
        assert_ne!(PictureBatch::drawn(&set, &rows, &BYTES, augmentation, (1, 1)), batch);
        let none = PictureBatch::drawn(&set, &rows, &BYTES, Augmentation::default(), (1, 0));
        assert_eq!(none, PictureBatch::plain(&set, &rows, &BYTES));
    }

    #[test]
    fn normalized_pictures_have_mean_0_and_deviation_1() {
        let mut set = set(7, 4);
        set.pixels.iter_mut().skip(2).step_by(3).for_each(|blue| *blue = 255);
        let normalization = Normalization::of(&set);
        let batch = PictureBatch::plain(&set, &(0..7).collect::<Vec<_>>(), &normalization);
        for colour in 0..3 {
            let values: Vec<f32> = batch.pixels.iter().copied().skip(colour).step_by(3).collect();
            let mean = values.iter().sum::<f32>() / values.len() as f32;
            let square = values.iter().map(|x| x * x).sum::<f32>() / values.len() as f32;
            let expected = if colour == 2 { 0.0 } else { 1.0 };
            assert!(mean.abs() < 1e-5 && (square - expected).abs() < 1e-4, "{colour}: {mean} {square}");
        }
    }
}
