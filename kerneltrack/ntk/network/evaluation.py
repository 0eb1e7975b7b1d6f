"""One evaluation of a network: what its module is meanwhile, asked once."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from torch import Tensor, nn

from kerneltrack.ntk.network.forward import Call, structure
from kerneltrack.ntk.network.generators import Generators
from kerneltrack.ntk.network.names import is_of_module, own_name
from kerneltrack.ntk.network.plan_key import PlanKey
from kerneltrack.ntk.network.tree import Tree


class Evaluation:
    """A module stays as it is while it is evaluated, so whoever asks again is given the first answer.

    Args:
        call: the module as a function.

    Attributes:
        tree: of the function, by its names (:mod:`.names`).
        named: submodules of the module alone, itself included, by their names there.
        modules: the same without names.
        keys: plan keys that were asked for, by shapes and dtypes.
    """

    def __init__(self, call: Call) -> None:
        self.tree = Tree(call)
        self.named = {own_name(name): child for name, child in self.tree.modules if is_of_module(name)}
        self.modules: list[nn.Module] = list(self.named.values())
        self.keys: dict[tuple[Any, ...], PlanKey] = {}

    @cached_property
    def parameters(self) -> dict[str, Tensor]:
        """Those of the module alone, by their names there."""
        return {own_name(raw): p for raw, p in self.tree.parameters.items() if is_of_module(raw)}

    @property
    def addresses(self) -> tuple[int, ...]:
        """Where each parameter and buffer lies."""
        return tuple([one.data_ptr() for one in (*self.tree.parameters.values(), *self.tree.buffers.values())])

    @cached_property
    def generators(self) -> Generators:
        """Those that a forward pass may draw from."""
        return Generators(self.modules)

    @cached_property
    def structure(self) -> tuple[Any, ...]:
        """Modes, hooks and switches."""
        return structure(self.modules, self.parameters.values())
