"""Whether every sample has outputs and derivatives of its own: a few samples alone against the same ones in a batch.

Values are compared relative to the spread of the outputs, so that a large constant in them hides nothing; derivatives by
one VJP, because a batch can mix in the derivative alone. Small differences are judged by what rounding does to these
very samples alone (:mod:`kerneltrack.ntk.network.arithmetic`), never by anything that a batch was part of. Everything
stays on its device until one answer is read, whether all is well.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from kerneltrack.errors import KernelError, UnsupportedModelError
from kerneltrack.ntk.network.arithmetic import DRAWS, UNITS
from kerneltrack.ntk.network.batch_vjp import Gradients, batch_vjp, cotangents, same_bits
from kerneltrack.ntk.network.bystanders import refuse_bystanders
from kerneltrack.ntk.network.generators import Generators
from kerneltrack.ntk.network.known import Rounding
from kerneltrack.ntk.network.network import Network
from kerneltrack.ntk.network.refusals import refuse_not_finite
from kerneltrack.ntk.network.samples import Inputs
from kerneltrack.ntk.network.witness import Calls

#: What is computed on a device, or by the host.
Array = TypeVar("Array", Tensor, np.ndarray[Any, Any])

#: Samples of one look: of every call, and of the first one. The derivative is asked of the first PULLED.
FEW, MANY, PULLED = 3, 8, 2
#: Rounding of a value, in units of its own size, that needs no explanation.
_ULPS = 4
#: Derivatives that are rounding alone differ by at most so many times the largest of them; 4.4 was seen in 560 networks.
_LOST = 16
#: Arithmetic coarser than this is half precision, where a few units are per cents: there it is asked for the unit itself.
_COARSE = 1e-4
#: Seeds of the two runs of a forward pass that draws random numbers.
_SEEDS = (0x5EED, 0xFEED)
#: States in which the first sample is asked: a coin falls alike in all of them once in 2³¹ times.
_TOSSES = 32
#: Modules that draw, of which a refusal gives the names.
_NAMED = 4


@dataclass
class Look:
    """A few samples, each alone, and together.

    Attributes:
        chosen: their indices; the first sample and some that a generator of our own draws.
        alone: f of each, (n, O), before any head.
        together: f of the first FEW of them as one batch.
        pulled: Jᵀu of the first PULLED, alone, summed.
        gap: (P,) the largest difference to Jᵀu of that batch, by parameter; u is zero for the others in it.
    """

    chosen: list[int]
    alone: Tensor
    together: Tensor
    pulled: Gradients
    gap: Tensor


def look(network: Network, samples: Inputs, most: int) -> Look:
    """Runs ``most`` samples alone, and FEW of them together; call it inside ``network.evaluating()``."""
    chosen = _chosen(len(samples), most)
    few = chosen[:FEW]
    alone, pulled = _alone(network, samples, chosen)
    if len(few) == 1:
        return Look(chosen, alone, alone, pulled, 0 * _sizes(pulled))
    try:
        together, of_batch = _pull(network, samples.pick(few), slice(len(few)))
    except KernelError:
        raise
    except (RuntimeError, ValueError, IndexError) as refusal:
        raise UnsupportedModelError(
            f"the model couples samples: it takes one of them, and not {len(few)} of them",
            got=refusal,
            remedy="Remove what depends on the number of samples.",
        ) from refusal
    return Look(chosen, alone, together, pulled, _sizes({name: of_batch[name].sub_(pulled[name]) for name in pulled}))


def refuse_coupling(
    network: Network, samples: Inputs, seen: Look, batches: tuple[Tensor, Tensor] | None = None
) -> None:
    """Raises where what was seen alone differs from what was seen in batches by more than rounding.

    Args:
        network: the network.
        samples: all N samples.
        seen: what :func:`look` saw.
        batches: f of all N in one batch, and in two halves of it, where these were run.

    Raises:
        UnsupportedModelError: the samples are coupled, in the outputs or in the derivative.
    """
    values, gap = seen.together, _differences(seen.together, seen.alone[: len(seen.together)])
    if batches is not None:
        values = batches[0]
        gap = torch.maximum(gap, _differences(values[seen.chosen], seen.alone))
        gap = torch.maximum(gap, _differences(*batches))
    sizes = _sizes(seen.pulled)
    limit, slack = _limit(values), _slack(sizes, seen.pulled, values.dtype)
    if bool((gap <= limit).all() & (seen.gap <= slack).all().to(gap.device)):
        return
    refuse_not_finite(values, "the inputs")  # NaN differs from itself
    known, size = network.known(samples), values.abs().amax(0)
    if (before := known.rounding) is not None:
        moved, turned = (torch.from_numpy(part).to(gap.device) for part in (before.outputs, before.derivatives))
        within = (gap <= limit + moved * size).all() & (seen.gap <= slack + turned.to(sizes.device) * sizes).all().to(
            gap.device
        )
        if bool(within):
            return
    noise, unsteady, eps = _noise(network, samples, seen)
    moved = _twice(eps) * noise + _ulps(eps) * eps * size
    turned = _twice(eps) * unsteady + _ulps(eps) * eps * sizes
    if eps <= _COARSE:
        turned = turned + _LOST * _lost(sizes, unsteady, eps * float(size.amax()))
    limit, slack = limit + moved, slack + turned
    if not bool((gap <= limit).all()):
        _refuse("outputs", "outputs of a sample alone equal to its row of a batch", gap / limit)
    for name, found, most in zip(seen.pulled, seen.gap.tolist(), slack.tolist(), strict=True):
        if not found <= most:
            expected = "the derivative of a sample alone equal to its part of a batch's"
            _refuse(f"derivative by {name!r}", expected, torch.tensor(found / (most or 1e-300)))
    known.rounding = Rounding(_relative(moved, size), _relative(turned, sizes))


def _lost(sizes: Tensor, unsteady: Tensor, unit: float) -> Tensor:
    """The largest derivative among those that are zero but for rounding, for each of these (P,); 0 for the others.

    Not one digit of them is right, and they are within some dozens of units in the last place of the outputs (a derivative that
    is unsteady and large has another reason). A few draws tell how large rounding of terms that cancel can be only to a factor,
    which is another one on every processor. Alone it can be zero exactly: where all of them are rounding, it is a unit at least.
    """
    lost = (unsteady >= sizes / 16) & (sizes.maximum(unsteady) <= 64 * unit)
    largest = torch.where(lost, sizes.maximum(unsteady), 0).amax()
    return torch.where(lost, largest.clamp(min=unit) if bool(lost.all()) else largest, 0)


def _relative(moved: Tensor, size: Tensor) -> np.ndarray[Any, Any]:
    return torch.where(size > 0, moved / size, 0).double().cpu().numpy()


def refuse_hidden_coupling(network: Network, samples: Inputs, seen: Look) -> None:
    """Raises where half precision hides a coupling from :func:`refuse_coupling`; see :mod:`.bystanders`.

    Asked once for each plan and set of samples.
    """
    if len(samples) > 1:
        with network.evaluating():
            if network.sight(samples).eps > _COARSE:
                refuse_bystanders(network, samples, seen.chosen[: len(seen.together)], _compare)


def _compare(network: Network, samples: Inputs) -> None:
    with torch.no_grad():
        whole = network.batch(network.parameters, samples, raw=True)
    refuse_coupling(network, samples, look(network, samples, FEW), (whole, whole))


def refuse_randomness(network: Network, samples: Inputs, generators: Generators) -> None:
    """Raises where two states of the random generators give two outputs or two derivatives, bit by bit.

    Asked of a forward pass that draws random numbers. One that draws and does not use them is no random one. Few bits may
    be the same in two states, as the toss of a coin is: the first sample is asked in many.
    """
    first = samples.rows(0, 1)
    if _depends(network, samples, generators, _SEEDS) or _depends(network, first, generators, range(_TOSSES)):
        raise UnsupportedModelError(
            "the model is random: its forward pass draws random numbers, and its outputs or derivatives depend on them",
            expected="the same outputs and derivatives, bit by bit, from two states of the random generators",
            where=_drawn(network, samples, generators),
            remedy="Call model.eval(), or take the noise (dropout, sampling) out of the forward pass.",
        )


def _depends(network: Network, samples: Inputs, generators: Generators, seeds: Iterable[int]) -> bool:
    """Whether outputs or derivatives differ between states of the generators."""
    before: list[Tensor] | None = None
    for seed in seeds:
        with generators.restored():
            generators.seed(seed)
            outputs = network.outputs(samples)
            generators.seed(seed)
            pulled = network.vjp(samples, cotangents(outputs, len(outputs)))
        found = [outputs, *pulled.values()]
        if before is not None and not all(same_bits(a, b) for a, b in zip(before, found, strict=True)):
            return True
        before = found
    return False


def _drawn(network: Network, samples: Inputs, generators: Generators) -> str | None:
    """The modules that run while a generator moves, innermost ones, in words; None where it moves elsewhere."""
    found: dict[str, None] = {}
    calls = Calls(network.module)
    with generators.restored(), network.evaluating():
        last = generators.states()

        def note(running: str) -> None:
            nonlocal last
            now = generators.states()
            if now != last:
                found[running] = None
            last = now

        with calls.followed(note), torch.no_grad():
            network.batch(network.parameters, samples)  # network.outputs would put the generators back before the end
    names = [name.removeprefix("in ") for name in found]
    return ", ".join(names[:_NAMED]) + f" and {len(names) - _NAMED} more" * (len(names) > _NAMED) if names else None


def _chosen(count: int, most: int) -> list[int]:
    """The first sample and others, none twice; the same for every call with as many samples."""
    drawn = torch.randperm(count - 1, generator=torch.Generator().manual_seed(count)) + 1
    return [0, *drawn[: most - 1].tolist()]


def _alone(network: Network, samples: Inputs, chosen: list[int]) -> tuple[Tensor, Gradients]:
    """f of each of ``chosen``, and Σ Jᵀu over the first PULLED."""
    values: list[Tensor] = []
    total: dict[str, Tensor] = {}
    for place, index in enumerate(chosen):
        one = samples.rows(index, index + 1)
        if place >= PULLED:
            with torch.no_grad():
                values.append(network.evaluate(network.parameters, one, raw=True))
            continue
        value, pulled = _pull(network, one, slice(place, place + 1))
        values.append(value)
        total = {name: total[name].add_(part) if name in total else part for name, part in pulled.items()}
    return torch.cat(values), total


def _pull(network: Network, samples: Inputs, rows: slice) -> tuple[Tensor, dict[str, Tensor]]:
    """f and Jᵀu of one batch, u the ``rows`` of what :func:`cotangents` draws."""
    return batch_vjp(network, samples, partial(_first_ones, rows))


def _first_ones(rows: slice, outputs: Tensor) -> Tensor:
    u = cotangents(outputs, FEW)[rows]
    u[PULLED:] = 0
    return u


def _share(eps: float) -> float:
    """Of a size, what needs no explanation by rounding; eps^0.6 would be five per cent in bfloat16."""
    return 2 * eps if eps > _COARSE else float(eps**0.6)


def _ulps(eps: float) -> int:
    return 1 if eps > _COARSE else _ULPS


def _twice(eps: float) -> int:
    """How often what rounding moves is granted: it is moved by one unit in coarse arithmetic, by UNITS in fine."""
    return 3 if eps > _COARSE else 2


def explained_outputs(spread: Array, size: Array, eps: float) -> Array:
    """Differences, by output, that need no explanation: of the spread of f, and the last digits of its largest value."""
    return _share(eps) * spread + _ulps(eps) * eps * size


def explained_derivatives(sizes: Array, largest: Array | float, eps: float) -> Array:
    """The same for Jᵀu by parameter (P,): of its own size, and the last digits of the largest of all."""
    return _share(eps) * sizes + 2 * _ulps(eps) * eps * largest


def _limit(values: Tensor) -> Tensor:
    spread = values.amax(0) - values.amin(0)
    return explained_outputs(spread, values.abs().amax(0), torch.finfo(values.dtype).eps)


def _slack(sizes: Tensor, pulled: Gradients, dtype: torch.dtype) -> Tensor:
    eps = max(torch.finfo(kind).eps for kind in (dtype, *(part.dtype for part in pulled.values())))
    return explained_derivatives(sizes, sizes.amax(), eps)


def _noise(network: Network, samples: Inputs, seen: Look) -> tuple[Tensor, Tensor, float]:
    """What rounding does to the samples alone: by output, by parameter, and the resolution that it was taken for."""
    few = seen.chosen[: len(seen.together)]
    with network.evaluating():
        eps = network.sight(samples).eps
        values, derivatives = torch.zeros_like(seen.alone[0]), torch.zeros_like(seen.gap)
        for seed in range(DRAWS):
            with network.nudged(seed, (1 if eps > _COARSE else UNITS) * eps):
                alone, pulled = _alone(network, samples, few)
            values = torch.maximum(values, (alone - seen.alone[: len(few)]).abs().amax(0))
            moved = {name: pulled[name] - part for name, part in seen.pulled.items()}
            derivatives = torch.maximum(derivatives, _sizes(moved))
    return values, derivatives, eps


def _differences(a: Tensor, b: Tensor) -> Tensor:
    """The largest, by output."""
    gap: Tensor = (a - b).abs().amax(0)
    return gap


def _refuse(what: str, expected: str, ratios: Tensor) -> None:
    raise UnsupportedModelError(
        f"the model couples samples in its {what}",
        expected=expected,
        got=f"{float(ratios.max()):.2g} times what rounding explains",
        remedy="Remove what mixes the batch axis (batch statistics, contrastive terms, a branch on the whole batch), "
        "or measure in eval().",
    )


def _sizes(parts: Gradients) -> Tensor:
    """(P,) the largest entry of each by magnitude, in float64, on the device of the first."""
    found = [_largest(part) for part in parts.values()]
    return torch.stack([size.to(found[0].device) for size in found])


def _largest(tensor: Tensor) -> Tensor:
    if not tensor.numel():
        return torch.zeros((), dtype=torch.float64, device=tensor.device)
    low, high = torch.aminmax(tensor)  # without a copy of the absolute values
    return torch.maximum(-low, high).double()
