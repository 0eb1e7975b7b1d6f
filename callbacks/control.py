"""run_control: go on from a fork of a Lightning run, with a Trainer and a module of one's own, and the learning rate held."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from kerneltrack.archive import IfExists
from kerneltrack.errors import ForkError
from kerneltrack.tracking import Fork, TrackedRun, continuation, copied, put_back, say
from kerneltrack.undisturbed import held_generators, preserved_rng

from . import forking, trainer_facts
from .import_roots import callback_bases
from .tracker import NTKTracker
from .trainer_facts import TrainerFacts


class _ContinuedTracker(NTKTracker):
    """The tracker of a continuation, with the options of its run."""

    def __init__(self, fork: Fork, path: Path, *, steps: int, if_exists: IfExists, placebo: int) -> None:
        super().__init__(path)
        options = continuation.options_of(fork, path, steps=steps, if_exists=if_exists)
        TrackedRun.__init__(self, replace(options, split=None))
        self._given = frozenset()
        self._control = continuation.control_of(fork, placebo=placebo)
        self.load_state_dict(continuation.tracker_state(fork))


class _Continuation:
    """Puts a fit where the fork stood, holds its settings, and compares its batches; without Lightning's base class."""

    def __init__(self, fork: Fork, tracker: _ContinuedTracker, *, placebo: int) -> None:
        super().__init__()
        self._fork, self._tracker, self._placebo = fork, tracker, placebo
        self.compared = continuation.Comparison(fork)
        self._hooks: list[Any] = []
        self._first = True
        self._step = fork.step  # of the update that is under way
        self._schedulers: list[Any] = []
        self._unwind: Callable[[], Any] = lambda: None  # lets the loader begin its epochs as ever

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        facts = TrainerFacts(trainer, pl_module)
        if facts.step != self._fork.step:
            raise ForkError("the trainer does not stand at the fork", expected=self._fork.step, got=facts.step)
        self._look_at_validation(trainer)
        self._fork.weights.load(pl_module)
        self._hooks = [o.register_step_pre_hook(lambda *_: self._hold(facts)) for o in facts.optimizers]
        if pl_module.automatic_optimization:  # what would they do: the settings are held, and some end with their run
            self._schedulers = list(trainer.strategy.lr_scheduler_configs)
            trainer.strategy.lr_scheduler_configs = []
        self._hold(facts)
        if self._placebo:
            continuation.reseed(self._fork, trainer.train_dataloader, self._placebo)
            iter(trainer.fit_loop._data_fetcher)
        elif self._fork.replay is not None:
            self._replay(trainer)

    def _look_at_validation(self, trainer: Any) -> None:
        """Said before the first update, not after the last: what validation draws, the batches of the next epoch depend on."""
        run, control = self._fork.origin.source.validates, forking.does_validate(trainer)
        if run == control or self._placebo or not self._tracker._options.log:
            return
        does, other = ("validated", "does not") if run else ("did not validate", "does")
        say(
            f"the run {does} and this control {other}: validation draws random numbers, so the batches of its next epochs will be "
            "others than the run's, unless the loader shuffles by a generator of its own. Give val_dataloaders= as the run had it"
        )

    def _hold(self, facts: TrainerFacts) -> None:
        put_back(facts.optimizers, continuation.settings_at(self._fork, self._step, placebo=self._placebo))

    def _replay(self, trainer: Any) -> None:
        """The batches of the fork's epoch that were taken are taken again, and thrown away.

        Lightning made an iterator before this hook, and makes another after it where the fork stands at an epoch's first update.
        """
        replay, loader = self._fork.replay, trainer.train_dataloader
        assert replay is not None
        fetcher = trainer.fit_loop._data_fetcher
        if hasattr(loader, "_get_iterator"):
            self._unwind = replay.rewind(loader)
            iter(fetcher)
        elif replay.loader_state is not None:
            replay.begin(loader, lambda: iter(fetcher))

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if self._first and not self._placebo:
            self._fork.generators.restore(held_generators(trainer.train_dataloader))
        self._first = False
        self._unwind()
        self._step = int(trainer.global_step)
        self._hold(TrainerFacts(trainer, pl_module))
        self.compared.note(self._step, batch)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        facts = TrainerFacts(trainer, pl_module, batch_idx)
        if facts.step == self._step:
            return
        told = self.compared.wants_loss(self._step) and facts.accumulated == 1
        self.compared.ended(
            self._step, trainer_facts.training_loss(pl_module, outputs, self._tracker._backwards, 1) if told else None
        )

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._leave(trainer)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self._leave(trainer)

    def _leave(self, trainer: Any) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        if self._schedulers:
            trainer.strategy.lr_scheduler_configs, self._schedulers = self._schedulers, []
        self._tracker._tell_batches(self.compared.batches)


class _ContinuationCallback(_Continuation, *callback_bases()):  # type: ignore[misc]  # the bases depend on the loaded roots
    """The same as a callback of the loaded import roots."""


