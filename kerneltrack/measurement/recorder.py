"""The recorder takes a run's measurements, from a due schedule to a stored snapshot.

A row belongs to the state θ_t *and* to the update that leaves it, so it is opened before the update (:meth:`open_row`) and
appended after it (:meth:`close_row`). It knows neither Lightning nor where the parameters come from: a live training and a
replay of checkpoints drive it alike.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from kerneltrack.archive import ArchiveWriter
from kerneltrack.conventions import message
from kerneltrack.distributed import Ranks, is_sharded, unsharded
from kerneltrack.errors import ArchiveError, ArchiveSizeError, KerneltrackError, TrackerError, one_line
from kerneltrack.measurement.clipped import clipped
from kerneltrack.measurement.eigenpairs import fits
from kerneltrack.measurement.forecast import Forecast, UpdateTime, WholeState, forecast
from kerneltrack.measurement.instrument import Instrument
from kerneltrack.measurement.moment import Moment
from kerneltrack.measurement.pace import Pace
from kerneltrack.measurement.reading import Reading
from kerneltrack.measurement.run_probes import KeepKernel, RunProbes
from kerneltrack.measurement.snapshot_cost import SnapshotCost
from kerneltrack.measurement.trained_on import UNKNOWN, TrainedOn
from kerneltrack.measurement.training_outputs import flags_of
from kerneltrack.schedule import Clock, Due
from kerneltrack.schema import FIXED_SIZES
from kerneltrack.snapshot import Batches, Snapshot, Status
from kerneltrack.training import UpdateRule
from kerneltrack.undisturbed import undisturbed

OnError = Literal["raise", "warn"]
#: Why a row has no training loss.
NO_LOSS = "the loop handed no loss over"


@dataclass(frozen=True, kw_only=True)
class _Open:
    """A row that waits for its update."""

    snapshot: Snapshot
    readings: Mapping[str, Reading]
    remark: str = ""


class Recorder:
    """Measures the probes that are due and appends one row per moment.

    ============ =========== =========== ============ =========== ==========
    state        open_row()  use_rates() close_row()  store()     close()
    ============ =========== =========== ============ =========== ==========
    idle         → open      refused     refused      idle        → closed
    open         refused     open        → idle       refused     → closed
    closed       refused     refused     refused      refused     closed
    ============ =========== =========== ============ =========== ==========

    A row that waits is never dropped: close() appends it. A refused call raises :class:`TrackerError` and changes nothing.

    Args:
        writer: where rows go, or None to compute and write nothing (a dry run).
        instruments: by probe name.
        pace: which states are measured.
        keep_kernel: which snapshots store the kernel itself: the first and the last, all, or none.
        on_error: "raise", or "warn": a measurement that raises becomes a row with its reason, a row that cannot be stored
            (a full disk) is missing until the cause is gone, and the run goes on.
        ranks: the processes that measure together. On those that follow, the same calls at the same moments compute
            their share; they append nothing.
    """

    def __init__(
        self,
        writer: ArchiveWriter | None,
        instruments: Mapping[str, Instrument],
        pace: Pace,
        *,
        keep_kernel: KeepKernel = "ends",
        on_error: OnError = "raise",
        ranks: Ranks | None = None,
    ) -> None:
        self._ranks = ranks or Ranks()
        self._writer = writer
        self._probes = RunProbes(instruments, keep_kernel)
        self.pace = pace
        self._on_error = on_error
        self._open: _Open | None = None
        self._closed = False
        self._unstored: list[int] = []
        self._whole: WholeState | None = None  # the one that took the least time
        self._light: list[float] = []  # seconds of each light row
        self._update = UpdateTime()
        self.rows = 0
        self.last_step: int | None = None
        self.seconds = 0.0

    def due(self, clock: Clock) -> dict[str, Due]:
        """The probes to measure at this moment, each with what asked for it; step 0 is always measured."""
        self._update.see(clock.step, clock.seconds)
        return {} if clock.step == self.last_step else self.pace.due(clock)

    def open_row(
        self,
        module: nn.Module,
        moment: Moment,
        rule: UpdateRule,
        due: Mapping[str, Due],
        *,
        last: bool = False,
        remark: str = "",
    ) -> None:
        """Measure ``module`` as it is now on every probe that is due, and open a row; its message has the remark."""
        if self._closed or self._open is not None:
            raise self._out_of_turn("open_row", "idle")
        began = time.perf_counter()
        window, lag = self.pace.group(due, moment.step)
        readings: dict[str, Reading] = {}
        status: Status = "ok"
        failed = ""
        flags = flags_of(module)
        try:
            with self._measuring(module) as whole:
                work = partial(self._probes.measure, readings, whole, moment, rule, due, flags, last=last)
                idle = self._ranks.lead(work, partial(self._probes.assist, whole))
            if idle:
                status, failed = "failed", f"no parameter trains that the kernel of {', '.join(idle)} is of"
        except Exception as error:  # noqa: BLE001  # whatever a user's model raises becomes a row, if they asked for that
            self._failed(moment.step, error)
            status, failed = "failed", one_line(error)
        spent = time.perf_counter() - began
        self.seconds += spent
        self.last_step = moment.step
        triggers = list(dict.fromkeys(found.trigger for found in due.values()))
        snapshot = Snapshot(
            step=moment.step,
            epoch=moment.epoch,
            batch=moment.batch,
            samples_seen=moment.samples_seen,
            wall_time=time.time(),
            train_seconds=moment.train_seconds,
            snapshot_seconds=spent,
            learning_rates=rule.learning_rates,
            trigger="; ".join(triggers),
            window=window,
            lag=lag,
            status=status,
            message=failed,
        )
        self._open = _Open(snapshot=snapshot, readings=readings, remark=remark)

    @property
    def waiting(self) -> int | None:
        """The step of the row that waits for its update, or None."""
        return None if self._open is None else self._open.snapshot.step

    def cost(self, module: nn.Module) -> SnapshotCost | None:
        """The cost of the open row, and how many such rows will follow; None where it failed."""
        if self._open is None or not self._open.readings:
            return None
        peak = None
        if not is_sharded(module):  # gathering the parameters would need every rank
            # An announcement must not end a training that was measured well.
            with undisturbed(module), suppress(KerneltrackError, RuntimeError):
                plans = self._probes.plans(module, self._open.readings)
                peak = max((plan.peak_bytes for plan in plans if fits(plan)), default=None)
        arrays = (np.asarray(v) for reading in self._open.readings.values() for v in reading.values.values())
        return SnapshotCost(
            seconds=self._open.snapshot.snapshot_seconds,
            peak_bytes=peak,
            disk_bytes=sum(array.nbytes for array in arrays),
            states=self.pace.states_from(self._open.snapshot.step),
            light=self.pace.light_states_from(self._open.snapshot.step),
        )

    def forecast(self, module: nn.Module) -> Forecast | None:
        """What measuring will take of the run, told by what it took so far; None where that is unknown, or kept within a share."""
        update = self._update.each
        if self._whole is None or update is None or self.pace.max_overhead is not None or is_sharded(module):
            return None
        with undisturbed(module), suppress(KerneltrackError, RuntimeError):  # a line must not end a training
            light = sum(self._light) / max(len(self._light), 1)
            return forecast(self._whole, self.pace, update, partial(self._probes.trace_share, module), light)
        return None

    def use_rates(self, learning_rates: Iterable[float]) -> None:
        """Learning rates as the update really used them, read at the optimizer's step."""
        row = self._row("use_rates")
        self._open = replace(row, snapshot=replace(row.snapshot, learning_rates=tuple(learning_rates)))

    def close_row(
        self,
        module: nn.Module | None,
        *,
        update_applied: bool | None,
        training_loss: float | None = math.nan,
        rule: UpdateRule | None = None,
        trained_on: TrainedOn = UNKNOWN,
    ) -> Snapshot | None:
        """Append the open row, with what its update did where ``module`` is given; returns it on the leading rank.

        Args:
            module: the network after the update; None where there was none.
            update_applied: whether the update happened; None where it is unknown.
            training_loss: of the batch of that update; None where the loop handed none over, which the row says.
            rule: the preconditioner that the update used, as the optimizer holds it now; None: that of before.
            trained_on: what it was made from.
        """
        row, self._open = self._row("close_row"), None
        began = time.perf_counter()
        readings, failure = dict(row.readings), None
        if module is not None and update_applied:
            try:
                with self._measuring(module) as whole:
                    rates = row.snapshot.learning_rates
                    work = partial(self._probes.complete, whole, row.readings, rule, rates, trained_on)
                    completed = self._ranks.lead(work, partial(self._probes.assist, whole))
                readings = completed or readings
            except Exception as error:  # noqa: BLE001  # see open_row(); what θ_t gave is appended first in any case
                failure = error
        used = rule if rule is not None and update_applied else None
        readings = {name: clipped(r, (used or r.rule).clipping) for name, r in readings.items()}
        spent = time.perf_counter() - began
        self.seconds += spent
        facts = [row.remark, row.snapshot.message or (one_line(failure) if failure else "")]
        reasons: list[Mapping[str, str]] = []
        if not facts[1]:
            facts += ["the update was skipped" * (update_applied is False), *self._facts(readings)]
            reasons = [{"training_loss": NO_LOSS}] * (training_loss is None)
            reasons += [reading.reasons for reading in readings.values()]
        snapshot = replace(
            row.snapshot,
            probes={name: reading.values for name, reading in readings.items()},
            update_applied=update_applied,
            training_loss=math.nan if training_loss is None else training_loss,
            snapshot_seconds=row.snapshot.snapshot_seconds + spent,
            message=message(facts, reasons, room=FIXED_SIZES["message_length"]),
        )
        if readings and not any(reading.whole for reading in readings.values()):
            self._light.append(snapshot.snapshot_seconds)
        self._whole = WholeState.cheaper(self._whole, snapshot, self._probes.pieces(readings))
        if module is None:  # perhaps after an exception, which the other ranks do not know of: no word to them
            self._append(snapshot)
        else:
            self._ranks.run_everywhere(partial(self._append, snapshot))
            self._thin(snapshot)
        if failure is not None:
            self._failed(snapshot.step, failure)
        return snapshot if self._ranks.leads else None

    def store(self, snapshot: Snapshot) -> None:
        """Append a row that another recorder measured, in another process.

        Its states are not remembered: what follows is compared with what :meth:`load_state_dict` was given.
        """
        if self._closed or self._open is not None:
            raise self._out_of_turn("store", "idle")
        self._append(snapshot)
        self.last_step = snapshot.step

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know of this one, for a checkpoint: plain values and tensors.

        θ_0, the first and the last measured state, where an observable needs them; when each probe was last due; the pair
        that is not complete; how often the grids were halved.
        """
        return {**self._probes.state_dict(), **self.pace.state_dict()}

    def load_state_dict(self, memory: Mapping[str, Any], device: torch.device) -> None:
        """Go on where :meth:`state_dict` was taken; θ_0 goes to ``device``."""
        self.pace.load_state_dict(memory)
        self._probes.load_state_dict(memory, device, measures=self._ranks.leads)

    def tell_batches(self, batches: Batches) -> None:
        """Whether a control was trained on the batches of its run."""
        if self._writer is not None:
            self._writer.tell_batches(batches)

    def close(self) -> None:
        """Append what still waits, without its update, and close the archive; safe to call again."""
        try:
            if self._open is not None:
                self.close_row(None, update_applied=None)
        finally:
            self._closed = True
            writer, self._writer = self._writer, None
            if writer is not None:
                self._close(writer)

    def _row(self, call: str) -> _Open:
        if self._open is None:
            raise self._out_of_turn(call, "open")
        return self._open

    def _out_of_turn(self, call: str, expected: str) -> TrackerError:
        state = "closed" if self._closed else "idle" if self._open is None else "open"
        return TrackerError(
            f"{call}() of a recorder is out of turn",
            expected=f"a recorder that is {expected}",
            got=state,
            remedy="Call open_row() and close_row() in turn, and nothing but close() after close().",
        )

    def _append(self, snapshot: Snapshot) -> None:
        """Append a row. A row that cannot be stored is dropped; the next stored row names it."""
        self.rows += 1
        if self._writer is None:
            return
        try:
            try:
                self._writer.append(snapshot)
            except ArchiveSizeError:  # a column that changed its size must not cost the row
                self._writer.append(self._writer.fitting(snapshot))
            self._unstored = []
        except ArchiveError as error:
            self._unstored.append(snapshot.step)
            self.rows -= 1
            if self._on_error == "raise":
                raise
            warnings.warn(f"kerneltrack could not store step {snapshot.step}: {one_line(error)}", stacklevel=4)

    def _close(self, writer: ArchiveWriter) -> None:
        try:
            writer.close()
        except ArchiveError as error:
            if self._on_error == "raise":
                raise
            warnings.warn(f"kerneltrack could not close the archive: {one_line(error)}", stacklevel=4)

    @contextmanager
    def _measuring(self, module: nn.Module) -> Iterator[nn.Module]:
        """The whole network, the same function on every rank, where measuring it leaves no trace."""
        whole = unsharded(module)
        with undisturbed(whole):
            self._ranks.share_buffers(whole)
            yield whole

    def _failed(self, step: int, error: Exception) -> None:
        """Raise, or warn and go on, as ``on_error`` says."""
        if self._on_error == "raise":
            raise error
        if self._ranks.leads:
            warnings.warn(f"kerneltrack could not measure step {step}: {one_line(error)}", stacklevel=3)

    def _thin(self, snapshot: Snapshot) -> None:
        """Keep within ``max_overhead``. The leader's clock counts."""
        if self.pace.max_overhead is not None and snapshot.step > 0:
            halvings = partial(self.pace.halvings, snapshot.step, snapshot.train_seconds, self.seconds, self.rows)
            self.pace.thinned = self._ranks.broadcast(halvings)

    def _facts(self, readings: Mapping[str, Reading]) -> Iterator[str]:
        """What is missing since the last row and why, and how the kernels were measured."""
        if self._unstored:
            yield f"could not store steps {', '.join(map(str, self._unstored))}"
        yield self.pace.skipped()
        yield self.pace.newly_refused()
        for reading in readings.values():
            yield from reading.remarks
