"""How a batch is captured of a model that vmap refuses: sites that were found, parameters that passed, programs that did.

Nothing that was found is believed. Of some of the samples, and of every later batch whose program (the functions that it
calls) is new, each parameter's

    Σ_no u_no ∂f_o(x_n)/∂w    by its uses    and    by plain autodiff

are compared, for one random u. The uses give ∂f_o/∂y for all samples together, and u comes in behind it: an axis that is
not the samples', or rows in another order than the samples', do not survive it. A parameter that does not pass is left to
its Jacobian.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from kerneltrack.memory_budget import ran_out
from kerneltrack.ntk.capture import (
    BATCH_RULES,
    CPU_ATTENTION,
    REFUSALS,
    BatchCapture,
    NotCapturable,
    Site,
    Use,
    find_sites,
    plain_rules,
    spread,
)
from kerneltrack.ntk.contraction import Term, collect, cover
from kerneltrack.ntk.machine import Machine
from kerneltrack.ntk.network import Inputs, Network, PlainPass, direction, gradients_behind, reachable_leaves

#: Samples of the first comparison: two more than the sites were found by, and no multiple of these sizes.
_COMPARED = 7
#: Parameters whose derivative is rounding differ by so many units of the largest derivative's last place.
_LAST_PLACES = 64
#: A projection confirms where it differs by so many times less than rounding may.
_SURE = 8
_REMEMBERED = 256
_NOT_OF_THE_SAMPLES = "the batch's uses of it are not the samples'"


@dataclass
class Batched:
    """What is known of the batches of one network, in one mode, with samples of one shape.

    Attributes:
        why: what vmap said of it.
        sites: of the forward pass; None where batches cannot be captured either.
        left: parameters that a batch's uses do not explain, and why.
        programs: checksums of forward passes whose uses were compared with plain autodiff.
        superseded: whether ``left`` has grown since the sites were found, so that they are to be found without these.
        passes: program, samples, outputs → how outputs go backward, as :class:`.passes.Passes` has found out.
        writes: whether the model was seen to write to what its layers return.
    """

    why: str
    sites: Sequence[Site] | None = None
    left: Mapping[str, str] = field(default_factory=dict)
    programs: set[int] = field(default_factory=set)
    superseded: bool = False
    passes: dict[tuple[int, int, int], Any] = field(default_factory=dict)
    writes: bool = False

    def leave(self, names: Iterable[str]) -> None:
        """Leaves parameters that some batch's uses do not explain, from now on."""
        self.left, self.superseded = {**self.left, **dict.fromkeys(names, _NOT_OF_THE_SAMPLES)}, True

    def remember(self, program: int) -> None:
        """That this one passed."""
        if len(self.programs) >= _REMEMBERED:
            self.programs.clear()
            self.passes.clear()
        self.programs.add(program)


@dataclass(frozen=True)
class Captured:
    """A batch's forward pass: its outputs with their graph, its uses, and its program."""

    outputs: Tensor
    uses: list[Use]
    program: int


def capture_batch(
    network: Network, leaves: Mapping[str, Tensor], samples: Inputs, batched: Batched, *, looks: int = 0
) -> Captured:
    """One pass of ``samples``, captured; call it inside ``network.evaluating()``.

    The model gets what its layers return, and copies of that where it writes there, which is found out by its first pass.

    Args:
        network: the network.
        leaves: its parameters.
        samples: x.
        batched: what is known of it.
        looks: for how many outputs backward passes look for zeros, which the host reads; 0 is not at all.

    Raises:
        NotCapturable, RuntimeError: it does something else than the sites say.
    """
    try:
        return _captured(network, leaves, samples, batched, looks)
    except REFUSALS as refusal:
        if batched.writes or ran_out(refusal):
            raise
    done = _captured(network, leaves, samples, replace(batched, writes=True), looks)
    batched.writes = True
    return done


def _captured(
    network: Network, leaves: Mapping[str, Tensor], samples: Inputs, batched: Batched, looks: int
) -> Captured:
    assert batched.sites is not None
    capture = BatchCapture(BATCH_RULES, batched.sites, plain_rules(looks), copies=batched.writes)
    with sdpa_kernel(CPU_ATTENTION if network.device.type == "cpu" else SDPBackend.MATH):
        outputs = capture.run(network, leaves, samples)
    return Captured(outputs, capture.uses, capture.program)


