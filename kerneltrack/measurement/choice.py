"""Choice: which kernel is measured where a run leaves it open, ``output="auto"`` and ``gauge="auto"``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kerneltrack.conventions import Gauge, GaugeChoice
from kerneltrack.errors import TrackerError
from kerneltrack.ntk import Output
from kerneltrack.training import ProbeLoss

OutputChoice = Output | Literal["auto"]
#: Rows of a full kernel up to which it is the choice: a float64 eigensystem of so many takes about a third of a second.
FULL_ROWS = 1024
_CROSS_ENTROPY = "cross_entropy"


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Attributes:
        output: the reduction.
        gauge: "raw" or "softmax".
        reason: what was left open and why it is this, for one line; "" where nothing was.
    """

    output: Output
    gauge: Gauge
    reason: str = ""


def choose(output: OutputChoice, gauge: GaugeChoice, loss: ProbeLoss | None, *, points: int, outputs: int) -> Choice:
    """The kernel of a run.

    Args:
        output: as asked for; "auto" is "full" for one output and up to :data:`FULL_ROWS` rows, else "trace".
        gauge: as asked for; "auto" is "softmax" for a cross-entropy of several outputs, else "raw". A callable loss and a
            callable output are never changed.
        loss: on the probe.
        points: N, of the largest probe.
        outputs: O.

    Raises:
        TrackerError: a kernel that says nothing under this loss, or a gauge that the loss does not have.
    """
    softmax = loss is not None and loss.name == _CROSS_ENTROPY and outputs > 1
    _refuse(output, gauge, loss, softmax, outputs)
    found: Gauge = "softmax" if gauge == "softmax" or (gauge == "auto" and softmax and not callable(output)) else "raw"
    said = (
        [] if gauge != "auto" or found == "raw" else ['gauge="softmax" (the loss ignores what is added to all outputs)']
    )
    if callable(output) or output != "auto":
        return Choice(output, found, "; ".join(said))
    full = outputs == 1 or points * outputs <= FULL_ROWS
    rows = f"{points} points × {outputs} output{'s' * (outputs > 1)}"
    why = f"{rows}, up to {FULL_ROWS} rows" if full else f"{rows} are more than {FULL_ROWS} rows"
    named: Literal["full", "trace"] = "full" if full else "trace"
    return Choice(named, found, "; ".join([f'output="{named}" ({why})', *said]))


def _refuse(output: OutputChoice, gauge: GaugeChoice, loss: ProbeLoss | None, softmax: bool, outputs: int) -> None:
    if output == "sum" and (softmax or gauge == "softmax") and outputs > 1:
        raise TrackerError(
            'output="sum" under a softmax loss',
            expected="outputs in which softmax sees a difference",
            got="Σ_o f_o, which any function added to all outputs changes and softmax does not see",
            remedy='Ask for output="trace", "diagonal" or "full".',
        )
    if gauge != "softmax":
        return
    if callable(output):
        raise TrackerError(
            'gauge="softmax" with a callable output=',
            expected="a reduction by name; a callable is of the outputs as they are",
            remedy="Take the gauge off in the callable, as in lambda f: g(f - f.mean()), and leave gauge= away.",
        )
    if outputs == 1 or (loss is not None and loss.mean is None and not softmax):
        raise TrackerError(
            f'gauge="softmax" {"of one output" if outputs == 1 else f"with loss={loss.name!r}" if loss else ""}',
            expected="a loss that ignores one function added to all of several outputs",
            remedy='gauge="auto" takes it off where the loss ignores it.',
        )
