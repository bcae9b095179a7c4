//! The pretrained ResNet-20 on CIFAR-10's test pictures as JPEG. `$LAPIDARY_DATA` (default `data/`) has
//! `cifar_resnet/` and `cifar10_jpeg/`; docs/data.md says where they come from.

use std::env::var_os;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use lapidary_data::{Normalization, PictureBatch, PictureSet};
use lapidary_models::Pass;
use lapidary_models::checkpoint::TorchFile;
use lapidary_models::layer::Pictures;
use lapidary_models::resnet::{ResNet, ResNetConfig, Shortcut};

/// A relative folder is meant from the workspace's root, since Cargo runs tests in the crate's folder.
fn data(file: &str) -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    workspace.join(var_os("LAPIDARY_DATA").unwrap_or_else(|| "data".into())).join(file)
}

#[test]
fn pretrained_resnet20_is_as_accurate_as_in_pytorch() {
    let file = TorchFile::open(&data("cifar_resnet/resnet20-12fca82f.th")).expect("a file of PyTorch");
    let config = ResNetConfig::cifar10(20, Shortcut::Padded).expect("6n + 2");
    let model = ResNet::new(&config, 1, &Device::flex()).read_torch(&file).expect("it fits");
    let set = PictureSet::read(&data("cifar10_jpeg/cifar10_jpeg.tar.zst"), "test").expect("pictures");
    assert_eq!((set.len(), set.height, set.width), (10_000, 32, 32));
    assert_eq!(set.classes, ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]);
    let rows: Vec<usize> = (0..set.len()).collect();
    let mut right = 0;
    for rows in rows.chunks(250) {
        let batch = PictureBatch::plain(&set, rows, &Normalization::IMAGENET);
        let x = TensorData::new(batch.pixels, [rows.len() * 32 * 32, 3]);
        let x = Tensor::from_data(x, &Device::flex());
        let pictures = Pictures { x, batch: rows.len(), height: 32, width: 32 };
        let logits: Vec<f32> = model.logits(pictures, &Pass::evaluation()).into_data().try_into_vec().expect("f32");
        for (logits, &label) in logits.chunks_exact(10).zip(&batch.labels) {
            let most = (0..10).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
            right += usize::from(most == Some(label as usize));
        }
    }
    // PyTorch has 8,103 right with Pillow's pictures; decoders of JPEG differ in the last bits of some pixels.
    assert!((8_083..=8_123).contains(&right), "{right} of 10,000");
}
