"""Replay: from where a loader gives the same batches again; and the watch that knows it while a training runs."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from kerneltrack.tracking.fabric_loader import epochs_begun, inside
from kerneltrack.tracking.generator_states import GeneratorStates
from kerneltrack.undisturbed import held_generators


@dataclass(frozen=True, eq=False)
class Replay:
    """A moment in a loader's epoch.

    Attributes:
        consumed: batches that were taken before it, from where the other attributes stand.
        before: generators as the epoch's iterator was about to be made; None: nobody knows.
        after: the same once it was made, before its first batch.
        loader_state: the loader's own state, of one that has it; then ``after`` are the generators of that moment.
        epochs: that Fabric's wrapper had begun before this one; None: there is no wrapper.
    """

    consumed: int
    before: GeneratorStates | None
    after: GeneratorStates
    loader_state: Any = field(default=None, repr=False)
    epochs: int | None = None

    def begin(self, loader: Any, make: Callable[[], Iterator[Any]]) -> Iterator[Any]:
        """An iterator that gives the batches from this moment on.

        Args:
            loader: whose generators are put back.
            make: makes its iterator; () → iter(loader), or what a trainer does instead.
        """
        held = held_generators(loader)
        if self.loader_state is not None:
            loader.load_state_dict(copy.deepcopy(self.loader_state))
        if self.before is not None:
            self.before.restore(held)
        found = make()
        self.after.restore(held)
        for _ in range(self.consumed):
            next(found)
        return found

    def rewind(self, loader: Any) -> Callable[[], None]:
        """Let every iterator that a DataLoader makes begin at this moment, until the function that is returned is called."""
        makes = loader._get_iterator

        def make() -> Iterator[Any]:
            try:
                return _as_it_stood(self.begin(loader, makes), loader)
            except StopIteration:  # it has fewer batches now: they are others, which whoever compares them sees
                return makes()  # type: ignore[no-any-return]  # of a torch DataLoader

        loader._get_iterator = make
        return lambda: vars(loader).pop("_get_iterator", None)


def _as_it_stood(found: Iterator[Any], loader: Any) -> Iterator[Any]:
    """The same batches, whatever is drawn before the first of them: that may be when the loader's order is drawn."""
    held = held_generators(loader)
    states = GeneratorStates.now(held)

    def batches() -> Iterator[Any]:
        states.restore(held)
        yield from found

    return batches()


class LoaderWatch:
    """Notes the generators whenever a DataLoader makes an iterator, until :meth:`stop`; the loader gives the same batches.

    A loader of another class that has ``state_dict`` and ``load_state_dict`` is asked for its state at every :meth:`ended`.
    Under Fabric's wrapper it is the DataLoader inside that is watched.
    """

    def __init__(self, loader: Any) -> None:
        self._wrapper, loader = loader, inside(loader)
        self._loader = loader
        self._epochs: int | None = None
        self._before: GeneratorStates | None = None
        self._after: GeneratorStates | None = None
        self._state: Any = None
        self._taken = 0
        makes: Any = getattr(loader, "_get_iterator", None)
        # Workers that stay alive begin a second epoch without a new iterator.
        stays = getattr(loader, "persistent_workers", False) and getattr(loader, "num_workers", 0)
        self._patched = callable(makes) and not stays
        if self._patched:
            loader._get_iterator = functools.partial(self._make, makes)
        elif self._is_stateful:
            self.ended()

    @property
    def _is_stateful(self) -> bool:
        return all(callable(getattr(self._loader, name, None)) for name in ("state_dict", "load_state_dict"))

    def _make(self, makes: Callable[[], Iterator[Any]]) -> Iterator[Any]:
        held = held_generators(self._loader)
        self._before = GeneratorStates.now(held)
        begun = epochs_begun(self._wrapper)  # this one is among them
        self._epochs = None if begun is None else begun - 1
        found = makes()
        self._after, self._taken = GeneratorStates.now(held), 0
        return found

    def assume_made(self) -> None:
        """The loader has just made an iterator unseen, and given no batch: of what its processes draw nothing is known."""
        if self._patched and not getattr(self._loader, "num_workers", 0):
            self._before, self._after = None, GeneratorStates.now(held_generators(self._loader))

    def took(self) -> None:
        """A batch was taken."""
        self._taken += 1

    def ended(self) -> None:
        """An update has ended: the next batch is taken from here."""
        if not self._patched and self._is_stateful:
            self._state = copy.deepcopy(self._loader.state_dict())
            self._after, self._taken = GeneratorStates.now(held_generators(self._loader)), 0

    def replay(self, consumed: int | None = None) -> Replay | None:
        """The moment after so many batches of the epoch (None: after those that were taken); None where it is unknown."""
        if self._after is None:
            return None
        if self._state is not None:
            return Replay(self._taken, None, self._after, self._state)
        taken = self._taken if consumed is None else consumed
        return Replay(taken, self._before, self._after, epochs=self._epochs)

    def stop(self) -> None:
        """Leave the loader as it was."""
        if self._patched:
            vars(self._loader).pop("_get_iterator", None)
            self._patched = False
