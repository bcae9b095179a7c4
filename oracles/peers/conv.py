"""PyTorch's time for one training step of a convolutional network, ResNet-20.

Run with torch 2.15.0; any recent version does.

    pip install torch
    python oracles/peers/conv.py --threads 2 --json --only resnet20_step.f32

One step is: zero the gradients, forward, mean cross-entropy over the rows, backward, SGD update, always
on the same random batch. Both sides must use these sizes:

    B = 128 rows of 32 x 32 pixels and 3 channels, 10 classes; memory format channels_last
    the CIFAR network of He et al. (arXiv:1512.03385) with shortcuts of kind B: a 3x3 convolution to 16
    channels, three stages of three blocks of 16, 32 and 64 channels, the first block of the second and
    third with stride 2, global average pooling and a linear layer with bias
    a block is conv3x3, batch norm, ReLU, conv3x3, batch norm, plus the shortcut, ReLU; where its
    channels change the shortcut is a 1x1 convolution of stride 2 and a batch norm
    convolutions have no bias; batch norm is in training mode (momentum 0.1, eps 1e-5)
    272,474 parameters
    SGD with lr 0.1, momentum 0.9, weight decay 1e-4 on all parameters

    --threads N   threads of PyTorch (default 2)
    --repeats N   timed steps (default 5)
    --warmup N    steps before them that do not count (default 2)
    --only WORK   resnet20_step.f32 or resnet20_step.bf16 (bf16 autocast, f32 weights); both without it
    --json        one JSON object per work, one a line, on standard output:
                  {"name": "resnet20_step.f32", "median_seconds", "min_seconds", "max_seconds", "repeats",
                  "peak_rss_bytes"}
                  without it the times as a sentence; versions go to standard error
"""

import torch
import torch.nn as nn
import torch.nn.functional as F

from timing import Work, main

B, CLASSES = 128, 10


def convolution(inputs, outputs, kernel, stride=1):
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1, self.norm1 = convolution(inputs, outputs, 3, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.norm2 = convolution(outputs, outputs, 3), nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity()
        if inputs != outputs:
            self.shortcut = nn.Sequential(convolution(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, x):  # [B, inputs, H, W] -> [B, outputs, H / stride, W / stride]
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class ResNet20(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = convolution(3, 16, 3), nn.BatchNorm2d(16)
        blocks, inputs = [], 16
        for outputs, stride in ((16, 1), (32, 2), (64, 2)):
            for block in range(3):
                blocks.append(Block(inputs, outputs, stride if block == 0 else 1))
                inputs = outputs
        self.blocks, self.head = nn.Sequential(*blocks), nn.Linear(64, CLASSES)

    def forward(self, x):  # [B, 3, 32, 32] -> [B, CLASSES]
        x = self.blocks(F.relu(self.norm(self.conv(x))))
        return self.head(x.mean((2, 3)))


def resnet20_step(bf16):
    """A closure that takes one training step."""
    torch.manual_seed(0)
    images = torch.randn(B, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, CLASSES, (B,))
    model = ResNet20().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)

    def step():
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            loss = F.cross_entropy(model(images).float(), labels)
        loss.backward()
        optimizer.step()

    return step


WORKS = {
    "resnet20_step.f32": Work("resnet20_step.f32", lambda: resnet20_step(bf16=False)),
    "resnet20_step.bf16": Work("resnet20_step.bf16", lambda: resnet20_step(bf16=True)),
}


if __name__ == "__main__":
    main(__doc__, WORKS)
