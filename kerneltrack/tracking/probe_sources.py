"""The probes of a run: where each comes from, and the instruments that measure on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import nn

from kerneltrack import observables as catalogue
from kerneltrack.distributed import Ranks, unsharded
from kerneltrack.measurement import Choice, Instrument, choose
from kerneltrack.probe import Probe
from kerneltrack.tracking import announcements, arguments, probe_membership
from kerneltrack.tracking.facts import Facts
from kerneltrack.tracking.measured import Measured
from kerneltrack.tracking.probe_membership import Drawn
from kerneltrack.tracking.trained_loss import stability_scope
from kerneltrack.tracking.training_batches import training_batches
from kerneltrack.undisturbed import undisturbed


class ProbeSources:
    """The probes that a run was asked for: given, read from a file, or drawn from a loader as its kind of loop does.

    Args:
        asked: what is measured.
        split: batch → (inputs, targets), or None for batches that are pairs.
        log: whether to say what was chosen.
    """

    def __init__(self, asked: Measured, split: Callable[[Any], tuple[Any, Any]] | None, *, log: bool) -> None:
        self._asked, self._split, self._log = asked, split, log
        self._validation: Any = None  # the loader that a held-out probe was drawn from

    @property
    def drawn(self) -> dict[str, Drawn]:
        """The probes that are drawn from a loader, and from which."""
        return {name: arguments.loader_of(name) for name, probe in self.named.items() if isinstance(probe, int)}

    @property
    def named(self) -> dict[str, Any]:
        """What was asked for, by the probes' names."""
        found = self._asked.probe
        if isinstance(found, dict):
            return found
        return {"train" if isinstance(found, int) else found.name: found}

    def resolve(self) -> dict[str, Probe]:
        """The probes by name. Drawing reads the data set: on one rank only, or every rank has a probe of its own."""
        drawn = self.drawn
        options: dict[str, Any] = {"seed": self._asked.probe_seed, "split": self._split}
        return {
            name: self._draw(drawn[name], int(probe), **options, name=name) if name in drawn else probe
            for name, probe in self.named.items()
        }

    def _draw(self, source: Drawn, n: int, *, seed: int, split: Any, name: str) -> Probe:
        """``n`` samples of a loader as the network is given them.

        Raises:
            TrackerError: there is no one such loader to draw from.
        """
        raise NotImplementedError

    def instruments(self, facts: Facts, batch: Any, probes: Mapping[str, Probe], ranks: Ranks) -> dict[str, Instrument]:
        """An instrument for each of ``probes``, all of one kernel; the first batch says what the network is trained on."""
        drawn, asked = self.drawn, self._asked
        chosen = catalogue.select(asked.observables)
        batches, without = self._batches(facts, chosen, ranks)
        found = {
            name: Instrument(
                probe=probe,
                observables=chosen,
                batches=batches,
                without_batches=without,
                scope=stability_scope(facts, probe, batch),
                in_training=probe_membership.in_training(
                    facts.loader, probe, batch, drawn=drawn.get(name), validation=self._validation
                )
                if ranks.leads
                else None,
                ranks=ranks,
                progress=announcements.PATIENCE if self._log else False,
                **asked.kernel_options,
            )
            for name, probe in probes.items()
        }
        choice = ranks.broadcast(partial(self._choose, unsharded(facts.model), found))
        output = asked.output if callable(asked.output) else choice.output  # a callable need not pickle
        return {name: replace(one, output=output, gauge=choice.gauge) for name, one in found.items()}

    def _batches(
        self, facts: Facts, chosen: Sequence[catalogue.Observable], ranks: Ranks
    ) -> tuple[tuple[Probe, ...], str]:
        """Batches of the training data, where something is measured on them and this process measures."""
        if not ranks.leads or not catalogue.needs(chosen) & {"batches", "batch_ratios"}:
            return (), "no training batches were drawn"

        def draw(samples: int, number: int) -> Probe:
            seed = self._asked.probe_seed + 1 + number
            return self._draw("train", samples, seed=seed, split=self._split, name=f"batch_{number}")

        return training_batches(facts.loader, facts.accumulated * ranks.size, draw)

    def _choose(self, whole: nn.Module, instruments: Mapping[str, Instrument]) -> Choice:
        """The kernel that is measured on every probe, said in a line where that was left open."""
        asked = self._asked
        largest = max(instruments.values(), key=lambda instrument: len(instrument.probe))
        with undisturbed(whole):
            outputs = largest.width(whole)
            found = choose(asked.output, asked.gauge, asked.loss, points=len(largest.probe), outputs=outputs)
            unseen = asked.gauge == "auto" and found.gauge == "raw" and largest.ignores_shift(whole)
        if self._log and found.reason:
            announcements.say(found.reason)
        if self._log and unseen:
            announcements.say(announcements.unseen_shift(asked.loss))
        return replace(found, output="full") if callable(found.output) else found
