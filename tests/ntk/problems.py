"""A table of small seeded models, each for one way in which a parameter can enter a network.

A problem knows how to build its model and its inputs, not its kernel. Inputs are ``TOTAL`` samples: ``ROWS``
make the square kernel, ``ROWS`` × ``COLUMNS`` the rectangular one (they share a sample, on purpose).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from tests.ntk.models import (
    GPT,
    Attention,
    Bare,
    Cube,
    Keeping,
    OldCube,
    OldLinear,
    Pooled,
    Residual,
    Standardised,
    ViT,
    With,
    arithmetic,
    broadcast_scales,
    by_sign,
    cell_loop,
    channels_last,
    checkpointed,
    decoder,
    dictionary,
    double_use,
    encoder,
    flat_vector,
    fourier,
    frozen,
    hooked,
    hypernetwork,
    inplace_everywhere,
    lenet,
    lists,
    low_rank,
    many_linears,
    masked_attention,
    masked_mean,
    mixture_model,
    mlp,
    nested_call,
    old_weight_norm,
    packed,
    partly_without_gradient,
    per_sample_weighted_bag,
    recurrent,
    recurrent_from_parameter,
    scale_kept_of_changed_input,
    shared_bias,
    straight_through,
    tied_autoencoder,
    until_small,
)

TOTAL, ROWS, COLUMNS = 7, slice(0, 5), slice(4, 7)


@dataclass(frozen=True)
class Problem:
    """One model with its inputs.

    Attributes:
        name: the test id.
        build: makes the model; called with the global generator seeded.
        draw: makes the inputs of n samples from a generator.
        forward: how the model is called, where the default call does not fit.
        train: leave the model in training mode (only for models in which that changes nothing).
    """

    name: str
    build: Callable[[], nn.Module]
    draw: Callable[[torch.Generator, int], Any]
    forward: Callable[[nn.Module, Any], Tensor] | None = None
    train: bool = False

    def model(self, dtype: torch.dtype = torch.float64) -> nn.Module:
        """The model; its float64 weights are its float32 weights, so that the two can be compared."""
        state = torch.random.get_rng_state()
        try:
            torch.manual_seed(20_240_611)
            model = self.build().train(self.train)
            shake(model)
        finally:
            torch.random.set_rng_state(state)
        return model.to(dtype)

    def inputs(self, dtype: torch.dtype = torch.float64) -> Any:
        """``TOTAL`` samples; floats in ``dtype`` (drawn in float32), integers as they are."""
        drawn = self.draw(torch.Generator().manual_seed(7), TOTAL)
        return tree_map(lambda t: t.to(dtype) if t.is_floating_point() else t, drawn)

    def split(self, dtype: torch.dtype = torch.float64) -> tuple[Any, Any]:
        """The rows' and the columns' samples."""
        inputs = self.inputs(dtype)
        return samples(inputs, ROWS), samples(inputs, COLUMNS)


def samples(inputs: Any, which: Any) -> Any:
    """The chosen samples of a pytree of tensors whose first axis is the sample's."""
    return tree_map(lambda t: t[which], inputs)


