"""What a probe or a gauge is refused for, once the network has been seen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from kerneltrack.conventions import GaugeChoice
from kerneltrack.errors import KerneltrackError, ProbeError, TrackerError
from kerneltrack.training import ProbeLoss


@contextmanager
def probe_at_fault(name: str) -> Iterator[None]:
    """What a plain pass raises is an error of the probe of that name."""
    try:
        yield
    except KerneltrackError:
        raise
    except Exception as error:  # whatever a user's model says of inputs that it cannot take
        raise ProbeError(
            f"probe {name!r} cannot be put through the network",
            expected="inputs that forward= (by default the module's own call) takes",
            got=f"{type(error).__name__}: {error}",
            remedy="Give a probe with the module's inputs, split= for other batches, or forward=.",
        ) from error


def verify_gauge(gauge: GaugeChoice, loss: ProbeLoss | None, outputs: Tensor, targets: Tensor) -> None:
    """Refuse to take off what a user's loss sees.

    Raises:
        TrackerError: the loss changes with one function added to all outputs.
    """
    if gauge == "raw" or loss is None or loss.mean is None:
        return  # choose() has refused the named losses that see it
    if not loss.ignores_shift(outputs, targets):
        raise TrackerError(
            f'gauge="softmax" with loss {loss.name}',
            expected="a loss that ignores one function added to all outputs",
            got="one that changes with it",
            remedy='Leave gauge= away, or say gauge="raw".',
        )
