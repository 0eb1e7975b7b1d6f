"""NTKTracker: the drop-in callback. Its hooks say when; :mod:`kerneltrack.measurement.recorder` says what.

A state is measured at the start of the first batch of an accumulation window, before the update that this window makes,
and its row is appended at the end of the batch in which that update happened. Nothing is measured inside validation
hooks. Arguments are checked when the tracker is made; what needs the data or the model, before the first batch.
"""

from __future__ import annotations

import copy
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch
from torch import nn

from kerneltrack.archive import ArchiveWriter, IfExists
from kerneltrack.conventions import GaugeChoice
from kerneltrack.distributed import Ranks, unsharded
from kerneltrack.measurement import Eigenpairs, Instrument, KeepKernel, OnError, OutputChoice, Pace, Recorder
from kerneltrack.ntk import Method, Selection
from kerneltrack.probe import Probe
from kerneltrack.schedule import Due, OnMetricChange, Schedule
from kerneltrack.snapshot import Json, Snapshot
from kerneltrack.training import Clipping, LossName, MeanLoss, UpdateRule
from kerneltrack.undisturbed import undisturbed

from . import announcements, arguments, batches, callables, clipping, continuing, given, schedules, trainer_facts
from .import_roots import callback_bases
from .measured import Measured
from .probe_sources import ProbeSources
from .progress import Progress, clock
from .swapped_weights import TrainedWeights


