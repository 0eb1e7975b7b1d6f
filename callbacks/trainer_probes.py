"""The probes of a fit: drawn through Lightning's loaders and its hooks for a batch."""

from __future__ import annotations

from typing import Any

from kerneltrack.probe import Probe
from kerneltrack.tracking import Drawn, Measured, ProbeSources, say

from . import drawn_probe


class TrainerProbes(ProbeSources):
    """Where the probes of ``trainer``'s fit come from; other arguments as of :class:`kerneltrack.tracking.ProbeSources`."""

    def __init__(self, trainer: Any, asked: Measured, split: Any, *, log: bool) -> None:
        super().__init__(asked, split, log=log)
        self._trainer = trainer

    def resolve(self) -> dict[str, Probe]:
        drawn = self.drawn
        if len(drawn) < len(self.named) and self._log and (hooks := drawn_probe.transfer_hooks(self._trainer)):
            say(f"{', '.join(hooks)}: not applied to the probe, which was given and is taken as it is")
        if "val" in drawn.values():
            self._validation = drawn_probe.validation_loader(self._trainer)
        return super().resolve()

    def _draw(self, source: Drawn, n: int, *, seed: int, split: Any, name: str) -> Probe:
        options: dict[str, Any] = {"seed": seed, "split": split, "name": name}
        if source == "train":
            return drawn_probe.training_probe(self._trainer, n, **options)
        return drawn_probe.validation_probe(self._trainer, n, loader=self._validation, **options)
