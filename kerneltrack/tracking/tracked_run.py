"""TrackedRun: the tracker without its loop. Its methods are called by one: Lightning's hooks, or a plain loop's lines.

A state is measured before the update that leaves it, and its row is appended after that update. Arguments are checked when
the tracker is made; what needs the data or the model, before the first update.
"""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from torch import nn

from kerneltrack.archive import ArchiveWriter
from kerneltrack.distributed import Ranks, unsharded
from kerneltrack.errors import TrackerError, one_line
from kerneltrack.measurement import Instrument, Pace, Recorder, TrainedOn
from kerneltrack.probe import Probe
from kerneltrack.schedule import Due, OnMetricChange
from kerneltrack.snapshot import Batches, ControlOf, Json, Provenance, Snapshot
from kerneltrack.tracking import announcements, batches, callables, continuing, schedules
from kerneltrack.tracking.facts import Facts, update_rule
from kerneltrack.tracking.fork import Fork, Origin
from kerneltrack.tracking.fork_keeper import ForkKeeper, LoopState
from kerneltrack.tracking.options import Options
from kerneltrack.tracking.probe_sources import ProbeSources
from kerneltrack.tracking.progress import Progress, clock
from kerneltrack.tracking.trained_loss import verify_loss
from kerneltrack.training import Clipping, parameter_table, private_facts, public_facts
from kerneltrack.undisturbed import undisturbed


