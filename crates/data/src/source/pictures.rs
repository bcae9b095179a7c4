//! Pictures in classes: folders or archives of PNG and JPEG files, one folder a class, and CIFAR's binary files.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use image::{ImageFormat, ImageReader, Limits};
use rayon::prelude::*;

use super::tar::Archive;
use super::{DataError, is_zst, lines, quote};

/// The largest file of one picture.
const MAX_PICTURE_BYTES: u64 = 64 << 20;
/// The longest side of a picture.
const MAX_SIDE: u32 = 4096;
/// What all pictures of a set may take.
const MAX_SET_BYTES: u64 = 16 << 30;
/// Files that are decoded together: what is held compressed while an archive is read.
const TOGETHER: usize = 4096;

/// A set of pictures of one size, each with its class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PictureSet {
    /// Pixels from top to bottom.
    pub height: usize,
    /// Pixels from left to right.
    pub width: usize,
    /// Names of the classes: the folders', in alphabetical order; of CIFAR's files their numbers.
    pub classes: Vec<String>,
    /// `[pictures, height, width, 3]`, red, green and blue in 0..=255.
    pub pixels: Vec<u8>,
    /// Of each picture.
    pub labels: Vec<u32>,
}

/// One file of a set.
struct File {
    class: String,
    name: String,
    bytes: Vec<u8>,
}

/// Pictures as they are gathered: of each its class's name.
struct Gathered {
    path: PathBuf,
    size: Option<(u32, u32)>,
    pixels: Vec<u8>,
    classes: Vec<String>,
}

impl PictureSet {
    /// Reads the pictures of `path`: a folder, or a `.tar` (which may be compressed, `.zst`), in which the picture
    /// `PART/CLASS/NAME.png` (or `.jpg`, `.jpeg`) belongs to the class CLASS; `part` is that PART, and may be empty. Or
    /// a `.bin` of the binary version of CIFAR-10 (a byte for the class, 3,072 for the planes of a picture), which has
    /// no parts.
    ///
    /// Pictures come in the order of their classes and names, whatever the order in the archive.
    ///
    /// # Errors
    /// A file that is no such picture, pictures of different sizes, none at all, and what cannot be opened or read.
    pub fn read(path: &Path, part: &str) -> Result<PictureSet, DataError> {
        let plain = if is_zst(path) { path.with_extension("") } else { path.to_path_buf() };
        let extension = plain.extension().and_then(|extension| extension.to_str());
        if path.is_dir() {
            return of_folder(path, part);
        }
        match extension {
            Some("tar") => of_archive(path, part),
            Some("bin") => of_cifar(path),
            _ => Err(DataError::PictureFormat { path: path.to_path_buf() }),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Bytes of one picture.
    pub fn stride(&self) -> usize {
        self.height * self.width * 3
    }

    /// A picture's pixels, `[height, width, 3]`; `i` is below [`PictureSet::len`].
    pub fn pixels_of(&self, i: usize) -> &[u8] {
        &self.pixels[i * self.stride()..][..self.stride()]
    }

    /// The pictures whose places are given, in that order; each is below [`PictureSet::len`].
    pub fn subset(&self, places: &[usize]) -> PictureSet {
        PictureSet {
            pixels: places.iter().flat_map(|&i| self.pixels_of(i).iter().copied()).collect(),
            labels: places.iter().map(|&i| self.labels[i]).collect(),
            classes: self.classes.clone(),
            ..*self
        }
    }
}

/// The class of a file, if its path is that of a picture of the part.
fn class_of<'a>(name: &'a str, part: &str) -> Option<&'a str> {
    let within = match part.is_empty() {
        true => name,
        false => name.strip_prefix(part)?.strip_prefix('/')?,
    };
    let (class, file) = within.split_once('/')?;
    (!file.contains('/') && format_of(file).is_some()).then_some(class)
}

