//! Residual networks from files of PyTorch: `oracles/resnet.py`.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use lapidary_models::checkpoint::TorchFile;
use lapidary_models::layer::Pictures;
use lapidary_models::resnet::{ResNet, ResNetConfig, Shortcut};
use lapidary_models::{Pass, parameters};

const CHANNELS: [usize; 3] = [4, 8, 16];

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/resnet").join(name)
}

fn network(shortcut: Shortcut, blocks_per_stage: usize) -> ResNet {
    let config = ResNetConfig { blocks_per_stage, channels: CHANNELS, classes: 5, shortcut };
    ResNet::new(&config, 1, &Device::flex())
}

fn open(name: &str) -> TorchFile {
    TorchFile::open(&golden(name)).expect("a file of PyTorch")
}

#[test]
fn logits_are_those_of_pytorch() {
    for (name, shortcut) in [("padded", Shortcut::Padded), ("projected", Shortcut::Projected)] {
        let model = network(shortcut, 2).read_torch(&open(&format!("{name}.th"))).expect("it fits");
        let expected = open(&format!("{name}.expected.pt"));
        let [pictures, logits] = ["pictures", "logits"].map(|name| expected.tensor(name).expect("it is there"));
        let &[batch, height, width, 3] = &*pictures.shape else { panic!("pictures, channels last") };
        let x = TensorData::new(pictures.data, [batch * height * width, 3]);
        let x = Tensor::from_data(x, &Device::flex());
        let found = model.logits(Pictures { x, batch, height, width }, &Pass::evaluation());
        assert_eq!(found.dims(), [batch, 5]);
        for (found, expected) in found.into_data().iter::<f32>().zip(logits.data) {
            assert!((found - expected).abs() <= 1e-4 * expected.abs().max(1.0), "{name}: {found}, not {expected}");
        }
    }
}

#[test]
fn another_network_is_told() {
    let file = open("padded.th");
    let error = |model: ResNet| model.read_torch(&file).expect_err("another network").to_string();
    assert!(error(network(Shortcut::Padded, 3)).contains("no tensor `layer1.2.conv1.weight`"));
    assert!(error(network(Shortcut::Padded, 1)).contains("layer1.1.bn1.bias belongs to no parameter"));
    assert!(error(network(Shortcut::Projected, 2)).contains("no tensor `layer2.0.shortcut.0.weight`"));
    let wide = ResNetConfig { blocks_per_stage: 2, channels: [4, 8, 12], classes: 5, shortcut: Shortcut::Padded };
    let error = error(ResNet::new(&wide, 1, &Device::flex()));
    assert!(
        error.contains("layer3.0.conv1.weight`: has shape [16, 8, 3, 3], the model needs [12, 8, 3, 3]"),
        "{error}"
    );
}

#[test]
fn depths_are_those_of_the_paper() {
    for (layers, parameters) in [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018)] {
        let config = ResNetConfig::cifar10(layers, Shortcut::Padded).expect("6n + 2");
        let model = ResNet::new(&config, 1, &Device::flex());
        let shapes = parameters::shapes(&model);
        let own = shapes.iter().filter(|(path, _)| !path.contains("running"));
        assert_eq!(own.map(|(_, shape)| shape.iter().product::<usize>()).sum::<usize>(), parameters);
    }
    for layers in [0, 2, 18, 21] {
        assert!(ResNetConfig::cifar10(layers, Shortcut::Padded).is_err());
    }
}
