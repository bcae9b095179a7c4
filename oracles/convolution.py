"""What PyTorch computes for the operators of convolutional networks, and for SGD, on small inputs.

Made with torch 2.15.0, safetensors 0.8.0.

    pip install torch safetensors
    python oracles/convolution.py

Writes crates/ops/tests/golden/convolution.safetensors, as `operators.py` does: inputs are f32
numbers, PyTorch computes in f64 from them, the results are rounded to f32. Tensors are named
OPERATOR.CASE.TENSOR; `dT` is the gradient with respect to `T` of the sum of `dy * y`. All are f32 unless
said otherwise; a tensor that a case does not use is absent. Images have their channels last: N rows, H
height, W width, C channels; O channels of the output. Sizes are odd in the cases `odd` and `*_odd`.

conv2d.{3x3, 3x3_odd, 3x3_bias, 3x3_stride2, 3x3_stride2_odd, 1x1, 1x1_odd, 1x1_stride2, 1x1_stride2_odd,
        5x5, 5x5_odd, 5x5_valid}
    x [N, H, W, C], w [O, KH, KW, C], b [O] (3x3_bias), stride [1] i64, padding [1] i64: zeros on each side
    -> y [N, H', W', O], H' = (H + 2 padding - KH) / stride + 1 rounded down; w is not flipped
    dy [N, H', W', O] -> dx [N, H, W, C], dw [O, KH, KW, C], db [O]

batch_norm.{train, train_odd, shifted, eval, eval_odd}
batch_norm_relu, batch_norm_residual_relu, each .{train, train_odd, eval}
    x [N, H, W, C], residual [N, H, W, C] (batch_norm_residual_relu), gamma, beta [C], eps [1],
    momentum [1], running_mean, running_var [C] before the call
    -> y [N, H, W, C] = gamma (x - mean) / sqrt(var + eps) + beta; relu of it; relu of it plus residual
    dy [N, H, W, C] -> dx, dresidual [N, H, W, C], dgamma, dbeta [C]
    `eval*` takes the running mean and variance. The others take those of the batch, the variance divided
    by n = N*H*W, and give new_running_mean, new_running_var [C] = (1 - momentum) running + momentum batch,
    with the batch's variance divided by n - 1.
    `shifted` has channels of mean 10 and standard deviation 1. No argument of a relu is closer to 0 than
    1e-4, so that rounding does not decide a gradient.

average_pool.{plain, odd}
    x [N, H, W, C], dy [N, C] -> y [N, C], the mean over H and W; dx [N, H, W, C]

sgd.{plain, weight_decay, momentum, nesterov, nesterov_weight_decay}
    initial [n], gradients [3, n], lr [3] (one a step), momentum, weight_decay [1], nesterov [1] i64
    -> values [3, n] after each step, velocity [n] after the last (not with momentum 0)
    g = gradient + weight_decay * value; velocity = momentum * velocity + g, from 0;
    value -= lr * (g + momentum * velocity with nesterov, else velocity)
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from operators import draw, gradients, record, tensors

GOLDEN = Path(__file__).resolve().parents[1] / "crates/ops/tests/golden"
MARGIN = 1e-4


def channels_first(x):
    return x.permute(0, 3, 1, 2)


def channels_last(x):
    return x.permute(0, 2, 3, 1)


def f64(value):
    return torch.tensor([value], dtype=torch.float64)


def conv2d(case, x, outputs, kernel, stride=1, padding=None, bias=False):
    padding = kernel // 2 if padding is None else padding
    leaves = dict(x=draw(*x), w=draw(outputs, kernel, kernel, x[3], std=0.3))
    if bias:
        leaves["b"] = draw(outputs, std=0.5)
    images, weights = channels_first(leaves["x"]), channels_first(leaves["w"])
    y = channels_last(F.conv2d(images, weights, leaves.get("b"), stride, padding))
    dy = draw(*y.shape)
    values = leaves | dict(stride=torch.tensor([stride]), padding=torch.tensor([padding]), y=y, dy=dy)
    record(f"conv2d.{case}", values | gradients(y, dy, leaves))


def batch_norm(case, shape, training=True, relu=False, residual=False, mean=0.0, eps=1e-5, momentum=0.1):
    channels = shape[3]
    inputs = dict(
        x=draw(*shape, mean=mean), gamma=draw(channels, mean=1.0, std=0.3), beta=draw(channels, std=0.3)
    )
    if residual:
        inputs["residual"] = draw(*shape)
    dy = draw(*shape)
    running = dict(running_mean=draw(channels, std=0.3), running_var=draw(channels, std=0.5) ** 2 + 0.5)
    running = {name: value.detach().float() for name, value in running.items()}
    updated = [value.double() for value in running.values()]
    x = channels_first(inputs["x"])
    y = channels_last(
        F.batch_norm(x, *updated, inputs["gamma"], inputs["beta"], training, momentum, eps)
    )
    if residual:
        y = y + inputs["residual"]
    if relu:
        assert y.abs().min() > MARGIN, case
        y = F.relu(y)
    values = inputs | running | dict(eps=f64(eps), momentum=f64(momentum), y=y, dy=dy)
    if training:
        values |= dict(new_running_mean=updated[0], new_running_var=updated[1])
    operator = "batch_norm" + "_residual" * residual + "_relu" * relu
    record(f"{operator}.{case}", values | gradients(y, dy, inputs))


def average_pool(case, shape):
    x, dy = draw(*shape), draw(shape[0], shape[3])
    y = F.adaptive_avg_pool2d(channels_first(x), 1).flatten(1)
    record(f"average_pool.{case}", dict(x=x, y=y, dy=dy) | gradients(y, dy, dict(x=x)))


def sgd(case, n, momentum=0.0, weight_decay=0.0, nesterov=False):
    parameter = draw(n)
    gradient_steps, lr = draw(3, n), torch.tensor([0.1, 0.25, 0.03]).double()
    initial, values = parameter.detach().clone(), []
    optimizer = torch.optim.SGD(
        [parameter], lr=0.1, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov, foreach=False
    )
    for step in range(3):
        optimizer.param_groups[0]["lr"] = lr[step].item()
        parameter.grad = gradient_steps[step].detach().clone()
        optimizer.step()
        values.append(parameter.detach().clone())
    case_values = dict(
        initial=initial, gradients=gradient_steps, lr=lr, momentum=f64(momentum),
        weight_decay=f64(weight_decay), nesterov=torch.tensor([int(nesterov)]), values=torch.stack(values),
    )
    if momentum:
        case_values["velocity"] = optimizer.state[parameter]["momentum_buffer"]
    record(f"sgd.{case}", case_values)


if __name__ == "__main__":
    torch.set_num_threads(1)
    conv2d("3x3", x=(2, 6, 6, 3), outputs=16, kernel=3)
    conv2d("3x3_odd", x=(1, 7, 5, 5), outputs=7, kernel=3)
    conv2d("3x3_bias", x=(3, 5, 4, 5), outputs=6, kernel=3, bias=True)
    conv2d("3x3_stride2", x=(2, 6, 6, 16), outputs=8, kernel=3, stride=2)
    conv2d("3x3_stride2_odd", x=(1, 7, 9, 3), outputs=5, kernel=3, stride=2)
    conv2d("1x1", x=(2, 4, 4, 16), outputs=8, kernel=1)
    conv2d("1x1_odd", x=(1, 3, 7, 5), outputs=3, kernel=1)
    conv2d("1x1_stride2", x=(2, 6, 6, 16), outputs=8, kernel=1, stride=2)
    conv2d("1x1_stride2_odd", x=(1, 7, 5, 5), outputs=9, kernel=1, stride=2)
    conv2d("5x5", x=(2, 6, 6, 3), outputs=8, kernel=5)
    conv2d("5x5_odd", x=(1, 9, 7, 5), outputs=3, kernel=5, stride=2)
    conv2d("5x5_valid", x=(1, 6, 7, 3), outputs=5, kernel=5, padding=0)
    even, odd = (2, 4, 4, 16), (3, 5, 3, 5)
    batch_norm("train", even)
    batch_norm("train_odd", odd)
    batch_norm("shifted", odd, mean=10.0)
    batch_norm("eval", even, training=False)
    batch_norm("eval_odd", odd, training=False)
    for residual in (False, True):
        batch_norm("train", even, relu=True, residual=residual)
        batch_norm("train_odd", odd, relu=True, residual=residual)
        batch_norm("eval", odd, training=False, relu=True, residual=residual)
    average_pool("plain", (2, 4, 4, 16))
    average_pool("odd", (3, 5, 3, 5))
    sgd("plain", n=12)
    sgd("weight_decay", n=13, weight_decay=0.05)
    sgd("momentum", n=12, momentum=0.9)
    sgd("nesterov", n=13, momentum=0.8, nesterov=True)
    sgd("nesterov_weight_decay", n=17, momentum=0.9, weight_decay=0.01, nesterov=True)
    GOLDEN.mkdir(parents=True, exist_ok=True)
    save_file(tensors, GOLDEN / "convolution.safetensors")
    print(f"convolution.safetensors: {len(tensors)} tensors")
