"""control_run: go on from a fork in a loop of one's own, with the learning rate held."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from kerneltrack.archive import IfExists
from kerneltrack.errors import ForkError
from kerneltrack.tracking import continuation
from kerneltrack.tracking.announcements import say
from kerneltrack.tracking.fabric_loader import begin_at, epochs_begun, inside, is_wrapped
from kerneltrack.tracking.fork import Fork
from kerneltrack.tracking.held_rates import put_back
from kerneltrack.tracking.loop import Loop, model_of, optimizers_of
from kerneltrack.tracking.stepped_run import SteppedRun
from kerneltrack.tracking.told import number_of
from kerneltrack.tracking.tracker import Tracker
from kerneltrack.undisturbed import held_generators, preserved_generators, preserved_rng

#: Makes one update: (model, optimizer, batch) → its loss, or None. Of several optimizers it is given the list.
UpdateFunction = Callable[[nn.Module, Any, Any], Any]


class _ContinuedTracker(Tracker):
    """The tracker of a continuation, with the options of its run."""

    def __init__(self, fork: Fork, path: Path, loop: Loop, *, steps: int, if_exists: IfExists, placebo: int) -> None:
        SteppedRun.__init__(self, continuation.options_of(fork, path, steps=steps, if_exists=if_exists))
        self._given = frozenset()
        self._take_loop(loop)
        self._control = continuation.control_of(fork, placebo=placebo)
        self.load_state_dict({**continuation.tracker_state(fork), "loop": fork.loop})


def control_run(
    fork: Fork,
    update: UpdateFunction,
    *,
    steps: int | None = None,
    archive: str | Path | None = None,
    model: nn.Module | None = None,
    optimizer: Optimizer | list[Optimizer] | None = None,
    batches: Iterable[Any] | None = None,
    if_exists: IfExists = "raise",
    placebo: bool | int = False,
) -> Path:
    """Train on from a fork as if its rate had never changed, and write the archive of that control run.

    The loader of the run's tracker gives the run's batches again, generators begin where they stood, and every step uses the
    settings (rates, momenta, weight decay) of the update before the fork. It is measured at the steps of the run. Model, loader
    and generators of the run are afterwards what they were.

    Args:
        fork: of ``tracker.forks``; call this when the run has ended.
        update: (model, optimizer, batch) → loss: zeroes gradients, goes backward and steps, as the run's loop does. It must use the
            model and the optimizer that it is given; no scheduler.
        steps: how many updates; None: as many as the run made after the fork.
        archive: the file to write; None: beside the run's, ``NAME-control-STEP.h5``.
        model: what to train, of the same make as the run's, wrapped or not: ``update`` is given it as it is; None: a copy of the
            run's own, without wrappers.
        optimizer: of its parameters; given with ``model``.
        batches: from the fork's update on, where the run's tracker knows no loader, or one that cannot begin again.
        if_exists: "raise" or "replace".
        placebo: go on with the run's own rates on other batches instead, which says what these alone do; 2, 3, … draw others.

    Returns:
        The archive. It says of which run it is a control, and whether the batches were the same.

    Raises:
        ForkError: a fork of Lightning's, a model of another make, or an update that does not step the optimizer.
        ArchiveExistsError: the archive exists.
    """
    _check(fork, update)
    steps = continuation.steps_of(fork, steps)
    placebo = continuation.draw_of(placebo)
    path = continuation.place_of(fork, archive, placebo=placebo)
    source: Loop = fork.origin.source
    net, optimizers = _pair(source, model, optimizer)
    loop = Loop(net, optimizers, source.loader, fork.step + steps, source.bound)
    tracker = _ContinuedTracker(fork, path, loop, steps=steps, if_exists=if_exists, placebo=placebo)
    with _left_alone(source.loader), tracker:
        fork.weights.load(net)
        fork.load_optimizers(optimizers)
        found = _batches(fork, batches, source.loader, placebo=placebo)
        trained = optimizers[0] if len(optimizers) == 1 else optimizers
        handed = (net, trained) if model is None else (model, optimizer)
        _train(tracker, fork, lambda batch: update(*handed, batch), found, steps, placebo=placebo)
    return path


def _train(
    tracker: _ContinuedTracker,
    fork: Fork,
    update: Callable[[Any], Any],
    given: Iterator[Any],
    steps: int,
    *,
    placebo: int,
) -> None:
    optimizers = tracker._loop.optimizers
    stepped: list[int] = []

    def held(*_: Any) -> None:
        stepped.append(tracker.step)
        put_back(optimizers, continuation.settings_at(fork, tracker.step, placebo=placebo))

    hooks = [optimizer.register_step_pre_hook(held) for optimizer in optimizers]
    compared = continuation.Comparison(fork)
    try:
        for step in range(fork.step, fork.step + steps):
            batch = next(given)
            if step == fork.step and not placebo:
                fork.generators.restore(held_generators(tracker._loop.loader))
            put_back(optimizers, continuation.settings_at(fork, tracker.step, placebo=placebo))
            with tracker.update(batch) as under_way:
                under_way.loss = update(batch)
            if not stepped:
                raise _did_not_step()
            compared.note(step, batch)
            compared.ended(step, number_of(under_way.loss) if compared.wants_loss(step) else None)
    finally:
        for hook in hooks:
            hook.remove()
        tracker._tell_batches(compared.batches)
    if (line := compared.sentence(placebo=placebo)) and tracker._options.log:
        say(line)


def _batches(fork: Fork, given: Iterable[Any] | None, loader: Any, *, placebo: int) -> Iterator[Any]:
    """The batches from the fork's update on, epoch after epoch, as ``for batch in loader`` takes them."""
    if given is not None:
        yield from given
        raise ForkError(
            "batches ended before steps", expected="a batch for every update", remedy="Give more, or fewer steps."
        )
    if loader is None:
        while True:
            yield None
    if placebo:
        continuation.reseed(fork, loader, placebo)
    elif fork.replay is not None:
        yield from _rest(fork, loader)
    while True:
        yield from loader


