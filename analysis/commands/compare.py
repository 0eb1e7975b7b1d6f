"""``kerneltrack compare``: runs side by side at common positions, or swept over a number of their metadata."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..comparison import compare, defaults, group_tables, sweep, sweep_table, tables
from ..output import print_json, print_tables
from ..trajectory import Trajectory, controls_beside, load

if TYPE_CHECKING:
    from ..figures import Format


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the user asked of a comparison.

    Attributes:
        archives: of the runs.
        quantities: what is compared; empty: the defaults.
        probe: through which the runs are looked at; None: the first.
        output: the figure to write, or None.
        style: its look.
        kind: its format, where it goes to a pipe.
        as_json: whether numbers are printed as JSON.
    """

    archives: Sequence[Path]
    quantities: Sequence[str] = ()
    probe: str | None = None
    output: Path | None = None
    style: str = "paper"
    kind: Format | None = None
    as_json: bool = False

    def runs(self) -> Trajectory:
        """The runs, once it is known that the figure can be written."""
        if self.output is not None:
            from ..figures import format_of

            format_of(self.output, self.kind)
        return load(self.archives, probe=self.probe)

    def runs_with_controls(self) -> Trajectory:
        """The same; of one run alone its controls too."""
        found = self.runs()
        return found if len(found) > 1 else Trajectory((*found, *controls_beside(found[0])))


def run_compare(
    asked: Asked, *, by: Literal["step", "epoch", "samples", "flow_time", "loss"], group: str | None
) -> None:
    """Align runs and draw, print or tabulate them.

    Raises:
        AnalysisError: the runs are not comparable, or do not hold what is asked for.
        OutputError: nothing may be written at ``output``.
    """
    runs = asked.runs_with_controls() if group is None else asked.runs()
    found = compare(runs, by=by, quantities=asked.quantities)
    if asked.output is not None:
        from ..figures import save_runs

        save_runs(found, asked.output, asked.style, group=group, kind=asked.kind)
    elif asked.as_json:
        print_json(found.to_dict())
    else:
        print_tables(tables(found) if group is None else group_tables(found, group))


def run_sweep(asked: Asked, against: str, *, at: int | None) -> None:
    """Values over the number ``against`` of the metadata, with slopes: drawn, printed or tabulated. Errors as above."""
    runs = asked.runs()
    found = sweep(runs, against, list(asked.quantities) or defaults(runs), at=at)
    if asked.output is not None:
        from ..figures import save_sweep

        save_sweep(found, asked.output, asked.style, kind=asked.kind)
    elif asked.as_json:
        print_json([one.to_dict() for one in found])
    else:
        print_tables([sweep_table(found)])
