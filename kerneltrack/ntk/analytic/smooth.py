"""Any smooth activation, by its Hermite series: E[φ(u)φ(v)] of centred normal u and v without a closed form."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from kerneltrack.errors import KernelError
from kerneltrack.ntk.analytic.covariances import Covariances, Moments, gap_of

#: Nodes of the quadratures that are tried one after another; each is used for as many terms.
ORDERS = 128, 256, 512, 1024, 2048
#: Where the normal density ends: e^{−13²/4}, which every integrand has, is 5e-19.
END = 13.0
#: Terms that together are a smaller share than this are left out; below the rounding of float64.
NOTHING = 1e-17
#: Standard deviations, between the smallest and the largest at hand, at which a quadrature is judged.
JUDGED = 9


@dataclass(frozen=True)
class Smooth:
    """φ by Mehler's formula, with h_k the normalised Hermite polynomials and g ~ N(0, 1).

        E[φ(u)φ(v)] = Σ_k a_k(p) a_k(q) ρ^k,   a_k(p) = E[φ(√p g) h_k(g)],   E[φ'(u)φ'(v)] the same of φ'

    Coefficients come from the trapezoidal rule in float64, whose error falls exponentially with the number of nodes where φ is
    analytic (Trefethen & Weideman 2014); it is doubled until two rules agree and the terms suffice (:meth:`order_for`).
    No gradient reaches the points.

    Attributes:
        function: φ, of each entry alone, which autograd can differentiate.
        tolerance: how far E[φφ] may be off, as a share of the largest E[φ²], and E[φ'φ'] as one of the largest E[φ'²]; and how
            far E[φ'φ'] from ∂E[φφ]/∂c.
    """

    function: Callable[[Tensor], Tensor]
    tolerance: float = 1e-10

    def moments(self, layer: Covariances) -> Moments:
        """Of φ at these pre-activations.

        Raises:
            KernelError: φ is no function of each entry, is not finite or not smooth enough.
        """
        order, terms = self.order_for(torch.cat([layer.one.flatten(), layer.two.flatten()]))
        (a, a_slope), (b, b_slope) = (self.coefficients(v, order, terms) for v in (layer.one, layer.two))
        apart = layer.apart.double()
        power, missing = torch.ones_like(apart), torch.zeros_like(apart)  # ρ^k and 1 − ρ^k
        squared, slopes = torch.zeros_like(apart), torch.zeros_like(apart)
        for k in range(terms):
            product = a[..., k] * b[..., k]
            squared += (a[..., k] - b[..., k]).square() + 2 * product * missing
            slopes += a_slope[..., k] * b_slope[..., k] * power
            missing += power * apart
            power *= 1 - apart
        one, two = a.square().sum(-1), b.square().sum(-1)
        gap = gap_of(one, two, squared)
        found = Moments(one, two, (one * two).sqrt() - gap, gap, slopes)
        return Moments(*(part.to(layer.both.dtype) for part in found))

    def coefficients(self, variance: Tensor, order: int, terms: int) -> tuple[Tensor, Tensor]:
        """a_k(p) and those of φ', k < ``terms``, each (…, terms), by so many nodes."""
        basis = _basis(order)[:, :terms].to(variance.device)
        values, slopes = (part @ basis for part in self._weighted(variance, order))
        return values, slopes

    def order_for(self, variances: Tensor) -> tuple[int, int]:
        """Nodes and terms that are enough for these variances.

        Judged by what two rules are apart in E[φφ] and E[φ'φ'] at any ρ, p and q, by what the terms leave out of E[φ²] and
        E[φ'²], and by what √p a_{k−1} of φ' and √k a_k, which are equal (integration by parts), are apart.

        Raises:
            KernelError: none of :data:`ORDERS` is.
        """
        ends = variances.detach().double().sqrt()
        judged = torch.linspace(float(ends.min()), float(ends.max()), JUDGED, dtype=torch.float64) ** 2
        coarse = self.coefficients(judged, ORDERS[0], ORDERS[0])
        error = math.inf
        for order in ORDERS[1:]:
            fine = self.coefficients(judged, order, order)
            error = _apart(*_by_parts(judged, *fine))
            error += sum(_apart(old, new[:, : old.shape[1]]) for old, new in zip(coarse, fine, strict=True))
            error += sum(map(_left_out, self._weighted(judged, order), fine))
            if error <= self.tolerance:
                return order, _terms(fine)
            coarse = fine
        raise KernelError(
            "the activation is not smooth enough for its Hermite series",
            expected=f"E[φφ] and E[φ'φ'] to {self.tolerance:g} of the largest",
            got=f"{error:.1e} with {ORDERS[-1]} terms, pre-activations of standard deviation up to {float(ends.max()):.3g}",
            where="the analytic kernel",
            remedy="Kinks with a closed form have a name: 'relu', 'leaky_relu', 'abs', or PiecewiseLinear(slope). Else allow "
            "more: Smooth(function, tolerance=1e-6).",
        )

    def _weighted(self, variance: Tensor, order: int) -> tuple[Tensor, Tensor]:
        """√w φ(√p x) and √w φ'(√p x) at the nodes x, (…, order): the square of one sums to E[φ²]."""
        nodes = _nodes(order).to(variance.device)
        root = _root(nodes)
        values, slopes = self._derivative(variance.detach().double().sqrt().unsqueeze(-1) * nodes)
        return root * values, root * slopes

    def _derivative(self, points: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            points = points.detach().requires_grad_()
            values = self.function(points)
            if values.shape != points.shape or not values.requires_grad:
                raise KernelError(
                    "an activation is a function of each entry that autograd can differentiate",
                    expected=f"{tuple(points.shape)}, with a gradient",
                    got=f"{tuple(values.shape)}, {'with' if values.requires_grad else 'without'} one",
                    where=repr(self.function),
                    remedy="Make it of torch's functions, without detach() or NumPy.",
                )
            (slopes,) = torch.autograd.grad(values.sum(), points)
        return values.detach(), slopes


def _nodes(order: int) -> Tensor:
    return torch.linspace(-END, END, order, dtype=torch.float64)


def _root(nodes: Tensor) -> Tensor:
    """√w: the root of the normal density times what nodes are apart."""
    return torch.exp(-nodes.square() / 4) * ((nodes[1] - nodes[0]) / math.sqrt(2 * math.pi)).sqrt()


@functools.lru_cache(maxsize=len(ORDERS))
def _basis(order: int) -> Tensor:
    """√w_i h_k(x_i), (n, n), k along the second axis; orthonormal, and at most 1 where h_k itself overflows."""
    nodes = _nodes(order)
    rows = [_root(nodes), nodes * _root(nodes)]
    for k in range(1, order - 1):
        rows.append((nodes * rows[k] - k**0.5 * rows[k - 1]) / (k + 1) ** 0.5)
    return torch.stack(rows, 1)


def _apart(first: Tensor, second: Tensor) -> float:
    """How far Σ_k a_k(p) a_k(q) ρ^k is apart at most by two sets of coefficients (points, K), as a share of its largest value."""
    change, size = (first - second).abs().amax(0), (first.abs() + second.abs()).amax(0)
    largest = float(second.square().sum(1).max())
    return float((change * size).sum()) / (largest or 1.0)


def _left_out(weighted: Tensor, coefficients: Tensor) -> float:
    """The share of E[φ²] that is in no term, at the worst point; at most that is missing at ρ = ±1, and less between."""
    whole, held = weighted.square().sum(1), coefficients.square().sum(1)
    return float((whole - held).max()) / (float(whole.max()) or 1.0)


def _by_parts(variances: Tensor, values: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor]:
    """√p E[φ' h_{k−1}] and √k E[φ h_k], k = 1, …; they are the same."""
    k = torch.arange(1, values.shape[-1], dtype=values.dtype)
    return k.sqrt() * values[:, 1:], variances.sqrt().unsqueeze(1) * slopes[:, :-1]


def _terms(coefficients: tuple[Tensor, Tensor]) -> int:
    """How many terms there are before all that follow are :data:`NOTHING`."""
    squares = [part.square().amax(0) for part in coefficients]
    tails = [part.flip(0).cumsum(0).flip(0) for part in squares]
    return max(int((tail > NOTHING * tail[0]).sum()) for tail in tails) or 1
