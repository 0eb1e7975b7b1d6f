"""The NTK of one hidden layer of ReLUs whose biases start at one constant."""

from __future__ import annotations

import torch
from scipy.special import ndtr, owens_t
from torch import Tensor

from kerneltrack.ntk.analytic.covariances import gap_of, safe_ratio
from kerneltrack.ntk.analytic.points import paired


def biased_relu_ntk(x1: Tensor, x2: Tensor | None = None, *, bias: float) -> Tensor:
    """Θ of m^−½ Σ_r a_r relu(w_r·x − b_r), m → ∞: w ~ N(0, I) and b = B are trained, a = ±1 is not, (N1, N2).

        Θ(x, x') = (x·x' + 1) P(g ≥ h, g' ≥ k),   h = B/‖x‖, k = B/‖x'‖
        P(g ≥ h, g' ≥ k) = ½Φ(−h) + ½Φ(−k) − T(h, (k/h − ρ)/√(1−ρ²)) − T(k, (h/k − ρ)/√(1−ρ²))

    (g, g') is normal with the cosine ρ of x and x' for its correlation: P is how often both gates are open, and T is Owen's
    function (Owen 1956). On the unit sphere P = Φ(−B) − 2T(B, √((1−ρ)/(1+ρ))), and (π − arccos ρ)/2π where B = 0. The
    bias-generalised NTK of Yang et al. 2023 (arXiv 2301.00327). P is a difference, right to about 1e-16: where B is so large that
    it is smaller, no digit of it is.

    Args:
        x1: (N1, d).
        x2: (N2, d); None is x1.
        bias: B, the threshold of every gate at initialisation. The larger, the fewer are open.

    Returns:
        In the dtype of ``x1``, on its device; no gradient reaches the points.

    Raises:
        KernelError: shapes that do not fit.
    """
    first, second = (x.detach().double().cpu() for x in paired(x1, x2))
    n1, n2 = first.norm(dim=1, keepdim=True), second.norm(dim=1, keepdim=True).T
    distance = torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist").square()
    delta = safe_ratio(gap_of(n1**2, n2**2, distance), n1 * n2).clamp(0, 2)
    sine, tiny = (delta * (2 - delta)).sqrt(), torch.finfo(torch.float64).tiny
    # A point of norm zero has its gates open or closed whatever the weights are: a threshold of ±∞.
    n1, n2 = n1.clamp_min(tiny**0.25), n2.clamp_min(tiny**0.25)
    h, k = (bias / norm + torch.zeros_like(delta) for norm in (n1, n2))
    missing = [
        owens_t(own, ((ratio - 1 + delta) / sine.clamp_min(tiny)).numpy())
        for own, ratio in ((h.numpy(), n1 / n2), (k.numpy(), n2 / n1))
    ]
    both = torch.from_numpy(0.5 * ndtr(-h.numpy()) + 0.5 * ndtr(-k.numpy()) - missing[0] - missing[1]).clamp(0, 1)
    return ((first @ second.T + 1) * both).to(x1)
