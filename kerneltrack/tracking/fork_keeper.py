"""ForkKeeper: decides before every update whether its state is one to go on from, and keeps it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer

from kerneltrack.formatting import format_bytes
from kerneltrack.schedule import OnLearningRateChange, Schedule, StepDetector, StepRule
from kerneltrack.tracking.batch_trail import BatchTrail
from kerneltrack.tracking.facts import Facts, rates
from kerneltrack.tracking.fork import Fork, Origin, Reason, Weights, bytes_of, copied
from kerneltrack.tracking.fork_limits import ForkLimits
from kerneltrack.tracking.generator_states import GeneratorStates
from kerneltrack.tracking.held_rates import Settings, rates_of, settings_of
from kerneltrack.tracking.replay import LoaderWatch
from kerneltrack.undisturbed import held_generators


@dataclass(frozen=True)
class LoopState:
    """What only the loop's own kind knows at a moment.

    Attributes:
        tracker: the tracker's state.
        loop: what else a run needs to go on from here.
        origin: of which run it is.
        consumed: batches of the epoch before this one; None: as they were counted.
    """

    tracker: dict[str, Any]
    loop: dict[str, Any]
    origin: Origin
    consumed: int | None


class ForkKeeper:
    """Keeps forks of one run.

    Args:
        limits: how many, in how much memory.
        at: steps that are forks whatever the rates do, each or the first state after it.
        schedules: whose first rule says what a step of the rates is.
        say: takes a line.

    Attributes:
        forks: ascending in their steps.
        trail: the batches of every update since the first fork.
        course: (step, settings) wherever the settings that updates used changed, since the first fork.
    """

    def __init__(
        self, limits: ForkLimits, at: Sequence[int], schedules: Sequence[Schedule], say: Callable[[str], None]
    ) -> None:
        self._limits, self._at, self._say = limits, tuple(sorted(at)), say
        self._detector = StepDetector(_rule(schedules))
        self._previous = -1  # the step of the state that was looked at before
        self._used: Settings | None = None  # by the last update
        self._told: tuple[float, ...] = ()  # the rates that were seen before it
        self._watch: LoaderWatch | None = None
        self._loader: Any = None
        self.forks: list[Fork] = []
        self.trail = BatchTrail()
        self.course: list[tuple[int, Settings]] = []

    def watch(self, loader: Any) -> None:
        """Look at the iterators that ``loader`` makes from now on."""
        self.stop()
        self._loader, self._watch = loader, None if loader is None else LoaderWatch(loader)

    def watches(self, loader: Any) -> bool:
        """Whether it is this loader that is looked at."""
        return self._loader is loader

    def assume_made(self) -> None:
        """The loader has made an iterator unseen."""
        if self._watch is not None:
            self._watch.assume_made()

    def stop(self) -> None:
        """Leave the loader as it was."""
        if self._watch is not None:
            self._watch.stop()
        self._watch = None

    def before(self, facts: Facts, batch: Any, state: Callable[[], LoopState]) -> None:
        """The update that leaves this state begins, with this batch: keep the state where it is a fork."""
        step, now = facts.step, rates(facts)
        if step == self._previous:  # the last one was none: this is the same state
            self.trail.forget(step)
        kind = self._detector.see(step, now)
        asked = any(self._previous < point <= step for point in self._at)
        reason: Reason | None = "step" if kind == "step" else "asked" if asked else "decay" if kind == "decay" else None
        if reason in ("step", "decay") and self._used is not None and rates_of(self._used) == now != self._told:
            self._say(
                f"no fork is kept at step {step}: the rates changed within the update before it, after before(); step the "
                "scheduler between two updates"
            )
            reason = None
        self._previous, self._told = step, now
        if reason is not None:
            self._keep(facts, reason, state())
        self._take(step, batch)

    def add(self, step: int, batch: Any) -> None:
        """A further batch of the same update."""
        self._take(step, batch)

    def _take(self, step: int, batch: Any) -> None:
        if self.forks:
            self.trail.note(step, batch)
        if batch is not None and self._watch is not None:
            self._watch.took()

    def at_step(self, step: int, optimizers: Sequence[Optimizer]) -> None:
        """An optimizer is about to step, in the update that leaves ``step``."""
        used = settings_of(optimizers)
        if self.forks and (not self.course or self.course[-1][1] != used):
            self.course.append((step, used))
        self._used = used

    def after(self, step: int, loss: float | None) -> None:
        """The update that left ``step`` has ended; its loss, where the loop told one."""
        if self._watch is not None:
            self._watch.ended()
        if loss is not None and any(fork.step == step for fork in self.forks):
            self.trail.losses[step] = loss

    def wants_loss(self, step: int) -> bool:
        """Whether the loss of the update that leaves ``step`` is worth a look at the device."""
        return any(fork.step == step for fork in self.forks)

    def _keep(self, facts: Facts, reason: Reason, state: LoopState) -> None:
        fork = self._fork(facts, reason, state)
        if fork.nbytes > self._limits.bytes:
            self._say(
                f"no fork is kept at step {fork.step}: it takes {format_bytes(fork.nbytes)}, more than "
                f"ForkLimits(memory={self._limits.memory!r})"
            )
            return
        self.forks.append(fork)
        while len(self.forks) > self._limits.count or sum(f.nbytes for f in self.forks) > self._limits.bytes:
            dropped = self.forks.pop(0)
            self._say(
                f"the fork at step {dropped.step} is dropped: {self._limits} keeps no more beside that at {fork.step}"
            )

    def _fork(self, facts: Facts, reason: Reason, state: LoopState) -> Fork:
        new = settings_of(facts.optimizers)
        old = self._used if self._used is not None and _same_groups(self._used, new) else new
        weights = Weights.of(facts.model)
        optimizers = [copied(optimizer.state_dict()) for optimizer in facts.optimizers]
        for optimizer, groups in zip(optimizers, old, strict=True):
            for group, settings in zip(optimizer["param_groups"], groups, strict=True):
                group |= settings
        replay = None if self._watch is None else self._watch.replay(state.consumed)
        tracker, loop = copied(state.tracker), copied(state.loop)
        return Fork(
            step=facts.step,
            epoch=facts.epoch,
            reason=reason,
            old_rates=rates_of(old),
            new_rates=rates(facts),
            nbytes=bytes_of(weights.parameters, weights.buffers, optimizers, tracker, loop),
            weights=weights,
            optimizers=tuple(optimizers),
            settings=old,
            generators=GeneratorStates.now(held_generators(self._loader)),
            replay=replay,
            trail=self.trail,
            course=self.course,
            tracker=tracker,
            loop=loop,
            origin=state.origin,
        )

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know: what the rates did; the forks themselves are in no checkpoint."""
        return {"groups": self._detector.state_dict(), "previous": self._previous}

    def load_state_dict(self, memory: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        self._detector.load_state_dict(memory.get("groups", ()))
        self._previous = int(memory.get("previous", -1))


def _rule(schedules: Sequence[Schedule]) -> StepRule:
    """What the run's schedule calls a step, or the default."""
    rules = [rule for schedule in schedules for rule in schedule.step_rules()]
    return rules[0] if rules else OnLearningRateChange().rule


def _same_groups(a: Settings, b: Settings) -> bool:
    return [len(groups) for groups in a] == [len(groups) for groups in b]
