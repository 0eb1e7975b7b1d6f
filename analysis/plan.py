"""``kerneltrack plan``: what a snapshot will cost, and what the kernel at initialisation says, before the run.

The receipt is the plan's arithmetic; seconds, bytes on disk and the spectrum are those of one real measurement, because
a promise about somebody's machine is worth less than one second spent on it.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from torch import nn

from kerneltrack import observables
from kerneltrack.archive import ArchiveWriter
from kerneltrack.errors import TrackerError
from kerneltrack.instrument import Instrument
from kerneltrack.loss import ProbeLoss
from kerneltrack.ntk import Plan, ntk_plan
from kerneltrack.ntk.amounts import format_bytes
from kerneltrack.probe import Probe
from kerneltrack.snapshot import Snapshot
from kerneltrack.undisturbed import undisturbed
from kerneltrack.update_rule import GRADIENT_DESCENT_THRESHOLD, UpdateRule

from .model import model_class


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What ``kerneltrack plan`` says.

    Attributes:
        seconds: of one snapshot, measured once; the first one, so it includes what later ones may reuse.
        memory_bytes: added while the kernel is computed, by the plan.
        disk_bytes: of one snapshot in the archive, without the kernel itself.
        flops: of one kernel, by the plan.
        largest_learning_rate: 2/λ_1(S^½ J Jᵀ S^½): where plain gradient descent on the probe's loss stops being stable
            at initialisation; NaN without a loss.
        condition_number: λ_1 over the smallest eigenvalue above the noise floor.
        layer_shares: each layer's share of the kernel's trace.
    """

    seconds: float
    memory_bytes: int
    disk_bytes: int
    flops: int
    largest_learning_rate: float
    condition_number: float
    layer_shares: dict[str, float]


def run_plan(model: str, probe: Path, as_json: bool = False, *, loss: str | None = None) -> int:
    """Print the receipt and the forecast for ``module:Class``, built without arguments."""
    cls = model_class(model)
    try:
        module: nn.Module = cls()
    except TypeError as error:
        raise TrackerError(
            f"{model} cannot be built without arguments",
            got=str(error),
            remedy="Name a subclass or a function that takes none.",
        ) from error
    measured = Probe.load(probe)
    with undisturbed(module):
        plan, forecast = forecast_snapshot(module, measured, loss)
    if as_json:
        print(json.dumps(_without_nan(asdict(forecast)), indent=2, allow_nan=False))  # noqa: T201  # the output itself
        return 0
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    for line in (*str(plan).splitlines(), "", *_lines(forecast)):
        console.print(line)
    return 0


def forecast_snapshot(module: nn.Module, probe: Probe, loss: str | None) -> tuple[Plan, Forecast]:
    """The plan of the kernel on ``probe``, and the forecast from one measurement of it."""
    instrument = Instrument(
        probe=probe,
        observables=observables.select(["default", "layer_share"]),
        loss=None if loss is None else ProbeLoss.of(loss),  # type: ignore[arg-type]  # checked by ProbeLoss.of
    )
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
                    writer.append(Snapshot(step=step, learning_rates=(1.0,), probes={probe.name: reading.values}))
            sizes.append(path.stat().st_size)
    plan = ntk_plan(module, probe.inputs)
    ratio = reading.state.stability
    shares = reading.state.layer_traces or {}
    return plan, Forecast(
        seconds=seconds,
        memory_bytes=plan.peak_bytes,
        disk_bytes=sizes[1] - sizes[0],
        flops=plan.flops,
        largest_learning_rate=1 / ratio if ratio else math.nan,
        condition_number=float(reading.values["condition_number"]),
        layer_shares={name: trace / sum(shares.values()) for name, trace in shares.items()},
    )


def _lines(forecast: Forecast) -> list[str]:
    rate = forecast.largest_learning_rate
    stable = "not given: name the loss with --loss" if math.isnan(rate) else f"{rate:.4g}"
    return [
        f"one snapshot          {forecast.seconds:.2f} s (measured once), {format_bytes(forecast.memory_bytes)} of memory at "
        f"its peak, {format_bytes(forecast.disk_bytes)} on disk",
        f"largest stable rate   {stable} (plain gradient descent, at initialisation, on the probe)",
        f"condition number      {forecast.condition_number:.4g} (above the noise floor)",
        "share of the trace    " + ", ".join(f"{n or 'root'} {s:.1%}" for n, s in forecast.layer_shares.items()),
    ]


def _without_nan(facts: dict[str, object]) -> dict[str, object]:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in facts.items()}
