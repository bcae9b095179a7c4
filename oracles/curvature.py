"""Curvature of three small networks: Hessian, Gauss-Newton and Fisher products, spectra, Kronecker factors.

Made with torch 2.15.0, transformers 5.23.0, curvlinops 3.0.1 (curvlinops-for-pytorch), safetensors 0.8.0.

    pip install torch transformers safetensors curvlinops-for-pytorch==3.0.1
    python oracles/hessian.py && python oracles/curvature.py

Reads bert-a/ and bert-hessian.safetensors in crates/curvature/tests/golden/, writes curvature.safetensors
there. All is computed in f64. Tensors are f64 except those marked f32, which are inputs whose values are
f32 numbers, and integers, which are i64.

NETWORKS. Each maps its batch to rows of logits; a row has one target, -100 where it does not count, and n
is the number of rows that count. The loss is the mean softmax cross-entropy of those n rows.

`bert`, n = 8: the classifier bert-a, evaluation mode, with the batch and labels of bert-hessian.safetensors.
    8 sequences of 8 positions, padding included, 2 classes, 6,706 parameters with their checkpoint names.

`resnet`, n = 6: pictures of 8x8 -> 5 classes, 2,169 parameters. conv_norm(k, stride) is a convolution
    without bias, k x k, zero padding k // 2, then batch norm by running statistics, eps 1e-5:
    x = relu(stem(x)), conv_norm(3, 1), 3 -> 4 channels; blocks 0, 1, 2 of 4, 6, 8 channels and stride 1,
    2, 2: x = relu(second(relu(first(x))) + shortcut(x)), first conv_norm(3, stride), second
    conv_norm(3, 1), shortcut conv_norm(1, stride) in blocks 1 and 2, x itself in block 0; the mean over
    positions; head.
    Names: PART.conv.weight, PART.norm.{weight, bias}, PART one of stem, blocks.N.{first, second, shortcut};
    head.{weight, bias}. No argument of a relu is closer to 0 than 1e-4.
    resnet.images                   [6, 8, 8, 3] f32, channels last
    resnet.labels                   [6]
    resnet.param.NAME               f32: every parameter, and PART.norm.{running_mean, running_variance}

`tied`, n = 12: 3 sequences of 5 ids of a vocabulary of 11 -> 15 rows of 11 classes, 120 parameters, two
    of them in several places: x = embedding[ids]; x = layer_norm(x), eps 1e-5; twice, with the same weights,
    x = x + gelu(x shared.weight^T + shared.bias), the exact gelu; logits = x embedding^T.
    tied.ids                        [3, 5]
    tied.targets                    [15], the next id of row 5 * sequence + position, or -100
    tied.param.NAME                 f32: embedding, norm.{weight, bias}, shared.{weight, bias}

A convolution's weight is stored as [O, K, K, C], here and in everything of a parameter's shape.

VALUES of each network NET, dim its number of parameters; K is 0 or 1; NAME is every parameter:

    NET.loss                        [1]
    NET.logits                      [rows, classes], rows that do not count included
    NET.gradient.NAME               of the loss
    NET.vK.NAME                     f32, a standard normal vector over all parameters
    NET.hessian.vK.NAME             H v: the loss's Hessian
    NET.ggn.vK.NAME                 G v: G = 1/n sum_r J_r^T (diag p_r - p_r p_r^T) J_r, where J_r is the
                                    Jacobian of row r's logits and p_r their softmax
    NET.fisher.vK.NAME              F v: F = 1/n sum_r g_r g_r^T, where g_r is the gradient of row r's own
                                    cross-entropy: the empirical Fisher
    NET.covariance.vK.NAME          (F - g g^T) v, g the gradient of the loss, the mean of the g_r
    NET.{hessian, ggn}.eigenvalues  [dim] ascending; at most n (classes - 1) of the GGN's are not 0, the
                                    others, where dim is larger, are exact zeros here
    NET.{hessian, ggn, fisher}.trace            [1]
    NET.{hessian, ggn, fisher}.diagonal.NAME    of one weight, of its shape: bert
                                    bert.encoder.layer.1.attention.self.value.weight, resnet
                                    blocks.1.first.conv.weight, tied shared.weight
    bert.block.ggn.top              [2], the largest eigenvalue of the GGN's block of encoder layers 0 and 1

The sums run over the rows that count. All of these are from torch: H by double backward, the dense one row
by row, J_r by a backward pass for each logit, G and F from the dense J_r. The script asserts that curvlinops'
HessianLinearOperator, GGNLinearOperator and EFLinearOperator give the same products to 1e-10 (relative, in
norm), with layer norms out of elementary operations (see CountedRows), and that the Hessian's blocks of
`bert` agree with bert-hessian.safetensors.

In `resnet` the diagonals and traces of Hessian and GGN are equal: the logits are linear in any one parameter,
as long as no relu switches. In `bert` a vector added to all keys of a head changes nothing: the gradients of
the keys' biases and the Hessian's rows there are 0 but for rounding.

KRONECKER FACTORS of every linear layer and convolution LAYER, the name of its weight without `.weight`; in
`tied`, `embedding` is the last product only, logits = x embedding^T. APPROX is `expand` or `reduce`, KIND
`type2` or `empirical`:

    NET.kfac.APPROX.LAYER.input             [I, I], A: it does not depend on KIND
    NET.kfac.KIND.APPROX.LAYER.gradient     [O, O], B

The block of the GGN (type2) or of the Fisher (empirical) for the weight as an [O, I] matrix is about
B kron A: its product with V is B V A, and its entry (o, i; o', i') is B[o, o'] A[i, i']. The layer applies its
weight at S positions of each of the N examples of the batch (8 sequences, 6 pictures, 3 sequences): S is H'W'
of a convolution's output, or the length of a sequence, padding and rows that do not count included, or 1 for
the pooler, the classifier and the head. a[b, s] is the input there, followed by 1 where the layer has a bias,
so A is one larger and its last row and column are the bias's; a convolution's input is its patch, zeros
outside of the picture, in the order [K, K, C] of the weight. z[b, s] is the output. Then

    expand:  A = 1/(N S) sum_{b,s} a[b, s] a[b, s]^T       B = 1/n sum_{v,b,s} g[v, b, s] g[v, b, s]^T
    reduce:  A = 1/N sum_b (mean_s a[b, s]) (the same)^T   B = 1/n sum_{v,b} (sum_s g[v, b, s]) (the same)^T
    g[v, b, s] = sum_r (dlogits_r / dz[b, s])^T c_r[v], over the rows r that count

    empirical:  one v; c_r = p_r - onehot(target_r), the gradient of row r's own cross-entropy
    type2:      v = 1 .. classes; c_r[v] is column v of S_r = diag(sqrt p_r) - p_r sqrt(p_r)^T, for which
                S_r S_r^T = diag p_r - p_r p_r^T

So A is a mean over positions that knows of no targets, and B has the 1/n of the loss and no 1/S: it is n
times the sum over outer products of gradients of the mean loss. For a layer with S = 1 expand and reduce are
the same. Where each example has one row (bert, resnet), type2 does not depend on the choice of S_r; nor does
expand in `tied`, where no position sees another. In `tied` type2 reduce adds up gradients of several rows
before it squares, so it does depend on it: column v of a row meets column v of the sequence's other rows.

Where a weight is used U times (`shared`, U = 2) the uses are further positions for expand and further examples
for reduce, B's n unchanged: A is the mean of what the formulas give for each use, B the sum.

The factors are those of curvlinops' KFACLinearOperator (weight and bias joint, reduction `mean`, one batch of
all examples), which the script reproduces to 1e-10 by a plain computation of the formulas. But:
- a convolution's A is reordered, as curvlinops' patches are [C, K, K];
- curvlinops adds up the uses of `shared` in A, which makes it U times too large; stored is A / U, which is
  what the `make_fx` backend of its development version (63fd690) gives;
- curvlinops takes every row for one that counts, so it sees a model that gives those n rows only.
With weight and bias apart, curvlinops has the joint A without its last row and column for the weight and
the same B, which alone is the bias's block. Its `forward-only` has the same A, and the identity for B. The
script asserts both; neither is stored.

In `bert` the gradients at padding positions are exactly 0, while A counts the inputs there; B of reduce is 0
but for rounding for the keys, whose gradients add up to 0 over the positions.
"""

