use std::fs::{self, File};
use std::io;
use std::path::Path;

use lapidary_models::checkpoint::{
    Checkpoint, Dtype, FolderContents, TensorSource, atomic_write, write_folder, write_safetensors,
};

use super::{config, listing, text, write_plain};

fn weights() -> Vec<TensorSource<'static>> {
    vec![TensorSource::f32("w", [2], vec![1.0, 2.0])]
}

/// A tensor whose bytes run out half-way, as on a full disk.
fn failing() -> TensorSource<'static> {
    TensorSource::new("z", Dtype::U8, [100], |writer| {
        writer.write_all(&[0; 50])?;
        Err(io::Error::new(io::ErrorKind::StorageFull, "no space left"))
    })
}

#[test]
fn a_folder_has_all_its_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let tokenizer = folder.path().join("tokenizer");
    fs::create_dir(&tokenizer).expect("made");
    fs::write(tokenizer.join("tokenizer.json"), "{\"t\": 1}").expect("written");
    fs::write(tokenizer.join("vocab.txt"), "[PAD]\n").expect("written");
    fs::write(tokenizer.join("unrelated.txt"), "").expect("written");
    let path = folder.path().join("model");
    let config = config();
    let write = |tokenizer: &Path| {
        let tokenizer = Some(tokenizer);
        write_folder(
            &path,
            FolderContents { config: &config, tensors: weights(), tokenizer, model_card: "# A model\n" },
        )
    };
    write(&tokenizer).expect("written");
    assert_eq!(listing(&path), ["README.md", "config.json", "model.safetensors", "tokenizer.json", "vocab.txt"]);
    assert_eq!(fs::read_to_string(path.join("README.md")).expect("readable"), "# A model\n");
    assert_eq!(fs::read_to_string(path.join("tokenizer.json")).expect("readable"), "{\"t\": 1}");
    let checkpoint = Checkpoint::open(&path).expect("valid");
    assert_eq!(checkpoint.config().values(), &config);
    assert_eq!(checkpoint.tensor("w").expect("a float").data, [1.0, 2.0]);
    assert_eq!(listing(folder.path()), ["model", "tokenizer"]);

    write(&path).expect("over itself, with its own tokenizer");
    assert!(path.join("vocab.txt").is_file());
    let error = text(&write(folder.path()).expect_err("no tokenizer there"));
    assert!(error.ends_with("has no tokenizer files to copy"), "{error}");
    assert_eq!(listing(folder.path()), ["model", "tokenizer"]);
}

#[test]
fn a_failure_leaves_what_was_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model");
    let error = text(&write_plain(&path, vec![failing()]).expect_err("full"));
    assert_eq!(error, format!("cannot write {}: no space left", path.display()));
    assert!(listing(folder.path()).is_empty());

    write_plain(&path, weights()).expect("written");
    write_plain(&path, vec![failing()]).expect_err("full");
    assert_eq!(Checkpoint::open(&path).expect("the old one").tensor("w").expect("a float").data, [1.0, 2.0]);
    write_plain(&path, vec![TensorSource::f32("v", [1], vec![3.0])]).expect("replaced");
    assert_eq!(Checkpoint::open(&path).expect("the new one").names().collect::<Vec<_>>(), ["v"]);
    assert_eq!(listing(folder.path()), ["model"]);
}

#[test]
fn other_folders_are_not_replaced() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("thesis.tex"), "years of work").expect("written");
    let error = text(&write_plain(folder.path(), weights()).expect_err("not a checkpoint"));
    assert!(error.contains("holds files and is not a checkpoint"), "{error}");
    assert_eq!(listing(folder.path()), ["thesis.tex"]);

    let file = folder.path().join("thesis.tex");
    write_plain(&file, weights()).expect_err("a file");
    assert_eq!(fs::read_to_string(&file).expect("readable"), "years of work");
    write_plain(&folder.path().join("no/such/parent"), weights()).expect_err("no parent");
    write_plain(Path::new("/"), weights()).expect_err("no name");
}

#[test]
fn an_empty_folder_is_taken() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model");
    fs::create_dir(&path).expect("made");
    write_plain(&path, weights()).expect("written");
    Checkpoint::open(&path).expect("valid");
}

#[test]
fn tensors_must_be_what_they_say() {
    let error =
        |tensors: Vec<TensorSource<'_>>| write_safetensors(io::sink(), tensors).expect_err("inconsistent").to_string();
    assert_eq!(
        error(vec![TensorSource::f32("w", [3], &[1.0, 2.0][..])]),
        "tensor `w` gave 4 bytes too few for its shape"
    );
    assert!(error(vec![TensorSource::f32("w", [1], &[1.0, 2.0][..])]).contains("more bytes than its shape needs"));
    assert!(error(vec![TensorSource::u8("w", [usize::MAX, 2], &[][..])]).contains("more elements than can be counted"));
    assert!(error(weights().into_iter().chain(weights()).collect()).contains("given twice"));
    assert!(error(vec![TensorSource::u8("__metadata__", [0], &[][..])]).contains("reserved name"));
}

#[test]
fn tensors_are_aligned_to_their_elements() {
    let mut file = Vec::new();
    let tensors = vec![
        TensorSource::u8("a", [3], &[1, 2, 3][..]),
        TensorSource::f32("b", [1], &[1.0][..]),
        TensorSource::new("c", Dtype::I64, [1], |writer| writer.write_all(&7i64.to_le_bytes())),
    ];
    write_safetensors(&mut file, tensors).expect("written");
    let length = u64::from_le_bytes(file[..8].try_into().expect("eight bytes"));
    assert_eq!(length % 8, 0);
    let data = &file[8 + length as usize..];
    assert_eq!(data, [&7i64.to_le_bytes()[..], &1f32.to_le_bytes(), &[1, 2, 3]].concat());
}

#[test]
fn a_file_is_replaced_whole_or_not_at_all() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("result.json");
    atomic_write(&path, |writer| writer.write_all(b"one")).expect("written");
    let error = atomic_write(&path, |writer| {
        writer.write_all(&[b'x'; 1 << 20])?;
        Err(io::Error::new(io::ErrorKind::StorageFull, "no space left"))
    });
    assert_eq!(text(&error.expect_err("full")), format!("cannot write {}: no space left", path.display()));
    assert_eq!(fs::read(&path).expect("readable"), b"one");
    atomic_write(&path, |writer| writer.write_all(b"two")).expect("written");
    assert_eq!(fs::read(&path).expect("readable"), b"two");
    assert_eq!(listing(folder.path()), ["result.json"]);

    let panicked = std::panic::catch_unwind(|| atomic_write(&path, |_| panic!("a bug")));
    assert!(panicked.is_err());
    assert_eq!(listing(folder.path()), ["result.json"]);
}

#[test]
fn writers_at_once_leave_one_whole_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("file");
    std::thread::scope(|scope| {
        for writer in 0..8u8 {
            let path = &path;
            scope.spawn(move || atomic_write(path, |out| out.write_all(&[writer; 10_000])).expect("written"));
        }
    });
    let bytes = fs::read(&path).expect("readable");
    assert!(bytes.len() == 10_000 && bytes.iter().all(|byte| *byte == bytes[0]));
    assert_eq!(listing(folder.path()), ["file"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_device_is_an_error() {
    let full = File::options().write(true).open("/dev/full").expect("Linux has it");
    let error = write_safetensors(&full, weights()).expect_err("full");
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    // Errors that only come when a buffer is emptied must not be lost either.
    let error = write_safetensors(io::BufWriter::new(&full), weights()).expect_err("full");
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
}
