"""The probes of a plain loop: drawn from its training loader, whose batches the network is given as they are."""

from __future__ import annotations

from typing import Any

from kerneltrack.errors import TrackerError
from kerneltrack.probe import Probe
from kerneltrack.tracking.measured import Measured
from kerneltrack.tracking.probe_membership import Drawn
from kerneltrack.tracking.probe_sources import ProbeSources


class LoopProbes(ProbeSources):
    """Where the probes of a loop over ``loader`` come from; other arguments as of :class:`.ProbeSources`."""

    def __init__(self, loader: Any, asked: Measured, split: Any, *, log: bool) -> None:
        super().__init__(asked, split, log=log)
        self._loader = loader

    def check(self) -> None:
        """That there is a loader for every probe that is to be drawn.

        Raises:
            TrackerError: there is none, or it is no DataLoader.
        """
        for name, source in self.drawn.items():
            if source == "val":
                raise TrackerError(
                    f"probe={{{name!r}: {self.named[name]}}}",
                    expected="a Probe: the loop's validation loader is not known",
                    remedy=f"Draw it yourself: Probe.from_dataloader(loader, {self.named[name]}, split=...).",
                )
            if not hasattr(self._loader, "dataset") or not hasattr(self._loader, "collate_fn"):
                raise TrackerError(
                    f"probe={self.named[name]}",
                    expected="loader=, the training DataLoader to draw them from",
                    got="none" if self._loader is None else type(self._loader).__name__,
                    remedy="Give the tracker loader=, or probe=Probe(inputs, targets).",
                )

    def _draw(self, source: Drawn, n: int, *, seed: int, split: Any, name: str) -> Probe:
        del source  # check() has refused all but one
        return Probe.from_dataloader(self._loader, n, seed=seed, split=split, name=name)
