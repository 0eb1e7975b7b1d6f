"""Options: what every tracker is given, whatever runs the loop; checked as a whole when the tracker is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from kerneltrack.archive import IfExists
from kerneltrack.conventions import GaugeChoice
from kerneltrack.measurement import KeepKernel, OnError
from kerneltrack.ntk import Method
from kerneltrack.snapshot import Json
from kerneltrack.tracking import arguments, schedules
from kerneltrack.tracking.fork_limits import ForkLimits
from kerneltrack.tracking.measured import Measured


@dataclass(frozen=True, kw_only=True)
class Options:
    """Checked arguments: what is measured, where it is written, and what is said.

    Attributes:
        archive: the file to write.
        measured: what a row means.
        split: batch → (inputs, targets), or None for pairs.
        keep_kernel: which snapshots store the kernel itself.
        on_error: whether what cannot be measured ends the training.
        if_exists: whether another run's archive is replaced.
        metadata: what comparisons group by.
        log: whether anything is said and logged.
        keep_inputs: whether the archive has the probe's inputs.
        max_overhead: the share of wall time that measuring may take.
        forks: how many states to go on from are kept, or None.
        fork_at: steps that are such states whatever the rates do.
    """

    archive: Path
    measured: Measured
    split: Callable[[Any], tuple[Any, Any]] | None
    keep_kernel: KeepKernel
    on_error: OnError
    if_exists: IfExists
    metadata: dict[str, Json]
    log: bool
    keep_inputs: bool
    max_overhead: float | None
    forks: ForkLimits | None = None
    fork_at: tuple[int, ...] = ()

    @classmethod
    def checked(cls, **given: Any) -> Options:
        """The options of these arguments, by the tracker's names for them; all are needed.

        Raises:
            TrackerError, ScheduleError, ObservableError, ProbeError: a wrong argument.
        """
        path = arguments.archive(given["archive"])
        measured = _measured(given)
        fork_at = arguments.steps("fork_at", given["fork_at"])
        return cls(
            archive=path,
            measured=measured,
            split=arguments.function("split", given["split"], "batch -> (inputs, targets)"),
            keep_kernel=arguments.choice("keep_kernel", given["keep_kernel"], get_args(KeepKernel)),
            on_error=arguments.choice("on_error", given["on_error"], get_args(OnError)),
            if_exists=arguments.choice("if_exists", given["if_exists"], get_args(IfExists)),
            metadata=arguments.metadata(given["metadata"]),
            log=arguments.flag("log", given["log"]),
            keep_inputs=arguments.flag("keep_inputs", given["keep_inputs"]),
            max_overhead=schedules.overhead(given["max_overhead"], measured.schedule),
            forks=arguments.forks(given["keep_forks"], fork_at),
            fork_at=fork_at,
        )


def _measured(given: dict[str, Any]) -> Measured:
    probes = arguments.probe(given["probe"])
    top_k = given["top_k"]
    return Measured(
        schedule=schedules.schedule(given["schedule"], probes),
        probe=probes,
        probe_seed=arguments.number("probe_seed", given["probe_seed"], least=0, remedy="0 is the default."),
        observables=arguments.observables(given["observables"]),
        output=arguments.output(given["output"]),
        gauge=arguments.choice("gauge", given["gauge"], get_args(GaugeChoice)),
        top_k=arguments.number("top_k", top_k, least=0, remedy="64 is the default; 0 stores no eigenvectors."),
        loss=arguments.loss(given["loss"]),
        method=arguments.choice("method", given["method"], get_args(Method)),
        forward=arguments.function("forward", given["forward"], "(model, inputs) -> outputs"),
        params=arguments.params(given["params"]),
        memory_budget=arguments.memory_budget(given["memory_budget"]),
        eigenpairs=arguments.eigenpairs(given["eigenpairs"], top_k),
    )