def find(
    network: Network, leaves: Mapping[str, Tensor], samples: Inputs, why: str, left: Mapping[str, str], *, proves: bool
) -> Batched:
    """How batches of a network are captured, of all ``leaves`` but those in ``left``.

    Call it inside ``network.evaluating()``.

    Args:
        network: the network.
        leaves: its parameters.
        samples: x.
        why: what vmap said.
        left: parameters that a batch has left.
        proves: compares the uses of some samples with plain autodiff. Whoever goes on to a batch of all samples need not: its
            program is new, and compared as a whole.

    Raises:
        NotCapturable, RuntimeError: they cannot be.
    """
    found, few = Batched(why, left=left), spread(samples, _COMPARED)
    for _ in range(2):  # once more without what did not pass
        leaves = {name: leaf for name, leaf in leaves.items() if name not in found.left}
        if not leaves:
            break
        found.sites = find_sites(network, leaves, samples)
        if not proves:
            return Batched(why, found.sites, found.left)
        done = capture_batch(network, leaves, few, found)
        names = _differing(network, leaves, few, done)
        if not names:
            return Batched(why, found.sites, found.left, {done.program}, writes=found.writes)
        found.leave(names)
    raise NotCapturable(_NOT_OF_THE_SAMPLES)


def _differing(network: Network, leaves: Mapping[str, Tensor], samples: Inputs, done: Captured) -> list[str]:
    """The covered parameters whose derivative by their uses is not that of plain autodiff."""
    terms = cover(done.uses, leaves, done.outputs, None).terms
    wanted = {index for term in terms for index in term.uses}
    machine = Machine.of(network.device)
    dtype = torch.promote_types(done.outputs.dtype, torch.float32)
    factors = collect(done.outputs, done.uses, wanted, dtype, machine)
    return differing(network, leaves, samples, done.uses, terms, factors.gradients)


def differing(
    network: Network,
    leaves: Mapping[str, Tensor],
    samples: Inputs,
    uses: Sequence[Use],
    terms: Iterable[Term],
    gradients: Callable[[int], Sequence[Tensor]],
    plain: PlainPass | None = None,
) -> list[str]:
    """Names of the terms' parameters for which Jᵀu by uses is not Jᵀu by plain autodiff.

    Args:
        network: the network.
        leaves: the parameters that the pass was run with.
        samples: N of them.
        uses: all uses of the pass.
        terms: those to compare.
        gradients: index of a use → G of every output, (N, g, e, T).
        plain: the plain pass of just these samples, where there is one.
    """
    chosen = sorted({index for term in terms for index in term.uses})
    names = sorted({name for term in terms for name in term.names})
    if not chosen:
        return []
    if plain is not None and plain.is_of(samples):
        u, expected = plain.v.to(gradients(chosen[0])[0]), plain.pulled
    else:
        u = _direction(len(samples), gradients(chosen[0]))
        expected = network.vjp(samples, u)
    parts, own = [(uses[i], gradients(i)) for i in chosen], {name: leaves[name] for name in names}
    eps = network.sight(samples).eps
    sizes = {name: float(expected[name].abs().max()) for name in names}
    alike = _confirmed(parts, u, own, expected, eps)
    parts = [part for part in parts if id(part[0].weight) not in {id(own[name]) for name in alike}]
    own = {name: leaf for name, leaf in own.items() if name not in alike}
    found = _pulled(parts, u, own)
    gaps = {name: float((part - expected[name].to(part.dtype)).abs().max()) for name, part in found.items()}
    sizes |= {name: max(sizes[name], float(part.abs().max())) for name, part in found.items()}
    if not _over(gaps, sizes, eps):
        return []
    sizes |= {name: max(size, sizes[name]) for name, size in _summed(parts, u, own).items()}
    return _over(gaps, sizes, eps)


