"""Small residual networks for CIFAR-10 and what PyTorch computes with them.

Made with torch 2.15.0.

    pip install torch
    python oracles/resnet.py

Writes to crates/models/tests/golden/resnet/, for both kinds of shortcut of He et al. (1512.03385, section 4.1), NAME one
of `padded` (option A: every second place, zeros for the channels that are new, half of them before the others) and
`projected` (option B: a convolution with its norm):

    NAME.th             the state of a network of two blocks a stage, 4, 8 and 16 channels and 5 classes, under the
                        names that such networks are published with, all behind `module.` in `state_dict`; in the
                        older form of PyTorch's files, as those are
    NAME.expected.pt    pictures [3, 8, 8, 3], drawn from a normal distribution, and the logits [3, 5] in evaluation

Weights are drawn, and so are the statistics of the norms, so that none of them can be forgotten. Computed in f64.
"""

from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import pad, relu

FOLDER = Path(__file__).resolve().parents[1] / "crates/models/tests/golden/resnet"


class Padded(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.added = channels

    def forward(self, x):
        return pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.added // 2, self.added - self.added // 2))


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride, projected):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1:
            convolution = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            norm = nn.BatchNorm2d(outputs)
            self.shortcut = nn.Sequential(convolution, norm) if projected else Padded(outputs - inputs)

    def forward(self, x):
        inner = relu(self.bn1(self.conv1(x)))
        return relu(self.bn2(self.conv2(inner)) + self.shortcut(x))


class Network(nn.Module):
    def __init__(self, projected, channels=(4, 8, 16), blocks=2, classes=5):
        super().__init__()
        self.conv1 = nn.Conv2d(3, channels[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels[0])
        inputs = channels[0]
        for stage, outputs in enumerate(channels, 1):
            layers = []
            for block in range(blocks):
                layers.append(Block(inputs, outputs, 2 if stage > 1 and block == 0 else 1, projected))
                inputs = outputs
            setattr(self, f"layer{stage}", nn.Sequential(*layers))
        self.linear = nn.Linear(inputs, classes)

    def forward(self, x):
        x = relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(["padded", "projected"]):
        generator = torch.Generator().manual_seed(seed)
        draw = lambda shape: torch.randn(shape, generator=generator)
        network = Network(name == "projected").eval()
        with torch.no_grad():
            for key, value in network.state_dict().items():
                if value.is_floating_point():
                    drawn = 0.3 * draw(value.shape)
                    value.copy_(drawn.abs() + 0.5 if key.endswith(("running_var", "bn1.weight", "bn2.weight")) else drawn)
            state = {f"module.{key}": value.clone() for key, value in network.state_dict().items()}
            pictures = draw((3, 8, 8, 3))
            logits = network.double()(pictures.double().permute(0, 3, 1, 2)).float()
        torch.save({"state_dict": state, "best_prec1": 91.7}, FOLDER / f"{name}.th", _use_new_zipfile_serialization=False)
        torch.save({"pictures": pictures, "logits": logits}, FOLDER / f"{name}.expected.pt")
