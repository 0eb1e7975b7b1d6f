"""The first forward pass of a module: one sample, on copies, so that whatever it changes is found and is not the user's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from kerneltrack.errors import KernelError, ProbeError, UnsupportedModelError
from kerneltrack.ntk.network.generators import Generators
from kerneltrack.ntk.network.network import Network
from kerneltrack.ntk.network.refusals import refuse_not_repeated
from kerneltrack.ntk.network.samples import Inputs

Tensors = Mapping[str, Tensor]


def try_one_sample(
    network: Network, samples: Inputs, generators: Generators, buffers: Callable[[], dict[str, Tensor]]
) -> Callable[[Tensor], None]:
    """Runs the first sample, twice where it writes into buffers; call it inside ``network.evaluating()``.

    Args:
        network: the network.
        samples: N samples.
        generators: a forward pass that draws from them is not asked to repeat itself.
        buffers: makes copies of the network's buffers.

    Returns:
        What is to be told f of the first sample, (1, K), when it has run again: it raises where that is another one.

    Raises:
        UnsupportedModelError: a forward that takes no single sample, cannot be differentiated, makes or changes parameters,
            changes buffers, or does not repeat itself.
        ProbeError: samples of another precision than the model.
    """
    one, states, written, values = samples.rows(0, 1), generators.states(), buffers(), network.parameters
    with torch.no_grad():
        try:
            seen = network.sight(samples)
            first = network.evaluate(values, one, written)
        except KernelError:
            raise
        except (RuntimeError, ValueError, IndexError) as refusal:
            _refuse_precision(network, samples, refusal)
            network.evaluate(values, samples)  # raises too if x is at fault
            _refuse_derivative(network, values, one, refusal)
            raise UnsupportedModelError(
                "the model couples samples: it takes the batch, and not one sample of it",
                got=refusal,
                remedy="Remove what mixes the batch axis (batch statistics, contrast), or call eval(). A .squeeze() without an "
                "axis drops that of a single sample: name the axis, .squeeze(-1), or use .flatten(1).",
            ) from refusal
        _refuse_made_parameters(network)
        _refuse_moving_buffers(network.module, written, buffers())
        if generators.states() != states:
            return lambda again: None  # whether it is random is asked of two states of the generators
        if seen.buffers and not _repeats(first, network.evaluate(values, one, written)):
            raise UnsupportedModelError(
                f"the outputs depend on how often the model ran: forward changes buffers: {_short(seen.buffers)}",
                remedy="Call model.eval(): spectral_norm, for instance, iterates in training mode only.",
            )
    return lambda again: None if _repeats(first, again) else refuse_not_repeated(network.module)


def _repeats(first: Tensor, again: Tensor) -> bool:
    return not bool(((first - again).abs() > 64 * torch.finfo(first.dtype).eps * first.abs().max()).any())


def _short(raws: Sequence[str]) -> list[str]:
    return [raw.removeprefix("model.") for raw in raws[:8]]


def _refuse_made_parameters(network: Network) -> None:
    """A parameter that only a forward pass makes is not there when the kernel's parameters are named."""
    before = {id(parameter) for parameter in network.now.parameters.values()}
    if made := [name for name, parameter in network.module.named_parameters() if id(parameter) not in before]:
        raise UnsupportedModelError(
            f"the forward pass makes parameters: {made[:8]}",
            expected="every parameter there before the forward pass",
            remedy="Run one batch through the model before it is measured.",
        )


def _refuse_moving_buffers(module: nn.Module, written: Tensors, before: Tensors) -> None:
    """In training mode some modules update what their outputs depend on (spectral_norm iterates)."""
    moved = [
        raw
        for raw, b in written.items()
        if b.is_floating_point() and not torch.equal(b.to_dense(), before[raw].to_dense())
    ]
    training = {name for name, child in module.named_modules() if child.training}
    names = [raw.removeprefix("model.") for raw in moved]
    names = [name for name in names if name.rpartition(".")[0] in training]
    if names:
        raise UnsupportedModelError(
            f"the forward pass updates buffers in training mode: {names[:8]}",
            remedy="Call model.eval() before measuring.",
        )


def _refuse_derivative(network: Network, values: Tensors, one: Inputs, refusal: Exception) -> None:
    """Of a sample that goes forward alone, what was refused is its gradient."""
    try:
        network.evaluate(values, one)
    except (RuntimeError, ValueError, IndexError):
        return
    raise UnsupportedModelError(
        "the forward pass runs, and autograd refuses its gradient",
        expected="a forward pass through which a loss could be passed back",
        got=refusal,
        remedy="Write the operation that torch names out of place (x = x + y, not x += y), or detach what is not trained.",
    ) from refusal


def _refuse_precision(network: Network, samples: Inputs, refusal: Exception) -> None:
    own = {p.dtype for p in network.parameters.values()}
    given = {t.dtype for t in samples.tensors if t.is_floating_point()}
    if given and not given & own:
        raise ProbeError(
            "the probe has another precision than the model",
            expected=own,
            got=given,
            remedy="Convert the inputs, or pass dtype= to convert model and inputs together.",
        ) from refusal