import copy
from pathlib import Path

import torch
import torch.nn.functional as F
from curvlinops import EFLinearOperator, GGNLinearOperator, HessianLinearOperator, KFACLinearOperator
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import BertForSequenceClassification

from hessian import dense_hessian, flatten

GOLDEN = Path(__file__).resolve().parents[1] / "crates/curvature/tests/golden"
IGNORED = -100
KINDS = {"type2": "type-2", "empirical": "empirical"}
MARGIN = 1e-4

tensors = {}


def record(name, tensor, dtype=torch.float64):
    """Keeps a tensor; one of four dimensions has its channels second in torch, and last in the file."""
    tensor = tensor.detach()
    if tensor.is_floating_point():
        assert torch.isfinite(tensor).all(), name
        assert torch.equal(tensor.to(dtype).double(), tensor), name
        tensor = tensor.to(dtype)
    if tensor.ndim == 4:
        tensor = tensor.permute(0, 2, 3, 1)
    assert name not in tensors, name
    tensors[name] = tensor.clone(memory_format=torch.contiguous_format)


def assert_same(actual, expected, scale=0.0):
    """1e-10 in norm, of the expected value or of `scale`, what is added up where the result is about 0."""
    error = (actual - expected).norm().item()
    assert error <= 1e-10 * max(expected.norm().item(), scale), (error, expected.norm().item(), scale)


