//! Headers made to do harm: each is an error that names the file, and the tensor where there is one.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use lapidary_models::checkpoint::{Header, SafetensorsFile};
use proptest::prelude::*;

use super::{raw_file, text};

/// The error of a file with this header and so many bytes of data.
fn error(header: &str, data: usize) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("bad.safetensors");
    raw_file(&path, header, data);
    let error = text(&SafetensorsFile::open(&path).expect_err(header));
    assert!(error.contains("bad.safetensors") && !error.contains('\n'), "{error}");
    error
}

fn tensor(name: &str, dtype: &str, shape: &str, offsets: &str) -> String {
    format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}"#)
}

#[test]
fn headers_that_lie() {
    let one = |dtype: &str, shape: &str, offsets: &str, data: usize| {
        error(&format!("{{{}}}", tensor("x", dtype, shape, offsets)), data)
    };
    for (error, expected) in [
        (one("F32", "[2]", "[0,8]", 4), "tensor `x`: its byte range 0..8 goes beyond the file's 4 bytes"),
        (one("F32", "[2]", "[0,4]", 4), "tensor `x`: shape [2] of F32 needs 8 bytes, its byte range has 4"),
        (one("F32", "[1]", "[0,4]", 9), "5 bytes at the file's end belong to no tensor"),
        (one("F32", "[1]", "[4,8]", 8), "tensor `x`: 4 bytes before it belong to no tensor"),
        (one("F32", "[1]", "[4,0]", 8), "tensor `x`: its byte range 4..0 ends before it begins"),
        (one("F32", "[4294967296,4294967296,4]", "[0,0]", 0), "tensor `x`: its shape has more elements than"),
        (one("F32", "[18446744073709551615,0]", "[0,0]", 0), "tensor `x`: its shape has more elements than"),
        (one("F32", "[0]", "[18446744073709551615,18446744073709551615]", 0), "tensor `x`: its byte range"),
        (one("F32", "[18446744073709551616]", "[0,4]", 4), "`x`: "),
        (one("F32", "[-1]", "[0,4]", 4), "`x`: invalid value"),
        (one("F32", "[1.5]", "[0,4]", 4), "`x`: invalid type"),
        (one("F32", "[1]", "[0,4,8]", 4), "`x`: "),
        (one("F31", "[1]", "[0,4]", 4), "tensor `x`: element type `F31`"),
        (one(r"\n\u001b[2J", "[1]", "[0,4]", 4), r"element type `\n\u{1b}[2J`"),
        (error("{", 0), "bad safetensors header: EOF"),
        (error("", 0), "bad safetensors header: EOF"),
        (error("[]", 0), "expected an object of tensors"),
        (error(r#"{"x":1}"#, 0), "`x`: invalid type"),
        (error(r#"{"x":{"dtype":"F32","shape":[]}}"#, 0), "`x`: missing field `data_offsets`"),
        (error(r#"{"__metadata__":{"format":1}}"#, 0), "`__metadata__`: invalid type"),
        (error("{} x", 0), "trailing characters"),
        (error(&"[".repeat(100_000), 0), "bad safetensors header"),
        (error(&format!("{{\"x\":{}", "{\"a\":".repeat(100_000)), 0), "bad safetensors header"),
    ] {
        assert!(error.contains(expected), "{error}\nshould have\n{expected}");
    }
}

#[test]
fn tensors_that_share_bytes_or_names() {
    let two = |a: &str, b: &str| format!("{{{a},{b}}}");
    let overlap = two(&tensor("a", "U8", "[4]", "[0,4]"), &tensor("b", "U8", "[4]", "[2,6]"));
    assert!(error(&overlap, 6).contains("tensor `b`: its bytes overlap those of `a`"));
    let same = two(&tensor("a", "U8", "[4]", "[0,4]"), &tensor("b", "U8", "[4]", "[0,4]"));
    assert!(error(&same, 4).contains("its bytes overlap those of"));
    let twice = two(&tensor("a", "U8", "[2]", "[0,2]"), &tensor("a", "U8", "[2]", "[2,4]"));
    assert!(error(&twice, 4).contains("`a` is described twice"));
}

#[test]
fn lengths_that_lie_take_no_memory() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("short.safetensors");
    for (bytes, expected) in [
        (vec![], "the file has 0 bytes"),
        (vec![1, 2, 3], "the file has 3 bytes"),
        (u64::MAX.to_le_bytes().to_vec(), "over the limit of 100000000"),
        (100_000_001u64.to_le_bytes().to_vec(), "over the limit of 100000000"),
        (99_999_999u64.to_le_bytes().to_vec(), "goes beyond the file's 8; truncated?"),
    ] {
        fs::write(&path, bytes).expect("written");
        let error = text(&SafetensorsFile::open(&path).expect_err(expected));
        assert!(error.contains(expected), "{error}\nshould have\n{expected}");
    }
    assert!(text(&SafetensorsFile::open(folder.path()).expect_err("a folder")).contains("not a regular file"));
}

#[test]
fn a_file_cut_while_it_is_read_is_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("cut.safetensors");
    raw_file(&path, &format!("{{{}}}", tensor("x", "F32", "[1000]", "[0,4000]")), 4000);
    let file = SafetensorsFile::open(&path).expect("valid");
    fs::OpenOptions::new().write(true).open(&path).and_then(|file| file.set_len(200)).expect("cut");
    assert!(text(&file.tensor("x").expect_err("cut")).starts_with("cannot read "));
}

#[test]
fn a_failing_disk_is_an_error() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("broken"))
        }
    }
    let error = Header::read(Broken, 100, Path::new("disk")).expect_err("broken");
    assert_eq!(text(&error), "cannot read disk: broken");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever bytes a file has, it is read or refused, and what was accepted can be read.
    #[test]
    fn any_change_to_a_file_is_survived(position in 0usize..200, byte: u8, length in 0usize..200) {
        let header = format!("{{{},{}}}", tensor("a", "F32", "[2,2]", "[0,16]"), tensor("b", "U8", "[3]", "[16,19]"));
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.safetensors");
        raw_file(&path, &header, 19);
        let mut bytes = fs::read(&path).expect("readable");
        if let Some(place) = bytes.get_mut(position) {
            *place = byte;
        }
        bytes.truncate(if length % 2 == 0 { usize::MAX } else { length });
        fs::write(&path, bytes).expect("written");
        if let Ok(file) = SafetensorsFile::open(&path) {
            for info in &file.header().tensors {
                prop_assert_eq!(file.bytes(&info.name).expect("inside the file").len() as u64, info.bytes);
            }
        }
    }
}
