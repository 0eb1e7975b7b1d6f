"""Rule: what is known of the update that leaves a state, told in words and numbers. P and its threshold, or why not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kerneltrack.conventions import alternating_gain
from kerneltrack.errors import ObservableError


@dataclass(frozen=True)
class Rule:
    """The update as far as settings tell it.

    Attributes:
        learning_rates: one per parameter group.
        optimizer: its class under ``class`` ("SGD", "Adam", …), and its settings as torch calls them (momentum, dampening,
            nesterov, weight_decay, betas); None: unknown.
    """

    learning_rates: tuple[float, ...]
    optimizer: Mapping[str, Any] | None

    @classmethod
    def of(cls, learning_rates: float | Sequence[float], optimizer: str | Mapping[str, Any] | None) -> Rule:
        """The rule that the arguments mean; a class alone is one with torch's defaults.

        Raises:
            ObservableError: a mapping without a class.
        """
        rates = np.atleast_1d(np.asarray(learning_rates, dtype=np.float64))
        told = {"class": optimizer} if isinstance(optimizer, str) else optimizer
        if told is not None and not isinstance(told.get("class"), str):
            raise ObservableError(
                "optimizer",
                expected="a class, or its settings with the class among them",
                got=repr(dict(told)),
                remedy='For example optimizer={"class": "SGD", "momentum": 0.9}.',
            )
        return cls(tuple(float(rate) for rate in rates), told)

    @property
    def settings(self) -> list[dict[str, Any]]:
        """As an archive's provenance tells of optimizers."""
        if self.optimizer is None:
            return [{"class": "unknown", "groups": []}]
        beside = {key: value for key, value in self.optimizer.items() if key != "class"}
        return [{"class": self.optimizer["class"], "groups": [{**beside, "lr": rate} for rate in self.learning_rates]}]

    @property
    def metric(self) -> float:
        """P, where it is one number.

        Raises:
            ObservableError: it is not, or not known.
        """
        if self.optimizer is None:
            raise ObservableError("the optimizer is not said")
        if self.optimizer["class"] != "SGD":
            raise ObservableError(f"the preconditioner of {self.optimizer['class']} is not among the arrays")
        if len(set(self.learning_rates)) != 1:
            raise ObservableError("the kernel alone does not tell which parameters have which learning rate")
        return self.learning_rates[0]

    @property
    def threshold(self) -> float:
        """c = 2/g − ηw of SGD with gain g and weight decay w; see :mod:`kerneltrack.training`.

        Raises:
            ObservableError: it is not known.
        """
        rate, told = self.metric, self.optimizer or {}
        threshold = 2.0 / alternating_gain(told) - rate * float(told.get("weight_decay") or 0.0)
        if threshold <= 0 or told.get("maximize"):
            raise ObservableError("weight decay alone is beyond the edge of stability, or the optimizer maximises")
        return threshold
