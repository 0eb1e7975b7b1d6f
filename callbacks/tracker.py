"""NTKTracker: the drop-in callback. Lightning's hooks say when; :class:`kerneltrack.tracking.TrackedRun` says what.

A state is measured at the start of the first batch of an accumulation window, before the update that this window makes,
and its row is appended at the end of the batch in which that update happened. Nothing is measured inside validation
hooks.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from kerneltrack.archive import IfExists
from kerneltrack.conventions import GaugeChoice
from kerneltrack.measurement import Eigenpairs, KeepKernel, OnError, OutputChoice
from kerneltrack.ntk import Method, Selection
from kerneltrack.probe import Probe
from kerneltrack.schedule import Due, Schedule
from kerneltrack.snapshot import Json, Snapshot
from kerneltrack.tracking import (
    Facts,
    Fork,
    ForkKeeper,
    ForkLimits,
    LoopState,
    Options,
    TrackedRun,
    given,
    has_gradient,
    scalars,
)
from kerneltrack.training import LossName, MeanLoss, learning_rates

from . import announcements, clipping, continuing, forking, logger_figures, trainer_facts
from .import_roots import callback_bases
from .swapped_weights import TrainedWeights
from .trainer_facts import TrainerFacts
from .trainer_probes import TrainerProbes


class _Tracker(TrackedRun):
    """The tracker without Lightning's base class; see :class:`NTKTracker`."""

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
        forward: Callable[[Any, Any], Any] | None = None,  # LightningCLI refuses what is not annotated as Forward is
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
        log_figures: Sequence[str] = (),
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
        self._figures = logger_figures.checked(log_figures)
        self._left: continuing.Left | None = None  # how the last fit ended; None once the state is another one

    def _forget(self) -> None:
        super()._forget()
        self._window: int | None = None  # global_step at which the current accumulation window began
        self._weights = TrainedWeights()
        self._accumulated = 1  # by how many batches the loss of this one was divided
        self._backwards: list[torch.Tensor] = []  # the loss of each backward pass of this batch, while a row waits
        self._step_was: tuple[float | None, bool] = (None, True)  # loss scale and gradients at the optimizer's step
        self._scalars: dict[str, float] = {}  # of the last row, as the loggers got them; on the leader

    @property
    def state_key(self) -> str:
        """Two trackers in one Trainer differ by the path they were given; see :meth:`on_load_checkpoint` for moved ones."""
        return continuing.state_key(self.archive)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._left = None

    def __getstate__(self) -> dict[str, Any]:
        # Lightning binds log and log_dict onto the instance; they hold the module, and a live recorder holds tensors.
        kept = {k: v for k, v in super().__getstate__().items() if k not in ("log", "log_dict")}
        return {**kept, "_left": None}

    # -- hooks -----------------------------------------------------------------------------------------------------

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Take the state of a tracker whose archive has this one's file name, where the folder is another one now."""
        moved = continuing.moved_state(self, trainer.callbacks, checkpoint.get("callbacks") or {})
        if moved:
            self.load_state_dict(copy.deepcopy(moved))

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        trainer_facts.require_trainer(trainer)
        self._forget()
        if not self._goes_on(trainer):
            self._state = {}
        self._loaded, self._left = False, None
        self._begin(trainer_facts.ranks(trainer), dry_run=bool(trainer.fast_dev_run))
        options = self._options
        self._draw_from(TrainerProbes(trainer, self._measured, options.split, log=options.log))
        if self._keeper is not None:
            self._keeper.watch(trainer.train_dataloader)
            self._keeper.assume_made()

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if self._keeper is not None and not self._keeper.watches(trainer.train_dataloader):  # it was made anew
            self._keeper.watch(trainer.train_dataloader)
            self._keeper.assume_made()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._backwards = []
        if trainer.global_step == self._window:
            if self._keeper is not None:
                self._keeper.add(trainer.global_step, batch)
            self._add_batch(batch)
            return
        self._window = trainer.global_step
        self._before_update(TrainerFacts(trainer, pl_module, batch_idx), batch)
        self._weights.before_batch(trainer, pl_module)

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: torch.Tensor) -> None:
        if self._waits:
            self._backwards.append(loss.detach())
            self._accumulated = trainer.accumulate_grad_batches

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        if self._keeper is not None and self._window is not None:
            self._keeper.at_step(self._window, TrainerFacts(trainer, pl_module).optimizers)
        if self._waits:
            self._step_was = trainer_facts.loss_scale(trainer), has_gradient(optimizer)
            clips = clipping.of_update(trainer, pl_module, optimizer)
            self._at_step(learning_rates(TrainerFacts(trainer, pl_module).optimizers), clips)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self._recorder is None:
            return
        self._weights.after_batch(trainer, pl_module)
        facts = TrainerFacts(trainer, pl_module, batch_idx)
        self._count(facts, batch)
        if self._keeper is not None:
            self._tell_loss(self._keeper, facts, outputs)
        if self._recorder.waiting is None or facts.step == self._recorder.waiting:
            return
        training_loss = trainer_facts.training_loss(pl_module, outputs, self._backwards, self._accumulated)
        scale, graded = self._step_was
        applied = graded and (scale is None or not (trainer_facts.loss_scale(trainer) or scale) < scale)
        # One closure call at θ_t: neither what a manual step returns nor what several closures give need be that.
        once = trainer.lightning_module.automatic_optimization and len(self._backwards) == 1
        self._after_update(facts, applied=applied, training_loss=training_loss, verified=once)
        self._show(trainer)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        if self._recorder is not None:
            self._left = continuing.Left.by(trainer)
            leads, step = self._ranks.leads and not self._dry_run, int(trainer.global_step)
            self._conclude(TrainerFacts(trainer, pl_module))
            self._show(trainer)
            if leads and self._figures:
                logger_figures.hand_over(self.archive, self._figures, trainer.loggers, step)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self._leave(trainer)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if (
            self._recorder is None
            and self._left is None
            and not any(getattr(c, "_early_exit", 0) for c in trainer.callbacks)
        ):
            announcements.nothing_measured(self.archive, str(getattr(stage, "value", stage)), log=self._options.log)
        self._leave(trainer)

    def on_init_end(self, *_: Any, **__: Any) -> None:
        """What transformers' Trainer calls first; Lightning's calls it nowhere."""
        raise trainer_facts.no_trainer("the Trainer of transformers")

    # -- what the hooks do -----------------------------------------------------------------------------------------

    def _goes_on(self, trainer: Any) -> bool:
        """Whether this fit goes on with the run whose state is at hand; else it is a new run, whatever this object did.

        It does where the state came with the checkpoint that the fit begins from, or where the fit before left it: the same
        trainer and module, at the step that they had reached.
        """
        if trainer.ckpt_path:
            return self._loaded and trainer.global_step >= int(self._state.get("step", -1))
        return self._left is not None and self._left.goes_on(trainer)

    def _tell_loss(self, keeper: ForkKeeper, facts: TrainerFacts, outputs: Any) -> None:
        """The update has ended, with its last batch."""
        step = self._window
        if step is None or facts.step == step:
            return
        told = keeper.wants_loss(step) and facts.accumulated == 1
        found = trainer_facts.training_loss(facts.model, outputs, self._backwards, 1) if told else None
        keeper.after(step, found)

    def _loop_state(self, facts: Facts) -> LoopState:
        assert isinstance(facts, TrainerFacts)  # this adapter's own
        checkpoint = forking.checkpoint_of(facts.trainer, self)
        origin = self._origin(forking.Source.of(facts.trainer, facts.model))
        return LoopState(TrackedRun.state_dict(self), checkpoint, origin, consumed=facts.batch_idx)

    def _control_call(self, fork: Fork, name: str) -> str:
        given = ["trainer=Trainer(…)", "module=…", *(f"{argument}=…" for argument in fork.origin.source.data)]
        return f"kerneltrack.callbacks.run_control({name}, {', '.join(given)})"

    def _report(self, facts: Facts, snapshot: Snapshot) -> None:
        super()._report(facts, snapshot)
        self._scalars = scalars(snapshot) if self._options.log else {}

    def _show(self, trainer: Any) -> None:
        """Put the last row's numbers where EarlyStopping and ModelCheckpoint look for them, on every rank alike."""
        if self._options.log:
            shown: dict[str, float] = self._ranks.broadcast(partial(dict, self._scalars))
            trainer.callback_metrics.update({name: torch.tensor(value) for name, value in shown.items()})

    def _leave(self, trainer: Any) -> None:
        """Close the archive; safe to call again."""
        if self._recorder is not None:
            self._left = continuing.Left.by(trainer)
        self._finish()

    def _measure(self, facts: Facts, due: Mapping[str, Due], *, last: bool = False, remark: str = "") -> None:
        assert isinstance(facts, TrainerFacts)  # this adapter's own
        self._take(facts.trainer, facts.model, due, last=last)

    def _take(self, trainer: Any, module: Any, due: Mapping[str, Due], *, last: bool = False) -> None:
        """Open a row of the state now, which says where its weights are not the trained ones."""
        super()._measure(TrainerFacts(trainer, module), due, last=last, remark=self._weights.remark(trainer, module))


