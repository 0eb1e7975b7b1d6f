"""``kerneltrack plan``: what a snapshot will cost, and what the kernel at initialisation says, before the run.

The receipt is the plan's arithmetic; seconds, bytes on disk and the spectrum are those of one real measurement, because
a promise about somebody's machine is worth less than one second spent on it.
"""

from __future__ import annotations

import inspect
import json
import math
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn

from kerneltrack.archive import ArchiveWriter
from kerneltrack.errors import TrackerError, one_line
from kerneltrack.formatting import format_bytes
from kerneltrack.measurement import Instrument
from kerneltrack.ntk import Plan
from kerneltrack.snapshot import Snapshot
from kerneltrack.training import GRADIENT_DESCENT_THRESHOLD, UpdateRule
from kerneltrack.undisturbed import undisturbed

from ..text import finite_or_none
from .measuring_options import MeasuringOptions
from .model import Factory, builder, built, called, say
from .rebuild import complete


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What ``kerneltrack plan`` says.

    Attributes:
        seconds: of one snapshot, measured once; the first one, so it includes what later ones may reuse.
        memory_bytes: added while the kernel is computed, by the plan; None where no kernel is formed.
        disk_bytes: of one snapshot in the archive, without the kernel itself.
        flops: of one kernel, by the plan; None where no kernel is formed.
        largest_learning_rate: 2/λ_1(S^½ J Jᵀ S^½): where plain gradient descent on the probe's loss stops being stable
            at initialisation; NaN without a loss.
        condition_number: λ_1 over the smallest eigenvalue above the noise floor; NaN of the leading eigenvalues alone.
        layer_shares: each layer's share of the kernel's trace; empty where no kernel is formed.
    """

    seconds: float
    memory_bytes: int | None
    disk_bytes: int
    flops: int | None
    largest_learning_rate: float
    condition_number: float
    layer_shares: dict[str, float]


def run_plan(
    model: str | None, probe: Path, options: MeasuringOptions, *, factory: str | None = None, as_json: bool = False
) -> int:
    """Print the receipt and the forecast for ``module:Class``, built without arguments, or for what a factory builds."""
    module, left_out = _module(builder(model, factory), model or called(builder(model, factory)))
    instrument = options.instrument(probe)
    with undisturbed(module):
        instrument, reason = options.settled(instrument, module)
        plan, forecast = forecast_snapshot(module, instrument)
    say(left_out)
    say(reason)
    if as_json:
        print(json.dumps(_without_nan(asdict(forecast)), indent=2, allow_nan=False))  # noqa: T201  # the output itself
        return 0
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    for line in (*str(plan).splitlines(), "", *_lines(forecast)):
        console.print(line)
    return 0


def _module(build: Any, name: str) -> tuple[nn.Module, str]:
    """The module as ``track`` builds it where there is no checkpoint, and what was left out."""
    try:
        if not isinstance(build, Factory):  # which is given no hyper-parameters where it takes some
            inspect.signature(build).bind()
    except TypeError as error:
        raise TrackerError(
            f"{name} cannot be built without arguments",
            got=str(error),
            remedy="Name a subclass, or a function that builds it: --factory module:function.",
        ) from error
    except ValueError:
        pass  # a function of C may not say what it takes
    try:
        module = built(build, name)
        return module, complete(module)
    except TrackerError:
        raise
    except Exception as error:  # the module's own code may fail in any way
        raise TrackerError(
            f"{name} cannot be built", got=one_line(error), remedy="The module's own code raised it: mend it there."
        ) from error


def forecast_snapshot(module: nn.Module, instrument: Instrument) -> tuple[Plan, Forecast]:
    """The plan of the kernel on the instrument's probe, and the forecast from one measurement."""
    record = instrument.describe(module)
    began = time.perf_counter()
    # At learning rate 1 the stability ratio is λ_1(S^½ J Jᵀ S^½)/2, the inverse of the largest stable rate.
    unit = UpdateRule((1.0,), dict.fromkeys((n for n, _ in module.named_parameters()), 0), GRADIENT_DESCENT_THRESHOLD)
    reading = instrument.measure(module, unit, step=0, keep_parameters=False)
    seconds = time.perf_counter() - began
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "snapshots.h5"
        sizes = []
        for count in (1, 2):
            with ArchiveWriter(path, probes=[record], if_exists="replace") as writer:
                for step in range(count):
                    writer.append(
                        Snapshot(step=step, learning_rates=(1.0,), probes={instrument.probe.name: reading.values})
                    )
            sizes.append(path.stat().st_size)
    plan, formed = instrument.plan(module), reading.state.kernel is not None
    ratio = reading.state.stability
    shares = reading.state.layer_traces or {}
    return plan, Forecast(
        seconds=seconds,
        memory_bytes=plan.peak_bytes if formed else None,
        disk_bytes=sizes[1] - sizes[0],
        flops=plan.flops if formed else None,
        largest_learning_rate=1 / ratio if ratio else math.nan,
        condition_number=float(reading.values.get("condition_number", math.nan)),
        layer_shares={name: trace / sum(shares.values()) for name, trace in shares.items()},
    )


def _lines(forecast: Forecast) -> list[str]:
    rate, condition, memory = forecast.largest_learning_rate, forecast.condition_number, forecast.memory_bytes
    held = "no kernel formed" if memory is None else f"{format_bytes(memory)} of memory at its peak"
    stable = "not given: name the loss with --loss" if math.isnan(rate) else f"{rate:.4g}"
    lines = [
        f"one snapshot          {forecast.seconds:.2f} s (measured once), {held}, {format_bytes(forecast.disk_bytes)} on disk",
        f"largest stable rate   {stable} (plain gradient descent, at initialisation, on the probe)",
    ]
    if not math.isnan(condition):
        lines.append(f"condition number      {condition:.4g} (above the noise floor)")
    if forecast.layer_shares:
        shares = (f"{name or 'root'} {share:.1%}" for name, share in forecast.layer_shares.items())
        lines.append(f"share of the trace    {', '.join(shares)}")
    return lines


def _without_nan(facts: dict[str, object]) -> dict[str, object]:
    return {k: finite_or_none(v) if isinstance(v, float) else v for k, v in facts.items()}