def _rest(fork: Fork, loader: Any) -> Iterator[Any]:
    """What is left of the fork's epoch."""
    assert fork.replay is not None
    if is_wrapped(loader):  # it moves batches to their device, and makes its iterator at the first one only
        begin_at(loader, fork.replay.epochs)
        unwind = fork.replay.rewind(inside(loader))
        try:
            yield from loader
        finally:
            unwind()
        return
    try:
        again = fork.replay.begin(loader, lambda: iter(loader))
    except StopIteration:  # it has fewer batches now: they are others, which the comparison says
        return
    yield from again


@contextmanager
def _left_alone(loader: Any) -> Iterator[None]:
    """Generators of the process and of the loader, the state of a loader that has one, and its count of epochs are put back."""
    begun = epochs_begun(loader)
    stateful = all(callable(getattr(loader, name, None)) for name in ("state_dict", "load_state_dict"))
    state = copy.deepcopy(loader.state_dict()) if stateful else None
    with preserved_rng(), preserved_generators(*held_generators(loader)):
        yield
    begin_at(loader, begun)
    if stateful:
        loader.load_state_dict(state)


def _pair(source: Loop, model: Any, optimizer: Any) -> tuple[nn.Module, list[Optimizer]]:
    """What is trained: what was given, or a copy of the run's own."""
    if (model is None) != (optimizer is None):
        raise ForkError(
            "model= and optimizer= belong together",
            expected="both, or neither",
            remedy="Make the optimizer of the parameters of the model that you give.",
        )
    if model is not None:
        return model_of(model), optimizers_of(optimizer)
    if source.casts:
        raise ForkError(
            f"the run's model ran in {source.casts} under Fabric's wrapper, which a copy of it has not",
            expected="model= and optimizer=",
            remedy="Give what fabric.setup(model, optimizer) returns of a new pair, made as the run made its own.",
        )
    try:
        net, optimizers = copy.deepcopy((source.model, source.optimizers))
    except (TypeError, RuntimeError, NotImplementedError, AttributeError) as error:
        raise ForkError(
            "the run's model and optimizer cannot be copied",
            got=f"{type(error).__name__}: {error}",
            remedy="Give model= and optimizer=, made as the run made its own.",
        ) from error
    return net, optimizers


def _check(fork: Any, update: Any) -> None:
    if not isinstance(fork, Fork) or not isinstance(fork.origin.source, Loop):
        kind = "a fork of a Lightning run" if isinstance(fork, Fork) else repr(fork)
        raise ForkError(
            "control_run()",
            expected="a fork of a kerneltrack.Tracker: one of tracker.forks",
            got=kind,
            remedy="For NTKTracker's forks call kerneltrack.callbacks.run_control(fork, trainer=…, module=…).",
        )
    if not callable(update):
        raise ForkError(
            "update",
            expected="a function (model, optimizer, batch) -> loss that makes one update",
            got=repr(update),
            remedy="Move the body of the loop into a function, and call it in the loop as well.",
        )


def _did_not_step() -> ForkError:
    return ForkError(
        "update() did not step the optimizer that it was given",
        expected="optimizer.step() of its second argument",
        remedy="Write it as update(model, optimizer, batch) and use these, not those of the run.",
    )
