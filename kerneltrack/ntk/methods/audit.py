"""The audit: Θ v by the kernel against J (Jᵀ v) along a random v, on calls 1, 2, 4, 8, … of every plan, by every method.

A plan that left out a use of a parameter, or counted one twice, fails here with probability one; what it
leaves out cannot hide, because v mixes all pairs. The reference knows nothing of plans.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from kerneltrack.errors import AuditError
from kerneltrack.ntk.methods.request import KernelRequest
from kerneltrack.ntk.methods.verdict import agree, refuse_causes, rounding
from kerneltrack.ntk.network import Inputs, Network, PlainPass, direction, is_plain, layer_of, squares

#: For each module: plan → how many kernels were computed by it.
_CALLS: WeakKeyDictionary[nn.Module, dict[Any, int]] = WeakKeyDictionary()
_REMEMBERED = 256
#: How often v is shortened sixteenfold: float16 ends at 2¹⁶, and loses digits below 2⁻¹⁴.
_SHORTENED = 5
#: A plain pass confirms where it differs by so many times less than rounding may: 30 times less was seen, and what is not confirmed
#: is asked by passes.
_SURE = 8


def audit_when_due(
    job: KernelRequest, matrices: Mapping[str, Tensor], plan: tuple[object, ...] | None, other: Network | None = None
) -> None:
    """The audit, on calls 1, 2, 4, 8, … of a plan: what a plan rests on may change without being seen.

    Args:
        job: what was asked.
        matrices: layer → what came of it.
        plan: the structured plan's key; None where plain autodiff did everything.
        other: the network of the second samples, where it is another.
    """
    _when_due(job, (plan, job.method, job.by_layer, other is None), lambda: audit(job, matrices, other))


def audit_products_when_due(job: KernelRequest, times: Callable[[Tensor], Tensor], *, by: str) -> None:
    """The audit of an operator, on products 1, 2, 4, 8, … of every plan.

    Args:
        job: what the operator is of.
        times: Θ v for v (N, O), or (N, 1) for a trace.
        by: "passes" or "factors": how it does that.
    """
    _when_due(job, (by,), lambda: audit_products(job, times, by))


def _when_due(job: KernelRequest, how: tuple[object, ...], look: Callable[[], bool]) -> None:
    calls = _CALLS.setdefault(job.network.module, {})
    if len(calls) > _REMEMBERED:
        calls.clear()
    key = _key(job, how)
    count = calls.get(key, 0) + 1
    if not _is_due(count) or look():  # one that says nothing of the plan is repeated with the next call
        calls[key] = count


def audit_key(job: KernelRequest, plan: tuple[object, ...] | None) -> tuple[Any, ...]:
    """Under which the calls of a plan are counted; it holds nothing of the module."""
    return _key(job, (plan, job.method, job.by_layer, True))


def passed_over(module: nn.Module, key: tuple[Any, ...]) -> bool:
    """Counts a call of which no audit is due; False where one is, or where none was counted yet."""
    calls = _CALLS.get(module, {})
    count = calls.get(key, 0) + 1
    if _is_due(count):
        return False
    calls[key] = count
    return True


def _key(job: KernelRequest, how: tuple[object, ...]) -> tuple[Any, ...]:
    return how, job.network.plan_key(job.x1), (job.reduction.kind, job.x2 is None, job.metric is None, job.dtype)


def _is_due(count: int) -> bool:
    return count & (count - 1) == 0


def audit_products(job: KernelRequest, times: Callable[[Tensor], Tensor], by: str) -> bool:
    """Compares Θ v of a few samples, in the midst of all of them, with what these give one by one.

    v is zero for all others, so that the reference needs few passes; a batch that is mixed shows all the same.

    Returns:
        Whether that says anything; see :func:`audit`.

    Raises:
        UnsupportedModelError, KernelError, AuditError: as :func:`audit`.
    """
    count, outputs = len(job.x1), 1 if job.reduction.kind == "trace" else job.outputs
    chosen = sorted({0, count // 2, count - 1})
    few = job.x1.pick(chosen)
    own = _direction(replace(job, x1=few), len(few))
    v = own.new_zeros(count, outputs, dtype=job.network_dtype)
    v[chosen] = (own[:1].view(len(few), -1) if job.reduction.kind == "full" else own[:1].T).to(v.dtype)
    own = v[chosen].to(job.dtype).reshape(1, -1) if job.reduction.kind == "full" else v[chosen, :1].T.to(job.dtype)

    def reference() -> Tensor:
        with job.network.one_by_one():
            return _by_products(job, few, few, own, None, by_rows=by == "passes")

    found, expected = times(v)[chosen].to(job.dtype), reference()
    found = found.reshape(1, -1) if job.reduction.kind == "full" else found.T
    if not bool(expected.isfinite().all()):
        return False  # beyond the range of half precision, where nothing can be compared
    limit = rounding(job.network_dtype, float(torch.maximum(found.abs(), expected.abs()).max()))
    same, telling = agree(found, expected, limit, [job.network], few, own, reference)
    if not same:
        refuse_causes(job.network, job.x1)
        raise AuditError(
            f"products by {by} disagree with plain autodiff of a few samples, and neither coupled samples nor random numbers "
            "nor gradient hooks are why",
            expected=f"a difference below {limit:.3g}",
            got=f"{float((found - expected).abs().max()):.3g}",
            remedy="Report the model: this is a defect of kerneltrack.",
        )
    return telling


def _plain_pass(job: KernelRequest) -> PlainPass | None:
    """That of a first look, or a new one; None where passes with J say more.

    Nothing of it is forward mode. That is another way to a derivative: it tells a backward pass that is not the derivative from one
    that is, and of that the witness is asked anew, with one sample. What an audit is of is the plan, and whatever it
    does wrong is not in plain autodiff of ordinary batches. Forward mode takes as long as both passes of reverse mode, and
    torch imports a second's worth of its compiler when it first meets a norm there.
    """
    if job.first is not None:
        return job.first.plain
    network, samples = job.network, job.x1
    if not job.is_audited_by_pulls:
        return None
    with network.evaluating():
        alike = is_plain(network, samples) and network.sees_the_same(samples)
        return PlainPass.of(network, samples) if alike else None


def agrees_with_plain_pass(job: KernelRequest, matrices: Mapping[str, Tensor], plain: PlainPass | None) -> bool:
    """Whether a plain pass of all samples confirms the kernel; where it does not, :func:`audit` says why.

        vᵀΘv = ⟨Jᵀv, P Jᵀv⟩,    uᵀΘv = ⟨Jᵀu, P Jᵀv⟩,    uᵀΘu = ⟨Jᵀu, P Jᵀu⟩

    v is random and mixes all pairs, u is that of a few samples, which were run alone. Rounding of an entry is relative to
    √(Θ_nn Θ_mm), and of different entries is not the same, so that √(Σ v²Θ_nn Σ w²Θ_mm) bounds what it does to vᵀΘw: a pair
    that is wrong shows here as it does in Θv.

    Args:
        job: what was asked.
        matrices: layer → (1, N·O, N·O), complete.
        plain: of all samples; None where there is none, and nothing is confirmed.
    """
    if plain is None or not plain.is_of(job.x1):
        return False
    u = torch.zeros_like(plain.v)
    u[list(plain.alone)] = plain.u.to(u)
    vectors = torch.stack([plain.v.flatten(), u.flatten()]).to(job.dtype)
    products = sum((m[0] @ vectors.T for m in matrices.values()), torch.zeros_like(vectors.T)).double()
    diagonal = sum((m[0].diagonal() for m in matrices.values()), torch.zeros_like(vectors[0])).double()
    pulled = plain.pulled, plain.pulled_alone
    sizes = (vectors.double().square() @ diagonal).clamp(min=0).tolist()
    for a, b in ((0, 0), (0, 1), (1, 1)):
        found = float(vectors[a].double() @ products[:, b])
        expected = _inner(job, pulled[a], pulled[b])
        scale = (sizes[a] * sizes[b]) ** 0.5
        if not (scale > 0 and abs(found - expected) <= rounding(job.network_dtype, scale) / _SURE):
            return False
    return plain.is_repeated(job.network)


def _agrees_with_squares(job: KernelRequest, matrices: Mapping[str, Tensor], few: Inputs, rows: slice) -> bool:
    """The same of a trace or a diagonal of samples with themselves: vᵀΘv = Σ_o ⟨J_oᵀv, P J_oᵀv⟩ of a few, v zero for all others."""
    network = job.network
    with network.evaluating():
        if len(few) > network.chunk_rows(few) or not is_plain(network, few) or not network.sees_the_same(few):
            return False
        v = direction(len(few), few.tensors[0].new_zeros(1, 1, dtype=job.dtype))[:, 0]
        expected = squares(network, few, v, _weights(job, network.parameters))
    for plane, own in enumerate([expected.sum()] if job.planes == 1 else expected):
        theta = torch.stack([matrix[plane][rows, rows] for matrix in matrices.values()]).sum(0)
        found, scale = float((v @ theta @ v).double()), float((v.square() * theta.diagonal()).sum().clamp(min=0))
        if not (scale > 0 and abs(found - float(own)) <= rounding(job.network_dtype, scale) / _SURE):
            return False
    return True


def _inner(job: KernelRequest, left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> float:
    """⟨a, P b⟩ over all parameters."""
    weights = _weights(job, left)
    return sum(float((left[k].double() * weights[k] * right[k]).sum()) for k in left)


def _weights(job: KernelRequest, names: Iterable[str]) -> Mapping[str, float | Tensor]:
    """P."""
    return dict.fromkeys(names, 1.0) if job.metric is None else job.metric


def audit(job: KernelRequest, matrices: Mapping[str, Tensor], other: Network | None = None) -> bool:
    """Compares the kernel with plain autodiff along one random direction: by a plain pass, or by products with J.

    Args:
        job: what was asked.
        matrices: layer → (B, N1·Q, N2·Q), complete.
        other: the network of the second samples, where it is not the job's; J_other takes the place of J on that side.

    Returns:
        Whether that says anything of the plan: a kernel that is zero, or rounding, is not told from another one.

    Raises:
        UnsupportedModelError: the model couples samples, or is random; that is looked for before a plan is blamed.
        KernelError: its backward passes are not its derivative.
        AuditError: they differ for no such reason; the message has every layer's share of the reference.
    """
    if other is None and agrees_with_plain_pass(job, matrices, _plain_pass(job)):
        return True
    if job.reduction.kind == "full":
        return _compare(job, matrices, job.x1, job.x1 if job.x2 is None else job.x2, slice(None), slice(None), other)
    # O products for each direction: as many samples as cost no more than one direction of the full kernel.
    rows, columns = _some(len(job.x1), job.outputs), _some(job.columns, job.outputs)
    left = job.x1.map(lambda t: t[rows])
    if other is None and job.x2 is None and _agrees_with_squares(job, matrices, left, rows):
        return True
    right = (job.x1 if job.x2 is None else job.x2).map(lambda t: t[columns])
    return _compare(job, matrices, left, right, rows, columns, other)


def _some(count: int, outputs: int) -> slice:
    return slice(None, None, min(count, max(1, outputs)))


def _compare(
    job: KernelRequest,
    matrices: Mapping[str, Tensor],
    left: Inputs,
    right: Inputs,
    rows: slice,
    columns: slice,
    other: Network | None,
) -> bool:
    v, expected = _within_range(job, left, right, other)
    product, scale = _by_kernel(matrices, v, rows, columns, job.machine.audit_rows)
    # Rounding grows with the terms summed, |Θ| |v|, not with the result, which may cancel.
    limit = rounding(job.network_dtype, float(torch.maximum(scale, expected.abs()).max()))
    networks = [job.network] if other is None else [job.network, other]
    same, telling = agree(product, expected, limit, networks, left, v, lambda: _reference(job, left, right, v, other))
    if not same:
        _refuse(job, left, right, v, other, product, expected, limit)
    return telling


def _reference(job: KernelRequest, left: Inputs, right: Inputs, v: Tensor, other: Network | None) -> Tensor:
    # The method of products is J and Jᵀ itself: another way to J is asked.
    return _by_products(job, left, right, v, other, by_rows=job.method == "products")


def _within_range(job: KernelRequest, left: Inputs, right: Inputs, other: Network | None) -> tuple[Tensor, Tensor]:
    """v and the reference of it; v is shorter where J (Jᵀ v) leaves the range of half precision."""
    v = _direction(job, len(right))
    for _ in range(_SHORTENED):
        expected = _reference(job, left, right, v, other)
        if bool(expected.isfinite().all()):
            break
        v = v * 2.0**-4
    return v, expected


def _refuse(
    job: KernelRequest,
    left: Inputs,
    right: Inputs,
    v: Tensor,
    other: Network | None,
    product: Tensor,
    expected: Tensor,
    limit: float,
) -> None:
    """Raises for the first cause that applies."""
    source = job.network if other is None else other
    for network, samples in ((job.network, job.x1), (source, job.x1 if job.x2 is None else job.x2)):
        refuse_causes(network, samples)
    raise AuditError(
        f"the kernel by {_way(job)} disagrees with plain autodiff along a random direction, and neither coupled samples nor "
        "random numbers nor gradient hooks are why",
        expected=f"a difference below {limit:.3g}",
        got=f"{float((product - expected).abs().max()):.3g}",
        where=_shares(job, left, right, v, other),
        remedy=_remedy(job, left, right, v, other, expected, limit)
        + "Report the model: this is a defect of kerneltrack.",
    )


def _way(job: KernelRequest) -> str:
    return "structure" if job.method in ("auto", "structured") else f'method="{job.method}"'


def _remedy(
    job: KernelRequest, left: Inputs, right: Inputs, v: Tensor, other: Network | None, expected: Tensor, limit: float
) -> str:
    """Another method, if it is known to be right here: two ways of plain autodiff give one product."""
    rows = _by_products(job, left, right, v, other, by_rows=True)
    if float((rows - expected).abs().max()) > limit:
        return ""
    return f'Compute with method="{"products" if job.method == "jacobian" else "jacobian"}". '


def _direction(job: KernelRequest, count: int) -> Tensor:
    """Draws v as (B, M·Q): one vector for each plane, the same for all outputs of a diagonal."""
    generator = torch.Generator().manual_seed(count)
    v = torch.randn(1, count * job.paired, generator=generator, dtype=torch.float64)
    return v.expand(job.planes, -1).to(job.network.device, job.dtype)


def _by_kernel(
    matrices: Mapping[str, Tensor], v: Tensor, rows: slice, columns: slice, together: int
) -> tuple[Tensor, Tensor]:
    """Θ v and |Θ| |v|, (B, N1·Q), over all layers, ``together`` rows of Θ at a time."""
    products, scales = [], []
    for plane, vector in enumerate(v):
        parts = [m[plane][rows, columns] for m in matrices.values()]
        zero, size = torch.zeros_like(vector[:1]), vector.abs()
        pieces = [[p[i : i + together] for p in parts] for i in range(0, parts[0].shape[0], together)]
        products.append(torch.cat([sum((p @ vector for p in piece), zero) for piece in pieces]))
        scales.append(torch.cat([sum((p.abs() @ size for p in piece), zero) for piece in pieces]))
    return torch.stack(products), torch.stack(scales)


def _by_products(
    job: KernelRequest,
    left: Inputs,
    right: Inputs,
    v: Tensor,
    other: Network | None,
    names: list[str] | None = None,
    *,
    by_rows: bool = False,
) -> Tensor:
    """Θ v by Jᵀ and J, (B, N1·Q); J by forward mode where the model admits it, or row by row."""
    network, o = job.network, job.outputs
    source = network if other is None else other
    names = list(network.parameters) if names is None else names

    def product(cotangent: Tensor) -> Tensor:
        pulled = source.vjp(right, cotangent)
        weighted = {k: pulled[k].to(job.dtype) * (1.0 if job.metric is None else job.metric[k]) for k in names}
        return network.jvp(left, weighted, by_rows=by_rows).to(job.dtype)

    if job.reduction.kind == "full":
        return product(v.view(len(right), o)).reshape(1, -1)
    columns = []
    for k in range(o):
        cotangent = v.new_zeros(len(right), o)
        cotangent[:, k] = v[0]
        columns.append(product(cotangent)[:, k])
    planes = torch.stack(columns)
    return planes if job.reduction.kind == "diagonal" else planes.sum(0, keepdim=True)


def _shares(job: KernelRequest, left: Inputs, right: Inputs, v: Tensor, other: Network | None) -> str:
    layers: dict[str, list[str]] = {}
    for name in job.network.parameters:
        layers.setdefault(layer_of(name), []).append(name)
    norms = {layer: float(_by_products(job, left, right, v, other, names).norm()) for layer, names in layers.items()}
    return "the reference's norms by layer: " + ", ".join(
        f"{layer or '(root)'} {norm:.3g}" for layer, norm in norms.items()
    )