class TrackedRun:
    """A run's recorder, archive and progress, and what a checkpoint keeps of them.

    A run begins with :meth:`_begin`; for each update :meth:`_before_update`, :meth:`_at_step` and :meth:`_after_update`
    follow; it ends with :meth:`_conclude`, or, where something was raised, with :meth:`_finish` alone.

    Args:
        options: checked.
    """

    _control: ControlOf | None = None  # of which run this is a control
    _given: frozenset[str]  # the arguments that were given; the others follow the archive that a run goes on with
    _sources: ProbeSources
    _probes: dict[str, Probe]

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.archive = options.archive
        self._options, self._arguments = options, options.measured
        self._state: dict[str, Any] = {}
        self._loaded = False  # whether the state came from a checkpoint, for a run that has not begun
        self._forget()

    def _forget(self) -> None:
        """The state between runs."""
        self._ranks = Ranks()
        self._measured = self._arguments  # with the archive's values, where the run goes on with one
        self._continues: Mapping[str, Any] | None = None  # what that archive says of itself
        self._recorder: Recorder | None = None
        self._instruments: dict[str, Instrument] = {}
        self._progress = Progress({})
        self._run_id = ""
        self._dry_run = False
        self._verified = False
        self._announced = self._told = False  # whether the cost of a snapshot, and that of the run, were said
        self._clipping: Clipping | None = None  # at the optimizer's step
        self._trained_on = TrainedOn()  # the batches of the update that a row waits for
        self._refused = ""  # what was said of steps of the rates that are not measured
        self._keeper = self._new_keeper()

    @property
    def forks(self) -> tuple[Fork, ...]:
        """The states that were kept to go on from, ascending; they stay when the run has ended, until the next one begins."""
        return () if self._keeper is None else tuple(self._keeper.forks)

    def _new_keeper(self) -> ForkKeeper | None:
        limits, schedule = self._options.forks, self._arguments.schedule
        if limits is None:
            return None
        given = list(schedule.values()) if isinstance(schedule, dict) else [schedule]
        return ForkKeeper(limits, self._options.fork_at, given, self._say)

    def _say(self, line: str) -> None:
        if self._options.log and self._ranks.leads:
            announcements.say(line)

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
            **({} if self._keeper is None else {"forks": self._keeper.state_dict()}),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the run whose tracker gave this state."""
        self._state, self._loaded = dict(state_dict), True

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_recorder": None, "_instruments": {}, "_sources": None, "_keeper": None}

    # -- a run -----------------------------------------------------------------------------------------------------

    def _begin(self, ranks: Ranks, *, dry_run: bool = False) -> None:
        """A run that goes on with the state at hand; {} is a new one. Says nothing and measures nothing yet."""
        if self._keeper is not None and ranks.size > 1:
            raise TrackerError(
                f"keep_forks in a training of {ranks.size} processes",
                expected="one process",
                remedy="Keep no forks; start the control run from a checkpoint of the trainer.",
            )
        self._ranks = ranks
        self._progress = Progress(self._state)
        self._dry_run = dry_run
        self._continues = ranks.broadcast(
            partial(continuing.archive_of, self.archive, self._state.get("run_id") or None)
        )
        if self._continues is not None:
            self._measured = self._arguments.taken_over(self._continues, self._given)

    def _draw_from(self, sources: ProbeSources) -> None:
        """The probes. Drawn once: a dataset that augments at random would give every rank a probe of its own."""
        self._sources = sources
        self._probes = self._ranks.broadcast(sources.resolve)

    def _before_update(self, facts: Facts, batch: Any) -> None:
        """Measure the state that the next update leaves, where it is due."""
        if self._recorder is None:
            self._recorder = self._open(facts, batch)
            self._recorder.load_state_dict(self._state.pop("memory", {}), facts.device)
            if self._keeper is not None:
                self._keeper.load_state_dict(self._state.pop("forks", {}))
        if self._keeper is not None:  # before the state is asked for: a run that goes on from here asks for it
            self._keep_fork(self._keeper, facts, batch)
        wants_metrics = schedules.has_member(self._measured.schedule, OnMetricChange)
        due = self._recorder.due(clock(facts, self._train_seconds(), with_metrics=wants_metrics))
        if schedules.differs_between_ranks(self._measured.schedule):
            due = self._ranks.broadcast(partial(dict, due))
        self._tell_refused(self._recorder.pace.refused)
        if due:
            self._forecast(facts.model, due)
            self._measure(facts, due)
        self._trained_on = TrainedOn()
        self._add_batch(batch)

    def _add_batch(self, batch: Any) -> None:
        """A batch of the update that a row waits for, kept where something is measured on it."""
        if not self._waits or not any(instrument.needs("update_batch") for instrument in self._instruments.values()):
            return
        self._trained_on = batches.also(self._trained_on, batch, self._options.split, alone=self._ranks.alone)

    def _keep_fork(self, keeper: ForkKeeper, facts: Facts, batch: Any) -> None:
        try:
            keeper.before(facts, batch, partial(self._loop_state, facts))
        except Exception as error:  # whatever a user's state_dict or on_save_checkpoint raises
            if self._options.on_error == "raise":
                raise
            warnings.warn(f"kerneltrack could not keep the state at step {facts.step}: {one_line(error)}", stacklevel=3)

    def _tell_batches(self, batches: Batches) -> None:
        """Whether this control was trained on the batches of its run; once it has ended."""
        if self._recorder is not None:
            self._recorder.tell_batches(batches)

    def _origin(self, source: Any = None) -> Origin:
        """What a control of this run measures, and on what: as this run does, the probes themselves included."""
        measured = replace(self._measured, probe=dict(self._probes))
        return Origin(replace(self._options, measured=measured, forks=None, fork_at=()), source)

    def _loop_state(self, facts: Facts) -> LoopState:
        """What a fork of this moment keeps of tracker and loop."""
        raise NotImplementedError

    def _control_call(self, fork: Fork, name: str) -> str:
        """The call that runs the control of a fork, which the caller knows by this name."""
        raise NotImplementedError

    def _tell_refused(self, line: str) -> None:
        """That further steps of the rates are not measured, once."""
        if line != self._refused:
            self._say(line)
        self._refused = line

    @property
    def _waits(self) -> bool:
        """Whether a row waits for its update."""
        return self._recorder is not None and self._recorder.waiting is not None

    def _at_step(self, learning_rates: Iterable[float], clipping: Clipping | None) -> None:
        """An optimizer steps, for a row that waits: these rates and this clipping are the update's own."""
        assert self._recorder is not None  # a row waits
        self._recorder.use_rates(learning_rates)
        self._clipping = clipping

    def _count(self, facts: Facts, batch: Any) -> None:
        """A batch has been trained on."""
        self._progress.count(batches.batch_size(facts, batch), self._ranks.size)

    def _after_update(self, facts: Facts, *, applied: bool, training_loss: float | None, verified: bool) -> None:
        """Append the row that waits for this update.

        Args:
            facts: of the state that it made.
            applied: whether it happened.
            training_loss: of its batch; None where the loop handed none over.
            verified: whether that is to be compared with the loss on the probe: the loop knows it as one value at θ_t.
        """
        assert self._recorder is not None  # a row waits
        rule = update_rule(facts)
        rule = replace(rule, clipping=self._clipping or rule.clipping)
        snapshot = self._recorder.close_row(
            facts.model, update_applied=applied, training_loss=training_loss, rule=rule, trained_on=self._trained_on
        )
        self._trained_on = TrainedOn()
        self._ranks.run_everywhere(partial(self._look_at, facts, snapshot, verified=verified))

    def _conclude(self, facts: Facts) -> None:
        """Measure the last state where no row is of it, append it and close the archive."""
        if self._recorder is None:
            return
        if facts.step != self._recorder.last_step:
            self._measure(facts, {name: Due("last") for name in self._instruments}, last=True)
        self._ranks.run_everywhere(partial(self._append_last, facts))

    def _finish(self) -> None:
        """Close the archive; safe to call again."""
        recorder, self._state = self._recorder, self.state_dict()
        self._recorder, self._loaded = None, False
        if self._keeper is not None:
            self._keeper.stop()
        if recorder is None:
            return
        recorder.close()
        if not self._dry_run:
            total = self._progress.seconds()
            self._say(announcements.after(recorder.rows, self.archive, recorder.seconds, total))
            for number, fork in enumerate(self.forks):
                self._say(fork.question(self._control_call(fork, f"tracker.forks[{number}]")))

    # -- what these do ---------------------------------------------------------------------------------------------

    def _open(self, facts: Facts, batch: Any) -> Recorder:
        """Instruments, archive and recorder: everything is checked here, before the first batch is trained on."""
        measured, per_epoch = self._measured, facts.steps_per_epoch
        when = schedules.by_probe(measured.schedule, self._probes)
        self._instruments = self._sources.instruments(facts, batch, self._probes, self._ranks)
        said: dict[str, Json] = {
            "schedule": {name: str(s) for name, s in when.items()},
            "loss": None if measured.loss is None else measured.loss.name,
            "observables": list(measured.observables),
            "started_at_step": facts.step,
        }
        schedules.countable(self._options.max_overhead, measured.schedule, per_epoch)
        writer = self._ranks.run_everywhere(partial(self._writer, facts, unsharded(facts.model), said))
        limit = self._options.max_overhead
        pace = Pace(when, max_overhead=limit, horizon=facts.last_step, per_epoch=per_epoch)
        return Recorder(
            writer,
            self._instruments,
            pace,
            keep_kernel=self._options.keep_kernel,
            on_error=self._options.on_error,
            ranks=self._ranks,
        )

    def _writer(self, facts: Facts, whole: nn.Module, said: dict[str, Json]) -> ArchiveWriter | None:
        """The leader's: a new archive, or this run's own archive continued; None where nothing is written."""
        if not self._ranks.leads:
            return None
        with undisturbed(whole):
            first = next(iter(self._instruments))
            records = [
                i.describe(whole, keep_inputs=self._options.keep_inputs, extension_of=None if name == first else first)
                for name, i in self._instruments.items()
            ]
        if self._dry_run:
            return None
        earlier, continues = self._state.get("run_id"), self._continues is not None
        if continues:
            continuing.require_same_callables(self._measured.callables, self._state.get("callables"), self.archive)
        self._run_id = str(earlier) if continues else uuid.uuid4().hex
        if earlier and not continues:
            said["continued_from"] = {"run_id": earlier, "step": facts.step}
        origin = self._provenance(facts, said)
        if continues:
            return ArchiveWriter.resume(self.archive, probes=records, provenance=origin, resumed_from_step=facts.step)
        return ArchiveWriter(
            self.archive, probes=records, provenance=origin, if_exists=self._options.if_exists, control=self._control
        )

    def _provenance(self, facts: Facts, said: Mapping[str, Json]) -> Provenance:
        """Where the numbers come from, in plain values; private facts in a section of their own."""
        rule, model = update_rule(facts), facts.model
        public: dict[str, Json] = {
            "run_id": self._run_id,
            **public_facts(model),
            "optimizers": [dict(settings) for settings in rule.settings],
            **facts.provenance(),
            **said,
        }
        table = parameter_table(model, rule.groups)
        return Provenance(run=public, metadata=dict(self._options.metadata), parameters=table, private=private_facts())

    def _measure(self, facts: Facts, due: Mapping[str, Due], *, last: bool = False, remark: str = "") -> None:
        """Open a row of the state now; its message has the remark."""
        assert self._recorder is not None
        if self._recorder.waiting is not None:  # its update ended without a word
            self._recorder.close_row(None, update_applied=None)
        rule, moment = update_rule(facts), self._progress.moment(facts, self._train_seconds())
        self._clipping = None
        self._recorder.open_row(facts.model, moment, rule, due, last=last, remark=remark)
        self._announce(facts.model)

    def _train_seconds(self) -> float:
        return self._progress.seconds(0.0 if self._recorder is None else self._recorder.seconds)

    def _look_at(self, facts: Facts, snapshot: Snapshot | None, *, verified: bool) -> None:
        """What only the leader does with a row that was appended."""
        if snapshot is not None:
            if not self._verified and verified:
                verify_loss(self._instruments, snapshot)
            self._verified = True
            self._report(facts, snapshot)

    def _append_last(self, facts: Facts) -> None:
        assert self._recorder is not None
        if self._recorder.waiting is not None:
            snapshot = self._recorder.close_row(None, update_applied=None)
            if snapshot is not None:
                self._report(facts, snapshot)
        self._finish()

    def _report(self, facts: Facts, snapshot: Snapshot) -> None:
        if self._options.log:
            facts.log(announcements.scalars(snapshot), snapshot.step)

    def _announce(self, model: nn.Module) -> None:
        """What a snapshot costs, once, when the first one is known and before its update."""
        if self._announced or not self._options.log or not self._ranks.leads or self._recorder is None:
            return
        self._announced = True
        cost = self._recorder.cost(model)
        if cost is not None:
            announcements.say(announcements.before(cost, self._recorder.pace.schedules))

    def _forecast(self, model: nn.Module, due: Mapping[str, Due]) -> None:
        """What measuring will take of the run and what to do, once, before the second whole snapshot or one of the next few."""
        recorder, whole = self._recorder, any(found.extent == "whole" for found in due.values())
        if recorder is None or self._told or not self._options.log or not self._ranks.leads:
            return
        if not whole or recorder.rows > 8:
            return
        found = recorder.forecast(model)
        if found is not None and not found.is_affordable:
            self._told = True
            announcements.say(announcements.expensive(found))
