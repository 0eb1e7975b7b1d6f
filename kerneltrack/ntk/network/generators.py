"""Random generators that a forward pass may draw from: their states, put back bit for bit, and moved on purpose.

Whether a forward pass is random is asked of the generators, not of its values: noise of strength zero has the values of
no noise, and another derivative.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ctypes import string_at
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

    @property
    def held(self) -> bool:
        """Whether modules hold any."""
        return bool(self._own)

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


@contextmanager
def still() -> Iterator[list[Any]]:
    """Puts back the process's generators that moved inside, and then lists their states; empty where none has."""
    moved = list[Any]()
    python, numpy, own, cuda = random.getstate(), _numpy_now(), torch.get_rng_state(), _cuda()
    try:
        yield moved
    finally:
        if random.getstate() != python:
            moved.append(python)
            random.setstate(python)
        if not _is_numpy(numpy):
            moved.append(numpy)
            np.random.set_state(numpy[1])
        if not torch.equal(torch.get_rng_state(), own):
            moved.append(own)
            torch.set_rng_state(own)
        if not all(map(torch.equal, _cuda(), cuda)):
            moved.append(cuda)
            torch.cuda.set_rng_state_all(cuda)


#: Bytes of the words and the place of NumPy's own generator, the Mersenne Twister.
_TWISTER = 4 * 625
#: These bytes, and the state that was read with them.
_read: tuple[bytes, Any] = b"", None


def _numpy_now() -> tuple[bytes, Any]:
    """NumPy's state, which takes 40 µs to read: it is read where its words are not those of the last time.

    The words do not tell of the second number of a pair of normal ones, which is waiting: with one, it is read every time.
    """
    global _read
    words = _words()
    if not words or words != _read[0] or _read[1][3]:
        _read = words, np.random.get_state()
    return _read


def _is_numpy(before: tuple[bytes, Any]) -> bool:
    """Whether the state is what it was."""
    words, state = before
    if words and not state[3]:
        return words == _words()
    return all(map(np.array_equal, state, np.random.get_state()))


def _words() -> bytes:
    """Empty where the generator is another one than usual."""
    generator = np.random.get_bit_generator()  # type: ignore[attr-defined]  # it is documented
    return string_at(generator.ctypes.state_address, _TWISTER) if isinstance(generator, np.random.MT19937) else b""


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
