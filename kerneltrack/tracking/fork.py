"""Fork: a state of a training from which it can go on otherwise: θ_t, optimizers and generators, with the old rates put back."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils import _pytree as pytree

from kerneltrack.errors import ForkError
from kerneltrack.tracking.batch_trail import BatchTrail
from kerneltrack.tracking.generator_states import GeneratorStates
from kerneltrack.tracking.held_rates import Settings
from kerneltrack.tracking.options import Options
from kerneltrack.tracking.replay import Replay

#: Why a fork was kept: a step of the rates, the first fall of a trend, or that it was asked for.
Reason = Literal["step", "decay", "asked"]


@dataclass(frozen=True, eq=False)
class Weights:
    """Parameters, buffers and training flags of a module, on the host."""

    parameters: dict[str, torch.Tensor] = field(repr=False)
    buffers: dict[str, torch.Tensor] = field(repr=False)
    flags: tuple[bool, ...] = field(repr=False)

    @classmethod
    def of(cls, module: nn.Module) -> Weights:
        """Those that it has now."""
        return cls(
            {name: on_host(value) for name, value in module.named_parameters()},
            {name: on_host(value) for name, value in module.named_buffers()},
            tuple(child.training for child in module.modules()),
        )

    def load(self, module: nn.Module) -> None:
        """Put them into a module of the same make.

        Raises:
            ForkError: it is of another make.
        """
        for what, known, found in (
            ("parameters", self.parameters, dict(module.named_parameters())),
            ("buffers", self.buffers, dict(module.named_buffers())),
        ):
            theirs, ours = ({name: tuple(v.shape) for name, v in values.items()} for values in (known, found))
            if theirs != ours:
                differing = sorted(set(theirs.items()) ^ set(ours.items()))
                raise ForkError(
                    f"the module has other {what} than the run that the fork is of",
                    expected=", ".join(f"{n} {s}" for n, s in differing if n in theirs) or "none of these",
                    got=", ".join(f"{n} {s}" for n, s in differing if n in ours) or "none of these",
                    remedy="Make the module as that run made its own.",
                )
            with torch.no_grad():
                for name, value in known.items():
                    found[name].copy_(value)
        for child, flag in zip(module.modules(), self.flags, strict=True):
            child.training = flag


@dataclass(frozen=True, eq=False)
class Origin:
    """Where a fork comes from.

    Attributes:
        options: of the run's tracker, with its probes.
        source: what the loop's kind begins a control from: the loop itself, or weak references to trainer and module.
    """

    options: Options
    source: Any


@dataclass(frozen=True, eq=False)
class Fork:
    """A state before the first update at a new rate, with everything that it takes to go on at the old one.

    Attributes:
        step: t, the updates before it.
        epoch: which the next update belongs to.
        reason: "step", a step of the learning rates; "decay", the first fall of a trend; "asked", by ``fork_at``.
        old_rates: of the update before, one for each parameter group: what a control run keeps.
        new_rates: of the update that the run made from here.
        nbytes: that it takes in memory.
    """

    step: int
    epoch: int
    reason: Reason
    old_rates: tuple[float, ...]
    new_rates: tuple[float, ...]
    nbytes: int
    weights: Weights = field(repr=False)
    optimizers: tuple[dict[str, Any], ...] = field(repr=False)
    settings: Settings = field(repr=False)
    generators: GeneratorStates = field(repr=False)
    replay: Replay | None = field(repr=False)
    trail: BatchTrail = field(repr=False)
    course: list[tuple[int, Settings]] = field(repr=False)
    #: The tracker's own: θ_0, the rows before, and how far the run had come.
    tracker: dict[str, Any] = field(repr=False)
    #: What else the loop's kind needs: Lightning's progress and schedulers.
    loop: dict[str, Any] = field(repr=False)
    origin: Origin = field(repr=False)

    def question(self, call: str) -> str:
        """What its control would answer, and the ``call`` that runs it."""
        old, new = (", ".join(f"{rate:g}" for rate in rates) for rates in (self.old_rates, self.new_rates))
        stayed = f"stayed at {old}" if self.reason == "asked" else f"stayed at {old} instead of going to {new}"
        return f"had the learning rate {stayed} at step {self.step}: {call}"

    def load_optimizers(self, optimizers: Sequence[Optimizer]) -> None:
        """Put the optimizers' states into others of the same make, with the old rates.

        Raises:
            ForkError: they are of another make.
        """
        groups = [[len(g["params"]) for g in state["param_groups"]] for state in self.optimizers]
        found = [[len(g["params"]) for g in o.param_groups] for o in optimizers]
        if groups != found:
            raise ForkError(
                "the optimizers are of another make than those of the run that the fork is of",
                expected=f"parameters by group {groups}",
                got=str(found),
                remedy="Make the optimizer as that run made its own.",
            )
        for optimizer, state in zip(optimizers, self.optimizers, strict=True):
            optimizer.load_state_dict(copy.deepcopy(state))


def on_host(value: torch.Tensor) -> torch.Tensor:
    """A copy in host memory, to the bit."""
    return value.detach().to("cpu", copy=True)


def copied(state: Any) -> Any:
    """A state of tensors and plain values that shares nothing with the one given; tensors in host memory."""
    return pytree.tree_map(lambda leaf: on_host(leaf) if isinstance(leaf, torch.Tensor) else copy.deepcopy(leaf), state)


def bytes_of(*states: Any) -> int:
    """Bytes of the tensors in them, each once."""
    leaves = [leaf for leaf in pytree.tree_leaves(states) if isinstance(leaf, torch.Tensor)]
    sizes = {leaf.untyped_storage().data_ptr(): leaf.numel() * leaf.element_size() for leaf in leaves}
    return sum(sizes.values())