class NTKTracker(_Tracker, *callback_bases()):  # type: ignore[misc]  # the bases depend on the roots that are loaded
    """Track the tangent kernel of a LightningModule on a fixed probe while a Trainer trains it.

    Args:
        archive: the HDF5 file to write.
        probe: an int (that many training samples, drawn with ``probe_seed``), a Probe, the path of a saved one, or a
            mapping from names to these; ``{"train": 128, "val": 128}`` draws the second from the validation loader.
        schedule: an int n (the states before updates 0, n, 2n, … and the last), "log", "epoch", a
            ``kerneltrack.schedule`` object, or one per probe. Step 0 and the last state are always measured. "log" is evenly in
            log t and around every step of the learning rate, and begins a pair at one state of three, whose second one is
            light: kernel, outputs and what follows without eigenpairs.
        output: the output reduction: "full", "diagonal", "trace", "sum", or a callable g: (O,) → (K,). "auto" is "full" for
            one output and where N·O is at most 1,024, else "trace"; a line at the start says which.
        gauge: "softmax" takes off what softmax does not see, one function added to all outputs; "raw" leaves the outputs as
            they are. "auto" is "softmax" under loss="cross_entropy" with several outputs, else "raw".
        top_k: how many eigenvectors are stored; with a dense kernel all eigenvalues and coefficients are.
        observables: "default", "all", or names from ``kerneltrack.observables.catalogue()``.
        loss: None, "half_mse", "mse", "cross_entropy", or a callable (outputs, targets) → mean over samples. None: the
            residual is f − y, and there is neither a loss nor a stability ratio.
        keep_kernel: which snapshots store the kernel itself: "ends", "all" or "none".
        metadata: plain values that comparisons group by (width, seed, …).
        max_overhead: the share of wall time that measuring may take; grids are halved to keep it, so that the steps of
            runs nest. What was skipped is said in the next row. None: no limit.
        log: scalars to the trainer's loggers and ``callback_metrics``, one line at the start and one at the end, and on a
            terminal a progress bar for a kernel that takes long.
        forward: (model, inputs) → outputs (N,) or (N, O); None: the module's own call.
        if_exists: "raise" or "replace"; a run resumed from its checkpoint continues its archive either way.
        on_error: "raise", or "warn": a measurement that fails becomes a row with its reason, a row that cannot be stored is
            missing until the disk takes rows again, and training goes on.
        split: batch → (inputs, targets), for batches that are no pair (x, y).
        probe_seed: of the indices of a drawn probe; not the run's seed.
        keep_inputs: store the probe's inputs in the archive. They may be private: left out by default.
        method: of :func:`kerneltrack.empirical_ntk`.
        params: the parameters the kernel is of: None for all that require grad, a predicate on names, or names.
        memory_budget: bytes or "2GiB" for one kernel.
        eigenpairs: "all", or "leading": only the first ``top_k`` are computed and stored, by Lanczos from the kernel, or, where
            that is cheaper or does not fit into ``memory_budget``, from products with J and Jᵀ, each time beginning with the
            last snapshot's. What needs all pairs, or the kernel where none was formed, is NaN with that reason.
        keep_forks: keep the states before the first update at a new rate in :attr:`forks`, for
            :func:`kerneltrack.callbacks.run_control`: those before steps of the rate and where a decay begins. At most 4, in
            2 GiB of host memory, or as ``kt.ForkLimits`` says; the oldest is dropped.
        fork_at: steps whose states are kept too.
        log_figures: figures of ``kerneltrack plot`` that are drawn when the fit ends, for loggers that take pictures
            (TensorBoard, Weights & Biases); those that take files get the report, too. Other loggers ignore them.

    Raises:
        TrackerError, ScheduleError, ObservableError, ProbeError: a wrong argument, when the tracker is made.
        ArchiveError: the archive exists or cannot be written, before the first batch.
    """