def draw(generator, *shape, mean=0.0, std=1.0):
    """f32 numbers in an f64 tensor."""
    return (mean + std * torch.randn(*shape, generator=generator)).double()


class Bert(BertForSequenceClassification):
    def forward(self, batch):
        return super().forward(**batch).logits


class ConvNorm(nn.Module):
    def __init__(self, inputs, outputs, kernel, stride=1):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps=1e-5)

    def forward(self, x):
        return self.norm(self.conv(x))


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.first = ConvNorm(inputs, outputs, 3, stride)
        self.second = ConvNorm(outputs, outputs, 3)
        changes = stride != 1 or inputs != outputs
        self.shortcut = ConvNorm(inputs, outputs, 1, stride) if changes else nn.Identity()
        self.relus = nn.ModuleList([nn.ReLU(), nn.ReLU()])

    def forward(self, x):
        hidden = self.second(self.relus[0](self.first(x)))
        return self.relus[1](hidden + self.shortcut(x))


class ResNet(nn.Module):
    def __init__(self, channels=(4, 6, 8), classes=5):
        super().__init__()
        self.stem = ConvNorm(3, channels[0], 3)
        self.relu = nn.ReLU()
        widths = zip((channels[0], *channels), channels)
        self.blocks = nn.ModuleList([Block(i, o, 1 if n == 0 else 2) for n, (i, o) in enumerate(widths)])
        self.head = nn.Linear(channels[-1], classes)

    def forward(self, x):
        x = self.relu(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(dim=(2, 3)))


class Tied(nn.Module):
    def __init__(self, vocabulary=11, width=6, uses=2):
        super().__init__()
        self.uses = uses
        self.embedding = nn.Parameter(torch.empty(vocabulary, width))
        self.norm = nn.LayerNorm(width, eps=1e-5)
        self.shared = nn.Linear(width, width)
        # The same parameter in a module, where hooks find it; named_parameters() lists it once.
        self.output = nn.Linear(width, vocabulary, bias=False)
        self.output.weight = self.embedding

    def forward(self, ids):
        x = self.norm(F.embedding(ids, self.embedding))
        for _ in range(self.uses):
            x = x + F.gelu(self.shared(x))
        return self.output(x).flatten(0, 1)


class PlainNorm(nn.LayerNorm):
    """Layer norm out of elementary operations."""

    def forward(self, x):
        x = x - x.mean(dim=-1, keepdim=True)
        return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + self.eps) * self.weight + self.bias


