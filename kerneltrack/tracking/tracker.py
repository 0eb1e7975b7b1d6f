"""Tracker: the tracker of a training loop of one's own. The loop says where an update begins and where it has ended."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from kerneltrack.archive import IfExists
from kerneltrack.conventions import GaugeChoice
from kerneltrack.distributed import Ranks
from kerneltrack.errors import TrackerError
from kerneltrack.measurement import Eigenpairs, KeepKernel, OnError, OutputChoice
from kerneltrack.ntk import Method, Selection
from kerneltrack.probe import Probe
from kerneltrack.schedule import Epochs, Schedule
from kerneltrack.snapshot import Json
from kerneltrack.tracking import arguments, given, schedules
from kerneltrack.tracking.facts import Facts
from kerneltrack.tracking.fork import Fork
from kerneltrack.tracking.fork_keeper import LoopState
from kerneltrack.tracking.fork_limits import ForkLimits
from kerneltrack.tracking.gradient_clipping import Bound
from kerneltrack.tracking.loop import Loop, casts_of, check_parameters, model_of, optimizers_of
from kerneltrack.tracking.loop_probes import LoopProbes
from kerneltrack.tracking.options import Options
from kerneltrack.tracking.stepped_run import SteppedRun
from kerneltrack.tracking.told import number_of, out_of_turn
from kerneltrack.tracking.tracked_run import TrackedRun
from kerneltrack.training import LossName, MeanLoss


class Update:
    """An update under way, inside ``with tracker.update() as update``.

    Attributes:
        loss: the loss of its batch, if the loop sets it: the row's ``training_loss``.
    """

    loss: torch.Tensor | float | None = None


class Tracker(SteppedRun):
    """Track the tangent kernel of a module on a fixed probe while a loop of one's own trains it.

    ::

        with kt.Tracker("run.h5", model, optimizer, probe=probe, loss="mse") as tracker:
            for batch in loader:
                with tracker.update(batch) as update:
                    update.loss = loss = ...
                    loss.backward()
                    optimizer.step()
                    optimizer.zero_grad()

    The state is measured where an update begins, so that is best ahead of the forward pass. Between the forward and the
    backward pass it leaves the graph alone, but what the forward did to buffers (running statistics) is measured, too.
    Leaving the ``with`` measures the last state and closes the archive; leaving it by an exception closes it as it is. What
    could not be checked before is checked at the first update: whether the archive exists, whether the probe fits. In a
    training of several processes each makes the same calls.

    Args:
        archive: the HDF5 file to write.
        model: the network; wrappers (DistributedDataParallel, torch.compile, Fabric's) are seen through.
        optimizer: the one that steps on its parameters, or a list of several. Each step inside an update counts as one,
            and an update without a step as one that was not applied.
        loader: the training DataLoader: what ``probe`` is drawn from where it is a number, how many batches an epoch has,
            and whether the probe is trained on. None: the loop tells epochs itself, and batches are counted as they come.
        steps: the updates that the run will have in all, where that is known: for the costs that are announced, and for
            ``max_overhead``.
        clip: where the loop clips gradients: the bound of ``clip_grad_norm_``, or ("value", bound); see :meth:`clipped`.
        log: one line at the start and one at the end, a row's numbers in :attr:`scalars`, and on a terminal a progress bar
            for a kernel that takes long.

    All other arguments are those of :class:`kerneltrack.callbacks.NTKTracker`, whose ``log_figures`` is of Lightning's loggers.

    Raises:
        TrackerError, ScheduleError, ObservableError, ProbeError: a wrong argument, when the tracker is made.
        ArchiveError: the archive exists or cannot be written, before the first update.
    """

    @given.remembers
    def __init__(
        self,
        archive: str | Path,
        model: nn.Module,
        optimizer: Optimizer | Sequence[Optimizer],
        *,
        probe: int | str | Path | Probe | Mapping[str, int | Probe | str | Path],
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
        loader: Any = None,
        steps: int | None = None,
        clip: float | tuple[str, float] | None = None,
    ) -> None:
        super().__init__(
            Options.checked(
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
        if steps is not None:
            arguments.number("steps", steps, least=1, remedy="None where nobody knows.")
        optimizers, bound = optimizers_of(optimizer), Bound.of(clip)
        self._take_loop(Loop(model_of(model), optimizers, loader, steps, bound, casts_of(model)))
        LoopProbes(loader, self._arguments, split, log=log).check()

    def _take_loop(self, loop: Loop) -> None:
        self._loop = loop
        self._hooks = None
        self._begun = False
        self._under_way = False  # between before() and after()

    @property
    def step(self) -> int:
        """t, the updates so far."""
        return self._loop.step

    @property
    def metrics(self) -> dict[str, float]:
        """What ``OnMetricChange`` looks at: the loop writes its metrics here."""
        return self._loop.metrics

    @property
    def scalars(self) -> dict[str, float]:
        """The finite numbers of the last row, for the loop's own logger: ``ntk/<name>``, or ``ntk/<probe>/<name>``."""
        return self._loop.scalars

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps, beside the model's and the optimizer's: plain values and tensors.

        Raises:
            TrackerError: inside an update.
        """
        if self._under_way:
            raise out_of_turn("state_dict()", "between two updates", "Save the checkpoint after the update has ended.")
        return {**super().state_dict(), "loop": self._loop.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the run, and the archive, of the tracker that gave this state; before the first update.

        Raises:
            TrackerError: after it, or what no Tracker gave.
        """
        if self._begun:
            raise out_of_turn("load_state_dict()", "before the first update", "Load it where the model is loaded.")
        if "loop" not in state_dict:
            raise TrackerError(
                "load_state_dict()",
                expected="what state_dict() of a kerneltrack.Tracker gave",
                got=f"a dict of {sorted(map(str, state_dict))}",
                remedy="An NTKTracker's state belongs to the checkpoint of its Trainer.",
            )
        super().load_state_dict(state_dict)
        self._loop.load_state_dict(state_dict["loop"])

    # -- what a loop calls -----------------------------------------------------------------------------------------

    def __enter__(self) -> Tracker:
        if self._hooks is not None:
            raise out_of_turn("with tracker", "once at a time", "Leave the first `with` before another one.")
        self._forget()
        self._listen(self._loop.optimizers, self._loop.bound)
        if self._keeper is not None:
            self._keeper.watch(self._loop.loader)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._under_way:
            self._abandon()
        try:
            if kind is None:
                self._close_whole()
        finally:
            self._finish()
            self._begun = False
            self._fall_silent()

    @contextmanager
    def update(self, batch: Any = None, *, epoch: int | None = None) -> Iterator[Update]:
        """One update of the loop: :meth:`before`, the body, :meth:`after`.

        A body that raises is no update: where no optimizer has stepped, the next one is of the same state.

        Args:
            batch: of the update, to count its samples; None: their number is unknown.
            epoch: which it belongs to, from 0; None: by the length of ``loader``.
        """
        self.before(batch, epoch=epoch)
        found = Update()
        try:
            yield found
        except BaseException:
            self._abandon()
            raise
        self.after(found.loss)

    def before(self, batch: Any = None, *, epoch: int | None = None) -> None:
        """An update begins: measure the state that it leaves, where it is due; arguments as of :meth:`update`.

        Raises:
            TrackerError: the update before has not ended, or there is no ``with``.
        """
        if self._hooks is None:
            raise out_of_turn("before()", "inside `with tracker`", "Write `with kt.Tracker(...) as tracker:`.")
        if self._under_way:
            raise out_of_turn(
                "before()",
                "after() of the update before",
                "Call after() once the optimizer has stepped; add(batch) tells a further batch of the same update.",
            )
        self._require_epochs(epoch)
        if not self._begun:
            self._start()
        self._loop.enter(epoch)
        self._before_update(self._loop, batch)
        self._under_way, self._batch, self._single = True, batch, True
        self._new_update()

    def add(self, batch: Any = None) -> None:
        """A further batch of the update that is under way, where gradients of several are accumulated.

        Raises:
            TrackerError: no update is under way.
        """
        self._require_update("add()")
        self._end_batch()
        self._batch, self._single = batch, False
        self._add_batch(batch)
        if self._keeper is not None:
            self._keeper.add(self._loop.step, batch)

    def clipped(self, norm: torch.Tensor | float) -> None:
        """The norm that the gradients had before they were clipped, as ``clip_grad_norm_`` returns it.

        Raises:
            TrackerError: no update is under way, or ``clip`` was not given.
        """
        self._require_update("clipped()")
        if self._loop.bound is None:
            remedy = "Tracker(..., clip=1.0) where the loop calls clip_grad_norm_(model.parameters(), 1.0)."
            raise TrackerError("clipped() of a tracker without clip=", expected="the bound of clipping", remedy=remedy)
        if self._waits:  # a number on a GPU is read only where a row needs it
            self._told_norm = float(norm)

    def after(self, loss: torch.Tensor | float | None = None) -> None:
        """The update has ended: append its row, where one waits.

        Args:
            loss: of its batch; the row's ``training_loss``, NaN with that reason where there is none.

        Raises:
            TrackerError: no update is under way, or the loss is not one number.
        """
        self._require_update("after()")
        self._end_batch()
        self._under_way = False
        self._update_ends(self._loop)
        left = self._loop.step
        self._loop.step += max(1, self._steps)
        if self._keeper is not None:
            told = loss is not None and self._keeper.wants_loss(left)
            self._keeper.after(left, number_of(loss) if told else None)
        if self._waits:
            self._after_update(
                self._loop,
                applied=self._applied,
                training_loss=number_of(loss),
                verified=loss is not None and self._single,
            )

    # -- what these do ---------------------------------------------------------------------------------------------

    def _start(self) -> None:
        check_parameters(self._loop.model, self._loop.optimizers)
        self._begin(Ranks.current())
        self._draw_from(LoopProbes(self._loop.loader, self._measured, self._options.split, log=self._options.log))
        self._begun = True

    def _loop_state(self, facts: Facts) -> LoopState:
        state = TrackedRun.state_dict(self)
        return LoopState(state, self._loop.state_dict(), self._origin(self._loop), consumed=None)

    def _control_call(self, fork: Fork, name: str) -> str:
        return f"kt.control_run({name}, update)"

    def _require_update(self, call: str) -> None:
        if not self._under_way:
            raise out_of_turn(
                call,
                "before() of the same update",
                "Call before() ahead of the forward pass, or write the update inside `with tracker.update():`.",
            )

    def _require_epochs(self, epoch: int | None) -> None:
        if epoch is not None or self._loop.length is not None:
            return
        if schedules.has_member(self._measured.schedule, Epochs):
            raise TrackerError(
                "a schedule by epochs",
                expected="a loop that says which epoch an update belongs to",
                remedy="Give the tracker loader=, one that has a length, or call update(batch, epoch=epoch).",
            )

    def _end_batch(self) -> None:
        self._count(self._loop, self._batch)
        self._loop.batch_idx += 1

    def _step_begins(self, optimizer: Optimizer, *_: Any) -> None:
        self._require_update("optimizer.step()")
        if self._keeper is not None:
            self._keeper.at_step(self._loop.step, self._loop.optimizers)
        super()._step_begins(optimizer)

    def _abandon(self) -> None:
        """The update that is under way ended without a word."""
        self._under_way = False
        self._update_ends(self._loop)
        self._loop.step += self._steps
        if self._steps and self._waits and self._recorder is not None:
            self._recorder.close_row(None, update_applied=None)

    def _close_whole(self) -> None:
        """Measure the last state; say so where there was none."""
        if self._recorder is None:
            warnings.warn(
                f"kerneltrack: the loop made no update, so nothing was measured and {self.archive} was not written. "
                "Write each update inside `with tracker.update():`, or between before() and after().",
                stacklevel=3,
            )
        self._loop.enter(None)
        self._conclude(self._loop)
