//! A picture in memory: the one form that every decoder gives and every vision tower takes.

use std::io::Cursor;

use image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};

/// What can be wrong with a [`Picture`].
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    /// The bytes do not fill the stated size.
    #[error("a picture of {width} x {height} RGB pixels has {expected} bytes, not {found}")]
    Size { width: u32, height: u32, expected: u64, found: u64 },
    /// The PNG encoder refused it.
    #[error("cannot write a {width} x {height} picture as PNG: {cause}")]
    Png { width: u32, height: u32, cause: image::ImageError },
}

/// An 8-bit RGB picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Pixels from left to right.
    pub width: u32,
    /// Pixels from top to bottom.
    pub height: u32,
    /// `[height, width, 3]` row-major, the top row first, each of red, green and blue in 0..=255.
    pub rgb: Vec<u8>,
}

impl Picture {
    /// A picture from its pixels, `[height, width, 3]`.
    ///
    /// # Errors
    /// When `rgb` does not have `3 * width * height` bytes.
    pub fn new(width: u32, height: u32, rgb: Vec<u8>) -> Result<Picture, PictureError> {
        let picture = Picture { width, height, rgb };
        picture.check()?;
        Ok(picture)
    }

    /// The picture as the bytes of a PNG file.
    ///
    /// # Errors
    /// When the pixels do not fill the stated size, or either side is 0.
    pub fn to_png(&self) -> Result<Vec<u8>, PictureError> {
        self.check()?;
        let mut file = Cursor::new(Vec::new());
        PngEncoder::new(&mut file)
            .write_image(&self.rgb, self.width, self.height, ExtendedColorType::Rgb8)
            .map_err(|cause| PictureError::Png { width: self.width, height: self.height, cause })?;
        Ok(file.into_inner())
    }

    fn check(&self) -> Result<(), PictureError> {
        // u128: three times the product of two u32 does not fit u64.
        let expected = 3 * u128::from(self.width) * u128::from(self.height);
        if expected == self.rgb.len() as u128 {
            return Ok(());
        }
        Err(PictureError::Size {
            width: self.width,
            height: self.height,
            expected: u64::try_from(expected).unwrap_or(u64::MAX),
            found: self.rgb.len() as u64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn png_gives_the_pixels_back() {
        let rgb: Vec<u8> = (0..5 * 3 * 3).map(|i| (i * 37 % 256) as u8).collect();
        let picture = Picture::new(5, 3, rgb).unwrap();
        let back = image::load_from_memory(&picture.to_png().unwrap()).unwrap().into_rgb8();
        assert_eq!((back.width(), back.height()), (5, 3));
        assert_eq!(back.into_raw(), picture.rgb);
    }

    #[test]
    fn pixels_that_do_not_fill_the_size_are_refused() {
        let error = Picture::new(2, 2, vec![0; 11]).unwrap_err();
        assert_eq!(error.to_string(), "a picture of 2 x 2 RGB pixels has 12 bytes, not 11");
        let huge = Picture { width: u32::MAX, height: u32::MAX, rgb: vec![0; 3] };
        assert!(huge.to_png().is_err());
    }

    #[test]
    fn an_empty_picture_is_an_error_not_a_file() {
        assert!(Picture { width: 0, height: 0, rgb: vec![] }.to_png().is_err());
    }
}
