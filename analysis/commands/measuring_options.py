"""How the command line measures a model: the options that ``plan`` and ``track`` share, and the instrument they make."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from kerneltrack import observables
from kerneltrack.conventions import GaugeChoice
from kerneltrack.measurement import Eigenpairs, Instrument, OutputChoice, choose
from kerneltrack.probe import Probe
from kerneltrack.training import LossName, ProbeLoss


@dataclass(frozen=True, kw_only=True)
class MeasuringOptions:
    """How a kernel is measured, as the user of the command line gave it; the tracker's arguments of the same names.

    Attributes:
        loss: its name, or None.
        output: the output reduction, or "auto".
        gauge: "raw", "softmax" or "auto".
        eigenpairs: "all", or "leading".
        top_k: how many eigenvectors are stored.
        memory_budget: bytes or "2GiB", or None.
    """

    loss: LossName | None = None
    output: OutputChoice = "auto"
    gauge: GaugeChoice = "auto"
    eigenpairs: Eigenpairs = "all"
    top_k: int = 64
    memory_budget: str | None = None

    def instrument(self, probe: Path) -> Instrument:
        """What measures every default observable on a probe saved with ``Probe.save``; what is "auto" is not chosen yet."""
        return Instrument(
            probe=Probe.load(probe),
            observables=observables.select("default"),
            loss=None if self.loss is None else ProbeLoss.of(self.loss),
            eigenpairs=self.eigenpairs,
            top_k=self.top_k,
            memory_budget=self.memory_budget,
        )

    def settled(self, instrument: Instrument, module: nn.Module) -> tuple[Instrument, str]:
        """The instrument with the kernel that the tracker would choose, and what was left open, to be said; "" for nothing.

        Args:
            instrument: of :meth:`instrument`.
            module: the network, in eval mode.

        Raises:
            TrackerError: a kernel that says nothing under the loss, or a gauge that it does not have.
        """
        points, outputs = len(instrument.probe), instrument.width(module)
        found = choose(self.output, self.gauge, instrument.loss, points=points, outputs=outputs)
        return replace(instrument, output=found.output, gauge=found.gauge), found.reason
