"""K-FAC's steps on a small network: crates/train/tests/golden/kfac.json.

Made with jax 0.6.2, which the newest kfac-jax, 0.0.8, was written for, and numpy 2.4.6, in f64:

    pip install kfac-jax==0.0.8 && pip install jax==0.6.2 jaxlib==0.6.2 && python oracles/kfac.py

Two linear layers with biases and a tanh between, softmax cross-entropy, mean over the batch; another batch a step.
Factors of the exact Fisher matrix (`fisher_exact`), averaged with 0.95, inverted at every step; momentum and a norm
constraint. The damping is split between the factors by pi, and in a second run added to their product
(`use_exact_inverses`). The file has, numbers row by row:

    sizes        inputs, hidden, classes
    options      rate, momentum, damping, decay, norm_constraint
    initial      layers, each with weight [O, I] and bias [O]
    batches      one a step, each with x [N, I] and labels [N]
    split, eigen the runs, for each step the loss before it, and the layers after it
"""

import json
import pathlib

import jax
import jax.numpy as jnp
import kfac_jax
import numpy as np

jax.config.update("jax_enable_x64", True)

INPUTS, HIDDEN, CLASSES, ROWS, STEPS = 5, 4, 3, 16, 4
OPTIONS = {"rate": 0.3, "momentum": 0.9, "damping": 1e-2, "decay": 0.95, "norm_constraint": 0.05}


def logits(params, x):
    (w1, b1), (w2, b2) = params
    # kfac-jax keeps weights as [I, O].
    return jnp.tanh(x @ w1 + b1) @ w2 + b2


def loss(params, batch):
    x, labels = batch
    out = logits(params, x)
    kfac_jax.register_softmax_cross_entropy_loss(out, labels)
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(out), labels[:, None], axis=1))


def layers(params):
    return [{"weight": np.asarray(w).T.ravel().tolist(), "bias": np.asarray(b).tolist()} for w, b in params]


def run(params, batches, exact):
    optimizer = kfac_jax.Optimizer(
        value_and_grad_func=jax.value_and_grad(loss),
        l2_reg=0.0,
        learning_rate_schedule=lambda _: OPTIONS["rate"],
        momentum_schedule=lambda _: OPTIONS["momentum"],
        damping_schedule=lambda _: OPTIONS["damping"],
        norm_constraint=OPTIONS["norm_constraint"],
        curvature_ema=OPTIONS["decay"],
        curvature_update_period=1,
        inverse_update_period=1,
        num_burnin_steps=0,
        use_exact_inverses=exact,
        estimation_mode="fisher_exact",
        multi_device=False,
    )
    # The optimizer gives away the memory of what it is given.
    params = jax.tree_util.tree_map(jnp.copy, params)
    key = jax.random.PRNGKey(0)
    state = optimizer.init(params, key, batches[0])
    steps = []
    for step, batch in enumerate(batches):
        before = float(loss(params, batch))
        params, state, _ = optimizer.step(params, state, key, batch=batch, global_step_int=step)
        steps.append({"loss": before, "layers": layers(params)})
    return steps


def main():
    random = np.random.default_rng(5)
    params = tuple(
        (jnp.asarray(random.normal(size=(i, o)) / np.sqrt(i)), jnp.asarray(random.normal(size=o) * 0.1))
        for i, o in [(INPUTS, HIDDEN), (HIDDEN, CLASSES)]
    )
    batches = [
        (jnp.asarray(random.normal(size=(ROWS, INPUTS))), jnp.asarray(random.integers(0, CLASSES, ROWS)))
        for _ in range(STEPS)
    ]
    golden = {
        "sizes": [INPUTS, HIDDEN, CLASSES],
        "options": OPTIONS,
        "initial": layers(params),
        "batches": [{"x": np.asarray(x).ravel().tolist(), "labels": np.asarray(y).tolist()} for x, y in batches],
        "split": run(params, batches, False),
        "eigen": run(params, batches, True),
    }
    path = pathlib.Path(__file__).parent.parent / "crates/train/tests/golden/kfac.json"
    path.write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