fn format_of(name: &str) -> Option<ImageFormat> {
    match name.rsplit_once('.')?.1.to_ascii_lowercase().as_str() {
        "png" => Some(ImageFormat::Png),
        "jpg" | "jpeg" => Some(ImageFormat::Jpeg),
        _ => None,
    }
}

fn of_archive(path: &Path, part: &str) -> Result<PictureSet, DataError> {
    let failed = |cause| DataError::Pictures { path: path.to_path_buf(), cause };
    let mut archive = Archive::new(lines::bytes(path)?, MAX_PICTURE_BYTES);
    let mut gathered = BTreeMap::new();
    let (mut set, mut files) = (Gathered::new(path), Vec::new());
    loop {
        let entry = archive.next_entry().map_err(failed)?;
        let last = entry.is_none();
        if let Some(entry) = entry
            && let Some(class) = class_of(&entry.name, part)
        {
            let place = gathered.len();
            if gathered.insert((class.to_owned(), entry.name.clone()), place).is_some() {
                return Err(set.fault(&entry.name, "it is there twice".into()));
            }
            files.push(File { class: class.to_owned(), name: entry.name, bytes: entry.bytes });
        }
        if last || files.len() == TOGETHER {
            set.add(&files)?;
            files.clear();
        }
        if last {
            return set.finish(&gathered.into_values().collect::<Vec<_>>(), part);
        }
    }
}

