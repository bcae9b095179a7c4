"""What PyTorch's AdamW, gradient clipping and the linear schedule do, step by step.

Made with torch 2.15.0, transformers 5.23.0, numpy 2.4.6.

    pip install torch transformers numpy
    python oracles/optimizer.py

Writes crates/train/tests/golden/adamw.json. Numbers are f32, printed with the fewest digits that give
the same f32 back, the norm in full; learning rates and hyper-parameters are f64.

    adamw      five parameters, each with its own settings, under `torch.optim.AdamW` (plain loops):
               {name, shape, lr, beta1, beta2, eps, weight_decay, initial [n], steps [10]}, a step being
               {gradient [n], value [n]}, the parameter after it, and at the end
               first_moment [n], second_moment [n]; all flat, row-major.
               `tiny_gradients` lets eps matter, `wide_range` spans twelve orders of magnitude,
               `zero_gradients` moves by weight decay alone on most steps.
    clipping   `torch.nn.utils.clip_grad_norm_`: {max_norm, gradients [[..], ..], norm, clipped}; the norm
               is that of all gradients together, the factor min(1, max_norm / (norm + 1e-6))
    schedule   transformers' get_linear_schedule_with_warmup: {lr, warmup, total, values}; values[i] is
               the learning rate of step i, i = 0 .. total (the one after the last step)
    training   all three together on two parameters, one optimizer: {lr, beta1, beta2, eps, weight_decay,
               max_norm, warmup, total, initial [[..], ..], steps}, a step being
               {gradients, values}, the values after clipping and stepping at the schedule's rate
"""

import json
from pathlib import Path

import numpy as np
import torch
from transformers import get_linear_schedule_with_warmup

GOLDEN = Path(__file__).resolve().parents[1] / "crates/train/tests/golden"
STEPS = 10

generator = torch.Generator().manual_seed(0)


def numbers(tensor):
    """A flat list of f32 numbers, as short as they can be written."""
    return [float(str(x)) for x in tensor.detach().numpy().astype(np.float32).ravel()]


def draw(*shape, scale=1.0):
    return torch.randn(*shape, generator=generator) * scale


def optimizer_over(parameters, lr, beta1, beta2, eps, weight_decay):
    return torch.optim.AdamW(
        parameters, lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=weight_decay, foreach=False
    )


def adamw(name, gradients, lr=1e-2, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01):
    settings = dict(lr=lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay)
    parameter = torch.nn.Parameter(draw(*gradients[0].shape))
    case = dict(name=name, shape=list(parameter.shape), **settings, initial=numbers(parameter), steps=[])
    optimizer = optimizer_over([parameter], **settings)
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
        case["steps"].append(dict(gradient=numbers(gradient), value=numbers(parameter)))
    state = optimizer.state[parameter]
    return case | dict(
        first_moment=numbers(state["exp_avg"]), second_moment=numbers(state["exp_avg_sq"])
    )


def adamw_cases():
    wide = 10.0 ** torch.linspace(-6, 6, 7)
    sparse = [draw(5) * (step % 4 == 1) for step in range(STEPS)]
    return [
        adamw("plain", [draw(2, 3) for _ in range(STEPS)]),
        adamw("no_decay", [draw(4) for _ in range(STEPS)], lr=5e-5, weight_decay=0.0),
        adamw("tiny_gradients", [draw(6, scale=1e-8) for _ in range(STEPS)], eps=1e-6, weight_decay=0.1),
        adamw("wide_range", [draw(7) * wide for _ in range(STEPS)], beta1=0.8, beta2=0.95),
        adamw("zero_gradients", sparse, lr=3e-3, weight_decay=0.3),
    ]


def clipping(max_norm, scale):
    parameters = [torch.nn.Parameter(torch.zeros(shape)) for shape in ((3, 2), (5,), (1,))]
    for parameter in parameters:
        parameter.grad = draw(*parameter.shape, scale=scale)
    gradients = [numbers(parameter.grad) for parameter in parameters]
    norm = torch.nn.utils.clip_grad_norm_(parameters, max_norm, foreach=False)
    clipped = [numbers(parameter.grad) for parameter in parameters]
    return dict(max_norm=max_norm, gradients=gradients, norm=norm.item(), clipped=clipped)


def schedule(lr, warmup, total):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = get_linear_schedule_with_warmup(optimizer, warmup, total)
    values = [scheduler.get_last_lr()[0]]
    for _ in range(total):
        optimizer.step()
        scheduler.step()
        values.append(scheduler.get_last_lr()[0])
    return dict(lr=lr, warmup=warmup, total=total, values=values)


def training():
    settings = dict(lr=2e-2, beta1=0.9, beta2=0.98, eps=1e-8, weight_decay=0.05)
    max_norm, warmup = 1.0, 3
    parameters = [torch.nn.Parameter(draw(3)), torch.nn.Parameter(draw(2, 2))]
    optimizer = optimizer_over(parameters, **settings)
    scheduler = get_linear_schedule_with_warmup(optimizer, warmup, STEPS)
    case = settings | dict(max_norm=max_norm, warmup=warmup, total=STEPS)
    case |= dict(initial=[numbers(p) for p in parameters], steps=[])
    for step in range(STEPS):
        for parameter in parameters:
            parameter.grad = draw(*parameter.shape, scale=0.1 + 0.3 * step)
        gradients = [numbers(p.grad) for p in parameters]
        torch.nn.utils.clip_grad_norm_(parameters, max_norm, foreach=False)
        optimizer.step()
        scheduler.step()
        case["steps"].append(dict(gradients=gradients, values=[numbers(p) for p in parameters]))
    return case


if __name__ == "__main__":
    torch.set_num_threads(1)
    golden = dict(
        adamw=adamw_cases(),
        clipping=[clipping(1.0, 2.0), clipping(1.0, 0.1), clipping(0.25, 1e-3), clipping(5.0, 1e4)],
        schedule=[
            schedule(5e-5, 3, 12), schedule(1e-3, 0, 7), schedule(2e-4, 5, 5), schedule(1.0, 1, 2),
        ],
        training=training(),
    )
    GOLDEN.mkdir(parents=True, exist_ok=True)
    (GOLDEN / "adamw.json").write_text(json.dumps(golden, indent=1) + "\n")
    print(f"adamw.json: {', '.join(golden)}")
