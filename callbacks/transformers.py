"""NTKTrackerCallback: the tracker in Hugging Face's Trainer. Its events say when; :class:`kerneltrack.tracking.SteppedRun` what.

A state is measured at the beginning of an accumulation window, before its first forward pass, and its row is appended once
the optimizer has stepped. Events show neither the batch nor the loss nor the Trainer, so the optimizer is listened to, and
what they do not show is handed over or NaN with that reason.
"""

from __future__ import annotations

import atexit
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kerneltrack.archive import IfExists
from kerneltrack.conventions import GaugeChoice
from kerneltrack.distributed import Ranks
from kerneltrack.errors import MissingPackageError, TrackerError
from kerneltrack.measurement import Eigenpairs, KeepKernel, OnError, OutputChoice, Recorder
from kerneltrack.ntk import Method, Selection
from kerneltrack.probe import Probe
from kerneltrack.schedule import Schedule
from kerneltrack.snapshot import Json, Snapshot
from kerneltrack.tracking import Facts, ForkLimits, Options, SteppedRun, given
from kerneltrack.training import LossName, MeanLoss

from . import transformers_checkpoints
from .transformers_facts import TrainingFacts
from .transformers_probes import BatchProbes

try:
    from transformers import TrainerCallback
    from transformers.utils.generic import find_labels
except ModuleNotFoundError as error:
    raise MissingPackageError("transformers", "`pip install 'kerneltrack[transformers]'` brings it.") from error

__all__ = ["NTKTrackerCallback"]