class CountedRows(nn.Module):
    """For curvlinops: the rows of logits that count, since it takes every row for one that does.

    Its layer norms are plain ones. Of torch's own, `torch.func.jvp` of `torch.func.jacrev`, curvlinops'
    Hessian product, gets the gain's part wrong (2.15.0; finite differences side with double backward).
    """

    def __init__(self, model, counted):
        super().__init__()
        self.model, self.counted = copy.deepcopy(model), counted
        for module in self.model.modules():
            if isinstance(module, nn.LayerNorm):
                module.__class__ = PlainNorm

    def forward(self, inputs):
        return self.model(inputs)[self.counted]


class Network:
    """A model that maps `inputs` of `examples` examples to rows of logits, with a target for each row."""

    def __init__(self, name, model, inputs, targets, examples):
        self.name, self.model, self.inputs, self.examples = name, model, inputs, examples
        self.counted = (targets != IGNORED).nonzero().flatten()
        self.targets = targets[self.counted]
        self.names, self.parameters = zip(*model.named_parameters())
        self.counted_rows = CountedRows(model, self.counted)

    def split(self, flat):
        """The vector's part for each parameter, by name."""
        parts = flat.split([p.numel() for p in self.parameters])
        return {n: part.view(p.shape) for n, p, part in zip(self.names, self.parameters, parts)}

    def places(self, name):
        """Where a parameter is in a vector."""
        places = torch.arange(sum(p.numel() for p in self.parameters))
        return self.split(places)[name].flatten()

    def layers(self):
        """Linear layers and convolutions, by the names of their weights without `.weight`."""
        names = {id(parameter): name for name, parameter in self.model.named_parameters()}
        modules = [m for m in self.model.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
        return {names[id(module.weight)].removesuffix(".weight"): module for module in modules}

    def record(self, name, value):
        record(f"{self.name}.{name}", value)

    def record_vector(self, name, flat, dtype=torch.float64):
        for parameter, part in self.split(flat).items():
            record(f"{self.name}.{name}.{parameter}", part, dtype)

    def operator(self, kind, names=None, **options):
        """An operator of curvlinops for this network's loss and the parameters of these names, or all."""
        parameters = dict(self.counted_rows.model.named_parameters())
        return kind(
            self.counted_rows, nn.CrossEntropyLoss(), [parameters[name] for name in names or self.names],
            [(self.inputs, self.targets)], batch_size_fn=lambda _: self.examples, check_deterministic=False,
            **options,
        )


def bert():
    expected = load_file(GOLDEN / "bert-hessian.safetensors")
    model = Bert.from_pretrained(GOLDEN / "bert-a", attn_implementation="eager").double().eval()
    batch = {name: expected[name] for name in ("input_ids", "token_type_ids", "attention_mask")}
    return Network("bert", model, batch, expected["labels"], examples=8)


def resnet():
    generator = torch.Generator().manual_seed(6)
    model = ResNet().double().eval()
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if name.endswith("conv.weight"):
            new = draw(generator, *value.shape, std=value[0].numel() ** -0.5)
        elif name.endswith("running_var"):
            new = (draw(generator, *value.shape) ** 2 * 0.5 + 0.5).float()
        elif name.endswith("num_batches_tracked"):
            continue
        else:
            new = draw(generator, *value.shape, mean=float(name.endswith("norm.weight")), std=0.3)
        value.data.copy_(new)
        record(f"resnet.param.{name.replace('running_var', 'running_variance')}", value, torch.float32)

    images = draw(generator, 6, 3, 8, 8)
    labels = torch.randint(0, 5, (6,), generator=generator)
    record("resnet.images", images, torch.float32)
    record("resnet.labels", labels)

    def check_margin(_, arguments):
        assert arguments[0].abs().min() > MARGIN

    hooks = [m.register_forward_pre_hook(check_margin) for m in model.modules() if isinstance(m, nn.ReLU)]
    model(images)
    for hook in hooks:
        hook.remove()
    return Network("resnet", model, images, labels, examples=6)


def tied():
    generator = torch.Generator().manual_seed(0)
    model = Tied().double().eval()
    deviations = {"embedding": 0.4, "shared.weight": 0.5}
    for name, value in model.named_parameters():
        mean, std = float(name == "norm.weight"), deviations.get(name, 0.3)
        value.data.copy_(draw(generator, *value.shape, mean=mean, std=std))
        record(f"tied.param.{name}", value, torch.float32)

    # Every id once or twice: rows of the same id have the same logits.
    ids = (torch.randperm(18, generator=generator) % 11).view(3, 6)
    # The sequences have 3, 5 and 4 rows that count.
    targets = ids[:, 1:].flatten()
    targets[[2, 3, 14]] = IGNORED
    ids = ids[:, :-1].contiguous()
    record("tied.ids", ids)
    record("tied.targets", targets)
    return Network("tied", model, ids, targets, examples=3)


def square_roots(logits):
    """[rows, classes, classes], S with S S^T = diag p - p p^T for each row."""
    p = logits.detach().softmax(dim=1)
    roots = torch.diag_embed(p.sqrt()) - p[:, :, None] * p.sqrt()[:, None, :]
    torch.testing.assert_close(roots @ roots.mT, torch.diag_embed(p) - p[:, :, None] * p[:, None, :])
    return roots


def own_gradients(logits, targets):
    """[rows, classes], the gradient of each row's own cross-entropy with respect to its logits."""
    return logits.detach().softmax(dim=1) - F.one_hot(targets, logits.shape[1])


class Dense:
    """A network's derivatives: the dense Hessian, and rows whose squares add up to the GGN and the Fisher."""

    def __init__(self, network):
        self.parameters = network.parameters
        logits = network.model(network.inputs)
        rows = logits[network.counted]
        n, classes = rows.shape
        loss = F.cross_entropy(rows, network.targets)
        gradient = flatten(torch.autograd.grad(loss, self.parameters, create_graph=True))
        jacobian = torch.stack([
            flatten(torch.autograd.grad(logit, self.parameters, retain_graph=True)) for logit in rows.flatten()
        ]).view(n, classes, -1)

        self.loss, self.logits, self.gradient = loss.detach(), logits.detach(), gradient.detach()
        self.differentiable_gradient = gradient
        self.hessian = dense_hessian(gradient, self.parameters)
        # [n, classes, dim] and [n, 1, dim]: sums of outer products over the first two axes.
        self.ggn_root = torch.einsum("rkv, rkp -> rvp", square_roots(rows), jacobian) / n**0.5
        self.fisher_root = torch.einsum("rk, rkp -> rp", own_gradients(rows, network.targets), jacobian)
        self.fisher_root = self.fisher_root[:, None] / n**0.5
        self.ggn_rank = min(n * (classes - 1), len(gradient))

        assert_same(self.hessian, self.hessian.T)
        assert_same(self.fisher_root.sum(dim=(0, 1)) / n**0.5, self.gradient)

    def products(self, v):
        slope = self.differentiable_gradient @ v
        hessian = flatten(torch.autograd.grad(slope, self.parameters, retain_graph=True))
        assert_same(hessian, self.hessian @ v)
        roots = (root.flatten(0, 1) for root in (self.ggn_root, self.fisher_root))
        ggn, fisher = (root.T @ (root @ v) for root in roots)
        covariance = fisher - self.gradient * (self.gradient @ v)
        return dict(hessian=hessian, ggn=ggn, fisher=fisher, covariance=covariance)

    def diagonals(self):
        return dict(
            hessian=self.hessian.diagonal(),
            ggn=self.ggn_root.square().sum(dim=(0, 1)),
            fisher=self.fisher_root.square().sum(dim=(0, 1)),
        )

    def eigenvalues(self):
        symmetric = (self.hessian + self.hessian.T) / 2
        ggn = torch.linalg.svdvals(self.ggn_root.flatten(0, 1))[: self.ggn_rank].square().flip(0)
        zeros = ggn.new_zeros(len(symmetric) - self.ggn_rank)
        return dict(hessian=torch.linalg.eigvalsh(symmetric), ggn=torch.cat([zeros, ggn]))


def record_curvature(network, dense, diagonal_of, generator):
    network.record("loss", dense.loss[None])
    network.record("logits", dense.logits)
    network.record_vector("gradient", dense.gradient)

    operators = dict(hessian=HessianLinearOperator, ggn=GGNLinearOperator, fisher=EFLinearOperator)
    for k in range(2):
        v = draw(generator, len(dense.gradient))
        products = dense.products(v)
        for matrix, kind in operators.items():
            assert_same(network.operator(kind) @ v, products[matrix])
        network.record_vector(f"v{k}", v, torch.float32)
        for matrix, product in products.items():
            network.record_vector(f"{matrix}.v{k}", product)

    diagonals = dense.diagonals()
    for matrix, diagonal in diagonals.items():
        network.record(f"{matrix}.trace", diagonal.sum()[None])
        network.record(f"{matrix}.diagonal.{diagonal_of}", network.split(diagonal)[diagonal_of])
    for matrix, values in dense.eigenvalues().items():
        assert_same(values.sum(), diagonals[matrix].sum())
        network.record(f"{matrix}.eigenvalues", values)


def record_blocks(network, dense):
    """Compares the Hessian's blocks of the encoder layers with those of `hessian.py`; keeps the GGN's."""
    expected = load_file(GOLDEN / "bert-hessian.safetensors")
    assert_same(dense.loss[None], expected["loss"])
    tops = []
    for layer in range(2):
        # That file has a layer's parameters in the order of their names.
        prefix = f"bert.encoder.layer.{layer}."
        names = sorted(name for name in network.names if name.startswith(prefix))
        columns = torch.cat([network.places(name) for name in names])
        block = dense.hessian[columns][:, columns]
        assert_same(block.trace()[None], expected[f"layer.{layer}.trace"])
        assert_same(block @ expected[f"layer.{layer}.v"], expected[f"layer.{layer}.hv"])
        tops.append(torch.linalg.svdvals(dense.ggn_root.flatten(0, 1)[:, columns])[0] ** 2)
    network.record("block.ggn.top", torch.stack(tops))


def patches(conv, x):
    """[N, S, K K C], what the convolution multiplies with its weight as [O, K K C]."""
    (k, _), (stride, _), (padding, _) = conv.kernel_size, conv.stride, conv.padding
    x = F.pad(x, (padding,) * 4).unfold(2, k, stride).unfold(3, k, stride)
    return x.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)


