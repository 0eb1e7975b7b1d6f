"""Terms: uses whose contributions to Θ can be summed independently.

No parameter stands behind two terms.

Let the weights v_1, v_2, … of a group of uses be expressions of the same parameters w, with Jacobians V_i =
∂v_i/∂w. Then Θ = Σ_ij J_i V_i V_jᵀ J_jᵀ. Where V_i V_jᵀ = c_i² δ_ij 1 (the parameter itself, its transpose,
disjoint slices of a packed weight, a fixed scale as in the NTK parametrisation), each v_i counts as a
parameter of its own, times c_i². This is tested with random vectors, not recognised by name. Anything else
(weight normalisation, low-rank updates, a weight that is used both as it is and transposed) is *pulled
back*: per-sample gradients by v_i are turned into gradients by w, exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from kerneltrack.ntk.capture import Form, Use
from kerneltrack.ntk.network import Preconditioner, gradients, reachable_leaves

#: What a term is made of: uses that join; the cross terms of a table that is looked up and multiplied by, whose own terms
#: are terms too; uses of one weight that do not join; uses of weights whose parameters mix them.
TermForm = Form | Literal["tied", "dense", "pulled back"]
_DENSE: TermForm = "dense"
#: Rounding of V Vᵀ u, in units of its dtype's resolution; half precision has equal digits, and rounds in the mean alone.
_ROUNDED = 64


@dataclass(frozen=True)
class Term:
    """Uses that are contracted together.

    Attributes:
        form: what they are.
        uses: their indices among the uses of a block.
        names: the parameters behind them.
        scale: c², the squared factor between weight and parameter, times the metric where that is one number.
        shift: c² of the layer's bias where one contraction does both, the bias's input being the constant 1; else 0.
    """

    form: TermForm
    uses: tuple[int, ...]
    names: tuple[str, ...]
    scale: float = 1.0
    shift: float = 0.0

    @property
    def has_factors(self) -> bool:
        """Whether inputs and gradients are all that its contribution needs; else weights are pulled back."""
        return self.form not in ("dense", "pulled back")


@dataclass
class Coverage:
    """Terms, and the parameters that no use explains."""

    terms: list[Term] = field(default_factory=list)
    uncovered: dict[str, str] = field(default_factory=dict)


def cover(
    uses: Sequence[Use], leaves: Mapping[str, Tensor], outputs: Tensor, metric: Preconditioner | None
) -> Coverage:
    """Each parameter exactly once: in terms, or uncovered with the reason.

    Args:
        uses: all uses of a forward pass.
        leaves: the parameters that the pass was run with.
        outputs: its outputs; a parameter that autograd still reaches from here was used where no use is.
        metric: P; where it differs within a weight, only per-sample gradients in the parameter's own order
            will do.
    """
    names = {id(leaf): name for name, leaf in leaves.items()}
    behind = [frozenset(names[id(leaf)] for leaf in reachable_leaves([u.weight]) if id(leaf) in names) for u in uses]
    coverage = Coverage()
    unseen = {names[id(leaf)] for leaf in reachable_leaves([outputs]) if id(leaf) in names}
    for parameters, members in _components(behind):
        if parameters & unseen:
            coverage.uncovered |= dict.fromkeys(sorted(parameters), "used where no rule applies")
        elif parameters:
            coverage.terms += _terms(members, uses, leaves, tuple(n for n in leaves if n in parameters), metric or {})
    coverage.uncovered |= dict.fromkeys(sorted(unseen - set(coverage.uncovered)), "used where no rule applies")
    return coverage


def _components(behind: Sequence[frozenset[str]]) -> list[tuple[frozenset[str], list[int]]]:
    """Uses grouped so that no parameter stands behind two groups."""
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


def _terms(
    members: list[int],
    uses: Sequence[Use],
    leaves: Mapping[str, Tensor],
    names: tuple[str, ...],
    metric: Preconditioner,
) -> list[Term]:
    """The terms of uses behind which are the parameters ``names``."""
    weights: dict[int, list[int]] = {}
    for index in members:
        weights.setdefault(id(uses[index].weight), []).append(index)
    distinct = [uses[indices[0]].weight for indices in weights.values()]
    scales = _isometric_scales(distinct, [leaves[name] for name in names])
    factors = [metric.get(name, 1.0) for name in names]
    elementwise = any(isinstance(factor, Tensor) for factor in factors)
    moved = any(weight.grad_fn is not None for weight in distinct)
    mixed = len({factor for factor in factors if not isinstance(factor, Tensor)}) > 1
    if scales is None or mixed or (elementwise and moved):
        return [Term("pulled back", tuple(members), names)]
    factor = 1.0 if elementwise else float(factors[0])
    terms = list[Term]()
    for indices, scale in zip(weights.values(), scales, strict=True):
        forms = [(_DENSE, tuple(indices))] if elementwise else _forms(indices, uses)
        own = _own(uses[indices[0]].weight, leaves, names)
        terms += [Term(form, chosen, own, scale * factor) for form, chosen in forms]
    return terms


def _own(weight: Tensor, leaves: Mapping[str, Tensor], names: tuple[str, ...]) -> tuple[str, ...]:
    reached = {id(leaf) for leaf in reachable_leaves([weight])}
    return tuple(name for name in names if id(leaves[name]) in reached)


def _forms(indices: Sequence[int], uses: Sequence[Use]) -> list[tuple[TermForm, tuple[int, ...]]]:
    """The forms whose sum is the contribution of the uses ``indices`` of one weight."""
    first = uses[indices[0]]
    if _join(indices, uses):
        return [(first.form, tuple(indices))]
    lookups = tuple(i for i in indices if uses[i].form == "lookup")
    maps = tuple(i for i in indices if uses[i].form != "lookup")
    if lookups and _join(lookups, uses) and _join(maps, uses) and uses[lookups[0]].ties(uses[maps[0]]):
        return [("lookup", lookups), ("tokens", maps), ("tied", (*lookups, *maps))]
    return [(_DENSE, tuple(indices))]


def _join(indices: Sequence[int], uses: Sequence[Use]) -> bool:
    return all(uses[indices[0]].joins(uses[i]) for i in indices)


def _isometric_scales(weights: Sequence[Tensor], leaves: Sequence[Tensor]) -> list[float] | None:
    """c_i² with V_i V_jᵀ = c_i² δ_ij 1, or None.

    Tested on one random vector u: V Vᵀ u = C u holds almost surely only if it holds. The entries of u are ± powers of two.
    Then a scaled copy of the parameters has the same digits in every entry of V Vᵀ u, whatever its dtype, and half
    precision, which could not tell 1 from 1.01 after a sum, is asked for equal digits.
    """
    if len(weights) == 1 and weights[0].grad_fn is None:
        return [1.0]
    probes, pushed, used = _pushed(weights, leaves)
    scales = [_scale(probe.detach(), image) for probe, image in zip(probes, pushed, strict=True)]
    if len(scales) == 1 and scales[0] is not None:  # without the rounding of the way back: |Vᵀu|² = c² |u|²
        squares = torch.stack([part.detach().double().square().sum() for part in used]).sum()
        scale = float(squares / probes[0].detach().double().square().sum())
        if abs(scale - scales[0]) > 4 * torch.finfo(probes[0].dtype).eps * scale:  # the way back was too small to tell
            return None
        scales = [scale]
    known = [scale for scale in scales if scale is not None]
    return known if len(known) == len(scales) else None


def isometry_gaps(terms: Sequence[Term], uses: Sequence[Use], leaves: Mapping[str, Tensor]) -> list[Tensor]:
    """How far V Vᵀ u is from the c² u that terms were made with, in units of what rounding explains; on the device.

    Of weights that are expressions of parameters: what they were found to be once may have changed with what else enters
    them. A parameter itself is never another, and what is pulled back is exact whatever it is.
    """
    scales = {id(w): (w, term.scale) for term in terms if term.form != "pulled back" for w in _weights(term, uses)}
    moved = {n for term in terms for w in _weights(term, uses) if w.grad_fn is not None for n in term.names}
    asked = {id(w) for term in terms if moved & set(term.names) for w in _weights(term, uses)}
    chosen = [found for key, found in scales.items() if key in asked]
    if not chosen:
        return []
    weights = [weight for weight, _ in chosen]
    probes, pushed, _ = _pushed(weights, [leaf for name, leaf in leaves.items() if name in moved])
    return [_gap(u.detach(), v, scale) for u, v, (_, scale) in zip(probes, pushed, chosen, strict=True)]


def _weights(term: Term, uses: Sequence[Use]) -> list[Tensor]:
    return [uses[index].weight for index in term.uses]


def _gap(probe: Tensor, image: Tensor | None, scale: float) -> Tensor:
    u = probe.double()
    v = torch.zeros_like(u) if image is None else image.detach().double()
    gap: Tensor = torch.linalg.vector_norm(v - scale * u, float("inf")) / (_slack_of(probe) * scale)
    return gap


def _pushed(
    weights: Sequence[Tensor], leaves: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor | None], list[Tensor]]:
    """u for each weight, V Vᵀ u, and Vᵀ u."""
    probes = [_powers_of_two(weight, seed).requires_grad_() for seed, weight in enumerate(weights)]
    with torch.enable_grad():
        pulled = gradients(weights, leaves, probes, create_graph=True)
        used = [p for p in pulled if p is not None and p.requires_grad]
        pushed: list[Tensor | None] = [None] * len(probes)
        if used:
            pushed = list(gradients(used, probes, [p.detach() for p in used]))
    return probes, pushed, used


def _powers_of_two(weight: Tensor, seed: int) -> Tensor:
    """±1 and ±2 at random, of the weight's shape and dtype; without a generator, which a recording has none of."""
    mixed = torch.arange(1 + (seed << 40), 1 + (seed << 40) + weight.numel(), device=weight.device)
    for _ in range(2):
        mixed = mixed * _ODD
        mixed = mixed ^ (mixed >> 32)
    draw = (mixed * _ODD) >> 62  # −2, −1, 0 or 1
    return (draw + (draw >= 0)).to(weight.dtype).view(weight.shape)


#: 2⁶⁴ over the golden ratio, odd, as a signed number.
_ODD = -7046029254386353131


def _scale(probe: Tensor, image: Tensor | None) -> float | None:
    """c² where ``image`` is c² ``probe``, by the precision of its dtype and relative to c²; else None."""
    if image is None:
        return None
    u, v = probe.double(), image.detach().double()
    scale = (u * v).sum() / u.square().sum()
    return float(scale) if bool(((v - scale * u).abs() <= _slack_of(probe) * scale.abs()).all()) else None


def _slack_of(probe: Tensor) -> float:
    """What rounding explains of V Vᵀ u, relative to c²."""
    eps = torch.finfo(probe.dtype).eps
    return _ROUNDED * (eps if eps <= torch.finfo(torch.float32).eps else torch.finfo(torch.float64).eps)