class NTKTrackerCallback(SteppedRun, TrainerCallback):
    """Track the tangent kernel of a model on a fixed probe while a Trainer of transformers trains it.

    ::

        tracker = NTKTrackerCallback("run.h5", probe=128, loss="cross_entropy")
        Trainer(model=model, args=args, train_dataset=data, callbacks=[tracker]).train()

    Every argument is that of :class:`kerneltrack.callbacks.NTKTracker` (whose ``log_figures`` is of Lightning's loggers), but
    that ``split=None`` takes the labels out of a batch as the Trainer finds them, that probes are drawn from the training
    data only, and that ``keep_forks`` is refused: no control run goes on from a fork yet. A checkpoint of the Trainer holds
    the tracker's state, and a training that goes on from it goes on with the archive. A training that ended by an exception
    leaves the archive open until :meth:`close`, the next training or the end of the process.

    Attributes:
        training_loss: of the batch under way, where a ``training_step`` of one's own hands it over; else the row's is NaN.
        scalars: the finite numbers of the last row, ``ntk/<name>``, or ``ntk/<probe>/<name>``.

    Raises:
        TrackerError, ScheduleError, ObservableError, ProbeError: a wrong argument, when the tracker is made.
        ArchiveError: the archive exists or cannot be written, before the first update.
    """

    training_loss: torch.Tensor | float | None = None

    @given.remembers
    def __init__(
        self,
        archive: str | Path,
        *,
        probe: int | str | Path | Probe | Mapping[str, int | Probe | str | Path] = 256,
        schedule: int | str | Schedule | Mapping[str, int | str | Schedule] = "log",
        output: OutputChoice = "auto",
        gauge: GaugeChoice = "auto",
        top_k: int = 64,
        observables: str | Iterable[str] = "default",
        loss: LossName | MeanLoss | None = None,
        keep_kernel: KeepKernel = "ends",
        metadata: Mapping[str, Json] | None = None,
        max_overhead: float | None = None,
        log: bool = True,
        forward: Callable[[Any, Any], Any] | None = None,
        if_exists: IfExists = "raise",
        on_error: OnError = "raise",
        split: Callable[[Any], tuple[Any, Any]] | None = None,
        probe_seed: int = 0,
        keep_inputs: bool = False,
        method: Method = "auto",
        params: Selection = None,
        memory_budget: int | str | None = None,
        eigenpairs: Eigenpairs = "all",
        keep_forks: bool | ForkLimits = False,
        fork_at: Sequence[int] = (),
    ) -> None:
        super().__init__(
            _without_forks(
                archive=archive,
                probe=probe,
                schedule=schedule,
                output=output,
                gauge=gauge,
                top_k=top_k,
                observables=observables,
                loss=loss,
                keep_kernel=keep_kernel,
                metadata=metadata,
                max_overhead=max_overhead,
                log=log,
                forward=forward,
                if_exists=if_exists,
                on_error=on_error,
                split=split,
                probe_seed=probe_seed,
                keep_inputs=keep_inputs,
                method=method,
                params=params,
                memory_budget=memory_budget,
                eigenpairs=eigenpairs,
                keep_forks=keep_forks,
                fork_at=fork_at,
            )
        )

    def _forget(self) -> None:
        super()._forget()
        self._facts: TrainingFacts | None = None  # while a training is under way
        self._at_exit: Callable[[], None] | None = None  # closes the archive where nobody else does
        self.scalars: dict[str, float] = {}
        self._unlogged = False  # whether the Trainer has not logged them yet

    def clipped(self, norm: torch.Tensor | float) -> None:
        """The norm that the gradients had before the Trainer clipped them, in a ``_clip_grad_norm`` of one's own."""
        if self._waits:  # a number on a GPU is read only where a row needs it
            self._told_norm = float(norm)

    def close(self) -> None:
        """Close the archive after a training that an exception ended; safe to call again."""
        self._leave()

    @property
    def state_key(self) -> str:
        """What Lightning's Trainer asks first; transformers' asks it nowhere."""
        raise TrackerError(
            "NTKTrackerCallback",
            expected="the Trainer of transformers, which calls it as a callback",
            got="Lightning's",
            remedy="kerneltrack.callbacks.NTKTracker is the callback for that.",
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_facts": None, "_at_exit": None, "_hooks": None}

    # -- events ----------------------------------------------------------------------------------------------------

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._leave()  # a training before, which an exception ended
        self._forget()
        facts = TrainingFacts(args, state, kwargs["model"], kwargs["optimizer"], kwargs["train_dataloader"])
        facts.check()
        ranks = Ranks.current()
        if not self._loaded:
            load = partial(transformers_checkpoints.load, self.archive, args, facts.step)
            self._state = ranks.broadcast(load) if facts.step else {}
        self._loaded = False
        self._begin(ranks)
        labels = args.label_names or find_labels(type(facts.model))  # type: ignore[no-untyped-call]  # transformers' own
        options = self._options
        self._draw_from(BatchProbes(facts.loader, labels, self._measured, options.split, log=options.log))
        self._facts = facts
        self._listen(facts.optimizers, facts.bound)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._facts is not None:
            self._facts.begin_epoch()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._facts is not None:
            self.training_loss = None
            with self._measuring(self._facts):
                self._before_update(self._facts, None)
            self._new_update()
            self._close_at_exit()

    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._facts is not None:
            self._count(self._facts, None)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._facts is None:
            return
        self._count(self._facts, None)
        self._update_ends(self._facts)
        if self._waits:
            loss = None if self.training_loss is None else float(self.training_loss)
            with self._measuring(self._facts):
                self._after_update(self._facts, applied=self._applied, training_loss=loss, verified=False)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        if self._facts is not None:
            self._facts.saw(metrics or {})

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Add the last row's numbers to what is logged, and see the end coming: what comes next may load another model."""
        if self._facts is None or logs is None:
            return
        self._facts.saw(logs)
        if "train_runtime" in logs:
            self._end()
        if self._unlogged:
            self._unlogged = False
            logs.update(self.scalars)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._recorder is not None and self._ranks.leads:
            folder = transformers_checkpoints.folder_of(args, int(state.global_step))
            transformers_checkpoints.save(self.archive, folder, self.state_dict())

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._end()

    # -- what they do ----------------------------------------------------------------------------------------------

    def _count(self, facts: Facts, batch: Any) -> None:
        assert isinstance(facts, TrainingFacts)  # this adapter's own
        self._progress.count(facts.samples, self._ranks.size)
        facts.batch_idx += 1

    def _report(self, facts: Facts, snapshot: Snapshot) -> None:
        super()._report(facts, snapshot)
        assert isinstance(facts, TrainingFacts)  # this adapter's own
        self.scalars, self._unlogged = facts.scalars, bool(facts.scalars)

    @contextmanager
    def _measuring(self, facts: TrainingFacts) -> Iterator[None]:
        """Around whatever measures: the network's own forward, and an archive that is closed where that fails."""
        try:
            with own_forward(facts.model):
                yield
        except BaseException:
            self._leave()
            raise

    def _end(self) -> None:
        """The training ends: measure its last state, and close the archive."""
        if self._facts is None:
            return
        if self._recorder is None:
            warnings.warn(
                f"kerneltrack: no batch was trained, so nothing was measured and {self.archive} was not written. Look at "
                "max_steps, num_train_epochs and the length of the training data.",
                stacklevel=3,
            )
        self._facts.end()
        with self._measuring(self._facts):
            self._conclude(self._facts)
        self._leave()

    def _leave(self) -> None:
        """Close the archive; safe to call again."""
        self._facts = None
        self._fall_silent()
        if self._at_exit is not None:
            atexit.unregister(self._at_exit)
            self._at_exit = None
        self._finish()

    def _close_at_exit(self) -> None:
        """A Trainer tells nobody that an exception ended a training: the archive is closed when the process ends."""
        if self._at_exit is None and self._recorder is not None:
            self._at_exit = partial(_close, weakref.ref(self._recorder))
            atexit.register(self._at_exit)


def _without_forks(**arguments: Any) -> Options:
    """The options. A Trainer that goes on from a fork has to be fed the batches that were left of its epoch, and none can be."""
    options = Options.checked(**arguments)
    if options.forks is not None:
        raise TrackerError(
            "keep_forks in the Trainer of transformers",
            expected="False: no control run goes on from a fork of it",
            got=repr(arguments["keep_forks"]),
            remedy="Put the updates into a loop of your own under kerneltrack.Tracker, or into Lightning's Trainer.",
        )
    return options


def _close(recorder: weakref.ref[Recorder]) -> None:
    found = recorder()
    if found is not None:
        found.close()


@contextmanager
def own_forward(model: nn.Module) -> Iterator[None]:
    """The forward that the model had before accelerate put autocast around it, as long as this lasts."""
    wrapped, own = vars(model).get("forward"), vars(model).get("_original_forward")
    if wrapped is None or own is None:
        yield
        return
    model.forward = own
    try:
        yield
    finally:
        model.forward = wrapped