fn of_folder(path: &Path, part: &str) -> Result<PictureSet, DataError> {
    let failed = |cause| DataError::Pictures { path: path.to_path_buf(), cause };
    let root = if part.is_empty() { path.to_path_buf() } else { path.join(part) };
    let names = |folder: &Path| -> Result<Vec<String>, DataError> {
        let open = |cause| DataError::Open { path: folder.to_path_buf(), cause };
        let mut names = Vec::new();
        for entry in fs::read_dir(folder).map_err(open)? {
            names.extend(entry.map_err(open)?.file_name().into_string());
        }
        names.sort_unstable();
        Ok(names)
    };
    let mut set = Gathered::new(path);
    let mut files = Vec::new();
    for class in names(&root)?.into_iter().filter(|class| root.join(class).is_dir()) {
        for file in names(&root.join(&class))?.into_iter().filter(|file| format_of(file).is_some()) {
            let full = root.join(&class).join(&file);
            let mut bytes = Vec::new();
            let opened = fs::File::open(&full).map_err(|cause| DataError::Open { path: full.clone(), cause })?;
            opened.take(MAX_PICTURE_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
            if bytes.len() as u64 > MAX_PICTURE_BYTES {
                return Err(set.fault(&file, format!("it has more than {MAX_PICTURE_BYTES} bytes")));
            }
            files.push(File { class: class.clone(), name: format!("{class}/{file}"), bytes });
            if files.len() == TOGETHER {
                set.add(&files)?;
                files.clear();
            }
        }
    }
    set.add(&files)?;
    let all: Vec<usize> = (0..set.classes.len()).collect();
    set.finish(&all, part)
}

/// The binary version of CIFAR-10: records of 3,073 bytes.
fn of_cifar(path: &Path) -> Result<PictureSet, DataError> {
    const SIDE: usize = 32;
    const CLASSES: u8 = 10;
    const PLANE: usize = SIDE * SIDE;
    const RECORD: usize = 1 + 3 * PLANE;
    let mut bytes = Vec::new();
    let read = lines::bytes(path)?.take(MAX_SET_BYTES).read_to_end(&mut bytes);
    read.map_err(|cause| DataError::Pictures { path: path.to_path_buf(), cause })?;
    let set = Gathered::new(path);
    if bytes.len() % RECORD != 0 {
        let what = format!("{} bytes are no whole number of records of {RECORD}", bytes.len());
        return Err(set.fault("its size", what));
    }
    if bytes.is_empty() {
        return Err(DataError::NoPictures { path: path.to_path_buf(), part: String::new() });
    }
    let (mut pixels, mut labels) = (Vec::with_capacity(bytes.len()), Vec::new());
    for (i, record) in bytes.chunks_exact(RECORD).enumerate() {
        let (label, planes) = (record[0], &record[1..]);
        if label >= CLASSES {
            return Err(
                set.fault(&format!("record {i}"), format!("its class is {label}, not one of 0..={}", CLASSES - 1))
            );
        }
        labels.push(label.into());
        pixels.extend((0..PLANE).flat_map(|place| (0..3).map(move |colour| planes[colour * PLANE + place])));
    }
    let classes = (0..CLASSES).map(|class| class.to_string()).collect();
    Ok(PictureSet { height: SIDE, width: SIDE, classes, pixels, labels })
}

impl Gathered {
    fn new(path: &Path) -> Self {
        Self { path: path.to_path_buf(), size: None, pixels: Vec::new(), classes: Vec::new() }
    }

    fn fault(&self, picture: &str, what: String) -> DataError {
        DataError::Picture { path: self.path.clone(), picture: quote(picture), what }
    }

    /// Decodes files, all at once.
    fn add(&mut self, files: &[File]) -> Result<(), DataError> {
        let decoded: Vec<_> = files.par_iter().map(decode).collect();
        for (file, decoded) in files.iter().zip(decoded) {
            let (size, pixels) = decoded.map_err(|what| self.fault(&file.name, what))?;
            let expected = *self.size.get_or_insert(size);
            if size != expected {
                let what = format!(
                    "it is {} x {} pixels, those before it {} x {}: all of a set have one size",
                    size.0, size.1, expected.0, expected.1
                );
                return Err(self.fault(&file.name, what));
            }
            if (self.pixels.len() + pixels.len()) as u64 > MAX_SET_BYTES {
                return Err(self.fault(&file.name, format!("the set takes more than {MAX_SET_BYTES} bytes")));
            }
            self.pixels.extend(pixels);
            self.classes.push(file.class.clone());
        }
        Ok(())
    }

    /// The set in an order of its pictures.
    fn finish(self, order: &[usize], part: &str) -> Result<PictureSet, DataError> {
        let Some((width, height)) = self.size else {
            return Err(DataError::NoPictures { path: self.path, part: part.to_owned() });
        };
        let mut classes = self.classes.clone();
        classes.sort_unstable();
        classes.dedup();
        let stride = 3 * (width * height) as usize;
        let label = |class: &String| classes.partition_point(|known| known < class) as u32;
        Ok(PictureSet {
            height: height as usize,
            width: width as usize,
            pixels: order.iter().flat_map(|&i| self.pixels[i * stride..][..stride].iter().copied()).collect(),
            labels: order.iter().map(|&i| label(&self.classes[i])).collect(),
            classes,
        })
    }
}

/// Width, height and pixels of a file's picture.
fn decode(file: &File) -> Result<((u32, u32), Vec<u8>), String> {
    let format = format_of(&file.name).ok_or("its name must end in .png, .jpg or .jpeg")?;
    let mut reader = ImageReader::with_format(Cursor::new(&file.bytes), format);
    let mut limits = Limits::default();
    (limits.max_image_width, limits.max_image_height) = (Some(MAX_SIDE), Some(MAX_SIDE));
    reader.limits(limits);
    let picture = reader.decode().map_err(|error| error.to_string())?.into_rgb8();
    Ok((picture.dimensions(), picture.into_raw()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Picture;
    use crate::source::tar::archive;

    fn png(width: u32, height: u32, first: u8) -> Vec<u8> {
        let rgb = (0..3 * width * height).map(|i| first.wrapping_add(i as u8)).collect();
        Picture::new(width, height, rgb).unwrap().to_png().unwrap()
    }

    fn write(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    #[test]
    fn archives_and_folders_give_the_same_set_in_the_order_of_names() {
        let folder = tempfile::tempdir().unwrap();
        let files = [("train/cat/b.png", 9), ("train/ant/z.png", 5), ("train/cat/a.png", 7), ("test/cat/a.png", 1)];
        let pictures: Vec<_> = files.iter().map(|&(name, first)| (name, png(3, 2, first))).collect();
        let mut entries: Vec<(&str, &[u8])> = pictures.iter().map(|(name, bytes)| (*name, &bytes[..])).collect();
        entries.push(("train/README.md", b"no picture"));
        let packed = write(folder.path(), "set.tar.zst", &zstd::encode_all(&archive(&entries)[..], 3).unwrap());
        for (name, bytes) in &entries {
            write(&folder.path().join("set"), name, bytes);
        }
        let set = PictureSet::read(&packed, "train").unwrap();
        assert_eq!((set.height, set.width, set.len()), (2, 3, 3));
        assert_eq!((set.classes.join(" "), &set.labels[..]), ("ant cat".into(), &[0, 1, 1][..]));
        assert_eq!([0, 1, 2].map(|i| set.pixels_of(i)[0]), [5, 7, 9]);
        assert_eq!(PictureSet::read(&folder.path().join("set"), "train").unwrap(), set);
        assert_eq!(PictureSet::read(&folder.path().join("set/train"), "").unwrap(), set);
        let two = set.subset(&[2, 0]);
        assert_eq!(
            (&two.labels[..], two.pixels_of(0), two.pixels_of(1)),
            (&[1, 0][..], set.pixels_of(2), set.pixels_of(0))
        );
        assert_eq!(
            PictureSet::read(&packed, "dev").unwrap_err().to_string(),
            format!("{} holds no pictures PART/CLASS/NAME.png or .jpg with PART \"dev\"", packed.display())
        );
    }

    #[test]
    fn what_is_no_picture_is_told_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let message = |entries: &[(&str, &[u8])]| {
            let path = write(folder.path(), "set.tar", &archive(entries));
            PictureSet::read(&path, "").unwrap_err().to_string()
        };
        let good = png(2, 2, 0);
        assert!(message(&[("a/one.png", b"text")]).contains("set.tar, picture \"a/one.png\": "));
        assert!(message(&[("a/one.jpg", &good)]).contains("picture \"a/one.jpg\": "));
        let other = message(&[("a/one.png", &good), ("b/two.png", &png(2, 3, 0))]);
        assert!(other.contains("\"b/two.png\": it is 2 x 3 pixels, those before it 2 x 2"), "{other}");
        assert!(message(&[("a/one.png", &good), ("a/one.png", &good)]).contains("it is there twice"));
        assert!(message(&[]).contains("holds no pictures"));
        // A header that promises what no set has.
        let mut wide = good.clone();
        wide[16..20].copy_from_slice(&u32::MAX.to_be_bytes());
        assert!(message(&[("a/one.png", &wide)]).contains("picture \"a/one.png\""));
        let error = PictureSet::read(&write(folder.path(), "set.zip", b""), "").unwrap_err().to_string();
        assert!(
            error.ends_with("must be a folder, or its name end in .tar or .bin, or in one of them with .zst added")
        );
    }

    #[test]
    fn records_of_cifar_are_planes() {
        let folder = tempfile::tempdir().unwrap();
        let mut bytes = vec![3];
        bytes.extend((0..3072).map(|i| (i / 1024 * 100 + i % 7) as u8));
        let read = |bytes: &[u8]| PictureSet::read(&write(folder.path(), "data.bin", bytes), "");
        let set = read(&bytes).unwrap();
        assert_eq!((set.height, set.width, &set.labels[..], set.classes.len()), (32, 32, &[3][..], 10));
        // 1024 = 2 mod 7, so that each plane starts two further on.
        assert_eq!(set.pixels[..6], [0, 102, 204, 1, 103, 205]);
        assert!(read(&bytes[..3000]).unwrap_err().to_string().contains("3000 bytes are no whole number of records"));
        bytes[0] = 10;
        assert!(read(&bytes).unwrap_err().to_string().contains("its class is 10, not one of 0..=9"));
        assert!(read(&[]).unwrap_err().to_string().contains("holds no pictures"));
    }
}
