"""The layers that a probe's values are given by, bound by the first measurement: freezing and thawing change none of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from torch import nn

from kerneltrack.ntk import Selection, layer_of, listed, selected, trainable, unwrap

Value = TypeVar("Value")
#: Of a network with more layers than this, only those that train have a place of their own.
MOST = 512
#: Where the values of all others go; a layer that is itself called so goes there too.
OTHER = "other"


@dataclass(frozen=True)
class Layers:
    """The layers of one probe's values.

    Attributes:
        names: in the order of the parameter table: every layer of which ``params=`` selects a parameter by name, frozen or
            not, and every other one that trained at the first measurement. Beyond :data:`MOST` those that trained, and
            :data:`OTHER`.
        rest: whether what has no place of its own goes to :data:`OTHER`.
    """

    names: Sequence[str]
    rest: bool = False

    @classmethod
    def of(cls, module: nn.Module, params: Selection, known: Sequence[str] | None = None) -> Layers:
        """Those of ``module``.

        Args:
            module: the network.
            params: which parameters the kernel is of.
            known: the names that the first measurement bound; None for the first.
        """
        inner = unwrap(module)
        trained = set(map(layer_of, trainable(inner, None)))
        chosen = trained | set(map(layer_of, selected(inner, params)))
        many = len(chosen) > MOST
        if known is None:
            table = dict.fromkeys(map(layer_of, selected(inner, None)))
            known = [layer for layer in table if layer in (trained if many else chosen)]
            known += [OTHER] * (many and OTHER not in known and set(known) != chosen)
        return cls(known, many and OTHER in known)

    def new(self, trained: Iterable[str]) -> str:
        """Why no value can be given by these layers: others train; "" where none does."""
        added = [layer for layer in dict.fromkeys(trained) if layer not in self.names]
        return f"new layers train: {listed(added)}" if added and not self.rest else ""

    def place(self, layer: str) -> str:
        """Under which name a layer's values go."""
        return OTHER if self.rest and layer not in self.names else layer

    def placed(
        self, values: Mapping[str, Value], nothing: Value, together: Callable[[Value, Value], Value]
    ) -> dict[str, Value]:
        """Layer → value for every one of :attr:`names`.

        Args:
            values: by layer.
            nothing: the value of a layer of which nothing trains; one object for all of them.
            together: the value of two layers that have one place.
        """
        found: dict[str, Value] = {}
        for layer, value in values.items():
            place = self.place(layer)
            found[place] = together(found[place], value) if place in found else value
        return {name: found.get(name, nothing) for name in self.names}