class Uses:
    """What a linear layer or convolution reads, [N, S, I], and gives, in every use of a forward pass."""

    def __init__(self, module):
        self.module, self.inputs, self.outputs = module, [], []
        self.hook = module.register_forward_hook(self.keep)

    def keep(self, module, arguments, output):
        (x,) = arguments
        weight = module.weight
        if isinstance(module, nn.Conv2d):
            x, weight = patches(module, x), weight.permute(0, 2, 3, 1)
        elif output.ndim == 2:
            x = x[:, None]
        self.outputs.append(output)
        product = x @ weight.flatten(1).T
        if module.bias is not None:
            x, product = F.pad(x, (0, 1), value=1.0), product + module.bias
        assert_same(product, self.positions(output))
        self.inputs.append(x.detach())

    def positions(self, values):
        """[..., N, S, O] from values of the shape of an output, with dimensions in front or without."""
        if isinstance(self.module, nn.Conv2d):
            return values.movedim(-3, -1).flatten(-3, -2)
        return values[..., None, :] if self.outputs[0].ndim == 2 else values


def check_scale(network, name, module, a, g, root):
    """Where an example has one row, g a^T, added up over the positions, has to be the root's columns."""
    columns = root[..., network.places(f"{name}.weight")].unflatten(-1, module.weight.shape)
    if isinstance(module, nn.Conv2d):
        columns = columns.movedim(3, -1)
    columns = columns.flatten(3)
    if module.bias is not None:
        bias = root[..., network.places(f"{name}.bias")]
        columns = torch.cat([columns, bias[..., None]], dim=-1)
    assert_same(torch.einsum("vbuso, busi -> bvoi", g, a) / len(root) ** 0.5, columns)