def run_control(
    fork: Fork,
    *,
    trainer: Any,
    module: Any,
    datamodule: Any = None,
    train_dataloaders: Any = None,
    val_dataloaders: Any = None,
    steps: int | None = None,
    archive: str | Path | None = None,
    if_exists: IfExists = "raise",
    placebo: bool | int = False,
) -> Path:
    """Fit on from a fork as if the learning rate had never changed, and write the archive of that control run.

    Called after the run, with a Trainer and a module of their own, made as the run made its own: neither the run's module and
    trainer nor its files are touched. The control begins with the fork's weights, optimizer state and generators, is given the
    run's batches again, and every update uses the rates, momenta and weight decay of the update before the fork; its schedulers
    stand still. It is measured at the steps of the run.

    Args:
        fork: of ``tracker.forks``.
        trainer: which has not fitted yet, without an NTKTracker; how long it trains is said by ``steps``.
        module: a new one.
        datamodule: a new one; or ``train_dataloaders``, and ``val_dataloaders``, as ``fit`` takes them.
        train_dataloaders: where there is no datamodule.
        val_dataloaders: the same for validation.
        steps: how many updates; None: as many as the run made after the fork.
        archive: the file to write; None: beside the run's, ``NAME-control-STEP.h5``.
        if_exists: "raise" or "replace".
        placebo: go on with the run's own rates on other batches instead, which says what these alone do; 2, 3, … draw others.

    Returns:
        The archive. It says of which run it is a control, and whether the batches were the same.

    Raises:
        ForkError: a fork of a plain loop, a trainer that has fitted, the run's own module or trainer, or no data to train on.
        ArchiveExistsError: the archive exists.
    """
    _check(fork, trainer, module)
    _require_data(module, datamodule, train_dataloaders)
    steps = continuation.steps_of(fork, steps)
    placebo = continuation.draw_of(placebo)
    path = continuation.place_of(fork, archive, placebo=placebo)
    tracker = _ContinuedTracker(fork, path, steps=steps, if_exists=if_exists, placebo=placebo)
    going_on = _ContinuationCallback(fork, tracker, placebo=placebo)
    own = list(trainer.callbacks)
    trainer.callbacks[:] = [going_on, tracker, *own]
    trainer.fit_loop.epoch_loop.max_steps, trainer.fit_loop.max_epochs = fork.step + steps, -1
    loaders = {"train_dataloaders": train_dataloaders, "val_dataloaders": val_dataloaders, "datamodule": datamodule}
    with _checkpoint(fork) as place, _not_strict(module), preserved_rng(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*resuming from a checkpoint that ended before the epoch.*")
        warnings.filterwarnings("ignore", message=".*callbacks used to create the checkpoint.*")
        try:
            trainer.fit(module, **loaders, ckpt_path=place, weights_only=False)
        finally:
            trainer.callbacks[:] = own
    line = going_on.compared.sentence(placebo=placebo)
    if line and tracker._options.log:
        say(line)
    return path


@contextmanager
def _checkpoint(fork: Fork) -> Iterator[Path]:
    """The fork as a checkpoint that a trainer begins from."""
    state = {**copied(fork.loop), "optimizer_states": copied(list(fork.optimizers))}
    state["state_dict"] = {**fork.weights.parameters, **fork.weights.buffers}
    with TemporaryDirectory(prefix="kerneltrack-fork-") as folder:
        place = Path(folder) / "fork.ckpt"
        torch.save(state, place)
        yield place


@contextmanager
def _not_strict(module: Any) -> Iterator[None]:
    """The checkpoint names each shared parameter once; the callback loads and compares the weights itself."""
    before = module.strict_loading
    module.strict_loading = False
    try:
        yield
    finally:
        module.strict_loading = before


def _check(fork: Any, trainer: Any, module: Any) -> None:
    if not isinstance(fork, Fork) or not isinstance(fork.origin.source, forking.Source):
        raise ForkError(
            "run_control()",
            expected="a fork of an NTKTracker: one of tracker.forks",
            got="a fork of a loop of one's own" if isinstance(fork, Fork) else repr(fork),
            remedy="For kerneltrack.Tracker's forks call kt.control_run(fork, update).",
        )
    trainer_facts.require_trainer(trainer)
    theirs, ours = fork.origin.source.trainer(), fork.origin.source.module()
    if trainer is theirs or trainer.global_step or module is ours:
        what = "module" if module is ours else "trainer"
        raise ForkError(
            f"the {what} of a control run",
            expected=f"a new {what}: the run's own stays as it is",
            got="the run's own" if module is ours or trainer is theirs else f"one at step {trainer.global_step}",
            remedy=f"Make another {what} as you made the run's.",
        )
    if any(isinstance(callback, NTKTracker) for callback in trainer.callbacks):
        raise ForkError(
            "the trainer of a control run has an NTKTracker",
            expected="none: the control is measured as its run was",
            remedy="Leave it out of callbacks; archive=… says where the control is written.",
        )


def _require_data(module: Any, datamodule: Any, train_dataloaders: Any) -> None:
    own = getattr(type(module).train_dataloader, "__qualname__", "").startswith("DataHooks.")
    if own and datamodule is None and train_dataloaders is None:
        raise ForkError(
            "run_control() without data",
            expected="the loaders that the run was given",
            got="none, and a module without train_dataloader()",
            remedy="Give train_dataloaders= and val_dataloaders=, or datamodule=, as fit() was given them.",
        )
