"""SteppedRun: a tracked run whose optimizers say themselves that they step, where nobody else does at that moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch.optim import Optimizer

from kerneltrack.schedule import Due
from kerneltrack.tracking.facts import Facts, has_gradient
from kerneltrack.tracking.foreign_weights import LeftWeights
from kerneltrack.tracking.gradient_changes import CHANGED, GradientChanges
from kerneltrack.tracking.gradient_clipping import Bound
from kerneltrack.tracking.options import Options
from kerneltrack.tracking.tracked_run import TrackedRun
from kerneltrack.training import Clipping, learning_rates


class SteppedRun(TrackedRun):
    """A run that listens to its optimizers: how often they step in an update, at which rates, on gradients clipped by how much.

    :meth:`_listen` comes before the first update, :meth:`_new_update` once the state at the beginning of one was measured,
    :meth:`_update_ends` after it, :meth:`_fall_silent` at the end.

    Args:
        options: checked.
    """

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._hooks: list[Any] | None = None  # on the optimizers' steps, while this listens
        self._gradients = GradientChanges()

    def _forget(self) -> None:
        super()._forget()
        self._weights = LeftWeights()

    def _listen(self, optimizers: Sequence[Optimizer], bound: Bound | None) -> None:
        """Be told of every step that these make; ``bound`` is at which their gradients are clipped."""
        self._listened, self._bound = list(optimizers), bound
        self._hooks = [o.register_step_pre_hook(self._step_begins) for o in optimizers]
        self._hooks += [o.register_step_post_hook(self._step_ends) for o in optimizers]
        self._new_update()

    def _fall_silent(self) -> None:
        """Listen no longer; safe to call again."""
        for hook in self._hooks or ():
            hook.remove()
        self._hooks = None
        self._gradients.release()

    def _new_update(self) -> None:
        self._steps, self._applied = 0, False
        self._told_norm: float | None = None
        # Of several processes each averages its gradients with the others' after its backward pass.
        if self._waits and self._bound is None and self._ranks.alone:
            self._gradients.watch(self._listened)

    def _update_ends(self, facts: Facts) -> None:
        self._gradients.release()
        self._weights.after_update(facts.model)

    def _measure(self, facts: Facts, due: Mapping[str, Due], *, last: bool = False, remark: str = "") -> None:
        super()._measure(facts, due, last=last, remark=remark or self._weights.remark(facts.model))

    def _step_begins(self, optimizer: Optimizer, *_: Any) -> None:
        if self._waits:
            self._rates = learning_rates(self._listened)
            if self._gradients.found(optimizer):
                self._clipping = Clipping(None, CHANGED)
            self._look_at_gradients(optimizer)

    def _step_ends(self, optimizer: Optimizer, *_: Any) -> None:
        self._steps += 1
        if self._waits:
            self._look_at_gradients(optimizer)

    def _look_at_gradients(self, optimizer: Optimizer) -> None:
        """What a step uses: there before it, or, where it is given a closure, after it."""
        # A fused optimizer steps where a gradient scaler skips, too, and looks at this itself.
        found_inf = getattr(optimizer, "found_inf", None)
        graded = has_gradient(optimizer)
        self._applied |= graded and not (found_inf is not None and bool(found_inf))
        clips = self._clipping
        if self._bound is not None and graded:
            clips = self._bound.done_to(optimizer, self._told_norm)
        self._at_step(self._rates, clips)
