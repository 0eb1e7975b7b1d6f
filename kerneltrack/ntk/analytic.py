"""Infinite width and infinitely small steps, in closed form.

ReLU NTK and NNGP, the NTK of one hidden layer whose biases start at one constant, gradient flow on a fixed kernel.

Kernels of h^1 = σ_w x Wᵀ/√d + σ_b b, h^{l+1} = σ_w relu(h^l) Wᵀ/√m + σ_b b with every parameter N(0, 1) and
trained (Jacot, Gabriel, Hongler 2018, arXiv 1806.07572; arc-cosine kernels of Cho & Saul 2009), as the width
m goes to infinity.
"""

from __future__ import annotations

import torch
from scipy.special import ndtr, owens_t
from torch import Tensor

from kerneltrack.errors import KernelError


def relu_ntk(
    x1: Tensor, x2: Tensor | None = None, *, depth: int, weight_variance: float = 2.0, bias_variance: float = 0.0
) -> Tensor:
    """Θ of the infinitely wide fully connected ReLU network, (N1, N2); the kernel of all outputs is Θ ⊗ I_O.

        Σ^1 = Θ^1 = σ_w² x·x'/d + σ_b²
        Σ^{l+1} = (σ_w²/2) √(Σ^l(x,x) Σ^l(x',x')) κ_1(ρ^l) + σ_b²,   Θ^{l+1} = Σ^{l+1} + (σ_w²/2) κ_0(ρ^l) Θ^l
        κ_0(ρ) = (π − arccos ρ)/π,   κ_1(ρ) = (√(1−ρ²) + ρ (π − arccos ρ))/π

    Args:
        x1: (N1, d).
        x2: (N2, d); None is x1.
        depth: number of weight layers L ≥ 1; L − 1 of them are followed by a ReLU.
        weight_variance: σ_w².
        bias_variance: σ_b².

    Raises:
        KernelError: shapes that do not fit, or depth below 1.
    """
    return _recursion(x1, x2, depth, weight_variance, bias_variance)[1]


def relu_nngp(
    x1: Tensor, x2: Tensor | None = None, *, depth: int, weight_variance: float = 2.0, bias_variance: float = 0.0
) -> Tensor:
    """Σ^L, the covariance of the outputs of the same network at initialisation, (N1, N2).

    Arguments as :func:`relu_ntk`.
    """
    return _recursion(x1, x2, depth, weight_variance, bias_variance)[0]


def _recursion(
    x1: Tensor, x2: Tensor | None, depth: int, weight_variance: float, bias_variance: float
) -> tuple[Tensor, Tensor]:
    x2 = _second(x1, x2)
    if depth < 1:
        raise KernelError("the analytic kernel needs a depth", expected="depth >= 1", got=depth)
    d = x1.shape[1]
    norm1 = weight_variance * x1.square().sum(1, keepdim=True) / d + bias_variance
    norm2 = weight_variance * x2.square().sum(1, keepdim=True).T / d + bias_variance
    sigma = weight_variance * x1 @ x2.T / d + bias_variance
    scale = (norm1 * norm2).sqrt()
    delta = _one_minus_correlation(x1, x2, norm1, norm2, scale, weight_variance / d)
    theta = sigma
    for _ in range(depth - 1):
        angle = 2 * torch.asin((delta / 2).sqrt())
        growth = _kappa1_gap(angle)  # κ_1(ρ) = ρ + growth, without the cancellation near ρ = 1
        half = weight_variance / 2
        sigma = half * scale * (1 - delta + growth) + bias_variance
        theta = sigma + half * (1 - angle / torch.pi) * theta
        new1, new2 = half * norm1 + bias_variance, half * norm2 + bias_variance
        new_scale = (new1 * new2).sqrt()
        # 1 − ρ' from 1 − ρ: the bias term b adds (√(p q) − s − b) with p = s_1 + b, q = s_2 + b, kept
        # positive by its own form.
        gap = half * scale * (delta - growth) + _bias_gap(
            half * norm1, half * norm2, bias_variance, new_scale, half * scale
        )
        delta = _safe_ratio(gap, new_scale).clamp(0, 2)
        norm1, norm2, scale = new1, new2, new_scale
    return sigma, theta


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
    x2 = _second(x1, x2)
    first, second = (x.detach().double().cpu() for x in (x1, x2))
    n1, n2 = first.norm(dim=1, keepdim=True), second.norm(dim=1, keepdim=True).T
    delta = _one_minus_correlation(first, second, n1**2, n2**2, n1 * n2, 1.0)
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


def _second(x1: Tensor, x2: Tensor | None) -> Tensor:
    """``x2``, or ``x1`` for None.

    Raises:
        KernelError: they are no points of one dimension.
    """
    x2 = x1 if x2 is None else x2
    if x1.dim() != 2 or x2.dim() != 2 or x1.shape[1] != x2.shape[1] or x1.shape[1] == 0:
        raise KernelError(
            "the analytic kernel needs points of one dimension",
            expected="(N1, d), (N2, d)",
            got=(tuple(x1.shape), tuple(x2.shape)),
            remedy="Flatten images first: x.flatten(1).",
        )
    return x2


