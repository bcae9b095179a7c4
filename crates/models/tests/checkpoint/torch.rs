//! Files of PyTorch: `oracles/torch_files.py`.

use std::fs;
use std::path::{Path, PathBuf};

use lapidary_models::checkpoint::{Dtype, TorchFile};
use safetensors::SafeTensors;

const FORMS: [&str; 2] = ["archive.pt", "pickles.pt"];

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/torch").join(name)
}

#[test]
fn tensors_are_those_that_were_saved() {
    let expected = fs::read(golden("expected.safetensors")).expect("readable");
    let expected = SafeTensors::deserialize(&expected).expect("a safetensors file");
    for form in FORMS {
        let file = TorchFile::open(&golden(form)).expect("a file of PyTorch");
        let floats = file.tensors().iter().filter(|tensor| tensor.dtype.is_float());
        let mut names: Vec<&str> = floats.map(|tensor| tensor.name.as_str()).collect();
        let mut known = expected.names();
        names.sort_unstable();
        known.sort_unstable();
        assert_eq!(names, known, "{form}");
        for name in names {
            let (tensor, view) = (file.tensor(name).expect("a float tensor"), expected.tensor(name).expect("known"));
            assert_eq!(tensor.shape, view.shape(), "{form}: {name}");
            let values: Vec<f32> = view.data().as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
            assert_eq!(tensor.data, values, "{form}: {name}");
        }
        let count = "state_dict.norm.num_batches_tracked";
        let whole = file.tensors().iter().find(|tensor| tensor.name == count).expect("it is listed");
        assert_eq!((whole.dtype, whole.shape.len()), (Dtype::I64, 0));
        let error = file.tensor(count).expect_err("no weight").to_string();
        assert!(error.contains("is stored as I64, which is not a float"), "{error}");
        assert!(file.tensor("conv.weight").expect_err("the key before is missing").to_string().contains("no tensor"));
    }
}

/// Wherever a file ends too early, that is an error; and wherever a byte is another, it is an error or other tensors.
#[test]
fn damaged_files_are_refused_or_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("damaged.pt");
    let check = |bytes: &[u8]| -> Result<(), String> {
        fs::write(&path, bytes).expect("written");
        let file = TorchFile::open(&path).map_err(|error| error.to_string())?;
        for tensor in file.tensors() {
            let _ = file.tensor(&tensor.name);
        }
        Ok(())
    };
    for form in FORMS {
        let whole = fs::read(golden(form)).expect("readable");
        for end in (0..whole.len()).step_by(if form == "archive.pt" { 37 } else { 7 }) {
            let error = check(&whole[..end]).expect_err("it is cut short");
            assert!(error.contains("damaged.pt"), "{error}");
        }
        for place in (0..whole.len()).step_by(3) {
            let mut other = whole.clone();
            other[place] ^= 1 << (place % 8);
            let _ = check(&other);
        }
    }
}

/// Objects that hold themselves, and names that would fill the memory.
#[test]
fn hostile_pickles_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("hostile.pt");
    let head = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}.";
    let own = b"}X\x01\x00\x00\x00wctorch._utils\n_rebuild_parameter\n]q\x00Rq\x01h\x00h\x01a0s.";
    let mut long = b"}X\x00\x10\x00\x00".to_vec();
    long.extend([b'w'; 0x1000]);
    long.extend(b"K\x07s.");
    for (state, expected) in [
        (&own[..], "is made by _rebuild_parameter, which is not read"),
        (b"}q\x00X\x01\x00\x00\x00wh\x00s.", "holds no tensors by name"),
        (&long, "has a name of more than 1000 bytes"),
    ] {
        fs::write(&path, [&head[..], state, b"\x80\x02]."].concat()).expect("written");
        let error = TorchFile::open(&path).expect_err("no tensors").to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn other_files_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("other.pt");
    for (bytes, expected) in [
        (&b""[..], "ends early"),
        (b"K\x07.", "another pickle than those that torch.save writes"),
        (b"{\"a\": 1}", "instruction 0x7b"),
        (b"PK\x03\x04", "is no file of PyTorch"),
        (b"cos\nsystem\n(S'touch made'\ntR.", "another pickle"),
    ] {
        fs::write(&path, bytes).expect("written");
        let error = TorchFile::open(&path).expect_err("no file of PyTorch").to_string();
        assert!(error.contains(expected), "{error}\nshould have\n{expected}");
    }
    assert!(!Path::new("made").exists());
    assert!(TorchFile::open(folder.path()).expect_err("a folder").to_string().contains("not a regular file"));
}