class _Tracker:
    """The tracker without Lightning's base class; see :class:`NTKTracker`."""

    _given: frozenset[str]  # the arguments that were given; the others follow the archive that a run goes on with

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
    ) -> None:
        super().__init__()
        self.archive = arguments.archive(archive)
        probes = arguments.probe(probe)
        when = schedules.schedule(schedule, probes)
        self._arguments = Measured(
            probe=probes,
            probe_seed=arguments.number("probe_seed", probe_seed, least=0, remedy="0 is the default."),
            schedule=when,
            observables=arguments.observables(observables),
            output=arguments.output(output),
            gauge=arguments.choice("gauge", gauge, get_args(GaugeChoice)),
            top_k=arguments.number("top_k", top_k, least=0, remedy="64 is the default; 0 stores no eigenvectors."),
            loss=arguments.loss(loss),
            method=arguments.choice("method", method, get_args(Method)),
            forward=arguments.function("forward", forward, "(model, inputs) -> outputs"),
            params=arguments.params(params),
            memory_budget=arguments.memory_budget(memory_budget),
            eigenpairs=arguments.eigenpairs(eigenpairs, top_k),
        )
        self._split = arguments.function("split", split, "batch -> (inputs, targets)")
        self._keep_kernel = arguments.choice("keep_kernel", keep_kernel, get_args(KeepKernel))
        self._on_error = arguments.choice("on_error", on_error, get_args(OnError))
        self._if_exists = arguments.choice("if_exists", if_exists, get_args(IfExists))
        self._metadata = arguments.metadata(metadata)
        self._log, self._keep_inputs = arguments.flag("log", log), arguments.flag("keep_inputs", keep_inputs)
        self._max_overhead = schedules.overhead(max_overhead, when)
        self._state: dict[str, Any] = {}
        self._loaded = False  # whether the state came from a checkpoint, for a fit that has not begun
        self._left: continuing.Left | None = None  # how the last fit ended; None once the state is another one
        self._forget()

    def _forget(self) -> None:
        """The state between fits."""
        self._ranks = Ranks()
        self._measured = self._arguments  # with the archive's values, where the run goes on with one
        self._continues: Mapping[str, Any] | None = None  # what that archive says of itself
        self._recorder: Recorder | None = None
        self._instruments: dict[str, Instrument] = {}
        self._window: int | None = None  # global_step at which the current accumulation window began
        self._progress = Progress({})
        self._run_id = ""
        self._dry_run = False
        self._verified = False
        self._announced = self._told = False  # whether the cost of a snapshot, and that of the run, were said
        self._weights = TrainedWeights()
        self._accumulated = 1  # by how many batches the loss of this one was divided
        self._backwards: list[torch.Tensor] = []  # the loss of each backward pass of this batch, while a row waits
        self._step_was: tuple[float | None, bool] = (None, True)  # loss scale and gradients at the optimizer's step
        self._clipping: Clipping | None = None  # of that step

    @property
    def state_key(self) -> str:
        """Two trackers in one Trainer differ by the path they were given; see :meth:`on_load_checkpoint` for moved ones."""
        return continuing.state_key(self.archive)

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors: what a resumed run needs to go on with the same archive, schedule and comparisons."""
        if self._recorder is None:
            return dict(self._state)
        return {
            "run_id": self._run_id,
            "step": -1 if self._recorder.last_step is None else self._recorder.last_step,
            "batches": self._progress.batches,
            "samples_seen": self._progress.samples,
            "train_seconds": self._train_seconds(),
            "callables": {name: dict(callables.identity(f)) for name, f in self._measured.callables.items()},
            "memory": self._recorder.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._state, self._loaded, self._left = dict(state_dict), True, None

    def __getstate__(self) -> dict[str, Any]:
        # Lightning binds log and log_dict onto the instance; they hold the module, and a live recorder holds tensors.
        kept = {k: v for k, v in self.__dict__.items() if k not in ("log", "log_dict")}
        return {**kept, "_recorder": None, "_instruments": {}, "_left": None, "_sources": None}

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
        self._ranks = trainer_facts.ranks(trainer)
        self._progress = Progress(self._state)
        self._dry_run = bool(trainer.fast_dev_run)
        self._continues = self._ranks.broadcast(
            partial(continuing.archive_of, self.archive, self._state.get("run_id") or None)
        )
        if self._continues is not None:
            self._measured = self._arguments.taken_over(self._continues, self._given)
        # Drawn once: a dataset that augments at random would give every rank a probe of its own.
        self._sources = ProbeSources(self._measured, self._split, log=self._log)
        self._probes = self._ranks.broadcast(partial(self._sources.resolve, trainer))

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._backwards = []
        if trainer.global_step == self._window:
            return
        self._window = trainer.global_step
        if self._recorder is None:
            self._recorder = self._open(trainer, pl_module, batch)
            self._recorder.load_state_dict(self._state.pop("memory", {}), pl_module.device)
        wants_metrics = schedules.has_member(self._measured.schedule, OnMetricChange)
        due = self._recorder.due(clock(trainer, batch_idx, self._train_seconds(), with_metrics=wants_metrics))
        if schedules.differs_between_ranks(self._measured.schedule):
            due = self._ranks.broadcast(partial(dict, due))
        if due:
            self._forecast(pl_module, due)
            self._take(trainer, pl_module, trainer_facts.update_rule(trainer, pl_module), due)
        self._weights.before_batch(trainer, pl_module)

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: torch.Tensor) -> None:
        if self._recorder is not None and self._recorder.waiting is not None:
            self._backwards.append(loss.detach())
            self._accumulated = trainer.accumulate_grad_batches

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        if self._recorder is not None and self._recorder.waiting is not None:
            self._recorder.use_rates(trainer_facts.rates(trainer))
            self._step_was = trainer_facts.loss_scale(trainer), trainer_facts.has_gradient(optimizer)
            self._clipping = clipping.of_update(trainer, pl_module, optimizer)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self._recorder is None:
            return
        self._weights.after_batch(trainer, pl_module)
        self._progress.count(batches.batch_size(trainer, batch), self._ranks.size)
        if self._recorder.waiting is None or trainer.global_step == self._recorder.waiting:
            return
        training_loss = trainer_facts.training_loss(pl_module, outputs, self._backwards, self._accumulated)
        scale, graded = self._step_was
        applied = graded and (scale is None or not (trainer_facts.loss_scale(trainer) or scale) < scale)
        rule = trainer_facts.update_rule(trainer, pl_module)
        rule = replace(rule, clipping=self._clipping or rule.clipping)
        snapshot = self._recorder.close_row(pl_module, update_applied=applied, training_loss=training_loss, rule=rule)
        self._ranks.run_everywhere(partial(self._look_at, trainer, snapshot))

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        if self._recorder is None:
            return
        if trainer.global_step != self._recorder.last_step:
            due = {name: Due("last") for name in self._instruments}
            rule = trainer_facts.update_rule(trainer, pl_module)
            self._take(trainer, pl_module, rule, due, last=True)
        self._ranks.run_everywhere(partial(self._conclude, trainer))

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self._finish(trainer)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if (
            self._recorder is None
            and self._left is None
            and not any(getattr(c, "_early_exit", 0) for c in trainer.callbacks)
        ):
            announcements.nothing_measured(self.archive, str(getattr(stage, "value", stage)), log=self._log)
        self._finish(trainer)

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

    def _open(self, trainer: Any, module: nn.Module, batch: Any) -> Recorder:
        """Instruments, archive and recorder: everything is checked here, before the first batch is trained on."""
        when = schedules.by_probe(self._measured.schedule, self._probes)
        self._instruments = self._sources.instruments(trainer, module, batch, self._probes, self._ranks)
        facts: dict[str, Json] = {
            "schedule": {name: str(s) for name, s in when.items()},
            "loss": None if self._measured.loss is None else self._measured.loss.name,
            "observables": list(self._measured.observables),
            "started_at_step": int(trainer.global_step),
        }
        per_epoch = trainer_facts.steps_per_epoch(trainer)
        schedules.countable(self._max_overhead, self._measured.schedule, per_epoch)
        writer = self._ranks.run_everywhere(partial(self._writer, trainer, module, unsharded(module), facts))
        pace = Pace(
            when, max_overhead=self._max_overhead, horizon=trainer_facts.last_step(trainer), per_epoch=per_epoch
        )
        return Recorder(
            writer, self._instruments, pace, keep_kernel=self._keep_kernel, on_error=self._on_error, ranks=self._ranks
        )

    def _writer(
        self, trainer: Any, module: nn.Module, whole: nn.Module, facts: dict[str, Json]
    ) -> ArchiveWriter | None:
        """The leader's: a new archive, or this run's own archive continued; None where nothing is written."""
        if not self._ranks.leads:
            return None
        with undisturbed(whole):
            first = next(iter(self._instruments))
            records = [
                i.describe(whole, keep_inputs=self._keep_inputs, extension_of=None if name == first else first)
                for name, i in self._instruments.items()
            ]
        if self._dry_run:
            return None
        earlier, continues = self._state.get("run_id"), self._continues is not None
        if continues:
            continuing.require_same_callables(self._measured.callables, self._state.get("callables"), self.archive)
        self._run_id = str(earlier) if continues else uuid.uuid4().hex
        if earlier and not continues:
            facts["continued_from"] = {"run_id": earlier, "step": int(trainer.global_step)}
        origin = trainer_facts.provenance(trainer, module, run_id=self._run_id, run=facts, user=self._metadata)
        if continues:
            return ArchiveWriter.resume(
                self.archive, probes=records, provenance=origin, resumed_from_step=int(trainer.global_step)
            )
        return ArchiveWriter(self.archive, probes=records, provenance=origin, if_exists=self._if_exists)

    def _take(
        self, trainer: Any, module: nn.Module, rule: UpdateRule, due: Mapping[str, Due], *, last: bool = False
    ) -> None:
        assert self._recorder is not None
        if self._recorder.waiting is not None:  # its batch ended without a word, as in a loop of the user's own
            self._recorder.close_row(None, update_applied=None)
        moment = self._progress.moment(trainer, self._train_seconds())
        remark, self._clipping = self._weights.remark(trainer, module), None
        self._recorder.open_row(module, moment, rule, due, last=last, remark=remark)
        self._announce(module)

    def _train_seconds(self) -> float:
        return self._progress.seconds(0.0 if self._recorder is None else self._recorder.seconds)

    def _look_at(self, trainer: Any, snapshot: Snapshot | None) -> None:
        """What only the leader does with a row that was appended."""
        if snapshot is not None:
            # One closure call at θ_t: neither what a manual step returns nor what several closures give need be that.
            if not self._verified and trainer.lightning_module.automatic_optimization and len(self._backwards) == 1:
                trainer_facts.verify_loss(self._instruments, snapshot)
            self._verified = True
            self._report(trainer, snapshot)

    def _conclude(self, trainer: Any) -> None:
        """Append the last state and close the archive."""
        assert self._recorder is not None
        if self._recorder.waiting is not None:
            snapshot = self._recorder.close_row(None, update_applied=None)
            if snapshot is not None:
                self._report(trainer, snapshot)
        self._finish(trainer)

    def _report(self, trainer: Any, snapshot: Snapshot) -> None:
        if self._log:
            announcements.to_loggers(trainer, snapshot)

    def _announce(self, module: nn.Module) -> None:
        """What a snapshot costs, once, when the first one is known and before its update."""
        if self._announced or not self._log or not self._ranks.leads or self._recorder is None:
            return
        self._announced = True
        cost = self._recorder.cost(module)
        if cost is not None:
            announcements.say(announcements.before(cost, self._recorder.pace.schedules))

    def _forecast(self, module: nn.Module, due: Mapping[str, Due]) -> None:
        """What measuring will take of the run and what to do, once, before the second whole snapshot or one of the next few."""
        recorder, whole = self._recorder, any(found.extent == "whole" for found in due.values())
        if recorder is None or self._told or not self._log or not self._ranks.leads or not whole or recorder.rows > 4:
            return
        found = recorder.forecast(module)
        if found is not None and not found.is_affordable:
            self._told = True
            announcements.say(announcements.expensive(found))

    def _finish(self, trainer: Any) -> None:
        """Close the archive; safe to call again."""
        recorder, self._state = self._recorder, self.state_dict()
        self._recorder, self._loaded = None, False
        if recorder is None:
            return
        self._left = continuing.Left.by(trainer)
        recorder.close()
        if self._log and not self._dry_run and self._ranks.leads:
            total = self._progress.seconds()
            announcements.say(announcements.after(recorder.rows, self.archive, recorder.seconds, total))


class NTKTracker(_Tracker, *callback_bases()):  # type: ignore[misc]  # the bases depend on the roots that are loaded
    """Track the tangent kernel of a LightningModule on a fixed probe while a Trainer trains it.

    Args:
        archive: the HDF5 file to write.
        probe: an int (that many training samples, drawn with ``probe_seed``), a Probe, the path of a saved one, or a
            mapping from names to these; ``{"train": 128, "val": 128}`` draws the second from the validation loader.
        schedule: an int n (the states before updates 0, n, 2n, … and the last), "log", "epoch", a
            ``kerneltrack.schedule`` object, or one per probe. Step 0 and the last state are always measured. "log" begins a
            pair at one state of three, whose second one is light: kernel, outputs and what follows without eigenpairs.
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
        log: scalars to the trainer's loggers, one line at the start and one at the end, and on a terminal a progress bar
            for a kernel that takes long.
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

    Raises:
        TrackerError, ScheduleError, ObservableError, ProbeError: a wrong argument, when the tracker is made.
        ArchiveError: the archive exists or cannot be written, before the first batch.
    """
