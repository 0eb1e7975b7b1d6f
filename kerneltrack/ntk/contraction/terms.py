"""Units: sites whose contributions can be summed independently.

No parameter stands behind two units.

Let the weights v_1, v_2, … of a group of sites be expressions of the same parameters w, with Jacobians V_i =
∂v_i/∂w. Then Θ = Σ_ij J_i V_i V_jᵀ J_jᵀ. Where V_i V_jᵀ = c_i² δ_ij 1 (the parameter itself, its transpose,
disjoint slices of a packed weight, a fixed scale as in the NTK parametrisation), each v_i counts as a
parameter of its own, times c_i². This is tested with random vectors, not recognised by name. Anything else
(weight normalisation, low-rank updates, a weight that is used both as it is and transposed) is *pulled
back*: per-sample gradients by v_i are turned into gradients by w, exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kerneltrack.ntk.capture import Site
from kerneltrack.ntk.network import reachable_leaves


@dataclass(frozen=True)
class Term:
    """Sites that are contracted together.

    Attributes:
        form: "tokens" (one weight, used by linear rules once or more), "lookup" (one embedding table), "tied"
            (the cross terms of a table that is looked up and multiplied by; its own terms are units too),
            "features" (gradients that are formed already: shifts and expanded weights), "dense" (one weight,
            used by different rules) or "pulled back".
        sites: indices into the sites of a block.
        names: the parameters behind it.
        scale: c², the squared factor between weight and parameter, times the metric where that is one number.
    """

    form: str
    sites: tuple[int, ...]
    names: tuple[str, ...]
    scale: float = 1.0


@dataclass
class Coverage:
    """Units, and the parameters that no site explains."""

    units: list[Term] = field(default_factory=list)
    uncovered: dict[str, str] = field(default_factory=dict)


def cover(
    sites: Sequence[Site], leaves: Mapping[str, Tensor], outputs: Tensor, metric: Mapping[str, float | Tensor] | None
) -> Coverage:
    """Each parameter exactly once: in units, or uncovered with the reason.

    Args:
        sites: all sites of a forward pass.
        leaves: the parameters that the pass was run with.
        outputs: its outputs; a parameter that autograd still reaches from here was used where no site is.
        metric: P; where it differs within a weight, only per-sample gradients in the parameter's own order
            will do.
    """
    names = {id(leaf): name for name, leaf in leaves.items()}
    behind = [frozenset(names[id(leaf)] for leaf in reachable_leaves([s.weight]) if id(leaf) in names) for s in sites]
    coverage = Coverage()
    unseen = {names[id(leaf)] for leaf in reachable_leaves([outputs]) if id(leaf) in names}
    for parameters, members in _components(behind):
        if parameters & unseen:
            coverage.uncovered |= dict.fromkeys(sorted(parameters), "used where no rule applies")
        elif parameters:
            coverage.units += _units(members, sites, leaves, tuple(n for n in leaves if n in parameters), metric or {})
    coverage.uncovered |= dict.fromkeys(sorted(unseen - set(coverage.uncovered)), "used where no rule applies")
    return coverage


def _components(behind: Sequence[frozenset[str]]) -> list[tuple[frozenset[str], list[int]]]:
    """Sites grouped so that no parameter stands behind two groups."""
    groups: list[tuple[frozenset[str], list[int]]] = []
    for index, parameters in enumerate(behind):
        joined, members = parameters, [index]
        rest = []
        for other, indices in groups:
            if other & joined:
                joined, members = joined | other, indices + members
            else:
                rest.append((other, indices))
        groups = [*rest, (joined, sorted(members))]
    return groups


def _units(
    members: list[int],
    sites: Sequence[Site],
    leaves: Mapping[str, Tensor],
    names: tuple[str, ...],
    metric: Mapping[str, float | Tensor],
) -> list[Term]:
    weights: dict[int, list[int]] = {}
    for index in members:
        weights.setdefault(id(sites[index].weight), []).append(index)
    distinct = [sites[indices[0]].weight for indices in weights.values()]
    scales = _isometric_scales(distinct, [leaves[name] for name in names])
    factors = [metric.get(name, 1.0) for name in names]
    elementwise = any(isinstance(factor, Tensor) for factor in factors)
    moved = any(weight.grad_fn is not None for weight in distinct)
    mixed = len({factor for factor in factors if not isinstance(factor, Tensor)}) > 1
    if scales is None or mixed or (elementwise and moved):
        return [Term("pulled back", tuple(members), names)]
    factor = 1.0 if elementwise else float(factors[0])
    return [
        Term(form, chosen, _own(sites[indices[0]].weight, leaves, names), scale * factor)
        for indices, scale in zip(weights.values(), scales, strict=True)
        for form, chosen in _forms(indices, sites, elementwise)
    ]


def _forms(indices: list[int], sites: Sequence[Site], elementwise: bool) -> list[tuple[str, tuple[int, ...]]]:
    """The forms whose sum is the contribution of the uses ``indices`` of one weight."""
    form = _form([sites[i] for i in indices], elementwise)
    lookups = tuple(i for i in indices if sites[i].rule == "embedding")
    maps = tuple(i for i in indices if sites[i].rule != "embedding")
    if form == "dense" and not elementwise and lookups and maps:
        own = _form([sites[i] for i in lookups], False), _form([sites[i] for i in maps], False)
        if own == ("lookup", "tokens") and _orientation(sites[maps[0]]) == ("linear", "o", "i"):
            return [("lookup", lookups), ("tokens", maps), ("tied", (*lookups, *maps))]
    return [(form, tuple(indices))]


def _own(weight: Tensor, leaves: Mapping[str, Tensor], names: tuple[str, ...]) -> tuple[str, ...]:
    reached = {id(leaf) for leaf in reachable_leaves([weight])}
    return tuple(name for name in names if id(leaves[name]) in reached)


def _form(sites: Sequence[Site], elementwise: bool) -> str:
    rules = {site.rule for site in sites}
    if elementwise:
        return "dense"
    if rules <= {"shift", "expanded"}:
        return "features"
    if rules == {"embedding"}:
        return "lookup" if len({site.geometry for site in sites}) == 1 else "dense"
    if rules not in ({"linear"}, {"convolution"}):
        return "dense"
    return "tokens" if len({_orientation(site) for site in sites}) == 1 else "dense"


def _orientation(site: Site) -> tuple[object, ...]:
    """What must agree for two uses of one weight to be rows of one linear map."""
    geometry = site.geometry
    if site.rule == "convolution":
        return site.rule, geometry.groups, geometry.transposed
    axes = ("g" if c in geometry.group else "o" if c in geometry.outer else "i" for c in geometry.weight)
    return (site.rule, *axes)


def _isometric_scales(weights: Sequence[Tensor], leaves: Sequence[Tensor]) -> list[float] | None:
    """c_i² with V_i V_jᵀ = c_i² δ_ij 1, or None.

    Tested on one random vector: V Vᵀ u = C u holds almost surely only if it holds.
    """
    if len(weights) == 1 and weights[0].grad_fn is None:
        return [1.0]
    generator = torch.Generator(device=leaves[0].device).manual_seed(0)
    probes = [
        torch.randn(w.shape, dtype=w.dtype, device=w.device, generator=generator).requires_grad_() for w in weights
    ]
    with torch.enable_grad():
        pulled = torch.autograd.grad(weights, leaves, probes, create_graph=True, retain_graph=True, allow_unused=True)
        used = [p for p in pulled if p is not None and p.requires_grad]
        pushed = (
            torch.autograd.grad(used, probes, [p.detach() for p in used], allow_unused=True)
            if used
            else [None] * len(probes)
        )
    scales = []
    probes = [probe.detach() for probe in probes]
    for probe, image in zip(probes, pushed, strict=True):
        if image is None:
            return None
        scale = float((probe * image).sum() / probe.square().sum())
        slack = 64 * torch.finfo(probe.dtype).eps * max(1.0, abs(scale))
        if not bool(((image - scale * probe).abs() <= slack * probe.abs().max()).all()):
            return None
        scales.append(scale)
    return scales