def _confirmed(
    parts: Sequence[tuple[Use, Sequence[Tensor]]],
    u: Tensor,
    leaves: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    eps: float,
) -> set[str]:
    """Names of linear maps, used once, for which pᵀW̄ by uses is that of plain autodiff, where Jᵀu is W̄ (e, i) and p random (e,).

        Σ_not u_no (pᵀg_not) a_nt

    reads G and A once, where their product takes a third of a plain pass. An error of one entry is √e times smaller beside pᵀW̄ than
    beside W̄: this confirms where it differs by eight times less, and whatever it does not confirm is compared entry by entry.
    """
    names = {id(leaf): name for name, leaf in leaves.items()}
    behind = Counter(id(leaf) for use, _ in parts for leaf in reachable_leaves([use.weight]))
    found = set()
    for use, gradients in parts:
        name = names.get(id(use.weight))
        if name is None or use.form != "tokens" or behind[id(use.weight)] != 1:
            continue
        size, like = use.extent(), gradients[0]
        p = direction(size.groups * size.outer, like.new_zeros(1, 1)).view(size.groups, size.outer)
        each = [
            torch.einsum("nget,ge->ngt", part, p) * own[:, None, None] for part, own in zip(gradients, u.T, strict=True)
        ]
        rows = use.input_rows(0, len(u)).to(like.dtype)
        ours = torch.einsum("ngt,ngti->gi", torch.stack(each).sum(0), rows)
        plain = torch.einsum("gei,ge->gi", use.block_layout(expected[name].to(like.dtype)), p)
        if bool((ours - plain).abs().max() <= eps**0.6 * plain.abs().max() / _SURE):
            found.add(name)
    return found


def _over(gaps: Mapping[str, float], sizes: Mapping[str, float], eps: float) -> list[str]:
    """Names of the differences that rounding does not explain."""
    floor = _LAST_PLACES * eps * max(sizes.values())
    return [name for name, gap in gaps.items() if not gap <= eps**0.6 * sizes[name] + floor]


def _direction(count: int, gradients: Sequence[Tensor]) -> Tensor:
    """u, (N, O), the same at every call."""
    generator = torch.Generator().manual_seed(count)
    u = torch.randn(count, len(gradients), generator=generator, dtype=torch.float64)
    return u.to(gradients[0])


def _pulled(
    parts: Sequence[tuple[Use, Sequence[Tensor]]], u: Tensor, leaves: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Jᵀu by parameter."""
    by_weight: dict[int, tuple[Tensor, Tensor]] = {}
    for use, gradients in parts:
        key, total = id(use.weight), use.summed_gradient(_mixed(u, gradients)).view(use.weight.shape)
        by_weight[key] = use.weight, total + by_weight[key][1] if key in by_weight else total
    weights = [weight for weight, _ in by_weight.values()]
    totals = [total.to(weight.dtype) for weight, total in by_weight.values()]
    pulled = gradients_behind(weights, list(leaves.values()), totals)
    return {
        name: torch.zeros_like(leaf) if part is None else part.to_dense()
        for (name, leaf), part in zip(leaves.items(), pulled, strict=True)
    }


def _summed(parts: Sequence[tuple[Use, Sequence[Tensor]]], u: Tensor, leaves: Mapping[str, Tensor]) -> dict[str, float]:
    """For each parameter the largest sum of magnitudes that went into its Jᵀu: rounding is relative to it where terms cancel."""
    names = {id(leaf): name for name, leaf in leaves.items()}
    weights, sizes = dict[int, Tensor](), dict[int, float]()
    for use, gradients in parts:
        key = id(use.weight)
        weights[key] = use.weight
        sizes[key] = sizes.get(key, 0.0) + float(use.summed_gradient(_mixed(u, gradients).abs(), torch.abs).max())
    largest = dict.fromkeys(leaves, 0.0)
    for key, weight in weights.items():
        for name in {names[id(leaf)] for leaf in reachable_leaves([weight]) if id(leaf) in names}:
            largest[name] = max(largest[name], sizes[key])
    return largest


def _mixed(u: Tensor, gradients: Sequence[Tensor]) -> Tensor:
    """Σ_o u_no G_no, (N, g, e, T)."""
    columns = u.T[:, :, None, None, None]
    mixed = gradients[0] * columns[0]
    for part, column in zip(gradients[1:], columns[1:], strict=True):
        mixed.addcmul_(part, column)
    return mixed
