"""The NTK and the NNGP of convolutional networks of infinitely many channels whose readout sees every pixel."""

from __future__ import annotations

import itertools
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from kerneltrack.errors import KernelError
from kerneltrack.ntk.analytic.activations import Activation, dual_of
from kerneltrack.ntk.analytic.covariances import Covariances
from kerneltrack.ntk.analytic.recursion import Network, Window, checked

#: What lies beyond the border of an image: zeros, or its other side.
Padding = Literal["zeros", "circular"]


def cnn_ntk(
    x1: Tensor,
    x2: Tensor | None = None,
    *,
    depth: int,
    activation: Activation,
    kernel_size: int,
    padding: Padding = "zeros",
    weight_variance: float,
    bias_variance: float = 0.0,
    by_layer: bool = False,
) -> Tensor:
    """Θ of the CNN of infinitely many channels with a vectorised readout, (N1, N2); that of all outputs is Θ ⊗ I_O.

        h^1_α = σ_w/√(k²C) Σ_β W_{β−α} x_β + σ_b b,   h^{l+1}_α = σ_w/√(k²m) Σ_β W_{β−α} φ(h^l_β) + σ_b b,
        f = σ_w/√(PM) Σ_α w_α φ(h^{L−1}_α) + σ_b b

    with k × k kernels of stride 1 around each of P pixels α, m channels → ∞ and every parameter N(0, 1). Without pooling only
    covariances of a pixel with the same pixel of another image are needed (Novak et al. 2019, arXiv 1810.05148;
    Arora et al. 2019, arXiv 1904.11955):

        Σ^{l+1}_α = σ_w² ⟨E[φφ]_β⟩ + σ_b²,   Θ^{l+1}_α = Σ^{l+1}_α + σ_w² ⟨E[φ'φ']_β Θ^l_β⟩

    with ⟨⟩ the mean over the k² places of the window, beyond the border 0 or the other side; over all pixels for the readout.
    Memory is that of a few tensors (N1, N2, P), with ``by_layer`` of one more for each layer.

    Args:
        x1: images (N1, C, height, width).
        x2: (N2, C, height, width); None is x1.
        depth: number of weight layers L ≥ 1: L − 1 convolutions, each followed by φ, and the readout.
        activation: φ, as :func:`ntk` has it.
        kernel_size: k, odd.
        padding: "zeros" or "circular": k // 2 pixels of it on each side, so that images keep their size.
        weight_variance: σ_w².
        bias_variance: σ_b²; 0 is without biases.
        by_layer: each layer's part (L, N1, N2), the first layer's first.

    Returns:
        In the dtype of ``x1``.

    Raises:
        KernelError: no images of one shape, an even kernel, one too large to wrap around, and what :func:`ntk` refuses.
    """
    network = _network(x1, x2, depth, activation, kernel_size, padding, weight_variance, bias_variance)
    return network.layer_ntks() if by_layer else network.ntk()


def cnn_nngp(
    x1: Tensor,
    x2: Tensor | None = None,
    *,
    depth: int,
    activation: Activation,
    kernel_size: int,
    padding: Padding = "zeros",
    weight_variance: float,
    bias_variance: float = 0.0,
) -> Tensor:
    """Σ^L, the covariance of the outputs of the same network at initialisation, (N1, N2).

    Arguments and errors as :func:`cnn_ntk`.
    """
    return _network(x1, x2, depth, activation, kernel_size, padding, weight_variance, bias_variance).nngp()


def _network(
    x1: Tensor,
    x2: Tensor | None,
    depth: int,
    activation: Activation,
    kernel_size: int,
    padding: Padding,
    weight: float,
    bias: float,
) -> Network:
    x2 = x1 if x2 is None else x2
    checked(depth, weight, bias)
    if x1.dim() != 4 or x2.dim() != 4 or x1.shape[1:] != x2.shape[1:] or 0 in x1.shape[1:]:
        raise KernelError(
            "a CNN's kernel needs images of one shape",
            expected="(N1, C, height, width), (N2, C, height, width)",
            got=(tuple(x1.shape), tuple(x2.shape)),
            remedy="Give grey images their axis of channels: x.unsqueeze(1).",
        )
    window, *above = [*itertools.repeat(_window(kernel_size, padding, x1.shape[2:]), depth - 1), _everywhere]
    share = weight / x1.shape[1]
    one, two = (x.square().sum(1, keepdim=True) for x in (x1, x2))
    both = torch.einsum("nchw,mchw->nmhw", x1, x2)
    squared = torch.zeros_like(both)
    for channel in range(x1.shape[1]):
        squared += (x1[:, channel].unsqueeze(1) - x2[:, channel]).square()
    one, two, both = (share * window(value) + bias for value in (one, two.transpose(0, 1), both))
    first = Covariances.at_distance(one, two, both, share * window(squared))
    return Network(first, above, dual_of(activation), weight, bias)


def _window(kernel_size: int, padding: Padding, size: tuple[int, ...]) -> Window:
    """The mean over the k × k pixels around each one.

    Raises:
        KernelError: there is no such window, or it goes once around the image.
    """
    reach = kernel_size // 2
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise KernelError(
            "a window has a pixel in its middle",
            expected="an odd kernel_size",
            got=kernel_size,
            remedy="Take one more or one less.",
        )
    if padding == "zeros":
        return lambda value: avg_pool2d(value, kernel_size, stride=1, padding=reach)
    if padding == "circular" and reach <= min(size):
        return lambda value: avg_pool2d(pad(value, (reach,) * 4, mode="circular"), kernel_size, stride=1)
    raise KernelError(
        "no such padding",
        expected=f"zeros, or circular with kernel_size <= {2 * min(size) + 1}",
        got=f"{padding}, kernel_size {kernel_size}",
        remedy="Name it as padding_mode of torch.nn.Conv2d does.",
    )


def _everywhere(value: Tensor) -> Tensor:
    """The mean over all pixels."""
    return value.mean((-2, -1))