def plain_factors(network, dense):
    """By kind, approximation and layer: A, B and the size of what is added up in B, for where it cancels."""
    layers = {name: Uses(module) for name, module in network.layers().items()}
    rows = network.model(network.inputs)[network.counted]
    n = len(rows)
    backward = dict(
        type2=(square_roots(rows).permute(2, 0, 1), dense.ggn_root),
        empirical=(own_gradients(rows, network.targets)[None], dense.fisher_root),
    )
    factors = {}
    for name, layer in layers.items():
        layer.hook.remove()
        a = torch.stack(layer.inputs, dim=1)
        for kind, (c, root) in backward.items():
            uses = torch.autograd.grad(rows, layer.outputs, c, retain_graph=True, is_grads_batched=True)
            g = torch.stack([layer.positions(use) for use in uses], dim=2)
            size = g.square().sum().item() / n
            averaged, summed = a.mean(dim=2, keepdim=True), g.sum(dim=3, keepdim=True)
            for approximation, inputs, gradients in ("expand", a, g), ("reduce", averaged, summed):
                factors[kind, approximation, name] = (
                    torch.einsum("busi, busj -> ij", inputs, inputs) / inputs[..., 0].numel(),
                    torch.einsum("vbuso, vbusp -> op", gradients, gradients) / n,
                    size,
                )
            if n == network.examples:
                check_scale(network, name, layer.module, a, g, root)
    return factors