def shake(model: nn.Module) -> None:
    """Move every parameter and running statistic off its initial value: ones and zeros hide mistakes."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for module in model.modules():
            if getattr(module, "running_var", None) is not None:
                module.running_mean.add_(0.1 * torch.randn_like(module.running_mean))
                module.running_var.add_(0.3 * torch.rand_like(module.running_var))


def reals(*shape: int) -> Callable[[torch.Generator, int], Tensor]:
    return lambda generator, n: torch.randn(n, *shape, generator=generator)


def tokens(vocabulary: int, *shape: int) -> Callable[[torch.Generator, int], Tensor]:
    return lambda generator, n: torch.randint(vocabulary, (n, *shape), generator=generator)


def draw_dictionary(generator: torch.Generator, n: int) -> dict[str, Tensor]:
    return {"image": torch.randn(n, 4, generator=generator), "extra": torch.randn(n, 2, 3, generator=generator)}


def draw_nested(generator: torch.Generator, n: int) -> dict[str, Any]:
    views = [torch.randn(n, 4, generator=generator) for _ in range(2)]
    return {"views": views, "gain": torch.rand(n, generator=generator)}


def draw_pair(generator: torch.Generator, n: int) -> tuple[Tensor, Tensor]:
    return torch.randn(n, 3, 4, generator=generator), torch.randn(n, 2, 4, generator=generator)


def draw_bag(generator: torch.Generator, n: int) -> tuple[Tensor, Tensor]:
    return torch.randint(6, (n, 4), generator=generator), torch.rand(n, 4, generator=generator)


def draw_tokens_and_mask(generator: torch.Generator, n: int) -> dict[str, Tensor]:
    lengths = torch.randint(1, 5, (n, 1), generator=generator)
    return {"ids": torch.randint(6, (n, 4), generator=generator), "keep": torch.arange(4)[None] < lengths}


def table() -> tuple[Problem, ...]:
    """Every problem. Models are made by factories, so that no two tests share one."""
    image, small, line, cube = reals(2, 5, 5), reals(1, 8, 8), reals(4, 7), reals(2, 3, 4, 3)
    words, vectors = tokens(5, 3), reals(3, 4)
    wn, sn = nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm
    orthogonal = nn.utils.parametrizations.orthogonal
    P, B = Problem, Bare
    return (
        # fully connected
        P("linear", lambda: nn.Linear(4, 3), reals(4)),
        P("mlp", mlp, reals(4)),
        P("mlp-no-bias", lambda: mlp(bias=False), reals(4)),
        P("mlp-inplace", lambda: mlp(lambda: nn.ReLU(inplace=True)), reals(4)),
        P("mlp-training-mode", mlp, reals(4), train=True),
        P("mlp-hooks", hooked, reals(4)),
        P("keeps-activations", Keeping, reals(4)),
        P("mlp-dropout-eval", lambda: nn.Sequential(mlp(out=4), nn.Dropout(0.5), nn.Linear(4, 3)), reals(4)),
        P("mlp-frozen-first", lambda: frozen(mlp(), "0.weight", "0.bias"), reals(4)),
        P("mlp-frozen-middle", lambda: frozen(mlp(), "2.weight", "4.bias"), reals(4)),
        P("mlp-frozen-last", lambda: frozen(mlp(), "4.weight", "4.bias"), reals(4)),
        P("scalar-output", lambda: With(lambda m, x: m.net(x).squeeze(-1), net=mlp(out=1)), reals(4)),
        P("squeezed-output", lambda: With(lambda m, x: m.net(x).squeeze(), net=mlp(out=1)), reals(4)),
        P("one-output", lambda: mlp(out=1), reals(4)),
        P("scalar-input", lambda: With(lambda m, x: m.net(x[:, None].expand(-1, 4)), net=mlp()), reals()),
        P("residual", lambda: With(lambda m, x: m.head(x + m.net(x)), net=mlp(out=4), head=nn.Linear(4, 3)), reals(4)),
        P("tokens-linear", lambda: With(lambda m, x: m.net(x).mean(1), net=mlp()), vectors),
        P("tokens-two-axes", lambda: With(lambda m, x: m.net(x).mean((1, 2)), net=mlp()), reals(2, 3, 4)),
        P("reused-linear", double_use, reals(4)),
        P("shared-bias", shared_bias, reals(3)),
        P("tied-autoencoder", tied_autoencoder, reals(3)),
        P("standardised-targets", Standardised, reals(4)),
        P("unused-parameter", lambda: B(lambda p, x: x @ p.w, w=(4, 3), never=(2, 2)), reals(4)),
        P("bilinear", lambda: With(lambda m, x: m.b(x, x.tanh()), b=nn.Bilinear(4, 4, 3)), reals(4)),
        P("prelu-one", lambda: nn.Sequential(nn.Linear(4, 5), nn.PReLU(), nn.Linear(5, 3)), reals(4)),
        P("prelu-channels", lambda: Pooled(3, nn.Conv2d(2, 3, 3), nn.PReLU(3)), image),
        P("weight-norm", lambda: nn.Sequential(wn(nn.Linear(4, 5)), nn.Tanh(), wn(nn.Linear(5, 3))), reals(4)),
        P("weight-norm-conv", lambda: Pooled(3, wn(nn.Conv2d(2, 3, 3))), image),
        P("weight-norm-old", old_weight_norm, reals(4)),
        P("spectral-norm", lambda: nn.Sequential(sn(nn.Linear(4, 5)), nn.Tanh(), nn.Linear(5, 3)), reals(4)),
        P("orthogonal", lambda: nn.Sequential(orthogonal(nn.Linear(4, 4)), nn.Tanh(), nn.Linear(4, 3)), reals(4)),
        # convolutions
        P("lenet", lenet, small),
        P("lenet-inplace", lambda: lenet(inplace=True), small),
        P("lenet-channels-last", channels_last, small),
        P("conv-strided", lambda: Pooled(3, nn.Conv2d(2, 3, 3, stride=2, padding=1)), image),
        P("conv-rectangle", lambda: Pooled(3, nn.Conv2d(2, 3, (3, 2), stride=(1, 2), padding=(2, 1))), image),
        P("conv-no-bias", lambda: Pooled(3, nn.Conv2d(2, 3, 3, bias=False)), image),
        P("conv-1x1", lambda: Pooled(3, nn.Conv2d(2, 3, 1)), image),
        P("conv-grouped", lambda: Pooled(6, nn.Conv2d(4, 6, 3, groups=2)), reals(4, 4, 4)),
        P("conv-depthwise", lambda: Pooled(4, nn.Conv2d(2, 4, 3, groups=2, padding=1)), image),
        P("conv-separable", lambda: Pooled(3, nn.Conv2d(2, 2, 3, groups=2, stride=2), nn.Conv2d(2, 3, 1)), image),
        P("conv-dilated", lambda: Pooled(3, nn.Conv2d(2, 3, 2, dilation=(2, 3))), image),
        P("conv-circular", lambda: Pooled(3, nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular")), image),
        P("conv-reflect", lambda: Pooled(3, nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect")), image),
        P("conv-same", lambda: Pooled(3, nn.Conv2d(2, 3, 3, padding="same", dilation=2)), image),
        P("conv-same-even", lambda: Pooled(3, nn.Conv2d(2, 3, (4, 2), padding="same")), image),
        P("conv-transposed", lambda: Pooled(3, nn.ConvTranspose2d(2, 3, 3, 2, 1, output_padding=1)), reals(2, 3, 3)),
        P("conv-transposed-grouped", lambda: Pooled(6, nn.ConvTranspose1d(4, 6, 3, groups=2, dilation=2)), line),
        P("conv-transposed-3d", lambda: Pooled(3, nn.ConvTranspose3d(2, 3, 2, stride=(1, 2, 1))), cube),
        P("conv-1d", lambda: Pooled(6, nn.Conv1d(4, 6, 3, stride=2, groups=2, padding=1)), line),
        P("conv-3d", lambda: Pooled(3, nn.Conv3d(2, 3, 2, padding=(0, 1, 0))), cube),
        P(
            "conv-reused",
            lambda: With(
                lambda m, x: m.head(m.conv(m.conv(x).tanh()).mean((2, 3))),
                conv=nn.Conv2d(2, 2, 3, padding=1),
                head=nn.Linear(2, 3),
            ),
            image,
        ),
        P(
            "conv-one-sample",
            lambda: With(
                lambda m, x: torch.stack([m.head(m.conv(row).tanh().mean((1, 2))) for row in x]),
                conv=nn.Conv2d(2, 3, 3),
                head=nn.Linear(3, 3),
            ),
            image,
        ),
        P("resnet-group-norm", lambda: Residual(lambda c: nn.GroupNorm(2, c)), reals(2, 6, 6)),
        P("resnet-batch-norm", lambda: Residual(nn.BatchNorm2d), reals(2, 6, 6)),
        # normalisation
        P(
            "batch-norm-1d",
            lambda: nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3)),
            reals(4),
        ),
        P("batch-norm-line", lambda: Pooled(4, nn.BatchNorm1d(4), nn.Conv1d(4, 4, 3), nn.BatchNorm1d(4)), line),
        P("instance-norm", lambda: Pooled(3, nn.Conv2d(2, 3, 2), nn.InstanceNorm2d(3, affine=True)), image),
        P(
            "instance-norm-tracked",
            lambda: Pooled(3, nn.Conv2d(2, 3, 2), nn.InstanceNorm2d(3, affine=True, track_running_stats=True)),
            image,
        ),
        P("layer-norm", lambda: nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 3)), reals(4)),
        P("layer-norm-axes", lambda: nn.Sequential(nn.LayerNorm((3, 4)), nn.Flatten(), nn.Linear(12, 3)), vectors),
        P(
            "layer-norm-no-bias",
            lambda: With(
                lambda m, x: m.head(m.norm(x).tanh().mean(1)), norm=nn.LayerNorm(4, bias=False), head=nn.Linear(4, 3)
            ),
            vectors,
        ),
        P(
            "layer-norm-reused",
            lambda: With(lambda m, x: m.norm(m.a(m.norm(x)).tanh())[:, :3], norm=nn.LayerNorm(4), a=nn.Linear(4, 4)),
            reals(4),
        ),
        P(
            "rms-norm",
            lambda: With(lambda m, x: m.head(m.norm(x).tanh().mean(1)), norm=nn.RMSNorm(4), head=nn.Linear(4, 3)),
            vectors,
        ),
        P("group-norm-line", lambda: Pooled(4, nn.GroupNorm(1, 4), nn.Conv1d(4, 4, 2), nn.GroupNorm(4, 4)), line),
        # sequences and attention
        P("attention", lambda: Attention(batch_first=True), vectors),
        P("attention-weights", lambda: Attention(batch_first=True, weights=True), vectors),
        P("attention-sequence-first", lambda: Attention(batch_first=False), vectors),
        P("attention-sequence-first-weights", lambda: Attention(batch_first=False, weights=True), vectors),
        P("attention-cross", lambda: Attention(batch_first=True, keys=5), vectors),
        P("attention-bias-kv", lambda: Attention(batch_first=True, add_bias_kv=True, add_zero_attn=True), vectors),
        P("attention-no-bias", lambda: Attention(batch_first=False, bias=False), vectors),
        P("attention-causal", masked_attention, vectors),
        P("encoder", lambda: encoder(norm_first=False), vectors),
        P("encoder-norm-first", lambda: encoder(norm_first=True), vectors),
        P("encoder-sequence-first", lambda: encoder(norm_first=False, batch_first=False), vectors),
        P("decoder", decoder, draw_pair),
        P("gpt-tied", lambda: GPT(tied=True), words),
        P("gpt-untied", lambda: GPT(tied=False), words),
        P("vit", ViT, reals(1, 4, 4)),
        P("rnn", lambda: recurrent(nn.RNN), reals(3, 3)),
        P("lstm", lambda: recurrent(nn.LSTM, num_layers=2, bidirectional=True), reals(3, 3)),
        P("gru", lambda: recurrent(nn.GRU), reals(3, 3)),
        P("rnn-relu", lambda: recurrent(nn.RNN, nonlinearity="relu", bias=False), reals(3, 3)),
        P("gru-from-parameter", recurrent_from_parameter, reals(3, 3)),
        P("lstm-projected", lambda: recurrent(nn.LSTM, proj_size=2), reals(3, 3)),
        P("rnn-packed", packed, reals(3, 3)),
        P("lstm-cell", lambda: cell_loop(nn.LSTMCell), reals(3, 3)),
        P("gru-cell", lambda: cell_loop(nn.GRUCell, bias=False), reals(3, 3)),
        P("rnn-cell", lambda: cell_loop(nn.RNNCell), reals(3, 3)),
        P("rnn-cell-relu", lambda: cell_loop(nn.RNNCell, nonlinearity="relu"), reals(3, 3)),
        P("embedding", lambda: nn.Sequential(nn.Embedding(6, 3), nn.Flatten(), nn.Linear(9, 3)), tokens(6, 3)),
        P(
            "embedding-padding",
            lambda: nn.Sequential(nn.Embedding(4, 3, padding_idx=1), nn.Flatten(), nn.Linear(15, 3)),
            tokens(4, 5),
        ),
        P("embedding-one-id", lambda: nn.Sequential(nn.Embedding(4, 3), nn.Tanh(), nn.Linear(3, 3)), tokens(4)),
        P(
            "embedding-reused",
            lambda: With(
                lambda m, ids: m.head((m.table(ids) * m.table(ids.flip(1))).sum(1)),
                table=nn.Embedding(5, 4),
                head=nn.Linear(4, 3),
            ),
            words,
        ),
        P("embedding-bag-mean", lambda: nn.Sequential(nn.EmbeddingBag(6, 4), nn.Tanh(), nn.Linear(4, 3)), tokens(6, 5)),
        P(
            "embedding-bag-sum",
            lambda: nn.Sequential(nn.EmbeddingBag(6, 4, mode="sum", padding_idx=0), nn.Linear(4, 3)),
            tokens(6, 5),
        ),
        P("embedding-bag-max", lambda: nn.Sequential(nn.EmbeddingBag(6, 4, mode="max"), nn.Linear(4, 3)), tokens(6, 5)),
        P("embedding-bag-weighted", per_sample_weighted_bag, draw_bag),
        P("table-index", lambda: B(lambda p, ids: p.table[ids].tanh().sum(1), table=(5, 3)), words),
        P(
            "masked-mean",
            lambda: With(masked_mean, table=nn.Embedding(6, 4), head=nn.Linear(4, 3)),
            draw_tokens_and_mask,
        ),
        # bare parameters
        P("container", lists, reals(4)),
        P("scale-shift", lambda: B(lambda p, x: (x * p.scale + p.shift).tanh(), scale=(4,), shift=(4,)), reals(4)),
        P("scale-broadcast", lambda: B(broadcast_scales, channel=(3, 1), position=(4,), all=()), vectors),
        P("arithmetic", lambda: B(arithmetic, mean=(4,), spread=(4,), shift=(4,), scale=(4,)), reals(4)),
        P("matmul", lambda: B(lambda p, x: torch.tanh(x @ p.w) @ p.v.T, w=(4, 5), v=(3, 5)), reals(4)),
        P("matmul-left", lambda: B(lambda p, x: (p.w @ x).tanh().sum(-1), w=(3, 3)), vectors),
        P(
            "matmul-per-head",
            lambda: B(lambda p, x: torch.matmul(x.unsqueeze(-2), p.w).tanh().sum((1, 2)), w=(3, 4, 3)),
            vectors,
        ),
        P("bmm", lambda: B(lambda p, x: torch.bmm(x.transpose(0, 1), p.w).tanh().sum(0), w=(3, 4, 3)), vectors),
        P(
            "bmm-parameter-first",
            lambda: B(lambda p, x: p.w.bmm(x.permute(1, 2, 0)).tanh().sum(0).T, w=(3, 3, 4)),
            vectors,
        ),
        P(
            "bmm-of-one-matrix",
            lambda: B(lambda p, x: torch.bmm(x, p.w.expand(len(x), 4, 3)).tanh().sum(1), w=(4, 3)),
            vectors,
        ),
        P(
            "baddbmm",
            lambda: B(lambda p, x: torch.baddbmm(p.b, x.transpose(0, 1), p.w).tanh().sum(0), w=(3, 4, 3), b=(3, 1, 3)),
            vectors,
        ),
        P(
            "baddbmm-parameter-first",
            lambda: B(
                lambda p, x: torch.baddbmm(p.b, p.w, x.permute(1, 2, 0)).tanh().sum(0).T, w=(3, 3, 4), b=(3, 3, 1)
            ),
            vectors,
        ),
        P(
            "matmul-broadcast",
            lambda: B(lambda p, x: ((x.unsqueeze(1) @ p.w) @ p.v).tanh().mean((1, 2)), w=(2, 4, 3), v=(1, 2, 3, 3)),
            vectors,
        ),
        P(
            "matmul-broadcast-left",
            lambda: B(lambda p, x: (p.w @ (p.v @ x.unsqueeze(1))).tanh().sum((1, 3)), w=(1, 3, 2), v=(5, 2, 3)),
            vectors,
        ),
        P("matmul-one-row", lambda: B(lambda p, x: (p.w @ x.mean(1).T).tanh().sum(0).T, w=(2, 3, 4)), vectors),
        P(
            "tensordot",
            lambda: B(
                lambda p, x: torch.tensordot(torch.tensordot(x, p.w, 1).tanh(), p.v, dims=([1, -1], [2, 0])),
                w=(4, 5),
                v=(5, 3, 3),
            ),
            vectors,
        ),
        P(
            "tensordot-parameter-first",
            lambda: B(lambda p, x: torch.tensordot(p.w, x, dims=([1], [2])).tanh().sum(2).T, w=(3, 4)),
            vectors,
        ),
        P("linear-spellings", lambda: B(many_linears, a=(4, 4), bias=(4,), b=(5, 4), c=(5, 4), d=(3, 4)), reals(4)),
        P(
            "matmul-slices",
            lambda: B(lambda p, x: F.linear(x, p.w[:3], p.b[1:4]) + (x @ p.w[2:].T)[:, :3].tanh(), w=(6, 4), b=(5,)),
            reals(4),
        ),
        P(
            "matmul-chunks",
            lambda: B(lambda p, x: sum(F.linear(x, w).tanh() * (i + 1) for i, w in enumerate(p.w.chunk(2))), w=(6, 4)),
            reals(4),
        ),
        P("einsum", lambda: B(lambda p, x: torch.einsum("nti,oi->nto", x, p.w).tanh().mean(1), w=(3, 4)), vectors),
        P(
            "einsum-parameter-first",
            lambda: B(lambda p, x: torch.einsum("io,...i->...o", p.w, x).tanh().mean(1), w=(4, 3)),
            vectors,
        ),
        P(
            "einsum-heads",
            lambda: B(lambda p, x: torch.einsum("nhi,hio->nho", x, p.w).tanh().sum(1), w=(3, 4, 3)),
            vectors,
        ),
        P(
            "einsum-ellipsis",
            lambda: B(
                lambda p, x: torch.einsum("...hi,hio->...ho", torch.einsum("...i,oi->...o", x, p.v).tanh(), p.w).sum(1),
                v=(4, 4),
                w=(3, 4, 3),
            ),
            vectors,
        ),
        P(
            "einsum-ellipsis-in-both",
            lambda: B(lambda p, x: torch.einsum("n...i,...io", x, p.w).tanh().sum(0), w=(3, 4, 3)),
            vectors,
        ),
        P("einsum-implicit", lambda: B(lambda p, x: torch.einsum("ni,io", x, p.w).tanh(), w=(4, 3)), reals(4)),
        P(
            "einsum-diagonal",
            lambda: B(lambda p, x: torch.einsum("ni,ii,io->no", x, p.a, p.w), a=(4, 4), w=(4, 3)),
            reals(4),
        ),
        P(
            "ntk-scaling",
            lambda: B(
                lambda p, x: F.linear((F.linear(x, p.a / 2) + 0.1 * p.b).tanh(), p.c / 5**0.5),
                a=(5, 4),
                b=(5,),
                c=(3, 5),
            ),
            reals(4),
        ),
        P("low-rank", lambda: B(low_rank, base=(3, 4), up=(3, 2), down=(2, 4)), reals(4)),
        P("flat-vector", lambda: B(flat_vector, theta=(43,)), reals(4)),
        P(
            "data-as-weight",
            lambda: B(lambda p, x: torch.stack([F.linear(p.w, row).sum(0) for row in x]), w=(5, 4)),
            vectors,
        ),
        P(
            "class-token",
            lambda: B(
                lambda p, x: torch.cat([p.token.expand(len(x), 1, 4), x], 1).cumsum(1).tanh().sum((1,))[:, :3],
                token=(1, 4),
            ),
            vectors,
        ),
        # no rule knows these
        P("weight-tanh", lambda: B(lambda p, x: F.linear(x, p.w.tanh(), p.b**2), w=(3, 4), b=(3,)), reals(4)),
        P("weight-cumsum", lambda: B(lambda p, x: x @ p.w.cumsum(0), w=(4, 3)), reals(4)),
        P("weight-softmax", lambda: B(lambda p, x: x @ p.w.softmax(0) * p.t.exp(), w=(4, 3), t=()), reals(4)),
        P(
            "weight-both-ways",
            lambda: B(lambda p, x: F.linear(x, p.w) + p.w.square().sum(1) * x[:, :1], w=(3, 4)),
            reals(4),
        ),
        P("fourier", lambda: B(fourier, w=(3, 2)), reals(4)),
        P("hypernetwork", lambda: With(hypernetwork, make=nn.Linear(4, 12)), reals(4)),
        P("mixture", mixture_model, reals(4)),
        P(
            "custom-function",
            lambda: With(lambda m, x: m.b(Cube.apply(m.a(x))), a=nn.Linear(4, 4), b=nn.Linear(4, 3)),
            reals(4),
        ),
        P(
            "custom-function-old",
            lambda: With(lambda m, x: m.b(OldCube.apply(m.a(x))), a=nn.Linear(4, 4), b=nn.Linear(4, 3)),
            reals(4),
        ),
        P("custom-function-of-weight", lambda: B(lambda p, x: OldLinear.apply(x, p.w).tanh(), w=(3, 4)), reals(4)),
        P("checkpointing", lambda: With(checkpointed, body=nn.Linear(4, 4), head=nn.Linear(4, 3)), reals(4)),
        P("control-flow", lambda: With(by_sign, a=nn.Linear(4, 3), b=nn.Linear(4, 3)), reals(4)),
        P("data-dependent-depth", lambda: With(until_small, step=nn.Linear(4, 4), head=nn.Linear(4, 3)), reals(4)),
        P("straight-through", lambda: With(straight_through, a=nn.Linear(4, 4), b=nn.Linear(4, 3)), reals(4)),
        P("partly-no-grad", lambda: With(partly_without_gradient, a=nn.Linear(4, 4), b=nn.Linear(4, 3)), reals(4)),
        P(
            "inplace-everywhere",
            lambda: With(inplace_everywhere, a=nn.Linear(4, 5), b=nn.Linear(5, 4), c=nn.Linear(4, 3)),
            reals(4),
        ),
        P("input-changed-after-use", scale_kept_of_changed_input, reals(4)),
        # inputs that are not one tensor
        P("dictionary-input", lambda: With(dictionary, a=nn.Linear(4, 3), b=nn.Linear(6, 3)), draw_dictionary),
        P(
            "tuple-input",
            lambda: With(lambda m, a, b: m.a(a).mean(1) * m.b(b).sum(1), a=nn.Linear(4, 3), b=nn.Linear(4, 3)),
            draw_pair,
        ),
        P("nested-input", mlp, draw_nested, forward=nested_call),
    )


PROBLEMS: dict[str, Problem] = {problem.name: problem for problem in table()}

#: One problem for each rule and each way of computing: rows of a linear map, windows, transposed ones, scales and shifts,
#: a tied table, a table looked up twice, gates, heads, a weight used both ways, a weight that is computed, a loop over
#: samples, and a constant linear map behind the last layer.
RULES = (
    "mlp",
    "lenet-inplace",
    "conv-transposed-grouped",
    "resnet-batch-norm",
    "gpt-tied",
    "embedding-reused",
    "lstm",
    "einsum-heads",
    "tied-autoencoder",
    "weight-norm",
    "control-flow",
    "standardised-targets",
)
