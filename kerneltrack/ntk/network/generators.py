"""Random generators that a forward pass may draw from: their states, put back bit for bit, and moved on purpose.

Whether a forward pass is random is asked of the generators, not of its values: noise of strength zero has the values of
no noise, and another derivative.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from kerneltrack.undisturbed import GENERATORS, generator_state, preserved_generators, preserved_rng


class Generators:
    """The process's generators (Python, NumPy, torch, CUDA where it is in use), and those that modules hold.

    Args:
        modules: the modules whose attributes are looked through.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        kinds = {kind for module in modules for kind in map(type, vars(module).values())}
        own = tuple(kind for kind in kinds if issubclass(kind, GENERATORS))
        held = [value for module in modules for value in vars(module).values() if isinstance(value, own)] if own else []
        self._own = list({id(generator): generator for generator in held}.values())

    def states(self) -> list[Any]:
        """The state of each, as it can be compared with ``==``."""
        return [
            random.getstate(),
            _numpy_state(),
            _bytes(torch.get_rng_state()),
            *map(_bytes, _cuda()),
            *map(_state, self._own),
        ]

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Puts all of them back."""
        with preserved_rng(), self.own_restored():
            yield

    @contextmanager
    def own_restored(self) -> Iterator[None]:
        """Puts back those that modules hold."""
        with preserved_generators(*self._own):
            yield

    def seed(self, seed: int) -> None:
        """Puts all of them in a state that ``seed`` decides; call it inside :meth:`restored`."""
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        for generator in self._own:
            if isinstance(generator, torch.Generator):
                generator.manual_seed(seed)
            elif isinstance(generator, np.random.Generator):
                generator.bit_generator.state = type(generator.bit_generator)(seed).state
            else:
                generator.seed(seed)


def _cuda() -> list[torch.Tensor]:
    return torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]


def _bytes(state: torch.Tensor) -> bytes:
    return state.numpy().tobytes()


def _numpy_state() -> tuple[Any, ...]:
    name, keys, *rest = np.random.get_state()
    return (name, np.asarray(keys).tobytes(), *rest)


def _state(generator: Any) -> Any:
    """The same, comparable: arrays as their bytes."""
    kept = generator_state(generator)
    return _bytes(kept) if isinstance(generator, torch.Generator) else repr(kept)