def _one_minus_correlation(
    x1: Tensor, x2: Tensor, norm1: Tensor, norm2: Tensor, scale: Tensor, factor: float
) -> Tensor:
    """1 − ρ^1 = (σ_w²‖x − x'‖²/d − (√Σ(x,x) − √Σ(x',x'))²) / (2 √(Σ(x,x) Σ(x',x'))), from differences.

    Taken as 1 − cos θ it would cancel.
    """
    distance = torch.cdist(x1, x2, compute_mode="donot_use_mm_for_euclid_dist").square() * factor
    radial = (norm1.sqrt() - norm2.sqrt()).square()
    return _safe_ratio((distance - radial) / 2, scale).clamp(0, 2)


def _bias_gap(s1: Tensor, s2: Tensor, bias: float, new_scale: Tensor, old_scale: Tensor) -> Tensor:
    """√((s_1+b)(s_2+b)) − √(s_1 s_2) − b = b (√s_1 − √s_2)² / (√((s_1+b)(s_2+b)) + √(s_1 s_2) + b)."""
    if bias == 0:
        return torch.zeros_like(new_scale)
    return bias * (s1.sqrt() - s2.sqrt()).square() / (new_scale + old_scale + bias)


def _safe_ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """A point of norm zero has no angle.

    It is taken as its own direction, ρ = 1 (its kernel entries are zero anyway).
    """
    ratio: Tensor = numerator / denominator.clamp_min(torch.finfo(denominator.dtype).tiny)
    return ratio.where(denominator > 0, 0.0)


def _kappa1_gap(angle: Tensor) -> Tensor:
    """κ_1(cos θ) − cos θ = (sin θ − θ cos θ)/π.

    By its series below θ = 0.05 where the difference would cancel.
    """
    series = angle**3 * (1 / 3 - angle**2 / 30 + angle**4 / 840)
    gap: Tensor = series.where(angle < 0.05, torch.sin(angle) - angle * torch.cos(angle)) / torch.pi
    return gap


def gradient_flow(
    kernel: Tensor,
    targets: Tensor,
    outputs: Tensor,
    time: float,
    *,
    test_kernel: Tensor | None = None,
    test_outputs: Tensor | None = None,
) -> Tensor:
    """Outputs at ``time`` of gradient flow on ½‖u − y‖² with a fixed kernel, at learning rate 1.

        u_t = y + e^{−Θt}(u_0 − y),   f_t(x) = f_0(x) + Θ(x, X) V [w(λ) ∘ Vᵀ(y − u_0)],   w(λ) =
        −expm1(−λt)/λ, w(0) = t

    Never through Θ⁻¹: one duplicated sample makes it singular, and w is finite there. For a learning rate η
    pass ηt; for the mean loss divide by N. ``time=inf`` is the limit, in which directions of eigenvalue 0
    stay as they are.

    Args:
        kernel: Θ(X, X), (N, N), acting on every output alone; for the full kernel flatten it to (NO, NO).
        targets: y, (N,) or (N, O).
        outputs: u_0 of the same shape.
        time: t ≥ 0.
        test_kernel: Θ(x, X), (M, N).
        test_outputs: f_0(x), (M,) or (M, O); zero where left out.

    Returns:
        u_t, or f_t(x) when ``test_kernel`` is given.

    Raises:
        KernelError: shapes that do not fit, or a negative time.
    """
    if (
        kernel.dim() != 2
        or kernel.shape[0] != kernel.shape[1]
        or targets.shape != outputs.shape
        or targets.shape[0] != kernel.shape[0]
    ):
        raise KernelError(
            "kernel, targets and outputs do not fit",
            expected="(N, N), (N, …), (N, …)",
            got=(tuple(kernel.shape), tuple(targets.shape), tuple(outputs.shape)),
        )
    if not time >= 0:
        raise KernelError("time must not be negative", got=time)
    values, vectors = torch.linalg.eigh((kernel + kernel.T) / 2)
    values = values.clamp_min(0)
    floor = torch.finfo(values.dtype).eps * kernel.shape[0] * values.max()
    residual = (targets - outputs).reshape(kernel.shape[0], -1)
    modes = vectors.T @ residual
    if test_kernel is None:
        decay = (values <= floor).to(values.dtype) if time == float("inf") else torch.exp(-values * time)
        reached: Tensor = targets.reshape(kernel.shape[0], -1) - vectors @ (decay.unsqueeze(1) * modes)
        return reached.reshape(targets.shape)
    weights = _filter(values, time, floor)
    change: Tensor = test_kernel @ (vectors @ (weights.unsqueeze(1) * modes))
    shape = (test_kernel.shape[0], *targets.shape[1:])
    start = torch.zeros(shape, dtype=change.dtype, device=change.device) if test_outputs is None else test_outputs
    return start + change.reshape(shape)


def _filter(values: Tensor, time: float, floor: Tensor) -> Tensor:
    """w(λ) = −expm1(−λt)/λ; at t = ∞ the pseudo-inverse, above the rounding floor."""
    if time == float("inf"):
        return (values > floor) / values.clamp_min(torch.finfo(values.dtype).tiny)
    positive = values.clamp_min(torch.finfo(values.dtype).tiny)
    weights: Tensor = -torch.expm1(-positive * time) / positive
    return weights.where(values > 0, time)
