"""GeneratorStates: where all generators of a process stand, and those that a loader holds."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from kerneltrack.undisturbed import generator_state, set_generator_state


@dataclass(frozen=True, eq=False)
class GeneratorStates:
    """States of Python's, NumPy's and torch's generators, of CUDA's where it is in use, and of others that are given in order."""

    python: Any
    numpy: Any
    cpu: torch.Tensor
    cuda: list[torch.Tensor] | None
    held: tuple[Any, ...]

    @classmethod
    def now(cls, held: Sequence[Any] = ()) -> GeneratorStates:
        """Where they stand."""
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]
        return cls(
            random.getstate(),
            np.random.get_state(),
            torch.get_rng_state(),
            cuda,
            tuple((type(g), copy.deepcopy(generator_state(g))) for g in held),
        )

    def restore(self, held: Sequence[Any] = ()) -> None:
        """Put all of them back; those that are held only where they are as many, of the same kinds."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        torch.set_rng_state(self.cpu)
        if self.cuda is not None:
            torch.cuda.set_rng_state_all(self.cuda)
        if [type(generator) for generator in held] == [kind for kind, _ in self.held]:
            for generator, (_, state) in zip(held, self.held, strict=True):
                set_generator_state(generator, copy.deepcopy(state))