def record_factors(network, dense):
    modules = {module: name for name, module in network.model.named_modules()}
    layers = {name: (f"model.{modules[module]}", module) for name, module in network.layers().items()}
    used = {id(parameter) for _, module in layers.values() for parameter in module.parameters()}
    names = [name for name, parameter in zip(network.names, network.parameters) if id(parameter) in used]

    def factors(kind, approximation, separate=False):
        operator = network.operator(
            KFACLinearOperator, names, fisher_type=kind, kfac_approx=approximation,
            separate_weight_and_bias=separate,
        )
        operator.compute_kronecker_factors()
        state = operator.state_dict()
        return state["input_covariances"], state["gradient_covariances"]

    plain = plain_factors(network, dense)
    for approximation in ("expand", "reduce"):
        for kind, fisher_type in KINDS.items():
            inputs, gradients = factors(fisher_type, approximation)
            apart_inputs, apart_gradients = factors(fisher_type, approximation, separate=True)
            same_inputs, identities = factors("forward-only", approximation)
            for name, (path, module) in layers.items():
                expected_a, expected_b, size = plain[kind, approximation, name]
                a, b = inputs[path], gradients[path]
                assert torch.equal(same_inputs[path], a)
                assert torch.equal(identities[path], torch.eye(len(b), dtype=b.dtype))
                assert_same(apart_gradients[path], b, size)
                width = len(apart_inputs[path])
                assert width == len(a) - (module.bias is not None)
                assert_same(apart_inputs[path], a[:width, :width])

                if isinstance(module, nn.Conv2d):
                    k, channels = module.kernel_size[0], module.in_channels
                    a = a.view(channels, k, k, channels, k, k).permute(1, 2, 0, 4, 5, 3).reshape(a.shape)
                if network.name == "tied" and name == "shared":
                    a = a / network.model.uses
                assert_same(a, expected_a)
                assert_same(b, expected_b, size)
                if kind == "empirical":
                    network.record(f"kfac.{approximation}.{name}.input", a)
                network.record(f"kfac.{kind}.{approximation}.{name}.gradient", b)


def main():
    generator = torch.Generator().manual_seed(1)
    diagonal_of = dict(
        bert="bert.encoder.layer.1.attention.self.value.weight",
        resnet="blocks.1.first.conv.weight",
        tied="shared.weight",
    )
    for network in (bert(), resnet(), tied()):
        dense = Dense(network)
        record_curvature(network, dense, diagonal_of[network.name], generator)
        if network.name == "bert":
            record_blocks(network, dense)
        record_factors(network, dense)
        print(f"{network.name}: {len(dense.gradient)} parameters, loss {dense.loss.item():.6f}")
    save_file(tensors, GOLDEN / "curvature.safetensors")
    print(f"curvature.safetensors: {len(tensors)} tensors")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
