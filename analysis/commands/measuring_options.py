"""How the command line measures a model: the options that ``plan`` and ``track`` share, and the instrument they make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from torch import nn

from kerneltrack import observables
from kerneltrack.conventions import GaugeChoice
from kerneltrack.errors import TrackerError
from kerneltrack.measurement import Eigenpairs, Instrument, OutputChoice, choose
from kerneltrack.probe import Probe
from kerneltrack.training import LossName, ProbeLoss

from .model import imported


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
        params: names of parameters, or patterns as a shell's; none: all that require grad.
        forward: ``module:function`` of (model, inputs) → outputs, or None.
    """

    loss: LossName | None = None
    output: OutputChoice = "auto"
    gauge: GaugeChoice = "auto"
    eigenpairs: Eigenpairs = "all"
    top_k: int = 64
    memory_budget: str | None = None
    params: Sequence[str] = ()
    forward: str | None = None

    def instrument(self, probe: Path) -> Instrument:
        """What measures every default observable on a probe saved with ``Probe.save``; what is "auto" is not chosen yet."""
        return Instrument(
            probe=Probe.load(probe),
            output="full" if self.output == "auto" else self.output,
            gauge="raw" if self.gauge == "auto" else self.gauge,
            observables=observables.select("default"),
            loss=None if self.loss is None else ProbeLoss.of(self.loss),
            eigenpairs=self.eigenpairs,
            top_k=self.top_k,
            memory_budget=self.memory_budget,
            params=self.selects if self.params else None,
            forward=None if self.forward is None else imported(self.forward, "--forward"),
        )

    def selects(self, name: str) -> bool:
        """Whether the kernel is of the parameter of this name."""
        return not self.params or any(fnmatchcase(name, pattern) for pattern in self.params)

    def settled(self, instrument: Instrument, module: nn.Module) -> tuple[Instrument, str]:
        """The instrument with the kernel that the tracker would choose, and what was left open, to be said; "" for nothing.

        Args:
            instrument: of :meth:`instrument`.
            module: the network, in eval mode.

        Raises:
            TrackerError: a kernel that says nothing under the loss, a gauge that it does not have, or a name in ``params``
                that no parameter has.
        """
        names = [name for name, _ in module.named_parameters()]
        for pattern in self.params:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise TrackerError(
                    f"--params {pattern}",
                    expected=f"the name of a parameter, or a pattern, as {', '.join(names[:4])}",
                    got="none that fits",
                    remedy="Quote patterns: --params 'layers.2.*'.",
                )
        points, outputs = len(instrument.probe), instrument.width(module)
        found = choose(self.output, self.gauge, instrument.loss, points=points, outputs=outputs)
        return replace(instrument, output=found.output, gauge=found.gauge), found.reason
